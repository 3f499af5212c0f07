"""Video in DICOM: frames exact in every transfer syntax that the phantom writes, nothing of the header goes along."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.tag import Tag

from endocorpus.build import build
from endocorpus.config import BuildConfig
from endocorpus.media.dicom import dicom_facts, stream_in_memory
from endocorpus.media.probe import probe
from endocorpus.phantom.dicom import PLANTED, write_dicom
from endocorpus.phantom.plan import plan_recording
from endocorpus.records import Excluded, Media, Reason
from endocorpus.settings import load_settings
from endocorpus.sources import load_source
from tests.media import clip_numbers, numbered_frame

PUBLIC = load_source("folder", "public")
CONFIG = load_settings(BuildConfig, overrides=["segment.clip_seconds=0.4", "segment.min_seconds=0.1", "encode.crf=10"])
SYNTAXES = ("h264", "jpeg", "rgb")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One DICOM file of 25 numbered frames for each syntax."""
    root = tmp_path_factory.mktemp("dicom")
    traits = plan_recording(3, frames=25, size=(128, 96), overlays=False)
    for syntax in SYNTAXES:
        pictures = (numbered_frame(number, 128, 96) for number in range(25))
        write_dicom(root / syntax / "IMG_0001.dcm", pictures, traits, syntax=syntax, crf=10, gop=10)
    return root


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_frames_are_exact_and_the_header_stays_behind(syntax: str, written: Path, tmp_path: Path) -> None:
    corpus = build(PUBLIC, written / syntax, tmp_path / "c", CONFIG)
    rows = corpus.clips().to_pylist()
    assert [number for row in rows for number in clip_numbers(corpus, row)] == list(range(25)) and len(rows) == 3
    (recording,) = corpus.table("recordings").to_pylist()
    assert recording["container"] == "dicom" and (recording["rate_num"], recording["rate_den"]) == (25, 1)
    (deid,) = corpus.table("deid").to_pylist()
    assert {"what": "metadata field", "count": pytest.approx(len(PLANTED) + 20, abs=15)} in deid["removed"]
    told = b"".join(path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file())
    assert not [word for word in PLANTED.values() if word[:1].isalpha() and word.encode() in told and len(word) > 4]


def test_a_stream_in_several_fragments_is_joined(written: Path, tmp_path: Path) -> None:
    header = dcmread(written / "h264" / "IMG_0001.dcm")
    with stream_in_memory(written / "h264" / "IMG_0001.dcm") as stream:
        whole = stream.read_bytes()
    parts = [whole[at : at + 5000] for at in range(0, len(whole), 5000)]
    header.PixelData = encapsulate(parts, has_bot=False)
    header.save_as(tmp_path / "parts.dcm")
    assert len(list(generate_fragments(header.PixelData[8:]))) == len(parts) > 1
    facts = probe(Media(kind="video", paths=("parts.dcm",)), tmp_path)
    assert (facts.num_frames, facts.codec) == (25, "h264")


def test_a_write_that_is_cut_short_goes_on(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system takes 2 GiB at a time; here it takes 1000 bytes."""
    with stream_in_memory(written / "h264" / "IMG_0001.dcm") as stream:
        whole = stream.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:1000]))
    with stream_in_memory(written / "h264" / "IMG_0001.dcm") as stream:
        assert len(whole) > 1000 and stream.read_bytes() == whole


@pytest.mark.parametrize(
    ("cine", "time", "rate"),
    [
        ("-25", None, None),
        ("0", None, None),
        ("1000000000000", None, None),
        ("1e99999999", None, None),
        (None, "1e99999999", None),
        (None, "0", None),
        (None, "3600001", None),
        (None, "3600000", Fraction(1, 3600)),
        (None, "33.3667", Fraction(2997, 100)),
        ("-25", "40", Fraction(25)),
        ("30", "40", Fraction(30)),
    ],
)
@pytest.mark.parametrize("syntax", ["h264", "rgb"])
def test_a_rate_that_no_camera_has_is_passed_over(
    syntax: str, cine: str | None, time: str | None, rate: Fraction | None, written: Path, tmp_path: Path
) -> None:
    data = dcmread(written / syntax / "IMG_0001.dcm")
    for tag, value in ((0x00180040, cine), (0x00181063, time), (0x00082144, None)):
        data.pop(tag, None)
        if value is not None:
            vr, text = "DS" if value is time else "IS", value.encode() + b" " * (len(value) % 2)
            data[tag] = RawDataElement(Tag(tag), vr, len(text), text, 0, is_implicit_VR=False, is_little_endian=True)
    data.save_as(tmp_path / "a.dcm")
    assert dicom_facts(tmp_path / "a.dcm").rate == rate
    assert probe(Media(kind="video", paths=("a.dcm",)), tmp_path).rate == (rate or 25)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_a_file_that_was_cut_off_is_left_out(syntax: str, kept: float, written: Path, tmp_path: Path) -> None:
    data = (written / syntax / "IMG_0001.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(Excluded) as caught:
        probe(Media(kind="video", paths=("cut.dcm",)), tmp_path)
    assert caught.value.reason in {Reason.NOT_A_VIDEO, Reason.DAMAGED, Reason.TRUNCATED}
    assert "cut" not in caught.value.detail


def test_a_dicom_file_needs_no_suffix_of_its_own_and_others_are_not_taken_for_it(written: Path, tmp_path: Path) -> None:
    shutil.copy(written / "h264" / "IMG_0001.dcm", tmp_path / "video.mp4")
    assert probe(Media(kind="video", paths=("video.mp4",)), tmp_path).container == "dicom"
    (tmp_path / "no.dcm").write_bytes(b"\0" * 500)
    with pytest.raises(Excluded):
        probe(Media(kind="video", paths=("no.dcm",)), tmp_path)


def test_values_of_a_damaged_header_are_not_told(
    written: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    data = (written / "rgb" / "IMG_0001.dcm").read_bytes()
    places = [match.start() for match in re.finditer(rb"IS\x02\x0025", data)]
    for at in places:  # a name where a number belongs
        (tmp_path / "a.dcm").write_bytes(data[:at] + b"IS\x02\x00MU" + data[at + 6 :])
        with suppress(Excluded):
            probe(Media(kind="video", paths=("a.dcm",)), tmp_path)
    assert places
    assert not recwarn.list and "MU" not in "".join(capfd.readouterr())
