"""What `evaluate` and the demo say, by small numbers."""

import json
import re
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

import mulan.pipeline
from crosslingual.cli.settings import read_settings
from crosslingual.evaluation import generation
from crosslingual.worlds import find_world
from mulan.artifact import adapter_config, save_adapter
from mulan.method import build_adapter
from mulan.settings import DemoSettings, EvaluateSettings, TrainSettings
from mulan.verbs import evaluate

WORLD = find_world("testbed:sd").evaluation
FOLDER = Path(__file__).parents[1]


class Painter:
    """A pipeline that paints the first few of four scenes, as many as it can in each language."""

    components: ClassVar[dict[str, Any]] = {}

    def __init__(self, **able: int) -> None:
        scenes = WORLD.scenes("test", 4, 1)
        self.known = {WORLD.caption(s, name): s for name in able for s in scenes[: able[name]]}

    def __call__(self, prompts: list[str], **options: Any) -> SimpleNamespace:
        blank, rng = Image.new("RGB", (64, 64)), np.random.default_rng(0)
        known = self.known
        return SimpleNamespace(
            images=[WORLD.draw(known[p], rng) if p in known else blank for p in prompts]
        )


@pytest.fixture
def painters(monkeypatch: pytest.MonkeyPatch) -> dict[str, Painter]:
    """Painters that stand for pipelines, by the name of the adapter's folder; the base knows
    English.
    """
    base = SimpleNamespace(load_pipeline=lambda: Painter(en=4))
    monkeypatch.setattr(generation, "Base", SimpleNamespace(open=lambda name: base))
    found: dict[str, Any] = {"loaded": []}

    def load(path: str, language: str | None = None) -> Painter:
        found["loaded"].append(language)
        return found[Path(path).name]

    monkeypatch.setattr(mulan.pipeline, "load_pipeline", load)
    return found


def write(folder: Path, **changes: Any) -> str:
    config = adapter_config(TrainSettings(num_queries=32, **changes))
    return str(save_adapter(build_adapter(config).state_dict(), config, folder))


@pytest.mark.parametrize("variant", ["published", "seed"])
def test_evaluate_judges_every_language_with_and_without_the_adapter(
    painters: dict[str, Any], tmp_path: Path, variant: str
) -> None:
    """A seed adapter reads each language by its own weights."""
    adapter = write(tmp_path / "adapter", variant=variant, languages=["en", "de"])
    painters["adapter"] = Painter(en=3, de=2)
    settings = {"adapter": [adapter], "output_dir": str(tmp_path / "out"), "num_prompts": 4}
    evaluate(EvaluateSettings(**settings, languages=["en", "de"]))
    told = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert told["english"] == 1.0 and told["trained"] == ["en", "de"]
    assert told["languages"]["en"] == {"as_is": 1.0, "mulan": 0.75}
    assert told["languages"]["de"] == {"as_is": 0.0, "mulan": 0.5}
    assert (tmp_path / "out" / "grid.png").is_file()
    assert painters["loaded"] == {"published": [None], "seed": ["en", "de"]}[variant]
    if variant == "seed":
        with pytest.raises(ValueError, match="no weights for ja; it has en, de"):
            evaluate(EvaluateSettings(**settings, languages=["ja"]))


def test_table_shows_trained_and_zero_shot_languages_apart_for_both_encoders(
    painters: dict[str, Any], tmp_path: Path
) -> None:
    folders = [write(tmp_path / name) for name in ("not_aligned", "aligned")]
    painters |= {"not_aligned": Painter(en=4, zh=1), "aligned": Painter(en=2, de=4, zh=3)}
    settings = {"output_dir": str(tmp_path / "out"), "languages": ["en", "de", "zh"]}
    settings |= {"adapter": folders, "num_prompts": 4}
    told = evaluate(EvaluateSettings(**settings, head=["not aligned", "aligned"]))
    assert told["languages"]["zh"] == {"as_is": 0.0, "mulan": 0.25, "mulan-2": 0.75}
    table = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert "| language | training | as-is | not aligned | of English | aligned | of English |" in (
        table
    )
    assert "| en (upper bound) | | 1.00 | | | | |" in table
    assert "| en | captions | 1.00 | 1.00 | 100% | 0.50 | 50% |" in table
    assert "| de | none (zero-shot) | 0.00 | 0.00 | 0% | 1.00 | 100% |" in table
    assert "| mean of zero-shot | | | 0.12 | 12% | 0.88 | 88% |" in table
    assert f"{told['trainable']:,} trainable parameters" in table
    with pytest.raises(ValueError, match="name each of the 2 adapters: --head"):
        evaluate(EvaluateSettings(**settings))
    settings["adapter"][1] = write(tmp_path / "german", languages=["en", "de"])
    with pytest.raises(ValueError, match="different bases or languages"):
        evaluate(EvaluateSettings(**settings, head=["a", "b"]))


def test_demo_script_and_the_testbeds_config_say_the_same() -> None:
    demo, script = DemoSettings(), (FOLDER / "run.sh").read_text()
    config = read_settings(TrainSettings, FOLDER / "configs" / "testbed.yaml")
    assert config.max_train_steps == demo.max_train_steps
    assert config.text_encoder == demo.aligned_encoder
    for field in fields(demo):
        value = getattr(demo, field.name)
        words = " ".join(value) if isinstance(value, list) else str(value)
        default = re.search(rf"^{field.name.upper()}=\${{\w+:?-(.*)}}(  #.*)?$", script, re.M)[1]
        assert words == default or value is None, field.name
