"""What several tests of `crosslingual-bench retrieval` and `compare` use."""

import io
import json
import textwrap

import pytest
import torch
from PIL import Image

from crosslingual.method import Method
from crosslingual_benchmarks import methods
from crosslingual_benchmarks.__main__ import main


def draw(shade: int) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 255 - shade, 0)).save(buffer, format="png")
    return buffer.getvalue()


class ByShade:
    """Pictures by their shade and texts by the number in them, so that every answer is right.

    `broken` texts and shades have NaN in their rows.
    """

    def __init__(self, broken=()):
        self.broken, self.seen = broken, []

    def embed_image(self, pictures):
        self.seen.append(len(pictures))
        return self._rows([picture.getpixel((0, 0))[0] for picture in pictures])

    def embed_text(self, texts):
        return self._rows([int(text.split()[-1]) for text in texts])

    def _rows(self, numbers):
        rows = torch.eye(256)[numbers]
        rows[[number in self.broken for number in numbers]] = torch.nan
        return rows


@pytest.fixture
def png():
    """Makes a picture of a shade."""
    return draw


@pytest.fixture
def shade_encoder():
    """Makes a `ByShade`."""
    return ByShade


@pytest.fixture
def register(monkeypatch):
    """Registers methods as if packages had: name to what loads its embedder, or None."""

    entry_points = methods.metadata.entry_points

    def add(**loaders):
        class Entry:
            def __init__(self, name, loader):
                self.name, self.value = name, f"{name}:METHOD"
                self.method = Method(name, "a paper", None, loader)

            def load(self):
                return self.method

        ours = [Entry(name, loader) for name, loader in loaders.items()]

        def found(**options):  # torch asks for entry points of its own
            return ours if options == {"group": methods.GROUP} else entry_points(**options)

        monkeypatch.setattr(methods.metadata, "entry_points", found)

    return add


@pytest.fixture
def root(tmp_path):
    """XM3600's layout: 12 pictures, English in two captions and German in one."""
    (tmp_path / "images").mkdir()
    lines = []
    for number in range(12):
        (tmp_path / "images" / f"p{number}.jpg").write_bytes(draw(number))
        english = {"caption": [f"picture {number}", f"shade {number}"]}
        german = {"caption": [f"Bild {number}"]}
        lines.append({"image/key": f"p{number}", "en": english, "de": german})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "captions.jsonl").write_text(text)
    return tmp_path


@pytest.fixture
def bench(root):
    """Runs the verb on `root`; words of its own come last. Returns the exit code."""

    def run(*words):
        common = ["--method", "shade", "--path", "model", "--dataset", "xm3600"]
        common += ["--num_bootstrap", "20", "--root", str(root)]
        return main(["retrieval", *common, "--output_dir", str(root / "out"), *words])

    return run


@pytest.fixture
def results():
    """Reads the lines below a folder's `out`."""
    return lambda folder: [json.loads(line) for line in (folder / "out/retrieval.json").open()]


@pytest.fixture
def rewrite():
    """Replaces the captions of a picture of `root` in some languages."""

    def change(root, number, **captions):
        path = root / "captions.jsonl"
        lines = [json.loads(line) for line in path.read_text().split("\n") if line]
        lines[number] |= {language: {"caption": texts} for language, texts in captions.items()}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return change


TRAINER = '''
"""Writes metrics and a checkpoint as a method's train does, a step in the time that it is told."""
import argparse, json, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("verb", nargs="?")
NAMES = "output_dir max_train_steps step_s checkpointing_steps fail train_data"
NAMES += " checkpoints_total_limit seed"
for name in NAMES.split():
    parser.add_argument(f"--{name}", default="0")
parser.add_argument("--resume_from_checkpoint", default="")
given = parser.parse_args()
folder = pathlib.Path(given.output_dir)
folder.mkdir(parents=True, exist_ok=True)
with (folder / "calls.txt").open("a") as calls:
    calls.write(f"{given.max_train_steps} {given.resume_from_checkpoint}\\n")
rows = [
    {"step": n + 1, "time_s": (n + 1) * float(given.step_s), "learning_rate": 0.1,
     "samples_per_s": 8.0}
    for n in range(int(given.max_train_steps))
]
(folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
last, every = int(given.max_train_steps), max(int(given.checkpointing_steps), 1)
for step in {*range(every, last, every), last}:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(exist_ok=True)
    (checkpoint / "checkpoint.json").write_text(json.dumps({"trainable": {"w": [3, 4], "b": [3]}}))
(folder / "latest").write_text(f"checkpoint-{last}")
(folder / "adapter").mkdir(exist_ok=True)
if given.fail != "0":
    raise SystemExit("the disk is full")
'''


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """The name of a module that trains, found by the processes that are started."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "faketrainer.py").write_text(textwrap.dedent(TRAINER))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "faketrainer"
