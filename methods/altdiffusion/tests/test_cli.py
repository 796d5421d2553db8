"""The command as a person meets it: what it prints, and what their mistakes cost them: one line,
exit code 2, nothing lost.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

Alt = Callable[..., dict[str, Any]]

HELP = """
import sys, time
from altdiffusion.cli import main
sys.argv = ["altdiffusion", "--help"]
assert main() == 0
assert not {"torch", "numpy", "jsonargparse"} & set(sys.modules), "help pays for nothing"
print("seconds", time.process_time())
import altdiffusion.method
heavy = {"deepspeed", "diffusers", "transformers", "PIL"}
assert not heavy & set(sys.modules), "the paper needs torch alone"
"""
VERBS = (
    "demo train-text evaluate-retrieval features train export generate evaluate info memory".split()
)


def refusal(answer: dict[str, Any]) -> str:
    """The one line that a refused command prints."""
    assert answer["codes"] == [2], answer
    line = answer["stderr"][0]
    assert line.startswith("error: ") and line.count("\n") == 1, line
    return line


def test_help_answers_within_a_second_and_the_paper_needs_torch_alone() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"seconds ([\d.]+)", done.stdout)[1]) < 1.0
    for verb in VERBS:
        assert re.search(rf"^  {verb} +\w", done.stdout, re.MULTILINE)


def test_names_that_do_not_exist_are_answered_with_the_nearest(
    alt: Alt, recipe: dict[str, Any], tmp_path: Path
) -> None:
    assert "did you mean 'train'?" in refusal(alt("trian"))
    line = refusal(alt("train", learning_rat=1e-3))
    assert line == "error: unknown setting 'learning_rat'; did you mean 'learning_rate'?\n"
    config = tmp_path / "ds.json"
    config.write_text('{"zero_optimisation": {"stage": 1}}')
    line = refusal(alt("train", **recipe, deepspeed_config=config, output_dir=tmp_path / "run"))
    assert "unknown DeepSpeed key 'zero_optimisation'; did you mean 'zero_optimization'?" in line
    assert "no config file" in refusal(alt("train", config=tmp_path / "no.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_data": "null"}, "train_data|null"),
        ({"train_data": "{tmp}/nowhere"}, "nowhere"),
        ({"languages": []}, "languages is not set"),
        ({"languages": ["de"]}, r"are stale: languages was \['en', 'de', 'fr'\] and is \['de'\]"),
        ({"resolution": 64}, "are stale: resolution was 32 and is 64"),
        ({"max_length": 8}, "are stale: max_length was 16 and is 8"),
        ({"train_data": "{shards}", "languages": ["ja"]}, "no caption in any language that trains"),
        ({"text_encoder": "{encoder}"}, "is a xlm-roberta, not a trained AltCLIP text encoder"),
        ({"text_encoder": "{tmp}/nowhere"}, "nowhere"),
        ({"unet": "{tmp}/nowhere"}, "no folder .*nowhere: give the pipeline that the former stage"),
        ({"unet": "{tmp}/empty"}, "empty"),
        ({"stage": "alignment"}, "'stage' must be concept_alignment or quality_improvement or gui"),
        ({"lora_rank": 2, "stage": "guidance_tuning"}, "lora_rank is for concept alignment"),
        ({"resume_from_checkpoint": "latest"}, "no checkpoint in .*; leave out --resume_from"),
        ({"resume_from_checkpoint": "{tmp}/checkpoint-7"}, "no checkpoint .*checkpoint-7; give a"),
        ({"train_batch_size": 25}, "24 samples in .* do not fill one batch"),
        ({"pretrained_model_name_or_path": "{tmp}/empty"}, "empty"),
        ({"lr_scheduler": "polinomial"}, "unknown lr_scheduler 'polinomial'; there are linear"),
        ({"mixed_precision": "fp16"}, "mixed_precision"),
        ({"deepspeed_config": "{tmp}/three.json", "use_ema": "true"}, "at ZeRO stage 3 no process"),
    ],
)
def test_mistakes_in_training_are_one_line(
    alt: Alt,
    recipe: dict[str, Any],
    shards: str,
    encoder: str,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "three.json").write_text('{"zero_optimization": {"stage": 3}}')
    places = {"tmp": tmp_path, "shards": shards, "encoder": encoder}
    changes = {
        name: value.format(**places) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    line = refusal(alt("train", **{**recipe, **changes}, output_dir=tmp_path / "run"))
    assert re.search(message, line), line
    assert not list(tmp_path.glob("run/checkpoint-*"))


def test_a_text_encoder_of_another_width_is_refused_before_anything_is_trained(
    alt: Alt, recipe: dict[str, Any], encoder: str, shards: str, tmp_path: Path
) -> None:
    from altdiffusion.text_encoder import build_student, save_text_encoder

    save_text_encoder(build_student(encoder, 20), tmp_path / "wide")
    settings = {**recipe, "text_encoder": tmp_path / "wide", "train_data": shards}
    line = refusal(alt("train", **settings, output_dir=tmp_path / "run"))
    assert "gives states of width 20, and this base's UNet takes width 16: train the stud" in line


def test_features_of_an_empty_folder_or_of_other_shards_are_refused(
    alt: Alt, parts: dict[str, Any], shards: str, features: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"shards": tmp_path / "empty", "features_dir": tmp_path / "features"}
    assert "empty" in refusal(alt("features", **places, **parts))
    others = {"shards": shards, "features_dir": features, "encode_batch_size": 4}
    assert "are stale: batch_size was 8 and is 4" in refusal(alt("features", **others, **parts))
    assert "needs --shards" in refusal(alt("features", **parts))


def test_features_of_a_retrained_text_encoder_are_stale(
    alt: Alt, recipe: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(recipe["text_encoder"], tmp_path / "student")
    path = tmp_path / "student" / "model.safetensors"
    state = load_file(path)
    state["transformation.bias"] += 1
    save_file(state, path, metadata={"format": "pt"})
    settings = {**recipe, "text_encoder": tmp_path / "student"}
    line = refusal(alt("train", **settings, output_dir=tmp_path / "run"))
    assert "are stale: text_encoder was" in line


def test_a_loss_that_is_no_number_names_the_step_the_samples_and_the_parts(
    alt: Alt, recipe: dict[str, Any], features: str, tmp_path: Path
) -> None:
    spoilt = tmp_path / "features"
    shutil.copytree(features, spoilt)
    block = spoilt / "block-00000.safetensors"
    arrays = load_file(block)
    with safe_open(block, "pt") as file:
        metadata = file.metadata()
    arrays["latent_mean"][7] = float("nan")
    save_file(arrays, block, metadata=metadata)
    line = refusal(alt("train", **{**recipe, "train_data": spoilt}, output_dir=tmp_path / "run"))
    found = re.search(
        r"the loss of step (\d) is nan \(parallel nan, native nan\) on samples ([\d, ]+);", line
    )
    recorded = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert int(found[1]) == len(recorded) + 1
    samples = found[2].split(", ")
    assert len(samples) == 4 and json.loads(metadata["keys"])[7] in samples


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 2 MB, which is full when the test has filled it."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_nothing_that_was_saved(
    alt: Alt, recipe: dict[str, Any], small_disk: Path
) -> None:
    run, ballast = small_disk / "run", small_disk / "ballast"
    killed = alt("train", {"die": [3]}, output_dir=run, **recipe)
    assert killed["codes"] == [-9]
    ballast.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - 8_000))
    again = {**recipe, "output_dir": run, "resume_from_checkpoint": "latest"}
    line = refusal(alt("train", **again))
    assert line.startswith("error: the disk is full: ") and "checkpoint-2 is intact" in line
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2"]
    ballast.unlink()
    resumed = alt("train", **again)
    assert resumed["codes"] == [0], resumed["stderr"]
    steps = [json.loads(row)["step"] for row in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    ballast.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - 20_000))
    line = refusal(alt("export", checkpoint=run, output_dir=run / "pipeline"))
    assert "the disk is full" in line and "the earlier one is intact" in line
    assert (run / "pipeline" / "model_index.json").is_file()


@pytest.fixture(scope="module")
def pipeline(alt: Alt, recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    answer = alt("train", output_dir=run, **{**recipe, "max_train_steps": 1})
    assert answer["codes"] == [0], answer["stderr"]
    return run / "pipeline"


def test_a_run_goes_only_where_no_other_run_is(
    alt: Alt, recipe: dict[str, Any], pipeline: Path, tmp_path: Path
) -> None:
    line = refusal(alt("train", output_dir=pipeline.parent, **recipe))
    assert "holds checkpoint-1 of another run; add --resume_from_checkpoint latest" in line
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    line = refusal(alt("export", checkpoint=pipeline.parent, output_dir=tmp_path / "mine"))
    assert "holds something other than a model; choose another folder" in line
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    line = refusal(alt("export", checkpoint=tmp_path / "mine", output_dir=tmp_path / "out"))
    assert "no settings.yaml in" in line


def test_generate_writes_pictures_and_what_they_are(
    alt: Alt, pipeline: Path, sd: str, tmp_path: Path
) -> None:
    settings = {"prompt": ["ein Haus", "maison"], "num_inference_steps": 2, "adapter": pipeline}
    answer = alt("generate", output_dir=tmp_path / "pictures", **settings)
    assert answer["codes"] == [0], answer["stderr"]
    for number, prompt in enumerate(settings["prompt"]):
        folder = tmp_path / "pictures" / f"{number:05d}"
        assert Image.open(folder / "samples" / "0000.png").size == (32, 32)
        assert json.loads((folder / "metadata.jsonl").read_text())["prompt"] == prompt
    line = refusal(alt("generate", pretrained_model_name_or_path="testbed:sd", **settings))
    assert "is a whole pipeline, made of" in line
    line = refusal(alt("generate", prompt="ein Haus", adapter=sd))
    assert "no exported pipeline in" in line


def test_pickles_are_not_opened(alt: Alt, pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(pipeline, folder)
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        path = folder / part / f"{name}.safetensors"
        state = load_file(path)
        path.unlink()
        torch.save(state, path.with_suffix(".bin"))
        answer = alt("generate", prompt="ein Haus", adapter=folder)
        line = answer["stderr"][0].splitlines()[-1]  # diffusers has a line of its own before
        assert answer["codes"] == [2] and line.startswith("error: ")
        assert "safetensors" in line and part in line
        path.with_suffix(".bin").unlink()
        save_file(state, path, metadata={"format": "pt"})


def test_a_pipeline_whose_text_encoder_has_renamed_layers_is_refused_or_read_but_never_random(
    alt: Alt, pipeline: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(pipeline, folder)
    path = folder / "text_encoder" / "model.safetensors"
    state = load_file(path)
    renamed = {name.replace("encoder.layers.", "encoder.blocks."): t for name, t in state.items()}
    save_file(renamed, path, metadata={"format": "pt"})
    line = refusal(alt("generate", prompt="ein Haus", adapter=folder))
    assert "its layers would be random, so it is not used" in line


def test_info_counts_what_trains_and_what_does_not(alt: Alt, recipe: dict[str, Any]) -> None:
    answer = alt("info", **recipe)
    assert answer["codes"] == [0], answer["stderr"]
    rows = dict(re.findall(r"^(.+?)  +([\d,]+)$", answer["stdout"][0], re.MULTILINE))
    counts = {name: int(number.replace(",", "")) for name, number in rows.items()}
    # keys and values of four layers of cross-attention: down 8, mid 16, up 8 and 8
    assert counts["UNet, trains"] == 2 * 16 * (8 + 16 + 8 + 8)
    whole = alt("info", **{**recipe, "stage": "quality_improvement"})["stdout"][0]
    assert re.search(r"UNet, frozen +0\n", whole)
    absent = alt("info", **{**recipe, "text_encoder": "nowhere"})["stdout"][0]
    assert "text encoder nowhere: not there yet; run `altdiffusion train-text`" in absent
