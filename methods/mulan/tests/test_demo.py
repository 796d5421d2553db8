"""What the demo and `evaluate` say, by small numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mulan.evaluate
from crosslingual.cli.settings import parse_settings
from crosslingual_worlds.drawn.evaluation import Judged
from mulan.config import DemoSettings, EvaluateSettings, TrainSettings
from mulan.demo import RECIPE, render_table
from mulan.evaluate import evaluate
from mulan.export import save_adapter
from mulan.info import adapter_config
from mulan.method import build_adapter


def result(mulan_of: dict[str, float], train_s: float) -> dict[str, Any]:
    return {
        "english": 0.8,
        "languages": {name: {"as_is": 0.1, "mulan": value} for name, value in mulan_of.items()},
        "trained": ["en"],
        "trainable": 12345,
        "train_s": train_s,
    }


def test_table_shows_trained_and_zero_shot_languages_apart_for_both_encoders() -> None:
    results = {
        "not_aligned": result({"en": 0.8, "de": 0.0, "zh": 0.2}, 50.0),
        "aligned": result({"en": 0.4, "de": 0.8, "zh": 0.4}, 60.0),
    }
    table = render_table(results, ["de", "zh"], seconds=200.0).splitlines()
    assert "| en (upper bound) | | 0.80 | | | | |" in table
    assert "| en | captions | 0.10 | 0.80 | 100% | 0.40 | 50% |" in table
    assert "| de | none (zero-shot) | 0.10 | 0.00 | 0% | 0.80 | 100% |" in table
    assert "| mean of zero-shot | | | 0.10 | 12% | 0.60 | 75% |" in table
    assert "12,345 trainable parameters; trained in 50 s, 60 s, all in 200 s." in table


def test_recipe_and_the_testbeds_config_say_the_same() -> None:
    path = Path(__file__).parents[1] / "configs" / "testbed.yaml"
    config = vars(parse_settings(TrainSettings, ["--config", str(path)], prog="mulan train"))
    assert {name: config[name] for name in RECIPE} == RECIPE
    assert config["max_train_steps"] == DemoSettings().max_train_steps


@pytest.mark.parametrize("variant", ["published", "seed"])
def test_evaluate_judges_every_language_with_and_without_the_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """The pictures are given, since drawing is the pipelines'; a seed adapter reads each language
    by its own weights.
    """
    config = adapter_config(TrainSettings(variant=variant, languages=["en", "de"], num_queries=32))
    save_adapter(build_adapter(config).state_dict(), config, tmp_path / "adapter")
    seen, scene_picture = [], Image.new("RGB", (64, 64))

    def judge(pipes: Any, arms: Any, scenes: Any, *, seed: int, ranks: Any) -> dict[Any, Any]:
        seen.extend(arms)
        rights = {("en", "as_is"): 4, ("de", "as_is"): 0, "en": 3, "de": 2}
        return {
            arm: [
                Judged(scene, "", scene_picture, number < rights.get(arm, rights.get(arm[0])))
                for number, scene in enumerate(scenes)
            ]
            for arm in arms
        }

    monkeypatch.setattr(mulan.evaluate, "judge_arms", judge)
    settings = {"adapter": str(tmp_path / "adapter"), "output_dir": str(tmp_path / "out")}
    evaluate(EvaluateSettings(**settings, languages=["en", "de"], num_prompts=4))
    told = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert told["english"] == 1.0 and told["trained"] == ["en", "de"]
    assert told["languages"]["en"] == {"as_is": 1.0, "mulan": 0.75}
    assert told["languages"]["de"] == {"as_is": 0.0, "mulan": 0.5}
    assert (tmp_path / "out" / "grid.png").is_file()
    arms = {"published": ["mulan", "mulan"], "seed": ["mulan-en", "mulan-de"]}[variant]
    assert seen == [("en", "as_is"), ("de", "as_is"), ("en", arms[0]), ("de", arms[1])]
    if variant == "seed":
        with pytest.raises(ValueError, match="no weights for ja; it has en, de"):
            evaluate(EvaluateSettings(**settings, languages=["ja"]))
