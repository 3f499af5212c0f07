"""What is really inside an encoded clip: used to prove it when it is written, and again when a corpus is verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import av
import numpy as np
from scipy import ndimage

_BRAND = {"major_brand", "minor_version", "compatible_brands"}  # what every mp4 says of its own format
_TRACK = {"language", "handler_name", "vendor_id"}  # what every mp4 track says of its kind
_TRACK_VALUES = {"und", "VideoHandler", "[0][0][0][0]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """Facts of one clip from a full decode. `beside` names whatever it carries besides one video stream."""

    num_frames: int
    width: int
    height: int
    keyframes: tuple[int, ...]
    mean_luma: float  # 0..255, over the keyframes
    sharpness: float  # variance of the Laplacian of luma, over the keyframes
    beside: tuple[str, ...]


def inspect_clip(file: BinaryIO) -> ClipFacts:
    """Decode a whole clip.

    Raises:
        av.error.FFmpegError: it cannot be decoded.
    """
    with av.open(file, mode="r", format="mp4") as container:
        beside = [f"{stream.type} stream" for stream in container.streams if stream.type != "video"]
        beside += ["second video stream"] * (len(container.streams.video) - 1)
        beside += [f"metadata field {key!r}" for key in sorted(set(container.metadata) - _BRAND)]
        beside += ["chapter"] * len(container.chapters())
        video = container.streams.video[0]
        beside += [
            f"track field {key!r}"
            for key, value in sorted(video.metadata.items())
            if key not in _TRACK or value not in _TRACK_VALUES
        ]
        keyframes: list[int] = []
        luma: list[float] = []
        edges: list[float] = []
        count = 0
        for frame in container.decode(video):
            if frame.key_frame:
                grey = frame.to_ndarray(format="gray").astype(np.float32)
                keyframes.append(count)
                luma.append(float(grey.mean()))
                edges.append(float(ndimage.laplace(grey).var()))
            count += 1
        return ClipFacts(
            num_frames=count,
            width=video.width,
            height=video.height,
            keyframes=tuple(keyframes),
            mean_luma=float(np.mean(luma)) if luma else 0.0,
            sharpness=float(np.mean(edges)) if edges else 0.0,
            beside=tuple(beside),
        )
