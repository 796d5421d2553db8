"""For tests of trainers: runs in forks of one process that has imported torch and DeepSpeed, which
takes seconds; processes that meet as under torchrun; signals, and deaths at any file operation.

    with forked_method("pea") as ask:
        ask({"argv": ["train", "--output_dir", ...], "world_size": 2})

A script that is not a method's command calls `serve` and is started by `forked_runs`.
"""

import atexit
import contextlib
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

Request = dict[str, Any]
Ask = Callable[[Request], dict[str, Any]]

# Imported once for all the forks; diffusers and transformers import a class when it is named.
HEAVY = ["deepspeed.runtime.zero.stage3", "deepspeed.runtime.zero.stage_1_and_2"]
HEAVY_CLASSES = {
    "diffusers": "AutoencoderKL DDIMScheduler StableDiffusionPipeline UNet2DConditionModel",
    "transformers": "AltCLIPTextModel CLIPModel CLIPTextModel CLIPTokenizer XLMRobertaModel",
}


class DeathClock:
    """Counts the operations that change files below a folder, and kills -9 before one of them.

    A `torch.save` counts twice: before it, and with half of its file written.

    Attributes:
        count: operations so far, while `is_on`.
        is_on: whether it counts.
    """

    def __init__(self, folder: str, last: int | None) -> None:
        """Watches `folder`; dies at operation `last`, or never."""
        import torch

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

    def _tick(self, before: Callable[[], None] = lambda: None) -> None:
        if self.is_on:
            if self.count == self.last:
                before()
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1


def signal_at(number: int, chosen_step: int) -> None:
    """This process sends itself a signal when its progress has recorded a step."""
    from crosslingual.training.progress import Progress

    record = Progress.step

    def signalling_record(progress: Any, step: int, *values: Any) -> None:
        record(progress, step, *values)
        if step == chosen_step:
            os.kill(os.getpid(), number)

    Progress.step = signalling_record


def die_in_save(chosen_step: int, operation: int) -> None:
    """This process dies at a file operation of the saving of an optimiser step, or at its end."""
    from crosslingual.training.checkpoint import save_checkpoint as save

    def dying_save(engine: Any, output_dir: Path, *, step: int, **options: Any) -> Path:
        if step != chosen_step:
            return save(engine, output_dir, step=step, **options)
        clock = DeathClock(str(output_dir.resolve()), operation)
        clock.is_on = True
        save(engine, output_dir, step=step, **options)
        print(f"the save had {clock.count} operations, no {operation}", file=sys.stderr)
        os._exit(1)

    for module in list(sys.modules.values()):
        if vars(module).get("save_checkpoint") is save:
            module.save_checkpoint = dying_save


def serve_method(name: str) -> None:
    """Serves a method's command, with the modules of all its verbs imported.

    A request holds `argv`, and may hold `program`, another command of ours; `folder`, where it
    runs; `temporary`, the folder of its temporary files; `terminate`: [rank, step], a SIGTERM to
    that rank when it has recorded the step; `die`: [step], kill -9 of rank 0 when it has recorded
    the step, or [step, operation], at that file operation of its saving of the step.
    """
    for module in HEAVY:
        importlib.import_module(module)
    for module, classes in HEAVY_CLASSES.items():
        for one in classes.split():
            getattr(importlib.import_module(module), one)
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def run(request: Request, rank: int) -> int:
        if "terminate" in request and request["terminate"][0] == rank:
            signal_at(signal.SIGTERM, request["terminate"][1])
        if "die" in request and rank == 0:
            if len(request["die"]) == 1:
                signal_at(signal.SIGKILL, request["die"][0])
            else:
                die_in_save(*request["die"])
        os.chdir(request.get("folder", "."))
        tempfile.tempdir = request.get("temporary")
        program = request.get("program", name)
        (script,) = entry_points(group="console_scripts", name=program)
        sys.argv = [program, *request["argv"]]
        try:
            return script.load()()
        except SystemExit as leaving:  # --help
            return int(leaving.code or 0)

    serve(run)


def serve(run: Callable[[Request, int], int]) -> None:
    """Answers each line of stdin, a request in JSON, with a line on stdout.

    Args:
        run: called with the request and the rank in each forked process; returns the exit code.
            `world_size` of the request says how many there are; a file that the process writes into
            the folder `answers` of its request under its rank's name comes back.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__  # noqa: B018, the probe of all ops takes half a second
    for line in sys.stdin:
        print(json.dumps(_fork_run(json.loads(line), run)), flush=True)


def _fork_run(request: Request, run: Callable[[Request, int], int]) -> dict[str, Any]:
    """Forks the processes of a request; exit codes, answers, stdout and stderr by rank."""
    world_size = request.get("world_size", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(world_size):
            child = os.fork()
            if child == 0:
                _become(rank, world_size, port, folder)
                code = 1
                try:
                    code = run({**request, "answers": folder}, rank)
                finally:
                    sys.excepthook(*sys.exc_info()) if sys.exc_info()[0] else None
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        ranks = range(world_size)
        files = [Path(folder, str(rank)) for rank in ranks]
        return {
            "codes": codes,
            "answers": [json.loads(f.read_text()) if f.exists() else None for f in files],
            "stdout": [Path(folder, f"{rank}.out").read_text() for rank in ranks],
            "stderr": [Path(folder, f"{rank}.err").read_text() for rank in ranks],
        }


def _become(rank: int, world_size: int, port: int, folder: str) -> None:
    """Gives this fork the environment that torchrun would, and files for its output. What the
    server does at its end, such as removing the folder of answers, is not the fork's to do.
    """
    atexit._clear()
    if world_size > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.environ |= {"WORLD_SIZE": str(world_size), "MASTER_PORT": str(port)}
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    for descriptor, kind in ((1, "out"), (2, "err")):
        log = os.open(f"{folder}/{rank}.{kind}", os.O_CREAT | os.O_WRONLY)
        os.dup2(log, descriptor)


@contextlib.contextmanager
def forked_runs(script: Path, *words: str) -> Iterator[Ask]:
    """Starts a script that calls `serve`.

    Yields:
        A function that sends a request and returns the answer: `codes`, `answers`, `stdout` and
        `stderr`, a value a rank.
    """
    quiet = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "TOKENIZERS_PARALLELISM": "false"}
    server = subprocess.Popen(
        [sys.executable, str(script), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **quiet, "HF_HUB_OFFLINE": "1"},
    )

    def ask(request: Request) -> dict[str, Any]:
        server.stdin.write(json.dumps(request, default=str) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    yield ask
    server.stdin.close()
    server.wait()


@contextlib.contextmanager
def forked_method(name: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Starts a server of a method's command.

    Yields:
        A function that runs a verb and returns the answer of `forked_runs`, such as
        `command("train", {"world_size": 2}, output_dir=..., max_train_steps=6)`. Its second
        argument holds what else `serve_method` lets a request say.
    """
    with forked_runs(Path(__file__), name) as ask:
        yield lambda verb, request=None, **settings: ask(
            {"argv": words_of(verb, settings), **(request or {})}
        )


def run_ranks(script: str, world_size: int, folder: Path) -> None:
    """Runs a test file as a script, in fresh processes, `script RANK WORLD_SIZE FOLDER`: forks
    of a process that has joined a group already would join it too, or wait for ever.

    Raises:
        AssertionError: a process failed; its message stands on stderr.
    """
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    words = [sys.executable, script]
    children = [
        subprocess.Popen([*words, str(rank), str(world_size), str(folder)], env=quiet)
        for rank in range(world_size)
    ]
    codes = [child.wait(timeout=300) for child in children]
    assert codes == [0] * world_size, codes


def join_ranks(rank: int, world_size: int, folder: Path) -> None:
    """Joins the processes of `run_ranks` under gloo, with one thread each."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)


def words_of(verb: str, settings: dict[str, Any]) -> list[str]:
    """A verb and its settings as a command line has them; a value that is a list is many words."""
    words = [verb]
    for name, value in settings.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


if __name__ == "__main__":
    serve_method(sys.argv[1])
