"""Files that exist only when they are complete: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from endocorpus.errors import UsageError

PARTIAL = ".partial"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` (same file system) that takes its name when the block ends well.

    At any crash, also of the machine, `path` is the old file or the new one, and whole. Parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    try:
        yield temporary
        fsync_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_file(path: Path) -> None:
    """Have the system write out what was written to a file so far, by whomever."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """`atomic_path`, opened for writing."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file


@contextmanager
def sole_user(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file `path`; it is free again when this process ends, however it ends.

    Raises:
        UsageError: another process holds it; `refusal` says what that means.
        OSError: the lock file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(refusal) from None
        yield


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def signed_json(value: Mapping[str, object]) -> bytes:
    """A JSON object with the digest of its content, so that no change of it goes unnoticed."""
    signed = {**value, "digest": _digest_json(value)}
    return (json.dumps(signed, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")


def parse_signed(text: str | bytes) -> dict[str, Any]:
    """The value that `signed_json` was given.

    Raises:
        ValueError: damaged, edited, or something else.
    """
    try:
        value = json.loads(text)
        intact = value.pop("digest") == _digest_json(value)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not a signed JSON object") from error
    if not intact:
        raise ValueError("not as it was written")
    return dict(value)


def _digest_json(value: Mapping[str, object]) -> str:
    return digest_bytes(json.dumps(value, sort_keys=True).encode())


def digest_file(path: Path) -> str:
    """xxh3-128 of a file's bytes, 32 hex digits."""
    with path.open("rb") as file:
        return digest_stream(file)


def digest_stream(file: BinaryIO) -> str:
    """xxh3-128 of the rest of an open file, 32 hex digits."""
    hasher = xxhash.xxh3_128()
    while block := file.read(1 << 20):
        hasher.update(block)
    return hasher.hexdigest()


def digest_bytes(data: bytes) -> str:
    """xxh3-128 of bytes, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(data)
