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

from iap import ablate
from iap.config import AblateSettings

Iap = Callable[..., dict[str, Any]]

HELP = """
import sys, time
from iap.cli import main
sys.argv = ["iap", "--help"]
assert main() == 0
assert not {"torch", "numpy", "jsonargparse"} & set(sys.modules), "help pays for nothing"
print("seconds", time.process_time())
import iap.method
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
    for verb in "demo features train export generate evaluate ablate info".split():
        assert re.search(rf"^  {verb} +\w", done.stdout, re.MULTILINE)


def test_names_that_do_not_exist_are_answered_with_the_nearest(
    iap: Iap, recipe: dict[str, Any], tmp_path: Path
) -> None:
    assert "did you mean 'train'?" in refusal(iap("trian"))
    line = refusal(iap("train", target_languag="zh"))
    assert line == "error: unknown setting 'target_languag'; did you mean 'target_language'?\n"
    config = tmp_path / "ds.json"
    config.write_text('{"zero_optimisation": {"stage": 1}}')
    line = refusal(iap("train", **recipe, deepspeed_config=config, output_dir=tmp_path / "run"))
    assert "unknown DeepSpeed key 'zero_optimisation'; did you mean 'zero_optimization'?" in line
    assert "no config file" in refusal(iap("train", config=tmp_path / "no.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_data": "null"}, "train_data|null"),
        ({"train_data": "{tmp}/nowhere"}, "nowhere"),
        ({"train_data": "{tmp}/empty"}, "empty"),
        ({"target_language": []}, "target_language is not set: .* --target_language zh"),
        ({"target_language": ["de"]}, r"are stale: languages was \['de', 'fr'\] and is \['de'\]"),
        ({"resolution": 64}, "are stale: resolution was 32 and is 64"),
        ({"max_length": 8}, "are stale: max_length was 16 and is 8"),
        ({"english_draws": 1}, "are stale: english_draws was None and is 1"),
        ({"train_data": "{shards}", "target_language": ["ja"]}, "choose others by --target_langu"),
        ({"objective": "text", "train_data": "{shards}", "max_length": 8}, "set --max_length 16"),
        ({"resume_from_checkpoint": "latest"}, "no checkpoint in .*; leave out --resume_from"),
        ({"resume_from_checkpoint": "{tmp}/checkpoint-7"}, "no checkpoint .*checkpoint-7; give a"),
        ({"validation_steps": 2}, "validation_steps needs --validation_data"),
        ({"validation_steps": 2, "validation_data": "{tmp}/empty"}, "no complete features in"),
        ({"train_batch_size": 25}, "24 samples in .* do not fill one batch"),
        ({"pretrained_model_name_or_path": "{tmp}/empty"}, "empty"),
        ({"text_encoder": "{sd}/text_encoder"}, "is a clip_text_model: IAP starts from an XLM-R"),
        ({"layers": ["left"]}, "no cross-attention 'left': layers are all, down, mid, up, or 0"),
        ({"noise_weight": 1.0}, "noise_weight needs --branch full"),
        ({"branch": "both"}, "setting 'branch' must be local or full, not 'both'"),
        ({"lr_scheduler": "polinomial"}, "unknown lr_scheduler 'polinomial'; there are linear"),
        ({"mixed_precision": "fp16"}, "mixed_precision"),
    ],
)
def test_mistakes_in_training_are_one_line(
    iap: Iap,
    recipe: dict[str, Any],
    shards: str,
    sd: str,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    changes = {
        name: value.format(tmp=tmp_path, shards=shards, sd=sd) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    line = refusal(iap("train", **{**recipe, **changes}, output_dir=tmp_path / "run"))
    assert re.search(message, line), line
    assert not list(tmp_path.glob("run/checkpoint-*"))


def test_features_of_an_empty_folder_or_of_other_shards_are_refused(
    iap: Iap, parts: dict[str, Any], shards: str, features: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"shards": tmp_path / "empty", "features_dir": tmp_path / "features"}
    assert "empty" in refusal(iap("features", **places, **parts))
    others = {"shards": shards, "features_dir": features, "encode_batch_size": 4}
    assert "are stale: batch_size was 8 and is 4" in refusal(iap("features", **others, **parts))
    assert "needs --shards" in refusal(iap("features", **parts))


def test_a_loss_that_is_no_number_names_the_step_the_samples_and_the_parts(
    iap: Iap, recipe: dict[str, Any], features: str, tmp_path: Path
) -> None:
    spoilt = tmp_path / "features"
    shutil.copytree(features, spoilt)
    block = spoilt / "block-00000.safetensors"
    arrays = load_file(block)
    with safe_open(block, "pt") as file:
        metadata = file.metadata()
    arrays["latent_mean"][7] = float("nan")
    save_file(arrays, block, metadata=metadata)
    line = refusal(iap("train", **{**recipe, "train_data": spoilt}, output_dir=tmp_path / "run"))
    found = re.search(r"the loss of step (\d) is nan \(attention nan\) on samples ([\d, ]+);", line)
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
    iap: Iap, recipe: dict[str, Any], small_disk: Path
) -> None:
    run, ballast = small_disk / "run", small_disk / "ballast"
    killed = iap("train", {"die": [3]}, output_dir=run, **recipe)
    assert killed["codes"] == [-9]
    ballast.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - 20_000))
    again = {**recipe, "output_dir": run, "resume_from_checkpoint": "latest"}
    line = refusal(iap("train", **again))
    assert line.startswith("error: the disk is full: ") and "checkpoint-2 is intact" in line
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2"]
    ballast.unlink()
    resumed = iap("train", **again)
    assert resumed["codes"] == [0], resumed["stderr"]
    steps = [json.loads(row)["step"] for row in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert (run / "encoder" / "text_encoder" / "model.safetensors").is_file()


@pytest.fixture(scope="module")
def encoder_folder(
    iap: Iap, recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    answer = iap("train", output_dir=run, **{**recipe, "max_train_steps": 1})
    assert answer["codes"] == [0], answer["stderr"]
    return run / "encoder"


def test_a_run_goes_only_where_no_other_run_is(
    iap: Iap, recipe: dict[str, Any], encoder_folder: Path
) -> None:
    line = refusal(iap("train", output_dir=encoder_folder.parent, **recipe))
    assert "holds checkpoint-1 of another run; add --resume_from_checkpoint latest" in line


def test_generate_writes_pictures_and_what_they_are(
    iap: Iap, encoder_folder: Path, tmp_path: Path
) -> None:
    settings = {"prompt": ["ein Haus", "maison"], "num_inference_steps": 2}
    settings |= {"adapter": encoder_folder, "output_dir": tmp_path / "pictures"}
    answer = iap("generate", **settings)
    assert answer["codes"] == [0], answer["stderr"]
    for number, prompt in enumerate(settings["prompt"]):
        folder = tmp_path / "pictures" / f"{number:05d}"
        assert Image.open(folder / "samples" / "0000.png").size == (32, 32)
        assert json.loads((folder / "metadata.jsonl").read_text())["prompt"] == prompt
    line = refusal(iap("evaluate", adapter=encoder_folder, output_dir=tmp_path / "judged"))
    assert "the judge reads the testbed's pictures alone" in line


def test_a_pickle_where_safetensors_is_expected_is_not_opened(
    iap: Iap, encoder_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(encoder_folder, folder)
    weights = folder / "text_encoder" / "model.safetensors"
    state = load_file(weights)
    weights.unlink()
    torch.save(state, folder / "text_encoder" / "pytorch_model.bin")
    line = refusal(iap("generate", prompt="ein Haus", adapter=folder))
    assert "cannot load" in line and "as safetensors" in line
    assert "no adapter" in refusal(iap("generate", prompt="x", adapter=tmp_path / "nowhere"))


def test_info_counts_what_trains_and_what_does_not(iap: Iap, recipe: dict[str, Any]) -> None:
    answer = iap("info", **recipe)
    assert answer["codes"] == [0], answer["stderr"]
    rows = dict(re.findall(r"^(.+?)  +([\d,]+) ", answer["stdout"][0], re.MULTILINE))
    counts = {name: int(number.replace(",", "")) for name, number in rows.items()}
    weights = load_file(Path(recipe["text_encoder"]) / "model.safetensors")
    body = sum(tensor.numel() for tensor in weights.values())
    assert counts["adapter (trains)"] == body + 2 * 12 + 12 * 16 + 16
    total = counts.pop("total")
    assert total == sum(counts.values()) and len(counts) == 3


class Runs:
    """What would be run, and results as if it had been."""

    def __init__(self, *_: Any) -> None:
        self.trained: list[dict[str, Any]] = []
        self.fails_at: str | None = None

    def say(self, _: str) -> None:
        """Says nothing."""

    def run(self, module: str, **settings: Any) -> float:
        if module == "train":
            self.trained.append(settings)
            return 2.5
        folder = Path(settings["output_dir"])
        if self.fails_at and str(folder).endswith(self.fails_at):
            raise ValueError("stopped")
        folder.mkdir(parents=True, exist_ok=True)
        share = 0.1 * len(self.trained)
        (folder / "accuracy.json").write_text(json.dumps({"languages": {"zh": {"iap": share}}}))
        return 1.0


def test_ablation_goes_on_after_a_stop_and_every_arm_changes_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    monkeypatch.setattr(ablate, "Stages", lambda *_: runs)
    given = {"arms": ["local", "full, third of the steps", "text-space MSE"], "num_seeds": 2}
    settings = AblateSettings(output_dir=str(tmp_path), max_train_steps=30, **given)
    runs.fails_at = "text-space-MSE/seed-1"
    with pytest.raises(ValueError, match="stopped"):
        ablate.ablate(settings)
    trained = [(run["branch"], run["objective"], run["seed"]) for run in runs.trained]
    assert trained == [
        (branch, objective, seed)
        for branch, objective in (("local", "attention"), ("full", "attention"), ("local", "text"))
        for seed in (0, 1)
    ]
    assert [run["max_train_steps"] for run in runs.trained] == [30, 30, 10, 10, 30, 30]
    runs.fails_at, before = None, len(runs.trained)
    table = ablate.ablate(settings).read_text()
    assert len(runs.trained) == before + 1, "what is done is not run again"
    assert "| local | 30 | 2 | 0.10 | 0.20 | 0.15 |" in table
    assert "| full, third of the steps | 10 | 2 | 0.30 | 0.40 | 0.35 |" in table
    with pytest.raises(ValueError, match="no arm 'fulll'; there are local; local, kept"):
        ablate.ablate(AblateSettings(output_dir=str(tmp_path), arms=["fulll"]))
