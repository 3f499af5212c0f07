"""From a step number to the rows of the clips it trains on: pure index arithmetic, without state.

Every epoch has its own permutation of the clips, a function of (seed, epoch) alone; one after the other they make
an endless order. Step s owns the positions s*B .. (s+1)*B-1 of that order, whoever computes it, so a batch may
straddle the end of an epoch, no clip is ever left out, and resuming means asking for the next step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from endocorpus.errors import UsageError

IntArray = NDArray[np.int64]

MAX_SEED = 2**32 - 1
"""NumPy cuts seeds into 32-bit words: (2**33, 0) is the same key as (0, 2), the third epoch of seed 0."""

# Keeps the stream of the permutations apart from that of the views, which is keyed (seed, position).
_PERMUTATIONS = (1,)


@dataclass(frozen=True)
class ClipSampler:
    """The endless order of `num_clips` clips, dealt out in global batches of `batch_size`.

    Args:
        num_clips: rows in the clip set, at least 1.
        batch_size: clips in the *global* batch of one step, over all ranks, at least 1.
        seed: the run's seed, 0 to `MAX_SEED`.

    Raises:
        UsageError: a number outside its range.
    """

    num_clips: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        for name, value in (("num_clips", self.num_clips), ("batch_size", self.batch_size)):
            if value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"seed must be from 0 to {MAX_SEED}, got {self.seed}")

    def positions(self, step: int, rank: int = 0, world: int = 1) -> IntArray:
        """Positions in the endless order that one rank takes at one step, int64 [batch_size / world].

        Rank r of W takes every W-th position from r on, so the ranks together make the same global batch for
        every W that divides it.

        Raises:
            UsageError: a negative step, a rank outside the world, or a batch that the world does not divide.
        """
        if step < 0:
            raise UsageError(f"step must be at least 0, got {step}")
        if not 0 <= rank < world:
            raise UsageError(f"rank {rank} is outside a world of {world}")
        if self.batch_size % world:
            raise UsageError(f"batch_size {self.batch_size} cannot be shared equally by {world} ranks")
        first = step * self.batch_size
        return np.arange(first + rank, first + self.batch_size, world, dtype=np.int64)

    def rows(self, step: int, rank: int = 0, world: int = 1) -> IntArray:
        """Rows of the clip set at `positions(step, rank, world)`, int64 [batch_size / world]."""
        return self.rows_at(self.positions(step, rank, world))

    def rows_at(self, positions: IntArray) -> IntArray:
        """Rows of the clip set at any positions of the endless order, int64, of the same shape."""
        epochs, places = np.divmod(positions, self.num_clips)
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = _permutation(self.num_clips, self.seed, int(epoch))[places[here]]
        return rows


@lru_cache(maxsize=2)  # a batch straddles at most two epochs, unless it is larger than the clip set
def _permutation(num_clips: int, seed: int, epoch: int) -> IntArray:
    """The order of one epoch, int64 [num_clips].

    Sorts raw 64-bit draws instead of calling `Generator.permutation`: NumPy keeps the raw stream of a bit generator
    the same for ever, but may change what its generators make of it, and a resumed run must not notice an upgrade.
    """
    source = np.random.PCG64(np.random.SeedSequence((seed, epoch), spawn_key=_PERMUTATIONS))
    order = np.argsort(source.random_raw(num_clips), kind="stable").astype(np.int64, copy=False)
    order.flags.writeable = False  # it is shared by every caller of the cache
    return order
