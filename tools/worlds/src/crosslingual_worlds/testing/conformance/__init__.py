"""What every method promises, as classes of tests that a method's own tests inherit.

    # tests/test_cli.py
    from crosslingual_worlds.testing import conformance

    class TestCommand(conformance.Command):
        verbs = "demo features train export generate evaluate info"
        mistakes = [({"hidden_width": 0}, "hidden_width")]
        num_trainable = 1272

`Command` is the command as a person meets it, `Training` what training gives however it is stopped
or shared out, `Continual` that a run goes on from an export and rehearses, `Families` that it
trains and draws on every kind of base, `Pipelines` an export in stock pipelines, `Pages` what
README and configs promise.
The fixtures that they use stand in `crosslingual_worlds.testing.fixtures`.
"""

import pytest

_PARTS = ("command", "continual", "families", "training", "pipelines", "pages")
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from crosslingual_worlds.testing.conformance.command import Command  # noqa: E402
from crosslingual_worlds.testing.conformance.continual import Continual  # noqa: E402
from crosslingual_worlds.testing.conformance.families import Families  # noqa: E402
from crosslingual_worlds.testing.conformance.pages import Pages  # noqa: E402
from crosslingual_worlds.testing.conformance.pipelines import Pipelines  # noqa: E402
from crosslingual_worlds.testing.conformance.training import Training  # noqa: E402

__all__ = ["Command", "Continual", "Families", "Pages", "Pipelines", "Training"]
