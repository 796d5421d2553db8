"""Going on from an export, through the command line: `init_from` and rehearsal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file

from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.fixtures import Command, Subject, succeeded

STILL = {"max_train_steps": 1, "learning_rate": 1e-9, "lr_scheduler": "constant"}


class Continual:
    """Tests of a method whose runs can go on from an export.

    Attributes:
        other: a change of the recipe's shape, in which `{shards}` is their folder, and what is said
            of an export of the former one.
    """

    other: ClassVar[tuple[Mapping[str, Any], str]]

    def test_a_run_starts_from_the_export_whatever_its_seed(
        self,
        subject: Subject,
        command: Command,
        recipe: dict[str, Any],
        exported: Path,
        tmp_path: Path,
    ) -> None:
        settings = {**recipe, **STILL, "seed": 9, "init_from": exported}
        succeeded(command("train", **settings, output_dir=tmp_path / "run"))
        for name in subject.weights:
            start = load_file(exported / name)
            for key, tensor in load_file(tmp_path / "run" / subject.exported / name).items():
                torch.testing.assert_close(tensor, start[key], atol=1e-6, rtol=0.0)

    def test_rehearsal_trains_and_what_cannot_be_rehearsed_is_refused(
        self, subject: Subject, command: Command, recipe: dict[str, Any], tmp_path: Path
    ) -> None:
        settings = {**recipe, "max_train_steps": 2, "output_dir": tmp_path / "run"}
        settings |= {"rehearsal": 0.5, "rehearsal_languages": recipe[subject.languages][:1]}
        succeeded(command("train", **settings))
        wrong = {**settings, "rehearsal_languages": ["ja"], "output_dir": tmp_path / "other"}
        assert f"add ja to --{subject.languages}" in refusal(command("train", **wrong))

    def test_an_export_of_another_shape_is_refused(
        self,
        command: Command,
        recipe: dict[str, Any],
        exported: Path,
        shards: str,
        tmp_path: Path,
    ) -> None:
        changes, words = self.other
        settings = {**recipe, **changes, "init_from": exported, "output_dir": tmp_path / "run"}
        settings["train_data"] = settings["train_data"].format(shards=shards)
        assert words in refusal(command("train", **settings))
