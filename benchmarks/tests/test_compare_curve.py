"""A comparison's clock, arms side by side, curves over seconds, seeds, and how its time divides."""

import json
import threading
from pathlib import Path

import pytest
import yaml

from crosslingual_benchmarks.compare import commands, curve
from crosslingual_benchmarks.compare.arm_commands import ArmCommands
from crosslingual_benchmarks.compare.commands import Command, run_command, seconds_to_step
from crosslingual_benchmarks.compare.display import Display
from crosslingual_benchmarks.compare.jobs import Job, run_jobs
from crosslingual_benchmarks.compare.plan import Plan
from crosslingual_benchmarks.compare.runner import Runner
from crosslingual_benchmarks.compare.suite import build_suite
from crosslingual_benchmarks.compare.times import ELSE, divide
from crosslingual_benchmarks.compare.verb import CompareSettings, compare

TRAIN = {"output_dir": "{arm}/run", "step_s": 0.1}
BASE = {"name": "as_is", "about": "a test", "method": "base"}


def values_of(arms, **changes):
    values = {"name": "small", "base": "testbed:sd", "clip": "testbed:clip", "arms": arms}
    values |= {"trained_languages": ["en", "de", "zh"], "zero_shot_languages": []}
    values |= {"data": {}, "generation": {}, "retrieval": {}, "train_s": 40.0, "num_processes": 1}
    return values | changes


def arm_of(name="one", steps=None, **keys):
    steps = steps or [{"run": "faketrainer train", "share": 1, "settings": TRAIN}]
    return {"name": name, "about": "a test", "method": "pea", "steps": steps, **keys}


def runner_of(folder, arms, **changes):
    suite = build_suite(values_of(arms, **changes), "here")
    return Runner(suite, folder, Display(1), "crosslingual-bench compare")


def mark(folder, name, seconds):
    """Says that a command has run."""
    path = folder / "arms" / f"{name}.done.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"key": name, "seconds": seconds, "command": name}))


TWO_STAGES = [
    {"run": "x features", "settings": {"features_dir": "{arm}/features"}},
    {
        "run": "x train",
        "share": 0.4,
        "settings": {"train_data": "{arm}/features", "output_dir": "{arm}/a"},
    },
    {"run": "x features", "settings": {"features_dir": "{arm}/b-features"}},
    {
        "run": "x train",
        "share": 0.6,
        "settings": {"train_data": "{arm}/b-features", "output_dir": "{arm}/b"},
    },
]
AFTER_A = [
    {"run": "x features", "settings": {"encoder": "{arms}/two/a/e", "features_dir": "{arm}/f"}},
    {"run": "x train", "share": 1, "settings": {"output_dir": "{arm}/run"}},
]


@pytest.mark.parametrize(
    ("arm", "number", "share", "left"),
    [
        (0, 1, 0.4, 40 - 7),
        (0, 3, 0.6, 100 - 7 - 30 - 5),  # what the first stage left is the second one's
        (1, 1, 1, 100 - 7 - 30 - 9),  # the other arm's features and first stage, and its own
        (1, 1, 0.2, 60 - 7 - 30 - 9),
    ],
)
def test_a_command_has_the_seconds_that_those_before_it_left(arm, number, share, left, tmp_path):
    arms = [arm_of("two", TWO_STAGES), arm_of("after", AFTER_A)]
    arms[arm]["steps"] = [
        {**step, "share": share} if place == number else step
        for place, step in enumerate(arms[arm]["steps"])
    ]
    runner = runner_of(tmp_path, arms, train_s=100)
    done = {"two/0-x-features": 7, "two/1-x-train": 30, "two/2-x-features": 5, "two/3-x-train": 50}
    for name, seconds in {**done, "after/0-x-features": 9}.items():
        mark(tmp_path, name, float(seconds))
    assert runner._seconds_left(runner.suite.arms[arm], number) == pytest.approx(left)


def test_features_that_take_the_whole_slice_are_an_error_with_a_remedy(tmp_path):
    runner = runner_of(tmp_path, [arm_of("two", TWO_STAGES)], train_s=100)
    mark(tmp_path, "two/0-x-features", 41.0)
    with pytest.raises(
        ValueError, match=r"before x train took 41 s, and it has to end at 40 s: ra"
    ):
        runner._seconds_left(runner.suite.arms[0], 1)


def test_start_and_end_of_a_command_are_no_steps(tmp_path):
    plan, command = Plan(tmp_path / "plan.json"), Command("x", {}, tmp_path)
    plan.steps["a"] = {"step_s": 0.5, "overhead_s": 2.0}
    assert plan.num_steps("a", [command], 10) == 16
    of_another_seed = Plan(tmp_path / "seed-1" / "plan.json", tmp_path / "plan.json")
    assert of_another_seed.num_steps("a", [command], 9) == 14
    with pytest.raises(ValueError, match="start and end 2 s, so 6 s are 8 steps"):
        plan.num_steps("a", [command], 6)


def test_seconds_to_a_step_leave_out_the_pause_before_a_run_resumed(tmp_path):
    times = [1.0, 2.0, 3.0, 0.5, 1.5]
    rows = [{"step": n + 1, "time_s": t, "learning_rate": 0.1} for n, t in enumerate(times)]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [seconds_to_step(file, n) for n in (2, 3, 4)] == [2.0, 3.0, 3.5]
    assert seconds_to_step(file) == 4.5


def test_the_seconds_of_a_killed_command_are_not_forgotten(tmp_path, monkeypatch):
    command = Command("timeit", {}, tmp_path / "it")
    monkeypatch.setattr(commands, "BEAT_S", 0.01)
    monkeypatch.setattr(commands, "write_json", lambda *given: notes.append(given))
    notes = []
    taken = run_command(command, "key")
    assert 0 < notes[0][1]["seconds"] < notes[-1][1]["seconds"] == pytest.approx(taken)
    spent = notes[-2][1] | {"seconds": 40.0}
    (tmp_path / "it.spent.json").write_text(json.dumps(spent))
    assert run_command(command, "another key") < 40
    (tmp_path / "it.spent.json").write_text(json.dumps(spent))
    assert run_command(command, "key") > 40 and not (tmp_path / "it.spent.json").exists()


def test_jobs_run_side_by_side_and_wait_for_those_that_they_need():
    order, meeting = [], threading.Barrier(2, timeout=10)

    def work(name, meets=False):
        if meets:
            meeting.wait()
        order.append(name)

    jobs = [
        Job("a", lambda: work("a", meets=True)),
        Job("after a", lambda: work("after a"), frozenset({"a"})),
        Job("b", lambda: work("b", meets=True)),  # a and b meet: they run at the same time
        Job("x", lambda: work("x"), frozenset({"y"})),
        Job("y", lambda: work("y"), frozenset({"x"})),
    ]
    run_jobs(jobs, 2)
    assert sorted(order) == ["a", "after a", "b", "x", "y"]
    assert order.index("a") < order.index("after a") and order.index("x") < order.index("y")


def test_wall_time_divides_between_what_runs_at_a_moment():
    spans = [("training", 1.0, 5.0), ("calibration", 3.0, 5.0), ("judging", 6.0, 8.0)]
    seconds = divide(spans, 0.0, 10.0)
    assert seconds["training"] == 3.0 and seconds["calibration"] == 1.0
    assert seconds["judging"] == 2.0 and seconds[ELSE] == 4.0
    assert sum(seconds.values()) == 10.0


@pytest.mark.parametrize(
    ("num_steps", "step_s", "every", "kept"),
    [(280, 1.0, 56, 6), (100, 1.0, 50, 3), (20, 1.0, 20, 2), (7, 50.0, 2, 7)],
)
def test_checkpoints_are_at_equal_distances_of_the_arm_s_seconds(num_steps, step_s, every, kept):
    suite = build_suite(values_of([], train_s=300, curve={"num_points": 5}), "here")
    told = curve.checkpointing(suite, num_steps, step_s)
    assert told == {"checkpointing_steps": every, "checkpoints_total_limit": kept}


@pytest.fixture
def judged(monkeypatch):
    """Commands of a curve that were run; each judged picture of a checkpoint is right."""
    calls, lock = [], threading.Lock()

    def launch(command):
        with lock:  # two threads call it
            calls.append(command)
            number = [each.run.endswith("generation") for each in calls].count(True)
        if command.run.endswith("export"):
            Path(command.settings["output_dir"]).mkdir()
        if not command.run.endswith("generation"):
            return 0.1
        if number in judged.fail_at:
            raise RuntimeError("out of memory")
        folder = Path(command.settings["output_dir"])
        folder.mkdir()
        is_trained = "path" in command.settings
        assert not is_trained or Path(command.settings["path"]).is_dir()
        lines = [
            {
                "language": language,
                "metrics": {"text_accuracy": float(language == "en" or is_trained)},
                "protocol": {"split": command.settings["prompt_split"]},
            }
            for language in command.settings["languages"]
        ]
        (folder / "generation.json").write_text("".join(json.dumps(x) + "\n" for x in lines))
        return 0.1

    def judged():
        return [command.run.split()[-1] for command in calls]

    judged.fail_at = ()
    monkeypatch.setattr(curve, "launch", launch)
    monkeypatch.setattr(ArmCommands, "measurements", lambda self, arm: [])
    monkeypatch.setattr(ArmCommands, "latencies", lambda self, arm: [])
    return judged


def test_a_curve_goes_on_where_it_was_cut_off_and_ends_with_the_arm(trainer, judged, tmp_path):
    def run():
        arms = [arm_of(pipeline="{arm}/run/adapter")]
        return runner_of(tmp_path, arms, curve={"num_points": 4}, arms_at_once=2).run()

    judged.fail_at = (3,)
    assert "out of memory" in run()["one"]
    num_before = len(judged())
    judged.fail_at = ()
    assert run() == {}
    assert judged()[num_before:].count("generation") == 1 + (4 - 4)  # the one that failed
    lines = list(map(json.loads, (tmp_path / "results/curve.json").read_text().splitlines()))
    assert [line["model"] for line in lines] == ["as_is"] + ["one"] * 4
    metrics = [line["metrics"] for line in lines]
    assert [m["text_accuracy"] for m in metrics] == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert metrics[0]["text_accuracy_en"] == 1.0
    assert [m["seconds"] for m in metrics] == pytest.approx([0, 10, 20, 30, 40], abs=5)
    assert lines[1]["protocol"]["split"] == "val" and lines[1]["languages"] == ["de", "zh"]
    left = {path.suffix for path in (tmp_path / "curve").rglob("*") if path.is_file()}
    assert left == {".json"}  # no picture, no export
    num_before = len(judged())
    assert run() == {} and len(judged()) == num_before


def test_stages_that_write_no_pipeline_only_add_their_seconds(trainer, judged, tmp_path):
    steps = [
        {
            "run": "faketrainer train-text",
            "share": 0.5,
            "settings": TRAIN | {"output_dir": "{arm}/t"},
        },
        {"run": "faketrainer train", "share": 0.5, "settings": TRAIN | {"output_dir": "{arm}/u"}},
    ]
    arms = [arm_of(steps=steps, pipeline="kind:{arm}/u/pipeline")]
    runner = runner_of(tmp_path, arms, curve={"num_points": 2})
    assert runner.run() == {}
    assert runner.points(runner.suite.arms, {})[1:] == []  # the trainer writes no such folder
    (tmp_path / "arms/one/u/pipeline").mkdir()
    first, last = [point for _, point in runner.points(runner.suite.arms, {})[1:]]
    assert (first.path, first.export) == ("kind:{export}", "faketrainer export")
    assert (last.path, last.checkpoint) == (f"kind:{tmp_path}/arms/one/u/pipeline", None)
    assert 19 < first.seconds < last.seconds < 45  # of steps that take no time, and real starts
    (tmp_path / "arms/one/t/pipeline").mkdir()  # train-text has no verb that exports
    assert [p.name[0] for _, p in runner.points(runner.suite.arms, {})] == ["a", "0", "1", "1"]


def test_several_seeds_repeat_what_trains_and_are_one_page(trainer, judged, tmp_path):
    arms = [BASE, arm_of(pipeline="{arm}/run/adapter")]
    suite = tmp_path / "mine.yaml"
    suite.write_text(yaml.safe_dump(values_of(arms, curve={"num_points": 2}, latency=False)))
    place = compare(CompareSettings(str(suite), str(tmp_path / "out"), seeds=[3, 4], num_prompts=2))
    plans = [json.loads((tmp_path / f"out/seed-{n}/plan.json").read_text()) for n in (3, 4)]
    assert (
        plans[0]["one/0-faketrainer train"]["step_s"]
        == plans[1]["one/0-faketrainer train"]["step_s"]
    )
    curves = [
        list(
            map(
                json.loads, (tmp_path / f"out/seed-{n}/results/curve.json").read_text().splitlines()
            )
        )
        for n in (3, 4)
    ]
    assert [[line["seed"] for line in lines] for lines in curves] == [[None, 3, 3], [4, 4]]
    page = (place / "report.md").read_text()
    assert "Quality per second" in page and "| one | 2 |" in page
    (line,) = (tmp_path / "out/seed-3/results/times.json").read_text().splitlines()
    metrics = json.loads(line)["metrics"]
    kinds = ("data", "calibration", "training", "judging", "report", "else")
    assert sum(metrics[f"{kind}_s"] for kind in kinds) == pytest.approx(metrics["total_s"])
    assert metrics["training_s"] > 0 and 0 <= metrics["else_share"] < 1
