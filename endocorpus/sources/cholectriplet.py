"""CholecT45 and CholecT50: gallbladder operations, one picture a second, labelled with instrument, verb and target.

`VIDnn` is the number of the operation in Cholec80, and the same operation in both sets. Pictures from outside the body
are black on purpose and stay in place, so that labels keep their frames. Rows beyond the last picture occur.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from endocorpus.records import Kind
from endocorpus.sources.layout import FrameFolders, LabelError, Labels, Layout, Note, Reader, Sidecars
from endocorpus.sources.readers import json_of, lines_of

_PARTS = ("triplet", "instrument", "verb", "target")


def vocabulary_of(path: Path) -> dict[int, str]:
    """A file of lines ``number:name``, numbered through from 0.

    Raises:
        LabelError: it is not, or is not there.
    """
    if not path.is_file():
        raise LabelError(f"dict/{path.name}, which names its columns, is missing")
    names: dict[int, str] = {}
    for number, line in lines_of(path):
        key, colon, name = line.partition(":")
        if not colon or not key.strip().isdecimal() or len(key) > 9:
            raise LabelError(f"{path.name}: line {number}: expected number:name")
        names[int(key)] = name.strip()
    if sorted(names) != list(range(len(names))):
        raise LabelError(f"{path.name}: the numbers are not 0 to {len(names) - 1}")
    return names


def words_only(path: Path, names: Mapping[str, str]) -> Iterator[Note]:
    """A vocabulary says nothing by itself, but `marks` reads it, so it must count among the label files."""
    yield from ()


def marks(what: str) -> Reader:
    """CholecT45: a line per frame without a header, the frame and a 0 or 1 for every entry of the vocabulary."""
    return partial(_marks, what)


def _marks(what: str, path: Path, names: Mapping[str, str]) -> Iterator[Note]:
    meaning = vocabulary_of(path.parent.parent / "dict" / f"{what}.txt")
    kind = Kind.TRIPLET if what == "triplet" else Kind.LABEL
    for number, line in lines_of(path):
        frame, *flags = (cell.strip() for cell in line.split(","))
        if len(flags) != len(meaning) or not set(flags) <= {"0", "1"}:
            raise LabelError(f"line {number}: expected {len(meaning)} times 0 or 1 after the frame")
        found = [place for place, flag in enumerate(flags) if flag == "1"]
        if not found:
            yield Note(kind=Kind.NONE, name=what, raw="", frame=frame)
        for instance, place in enumerate(found):
            yield Note(kind=kind, name=what, raw=meaning[place], frame=frame, instance=instance)


def vectors(path: Path, names: Mapping[str, str]) -> Iterator[Note]:
    """CholecT50: fifteen numbers per triplet of a frame; -1 where there is none. Boxes are parts of the picture's
    sides, and -1 throughout the public release."""
    tree = json_of(path)
    try:
        words = {part: {int(k): str(v) for k, v in tree["categories"][part].items()} for part in (*_PARTS, "phase")}
        for frame, rows in tree["annotations"].items():
            yield from _frame_notes(str(frame), rows, words)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise LabelError(f"not the expected JSON: {type(error).__name__} {error}") from None


def _frame_notes(frame: str, rows: list[list[Any]], words: Mapping[str, Mapping[int, str]]) -> Iterator[Note]:
    triplets = [row for row in rows if int(row[0]) >= 0]
    if not triplets:
        yield Note(kind=Kind.NONE, name="triplet", raw="", frame=frame)
    for instance, row in enumerate(triplets):
        yield Note(kind=Kind.TRIPLET, name="triplet", raw=words["triplet"][int(row[0])], frame=frame, instance=instance)
        for part, place in (("instrument", 1), ("verb", 7), ("target", 8)):
            if int(row[place]) >= 0:
                raw = words[part][int(row[place])]
                yield Note(kind=Kind.LABEL, name=part, raw=raw, frame=frame, instance=instance)
    for phase in sorted({int(row[14]) for row in rows if int(row[14]) >= 0}):
        yield Note(kind=Kind.LABEL, name="phase", raw=words["phase"][phase], frame=frame)


def _pictures(folder: str, prefix: str) -> FrameFolders:
    return FrameFolders(
        pattern=rf"(?:.*/)?{folder}/VID(?P<video>\d+)/(?P<frame>\d{{6}})\.png",
        recording=f"{prefix}-vid{{video}}",
        case="vid{video}",
        case_basis="patient",
        rate=Fraction(1),
        gaps="join",
        labels={"set": prefix},
    )


LAYOUT: Layout = (
    _pictures("CholecT45/data", "t45"),
    _pictures("CholecT50/videos", "t50"),
    *(
        Labels(
            pattern=rf"(?:.*/)?CholecT45/{part}/VID(?P<video>\d+)\.txt", read=marks(part), recording=("t45-vid{video}",)
        )
        for part in _PARTS
    ),
    Labels(pattern=r"(?:.*/)?CholecT50/labels/VID(?P<video>\d+)\.json", read=vectors, recording=("t50-vid{video}",)),
    Labels(pattern=r"(?:.*/)?CholecT45/dict/[^/]+\.txt", read=words_only),
    Sidecars(pattern=r"(?:.*/)?(?:LICENSE|README\.md|label_mapping\.txt|[^/]+\.pdf)"),
)
