"""`iap merge`: encoders as one; of LoRA, only the layers that it reaches have changed."""

from pathlib import Path
from typing import Any

import torch

from crosslingual_worlds.testing.fixtures import Command, succeeded
from iap.artifact import initial_state, load_encoder
from iap.encoder import load_state


def test_the_changes_of_lora_runs_are_added_to_the_encoder_that_they_started_from(
    command: Command, recipe: dict[str, Any], tmp_path: Path
) -> None:
    lora = {**recipe, "train_encoder": "lora", "lora_rank": 4, "max_train_steps": 2}
    states = []
    for name, rate in (("one", 1e-2), ("other", 2e-2)):
        succeeded(command("train", **{**lora, "learning_rate": rate}, output_dir=tmp_path / name))
        states.append(load_state(tmp_path / name / "encoder")[0])
    exports = [tmp_path / name / "encoder" for name in ("one", "other")]
    told = {"exports": exports, "method": "task_arithmetic", "weights": [1.0, -1.0]}
    succeeded(command("merge", **told, output_dir=tmp_path / "both"))
    found, config = load_state(tmp_path / "both")
    start = initial_state(config)
    assert found.keys() == start.keys()
    moved = [name for name in start if not torch.equal(states[0][name], start[name])]
    assert moved and not any("embeddings" in name for name in moved)
    for name, tensor in start.items():
        wanted = tensor + states[0][name] - states[1][name]
        assert torch.allclose(found[name], wanted, atol=1e-5), name
    assert load_encoder(tmp_path / "both")[2]["merged"]["weights"] == [1.0, -1.0]
