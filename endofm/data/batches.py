"""Rows in, one batch out, in this process: plan, fetch, decode; and another clip where one is bad."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from endocorpus.errors import DataError
from endofm.data.clips import ClipSet
from endofm.data.decode import decode_cuts
from endofm.data.planes import lay_out
from endofm.data.quarantine import Replaced
from endofm.data.stream import BadClipError, ClipBytes
from endofm.data.views import ClipBatch, ViewPlan, ViewScheme, make_batch, plan_views

_ATTEMPTS = 64  # to find another clip for a bad one, before its neighbours are taken to be all bad


class Reader(Protocol):
    """Gives the bytes of clips."""

    def read(self, clip: ClipBytes) -> bytes:
        """The verified video of a clip; `BadClipError` where it is damaged."""
        ...


def load_batch(
    clips: ClipSet,
    rows: Sequence[int],
    positions: Sequence[int],
    views: ViewScheme,
    *,
    seed: int,
    reader: Reader,
    memory: Callable[[int], Tensor] | None = None,
    substitute: Callable[[int, int], int] | None = None,
) -> ClipBatch:
    """Plan, fetch and decode one batch, in this process.

    Args:
        clips: where the rows lie.
        rows: of the clip set.
        positions: of the rows in the endless order; (seed, position) decides a clip's views.
        views: the recipe.
        seed: the run's seed.
        reader: open shards.
        memory: gives so many bytes for the pixels, uint8; what they hold before does not matter. By default new.
        substitute: row to take for a bad one, from its position and the number of the attempt; bad clips are errors if
            None.

    Raises:
        BadClipError: without `substitute`, a clip is damaged or cannot be decoded; the message names it.
        DataError: a shard cannot be read, or no substitute is any better.
    """
    taken, bad = list(rows), dict[int, list[tuple[int, str]]]()
    while True:
        try:
            batch = _load(clips, taken, positions, views, seed, reader, memory)
            break
        except _BadAtError as error:
            if substitute is None:
                raise BadClipError(error.reason) from None
            index = error.index
            tried = bad.setdefault(index, [])
            tried.append((taken[index], error.reason))
            taken[index] = _another([row for row, _ in tried], positions[index], substitute, error.reason)
    corpora = tuple(clips.corpus(row) for row in taken)
    replaced = tuple(
        Replaced(positions[index], clips.corpus(row), clips.key(row), reason, clips.key(taken[index]))
        for index, tried in sorted(bad.items())
        for row, reason in tried
    )
    return dataclasses.replace(batch, corpora=corpora, replaced=replaced)


def _another(tried: Sequence[int], position: int, substitute: Callable[[int, int], int], reason: str) -> int:
    """The first substitute that was not tried yet."""
    for attempt in range(_ATTEMPTS):
        row = substitute(position, attempt)
        if row not in tried:
            return row
    raise DataError(f"{reason}; and there is no other clip to take its place: {len(tried)} of its neighbours are bad")


class _BadAtError(Exception):
    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index, self.reason = index, reason


def _load(
    clips: ClipSet,
    rows: Sequence[int],
    positions: Sequence[int],
    views: ViewScheme,
    seed: int,
    reader: Reader,
    memory: Callable[[int], Tensor] | None,
) -> ClipBatch:
    """`load_batch` of rows that are hoped to be sound."""
    plans = [plan_clip(clips, row, position, views, seed=seed) for row, position in zip(rows, positions, strict=True)]
    cuts, size = lay_out(plans, [_size(clips, row) for row in rows])
    pixels = (memory or private_memory)(size)
    to_rgb = [
        _decode(clips, row, plan, cuts_U5, reader, pixels.numpy(), index)
        for index, (row, plan, cuts_U5) in enumerate(zip(rows, plans, cuts, strict=True))
    ]
    return make_batch(pixels, cuts, to_rgb, plans, views, [clips.key(row) for row in rows], positions)


def _decode(
    clips: ClipSet,
    row: int,
    plan: ViewPlan,
    cuts_U5: NDArray[np.int64],
    reader: Reader,
    out: NDArray[np.uint8],
    index: int,
) -> NDArray[np.float32]:
    """Fetch and decode one clip into `out`, and say what makes RGB of it."""
    clip = clips.location(row)
    try:
        data = reader.read(clip)
    except BadClipError as error:
        raise _BadAtError(index, str(error)) from None
    try:
        num_frames, size = int(clips.num_frames_N[row]), _size(clips, row)
        return decode_cuts(data, plan.frames_needed, num_frames, size=size, cuts_U5=cuts_U5, out=out)
    except DataError as error:
        raise _BadAtError(index, f"{clip.shard}: clip {clip.key}: {error}") from None


def _size(clips: ClipSet, row: int) -> tuple[int, int]:
    return int(clips.height_N[row]), int(clips.width_N[row])


def plan_clip(clips: ClipSet, row: int, position: int, views: ViewScheme, *, seed: int) -> ViewPlan:
    """The views of one clip where it comes by at `position` of the endless order: a function of (seed, position)."""
    rng = np.random.default_rng((seed, position))
    return plan_views(int(clips.num_frames_N[row]), int(clips.height_N[row]), int(clips.width_N[row]), views, rng)


def private_memory(num_bytes: int) -> Tensor:
    """New uint8 memory of this process, with whatever is in it."""
    # NumPy asks the kernel for huge pages and torch does not, which then pays for touching each page the first time.
    return torch.from_numpy(np.empty(num_bytes, np.uint8))
