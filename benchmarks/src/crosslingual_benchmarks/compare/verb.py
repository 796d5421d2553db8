"""`crosslingual-bench compare` and `crosslingual-bench ablate`.

crosslingual-bench compare --suite testbed --output_dir runs/compare
crosslingual-bench compare --suite testbed --mixed_prompts 16 --output_dir runs/compare
crosslingual-bench ablate --method pea --output_dir runs/ablate-pea
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crosslingual.files import hold_folder

PROG = "crosslingual-bench"


@dataclass
class CompareSettings:
    """Settings of `crosslingual-bench compare`.

    Attributes:
        suite: the name of a file in suites/, such as testbed or emoji, or a YAML file.
        output_dir: folder of the data, arms, results and report; an interrupted run resumes there,
            command by command.
        arms: arms to run, with those whose results they need; all if none are named.
        exports: NAME=FOLDER of arms that are trained already; they are measured as they are.
        train_s: seconds that each arm may take, from the start of its first command to its export;
            the suite's own if not given.
        seeds: seeds of the comparison; the suite's own if none are given. Each of several has a
            folder of its own, seed-N, and the second one repeats only what trains, as long as an
            arm's num_seeds in the suite allows.
        num_prompts: prompts in each language, and at most so many for the curve over seconds; the
            suite's own if not given.
        mixed_prompts: prompts in each pair of languages, one of which trains, and 0 for none; the
            suite's own number if not given. Arms that are trained already are measured as they are.
        zero_shot_languages: languages to test besides those that train; the suite's own if none are
            given.
        price_per_hour: dollars for an hour of a process, for the report's costs.
        report: write the page at the end.
    """

    suite: str = "testbed"
    output_dir: str = "runs/compare"
    arms: list[str] = field(default_factory=list)
    exports: list[str] = field(default_factory=list)
    train_s: float | None = None
    seeds: list[int] = field(default_factory=list)
    num_prompts: int | None = None
    mixed_prompts: int | None = None
    zero_shot_languages: list[str] = field(default_factory=list)
    price_per_hour: float | None = None
    report: bool = True


@dataclass
class AblateSettings:
    """Settings of `crosslingual-bench ablate`: those of compare on the method's own suite.

    Attributes:
        method: method whose choices are compared.
        output_dir: as of compare; runs/ablate-METHOD if not given.
        arms: as of compare.
        train_s: seconds that each arm may take; the suite's own if not given.
        price_per_hour: dollars for an hour of a process, for the report's costs.
        report: write the page at the end.
    """

    method: str
    output_dir: str | None = None
    arms: list[str] = field(default_factory=list)
    train_s: float | None = None
    price_per_hour: float | None = None
    report: bool = True


def chosen_suite(settings: CompareSettings) -> Any:
    """The suite, with the arms and the budget that are asked for.

    Raises:
        FileNotFoundError: an export is not there.
        ValueError: no such arm; those of the suite are named.
    """
    from crosslingual.worlds import find_world
    from crosslingual_benchmarks.compare.suite import Mixing, read_suite

    suite = read_suite(settings.suite)
    if settings.train_s is not None:
        suite = dataclasses.replace(suite, train_s=settings.train_s)
    if settings.num_prompts is not None:
        num = settings.num_prompts
        curve = suite.curve
        if curve is not None and curve.num_prompts > num:
            curve = dataclasses.replace(curve, num_prompts=num)
        generation = {**suite.generation, "num_prompts": num}
        suite = dataclasses.replace(suite, generation=generation, curve=curve)
    if settings.mixed_prompts is not None:
        mixing = Mixing(settings.mixed_prompts) if settings.mixed_prompts else None
        suite = dataclasses.replace(suite, mixing=mixing)
    if suite.mixing and find_world(suite.world).evaluation.mixed_caption is None:
        raise ValueError(
            f"prompts of the {suite.world} name one thing, so that no two languages can share one: "
            "leave out --mixed_prompts"
        )
    if settings.zero_shot_languages:
        suite = dataclasses.replace(suite, zero_shot_languages=settings.zero_shot_languages)
    names = [arm.name for arm in suite.arms]
    if unknown := set(settings.arms) - set(names):
        raise ValueError(
            f"{settings.suite} has no arm {', '.join(sorted(unknown))}; it has {', '.join(names)}"
        )
    wanted = with_those_before(suite.arms, settings.arms or names)
    exports = _read_exports(settings.exports, names)
    arms = [
        _exported(arm, exports[arm.name], suite.trained_languages) if arm.name in exports else arm
        for arm in suite.arms
        if arm.name in wanted
    ]
    return dataclasses.replace(suite, arms=arms)


def with_those_before(arms: Sequence[Any], names: Sequence[str]) -> set[str]:
    """Names of arms, and of the arms whose folders their settings name."""
    from crosslingual_benchmarks.compare.suite import arms_read

    wanted, added = set(), set(names)
    while added:
        wanted |= added
        added = {name for arm in arms if arm.name in added for name in arms_read(arm)} - wanted
    return wanted


def _read_exports(pairs: list[str], names: list[str]) -> dict[str, str]:
    exports = dict(pair.partition("=")[::2] for pair in pairs)
    for name, folder in exports.items():
        if name not in names:
            raise ValueError(f"exports: no arm {name!r}; there are {', '.join(names)}")
        if not folder or not Path(folder).is_dir():
            raise FileNotFoundError(f"exports: {folder!r} of {name} is no folder; give NAME=FOLDER")
    return exports


def _exported(arm: Any, folder: str, languages: list[str]) -> Any:
    """An arm that trains nothing: its pipeline, or else its embedder, is in the folder.

    Raises:
        ValueError: the arm loads no export of its own.
    """
    if arm.method in ("base", "clip", "router"):
        raise ValueError(f"exports: {arm.name} loads no export of its own; leave it out")
    arm = dataclasses.replace(arm, trained_languages=arm.trained_languages or languages)
    place = str(Path(folder).resolve()).replace("{", "{{").replace("}", "}}")
    if arm.pipeline is not None:
        reader = re.match(r"\w+:", arm.pipeline)  # such as mclip:, of a translator
        place = (reader[0] if reader else "") + place
        return dataclasses.replace(arm, steps=[], pipeline=place, embedder=None)
    return dataclasses.replace(arm, steps=[], embedder=place)


def compare(settings: CompareSettings) -> Path:
    """Runs what is not done yet, and writes the report of all results.

    Returns:
        The folder of the report, or of the results where none is wanted.

    Raises:
        ValueError: an arm failed; the others are done and reported.
    """
    from crosslingual_benchmarks.results import command_of

    return _run(settings, command_of(f"{PROG} compare", settings), {})


def ablate(settings: AblateSettings) -> Path:
    """Compares a method's own choices, by the suite `ablate_METHOD`; returns and raises as
    `compare` does. Its report leaves out what others published of whole methods.
    """
    from crosslingual_benchmarks.results import command_of

    values = dataclasses.asdict(settings)
    method = values.pop("method")
    values["output_dir"] = settings.output_dir or f"runs/ablate-{method}"
    options = {"published": False, "title": f"Ablation: {method}"}
    words = command_of(f"{PROG} ablate", settings)
    return _run(CompareSettings(suite=f"ablate_{method}", **values), words, options)


def _run(settings: CompareSettings, words: str, report_options: dict[str, Any]) -> Path:
    from crosslingual_benchmarks.compare.display import Display
    from crosslingual_benchmarks.compare.record import append_times
    from crosslingual_benchmarks.compare.times import Times

    suite, folder, times = chosen_suite(settings), Path(settings.output_dir), Times()
    failed: dict[str, str] = {}
    with hold_folder(folder):
        runners = _runners(suite, settings, words, times)
        for runner in runners:
            runner.display = Display(runner.commands.total)
            failed |= runner.run()
            runner.display.close()
        results = [runner.results for runner in runners]
        place = results[0]
        if settings.report and any(any(each.glob("*.json")) for each in results):
            place = folder / "report"
            if settings.price_per_hour is not None:
                report_options = {**report_options, "price_per_hour": settings.price_per_hour}
            with times.of("report"):
                _report(results, place, report_options)
        append_times(results[0], folder / "times.json", suite, times.divided(), words)
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(suite.arms)} arms failed ({', '.join(failed)}); the others are "
            f"in {place}; the errors are above and in {results[0].parent / 'arms'}/NAME/*.log"
        )
    return place


def _runners(suite: Any, settings: CompareSettings, words: str, times: Any) -> list[Any]:
    """One for each seed; arms that do not train, such as the English bound, run with the first,
    and arms with `num_seeds` with so many.
    """
    from crosslingual_benchmarks.compare.display import Display
    from crosslingual_benchmarks.compare.runner import Runner
    from crosslingual_benchmarks.compare.suite import arms_read

    folder, runners = Path(settings.output_dir), []
    seeds = dict.fromkeys(settings.seeds or [suite.seed])
    for seed in seeds:
        held = [arm for arm in suite.arms if arm.num_seeds is None or arm.num_seeds > len(runners)]
        one, first = dataclasses.replace(suite, seed=seed, arms=held), next(iter(runners), None)
        if first is not None:
            trained = [arm for arm in one.arms if arm.steps or arms_read(arm)]
            one = dataclasses.replace(one, arms=trained)
        place = folder / f"seed-{seed}" if len(seeds) > 1 else folder
        runners.append(Runner(one, place, Display(0), words, first, times))
    return runners


def _report(results: list[Path], place: Path, options: dict[str, Any]) -> None:
    from crosslingual_benchmarks.report.verb import ReportSettings, report

    report(ReportSettings(results=list(map(str, results)), output_dir=str(place), **options))
