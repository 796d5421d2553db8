"""The display of a comparison: a bar on a terminal, a line for each command elsewhere."""

import sys
import threading
import time

from tqdm import tqdm


class Display:
    """Shows how many commands are done, and which run now."""

    def __init__(self, total: int):
        """Starts with none of `total` commands done."""
        self.total, self.done = total, 0
        self.started = time.monotonic()
        self._lock = threading.Lock()  # measurements run side by side
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, disable=not is_terminal, dynamic_ncols=True, unit="command")
        self._is_terminal = is_terminal

    def say(self, text: str) -> None:
        """Says that something starts or failed."""
        with self._lock:
            if self._is_terminal and "\n" not in text:
                self._bar.set_description(text)
                return
            seconds = int(time.monotonic() - self.started)
            clock = f"{seconds // 60:3}:{seconds % 60:02}"
            tqdm.write(f"[{self.done:3}/{self.total}, {clock}] {text}", file=sys.stdout)
            sys.stdout.flush()

    def advance(self) -> None:
        """One more command is done."""
        with self._lock:
            self.done += 1
            self._bar.update()

    def expect(self, num_commands: int) -> None:
        """So many commands are still to come, besides those that it was told at the start."""
        with self._lock:
            self.total += num_commands
            self._bar.total = self.total
            self._bar.refresh()

    def close(self) -> None:
        """Leaves the last state on the screen."""
        self._bar.close()
