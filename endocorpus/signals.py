"""Ctrl-C reaches every process of a terminal; only the one that started the others decides what it means."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def deaf_children(*also: signal.Signals) -> Iterator[None]:
    """Processes started inside never hear Ctrl-C, nor `also`: they inherit the mask, from their first instruction.

    This process does not hear them meanwhile either, so a child is started whole or not at all.
    """
    resource_tracker.ensure_running()  # it lifts the mask if it has to be started inside
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *also})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # a Ctrl-C that came meanwhile arrives now
