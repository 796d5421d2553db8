"""The command as a person meets it, and what README and configs promise."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from altdiffusion.text.encoder import build_student, save_text_encoder
from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.fixtures import Command, Subject, succeeded


class TestCommand(conformance.Command):
    verbs = "demo train-text evaluate-retrieval features train export generate evaluate info"
    mistakes = [
        (
            {"text_encoder": "{encoder}"},
            "is a xlm-roberta, not a trained AltCLIP text encoder",
        ),
        ({"text_encoder": "{tmp}/nowhere"}, "nowhere"),
        ({"unet": "{tmp}/nowhere"}, "no folder .*nowhere: give --unet the pipeline that"),
        ({"unet": "{tmp}/empty"}, "empty"),
        ({"stage": "alignment"}, "stage.*concept_alignment.*quality_improvement.*gui"),
        ({"lora_rank": 2, "stage": "guidance_tuning"}, "lora_rank is for concept alignment"),
        ({"deepspeed_config": "{tmp}/zero3.json", "use_ema": "true"}, "at ZeRO stage 3 no process"),
        (
            {"deepspeed_config": "{tmp}/zero3.json", "validation_prompts": "Haus"},
            "at ZeRO stage 3 no process holds whole weights to draw with",
        ),
    ]
    nan_parts = "parallel nan, native nan"
    disk_mb = 2
    disk_slack = 8_000
    config = "altdiffusion.json"
    pickle = "(unet|text_encoder).*safetensors"
    other_base = ("sdxl", "is a whole pipeline, made of")
    # keys and values of four layers of cross-attention: down 8, mid 16, up 8 and 8
    num_trainable = 2 * 16 * (8 + 16 + 8 + 8)

    def test_the_judge_takes_the_bases_of_worlds_alone(
        self, command: Command, exported: Path, tmp_path: Path
    ) -> None:
        settings = {"adapters": exported, "output_dir": tmp_path, "languages": ["en", "de"]}
        line = refusal(command("evaluate", **settings))
        assert "text accuracy is judged on the base of a world (" in line and "testbed:" in line
        assert "adapters is empty" in refusal(command("evaluate", **{**settings, "adapters": []}))

    def test_a_full_disk_costs_nothing_that_was_saved(
        self, subject: Subject, command: Command, recipe: dict[str, Any], small_disk: Path
    ) -> None:
        """Nor does an export that no longer finds room."""
        super().test_a_full_disk_costs_nothing_that_was_saved(subject, command, recipe, small_disk)
        run, ballast = small_disk / "run", small_disk / "ballast"
        ballast.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - 20_000))
        line = refusal(command("export", checkpoint=run, output_dir=run / "pipeline"))
        assert "the disk is full" in line and "the earlier one is intact" in line
        assert (run / "pipeline" / "model_index.json").is_file()


class TestPages(conformance.Pages):
    pages = ("README.md", "MEMORY.md")
    runs = {"altdiffusion --help": "", "altdiffusion info": ""}


@pytest.mark.parametrize("verb", ["features", "train", "info"])
def test_a_base_that_does_not_suit_is_refused_before_any_work(
    command: Command,
    parts: dict[str, Any],
    encoder: str,
    sdxl: str,
    pixart: str,
    shards: str,
    tmp_path: Path,
    verb: str,
) -> None:
    save_text_encoder(build_student(encoder, 20), tmp_path / "wide")
    settings = {
        "features": {**parts, "shards": shards, "features_dir": tmp_path / "features"},
        "train": {**parts, "train_data": shards, "output_dir": tmp_path / "run"},
        "info": parts,
    }[verb]
    line = refusal(command(verb, **{**settings, "text_encoder": tmp_path / "wide"}))
    assert "gives states of width 20, and this base's UNet takes width 16: train the stud" in line
    for base, reason in ((sdxl, "with a pooled vector"), (pixart, "under a mask")):
        line = refusal(command(verb, **{**settings, "pretrained_model_name_or_path": base}))
        assert f"{reason} (family " in line and "choose a Stable Diffusion 1.x or 2.x" in line
    assert not (tmp_path / "features" / "index.json").exists()


def test_features_of_a_retrained_text_encoder_are_stale(
    command: Command, recipe: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(recipe["text_encoder"], tmp_path / "student")
    path = tmp_path / "student" / "model.safetensors"
    state = load_file(path)
    state["transformation.bias"] += 1
    save_file(state, path, metadata={"format": "pt"})
    settings = {**recipe, "text_encoder": tmp_path / "student"}
    line = refusal(command("train", **settings, output_dir=tmp_path / "run"))
    assert "are stale: text_encoder was" in line


def test_generate_needs_an_exported_pipeline(command: Command, sd: str) -> None:
    line = refusal(command("generate", prompt="ein Haus", adapter=sd))
    assert "no altdiffusion.json in" in line


def test_a_pipeline_whose_text_encoder_has_renamed_layers_is_refused_or_read_but_never_random(
    command: Command, exported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(exported, folder)
    (folder / "crosslingual.json").unlink()  # as in a pipeline that another program saved
    path = folder / "text_encoder" / "model.safetensors"
    state = load_file(path)
    renamed = {name.replace("encoder.layers.", "encoder.blocks."): t for name, t in state.items()}
    save_file(renamed, path, metadata={"format": "pt"})
    line = refusal(command("generate", prompt="ein Haus", adapter=folder))
    assert "its layers would be random, so it is not used" in line


def test_info_counts_the_whole_unet_and_a_text_encoder_that_is_not_there_yet(
    command: Command, recipe: dict[str, Any], encoder: str
) -> None:
    whole = {**recipe, "stage": "quality_improvement"}
    there = succeeded(command("info", **whole))["stdout"][0]
    assert "UNet, frozen" not in there
    absent = succeeded(command("info", **{**whole, "text_encoder": "nowhere"}, starts_from=encoder))
    row = re.compile(r"^text encoder .*", re.MULTILINE)
    assert row.search(absent["stdout"][0])[0] == row.search(there)[0]
    line = refusal(command("info", **{**whole, "text_encoder": "nowhere"}))
    assert "starts_from" in line and "altdiffusion train-text" in line


@pytest.mark.parametrize("name", ["m9_sd15_concept_alignment", "m18_sd21_text"])
def test_the_page_of_memory_says_what_the_command_says(
    command: Command, subject: Subject, name: str
) -> None:
    page = (subject.folder / "MEMORY.md").read_text(encoding="utf-8")
    told = succeeded(command("info", config=subject.folder / "configs" / f"{name}.yaml"))
    section = page.split(f"## {name}\n", 1)[1].split("\n## ")[0]
    assert told["stdout"][0].strip() in section


@pytest.mark.parametrize(("name", "count"), [("m9_sd15", "19,169,280"), ("m18_sd21", "25,559,040")])
def test_published_sizes_are_what_the_configs_train(
    command: Command, subject: Subject, name: str, count: str
) -> None:
    config = subject.folder / "configs" / f"{name}_concept_alignment.yaml"
    told = succeeded(command("info", config=config))["stdout"][0]
    assert re.search(rf"^UNet \(trains\) +{count} ", told, re.MULTILINE)
