"""What travels of a frame: its planes as the codec keeps them, cut to the pixels that views look at.

Frames of a clip are Y'CbCr 4:2:0: a brightness for every pixel, and two colours for every square of four. That is half
the bytes of RGB, and copying them costs a core a third of what converting them does; the device converts (`views`).
Most frames are only seen by small crops, so that less than half of their pixels travel at all.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from endofm.data.plan import ViewPlan

HALVED = 1  # how often the sides of the colour planes are halved: 4:2:0
_ASIS = {"yuv420p": False, "yuvj420p": True}  # formats that are taken as they come; whether their name means full range
_BT601 = 0.299, 0.114
_SHARES: Mapping[int, tuple[float, float]] = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""Shares of red and blue in brightness, by the number of H.273 table 4 (matrix coefficients): BT.709, FCC, SMPTE 240M,
BT.2020. All others, those without a tag among them, are BT.601."""
_FULL = 2  # H.264 and H.273: the range of a frame that uses all levels; otherwise 16 to 235 and 16 to 240


def lay_out(
    plans: Sequence[ViewPlan], sizes: Sequence[tuple[int, int]], halved: int = HALVED
) -> tuple[list[NDArray[np.int64]], int]:
    """Where the pixels of some clips go, one after the other.

    Args:
        plans: the views of each clip.
        sizes: height and width of each clip's frames, pixels.
        halved: how often the sides of the colour planes are halved.

    Returns:
        For each clip a table of cuts, int64 [U, 5], a row for each of `plan.frames_needed`: the first byte of a cut,
        then top, left, height and width of the pixels of its frame that it holds. Its three planes follow each other,
        row by row, brightness first. And how many bytes all cuts take together.
    """
    tables, end = [], 0
    for plan, size in zip(plans, sizes, strict=True):
        boxes = _boxes(plan, size, 1 << halved)
        ends = end + np.cumsum([num_bytes(height, width, halved) for _, _, height, width in boxes])
        tables.append(np.column_stack([np.concatenate([[end], ends[:-1]]), boxes]).astype(np.int64))
        end = int(ends[-1])
    return tables, end


def _boxes(plan: ViewPlan, size: tuple[int, int], step: int) -> list[tuple[int, int, int, int]]:
    """Of each frame that the views need, the smallest box that holds all their crops, in whole squares of colour."""
    edges: dict[int, tuple[int, int, int, int]] = {}
    for view in plan.views:
        top, left, height, width = view.box
        for frame in set(view.frames):
            t, l, b, r = edges.get(frame, (top, left, 0, 0))
            edges[frame] = min(t, top), min(l, left), max(b, top + height), max(r, left + width)
    boxes = []
    for _, (t, l, b, r) in sorted(edges.items()):
        top, left = t - t % step, l - l % step
        boxes.append((top, left, min(b + -b % step, size[0]) - top, min(r + -r % step, size[1]) - left))
    return boxes


def num_bytes(height: int, width: int, halved: int = HALVED) -> int:
    """Of the three planes of so many pixels."""
    return height * width + 2 * _half(height, halved) * _half(width, halved)


def _half(side: int, halved: int) -> int:
    return (side + halved) >> halved


def copy_cut(frame: VideoFrame, cut: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    """Copy what `cut` says of the planes of a 4:2:0 frame to its place in `out`, uint8 [bytes]."""
    at, top, left, height, width = (int(value) for value in cut)
    for plane, halved in zip(planes_of(frame), (0, HALVED, HALVED), strict=True):
        rows, columns = _half(height, halved), _half(width, halved)
        t, l = top >> halved, left >> halved
        out[at : at + rows * columns].reshape(rows, columns)[:] = plane[t : t + rows, l : l + columns]
        at += rows * columns


def planes_of(frame: VideoFrame) -> list[NDArray[np.uint8]]:
    """The planes of a frame, uint8 [rows, columns], in libav's memory, whose rows may be longer."""
    planes = []
    for plane in frame.planes:
        flat = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # a buffer; its stub does not say
        planes.append(flat.reshape(-1, plane.line_size)[: plane.height, : plane.width])
    return planes


def as_420(frame: VideoFrame, reformatter: VideoReformatter) -> tuple[VideoFrame, NDArray[np.float32]]:
    """A frame as 4:2:0 with eight bits, and what makes RGB of it, see `rgb_matrix`.

    Clips of a corpus are so already. Everything else is converted, to BT.601 of limited range.
    """
    if frame.format.name in _ASIS:
        full = _ASIS[frame.format.name] or int(frame.color_range) == _FULL
        return frame, rgb_matrix(int(frame.colorspace), full=full)
    converted = reformatter.reformat(
        frame, format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG, threads=1
    )
    return converted, rgb_matrix(0, full=False)


@functools.cache
def rgb_matrix(matrix_coefficients: int, *, full: bool) -> NDArray[np.float32]:
    """What makes red, green, blue, 0 to 255, of Y', Cb, Cr and 1: float32 [3, 4].

    Args:
        matrix_coefficients: number of H.273, table 4, as in a video's tags.
        full: whether all levels are used (H.273, VideoFullRangeFlag).
    """
    red, blue = _SHARES.get(matrix_coefficients, _BT601)
    green = 1 - red - blue
    mix = np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
            [1, 2 * (1 - blue), 0],
        ]
    )
    gain, black = (np.ones(3), 0) if full else (255 / np.array([219, 224, 224]), 16)
    mix = mix * gain
    matrix = np.column_stack([mix, -mix @ [black, 128, 128]]).astype(np.float32)
    matrix.flags.writeable = False  # it is given out again
    return matrix


def rgb_of(frame: VideoFrame, matrix: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A 4:2:0 frame as RGB, uint8 [H, W, 3]: what the device makes of it, rounded."""
    brightness_HW, *colours = planes_of(frame)
    height, width = brightness_HW.shape
    colours_C1hw = np.stack(colours)[:, None]
    rgb_3hw = (matrix[:, 1:3, None, None] * colours_C1hw.transpose(1, 0, 2, 3)).sum(1) + matrix[:, 3, None, None]
    rgb_3HW = rgb_3hw.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]
    rgb_3HW = rgb_3HW + matrix[:, 0, None, None] * brightness_HW
    return np.ascontiguousarray(rgb_3HW.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
