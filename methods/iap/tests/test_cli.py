"""The command as a person meets it."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.fixtures import Command

HEAD = 2 * 12 + 12 * 16 + 16
EMPTY = {"validation_steps": 2, "validation_data": "{tmp}/empty"}
CUT = {"objective": "text", "train_data": "{shards}", "max_length": 8}


class TestCommand(conformance.Command):
    verbs = "demo features train export generate evaluate ablate info"
    typo = ("target_languag", "target_language")
    mistakes = (
        ({"target_language": []}, "target_language is not set: .* --target_language zh"),
        (
            {"train_data": "{shards}", "target_language": ["ja"]},
            "choose others by --target_language",
        ),
        (EMPTY, "no complete features in"),
        (CUT, "set --max_length 16"),
        ({"english_draws": 1}, "are stale: english_draws was None and is 1"),
        ({"text_encoder": "{sd}/text_encoder"}, "is a clip_text_model: IAP starts from an XLM-R"),
        ({"layers": ["left"]}, "no cross-attention 'left': layers are all, down, mid, up, or 0"),
        ({"noise_weight": 1.0}, "noise_weight needs --branch full"),
        ({"branch": "both"}, "setting 'branch' must be local or full, not 'both'"),
    )
    nan_parts = "attention nan"
    pickle = "cannot load .* as safetensors"
    other_base = ("sdxl", "use the adapter's base")
    num_trainable = 0  # of the encoder's file and its head: see below

    def test_info_counts_what_trains_and_what_does_not(
        self, command: Command, recipe: dict[str, Any]
    ) -> None:
        weights = load_file(Path(recipe["text_encoder"]) / "model.safetensors")
        self.num_trainable = sum(tensor.numel() for tensor in weights.values()) + HEAD
        super().test_info_counts_what_trains_and_what_does_not(command, recipe)


class TestPages(conformance.Pages):
    runs = {"iap info": "", "iap --help": ""}
