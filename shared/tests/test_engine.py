"""The engine through real DeepSpeed on CPU: agreement, schedules, refusals, stopping."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from crosslingual.training.deepspeed_config import read_config, settle_config
from crosslingual.training.engine import AdamW, build_engine, check_finite
from crosslingual.training.processes import start_processes
from crosslingual.training.settings import RunSettings

TinyRun = Callable[..., dict[str, Any]]


def stage(number: int) -> dict[str, Any]:
    return {"zero_optimization": {"stage": number}}


def global_losses(run: dict[str, Any]) -> torch.Tensor:
    assert set(run["codes"]) == {0}, run["stderr"]
    losses = torch.tensor([answer["losses"] for answer in run["answers"]])
    return losses.mean(dim=0)


def assert_same_weights(runs: list[dict[str, Any]]) -> None:
    first = runs[0]["answers"][0]["weights"]
    for run in runs:
        for answer in run["answers"]:
            assert answer["weights"].keys() == first.keys()
            for name, values in answer["weights"].items():
                torch.testing.assert_close(
                    torch.tensor(values), torch.tensor(first[name]), rtol=1e-5, atol=1e-6
                )


def test_zero_stages_and_process_counts_agree(tiny_run: TinyRun, tmp_path: Path) -> None:
    runs = [
        tiny_run(
            output_dir=tmp_path / f"{world}-{number}",
            world_size=world,
            config=stage(number),
            save_every=9,
        )
        for world, number in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    ]
    reference = global_losses(runs[0])
    for run in runs[1:]:
        torch.testing.assert_close(global_losses(run), reference, rtol=1e-5, atol=1e-6)
    assert_same_weights(runs)


def test_the_engine_is_torchs_adamw_with_clipping_and_the_named_schedule(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    run = tiny_run(output_dir=tmp_path, save_every=9, max_grad_norm=0.5)
    torch.manual_seed(0)
    inner, _, outer = nn.Linear(4, 8), nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 4)
    scale = nn.Parameter(torch.ones(1))
    weights = [scale, *inner.parameters(), *outer.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=0.05, weight_decay=0.1)
    rates = [0.0, 0.025, 0.05, 0.03775, 0.0255, 0.01325, 0.001]
    for step, rate in enumerate(rates[:-1], start=1):
        rows = torch.randn(8, 8, generator=torch.Generator().manual_seed(1000 + step))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        error = scale * outer(_(torch.tanh(inner(rows[:, :4])))) - rows[:, 4:]
        loss = error.square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.5)
        optimizer.step()
        assert run["answers"][0]["losses"][step - 1] == pytest.approx(loss.item(), rel=1e-5)
    assert run["answers"][0]["rates"] == pytest.approx(rates[1:])


def test_adamw_is_fused_and_goes_on_from_plain_adamws_state() -> None:
    weights, states = [], []
    for first in (torch.optim.AdamW, AdamW):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(8, 4))
        optimizer = first([weight], lr=0.05, betas=(0.9, 0.98), weight_decay=0.1)
        for step in range(6):
            if step == 3:
                states.append(optimizer.state_dict())
                optimizer = AdamW([weight], lr=0.05, betas=(0.9, 0.98), weight_decay=0.1)
                assert optimizer.param_groups[0]["fused"]
                optimizer.load_state_dict(states[-1])
                assert bool(optimizer.param_groups[0]["fused"]) == (first is AdamW)
            weight.grad = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            optimizer.step()
        weights.append(weight)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


def test_accumulation_equals_the_large_batch(tiny_run: TinyRun, tmp_path: Path) -> None:
    whole = tiny_run(output_dir=tmp_path / "1", save_every=9)
    halves = tiny_run(output_dir=tmp_path / "2", save_every=9, accumulate=2)
    losses = global_losses(halves).reshape(-1, 2).mean(dim=1)
    torch.testing.assert_close(losses, global_losses(whole), rtol=1e-5, atol=1e-6)
    assert halves["answers"][0]["rates"] == whole["answers"][0]["rates"]
    assert_same_weights([whole, halves])


@pytest.mark.parametrize("number", [0, 1])
def test_bf16_is_autocast_over_fp32_weights(tiny_run: TinyRun, tmp_path: Path, number: int) -> None:
    run = tiny_run(output_dir=tmp_path / "b", save_every=9, config=stage(number), precision="bf16")
    exact = tiny_run(output_dir=tmp_path / "f", save_every=9, config=stage(number))
    difference = (global_losses(run) - global_losses(exact)).abs().max()
    assert 0 < difference < 0.02
    weights = torch.tensor(run["answers"][0]["weights"]["inner.weight"])
    assert not torch.equal(weights, weights.bfloat16().float())


def test_torchrun_starts_the_same_run(tiny_run: TinyRun, tmp_path: Path) -> None:
    request = {
        "output_dir": str(tmp_path / "run"),
        "config": stage(1),
        "save_every": 9,
        "answers": str(tmp_path),
    }
    script = Path(__file__).with_name("tiny_run.py")
    launcher = "-m torch.distributed.run --standalone --nproc_per_node 2".split()
    launched = subprocess.run(
        [sys.executable, *launcher, str(script), json.dumps(request)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert launched.returncode == 0, launched.stderr
    forked = tiny_run(**{**request, "output_dir": tmp_path / "forked", "world_size": 2})
    answers = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)]
    assert answers == forked["answers"]


@pytest.mark.parametrize("world_size", [1, 2])
def test_sigterm_to_any_rank_saves_and_exits_0(
    tiny_run: TinyRun, tmp_path: Path, world_size: int
) -> None:
    run = tiny_run(
        output_dir=tmp_path, world_size=world_size, save_every=9, terminate=[world_size - 1, 3]
    )
    assert run["codes"] == [0] * world_size, run["stderr"]
    assert [answer["step"] for answer in run["answers"]] == [3] * world_size
    assert (tmp_path / "latest").read_text() == "checkpoint-3\n"


def test_a_nan_loss_stops_with_step_samples_and_parts(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = tiny_run(output_dir=tmp_path, nan_at=3)
    assert run["codes"] == [2]
    error = run["stderr"][0]
    assert error.startswith("error: the loss of step 3 is nan (mse nan) on samples left, right;")
    assert error.count("\n") == 1
    assert (tmp_path / "latest").read_text() == "checkpoint-2\n"


def test_finite_losses_pass_and_parts_are_printed() -> None:
    check_finite(torch.tensor(1.0), {"kd": torch.tensor(2.0)}, step=1, keys=["a"])
    with pytest.raises(ValueError, match=r"step 7 is inf \(kd 2, native inf\) on samples a, b"):
        parts = {"kd": torch.tensor(2.0), "native": float("inf")}
        check_finite(torch.tensor(float("inf")), parts, step=7, keys=["a", "b"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"zero_optimisation": {}}, "'zero_optimisation'; did you mean 'zero_optimization'?"),
        ({"optimizer": {"type": "Adam"}}, "remove 'optimizer' from the DeepSpeed config"),
        ({"bf16": {"enabled": True}}, "bf16 at ZeRO stage 0"),
        ({"fp16": {"enabled": True}}, "fp16 needs a GPU"),
        ({"bf16": True}, "'bf16' of the DeepSpeed config must hold names and values"),
        ({"zero_optimization": 3}, "'zero_optimization' of the DeepSpeed config must hold"),
        ({"zero_optimization": {"stage": "x"}}, "the ZeRO stage 'x'; there are 0 to 3"),
    ],
)
def test_a_config_that_trains_wrongly_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        read_config(config, has_cuda=False)


def test_config_files_are_read_and_checked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no DeepSpeed config"):
        read_config(tmp_path / "z.json", has_cuda=False)
    (tmp_path / "z.json").write_text("{,}")
    with pytest.raises(ValueError, match="is not JSON"):
        read_config(tmp_path / "z.json", has_cuda=False)
    (tmp_path / "z.json").write_text(json.dumps(stage(2)))
    assert read_config(tmp_path / "z.json", has_cuda=False) == stage(2)


def test_settings_and_config_must_agree() -> None:
    config = {"gradient_clipping": "auto", "train_batch_size": 8}
    settle_config(config, {"gradient_clipping": 1.0, "train_batch_size": 8}, mixed_precision="no")
    assert config["gradient_clipping"] == 1.0
    with pytest.raises(
        ValueError, match="config has train_batch_size 8 and the settings make it 4"
    ):
        settle_config({"train_batch_size": 8}, {"train_batch_size": 4}, mixed_precision="no")
    with pytest.raises(ValueError, match="mixed_precision is no or bf16"):
        settle_config({}, {}, mixed_precision="fp16")


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (nn.Linear(2, 2).requires_grad_(False), {}, "nothing to train"),
        (nn.ParameterDict({"t": nn.Parameter(torch.ones(()))}), {}, r"\['t'\] the shape \(1,\)"),
        (nn.Linear(2, 2), {"lr_scheduler": "cosin"}, "unknown lr_scheduler 'cosin'; there are"),
        (nn.Linear(2, 2), {"deepspeed_config": {"zero_optimization": {"stag": 1}}}, "stag"),
    ],
)
def test_what_deepspeed_says_obscurely_is_said_here(
    module: nn.Module, options: dict[str, Any], message: str
) -> None:
    start_processes()
    with pytest.raises(ValueError, match=message):
        build_engine(module, RunSettings(**options))


def test_inverse_sqrt_and_an_optimizer_of_the_methods_own() -> None:
    start_processes()
    engine = build_engine(
        nn.Linear(2, 2),
        RunSettings(learning_rate=0.1, lr_scheduler="inverse_sqrt", lr_warmup_steps=2),
        lambda parameters, lr, **others: torch.optim.SGD(parameters, lr=lr),
    )
    rates = []
    for _ in range(8):
        engine.backward(engine(torch.ones(1, 2)).sum())
        engine.step()
        rates.append(engine.get_lr()[0])
    assert isinstance(engine.optimizer, torch.optim.SGD)
    assert rates == pytest.approx([0.05] + [0.1 * (2 / step) ** 0.5 for step in range(2, 9)])


def test_one_process_needs_no_port_and_starts_once() -> None:
    ranks = start_processes()
    assert (ranks.rank, ranks.world_size) == (0, 1)
    assert start_processes() == ranks
    assert "MASTER_PORT" not in os.environ


def test_a_slurm_step_needs_a_meeting_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(ValueError, match="export MASTER_PORT=29500"):
        start_processes()


def test_the_private_table_still_prevents_compilation() -> None:
    """If this fails, DeepSpeed has renamed what `processes._start_deepspeed` relies on.

    The first start on CPU then compiles an op for about a minute: find the new name.
    """
    import deepspeed
    from deepspeed.accelerator import get_accelerator
    from deepspeed.comm.torch import build_shm_op

    start_processes()
    assert deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] is False
    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    assert builder.NAME == "deepspeed_shm_comm"
    assert build_shm_op() is None


def test_starting_with_zero_loads_no_compiler(tiny_run: TinyRun, tmp_path: Path) -> None:
    """If this fails, `processes._start_deepspeed` no longer saves its four seconds."""
    run = tiny_run(output_dir=tmp_path, steps=1, config=stage(1))
    assert run["answers"][0]["has_inductor"] is False
