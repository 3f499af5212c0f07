"""Recordings as DICOM video: the header of an endoscopy instance around frames in three transfer syntaxes.

DICOM PS3.3 A.32.5 (Video Endoscopic Image), PS3.5 8.2.7 (the H.264 stream travels in an MP4 container, as one
fragment) and A.4 (encapsulated JPEG, one fragment per frame).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    MPEG4HP41,
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    VideoEndoscopicImageStorage,
)

from endocorpus.corpus.files import atomic_path
from endocorpus.phantom.traits import Traits
from endocorpus.phantom.video import encode

# How a file holds its frames: one H.264 stream, a JPEG each, or bare pixels.
_UIDS = {"h264": MPEG4HP41, "jpeg": JPEGBaseline8Bit, "rgb": ExplicitVRLittleEndian}
# Nobody's: everything says that it is made up. A privacy test looks for these words in what is published.
PLANTED: dict[str, str] = {
    "PatientName": "PHANTOM^PAT", "PatientID": "FAKE-0112", "PatientBirthDate": "20990131", "PatientSex": "O",
    "InstitutionName": "PHANTOM HOSPITAL", "ReferringPhysicianName": "NOBODY^NORA", "OperatorsName": "SAMPLE^SAM",
    "AccessionNumber": "FAKE-ACC-7", "StudyID": "FAKE-STUDY-3", "StudyDate": "20990402", "StudyTime": "092100",
    "SeriesNumber": "1", "InstanceNumber": "1", "Manufacturer": "PHANTOM", "DeviceSerialNumber": "0000000",
}  # fmt: skip


def write_dicom(
    path: Path, pictures: Iterable[npt.NDArray[np.uint8]], traits: Traits, *, syntax: str, crf: int, gop: int
) -> None:
    """Write RGB frames to one DICOM file; the bytes depend on the frames, the traits and the file's name.

    ``syntax`` is "h264" (one stream), "jpeg" (a picture per frame) or "rgb" (bare pixels); raises ``ValueError`` for
    another. ``crf`` and ``gop`` are those of the stream.
    """
    if syntax not in _UIDS:
        raise ValueError(f"cannot write {path.name}: frames lie in DICOM as one of {[*_UIDS]}, not {syntax!r}")
    if syntax == "h264":
        with tempfile.TemporaryDirectory() as folder:
            stream = Path(folder) / "stream.mp4"
            encode(stream, pictures, (traits.width, traits.height), traits.rate, crf=crf, gop=gop)
            pixels = encapsulate([stream.read_bytes()], has_bot=False)
    elif syntax == "jpeg":
        pixels = encapsulate([_jpeg(picture) for picture in pictures])
    else:
        pixels = b"".join(picture.tobytes() for picture in pictures)
    with atomic_path(path) as part:
        dcmwrite(part, _header(path.name, traits, syntax, pixels), enforce_file_format=True)


def _jpeg(picture: npt.NDArray[np.uint8]) -> bytes:
    """Colour at half the width only: what DICOM calls YBR_FULL_422."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=92, subsampling="4:2:2")
    return buffer.getvalue()


def _header(name: str, traits: Traits, syntax: str, pixels: bytes) -> Dataset:
    colour = {"h264": "YBR_PARTIAL_420", "jpeg": "YBR_FULL_422", "rgb": "RGB"}
    milliseconds = 1000 / traits.rate
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = _UIDS[syntax]
    image.file_meta.ImplementationClassUID = _uid("implementation")
    image.file_meta.ImplementationVersionName = "PHANTOM"
    image.SOPClassUID, image.SOPInstanceUID = VideoEndoscopicImageStorage, _uid(f"{name} {traits!r}")
    image.StudyInstanceUID, image.SeriesInstanceUID = _uid("study"), _uid("series")
    image.Modality = "ES"
    for keyword, text in PLANTED.items():
        setattr(image, keyword, text)
    private = image.private_block(0x0099, "PHANTOM PRIVATE", create=True)
    private.add_new(1, "LO", "PHANTOM^PAT of PHANTOM HOSPITAL")
    image.NumberOfFrames, image.Rows, image.Columns = traits.frames, traits.height, traits.width
    image.CineRate = image.RecommendedDisplayFrameRate = round(traits.rate)
    image.FrameTime, image.FrameIncrementPointer = f"{float(milliseconds):.4f}", Tag("FrameTime")
    image.SamplesPerPixel, image.PlanarConfiguration, image.PixelRepresentation = 3, 0, 0
    image.PhotometricInterpretation = colour[syntax]
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.LossyImageCompression = "00" if syntax == "rgb" else "01"
    image.PixelData = pixels
    image["PixelData"].VR = "OB" if syntax != "rgb" else "OW"
    image["PixelData"].is_undefined_length = syntax != "rgb"
    return image


def _uid(text: str) -> UID:
    """A UID under 2.25, where numbers need no registration: the same text, the same UID."""
    return UID(f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:15], 'big')}")
