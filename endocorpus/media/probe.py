"""Facts of a recording's files, read without trusting their names: counts, sizes, rates, and what else is inside.

Metadata is counted, never read: its values may identify a patient.
"""

from __future__ import annotations

import errno
import os
import stat
import statistics
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import av
import av.error
import numpy as np
import xxhash
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream
from PIL import Image

from endocorpus.corpus.files import digest_file
from endocorpus.media.dicom import dicom_facts, is_dicom, pictures, stream_in_memory
from endocorpus.records import Excluded, Media, MediaFacts, Reason, Stage, as_rate

# Demuxers of self-contained files. Playlists and concat scripts, which pull in other files, are not among them.
DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,asf,flv"
OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
IMAGE_MODES = {
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I;16",
    "I;16L",
    "I;16B",
}
# What goes wrong with the machine, and says nothing about a file.
MACHINE_ERRORS = {errno.ENOENT, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
MACHINE_ERRORS |= {errno.ESTALE, errno.EDQUOT, errno.ENOSPC, errno.ETIMEDOUT, errno.EROFS}
# mp4 lists every sample; these containers list none, or list what is not a frame, so their frames are counted.
_COUNTED_BY_DECODING = {"avi", "mpeg", "mpegts", "mpegvideo", "m4v", "flv", "asf"}


def probe(media: Media, root: Path) -> MediaFacts:
    """Facts of one recording.

    Raises:
        Excluded: the files cannot become clips, with the reason. Messages carry no path.
    """
    paths = [root / path for path in media.paths]
    for path in paths:
        _refuse_unreadable(path)
    if media.kind == "frames":
        return _probe_frames(paths, media.rate)
    return _probe_dicom(paths[0]) if is_dicom(paths[0]) else _probe_video(paths[0])


def digest_media(paths: Sequence[Path]) -> str:
    """xxh3-128 over the bytes of a recording's files, in order."""
    hasher = xxhash.xxh3_128()
    for path in paths:
        hasher.update(digest_file(path).encode())
    return hasher.hexdigest()


def _exclude(reason: Reason, detail: str) -> NoReturn:
    raise Excluded(Stage.PROBE, reason, detail)


def _refuse_unreadable(path: Path) -> None:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or device could keep us waiting, or reading, for ever
            _exclude(Reason.UNREADABLE, "not a regular file")
        path.open("rb").close()
    except OSError as error:
        _exclude(Reason.UNREADABLE, f"cannot be opened: {error.strerror}")
    if status.st_size == 0:
        _exclude(Reason.EMPTY_FILE, "the file has no bytes")


@contextmanager
def open_video(path: Path) -> Iterator[InputContainer]:
    """Open a self-contained video file; metadata is left undecoded as far as libav allows.

    Raises:
        Excluded: not a video of a known kind.
    """
    if not _is_unicode(str(path)):
        _exclude(Reason.UNREADABLE, "its name is not valid Unicode, which tables and pages cannot show; rename it")
    with nameless(path) as unnamed:
        try:
            # With its scheme and absolute, or a name such as "12:30.mp4" would be taken for a protocol.
            container = av.open(f"file:{unnamed}", options=OPEN_OPTIONS, metadata_errors="ignore")
        except Exception as error:  # noqa: BLE001 - libav and its bindings raise whatever they stumble over
            _exclude(Reason.NOT_A_VIDEO, f"libav: {_judge(error, path)}")
        with container:
            yield container


@contextmanager
def nameless(path: Path) -> Iterator[Path]:
    """An absolute path to an open file that does not hold its name, which may be a patient's.

    libav and ffmpeg get this one: the list of processes shows their arguments to everybody, and they quote their
    inputs in what they say. It works in child processes too. Where there is no /proc, it is the file's own path.
    """
    with path.open("rb") as file:
        yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}") if sys.platform == "linux" else path.absolute()


def _judge(error: Exception, path: Path) -> str:
    """What an exception out of libav says about the content of a file; what it says about the machine is passed on.

    libav says "Input/output error" and "Operation not permitted" also of what it cannot parse: reading tells.
    """
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number in {errno.ENOMEM, errno.EMFILE, errno.ENFILE}:
        raise OSError(number or errno.ENOMEM, os.strerror(number or errno.ENOMEM)) from None
    if number in MACHINE_ERRORS:
        digest_file(path)
        return "data that it cannot follow"
    return getattr(error, "strerror", None) or type(error).__name__


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _probe_video(path: Path) -> MediaFacts:
    with open_video(path) as container:
        stream = main_video(container)
        others = Counter(other.type for other in container.streams if other.index != stream.index)
        metadata = len(container.metadata) + sum(len(other.metadata) for other in container.streams)
        metadata += len(container.chapters())
        promised = stream.frames
        index = _packet_index(container, stream, path)
        (width, height), stored = _display_size(path, stream.index)
        num_frames = len(index)
        if _first_name(container) in _COUNTED_BY_DECODING:
            num_frames = _count_by_decoding(path, stream.index)
        elif promised and index.size_with_discarded < promised:
            _exclude(
                Reason.TRUNCATED, f"the header promises {promised} frames, the file holds {index.size_with_discarded}"
            )
        if num_frames == 0:
            _exclude(Reason.DAMAGED, "no frame can be decoded")
        return MediaFacts(
            num_frames=num_frames,
            rate=_rate(stream, index),
            variable_rate=_varies(index.pts),
            width=width,
            height=height,
            stored_width=stored[0],
            stored_height=stored[1],
            codec=stream.codec_context.name,
            container=_first_name(container),
            dropped_streams=dict(sorted(others.items())),
            metadata_fields=metadata,
            digest=digest_media([path]),
            bytes=path.stat().st_size,
        )


def _probe_dicom(path: Path) -> MediaFacts:
    """Facts of a DICOM file: those of the stream or pictures in it, and how many header fields no clip will carry."""
    header = dicom_facts(path)
    if header.holds == "stream":
        with stream_in_memory(path) as stream:
            found = _probe_video(stream)
        return replace(
            found,
            container="dicom",
            rate=header.rate or found.rate,
            metadata_fields=found.metadata_fields + header.elements,
            digest=digest_media([path]),
            bytes=path.stat().st_size,
        )
    sizes = [picture.shape[:2] for picture in pictures(path)]
    if len(sizes) != header.num_frames:
        _exclude(Reason.TRUNCATED, f"the header promises {header.num_frames} frames, the file holds {len(sizes)}")
    height, width = sizes[0]
    return MediaFacts(
        num_frames=len(sizes),
        rate=header.rate or Fraction(25),
        variable_rate=False,
        width=width,
        height=height,
        stored_width=width,
        stored_height=height,
        codec="pictures",
        container="dicom",
        dropped_streams={},
        metadata_fields=header.elements,
        digest=digest_media([path]),
        bytes=path.stat().st_size,
    )


def main_video(container: InputContainer) -> VideoStream:
    """The largest moving picture of a container; cover art and thumbnails are not.

    Raises:
        Excluded: there is none.
    """
    # A stream without a codec context is of a kind that libav cannot decode.
    videos = [s for s in container.streams.video if s.codec_context and not s.disposition & Disposition.attached_pic]
    if not videos:
        _exclude(Reason.NO_VIDEO_STREAM, "the container holds no video stream that can be decoded")
    return max(videos, key=lambda s: (s.width or 0) * (s.height or 0))


def _first_name(container: InputContainer) -> str:
    return container.format.name.split(",")[0]


class _PacketIndex:
    """Presentation times of the frames that a decoder returns, and how many packets there are with the discarded."""

    def __init__(self) -> None:
        self.pts: list[int] = []
        self.size_with_discarded = 0
        self.is_timed = True  # whether every packet says when it is shown

    def __len__(self) -> int:
        return len(self.pts)


def _packets(container: InputContainer, stream: Stream) -> Iterator[Packet[Any]]:
    """Packets of one stream, and an empty one at the end that flushes its decoder."""
    with suppress(IndexError):  # PyAV 18.1, behind the last packet, when a stream began midway as the sound of FLV may
        yield from container.demux(stream)


def _frames(container: InputContainer, stream: Stream) -> Iterator[Any]:
    for packet in _packets(container, stream):
        yield from packet.decode()


def _packet_index(container: InputContainer, stream: VideoStream, path: Path) -> _PacketIndex:
    index = _PacketIndex()
    try:
        for packet in _packets(container, stream):
            if packet.size == 0:
                continue
            index.size_with_discarded += 1
            if not packet.is_discard:  # an edit list hides these
                index.is_timed = index.is_timed and packet.pts is not None
                index.pts.append(packet.pts if packet.pts is not None else len(index.pts))
    except Exception as error:  # noqa: BLE001 - libav and its bindings raise whatever they stumble over
        _exclude(Reason.DAMAGED, f"reading stops after {index.size_with_discarded} frames: {_judge(error, path)}")
    index.pts.sort()
    return index


def _count_by_decoding(path: Path, stream_index: int) -> int:
    with open_video(path) as container:
        try:
            return sum(1 for _ in _frames(container, container.streams[stream_index]))
        except Exception as error:  # noqa: BLE001 - as above
            _exclude(Reason.DAMAGED, f"decoding stops: {_judge(error, path)}")


def _display_size(path: Path, stream_index: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height upright, from the first decoded frame: with square pixels, and as they are stored."""
    with open_video(path) as container:
        stream: Any = container.streams[stream_index]
        try:
            frame = next(_frames(container, stream), None)
        except Exception as error:  # noqa: BLE001 - as above
            _exclude(Reason.DAMAGED, f"the first frame cannot be decoded: {_judge(error, path)}")
        if frame is None:
            _exclude(Reason.DAMAGED, "no frame can be decoded")
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
        width = round(frame.width * aspect) if Fraction(1, 8) <= aspect <= 8 else frame.width  # else a damaged header
        turned = frame.rotation % 180 == 90
        stored = (frame.width, frame.height)
        return ((frame.height, width), stored[::-1]) if turned else ((width, frame.height), stored)


def _rate(stream: VideoStream, index: _PacketIndex) -> Fraction:
    """The guessed rate where the average agrees with it, else the average: a guess doubles for interlaced video.

    Where frames are shown for a time that fits neither, the rate that they are shown at: an AVI that leaves ticks
    without a frame gives its tick rate for both.
    """
    average, guessed = stream.average_rate, stream.guessed_rate
    agree = average and guessed and abs(average / guessed - 1) < 0.01
    nominal = (guessed if agree else average or guessed) or Fraction(25)
    ticks = index.pts[-1] - index.pts[0] if index.is_timed and index.pts else 0
    if ticks > 0 and stream.time_base:
        shown = (len(index) - 1) / (ticks * stream.time_base)
        if abs(shown / nominal - 1) > 0.10:
            return as_rate(shown)
    return as_rate(nominal)


def _varies(pts: Sequence[int]) -> bool:
    steps = np.diff(np.asarray(pts, dtype=np.int64))
    if len(steps) < 2:
        return False
    middle = statistics.median(steps.tolist())
    return bool(np.abs(steps - middle).max() > max(2, 0.25 * middle))


def pass_on_machine_error(error: BaseException) -> None:
    """Pass on what says something about the machine and nothing about the file."""
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        raise error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after the turn that the camera noted (EXIF orientation)."""
    width, height = image.size
    return (height, width) if is_turned(image) and image.getexif().get(0x0112, 1) in {5, 6, 7, 8} else (width, height)


def is_turned(image: Image.Image) -> bool:
    """Whether the image may carry a camera's note about its orientation; to ask a PNG would mean to decode it."""
    return image.format in {"JPEG", "MPO", "TIFF"}


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image of a known kind. Nothing of its header is quoted in warnings.

    Raises:
        Exception: of whatever kind the decoder of a damaged image stumbles over.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            yield image


def _image_problem(image: Image.Image) -> str | None:
    """Why one image cannot be one 8-bit colour frame."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # the second picture of an MPO is a preview
        return f"holds {getattr(image, 'n_frames', 1)} pictures; one frame a file is expected"
    if image.mode not in IMAGE_MODES:
        return f"has pixels of the kind {image.mode!r}, whose range is not known"
    return None


def _probe_frames(paths: Sequence[Path], rate: Fraction | None) -> MediaFacts:
    sizes: Counter[tuple[int, int]] = Counter()
    formats: Counter[str] = Counter()
    fields = 0
    for number, path in enumerate(paths):
        try:
            with open_image(path) as image:
                problem = _image_problem(image)
                sizes[upright_size(image)] += 1
                formats[str(image.format).lower()] += 1
                fields += len(image.info)
        except Exception as error:  # noqa: BLE001 - decoders of damaged images raise whatever they stumble over
            pass_on_machine_error(error)
            if isinstance(error, Image.DecompressionBombError):
                many = f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, which is not safe to open"
                _exclude(Reason.UNREADABLE, f"image {number + 1} of {len(paths)} has {many}")
            _exclude(Reason.NOT_A_VIDEO, f"image {number + 1} of {len(paths)} is not readable: {type(error).__name__}")
        if problem:
            _exclude(Reason.UNKNOWN_PIXELS, f"image {number + 1} of {len(paths)} {problem}")
    if len(sizes) > 1:
        listed = ", ".join(f"{count} of {w}x{h}" for (w, h), count in sizes.most_common(3))
        _exclude(Reason.FRAME_SIZE_CHANGES, f"{len(sizes)} sizes: {listed}")
    (width, height) = next(iter(sizes))
    return MediaFacts(
        num_frames=len(paths),
        rate=rate or Fraction(25),
        variable_rate=False,
        width=width,
        height=height,
        stored_width=width,
        stored_height=height,
        codec="+".join(sorted(formats)),
        container="images",
        dropped_streams={},
        metadata_fields=fields,
        digest=digest_media(paths),
        bytes=sum(path.stat().st_size for path in paths),
    )
