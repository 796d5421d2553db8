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

MuLan = Callable[..., dict[str, Any]]

HELP = """
import sys, time
from mulan.cli import main
sys.argv = ["mulan", "--help"]
assert main() == 0
assert not {"torch", "numpy", "jsonargparse"} & set(sys.modules), "help pays for nothing"
print("seconds", time.process_time())
import mulan.method
heavy = {"deepspeed", "diffusers", "transformers", "PIL"}
assert not heavy & set(sys.modules), "the paper needs torch alone"
"""


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
    for verb in "demo features train export import generate evaluate info".split():
        assert re.search(rf"^  {verb} +\w", done.stdout, re.MULTILINE)


def test_names_that_do_not_exist_are_answered_with_the_nearest(
    mulan: MuLan, recipe: dict[str, Any], tmp_path: Path
) -> None:
    assert "did you mean 'train'?" in refusal(mulan("trian"))
    line = refusal(mulan("train", learning_rat=1e-3))
    assert line == "error: unknown setting 'learning_rat'; did you mean 'learning_rate'?\n"
    config = tmp_path / "ds.json"
    config.write_text('{"zero_optimisation": {"stage": 1}}')
    line = refusal(mulan("train", **recipe, deepspeed_config=config, output_dir=tmp_path / "run"))
    assert "unknown DeepSpeed key 'zero_optimisation'; did you mean 'zero_optimization'?" in line
    assert "no config file" in refusal(mulan("train", config=tmp_path / "no.yaml"))


@pytest.fixture(scope="module")
def places(
    mulan: MuLan, parts: dict[str, Any], shards: str, pixart: str, tmp_path_factory: Any
) -> dict[str, str]:
    """Shards, a PixArt base, and features without English states."""
    plain = tmp_path_factory.mktemp("plain")
    settings = {"shards": shards, "features_dir": plain, "english_states": False}
    assert mulan("features", **settings, **parts)["codes"] == [0]
    return {"shards": shards, "pixart": pixart, "plain": str(plain)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_data": "null"}, "train_data|null"),
        ({"train_data": "{tmp}/nowhere"}, "nowhere"),
        ({"train_data": "{tmp}/empty"}, "empty"),
        ({"languages": []}, "languages is not set"),
        ({"languages": ["de"]}, r"are stale: languages was \['en'\] and is \['de'\]"),
        ({"resolution": 64}, "are stale: resolution was 32 and is 64"),
        ({"max_length": 8}, "are stale: max_length was 16 and is 8"),
        ({"train_data": "{shards}", "languages": ["ja"]}, "no caption in any language that trains"),
        ({"resume_from_checkpoint": "latest"}, "no checkpoint in .*; leave out --resume_from"),
        ({"resume_from_checkpoint": "{tmp}/checkpoint-7"}, "no checkpoint .*checkpoint-7; give a"),
        ({"train_batch_size": 25}, "24 samples in .* do not fill one batch"),
        ({"pretrained_model_name_or_path": "{tmp}/empty"}, "empty"),
        ({"lr_scheduler": "polinomial"}, "unknown lr_scheduler 'polinomial'; there are linear"),
        ({"mixed_precision": "fp16"}, "mixed_precision"),
        ({"alignment": "both", "num_queries": 9}, "use --num_queries 16, not 9"),
        ({"alignment": "both", "english_states": False}, "use --english_states true"),
        ({"english_states": False}, "are stale: with_english was None and is False"),
        ({"train_data": "{plain}"}, "holds no English states: make the features anew, or add"),
        ({"null_policy": "zeros"}, "null_policy zeros is SDXL's"),
        ({"num_heads": 3}, "num_heads 3 does not divide"),
        ({"pretrained_model_name_or_path": "{pixart}"}, "use --alignment image --english_states"),
        ({"init_adapter": "{tmp}/nowhere"}, "no adapter .*nowhere; export one first"),
    ],
)
def test_mistakes_in_training_are_one_line(
    mulan: MuLan,
    recipe: dict[str, Any],
    places: dict[str, str],
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    changes = {
        name: value.format(tmp=tmp_path, **places) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    line = refusal(mulan("train", **{**recipe, **changes}, output_dir=tmp_path / "run"))
    assert re.search(message, line), line
    assert not list(tmp_path.glob("run/checkpoint-*"))


def test_features_of_an_empty_folder_or_of_other_shards_are_refused(
    mulan: MuLan, parts: dict[str, Any], shards: str, features: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"shards": tmp_path / "empty", "features_dir": tmp_path / "features"}
    assert "empty" in refusal(mulan("features", **places, **parts))
    others = {"shards": shards, "features_dir": features, "encode_batch_size": 4}
    assert "are stale: batch_size was 8 and is 4" in refusal(mulan("features", **others, **parts))
    assert "needs --shards" in refusal(mulan("features", **parts))


def test_a_loss_that_is_no_number_names_the_step_the_samples_and_the_parts(
    mulan: MuLan, recipe: dict[str, Any], features: str, tmp_path: Path
) -> None:
    spoilt = tmp_path / "features"
    shutil.copytree(features, spoilt)
    block = spoilt / "block-00000.safetensors"
    arrays = load_file(block)
    with safe_open(block, "pt") as file:
        metadata = file.metadata()
    arrays["latent_mean"][7] = float("nan")
    save_file(arrays, block, metadata=metadata)
    line = refusal(mulan("train", **{**recipe, "train_data": spoilt}, output_dir=tmp_path / "run"))
    parts = "image nan"
    found = re.search(rf"the loss of step (\d) is nan \({parts}\) on samples ([\d, ]+);", line)
    recorded = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert int(found[1]) == len(recorded) + 1
    samples = found[2].split(", ")
    assert len(samples) == 4 and json.loads(metadata["keys"])[7] in samples


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MB, which is full when the test has filled it."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_nothing_that_was_saved(
    mulan: MuLan, recipe: dict[str, Any], small_disk: Path
) -> None:
    run, ballast = small_disk / "run", small_disk / "ballast"
    killed = mulan("train", {"die": [3]}, output_dir=run, **recipe)
    assert killed["codes"] == [-9]
    ballast.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - 20_000))
    again = {**recipe, "output_dir": run, "resume_from_checkpoint": "latest"}
    line = refusal(mulan("train", **again))
    assert line.startswith("error: the disk is full: ") and "checkpoint-2 is intact" in line
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2"]
    ballast.unlink()
    resumed = mulan("train", **again)
    assert resumed["codes"] == [0], resumed["stderr"]
    steps = [json.loads(row)["step"] for row in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6] and (run / "adapter" / "model.safetensors").is_file()


@pytest.fixture(scope="module")
def adapter(mulan: MuLan, recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    answer = mulan("train", output_dir=run, **{**recipe, "max_train_steps": 1})
    assert answer["codes"] == [0], answer["stderr"]
    return run / "adapter"


def test_a_run_goes_only_where_no_other_run_is(
    mulan: MuLan, recipe: dict[str, Any], adapter: Path
) -> None:
    line = refusal(mulan("train", output_dir=adapter.parent, **recipe))
    assert "holds checkpoint-1 of another run; add --resume_from_checkpoint latest" in line


def test_generate_writes_pictures_and_what_they_are(
    mulan: MuLan, adapter: Path, sdxl: str, tmp_path: Path
) -> None:
    settings = {"prompt": ["ein Haus", "maison"], "num_inference_steps": 2, "adapter": adapter}
    answer = mulan("generate", output_dir=tmp_path / "pictures", **settings)
    assert answer["codes"] == [0], answer["stderr"]
    for number, prompt in enumerate(settings["prompt"]):
        folder = tmp_path / "pictures" / f"{number:05d}"
        assert Image.open(folder / "samples" / "0000.png").size == (32, 32)
        assert json.loads((folder / "metadata.jsonl").read_text())["prompt"] == prompt
    line = refusal(mulan("generate", pretrained_model_name_or_path=sdxl, **settings))
    assert "use the adapter's base" in line


def test_the_judge_reads_the_testbeds_pictures_alone(
    mulan: MuLan, adapter: Path, tmp_path: Path
) -> None:
    settings = {"adapter": adapter, "output_dir": tmp_path, "languages": ["en", "de"]}
    assert "the judge reads the testbed's pictures alone" in refusal(mulan("evaluate", **settings))


def test_a_pickle_where_safetensors_is_expected_is_not_opened(
    mulan: MuLan, adapter: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(adapter, folder)
    (folder / "model.safetensors").unlink()
    torch.save(load_file(adapter / "model.safetensors"), folder / "model.bin")
    line = refusal(mulan("generate", prompt="ein Haus", adapter=folder))
    assert "model.bin is a pickle, which can run code; run the method's `import` verb" in line
    (folder / "model.bin").rename(folder / "model.safetensors")
    assert "model.safetensors is a pickle" in refusal(mulan("generate", prompt="x", adapter=folder))
    assert "no adapter" in refusal(mulan("generate", prompt="x", adapter=tmp_path / "nowhere"))


def test_info_counts_what_trains_and_what_does_not(mulan: MuLan, recipe: dict[str, Any]) -> None:
    answer = mulan("info", **recipe)
    assert answer["codes"] == [0], answer["stderr"]
    rows = dict(re.findall(r"^(.+?)  +([\d,]+) ", answer["stdout"][0], re.MULTILINE))
    counts = {name: int(number.replace(",", "")) for name, number in rows.items()}
    d, encoder_width, queries = 16, 12, 16
    layers = (12 * d * d + 13 * d) + (16 * d * d + 19 * d) + 4 * d
    proj = encoder_width * d + d + d * d + d
    assert counts["adapter (trains)"] == proj + queries * d + layers
    total = counts.pop("total")
    assert total == sum(counts.values()) and len(counts) == 4
