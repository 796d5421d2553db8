"""Runs a command for a parent, and ends it with all that it started when that parent dies.

    python guard.py PARENT WORD ...        # PARENT: the parent's process id

torchrun starts its workers in sessions of their own, and they outlive it: a signal to a process or
to its group does not reach them. Linux gives this process a signal when its parent dies, and the
orphans below it as its children, so that it ends them all. Elsewhere it only waits.
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(parent: int, words: list[str]) -> int:
    """Runs the words and returns their exit code; nothing that they started is alive then."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, lambda *_: None)  # the command gets Ctrl-C as well, and may save
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    command = None
    try:
        if os.getppid() != parent:  # it died before it could be watched
            return 128 + signal.SIGTERM
        command = subprocess.Popen(words)
        code = command.wait()
        return code if code >= 0 else 128 - code
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if command is not None:
            command.kill()
        end_children()


def end_children() -> None:
    """Kills the children of this process until it has none; a dead child's become its own."""
    while True:
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = status.read_text(errors="replace").rpartition(")")[2].split()[1]
                if int(parent) == os.getpid():
                    os.kill(int(status.parent.name), signal.SIGKILL)
            except OSError:  # it has ended meanwhile
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
