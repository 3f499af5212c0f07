"""Steps in, batches out: fetch, verify, decode and plan in worker processes, in an order that they cannot change."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing.util import Finalize
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from endocorpus.errors import DataError, UsageError
from endocorpus.signals import deaf_children
from endofm.data.batches import Reader, load_batch, private_memory
from endofm.data.cache import ShardCache
from endofm.data.clips import ClipSet
from endofm.data.places import shard_cache
from endofm.data.prefetch import Ahead, refuse_small_cache
from endofm.data.sampler import Blocks, ClipSampler, IntArray, positions_of
from endofm.data.sequential import FrontToBack, SequentialSampler
from endofm.data.settings import DataConfig, decided
from endofm.data.stream import ShardReader
from endofm.data.views import ClipBatch, ViewScheme

_STEPS_AHEAD = 2  # finished or begun per worker before they are asked for; each holds a whole batch in memory
_SLOTS = _STEPS_AHEAD + 1  # of shared memory per worker: one more, for the batch that is being copied out

_WORKER_DIED = "DataLoader worker"  # how torch's messages about it begin


def make_loader(
    clips: ClipSet,
    views: ViewScheme,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    stop_step: int,
    rank: int = 0,
    world: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    data: DataConfig | None = None,
) -> ClipLoader:
    """Batches of the steps `start_step` up to, not including, `stop_step`, in order.

    A batch is a function of the clips, the views, `batch_size`, `seed`, the step, the order that `data` asks for, and
    the rank's share. Neither the number of workers nor the step it started from changes it, so resuming means starting
    at the next step. What a rank gets for its share makes the same global batch for every world, if `data.stream` is
    "indexed".

    A clip that is damaged is replaced by another one, a function of (seed, position), and told in the batch. Whoever
    trains counts them, see `quarantine`.

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
            so a script that calls this needs the usual `if __name__ == "__main__"`. With any, one more process fetches
            shards ahead if some must be.
        pin_memory: hand out batches in page-locked memory; needs a GPU.
        data: how clips are read, fetched and shuffled; as by default if None.

    Raises:
        UsageError: numbers that do not fit together, or a cache that is too small for what is needed at a time.
    """
    if not 0 <= start_step <= stop_step:
        raise UsageError(f"steps {start_step} to {stop_step} are not a range of steps")
    if num_workers < 0:
        raise UsageError(f"num_workers must be at least 0, got {num_workers}")
    positions_of(batch_size, start_step, rank, world)  # fails here, not in a worker, where the shares do not work out
    data = decided(data or DataConfig(), is_remote=clips.is_remote)
    order = make_order(clips, data, batch_size=batch_size, seed=seed, rank=rank, world=world)
    cache = shard_cache(data)
    ahead = None
    if clips.is_remote:
        refuse_small_cache(clips, data, cache)
        ahead = Ahead(clips, order, cache, batch_size) if num_workers else None
    wanted = range(start_step, stop_step)
    return ClipLoader(_Steps(clips, views, order, rank, world, wanted, cache), wanted, num_workers, pin_memory, ahead)


def make_order(
    clips: ClipSet, data: DataConfig, *, batch_size: int, seed: int, rank: int = 0, world: int = 1
) -> ClipSampler | SequentialSampler:
    """Which clip comes when, by settings that are `decided`. Only a sequential order depends on the rank.

    Raises:
        UsageError: numbers that do not fit together.
    """
    if data.stream == "sequential":
        return SequentialSampler(clips, batch_size, seed, rank, world, data.shuffle_buffer)
    blocks = Blocks(clips.shard_numbers(), data.block_shards) if data.block_shards else None
    return ClipSampler(len(clips), batch_size, seed, blocks)


class ClipLoader(Iterator[ClipBatch]):
    """Iterator over batches. Close it, or use it in a `with`, to stop its workers early.

    Iterating raises DataError, with the text it was raised with in a worker, where a shard cannot be read or fetched,
    no other clip can stand in for a bad one, or a worker died; the batches before it have been handed out by then.
    """

    def __init__(
        self, steps: _Steps, wanted: range, num_workers: int, pin_memory: bool, ahead: Ahead | None = None
    ) -> None:
        self._ahead, self._coming = ahead, iter(wanted)
        self.waited_seconds = 0.0
        """Time that callers have spent waiting for batches so far."""
        self._pin_memory = pin_memory
        # Held, so that shared memory stays mapped between the turns of its ring.
        self._mapped: deque[torch.UntypedStorage] = deque(maxlen=max(num_workers, 1) * _SLOTS)
        self._batches: Iterator[ClipBatch | DataError | UsageError]
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
        if self._ahead is not None:
            self._ahead.go_to(next(self._coming, None))
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
        if isinstance(batch, (DataError, UsageError)):
            self.close()
            raise batch
        if batch.pixels.is_shared():  # type: ignore[no-untyped-call]
            self._mapped.append(batch.pixels.untyped_storage())
            if not self._pin_memory:  # pinning copies as well
                return dataclasses.replace(batch, pixels=private_memory(len(batch.pixels)).copy_(batch.pixels))
        return batch.pin_memory() if self._pin_memory else batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers and wait until they are gone. Iteration ends."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()
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


class _Steps(Dataset["ClipBatch | DataError | UsageError"]):
    """Batches by step number. An error is handed out, not raised: torch would wrap it in a printed traceback."""

    def __init__(
        self,
        clips: ClipSet,
        views: ViewScheme,
        order: ClipSampler | SequentialSampler,
        rank: int,
        world: int,
        wanted: range,
        cache: ShardCache,
    ) -> None:
        self._clips, self._views, self._order, self._rank, self._world = clips, views, order, rank, world
        self._wanted, self._cache = wanted, cache
        self._reader, self._ring = ShardReader(cache), _SharedRing()
        self._front_to_back: FrontToBack | None = None

    def __getitem__(self, step: int) -> ClipBatch | DataError | UsageError:
        positions = positions_of(self._order.batch_size, step, self._rank, self._world)
        self._ring.turn()
        try:
            return load_batch(
                self._clips,
                self._order.rows_at(positions).tolist(),
                positions.tolist(),
                self._views,
                seed=self._order.seed,
                reader=self._reader_at(positions),
                memory=None if get_worker_info() is None else self._ring.take,
                substitute=self._order.substitute,
            )
        except (DataError, UsageError) as error:
            return error

    def _reader_at(self, positions: IntArray) -> Reader:
        """What to read the clips at these positions with."""
        if isinstance(self._order, ClipSampler):
            return self._reader
        if self._front_to_back is None:
            worker = get_worker_info()
            ours = slice(worker.id, None, worker.num_workers) if worker else slice(None)  # as torch deals out steps
            self._front_to_back = FrontToBack(self._order, self._reader, self._wanted[ours])
        self._front_to_back.go_to(positions)
        return self._front_to_back

    def __getstate__(self) -> dict[str, Any]:
        # Descriptors and memory mean nothing in another process.
        return {**self.__dict__, "_reader": ShardReader(self._cache), "_ring": _SharedRing()}


class _SharedRing:
    """Shared memory for a worker's batches, used in turns: fresh pages for every batch would cost a third of a worker's
    time and be freed at the trainer's expense.

    A slot is free again when its turn comes: a worker is given its n-th step while the trainer takes the batch of
    `_STEPS_AHEAD` steps before, and what was taken earlier has been copied out by then.
    """

    def __init__(self) -> None:
        self._slots: list[torch.UntypedStorage | None] = [None] * _SLOTS
        self._turn = 0

    def turn(self) -> None:
        """Go to the next slot: what is taken from here on is for another batch."""
        self._turn += 1

    def take(self, size: int) -> Tensor:
        """So many bytes of this slot, uint8, holding whatever was left there."""
        index = self._turn % _SLOTS
        storage = self._slots[index]
        if storage is None or storage.nbytes() < size:
            # Some more than now needed, as the next batch may need a few frames more.
            storage = torch.UntypedStorage._new_shared(size + size // 8)  # type: ignore[no-untyped-call]  # noqa: SLF001
            self._slots[index] = storage
        pixels: Tensor = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (size,))  # type: ignore[call-overload]
        return pixels


def _leave_at_once(_worker: int) -> None:
    """Make a worker end without finalising its interpreter, which aborts where a thread is still sending a tensor."""
    Finalize(None, os._exit, args=(0,), exitpriority=-1000)  # the last of the finalisers of a process


def _unchanged(batch: Any) -> Any:
    return batch  # a lambda could not be sent to a spawned process
