"""Some frames of a recording, as they are displayed: what analysis passes look at. Nothing is written.

Frames come in the geometry that the encode pass gives its filters: turned and mirrored as the file asks, with square
pixels. A mask that is planned on these frames so lies where it is meant to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from math import atan2, degrees
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from endocorpus.media.dicom import pictures, stream_in_memory
from endocorpus.media.frames import as_rgb
from endocorpus.media.probe import main_video, open_image, open_video, pass_on_machine_error
from endocorpus.records import Excluded, Media, MediaFacts, Reason, Stage

Frame = npt.NDArray[np.uint8]


def sampled(
    media: Media, facts: MediaFacts, root: Path, wanted: Sequence[int], *, grey: tuple[int, int] | None = None
) -> Iterator[tuple[int, Frame]]:
    """Frames number `wanted` (rising), each with its number: RGB of shape (height, width, 3) of the displayed picture.

    Args:
        grey: width and height of small grey pictures that are given instead, of shape (height, width).

    Raises:
        Excluded: the recording cannot be read to the last frame that is wanted. Messages carry no path.
    """
    if list(wanted) != sorted(set(wanted)):
        raise ValueError("frames are sampled in their order, each once")
    if not wanted:
        return
    if media.kind == "frames":
        for number in wanted:
            yield number, _scaled(_picture(root / media.paths[number], number, len(media.paths)), facts, grey)
        return
    path = root / media.paths[0]
    if facts.container == "dicom" and facts.codec == "pictures":
        yield from _chosen((partial(_scaled, picture, facts, grey) for picture in pictures(path)), wanted)
        return
    with ExitStack() as stack:
        if facts.container == "dicom":
            path = stack.enter_context(stream_in_memory(path))
        yield from _chosen(_decoded(path, facts, grey), wanted)


def _chosen(frames: Iterator[Callable[[], Frame]], wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
    """Of frames that are made when they are called, the wanted ones."""
    left = iter(wanted)
    due = next(left)
    for number, make in enumerate(frames):
        if number == due:
            yield number, make()
            following = next(left, None)
            if following is None:
                return
            due = following
    raise Excluded(Stage.DEID, Reason.DAMAGED, f"frame {due} was to be looked at, but frames end before it")


def _picture(path: Path, number: int, count: int) -> Frame:
    try:
        with open_image(path) as image:
            return as_rgb(image)
    except Exception as error:  # noqa: BLE001 - decoders of damaged images raise whatever they stumble over
        pass_on_machine_error(error)
        detail = f"image {number + 1} of {count} cannot be decoded: {type(error).__name__}"
        raise Excluded(Stage.DEID, Reason.DAMAGED, detail) from None


def _scaled(frame: Frame, facts: MediaFacts, grey: tuple[int, int] | None) -> Frame:
    if frame.shape[:2] != (facts.height, facts.width):
        raise Excluded(Stage.DEID, Reason.FRAME_SIZE_CHANGES, "a picture has not the size that was probed")
    if grey is None:
        return frame
    return np.asarray(Image.fromarray(frame).convert("L").resize(grey, Image.Resampling.BOX))


def _decoded(path: Path, facts: MediaFacts, grey: tuple[int, int] | None) -> Iterator[Callable[[], Frame]]:
    with open_video(path) as container:
        stream = main_video(container)
        stream.codec_context.thread_count = 1
        try:
            for frame in container.decode(stream):
                yield partial(_displayed, frame, facts, grey)
        except Excluded:
            raise
        except Exception as error:  # noqa: BLE001 - libav and its bindings raise whatever they stumble over
            pass_on_machine_error(error)
            raise Excluded(Stage.DEID, Reason.DAMAGED, f"decoding stops: {type(error).__name__}") from None


def _displayed(frame: Any, facts: MediaFacts, grey: tuple[int, int] | None) -> Frame:
    turn = _turn(frame)
    size = grey or (facts.width, facts.height)
    swapped = turn(np.zeros((1, 2), np.uint8)).shape == (2, 1)
    if (frame.height, frame.width) != (
        (facts.stored_width, facts.stored_height) if swapped else (facts.stored_height, facts.stored_width)
    ):
        raise Excluded(Stage.DEID, Reason.FRAME_SIZE_CHANGES, "the picture's size changes midway")
    width, height = size[::-1] if swapped else size
    kind = "gray" if grey else "rgb24"
    return np.ascontiguousarray(turn(frame.to_ndarray(format=kind, width=width, height=height, interpolation="AREA")))


def _turn(frame: Any) -> Callable[[Frame], Frame]:
    """How a frame is turned and mirrored for display by its matrix, in the very steps of ffmpeg's own.

    Raises:
        Excluded: by an angle that is no quarter of a turn, after which the picture would not fill its frame.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return lambda picture: picture
    matrix = np.frombuffer(bytes(data), np.int32).astype(np.int64)
    angle = degrees(atan2(matrix[1], matrix[0])) % 360
    quarter = round(angle / 90) % 4
    if abs((angle - 90 * quarter + 180) % 360 - 180) > 1:
        raise Excluded(Stage.DEID, Reason.UNKNOWN_PIXELS, "the file asks for a turn that is no quarter of a circle")
    across, down = matrix[0] < 0, matrix[4] < 0
    if quarter == 1:
        return (lambda p: p.swapaxes(0, 1)) if matrix[3] > 0 else (lambda p: np.rot90(p, -1))
    if quarter == 2:
        return lambda p: p[:: -1 if down else 1, :: -1 if across else 1]
    if quarter == 3:
        return (lambda p: np.rot90(p, -1)[::-1]) if matrix[3] < 0 else np.rot90
    return lambda p: p[::-1] if down else p
