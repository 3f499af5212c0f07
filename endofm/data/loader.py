"""Steps in, batches out: fetch, verify, decode and plan in worker processes, in an order that they cannot change."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.util import Finalize
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from endocorpus.errors import DataError, UsageError
from endocorpus.signals import deaf_children
from endofm.data.clips import ClipSet
from endofm.data.decode import decode_frames
from endofm.data.sampler import ClipSampler
from endofm.data.stream import ShardReader
from endofm.data.views import ClipBatch, ViewConfig, ViewPlan, make_batch, plan_views

_STEPS_AHEAD = 2  # finished or begun per worker before they are asked for; each holds a whole batch in memory
_SLOTS = _STEPS_AHEAD + 1  # of shared memory per worker: one more, for the batch that is being copied out

_WORKER_DIED = "DataLoader worker"  # how torch's messages about it begin


def make_loader(
    clips: ClipSet,
    views: ViewConfig,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    stop_step: int,
    rank: int = 0,
    world: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> ClipLoader:
    """Batches of the steps `start_step` up to, not including, `stop_step`, in order.

    A batch is a function of the clips, the views, `batch_size`, `seed`, the step and the rank's share. Neither the
    number of workers nor the step it started from changes it, so resuming means starting at the next step.

    Args:
        clips: rows to draw from.
        views: the recipe.
        batch_size: clips in the global batch of one step; `world` must divide it.
        seed: the run's seed; of the order of the clips and of their views.
        start_step: first step, counted from 0.
        stop_step: end of the steps.
        rank: which share of the global batch.
        world: how many shares there are.
        num_workers: processes that decode, each whole steps on one thread; 0 decodes in this process. They are spawned,
            so a script that calls this needs the usual `if __name__ == "__main__"`.
        pin_memory: hand out batches in page-locked memory; needs a GPU.

    Raises:
        UsageError: numbers that do not fit together.
    """
    if not 0 <= start_step <= stop_step:
        raise UsageError(f"steps {start_step} to {stop_step} are not a range of steps")
    if num_workers < 0:
        raise UsageError(f"num_workers must be at least 0, got {num_workers}")
    sampler = ClipSampler(len(clips), batch_size, seed)
    sampler.positions(start_step, rank, world)  # fails here, not in a worker, where the shares do not work out
    steps = _Steps(clips, views, sampler, rank, world)
    return ClipLoader(steps, range(start_step, stop_step), num_workers, pin_memory)


class ClipLoader(Iterator[ClipBatch]):
    """Iterator over batches. Close it, or use it in a `with`, to stop its workers early.

    Iterating raises DataError, with the text it was raised with in a worker, where a clip cannot be read or decoded, or
    where a worker died; the batches before it have been handed out by then.
    """

    def __init__(self, steps: _Steps, wanted: range, num_workers: int, pin_memory: bool) -> None:
        self.waited_seconds = 0.0
        """Time that callers have spent waiting for batches so far."""
        self._pin_memory = pin_memory
        # Held, so that shared memory stays mapped between the turns of its ring.
        self._mapped: deque[torch.UntypedStorage] = deque(maxlen=max(num_workers, 1) * _SLOTS)
        self._batches: Iterator[ClipBatch | DataError]
        if num_workers == 0:
            self._batches = map(steps.__getitem__, wanted)
            return
        loader = DataLoader(
            steps,
            batch_size=None,  # an item is a batch already
            sampler=wanted,
            num_workers=num_workers,
            collate_fn=_unchanged,
            prefetch_factor=_STEPS_AHEAD,
            worker_init_fn=_leave_at_once,
            multiprocessing_context="spawn",  # a fork of a process that has used threads or a GPU may hang
            generator=torch.Generator(),  # or it would draw from the trainer's random stream
        )
        with deaf_children():  # the trainer stops its workers itself
            self._batches = iter(loader)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ClipBatch:
        began = time.perf_counter()
        try:
            return self._next_batch()
        finally:
            self.waited_seconds += time.perf_counter() - began

    def _next_batch(self) -> ClipBatch:
        try:
            batch = next(self._batches)
        except StopIteration:
            self.close()
            raise
        except (RuntimeError, ConnectionError, EOFError) as error:
            # A worker may also die while it hands over the batch that we are taking: then the connection breaks.
            if isinstance(error, RuntimeError) and not str(error).startswith(_WORKER_DIED):
                raise
            self.close()
            why = error.__cause__ if isinstance(error.__cause__, RuntimeError) else error  # the signal, where known
            said = (str(why).splitlines()[0] if str(why) else type(why).__name__).rstrip(".") + "."
            raise DataError(
                f"a loader process died: {said} Most often the machine is out of memory or of shared memory "
                "(/dev/shm); use fewer workers or a smaller batch"
            ) from None
        if isinstance(batch, DataError):
            self.close()
            raise batch
        if batch.frames_BUHWC.is_shared():  # type: ignore[no-untyped-call]
            self._mapped.append(batch.frames_BUHWC.untyped_storage())
            if not self._pin_memory:  # pinning copies as well
                frames_BUHWC = _private_memory(batch.frames_BUHWC.shape).copy_(batch.frames_BUHWC)
                return dataclasses.replace(batch, frames_BUHWC=frames_BUHWC)
        return batch.pin_memory() if self._pin_memory else batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers and wait until they are gone. Iteration ends."""
        batches, self._batches = self._batches, iter(())
        # torch stops workers when the iterator is collected, which a traceback that is still held would put off.
        stop = getattr(batches, "_shutdown_workers", None)
        if stop is None:
            return
        try:
            stop()
        except RuntimeError as error:
            # A worker that crashes while it is being stopped is stopped, and torch has seen to the others.
            if not str(error).startswith(_WORKER_DIED):
                raise


def load_batch(
    clips: ClipSet,
    rows: Sequence[int],
    positions: Sequence[int],
    views: ViewConfig,
    *,
    seed: int,
    reader: ShardReader,
    memory: Callable[[Sequence[int]], Tensor] | None = None,
) -> ClipBatch:
    """Plan, fetch and decode one batch, in this process.

    Args:
        clips: where the rows lie.
        rows: of the clip set.
        positions: of the rows in the endless order; (seed, position) decides a clip's views.
        views: the recipe.
        seed: the run's seed.
        reader: open shards.
        memory: gives uint8 memory of a shape for the frames; what it holds before does not matter. By default new.

    Raises:
        DataError: a clip cannot be read or decoded; the message names it.
    """
    sizes = [(int(clips.height_N[row]), int(clips.width_N[row])) for row in rows]
    plans = [plan_clip(clips, row, position, views, seed=seed) for row, position in zip(rows, positions, strict=True)]
    needed = [plan.frames_needed for plan in plans]
    most = max(len(frames) for frames in needed), max(height for height, _ in sizes), max(width for _, width in sizes)
    frames_BUHWC = (memory or _private_memory)((len(rows), *most, 3))
    for out_UHWC, row, (height, width), frames in zip(frames_BUHWC.numpy(), rows, sizes, needed, strict=True):
        clip = clips.location(row)
        data = reader.read(clip)
        try:
            decode_frames(data, frames, int(clips.num_frames_N[row]), out=out_UHWC[: len(frames), :height, :width])
        except DataError as error:
            raise DataError(f"{clip.shard_path}: clip {clip.key}: {error}") from None
        out_UHWC[len(frames) :], out_UHWC[:, height:], out_UHWC[:, :, width:] = 0, 0, 0
    return make_batch(frames_BUHWC, plans, sizes, views, [clips.key(row) for row in rows], positions)


def plan_clip(clips: ClipSet, row: int, position: int, views: ViewConfig, *, seed: int) -> ViewPlan:
    """The views of one clip where it comes by at `position` of the endless order: a function of (seed, position)."""
    rng = np.random.default_rng((seed, position))
    return plan_views(int(clips.num_frames_N[row]), int(clips.height_N[row]), int(clips.width_N[row]), views, rng)


class _Steps(Dataset["ClipBatch | DataError"]):
    """Batches by step number. A data error is handed out, not raised: torch would wrap it in a printed traceback."""

    def __init__(self, clips: ClipSet, views: ViewConfig, sampler: ClipSampler, rank: int, world: int) -> None:
        self._clips, self._views, self._sampler, self._rank, self._world = clips, views, sampler, rank, world
        self._reader, self._ring = ShardReader(), _SharedRing()

    def __getitem__(self, step: int) -> ClipBatch | DataError:
        positions = self._sampler.positions(step, self._rank, self._world)
        rows = self._sampler.rows_at(positions)
        try:
            return load_batch(
                self._clips,
                rows.tolist(),
                positions.tolist(),
                self._views,
                seed=self._sampler.seed,
                reader=self._reader,
                memory=None if get_worker_info() is None else self._ring.take,
            )
        except DataError as error:
            return error

    def __getstate__(self) -> dict[str, Any]:
        # Descriptors and memory mean nothing in another process.
        return {**self.__dict__, "_reader": ShardReader(), "_ring": _SharedRing()}


class _SharedRing:
    """Shared memory for a worker's batches, used in turns: fresh pages for every batch would cost a third of a worker's
    time and be freed at the trainer's expense.

    A slot is free again when its turn comes: a worker is given its n-th step while the trainer takes the batch of
    `_STEPS_AHEAD` steps before, and what was taken earlier has been copied out by then.
    """

    def __init__(self) -> None:
        self._slots: list[torch.UntypedStorage | None] = [None] * _SLOTS
        self._turn = 0

    def take(self, shape: Sequence[int]) -> Tensor:
        """Memory of the next slot, uint8, holding whatever was left there."""
        index, size = self._turn % _SLOTS, math.prod(shape)
        self._turn += 1
        storage = self._slots[index]
        if storage is None or storage.nbytes() < size:
            # Some more than now needed, as the next batch may need a few frames more.
            storage = torch.UntypedStorage._new_shared(size + size // 8)  # type: ignore[no-untyped-call]  # noqa: SLF001
            self._slots[index] = storage
        frames: Tensor = torch.empty(0, dtype=torch.uint8).set_(storage, 0, tuple(shape))  # type: ignore[call-overload]
        return frames


def _private_memory(shape: Sequence[int]) -> Tensor:
    # NumPy asks the kernel for huge pages and torch does not: touching them for the first time costs 1 ms a clip
    # instead of 8 (measured).
    return torch.from_numpy(np.empty(shape, np.uint8))


def _leave_at_once(_worker: int) -> None:
    """Make a worker end without finalising its interpreter, which aborts where a thread is still sending a tensor."""
    Finalize(None, os._exit, args=(0,), exitpriority=-1000)  # the last of the finalisers of a process


def _unchanged(batch: Any) -> Any:
    return batch  # a lambda could not be sent to a spawned process
