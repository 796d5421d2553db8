"""Merged exports: sums by hand, what is refused, and which export a script chooses."""

import dataclasses

import pytest
import torch
from torch import Tensor

from crosslingual.adapter.merge import choose_by_script, merge_exports, merge_states
from crosslingual.adapter.settings import MergeSettings

ORIGIN = [1.0, 1.0, 1.0, 1.0]
A, B = [3.0, 1.1, 0.0, 2.0], [2.0, 1.0, 4.0, 0.5]  # changes: 2 .1 -1 1, and 1 0 3 -.5


def state(values: list[float]) -> dict[str, Tensor]:
    return {"w": torch.tensor(values), "number": torch.tensor(7)}


@pytest.mark.parametrize(
    ("method", "weights", "expected"),
    [
        ("average", [1.0, 1.0], [2.5, 1.05, 2.0, 1.25]),
        ("average", [3.0, 1.0], [2.75, 1.075, 1.0, 1.625]),
        ("task_arithmetic", [1.0, 0.5], [3.5, 1.1, 1.5, 1.75]),
        # the half that changed most: 2 and -1 or 1 of A (topk's choice), 1 and 3 of B
        ("magnitude_prune", [1.0, 1.0], [4.0, 1.0, None, None]),
        ("ties", [1.0, 1.0], [2.5, 1.0, 4.0, None]),
        ("ties", [0.5, 0.5], [1.75, 1.0, 2.5, None]),
    ],
)
def test_merged_numbers_are_those_of_the_definitions(method, weights, expected):
    found = merge_states([state(A), state(B)], weights, method, origin=state(ORIGIN), density=0.5)
    assert found["number"] == 7
    for value, wanted in zip(found["w"].tolist(), expected, strict=True):
        assert wanted is None or value == pytest.approx(wanted)


def test_states_of_other_names_or_shapes_are_refused():
    for other in ({"w": torch.zeros(3)}, {"v": torch.zeros(4)}):
        with pytest.raises(ValueError, match="not of one shape; .*(w is|missing: w)"):
            merge_states([{"w": torch.zeros(4)}, other], [1.0, 1.0])


CONFIG = {"method": "pea", "base": "sd", "width": 4, "seed": 3, "guidance_scale": 2.0}
EXPORTS = {"a": (state(A), CONFIG | {"languages": ["de", "en"]})}
EXPORTS["b"] = (state(B), CONFIG | {"languages": ["zh", "en"], "guidance_scale": 5.0})
SETTINGS = MergeSettings(["a", "b"], "out")


def merged(changes: dict = {}, config: dict = {}):  # noqa: B006, never changed
    exports = EXPORTS | {"b": (state(B), EXPORTS["b"][1] | config)}
    settings = dataclasses.replace(SETTINGS, **changes)
    return merge_exports(settings, exports.__getitem__, lambda config: state(ORIGIN))


def test_the_config_says_what_was_merged_and_reads_all_languages():
    found, config = merged({"method": "task_arithmetic", "weights": [1.0, 0.5]})
    assert found["w"].tolist() == pytest.approx([3.5, 1.1, 1.5, 1.75])
    assert config["languages"] == ["de", "en", "zh"] and config["guidance_scale"] == 2.0
    told = {"method": "task_arithmetic", "weights": [1.0, 0.5]}
    assert config["merged"] == told | {"languages": [["de", "en"], ["zh", "en"]]}


def test_an_average_of_other_starts_has_no_seed_and_cannot_be_an_origin_again():
    assert merged(config={"seed": 4})[1]["seed"] is None
    with pytest.raises(ValueError, match="b does not say by which seed .*: use --method average"):
        merged({"method": "ties"}, {"seed": None})


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({"exports": ["a"]}, {}, "name two or more folders, each once"),
        ({"exports": ["a", "a"]}, {}, "each once"),
        ({"weights": [1.0]}, {}, "weights: 1 numbers for 2 exports"),
        ({"weights": [1.0, -1.0]}, {}, "an average needs a sum above 0, not 0"),
        ({"density": 0.0}, {}, "density is 0: it is a share"),
        ({}, {"base": "sdxl", "width": 8}, r"differ in base \('sd' and 'sdxl'\), width \(4 and 8"),
        ({}, {"rank": 2}, r"a and b differ in rank \(None and 2\)"),
        ({"method": "ties"}, {"seed": 4}, "a by seed 3, b by seed 4.*train with one --seed"),
    ],
)
def test_what_cannot_be_merged_is_refused_in_one_line(changes, config, message):
    with pytest.raises(ValueError, match=message) as caught:
        merged(changes, config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "export"),
    [
        ("ein großer roter Stern", "latin"),
        ("большая красная звезда", "ru"),
        ("一颗红色的大五角星", "zh"),
        ("大きな赤い星", "ja"),
        ("एक बड़ा लाल तारा", "hi"),
        ("বড় লাল তারা", "bn"),
        ("a big red star の左にある青い輪", "latin"),  # most letters are Latin
        ("", "latin"),
        ("12 + 3", "latin"),
    ],
)
def test_the_script_of_most_letters_chooses_the_export(text, export):
    exports = {"latin": ["de", "nl"], "ru": ["ru"], "ja": ["ja"], "zh": ["zh"], "hi": ["hi"]}
    assert choose_by_script(text, exports | {"bn": ["bn"]}) == export
