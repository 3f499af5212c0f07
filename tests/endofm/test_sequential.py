"""Shards from front to back: every clip once an epoch on all ranks together, exactly resumable, and no silent loss."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from endocorpus.corpus.shards import tar_members
from endocorpus.errors import DataError, UsageError
from endofm.data.clips import ClipSet, load_clips
from endofm.data.loader import ClipLoader, make_loader
from endofm.data.sequential import SequentialSampler
from endofm.data.settings import DataConfig
from endofm.data.views import ClipBatch, ViewConfig
from tests.endofm.conftest import write_mix
from tests.endofm.servers import serve
from tests.endofm.test_loader import assert_same, damage

VIEWS = ViewConfig(global_frames=(2,), local_frames=(2,), global_size=16, local_size=8)
STEPS = 9  # of 4 clips out of 7


def imagined(sizes: list[int], repeats: int = 1) -> ClipSet:
    """Clips of shards of these sizes, without any bytes; those of the first shard come `repeats` times."""
    shard_N = np.repeat(np.arange(len(sizes)), sizes)
    offset_N = np.concatenate([np.arange(size) * 1000 for size in sizes])
    again = np.flatnonzero(shard_N == 0)
    rows = np.concatenate([np.arange(len(shard_N)), *[again] * (repeats - 1)])
    count = len(rows)
    return ClipSet(
        shards=tuple(Path(f"{number}.tar") for number in range(len(sizes))),
        shard_clips_S=np.array(sizes, np.int32),
        shard_index_N=shard_N[rows].astype(np.int32),
        offset_N=offset_N[rows],
        size_N=np.ones(count, np.int64),
        digest_N16=np.zeros((count, 16), np.uint8),
        num_frames_N=np.ones(count, np.int32),
        height_N=np.ones(count, np.int32),
        width_N=np.ones(count, np.int32),
        key_N=np.array([f"k-{row}" for row in rows], np.bytes_),
        corpus_N=np.zeros(count, np.int16),
        fingerprint="",
        corpora=(("x", count),),
    )


SHAPES = st.tuples(
    st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 3), st.integers(1, 4), st.integers(1, 30)
)


@given(SHAPES, st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_the_ranks_together_show_every_clip_once_an_epoch(
    shape: tuple[list[int], int, int, int], seed: int, epoch: int
) -> None:
    sizes, repeats, world, buffer = shape
    clips = imagined(sizes, repeats)
    if len(clips) < world:
        return
    shown: list[int] = []
    shares = []
    for rank in range(world):
        sampler = SequentialSampler(clips, 2 * world, seed, rank, world, buffer)
        read = sampler.reading(epoch)
        shares.append(len(read.row_M))
        shown += read.row_M[read.shown_M].tolist()
        assert sorted(read.shown_M) == list(range(sampler.share))
        # From front to back: within a pass offsets rise, and a pass is not taken up again.
        for at in range(1, len(read.row_M)):
            if read.unit_M[at] == read.unit_M[at - 1]:
                assert clips.offset_N[read.row_M[at]] > clips.offset_N[read.row_M[at - 1]]
        passes = [unit for at, unit in enumerate(read.unit_M) if at == 0 or unit != read.unit_M[at - 1]]
        assert len(passes) == len(set(passes))
        # A bounded buffer: nothing is shown before it can have been read, or held longer than there is room.
        assert all(place >= at - buffer + 1 for at, place in enumerate(read.place_M))
    assert sorted(shown) == list(range(len(clips)))
    assert max(shares) - min(shares) <= 1


@given(SHAPES, st.integers(0, 2**32 - 1))
@example(([1, 1, 1, 1, 1, 1, 1, 9, 3], 3, 1, 15), 165)  # what is shown next lies behind a whole buffer
def test_rows_follow_from_positions(shape: tuple[list[int], int, int, int], seed: int) -> None:
    sizes, repeats, world, buffer = shape
    clips = imagined(sizes, repeats)
    if len(clips) < world:
        return
    sampler = SequentialSampler(clips, 2 * world, seed, world - 1, world, buffer)
    steps = 3 * len(clips)
    rows = np.concatenate([sampler.rows_at(sampler.positions(step)) for step in range(steps)])
    epochs = rows[: len(rows) // sampler.share * sampler.share].reshape(-1, sampler.share)
    for epoch, shown in enumerate(epochs[:3]):
        read = sampler.reading(epoch)
        np.testing.assert_array_equal(shown, read.row_M[read.shown_M])
    again = SequentialSampler(clips, 2 * world, seed, world - 1, world, buffer)
    np.testing.assert_array_equal(again.rows_at(again.positions(steps - 1)), rows[-2:])
    ahead, until = sampler.ahead(int(sampler.positions(3)[0]))
    assert set(sampler.rows_at(sampler.positions(3))[:1]) <= set(ahead) and until > sampler.positions(3)[0]


def test_seeds_and_epochs_have_their_own_order() -> None:
    clips = imagined([5, 5, 5, 5])
    orders = [
        tuple(read.row_M[read.shown_M])
        for seed in (0, 1)
        for read in map(SequentialSampler(clips, 4, seed, 0, 1, 6).reading, (0, 1, 2))
    ]
    assert len(set(orders)) == 6


def test_the_order_is_the_one_that_earlier_versions_used() -> None:
    sampler = SequentialSampler(imagined([3, 2, 4], repeats=2), 6, 5, 1, 2, 3)
    assert [sampler.rows_at(sampler.positions(step)).tolist() for step in range(4)] == [
        [2, 5, 1],
        [6, 7, 8],
        [0, 11, 3],
        [2, 4, 1],
    ]


def load(clips: ClipSet, start: int = 0, stop: int = STEPS, buffer: int = 3, **options: Any) -> ClipLoader:
    data = DataConfig(stream="sequential", shuffle_buffer=buffer)
    return make_loader(clips, VIEWS, batch_size=4, seed=11, start_step=start, stop_step=stop, data=data, **options)


@pytest.fixture(scope="module")
def expected(corpus: Path) -> dict[int, list[ClipBatch]]:
    """Every batch of the first rank of a world of so many."""
    return {world: list(load(load_clips([corpus]), world=world)) for world in (1, 2)}


def test_batches_hold_every_clip_once_an_epoch(expected: dict[int, list[ClipBatch]]) -> None:
    keys = [key for batch in expected[1] for key in batch.keys]
    assert len(expected[1]) == STEPS
    for epoch in range(5):
        assert sorted(keys[7 * epoch : 7 * epoch + 7]) == [f"tiny-{number}" for number in range(1, 8)]
    positions = [position for batch in expected[1] for position in batch.positions_B.tolist()]
    assert positions == list(range(4 * STEPS))


@pytest.mark.parametrize(("world", "num_workers", "start"), [(1, 0, 4), (1, 2, 0), (2, 2, 3), (1, 2, 5)])
def test_workers_and_a_new_start_change_nothing(
    corpus: Path, expected: dict[int, list[ClipBatch]], world: int, num_workers: int, start: int
) -> None:
    with load(load_clips([corpus]), start=start, world=world, num_workers=num_workers) as loader:
        for found, wanted in zip(loader, expected[world][start:], strict=True):
            assert_same(found, wanted)


def test_uneven_ranks_have_the_same_number_of_batches(corpus: Path) -> None:
    ranks = [list(load(load_clips([corpus]), rank=rank, world=4)) for rank in range(4)]
    assert [len(batches) for batches in ranks] == [STEPS] * 4
    firsts = Counter(batch.keys[0] for batches in ranks for batch in batches[:1])
    assert set(firsts.values()) == {1}
    positions = sorted(position for batches in ranks for batch in batches for position in batch.positions_B.tolist())
    assert positions == list(range(4 * STEPS))


def test_a_mixture_shows_its_repeats(corpus: Path, tmp_path: Path) -> None:
    mix = write_mix(tmp_path / "m.parquet", {"tiny": corpus}, [("tiny", "tiny-3", 3), ("tiny", "tiny-7", 1)])
    keys = [key for batch in load(load_clips([corpus], mix), stop=3) for key in batch.keys]
    for epoch in range(3):
        assert Counter(keys[4 * epoch : 4 * epoch + 4]) == {"tiny-3": 3, "tiny-7": 1}


def first_header(shard: Path, which: int) -> int:
    """Offset of the header of the which-th video in a shard."""
    videos = [offset for name, offset, _ in tar_members(shard) if name.endswith(".mp4")]
    return videos[which] - 512


@pytest.mark.parametrize("how", ["cut between members", "cut in a member", "header", "first header", "cut in a header"])
def test_a_damaged_shard_is_told(corpus: Path, tmp_path: Path, how: str) -> None:
    """All of these make plain webdataset lose samples, some of them in silence."""
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))
    shard = copy / "shards" / "tiny-0.tar"
    at = first_header(shard, 0 if how == "first header" else 2)
    if how.startswith("cut"):
        os.truncate(shard, at - 1024 if how == "cut between members" else at + (100 if how.endswith("header") else 700))
    else:
        with shard.open("r+b") as file:
            file.seek(at + 20)
            byte = file.read(1)[0]
            file.seek(at + 20)
            file.write(bytes([byte ^ 1]))
    with pytest.raises(DataError, match=r"tiny-0\.tar: read from front to back it ends after \d of 4 clips") as caught:
        list(load(load_clips([copy])))
    assert "\n" not in str(caught.value) and "data.stream = 'indexed'" in str(caught.value)


@pytest.mark.parametrize("how", ["flipped", "cut", "emptied", "no header"])
def test_a_cached_shard_that_rots_is_fetched_again(
    corpus: Path, tmp_path: Path, expected: dict[int, list[ClipBatch]], how: str
) -> None:
    data = DataConfig(stream="sequential", shuffle_buffer=3, cache_dir=tmp_path / "cache", retry_seconds=5.0)
    with serve(corpus.parent) as server:
        clips = load_clips([f"{server.url}/tiny"], data=data)
        for rotten in (False, True):
            for path in (tmp_path / "cache" / "files").iterdir() if rotten else ():
                content = path.read_bytes()
                middle = clips.offset_N[0] + clips.size_N[0] // 2
                flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
                cut = content[: len(content) // 2]
                path.write_bytes(
                    {"flipped": flipped, "cut": cut, "emptied": b"", "no header": bytes(512) + content[512:]}[how]
                )
            batches = make_loader(clips, VIEWS, batch_size=4, seed=11, start_step=0, stop_step=STEPS, data=data)
            for found, wanted in zip(batches, expected[1], strict=True):
                assert_same(found, wanted)
                assert not found.replaced
        assert Counter(path for path, _ in server.requests if path.endswith(".tar")) == {
            f"/tiny/shards/tiny-{index}.tar": 2 for index in range(2)
        }


def test_a_bad_clip_is_replaced_by_one_of_its_shard(
    corpus: Path, tmp_path: Path, expected: dict[int, list[ClipBatch]]
) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))
    damage(copy, load_clips([copy]), "tiny-2")
    met = 0
    for found, wanted in zip(load(load_clips([copy])), expected[1], strict=True):
        for one in found.replaced:
            assert one.key == "tiny-2" and one.by in {"tiny-1", "tiny-3", "tiny-4"}
            met += 1
        same = [index for index, key in enumerate(wanted.keys) if key != "tiny-2"]
        assert [found.keys[index] for index in same] == [wanted.keys[index] for index in same]
    assert met >= 5


def test_more_ranks_than_clips_are_refused(corpus: Path) -> None:
    data = DataConfig(stream="sequential")
    with pytest.raises(UsageError, match="7 clips cannot be shared by 8 ranks"):
        make_loader(
            load_clips([corpus]), VIEWS, batch_size=8, seed=0, start_step=0, stop_step=1, rank=7, world=8, data=data
        )
