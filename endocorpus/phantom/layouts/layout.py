"""What a phantom layout is made of: the recordings of a source, the label files beside them, and what is planted.

One convention holds for every box that a layout writes: corners are edges of pixels, so `xmax` and `ymax` are the
first column and row outside, and width is `xmax - xmin`. That is how the truth counts, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from endocorpus.phantom.plan import SECONDS
from endocorpus.phantom.traits import Traits
from endocorpus.phantom.truth import RecordingTruth, Trap

Truths = Mapping[str, RecordingTruth]
Files = Iterator[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for: at most `recordings`, none longer than `seconds`, of about `size` (width, height)."""

    seed: int
    recordings: int
    seconds: float
    size: tuple[int, int]
    frame_counter: bool

    def frames(self, rate: Fraction, most: int | None = None) -> int:
        """How many frames `seconds` hold at `rate`, but no more than `most`; at least one."""
        asked = max(1, round(Fraction(self.seconds) * rate))
        return asked if most is None else min(asked, most)

    def scaled(self, across: float, down: float | None = None) -> tuple[int, int]:
        """`size` times a factor per side, in even numbers no smaller than a phantom can be."""
        factors = (across, across if down is None else down)
        width, height = (max(64, 2 * round(side * by / 2)) for side, by in zip(self.size, factors, strict=True))
        return width, height


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One recording of a tree. Paths are below its root, with forward slashes.

    `path` names it in the truth. It is the video's own path; for pictures it is their folder, and where several
    recordings share a folder, the folder and a name that tells them apart. `frame_name` gives the path of picture
    `i`; its suffix picks the format. `gop` is the most frames between key frames of a video, and `codec` the encoder
    that a container gets instead of its usual one ("h264"), or how DICOM holds its frames (see `phantom.dicom`). A
    video with `tags` has them in its container, and a tone as sound: what a recorder leaves besides pictures.
    """

    path: str
    traits: Traits
    frame_name: Callable[[int], str] | None = None
    gop: int = 50
    codec: str | None = None
    tags: tuple[tuple[str, str], ...] = ()

    def media(self) -> tuple[str, ...]:
        """Every file of the recording, in the order of its frames."""
        if self.frame_name is None:
            return (self.path,)
        return tuple(self.frame_name(index) for index in range(self.traits.frames))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one source lies on disk.

    `recordings` is the most that can be asked for; `default` and `seconds` are what is rendered unless something
    else is asked for. `files` makes the label files after rendering, because their boxes and masks come from the
    truth. `labels` says in plain JSON what the label files say:
    `{recording path: {"labels": {...}, "frames": {...}}}`. `traps` lists what is planted in this very tree.
    """

    recordings: int
    default: int
    items: Callable[[Request], tuple[Item, ...]]
    files: Callable[[Request, Truths], Files]
    traps: Callable[[Request], tuple[Trap, ...]]
    labels: Callable[[Request], dict[str, Any]]
    seconds: float = SECONDS


__all__ = ["Files", "Item", "Layout", "Request", "Trap", "Truths"]
