"""Shards of remote corpora on a local disk: whole, checked, at most so many bytes, shared by all processes of a node.

    <folder>/files/<xxh3-128>-<size>           a whole file whose bytes were checked
    <folder>/files/<xxh3-128>-<size>.damaged   what the server has under a name, if it is not what was written
    <folder>/partial/<xxh3-128>-<size>         on its way; whoever holds the lock of the same name writes it
    <folder>/locks/...                         empty files for flock, which a process loses with its life

A name says what the bytes must be, so a file never changes and two runs, or two corpora with a shard in common, share
it. Readers open, read and close: a file that is evicted meanwhile stays readable until then, and its room is free soon.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from endocorpus.corpus.files import digest_file
from endocorpus.errors import DataError, UsageError
from endofm.data.remote import RemoteFile, download

_DAMAGED = ".damaged"
_OURS = re.compile(r"[0-9a-f]{32}-\d+(?:\.damaged)?")
_PAUSE = 0.05  # seconds between looks while the downloads of others hold all the room


@dataclass(frozen=True, slots=True)
class ShardCache:
    """The cache in `folder`, which all processes that name it share.

    Args:
        folder: on a local disk; locks of network file systems are not to be trusted. Made if need be.
        max_bytes: most that its files take together, finished or not.
        retry_seconds: how long to go on with a server that sends nothing.
    """

    folder: Path
    max_bytes: int
    retry_seconds: float

    def open(self, wanted: RemoteFile, on_block: Callable[[], None] = lambda: None) -> int:
        """A descriptor of the file, which is fetched if it is not there; whoever asks closes it.

        Where another process fetches the same file, wait for it. If the server has other bytes than were written, they
        are fetched again once and then handed out as they are: whoever reads a clip checks it, and one flipped bit need
        not cost the other clips.

        Args:
            on_block: called now and then during a download; what it raises ends it.

        Raises:
            DataError: the file cannot be fetched, is larger than the cache, or the disk is full.
            UsageError: the folder cannot be written.
        """
        found = self._find(wanted)
        if found is not None:
            return found
        with self._locked(_name(wanted)):
            found = self._find(wanted)
            return self._fetch(wanted, on_block) if found is None else found

    def fetch(self, wanted: RemoteFile, on_block: Callable[[], None] = lambda: None) -> None:
        """See to it that the file is there, or will be: if another process is at it, do nothing.

        Raises:
            DataError, UsageError: as `open`.
        """
        with self._locked(_name(wanted), wait=False) as ours:
            if ours:
                found = self._find(wanted)
                os.close(self._fetch(wanted, on_block) if found is None else found)

    def drop_if_rotten(self, wanted: RemoteFile) -> bool:
        """Remove a file whose bytes are no longer those that were checked, and say whether it was so."""
        path = self._path(wanted)
        with self._locked(_name(wanted)), contextlib.suppress(FileNotFoundError):
            if digest_file(path) != wanted.xxh3_128:
                path.unlink()
                return True
        return False

    def forget_damaged(self) -> None:
        """Remove what was damaged on a server, which may have been mended since: before corpora are opened."""
        if self.folder.is_dir():
            for path in self.folder.glob(f"files/*{_DAMAGED}"):
                path.unlink(missing_ok=True)

    def _path(self, wanted: RemoteFile) -> Path:
        return self.folder / "files" / _name(wanted)

    def _find(self, wanted: RemoteFile) -> int | None:
        path = self._path(wanted)
        for candidate in (path, path.with_name(path.name + _DAMAGED)):
            try:
                descriptor = os.open(candidate, os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise DataError(f"{candidate}: cannot be read: {error.strerror}") from None
            with contextlib.suppress(OSError):  # of another user, say: then it grows old
                os.utime(descriptor)  # eviction goes by it
            return descriptor
        return None

    def _fetch(self, wanted: RemoteFile, on_block: Callable[[], None]) -> int:
        """Download a file whose lock is held; its descriptor was open before its name was there to be evicted."""
        if wanted.size > self.max_bytes:
            raise DataError(
                f"{wanted}: {wanted.size / 1e9:,.2f} GB, and the cache {self.folder} may hold "
                f"{self.max_bytes / 1e9:g}; raise data.cache_gb"
            )
        partial = self.folder / "partial" / _name(wanted)
        self._make_room(wanted, partial)
        try:
            with partial.open("r+b") as file:
                for _ in range(2):  # again, once, in case it was the way that damaged it
                    intact = download(wanted, file, retry_seconds=self.retry_seconds, on_block=on_block)
                    if intact:
                        break
                target = self._path(wanted)
                partial.replace(target if intact else target.with_name(target.name + _DAMAGED))
                file.seek(0)
                return os.dup(file.fileno())  # to be read; nobody writes to a file that has its name
        except OSError as error:
            raise self._unwritable(error, wanted) from None
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, wanted: RemoteFile, partial: Path) -> None:
        """Evict what was used least recently until the file fits, and hold its room with an empty file of its size."""
        while True:
            with self._locked("room"):
                partial.unlink(missing_ok=True)  # of a process that was killed: its lock is ours
                self._remove_abandoned()
                if self._evict(wanted.size):
                    try:
                        with partial.open("wb") as file:
                            file.truncate(wanted.size)
                    except OSError as error:
                        partial.unlink(missing_ok=True)
                        raise self._unwritable(error, wanted) from None
                    return
            time.sleep(_PAUSE)  # downloads that hold room end by themselves, and then can be evicted

    def _evict(self, size: int) -> bool:
        """Make room for `size` bytes, within the bound and on the disk, and say whether there is."""
        kept = sorted(_entries(self.folder / "files"), key=lambda entry: entry[1].st_mtime_ns)
        reserved = sum(stat.st_size for _, stat in _entries(self.folder / "partial"))
        missing = sum(stat.st_size for _, stat in kept) + reserved + size - self.max_bytes
        # Of partial files the disk has not seen all bytes yet.
        written = sum(stat.st_blocks * 512 for _, stat in _entries(self.folder / "partial"))
        missing = max(missing, size + reserved - written - shutil.disk_usage(self.folder).free)
        if missing > sum(stat.st_size for _, stat in kept) and not reserved:
            raise DataError(
                f"{self.folder}: the disk is full: {missing / 1e9:,.2f} GB are missing for a shard of "
                f"{size / 1e9:,.2f} GB; free some, or name another folder (data.cache_dir, ENDOFM_CACHE)"
            )
        for path, stat in kept:
            if missing <= 0:
                break
            path.unlink(missing_ok=True)
            missing -= stat.st_size
        return missing <= 0

    def _remove_abandoned(self) -> None:
        """Remove the half files of processes that are gone."""
        for path, _ in _entries(self.folder / "partial"):
            with self._locked(path.name, wait=False) as ours:
                if ours:
                    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold a lock; without `wait`, say whether it was free."""
        try:
            for folder in ("files", "partial", "locks"):
                (self.folder / folder).mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / "locks" / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UsageError(
                f"{self.folder}: cannot be written: {error.strerror}; name another folder for the cache "
                "(data.cache_dir, ENDOFM_CACHE)"
            ) from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def _unwritable(self, error: OSError, wanted: RemoteFile) -> DataError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some room, lower data.cache_gb" if full else "see who may write there"
        return DataError(
            f"{self.folder}: {wanted} cannot be written: {error.strerror}; {remedy}, or name another folder "
            "(data.cache_dir, ENDOFM_CACHE)"
        )


def default_folder() -> Path:
    """Where the cache lies if nobody says: $ENDOFM_CACHE, or the user's folder for caches."""
    if named := os.environ.get("ENDOFM_CACHE"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "endofm" / "shards"


def _name(wanted: RemoteFile) -> str:
    return f"{wanted.xxh3_128}-{wanted.size}"


def _entries(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """Our files in a folder; what else lies there is nobody's business. Some may go while we look."""
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if _OURS.fullmatch(path.name):
                found.append((path, path.stat()))
    return found
