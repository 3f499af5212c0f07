"""Shards from front to back: the order in which that shows clips, and the reading itself, by webdataset.

The order is planned from the manifests alone, as a pure function of (seed, epoch, rank, world): shards are permuted,
the clips behind one another are cut into equal ranges for the ranks, and within each a bounded buffer shuffles. So
every clip comes once an epoch, every rank has exactly the steps that were asked for, and a run resumes at any step.
Reading then has to bring what the plan says; webdataset alone loses samples in silence where a tar is cut or a header
damaged.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from webdataset.tariterators import group_by_keys, tar_file_expander

from endocorpus.errors import DataError, UsageError
from endofm.data.clips import ClipSet
from endofm.data.sampler import SHARD_PERMUTATIONS, IntArray, draw, draws, positions_of
from endofm.data.stream import BadClipError, ClipBytes, ShardReader, verified

_BUFFER = 4  # streams of random numbers; those of `sampler` have smaller ones
_SUBSTITUTES = 5
_LOOK_EVERY = 64  # clips of a rank between two looks at what it needs next


@dataclass(frozen=True, eq=False)
class SequentialSampler:
    """The endless order of one rank, and its share of the global batches of `batch_size`.

    Args:
        clips: the rows.
        batch_size: clips in the global batch of one step, over all ranks; `world` must divide it.
        seed: the run's seed.
        rank: whose order.
        world: number of ranks.
        buffer: clips among which each next one is drawn.

    Raises:
        UsageError: numbers that do not fit together.
    """

    clips: ClipSet
    batch_size: int
    seed: int
    rank: int
    world: int
    buffer: int
    unit_N: IntArray = field(init=False)  # the pass through a shard in which a row is read: a repeat is a pass more

    def __post_init__(self) -> None:
        positions_of(self.batch_size, 0, self.rank, self.world)
        if len(self.clips) < self.world:
            raise UsageError(f"{len(self.clips)} clips cannot be shared by {self.world} ranks")
        object.__setattr__(self, "unit_N", _units(self.clips))

    @property
    def share(self) -> int:
        """Clips of an epoch that are this rank's."""
        first, stop = self._range()
        return stop - first

    def positions(self, step: int) -> IntArray:
        """Positions of a step, int64 [batch_size / world]; numbered as everywhere, so that no two clips share views."""
        return positions_of(self.batch_size, step, self.rank, self.world)

    def places(self, positions: IntArray) -> tuple[IntArray, IntArray]:
        """The epoch of each position of this rank, and its place among the rank's clips of that epoch."""
        steps, within = np.divmod(positions, self.batch_size)
        return np.divmod(steps * (self.batch_size // self.world) + within // self.world, self.share)

    def rows_at(self, positions: IntArray) -> IntArray:
        """Rows of the clip set at positions of this rank, int64, of the same shape."""
        epochs, places = self.places(positions)
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            read = self.reading(int(epoch))
            rows[here] = read.row_M[read.shown_M[places[here]]]
        return rows

    def reading(self, epoch: int) -> Reading:
        """What this rank reads and shows in an epoch."""
        return _reading(self, epoch)

    def ahead(self, position: int) -> tuple[IntArray, int]:
        """What is worth fetching at `position`, and up to which position that holds.

        Returns:
            Rows that are read next, as far as two shards beyond the buffer, int64, and a position soon after.
        """
        epoch, place = (int(value[0]) for value in self.places(np.array([position])))
        read, following = self.reading(epoch), self.reading(epoch + 1)
        first = read.shown_M[place:].min()
        units = np.concatenate([read.unit_M[first:], following.unit_M])
        rows = np.concatenate([read.row_M[first:], following.row_M])
        changes = np.flatnonzero(np.diff(units)) + 1
        # A clip that waits in the buffer holds `first` back, and those shown next may then lie behind a whole buffer.
        reach = max(self.buffer, int(read.shown_M[place : place + _LOOK_EVERY].max() - first))
        beyond = changes[changes > min(reach, len(units) - 1)]
        return rows[: beyond[2] if len(beyond) > 2 else None], position + _LOOK_EVERY * self.world

    def substitute(self, position: int, attempt: int) -> int:
        """The row to take at `position` if its own, and those of the attempts before, are bad: one of its shard."""
        row = int(self.rows_at(np.array([position]))[0])
        near = np.flatnonzero(self.clips.shard_index_N == self.clips.shard_index_N[row])
        return int(near[draw(self.seed, position, (_SUBSTITUTES, attempt)) % len(near)])

    def _range(self) -> tuple[int, int]:
        num_clips = len(self.clips)
        return self.rank * num_clips // self.world, (self.rank + 1) * num_clips // self.world


@dataclass(frozen=True, eq=False)
class Reading:
    """One epoch of one rank, of M clips.

    Attributes:
        row_M: rows as they are read: shard after shard, each from its front.
        unit_M: the pass through a shard in which each is read; equal numbers lie behind one another.
        shown_M: which one of them each place of the order shows.
        place_M: the place at which each of them is shown.
    """

    row_M: IntArray
    unit_M: IntArray
    shown_M: IntArray
    place_M: IntArray


def _units(clips: ClipSet) -> IntArray:
    """For every row the number of its pass: the n-th repeat of a clip is read in the n-th pass through its shard."""
    shard_N = clips.shard_numbers()
    order = np.lexsort((np.arange(len(clips)), clips.offset_N, shard_N))
    first = np.ones(len(clips), bool)
    first[1:] = (np.diff(shard_N[order]) != 0) | (np.diff(clips.offset_N[order]) != 0)
    starts = np.maximum.accumulate(np.where(first, np.arange(len(clips)), 0))
    copy_N = np.empty(len(clips), np.int64)
    copy_N[order] = np.arange(len(clips)) - starts
    return np.unique(np.stack([shard_N, copy_N]), axis=1, return_inverse=True)[1].astype(np.int64).reshape(-1)


@lru_cache(maxsize=3)
def _reading(sampler: SequentialSampler, epoch: int) -> Reading:
    unit_N = sampler.unit_N
    draw_U = draws(int(unit_N.max()) + 1, sampler.seed, epoch, SHARD_PERMUTATIONS)
    turn_U = np.argsort(np.argsort(draw_U, kind="stable"))
    first, stop = sampler._range()  # noqa: SLF001
    row_M = np.lexsort((sampler.clips.offset_N, turn_U[unit_N]))[first:stop]
    random = np.random.PCG64(
        np.random.SeedSequence((sampler.seed, epoch), spawn_key=(_BUFFER, sampler.rank, sampler.world))
    )
    shown_M = _through_buffer(len(row_M), sampler.buffer, random.random_raw(len(row_M)))
    place_M = np.empty_like(shown_M)
    place_M[shown_M] = np.arange(len(shown_M))
    return Reading(row_M, unit_N[row_M], shown_M, place_M)


def _through_buffer(count: int, size: int, random_M: NDArray[np.uint64]) -> IntArray:
    """The order in which `count` items leave a shuffle buffer of `size`, int64 [count]."""
    buffer = list(range(min(size, count)))
    following, shown = len(buffer), []
    for number in random_M.tolist():
        at = number % len(buffer)
        shown.append(buffer[at])
        if following < count:
            buffer[at] = following
            following += 1
        else:
            buffer[at] = buffer[-1]
            buffer.pop()
    return np.array(shown, np.int64)


class FrontToBack:
    """Brings the clips of a rank's steps by reading its shards from front to back.

    Asked for ascending steps, it holds no more than what of the buffer belongs to them.
    """

    def __init__(self, sampler: SequentialSampler, reader: ShardReader, steps: range) -> None:
        """`steps` are those that will be asked for, in this order; clips of others are not kept."""
        self._sampler, self._reader, self._steps = sampler, reader, steps
        self._taken: dict[ClipBytes, bytes] = {}
        self._epochs: dict[int, _Epoch] = {}

    def go_to(self, positions: IntArray) -> None:
        """Read on until the clips at `positions`, those of one step, are at hand.

        Raises:
            DataError: a shard cannot be read, or does not hold the clips that its manifest lists.
        """
        self._taken.clear()
        epochs, places = self._sampler.places(positions)
        self._epochs = {epoch: read for epoch, read in self._epochs.items() if epoch >= epochs.min()}
        for epoch, place in zip(epochs.tolist(), places.tolist(), strict=True):
            if epoch not in self._epochs:
                self._epochs[epoch] = _Epoch(self._sampler, self._reader, epoch, self._mine(epoch, place))
            clip, data = self._epochs[epoch].take(place)
            self._taken[clip] = data

    def read(self, clip: ClipBytes) -> bytes:
        """The video of a clip at hand, or, by offset, that of any other.

        Raises:
            BadClipError, DataError: as `ShardReader.read`.
        """
        if clip in self._taken:
            with suppress(BadClipError):  # then by offset: a cached shard may have rotted, and a header may have lied
                return verified(clip, self._taken[clip])
        return self._reader.read(clip)

    def _mine(self, epoch: int, place: int) -> NDArray[np.bool_]:
        """Which places of an epoch belong to our steps and are not past, bool [M]."""
        places = np.arange(self._sampler.share)
        steps = (epoch * self._sampler.share + places) // (self._sampler.batch_size // self._sampler.world)
        ours = (steps >= self._steps.start) & (steps < self._steps.stop)
        mine: NDArray[np.bool_] = ours & ((steps - self._steps.start) % self._steps.step == 0) & (places >= place)
        return mine


class _Epoch:
    """One rank's reading of one epoch, as far as it has come."""

    def __init__(self, sampler: SequentialSampler, reader: ShardReader, epoch: int, mine_M: NDArray[np.bool_]) -> None:
        self._clips, self._reader, self._read = sampler.clips, reader, sampler.reading(epoch)
        self._wanted_M = mine_M[self._read.place_M]  # of what is read, what will be asked for
        self._held: dict[int, bytes] = {}
        self._coming = self._go_through()

    def take(self, place: int) -> tuple[ClipBytes, bytes]:
        """The clip that the epoch shows at `place`, and its bytes as they were found."""
        wanted = int(self._read.shown_M[place])
        while wanted not in self._held:
            at, data = next(self._coming)
            self._held[at] = data
        return self._clips.location(int(self._read.row_M[wanted])), self._held.pop(wanted)

    def _go_through(self) -> Iterator[tuple[int, bytes]]:
        """(index in the reading, bytes) of all that is wanted; shards without any are passed over."""
        read = self._read
        ends = np.append(np.flatnonzero(np.diff(read.unit_M)) + 1, len(read.unit_M))
        for first, stop in zip(np.append(0, ends[:-1]).tolist(), ends.tolist(), strict=True):
            if self._wanted_M[first:stop].any():
                yield from self._go_through_shard(range(first, stop))

    def _go_through_shard(self, part: range) -> Iterator[tuple[int, bytes]]:
        wanted = {self._clips.key(int(self._read.row_M[at])): at for at in part if self._wanted_M[at]}
        shard = int(self._clips.shard_index_N[self._read.row_M[part.start]])
        said = yield from self._find(wanted, shard)
        if wanted and self._reader.drop_if_rotten(self._clips.shards[shard]):
            said = yield from self._find(wanted, shard)  # in the server's copy
        if wanted:
            raise DataError(said)

    def _find(self, wanted: dict[str, int], shard: int) -> Generator[tuple[int, bytes], None, str]:
        """Take out of `wanted` what is in a shard, and return how it ended."""
        name, seen, why = self._clips.shards[shard], 0, ""
        with os.fdopen(self._reader.open(name), "rb") as file:
            files = tar_file_expander([{"url": str(name), "stream": file}], select_files=_is_video)
            try:
                for sample in group_by_keys(files):
                    seen += 1
                    at = wanted.pop(sample["__key__"], None)
                    if at is not None:
                        yield at, sample["mp4"]
                    if not wanted:
                        break
            except (tarfile.TarError, EOFError, ValueError) as error:
                why = f" ({error.args[0]})"
        return self._broken(shard, seen, why)

    def _broken(self, shard: int, seen: int, why: str) -> str:
        return (
            f"{self._clips.shards[shard]}: read from front to back it ends after {seen} of "
            f"{self._clips.shard_clips_S[shard]} clips{why}: it is cut short, or a header in it is damaged; run "
            "`endocorpus verify`, or train with data.stream = 'indexed', which needs no headers"
        )


def _is_video(name: str) -> bool:
    return name.endswith(".mp4")
