"""The values that travel through a build. All frozen; nothing here reads a file.

Words: a *recording* is one continuous video or frame sequence, a *clip* a contiguous span of it, an *exclusion* what
was left out and why. Spans are half-open intervals of frames; rates are fractions; seconds exist only for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Literal

Privacy = Literal["public", "private"]


_FASTEST, _SLOWEST = Fraction(500_000), Fraction(1, 100_000)
_NUMBER = re.compile(r"[+-]?(\d+/\d+|(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?)", re.ASCII)


def as_rate(value: Fraction) -> Fraction:
    """The rate nearest to `value`, in frames per second, that an mp4 and ffmpeg can both count in.

    An mp4's clock ticks as often as the numerator says, and ffmpeg tells where a clip begins in microseconds: with
    more than a million ticks in a second it is wrong by a tick now and then, and the clip's first frame is lost. The
    average rates of uneven video have such numerators; above 5 frames per second they change by a millionth at most.
    """
    value = min(max(value, _SLOWEST), _FASTEST)
    return max(value.limit_denominator(min(100_000, int(_FASTEST / value))), _SLOWEST)


def plain_fraction(text: str) -> Fraction | None:
    """A number of up to 40 characters as people write it ("25", "29.97", "2.5e1", "30000/1001"); None if it is none.

    `Fraction` itself writes "1e999999999" out, which takes longer than anybody waits.
    """
    if len(text) > 40 or not _NUMBER.fullmatch(text.strip()):
        return None
    try:
        return Fraction(text.strip())
    except ZeroDivisionError:
        return None


class Stage(StrEnum):
    """Where in a build something was left out."""

    SCAN = "scan"
    PROBE = "probe"
    DEID = "deid"
    SEGMENT = "segment"
    ANNOTATE = "annotate"
    ENCODE = "encode"


class Reason(StrEnum):
    """Why something was left out: the closed vocabulary of `excluded.parquet`."""

    UNEXPECTED_FILE = "unexpected_file"
    AMBIGUOUS_NAME = "ambiguous_name"
    EMPTY_FILE = "empty_file"
    UNREADABLE = "unreadable"
    NOT_A_VIDEO = "not_a_video"
    NO_VIDEO_STREAM = "no_video_stream"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    FRAME_GAP = "frame_gap"
    NO_PARTNER = "no_partner"
    MISPLACED = "misplaced"
    BAD_LABELS = "bad_labels"
    FRAME_SIZE_CHANGES = "frame_size_changes"
    UNKNOWN_PIXELS = "unknown_pixels"
    CUT_AWAY = "cut_away"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    IN_DOUBT = "in_doubt"
    NOTHING_INSIDE = "nothing_inside"
    NOTHING_SHOWN = "nothing_shown"
    LEAK_FOUND = "leak_found"
    NO_CONSENT = "no_consent"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    CHANGED = "changed"


# One sentence each, for reports; a test keeps the two in step.
REASON_TEXT: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.UNEXPECTED_FILE: "The source's layout does not name this file.",
        Reason.AMBIGUOUS_NAME: "Several files differ only in case, blanks or spelling and give the same recording id.",
        Reason.EMPTY_FILE: "The file has no bytes.",
        Reason.UNREADABLE: "The file or folder cannot be opened.",
        Reason.NOT_A_VIDEO: "The content is not a video or image of a known kind, whatever its name says.",
        Reason.NO_VIDEO_STREAM: "The container holds no video stream.",
        Reason.TRUNCATED: "The file ends before the frames that its header promises.",
        Reason.DAMAGED: "Frames cannot be decoded, or there are more or fewer of them than the file lists.",
        Reason.FRAME_GAP: "The numbered frames of the folder have a gap.",
        Reason.NO_PARTNER: "A label without its frame or recording, or an image without its label file or name.",
        Reason.MISPLACED: "A box, outline or mask does not fit the picture that it belongs to.",
        Reason.BAD_LABELS: "A label file, table or mask cannot be understood; what it says is missing.",
        Reason.FRAME_SIZE_CHANGES: "The frames of the folder do not all have the same size.",
        Reason.UNKNOWN_PIXELS: "An image is not one 8-bit or 16-bit picture, so what it should look like is not known.",
        Reason.CUT_AWAY: "Of the picture, less than 16 pixels are left after encode.cut and what must not be shown.",
        Reason.TOO_SHORT: "The recording is shorter than the shortest clip.",
        Reason.TOO_LONG: "The recording would become more clips than one pass can write.",
        Reason.IN_DOUBT: "The picture is not proven to be free of names, so the private recording is in quarantine.",
        Reason.NOTHING_INSIDE: "No stretch is left in which the camera was surely inside the body.",
        Reason.NOTHING_SHOWN: "No picture is left when all that is not moving tissue is taken away.",
        Reason.LEAK_FOUND: "The finished clips were found to hold what may identify somebody, and were destroyed.",
        Reason.NO_CONSENT: "The label table says that there is no consent.",
        Reason.REJECTED: "A reviewer rejected a clip of it, so all of it stays out.",
        Reason.CHANGED: "The files changed during the build; building again takes them as they are then.",
        Reason.TIMED_OUT: "For minutes, no frame came out of the decoder.",
    }
)


class Excluded(Exception):  # noqa: N818 - an outcome, not an error
    """Raised below, caught once per recording: this one is left out, for a reason from the vocabulary.

    `frames` is how many frames are lost with it, where that is known.
    """

    def __init__(self, stage: Stage, reason: Reason, detail: str, frames: int | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.stage, self.reason, self.detail, self.frames = stage, reason, detail, frames

    def __reduce__(self) -> tuple[type[Excluded], tuple[Stage, Reason, str, int | None]]:
        return Excluded, (self.stage, self.reason, self.detail, self.frames)  # crosses process borders whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A row of `excluded.parquet`. `subject` is a path below the root (public) or a neutral id (private)."""

    subject: str
    unit: Literal["file", "recording", "annotation"]
    stage: Stage
    reason: Reason
    detail: str
    files: int
    frames: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Span:
    """Frames `start` up to, not including, `stop`, counted in presentation order from 0."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"not a span of frames: [{self.start}, {self.stop})")

    def __len__(self) -> int:
        return self.stop - self.start


class Kind(StrEnum):
    """What an annotation is. `none` says that a person looked and found nothing, which is not the same as no row."""

    LABEL = "label"
    BOX = "box"
    POLYGON = "polygon"
    MASK = "mask"
    TRIPLET = "triplet"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A named label: what the provider wrote, and the code that the vocabulary gives it ("" if it has none)."""

    name: str
    raw: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """Something said about frames of a recording, in the coordinates of its stored picture.

    Pixels count from the outer edge of the top left pixel, x to the right, y down, so a box is half-open and a pixel
    is 1 wide. `mask` is the path of a mask picture below the root. `instance` numbers the objects of a frame.
    """

    span: Span
    kind: Kind
    label: Label
    origin: str  # label file below the root
    box: tuple[float, float, float, float] | None = None  # xmin, ymin, xmax, ymax
    polygon: tuple[float, ...] = ()  # x0, y0, x1, y1, ...
    mask: str | None = None
    instance: int | None = None
    notes: tuple[str, ...] = ()  # such as interpolated, ellipse
    where: str = field(default="", compare=False)  # label file and place in it, for people


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFile:
    """A file that says something about a recording. `reader` is the place of the layout's rule that can read it;
    `frame` the one frame that it is about, if it is about one; `names` what its own name says."""

    path: str
    rule: int
    frame: str | None
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """The files of one recording below the source's root: one video, or its frames in temporal order."""

    kind: Literal["video", "frames"]
    paths: tuple[str, ...]
    rate: Fraction | None = None  # declared rate of a frame sequence; a video's rate is read from the file


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One recording as the source's layout names it; nothing of it has been opened yet.

    `subject` is how people are told about it: its path for a public source, its neutral id for a private one.
    `name` is what label tables call the recording, `case_name` its case. `case_id` is the strongest grouping the data
    supports and `case_basis` says what that is (patient, exam, lesion, sequence, recording, unknown). `leak_group` is
    the only key a splitter may use, an id made of `leak_group_name` where that means the same in every corpus;
    recordings that share an entry of `links`, a hash, join theirs. `labels` are raw.
    """

    recording_id: str
    name: str
    subject: str
    media: Media
    case_id: str
    case_name: str
    case_basis: str
    leak_group: str
    leak_group_name: str | None = None  # "source/case"; None for an owner's own
    links: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    label_files: tuple[LabelFile, ...] = ()
    capture_rate: Fraction | None = None  # where the container's rate lies


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """What probing found. Width and height are as displayed: rotated upright, pixels square."""

    num_frames: int
    rate: Fraction  # frames per second of the container (nominal if the rate varies)
    variable_rate: bool
    width: int
    height: int
    stored_width: int  # of the picture as it is stored, which annotations refer to
    stored_height: int
    codec: str
    container: str
    dropped_streams: Mapping[str, int]  # kind -> how many there are that no clip will carry
    metadata_fields: int  # how many metadata fields there are that no clip will carry; never their values
    digest: str  # xxh3-128 of the media bytes, 32 hex digits
    bytes: int


Box = tuple[int, int, int, int]
"""Left, top, right, bottom: half-open pixels of a recording's displayed picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """Rectangles that are black in the frames `span`."""

    span: Span
    rectangles: tuple[Box, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """The decision which pixels of a recording may be written, and on whose word. Only `deid.clear` makes one.

    What is shown of the picture lies in `crop`, but for what is `filled`; `boxes` are those of it that hide text.
    Clips are made of frames in `kept` alone.
    """

    by: str
    measures: tuple[str, ...]  # names of `deid.attest.Measure`
    doubts: tuple[str, ...]  # that the policy of the source lets pass
    looked_for: tuple[str, ...]
    removed: Mapping[str, int]
    crop: Box
    filled: tuple[Filled, ...]
    boxes: tuple[Filled, ...]
    kept: tuple[Span, ...]
    outside: Mapping[str, int]  # frames by what speaks against keeping them
    parameters: str  # SHA-256 of what was decided and by which settings and models, 64 hex digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Pixels of the displayed picture that are cut off at each side before it is scaled."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def shows(self, facts: MediaFacts) -> Box:
        """What is left of the displayed picture."""
        return self.left, self.top, facts.width - self.right, facts.height - self.bottom

    def leaves(self, facts: MediaFacts) -> tuple[int, int]:
        """Width and height of what is left of the displayed picture."""
        return facts.width - self.left - self.right, facts.height - self.top - self.bottom


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlan:
    """One clip to be encoded: key in `[a-z0-9-]`, source span, and the size of the encoded picture in pixels.

    Frame `i` of the clip is frame ``span.start + i * stride`` of the recording.
    """

    key: str
    span: Span
    width: int
    height: int
    stride: int = 1

    @property
    def num_frames(self) -> int:
        return -(-len(self.span) // self.stride)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingPlan:
    """Everything decided about a recording before a pixel is written."""

    recording: Recording
    facts: MediaFacts
    clearance: Cleared
    clips: tuple[ClipPlan, ...]
    rate: Fraction  # frames per second of the clips, in the time of the examination
    cut: Cut
    labels: tuple[Label, ...]  # of the whole recording
    annotations: Mapping[str, int]  # kind -> how many there are on its frames
    annotations_digest: str  # of everything that decides them
    exclusions: tuple[Exclusion, ...]  # of annotations
    unmapped: tuple[Label, ...]  # labels that the vocabulary does not know

    @property
    def examined_rate(self) -> Fraction:
        """Frames per second of the recording in the time of the examination."""
        return self.rate * self.clips[0].stride


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedClip:
    """A finished, audited clip. Only `media.encode` makes one, from a cleared plan, and the shard writer takes
    nothing else: the type is the privacy gate. Bytes stay in `path`; `digest` is their xxh3-128."""

    plan: ClipPlan
    path: str
    size: int
    digest: str
    num_frames: int
    rate: Fraction
    keyframes: tuple[int, ...]
    mean_luma: float  # 0..255, over the keyframes
    sharpness: float  # variance of the Laplacian of luma, over the keyframes
