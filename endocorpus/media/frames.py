"""Single pictures: frames out of an encoded clip, and masks."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from endocorpus.errors import DataError
from endocorpus.media.probe import is_turned, open_image, pass_on_machine_error
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


def frame_count(data: bytes) -> int:
    """How many frames an mp4 says that it has; nothing is decoded.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with av.open(io.BytesIO(data), mode="r", format="mp4") as container:
            return container.streams.video[0].frames
    except av.error.FFmpegError as error:
        raise DataError(f"cannot be decoded: {error.strerror}") from None


def frames_at(data: bytes, numbers: Collection[int]) -> list[npt.NDArray[np.uint8]]:
    """The frames `numbers` of an mp4, in their order: RGB of shape (height, width, 3). Decodes up to the last of them.

    Raises:
        DataError: it cannot be decoded, or has fewer frames.
    """
    wanted = sorted(set(numbers))
    found: list[npt.NDArray[np.uint8]] = []
    try:
        with av.open(io.BytesIO(data), mode="r", format="mp4") as container:
            for number, frame in enumerate(container.decode(video=0)):
                if len(found) == len(wanted):
                    break
                if number == wanted[len(found)]:
                    found.append(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
    except av.error.FFmpegError as error:
        raise DataError(f"cannot be decoded: {error.strerror}") from None
    if len(found) < len(wanted):
        raise DataError(f"has no frame {wanted[len(found)]}")
    return found


def read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """A mask picture as (height, width): bright is in. JPEG masks are not quite black and white, some have colours.

    Raises:
        Excluded: it cannot be decoded. The message carries no path.
    """
    try:
        with open_image(path) as image:
            grey, problem = _grey(image)
    except Exception as error:  # noqa: BLE001 - decoders of damaged images raise whatever they stumble over
        pass_on_machine_error(error)
        grey, problem = np.zeros((1, 1), np.int64), f"cannot be decoded: {type(error).__name__}"
    if problem:
        raise Excluded(Stage.ANNOTATE, Reason.BAD_LABELS, f"a mask {problem}")
    values = np.unique(grey)
    if len(values) == 2 and image.format != "JPEG":  # whatever the two are, the brighter one is the object
        return np.asarray(grey == values[1])
    return np.asarray(grey >= 128)


_GREY_SHARE = 0.2  # of pixels that are neither dark nor bright, in a picture that is a mask with soft edges


def _grey(image: Image.Image) -> tuple[npt.NDArray[np.int64], str]:
    """Brightness of a mask, (height, width), and why it cannot be one, or ""."""
    if getattr(image, "n_frames", 1) > 1:
        return np.zeros((1, 1), np.int64), "holds several pictures"
    clear = image.convert("RGBA").getchannel("A").getextrema() if "A" in image.getbands() else (255, 255)
    if clear != (255, 255):
        return np.zeros((1, 1), np.int64), "has transparent parts, so where its object is is not known"
    plain = image if image.mode.startswith(("I", "F")) else image.convert("L")
    if image.mode == "P" and not set(np.unique(np.asarray(plain)).tolist()) <= {0, 255}:
        plain = image  # of a palette that is not black and white, the numbers count: 0 is no object
    grey = np.asarray(plain).astype(np.int64)
    if plain is image and image.mode == "P":
        grey = np.where(grey > 0, 255, 0)
    values = np.unique(grey)
    if len(values) == 1 and image.format != "JPEG":
        if values[0] == 1:
            return grey * 255, ""  # a picture of ones is all object
        return grey, f"has the one value {values[0]}, neither black nor white" if 32 <= values[0] < 224 else ""
    vague = len(values) > 2 and float(((grey >= 64) & (grey < 192)).mean()) > _GREY_SHARE
    return grey, "is neither black nor white in large parts" if vague or (values[-1] > 255 and len(values) > 2) else ""


def as_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    """An image as RGB of shape (height, width, 3), upright; 16-bit grey is scaled to 8 bits, not cut off."""
    turned = is_turned(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, dtype=np.uint16) // 257).astype(np.uint8))
    return np.asarray((ImageOps.exif_transpose(image) if turned else image).convert("RGB"))
