"""Trackers of experiments behind three calls, by the names of `report_to`."""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL.Image import Image

_NAMES = ("tensorboard", "wandb", "trackio")


class Tracker:
    """Where numbers and pictures of a run go; this one, `none`, drops them."""

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Takes the numbers of a step."""

    def picture(self, name: str, picture: Image, step: int) -> None:
        """Takes a picture of a step."""

    def close(self) -> None:
        """Ends the run."""


class _TensorBoard(Tracker):
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, picture: Image, step: int) -> None:
        import numpy

        array = numpy.asarray(picture.convert("RGB"))
        self._writer.add_image(name, array, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class _Wandb(Tracker):
    """wandb, and trackio, which answers to the same calls."""

    def __init__(self, module: Any, folder: Path) -> None:
        self._module = module
        module.init(project="crosslingual", name=folder.resolve().name)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self._module.log(dict(values), step=step)

    def picture(self, name: str, picture: Image, step: int) -> None:
        self._module.log({name: self._module.Image(picture)}, step=step)

    def close(self) -> None:
        self._module.finish()


def open_tracker(report_to: str, folder: Path) -> Tracker:
    """Opens the tracker that `report_to` names, for the run in `folder`.

    Raises:
        ValueError: for an unknown name, or where its package is not installed.
    """
    if report_to == "none":
        return Tracker()
    if report_to not in _NAMES:
        raise ValueError(f"report_to is none, {', '.join(_NAMES)}, not '{report_to}'")
    if importlib.util.find_spec(report_to) is None:
        raise ValueError(f"report_to {report_to} needs a package: pip install {report_to}")
    if report_to == "tensorboard":
        return _TensorBoard(folder)
    return _Wandb(importlib.import_module(report_to), folder)
