"""Audit of an encoded clip, byte for byte: every byte belongs to a box that a clip needs, or to a coded picture.

An allow-list over ISO 14496-12 (boxes), 14496-15 (H.264 in mp4) and ITU-T H.264 7.3.1 (NAL units). A clip of ours is
one small mp4: one track of H.264, no times, no names but the muxer's constants, nothing between or behind the samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

# Boxes that a clip has, and what they may be in.
_PARENTS: Mapping[bytes, bytes] = MappingProxyType(
    {
        b"ftyp": b"",
        b"moov": b"",
        b"mdat": b"",
        b"free": b"",
        b"mvhd": b"moov",
        b"trak": b"moov",
        b"tkhd": b"trak",
        b"edts": b"trak",
        b"elst": b"edts",
        b"mdia": b"trak",
        b"mdhd": b"mdia",
        b"hdlr": b"mdia",
        b"minf": b"mdia",
        b"vmhd": b"minf",
        b"dinf": b"minf",
        b"dref": b"dinf",
        b"stbl": b"minf",
        b"stsd": b"stbl",
        b"stts": b"stbl",
        b"ctts": b"stbl",
        b"stss": b"stbl",
        b"stsc": b"stbl",
        b"stsz": b"stbl",
        b"stco": b"stbl",
        b"co64": b"stbl",
    }
)
_NESTING = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"dinf", b"stbl"}
_BRANDS = {b"isom", b"iso2", b"avc1", b"mp41", b"iso5", b"iso6"}
_SAMPLE_BOXES = {b"avcC", b"pasp", b"btrt", b"colr"}
# What a muxer that was told nothing writes as user data: an empty list of tags.
_EMPTY_TAGS = bytes.fromhex("00000035") + b"meta" + bytes(4) + bytes.fromhex("00000021") + b"hdlr" + bytes(8)
_EMPTY_TAGS += b"mdirappl" + bytes(9) + bytes.fromhex("00000008") + b"ilst"
_HANDLER = bytes(8) + b"vide" + bytes(12) + b"VideoHandler\0"
_OWN_DATA = bytes(4) + bytes.fromhex("000000010000000c") + b"url " + bytes.fromhex("00000001")
_SLICES = {1, 5}  # coded pictures: the only units in a sample (ITU-T H.264, table 7-1)
_MOST_SAMPLES = 10_000_000
_UNITS: Mapping[int, str] = MappingProxyType(
    {6: "SEI", 7: "parameter sets in a sample", 8: "parameter sets in a sample", 12: "filler data"}
)
_MESSAGES: Mapping[int, str] = MappingProxyType({1: "picture timing", 4: "captions or other user data", 5: "user data"})


def audit_clip(data: bytes) -> list[str]:
    """What is in an mp4 besides one track of coded pictures, each in a few words and never with its value.

    Empty for a clip that holds nothing else.
    """
    try:
        return sorted(set(_audit(data)))
    except (IndexError, ValueError) as error:
        return [f"cannot be followed: {type(error).__name__}"]


def coded_ranges(data: bytes) -> list[tuple[int, int]]:
    """Where the media data of an mp4 lie, as half-open intervals of bytes: noise to whoever looks for words."""
    return [(start, stop) for kind, start, stop in _boxes(data, 0, len(data)) if kind == b"mdat"]


def _boxes(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start and stop of the content) of the boxes that fill an interval exactly."""
    while start < stop:
        size, kind, skip = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8], 8
        if size == 1:
            size, skip = int.from_bytes(data[start + 8 : start + 16]), 16
        if size < skip or start + size > stop:
            raise ValueError("a box of an impossible size")
        yield kind, start + skip, start + size
        start += size


def _audit(data: bytes) -> Iterator[str]:
    leaves: dict[bytes, list[bytes]] = {}
    yield from _walk(data, 0, len(data), b"", leaves)
    for kind, least in ((b"ftyp", 1), (b"mvhd", 1), (b"tkhd", 1), (b"stsd", 1), (b"stsz", 1), (b"stsc", 1)):
        if len(leaves.get(kind, ())) != least:
            yield f"not one {_name(kind)} box"
            return
    for kind, contents in leaves.items():
        for content in contents:
            yield from _leaf(kind, content)
    yield from _samples(data, leaves)


def _walk(data: bytes, start: int, stop: int, parent: bytes, leaves: dict[bytes, list[bytes]]) -> Iterator[str]:
    for kind, first, last in _boxes(data, start, stop):
        if kind == b"udta" and parent == b"moov":
            if data[first:last] != _EMPTY_TAGS:
                yield "user data (udta) of the file"
        elif _PARENTS.get(kind) != parent:
            yield f"a box {_name(kind)} where clips have none"
        elif kind in _NESTING:
            yield from _walk(data, first, last, kind, leaves)
        else:
            leaves.setdefault(kind, []).append(b"" if kind == b"mdat" else data[first:last])


def _name(kind: bytes) -> str:
    """A box's type, if it is one that is known: four bytes can spell a word too."""
    known = {*_PARENTS, b"udta", b"uuid", b"skip", b"meta", b"sgpd", b"sbgp", b"tref", b"gmhd", b"iods"}
    return repr(kind.decode()) if kind in known else "of an unknown type"


def _leaf(kind: bytes, content: bytes) -> Iterator[str]:
    """What a box says that it need not."""
    wide = 8 if content[:1] == b"\1" else 4  # of a time
    if kind in {b"mvhd", b"tkhd", b"mdhd"} and any(content[4 : 4 + 2 * wide]):
        yield f"a time of creation or change ({_name(kind)})"
    if kind == b"mdhd" and content[-4:-2] != b"\x55\xc4":  # "und"
        yield "a language"
    if kind == b"hdlr" and content != _HANDLER:
        yield "a name of the track"
    if kind == b"dref" and content != _OWN_DATA:
        yield "a reference to data outside"
    if kind == b"free" and any(content):
        yield "bytes in free space"
    if kind == b"ftyp":
        brands = {content[at : at + 4] for at in range(8, len(content), 4)} | {content[:4]}
        if brands - _BRANDS:
            yield "an unknown brand"
    if kind == b"stsd":
        yield from _sample_entry(content)


def _sample_entry(content: bytes) -> Iterator[str]:
    entries = list(_boxes(content, 8, len(content)))
    if len(entries) != 1 or entries[0][0] != b"avc1":
        yield "not one sample entry of H.264"
        return
    _, first, last = entries[0]
    if any(content[first + 42 : first + 74]):
        yield "a name of the encoder"
    for kind, start, stop in _boxes(content, first + 78, last):
        if kind not in _SAMPLE_BOXES:
            yield f"a box {_name(kind)} in the sample entry"
        elif kind == b"avcC":
            yield from _parameter_sets(content[start:stop])


def _parameter_sets(config: bytes) -> Iterator[str]:
    """14496-15, 5.3.3.1: lengths of 4 bytes, sequence and picture parameter sets, and for High profiles 4 bytes."""
    if config[4] & 3 != 3:
        yield "lengths of units that are not 4 bytes"
    at = 5
    for expected, mask in ((7, 31), (8, 255)):
        count, at = config[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(config[at : at + 2])
            if config[at + 2] & 31 != expected:
                yield "a unit among the parameter sets that is none"
            at += 2 + size
    rest = config[at:]
    if len(rest) not in {0, 4} or (rest and rest[3]):
        yield "bytes behind the parameter sets"


def _samples(data: bytes, leaves: Mapping[bytes, list[bytes]]) -> Iterator[str]:
    """Whether samples fill the media data exactly, and hold coded pictures alone."""
    spans = _sample_spans(leaves)
    at = [start for start, _ in coded_ranges(data)]
    stops = [stop for _, stop in coded_ranges(data)]
    position = at[0] if at else 0
    for start, stop in sorted(spans):
        if start != position:
            yield "bytes between the samples"
        yield from _units(data[start:stop])
        position = stop
    if len(stops) != 1 or position != stops[0]:
        yield "media data that no sample uses"


def _sample_spans(leaves: Mapping[bytes, list[bytes]]) -> list[tuple[int, int]]:
    sizes_box = leaves[b"stsz"][0]
    same, count = (int.from_bytes(sizes_box[at : at + 4]) for at in (4, 8))
    if same == 0 and len(sizes_box) != 12 + 4 * count:
        raise ValueError("a table of sizes of another length")
    if same and count > _MOST_SAMPLES:
        raise ValueError("more samples than a clip can have")
    sizes = [same or int.from_bytes(sizes_box[12 + 4 * n : 16 + 4 * n]) for n in range(count)]
    wide = 8 if b"co64" in leaves else 4
    offsets_box = (leaves.get(b"co64") or leaves[b"stco"])[0]
    offsets = [int.from_bytes(offsets_box[at : at + wide]) for at in range(8, len(offsets_box), wide)]
    runs_box = leaves[b"stsc"][0]
    runs = [[int.from_bytes(runs_box[at + n : at + n + 4]) for n in (0, 4)] for at in range(8, len(runs_box), 12)]
    spans: list[tuple[int, int]] = []
    for chunk, offset in enumerate(offsets, 1):
        per_chunk = next((samples for first, samples in reversed(runs) if first <= chunk), 0)
        for size in sizes[len(spans) : len(spans) + per_chunk]:
            spans.append((offset, offset + size))
            offset += size  # noqa: PLW2901 - the samples of a chunk follow each other
    if len(spans) != count:
        raise ValueError("samples outside of chunks")
    return spans


def _units(sample: bytes) -> Iterator[str]:
    at = 0
    while at < len(sample):
        size = int.from_bytes(sample[at : at + 4])
        unit = sample[at + 4 : at + 4 + size]
        if not unit or len(unit) != size:
            raise ValueError("a unit of an impossible size")
        kind = unit[0] & 31
        if kind == 6:
            yield f"SEI: {_MESSAGES.get(unit[1], f'message type {unit[1]}')}"
        elif kind not in _SLICES:
            yield f"{_UNITS.get(kind, 'a unit')} (type {kind})"
        at += 4 + size
