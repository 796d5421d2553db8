"""Fixtures of every method's tests; a conftest.py imports what its tests use.

A method's conftest.py defines `subject`, which says what the method is called and what a short run
of it sets, and `parts`, the settings that name its frozen parts.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crosslingual_worlds.testing.fork_server import forked_method
from crosslingual_worlds.testing.miniatures import (
    write_encoder,
    write_flux,
    write_long_encoder,
    write_pictures,
    write_pixart,
    write_pixart_sigma,
    write_sana,
    write_sd,
    write_sd3,
    write_sdxl,
)

Command = Callable[..., dict[str, Any]]

SHORT_RUN = {
    "train_batch_size": 4,
    "max_train_steps": 6,
    "learning_rate": 1e-2,
    "lr_warmup_steps": 1,
    "checkpointing_steps": 2,
}


@dataclass(frozen=True)
class Subject:
    """A method, as the conformance kit has to know it.

    Attributes:
        name: of its package and command.
        folder: of its distribution: pyproject.toml, README.md, configs.
        exported: the folder in a run that an export goes to.
        weights: files in an export that hold what was trained.
        recipe: settings of a short run besides `SHORT_RUN` and the frozen parts.
        whole: changes of the recipe for the run that is compared with stopped and shared ones.
        languages: the setting that names the languages that train.
        base: the setting that names the frozen base.
        encode_batch_size: samples at a time for `features`.
    """

    name: str
    folder: Path
    exported: str = "adapter"
    weights: tuple[str, ...] = ("model.safetensors",)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    whole: Mapping[str, Any] = field(default_factory=dict)
    languages: str = "languages"
    base: str = "pretrained_model_name_or_path"
    encode_batch_size: int = 8


def _written_once(write: Callable[[Path], str]) -> Any:
    """A fixture: the folder that `write` fills, once for all tests."""

    @pytest.fixture(scope="session")
    def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
        return write(tmp_path_factory.mktemp(write.__name__))

    return folder


sd, sdxl, pixart = map(_written_once, (write_sd, write_sdxl, write_pixart))
sd3, flux, sana = map(_written_once, (write_sd3, write_flux, write_sana))
pixart_sigma = _written_once(write_pixart_sigma)
encoder = _written_once(write_encoder)
long_encoder = _written_once(write_long_encoder)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 random pictures captioned in English, German and French, all parallel."""
    return write_pictures(tmp_path_factory.mktemp("shards"), 24)


@pytest.fixture(scope="session")
def command(subject: Subject) -> Iterator[Command]:
    """Runs a verb in forked processes: `command("train", output_dir=..., max_train_steps=6)`.

    The answer holds `codes`, `stdout` and `stderr`, a value a rank; `fork_server.serve_method`
    says what a second argument may hold.
    """
    with forked_method(subject.name) as run:
        yield run


@pytest.fixture(scope="session")
def places(shards: str) -> dict[str, str]:
    """What names in braces stand for in the mistakes of `conformance.Command`."""
    return {"shards": shards}


def succeeded(answer: dict[str, Any]) -> dict[str, Any]:
    """Asserts that a command succeeded on every rank, and returns its answer."""
    assert set(answer["codes"]) == {0}, answer["stderr"]
    return answer


@pytest.fixture(scope="session")
def features(
    subject: Subject,
    command: Command,
    parts: dict[str, Any],
    shards: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The features of `shards`, by the method's `features`."""
    folder = tmp_path_factory.mktemp("features")
    settings = {"shards": shards, "features_dir": folder, **parts}
    succeeded(command("features", encode_batch_size=subject.encode_batch_size, **settings))
    return str(folder)


@pytest.fixture(scope="session")
def recipe(subject: Subject, parts: dict[str, Any], features: str) -> dict[str, Any]:
    """The settings of a short training run on `features`."""
    return {**parts, "train_data": features, **SHORT_RUN, **subject.recipe}


@pytest.fixture(scope="session")
def whole_recipe(subject: Subject, recipe: dict[str, Any], features: str) -> dict[str, Any]:
    """The settings of `whole`: the recipe with two validations on the training data."""
    return {**recipe, "validation_steps": 3, "validation_data": features, **subject.whole}


@pytest.fixture(scope="session")
def whole(
    command: Command, whole_recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run of six steps in one process that nothing disturbs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    succeeded(command("train", output_dir=run, **whole_recipe))
    return run


@pytest.fixture(scope="session")
def exported(
    subject: Subject,
    command: Command,
    recipe: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What a run of one step exported."""
    run = tmp_path_factory.mktemp("exported") / "run"
    succeeded(command("train", output_dir=run, **{**recipe, "max_train_steps": 1}))
    return run / subject.exported
