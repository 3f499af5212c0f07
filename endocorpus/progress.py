"""The progress of a build on a terminal, or as a line now and then in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from endocorpus.build import BuildWatcher
from endocorpus.corpus.files import PARTIAL
from endocorpus.records import Exclusion, RecordingPlan
from endocorpus.release import TakenIn
from endocorpus.report.text import count
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


@contextmanager
def shown_bytes() -> Iterator[Callable[[str, int, int | None], None]]:
    """Shows what is done with which file, and how far it is; in a log, a line when it begins."""
    console = Console(stderr=True, highlight=False, markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, shown = bar.add_task("", total=None), ""

        def watch(what: str, done: int, total: int | None) -> None:
            nonlocal shown
            if what != shown:
                shown = what
                bar.reset(task, description=what)
                if not console.is_terminal:
                    console.print(what)
            bar.update(task, completed=done, total=total)

        yield watch


@contextmanager
def shown_clips(total: int) -> Iterator[Callable[[int], None]]:
    """Shows how many of the clips of a corpus have been checked; in a log, a line now and then."""
    console = Console(stderr=True, highlight=False, markup=False)
    done = "{task.completed:,.0f}/{task.total:,.0f} clips"
    columns = (TextColumn("checking"), BarColumn(), TextColumn(done), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, logged, checked = bar.add_task("", total=total), time.monotonic(), 0

        def advance(clips: int) -> None:
            nonlocal logged, checked
            checked += clips
            bar.update(task, completed=checked)
            if not console.is_terminal and time.monotonic() - logged > _LOG_EVERY_SECONDS:
                logged = time.monotonic()
                console.print(f"checked {checked:,}/{total:,} clips")

        yield advance


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
        self._looking = self._encoding = TaskID(0)
        self._closed = threading.Event()
        self._polling: threading.Thread | None = None
        self.gone: set[str] = set()
        self._clips = self._all_clips = 0
        self._seconds = self._all_seconds = 0.0
        self._started = self._logged = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closed.set()
        if self._polling:
            # A thread that is still there when Python ends is torn out of whatever library it is in, which may abort.
            self._polling.join()
        self._bar.stop()

    def reviewed(self, found: TakenIn) -> None:
        self._console.print(f"reviewed by {found.reviewer}: {found.sentence}", soft_wrap=True)
        if found.recordings:
            self._console.print(f"rejected, and kept out from now on: {count(len(found.recordings), 'recording')}")

    def scanned(self, scan: Scan) -> None:
        recordings = len(scan.recordings)
        self._console.print(
            f"found {count(recordings, 'recording')} in {count(scan.num_files, 'file')}; looking at each"
        )
        self._looking = self._bar.add_task("looking", total=recordings, done=f"0/{recordings:,} recordings")

    def looked(self) -> None:
        task = self._bar.tasks[self._looking]
        self._bar.update(self._looking, advance=1, done=f"{task.completed + 1:,.0f}/{task.total:,.0f} recordings")

    def planned(self, plans: Sequence[RecordingPlan], exclusions: Sequence[Exclusion]) -> None:
        self._bar.remove_task(self._looking)
        clips = sum(len(plan.clips) for plan in plans)
        self._console.print(
            f"planned {count(clips, 'clip')} from {count(len(plans), 'recording')}; "
            f"{count(len(exclusions), 'exclusion')} so far"
        )

    def encoding(self, clips: int, seconds: float, folder: Path) -> None:
        self._all_clips, self._all_seconds = clips, seconds
        self._started = self._logged = time.monotonic()
        self._encoding = self._bar.add_task("encoding", total=seconds or 1.0, done="")
        self._polling = threading.Thread(target=self._poll, args=(folder,), daemon=True)
        self._polling.start()

    def encoded(self, clips: int, seconds: float) -> None:
        self._clips += clips
        self._seconds += seconds

    def dropped(self, recordings: set[str]) -> None:
        self.gone = recordings

    def _poll(self, folder: Path) -> None:
        """Recordings may last for hours: count the clips of those under way as well."""
        while not self._closed.wait(0.5):
            under_way = 0
            with suppress(FileNotFoundError):  # a recording was finished while we looked
                under_way = sum(max(0, len(list(part.iterdir())) - 1) for part in folder.glob(f"*{PARTIAL}*"))
            self._show(self._clips + under_way, under_way * self._all_seconds / max(self._all_clips, 1))

    def _show(self, clips: int, seconds_under_way: float) -> None:
        seconds = min(self._seconds + seconds_under_way, self._all_seconds)
        done = f"{clips:,}/{self._all_clips:,} clips, {seconds / 3600:.2f}/{self._all_seconds / 3600:.2f} video-hours"
        self._bar.update(self._encoding, completed=seconds, done=done)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._logged > _LOG_EVERY_SECONDS:
            self._logged = now
            left = (now - self._started) * (self._all_seconds / max(seconds, 1e-9) - 1)
            self._console.print(f"encoded {done}, about {left / 60:.0f} min left")
