"""Exported adapters: what their configs say, and where they lie. No weights are read."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosslingual.data.text import parse_json
from crosslingual.files import MARK
from crosslingual_benchmarks.methods import find_method, installed_methods

SKIPPED = ("checkpoint-", "earlier", ".")  # how folders of runs begin that hold no export
UNNAMED = {"altclip": "altdiffusion"}
"""Methods by the `model_type` of configs that are transformers' own and name no method."""


@dataclass(frozen=True)
class Export:
    """An exported folder.

    Attributes:
        name: what the page calls it.
        method: of the entry point that loads it.
        folder: where it is.
        base: the base that it draws with; None where it draws nothing.
        clip: the CLIP whose pictures it searches, empty where its config does not say; None where
            it searches nothing.
        translates: whether it is a translator.
    """

    name: str
    method: str
    folder: Path
    base: str | None = None
    clip: str | None = None
    translates: bool = False


def find_marked(runs: Path) -> Iterator[Path]:
    """The finished folders below a folder, none of them inside another."""
    for place, folders, files in os.walk(runs):
        folders[:] = sorted(name for name in folders if not name.startswith(SKIPPED))
        if MARK in files:
            folders.clear()
            yield Path(place)


def newest_first(folders: list[Path]) -> tuple[list[Export], list[str]]:
    """Of folders those that are exports, the newest first; and what is wrong with broken ones."""
    found, faults = [], []
    for folder in sorted(folders, key=lambda each: (each / MARK).stat().st_mtime, reverse=True):
        try:
            export = read_export(folder)
        except ValueError as error:
            faults.append(f"Left out: {error}.")
            continue
        found += [export] if export is not None else []
    return found, faults


def read_export(folder: Path) -> Export | None:
    """What a folder's config says of it; None where it is no export of an installed method.

    Raises:
        ValueError: the config is broken; it is named.
    """
    for name in ("config.json", *(f"{method}.json" for method in installed_methods())):
        if not (folder / name).is_file():
            continue
        config = _object(folder / name)
        method = config.get("method") or UNNAMED.get(config.get("model_type"))
        if method not in installed_methods():
            continue
        if config.get("kind") == "translation":
            return Export(method, method, folder, translates=True)
        clip = "" if config.get("model_type") in UNNAMED else config.get("clip")
        is_able = find_method(method)
        return Export(
            name=method,
            method=method,
            folder=folder,
            base=config.get("base") if is_able.load_pipeline else None,
            clip=clip if is_able.load_embedder else None,
        )
    return None


def _object(path: Path) -> dict[str, Any]:
    try:
        config = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is broken ({error}); export the adapter again") from error
    return config if isinstance(config, dict) else {}


def read_pair(pair: str) -> Export:
    """An export that is named as NAME=FOLDER.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no pair, or the folder holds no export of an installed method.
    """
    name, _, place = pair.partition("=")
    if not name or not place:
        raise ValueError(f"--exports {pair!r} is no NAME=FOLDER, such as pea=runs/pea/adapter")
    folder = Path(place)
    if not folder.is_dir():
        raise FileNotFoundError(f"no adapter {place}: give --exports {name}=FOLDER of an export")
    export = read_export(folder)
    if export is None:
        there = ", ".join(installed_methods())
        raise ValueError(
            f"{place} holds no export of an installed method ({there}): give --exports "
            f"{name}=FOLDER that `METHOD export` wrote"
        )
    if name in installed_methods() and name != export.method:
        raise ValueError(
            f"{place} holds an adapter of {export.method}, not of {name}: give --exports "
            f"{export.method}={place}"
        )
    if export.translates:
        raise ValueError(f"{place} is a translator: give --translator {export.method}:{place}")
    return replace(export, name=name)
