"""Signals become an event, at whatever moment they come."""

from __future__ import annotations

import io
import signal

import pytest
from rich.console import Console

from endofm.stopping import SIGNALS, stop_on_signals


class Busy(io.StringIO):
    """A stream into whose writing a signal comes, as a buffered one has it."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self.coming, self.writing = [number], False

    def write(self, text: str) -> int:
        if self.writing:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")
        self.writing = True
        if self.coming:
            signal.raise_signal(self.coming.pop())
        self.writing = False
        return super().write(text)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_middle_of_a_line(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    stream = Busy(number)
    console = Console(file=stream)
    with stop_on_signals(console) as stop:
        console.print("step 1")
    assert stop.is_set()
    assert "step 1" in stream.getvalue()
    assert "stopping after this step" in stream.getvalue() + capfd.readouterr().err
