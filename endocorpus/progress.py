"""The progress of a build on a terminal, or as a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from endocorpus.build import BuildWatcher
from endocorpus.console import count
from endocorpus.records import Exclusion, RecordingPlan
from endocorpus.scan import Scan

_LOG_EVERY_SECONDS = 15


@contextmanager
def shown_frames() -> Iterator[Callable[[int], None]]:
    """Shows how many frames have been rendered, on a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("rendering"), TextColumn("{task.completed:.0f} frames"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("rendering", total=None)
        yield lambda done: bar.update(task, completed=done)


class ShownProgress(BuildWatcher):
    """Shows clips and video-hours as they are finished, with the time left. Everything goes to standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._clips = self._all_clips = 0
        self._seconds = self._all_seconds = 0.0
        self._started = self._logged = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()

    def scanned(self, scan: Scan) -> None:
        self._console.print(
            f"found {count(len(scan.recordings), 'recording')} in {count(scan.num_files, 'file')}; looking at each"
        )

    def planned(self, plans: Sequence[RecordingPlan], exclusions: Sequence[Exclusion]) -> None:
        clips = sum(len(plan.clips) for plan in plans)
        self._console.print(
            f"planned {count(clips, 'clip')} from {count(len(plans), 'recording')}; "
            f"{count(len(exclusions), 'exclusion')} so far"
        )

    def encoding(self, clips: int, seconds: float) -> None:
        self._all_clips, self._all_seconds = clips, seconds
        self._started = time.monotonic()
        self._task = self._bar.add_task("encoding", total=seconds or 1.0, done=self._done())

    def encoded(self, clips: int, seconds: float) -> None:
        self._clips += clips
        self._seconds += seconds
        if self._task is not None:
            self._bar.update(self._task, completed=self._seconds, done=self._done())
        now = time.monotonic()
        if not self._console.is_terminal and now - self._logged > _LOG_EVERY_SECONDS:
            self._logged = now
            left = (now - self._started) * (self._all_seconds / max(self._seconds, 1e-9) - 1)
            self._console.print(f"encoded {self._done()}, about {left / 60:.0f} min left")

    def _done(self) -> str:
        hours, all_hours = self._seconds / 3600, self._all_seconds / 3600
        return f"{self._clips:,}/{self._all_clips:,} clips, {hours:.2f}/{all_hours:.2f} video-hours"
