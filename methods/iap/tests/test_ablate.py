"""`iap ablate`: what it trains, and that it goes on after a stop."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iap import ablate
from iap.settings import AblateSettings


class Runs:
    """What would be run, and results as if it had been; a training takes 2.5 seconds."""

    def __init__(self) -> None:
        self.trained: list[dict[str, Any]] = []
        self.fails_at: str | None = None

    def monotonic(self) -> float:
        return 2.5 * len(self.trained)

    def run_verb(self, verb: str, num_processes: int | None, settings: dict[str, Any]) -> None:
        if verb == "train":
            self.trained.append(settings)
            return
        folder = Path(settings["output_dir"])
        if self.fails_at and str(folder).endswith(self.fails_at):
            raise ValueError("stopped")
        folder.mkdir(parents=True, exist_ok=True)
        share = 0.1 * len(self.trained)
        (folder / "accuracy.json").write_text(json.dumps({"languages": {"zh": {"iap": share}}}))


def test_ablation_goes_on_after_a_stop_and_every_arm_changes_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    monkeypatch.setattr(ablate, "run_verb", runs.run_verb)
    monkeypatch.setattr(ablate, "time", SimpleNamespace(monotonic=runs.monotonic))
    given = {"arms": ["local", "full, third of the steps", "text-space MSE"], "num_seeds": 2}
    settings = AblateSettings(output_dir=str(tmp_path), max_train_steps=30, **given)
    runs.fails_at = "text-space-MSE/seed-1"
    with pytest.raises(ValueError, match="stopped"):
        ablate.ablate(settings)
    unet = "unet_attention"
    trained = [(run["branch"], run["objective"], run["seed"]) for run in runs.trained]
    assert trained == [
        (branch, objective, seed)
        for branch, objective in (("local", unet), ("full", unet), ("local", "text"))
        for seed in (0, 1)
    ]
    assert [run["max_train_steps"] for run in runs.trained] == [30, 30, 10, 10, 30, 30]
    runs.fails_at, before = None, len(runs.trained)
    table = ablate.ablate(settings).read_text()
    assert len(runs.trained) == before + 1, "what is done is not run again"
    assert "| local | 30 | 2 | 0.10 | 0.20 | 0.15 |" in table
    assert "| full, third of the steps | 10 | 2 | 0.30 | 0.40 | 0.35 |" in table
    with pytest.raises(ValueError, match="no arm 'fulll'; there are local; local, kept"):
        ablate.ablate(AblateSettings(output_dir=str(tmp_path), arms=["fulll"]))
