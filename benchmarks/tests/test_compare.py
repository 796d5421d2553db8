"""A comparison with commands of its own: what runs, what is kept, what goes on, what fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from crosslingual_benchmarks.compare import suite as suite_module
from crosslingual_benchmarks.compare.arm_commands import ArmCommands
from crosslingual_benchmarks.compare.commands import (
    Command,
    launch,
    run_command,
    step_time,
    training_rows,
)
from crosslingual_benchmarks.compare.display import Display
from crosslingual_benchmarks.compare.plan import Plan
from crosslingual_benchmarks.compare.runner import Runner
from crosslingual_benchmarks.compare.suite import (
    SUITES,
    arms_read,
    build_suite,
    fill,
    read_suite,
)
from crosslingual_benchmarks.compare.times import Times
from crosslingual_benchmarks.compare.verb import (
    AblateSettings,
    CompareSettings,
    _runners,
    ablate,
    chosen_suite,
    compare,
)

LATENCY = "crosslingual_benchmarks latency"


def values_of(arms):
    """A suite's YAML without data, parsed."""
    values = {"name": "small", "base": "testbed:sd", "clip": "testbed:clip", "arms": arms}
    values |= {"trained_languages": ["en", "de"], "zero_shot_languages": ["ja"]}
    values |= {"data": {}, "generation": {}, "retrieval": {}}
    return values | {"train_s": 4.0, "num_processes": 1}


def suite_of(arms, **changes):
    """A suite of arms without data."""
    return build_suite(values_of(arms) | changes, "here")


def arm_of(trainer, name="one", **settings):
    """An arm with one step that trains."""
    settings = {"output_dir": "{arm}/run", "step_s": 0.1, **settings}
    return {
        "name": name,
        "about": "a test",
        "method": "base",
        "steps": [{"run": trainer, "share": 0.5, "settings": settings}],
    }


def runner_of(suite, folder):
    """A runner in a folder."""
    return Runner(suite, folder, Display(1), "crosslingual-bench compare")


def calls_of(folder, arm="one"):
    """Steps and resumes of each call of the trainer."""
    return (folder / "arms" / arm / "run" / "calls.txt").read_text().split("\n")[:-1]


def test_the_budget_in_seconds_becomes_steps_by_the_measured_seconds_a_step(trainer, tmp_path):
    folder = tmp_path / "out"
    assert runner_of(suite_of([arm_of(trainer)]), folder).run() == {}
    # half of 4 s at 0.1 s a step
    assert calls_of(folder) == ["20 "] or calls_of(folder) == ["19 "]
    plan = json.loads((folder / "plan.json").read_text())
    assert plan[f"one/0-{trainer}"]["step_s"] == pytest.approx(0.1)
    (result,) = map(json.loads, (folder / "results" / "training.json").read_text().splitlines())
    assert result["metrics"]["trainable_parameters"] == 15
    assert result["metrics"]["train_s"] == pytest.approx(2.0, abs=0.11)
    assert result["trained_languages"] == ["en", "de"]


def test_what_is_done_is_not_done_again_and_a_changed_command_is(trainer, tmp_path):
    folder = tmp_path / "out"
    for _ in range(2):
        runner_of(suite_of([arm_of(trainer)]), folder).run()
    assert len(calls_of(folder)) == 1
    assert len((folder / "results" / "training.json").read_text().splitlines()) == 1
    (folder / "arms" / "one" / "run" / "notes.txt").write_text("mine")
    runner_of(suite_of([arm_of(trainer, fail="0")]), folder).run()
    assert len(calls_of(folder)) == 1  # of the new run: the old one's folder is moved
    (earlier,) = (folder / "earlier").iterdir()
    assert (earlier / "notes.txt").read_text() == "mine"
    assert len((folder / "results" / "training.json").read_text().splitlines()) == 2


def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint(trainer, tmp_path):
    folder = tmp_path / "out"
    broken = arm_of(trainer, fail="1")
    place = folder / "arms" / "one"
    plan = {f"one/0-{trainer}": {"step_s": 0.1}}
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(plan))
    failed = runner_of(suite_of([broken]), folder).run()
    assert "the disk is full" in failed["one"]
    assert not (place / f"0-{trainer}.done.json").exists()
    runner_of(suite_of([broken]), folder).run()
    assert [call.split(" ")[1] for call in calls_of(folder)] == ["", "latest"]


def test_pictures_of_an_earlier_training_are_moved_and_others_kept(trainer, tmp_path):
    suite = suite_of([arm_of(trainer)])
    runner = runner_of(suite, tmp_path)
    command = Command("crosslingual_benchmarks generation", {}, tmp_path / "arms/one/generation")
    pictures = runner.results / "one-testbed"
    for key, is_kept in (("first", True), ("first", True), ("second", False)):
        pictures.mkdir(parents=True, exist_ok=True)
        runner._drop_stale_pictures(suite.arms[0], command, key)
        assert pictures.exists() == is_kept


def test_nothing_that_this_comparison_did_not_write_is_removed(trainer, tmp_path):
    mine = [tmp_path / "data" / "test" / "labels.csv", tmp_path / "arms" / "one" / "run" / "a.txt"]
    for path in mine:
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    data = {"test": {"split": "test", "num_samples": 2, "languages": "{all}"}}
    with pytest.raises(ValueError, match="labels.csv"):
        runner_of(suite_of([], data=data), tmp_path).run()
    (tmp_path / "plan.json").write_text(json.dumps({f"one/0-{trainer}": {"step_s": 0.1}}))
    failed = runner_of(suite_of([arm_of(trainer)]), tmp_path).run()
    assert "run holds a.txt, which this comparison did not write" in failed["one"]
    assert [path.read_text() for path in mine] == ["mine", "mine"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test", "num_samples": 2, "colour": 1}, "data test: .*colour"),
        ({"source": "nowhere"}, "data test: no source 'nowhere'; there are"),
    ],
)
def test_data_that_the_world_has_not_are_an_error_with_their_name(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        runner_of(suite_of([], data={"test": options}), tmp_path).run()


def test_data_of_a_suite_that_has_changed_are_not_taken_for_the_new_ones(trainer, tmp_path):
    arm = arm_of(trainer, train_data="{data}/test")

    def runner(num_samples):
        options = {"split": "test", "num_samples": num_samples, "languages": "{all}"}
        return runner_of(suite_of([arm], data={"test": options}), tmp_path)

    (tmp_path / "plan.json").write_text(json.dumps({f"one/0-{trainer}": {"step_s": 0.1}}))
    mark = tmp_path / "arms" / "one" / f"0-{trainer}.done.json"
    keys = []
    for num_samples, is_removed in ((2, False), (2, False), (3, True)):
        if is_removed:
            with pytest.raises(ValueError, match="written for a suite with other data"):
                runner(num_samples).run()
            shutil.rmtree(tmp_path / "data" / "test")
        assert runner(num_samples).run() == {}
        keys.append(json.loads(mark.read_text())["key"])
    assert keys[0] == keys[1] != keys[2]


def test_a_second_comparison_in_the_same_folder_is_refused(tmp_path):
    code = f"from crosslingual.files import hold_folder; lock = hold_folder({str(tmp_path)!r})"
    words = [sys.executable, "-c", f"{code}; print(flush=True); input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match="is being written by process"):
            compare(CompareSettings(arms=["as_is"], output_dir=str(tmp_path)))
        other.communicate(b"\n")
    assert not (tmp_path / "data").exists()


SLEEPER = """
import pathlib, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
pids = [subprocess.Popen(sleep, start_new_session=each).pid for each in (True, False)]
pathlib.Path(sys.argv[2]).write_text(" ".join(map(str, pids)) + "\\n")
time.sleep(0 if sys.argv[-1] == "ends" else 60)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
@pytest.mark.parametrize("how", ["the group is killed", "it is killed", "ends"])
def test_nothing_outlives_a_command_or_the_process_that_runs_it(how, trainer, tmp_path):
    (tmp_path / "modules" / "sleeper.py").write_text(SLEEPER)
    settings = {"pids": str(tmp_path / "pids"), "how": how}
    command = f"Command('sleeper', {settings!r}, Path({str(tmp_path / 'it')!r}))"
    code = (
        "from pathlib import Path; from crosslingual_benchmarks.compare.commands import Command, "
    )
    code += f"launch; launch({command})"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    wait_until((tmp_path / "pids").is_file, 30)
    pids = (tmp_path / "pids").read_text().split()
    if how == "the group is killed":
        os.killpg(process.pid, signal.SIGKILL)
    elif how == "it is killed":
        process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_alive, pids)), 1)


def wait_until(is_so, seconds):
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(pid):
    """Whether a process runs."""
    status = Path("/proc", pid, "stat")
    return status.is_file() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("plan.json", '{"one/0', "plan.json is broken"),
        ("plan.json", "[]", "plan.json is broken"),
        (
            "plan.json",
            '{"one/0-faketrainer": {"step_s": "fast"}}',
            "step_s is 'fast', not a number",
        ),
        ("plan.json", '{"one/0-faketrainer": {"step_s": 0.0}}', "takes 0.0 s; remove the file"),
        ("arms/one/0-faketrainer.done.json", "{}", "done.json is broken"),
        ("arms/one/0-faketrainer.done.json", '{"key": 3}', "done.json is broken"),
    ],
)
def test_what_a_comparison_keeps_is_read_with_the_file_s_name(
    name, text, message, trainer, tmp_path
):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)

    def run():
        failed = runner_of(suite_of([arm_of(trainer)]), tmp_path).run()
        raise ValueError(failed["one"])

    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"step": "1"}, "metrics.jsonl line 2: step is '1', not a whole number"),
        ({"time_s": None}, "metrics.jsonl line 2: time_s is None, not a number"),
    ],
)
def test_rows_of_wrong_types_are_named(row, message, tmp_path):
    good = {"step": 1, "time_s": 1.0, "learning_rate": 0.1}
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in (good, good | row)))
    with pytest.raises(ValueError, match=message):
        step_time(file)


def test_an_arm_that_fails_does_not_stop_the_others(trainer, tmp_path):
    folder = tmp_path / "out"
    arms = [arm_of(trainer, "bad", fail="1"), arm_of(trainer, "good")]
    arms.append({**ARM, "name": "reader", "pipeline": "{arms}/bad/run"})
    failed = runner_of(suite_of(arms), folder).run()
    assert list(failed) == ["bad", "reader"]
    assert failed["reader"] == "it needs the outputs of bad, which failed"
    lines = (folder / "results" / "training.json").read_text().splitlines()
    assert [json.loads(one)["model"] for one in lines] == ["good"]


def test_a_budget_of_no_step_is_an_error_that_says_how_long_a_step_takes(trainer, tmp_path):
    arm = arm_of(trainer, step_s=1.5)
    failed = runner_of(suite_of([arm]), tmp_path / "out").run()
    assert "a step takes 1.50 s, start and end 0 s, so 2 s are 1 steps" in failed["one"]


def test_a_failed_command_tells_the_end_of_its_log(trainer, tmp_path):
    command = Command(trainer, {"output_dir": tmp_path / "run", "fail": 1}, tmp_path / "it")
    with pytest.raises(RuntimeError, match=r"ended with code 1(.|\n)*the disk is full"):
        launch(command)
    with pytest.raises(RuntimeError):
        run_command(command, "key")
    assert not (tmp_path / "it.done.json").exists()


def test_a_command_is_written_as_it_would_be_typed(tmp_path):
    command = Command("pea.train", {"languages": ["de", "zh"], "use_ema": True}, tmp_path, 2)
    assert " ".join(command.words) == (
        "torchrun --standalone --nproc_per_node 2 -m pea.train --languages de zh --use_ema true"
    )
    assert command.key("") != command.key("another before")


def test_seconds_a_step_are_those_of_the_steps_that_count(tmp_path):
    times = [1.0, 1.1, 1.2, 5.2, 5.3]
    rows = [{"step": n, "time_s": t, "learning_rate": 0.1} for n, t in enumerate(times)]
    rows.insert(2, {"step": 1, "time_s": 1.15, "validation_loss": 1.0})
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    taken = step_time(file)  # a pause is paid for, and is no step's length
    assert (taken.median_s, taken.mean_s) == (pytest.approx(0.1), pytest.approx(4.3 / 4))
    again = [{"step": n + 2, "time_s": 0.5 + 0.2 * n, "learning_rate": 0.1} for n in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *again]))
    taken = step_time(file)  # cut off after step 4, gone on from 2: of 3 and 4 the last counts
    assert taken.mean_s == pytest.approx((0.1 + 0.1 + 0.2 + 0.2) / 4)
    file.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(ValueError, match="too few"):
        step_time(file)
    with pytest.raises(FileNotFoundError, match="no finished training"):
        training_rows(tmp_path, tmp_path / "log")


def test_an_arm_pays_for_what_it_goes_on_from_and_runs_anew_where_that_did(trainer, tmp_path):
    def arms(step_s):
        first = arm_of(trainer, "first", step_s=step_s)
        second = arm_of(trainer, "second", train_data="{arms}/first/run/export", step_s=0.1)
        return [first, second, arm_of(trainer, "third", step_s=0.1)]

    for step_s in (0.1, 0.1, 0.05):
        (tmp_path / "plan.json").unlink(missing_ok=True)
        assert runner_of(suite_of(arms(step_s)), tmp_path).run() == {}
    lines = (tmp_path / "results" / "training.json").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["model"] for row in rows] == ["first", "second", "third", "first", "second"]
    seconds = [row["metrics"]["train_s"] for row in rows]
    assert seconds[0] == seconds[2] == pytest.approx(2.0, abs=0.11)
    assert 4.0 < seconds[1] <= 6.0  # the first one's, and what its start left of the whole
    assert [len(row["stages"]) for row in rows] == [1, 2, 1, 1, 2]


def test_an_arm_without_steps_pays_for_those_it_names_and_answers_with_every_seed(
    trainer, tmp_path, monkeypatch
):
    arms = [arm_of(trainer, name) for name in ("one", "two")]
    exports = "x:{arms}/one/run/adapter,{arms}/two/run/adapter"
    router = {"name": "router", "about": "a test", "method": "router", "pipeline": exports}
    router |= {"trained_languages": ["de"], "answers": [ANSWER]}
    suite = suite_of([*arms, ARM, router], question=QUESTION, latency=False)
    monkeypatch.setattr(ArmCommands, "measurements", lambda self, arm: [])
    monkeypatch.setattr("crosslingual_benchmarks.compare.verb.chosen_suite", lambda _: suite)
    for seed in (0, 1):  # where its measurements would lie
        (tmp_path / f"seed-{seed}" / "arms" / "router").mkdir(parents=True)
    compare(CompareSettings(output_dir=str(tmp_path), seeds=[0, 1], report=False))
    for seed in (0, 1):
        path = tmp_path / f"seed-{seed}" / "results" / "training.json"
        rows = {row["model"]: row for row in map(json.loads, path.read_text().splitlines())}
        assert rows["router"]["metrics"]["train_s"] == pytest.approx(4.0, abs=0.3)
        defaults = {"against": None, "measure": "text_accuracy"}
        assert rows["router"]["answers"] == [ANSWER | defaults]
        assert rows["router"]["question"] == QUESTION and "answers" not in rows["one"]
        assert len(rows["router"]["stages"]) == 2


def test_arms_that_others_go_on_from_are_run_with_them():
    chosen = chosen_suite(CompareSettings(suite="ablate_mclip", arms=["texts_alone"]))
    assert [arm.name for arm in chosen.arms] == ["triangle", "texts_alone"]


def test_words_in_braces_are_places_and_languages():
    words = {"arm": "/a", "foreign": ["de"], "packages": {"pea": "/p"}}
    assert fill({"x": "{arm}/run", "y": "{foreign}", "z": ["{packages[pea]}/w", 3]}, words) == {
        "x": "/a/run",
        "y": ["de"],
        "z": ["/p/w", 3],
    }
    with pytest.raises(ValueError, match="unknown word; there are {arm}"):
        fill("{nowhere}/x", words)


ARM = {"name": "a", "about": "b", "method": "c"}
ANSWER = {"row": "r", "column": "c", "languages": ["de"]}
QUESTION = {"title": "Why?", "text": "So."}
READER = ARM | {"name": "b", "pipeline": "{arms}/a/run"}
TWO_STEPS = {"steps": [{"run": "x", "share": 0.7}] * 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "unknown colour"),
        ({"arms": [{"name": "a", "about": "b"}]}, "lacks arms.0.method"),
        ({"arms": [ARM, ARM]}, "two arms of one name"),
        ({"arms": "none"}, "arms is 'none', not a list"),
        ({"arms": [ARM | TWO_STEPS]}, "at most 1 in all"),
        ({"arms": [ARM | {"name": "../../home"}]}, "cannot name a folder"),
        ({"data": {"a/b": {}}}, "'a/b' cannot name a folder"),
        ({"arms": [ARM | {"steps": [{"run": 3}]}]}, "arms.0.steps.0.run is 3, not a text"),
        ({"trained_languages": ["en", False]}, "trained_languages.1 is False, not a text"),
        ({"train_s": "soon"}, "train_s is 'soon', not"),
        ({"arms": [ARM | {"num_seeds": 0}]}, "arm a: num_seeds is below 1"),
        ({"arms": [ARM | {"num_seeds": 1}, READER]}, "arm b: it reads a, which has fewer seeds"),
        ({"each": {"n": [1]}}, "each: n has no value, or nothing holds {n}"),
        ({"each": {"n": 3}}, "each: n is 3, not a list"),
        ({"arms_at_once": 0}, "arms_at_once, trained_languages or a number of the curve"),
        ({"mixing": {"num_prompts": 0}}, "of mixing or of reading is empty or below 1"),
        ({"reading": {"num_prompts": 0}}, "of mixing or of reading is empty or below 1"),
        ({"curve": {"num_points": 0}}, "a number of the curve, of mixing or of reading is empty"),
        ({"curve": {}, "trained_languages": ["en"]}, "a curve needs English and another"),
        ({"arms": [ARM | {"answers": [ANSWER]}]}, "arm a: an answer lacks question or languages"),
        (
            {"arms": [ARM | {"answers": [ANSWER | {"against": "z"}]}], "question": QUESTION},
            "arm a: an answer lacks z in this suite",
        ),
        (
            {"arms": [ARM | {"answers": [ANSWER | {"languages": ["fr"]}]}], "question": QUESTION},
            "an answer lacks fr",
        ),
    ],
)
def test_a_suite_that_is_wrong_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        suite_of(**{"arms": [], **changes})


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "name: !secret x",
        "[",
        "a: &a [*a]",
        "a: 2020-01-01",
        "\x00",
        b"\xff",
        "[" * 400,
    ],
)
def test_a_file_that_is_no_suite_is_an_error_with_its_name(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"mine\.yaml"):
        read_suite(str(path))


@pytest.mark.parametrize("name", sorted(path.stem for path in SUITES.glob("*.yaml")))
def test_our_suites_are_read_and_every_word_in_them_is_known(name):
    suite = read_suite(name)
    words = dict.fromkeys(("data", "arms", "arm", "base", "clip", "seed"), "x") | {
        "all": suite.languages
    }
    words |= {"trained": suite.trained_languages, "foreign": suite.trained_languages[1:]}
    words["packages"] = {"mulan": "m"}
    assert suite.trained_languages[0] == "en"
    for arm in suite.arms:
        for step in arm.steps:
            fill(step.settings, words)
        shares = [step.share for step in arm.steps]
        builds = bool(arms_read(arm))  # on other arms' trainings
        assert not shares or (0 < sum(shares) or builds) and sum(shares) <= 1 + 1e-6
        assert arm.pipeline or arm.embedder


def test_an_ablation_says_its_own_command_and_nothing_of_others(trainer, tmp_path, monkeypatch):
    values = values_of([arm_of(trainer)]) | {"train_s": 90}
    (tmp_path / "ablate_fake.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(suite_module, "SUITES", tmp_path)
    place = ablate(AblateSettings("fake", output_dir=str(tmp_path / "out"), train_s=4.0))
    page = (place / "report.md").read_text()
    assert page.startswith("# Ablation: fake\n") and "Published" not in page
    (line,) = (tmp_path / "out/results/training.json").read_text().splitlines()
    told = f"crosslingual-bench ablate --method fake --output_dir {tmp_path}/out --train_s 4.0"
    assert json.loads(line)["command"] == told


def test_latencies_are_measured_where_the_suite_wants_them(tmp_path):
    arm = {"name": "one", "about": "a test", "method": "pea", "pipeline": "p", "embedder": "e"}
    for wanted in (True, False):
        suite = suite_of([arm], latency=wanted)
        commands = runner_of(suite, tmp_path).commands.latencies(suite.arms[0])
        assert [command.run for command in commands] == [LATENCY] * wanted


def test_prompts_of_the_training_split_are_measured_in_a_folder_of_their_own(tmp_path):
    arm = {"name": "one", "about": "a test", "method": "pea", "pipeline": "p"}
    runner = runner_of(suite_of([arm], reading={"num_prompts": 7}), tmp_path)
    test, read = runner.commands.measurements(runner.suite.arms[0])
    assert "prompt_split" not in test.settings and read.place.name == "reading"
    assert read.settings["prompt_split"] == "train" and read.settings["num_prompts"] == 7
    pictures = [runner.results / f"one-{runner.suite.world}{end}" for end in ("", "-train")]
    for key in ("first", "second"):
        for place in pictures:
            place.mkdir(parents=True, exist_ok=True)
        runner._drop_stale_pictures(runner.suite.arms[0], read, key)
    assert [place.exists() for place in pictures] == [True, False], "only its own pictures move"


def test_mixed_prompts_are_measured_for_arms_that_read_them_and_can_be_asked_for(tmp_path):
    settings = CompareSettings(arms=["english", "as_is", "mclip", "pea"], mixed_prompts=5)
    runner = runner_of(chosen_suite(settings), tmp_path)
    mixed = {arm.name: runner.commands.measurements(arm)[1:] for arm in runner.suite.arms}
    assert mixed["english"] == mixed["mclip"] == []
    (command,) = mixed["pea"]
    assert command.settings["num_prompts"] == 5 and command.place.name == "mixing"
    assert command.settings["second_languages"] == ["en", "de", "hi", "ja", "zh"]
    assert command.settings["languages"] == runner.suite.languages
    pictures = [runner.results / f"pea-testbed{end}" for end in ("", "-mixed")]
    for key in ("first", "second"):
        for place in pictures:
            place.mkdir(parents=True, exist_ok=True)
        runner._drop_stale_pictures(runner.suite.arms[-1], command, key)
    assert [place.exists() for place in pictures] == [True, False]
    with pytest.raises(ValueError, match="prompts of the emoji name one thing.*--mixed_prompts"):
        chosen_suite(CompareSettings(suite="emoji", mixed_prompts=5))


@pytest.mark.parametrize("seed", [0, 2])
def test_pictures_and_recalls_of_a_seed_say_that_they_are_its(seed, tmp_path):
    arm = {"name": "one", "about": "a test", "method": "pea", "pipeline": "p", "embedder": "e"}
    suite = suite_of([arm], seed=seed)
    drawing, finding = runner_of(suite, tmp_path).commands.measurements(suite.arms[0])
    assert drawing.settings["seed"] == finding.settings.get("seed", 0) == seed


def test_an_absent_suite_or_arm_is_named():
    with pytest.raises(FileNotFoundError, match="one of .*testbed"):
        read_suite("nowhere")
    with pytest.raises(ValueError, match="has no arm peaa; it has english"):
        chosen_suite(CompareSettings(arms=["peaa"]))
    chosen = chosen_suite(CompareSettings(arms=["pea", "as_is"], train_s=7))
    assert [arm.name for arm in chosen.arms] == ["as_is", "pea"]
    assert chosen.train_s == 7


def test_an_arm_that_is_trained_already_is_taken_as_it_is(tmp_path):
    settings = CompareSettings(arms=["pea", "mclip"], exports=[f"pea={tmp_path}"])
    mclip, pea = chosen_suite(settings).arms
    assert pea.trained_languages == ["en", "de", "hi", "ja", "zh"]
    assert pea.steps == [] and fill(pea.pipeline, {}) == str(tmp_path)
    assert mclip.steps and mclip.embedder == "{arm}/run/model"
    translator = CompareSettings(arms=["translate_test"], exports=[f"translate_test={tmp_path}"])
    assert chosen_suite(translator).arms[0].pipeline == f"mclip:{tmp_path}"
    for suite, arm in (("testbed", "english"), ("merging", "pea_2_router")):
        with pytest.raises(ValueError, match=f"{arm} loads no export of its own"):
            chosen_suite(CompareSettings(suite=suite, arms=[arm], exports=[f"{arm}={tmp_path}"]))
    with pytest.raises(ValueError, match="no arm 'peaa'"):
        chosen_suite(CompareSettings(exports=["peaa=x"]))
    with pytest.raises(FileNotFoundError, match="give NAME=FOLDER"):
        chosen_suite(CompareSettings(exports=["pea"]))


def test_an_arm_runs_under_as_many_seeds_as_the_suite_gives_it(trainer, tmp_path):
    bound = {"name": "bound", "about": "a test", "method": "base", "pipeline": "{base}"}
    arms = [bound, arm_of(trainer), arm_of(trainer, "once") | {"num_seeds": 1}]
    arms.append(arm_of(trainer, "twice") | {"num_seeds": 2})
    settings = CompareSettings(output_dir=str(tmp_path), seeds=[5, 3, 4])
    runners = _runners(suite_of(arms), settings, "", Times())
    assert {runner.suite.seed: [arm.name for arm in runner.suite.arms] for runner in runners} == {
        5: ["bound", "one", "once", "twice"],
        3: ["one", "twice"],
        4: ["one"],
    }


def test_arms_and_data_that_hold_a_word_of_each_are_repeated():
    few = {"name": "few_{n}", "about": "of {n}", "method": "base", "pipeline": "{arm}/x"}
    few["steps"] = [{"run": "x", "share": 1, "settings": {"num": "{n}", "at": "{data}/d_{n}"}}]
    data = {"d_{n}": {"num": "{n}"}, "all": {}}
    suite = suite_of([ARM, few], data=data, each={"n": [30, 100]})
    assert [arm.name for arm in suite.arms] == ["a", "few_30", "few_100"]
    assert suite.arms[2].steps[0].settings == {"num": 100, "at": "{data}/d_100"}
    assert (suite.arms[1].about, suite.arms[1].pipeline) == ("of 30", "{arm}/x")
    assert suite.data == {"d_30": {"num": 30}, "d_100": {"num": 100}, "all": {}}


def test_a_plan_is_kept(tmp_path):
    plan = Plan(tmp_path / "plan.json")
    plan.steps["a"] = {"step_s": 0.5}
    command = Command(sys.executable, {}, tmp_path)
    assert plan.num_steps("a", [command], 10) == 20
    assert Plan(tmp_path / "plan.json").num_steps("a", [command], 10) == 20


def test_a_step_is_measured_anew_where_its_command_changed_but_not_for_another_seed(
    tmp_path, monkeypatch
):
    costs = iter([0.5, 0.1])
    monkeypatch.setattr(
        "crosslingual_benchmarks.compare.plan._measure", lambda *_: {"step_s": next(costs)}
    )

    def commands(seed, names="a", **changes):
        arm = tmp_path / f"seed-{seed}" / "arms"
        features = Command("x features", {"shards": names, "features_dir": f"{arm}/f"}, tmp_path)
        run = {"train_data": f"{arm}/f", "output_dir": f"{arm}/run", "seed": seed}
        return [features, Command("x train", run | changes, tmp_path)]

    first = tmp_path / "seed-0" / "plan.json"
    plan = Plan(first)
    assert [plan.num_steps("a", commands(0), 10) for _ in range(2)] == [20, 20]
    other = Plan(tmp_path / "seed-1" / "plan.json", first)
    assert other.num_steps("a", commands(1), 10) == 20
    assert not other.knows("a", commands(1, names="b"))
    assert other.num_steps("a", commands(1, width=3), 10) == 100


def test_a_changed_command_that_does_not_train_leaves_its_former_outputs_aside(tmp_path):
    """Features of other data would be refused as stale."""
    runner = runner_of(suite_of([ARM]), tmp_path)
    made = tmp_path / "features"
    command = Command("x features", {"features_dir": str(made)}, tmp_path / "x")
    for key in ("one", "one", "two"):
        runner._resumed(command, key)
        made.mkdir(exist_ok=True)
        (made / key).touch()
    assert [path.name for path in made.iterdir()] == ["two"]
    (aside,) = (tmp_path / "earlier").iterdir()
    assert [path.name for path in aside.iterdir()] == ["one"]


def test_a_command_that_changed_back_runs_again(tmp_path):
    """Its own outputs were moved by the change; the mark of them goes with them."""
    runner = runner_of(suite_of([ARM]), tmp_path)
    made = tmp_path / "features"
    command = Command("x features", {"features_dir": str(made)}, tmp_path / "x")
    done = tmp_path / "x.done.json"
    made.mkdir()
    done.write_text(json.dumps({"key": "one", "seconds": 1.0, "command": "x"}))
    runner._resumed(command, "one")  # of a comparison that wrote no note of its beginning
    assert made.is_dir() and done.is_file()
    runner._resumed(command, "two")
    assert not made.exists() and not done.exists()
