"""TriKD through the command line: it learns, it can be stopped and killed, and what it gives does
not depend on how the work is shared out.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from crosslingual_worlds.testing.processes import run_ranks
from mclip.config import TrainSettings
from mclip.export import load_model
from mclip.lamb import lamb_maker

Mclip = Callable[..., dict[str, Any]]

GOLDEN = [3.8724892, 3.7885089, 2.6316383, 2.6394677, 3.1349990, 2.6890612]
"""Losses of `whole`; who changes them has changed what is trained."""


def rows(run: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("time_s", "samples_per_s")
    return [{k: v for k, v in line.items() if k not in clocks} for line in lines]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run) if "loss" in row]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def trained(mclip: Mclip, recipe: dict[str, Any], features: str, tmp_path_factory: Any) -> Any:
    """Runs `mclip train` in a folder of its own, on `recipe` with changes."""

    def run(faults: dict[str, Any] | None = None, **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("trained") / "run"
        settings = {**recipe, "output_dir": folder, **changes}
        answer = mclip("train", faults, **settings)
        assert set(answer["codes"]) == {0}, answer["stderr"]
        return settings["output_dir"]

    return run


@pytest.fixture(scope="module")
def whole_recipe(recipe: dict[str, Any], features: str) -> dict[str, Any]:
    return {**recipe, "validation_steps": 3, "validation_data": features}


@pytest.fixture(scope="module")
def whole(trained: Any, whole_recipe: dict[str, Any]) -> Path:
    """Six steps of one process that nothing disturbs, with dropout."""
    return trained(**whole_recipe)


@pytest.fixture(scope="module")
def sober(trained: Any) -> Path:
    """Six steps of one process without dropout, which ranks would draw for themselves."""
    return trained(dropout=0.0, attention_dropout=0.0)


def test_golden_trajectory(whole: Path) -> None:
    assert losses(whole) == pytest.approx(GOLDEN, rel=1e-4)


def test_training_finds_the_pictures_of_its_captions(trained: Any, features: str) -> None:
    """Mean recall on the samples themselves, by chance (1 + 5 + 10) / 24 / 3 = 0.22 in German; in
    the others the samples that lack a caption are left out.
    """
    settings = {"max_train_steps": 150, "checkpointing_steps": 150, "lr_scheduler": "constant"}
    settings |= {"validation_steps": 75, "validation_data": features}
    run = trained(**settings, dropout=0.0, attention_dropout=0.0)
    validations = [row for row in rows(run) if "loss" not in row]
    assert validations[1]["validation_mean_recall"] > 0.6
    assert validations[1]["validation_mean_recall"] > validations[0]["validation_mean_recall"]
    parts = [validations[1][f"validation_mean_recall_{name}"] for name in ("en", "de", "fr")]
    assert validations[1]["validation_mean_recall"] == pytest.approx(sum(parts) / 3)
    assert sum(losses(run)[-3:]) < 0.6 * sum(losses(run)[:3])


@pytest.fixture(scope="module")
def disturbed(mclip: Mclip, whole_recipe: dict[str, Any], tmp_path_factory: Any) -> Path:
    """The run of `whole`, stopped by SIGTERM after step 1, killed in step 3 and, twice, in the
    saving of step 4, each time resumed from `latest`.
    """
    run = tmp_path_factory.mktemp("disturbed") / "run"
    stopped = mclip("train", {"terminate": [0, 1]}, output_dir=run, **whole_recipe)
    assert stopped["codes"] == [0], stopped["stderr"]
    assert (run / "latest").read_text() == "checkpoint-1\n"
    assert not (run / "model").exists()
    resumed = {**whole_recipe, "output_dir": run, "resume_from_checkpoint": "latest"}
    # of a save's operations 3 has half of the file written, 13 is amid the removal of the oldest
    for fault, latest in [([3], 2), ([4, 3], 2), ([4, 13], 4)]:
        killed = mclip("train", {"die": fault}, **resumed)
        assert killed["codes"] == [-9], (fault, killed["stderr"])
        assert (run / "latest").read_text() == f"checkpoint-{latest}\n", fault
    last = mclip("train", **resumed)
    assert last["codes"] == [0], last["stderr"]
    return run


def test_stopped_and_killed_runs_have_the_same_losses_bit_by_bit(
    whole: Path, disturbed: Path
) -> None:
    assert rows(disturbed) == rows(whole)
    for name in ("config.json", "model.safetensors"):
        found, expected = (run / "model" / name for run in (disturbed, whole))
        assert found.read_bytes() == expected.read_bytes()
    kept = sorted(path.name for path in disturbed.glob("checkpoint-*"))
    assert kept == ["checkpoint-4", "checkpoint-6"]


def assert_same_training(run: Path, expected: Path) -> None:
    """Up to the order of sums: 1e-7 of a gradient, which six steps of Adam make at most a
    thousandth of its steps of 1e-2.
    """
    assert losses(run) == pytest.approx(losses(expected), rel=1e-4)
    ours, theirs = weights(run), weights(expected)
    for name, tensor in theirs.items():
        if not name.endswith("key.bias"):  # no gradient in truth: Adam steps on its noise
            torch.testing.assert_close(ours[name], tensor, atol=2e-5, rtol=1e-3)


def test_two_processes_of_torchrun_train_what_one_does(
    sober: Path, recipe: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**recipe, "train_batch_size": 4, "output_dir": str(tmp_path / "run")}
    settings |= {"dropout": 0.0, "attention_dropout": 0.0}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "mclip.train", "--config", str(tmp_path / "train.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_same_training(tmp_path / "run", sober)


@pytest.mark.parametrize("stage", [1, 2])
def test_zero_stages_share_the_work_of_two_processes_and_change_nothing(
    mclip: Mclip, trained: Any, sober: Path, tmp_path: Path, stage: int
) -> None:
    config = tmp_path / "ds.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    settings = {"deepspeed_config": config, "train_batch_size": 4}
    settings |= {"dropout": 0.0, "attention_dropout": 0.0}
    run = trained({"world_size": 2}, **settings)
    assert_same_training(run, sober)
    if stage == 1:
        exporting = {"checkpoint": run, "output_dir": tmp_path / "exported"}
        answer = mclip("export", {"world_size": 2}, **exporting)
        assert set(answer["codes"]) == {0}, answer["stderr"]
        folders = (tmp_path / "exported", run / "model")
        found, expected = ((folder / "model.safetensors").read_bytes() for folder in folders)
        assert found == expected


def test_accumulated_micro_steps_are_batches_of_their_own(trained: Any, sober: Path) -> None:
    """Two of four rows are not one of eight: the contrast is over fewer rows, so the loss is lower
    from the first step. Who shares them out changes nothing.
    """
    settings = {"gradient_accumulation_steps": 2, "dropout": 0.0, "attention_dropout": 0.0}
    alone = trained(**settings, train_batch_size=4)
    shared = trained({"world_size": 2}, **settings, train_batch_size=2)
    assert_same_training(shared, alone)
    assert losses(alone)[0] < losses(sober)[0] - 0.3


def test_holding_few_activations_trains_the_same(trained: Any, sober: Path) -> None:
    run = trained(dropout=0.0, attention_dropout=0.0, embed_batch_size=3)
    assert_same_training(run, sober)


def test_export_of_a_checkpoint_equals_the_model_written_at_the_end(
    mclip: Mclip, whole: Path, tmp_path: Path
) -> None:
    for checkpoint in (whole, whole / "checkpoint-6"):
        folder = tmp_path / checkpoint.name
        answer = mclip("export", checkpoint=checkpoint, output_dir=folder)
        assert answer["codes"] == [0], answer["stderr"]
        for name in ("config.json", "model.safetensors", "README.md"):
            assert (folder / name).read_bytes() == (whole / "model" / name).read_bytes()


def test_a_bundle_stands_alone_and_knows_its_encoders_weights(
    mclip: Mclip, whole: Path, encoder: str, tmp_path: Path
) -> None:
    for _ in range(2):  # over an earlier one as well
        bundle = {"checkpoint": whole, "output_dir": tmp_path / "bundle", "bundle_encoder": True}
        answer = mclip("export", **bundle)
        assert answer["codes"] == [0], answer["stderr"]
    moved = (tmp_path / "bundle").rename(tmp_path / "moved")
    assert sorted(os.listdir(tmp_path)) == ["moved"]
    trikd, config = load_model(moved)
    assert config["text_encoder"] == str(moved / "encoder")
    assert not any(p.requires_grad for p in trikd.parameters()) and not trikd.training
    expected, found = Path(encoder, "model.safetensors"), moved / "encoder" / "model.safetensors"
    assert found.read_bytes() == expected.read_bytes()
    found.write_bytes(found.read_bytes()[:-4] + b"\x01\x02\x03\x04")
    with pytest.raises(ValueError, match="are not those that .* was trained on"):
        load_model(moved)


def test_training_on_shards_in_bf16_writes_a_model(trained: Any, shards: str) -> None:
    run = trained(train_data=shards, max_train_steps=2, mixed_precision="bf16")
    assert [row["step"] for row in rows(run)] == [1, 2]
    files = {"README.md", "config.json", "model.safetensors"}
    assert set(os.listdir(run / "model")) == files
    assert {tensor.dtype for tensor in weights(run).values()} == {torch.float32}


def work(rank: int, world_size: int, folder: Path) -> None:
    """In a process of its own: an engine whose temperature has run away, in ZeRO's copy too."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param

    from crosslingual.training.processes import start_processes
    from mclip.train import build_training, limit_scale

    start_processes()
    shape = {"clip_width": 4, "width": 4, "num_layers": 1, "num_heads": 1, "ffn_width": 4}
    shape |= {"dropout": 0.0, "attention_dropout": 0.0}
    for stage in (0, 1):
        config = folder / "ds.json"
        config.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
        engine = build_training(TrainSettings(deepspeed_config=str(config)), shape)
        logit_scale = engine.module.logit_scale
        for wanted, expected in ((4.0, 4.0), (6.0, math.log(100))):
            logit_scale.data.fill_(wanted)
            if stage:
                safe_set_full_fp32_param(logit_scale, logit_scale.data)
            limit_scale(engine)
            copies = [logit_scale, *([safe_get_full_fp32_param(logit_scale)] if stage else [])]
            assert [copy.item() for copy in copies] == pytest.approx([expected] * len(copies))


def test_the_learned_scale_is_held_at_100_in_zeros_copy_too(tmp_path: Path) -> None:
    run_ranks(__file__, 1, tmp_path)


def test_lamb_takes_the_papers_steps() -> None:
    """Algorithm 2 without the corrections of Adam's moments, which the trust ratio cancels but for
    the decay; norms of weights beyond 10 count as they are.
    """
    generator = torch.Generator().manual_seed(0)
    parameters = [
        nn.Parameter(torch.randn(30, 20, generator=generator)),
        nn.Parameter(torch.ones(3)),
    ]
    parameters[0].data *= 2
    make = lamb_maker(TrainSettings(optimizer="lamb"))
    optimizer = make(parameters, lr=1e-2, betas=(0.9, 0.999), weight_decay=0.1)
    plain = [parameter.detach().clone() for parameter in parameters]
    moments = [(torch.zeros_like(x), torch.zeros_like(x)) for x in plain]
    assert plain[0].norm() > 40
    for _ in range(4):
        for x, (m, v), parameter in zip(plain, moments, parameters, strict=True):
            g = torch.randn(x.shape, generator=generator)
            parameter.grad = g.clone()
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            update = m / (v.sqrt() + 1e-6) + 0.1 * x
            x -= 1e-2 * x.norm() / update.norm() * update
        optimizer.step()
        torch.testing.assert_close([p.detach() for p in parameters], plain)


def test_lamb_trains_and_resumes_bit_by_bit(trained: Any) -> None:
    lamb = {"optimizer": "lamb", "max_train_steps": 4}
    whole, cut = trained(**lamb), trained({"terminate": [0, 1]}, **lamb)
    assert len(rows(cut)) == 1
    resumed = trained(**lamb, output_dir=cut, resume_from_checkpoint="latest")
    assert rows(resumed) == rows(whole)


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
