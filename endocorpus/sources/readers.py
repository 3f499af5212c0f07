"""Readers of label files, one per format that providers use. Each turns a file into notes and judges nothing.

A reader that takes options is made by the function of its name. Coordinates leave here in one convention, whatever the
file has: x to the right, y down, pixels counted from the outer edge of the top left pixel (`records.Annotation`).
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree as ET

from endocorpus.records import Kind
from endocorpus.sources.layout import LabelError, Note, Reader

Names = Mapping[str, str]
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")  # Python takes 1_0 for one as well


def text_of(path: Path) -> str:
    """A label file as text.

    Raises:
        LabelError: it has NUL bytes (a file that was cut off, or never written) or is not UTF-8.
    """
    data = path.read_bytes()
    if b"\0" in data:
        raise LabelError(f"{data.count(0)} NUL bytes: the file is damaged")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"not UTF-8 at byte {error.start}") from None


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a label file that are not empty, with their numbers from 1.

    Raises:
        LabelError: there are none, or as `text_of`.
    """
    empty = True
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            empty = False
            yield number, line.strip()
    if empty:
        raise LabelError("the file is empty")


def _lines(path: Path) -> StringIO:
    """The text of a file by lines. `str.splitlines` would also end one at a page break, or at what is an ellipsis."""
    return StringIO(text_of(path), newline="")


def numbers_in(text: Iterable[str], where: str, count: int) -> tuple[float, ...]:
    """`count` numbers; `where` is told to people.

    Raises:
        LabelError: there are more or fewer, or something else, or one is not finite.
    """
    found = list(text)
    values = tuple(float(part) for part in found if _NUMBER.fullmatch(part.strip()))
    if len(values) != count or not all(map(math.isfinite, values)):
        raise LabelError(f"{where}: expected {count} numbers, found {' '.join(found)[:80]!r}")
    return values


def _corners(values: Sequence[float]) -> tuple[float, float, float, float]:
    xmin, ymin, xmax, ymax = values
    return xmin, ymin, xmax, ymax


def counted_boxes(name: str) -> Reader:
    """A file per frame: the number of boxes, then a line ``xmin ymin xmax ymax`` each (LDPolypVideo)."""
    return partial(_counted_boxes, name)


def _counted_boxes(name: str, path: Path, names: Names) -> Iterator[Note]:
    rows = [(number, line.split()) for number, line in lines_of(path)]
    promised = int(numbers_in(rows[0][1], "line 1", 1)[0])
    if promised != len(rows) - 1:
        raise LabelError(f"line 1 promises {promised} boxes, {len(rows) - 1} follow")
    if not promised:
        yield Note(kind=Kind.NONE, name="box", raw=name)
    for instance, (number, parts) in enumerate(rows[1:]):
        where = f"line {number}"
        box = _corners(numbers_in(parts, where, 4))
        yield Note(kind=Kind.BOX, name="finding", raw=name, box=box, instance=instance, where=where)


def voc_boxes(path: Path, names: Names) -> Iterator[Note]:
    """A Pascal VOC file per frame. What it says about its own name and size is not read: it is often wrong."""
    for note, _ in voc_objects(path):
        yield note


def voc_objects(path: Path) -> Iterator[tuple[Note, ET.Element]]:
    """The notes of a Pascal VOC file, each with the element that it was read from: some providers add tags to it."""
    root = xml_of(path)
    objects = root.findall("object")
    if not objects:
        yield Note(kind=Kind.NONE, name="box", raw=""), root
    for instance, item in enumerate(objects):
        where = f"object {instance + 1}"
        corners = [item.findtext(f"bndbox/{corner}") or "" for corner in ("xmin", "ymin", "xmax", "ymax")]
        box = _corners(numbers_in(corners, where, 4))
        raw = (item.findtext("name") or "").strip()
        yield Note(kind=Kind.BOX, name="finding", raw=raw, box=box, instance=instance, where=where), item


def xml_of(path: Path) -> ET.Element:
    """The root of an XML file; raises `LabelError`."""
    try:
        return ET.fromstring(text_of(path))
    except ET.ParseError as error:
        raise LabelError(f"not valid XML: {error}") from None


def coco_boxes(name: str, raw: str) -> Reader:
    """One JSON for many frames of one class: ``images`` with ``file_name``, ``annotations`` with ``bbox`` as x, y,
    width, height (COCO). SUN-SEG writes ``annotation``, no suffixes, and the image's id as the box's own."""
    return partial(_coco_boxes, name, raw)


def _coco_boxes(name: str, raw: str, path: Path, names: Names) -> Iterator[Note]:
    tree = json_of(path)
    try:
        frames = {image["id"]: image["file_name"] for image in tree["images"]}
        for row in tree["annotation"] if "annotation" in tree else tree["annotations"]:
            x, y, width, height = (float(value) for value in row["bbox"])
            frame, box = (
                PurePosixPath(frames[row["image_id" if "image_id" in row else "id"]]).stem,
                (x, y, x + width, y + height),
            )
            yield Note(kind=Kind.BOX, name=name, raw=raw, frame=frame, box=box, where=f"image {frame}")
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise LabelError(f"not the expected JSON: {type(error).__name__} {error}") from None


def json_of(path: Path) -> Any:
    """The value of a JSON file; raises `LabelError`."""
    try:
        return json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise LabelError(f"not valid JSON: line {error.lineno}") from None
    except (RecursionError, ValueError) as error:  # thousands of brackets, or of digits
        raise LabelError(f"not valid JSON: {error}") from None


def mask_picture(name: str, *notes: str) -> Reader:
    """A picture per frame, bright where the object is."""
    return partial(_mask_picture, name, notes)


def _mask_picture(name: str, notes: tuple[str, ...], path: Path, names: Names) -> Iterator[Note]:
    yield Note(kind=Kind.MASK, name=name, raw=name, mask=True, instance=0, notes=notes)


def from_name(**labels: str) -> Reader:
    """The file's own name says it all: templates of its groups, by label name."""
    return partial(_from_name, labels)


def _from_name(labels: Mapping[str, str], path: Path, names: Names) -> Iterator[Note]:
    for name, template in labels.items():
        yield Note(kind=Kind.LABEL, name=name, raw=template.format_map(names))


def table(
    recording: str | None, columns: Mapping[str, str], *, frame: str | None = None, delimiter: str = ","
) -> Reader:
    """A table with a header: the column that names the recording (suffixes do not count), and labels by column.

    Args:
        recording: column of the recording's name; None if the file's own name says it.
        columns: column -> label name. A column that the table does not have is an error.
        frame: column of the frame, for a table about frames.
    """
    return partial(_table, recording, dict(columns), frame, delimiter)


def rows_of(path: Path, delimiter: str, needed: Iterable[str], *, ragged: bool = False) -> list[dict[str, str]]:
    """The rows of a table with a header, blanks around cells removed; `ragged` rows may lack empty cells at the end.
    Rows of nothing but blanks, as spreadsheets leave them below a table, are none.

    Raises:
        LabelError: a column is missing, or a row has another number of cells.
    """
    try:
        return list(
            _rows(csv.DictReader(_lines(path), delimiter=delimiter, skipinitialspace=True, strict=True), needed, ragged)
        )
    except csv.Error as error:
        raise LabelError(f"not a table: {error}") from None


def _rows(reader: csv.DictReader[str], needed: Iterable[str], ragged: bool) -> Iterator[dict[str, str]]:
    header = [name.strip() for name in reader.fieldnames or ()]
    twice = {name for name in needed if header.count(name) > 1}
    if twice:
        raise LabelError(f"several columns are called {', '.join(sorted(twice))}")
    missing = set(needed) - set(header)
    if missing:
        raise LabelError(f"no column {', '.join(sorted(missing))}; there is: {', '.join(header)}"[:300])
    reader.fieldnames = header
    for row in reader:
        if not any(cell and "".join(cell).strip() for cell in row.values()):
            continue
        if None in row or (None in row.values() and not ragged):
            raise LabelError(f"line {reader.line_num}: not {len(header)} cells")
        if any("\n" in (cell or "") for cell in row.values()):
            raise LabelError(
                f"line {reader.line_num}: a cell goes over several lines; a quotation mark may lack its other"
            )
        yield {name: (cell or "").strip(" \t") for name, cell in row.items()}


def _table(
    recording: str | None, columns: Mapping[str, str], frame: str | None, delimiter: str, path: Path, names: Names
) -> Iterator[Note]:
    needed = [*columns, *(column for column in (recording, frame) if column)]
    for row in rows_of(path, delimiter, needed):
        who = PurePosixPath(row[recording]).stem if recording else None
        when = row[frame] if frame else None
        for column, name in columns.items():
            if row[column].strip() or name == "consent":  # which is not given where nothing is said
                yield Note(kind=Kind.LABEL, name=name, raw=row[column], recording=who, frame=when)


def listed(*columns: str, delimiter: str | None = ",") -> Reader:
    """A list without a header: a frame or recording per line, then its labels, named in order.

    The first name in `columns` is ``recording`` or ``frame`` and says what the line is about.
    """
    return partial(_listed, columns, delimiter)


def _listed(columns: tuple[str, ...], delimiter: str | None, path: Path, names: Names) -> Iterator[Note]:
    for number, line in lines_of(path):
        first, *cells = [cell.strip() for cell in line.split(delimiter)]
        if len(cells) != len(columns) - 1:
            raise LabelError(f"line {number}: expected {len(columns)} cells, found {len(cells) + 1}")
        stem, of_frame = PurePosixPath(first).stem, columns[0] == "frame"
        for name, raw in zip(columns[1:], cells, strict=True):
            about = Note(kind=Kind.LABEL, name=name, raw=raw, where=f"line {number}")
            yield replace(about, frame=stem) if of_frame else replace(about, recording=stem)
