"""Which exported adapters a page has: those that are named, or the newest ones in a folder of runs.

Only configs are read here, so that a wrong name is an error before torch is loaded.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from crosslingual.worlds import World, find_world, model_folder
from crosslingual_benchmarks.play.exports import Export, find_marked, newest_first, read_pair
from crosslingual_benchmarks.play.settings import PlaySettings

AS_IS, TRANSLATED = "as-is", "translate-test"  # pictures that no export draws
DEFAULT_BASE = "testbed:sd"
REPORT = "report.html"
OWN_REPORT = Path(__file__).parents[3] / "testbed/page" / REPORT  # of a checkout


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
    found, faults = newest_first(folders)
    exports = [read_pair(pair) for pair in settings.exports] or found
    bases = Counter(each.base for each in exports if each.base)
    base = settings.base or (bases.most_common(1)[0][0] if bases else DEFAULT_BASE)
    own = base.partition(":")[0] if model_folder(base) else None
    name = settings.world or own
    world = find_world(name) if name else None
    if settings.exports:
        notes = check_exports(exports, base)
        check_clips(exports, world)
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
        notes=[*notes, *faults],
    )


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


def check_clips(exports: list[Export], world: World | None) -> None:
    """Refuses, by a ValueError, a named export whose CLIP has not seen the world's pictures."""
    for each in exports:
        own = each.clip.partition(":")[0] if each.clip and model_folder(each.clip) else None
        if own and world and own != world.name:
            raise ValueError(
                f"{each.folder} searches by {each.clip}, which has not seen the pictures of "
                f"{world.name}: give --world {own}, or leave it out of --exports"
            )


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
            others[f"{each.base} left out: give --base {each.base} to use them."] += 1
        if each.clip is not None and world and each.clip in ("", f"{world.name}:clip"):
            searches.setdefault(each.method, replace(each, base=None))
        elif each.clip and each.base is None and world:
            others[f"{each.clip} left out: name them by --exports, with their own --world."] += 1
    notes = [f"{count} for {other}" for other, count in others.items()]
    return [*draws.values(), *searches.values()], notes


def _report(given: str | None, folders: list[Path]) -> Path | None:
    if given is not None:
        if not Path(given).is_file():
            raise FileNotFoundError(f"no page {given}: give --report the path of a report.html")
        return Path(given)
    found = [folder / REPORT for folder in folders if (folder / REPORT).is_file()]
    newest = max(found, key=lambda path: path.stat().st_mtime, default=OWN_REPORT)
    return newest if newest.is_file() else None
