"""The command as a person meets it."""

from pathlib import Path
from typing import Any

from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.fixtures import Command


class TestCommand(conformance.Command):
    verbs = "demo features train export import merge generate evaluate info"
    nan_parts = "native nan, output nan, feature nan"
    other_base = ("sdxl", "use the adapter's base")
    num_trainable = 2 * 12 + 12 * 24 + 24 * 24 + 24 * 16

    def test_the_seeds_form_has_no_pooled_vector_for_sdxl(
        self,
        command: Command,
        parts: dict[str, Any],
        sdxl: str,
        shards: str,
        tmp_path: Path,
    ) -> None:
        settings = {
            **parts,
            "pretrained_model_name_or_path": sdxl,
            "train_data": shards,
        }
        settings |= {
            "variant": "seed",
            "train_batch_size": 4,
            "output_dir": tmp_path / "run",
        }
        assert "use variant published" in refusal(command("train", **settings))


class TestPages(conformance.Pages):
    """Of PEA, and those of the repository, whose example is PEA."""

    pages = ("README.md", "../../README.md", "../../CONTRIBUTING.md")
    runs = {
        "pea info": "",
        "pea --help": "",
        "crosslingual shards --source world": "--num_samples 8",
        "pea features --shards data/shards": "--encode_batch_size 4",
        "pea train --train_data data/features": "--max_train_steps 2 --train_batch_size 2",
        "pea generate --adapter runs/pea/adapter": "--num_inference_steps 2",
    }
    skips = {
        "../../CONTRIBUTING.md": {
            "python3.11 -m venv": "makes an environment",
            ". .venv": "enters it",
            "pre-commit install": "changes the repository's hooks",
            "pip install -e 'methods/mymethod[test]'": "the method that new_method.py has made",
            "pytest methods/mymethod": "likewise",
        }
    }
