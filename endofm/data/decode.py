"""One pass over a clip's bytes, in which only the frames that were asked for are kept.

PyAV decodes on one thread; parallelism is the loader's, in processes.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from endocorpus.errors import DataError
from endofm.data.planes import as_420, copy_cut, rgb_of


def decode_cuts(
    data: bytes,
    frame_indices: NDArray[np.integer],
    num_frames: int,
    *,
    size: tuple[int, int],
    cuts_U5: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> NDArray[np.float32]:
    """Decode some frames of a clip and copy a cut of the planes of each.

    Args:
        data: a whole video file, of any container and codec that libav knows.
        frame_indices: frames wanted, counted from 0 in presentation order; strictly increasing.
        num_frames: frames the clip is said to have; every index must be below it.
        size: height and width that its frames are said to have, pixels.
        cuts_U5: what to keep of each frame, and where; see `planes.lay_out`.
        out: uint8 [bytes], what to write to.

    Returns:
        What makes RGB of the planes, see `planes.rgb_matrix`. Matrix and range are those in the clip's own tags; a clip
        without tags is taken for BT.601, limited range.

    Raises:
        DataError: not a video, damaged, fewer frames than wanted, frames of another size, or colours that change their
            meaning on the way.
        ValueError: indices that are not strictly increasing or not within the clip.
    """
    first: NDArray[np.float32] | None = None
    for (index, frame, matrix), cut in zip(_planar(data, frame_indices, num_frames), cuts_U5, strict=True):
        if (frame.height, frame.width) != size:
            height, width = size
            found = f"{frame.width}x{frame.height}"
            raise DataError(f"the clip should be {width}x{height} pixels, but its frames are {found}")
        if first is not None and not np.array_equal(matrix, first):
            raise DataError(f"the colours of frame {index} are tagged otherwise than those before it")
        first = matrix
        copy_cut(frame, cut, out)
    assert first is not None
    return first


def decode_frames(data: bytes, frame_indices: NDArray[np.integer], num_frames: int) -> NDArray[np.uint8]:
    """Decode some frames of a clip to RGB, uint8 [N, H, W, 3]; the rest is as for `decode_cuts`."""
    return np.stack([rgb_of(frame, matrix) for _, frame, matrix in _planar(data, frame_indices, num_frames)])


def _planar(
    data: bytes, frame_indices: NDArray[np.integer], num_frames: int
) -> Iterator[tuple[int, VideoFrame, NDArray[np.float32]]]:
    """The wanted frames with their numbers, as 4:2:0, and what makes RGB of them."""
    wanted = [int(index) for index in frame_indices]
    if any(a >= b for a, b in itertools.pairwise(wanted)):
        raise ValueError("frame_indices must be strictly increasing")
    if not wanted or wanted[0] < 0 or wanted[-1] >= num_frames:
        raise ValueError(f"frame_indices must hold at least one index, all within 0..{num_frames - 1}")
    reformatter = VideoReformatter()  # one for all frames: it keeps its conversion tables
    found = 0
    try:
        for frame in _wanted_frames(data, wanted):
            yield wanted[found], *as_420(frame, reformatter)
            found += 1
    except av.FFmpegError as error:
        raise DataError(f"cannot decode frame {wanted[found]}: {error.strerror or error}") from None
    if found < len(wanted):
        raise DataError(f"the clip should have {num_frames} frames, but it ends before frame {wanted[found]}")


def _wanted_frames(data: bytes, wanted: list[int]) -> Iterator[VideoFrame]:
    """Yield the wanted frames in order and stop decoding after the last."""
    with av.open(io.BytesIO(data), mode="r") as container:
        if not container.streams.video:
            raise DataError("there is no video in the clip")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        remaining = iter(wanted)
        target = next(remaining)
        for index, frame in enumerate(container.decode(stream)):
            if index < target:
                continue
            if frame.is_corrupt:
                raise DataError(f"frame {index} is damaged")
            yield frame
            following = next(remaining, None)
            if following is None:
                return
            target = following
