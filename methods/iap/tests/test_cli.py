"""The command as a person meets it."""

from pathlib import Path
from typing import Any

import pytest

from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.fixtures import Command

EMPTY = {"validation_steps": 2, "validation_data": "{tmp}/empty"}
STALE = {
    "train_data": "{shards}",
    "english_draws": 1,
    "validation_steps": 2,
    "validation_data": "{features}",
}
CUT = {"objective": "text", "train_data": "{shards}", "max_length": 8}


class TestCommand(conformance.Command):
    verbs = "demo features train export merge generate evaluate ablate info"
    typo = ("target_languag", "target_language")
    mistakes = (
        ({"target_language": []}, "target_language is not set: .* --target_language zh"),
        (
            {"train_data": "{shards}", "target_language": ["ja"]},
            "no sample has captions in .ja.; there are captions in de, en, fr",
        ),
        (EMPTY, "no complete features in"),
        (STALE, "are stale: english_draws was None and is 1"),
        (CUT, "set --max_length 16"),
        ({"english_draws": 1}, "are stale: english_draws was None and is 1"),
        ({"text_encoder": "{sd}/text_encoder"}, "is a clip_text_model: IAP starts from an XLM-R"),
        ({"layers": ["left"]}, "no cross-attention 'left': layers are all, down, mid, up, or 0"),
        ({"noise_weight": 1.0}, "noise_weight needs --branch full"),
        ({"rehearsal": 0.1}, "rehearsal draws captions in en: add en to --target_language"),
        ({"branch": "both"}, "setting 'branch' must be local or full, not 'both'"),
    )
    nan_parts = "attention nan"
    pickle = "are pickles, which are not read here"
    other_base = ("sdxl", "use the adapter's base")
    num_trainable = 5880 + 2 * 12 + 12 * 16 + 16  # of the miniature XLM-R, and of the head


@pytest.mark.parametrize("verb", ["features", "train", "ablate", "info"])
def test_a_base_of_joint_attention_is_refused_before_any_work(
    command: Command, parts: dict[str, Any], sd3: str, shards: str, tmp_path: Path, verb: str
) -> None:
    settings = {
        "features": {"shards": shards, "features_dir": tmp_path / "features"},
        "train": {"train_data": shards, "output_dir": tmp_path / "run"},
        "ablate": {"train_data": shards, "output_dir": tmp_path / "ablation"},
        "info": {},
    }[verb]
    line = refusal(command(verb, **{**parts, **settings, "pretrained_model_name_or_path": sd3}))
    assert "attends to text and picture in one (family sd3)" in line
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".npy", ".json", ".pt")]


class TestPages(conformance.Pages):
    runs = {"iap info": "", "iap --help": ""}
