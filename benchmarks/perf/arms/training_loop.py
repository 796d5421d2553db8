"""The loop of a method's `train`, a step at a time: the lines that stand in each `train.train`."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from crosslingual.features.training_data import row_generators
from crosslingual.training.processes import StopRequest, start_processes
from crosslingual.training.progress import Progress


def loop_step(
    settings: Any,
    engine: Any,
    batches: Iterator[dict[str, Any]],
    loss_of: Callable[[Any, dict[str, Any], list[torch.Generator]], tuple[torch.Tensor, dict]],
) -> Callable[[], None]:
    """What takes the next step: data, draws, loss, gradients, optimiser, metrics, stop.

    Args:
        settings: of the method's `train`: seed, train_batch_size, max_train_steps, output_dir.
        engine: DeepSpeed's, around what trains.
        batches: endless.
        loss_of: engine, batch and a generator a row to the loss and its parts.
    """
    ranks = start_processes()
    progress = Progress(settings.max_train_steps, settings.output_dir, every_s=3600)
    stop = StopRequest()
    num_steps = 0

    def step() -> None:
        nonlocal num_steps
        generators = row_generators(settings.seed, num_steps, ranks, settings.train_batch_size)
        loss, parts = loss_of(engine, next(batches), generators)
        torch.isfinite(loss).item()
        engine.backward(loss)
        engine.step()
        num_steps += 1
        progress.step(
            num_steps, loss.detach(), parts, engine.get_lr()[0], settings.train_batch_size
        )
        stop.requested(ranks)

    return step
