"""`NAME generate`: a folder of pictures is one call's, whole, and nobody else's files."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from crosslingual.adapter import pipeline
from crosslingual.adapter.settings import GenerateSettings

SHAPE = {"height": 8, "width": 8, "guidance_scale": 1.0, "adapter": "adapter"}


def load_pipeline(adapter: str, base: str | None) -> Any:
    def pipe(prompt: str, num_images_per_prompt: int, **options: Any) -> SimpleNamespace:
        if prompt == "fails":
            raise ValueError("no picture")
        return SimpleNamespace(images=[Image.new("RGB", (8, 8))] * num_images_per_prompt)

    return pipe


@pytest.fixture(autouse=True)
def any_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load_pipeline` makes no pipeline of diffusers."""
    monkeypatch.setattr(pipeline.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(pipeline, "report_cut", lambda pipe: contextlib.nullcontext())
    monkeypatch.setattr(pipeline, "call_options", lambda pipe: {}, raising=False)


def generate(folder: Path, *prompts: str, number: int = 1) -> None:
    settings = GenerateSettings(list(prompts), output_dir=str(folder), **SHAPE)
    settings.num_images_per_prompt = number
    pipeline.write_pictures(settings, load_pipeline)


def names_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_used_folder_keeps_no_picture_of_another_prompt(tmp_path: Path) -> None:
    out = tmp_path / "out"
    generate(out, "a", "b", number=2)
    generate(out, "c")
    assert names_in(out) == ["00000/metadata.jsonl", "00000/samples/0000.png", "crosslingual.json"]
    assert json.loads((out / "00000/metadata.jsonl").read_text())["prompt"] == "c"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_call_that_fails_leaves_the_pictures_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    generate(out, "a")
    with pytest.raises(ValueError, match="no picture"):
        generate(out, "b", "fails")
    assert json.loads((out / "00000/metadata.jsonl").read_text())["prompt"] == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_with_other_files_gets_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_text("mine")
    with pytest.raises(ValueError, match="holds cat.jpg and no crosslingual.json"):
        generate(tmp_path, "a")
    generate(tmp_path / "out", "a")
    (tmp_path / "out/00000/samples/best.png").write_text("mine")
    with pytest.raises(
        ValueError, match="holds 00000/samples/best.png, which this program did not"
    ):
        generate(tmp_path / "out", "b")
    assert (tmp_path / "out/00000/samples/best.png").read_text() == "mine"
