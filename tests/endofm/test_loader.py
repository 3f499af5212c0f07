"""Batches: the same however many processes make them, and no process left behind."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from endocorpus.errors import DataError, UsageError
from endofm.data.batches import plan_clip
from endofm.data.clips import ClipSet, load_clips
from endofm.data.decode import decode_frames
from endofm.data.loader import ClipLoader, make_loader
from endofm.data.stream import ShardReader
from endofm.data.views import ClipBatch, ViewConfig, apply_views
from tests.endofm.conftest import SPECS, cut_of, read_frame

VIEWS = ViewConfig(global_frames=(3, 4), local_frames=(2,), global_size=16, local_size=8)
STEPS = 9  # of 4 clips out of 7: epochs end inside batches, and the memory of a single worker comes by three times


@pytest.fixture
def clips(corpus: Path) -> ClipSet:
    return load_clips([corpus])


def load(clips: ClipSet, start: int = 0, stop: int = STEPS, **options: Any) -> ClipLoader:
    return make_loader(clips, VIEWS, batch_size=4, seed=11, start_step=start, stop_step=stop, **options)


@pytest.fixture(scope="module")
def expected(corpus: Path) -> list[ClipBatch]:
    """Every step's global batch, made in this process."""
    return list(load(load_clips([corpus])))


def assert_same(found: ClipBatch, wanted: ClipBatch) -> None:
    for field in dataclasses.fields(ClipBatch):
        a, b = getattr(found, field.name), getattr(wanted, field.name)
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, field.name


def test_batches_hold_the_right_frames_of_the_right_clips(clips: ClipSet) -> None:
    sizes = {f"tiny-{spec.number}": (spec.height, spec.width) for shard in SPECS for spec in shard}
    whole = VIEWS.model_copy(update={"global_scale": (1.0, 1.0), "local_scale": (1.0, 1.0), "aspect_ratio": (0.5, 2.0)})
    seen, positions = [], []
    for batch in make_loader(clips, whole, batch_size=4, seed=11, start_step=0, stop_step=STEPS):
        assert batch.pixels.dtype == torch.uint8
        for index, key in enumerate(batch.keys):
            places = sorted(set(batch.picks_BT[index].tolist()))
            assert places == list(range(len(places)))
            pictures = [cut_of(batch, index, place) for place in places]
            assert {picture.shape[:2] for picture in pictures} == {sizes[key]}
            painted = [read_frame(picture) for picture in pictures]
            assert {number for number, _ in painted} == {int(key.removeprefix("tiny-"))}
            assert all(a < b for (_, a), (_, b) in pairwise(painted))
            seen.append(key)
        positions += batch.positions_B.tolist()
    assert sorted(seen[:7]) == sorted(seen[7:14]) == sorted(sizes)
    assert positions == list(range(4 * STEPS))


def test_a_clip_looks_different_every_time_it_comes_by(expected: list[ClipBatch]) -> None:
    boxes = [
        tuple(batch.boxes_BV4[index].flatten().tolist())
        for batch in expected
        for index, key in enumerate(batch.keys)
        if key == "tiny-3"
    ]
    assert len(boxes) >= 2
    assert len(set(boxes)) == len(boxes)


def test_resuming_gives_the_batches_that_were_still_to_come(clips: ClipSet, expected: list[ClipBatch]) -> None:
    resumed = list(load(clips, start=2))
    assert len(resumed) == STEPS - 2
    for found, wanted in zip(resumed, expected[2:], strict=True):
        assert_same(found, wanted)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(clips: ClipSet, expected: list[ClipBatch], num_workers: int) -> None:
    random_state = torch.random.get_rng_state()
    with load(clips, num_workers=num_workers) as loader:
        batches = list(loader)  # kept, so that memory which workers use again would show
        assert len(batches) == STEPS
        for found, wanted in zip(batches, expected, strict=True):
            assert_same(found, wanted)
        assert next(loader, None) is None
        assert loader.waited_seconds > 0
    assert multiprocessing.active_children() == []
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize(("world", "num_workers"), [(1, 0), (2, 0), (4, 0), (2, 1)])
def test_ranks_share_the_same_global_batch(
    clips: ClipSet, expected: list[ClipBatch], world: int, num_workers: int
) -> None:
    for rank in range(world):
        with load(clips, stop=3, rank=rank, world=world, num_workers=num_workers) as loader:
            for found, wanted in zip(loader, expected, strict=False):
                assert found.keys == wanted.keys[rank::world]
                assert found.positions_B.tolist() == wanted.positions_B[rank::world].tolist()
                for view, whole in zip(apply_views(found, "cpu"), apply_views(wanted, "cpu"), strict=True):
                    torch.testing.assert_close(view, whole[rank::world], atol=1e-4, rtol=0)


def damage(corpus: Path, clips: ClipSet, key: str) -> None:
    row = [clips.key(row) for row in range(len(clips))].index(key)
    clip = clips.location(row)
    with clip.shard.open("r+b") as file:
        file.seek(clip.offset + clip.size // 2)
        byte = file.read(1)[0]
        file.seek(clip.offset + clip.size // 2)
        file.write(bytes([byte ^ 1]))


@pytest.fixture(scope="module")
def spoilt(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus with tiny-4 damaged: see `damage`."""
    copy = Path(shutil.copytree(corpus, tmp_path_factory.mktemp("spoilt") / "tiny"))
    damage(copy, load_clips([copy]), "tiny-4")
    return copy


@pytest.fixture(scope="module")
def mended(spoilt: Path) -> list[ClipBatch]:
    return list(load(load_clips([spoilt])))


def test_a_bad_clip_is_replaced_and_told(mended: list[ClipBatch], expected: list[ClipBatch], spoilt: Path) -> None:
    met = 0
    for found, wanted in zip(mended, expected, strict=True):
        sound = [index for index, key in enumerate(wanted.keys) if key != "tiny-4"]
        assert [found.keys[index] for index in sound] == [wanted.keys[index] for index in sound]
        assert found.positions_B.tolist() == wanted.positions_B.tolist()
        assert len(found.replaced) == len(wanted) - len(sound) and wanted.replaced == ()
        for view, whole in zip(apply_views(found, "cpu"), apply_views(wanted, "cpu"), strict=True):
            torch.testing.assert_close(view[sound], whole[sound], atol=1e-4, rtol=0)
        for one in found.replaced:
            index = found.positions_B.tolist().index(one.position)
            assert (one.corpus, one.key, one.by) == ("tiny", "tiny-4", found.keys[index]) and one.by != "tiny-4"
            assert "clip tiny-4 at offset" in one.reason and f"run `endocorpus verify {spoilt}`" in one.reason
            assert_shows_first_frame(found, index, spoilt)
            met += 1
    assert met >= 5
    assert len({one.by for batch in mended for one in batch.replaced}) > 1


def assert_shows_first_frame(batch: ClipBatch, index: int, corpus: Path) -> None:
    """That of the clip it names, decoded by itself."""
    clips = load_clips([corpus])
    (row,) = (row for row in range(len(clips)) if clips.key(row) == batch.keys[index])
    frames = plan_clip(clips, row, int(batch.positions_B[index]), VIEWS, seed=11).frames_needed
    with ShardReader() as reader:
        (picture,) = decode_frames(reader.read(clips.location(row)), frames[:1], int(clips.num_frames_N[row]))
    _, top, left, height, width = batch.cuts_BU5[index, 0].tolist()
    wanted = picture[top : top + height, left : left + width].astype(int)
    assert np.abs(cut_of(batch, index, 0) - wanted).max() <= 1


@pytest.mark.parametrize(("world", "num_workers", "start"), [(1, 2, 0), (2, 0, 0), (1, 0, 3)])
def test_replacements_depend_on_seed_and_position_alone(
    spoilt: Path, mended: list[ClipBatch], world: int, num_workers: int, start: int
) -> None:
    for rank in range(world):
        with load(load_clips([spoilt]), start=start, rank=rank, world=world, num_workers=num_workers) as loader:
            for found, wanted in zip(loader, mended[start:], strict=True):
                assert found.keys == wanted.keys[rank::world]
                ours = set(found.positions_B.tolist())
                assert found.replaced == tuple(one for one in wanted.replaced if one.position in ours)
                if world == 1:
                    assert_same(found, wanted)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_lost_shard_reaches_the_trainer_as_one_line_in_its_turn(
    corpus: Path, tmp_path: Path, expected: list[ClipBatch], num_workers: int
) -> None:
    """It says more about the disk than about its clips: nothing is replaced."""
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))
    clips = load_clips([copy])
    first = next(index for index, batch in enumerate(expected) if set(batch.keys) & {"tiny-5", "tiny-6", "tiny-7"})
    (copy / "shards" / "tiny-1.tar").unlink()
    loader = load(clips, num_workers=num_workers)
    for wanted in expected[:first]:
        assert_same(next(loader), wanted)
    with pytest.raises(DataError) as caught:
        next(loader)
    text = str(caught.value)
    assert "\n" not in text and "tiny-1.tar" in text and f"run `endocorpus verify {copy}`" in text
    assert caught.value.__cause__ is None
    assert next(loader, None) is None
    assert multiprocessing.active_children() == []


def test_where_all_clips_are_bad_none_is_taken(clips: ClipSet) -> None:
    longer = dataclasses.replace(clips, num_frames_N=clips.num_frames_N + np.int32(400))
    with pytest.raises(
        DataError, match=r"tiny-\d\.tar: clip tiny-\d: the clip should have 4\d\d frames, but it ends.*no other clip"
    ):
        list(load(longer))


def test_a_worker_that_dies_is_a_data_error(clips: ClipSet) -> None:
    with load(clips, stop=10_000, num_workers=1) as loader:
        next(loader)
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)  # so that this process is waiting when the worker dies
        threading.Timer(1.0, os.kill, (worker.pid, signal.SIGKILL)).start()
        with pytest.raises(
            DataError,
            match=r"a loader process died: (.*signal: Killed|.*onnection|EOFError|.*exited unexpectedly).*/dev/shm",
        ):
            list(loader)
    assert multiprocessing.active_children() == []


def test_closing_early_leaves_no_process(clips: ClipSet) -> None:
    loader = load(clips, stop=10_000, num_workers=2)
    next(loader)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    assert all(ignores_interrupts(worker.pid) for worker in workers)
    loader.close()
    assert multiprocessing.active_children() == []
    assert next(loader, None) is None
    loader.close()


def ignores_interrupts(pid: int | None) -> bool:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("this system does not show the signals that a process blocks")
    (blocked,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigBlk"))
    return bool(int(blocked, 16) >> (signal.SIGINT - 1) & 1)


SCRIPT = """
    import multiprocessing, sys, time
    from pathlib import Path
    from endofm.data.clips import load_clips
    from endofm.data.loader import make_loader
    from endofm.data.views import ViewConfig

    if __name__ == "__main__":
        views = ViewConfig(global_frames=(3,), local_frames=(), global_size=16)
        with make_loader(
            load_clips([Path(sys.argv[1])]), views, batch_size=2, seed=0, start_step=0, stop_step=10**9, num_workers=2
        ) as loader:
            for batch in loader:
                if batch.positions_B[0] == 0:
                    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
                time.sleep(0.01)
"""


def test_an_interrupt_leaves_no_process(corpus: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(corpus)]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to all of them
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived the trainer"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 3, "stop": 2}, "steps 3 to 2 are not a range"),
        ({"start": -1, "stop": 2}, "steps -1 to 2 are not a range"),
        ({"num_workers": -1}, "num_workers must be at least 0"),
        ({"world": 3}, "batch_size 4 cannot be shared equally by 3 ranks"),
        ({"rank": 1}, "rank 1 is outside a world of 1"),
    ],
)
def test_impossible_loaders_are_refused_at_once(clips: ClipSet, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(clips, **options)


def test_no_steps_are_no_batches(clips: ClipSet) -> None:
    assert list(load(clips, start=3, stop=3)) == []
