"""A digest behind a file, which those who read the file do not mind: what is sealed is whole, or known not to be."""

from __future__ import annotations

from pathlib import Path

import xxhash

_TAG, _DIGEST_SIZE = b"xxh3-128", 16
_CHUNK = 1 << 24  # bytes


def seal(path: Path) -> None:
    """Write the xxh3-128 of all its bytes behind the file."""
    digest = _digest(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(_TAG + digest)


def is_whole(path: Path) -> bool | None:
    """Whether the seal of the file is that of the bytes before it; None where it bears none."""
    size = path.stat().st_size - len(_TAG) - _DIGEST_SIZE
    if size < 0:
        return None
    with path.open("rb") as file:
        file.seek(size)
        tail = file.read()
    return tail == _TAG + _digest(path, size) if tail.startswith(_TAG) else None


def _digest(path: Path, size: int) -> bytes:
    """xxh3-128 of the first `size` bytes."""
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while size > 0 and (chunk := file.read(min(size, _CHUNK))):
            hasher.update(chunk)
            size -= len(chunk)
    return hasher.digest()
