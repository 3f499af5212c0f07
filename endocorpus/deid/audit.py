"""The audit of what was written: a corpus is read as a thief would read it, to tell where something must not be.

Nothing here trusts the code that wrote the corpus. Clips are walked byte by byte, tar headers are read as bytes, tables
are read cell by cell, pages and cards with their escapes resolved. A finding says what kind of thing lies where, and
never what it says.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from endocorpus.corpus.shards import KEY
from endocorpus.deid.bitstream import audit_clip, coded_ranges
from endocorpus.deid.search import Sought, in_noise, in_text

_BLOCK = 512  # bytes of a tar header, and what members are padded to
_PIECE, _OVERLAP = 16 << 20, 4096  # bytes of a file that are looked through at a time
_MEMBER = re.compile(rf"({KEY.pattern})\.(json|mp4|masks\.npz)")
_MASK = re.compile(r"[A-Za-z0-9_.-]+\.npy")
_FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # what numpy gives every entry
_WRITER = re.compile(r"parquet-cpp-arrow version [0-9.]+")
_DATA_URL = re.compile(rb"data:[a-z0-9/+.-]+;base64,([A-Za-z0-9+/=]+)")
_TEXT_SUFFIXES = {".json", ".jsonl", ".html", ".txt", ".csv", ".toml", ".svg", ".md", ".log", ""}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something that must not be there: what kind of thing, and where. Never what it says."""

    category: str
    where: str


def audit_corpus(root: Path, what: Sought) -> tuple[Finding, ...]:
    """Findings in all files below a folder, the work area of a build included.

    Args:
        what: known identifiers of the recordings; a host and a user name may be among them.
    """
    found: set[Finding] = set()
    for number, path in enumerate(_files(root), 1):
        name = path.relative_to(root).as_posix()
        told = in_text(os.fsencode(name), what)
        where = f"file {number} of the folder" if told else name
        found |= {Finding("an identifier in a name", where)} if told else set()
        if path.is_symlink() or not path.is_file():
            found.add(Finding("a link or a special file", where))
            continue
        found |= {Finding(category, place) for category, place in _audit_file(path, where, what)}
    return tuple(sorted(found))


def _files(root: Path) -> list[Path]:
    """All that is no folder; links are not followed."""
    found = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    links = [Path(folder, name) for folder, names, _ in os.walk(root) for name in names]
    return sorted([*found, *(link for link in links if link.is_symlink())])


def _audit_file(path: Path, where: str, what: Sought) -> Iterator[tuple[str, str]]:
    if _in_pieces(path, what):
        yield "an identifier", where
    if path.suffix == ".tar":
        yield from audit_shard(path, where, what)
    elif path.suffix == ".mp4":
        yield from _clip(path.read_bytes(), where, what)
    elif path.suffix == ".parquet":
        yield from audit_table(path.read_bytes(), where, what)
    elif path.suffix == ".npz":
        yield from _masks(path.read_bytes(), where, what)
    elif path.suffix in _TEXT_SUFFIXES:
        yield from _text(path.read_bytes(), where, what)


def _in_pieces(path: Path, what: Sought) -> bool:
    """Whether a file, whatever it is, holds an identifier that is long enough not to come up by chance."""
    with path.open("rb") as file:
        last = b""
        while piece := file.read(_PIECE):
            if in_noise(last + piece, what):
                return True
            last = piece[-_OVERLAP:]
    return False


def _text(data: bytes, where: str, what: Sought) -> Iterator[tuple[str, str]]:
    """A page or card; what lies in it as base64 is pictures and videos, where short words come up by chance."""
    if in_text(_DATA_URL.sub(b"", data), what):
        yield "an identifier", where
    for match in _DATA_URL.finditer(data):
        try:
            if in_noise(base64.b64decode(match[1]), what):
                yield "an identifier in a picture or video of a page", where
        except binascii.Error:
            yield "a picture of a page that cannot be read", where


def _clip(data: bytes, where: str, what: Sought) -> Iterator[tuple[str, str]]:
    said = audit_clip(data)
    yield from ((f"in a clip: {each}", where) for each in said)
    ranges = [] if said else coded_ranges(data)  # only of a clip whose media data are nothing but coded pictures
    around = data
    for start, stop in reversed(ranges):
        around = around[:start] + around[stop:]
    if in_text(around, what):
        yield "an identifier in a clip", where


def audit_shard(path: Path, where: str, what: Sought) -> Iterator[tuple[str, str]]:
    """(category, where) of what the headers of a tar say of a host, a user or a time, and of what is in its members."""
    with path.open("rb") as file:
        number = 0
        while (header := file.read(_BLOCK)) and any(header):
            number += 1
            place = f"{where}, member {number}"
            yield from _header(header, place, what)
            size = int(header[124:135], 8) if header[124:135].isdigit() else -1
            content = file.read(size) if size >= 0 else b""
            if len(content) != size or any(file.read(-size % _BLOCK)):
                yield "bytes behind a member of a tar, or a member that is cut short", place
                return
            yield from _member(header[:100].rstrip(b"\0"), content, place, what)
        while rest := file.read(_PIECE):
            if any(rest):
                yield "bytes behind the end of a tar", where
                return


def _header(header: bytes, place: str, what: Sought) -> Iterator[tuple[str, str]]:
    """POSIX.1-1988 ustar: fields by their offsets."""
    numbers = {"owner": header[108:116], "group": header[116:124], "time": header[136:148]}
    for field, value in numbers.items():
        if value.strip(b"\0 0"):
            yield f"{field} in a tar header", place
    texts = {"user name": header[265:297], "group name": header[297:329], "link": header[157:257]}
    texts |= {"prefix": header[345:500], "rest": header[500:]}
    for field, value in texts.items():
        if any(value):
            yield f"{field} in a tar header", place
    if header[329:345].strip(b"\0 0"):
        yield "device in a tar header", place
    if header[100:108].rstrip(b"\0 ") != b"0000644" or header[156:157] != b"0" or header[257:265] != b"ustar\x0000":
        yield "mode or kind in a tar header", place
    name = header[:100].rstrip(b"\0").decode("latin-1")
    if not _MEMBER.fullmatch(name) or in_text(name.encode("latin-1"), what):
        yield "a member's name that is no key", place


def _member(name: bytes, content: bytes, place: str, what: Sought) -> Iterator[tuple[str, str]]:
    if name.endswith(b".mp4"):
        yield from _clip(content, place, what)
    elif name.endswith(b".npz"):
        yield from _masks(content, place, what)
    else:
        yield from _text(content, place, what)


def _masks(data: bytes, where: str, what: Sought) -> Iterator[tuple[str, str]]:
    """An .npz of label maps: no times, comments, extra fields, or bytes around the entries."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if archive.comment or any(e.comment or _strange_extra(e.extra) for e in entries):
                yield "comments or extra fields in label maps", where
            if any(entry.date_time != _FIXED_DATE for entry in entries):
                yield "a time in label maps", where
            if entries and entries[0].header_offset != 0:
                yield "bytes before label maps", where
            for entry in entries:
                if not _MASK.fullmatch(entry.filename) or in_text(entry.filename.encode(), what):
                    yield "a name in label maps", where
                if in_noise(archive.read(entry), what):
                    yield "an identifier in label maps", where
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, OSError, EOFError, ValueError):
        yield "label maps that cannot be read", where


def _strange_extra(extra: bytes) -> bool:
    """Whether extra fields are anything but sizes of more than 4 GiB (ZIP64, number 1)."""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind != 1:
            return True
        extra = extra[4 + size :]
    return bool(extra)


def audit_table(data: bytes, where: str, what: Sought) -> Iterator[tuple[str, str]]:
    """(category, where) of what a Parquet file says beside its columns, and of identifiers in its cells."""
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        beside = dict(file.metadata.metadata or {})
        table = file.read()
    except (pa.ArrowException, OSError):
        yield "a table that cannot be read", where
        return
    if not _WRITER.fullmatch(file.metadata.created_by):
        yield "another writer of a table", where
    if b"pandas" in beside or b"ARROW:schema" in beside or b"pandas" in (table.schema.metadata or {}):
        yield "metadata of a program that wrote a table", where
    if in_text(b"\n".join([*beside, *beside.values()]), what):
        yield "an identifier in the metadata of a table", where
    for column in table.schema.names:
        texts = sorted(set(_texts(table.column(column).to_pylist())))
        if in_text("\n".join(texts).encode("utf-8", "surrogatepass"), what):
            yield f"an identifier in the column {column}", where


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "surrogateescape")
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
