"""Label files -> annotations of recordings: joined with frames, named by the vocabulary, or excluded with a reason.

Everything is in the coordinates of the recording and of its stored picture; `annotate` carries it over to clips.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from endocorpus.corpus.files import digest_bytes, digest_file
from endocorpus.naming import name_key, printable
from endocorpus.records import Annotation, Exclusion, Kind, Label, LabelFile, Reason, Recording, Span, Stage
from endocorpus.sources.layout import LabelError, Labels, Note, Source
from endocorpus.vocabulary import Vocabulary, load_vocabulary, normalise

BOXED_FRAMES = "frames with a box"
_FORMAT = 2  # raise it when the same files would be read otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """All that label files say about one recording."""

    labels: tuple[Label, ...] = ()  # of the whole recording
    annotations: tuple[Annotation, ...] = ()  # of frames, by frame
    exclusions: tuple[Exclusion, ...] = ()
    unmapped: tuple[Label, ...] = ()  # labels that the vocabulary should know and does not


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """One statement that cannot be used: in which label file, why, and where in it."""

    reason: Reason
    origin: str
    detail: str


def gather(recording: Recording, stage: Stage, unusable: Iterable[Unusable], private: bool) -> tuple[Exclusion, ...]:
    """Exclusions of annotations, one per recording, reason and label file: 10,000 boxes of one fault are one line."""
    found: dict[tuple[Reason, str], list[str]] = defaultdict(list)
    for each in unusable:
        found[each.reason, each.origin].append(each.detail)

    def told(origin: str, details: list[str]) -> str:
        more = f" (and {len(details) - 1} more like it)" if len(details) > 1 else ""
        return "" if private else printable(f"{origin}: {details[0]}{more}")

    return tuple(
        Exclusion(
            subject=recording.subject,
            unit="annotation",
            stage=stage,
            reason=reason,
            detail=told(origin, details),
            files=0,
        )
        for (reason, origin), details in sorted(found.items())
    )


def read_labels(
    recording: Recording, source: Source, root: Path, num_frames: int, picture: tuple[int, int]
) -> Annotated:
    """Everything that the label files of a recording say about it.

    Args:
        num_frames: frames of the recording.
        picture: width and height of its stored picture in pixels.
    """
    vocabulary, unusable = load_vocabulary(source.name), list[Unusable]()
    index = frame_index(recording, num_frames)
    labels = [_label(vocabulary, name, raw) for name, raw in recording.labels.items() if raw]
    annotations: list[Annotation] = []
    for file in recording.label_files:
        origin = file.path if file.frame is None else str(PurePosixPath(file.path).parent)
        try:
            notes = list(_notes_about(recording, file, source, root, index))
        except LabelError as error:
            unusable.append(Unusable(reason=Reason.BAD_LABELS, origin=origin, detail=f"{_where(file, index)}{error}"))
            continue
        for note in notes:
            label = _label(vocabulary, note.name, note.raw)
            frame = note.frame if note.frame is not None else file.frame
            if frame is None:
                labels.append(label)
                continue
            span = _span(frame, note.last, index, num_frames)
            if span is None:
                detail = f"a {note.kind} for a frame that is not here"
                unusable.append(Unusable(reason=Reason.NO_PARTNER, origin=origin, detail=detail))
                continue
            found = Annotation(
                span=span,
                kind=note.kind,
                label=label,
                origin=origin,
                box=note.box,
                polygon=note.polygon,
                mask=file.path if note.mask else None,
                instance=note.instance,
                notes=note.notes,
            )
            fault = _fault(found, picture)
            if fault:
                detail = f"frame {span.start}: {fault}"
                unusable.append(Unusable(reason=Reason.MISPLACED, origin=origin, detail=detail))
            else:
                annotations.append(found)
    annotations = sorted(set(annotations), key=_order)
    return Annotated(
        labels=tuple(sorted(set(labels), key=lambda label: (label.name, label.raw))),
        annotations=tuple(annotations),
        exclusions=gather(recording, Stage.ANNOTATE, unusable, source.privacy == "private"),
        unmapped=tuple(
            sorted({a for a in (*labels, *(x.label for x in annotations)) if a.raw and not a.code}, key=str)
        ),
    )


def labels_digest(recording: Recording, source: Source, root: Path) -> str:
    """xxh3-128 of everything that decides what `read_labels` returns, besides this code."""
    files = [(file.path, file.frame, _cached_digest(*_state(root / file.path))) for file in recording.label_files]
    vocabulary = load_vocabulary(source.name).digest
    return digest_bytes(json.dumps([_FORMAT, vocabulary, sorted(recording.labels.items()), files]).encode())


def unknown_names(
    source: Source, tables: Iterable[LabelFile], recordings: Sequence[Recording], root: Path
) -> tuple[list[LabelFile], list[tuple[LabelFile, Reason, str]]]:
    """Tables that can be read, and what is wrong: tables that cannot, and rows about what is not here."""
    readable: list[LabelFile] = []
    wrong: list[tuple[LabelFile, Reason, str]] = []
    for file in tables:
        try:
            rows = _table_notes(source, file, root)
        except LabelError as error:
            wrong.append((file, Reason.BAD_LABELS, str(error)))
            continue
        except OSError as error:
            wrong.append((file, Reason.UNREADABLE, f"cannot be opened: {error.strerror}"))
            continue
        readable.append(file)
        about = _rule(source, file.rule).about
        names = {recording.name if about == "recording" else recording.case_name for recording in recordings}
        lost = sorted(set(rows) - names - {_UNNAMED})
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            wrong.append((file, Reason.NO_PARTNER, f"names {lost[0]!r}{more}, no such {about} is here"))
        if _UNNAMED in rows:
            stems = {_frame_key(PurePosixPath(path).stem) for r in recordings for path in r.media.paths}
            strays = sum(_frame_key(note.frame or "") not in stems for note in rows[_UNNAMED])
            if strays:
                wrong.append((file, Reason.NO_PARTNER, f"rows about frames that are not here: {strays}"))
    return readable, wrong


def frame_index(recording: Recording, num_frames: int) -> Callable[[str], int | None]:
    """How label files name the frames of a recording: the stem of an image, or the number of a video's frame."""
    if recording.media.kind == "frames":
        return {_frame_key(PurePosixPath(path).stem): i for i, path in enumerate(recording.media.paths)}.get
    return lambda key: int(key) if _is_number(key) and int(key) < num_frames else None


def _frame_key(text: str) -> str:
    return str(int(text)) if _is_number(text) else text


def _is_number(text: str) -> bool:
    """Whether this can be a frame's number: Python refuses to read thousands of digits."""
    return text.isdecimal() and len(text) < 20


def _span(first: str, last: str | None, index: Callable[[str], int | None], num_frames: int) -> Span | None:
    """The frames from `first` to `last`, both of them in; an end beyond the recording is its last frame."""
    start = index(_frame_key(first))
    if start is None:
        return None
    if last is None:
        return Span(start=start, stop=start + 1)
    stop = index(_frame_key(last))
    stop = num_frames - 1 if stop is None else stop
    return Span(start=start, stop=stop + 1) if stop >= start else None


def _where(file: LabelFile, index: Callable[[str], int | None]) -> str:
    place = index(_frame_key(file.frame)) if file.frame is not None else None
    return f"the file of frame {place}: " if place is not None else ""


def _label(vocabulary: Vocabulary, name: str, raw: str) -> Label:
    """A label with its code; a name without a vocabulary holds free text, which is its own code."""
    code = vocabulary.code(name, raw) or "" if name in vocabulary.codes else normalise(raw)
    return Label(name=name, raw=raw, code=code)


def _fault(found: Annotation, picture: tuple[int, int]) -> str | None:
    """Why coordinates cannot be right; a box may reach one pixel beyond the picture, as many tools write."""
    if found.box is not None:
        xmin, ymin, xmax, ymax = found.box
        if not (xmin < xmax and ymin < ymax):
            return f"the box {_plain(found.box)} is empty or turned over"
        if xmin < -1 or ymin < -1 or xmax > picture[0] + 1 or ymax > picture[1] + 1:
            return f"the box {_plain(found.box)} leaves the picture of {picture[0]}x{picture[1]}"
    if found.polygon and (len(found.polygon) < 6 or len(found.polygon) % 2):
        return "the outline has fewer than three corners"
    if found.polygon and not _seen(found.polygon, picture):
        return "the outline lies outside the picture, or has no inside"
    return None


def _seen(polygon: tuple[float, ...], picture: tuple[int, int]) -> bool:
    """Whether the rectangle around an outline has a part in the picture, and all its corners are numbers."""
    width, height = (
        min(max(values), float(side)) - max(min(values), 0.0)
        for values, side in zip((polygon[::2], polygon[1::2]), picture, strict=True)
    )
    return all(map(math.isfinite, polygon)) and width > 0 and height > 0


def _plain(values: Iterable[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _order(found: Annotation) -> tuple[object, ...]:
    return (
        found.span,
        found.kind,
        found.label.name,
        found.instance or 0,
        found.label.raw,
        found.origin,
        found.box or (),
    )


def _notes_about(
    recording: Recording, file: LabelFile, source: Source, root: Path, index: Callable[[str], int | None]
) -> Iterator[Note]:
    """The notes of a file that are about a recording; rows that name none belong to whose frame they name."""
    rule = _rule(source, file.rule)
    if rule.recording:
        yield from rule.read(root / file.path, file.names)
        return
    rows = _table_notes(source, file, root)
    yield from rows.get(recording.name if rule.about == "recording" else recording.case_name, ())
    for note in rows.get(_UNNAMED, ()):
        if note.frame is not None and index(_frame_key(note.frame)) is not None:
            yield note


def _rule(source: Source, place: int) -> Labels:
    rule = source.layout[place]
    assert isinstance(rule, Labels)
    return rule


def _state(path: Path) -> tuple[Path, int, int]:
    """A path with what changes when the file does, so that what was read of it can be kept."""
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size


_UNNAMED = ""
_cached: dict[tuple[str, int, Path, int, int], Mapping[str, list[Note]]] = {}


def _table_notes(source: Source, file: LabelFile, root: Path) -> Mapping[str, list[Note]]:
    """The notes of a table by recording; read once in a process, since every recording asks."""
    path, time, size = _state(root / file.path)
    key = (source.name, file.rule, path, time, size)
    if key not in _cached:
        rows: dict[str, list[Note]] = defaultdict(list)
        for note in _rule(source, file.rule).read(path, file.names):
            rows[name_key(note.recording or _UNNAMED)].append(note)
        _cached[key] = dict(rows)
    return _cached[key]


@lru_cache(maxsize=4096)
def _cached_digest(path: Path, time: int, size: int) -> str:  # noqa: ARG001 - time and size are the key
    return digest_file(path)


def count_kinds(annotations: Iterable[Annotation]) -> Mapping[str, int]:
    """How many annotations there are, by kind, and how many frames have a box."""
    counts: Counter[str] = Counter()
    boxed: set[int] = set()
    for found in annotations:
        counts[str(found.kind)] += 1
        if found.kind == Kind.BOX:
            boxed.update(range(found.span.start, found.span.stop))
    return dict(sorted(counts.items())) | ({BOXED_FRAMES: len(boxed)} if boxed else {})
