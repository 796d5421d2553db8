"""The drawn world's evaluation, asked for as a method asks for it: by the name of a base."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from crosslingual import worlds
from crosslingual.evaluation import generation
from crosslingual.evaluation.generation import Arm, EvaluateSettings, evaluate_pipelines
from crosslingual.worlds import find_world, find_worlds, model_folder

WORLD = find_world("testbed:sd").evaluation


class Painter:
    """A pipeline that paints what prompts say in the languages that it understands."""

    components: ClassVar[dict[str, Any]] = {}

    def __init__(self, *languages: str, seed_scenes: tuple[str, int, int] = ("test", 4, 1)):
        scenes = WORLD.scenes(*seed_scenes)
        scenes += [scene for name in languages for scene in WORLD.culture_scenes(name, 2)]
        self.known = {WORLD.caption(scene, name): scene for scene in scenes for name in languages}

    def __call__(self, prompts: list[str], **options: Any) -> SimpleNamespace:
        assert options["height"] == options["width"] == 64
        blank, rng = Image.new("RGB", (64, 64), (255, 255, 255)), np.random.default_rng(0)
        known = self.known
        return SimpleNamespace(
            images=[WORLD.draw(known[p], rng) if p in known else blank for p in prompts]
        )


@pytest.fixture
def english_base(monkeypatch: pytest.MonkeyPatch) -> None:
    base = SimpleNamespace(load_pipeline=lambda: Painter("en"))
    monkeypatch.setattr(generation.Base, "open", lambda name: base)


def settings_of(folder: Path, *languages: str) -> EvaluateSettings:
    return EvaluateSettings(output_dir=str(folder), languages=list(languages), num_prompts=4)


def test_a_methods_pictures_are_judged_beside_the_base_in_every_language(
    tmp_path: Path, english_base: None
) -> None:
    result = evaluate_pipelines(
        settings_of(tmp_path, "de", "ja", "zh"),
        "testbed:sd",
        {"pea": Arm("PEA", lambda language: Painter("de", "ja"))},
        trained=["de", "zh"],
        kind="parallel captions",
        note="12,345 trainable parameters",
        further={"trainable": 12345},
    )
    assert result == json.loads((tmp_path / "accuracy.json").read_text())
    assert result["english"] == 1.0 and result["trainable"] == 12345
    assert result["languages"]["de"] == {"as_is": 0.0, "pea": 1.0}
    assert result["languages"]["zh"] == {"as_is": 0.0, "pea": 0.0}
    table = (tmp_path / "table.md").read_text().splitlines()
    assert "| language | training | as-is | PEA | of English |" in table
    assert "| en (upper bound) | | 1.00 | | |" in table
    assert "| de | parallel captions | 0.00 | 1.00 | 100% |" in table
    assert "| ja | none (zero-shot) | 0.00 | 1.00 | 100% |" in table
    assert "| mean of trained | | | 0.50 | 50% |" in table
    assert "| mean of zero-shot | | | 1.00 | 100% |" in table
    assert table[-1] == "12,345 trainable parameters"
    assert Image.open(tmp_path / "grid.png").width > 64


def test_arms_without_baselines_are_judged_alone_in_the_languages_that_trained(
    tmp_path: Path,
) -> None:
    arms = {"iap": Arm("IAP", lambda language: Painter("zh"))}
    alone = {"trained": ["zh"], "kind": None, "note": "", "baselines": False}
    result = evaluate_pipelines(settings_of(tmp_path), "testbed:sd", arms, **alone)
    assert result["english"] is None and result["languages"] == {"zh": {"iap": 1.0}}
    assert not (tmp_path / "grid.png").exists()
    assert "| zh | | 1.00 | |" in (tmp_path / "table.md").read_text().splitlines()


def test_an_arm_by_language_is_loaded_once_a_language_and_others_once(
    tmp_path: Path, english_base: None
) -> None:
    loaded: list[tuple[str, str]] = []

    def arm(name: str, by_language: bool) -> Arm:
        def load(language: str) -> Painter:
            loaded.append((name, language))
            return Painter(language)

        return Arm(name, load, by_language)

    arms = {"seed": arm("seed", True), "published": arm("published", False)}
    note = {"trained": ["en"], "kind": "captions", "note": ""}
    result = evaluate_pipelines(settings_of(tmp_path, "en", "de"), "testbed:sd", arms, **note)
    assert loaded == [("seed", "en"), ("seed", "de"), ("published", "en")]
    assert result["languages"]["de"] == {"as_is": 0.0, "seed": 1.0, "published": 0.0}
    table = (tmp_path / "table.md").read_text().splitlines()
    assert "| en | captions | 1.00 | 1.00 | 100% | 1.00 | 100% |" in table
    assert "| mean of zero-shot | | | 1.00 | 100% | 0.00 | 0% |" in table
    assert not any(line.startswith("| mean of trained") for line in table)


def test_culture_is_asked_for_by_each_languages_own_motif(
    tmp_path: Path, english_base: None
) -> None:
    arms = {"stage": Arm("stage", lambda language: Painter("de"))}
    settings = settings_of(tmp_path, "de", "zh")
    judged = generation.judge_pipelines(settings, "testbed:sd", arms, ["de", "zh"], ["en"], 2)
    assert judged.accuracy(judged.culture, "stage") == {"de": 1.0, "zh": 0.0}
    assert set(judged.general) == {("en", "as_is"), ("de", "stage"), ("zh", "stage")}
    sheet = judged.world.draw_culture(judged.culture, {"stage": "stage"})
    assert sheet.width > sheet.height / 2


def test_a_base_of_no_world_is_refused_with_what_measures_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("this base is org/sd: measure it with")):
        generation.judge_pipelines(settings_of(tmp_path), "org/sd", {}, ["de"], [])


def test_names_resolve_without_torch_and_without_the_judge() -> None:
    code = (
        "import sys; from crosslingual.worlds import model_folder;"
        "print(model_folder('testbed:sd'));"
        "heavy = {'torch', 'numpy', 'PIL', 'scipy', 'transformers'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip().endswith("/weights/sd")


@pytest.mark.parametrize("ask", [model_folder, lambda name: worlds.contact_sheet([])])
def test_without_the_worlds_the_error_says_what_to_install(ask: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(worlds, "entry_points", lambda group: [])
    find_worlds.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"pip install -e tools/worlds.*\[demo\]"):
            ask("testbed:sd")
    finally:
        find_worlds.cache_clear()


def test_every_model_is_a_folder_and_an_unknown_one_is_refused_with_the_known() -> None:
    for name in ("sd", "sd3", "clip", "xlm-r", "xlm-r-aligned"):
        assert model_folder(f"testbed:{name}").is_dir()
    known = "testbed:sd, testbed:sd3, testbed:clip, testbed:xlm-r, testbed:xlm-r-aligned"
    with pytest.raises(ValueError, match=f"model 'testbed:xl'; there are {known}"):
        model_folder("testbed:xl")
    assert model_folder("org/model") is None and model_folder("C:\\models") is None
