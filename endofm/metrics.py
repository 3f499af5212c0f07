"""What a run says about itself: one JSON object per step in a file, and a line on the console now and then."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console

from endocorpus.console import duration
from endocorpus.corpus.files import atomic_file
from endocorpus.errors import DataError

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


class RunLog:
    """The metrics file, the console line, and the clock behind both: how much of a step went into waiting for data."""

    def __init__(
        self, path: Path | None, console: Console, *, start_step: int, total_steps: int, log_every: int, batch_size: int
    ) -> None:
        """Open the log; the first step begins now.

        Args:
            path: of the metrics file; None for a process that keeps silent.
            log_every: steps between lines on the console.
            batch_size: clips per step, over all processes.
        """
        self._file = MetricsFile(path, start_step) if path else None
        self._console, self._total_steps, self._log_every = console, total_steps, log_every
        self._start_step, self._batch_size = start_step, batch_size
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
        if self._file is None:
            return seconds
        for row in rows:
            if row["step"] == self._start_step:
                self._first_seconds = seconds
            self._file.write({**row, "clips_per_s": self._batch_size / seconds, "data_wait_share": waited / seconds})
            self._steps, self._seconds, self._waited = self._steps + 1, self._seconds + seconds, self._waited + waited
        return seconds

    def tell(self, row: Mapping[str, float]) -> None:
        """Print a line about the step that was done last, if it is time to. Whatever must be safe is saved before."""
        done = int(row["step"]) + 1
        at_an_end = done in (self._start_step + 1, self._total_steps)
        late = self._started - self._told >= _TELL_EVERY
        if self._file and (at_an_end or late or done % self._log_every == 0):
            self._print(done, row)

    def _print(self, done: int, row: Mapping[str, float]) -> None:
        clips_per_s, share = self._steps * self._batch_size / self._seconds, self._waited / self._seconds
        done_here, elapsed = done - self._start_step, self._started - self._began
        left = ""
        if done_here > 1 and done < self._total_steps:  # the first step, while workers start, tells nothing
            per_step = (elapsed - self._first_seconds) / (done_here - 1)
            left = f", about {duration(per_step * (self._total_steps - done))} left"
        self._console.print(
            f"step {done}/{self._total_steps}  loss {row['loss']:.4f}  lr {row['lr']:.2e}  "
            f"{clips_per_s:.1f} clips/s  {share:.0%} waiting for data  {duration(elapsed)}{left}",
            highlight=False,
        )
        self._told = self._started
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file:
            self._file.close()
