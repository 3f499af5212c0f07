"""Fetch the bytes of one clip out of its shard, and never hand on bytes that are not what was written."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import xxhash

from endocorpus.errors import DataError

_MAX_OPEN_SHARDS = 128  # far below the usual limit of 1,024 descriptors, and enough to keep reopening rare


class ClipBytes(NamedTuple):
    """Where one clip's video lies, and what its bytes must hash to."""

    shard_path: Path
    key: str
    offset: int  # bytes, of the first byte of the video inside the shard
    size: int  # bytes
    xxh3_128: bytes  # 16 bytes, big-endian as in the canonical hex form


class ShardReader:
    """Reads clips from local shards by offset and size, and verifies the hash of every single read.

    Keeps the descriptors of the shards used last open. Belongs to one process; close it, or use it in a `with`.
    """

    def __init__(self) -> None:
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
            DataError: the shard cannot be read, ends too early, or holds other bytes than were written. The message
                names the shard, the clip and the offset, and the command that finds out what else is damaged.
        """
        try:
            data = self._read_exactly(clip)
        except OSError as error:
            raise _damaged(clip, f"cannot be read: {error.strerror}") from None
        if len(data) < clip.size:
            raise _damaged(clip, f"has {len(data)} of {clip.size} bytes: the shard ends too early")
        if xxhash.xxh3_128_digest(data) != clip.xxh3_128:
            raise _damaged(clip, f"is not what was written: its {clip.size} bytes fail their xxh3-128 check")
        return data

    def close(self) -> None:
        """Close all descriptors; a later read opens them again."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def _read_exactly(self, clip: ClipBytes) -> bytes:
        descriptor = self._descriptor(clip.shard_path)
        data = os.pread(descriptor, clip.size, clip.offset)
        while len(data) < clip.size:  # a network file system may return less than there is
            more = os.pread(descriptor, clip.size - len(data), clip.offset + len(data))
            if not more:
                break
            data += more
        return data

    def _descriptor(self, path: Path) -> int:
        if path in self._descriptors:
            self._descriptors.move_to_end(path)
            return self._descriptors[path]
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._descriptors[path] = descriptor
        if len(self._descriptors) > _MAX_OPEN_SHARDS:
            os.close(self._descriptors.popitem(last=False)[1])
        return descriptor


def _damaged(clip: ClipBytes, what: str) -> DataError:
    corpus = clip.shard_path.parent.parent
    return DataError(
        f"{clip.shard_path}: clip {clip.key} at offset {clip.offset} {what}; run `endocorpus verify {corpus}`"
    )
