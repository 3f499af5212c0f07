"""Fetch the shards that come next while the ones before are trained on: one process beside the trainer.

A process and not a thread, since it can be killed at any moment without harm, which the cache is made for, and takes
nothing from the interpreter that feeds the GPU. Whatever fails here is left to the reader that needs the shard: it
tries again, and is the one to tell.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np

from endocorpus.errors import DataError, UsageError
from endocorpus.signals import deaf_children
from endofm.data.cache import ShardCache
from endofm.data.clips import ClipSet
from endofm.data.remote import RemoteFile
from endofm.data.sampler import IntArray
from endofm.data.settings import DataConfig


class Order(Protocol):
    """An endless order that knows what it needs next."""

    def ahead(self, position: int) -> tuple[IntArray, int]:
        """Rows worth fetching at `position`, and up to which position that holds."""
        ...


class Ahead:
    """Tells a prefetcher what the steps to come need, as the trainer gets there."""

    def __init__(self, clips: ClipSet, order: Order, cache: ShardCache, batch_size: int) -> None:
        self._clips, self._order, self._room, self._batch_size = clips, order, cache.max_bytes, batch_size
        self._holds_until = 0
        self._prefetcher = Prefetcher(cache)

    def go_to(self, step: int | None) -> None:
        """The trainer asks for the batch of this step, or, with None, for no more."""
        if step is None or (self._holds_until and step * self._batch_size < self._holds_until):
            return
        rows, self._holds_until = self._order.ahead(step * self._batch_size)
        named, first = np.unique(self._clips.shard_index_N[rows], return_index=True)
        shards = [self._clips.shards[index] for index in named[np.argsort(first)]]
        remote = [shard for shard in shards if isinstance(shard, RemoteFile)]
        fits = np.cumsum([shard.size for shard in remote]) <= self._room  # more would evict what comes first
        self._prefetcher.want([shard for shard, keep in zip(remote, fits, strict=True) if keep])

    def close(self) -> None:
        """Fetch nothing more."""
        self._prefetcher.close()


def refuse_small_cache(clips: ClipSet, data: DataConfig, cache: ShardCache) -> None:
    """Refuse a cache in which shards would be evicted before all of their clips have been read.

    Raises:
        UsageError: it cannot hold two blocks, or all shards if these are not read in blocks.
    """
    used = [clips.shards[index] for index in np.unique(clips.shard_index_N)]
    sizes = sorted((shard.size for shard in used if isinstance(shard, RemoteFile)), reverse=True)
    if data.stream == "sequential":
        needed, what = sizes[0], "its largest shard"
        remedy = "raise it"
    elif data.block_shards:
        needed, what = sum(sizes[: 2 * data.block_shards]), f"two blocks of {data.block_shards} shards"
        remedy = "raise it, lower data.block_shards, or set data.stream = 'sequential'"
    else:
        needed, what = sum(sizes), "all shards, from which clips are drawn in any order"
        remedy = "raise it, or set data.block_shards"
    if needed > cache.max_bytes:
        raise UsageError(
            f"data.cache_gb = {cache.max_bytes / 1e9:g} cannot hold {what}, which take {needed / 1e9:,.3g} GB; {remedy}"
        )


class Prefetcher:
    """Keeps fetching what `want` was last told. Ends with `close`, or with the process that made it."""

    def __init__(self, cache: ShardCache) -> None:
        context = multiprocessing.get_context("spawn")
        theirs, self._ours = context.Pipe(duplex=False)
        self._told: tuple[RemoteFile, ...] = ()
        self._process = context.Process(target=_work, args=(theirs, cache), daemon=True, name="endofm-prefetch")
        with deaf_children():
            self._process.start()
        theirs.close()

    def want(self, files: Sequence[RemoteFile]) -> None:
        """These files are needed next, in this order; what was wanted before is wanted no more."""
        if tuple(files) != self._told:
            self._told = tuple(files)
            with suppress(OSError):  # it died, for lack of memory say: then nothing is fetched ahead
                self._ours.send(self._told)

    def close(self) -> None:
        """Stop at once."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._ours.close()


class _NewsError(Exception):
    """What is being fetched is not wanted any more."""


def _work(told: Connection, cache: ShardCache) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    wanted: tuple[RemoteFile, ...] = ()
    with suppress(EOFError):  # the trainer is gone
        while True:
            wanted = wanted or told.recv()
            wanted = _fetch(wanted[0], wanted[1:], told, cache)


def _fetch(
    file: RemoteFile, following: tuple[RemoteFile, ...], told: Connection, cache: ShardCache
) -> tuple[RemoteFile, ...]:
    """Fetch one file, unless it is unwanted meanwhile; gives what to fetch after it."""

    def look() -> None:
        nonlocal following
        if told.poll():
            following = told.recv()
            if file not in following:
                raise _NewsError

    try:
        look()
        cache.fetch(file, on_block=look)
    except _NewsError:
        pass
    except (DataError, UsageError):
        return ()  # a server in trouble is not helped by more requests
    return following
