"""Single frames out of an encoded clip."""

from __future__ import annotations

import io

import av
import av.error
import numpy as np
import numpy.typing as npt

from endocorpus.errors import DataError


def keyframe(data: bytes, which: int) -> npt.NDArray[np.uint8]:
    """Keyframe number `which` of an mp4, RGB of shape (height, width, 3); other frames are not decoded.

    Raises:
        DataError: it cannot be decoded, or has fewer keyframes.
    """
    try:
        with av.open(io.BytesIO(data), mode="r", format="mp4") as container:
            container.streams.video[0].codec_context.skip_frame = "NONKEY"
            for number, frame in enumerate(container.decode(video=0)):
                if number == which:
                    return frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except av.error.FFmpegError as error:
        raise DataError(f"cannot be decoded: {error.strerror}") from None
    raise DataError(f"has no keyframe {which}")
