"""A training run as one object; the loop stays in the method.

    run = Run(settings)
    adapter = run.prepare(build_adapter(config))
    batches = data.batches(run.first_micro_step)
    for step in run.steps():
        for draws in run.micro_steps(step):
            batch = next(batches)
            loss, parts = pea_step(adapter, batch, draws)
            run.backward(loss, parts, keys=partial(data.keys, batch))
        run.end_step()
        if run.validates(step):
            run.log(validate(...), step)
    return run.finish(lambda state: save_adapter(state, config, run.output_dir / "adapter"))

`Run` joins the processes, locks its folder, resumes, reports, saves and stops. What it is made of
(`engine`, `checkpoint`, `progress`, `processes`) works without it, for a loop that does not fit.
"""

import functools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from crosslingual.adapter.hub import check_login, upload
from crosslingual.cli.settings import write_settings
from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from crosslingual.training.engine import (
    AdamW,
    build_engine,
    check_finite,
    deepspeed_config,
    full_state_dict,
)
from crosslingual.training.folder import check_resumable, lock_folder
from crosslingual.training.processes import Ranks, StopRequest, row_generators, start_processes
from crosslingual.training.progress import Progress, peak_memory_bytes
from crosslingual.training.settings import RunSettings

DRY_STEPS = 3


class Draws(Sequence[torch.Generator]):
    """What a micro-step draws from: one generator per row of this rank's batch, made when used.

    Attributes:
        micro_step: the micro-step's number in the run, from 0.
        place: a number that no other micro-step or rank of the run has, to seed dropout with.
    """

    def __init__(self, seed: int, micro_step: int, ranks: Ranks, batch_size: int):
        """Takes the arguments of `row_generators`."""
        self.micro_step = micro_step
        self.place = micro_step * ranks.world_size + ranks.rank
        self._made_of = (seed, micro_step, ranks, batch_size)

    @functools.cached_property
    def _rows(self) -> list[torch.Generator]:
        return row_generators(*self._made_of)

    def __getitem__(self, row: Any) -> Any:
        """The generator of a row."""
        return self._rows[row]

    def __len__(self) -> int:
        """Rows of this rank's batch."""
        return self._made_of[3]


class Run:
    """A training run: its processes, folder, engine, checkpoints and progress.

    Attributes:
        settings: the run's settings.
        ranks: this process among those that train together.
        output_dir: the run's folder.
        zero_stage: ZeRO stage of the DeepSpeed configuration.
        first_step: optimiser steps that were taken before, 0 for a new run.
        first_micro_step: where the data goes on.
        engine: what `prepare` returned.
    """

    def __init__(self, settings: RunSettings, *, samples_per_row: int = 1):
        """Joins the processes, locks the folder and finds the checkpoint to resume from.

        A row of a batch counts for `samples_per_row` samples in samples/s. With `dry_run`,
        `settings` are changed: a temporary folder, few steps, and nothing besides them.

        Raises:
            ValueError: the folder belongs to another run, another process writes into it, or the
                settings are not those of the checkpoint.
            FileNotFoundError: no such checkpoint or DeepSpeed configuration.
        """
        self.ranks = start_processes()
        self.settings, self._wanted_steps = settings, settings.max_train_steps
        if settings.push_to_hub:
            check_login(settings.hub_model_id)
        if settings.dry_run:
            self._make_dry(settings)
        self.output_dir = Path(settings.output_dir)
        if settings.validation_steps and not settings.validation_data:
            raise ValueError(
                f"validation_steps needs --validation_data: give held-out data like "
                f"{settings.train_data or 'train_data'}, or --validation_steps 0"
            )
        config = deepspeed_config(settings)
        self.zero_stage = config.get("zero_optimization", {}).get("stage", 0)
        if self.zero_stage == 3 and settings.use_ema:
            raise ValueError(
                "at ZeRO stage 3 no process holds whole weights to average: use ds/zero2.json, or "
                "leave out --use_ema"
            )
        with lock_folder(self.output_dir, self.ranks) as lock:
            self._checkpoint = resolve_checkpoint(self.output_dir, settings.resume_from_checkpoint)
            self.first_step = 0
            if self._checkpoint is not None:
                self.first_step = check_resumable(settings, self._checkpoint, self.ranks)
            self._lock = lock.pop_all()
        self.first_micro_step = self.first_step * settings.gradient_accumulation_steps
        rows = settings.train_batch_size * settings.gradient_accumulation_steps
        self._samples_per_step = rows * self.ranks.world_size * samples_per_row
        self._is_stopped = False

    def _make_dry(self, settings: RunSettings) -> None:
        folder = [None]
        if self.ranks.rank == 0:
            self._scratch = tempfile.TemporaryDirectory(prefix="dry-run-")
            folder = [self._scratch.name]
        torch.distributed.broadcast_object_list(folder, src=0)
        settings.output_dir, settings.max_train_steps = folder[0], DRY_STEPS
        settings.validation_steps, settings.report_to = 0, "none"
        settings.resume_from_checkpoint, settings.push_to_hub = None, False
        self._times = [time.perf_counter()]

    def prepare(
        self,
        module: nn.Module,
        make_optimizer: Callable[..., torch.optim.Optimizer] = AdamW,
    ) -> Any:
        """Builds the DeepSpeed engine, which is called as the module is, and the moving average,
        and loads the checkpoint; the arguments are those of `build_engine`.
        """
        from diffusers.training_utils import EMAModel

        settings = self.settings
        self.engine = build_engine(module, settings, make_optimizer)
        self._trainable = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._ema = None
        if settings.use_ema:
            self._ema = EMAModel(self._trainable.values(), decay=settings.ema_decay)
        if self._checkpoint is not None:
            state = load_checkpoint(self.engine, self._checkpoint)
            if self._ema is not None:
                self._ema.load_state_dict(state["ema"])
        if self.ranks.rank == 0:
            write_settings(settings, self.output_dir / "settings.yaml")
        self._progress = Progress(
            settings.max_train_steps,
            self.output_dir,
            start_step=self.first_step,
            report_to=settings.report_to,
            rank=self.ranks.rank,
        )
        return self.engine

    def steps(self) -> Iterator[int]:
        """Numbers of the optimiser steps that are left, the first step of a run being 1.

        Checkpoints are saved between two steps, after what the loop does at the end of one. After
        SIGTERM or SIGINT to any process the current step is finished and saved, and no other
        follows.
        """
        last = self.settings.max_train_steps
        with closing(self._progress), closing(StopRequest()) as stop:
            for step in range(self.first_step + 1, last + 1):
                self._step = step
                yield step
                is_stopping = stop.requested(self.ranks)
                is_due = step % self.settings.checkpointing_steps == 0
                if (is_stopping or is_due or step == last) and not self.settings.dry_run:
                    self._save()
                if is_stopping and step < last:
                    self._is_stopped = True
                    return

    def micro_steps(self, step: int) -> Iterator[Draws]:
        """What each micro-step of an optimiser step draws from."""
        number = self.settings.gradient_accumulation_steps
        for micro_step in range((step - 1) * number, step * number):
            yield Draws(self.settings.seed, micro_step, self.ranks, self.settings.train_batch_size)

    def backward(
        self,
        loss: Tensor,
        parts: Mapping[str, Tensor | float],
        keys: Callable[[], Sequence[str]],
    ) -> None:
        """Adds the gradients of a micro-step; the last one of a step updates the weights.

        Args:
            loss: this rank's loss, to be differentiated.
            parts: its named parts. Loss and parts are reported as means over the ranks.
            keys: called for the keys of this rank's samples if the loss of any rank is not finite.

        Raises:
            ValueError: the loss is not finite; naming step, parts and the samples of the ranks
                where it is not.
        """
        means = self.mean_over_ranks({"loss": loss, **parts})
        self._loss = means.pop("loss")
        self._parts = means
        if not math.isfinite(self._loss):
            suspects = [] if math.isfinite(loss.item()) else list(keys())
            lists = [suspects] * self.ranks.world_size
            torch.distributed.all_gather_object(lists, suspects)
            found = dict.fromkeys(key for part in lists for key in part)
            check_finite(self._loss, means, step=self._step, keys=list(found))
        self.engine.backward(loss)
        self.engine.step()

    def end_step(self) -> None:
        """Updates the moving average and reports the step; every process must call it."""
        if self._ema is not None:
            self._ema.step(self._trainable.values())
        rate = self.engine.get_lr()[0]
        self._progress.step(self._step, self._loss, self._parts, rate, self._samples_per_step)
        if self.settings.dry_run:
            self._times.append(time.perf_counter())

    def validates(self, step: int) -> bool:
        """Whether a validation is due after this step."""
        every = self.settings.validation_steps
        return every > 0 and step % every == 0

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Reports named numbers, such as a validation's; rank 0's count."""
        self._progress.log(values, step)

    def pictures(self, name: str, picture: Any, step: int) -> None:
        """Reports a picture, such as a strip drawn at a validation; rank 0's counts."""
        self._progress.pictures(name, picture, step)

    def mean_over_ranks(self, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Means of the ranks' numbers; every process must call it."""
        numbers = [torch.as_tensor(value, device=self.ranks.device) for value in values.values()]
        stacked = torch.stack([number.detach().double() for number in numbers])
        if self.ranks.world_size > 1:
            torch.distributed.all_reduce(stacked)
        means = (stacked / self.ranks.world_size).tolist()
        return dict(zip(values, means, strict=True))

    def finish(self, write: Callable[[dict[str, Tensor]], Path | None]) -> Path:
        """Exports what was trained, unless the run was stopped early; every process must call it.

        Args:
            write: called on rank 0 with the trained tensors in fp32 on CPU by name (their moving
                average, if the settings use it); returns the folder that it wrote.

        Returns:
            What `write` returned; the run's folder where it returned None or the run was stopped.
        """
        with self._lock:
            if self.settings.dry_run:
                return self._end_dry()
            if self._is_stopped:
                return self.output_dir
            state = self._trained()
            written = [write(state) if self.ranks.rank == 0 else None]
            torch.distributed.broadcast_object_list(written, src=0)
            folder = written[0] or self.output_dir
            if self.settings.push_to_hub and self.ranks.rank == 0:
                print(upload(folder, self.settings.hub_model_id))
            return folder

    def _end_dry(self) -> Path:
        """Prints what three steps took, unless they were stopped, and removes their folder; after
        an error that goes with the process.
        """
        if self.ranks.rank == 0:
            self._scratch.cleanup()
        if self.ranks.rank == 0 and not self._is_stopped:
            step_s = statistics.median(b - a for a, b in pairwise(self._times[1:]))
            count = sum(parameter.numel() for parameter in self._trainable.values())
            whole = tqdm.format_interval(step_s * self._wanted_steps)
            print(
                f"dry run: {count:,} trainable parameters; a step of {self._samples_per_step} "
                f"samples takes {step_s:.3g} s, {self._wanted_steps} steps about {whole}; peak "
                f"memory {peak_memory_bytes() / 2**30:.1f} GB a process; nothing was written"
            )
        return self.output_dir

    def _trained(self) -> dict[str, Tensor]:
        if self._ema is None:
            return full_state_dict(self.engine)
        # not from the engine: ZeRO gathers its own fp32 copy, whatever the module holds
        averages = zip(self._trainable, self._ema.shadow_params, strict=True)
        return {name: average.to("cpu", torch.float32) for name, average in averages}

    def _save(self) -> None:
        save_checkpoint(
            self.engine,
            self.output_dir,
            step=self._step,
            state={} if self._ema is None else {"ema": self._ema.state_dict()},
            total_limit=self.settings.checkpoints_total_limit,
            settings=self.settings,
        )
