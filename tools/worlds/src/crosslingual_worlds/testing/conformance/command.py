"""The command as a person meets it: what it prints, and what mistakes cost: one line, exit code 2,
nothing lost.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from crosslingual_worlds.testing.fixtures import Command as Run
from crosslingual_worlds.testing.fixtures import Subject, succeeded

HELP = """
import sys, time
from importlib.metadata import entry_points
(script,) = entry_points(group="console_scripts", name="{name}")
main = script.load()
sys.argv = ["{name}", "--help"]
assert main() == 0
assert not {{"torch", "numpy", "pydantic"}} & set(sys.modules), "help pays for nothing"
print("seconds", time.process_time())
for verb in "{verbs}".split():
    sys.argv = ["{name}", verb, "--help"]
    try:
        assert main() == 0
    except SystemExit as end:
        assert not end.code
    assert "torch" not in sys.modules, f"the help of {{verb}} imports torch"
import {name}.method
heavy = {{"deepspeed", "diffusers", "transformers", "PIL"}}
assert not heavy & set(sys.modules), "the paper needs torch alone"
"""

Mistake = tuple[Mapping[str, Any], str]  # changes of the recipe, and what the one line must hold


def refusal(answer: dict[str, Any]) -> str:
    """The one line that a refused command prints."""
    assert answer["codes"] == [2], answer
    line = answer["stderr"][0]
    assert line.startswith("error: ") and line.count("\n") == 1, line
    return line


def common_mistakes(subject: Subject, recipe: Mapping[str, Any]) -> dict[str, Mistake]:
    """Mistakes in training that every method refuses, by what is wrong."""
    spoken = re.escape(str(recipe[subject.languages]))
    size = recipe.get("resolution")
    return {
        "no data": ({"train_data": "null"}, "train_data|null"),
        "data that is not there": ({"train_data": "{tmp}/nowhere"}, "nowhere"),
        "an empty folder": ({"train_data": "{tmp}/empty"}, "empty"),
        "no languages": ({subject.languages: []}, f"{subject.languages} is not set"),
        "other languages": (
            {subject.languages: ["de"]},
            rf"are stale: languages was {spoken} and is \['de'\]",
        ),
        "languages without captions": (
            {"train_data": "{shards}", subject.languages: ["ja"]},
            "no sample has captions in 'ja'; there are captions in de, en, fr",
        ),
        "another resolution": ({"resolution": 64}, f"are stale: resolution was {size} and is 64"),
        "another length": ({"max_length": 8}, "are stale: max_length was 16 and is 8"),
        "nothing to resume": (
            {"resume_from_checkpoint": "latest"},
            "no checkpoint in .*; leave out --resume_from",
        ),
        "a checkpoint that is not there": (
            {"resume_from_checkpoint": "{tmp}/checkpoint-7"},
            "no checkpoint .*checkpoint-7; give a",
        ),
        "too few samples": ({"train_batch_size": 25}, "24 samples in .* do not fill one batch"),
        "an empty base": ({subject.base: "{tmp}/empty"}, "empty"),
        "an unknown schedule": (
            {"lr_scheduler": "polinomial"},
            "unknown lr_scheduler 'polinomial'; there are linear|lr_scheduler.*polynomial",
        ),
        "an unknown precision": ({"mixed_precision": "fp16"}, "mixed_precision"),
        "a word for a number": (
            {"learning_rate": "fast"},
            "setting 'learning_rate' must be a number, not 'fast'",
        ),
        "validation without data": ({"validation_steps": 2}, "validation_steps needs .*_data"),
        "validation on an empty folder": (
            {"validation_steps": 2, "validation_data": "{tmp}/empty"},
            "empty",
        ),
    }


COMMON = [*common_mistakes(Subject("", Path()), {"languages": [], "resolution": 0})]


class Command:
    """Tests of a method's command.

    Attributes:
        verbs: that its help lists.
        typo: a setting with a letter wrong, and the one that is meant.
        mistakes: further mistakes in training. `{tmp}` is an empty folder's parent, `{shards}` and
            the fixture `places` name others, `{tmp}/zero3.json` is DeepSpeed's stage 3.
        without: common mistakes that this method does not have.
        spoilt: the array of the features that a NaN is written into.
        nan_parts: the parts that the line on a NaN names.
        num_suspects: samples that this line names.
        disk_mb: of the small disk; a checkpoint fits twice.
        disk_slack: bytes left on it when the run goes on.
        reading: the verb that reads an export, its further settings, and the setting of the export.
        pickle: what is said of a pickle in the place of weights.
        nobody: what is said where nothing was exported.
        config: the file of an export that says `method`.
        stranger: what is said of another method's export.
        other_base: a base that does not fit the export, and what is said.
        num_trainable: parameters that train in the recipe.
    """

    verbs: ClassVar[str]
    typo: ClassVar[tuple[str, str]] = ("learning_rat", "learning_rate")
    mistakes: ClassVar[Sequence[Mistake]] = ()
    without: ClassVar[Sequence[str]] = ()
    spoilt: ClassVar[str] = "latent_mean"
    nan_parts: ClassVar[str]
    num_suspects: ClassVar[int] = 4
    disk_mb: ClassVar[int] = 1
    disk_slack: ClassVar[int] = 20_000
    reading: ClassVar[tuple[str, Mapping[str, Any], str]] = (
        "generate",
        {"prompt": "ein Haus"},
        "adapter",
    )
    pickle: ClassVar[str] = "is a pickle, which can run code; run the method's `import` verb"
    nobody: ClassVar[str] = "no adapter"
    config: ClassVar[str] = "config.json"
    stranger: ClassVar[str] = "an adapter of 'other', not of"
    other_base: ClassVar[tuple[str, str] | None] = None
    num_trainable: ClassVar[int]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test a mistake."""
        if "mistake" in metafunc.fixturenames:
            common = [name for name in COMMON if name not in self.without]
            own = [pytest.param(mistake, id=str(mistake[0])) for mistake in self.mistakes]
            metafunc.parametrize("mistake", [*common, *own])

    @pytest.fixture
    def work(self, tmp_path: Path) -> Path:
        """A folder with an empty folder and DeepSpeed's configurations by ZeRO stage."""
        (tmp_path / "empty").mkdir()
        for stage in range(4):
            text = json.dumps({"zero_optimization": {"stage": stage}})
            (tmp_path / f"zero{stage}.json").write_text(text)
        return tmp_path

    def test_help_answers_within_a_second_and_the_paper_needs_torch_alone(
        self, subject: Subject
    ) -> None:
        code = HELP.format(name=subject.name, verbs=self.verbs)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert float(re.search(r"seconds ([\d.]+)", done.stdout)[1]) < 1.0
        for verb in self.verbs.split():
            assert re.search(rf"^  {verb} +\w", done.stdout, re.MULTILINE), verb

    def test_every_verb_lists_its_settings(self, subject: Subject, command: Run) -> None:
        for verb in self.verbs.split():
            told = succeeded(command(verb, {"argv": [verb, "--help"]}))["stdout"][0]
            assert "--" in told, verb
            if verb == "train":
                assert f"--{subject.languages}" in told and "--learning_rate" in told

    def test_names_that_do_not_exist_are_answered_with_the_nearest(
        self, command: Run, recipe: dict[str, Any], tmp_path: Path
    ) -> None:
        assert "did you mean 'train'?" in refusal(command("trian"))
        wrong, meant = self.typo
        line = refusal(command("train", **{wrong: "1"}))
        assert line == f"error: unknown setting '{wrong}'; did you mean '{meant}'?\n"
        config = tmp_path / "ds.json"
        config.write_text('{"zero_optimisation": {"stage": 1}}')
        settings = {**recipe, "deepspeed_config": config, "output_dir": tmp_path / "run"}
        line = refusal(command("train", **settings))
        assert "DeepSpeed key 'zero_optimisation'; did you mean 'zero_optimization'?" in line
        assert "no config file" in refusal(command("train", config=tmp_path / "no.yaml"))

    def test_mistakes_in_training_are_one_line(
        self,
        subject: Subject,
        command: Run,
        recipe: dict[str, Any],
        places: dict[str, str],
        work: Path,
        mistake: str | Mistake,
    ) -> None:
        if isinstance(mistake, str):
            mistake = common_mistakes(subject, recipe)[mistake]
        changes, message = mistake
        changes = {
            name: value.format(tmp=work, **places) if isinstance(value, str) else value
            for name, value in changes.items()
        }
        line = refusal(command("train", **{**recipe, **changes, "output_dir": work / "run"}))
        assert re.search(message, line), line
        assert not list(work.glob("run/checkpoint-*"))

    def test_features_of_an_empty_folder_or_of_other_shards_are_refused(
        self,
        subject: Subject,
        command: Run,
        parts: dict[str, Any],
        shards: str,
        features: str,
        work: Path,
    ) -> None:
        settings = {"shards": work / "empty", "features_dir": work / "features", **parts}
        assert "empty" in refusal(command("features", **settings))
        settings = {"shards": shards, "features_dir": features, "encode_batch_size": 4, **parts}
        size = f"are stale: batch_size was {subject.encode_batch_size} and is 4"
        assert size in refusal(command("features", **settings))
        assert "needs --shards" in refusal(command("features", **parts))
        unspoken = {"shards": shards, "features_dir": work / "new", **parts}
        line = refusal(command("features", **{**unspoken, subject.languages: ["ja"]}))
        assert "no sample has captions in 'ja'" in line and not (work / "new").exists()
        line = refusal(command("features", **{**unspoken, subject.languages: ["jp"]}))
        assert "'jp' is no language code (BCP-47); did you mean 'ja'?" in line

    def test_a_loss_that_is_no_number_names_the_step_the_samples_and_the_parts(
        self, command: Run, recipe: dict[str, Any], features: str, tmp_path: Path
    ) -> None:
        spoilt, run = tmp_path / "features", tmp_path / "run"
        shutil.copytree(features, spoilt)
        block = sorted(spoilt.glob("block-*.safetensors"))[0]
        arrays = load_file(block)
        with safe_open(block, "pt") as file:
            metadata = file.metadata()
        arrays[self.spoilt][7] = float("nan")
        save_file(arrays, block, metadata=metadata)
        recipe = {**recipe, "train_data": spoilt, "output_dir": run}
        assert f"{block.name} is damaged" in refusal(command("train", **recipe))
        line = refusal(command("train", **recipe, verify_data="false"))
        pattern = rf"the loss of step (\d) is nan \({self.nan_parts}\) on samples ([\d, ]+);"
        found = re.search(pattern, line)
        assert found, line
        recorded = (run / "metrics.jsonl").read_text().splitlines()
        assert int(found[1]) == len(recorded) + 1
        samples = found[2].split(", ")
        assert len(samples) == self.num_suspects
        assert json.loads(metadata["keys"])[7] in samples

    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        """A tmpfs of `disk_mb`, which is full when the test has filled it."""
        folder = tmp_path / "small"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={self.disk_mb}m", "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    def test_a_full_disk_costs_nothing_that_was_saved(
        self, subject: Subject, command: Run, recipe: dict[str, Any], small_disk: Path
    ) -> None:
        run, ballast = small_disk / "run", small_disk / "ballast"
        killed = command("train", {"die": [3]}, output_dir=run, **recipe)
        assert killed["codes"] == [-9]
        free = shutil.disk_usage(small_disk).free
        ballast.write_bytes(b"\0" * (free - self.disk_slack))
        again = {**recipe, "output_dir": run, "resume_from_checkpoint": "latest"}
        line = refusal(command("train", **again))
        assert line.startswith("error: the disk is full: ") and "checkpoint-2 is intact" in line
        assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2"]
        ballast.unlink()
        succeeded(command("train", **again))
        lines = (run / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(row)["step"] for row in lines] == [1, 2, 3, 4, 5, 6]
        for name in subject.weights:
            assert (run / subject.exported / name).is_file()

    def test_a_run_goes_only_where_no_other_run_is(
        self, command: Run, recipe: dict[str, Any], exported: Path
    ) -> None:
        line = refusal(command("train", output_dir=exported.parent, **recipe))
        assert "holds checkpoint-1 of another run; add --resume_from_checkpoint latest" in line

    def test_export_needs_a_checkpoint_and_replaces_no_strangers_folder(
        self, command: Run, exported: Path, tmp_path: Path
    ) -> None:
        mine = tmp_path / "mine"
        nowhere = {"checkpoint": tmp_path / "nowhere", "output_dir": mine}
        line = refusal(command("export", **nowhere))
        assert re.search("no (checkpoint|settings.yaml) in", line), line
        mine.mkdir()
        for name in ("thesis.txt", "model_index.json", "config.json"):  # a base, a tokenizer
            (mine / name).write_text("{}")
            line = refusal(command("export", checkpoint=exported.parent, output_dir=mine))
            assert f"holds {name} and no crosslingual.json" in line
            assert [path.name for path in tmp_path.iterdir()] == ["mine"]
            assert (mine / name).read_text() == "{}"
        assert "--checkpoint" in refusal(command("export", output_dir=mine))

    def test_generate_writes_pictures_and_what_they_are(
        self,
        command: Run,
        exported: Path,
        places: dict[str, str],
        request: pytest.FixtureRequest,
        tmp_path: Path,
    ) -> None:
        if "generate" not in self.verbs.split():
            pytest.skip("this method draws no pictures")
        settings = {"prompt": ["ein Haus", "maison"], "num_inference_steps": 2}
        settings |= {"adapter": exported}
        succeeded(command("generate", output_dir=tmp_path / "pictures", **settings))
        for number, prompt in enumerate(settings["prompt"]):
            folder = tmp_path / "pictures" / f"{number:05d}"
            assert Image.open(folder / "samples" / "0000.png").size == (32, 32)
            assert json.loads((folder / "metadata.jsonl").read_text())["prompt"] == prompt
        if self.other_base is not None:
            base, message = self.other_base
            base = base if ":" in base else request.getfixturevalue(base)
            line = refusal(command("generate", pretrained_model_name_or_path=base, **settings))
            assert message in line

    def test_the_judge_takes_the_bases_of_worlds_alone(
        self, command: Run, exported: Path, tmp_path: Path
    ) -> None:
        if "generate" not in self.verbs.split():
            pytest.skip("this method draws no pictures")
        name = "adapters" if self.reading[2] == "adapters" else "adapter"
        settings = {name: exported, "output_dir": tmp_path, "languages": ["en", "de"]}
        line = refusal(command("evaluate", **settings))
        assert "text accuracy is judged on the base of a world (" in line and "testbed:" in line

    def test_a_pickle_where_safetensors_is_expected_is_not_opened(
        self, subject: Subject, command: Run, exported: Path, tmp_path: Path
    ) -> None:
        verb, settings, place = self.reading

        def message(folder: Path) -> str:
            answer = command(verb, **settings, **{place: folder})
            line = answer["stderr"][0].splitlines()[-1]  # diffusers may print one before
            assert answer["codes"] == [2] and line.startswith("error: "), answer
            return line

        for name in subject.weights:
            folder = tmp_path / name.replace("/", "-")
            shutil.copytree(exported, folder)
            (folder / "crosslingual.json").unlink()  # as another program writes it
            weights = folder / name
            state = load_file(weights)
            weights.unlink()
            torch.save(state, weights.with_suffix(".bin"))
            line = message(folder)
            assert re.search(self.pickle, line), line
            weights.with_suffix(".bin").rename(weights)
            line = message(folder)
            assert re.search(f"{self.pickle}|is a pickle|safetensors", line), line
        assert self.nobody in message(tmp_path / "nowhere")
        assert f"--{place}" in refusal(command(verb, **settings))

    def test_an_export_of_another_method_is_refused(
        self, command: Run, exported: Path, tmp_path: Path
    ) -> None:
        verb, settings, place = self.reading
        folder = tmp_path / "other"
        shutil.copytree(exported, folder)
        config = json.loads((folder / self.config).read_text())
        (folder / self.config).write_text(json.dumps({**config, "method": "other"}))
        line = refusal(command(verb, **settings, **{place: folder}))
        assert re.search(self.stranger, line), line

    def test_info_counts_what_trains_and_what_does_not(
        self, command: Run, recipe: dict[str, Any]
    ) -> None:
        told = succeeded(command("info", **recipe))["stdout"][0]
        rows = dict(re.findall(r"^(\S.*?)  +([\d,]+)(?: |$)", told, re.MULTILINE))
        counts = {name: int(number.replace(",", "")) for name, number in rows.items()}
        (trains,) = [n for name, n in counts.items() if re.search(r"\btrains\b", name)]
        assert trains == self.num_trainable
        total = counts.pop("total")
        assert total == sum(counts.values()) and len(counts) >= 3
