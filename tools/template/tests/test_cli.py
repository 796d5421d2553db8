"""The command as a person meets it."""

from pathlib import Path

import pytest

from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.fixtures import Command


class TestCommand(conformance.Command):
    verbs = "demo features train export generate evaluate info"
    without = ("another resolution",)
    mistakes = (({"hidden_width": "wide"}, "'hidden_width' must be a whole number, not 'wide'"),)
    spoilt = "multilingual_states"
    nan_parts = "states nan"
    pickle = "is a pickle, which can run code"
    other_base = ("sdxl", "use the adapter's base")
    num_trainable = 2 * 12 + (12 + 1) * 24 + (24 + 1) * 16

    @pytest.mark.parametrize(
        ("verb", "settings", "message"),
        [
            ("features", {}, "--features_dir"),
            ("export", {}, "needs --checkpoint"),
            ("generate", {"prompt": "x"}, "give --adapter"),
            ("train", {}, "train_data is not set"),
        ],
    )
    def test_what_is_missing_is_named(
        self, command: Command, tmp_path: Path, verb: str, settings: dict[str, str], message: str
    ) -> None:
        assert message in refusal(command(verb, {"folder": str(tmp_path)}, **settings))


class TestPages(conformance.Pages):
    skips = {"README.md": {"template demo": "minutes; run.sh is checked by its verbs"}}
