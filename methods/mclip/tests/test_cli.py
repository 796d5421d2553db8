"""Stage 2's commands as a person meets them: what they print, and what their mistakes cost them:
one line, exit code 2, nothing lost.
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
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from crosslingual.cli.settings import parse_settings
from mclip.config import FeaturesSettings, TrainSettings
from mclip.info import info

Mclip = Callable[..., dict[str, Any]]

CONFIGS = Path(__file__).parents[1] / "configs"
OVERLAYS = ("no_itc", "no_ttc", "no_stage1", "ttc_released")
HELP = """
import sys, time
from mclip.cli import main
sys.argv = ["mclip", "--help"]
assert main() == 0
assert not {"torch", "numpy", "jsonargparse"} & set(sys.modules), "help pays for nothing"
print("seconds", time.process_time())
import mclip.method
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
    verbs = "demo tokenize train-encoder translate evaluate-text features train export import"
    for verb in f"{verbs} evaluate embed search info".split():
        assert re.search(rf"^  {verb} +\w", done.stdout, re.MULTILINE)


def test_names_that_do_not_exist_are_answered_with_the_nearest(
    mclip: Mclip, recipe: dict[str, Any], tmp_path: Path
) -> None:
    assert "did you mean 'train'?" in refusal(mclip("trian"))
    line = refusal(mclip("train", ttc_wieght=0.2))
    assert line == "error: unknown setting 'ttc_wieght'; did you mean 'ttc_weight'?\n"
    config = tmp_path / "ds.json"
    config.write_text('{"zero_optimisation": {"stage": 1}}')
    line = refusal(mclip("train", **recipe, deepspeed_config=config, output_dir=tmp_path / "run"))
    assert "unknown DeepSpeed key 'zero_optimisation'; did you mean 'zero_optimization'?" in line
    assert "no config file" in refusal(mclip("train", config=tmp_path / "no.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_data": "null"}, "train_data|null"),
        ({"train_data": "{tmp}/nowhere"}, "nowhere"),
        ({"train_data": "{tmp}/empty"}, "empty"),
        ({"languages": []}, "languages is not set"),
        ({"languages": ["de"]}, r"are stale: languages was \['en', 'de', 'fr'\] and is \['de'\]"),
        ({"resolution": 64}, "are stale: resolution was 36 and is 64"),
        ({"max_length": 8}, "are stale: max_length was 16 and is 8"),
        ({"text_encoder": "testbed:xlm-r"}, "are stale: encoder was .* and is 'testbed:xlm-r'"),
        ({"clip": "testbed:clip"}, "are stale: clip was .* and is 'testbed:clip'"),
        ({"clip": "{encoder}"}, "is a xlm-roberta model, not a CLIP"),
        ({"clip": "{tmp}/empty"}, "empty"),
        ({"train_data": "{shards}", "languages": ["ja"]}, "no caption in any language that trains"),
        ({"train_data": "{shards}", "resolution": 16}, "smaller than the 32 pixels"),
        ({"validation_steps": 2}, "validation_steps needs validation_data"),
        ({"validation_steps": 2, "validation_data": "{shards}"}, "holds shards, not features"),
        ({"resume_from_checkpoint": "latest"}, "no checkpoint in .*; leave out --resume_from"),
        ({"resume_from_checkpoint": "{tmp}/checkpoint-7"}, "no checkpoint .*checkpoint-7; give a"),
        ({"train_batch_size": 25}, "24 samples in .* do not fill one batch"),
        ({"num_heads": 5}, "5 heads do not divide a width of 12"),
        ({"itc_weight": 0, "ttc_weight": 0}, "nothing would be learnt"),
        ({"ttc_scale": "Released"}, "ttc_scale"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"optimizer": "lamb", "deepspeed_config": "{zero}"}, "use ZeRO stage 0"),
        ({"lr_scheduler": "inverse"}, "unknown lr_scheduler 'inverse'; there are linear"),
        ({"mixed_precision": "fp16"}, "mixed_precision"),
    ],
)
def test_mistakes_in_training_are_one_line(
    mclip: Mclip,
    recipe: dict[str, Any],
    shards: str,
    encoder: str,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    zero = tmp_path / "zero1.json"
    zero.write_text('{"zero_optimization": {"stage": 1}}')
    places = {"tmp": tmp_path, "shards": shards, "encoder": encoder, "zero": zero}
    changes = {
        name: value.format(**places) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    line = refusal(mclip("train", **{**recipe, **changes, "output_dir": tmp_path / "run"}))
    assert re.search(message, line), line
    assert not list(tmp_path.glob("run/checkpoint-*"))


def test_features_of_an_empty_folder_or_of_other_shards_are_refused(
    mclip: Mclip, parts: dict[str, Any], shards: str, features: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"shards": tmp_path / "empty", "features_dir": tmp_path / "features"}
    assert "empty" in refusal(mclip("features", **places, **parts))
    others = {"shards": shards, "features_dir": features, "encode_batch_size": 4}
    assert "are stale: batch_size was 1 and is 4" in refusal(mclip("features", **others, **parts))
    assert "needs --shards" in refusal(mclip("features", **parts))


def test_a_loss_that_is_no_number_names_the_step_the_sample_and_the_parts(
    mclip: Mclip, recipe: dict[str, Any], features: str, tmp_path: Path
) -> None:
    """One row spoils the whole contrast: of the batch's eight the one to look at is named."""
    spoilt = tmp_path / "features"
    shutil.copytree(features, spoilt)
    block = sorted(spoilt.glob("block-*.safetensors"))[0]
    arrays = load_file(block)
    with safe_open(block, "pt") as file:
        metadata = file.metadata()
    arrays["image_embeds"][7] = float("nan")
    save_file(arrays, block, metadata=metadata)
    settings = {**recipe, "train_data": spoilt, "output_dir": tmp_path / "run"}
    line = refusal(mclip("train", **settings))
    found = re.search(r"the loss of step (\d) is nan \(itc nan, ttc nan\) on samples (\S+);", line)
    assert found[2] == json.loads(metadata["keys"])[7]
    recorded = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert int(found[1]) == len(recorded) + 1


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
    mclip: Mclip, recipe: dict[str, Any], small_disk: Path
) -> None:
    run, ballast = small_disk / "run", small_disk / "ballast"
    killed = mclip("train", {"die": [3]}, output_dir=run, **recipe)
    assert killed["codes"] == [-9]
    ballast.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - 20_000))
    again = {**recipe, "output_dir": run, "resume_from_checkpoint": "latest"}
    line = refusal(mclip("train", **again))
    assert line.startswith("error: the disk is full: ") and "checkpoint-2 is intact" in line
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2"]
    ballast.unlink()
    resumed = mclip("train", **again)
    assert resumed["codes"] == [0], resumed["stderr"]
    steps = [json.loads(row)["step"] for row in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6] and (run / "model" / "model.safetensors").is_file()


@pytest.fixture(scope="module")
def model(mclip: Mclip, recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    answer = mclip("train", output_dir=run, **{**recipe, "max_train_steps": 1})
    assert answer["codes"] == [0], answer["stderr"]
    return run / "model"


def test_a_run_goes_only_where_no_other_run_is(
    mclip: Mclip, recipe: dict[str, Any], model: Path
) -> None:
    line = refusal(mclip("train", output_dir=model.parent, **recipe))
    assert "holds checkpoint-1 of another run; add --resume_from_checkpoint latest" in line


def test_export_needs_a_checkpoint_and_replaces_no_strangers_folder(
    mclip: Mclip, model: Path, tmp_path: Path
) -> None:
    places = {"checkpoint": tmp_path / "nowhere", "output_dir": tmp_path / "model"}
    assert "no checkpoint in" in refusal(mclip("export", **places))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("mine")
    places["checkpoint"] = model.parent
    for bundle_encoder in (False, True):
        line = refusal(mclip("export", bundle_encoder=bundle_encoder, **places))
        assert "holds something other than an adapter" in line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "thesis.txt").read_text() == "mine"


def test_a_model_of_other_frozen_weights_or_a_pickle_is_refused(
    model: Path, tmp_path: Path
) -> None:
    from mclip.export import load_model

    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    for part in ("clip", "text_encoder"):
        changed = {**config, f"{part}_weights": "0" * 64}
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match="are not those that .* was trained on"):
            load_model(folder)
    (folder / "config.json").write_text(json.dumps({**config, "text_encoder": str(tmp_path / "x")}))
    with pytest.raises(FileNotFoundError, match="is gone: bring it back"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps({**config, "method": "pea"}))
    with pytest.raises(ValueError, match="holds no projectors of mclip"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(load_file(model / "model.safetensors"), folder / "model.safetensors")
    with pytest.raises(ValueError, match="is a pickle, which can run code"):
        load_model(folder)


def test_info_counts_the_published_size_without_a_network(capsys: pytest.CaptureFixture) -> None:
    """The enhanced XLM-R has the shape of the one it came from, which is known by its id."""
    words = ["--config", str(CONFIGS / "mclip_base.yaml")]
    words += ["--text_encoder", "FacebookAI/xlm-roberta-base"]
    counts = info(parse_settings(TrainSettings, words, prog="mclip info"))
    assert counts["trainable"] == 14_568_960 + 1
    frozen = {name.split()[0]: n for name, n in counts.items() if name[0] in "Ce"}
    assert frozen == {"CLIP": 151_277_313, "encoder": 277_453_056}
    assert counts["total"] == sum(frozen.values()) + counts["trainable"]
    assert re.search(r"\(trains\) +14,568,961 ", capsys.readouterr().out)


@pytest.mark.parametrize("name", ["testbed", "mclip_base", "mclip_plus"])
def test_each_config_serves_features_and_training_with_every_ablation(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    for settings_class in (TrainSettings, FeaturesSettings):
        whole = parse_settings(settings_class, ["--config", str(path)], prog="mclip")
        assert whole.languages[0] == "en" and whole.num_layers == 2
        for overlay in OVERLAYS:
            words = ["--config", str(path), str(CONFIGS / f"{overlay}.yaml")]
            changed = parse_settings(settings_class, words, prog="mclip")
            wanted = yaml.safe_load((CONFIGS / f"{overlay}.yaml").read_text())
            assert {key: getattr(changed, key) for key in wanted} == wanted
            assert changed.output_dir != whole.output_dir
            assert changed.languages == whole.languages
