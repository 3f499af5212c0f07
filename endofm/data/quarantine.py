"""Bad clips: what was wrong, what was taken instead, a file that tells, and a limit on how many there may be.

Different clips count, not how often they come by: a clip that is met again in each of 30 epochs is one fault. A corpus
that was verified holds none, a bad spot on a disk costs one or a few, and one clip in a thousand does not sway a
training; what costs more is a corpus to look at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from endocorpus.corpus.files import atomic_file
from endocorpus.errors import DataError

_ALWAYS = 10  # so that a few bad clips do not stop a run on a small corpus


class Replaced(NamedTuple):
    """A clip that could not be used where it came by, and the one that took its place."""

    position: int  # in the endless order
    corpus: str
    key: str
    reason: str
    by: str  # key of the other clip


def most_bad_clips(share: float, num_clips: int) -> int:
    """How many different clips may be bad: `share` of all, 10 at the least, half at the most; none if it is 0."""
    return min(max(math.ceil(share * num_clips), _ALWAYS), num_clips // 2) if share else 0


class Quarantine:
    """The file `quarantine.jsonl` of a run: one object per clip that was replaced, in the order of the steps.

    Every process of a run keeps one and is told the same, so that all stop together; the main one writes the file.
    """

    def __init__(self, path: Path, *, start_step: int, most: int, writes: bool) -> None:
        """Go on with what the steps before `start_step` left; later ones happen again.

        Args:
            path: of the file, which is made when there is something to tell.
            start_step: first step of this start of the run.
            most: different bad clips that the run puts up with.
            writes: whether this process writes the file; the others only read it here.

        Raises:
            DataError: here and below, it cannot be read or written.
        """
        self._path, self._most, self._writes = path, most, writes
        try:
            kept = _lines_before(path, start_step) if path.exists() else []
            if writes and path.exists():
                with atomic_file(path) as file:
                    file.write("".join(f"{line}\n" for line in kept).encode())
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from None
        self._bad = {(row["corpus"], row["key"]) for row in map(json.loads, kept)}

    def __len__(self) -> int:
        """Different bad clips so far."""
        return len(self._bad)

    def add(self, step: int, replaced: Sequence[Replaced]) -> None:
        """Note what was replaced in a step, over all processes, in one order on all of them.

        Raises:
            DataError: more clips are bad than may be.
        """
        if not replaced:
            return
        self._bad |= {(one.corpus, one.key) for one in replaced}
        if self._writes:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps({"step": step, **one._asdict()}) + "\n" for one in replaced)
            except OSError as error:
                raise DataError(f"{self._path}: cannot be written: {error.strerror}") from None
        if len(self._bad) > self._most:
            raise DataError(
                f"{self._path}: {len(self._bad):,} bad clips, and {self._most:,} are allowed "
                f"(data.bad_clips_allowed); the last: {replaced[-1].reason}"
            )


def _lines_before(path: Path, start_step: int) -> list[str]:
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            if row["step"] < start_step and row["corpus"] and row["key"]:
                kept.append(line)
        except (ValueError, KeyError, TypeError):  # a crash of the machine can leave a torn line
            break
    return kept
