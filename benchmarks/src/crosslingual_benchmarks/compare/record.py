"""The cost of an arm's training, as a line of `training.json`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from crosslingual.files import read_fields, write_json
from crosslingual_benchmarks.compare.commands import Command, mark_of, training_rows
from crosslingual_benchmarks.compare.plan import RUN
from crosslingual_benchmarks.compare.suite import Arm, Suite
from crosslingual_benchmarks.compare.times import ELSE

BUDGET = ("train_s", "num_processes", "arms_at_once")
"""The suite's values that decide what an arm may take."""


def append_training(
    results: Path,
    suite: Suite,
    arm: Arm,
    trained_languages: list[str],
    commands: Sequence[Command],
    further: dict[str, float],
    words: str,
) -> None:
    """Appends a line with the sum of an arm's trainings, and each of them under `stages`.

    `commands` are all that trained, also those of other arms whose outputs the arm uses: they have
    to be paid for. `further` are more metrics, such as the seconds of all the arm's commands, and
    `words` repeat the whole.
    """
    from crosslingual.evaluation.retrieval import append_result
    from crosslingual_benchmarks.results import make_result

    rows = [training_rows(Path(c.settings[RUN]), c.place) for c in commands]
    last = rows[-1]
    answers = {}
    if suite.question is not None and arm.answers:
        answers = {"question": asdict(suite.question), "answers": list(map(asdict, arm.answers))}
    result = make_result(
        "training",
        dataset=suite.name,
        model=arm.name,
        pretrained=suite.base,
        metrics={
            "train_s": sum(row["train_s"] for row in rows),
            "steps": sum(row["steps"] for row in rows),
            "step_s": last["step_s"],
            "samples_per_s": last["samples_per_s"],
            "num_processes": suite.num_processes,
            "trainable_parameters": max(row["trainable_parameters"] for row in rows),
            **further,
            **{key: max(row[key] for row in rows) for key in ("peak_gb",) if key in last},
        },
        protocol={**{name: asdict(suite)[name] for name in BUDGET}, "counted": "all commands"},
        about=arm.about,
        trained_languages=trained_languages,
        stages=[
            {"command": (mark_of(c.place) or {})["command"], **row}
            for c, row in zip(commands, rows, strict=True)
        ],
        seed=suite.seed,
        command=words,
        **answers,
    )
    append_result(results / "training.json", result)


def append_times(
    results: Path, place: Path, suite: Suite, seconds: dict[str, float], words: str
) -> None:
    """Adds seconds by kind of work to those of earlier runs of the comparison, in the file `place`,
    appends a line with their sums, and prints their shares.
    """
    from crosslingual.evaluation.retrieval import append_result
    from crosslingual_benchmarks.results import make_result

    earlier = read_fields(place, {}, "remove it") if place.is_file() else {}
    sums = {kind: value + earlier.get(kind, 0.0) for kind, value in seconds.items()}
    write_json(place, sums)
    total_s = sum(sums.values())
    metrics = {"total_s": total_s, **{f"{kind}_s": value for kind, value in sums.items()}}
    result = make_result(
        "comparison",
        dataset=suite.name,
        model="comparison",
        metrics=metrics | {"else_share": sums[ELSE] / total_s},
        protocol={name: asdict(suite)[name] for name in BUDGET},
        command=words,
    )
    append_result(results / "times.json", result)
    shares = ", ".join(f"{kind} {value / total_s:.0%}" for kind, value in sums.items())
    print(f"{total_s / 60:.0f} minutes: {shares}")


def total_parameters(results: Path, arm: Arm) -> dict[str, int]:
    """The size of the pipeline that an arm drew with; empty where it drew nothing."""
    from crosslingual_benchmarks.results import read_results

    path = results / "generation.json"
    lines = read_results([path]) if path.is_file() else []
    found = [r for r in lines if r["model"] == arm.name and "total_parameters" in r]
    return {"total_parameters": found[-1]["total_parameters"]} if found else {}
