"""Fetch the bytes of one clip out of its shard, and never hand on bytes that are not what was written."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import xxhash

from endocorpus.errors import DataError
from endofm.data.cache import ShardCache
from endofm.data.remote import RemoteFile, redacted

_MAX_OPEN_SHARDS = 128  # far below the usual limit of 1,024 descriptors, and enough to keep reopening rare


class BadClipError(DataError):
    """This one clip is damaged; the place where it lies can be read."""


class ClipBytes(NamedTuple):
    """Where one clip's video lies, and what its bytes must hash to."""

    shard: Path | RemoteFile
    key: str
    offset: int  # bytes, of the first byte of the video inside the shard
    size: int  # bytes
    xxh3_128: bytes  # 16 bytes, big-endian as in the canonical hex form


class ShardReader:
    """Reads clips by offset and size, and verifies the hash of every single read.

    Keeps the descriptors of the local shards used last open. Belongs to one process; close it, or use it in a `with`.
    """

    def __init__(self, cache: ShardCache | None = None) -> None:
        """`cache` holds the shards of remote corpora; without them none is needed."""
        self._cache = cache
        self._descriptors: OrderedDict[Path, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def read(self, clip: ClipBytes) -> bytes:
        """The video file of one clip.

        Raises:
            BadClipError: the shard ends too early, or holds other bytes than were written. The message names the shard,
                the clip and the offset, and the command that finds out what else is damaged.
            DataError: the shard cannot be read or fetched at all.
        """
        try:
            return verified(clip, self._read(clip))
        except BadClipError:
            if not self.drop_if_rotten(clip.shard):
                raise
        return verified(clip, self._read(clip))  # the server's copy, again

    def open(self, shard: Path | RemoteFile) -> int:
        """A descriptor of a whole shard, at its start; whoever asks closes it.

        Raises:
            DataError: it cannot be read or fetched.
        """
        if not isinstance(shard, Path):
            if self._cache is None:
                raise ValueError(f"{shard}: a shard on a server is read through a cache")
            return self._cache.open(shard)
        try:
            return os.open(shard, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{shard}: cannot be read: {error.strerror}") from None

    def drop_if_rotten(self, shard: Path | RemoteFile) -> bool:
        """Remove a cached copy that is no longer what was fetched, and say whether it was so: `open` gets another."""
        return not isinstance(shard, Path) and self._cache is not None and self._cache.drop_if_rotten(shard)

    def close(self) -> None:
        """Close all descriptors; a later read opens them again."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _read(self, clip: ClipBytes) -> bytes:
        try:
            if isinstance(clip.shard, Path):
                return _read_exactly(self._descriptor(clip.shard), clip)
            descriptor = self.open(clip.shard)
            try:
                return _read_exactly(descriptor, clip)
            finally:
                os.close(descriptor)  # or its room on the disk would not be free when it is evicted
        except OSError as error:
            raise DataError(damage(clip, f"cannot be read: {error.strerror}")) from None

    def _descriptor(self, path: Path) -> int:
        if path in self._descriptors:
            self._descriptors.move_to_end(path)
            return self._descriptors[path]
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._descriptors[path] = descriptor
        if len(self._descriptors) > _MAX_OPEN_SHARDS:
            os.close(self._descriptors.popitem(last=False)[1])
        return descriptor


def verified(clip: ClipBytes, data: bytes) -> bytes:
    """`data`, if these are the bytes of the clip.

    Raises:
        BadClipError: too few, or others than were written.
    """
    if len(data) < clip.size:
        raise BadClipError(damage(clip, f"has {len(data)} of {clip.size} bytes: the shard ends too early"))
    if xxhash.xxh3_128_digest(data) != clip.xxh3_128:
        raise BadClipError(damage(clip, f"is not what was written: its {clip.size} bytes fail their xxh3-128 check"))
    return data


def damage(clip: ClipBytes, what: str) -> str:
    """A sentence about a clip that names everything needed to look at it."""
    if isinstance(clip.shard, Path):
        remedy = f"run `endocorpus verify {clip.shard.parent.parent}`"
    else:
        remedy = f"compare {redacted(clip.shard.root)} with the corpus that was copied there"
    return f"{clip.shard}: clip {clip.key} at offset {clip.offset} {what}; {remedy}"


def _read_exactly(descriptor: int, clip: ClipBytes) -> bytes:
    data = os.pread(descriptor, clip.size, clip.offset)
    while len(data) < clip.size:  # a network file system may return less than there is
        more = os.pread(descriptor, clip.size - len(data), clip.offset + len(data))
        if not more:
            break
        data += more
    return data
