"""What a run says about itself: one JSON object per step in a file, and a line on the console now and then."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from rich.console import Console

from endocorpus.console import duration
from endocorpus.corpus.files import atomic_file
from endocorpus.errors import DataError
from endofm.sinks import Sink

_TELL_EVERY = 30  # seconds, at the least, however long a step takes


class MetricsFile:
    """`metrics.jsonl`: one object per step, in order, as if the run had never been interrupted."""

    def __init__(self, path: Path, start_step: int) -> None:
        """Open `path` for the rows of `start_step` and later.

        Rows that a killed run wrote after its last checkpoint are removed, for those steps happen again; so is a last
        line that was cut short.

        Raises:
            DataError: here and below, it cannot be written; the disk is full, for instance.
        """
        self._path = path
        with self._writing():
            kept = _rows_before(path, start_step) if path.exists() else ""
            with atomic_file(path) as file:
                file.write(kept.encode("utf-8"))
            self._file = path.open("a", encoding="utf-8")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written: {error.strerror}") from None

    def write(self, row: Mapping[str, float]) -> None:
        """Append one row and hand it to the operating system; JSON has no NaN, so what is not finite becomes null."""
        finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
        line = json.dumps(finite, allow_nan=False) + "\n"
        with self._writing():
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Close the file; what was written stays."""
        with self._writing():
            self._file.close()


def _rows_before(path: Path, start_step: int) -> str:
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            step = math.inf  # a crash of the machine can leave a torn line; what follows it is no better
        if step >= start_step:
            break
        kept.append(line)
    return "".join(kept)


@dataclass(frozen=True)
class Cost:
    """What a step takes, over all processes.

    Attributes:
        clips: of a step.
        flops_per_clip: operations of the backbones; see `endofm.objectives.Objective.step_flops`.
        device: that this process computes on.
        peak_flops_per_s: the most that all devices together can do; None where that is not known.
    """

    clips: int
    flops_per_clip: float
    device: torch.device
    peak_flops_per_s: float | None = None

    def rates(self, seconds: float) -> dict[str, float]:
        """Speed of a step that took `seconds`, and this process's peak memory on the device so far, or in all.

        `mfu`, the model FLOP utilisation (PaLM: Chowdhery et al., 2022, appendix B), is the share of the devices' peak.
        """
        flops_per_s = self.clips * self.flops_per_clip / seconds
        rates = {"clips_per_s": self.clips / seconds, "tflop_per_s": flops_per_s / 1e12, "memory_gib": self._memory()}
        return rates | ({"mfu": flops_per_s / self.peak_flops_per_s} if self.peak_flops_per_s else {})

    def _memory(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


class RunLog:
    """The rows, the console line, and the clock behind both: how fast steps are, and how long they wait for data."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        console: Console,
        *,
        start_step: int,
        total_steps: int,
        log_every: int,
        cost: Cost,
    ) -> None:
        """Open the log; the first step begins now.

        Args:
            sinks: where rows go; none for a process that keeps silent.
            console: for a line now and then.
            start_step: the first to come.
            total_steps: of the run.
            log_every: steps between lines on the console.
            cost: what a step takes.
        """
        self._sinks, self._cost = sinks, cost
        self._console, self._total_steps, self._log_every = console, total_steps, log_every
        self._start_step = start_step
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0  # since the last line
        self._first_seconds = 0.0
        self._waited_before = 0.0  # until the rows written last
        self._began = self._told = self._started = time.perf_counter()

    def steps(self, rows: Sequence[Mapping[str, float]], waited_seconds: float) -> float:
        """These steps are done: write their rows, and let the next step begin. Returns the seconds that each took.

        `waited_seconds` is how long the loader was waited for since the log was opened.
        """
        now = time.perf_counter()
        seconds, waited = (now - self._started) / len(rows), (waited_seconds - self._waited_before) / len(rows)
        self._started, self._waited_before = now, waited_seconds
        measures = {**self._cost.rates(seconds), "data_wait_share": waited / seconds}
        for row in rows:
            if row["step"] == self._start_step:
                self._first_seconds = seconds
            for sink in self._sinks:
                sink.write({**row, **measures})
            self._steps, self._seconds, self._waited = self._steps + 1, self._seconds + seconds, self._waited + waited
        return seconds

    def tell(self, row: Mapping[str, float]) -> None:
        """Print a line about the step that was done last, if it is time to. Whatever must be safe is saved before."""
        done = int(row["step"]) + 1
        at_an_end = done in (self._start_step + 1, self._total_steps)
        late = self._started - self._told >= _TELL_EVERY
        if self._sinks and (at_an_end or late or done % self._log_every == 0):
            self._print(done, row)

    def _print(self, done: int, row: Mapping[str, float]) -> None:
        clips_per_s, share = self._steps * self._cost.clips / self._seconds, self._waited / self._seconds
        done_here, elapsed = done - self._start_step, self._started - self._began
        left = ""
        if done_here > 1 and done < self._total_steps:  # the first step, while workers start, tells nothing
            per_step = (elapsed - self._first_seconds) / (done_here - 1)
            left = f", about {duration(per_step * (self._total_steps - done))} left"
        self._console.print(
            f"step {done}/{self._total_steps}  loss {row['loss']:.4f}  lr {row['lr']:.2e}  "
            f"{clips_per_s:.1f} clips/s  {share:.0%} waiting for data  {duration(elapsed)}{left}",
            highlight=False,
            soft_wrap=True,  # one line for a file to which it is written
        )
        self._told = self._started
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for sink in self._sinks:
            sink.close()
