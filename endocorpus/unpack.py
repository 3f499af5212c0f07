"""Unpacking archives that strangers made: all of it or nothing, inside one folder, and never more than a bound.

Members are written into a work area and moved when the last one is there. A killed run leaves a journal of the files
that were finished; the same call goes on from it. The receipt, written last, says what an archive gave.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import xxhash

from endocorpus.archive import (
    BadArchiveError,
    Member,
    Names,
    claimed_bytes,
    is_archive,
    kind_of,
    members,
    refusal,
    told,
)
from endocorpus.corpus.files import atomic_file, digest_file, fsync_folder, sole_user
from endocorpus.errors import DataError
from endocorpus.naming import FETCHED
from endocorpus.report.text import size as size_text

# Video and pictures pack to about their own size, tables to a tenth; a small archive may hold masks, which pack to
# a hundredth. Deflate reaches 1/1032, so a bomb of any size that is worth throwing passes the bound.
RATIO = 20
FLOOR = 2 << 30  # bytes that any archive may unpack to
RESERVE = 1 << 30  # bytes that stay free on the disk
_LOOK_EVERY = 64 << 20  # bytes written between two looks at the disk
_BLOCK = 1 << 20
_MOVE_AWAY = "move it away, then run the same command again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """One file that an archive gave: its path below the destination, and the xxh3-128 of its bytes."""

    path: str
    bytes: int
    xxh3: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What an archive, known by its sha256, gave."""

    sha256: str
    files: tuple[Unpacked, ...]


def unpack(
    archive: Path,
    dest: Path,
    *,
    state: Path | None = None,
    sha256: str | None = None,
    password: str | None = None,
    limit: int | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Receipt:
    """Unpack a zip, tar or compressed tar below `dest`, and archives that lie in it in their place, one level deep.

    Running it again checks that all files are there, at their size, and does no more.

    Args:
        state: folder for the work area and the receipt, on the file system of `dest`; by default one below `dest`.
        sha256: of the archive, if that is known already.
        limit: most bytes to write; by default 2 GiB and 20 times the size of the archive.
        on_bytes: called with the number of bytes just written.

    Raises:
        BadArchiveError: it is damaged or refused; nothing of it is in `dest`.
        DataError: a file is already there and differs, the disk is full, or a program is missing.
        UsageError: the password is missing or wrong, or another process is at it.
    """
    state = state or dest / FETCHED / archive.name
    sha256 = sha256 or sha256_file(archive)
    with sole_user(state / "lock", f"{state}: another process unpacks {archive.name} there"):
        done = read_receipt(state)
        if done and done.sha256 == sha256 and is_whole(done, dest):
            return done
        work = state / "work"
        limit = limit or FLOOR + RATIO * archive.stat().st_size
        try:
            receipt = _finished_work(work, sha256) or _write_all(archive, work, sha256, password, limit, on_bytes)
        except BadArchiveError:
            shutil.rmtree(work, ignore_errors=True)
            raise
        _place(archive, work / "tree", dest, receipt)
        _write_receipt(state, receipt)
        shutil.rmtree(work)
        return receipt


def check_room(what: object, folder: Path, needed: int) -> None:
    """Raise a `DataError` for `what` unless `needed` bytes fit on the disk of `folder` and a reserve stays free."""
    free = shutil.disk_usage(folder).free
    if free < max(needed, 0) + RESERVE:
        raise DataError(
            f"{what}: takes {size_text(max(needed, 0))} and a reserve of {size_text(RESERVE)}, but only "
            f"{size_text(free)} are free at {folder}; make room, then the same command continues"
        )


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_receipt(state: Path) -> Receipt | None:
    """The receipt in a state folder, if there is a readable one."""
    try:
        raw = json.loads((state / "receipt.json").read_bytes())
        return Receipt(sha256=raw["sha256"], files=tuple(Unpacked(**file) for file in raw["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_whole(receipt: Receipt, dest: Path) -> bool:
    """Whether all files of a receipt lie below `dest` at their size."""
    return all(_size(dest / file.path) == file.bytes for file in receipt.files)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() and not path.is_symlink() else None


def _write_receipt(folder: Path, receipt: Receipt) -> None:
    with atomic_file(folder / "receipt.json") as file:
        file.write(json.dumps(asdict(receipt)).encode())


def _finished_work(work: Path, sha256: str) -> Receipt | None:
    """The receipt of a work area from which only the moving is left."""
    receipt = read_receipt(work)
    return receipt if receipt and receipt.sha256 == sha256 else None


def _write_all(
    archive: Path, work: Path, sha256: str, password: str | None, limit: int, on_bytes: Callable[[int], None]
) -> Receipt:
    if not (work / "of").exists() or (work / "of").read_text() != sha256:
        shutil.rmtree(work, ignore_errors=True)
        (work / "tree").mkdir(parents=True)
        with atomic_file(work / "of") as file:
            file.write(sha256.encode())
    earlier = _read_journal(work)
    check_room(archive, work, claimed_bytes(archive) - sum(file.bytes for file in earlier.values()))
    with (work / "journal.jsonl").open("w", buffering=1) as journal:  # a line is out when its file is done
        writer = _Writer(work, journal, earlier, limit, on_bytes)
        writer.add(archive, password)
    if not writer.done:
        raise BadArchiveError(f"{archive}: holds no file")
    os.sync()  # once, instead of once per picture: the receipt must not outlive the files at a loss of power
    receipt = Receipt(sha256=sha256, files=tuple(sorted(writer.done.values(), key=lambda file: file.path)))
    _write_receipt(work, receipt)
    return receipt


def _read_journal(work: Path) -> dict[str, Unpacked]:
    """The files, by path, that an earlier run finished.

    A machine that lost power may have kept the journal and not the bytes, so they are read.
    """
    done: dict[str, Unpacked] = {}
    if (work / "journal.jsonl").exists():
        for line in (work / "journal.jsonl").read_text().splitlines():
            try:
                file = Unpacked(**json.loads(line))
            except (ValueError, TypeError):  # the run was killed while it wrote this line
                continue
            if _same(work / "tree" / file.path, file):
                done[file.path] = file
    return done


class _Writer:
    """Writes members into the work area, keeps the journal, and holds the bound."""

    def __init__(
        self,
        work: Path,
        journal: IO[str],
        earlier: Mapping[str, Unpacked],
        limit: int,
        on_bytes: Callable[[int], None],
    ) -> None:
        self._work, self._tree, self._journal, self._earlier = work, work / "tree", journal, earlier
        self._limit, self._written, self._looked, self._on_bytes = limit, 0, 0, on_bytes
        self._names = Names()
        self.done: dict[str, Unpacked] = {}
        for file in earlier.values():
            self._note(file)

    def add(self, archive: Path, password: str | None, inside: str = "", shown: Path | None = None) -> None:
        """Write the members of `archive`. One that was found at the path `inside` of another is not looked into."""
        shown, below = shown or archive, inside.rpartition("/")[0]
        with told(shown), closing(members(archive, password)) as packed:
            for member in packed:
                try:
                    path = self._names.take(member.name, below)
                except ValueError as error:
                    raise refusal(shown, member.name, str(error)) from None
                file = self._earlier.get(path)
                if file:
                    self._spend(shown, file.bytes)
                else:
                    file = self._write(shown, member, path)
                    if not inside and is_archive(path) and kind_of(self._tree / path) not in (None, "rar", "7z"):
                        self._open(archive, path, password)
                        continue
                    self._note(file)
                self.done[path] = file

    def _open(self, archive: Path, path: str, password: str | None) -> None:
        inner = (self._tree / path).replace(self._work / "inner")
        self.add(inner, password, path, archive / path)
        inner.unlink()

    def _write(self, shown: Path, member: Member, path: str) -> Unpacked:
        target, hasher, size = self._tree / path, xxhash.xxh3_128(), 0
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as packed, target.open("wb") as file:
            while block := packed.read(_BLOCK):
                self._spend(shown, len(block))
                file.write(block)
                hasher.update(block)
                size += len(block)
        return Unpacked(path=path, bytes=size, xxh3=hasher.hexdigest())

    def _spend(self, shown: Path, size: int) -> None:
        """Count bytes before they are written: what headers claim counts for nothing."""
        self._written += size
        if self._written > self._limit:
            raise BadArchiveError(
                f"{shown}: refused, nothing was unpacked: it gives more than {size_text(self._limit)}, as archives do "
                "that are made to fill disks; if you trust it, unpack it by hand"
            )
        if self._written - self._looked > _LOOK_EVERY:
            self._looked = self._written
            check_room(shown, self._work, 0)
        self._on_bytes(size)

    def _note(self, file: Unpacked) -> None:
        self._journal.write(json.dumps(asdict(file)) + "\n")


def _place(archive: Path, tree: Path, dest: Path, receipt: Receipt) -> None:
    """Move what was unpacked to where it belongs, after a look that nothing else is there. May be run again."""
    for folder in sorted({str(Path(file.path).parent) for file in receipt.files}):
        for part in (Path(folder), *Path(folder).parents)[:-1]:
            if (dest / part).is_symlink() or ((dest / part).exists() and not (dest / part).is_dir()):
                raise DataError(f"{dest / part}: a link or a file where {archive.name} has a folder; {_MOVE_AWAY}")
    for file in receipt.files:
        there = dest / file.path
        if os.path.lexists(there):
            if not _same(there, file):
                raise DataError(f"{there}: already there, and not as in {archive.name}; {_MOVE_AWAY}")
        elif _size(tree / file.path) != file.bytes:
            shutil.rmtree(tree.parent)
            raise DataError(f"{tree / file.path}: lost while it was unpacked; run the same command again")
    dest.mkdir(parents=True, exist_ok=True)
    if tree.exists():
        _merge(tree, dest)


def _merge(source: Path, target: Path) -> None:
    """Move the entries of a folder into another that lacks them; folders that it lacks go in one step."""
    for entry in sorted(source.iterdir()):
        if not os.path.lexists(target / entry.name):
            entry.rename(target / entry.name)
        elif entry.is_dir():
            _merge(entry, target / entry.name)
    fsync_folder(target)


def _same(path: Path, file: Unpacked) -> bool:
    return _size(path) == file.bytes and digest_file(path) == file.xxh3
