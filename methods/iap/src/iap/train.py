"""The training loop of `iap train`.

iap train --config configs/testbed.yaml
torchrun --nproc_per_node 2 -m iap train --config configs/testbed.yaml
deepspeed --module iap train --config configs/testbed.yaml
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from crosslingual.features.training_data import open_run_data, validation_batch
from crosslingual.training.run import Run
from iap.artifact import encoder_config, save_trained
from iap.data import TripletParts, open_base
from iap.encoder import make_encoder
from iap.settings import TrainSettings
from iap.step import Frozen, iap_step, load_frozen


def train(settings: TrainSettings) -> Path:
    """Trains the target encoder and exports it to `output_dir/encoder`."""
    run = Run(settings, samples_per_row=settings.captions_per_pass)
    base = open_base(settings)
    config = encoder_config(settings)
    parts = TripletParts(settings, run.ranks.device)
    data = open_run_data(settings, parts, run.ranks)
    held_out = validation_batch(settings, parts)
    frozen = load_frozen(settings, base, data.null, run.ranks.device)
    encoder = run.prepare(make_encoder(settings, config))
    batches = data.batches(run.first_micro_step)
    for step in run.steps():
        for draws in run.micro_steps(step):
            batch = next(batches)
            loss, values = iap_step(encoder, frozen, batch, draws, settings)
            run.backward(loss, values, keys=partial(data.keys, batch))
        run.end_step()
        if run.validates(step) and run.ranks.rank == 0:
            run.log(validate(encoder.module, frozen, held_out, settings), step)
    folder = run.output_dir / "encoder"
    return run.finish(lambda state: save_trained(settings, state, folder))


@torch.no_grad()
def validate(
    encoder: nn.Module, frozen: Frozen, batch: dict[str, Tensor], settings: TrainSettings
) -> dict[str, float]:
    """Computes loss and parts on a fixed batch, with fixed noise and stratified timesteps."""
    draws = torch.Generator().manual_seed(settings.seed)
    loss, parts = iap_step(encoder, frozen, batch, draws, settings, stratified=True)
    values = {"loss": loss, **parts}
    return {f"validation_{name}": value.item() for name, value in values.items()}
