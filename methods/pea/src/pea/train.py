"""The training loop of `pea train`.

pea train --config configs/testbed.yaml
torchrun --nproc_per_node 2 -m pea train --config configs/testbed.yaml
deepspeed --module pea train --config configs/testbed.yaml
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from crosslingual.adapter.pipeline import draw
from crosslingual.features.loader import is_features
from crosslingual.features.training_data import open_run_data, validation_batch
from crosslingual.frozen.base import Base
from crosslingual.frozen.weights import resolve
from crosslingual.training.engine import AdamW
from crosslingual.training.rehearsal import draw_rehearsal
from crosslingual.training.run import Run
from pea.artifact import adapter_config, save_adapter, start_adapter
from pea.data import frozen_parts
from pea.optimizer import Muon
from pea.settings import TrainSettings
from pea.step import Frozen, load_frozen, pea_step
from pea.warm_start import warm_start_step


def train(settings: TrainSettings) -> Path:
    """Trains an adapter and exports it to `output_dir/adapter`."""
    run = Run(settings)
    base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
    config = adapter_config(settings)
    rehearsed = settings.rehearsed(settings.languages)
    if settings.warm_start_draws and not is_features(resolve(settings.train_data or "")):
        raise ValueError(
            "warm_start_draws are kept with features: give --train_data a folder of `pea features`"
        )
    frozen_data = frozen_parts(settings, run.ranks)
    data = open_run_data(settings, frozen_data, run.ranks, has_pictures=settings.pictures)
    held_out = validation_batch(settings)
    if held_out is not None and settings.pictures and "latent_mean" not in held_out:
        raise ValueError(
            f"the features in {settings.validation_data} were made without pictures, which this "
            "run validates by: make them anew"
        )
    frozen = load_frozen(settings, base, data.null, run.ranks.device)
    adapter = start_adapter(settings, config)
    adapter = run.prepare(adapter, optimizer_of(settings, run.zero_stage))
    batches = data.batches(run.first_micro_step)
    warm_start = int(settings.warm_start_share * settings.max_train_steps)
    for step in run.steps():
        for draws in run.micro_steps(step):
            batch = draw_rehearsal(next(batches), rehearsed, settings.rehearsal, draws)
            if step <= warm_start:
                given = settings.warm_start_queries, bool(settings.warm_start_draws)
                loss, parts = warm_start_step(adapter, frozen, batch, draws, *given)
            else:
                loss, parts = pea_step(adapter, frozen, batch, draws, settings)
            run.backward(loss, parts, keys=partial(data.keys, batch))
        run.end_step()
        if run.validates(step) and run.ranks.rank == 0:
            run.log(validate(adapter.module, frozen, held_out, settings), step)
            if settings.validation_prompts:
                prompts = settings.validation_prompts
                strip = draw(base, frozen.denoiser, adapter.module, config, prompts)
                run.pictures("validation", strip, step)
    return run.finish(lambda state: save_adapter(state, config, run.output_dir / "adapter"))


def optimizer_of(settings: TrainSettings, zero_stage: int) -> Callable[..., torch.optim.Optimizer]:
    """What makes the optimiser.

    Raises:
        ValueError: Muon at a ZeRO stage that cuts matrices into pieces.
    """
    if settings.optimizer == "muon" and zero_stage > 0:
        raise ValueError(
            f"optimizer muon needs whole matrices, and ZeRO stage {zero_stage} cuts them: leave "
            "out --deepspeed_config, or use --optimizer adamw"
        )
    return {"adamw": AdamW, "muon": Muon}[settings.optimizer]


@torch.no_grad()
def validate(
    adapter: nn.Module, frozen: Frozen, batch: dict[str, Tensor], settings: TrainSettings
) -> dict[str, float]:
    """Computes loss and parts on a fixed batch, with fixed noise and stratified timesteps."""
    draws = torch.Generator().manual_seed(settings.seed)
    loss, parts = pea_step(adapter, frozen, batch, draws, settings, stratified=True)
    values = {"loss": loss, **parts}
    return {f"validation_{name}": value.item() for name, value in values.items()}
