"""Reading archives that strangers made: the plain files inside, each under a name that cannot leave its folder.

Nothing here writes to a disk. An archive with one unacceptable member is refused as a whole: what was packed with care
holds none, and half an archive is no better than none.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import subprocess
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, cast

import pyzipper

from endocorpus.errors import DataError, UsageError
from endocorpus.naming import FETCHED, printable

PASSWORD = "ENDOCORPUS_PASSWORD"
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".rar", ".7z")
MAX_MEMBERS = 1_000_000  # files and folders; several times the largest public set; each costs an inode and memory
_PROMPT = "Enter passphrase:"  # bsdtar's
_MAX_HEADERS = 1 << 20  # bytes of tar headers that tarfile would hold in memory at once
_MAX_TAIL = 64 << 20  # bytes after the last member of a tar; its padding is some KiB

Kind = Literal["zip", "tar", "gz", "xz", "bz2", "rar", "7z"]
_MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"\x1f\x8b", "gz"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"BZh", "bz2"),
    (0, b"Rar!\x1a\x07", "rar"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (257, b"ustar", "tar"),
)

_AES = 99  # the compression method under which WinZip hides the real one (AE-1, AE-2)
_DAMAGE = (
    zipfile.BadZipFile,
    pyzipper.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    # What the readers stumble over in fields that nobody made by accident: numbers that are none, names that are not
    # in their encoding, thousands of headers that each lead to the next.
    ArithmeticError,
    LookupError,
    RecursionError,
    ValueError,
    struct.error,
)
_OPENERS: dict[str, Callable[..., Any]] = {"gz": gzip.open, "xz": lzma.open, "bz2": bz2.open}


class BadArchiveError(DataError):
    """The archive itself is hostile, damaged or no archive: trying again with the same file is of no use."""


class DamagedArchiveError(BadArchiveError):
    """It is damaged, cut short or no archive at all: another copy of it may be whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A plain file inside an archive: the name as packed, and its bytes, to be read before the next member is."""

    name: str
    open: Callable[[], IO[bytes]]


class Names:
    """The names that archives gave for one folder so far; each is checked against the name rules and all others."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[str, bool]] = {}  # without case and composition -> path, is it a file

    def take(self, raw: str, below: str = "") -> str:
        """The path, relative and `/`-separated, for a file that was packed as `raw` into an archive found in `below`.

        Raises:
            ValueError: the name is not acceptable; says why.
        """
        parts = [*(below.split("/") if below else ()), *clean_parts(raw)]
        if parts[0].casefold().startswith(FETCHED):
            raise ValueError("has a name that this program keeps for itself")
        if len(self._taken) >= MAX_MEMBERS:
            raise ValueError(f"comes after {MAX_MEMBERS:,} others, which is more than an archive may hold")
        path = "/".join(parts)
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            there, is_file = self._taken.setdefault(_folded(folder), (folder, False))
            if there != folder:
                raise ValueError(f"lies in a folder that differs from {printable(there)} in nothing but case")
            if is_file:
                raise ValueError(f"lies below {printable(there)}, which is a file")
        there, is_file = self._taken.get(_folded(path), (path, False))
        if there != path:
            raise ValueError(f"differs from {printable(there)} in nothing but case")
        if _folded(path) in self._taken:
            raise ValueError("is there twice" if is_file else "is a file and also a folder")
        self._taken[_folded(path)] = (path, True)
        return path


def clean_parts(raw: str) -> list[str]:
    """The parts of a packed name, which must be relative, without `..`, and of a bearable length.

    Backslashes separate, as some Windows programs write them.

    Raises:
        ValueError: the name is not acceptable; says why.
    """
    name = raw.replace("\\", "/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise ValueError("has an absolute path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("leads out of its folder")
    if not parts:
        raise ValueError("has no name")
    if any(unicodedata.category(char) == "Cc" for char in name):
        raise ValueError("has a control character in its name")
    if len(os.fsencode(name)) > 1024 or max(len(os.fsencode(part)) for part in parts) > 240:
        raise ValueError("has a name that is too long")
    return parts


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def is_archive(name: str) -> bool:
    """Whether a file's name says that it is an archive."""
    return name.lower().endswith(SUFFIXES)


def kind_of(archive: Path) -> Kind | None:
    """What a file is by its first bytes; names may lie."""
    with archive.open("rb") as file:
        head = file.read(512)
    found = next((kind for at, magic, kind in _MAGIC if head[at : at + len(magic)] == magic), None)
    return "tar" if found is None and archive.suffix.lower() == ".tar" and len(head) == 512 else found


@contextmanager
def told(archive: Path) -> Iterator[None]:
    """What the readers of archives raise, as one line that names the archive.

    Raises:
        DamagedArchiveError: it is damaged.
        DataError: it cannot be read here, or the disk is full.
    """
    try:
        yield
    except NotImplementedError as error:
        raise DataError(f"{archive}: cannot be unpacked here ({error}); {_by_hand(archive)}") from None
    except _DAMAGE as error:
        why = printable(str(error))[:200]
        raise DamagedArchiveError(f"{archive}: damaged or cut short ({why}); get it again") from None
    except OSError as error:
        # So decompressors say that the data is wrong, and the system that a header names a place before the start.
        if error.errno is None or (error.errno == errno.EINVAL and error.filename is None):
            raise DamagedArchiveError(f"{archive}: damaged ({error}); get it again") from None
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            full = "the disk is full, or its file system takes no file of this size"
            raise DataError(f"{archive}: {full}; make room, then the same command continues") from None
        raise


def members(archive: Path, password: str | None = None) -> Generator[Member, None, None]:
    """The plain files of a zip, or of a tar with or without gzip, xz or bzip2, in packed order; by bsdtar also of rar
    and 7z. Run it inside `told`.

    Raises:
        BadArchiveError: a link, a device, or anything else but files and folders is in it, or too many of them.
        DamagedArchiveError: it is no archive.
        DataError: it takes a program that is not there.
        UsageError: the password is missing or wrong.
    """
    kind = kind_of(archive)
    if kind is None:
        raise DamagedArchiveError(f"{archive}: not an archive{_page_hint(archive)}")
    if kind == "zip":
        return _zip_members(archive, password)
    if kind in ("rar", "7z"):
        return _foreign_members(archive, password)
    return _tar_members(archive, kind)


def claimed_bytes(archive: Path) -> int:
    """How much room an archive asks for, as far as its own directory tells; a claim, never a bound."""
    if kind_of(archive) != "zip":
        return archive.stat().st_size
    with told(archive), zipfile.ZipFile(archive) as packed:
        return sum(info.file_size for info in packed.infolist())


def _zip_members(archive: Path, password: str | None) -> Generator[Member, None, None]:
    with zipfile.ZipFile(archive) as packed:
        infos = packed.infolist()
        for number, info in enumerate(infos, 1):
            _count(archive, info.filename, number)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise refusal(archive, info.filename, "is a link or a device")
        # Folders come with their files. The original name is looked at because zipfile cuts `filename` at a NUL.
        files = [info for info in infos if not info.orig_filename.replace("\\", "/").endswith("/")]
        for info in files:
            _check_name(archive, info.orig_filename)
        locked = [info for info in infos if info.flag_bits & 1]
        if locked and not password:
            raise UsageError(f"{archive}: encrypted; put its password into the environment variable {PASSWORD}")
        if any(info.compress_type == _AES for info in locked):
            with pyzipper.AESZipFile(archive) as unlocked:
                yield from (_zip_member(unlocked, unlocked.NameToInfo[info.filename], password) for info in files)
        elif locked and shutil.which("bsdtar"):  # zipfile decrypts less than a megabyte per second
            yield from _foreign_members(archive, password)
        else:
            yield from (_zip_member(packed, info, password) for info in files)


def _zip_member(packed: Any, info: zipfile.ZipInfo, password: str | None) -> Member:
    return Member(name=info.orig_filename, open=partial(_open_zip, packed, info, password))


def _count(archive: Path, name: str, number: int) -> None:
    if number > MAX_MEMBERS:
        why = f"comes after {MAX_MEMBERS:,} other files and folders, which is more than an archive may hold"
        raise refusal(archive, name, why)


def _check_name(archive: Path, name: str) -> None:
    try:
        clean_parts(name)
    except ValueError as error:
        raise refusal(archive, name, str(error)) from None


def _open_zip(packed: Any, info: zipfile.ZipInfo, password: str | None) -> IO[bytes]:
    try:
        return cast(IO[bytes], packed.open(info, pwd=password.encode() if password else None))
    except NotImplementedError:
        raise
    except RuntimeError:
        raise UsageError(f"{packed.filename}: the password in {PASSWORD} is wrong") from None


class _Tar(tarfile.TarFile):
    """A tar that counts the bytes of headers that are about other headers: names and attributes of any length."""

    lasting = 0  # of headers about all that follows
    pending = 0  # of headers about the next member


class _Header(tarfile.TarInfo):
    """A tar header that cannot make tarfile read gigabytes of "long name" into memory, at once or bit by bit."""

    def _proc_member(self, tar: _Tar) -> tarfile.TarInfo | None:
        if self.type == tarfile.XGLTYPE:
            tar.lasting += self.size
        elif self.type in b"xXLK":
            tar.pending += self.size
        if tar.lasting + tar.pending > _MAX_HEADERS:
            raise tarfile.ReadError("more than a megabyte of headers for one member")
        return cast(tarfile.TarInfo | None, super()._proc_member(tar))  # type: ignore[misc]


class _Counted:
    """A stream that knows where its last byte other than zero was: tarfile takes a broken header for the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.length, self._data_end = file, 0, 0

    def read(self, size: int) -> bytes:
        block = self._file.read(size)
        if data := len(block.rstrip(b"\0")):
            self._data_end = self.length + data
        self.length += len(block)
        return block

    def finish(self, end: int) -> None:
        """Read on, so that checksums are checked. `end`: where tarfile found no further member."""
        while self.read(1 << 16):
            if self.length > end + _MAX_TAIL:
                break
        if self._data_end > end:
            raise tarfile.ReadError("a broken header, or more data after the end")
        if self.length < end + 512:
            raise tarfile.ReadError("no mark of the end")


def _tar_members(archive: Path, kind: Kind) -> Generator[Member, None, None]:
    with cast(IO[bytes], _OPENERS.get(kind, open)(archive, "rb")) as file:
        yield from _tar_stream(archive, file)


def _tar_stream(archive: Path, file: IO[bytes]) -> Generator[Member, None, None]:
    counted = _Counted(file)
    with _Tar.open(fileobj=cast(IO[bytes], counted), mode="r|", tarinfo=_Header) as tar:
        number = 0
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would remember all
            tar.pending, number = 0, number + 1
            _count(archive, info.name, number)
            if info.isreg() and not info.issparse():
                yield Member(name=info.name, open=partial(_open_tar, tar, info))
            elif not info.isdir():
                raise refusal(archive, info.name, "is a link, a device, or something else that is no plain file")
        counted.finish(tar.offset)


def _open_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(info)
    assert file is not None  # a plain file has content
    return file


def _foreign_members(archive: Path, password: str | None) -> Generator[Member, None, None]:
    """What bsdtar (libarchive) can read, as the tar stream that it makes of it: it writes no file itself.

    Not for AES in zips: bsdtar 3.6 gives damaged data of them without a word.
    """
    program = shutil.which("bsdtar")
    if program is None:
        need = "the program bsdtar (Debian and Ubuntu: apt install libarchive-tools)"
        raise DataError(f"{archive}: takes {need}; {_by_hand(archive)}")
    command = [program, "-cf", "-", "--format", "pax", f"@{archive.absolute()}"]
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as secret:
        secret.write(f"{password or ''}\n".encode())
        secret.seek(0)
        # In a session without a terminal it reads the password from its input, where no other user can see it.
        with subprocess.Popen(
            command, stdin=secret, stdout=subprocess.PIPE, stderr=said, start_new_session=True
        ) as child:
            output = cast(IO[bytes], child.stdout)
            try:
                yield from _tar_stream(archive, output)
            except tarfile.TarError:
                output.close()
                if child.wait() == 0:
                    raise
            except BaseException:
                child.kill()
                raise
        said.seek(0)
        complaint = said.read(1 << 22).decode(errors="replace")
    if child.returncode:
        if complaint.count(_PROMPT) > 1:  # it asks some thousand times before it gives up
            raise UsageError(f"{archive}: the password in {PASSWORD} is missing or wrong")
        why = printable(complaint.replace(_PROMPT, "").strip()[:200])
        raise BadArchiveError(f"{archive}: damaged, or not readable by bsdtar ({why}); {_by_hand(archive)}")


def refusal(archive: Path, name: str, why: str) -> BadArchiveError:
    """That an archive is not unpacked because of one of its members."""
    return BadArchiveError(f"{archive}: refused, nothing was unpacked: {printable(name)!r} in it {why}")


def _by_hand(archive: Path) -> str:
    program = "unrar x" if archive.suffix.lower() == ".rar" else "7z x"
    return f"or unpack it by hand into the source's folder: {program} {archive.name}"


def _page_hint(archive: Path) -> str:
    with archive.open("rb") as file:
        head = file.read(64).lstrip()
    return ", but a page, such as a provider shows for a log-in or a refusal; get it again" if head[:1] == b"<" else ""
