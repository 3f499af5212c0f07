"""Intake: what comes in gets a neutral random id before it is opened, and files that pull in others are refused.

From here on a recording is spoken of by its id alone; the vault knows which path that was. Which demuxers and
protocols may be used at all is said once, in `endocorpus.media.probe` (`DEMUXERS`, `OPEN_OPTIONS`): nothing but local
files of self-contained formats. What is refused here would not be followed by them either; it is refused by name, so
that a recording whose pixels lie elsewhere is not mistaken for a damaged one.
"""

from __future__ import annotations

import os
import re
import resource
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from endocorpus.deid.vault import Vault
from endocorpus.records import Excluded, Reason, Stage

FILES = "file"  # the domain of their ids
_HEAD_BYTES = 4096  # a script says what it is within these
# What scripts begin with, after blanks and a byte order mark, in lower case.
_SCRIPTS: Mapping[bytes, str] = MappingProxyType(
    {
        b"ffconcat": "a script that joins other files",
        b"file '": "a list of other files",
        b"file ": "a list of other files",
        b"#extm3u": "a playlist",
        b"#ext-x": "a playlist",
        b"[playlist]": "a playlist",
        b"[reference]": "a playlist",
        b"<asx": "a playlist",
        b"<smil": "a playlist",
        b"<mpd": "a playlist",
        b"<playlist": "a playlist",
        b"<smoothstreamingmedia": "a playlist",
        b"rtsptext": "a playlist",
        b"v=0\r": "a description of a session on a network",
        b"v=0\n": "a description of a session on a network",
        b"rtsp://": "an address on a network",
        b"http://": "an address on a network",
        b"https://": "an address on a network",
        b"#avsplusversion": "a script",
        b"<?xml": "a text in XML",
    }
)
_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"dinf", b"udta", b"edts", b"rmra", b"rmda", b"moof", b"traf"}
_DEEPEST = 12  # boxes in boxes
_LARGEST = 64 << 20  # bytes of a box that is looked through; an index of a film of days
_OUTSIDE = "it names other files or addresses that hold its content (an external data reference)"


def neutral_ids(vault: Vault, site: str, names: Iterable[str]) -> dict[str, str]:
    """A random id of 26 of a-z and 2-7 for each path as `os.fsdecode` gives it; the same one at every build.

    Raises:
        DataError: the vault is damaged.
    """
    given = vault.given_all(FILES, site, map(os.fsencode, names))
    return {os.fsdecode(original): neutral for original, neutral in given.items()}


def original_path(vault: Vault, neutral: str) -> Path | None:
    """The path behind an id, for who may open the vault."""
    name = vault.original(neutral)
    return None if name is None else Path(os.fsdecode(name))


def no_core_dumps() -> None:
    """Let neither this process nor what it starts leave its memory, with names in it, on a disk when it crashes.

    A machine whose `core_pattern` pipes cores to a program may still hand them over; that program reads this limit.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def refuse_hostile_media(paths: Iterable[Path]) -> None:
    """`refuse_hostile` for the files of a recording. What cannot be opened, or is no file, is left to the probe.

    Raises:
        Excluded: one of them is hostile, or cannot be read to its end.
    """
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not keep us waiting
        except OSError:
            continue
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            continue
        with os.fdopen(descriptor, "rb") as file:
            refuse_hostile(file)


def refuse_hostile(file: BinaryIO) -> None:
    """Refuse a file that is a list of other files, or a QuickTime/MP4 file whose content lies in others.

    Raises:
        Excluded: it is one. The message names no file.
    """
    head = file.read(_HEAD_BYTES)
    script = _script(head)
    if script is None and head[4:8] not in _FIRST_BOXES:
        return
    file.seek(0, os.SEEK_END)
    end = file.tell()
    if script is None and _refers_outside(file, 0, end, 0):
        script = _OUTSIDE
    if script is not None:
        raise Excluded(Stage.PROBE, Reason.NOT_A_VIDEO, f"refused: {script}, not a recording of its own")


_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"uuid", b"udta"}


def _script(head: bytes) -> str | None:
    for text in (head, head.decode("utf-16-le", "ignore").encode(), head.decode("utf-16-be", "ignore").encode()):
        start = text.removeprefix(b"\xef\xbb\xbf").lstrip(b"\xef\xbb\xbf\0 \t\r\n").lower()
        for mark, what in _SCRIPTS.items():
            if start.startswith(mark):
                return what
        if b"#ext-x-" in start and start.isascii():  # behind a comment
            return "a playlist"
    return None


def _refers_outside(file: BinaryIO, start: int, stop: int, depth: int) -> bool:
    """Whether a data reference between two offsets says that samples lie outside of the file (ISO 14496-12, 8.7.2)."""
    for kind, begin, end in _boxes(file, start, stop):
        if kind == b"rmra":  # a QuickTime reference movie
            return True
        if kind in _CONTAINERS and depth < _DEEPEST and _refers_outside(file, begin, end, depth + 1):
            return True
        if kind == b"meta" and depth < _DEEPEST and _refers_outside(file, begin + 4, end, depth + 1):
            return True
        if kind == b"cmov" and _compressed(file, begin, end):
            return True
        if kind == b"dref" and _external(_read(file, begin, end)):
            return True
    return False


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, first byte, byte after the last one) of the content of each box; ends where that makes no sense."""
    while stop - start >= 8:
        file.seek(start)
        head = file.read(16)
        size, kind, skip = int.from_bytes(head[:4]), head[4:8], 8
        if size == 1 and len(head) == 16:
            size, skip = int.from_bytes(head[8:]), 16
        elif size == 0:
            size = stop - start
        if size < skip or start + size > stop:
            size = stop - start  # cut short: what is there is still looked at
        yield kind, start + skip, start + size
        start += size


def _read(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(min(max(end - begin, 0), _LARGEST))


def _external(content: bytes) -> bool:
    """Whether an entry of a `dref` box is anything but "in this same file"."""
    at = 8  # version, flags, number of entries
    while at + 12 <= len(content):
        size, flags = int.from_bytes(content[at : at + 4]), content[at + 11]
        if not flags & 1:
            return True
        if size < 12:
            return False
        at += size
    return False


def _compressed(file: BinaryIO, begin: int, end: int) -> bool:
    """Whether a compressed movie header hides such a reference; one that cannot be looked into counts as if."""
    for kind, first, last in _boxes(file, begin, end):
        if kind == b"cmvd":
            try:
                movie = zlib.decompressobj().decompress(_read(file, first + 4, last), _LARGEST)
            except zlib.error:
                return True
            return b"rmra" in movie or any(_external(movie[found.end() :]) for found in re.finditer(b"dref", movie))
    return True
