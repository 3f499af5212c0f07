"""How a run is asked to stop: signals set an event, and the loop leaves a checkpoint after the step at hand.

Where it only waits, for a server say, there is no step at hand, and the wait ends at once.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from rich.console import Console

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""SIGUSR1 is what Slurm sends ahead of the time limit where a job asks for it (``--signal=USR1@120``)."""

REQUEUE = 75
"""Exit code of a run that a signal ended early: sysexits' EX_TEMPFAIL, "try again later"."""


class Stopped(KeyboardInterrupt):
    """A signal ended a wait."""


class Stop(threading.Event):
    """Set when the run should end, which it does after a step."""

    step_seconds = 0.0  # that the last step took; none has been done yet
    is_waiting = False

    @contextlib.contextmanager
    def ends_waiting(self) -> Iterator[None]:
        """Inside, a signal raises `Stopped` where it comes, and one that came before does so at once."""
        self.is_waiting = True
        try:
            if self.is_set():
                raise Stopped
            yield
        finally:
            self.is_waiting = False


@contextlib.contextmanager
def stop_on_signals(console: Console) -> Iterator[Stop]:
    """An event that the first of `SIGNALS` sets; a second one acts as it would have without us."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals; whoever runs us in another one is in charge of them
        return

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()
        about = f" (about {math.ceil(stop.step_seconds)} s)" if stop.step_seconds else ""
        when = "instead of waiting" if stop.is_waiting else f"after this step with a checkpoint{about}"
        text = f"stopping {when}; once more to stop at once"
        try:
            console.print(text, soft_wrap=True)
        except RuntimeError:  # the signal came while a line was being written, which cannot be done inside itself
            os.write(sys.stderr.fileno(), f"{text}\n".encode())
        if stop.is_waiting:
            raise Stopped

    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        restore()
