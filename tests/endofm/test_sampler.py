"""The order of the clips: the same for every world and worker, complete in every epoch, resumable by number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endocorpus.errors import UsageError
from endofm.data.sampler import MAX_SEED, Blocks, ClipSampler

SHAPES = st.tuples(st.integers(1, 60), st.integers(1, 40), st.integers(0, MAX_SEED))  # clips, batch, seed


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


@given(SHAPES, st.integers(0, 500))
def test_every_world_makes_the_same_global_batch(shape: tuple[int, int, int], step: int) -> None:
    sampler = ClipSampler(*shape)
    whole = sampler.rows(step)
    for world in divisors(shape[1]):
        together = np.empty_like(whole)
        for rank in range(world):
            together[rank::world] = sampler.rows(step, rank, world)
        np.testing.assert_array_equal(together, whole)


@given(SHAPES, st.integers(1, 5))
def test_workers_that_take_every_nth_step_make_the_same_order(shape: tuple[int, int, int], workers: int) -> None:
    steps = 12
    whole = [ClipSampler(*shape).rows(step).tolist() for step in range(steps)]
    dealt: dict[int, list[int]] = {}
    for worker in range(workers):
        sampler = ClipSampler(*shape)  # a copy of its own, as in a process
        dealt |= {step: sampler.rows(step).tolist() for step in range(worker, steps, workers)}
    assert [dealt[step] for step in range(steps)] == whole


@given(SHAPES, st.integers(0, 7))
def test_every_epoch_visits_every_clip_once(shape: tuple[int, int, int], epoch: int) -> None:
    num_clips, batch_size, _ = shape
    sampler = ClipSampler(*shape)
    first, stop = epoch * num_clips, (epoch + 1) * num_clips
    steps = range(first // batch_size, -(-stop // batch_size))
    order = np.concatenate([sampler.rows(step) for step in steps])
    positions = np.concatenate([sampler.positions(step) for step in steps])
    visited = order[(first <= positions) & (positions < stop)]
    assert sorted(visited) == list(range(num_clips))


@given(SHAPES, st.integers(0, 10**9))
def test_steps_tile_the_positions(shape: tuple[int, int, int], step: int) -> None:
    sampler = ClipSampler(*shape)
    both = np.concatenate([sampler.positions(step), sampler.positions(step + 1)])
    np.testing.assert_array_equal(both, np.arange(step * shape[1], (step + 2) * shape[1]))


def test_resuming_is_asking_for_the_step() -> None:
    from_the_start = ClipSampler(101, 8, seed=3)
    for step in range(40):
        last = from_the_start.rows(step)
    np.testing.assert_array_equal(ClipSampler(101, 8, seed=3).rows(39), last)


def test_epochs_and_seeds_have_their_own_order() -> None:
    orders = [tuple(ClipSampler(50, 50, seed).rows(epoch).tolist()) for seed in (0, 1, MAX_SEED) for epoch in (0, 1, 2)]
    assert len(set(orders)) == 9
    assert tuple(range(50)) not in orders


def test_the_order_is_the_one_that_earlier_versions_used() -> None:
    # A checkpoint holds the step alone, so another order would silently repeat some clips and skip others.
    assert ClipSampler(10, 10, seed=0).rows(0).tolist() == [1, 3, 8, 6, 2, 0, 7, 5, 4, 9]
    assert ClipSampler(10, 10, seed=7).rows(3).tolist() == [4, 2, 1, 5, 0, 3, 9, 7, 6, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 0), "num_clips must be at least 1"),
        ((4, 0, 0), "batch_size must be at least 1"),
        ((4, 4, -1), "seed must be from 0 to 4294967295, got -1"),
        ((4, 4, 2**32), "seed must be from 0 to 4294967295"),
    ],
)
def test_impossible_samplers_are_refused(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ClipSampler(*arguments)


@pytest.mark.parametrize(
    ("step", "rank", "world", "message"),
    [
        (-1, 0, 1, "step must be at least 0"),
        (0, 2, 2, "rank 2 is outside a world of 2"),
        (0, -1, 2, "rank -1 is outside a world of 2"),
        (0, 0, 0, "rank 0 is outside a world of 0"),
        (0, 0, 4, "batch_size 6 cannot be shared equally by 4 ranks"),
    ],
)
def test_impossible_shares_are_refused(step: int, rank: int, world: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ClipSampler(10, 6, 0).positions(step, rank, world)


BLOCKED = st.tuples(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),  # clips of each shard
    st.integers(1, 14),  # shards in a block
    st.integers(1, 20),  # batch
    st.integers(0, MAX_SEED),
)


def blocked(sizes: list[int], block_shards: int, batch_size: int, seed: int) -> ClipSampler:
    shard_N = np.repeat(np.arange(len(sizes)), sizes)
    return ClipSampler(len(shard_N), batch_size, seed, Blocks(shard_N, block_shards))


@given(BLOCKED, st.integers(0, 5))
def test_blocks_visit_every_clip_once_and_shard_after_shard(shape: tuple[list[int], int, int, int], epoch: int) -> None:
    sizes, block_shards, _, _ = shape
    sampler = blocked(*shape)
    assert sampler.blocks is not None
    first, stop = epoch * sampler.num_clips, (epoch + 1) * sampler.num_clips
    order = sampler.rows_at(np.arange(first, stop))
    assert sorted(order) == list(range(sampler.num_clips))
    seen: set[int] = set()
    position, lengths = first, []
    while position < stop:
        block = sampler.block_at(position)
        assert block.start == position and all(sampler.block_at(other) == block for other in block)
        shards = set(sampler.blocks.shard_N[sampler.rows_at(np.array(block))].tolist())
        assert not shards & seen and len(shards) <= block_shards
        seen |= shards
        lengths.append(len(shards))
        position = block.stop
    assert position == stop and seen == set(range(len(sizes)))
    assert max(lengths) - min(lengths) <= 1 and len(lengths) == -(-len(sizes) // block_shards)


@given(BLOCKED, st.integers(0, 40))
def test_blocks_make_the_same_batches_for_every_world(shape: tuple[list[int], int, int, int], step: int) -> None:
    sampler = blocked(*shape)
    whole = sampler.rows(step)
    for world in divisors(shape[2]):
        for rank in range(world):
            np.testing.assert_array_equal(blocked(*shape).rows(step, rank, world), whole[rank::world])


@given(BLOCKED, st.integers(0, 200))
def test_one_block_is_the_order_without_blocks(shape: tuple[list[int], int, int, int], step: int) -> None:
    sizes, _, batch_size, seed = shape
    plain = ClipSampler(sum(sizes), batch_size, seed)
    np.testing.assert_array_equal(blocked(sizes, len(sizes), batch_size, seed).rows(step), plain.rows(step))


@given(BLOCKED, st.integers(0, 500))
def test_what_is_worth_fetching_covers_what_comes(shape: tuple[list[int], int, int, int], position: int) -> None:
    sampler = blocked(*shape)
    rows, until = sampler.ahead(position)
    assert until == sampler.block_at(position).stop
    following = sampler.block_at(until)
    np.testing.assert_array_equal(rows[-len(following) :], sampler.rows_at(np.array(following)))
    assert sampler.rows_at(np.array([position]))[0] in rows


@given(BLOCKED, st.integers(0, 500))
def test_substitutes_come_from_the_block_and_reach_all_of_it(
    shape: tuple[list[int], int, int, int], position: int
) -> None:
    sampler = blocked(*shape)
    near = set(sampler.rows_at(np.array(sampler.block_at(position))).tolist())
    drawn = {sampler.substitute(position, attempt) for attempt in range(64)}
    assert drawn <= near and (len(drawn) > 1 or len(near) == 1)
    assert [blocked(*shape).substitute(position, attempt) for attempt in range(4)] == [
        sampler.substitute(position, attempt) for attempt in range(4)
    ]


def test_the_order_in_blocks_is_the_one_that_earlier_versions_used() -> None:
    sampler = blocked([3, 2, 4, 1], 2, 10, 5)
    assert [sampler.rows(epoch).tolist() for epoch in (0, 1)] == [
        [6, 8, 7, 4, 3, 5, 1, 9, 0, 2],
        [9, 3, 4, 1, 7, 8, 5, 0, 6, 2],
    ]
