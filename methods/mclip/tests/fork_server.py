"""`mclip` verbs in forks of a process that has imported torch and DeepSpeed once: seconds each.

    python fork_server.py           requests as JSON lines on stdin, answers on stdout

A request holds `argv`, and may hold
    world_size: as many processes as torchrun would start, with its environment
    terminate: [rank, step]: this rank gets a SIGTERM when it has recorded this step
    die: [step]: kill -9 when rank 0 has recorded this step, before anything is saved for it
    die: [step, operation]: kill -9 at this file operation of rank 0's saving of this step
"""

import json
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.zero import stage_1_and_2  # noqa: F401, imported once for all the forks
from diffusers import optimization  # noqa: F401
from transformers import CLIPModel, CLIPTokenizer, XLMRobertaModel  # noqa: F401

import mclip.cli
import mclip.export
import mclip.features
import mclip.info
import mclip.train
import mclip.train_encoder
from crosslingual.progress import Progress

TRAINERS = (mclip.train, mclip.train_encoder)


class DeathClock:
    """Counts the operations that change files below a folder, and kills -9 before one of them.

    A `torch.save` counts twice: before it, and with half of its file written.
    """

    def __init__(self, folder: str, last: int) -> None:
        self.folder, self.last, self.count, self.is_on = folder, last, 0, False
        sys.addaudithook(self._audit)
        save = torch.save

        def dying_save(state: Any, path: str, **options: Any) -> None:
            self._tick()
            save(state, path, **options)
            self._tick(lambda: os.truncate(path, os.path.getsize(path) // 2))

        torch.save = dying_save

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        is_write = event == "open" and isinstance(args[1], str) and args[1][0] in "wax"
        if self.is_on and (is_write or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir")):
            if event in ("os.remove", "os.rmdir") or str(args[0]).startswith(self.folder):
                self._tick()

    def _tick(self, before: Any = lambda: None) -> None:
        if self.is_on:
            if self.count == self.last:
                before()
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1


def signal_at(number: int, chosen_step: int) -> None:
    """This process sends itself a signal when it has recorded a step."""
    record = Progress.step

    def signalling_record(progress: Any, step: int, *values: Any) -> None:
        record(progress, step, *values)
        if step == chosen_step:
            os.kill(os.getpid(), number)

    Progress.step = signalling_record


def die_in_save(chosen_step: int, operation: int) -> None:
    """This process dies at a file operation of a save, or at that of the save's end."""
    save = mclip.train.save_checkpoint

    def dying_save(engine: Any, output_dir: Path, *, step: int, **options: Any) -> Path:
        if step != chosen_step:
            return save(engine, output_dir, step=step, **options)
        clock = DeathClock(str(output_dir.resolve()), operation)
        clock.is_on = True
        save(engine, output_dir, step=step, **options)
        print(f"the save had {clock.count} operations, no {operation}", file=sys.stderr)
        os._exit(1)

    for trainer in TRAINERS:
        trainer.save_checkpoint = dying_save


def run(request: dict[str, Any], rank: int) -> int:
    """One process of a run."""
    if "terminate" in request and request["terminate"][0] == rank:
        signal_at(signal.SIGTERM, request["terminate"][1])
    if "die" in request and rank == 0:
        if len(request["die"]) == 1:
            signal_at(signal.SIGKILL, request["die"][0])
        else:
            die_in_save(*request["die"])
    sys.argv = ["mclip", *request["argv"]]
    return mclip.cli.main()


def fork_run(request: dict[str, Any]) -> dict[str, Any]:
    """Forks the processes of a request and collects exit codes, stdout and stderr by rank."""
    world_size = request.get("world_size", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(world_size):
            child = os.fork()
            if child == 0:
                if world_size > 1:
                    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                    os.environ |= {"WORLD_SIZE": str(world_size), "MASTER_PORT": str(port)}
                    os.environ["MASTER_ADDR"] = "127.0.0.1"
                for descriptor, kind in ((1, "out"), (2, "err")):
                    log = os.open(f"{folder}/{rank}.{kind}", os.O_CREAT | os.O_WRONLY)
                    os.dup2(log, descriptor)
                code = 1
                try:
                    code = run(request, rank)
                finally:
                    sys.excepthook(*sys.exc_info()) if sys.exc_info()[0] else None
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        logs = {
            f"std{kind}": [Path(folder, f"{rank}.{kind}").read_text() for rank in range(world_size)]
            for kind in ("out", "err")
        }
        return {"codes": codes, **logs}


def serve() -> None:
    """Answers each line of stdin with a line on stdout."""
    deepspeed.ops.__compatible_ops__  # noqa: B018, the probe of all ops takes half a second
    for line in sys.stdin:
        print(json.dumps(fork_run(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
