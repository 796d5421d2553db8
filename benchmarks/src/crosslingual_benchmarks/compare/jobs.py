"""Jobs side by side: each starts when the ones that it waits for have ended."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from crosslingual_benchmarks.compare.commands import allow_commands, end_commands


@dataclass(frozen=True)
class Job:
    """Some work, its unique name, and the names of those that it waits for."""

    name: str
    work: Callable[[], Any]
    waits_for: frozenset[str] = frozenset()


def run_jobs(jobs: Sequence[Job], num_at_once: int) -> None:
    """Runs jobs in their order, at most so many at once.

    Jobs that wait for each other in a circle run in their order. Where this thread is interrupted,
    or a job raises, the commands of all jobs are ended.
    """
    allow_commands()
    waiting, running = list(jobs), dict[Future, Job]()
    with ThreadPoolExecutor(num_at_once) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < num_at_once:
                    left = {job.name for job in (*waiting, *running.values())}
                    ready = [job for job in waiting if not job.waits_for & left]
                    if not ready and running:
                        break
                    job = (ready or waiting)[0]
                    waiting.remove(job)
                    running[pool.submit(job.work)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[future]
                    future.result()
        except BaseException:
            end_commands()
            raise
