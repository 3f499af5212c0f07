"""Runs independent tasks, in this process or in a pool of spawned ones; nothing else knows which.

Correctness never depends on the engine: a task commits its own result, and results are used by id, not by order.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from endocorpus.errors import DataError
from endocorpus.media.ffmpeg_run import end_children
from endocorpus.signals import deaf_children

Task = TypeVar("Task")
Result = TypeVar("Result")

_QUEUED_PER_WORKER = 2  # enough to keep workers busy, few enough that an interrupt has little to cancel


def run_tasks(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, Result]]:
    """Yield `(task, function(task))` as results arrive; the first exception of a task ends the run.

    Args:
        function: importable by name, since workers are new processes.
        tasks: values that can be pickled.
        workers: processes; with 1 the tasks run here.

    Raises:
        DataError: a worker process died, for instance for lack of memory.
    """
    if workers <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield task, function(task)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=get_context("spawn"), initializer=_end_with_parent, initargs=(os.getpid(),)
    )
    try:
        yield from _drain(pool, function, tasks, limit=workers * _QUEUED_PER_WORKER)
    except KeyboardInterrupt:
        _terminate(pool)
        raise
    except BrokenProcessPool:
        raise DataError("a worker process died; if memory ran out, use fewer --workers, then run again") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _drain(
    pool: ProcessPoolExecutor, function: Callable[[Task], Result], tasks: Sequence[Task], limit: int
) -> Iterator[tuple[Task, Result]]:
    pending: dict[Future[Result], Task] = {}
    waiting = iter(tasks)
    while True:
        for task in waiting:
            with deaf_children(signal.SIGTERM):  # workers are spawned here, on demand
                pending[pool.submit(function, task)] = task
            if len(pending) >= limit:
                break
        if not pending:
            return
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            yield pending.pop(future), future.result()


def _terminate(pool: ProcessPoolExecutor) -> None:
    """End workers in the middle of their tasks: what they were making is not committed, and so is not lost either."""
    for process in list((pool._processes or {}).values()):  # noqa: SLF001 - public from Python 3.14 on
        process.terminate()


def _leave() -> None:
    end_children()
    os._exit(1)


def _end_with_parent(parent: int) -> None:
    """Workers of a killed build would wait for tasks for ever: watch for that, and take the encoders along."""
    signal.signal(signal.SIGTERM, lambda *_: _leave())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # which the engine masks while it starts processes

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        _leave()

    threading.Thread(target=watch, daemon=True).start()
