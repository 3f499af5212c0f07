"""From a step number to the rows of the clips it trains on: pure index arithmetic, without state.

Every epoch has its own permutation of the clips, a function of (seed, epoch) alone; one after the other they make
an endless order. Step s owns the positions s*B .. (s+1)*B-1 of that order, whoever computes it, so a batch may
straddle the end of an epoch, no clip is ever left out, and resuming means asking for the next step.

Where shards have to be fetched, an epoch can go through blocks of shards instead: the shards are permuted and cut into
blocks, and the clips are permuted within each. One block of all shards is the order without blocks.
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

# Keep these streams apart from each other and from that of the views, which is keyed (seed, position).
_PERMUTATIONS = (1,)
SHARD_PERMUTATIONS = (2,)
_SUBSTITUTES = 3


@dataclass(frozen=True, eq=False)
class Blocks:
    """How an epoch is cut into blocks.

    Args:
        shard_N: for every row the number of its shard, counted from 0 in the order in which rows name them.
        block_shards: shards in a block, at least 1; blocks differ by one at the most.
    """

    shard_N: NDArray[np.int64]
    block_shards: int


@dataclass(frozen=True)
class ClipSampler:
    """The endless order of `num_clips` clips, dealt out in global batches of `batch_size`.

    Args:
        num_clips: rows in the clip set, at least 1.
        batch_size: clips in the *global* batch of one step, over all ranks, at least 1.
        seed: the run's seed, 0 to `MAX_SEED`.
        blocks: of shards; the whole epoch is one block if None.

    Raises:
        UsageError: a number outside its range.
    """

    num_clips: int
    batch_size: int
    seed: int
    blocks: Blocks | None = None

    def __post_init__(self) -> None:
        for name, value in (("num_clips", self.num_clips), ("batch_size", self.batch_size)):
            if value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"seed must be from 0 to {MAX_SEED}, got {self.seed}")

    def positions(self, step: int, rank: int = 0, world: int = 1) -> IntArray:
        """`positions_of` the steps of this sampler."""
        return positions_of(self.batch_size, step, rank, world)

    def rows(self, step: int, rank: int = 0, world: int = 1) -> IntArray:
        """Rows of the clip set at `positions(step, rank, world)`, int64 [batch_size / world]."""
        return self.rows_at(self.positions(step, rank, world))

    def rows_at(self, positions: IntArray) -> IntArray:
        """Rows of the clip set at any positions of the endless order, int64, of the same shape."""
        epochs, places = np.divmod(positions, self.num_clips)
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = _order(self.num_clips, self.blocks, self.seed, int(epoch))[0][places[here]]
        return rows

    def block_at(self, position: int) -> range:
        """The positions of the block that `position` belongs to."""
        epoch, place = divmod(position, self.num_clips)
        starts = _order(self.num_clips, self.blocks, self.seed, epoch)[1]
        block = int(np.searchsorted(starts, place, side="right")) - 1
        return range(epoch * self.num_clips + int(starts[block]), epoch * self.num_clips + int(starts[block + 1]))

    def ahead(self, position: int) -> tuple[IntArray, int]:
        """What is worth fetching at `position`, and up to which position that holds.

        Returns:
            Rows of its block and of the one after, in order, int64, and the end of its block.
        """
        block = self.block_at(position)
        following = self.block_at(block.stop)
        return self.rows_at(np.arange(block.start, following.stop, dtype=np.int64)), block.stop

    def substitute(self, position: int, attempt: int) -> int:
        """The row to take at `position` if its own, and those of the attempts before, are bad: one of its block."""
        block = self.block_at(position)
        place = block[draw(self.seed, position, (_SUBSTITUTES, attempt)) % len(block)]
        return int(self.rows_at(np.array([place]))[0])


def positions_of(batch_size: int, step: int, rank: int, world: int) -> IntArray:
    """Positions in the endless order that one rank takes at one step, int64 [batch_size / world].

    Rank r of W takes every W-th position from r on, so the ranks together make the same global batch for every W that
    divides it.

    Raises:
        UsageError: a negative step, a rank outside the world, or a batch that the world does not divide.
    """
    if step < 0:
        raise UsageError(f"step must be at least 0, got {step}")
    if not 0 <= rank < world:
        raise UsageError(f"rank {rank} is outside a world of {world}")
    if batch_size % world:
        raise UsageError(f"batch_size {batch_size} cannot be shared equally by {world} ranks")
    first = step * batch_size
    return np.arange(first + rank, first + batch_size, world, dtype=np.int64)


def draw(seed: int, position: int, stream: tuple[int, ...]) -> int:
    """One 64-bit number, a function of its arguments."""
    return int(np.random.PCG64(np.random.SeedSequence((seed, position), spawn_key=stream)).random_raw())


@lru_cache(maxsize=3)  # two epochs, as a batch or what is ahead straddles at most two, and one to spare
def _order(num_clips: int, blocks: Blocks | None, seed: int, epoch: int) -> tuple[IntArray, IntArray]:
    """The order of one epoch, int64 [num_clips], and where its blocks start in it, with its end, int64 [blocks + 1]."""
    draw_N = draws(num_clips, seed, epoch, _PERMUTATIONS)
    if blocks is None:
        order, sizes = np.argsort(draw_N, kind="stable"), np.array([num_clips])
    else:
        num_shards = int(blocks.shard_N.max()) + 1
        num_blocks = -(-num_shards // blocks.block_shards)
        block_S = np.empty(num_shards, np.int64)
        by_draw = np.argsort(draws(num_shards, seed, epoch, SHARD_PERMUTATIONS), kind="stable")
        block_S[by_draw] = np.arange(num_shards) * num_blocks // num_shards
        order = np.lexsort((draw_N, block_S[blocks.shard_N]))  # stable
        sizes = np.bincount(block_S[blocks.shard_N], minlength=num_blocks)
    order = order.astype(np.int64, copy=False)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    order.flags.writeable = starts.flags.writeable = False  # they are shared by every caller of the cache
    return order, starts


def draws(count: int, seed: int, epoch: int, stream: tuple[int, ...]) -> NDArray[np.uint64]:
    """Raw 64-bit numbers to sort by, uint64 [count].

    Not `Generator.permutation`: NumPy keeps the raw stream of a bit generator the same for ever, but may change what
    its generators make of it, and a resumed run must not notice an upgrade.
    """
    return np.random.PCG64(np.random.SeedSequence((seed, epoch), spawn_key=stream)).random_raw(count)
