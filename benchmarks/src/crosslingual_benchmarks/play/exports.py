"""Which exported adapters a page has: those that are named, or the newest ones in a folder of runs.

Only configs are read here, so that a wrong name is an error before torch is loaded.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosslingual.data.text import parse_json
from crosslingual.files import MARK
from crosslingual.worlds import World, find_world, model_folder
from crosslingual_benchmarks.methods import find_method, installed_methods
from crosslingual_benchmarks.play.settings import PlaySettings

AS_IS, TRANSLATED = "as-is", "translate-test"  # pictures that no export draws
DEFAULT_BASE = "testbed:sd"
REPORT = "report.html"
OWN_REPORT = Path(__file__).parents[3] / "testbed" / REPORT  # of a checkout
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


@dataclass(frozen=True)
class Plan:
    """What a page shows.

    Attributes:
        base: that draws.
        world: whose captions are examples and whose pictures are searched; None without a world.
        is_judged: whether the base belongs to the world, whose judge then reads the pictures.
        draws: exports that draw.
        searches: exports that search.
        translator: KIND:FOLDER, or None.
        report: a comparison's page, or None.
        notes: sentences on what is not there, or was left out.
    """

    base: str
    world: World | None
    is_judged: bool
    draws: list[Export]
    searches: list[Export]
    translator: str | None
    report: Path | None
    notes: list[str]


def plan_page(settings: PlaySettings) -> Plan:
    """What the settings name, or else what lies in their folder of runs.

    Raises:
        FileNotFoundError: a named export or report is not there.
        ValueError: a named folder holds no export, or there is no such method, world or base.
    """
    folders = list(find_marked(Path(settings.runs)))
    found = newest_first(folders)
    exports = [read_pair(pair) for pair in settings.exports] or found
    bases = Counter(each.base for each in exports if each.base)
    base = settings.base or (bases.most_common(1)[0][0] if bases else DEFAULT_BASE)
    own = base.partition(":")[0] if model_folder(base) else None
    name = settings.world or own
    world = find_world(name) if name else None
    if settings.exports:
        notes = check_exports(exports, base)
    else:
        exports, notes = fitting(found, base, world)
    if not exports:
        notes.append(
            f"No adapter for {base} is in {settings.runs}: train and export one, or name its "
            "folder by --exports NAME=FOLDER."
        )
    translators = [f"{each.method}:{each.folder}" for each in found if each.translates]
    return Plan(
        base=base,
        world=world,
        is_judged=world is not None and world.name == own,
        draws=[each for each in exports if each.base is not None],
        searches=[each for each in exports if each.clip is not None],
        translator=settings.translator or next(iter(translators), None),
        report=_report(settings.report, folders),
        notes=notes,
    )


def find_marked(runs: Path) -> Iterator[Path]:
    """The finished folders below a folder, none of them inside another."""
    for place, folders, files in os.walk(runs):
        folders[:] = sorted(name for name in folders if not name.startswith(SKIPPED))
        if MARK in files:
            folders.clear()
            yield Path(place)


def newest_first(folders: list[Path]) -> list[Export]:
    """Of folders those that are exports, the newest first; a broken one is left out."""
    found = []
    for folder in sorted(folders, key=lambda each: (each / MARK).stat().st_mtime, reverse=True):
        try:
            export = read_export(folder)
        except ValueError:
            continue
        found += [export] if export is not None else []
    return found


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


def check_exports(exports: list[Export], base: str) -> list[str]:
    """Sentences on named exports that were trained for another base, as a fine-tuned one may be.

    Raises:
        ValueError: a name comes twice or is the page's own; or an export and the base belong to
            different worlds.
    """
    names = Counter([AS_IS, TRANSLATED, *(each.name for each in exports)])
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"--exports names {twice[0]} twice: give each folder another NAME")
    others = [each for each in exports if each.base and locate(each.base) != locate(base)]
    for each in others:
        if model_folder(each.base) or model_folder(base):
            raise ValueError(
                f"{each.folder} is an adapter for {each.base}, not for {base}: give --base "
                f"{each.base}, or leave it out of --exports"
            )
    return [f"{e.name} was trained for {e.base} and draws with {base} here." for e in others]


def locate(base: str) -> str:
    """A local folder's absolute path, as configs name it; another base's name as it is."""
    return str(Path(base).resolve()) if Path(base).is_dir() else base


def fitting(found: list[Export], base: str, world: World | None) -> tuple[list[Export], list[str]]:
    """Of exports that were found, the newest of each method for the base, and for the world's CLIP;
    and sentences that say how many others were left out.
    """
    draws: dict[str, Export] = {}
    searches: dict[str, Export] = {}
    others: Counter[str] = Counter()
    for each in found:
        if each.base and locate(each.base) == locate(base):
            draws.setdefault(each.method, replace(each, clip=None))
        elif each.base is not None:
            others[each.base] += 1
        if each.clip is not None and world and each.clip in ("", f"{world.name}:clip"):
            searches.setdefault(each.method, replace(each, base=None))
    notes = [
        f"{count} for {other} left out: give --base {other} to use them."
        for other, count in others.items()
    ]
    return [*draws.values(), *searches.values()], notes


def _report(given: str | None, folders: list[Path]) -> Path | None:
    if given is not None:
        if not Path(given).is_file():
            raise FileNotFoundError(f"no page {given}: give --report the path of a report.html")
        return Path(given)
    found = [folder / REPORT for folder in folders if (folder / REPORT).is_file()]
    newest = max(found, key=lambda path: path.stat().st_mtime, default=OWN_REPORT)
    return newest if newest.is_file() else None
