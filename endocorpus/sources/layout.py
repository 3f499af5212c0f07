"""The layout grammar: how a source's files on disk are named, and what the names say.

A pattern is a regular expression over the whole path below the root, with `/` between folders. Its named groups fill
the templates, e.g. ``recording="{lesion}-{light}"``. Patterns are tried in order; a file that none names becomes an
exclusion, so nothing is overlooked in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from endocorpus.records import Privacy

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
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


def _suffixes(suffixes: tuple[str, ...]) -> str:
    return "(?i:" + "|".join(re.escape(suffix) for suffix in suffixes) + ")"


ANY_VIDEO = rf"(?P<stem>.+){_suffixes(VIDEO_SUFFIXES)}"
ANY_FRAME = rf"(?P<folder>(?:.*/)?)(?P<before>[^/]*?)(?P<frame>\d+){_suffixes(IMAGE_SUFFIXES)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Videos:
    """Each matching file is one recording. `labels` are templates by label name."""

    pattern: str
    recording: str
    case: str
    case_basis: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFolders:
    """Each folder of numbered images is one recording, ordered by the number in the group `frame`.

    All groups but `frame` name the recording; numbers must follow each other without a gap. Images say nothing about
    time, so the rate is declared here.
    """

    pattern: str
    recording: str
    case: str
    case_basis: str
    rate: Fraction
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecars:
    """Files that belong to the source but hold no recording: labels, calibration, documents."""

    pattern: str


Layout = tuple[Videos | FrameFolders | Sidecars, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How many there should be, and how sure that is.

    `of` says what is counted (recordings, cases, frames, images, boxes, masks, ...), "" as the entry's own name says.
    `where` is a regular expression over the whole name of a recording that limits the count to part of the source.
    """

    count: int
    status: Literal["exact", "approximate", "unverified"]
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
    redistribution: Literal["yes", "same-licence", "no", "unknown"]
    privacy: Privacy
    vouched_by: Literal["provider", "owner"]  # who says that it may be used
    obtain: str
    modality: str
    organ: str
    layout: Layout
    licence_page: str  # where the licence was read, "" if nowhere
    access: Literal["open", "form", "email-password", "private"]
    size: str
    good_for: str
    traps: tuple[str, ...]
    unverified: tuple[str, ...]  # what the software assumes although nobody has seen it
    archives: tuple[Archive, ...] = ()
    expected: Mapping[str, Expected] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # settings by section
