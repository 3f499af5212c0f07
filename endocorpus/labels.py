"""Label files -> annotations of recordings: joined with frames, named by the vocabulary, or excluded with a reason.

Everything is in the coordinates of the recording and of its stored picture; `annotate` carries it over to clips.
"""

from __future__ import annotations

import json
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from endocorpus.corpus.files import digest_bytes, digest_file
from endocorpus.frame_names import frame_index, frame_key, frames_from
from endocorpus.naming import name_key, printable
from endocorpus.records import (
    REASON_TEXT,
    Annotation,
    Exclusion,
    Kind,
    Label,
    LabelFile,
    Reason,
    Recording,
    Span,
    Stage,
)
from endocorpus.sources.layout import LabelError, Labels, Note, Source
from endocorpus.vocabulary import Vocabulary, load_vocabulary, normalise

_THINNEST, _FARTHEST = 0.01, 1e6  # pixels: of a box that somebody drew, and of a corner from the picture
BOXED_FRAMES = "frames with a box"
CONSENT = "consent"  # the name of a label that says whether it is given
_FORMAT = 4  # raise it when the same files would be read otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """All that label files say about one recording. Of a private source, `labels`, `annotations` and `unmapped` hold
    codes of the vocabulary and nothing that anybody wrote."""

    labels: tuple[Label, ...] = ()  # of the whole recording
    decisive: tuple[Label, ...] = ()  # the same as they were written, to decide by: consent, and frames per second
    annotations: tuple[Annotation, ...] = ()  # of frames, by frame
    exclusions: tuple[Exclusion, ...] = ()
    unmapped: tuple[Label, ...] = ()  # labels that the vocabulary should know and does not


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """One statement that cannot be used. `origin` is the label file, or the folder of those about one frame each;
    `detail` names the file, the place in it, and what is wrong."""

    reason: Reason
    origin: str
    detail: str


def gather(recording: Recording, stage: Stage, unusable: Iterable[Unusable], private: bool) -> tuple[Exclusion, ...]:
    """Exclusions of annotations, one per recording, reason and label file: 10,000 boxes of one fault are one line."""
    found: dict[tuple[Reason, str], list[str]] = defaultdict(list)
    for each in unusable:
        found[each.reason, each.origin].append(each.detail)

    def told(details: list[str]) -> str:
        more = f" (and {len(details) - 1} more like it)" if len(details) > 1 else ""
        return printable(f"{details[0]}{more}")

    return tuple(
        Exclusion(
            subject=recording.subject,
            unit="annotation",
            stage=stage,
            reason=reason,
            detail=REASON_TEXT[reason] if private else told(details),
            files=0,
        )
        for (reason, _), details in sorted(found.items())
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
    private = source.privacy == "private"
    index = frame_index(recording, num_frames)
    labels = [_label(vocabulary, name, raw) for name, raw in recording.labels.items() if raw]
    annotations: list[Annotation] = []
    for file in recording.label_files:
        origin = file.path if file.frame is None else str(PurePosixPath(file.path).parent)
        try:
            notes = list(_notes_about(recording, file, source, root, index))
        except LabelError as error:
            if not _rule(source, file.rule).recording:
                continue  # the scan has told what is wrong with a table, once
            unusable.append(Unusable(reason=Reason.BAD_LABELS, origin=origin, detail=f"{file.path}: {error}"))
            continue
        for note in notes:
            label = _label(vocabulary, note.name, note.raw)
            frame = note.frame if note.frame is not None else file.frame
            if frame is None:
                labels.append(label)
                continue
            span = frames_from(frame, note.last, index, num_frames)
            if span is None:
                reason, why = _nowhere(note, frame, index)
                unusable.append(Unusable(reason=reason, origin=origin, detail=f"{_where(file, note)}: {why}"))
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
                where=_where(file, note),
            )
            fault = _fault(found, picture)
            if fault:
                detail = f"{found.where}: frame {span.start}: {fault}"
                unusable.append(Unusable(reason=Reason.MISPLACED, origin=origin, detail=detail))
            else:
                annotations.append(found)
    labels += _consent_missing(labels, recording, source, root) if private else []
    annotations = _numbered(_once(sorted(set(annotations), key=_order)))
    every = (*labels, *(found.label for found in annotations))
    labels = sorted(set(labels), key=lambda label: (label.name, label.raw))
    said = Annotated(
        labels=tuple(labels),
        decisive=tuple(labels),
        annotations=tuple(annotations),
        exclusions=gather(recording, Stage.ANNOTATE, unusable, private),
        unmapped=tuple(sorted({label for label in every if label.raw and not label.code}, key=str)),
    )
    return _closed(said, vocabulary) if private else said


def _consent_missing(labels: Iterable[Label], recording: Recording, source: Source, root: Path) -> list[Label]:
    """A label that says that consent is not given, where tables tell who gave it and say nothing of this recording, or
    one cannot be read, which may have denied it."""
    denied, told = [Label(name=CONSENT, raw="", code="")], any(label.name == CONSENT for label in labels)
    for file in recording.label_files:
        try:
            rows = {} if _rule(source, file.rule).recording else _table_notes(source, file, root)
        except LabelError:
            return denied
        if not told and any(note.name == CONSENT for notes in rows.values() for note in notes):
            return denied
    return []


def _closed(said: Annotated, vocabulary: Vocabulary) -> Annotated:
    """What a private source's labels say in codes, without a word of what was written and without its files' names.
    `unmapped` are the names of labels that lost a value."""

    def coded(label: Label) -> Label:
        return replace(label, raw="", code=label.code if label.name in vocabulary.codes else "")

    labels = {coded(label) for label in said.labels}
    annotations = [replace(found, label=coded(found.label), origin="", where="") for found in said.annotations]
    written = (*said.labels, *(found.label for found in said.annotations))
    lost = {coded(label) for label in written if label.raw and label.name != CONSENT}
    return replace(
        said,
        labels=tuple(sorted((label for label in labels if label.code), key=lambda label: (label.name, label.code))),
        annotations=tuple(found for found in annotations if found.kind != Kind.LABEL or found.label.code),
        unmapped=tuple(sorted((label for label in lost if not label.code), key=lambda label: label.name)),
    )


def labels_digest(recording: Recording, source: Source, root: Path) -> str:
    """xxh3-128 of everything that decides what `read_labels` returns, besides this code."""
    files = [(file.path, file.frame, _digest_or_none(root / file.path)) for file in recording.label_files]
    images = recording.media.paths if recording.media.kind == "frames" else ()
    stems = [PurePosixPath(path).stem for path in images]  # by which labels find their frames
    vocabulary = load_vocabulary(source.name).digest
    return digest_bytes(json.dumps([_FORMAT, vocabulary, sorted(recording.labels.items()), files, stems]).encode())


def _digest_or_none(path: Path) -> str | None:
    try:
        return _cached_digest(*_state(path))
    except LabelError:
        return None


def unknown_names(
    source: Source, tables: Iterable[LabelFile], recordings: Sequence[Recording], root: Path
) -> list[tuple[LabelFile, Reason, str]]:
    """What is wrong with tables: those that cannot be read, and rows about what is not here."""
    wrong: list[tuple[LabelFile, Reason, str]] = []
    for file in tables:
        try:
            rows = _table_notes(source, file, root)
        except LabelError as error:
            wrong.append((file, Reason.BAD_LABELS, str(error)))
            continue
        about = _rule(source, file.rule).about
        names = {recording.name if about == "recording" else recording.case_name for recording in recordings}
        lost = sorted(name for name in rows if name is not None and name not in names)
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            wrong.append((file, Reason.NO_PARTNER, f"names {lost[0]!r}{more}, no such {about} is here"))
        if None in rows:
            stems = {frame_key(PurePosixPath(path).stem) for r in recordings for path in r.media.paths}
            strays = [note for note in rows[None] if frame_key(note.frame or "") not in stems]
            if strays:
                first = strays[0].where or f"frame {strays[0].frame}"
                detail = f"rows about frames that are not here: {len(strays)}, such as {first}"
                wrong.append((file, Reason.NO_PARTNER, detail))
    return wrong


def missing_labels(source: Source, recording: Recording, template: str) -> Iterator[str]:
    """What the provider's label files should say of a recording and do not, because they are not here.

    Args:
        template: the one that named the recording.
    """
    for place, rule in enumerate(source.layout):
        if not isinstance(rule, Labels) or rule.complete_for != template:
            continue
        files = [file for file in recording.label_files if file.rule == place]
        if rule.frame is None and not files:
            yield "its label file is not here"
        elif rule.frame is not None and recording.media.kind == "frames":
            told = {frame_key(file.frame or "") for file in files}
            images = [PurePosixPath(path) for path in recording.media.paths]
            lost = [image.name for image in images if frame_key(image.stem) not in told]
            if lost:
                yield f"images without a label file: {len(lost):,} of {len(images):,}, such as {lost[0]}"


def _nowhere(note: Note, frame: str, index: Callable[[str], int | None]) -> tuple[Reason, str]:
    """Why a note is about no frame."""
    if note.last is not None and index(frame) is not None and index(note.last) is not None:
        return Reason.BAD_LABELS, f"a {note.kind} from frame {frame} to {note.last}, which lies before it"
    return Reason.NO_PARTNER, f"a {note.kind} for the frame {frame[:80]!r}, which is not here"


def _where(file: LabelFile, note: Note) -> str:
    return f"{file.path}, {note.where}" if note.where else file.path


def _label(vocabulary: Vocabulary, name: str, raw: str) -> Label:
    """A label with its code; a name without a vocabulary holds free text, which is its own code."""
    raw = raw.encode("utf-8", "backslashreplace").decode("utf-8")  # JSON may hold halves of characters
    code = vocabulary.code(name, raw) or "" if name in vocabulary.codes else normalise(raw)
    return Label(name=name, raw=raw, code=code)


def _fault(found: Annotation, picture: tuple[int, int]) -> str | None:
    """Why coordinates cannot be right; a box may reach one pixel beyond the picture, as many tools write."""
    if found.box is not None:
        xmin, ymin, xmax, ymax = found.box
        if not (xmax - xmin >= _THINNEST and ymax - ymin >= _THINNEST):
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
    plausible = all(abs(value) < _FARTHEST for value in polygon)  # false for what is no number
    return plausible and width >= _THINNEST and height >= _THINNEST


def _once(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Without boxes that a second file draws on the very same pixels, with the same meaning."""
    drawn: dict[tuple[object, ...], str] = {}
    return [
        found
        for found in annotations
        if found.box is None
        or drawn.setdefault((found.span, found.label.name, found.label.code, found.box), found.origin) == found.origin
    ]


def _numbered(annotations: Sequence[Annotation]) -> list[Annotation]:
    """Give masks of one name and number on one frame, which come from several files, numbers of their own."""
    taken: set[tuple[Span, str, int]] = set()
    done: list[Annotation] = []
    for found in annotations:
        if found.mask is not None:
            number = found.instance or 0
            while (found.span, found.label.name, number) in taken:
                number += 1
            taken.add((found.span, found.label.name, number))
            found = replace(found, instance=number)  # noqa: PLW2901 - the same annotation, numbered
        done.append(found)
    return done


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
        found.polygon,
        found.mask or "",
        found.notes,
    )


def _notes_about(
    recording: Recording, file: LabelFile, source: Source, root: Path, index: Callable[[str], int | None]
) -> Iterator[Note]:
    """The notes of a file that are about a recording; rows that name none belong to whose frame they name."""
    rule = _rule(source, file.rule)
    if rule.recording:
        path, *_ = _state(root / file.path)
        yield from _read(rule, path, file.names)
        return
    rows = _table_notes(source, file, root)
    yield from rows.get(recording.name if rule.about == "recording" else recording.case_name, ())
    for note in rows.get(None, ()):
        if note.frame is not None and index(note.frame) is not None:
            yield note


def _read(rule: Labels, path: Path, names: Mapping[str, str]) -> Iterator[Note]:
    """The notes of a file, for whom a file that cannot be read is one that cannot be understood."""
    try:
        yield from rule.read(path, names)
    except OSError as error:
        raise LabelError(f"reading stops: {error.strerror}") from None


def _rule(source: Source, place: int) -> Labels:
    rule = source.layout[place]
    assert isinstance(rule, Labels)
    return rule


def _state(path: Path) -> tuple[Path, int, int]:
    """A path with what changes when the file does, so that what was read of it can be kept.

    Raises:
        LabelError: it is not a file that can be read to its end.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise LabelError(f"cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise LabelError("not a regular file")
    return path, status.st_mtime_ns, status.st_size


_cached: dict[tuple[str, int, Path, int, int], Mapping[str | None, list[Note]]] = {}


def _table_notes(source: Source, file: LabelFile, root: Path) -> Mapping[str | None, list[Note]]:
    """The notes of a table by recording; read once in a process, since every recording asks."""
    path, time, size = _state(root / file.path)
    key = (source.name, file.rule, path, time, size)
    if key not in _cached:
        rows: dict[str | None, list[Note]] = defaultdict(list)
        for note in _read(_rule(source, file.rule), path, file.names):
            rows[None if note.recording is None else name_key(note.recording)].append(note)
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
