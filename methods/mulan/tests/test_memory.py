"""The support memory: what is projected onto it, and that a run and its export keep it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.fixtures import Command, succeeded
from mulan.artifact import load_adapter
from mulan.memory import project, sentence_states

NUM_MEMORY = 3


def test_padding_weighs_nothing_in_a_sentence_state() -> None:
    """Tokens of norm 3 and 1 around padding of 0: (3 * 3 + 1 * 1) / 4."""
    tokens = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    found = sentence_states(torch.stack([tokens, tokens * torch.tensor([0.0, 1.0])]))
    torch.testing.assert_close(found, torch.tensor([[2.5, 0.0], [0.0, 0.0]]))
    longer = sentence_states(torch.cat([tokens, tokens[-1:].expand(4, -1)])[None])
    torch.testing.assert_close(longer, found[:1])


def test_a_state_becomes_the_sentences_that_it_is_near_to() -> None:
    memory = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])
    near, between = project(torch.tensor([[5.0, 1.0], [1.0, 1.0]]), memory)
    torch.testing.assert_close(near, memory[0])  # its length and its small angle are gone
    torch.testing.assert_close(between, torch.tensor([1.0, 1.0]))


def test_train_and_export_keep_the_memory(
    command: Command, recipe: dict[str, Any], features: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    given = {**recipe, "num_memory": NUM_MEMORY, "alignment": "language", "output_dir": run}
    succeeded(command("train", **given))
    succeeded(command("export", checkpoint=run, output_dir=tmp_path / "export"))
    trained, config = load_adapter(run / "adapter")
    exported, _ = load_adapter(tmp_path / "export")
    assert trained.memory.shape == (1 + NUM_MEMORY, config["encoder_width"])
    assert trained.memory.abs().amax(dim=1).min() > 0
    for name, tensor in trained.state_dict().items():
        assert torch.equal(exported.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"num_memory": 1000}, "use --num_memory"),
        ({"num_memory": 2, "variant": "seed"}, "num_memory 0"),
    ],
)
def test_memories_that_cannot_be(
    command: Command, recipe: dict[str, Any], tmp_path: Path, changes: dict[str, Any], remedy: str
) -> None:
    given = {**recipe, "alignment": "language", "output_dir": tmp_path / "run", **changes}
    assert remedy in refusal(command("train", **given))
