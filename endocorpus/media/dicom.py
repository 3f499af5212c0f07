"""Video inside DICOM: the stream or the pictures come out, about ten technical values are read, the rest is dropped.

A DICOM file is a header full of names around pixels. Only the tags below are ever parsed into values; nothing else of
the header leaves this module. Streams (PS3.5 annex 8.2: MPEG-2, MPEG-4 AVC, HEVC) are handed on from memory, so that no
copy of an uncleared recording reaches a disk.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydicom import config, dcmread
from pydicom.encaps import generate_fragments, parse_basic_offsets
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, MPEGTransferSyntaxes

from endocorpus.records import Excluded, Reason, Stage, plain_fraction

_TAGS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "PhotometricInterpretation",
    "CineRate",
    "FrameTime",
    "RecommendedDisplayFrameRate",
)
_SLOWEST, _FASTEST = Fraction(1, 3600), 1000  # frames per second that are believed
_PREAMBLE = 128  # bytes before the magic word
# What pydicom has to say of a header quotes its values, which may be names.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFacts:
    """What is known of the pixels. `holds` a stream for a decoder, or pictures that pydicom decodes one by one."""

    holds: Literal["stream", "pictures"]
    num_frames: int  # as the header says
    rate: Fraction | None  # frames per second, as the header says
    width: int
    height: int
    elements: int  # of the header; never their values


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM part 10 files do, whatever its name."""
    with path.open("rb") as file:
        return file.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"


def dicom_facts(path: Path) -> DicomFacts:
    """Technical values of a DICOM file.

    Raises:
        Excluded: not readable, or it holds no pixels in colour or grey.
    """
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        elements = len(dcmread(path, stop_before_pixels=True, defer_size=0))
        syntax = UID(header.file_meta.TransferSyntaxUID)
        return DicomFacts(
            holds="stream" if syntax in MPEGTransferSyntaxes else "pictures",
            num_frames=int(header.get("NumberOfFrames") or 1),
            rate=_rate(header),
            width=int(header.Columns),
            height=int(header.Rows),
            elements=elements,
        )
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged header raises whatever its parser stumbles over
        raise _unreadable(error) from None


def _rate(header: Any) -> Fraction | None:
    """Frames per second: cine rate, else from the time between frames, in milliseconds, else as it is to be shown.

    What is no number or no rate that a camera could have is passed over.
    """
    for tag in ("CineRate", "FrameTime", "RecommendedDisplayFrameRate"):
        told = _number(header, tag)
        rate = 1000 / told if told and tag == "FrameTime" else told
        if rate and _SLOWEST <= rate <= _FASTEST:
            # In the small numbers that a rounded rate or time between frames was made of.
            return rate.limit_denominator(1001) if rate > 1 else 1 / (1 / rate).limit_denominator(1001)
    return None


def _number(header: Any, tag: str) -> Fraction | None:
    """A value of the header as it is written: pydicom's own numbers write out whatever exponent they have."""
    item = header.get_item(tag) if tag in header else None
    value = getattr(item, "value", None)
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return plain_fraction(text.strip("\0 "))


def _unreadable(error: Exception) -> Excluded:
    kind = "not DICOM" if isinstance(error, InvalidDicomError) else type(error).__name__
    return Excluded(Stage.PROBE, Reason.NOT_A_VIDEO, f"a DICOM file that cannot be read: {kind}")


@contextmanager
def stream_in_memory(path: Path) -> Iterator[Path]:
    """The stream of a DICOM file as a file that lies in memory only, under a path that child processes can open too.

    Raises:
        Excluded: the fragments cannot be read.
    """
    descriptor = os.memfd_create("stream")
    try:
        try:
            with path.open("rb") as file:
                dcmread(file, stop_before_pixels=True, specific_tags=["Rows"])
                file.seek(_VALUE_OFFSET, os.SEEK_CUR)
                parse_basic_offsets(file)
                for fragment in generate_fragments(file):
                    rest = memoryview(fragment)
                    while rest:  # the system takes no more than 2 GiB at a time
                        rest = rest[os.write(descriptor, rest) :]
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise _unreadable(error) from None
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


_VALUE_OFFSET = 12  # bytes: tag, OB, reserved, undefined length, before the first fragment


def pictures(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """The pictures of a DICOM file as RGB of shape (height, width, 3), one at a time.

    Raises:
        Excluded: one cannot be decoded.
    """
    try:
        for frame in iter_pixels(path):
            grey = frame if frame.ndim == 2 else None
            rgb = np.stack([grey] * 3, axis=-1) if grey is not None else frame
            if rgb.dtype != np.uint8:
                raise Excluded(Stage.ENCODE, Reason.UNKNOWN_PIXELS, "DICOM pictures of more than 8 bits")
            yield rgb
    except (OSError, Excluded):
        raise
    except Exception as error:  # noqa: BLE001 - as above
        detail = f"a DICOM picture cannot be decoded: {type(error).__name__}"
        raise Excluded(Stage.ENCODE, Reason.DAMAGED, detail) from None
