"""The processes that train together: how they start, and how they agree to stop."""

import atexit
import importlib
import logging
import os
import signal
import sys
import warnings
from dataclasses import dataclass
from typing import Any, NoReturn
from unittest import mock

import torch


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        world_size: how many there are.
        local_rank: its number on this machine.
        device: where its tensors live.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device


def start_processes() -> Ranks:
    """Joins the process group of torchrun, deepspeed or SLURM, or makes one of this process alone.

    Without a launcher nothing listens on a port. On CPU a process uses one thread unless
    OMP_NUM_THREADS says otherwise, and nothing is compiled. A second call changes nothing.

    Raises:
        ValueError: in a SLURM job of several tasks that does not say where rank 0 listens.
    """
    rank, world_size, local_rank = _read_launcher()
    has_cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if has_cuda else torch.device("cpu")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    if has_cuda:
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)
    os.environ.setdefault("LOCAL_RANK", str(local_rank))
    if not torch.distributed.is_initialized():
        backend = "nccl" if has_cuda else "gloo"
        if world_size > 1:
            torch.distributed.init_process_group(backend)
        else:
            store = torch.distributed.HashStore()
            torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    _start_deepspeed(has_cuda=has_cuda)
    return Ranks(rank, world_size, local_rank, device)


def leave_processes(code: int) -> NoReturn:
    """Ends one of several training processes with an exit code, without Python's own shutdown: a
    rank was seen to abort there after all its work was done (torch 2.13, gloo: "terminate called
    without an active exception"), probably in a thread of gloo that needed the interpreter. Our
    commands end so; a script of one's own that calls `start_processes` does well to.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def row_generators(
    seed: int, micro_step: int, ranks: Ranks, batch_size: int
) -> list[torch.Generator]:
    """A generator a row of this rank's batch, each a function of seed and the row's place in the
    run: what is drawn for a sample does not depend on how many ranks, or micro-steps, share a step.
    """
    first = (micro_step * ranks.world_size + ranks.rank) * batch_size
    # torch's generator on CPU keeps 32 bits of a seed
    seeds = ((seed * 0x9E3779B1 + first + row) % 2**32 for row in range(batch_size))
    return [torch.Generator().manual_seed(value) for value in seeds]


class StopRequest:
    """Turns SIGTERM and SIGINT into a question that the loop asks after each step.

    A second SIGINT interrupts at once; `close` gives the signals back.
    """

    def __init__(self) -> None:
        """Takes over both signals."""
        self._is_asked = False
        self._previous = {
            number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)
        }

    def _ask(self, number: int, frame: Any) -> None:
        if self._is_asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._is_asked = True

    def requested(self, ranks: Ranks) -> bool:
        """Says whether any process was asked to stop; every process must call it, and all agree."""
        if ranks.world_size == 1:
            return self._is_asked
        asked = torch.tensor([int(self._is_asked)], device=ranks.device)
        torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
        return bool(asked.item())

    def close(self) -> None:
        """Gives the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _read_launcher() -> tuple[int, int, int]:
    """Returns rank, world size and local rank as the launcher says, or of a process alone.

    The variables of a SLURM *step* are read, which a batch script without `srun` does not have.
    """
    environment = os.environ
    if "RANK" not in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        if "MASTER_ADDR" not in environment or "MASTER_PORT" not in environment:
            raise ValueError(
                "srun started several tasks, but no meeting place is set; before srun: export "
                "MASTER_PORT=29500 MASTER_ADDR=$(scontrol show hostnames $SLURM_NODELIST | head -1)"
            )
        environment["RANK"] = environment["SLURM_PROCID"]
        environment["WORLD_SIZE"] = environment["SLURM_STEP_NUM_TASKS"]
        environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    rank, world_size = int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))
    return rank, world_size, int(environment.get("LOCAL_RANK", 0))


def _start_deepspeed(*, has_cuda: bool) -> None:
    import deepspeed

    # Its check of ZeRO's optimisers imports Muon, whose decorators load inductor: four seconds for
    # what AdamW never calls.
    with mock.patch("torch.compile", lambda *given, **_: given[0] if given else lambda made: made):
        importlib.import_module("deepspeed.runtime.zero.muon.original_muon")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if not has_cuda:
        # A private table: otherwise the first start compiles an inference-only op for a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(verbose=False)
