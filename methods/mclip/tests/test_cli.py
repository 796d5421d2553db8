"""Stage 2's commands as a person meets them, and what README and configs promise."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from crosslingual.cli.settings import parse_settings
from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.fixtures import Command, succeeded
from mclip.artifact import load_model
from mclip.settings import FeaturesSettings, TrainSettings
from mclip.stage1.settings import TrainEncoderSettings

CONFIGS = Path(__file__).parents[1] / "configs"
OVERLAYS = ("no_itc", "no_ttc", "no_stage1", "ttc_released")
LAYER = 4 * (12 * 12 + 12) + 2 * 2 * 12 + 12 * 16 + 16 + 16 * 12 + 12


class TestCommand(conformance.Command):
    """One bad row spoils the whole contrast: of the batch's eight only that one is named."""

    verbs = (
        "demo tokenize train-encoder translate evaluate-text features train export import "
        "evaluate embed search info"
    )
    typo = ("ttc_wieght", "ttc_weight")
    mistakes = (
        ({"text_encoder": "testbed:xlm-r"}, "are stale: encoder was .* and is 'testbed:xlm-r'"),
        ({"clip": "testbed:clip"}, "are stale: clip was .* and is 'testbed:clip'"),
        ({"clip": "{encoder}"}, "is a xlm-roberta model, not a CLIP"),
        ({"train_data": "{shards}", "resolution": 16}, "smaller than the 32 pixels"),
        ({"validation_steps": 2, "validation_data": "{shards}"}, "holds shards, not features"),
        ({"num_heads": 5}, "5 heads do not divide a width of 12"),
        ({"itc_weight": 0, "ttc_weight": 0}, "nothing would be learnt"),
        ({"ttc_scale": "Released"}, "ttc_scale"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"optimizer": "lamb", "deepspeed_config": "{tmp}/zero1.json"}, "use ZeRO stage 0"),
    )
    spoilt = "image_embeds"
    nan_parts = "itc nan, ttc nan"
    num_suspects = 1
    reading = ("embed", {"texts": "texts.txt", "output": "index"}, "model")
    nobody = "no folder and no reachable hub entry"
    num_trainable = 10 * 12 + 2 * LAYER + 1

    def test_a_bundle_replaces_no_strangers_folder(
        self, command: Command, exported: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "thesis.txt").write_text("mine")
        places = {"checkpoint": exported.parent, "output_dir": tmp_path / "model"}
        line = refusal(command("export", bundle_encoder=True, **places))
        assert "holds thesis.txt and no crosslingual.json" in line
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert (tmp_path / "model" / "thesis.txt").read_text() == "mine"

    def test_a_model_of_other_frozen_weights_is_refused(
        self, exported: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "model"
        shutil.copytree(exported, folder)
        (folder / "crosslingual.json").unlink()  # as from an earlier version: its files change here
        config = json.loads((folder / "config.json").read_text())
        for part in ("clip", "text_encoder"):
            changed = {**config, f"{part}_weights": "0" * 64}
            (folder / "config.json").write_text(json.dumps(changed))
            with pytest.raises(ValueError, match="are not those that .* was trained on"):
                load_model(folder)
        gone = {**config, "text_encoder": str(tmp_path / "x")}
        (folder / "config.json").write_text(json.dumps(gone))
        with pytest.raises(FileNotFoundError, match="is gone: bring it back"):
            load_model(folder)
        del config["clip_width"]
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="holds no projectors of mclip"):
            load_model(folder)


class TestPages(conformance.Pages):
    runs = {"mclip --help": "", "mclip info": ""}

    def test_info_counts_the_published_size_without_a_network(self, command: Command) -> None:
        """The enhanced XLM-R has the shape of the one it came from, which is known by its id."""
        told = succeeded(command("info", config=CONFIGS / "mclip_base.yaml"))["stdout"][0]
        counts = {line.split("  ")[0].split()[0]: line for line in told.splitlines() if line}
        assert " 151,277,313 " in counts["CLIP"] and " 277,453,056 " in counts["encoder"]
        (trains,) = [line for line in told.splitlines() if "(trains)" in line]
        assert f" {14_568_960 + 1:,} " in trains
        assert f" {151_277_313 + 277_453_056 + 14_568_961:,} " in counts["total"]

    def test_info_counts_stage_1_at_the_published_size(self, command: Command) -> None:
        """A decoder of 12 layers, and one map of the seven that the text will want."""
        for step, trains in (("a", 113_422_848 + 768 * 769), ("b", 199_067_904)):
            config = CONFIGS / f"mclip_base_step_{step}.yaml"
            told = succeeded(command("info", config=config))["stdout"][0]
            (line,) = [line for line in told.splitlines() if "(trains)" in line]
            assert f" {trains:,} " in line


def test_the_former_name_of_the_weight_decay_is_still_read() -> None:
    for settings_class in (TrainSettings, TrainEncoderSettings):
        read = parse_settings(settings_class, ["--weight_decay", "0.5"], prog="mclip")
        assert read.adam_weight_decay == 0.5


@pytest.mark.parametrize("name", ["testbed", "mclip_base", "mclip_plus"])
def test_each_config_serves_features_and_training_with_every_ablation(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    for settings_class in (TrainSettings, FeaturesSettings):
        whole = parse_settings(settings_class, ["--config", str(path)], prog="mclip")
        assert whole.languages[0] == "en" and whole.num_layers == 2
        for overlay in OVERLAYS:
            words = ["--config", str(path), str(CONFIGS / f"{overlay}.yaml")]
            changed = parse_settings(settings_class, words, prog="mclip")
            wanted: dict[str, Any] = yaml.safe_load((CONFIGS / f"{overlay}.yaml").read_text())
            numbers = {k: v for k, v in wanted.items() if isinstance(v, float)}
            assert {key: getattr(changed, key) for key in numbers} == numbers
            assert changed.output_dir != whole.output_dir
            assert changed.languages == whole.languages
