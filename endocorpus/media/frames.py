"""Single pictures: frames out of an encoded clip, and masks."""

from __future__ import annotations

import io
from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt

from endocorpus.errors import DataError
from endocorpus.media.probe import open_image, pass_on_machine_error
from endocorpus.records import Excluded, Reason, Stage


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


def read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """A mask picture as (height, width): bright is in. JPEG masks are not quite black and white, some have colours.

    Raises:
        Excluded: it cannot be decoded. The message carries no path.
    """
    try:
        with open_image(path) as image:
            grey = np.asarray(image) if image.mode == "P" else np.asarray(image.convert("L"))
    except Exception as error:  # noqa: BLE001 - decoders of damaged images raise whatever they stumble over
        pass_on_machine_error(error)
        raise Excluded(Stage.ANNOTATE, Reason.BAD_LABELS, f"a mask cannot be decoded: {type(error).__name__}") from None
    exact = image.format != "JPEG"  # in a JPEG a 1 is noise
    few = image.mode == "P" or (exact and grey.max(initial=0) <= 1)  # numbers of objects, not brightness
    return grey >= (1 if few else 128)
