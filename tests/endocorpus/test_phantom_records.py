"""What a phantom recording may be, and the trees of CholecTriplet, Renji and REAL-Colon."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames

from endocorpus.phantom import (
    Traits,
    frames,
    plan_recording,
    render_video,
)
from endocorpus.phantom.dicom import PLANTED
from tests.endocorpus.phantoms import SEED, SIZE, Trees, decode, digests, far, picture, table

# --- what a recording may now be


def small(**changes: Any) -> Traits:
    return replace(plan_recording(SEED, size=SIZE, frames=6, overlays=False, outside=False, frozen=False), **changes)


def test_interlaced_frames_hold_two_moments() -> None:
    """Even rows are those of a recording with twice the rate at frame 2 n, odd rows those at 2 n + 1."""
    traits = plan_recording(SEED, lumen=1, size=(192, 160), frames=12, overlays=False, outside=False, frozen=False)
    fields = [shown for shown, _ in frames(replace(traits, rate=2 * traits.rate, frames=24), SEED)]
    for index, (shown, truth) in enumerate(frames(replace(traits, interlaced=True), SEED)):
        early, late = fields[2 * index], fields[2 * index + 1]
        assert far(shown[::2], early[::2]) < far(shown[::2], late[::2])
        assert far(shown[1::2], late[1::2]) < far(shown[1::2], early[1::2])
        rows = np.flatnonzero((truth.labels > 0).any(axis=1))
        assert not truth.boxes or min(box.ymin for box in truth.boxes) == rows[0]


def test_black_frames_are_black_whatever_else_is_asked_for() -> None:
    traits = replace(small(black=((2, 4),), inset=(0, 0, 20, 20)), frame_counter=True)
    shown = list(frames(traits, SEED))
    assert [not picture.any() for picture, _ in shown] == [False, False, True, True, False, False]
    assert all(truth.outside and not truth.boxes and not truth.labels.any() for _, truth in shown[2:4])


def test_a_slow_camera_moves_farther_between_frames() -> None:
    def motion(traits: Traits) -> float:
        pictures = [shown for shown, _ in frames(traits, SEED)]
        return float(np.median([far(one, other) for one, other in pairwise(pictures)]))

    assert motion(small(capture=Fraction(2))) > 1.5 * motion(small())


def test_an_inset_is_green_and_lies_where_it_is_said_to_lie() -> None:
    (with_inset, _), (without, _) = (next(frames(small(inset=inset), SEED)) for inset in ((4, 50, 24, 76), None))
    changed = (with_inset != without).any(axis=2)
    assert changed[50:76, 4:24].mean() > 0.95
    changed[50:76, 4:24] = False
    assert not changed.any()
    assert (with_inset[50:76, 4:24, 1] > with_inset[50:76, 4:24, 0]).all()


def test_refuses_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inset"):
        small(inset=(0, 60, 20, 81))
    with pytest.raises(ValueError, match="do not lie"):
        small(black=((4, 7),))
    with pytest.raises(ValueError, match=r"one of .*rgb.*, not 'gif'"):
        render_video(tmp_path / "a.dcm", small(), SEED, codec="gif")
    assert not any(tmp_path.iterdir())


# --- CholecTriplet


def test_cholec_tables_agree_with_each_other(trees: Trees) -> None:
    root = trees("cholectriplet")[0] / "CholecT45"
    maps = [line.split(",") for line in (root / "dict/maps.txt").read_text().splitlines()[1:]]
    parts = np.array([[int(cell) for cell in row] for row in maps])
    assert parts.shape == (100, 6)
    assert (parts[1] == (1, 0, 2, 0, 2, 0)).all()  # the example that the providers explain
    words = dict(line.split(":") for line in (root / "dict/triplet.txt").read_text().splitlines())
    assert (words["1"], words["99"]) == ("grasper,dissect,gallbladder", "irrigator,null_verb,null_target")
    for folder in sorted((root / "data").iterdir()):
        read = {
            kind: np.loadtxt(root / kind / f"{folder.name}.txt", int, delimiter=",", ndmin=2)
            for kind in ("triplet", "instrument", "verb", "target")
        }
        assert [rows.shape[1] for rows in read.values()] == [101, 7, 11, 16]
        pictures = sorted(folder.iterdir())
        assert [path.name for path in pictures] == [f"{at:06d}.png" for at in range(len(pictures))]
        rows = read["triplet"]
        assert (rows[:, 0] == np.arange(len(pictures) + (folder.name == "VID02"))).all()
        said = trees("cholectriplet")[1].labels[f"CholecT45/data/{folder.name}"]["frames"]
        for row in rows[: len(pictures)]:
            assert np.flatnonzero(row[1:]).tolist() == said[str(row[0])]["triplets"]
        for column, kind in enumerate(("instrument", "verb", "target"), start=1):
            for row, part in zip(rows, read[kind], strict=True):
                present = np.flatnonzero(row[1:])
                assert set(np.flatnonzero(part[1:])) == {int(parts[triplet, column]) for triplet in present}


def test_cholec_editions_hold_the_same_operation(trees: Trees) -> None:
    root = trees("cholectriplet")[0]
    assert digests(root / "CholecT45/data/VID01") == digests(root / "CholecT50/videos/VID01")
    assert digests(root / "CholecT45/data/VID02") != digests(root / "CholecT50/videos/VID01")
    note = json.loads((root / "CholecT50/labels/VID01.json").read_text())
    rows = np.loadtxt(root / "CholecT45/triplet/VID01.txt", int, delimiter=",")
    assert (note["video"], note["fps"], note["num_frames"]) == (1, 1, len(rows))
    assert list(note["annotations"]) != sorted(note["annotations"])
    for row in rows:
        vectors = note["annotations"][str(row[0])]
        assert {len(vector) for vector in vectors} == {15}
        assert [vector[0] for vector in vectors] == (np.flatnonzero(row[1:]).tolist() or [-1])
        assert {tuple(vector[3:7]) + tuple(vector[10:14]) for vector in vectors} == {(-1,) * 8}
        assert len({vector[14] for vector in vectors}) == 1
    assert (root / "CholecT50/labels/VID111.json").exists()


def test_cholec_black_frames_keep_their_place(trees: Trees) -> None:
    truth = trees("cholectriplet")[1]
    for name, recording in truth.recordings.items():
        shown = [picture(trees("cholectriplet")[0] / path) for path in truth.pictures[name]]
        black = [at for at, pixels in enumerate(shown) if not pixels.any()]
        assert black == [at for at in range(len(shown)) if recording.traits.is_black(at)]
        assert black
        assert all(truth.labels[name]["frames"][str(at)]["triplets"] == [] for at in black)


# --- Renji


def test_renji_dicom_holds_the_frames(trees: Trees) -> None:
    found = {}
    for path in sorted(trees("renji")[0].rglob("*.dcm")):
        name = path.relative_to(trees("renji")[0]).as_posix()
        traits = trees("renji")[1].recordings[name].traits
        image = pydicom.dcmread(path)
        syntax = str(image.file_meta.TransferSyntaxUID)
        assert image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.77.1.1.1"
        assert (image.NumberOfFrames, image.Rows, image.Columns) == (traits.frames, traits.height, traits.width)
        assert float(image.FrameTime) == float(1000 / traits.rate)
        if syntax == "1.2.840.10008.1.2.4.102":
            (stream,) = generate_frames(image.PixelData, number_of_frames=1)
            shown = decode(io.BytesIO(stream))
        else:
            shown = list(np.asarray(image.pixel_array, np.uint8))
        rendered = [pixels for pixels, _ in frames(traits, SEED)]
        worst = max(far(one, other) for one, other in zip(shown, rendered, strict=True))
        found[syntax] = worst
    assert found.pop("1.2.840.10008.1.2.1") == 0
    assert set(found) == {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.102"}
    assert max(found.values()) < 9


def test_renji_plants_identifiers_in_every_channel(trees: Trees) -> None:
    root = trees("renji")[0]
    for path in root.rglob("*.dcm"):
        image = pydicom.dcmread(path)
        assert {keyword: str(image[keyword].value) for keyword in PLANTED} == PLANTED
        assert image.private_block(0x0099, "PHANTOM PRIVATE")[1].value.startswith("PHANTOM^PAT")
    with av.open(str(root / next(iter(trees("renji")[1].recordings)))) as container:
        assert container.metadata["title"] == "PHANTOM_PAT"
        assert container.metadata["creation_time"].startswith("2021-04-02T09:21:00")
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        assert sum(1 for _ in container.decode(audio=0)) > 0
    names = " ".join(list(trees("renji")[1].recordings))
    assert "PHANTOM_PAT" in names
    assert not names.isascii()
    for name, truth in trees("renji")[1].recordings.items():
        kinds = {overlay.kind for overlay in truth.traits.overlays}
        assert kinds == (
            set() if name.startswith("pretrain") else {"name", "identifier", "date", "clock", "device", "site"}
        )


def test_renji_table_is_what_a_spreadsheet_exports(trees: Trees) -> None:
    path = trees("renji")[0] / "labels.csv"
    raw = path.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfexam_id,procedure,finding,consent\r\n")
    assert raw.count(b"\n") == raw.count(b"\r\n") == 6
    rows = {row.pop("exam_id"): row for row in table(path)}
    exams = {said["labels"]["exam"]: said["labels"]["row"] for said in trees("renji")[1].labels.values()}
    assert {exam: row for exam, row in exams.items() if row is not None} == {
        exam: row for exam, row in rows.items() if exam != "exam_114"
    }
    assert {row["consent"] for row in rows.values()} == {"yes", "no", ""}
    assert sum(row is None for row in exams.values()) == 2


# --- REAL-Colon


def test_real_colon_boxes_are_the_truth(trees: Trees) -> None:
    root, truth = trees("real-colon")
    seen: Counter[str] = Counter()
    for name, recording in truth.recordings.items():
        video = name.removesuffix("_frames")
        pictures = truth.pictures[name]
        assert [Path(path).name for path in pictures] == [f"{video}_{at}.jpg" for at in range(1, len(pictures) + 1)]
        assert len(list((root / f"{video}_annotations").iterdir())) == len(pictures)
        for index, boxes in enumerate(recording.boxes):
            note = ET.parse(root / f"{video}_annotations" / f"{video}_{index + 1}.xml").getroot()
            assert note.findtext("filename") == Path(pictures[index]).name
            assert [note.findtext(f"size/{side}") for side in ("width", "height")] == [
                str(recording.traits.width), str(recording.traits.height),
            ]  # fmt: skip
            found = [
                (thing.findtext("unique_id"), *(int(thing.findtext(f"bndbox/{side}") or -1)
                                                for side in ("xmin", "ymin", "xmax", "ymax")))
                for thing in note.iterfind("object")
            ]  # fmt: skip
            assert found == [(f"{video}_{box.polyp + 1}", box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes]
            seen[name] += len(found)
    assert {name for name in seen if not seen[name]} >= {"001-002_frames", "004-009_frames"}
    assert max(len(boxes) for boxes in truth.recordings["001-001_frames"].boxes) == 2


def test_real_colon_tables_agree(trees: Trees) -> None:
    root, truth = trees("real-colon")
    videos = {row["unique_video_name"]: row for row in table(root / "video_info.csv")}
    lesions = table(root / "lesion_info.csv")
    assert list(lesions[0])[2] == "size [mm]"
    assert {f"{name}_frames" for name in videos} == set(truth.recordings)
    counted = Counter(row["unique_video_name"] for row in lesions)
    for name, row in videos.items():
        traits = truth.recordings[f"{name}_frames"].traits
        assert int(row["num_frames"]) == traits.frames
        assert int(row["num_lesions"]) == counted[name] == len(traits.polyps)
        assert abs(float(row["fps"]) - traits.rate) < 0.005
    assert {row["histology_class"] for row in lesions} == {"AD", "HP", "SSL"}
