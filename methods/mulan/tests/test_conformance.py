"""What every method promises of its training, for MuLan, and its other forms: captions alone, and
the seed's, to which languages are added.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from crosslingual.data.shards import write_shards
from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.conformance.training import files_of, rows
from crosslingual_worlds.testing.fixtures import Command, succeeded
from crosslingual_worlds.testing.miniatures import parallel_record

LEARNING = {"learning_rate": 2e-2, "validation_prompts": ["house 3"], "guidance_scale": 2.0}


class TestFamilies(conformance.Families):
    changes = {
        "sd3": {"num_queries": 20, "query_width": 8},
        "flux": {"pool": "attention"},
        "sana": {"english_states": False},
        "sdxl": {"replace_add_embedding": True},
        "pixart": {"english_states": False},
        "pixart_sigma": {"english_states": False},
    }


class TestTraining(conformance.Training):
    golden = (2.2457943, 2.4556909, 1.993318, 2.0361452, 1.5352466, 1.650924)
    learns = ({**LEARNING, "alignment": "image"}, {**LEARNING, "alignment": "language"})
    averages = True
    num_trainable = 8480

    def comparable(self, name: str, tensor: Tensor) -> Tensor | None:
        """All but the biases of attention's keys, which shift all scores of a query alike: their
        gradient is rounding, of which Adam makes whole steps.
        """
        if name.endswith("in_proj_bias"):
            return torch.cat(tensor.chunk(3)[::2])
        return tensor


def adapter_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def test_captions_alone_train_language_alignment_in_any_languages(
    command: Command, recipe: dict[str, Any], tmp_path: Path
) -> None:
    """Shards without pictures; the English states are taught in English and in German."""
    write_shards((parallel_record(number, None) for number in range(12)), tmp_path / "shards")
    settings = {**recipe, "alignment": "language", "languages": ["en", "de"]}
    settings |= {"train_data": tmp_path / "shards", "max_train_steps": 2}
    succeeded(command("train", output_dir=tmp_path / "run", **settings))
    assert [{"loss", "language"} <= row.keys() for row in rows(tmp_path / "run")] == [True, True]


def test_a_language_added_later_leaves_the_others_bit_by_bit(
    command: Command, recipe: dict[str, Any], shards: str, tmp_path: Path
) -> None:
    """The seed's form: French after English and German, whose weights no optimiser sees; two ranks
    whose batches hold different languages get one gradient.
    """
    seed = {**recipe, "variant": "seed", "train_data": shards, "max_train_steps": 2}
    first = {**seed, "languages": ["en", "de"], "train_batch_size": 1}
    zero_1 = tmp_path / "ds.json"
    zero_1.write_text('{"zero_optimization": {"stage": 1}}')
    runs = {}
    for name, world_size, options in (
        ("one", 1, {"gradient_accumulation_steps": 4}),
        ("two", 2, {"gradient_accumulation_steps": 2, "deepspeed_config": zero_1}),
    ):
        runs[name] = tmp_path / name
        settings = {**first, **options, "output_dir": runs[name]}
        succeeded(command("train", {"world_size": world_size}, **settings))
    before = adapter_of(runs["one"] / "adapter")
    for key, tensor in adapter_of(runs["two"] / "adapter").items():
        torch.testing.assert_close(tensor, before[key], atol=1e-5, rtol=1e-4)
    added = {**seed, "languages": ["fr"], "init_adapter": runs["one"] / "adapter"}
    added |= {"train_batch_size": 4, "use_ema": True, "output_dir": tmp_path / "added"}
    succeeded(command("train", **added))
    after = adapter_of(tmp_path / "added" / "adapter")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    new = {name for name in after if name.startswith("languages.2.")}
    assert len(new) == 4 and len(after) == len(before) + 4
    config = json.loads((tmp_path / "added" / "adapter" / "config.json").read_text())
    assert config["languages"] == ["en", "de", "fr"]
    path = tmp_path / "added" / "checkpoint-2" / "deepspeed" / "mp_rank_00_model_states.pt"
    assert set(torch.load(path)["module"]) == new, "the checkpoint holds what trains"
    succeeded(command("export", checkpoint=tmp_path / "added", output_dir=tmp_path / "exported"))
    assert files_of(tmp_path / "exported") == files_of(tmp_path / "added" / "adapter")


def test_a_published_adapter_is_gone_on_with(
    command: Command, recipe: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    """As from 512 to 1024 pixels: with a learning rate of 0 it is what it was."""
    settings = {**recipe, "init_adapter": whole / "adapter", "learning_rate": 0.0}
    settings |= {"lr_scheduler": "constant", "max_train_steps": 1, "output_dir": tmp_path / "run"}
    succeeded(command("train", **settings))
    before = adapter_of(whole / "adapter")
    after = adapter_of(tmp_path / "run" / "adapter")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    settings |= {"num_queries": 9, "output_dir": tmp_path / "other"}
    assert "has num_queries 16 and this run 9" in refusal(command("train", **settings))
