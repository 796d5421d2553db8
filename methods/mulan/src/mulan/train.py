"""The training loop of `mulan train`.

mulan train --config configs/testbed.yaml
torchrun --nproc_per_node 2 -m mulan train --config configs/testbed.yaml
deepspeed --module mulan train --config configs/testbed.yaml
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from crosslingual.adapter.pipeline import draw
from crosslingual.features.training_data import validation_batch
from crosslingual.frozen.base import Base
from crosslingual.training.run import Run
from mulan.artifact import adapter_config, frozen_tensors, save_adapter, start_adapter
from mulan.data import open_data, support_memory
from mulan.pipeline import attach_module
from mulan.settings import TrainSettings
from mulan.step import Frozen, load_frozen, mulan_step


def train(settings: TrainSettings) -> Path:
    """Trains an adapter and exports it to `output_dir/adapter`."""
    run = Run(settings)
    config = adapter_config(settings)
    data = open_data(settings, run.ranks)
    held_out = validation_batch(settings)
    frozen = load_frozen(settings, config, data.null, run.ranks.device)
    module = start_adapter(settings, config, frozen.denoiser, support_memory(settings))
    others = frozen_tensors(module)
    adapter = run.prepare(module)
    batches = data.batches(run.first_micro_step)
    for step in run.steps():
        for draws in run.micro_steps(step):
            batch = next(batches)
            loss, parts = mulan_step(settings, frozen, adapter, batch, draws)
            run.backward(loss, parts, keys=partial(data.keys, batch))
        run.end_step()
        if run.validates(step) and run.ranks.rank == 0:
            run.log(validate(settings, frozen, module, held_out), step)
            if prompts := settings.validation_prompts:
                base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
                strip = draw(base, frozen.denoiser, module, config, prompts, attach=attach_module)
                run.pictures("validation", strip, step)
    folder = run.output_dir / "adapter"
    return run.finish(lambda state: save_adapter({**others, **state}, config, folder))


@torch.no_grad()
def validate(
    settings: TrainSettings, frozen: Frozen, adapter: nn.Module, batch: dict[str, Tensor]
) -> dict[str, float]:
    """Computes loss and parts on a fixed batch, with fixed noise and stratified timesteps."""
    draws = torch.Generator().manual_seed(settings.seed)
    loss, parts = mulan_step(settings, frozen, adapter, batch, draws, stratified=True)
    return {f"validation_{name}": part.item() for name, part in [("loss", loss), *parts.items()]}
