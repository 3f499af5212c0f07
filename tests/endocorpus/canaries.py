"""Recordings with a made-up word, a canary, in every channel beside the picture; none may be met in what is written.

Each channel has its own word, so that a test can say which one leaked. All containers hold numbered frames.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, JPEGBaseline8Bit, VideoEndoscopicImageStorage

from tests.endocorpus.aviary import Aviary, captions, sei
from tests.media import FFMPEG, numbered_frame, write_video

FRAMES = 30
_GPS = "+31.2304+121.4737/"  # where mp4 keeps only a place


def h264(path: Path, birds: Aviary) -> Path:
    """A bare H.264 stream whose every picture is preceded by units that carry words."""
    plain = write_video(path, FRAMES, output=("-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-bf", "0"))
    name = path.parent.name
    planted = [
        sei(5, bytes(range(16)) + birds.word(f"{name}: SEI user_data_unregistered").encode()),
        sei(5, bytes(range(16)) + birds.word(f"{name}: SEI in Chinese", chinese=True).encode("gbk")),
        sei(4, b"\xb5\0\x31" + captions(birds.word(f"{name}: A53 captions"))),
        sei(4, b"\x26\0\1" + birds.word(f"{name}: SEI user_data_registered").encode()),
        sei(45, birds.word(f"{name}: SEI of another kind").encode()),
    ]
    units = plain.read_bytes().replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]
    out = bytearray()
    for unit in units:
        if unit[0] & 31 in {1, 5}:
            out += b"".join(planted)
        out += b"\0\0\0\1" + unit
    path.write_bytes(out)
    return path


def mpeg_user_data(path: Path, birds: Aviary, codec: str, mark: bytes) -> Path:
    """A bare MPEG-2 or MPEG-4 part 2 stream with user data (start code B2) before each of its pictures."""
    write_video(path, FRAMES, output=("-c:v", codec, "-q:v", "3", "-bf", "0", "-f", codec.replace("mpeg4", "m4v")))
    name = path.parent.name
    planted = b"".join(
        b"\0\0\1\xb2" + text
        for text in (
            birds.word(f"{name}: user data").encode(),
            birds.word(f"{name}: user data in Chinese", chinese=True).encode("gbk"),
            captions(birds.word(f"{name}: A53 captions")),
        )
    )
    if codec == "mpeg2video":  # behind the picture's coding extension, before its slices
        data = path.read_bytes()
        path.write_bytes(data.replace(b"\0\0\1\x01", planted + b"\0\0\1\x01"))
    else:
        path.write_bytes(path.read_bytes().replace(mark, planted + mark))
    return path


def _run(*arguments: str) -> None:
    done = subprocess.run([FFMPEG, "-y", "-loglevel", "error", *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def _tags(birds: Aviary, kind: str, keys: str, stream: str = "") -> list[str]:
    out = []
    for number, key in enumerate(keys.split()):
        word = birds.word(f"{kind}: {key}{stream}", chinese=number % 3 == 2)
        out += [f"-metadata{stream}", f"{key}={word}"]
    return out


def _extras(folder: Path, birds: Aviary, kind: str) -> dict[str, str]:
    """Files that go into a container beside the picture: subtitles, chapters, a cover, and any file."""
    cover = folder / "cover.jpg"
    comment = birds.word(f"{kind}: cover's comment").encode()
    Image.fromarray(numbered_frame(1)).save(cover, comment=comment)
    (folder / "subtitles.srt").write_text(
        f"1\n00:00:00,000 --> 00:00:01,000\n{birds.word(f'{kind}: subtitles')}\n\n"
        f"2\n00:00:01,000 --> 00:00:01,100\n{birds.word(f'{kind}: subtitles in Chinese', chinese=True)}\n"
    )
    (folder / "chapters.txt").write_text(
        ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=600\n"
        f"title={birds.word(f'{kind}: chapter')}\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=600\nEND=1200\ntitle=end\n"
    )
    (folder / "attached.txt").write_text(birds.word(f"{kind}: attachment") if kind == "mkv" else "")
    return {name.split(".")[0]: str(folder / name) for name in ("cover.jpg", "subtitles.srt", "chapters.txt")}


_SOUND = ("-f", "lavfi", "-i", "sine=d=1.2")
_COPY = ("-r", "25", "-i")


def quicktime(path: Path, kind: str, keys: str, birds: Aviary) -> Path:
    """mp4 or mov: tags, sound, subtitles, chapters, a cover, a time code, names of tracks, and boxes of our own."""
    folder = path.parent / f"make-{kind}" / kind
    folder.mkdir(parents=True)
    stream, extra = h264(folder / "a.h264", birds), _extras(folder, birds, kind)
    inputs = [*_COPY, str(stream), *_SOUND, "-i", extra["subtitles"], "-i", extra["cover"], "-i", extra["chapters"]]
    maps = ["-map", "0:v", "-map", "1:a", "-map", "2:s", "-map", "3:v", "-map_chapters", "4"]
    codecs = ["-c:v:0", "copy", "-c:a", "aac", "-c:s", "mov_text", "-c:v:1", "copy"]
    codecs += ["-disposition:v:1", "attached_pic"] if kind == "mp4" else ["-movflags", "use_metadata_tags"]
    tags = _tags(birds, kind, keys)
    for which in (":s:v:0", ":s:a:0", ":s:s:0"):
        tags += _tags(birds, kind, "handler_name title", which)
    tags += ["-metadata", f"location={_GPS}", "-metadata", "creation_time=1977-07-07T07:07:07Z"]
    clock = ["-timecode", "09:21:00:00"]
    if kind == "mov":
        clock += _tags(birds, kind, "reel_name", ":s:v:0")
    _run(*inputs, *maps, *codecs, *tags, *clock, "-bsf:v:0", "setts=pts=N/25/TB:dts=N/25/TB", str(path))
    data = path.read_bytes()
    at = data.index(b"avc1", data.index(b"stsd")) + 4 + 42  # the encoder's name in the sample entry: 32 bytes
    name = birds.word(f"{kind}: compressor name").encode().ljust(31, b"\0")
    data = data[:at] + bytes([10]) + name + data[at + 32 :]
    for box in (b"free", b"skip", b"uuid", b"udta", b"junk"):
        text = birds.word(f"{kind}: box {box.decode()}").encode()
        data += (8 + 16 + len(text)).to_bytes(4) + box + bytes(range(16)) + text
    path.write_bytes(data)
    return birds.house(path)


def mp4(root: Path, birds: Aviary) -> Path:
    keys = ("title artist album_artist composer album date comment genre copyright grouping lyrics description "
            "synopsis show episode_id network keywords")  # fmt: skip
    return quicktime(root / "a1.mp4", "mp4", keys, birds)


def mov(root: Path, birds: Aviary) -> Path:
    keys = "title author artist comment copyright make model software keywords description com.hospital.patient"
    return quicktime(root / "a2.mov", "mov", keys, birds)


def mkv(root: Path, birds: Aviary) -> Path:
    """Matroska: tags of file and tracks, chapters, attachments with name and description, names of programs."""
    folder = root / "make-mkv" / "mkv"
    folder.mkdir(parents=True)
    stream, extra = h264(folder / "a.h264", birds), _extras(folder, birds, "mkv")
    raw = folder / "timed.mp4"
    _run(*_COPY, str(stream), "-c", "copy", "-bsf:v", "setts=pts=N/25/TB:dts=N/25/TB", str(raw))
    inputs = ["-i", str(raw), *_SOUND, "-i", extra["subtitles"], "-i", extra["chapters"]]
    maps = ["-map", "0:v", "-map", "1:a", "-map", "2:s", "-map_chapters", "3"]
    tags = _tags(birds, "mkv", "title ARTIST PATIENT DATE_RECORDED ENCODED_BY COMMENT")
    for which in (":s:v:0", ":s:a:0", ":s:s:0"):
        tags += _tags(birds, "mkv", "title HOSPITAL", which)
    attach: list[str] = []
    for number, (name, kind) in enumerate((("attached.txt", "text/plain"), ("cover.jpg", "image/jpeg"))):
        attach += ["-attach", str(folder / name), f"-metadata:s:t:{number}", f"mimetype={kind}"]
        for key in ("filename", "title"):
            attach += [f"-metadata:s:t:{number}", f"{key}={birds.word(f'mkv: {key} of attachment {number}')}"]
    path = root / "a3.mkv"
    tags += ["-metadata", "creation_time=1977-07-07T07:07:07Z"]
    _run(*inputs, *maps, "-c:v", "copy", "-c:a", "aac", "-c:s", "srt", *tags, *attach, str(path))
    path.write_bytes(path.read_bytes() + b"\xec\x8a" + birds.word("mkv: Void").encode())
    return birds.house(path)


def avi(root: Path, birds: Aviary) -> Path:
    folder = root / "make-avi" / "avi"
    folder.mkdir(parents=True)
    stream = mpeg_user_data(folder / "a.m4v", birds, "mpeg4", b"\0\0\1\xb6")
    keys = "title artist comment copyright genre album date language track encoded_by"
    tags = _tags(birds, "avi", keys)
    for which in (":s:v:0", ":s:a:0"):
        tags += _tags(birds, "avi", "title", which)
    path = root / "a4.avi"
    _run("-framerate", "25", "-i", str(stream), *_SOUND, "-c:v", "copy", "-c:a", "mp2", *tags, str(path))
    data = path.read_bytes()
    at = data.index(b"JUNK") + 8
    word = birds.word("avi: JUNK").encode()
    data = data[:at] + word + data[at + len(word) :]
    for chunk in (b"IDIT", b"JUNQ"):
        text = birds.word(f"avi: {chunk.decode()} behind the end").encode()
        data += chunk + len(text).to_bytes(4, "little") + text
    path.write_bytes(data)
    return birds.house(path)


def mpg(root: Path, birds: Aviary) -> Path:
    """An MPEG program stream: user data of the pictures, packets of private stream 2 and of padding."""
    folder = root / "make-mpg" / "mpg"
    folder.mkdir(parents=True)
    stream = mpeg_user_data(folder / "a.m2v", birds, "mpeg2video", b"")
    path = root / "a5.mpg"
    _run("-framerate", "25", "-i", str(stream), *_SOUND, "-c:v", "copy", "-c:a", "mp2", "-f", "vob", str(path))
    extra = b""
    for kind, number in (("private stream 2", 0xBF), ("padding stream", 0xBE)):
        text = b"\xff" * 4 + birds.word(f"mpg: {kind}").encode()
        extra += b"\0\0\1" + bytes([number]) + len(text).to_bytes(2) + text
    data = path.read_bytes()
    second = data.index(b"\0\0\1\xba", 4)
    path.write_bytes(data[:second] + extra + data[second:])
    return birds.house(path)


def transport(root: Path, birds: Aviary, kind: str = "ts") -> Path:
    """An MPEG transport stream: names of service and provider, a data stream, and packets that no program lists."""
    folder = root / f"make-{kind}" / kind
    folder.mkdir(parents=True)
    stream = h264(folder / "a.h264", birds)
    (folder / "a.klv").write_bytes(b"\x06\x0e\x2b\x34" + bytes(12) + b"\x0a" + birds.word(f"{kind}: KLV").encode())
    path = root / "a6.ts"
    inputs = [*_COPY, str(stream), *_SOUND, "-f", "data", "-i", str(folder / "a.klv")]
    maps = ["-map", "0:v", "-map", "1:a", "-map", "2:d", "-c:v", "copy", "-c:a", "mp2", "-c:d", "copy"]
    tags = _tags(birds, kind, "service_name service_provider")
    _run(*inputs, *maps, *tags, "-tag:d:0", "KLVA", "-bsf:v", "setts=pts=N/25/TB:dts=N/25/TB", str(path))
    extra = b""
    for name, pid in (("null packets", 0x1FFF), ("a program that is not listed", 0x1234), ("TOT", 0x14)):
        word = birds.word(f"{kind}: {name}").encode()
        extra += b"\x47" + (0x4000 | pid).to_bytes(2) + b"\x10\0" + word.ljust(183, b"\xff")
    path.write_bytes(path.read_bytes() + extra)
    return birds.house(path)


def wmv(root: Path, birds: Aviary) -> Path:
    path = root / "a7.wmv"
    tags = _tags(birds, "wmv", "title artist copyright comment WM/Patient album")
    write_video(path, FRAMES, output=("-c:v", "wmv2", "-q:v", "3", *tags))
    return birds.house(path)


_TEXT_ELEMENTS = (
    "PatientName PatientID OtherPatientNames PatientAddress PatientComments PatientMotherBirthName "
    "PatientTelephoneNumbers IssuerOfPatientID InstitutionName InstitutionAddress StationName "
    "InstitutionalDepartmentName ReferringPhysicianName PerformingPhysicianName OperatorsName "
    "NameOfPhysiciansReadingStudy StudyDescription SeriesDescription ProtocolName DeviceSerialNumber "
    "ManufacturerModelName SoftwareVersions AccessionNumber StudyID AdmissionID ImageComments DerivationDescription "
    "RequestingPhysician RequestedProcedureDescription ContentCreatorName Occupation"
)
_PERSONS = {"PatientName", "ReferringPhysicianName", "OperatorsName"}


def _header(birds: Aviary, kind: str) -> Dataset:
    """Elements that identify, in every corner of an object: top, nested, private, overlays, curves, icon, documents."""
    image = Dataset()
    image.SpecificCharacterSet = "GB18030"
    for name in _TEXT_ELEMENTS.split():
        word = birds.word(f"{kind}: {name}", chinese=name in _PERSONS)
        setattr(image, name, f"{word}^A" if name in _PERSONS else word)
    nested = Dataset()
    nested.ScheduledProcedureStepDescription = birds.word(f"{kind}: nested RequestAttributesSequence")
    deeper = Dataset()
    deeper.CodeMeaning = birds.word(f"{kind}: nested twice", chinese=True)
    nested.ScheduledProtocolCodeSequence = DicomSequence([deeper])
    image.RequestAttributesSequence = DicomSequence([nested])
    private = image.private_block(0x0099, birds.word(f"{kind}: private creator"), create=True)
    private.add_new(1, "LO", birds.word(f"{kind}: private text"))
    private.add_new(2, "UN", birds.word(f"{kind}: private bytes", chinese=True).encode("gbk"))
    for group in (0x6000, 0x6002):
        image.add_new((group, 0x0022), "LO", birds.word(f"{kind}: overlay {group:04x} description"))
        image.add_new((group, 0x1500), "LO", birds.word(f"{kind}: overlay {group:04x} label"))
        image.add_new((group, 0x3000), "OW", birds.word(f"{kind}: overlay {group:04x} data").encode())
    image.add_new((0x5000, 0x2500), "LO", birds.word(f"{kind}: curve label"))
    icon = Dataset()
    icon.Rows = icon.Columns = 2
    icon.PixelData = birds.word(f"{kind}: icon").encode()
    icon["PixelData"].VR = "OB"
    image.IconImageSequence = DicomSequence([icon])
    image.EncapsulatedDocument = birds.word(f"{kind}: encapsulated document").encode()
    image.DataSetTrailingPadding = birds.word(f"{kind}: trailing padding").encode()
    meta = FileMetaDataset()
    meta.SourceApplicationEntityTitle = birds.word(f"{kind}: source AE title")
    meta.SendingApplicationEntityTitle = birds.word(f"{kind}: sending AE title")
    meta.ReceivingApplicationEntityTitle = birds.word(f"{kind}: receiving AE title")
    meta.ImplementationVersionName = birds.word(f"{kind}: implementation version")
    meta.PrivateInformationCreatorUID = UID("2.25.1")
    meta.PrivateInformation = birds.word(f"{kind}: private information").encode()
    image.file_meta = meta
    image.preamble = birds.word(f"{kind}: preamble").encode().ljust(128, b"\0")
    return image


def _dicom(path: Path, birds: Aviary, kind: str, syntax: UID, fragments: list[bytes]) -> Path:
    image = _header(birds, kind)
    image.file_meta.TransferSyntaxUID = syntax
    image.file_meta.ImplementationClassUID = UID("2.25.2")
    image.SOPClassUID, image.SOPInstanceUID = VideoEndoscopicImageStorage, UID("2.25.3")
    image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = UID("2.25.4"), UID("2.25.5"), "ES"
    image.NumberOfFrames, image.Rows, image.Columns = FRAMES, 128, 160
    image.CineRate, image.FrameTime = 25, "40"
    image.SamplesPerPixel, image.PlanarConfiguration, image.PixelRepresentation = 3, 0, 0
    image.PhotometricInterpretation = "YBR_PARTIAL_420" if len(fragments) == 1 else "YBR_FULL_422"
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelData = encapsulate(fragments, has_bot=False)
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    dcmwrite(path, image, enforce_file_format=True)
    return birds.house(path)


def dicom_stream(root: Path, birds: Aviary) -> Path:
    """H.264 in a transport stream in PixelData, both with words of their own."""
    inner = Aviary(words=dict(birds.words))
    stream = transport(root / "make-inner", inner, kind="stream in dicom")
    birds.words |= inner.words
    return _dicom(root / "a8.dcm", birds, "dicom", UID("1.2.840.10008.1.2.4.102"), [stream.read_bytes()])


def dicom_pictures(root: Path, birds: Aviary) -> Path:
    comment, pictures = birds.word("dicom jpeg: comment of the pictures").encode(), []
    for number in range(FRAMES):
        buffer = io.BytesIO()
        Image.fromarray(numbered_frame(number)).save(buffer, format="JPEG", subsampling="4:2:2", comment=comment)
        pictures.append(buffer.getvalue())
    return _dicom(root / "a9.dcm", birds, "dicom jpeg", JPEGBaseline8Bit, pictures)


def pictures(root: Path, birds: Aviary) -> Path:
    """Folders of numbered PNG, JPEG and TIFF files with texts, EXIF, XMP, ICC and what lies behind their ends."""
    exif = Image.Exif()
    for tag, name in ((0x010E, "description"), (0x013B, "artist"), (0x8298, "copyright"), (0x013C, "host computer")):
        exif[tag] = birds.word(f"pictures: EXIF {name}")
    exif.get_ifd(0x8769)[0x9003] = birds.word("pictures: EXIF date")
    exif.get_ifd(0x8825)[0x001B] = birds.word("pictures: EXIF GPS").encode()
    texts = PngInfo()
    texts.add_text(birds.word("pictures: PNG keyword"), "x")
    texts.add_text("Patient", birds.word("pictures: PNG tEXt"))
    texts.add_itxt("Patient", birds.word("pictures: PNG iTXt", chinese=True))
    behind = birds.word("pictures: behind the end").encode()
    xmp = f"<x:xmpmeta><b>{birds.word('pictures: XMP')}</b></x:xmpmeta>".encode()
    extra = {"comment": birds.word("pictures: JPEG comment").encode(), "xmp": xmp}
    options: dict[str, dict[str, object]] = {
        "png": {"pnginfo": texts, "exif": exif},
        "jpg": {"exif": exif, **extra},
        "tif": {"exif": exif},
    }
    for suffix, saved in options.items():
        folder = root / f"b-{suffix}"
        folder.mkdir()
        for number in range(1, FRAMES + 1):
            path = folder / f"{number:04d}.{suffix}"
            Image.fromarray(numbered_frame(number)).save(path, **saved)
            path.write_bytes(path.read_bytes() + behind)
    return birds.house(root)


def sidecars(root: Path, birds: Aviary) -> Path:
    """Files that lie beside recordings, and what the file system keeps of one."""
    for name in (
        "report.xml",
        "export.json",
        "report.txt",
        "worklist.html",
        ".DS_Store",
        "Thumbs.db",
        "._a1.mp4",
        "report.pdf",
    ):
        (root / name).write_text(birds.word(f"sidecar: {name}"))
    (root / "notes.txt").write_bytes(birds.word("sidecar: notes in GBK", chinese=True).encode("gbk"))
    return birds.house(root)


CONTAINERS: tuple[Callable[[Path, Aviary], Path], ...] = (
    mp4, mov, mkv, avi, mpg, transport, wmv, dicom_stream, dicom_pictures, pictures, sidecars,
)  # fmt: skip


def write_all(root: Path) -> Aviary:
    """Write every kind of recording into `root`; what they were made of is taken away again."""
    import shutil

    root.mkdir(parents=True)
    (root / "make-inner").mkdir()
    birds = Aviary()
    for make in CONTAINERS:
        make(root, birds)
    for folder in root.glob("make-*"):
        shutil.rmtree(folder)
    return birds
