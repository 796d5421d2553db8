"""Quality over seconds: an arm's checkpoints, judged on the validation split after it has trained.

A point's seconds are the time that a user would have waited if the training had ended there: the
arm's earlier commands, the start, the steps, and the end with its export. A stage gives points if
it wrote a folder of the same name as the arm's pipeline. Another stage, such as that of a text
encoder, only adds its seconds.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from crosslingual.data.text import iter_json_lines
from crosslingual.files import read_fields, write_json
from crosslingual_benchmarks.compare.commands import Command, launch, mark_of, seconds_to_step
from crosslingual_benchmarks.compare.plan import RUN
from crosslingual_benchmarks.compare.record import BUDGET
from crosslingual_benchmarks.compare.scratch import scratch_folder
from crosslingual_benchmarks.compare.suite import Arm, Suite, Values

TASK = "training_curve"
KIND = "curve"
PACKAGE = "crosslingual_benchmarks"
EXPORTS = {"train": "export", "finetune": "finetune-export"}
"""Verbs that train, and those that export their checkpoints; of others the end alone is a point."""
EXPORT = "{export}"
SEED = 0  # of the noise: the curves of a comparison's seeds differ by their training alone
AS_IS = "as_is"


@dataclass(frozen=True)
class Point:
    """A moment of an arm's training.

    Attributes:
        name: of its files.
        step: of its stage.
        seconds: from the arm's first command on.
        path: argument of `load_pipeline`, with `{export}` in the place of a checkpoint's export.
        checkpoint: its folder; None at the stage's end, where the stage's own export is drawn with.
        export: the command that exports checkpoints of its stage.
        key: changes with the stage.
    """

    name: str
    step: int
    seconds: float
    path: str
    checkpoint: Path | None = None
    export: str = ""
    key: str = ""


def checkpointing(suite: Suite, num_steps: int, step_s: float) -> Values:
    """Settings of a training command of so many steps: which checkpoints it keeps."""
    if suite.curve is None:
        return {"checkpointing_steps": max(num_steps // 2, 1)}
    spacing_s = suite.train_s / suite.curve.num_points
    num = max(1, round(num_steps * step_s / spacing_s))
    return {"checkpointing_steps": -(-num_steps // num), "checkpoints_total_limit": num + 1}


def points_of(pipeline: str, stages: list[tuple[Command, float]]) -> list[Point]:
    """The points of an arm whose export is `pipeline`.

    `stages` are its finished commands that train, each with the seconds before its start.
    """
    inside = [f"{command.settings[RUN]}/" for command, _ in stages]
    last = next((run for run in reversed(inside) if run in pipeline), None)
    if last is None:
        return []
    head, _, tail = pipeline.partition(last)
    found = []
    for (command, before_s), run in zip(stages, inside, strict=True):
        if Path(run + tail).is_dir():
            found += _points_of_stage(command, before_s, head, run + tail)
    return found


def _points_of_stage(command: Command, before_s: float, head: str, export: str) -> list[Point]:
    run = Path(command.settings[RUN])
    mark, metrics = mark_of(command.place), run / "metrics.jsonl"
    overhead_s = max(float(mark["seconds"]) - seconds_to_step(metrics), 0.0)
    name = (run / "latest").read_text(encoding="utf-8").strip()
    steps = sorted(int(folder.name.rpartition("-")[2]) for folder in run.glob("checkpoint-*"))
    last = int(name.rpartition("-")[2])
    module, _, verb = command.run.partition(" ")
    points = []
    for step in steps if verb in EXPORTS else [last]:
        seconds = before_s + overhead_s + seconds_to_step(metrics, step)
        told = (f"{command.place.name}-{step}", step, seconds)
        if step == last:
            points.append(Point(*told, head + export, key=mark["key"]))
        else:
            verb_of_export = f"{module} {EXPORTS[verb]}"
            place = run / f"checkpoint-{step}"
            points.append(Point(*told, head + EXPORT, place, verb_of_export, mark["key"]))
    return points


def judge(suite: Suite, arm: Arm, point: Point, place: Path) -> Values:
    """Draws and judges a point, unless `PLACE.json` holds its result; the pictures and the export
    are thrown away.

    Returns:
        `text_accuracy` by language, and the `protocol` of the measurement.

    Raises:
        RuntimeError: a command failed.
    """
    settings = _generation(suite, arm)
    told = json.dumps([point.key, point.step, point.path, settings], sort_keys=True)
    key = hashlib.sha256(told.encode()).hexdigest()
    result = place.with_name(f"{place.name}.json")
    if (found := read_point(result)) is not None and found["key"] == key:
        return found
    with scratch_folder(place, KIND) as folder:
        path = point.path
        if point.checkpoint is not None:
            export = {"checkpoint": str(point.checkpoint), "output_dir": str(folder / "export")}
            launch(Command(point.export, export, place))
            path = path.replace(EXPORT, str(folder / "export"))
        if arm.method != "base":
            settings["path"] = path
        settings["output_dir"] = str(folder / "pictures")
        launch(Command(f"{PACKAGE} generation", settings, place))
        lines = [line for _, line in iter_json_lines(folder / "pictures" / "generation.json")]
    accuracy = {line["language"]: line["metrics"]["text_accuracy"] for line in lines}
    found = {"key": key, "text_accuracy": accuracy, "protocol": lines[0]["protocol"]}
    write_json(result, found)
    return found


def read_point(path: Path) -> Values | None:
    """A point that was judged; None where it was not."""
    if not path.is_file():
        return None
    fields = {"key": str, "text_accuracy": dict[str, float], "protocol": dict}
    return read_fields(path, fields, "remove it to judge the point again")


def _generation(suite: Suite, arm: Arm) -> Values:
    """The settings of `generation`, without the pipeline and the folder."""
    return {
        **suite.generation,
        "method": arm.method,
        "arm": arm.name,
        "dataset": suite.world,
        "base": suite.base,
        "languages": suite.trained_languages,
        "prompt_split": "val",
        "num_prompts": suite.curve.num_prompts,
        **dict.fromkeys(("num_motif_prompts", "num_bootstrap", "num_fid_bootstrap"), 0),
        "use_references": False,
        "seed": SEED,
    }


def as_is_arm(suite: Suite) -> tuple[Arm, Point]:
    """The English base before any training: its English is the bound of all curves."""
    arm = Arm(AS_IS, "the English model is given the foreign prompt", "base")
    return arm, Point(AS_IS, 0, 0.0, "")


def line_of(suite: Suite, arm: Arm, point: Point, found: Values, words: str) -> Values:
    """The result line of a judged point."""
    from crosslingual_benchmarks.results import make_result

    accuracy, foreign = found["text_accuracy"], suite.foreign_languages
    every = {f"text_accuracy_{language}": value for language, value in accuracy.items()}
    mean = sum(accuracy[language] for language in foreign) / len(foreign)
    return make_result(
        TASK,
        dataset=suite.name,
        model=arm.name,
        pretrained=suite.base,
        point=point.name,
        metrics={"seconds": point.seconds, "step": point.step, "text_accuracy": mean, **every},
        protocol={**found["protocol"], **{name: asdict(suite)[name] for name in BUDGET}},
        languages=foreign,
        seed=None if arm.name == AS_IS else suite.seed,
        command=words,
    )
