"""`pea merge`: adapters as one, from the weights that their seed starts with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from crosslingual.adapter.artifact import load_artifact
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.fixtures import Command, succeeded
from pea.artifact import adapter_config, initial_adapter, load_adapter, save_adapter
from pea.settings import TrainSettings


@pytest.fixture
def config(parts: dict[str, Any]) -> dict[str, Any]:
    return adapter_config(TrainSettings(**parts, hidden_width=24, seed=5))


def export(folder: Path, config: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """An adapter that moved from its first weights by random steps."""
    torch.manual_seed(seed)
    start = initial_adapter(config).state_dict()
    state = {name: tensor + torch.randn_like(tensor) for name, tensor in start.items()}
    save_adapter(state, config, folder)
    return state


def test_the_initial_adapter_is_that_of_a_training_and_leaves_the_host_s_draws(
    config: dict[str, Any],
) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = initial_adapter(config).state_dict()
    assert torch.rand(1) == expected
    again = initial_adapter(config | {"seed": 6}).state_dict()
    assert not torch.equal(first["projector.0.weight"], again["projector.0.weight"])


def test_task_arithmetic_adds_both_changes_to_the_first_weights(
    command: Command, config: dict[str, Any], tmp_path: Path
) -> None:
    ours = export(tmp_path / "de", config | {"languages": ["de"]}, seed=1)
    theirs = export(tmp_path / "fr", config | {"languages": ["fr"]}, seed=2)
    exports = [tmp_path / "de", tmp_path / "fr"]
    told = {"exports": exports, "method": "task_arithmetic", "weights": [1.0, 0.5]}
    succeeded(command("merge", **told, output_dir=tmp_path / "both"))
    found = load_artifact(tmp_path / "both", "pea")
    assert found[0]["languages"] == ["de", "fr"]
    for name, start in initial_adapter(config).state_dict().items():
        wanted = start + (ours[name] - start) + 0.5 * (theirs[name] - start)
        assert torch.allclose(found[1][name], wanted, atol=1e-6), name
    assert load_adapter(tmp_path / "both")[1]["merged"]["method"] == "task_arithmetic"


def test_an_adapter_of_another_width_is_refused(
    command: Command, config: dict[str, Any], tmp_path: Path
) -> None:
    export(tmp_path / "a", config, seed=1)
    export(tmp_path / "b", config | {"hidden_width": 12}, seed=1)
    exports = [tmp_path / "a", tmp_path / "b"]
    line = refusal(command("merge", exports=exports, output_dir=tmp_path / "both"))
    assert "differ in hidden_width (24 and 12)" in line
    assert not (tmp_path / "both").exists()
