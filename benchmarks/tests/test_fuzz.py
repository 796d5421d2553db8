"""Result lines with any value in any place: a command answers, or refuses in one line with the
place. `HYPOTHESIS_PROFILE=long` takes minutes.
"""

import json
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crosslingual_benchmarks.__main__ import main

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
COMMON = {"dataset": "d", "language": "de", "seed": 1, "pretrained": "x", "versions": {"a": "1"}}
PICTURES = COMMON | {"task": "text_to_image", "protocol": {"steps": 20}, "prompt_language": "de"}
LINES = [
    PICTURES | {"model": "as_is", "metrics": {"text_accuracy": 0.2, "culture_score": 0.1}},
    PICTURES
    | {
        "model": "pea",
        "metrics": {"text_accuracy": 0.5, "culture_score": 0.3},
        "interval95": {"text_accuracy": [0.4, 0.6]},
        "samples": [{"prompt": "p", "is_right": None}],
        "warnings": ["w"],
        "trained_languages": ["de"],
    },
    COMMON
    | {
        "task": "training",
        "model": "pea",
        "metrics": {"train_s": 9.0, "num_processes": 2, "trainable_parameters": 3},
        "protocol": {"train_s": 9.0},
        "stages": [{"steps": 3, "step_s": 1.5}],
        "question": {"title": "t", "text": "x"},
        "answers": [{"row": "r", "column": "c", "languages": ["de"], "against": "as_is"}],
    },
    COMMON
    | {
        "task": "code_mixing",
        "model": "pea",
        "metrics": {"text_accuracy": 0.5},
        "protocol": {"second_languages": ["de"]},
    },
    COMMON
    | {
        "task": "latency",
        "model": "pea",
        "metrics": {"text_to_image_ms": 3.0},
        "quartiles": {"text_to_image_ms": [2.0, 4.0]},
        "protocol": {},
    },
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda parts: (
        st.lists(parts, max_size=2) | st.dictionaries(st.text(max_size=5), parts, max_size=2)
    ),
    max_leaves=4,
)


def places(value, path=()):
    """Every place in a line's lists and objects."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


PLACES = [(number, path) for number, line in enumerate(LINES) for path in places(line)]


@settings(
    max_examples=2000 if IS_LONG else 60,
    deadline=None,
    derandomize=not IS_LONG,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_any_value_in_a_line_is_read_or_refused_with_its_place(place, value, tmp_path, capsys):
    number, (*path, last) = place
    lines = json.loads(json.dumps(LINES))
    part = lines[number]
    for key in path:
        part = part[key]
    part[last] = value
    file = tmp_path / "a.json"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for words in (["cost", "--price_per_hour", "1"], ["recommend", "--culture", "--budget", "9"]):
        code = main([*words, "--results", str(file)])
        error = capsys.readouterr().err
        assert code == 0 or (error.count("\n") == 1 and f"a.json line {number + 1}" in error), error
