"""The training loop of `template train`.

template train --config configs/testbed.yaml
torchrun --nproc_per_node 2 -m template train --config configs/testbed.yaml
deepspeed --module template train --config configs/testbed.yaml
"""

from functools import partial
from pathlib import Path

import torch

from crosslingual.features.training_data import open_run_data, validation_batch
from crosslingual.training.processes import row_generators
from crosslingual.training.rehearsal import draw_rehearsal
from crosslingual.training.run import Run
from template.artifact import adapter_config, save_adapter, start_adapter
from template.data import frozen_parts
from template.settings import TrainSettings
from template.step import text_space_step


def train(settings: TrainSettings) -> Path:
    """Trains an adapter and exports it to `output_dir/adapter`."""
    run = Run(settings)
    config = adapter_config(settings)
    rehearsed = settings.rehearsed(settings.languages)
    encoders = frozen_parts(settings, run.ranks)
    data = open_run_data(settings, encoders, run.ranks, has_pictures=False)
    held_out = validation_batch(settings)
    null = {name: array.to(run.ranks.device, torch.float32) for name, array in data.null.items()}
    adapter = run.prepare(start_adapter(settings, config))
    batches = data.batches(run.first_micro_step)
    for step in run.steps():
        for draws in run.micro_steps(step):
            batch = draw_rehearsal(next(batches), rehearsed, settings.rehearsal, draws)
            loss, parts = text_space_step(adapter, null, batch, draws, settings)
            run.backward(loss, parts, keys=partial(data.keys, batch))
        run.end_step()
        if run.validates(step) and run.ranks.rank == 0:
            draws = row_generators(settings.seed, 0, run.ranks, len(held_out["native"]))
            with torch.no_grad():
                loss, _ = text_space_step(adapter.module, null, held_out, draws, settings)
            run.log({"validation_loss": loss.item()}, step)
    return run.finish(lambda state: save_adapter(state, config, run.output_dir / "adapter"))
