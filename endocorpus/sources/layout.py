"""The layout grammar: how a source's files on disk are named, what the names say, and which files say more.

A pattern is a regular expression over the whole path below the root, with `/` between folders. Its named groups fill
the templates, e.g. ``recording="{lesion}-{light}"``. Patterns are tried in order; a file that none names becomes an
exclusion, so nothing is overlooked in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from endocorpus.records import Kind, Privacy

VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".mpg",
    ".mpeg",
    ".ts",
    ".m2ts",
    ".mts",
    ".wmv",
    ".asf",
    ".webm",
    ".flv",
    ".3gp",
    ".dcm",
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


def any_suffix(suffixes: tuple[str, ...]) -> str:
    """A pattern for one of `suffixes`, in any case."""
    return "(?i:" + "|".join(re.escape(suffix) for suffix in suffixes) + ")"


VIDEO = any_suffix(VIDEO_SUFFIXES)
IMAGE = any_suffix(IMAGE_SUFFIXES)
ANY_VIDEO = rf"(?P<stem>.+){VIDEO}"
ANY_FRAME = rf"(?P<folder>(?:.*/)?)(?P<before>[^/]*?)(?P<frame>\d+){IMAGE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Videos:
    """Each matching file is one recording.

    Names that differ only in case, blanks or composition are one recording, which two files cannot both be, unless
    `exact_names` says that the provider tells recordings apart by nothing else.
    """

    pattern: str
    recording: str
    case: str
    case_basis: str
    labels: Mapping[str, str] = field(default_factory=dict)
    capture_rate: Fraction | None = None  # frames per second, where the container's rate lies
    exact_names: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFolders:
    """Numbered images that share all groups of the pattern, but those that order and link them, are one recording.

    `order` names the groups that, as numbers, put the images in order. Images say nothing about time, so `rate` is
    declared here. `gaps`: whether a missing number leaves the recording out, or the images are joined over it.
    `ranges` cut one run of numbers into recordings; the group `range` is the place of the range, from 1.
    `links` are groups that name the same patient or examination where they are equal.
    `named_by`: the images' own names tell nothing; a file beside each one does.
    """

    pattern: str
    recording: str
    case: str
    case_basis: str
    rate: Fraction
    order: tuple[str, ...] = ("frame",)
    gaps: Literal["refuse", "join"] = "refuse"
    ranges: tuple[tuple[int, int], ...] = ()  # first and last number
    links: tuple[str, ...] = ()
    named_by: NamedBy | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    capture_rate: Fraction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedBy:
    """Where the sequence and number of an image stand, if not in its name. `path` is a template of the pattern's
    groups; `read` gives the groups to add, or None if the file does not tell."""

    path: str
    read: Callable[[Path], Mapping[str, str] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One statement of a label file, as a reader finds it; what it leaves open, the file's own name says.

    `frame` and `last` are stems or numbers of frames; a note without a frame is about the whole recording.
    Coordinates as in `records.Annotation`.
    """

    kind: Kind
    name: str
    raw: str
    recording: str | None = None
    frame: str | None = None
    last: str | None = None
    box: tuple[float, float, float, float] | None = None
    polygon: tuple[float, ...] = ()
    mask: bool = False  # the file itself is the mask
    instance: int | None = None
    notes: tuple[str, ...] = ()
    where: str = ""  # in the file, for people: line 3


Reader = Callable[[Path, Mapping[str, str]], Iterator[Note]]
"""Reads a label file: (path, groups of its name) -> notes. Raises `LabelError` for a file that cannot be understood."""


class LabelError(ValueError):
    """A label file cannot be understood; the message says where in it and why, without its path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Files that say something about recordings.

    `recording` are templates of the name of the recording that the file is about; the first that names one counts.
    Without any, the file is a table whose rows name recordings themselves. `frame` is a template of the one frame
    that the file is about. `complete_for` is the template of recordings that have such a file for each image, or, where
    a file is not about one frame, one for all: what is missing is told. Leave it out where frames may lack one.
    """

    pattern: str
    read: Reader
    recording: tuple[str, ...] = ()
    frame: str | None = None
    about: Literal["recording", "case"] = "recording"  # what the rows of a table name
    complete_for: str | None = None
    ranges: tuple[tuple[int, int], ...] = ()  # as in FrameFolders, of the group `frame`
    named_by: NamedBy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecars:
    """Files that belong to the source but hold no recording and no label of one. `what` is told to people."""

    pattern: str
    what: Literal["document", "still image", "derived"] = "document"


Rule = Videos | FrameFolders | Labels | Sidecars
Layout = tuple[Rule, ...]


Status = Literal["exact", "approximate", "unverified"]  # how sure a number is


def judge(found: int, expected: int, status: Status) -> Literal["agrees", "differs", "unverified"]:
    """Compare a count with a number from the facts: an approximate one may be off by a hundredth, and one that nobody
    has verified cannot accuse the data."""
    if found == expected or (status == "approximate" and 100 * abs(found - expected) <= expected):
        return "agrees"
    return "unverified" if status == "unverified" else "differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How many there should be, and how sure that is.

    `of` says what is counted (recordings, cases, frames, images, boxes, masks, ...), "" as the entry's own name says.
    `where` is a regular expression over the whole name of a recording that limits the count to part of the source.
    """

    count: int
    status: Status
    of: str = ""
    where: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One file that the provider gives out. What is not known about it is None."""

    name: str
    url: str | None = None  # only where it can be downloaded without a form
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source as its provider distributes it: facts from `manifests/sources/<name>.toml`, layout from its module."""

    name: str
    title: str
    provider: str
    year: int | None
    citation: str
    home: str
    licence: str
    licence_status: Literal["verified", "third-party", "unverified"]
    licence_page: str  # where the licence was read
    redistribution: Literal["yes", "same-licence", "no", "unknown"]
    privacy: Privacy
    vouched_by: Literal["provider", "owner"]  # who says that it may be used
    access: Literal["open", "form", "email-password", "private"]
    obtain: str
    size: str
    modality: str
    organ: str
    good_for: str
    traps: tuple[str, ...]
    unverified: tuple[str, ...]  # what is assumed although nobody has seen it
    layout: Layout
    archives: tuple[Archive, ...] = ()
    expected: Mapping[str, Expected] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # settings that a build of it starts from
