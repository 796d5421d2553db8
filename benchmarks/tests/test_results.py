"""Result lines: what is refused, what is kept of repeated ones, and which may stand together."""

import json
from pathlib import Path

import pytest

from crosslingual.worlds import World
from crosslingual_benchmarks import results as results_module
from crosslingual_benchmarks.results import (
    by_protocol,
    check_result,
    facts_of,
    make_result,
    read_results,
)

MEASURED = Path(__file__).parents[1]
OURS = [MEASURED / "testbed" / "results", *sorted((MEASURED / "ablations").iterdir())]


def line(**changes):
    """A line that is right but for the changes."""
    base = {
        "task": "latency",
        "dataset": "d",
        "model": "m",
        "metrics": {"a_ms": 1.0},
        "protocol": {},
    }
    return base | changes


def write(path, *lines):
    """Writes lines of JSON."""
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "cooking"}, "no task 'cooking'; there are zeroshot_retrieval"),
        ({"metrics": {"fid": float("nan")}}, "fid is nan; look for a NaN"),
        ({"metrics": {"fid": "3"}}, "fid is '3', not a number"),
        ({"metrics": {"image_retrieval_recall@1": 43.0}}, "fractions from 0 to 1"),
        ({"metrics": {"text_accuracy": True}}, "not a number"),
        ({"metrics": {"fid": 10**400}}, "fid is 1000.*, not a number"),
        ({"metrics": {"fid": 1e30}}, "no measurement is beyond 1e"),
        ({"metrics": [1]}, r"metrics is \[1\], not an object"),
        ({"model": 3}, "model is 3, not a text"),
        ({"protocol": {"steps": {}}}, "protocol.steps is {}, not a text"),
        ({"language": ["de"]}, r"language is \['de'\], not a text"),
        ({"language": ""}, "language is empty"),
        ({"task": "training"}, "here: its metrics have no train_s and no num_processes"),
        ({"mean_recall": "0.5"}, "mean_recall is '0.5', not a number"),
        ({"mean_recall": 50.0}, "fractions from 0 to 1"),
        ({"interval95": {"a_ms": 1}}, "interval95.a_ms is 1, not a list"),
        ({"interval95": {"a_ms": [2.0, 1.0]}}, r"interval95 of a_ms is \[2.0, 1.0\], not"),
        ({"quartiles": {"a_ms": [1.0]}}, r"quartiles of a_ms is \[1.0\], not"),
        ({"samples": ["a"]}, "samples.0 is 'a', not an object"),
        ({"samples": [{"is_right": True}]}, "lacks samples.0.prompt"),
        ({"samples": [{"prompt": "p", "is_right": 1}]}, "samples.0.is_right is 1, not"),
        ({"stages": [{"steps": "9"}]}, "stages.0.steps is '9', not a number"),
        ({"warnings": "many"}, "warnings is 'many', not a list"),
        ({"trained_languages": None}, "trained_languages is None, not a list"),
        ({"versions": {"torch": 2}}, "versions.torch is 2, not a text"),
        ({"command": 3}, "command is 3, not a text"),
        ({"wall_s": "1"}, "wall_s is '1', not a number"),
        ({"grids": ["/etc/a.png"]}, "outside of the results' folder"),
        ({"grids": ["a/../../b.png"]}, "outside of the results' folder"),
    ],
)
def test_what_is_no_result_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check_result(line(**changes), "here")


def test_missing_keys_are_named():
    with pytest.raises(ValueError, match="here is no result line: metrics, protocol missing"):
        check_result({"task": "latency", "dataset": "d", "model": "m"}, "here")
    with pytest.raises(ValueError, match="here is no result line"):
        check_result(["a list"], "here")


def test_a_made_result_names_the_versions_that_made_it():
    made = make_result(
        "latency", dataset="d", model="m", metrics={"a_ms": 2.0}, protocol={}, seed=3
    )
    assert made["seed"] == 3
    assert set(made["versions"]) == {"torch", "transformers", "diffusers"}
    assert json.loads(json.dumps(made)) == made


def test_of_lines_that_repeat_a_measurement_the_last_is_kept(tmp_path):
    first, other = line(metrics={"a_ms": 1.0}, seed=0), line(seed=1)
    again = line(metrics={"a_ms": 5.0}, seed=0)
    file = write(tmp_path / "latency.json", first, other, again)
    assert [r["metrics"]["a_ms"] for r in read_results([file])] == [1.0, 5.0]


def test_a_line_separator_inside_a_text_does_not_split_the_line(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(
        json.dumps(line(model="a\u2028b\x85c"), ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert [r["model"] for r in read_results([tmp_path])] == ["a\u2028b\x85c"]


def test_wrong_lines_are_named_by_file_and_number(tmp_path):
    file = write(tmp_path / "a.json", line())
    file.write_text(file.read_text() + "\n{broken\n")
    with pytest.raises(ValueError, match=r"a\.json line 3 is broken JSON"):
        read_results([file])
    file = write(tmp_path / "b.json", line(), line(task="?"))
    with pytest.raises(ValueError, match=r"b\.json line 2: no task"):
        read_results([file])


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no result files at"):
        read_results([tmp_path])
    with pytest.raises(FileNotFoundError, match="no result files at"):
        read_results([tmp_path / "absent.json"])


def test_results_of_another_protocol_or_dataset_stand_apart():
    one, two = line(protocol={"captions": "first"}), line(protocol={"captions": "all"})
    three, other = line(dataset="e", protocol={"captions": "first"}), line(task="training")
    groups = by_protocol([one, two, three, other, one], "latency")
    assert groups == {
        "d, captions all": [two],
        "d, captions first": [one, one],
        "e, captions first": [three],
    }


def test_a_line_says_what_a_world_says_of_its_language(monkeypatch):
    facts = {"yo": {"script": "Latin"}}
    world = World("emoji", ("yo", "de"), {}, {}, language_facts=facts)
    monkeypatch.setattr(results_module, "find_worlds", lambda: {"emoji": world})
    assert facts_of("emoji", "yo") == {"language_facts": {"script": "Latin"}}
    assert facts_of("emoji", "de") == facts_of("mg18", "yo") == {}


@pytest.mark.parametrize("folder", OURS, ids=lambda folder: folder.name)
def test_results_that_we_show_are_read_and_name_no_folder_of_one_machine(folder):
    lines = read_results([folder])
    assert {line["task"] for line in lines} >= {"training"}
    for line in lines:
        told = json.dumps([line["dataset"], line["command"], line.get("stages", [])])
        assert "/home" not in told and " /" not in told
