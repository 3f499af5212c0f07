"""Trees of Hyper-Kvasir, Kvasir-Capsule, CholecTriplet, Renji and REAL-Colon: whole, in part, again; and the first
two of them, whose label files and pictures must agree with the truth."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from endocorpus.phantom import frames, load_truth, plan_source, render_source, truth_root
from tests.endocorpus.phantoms import SECONDS, SEED, SIZE, Frame, Trees, decode, digests, far, picture, table

# --- all of them


@pytest.mark.parametrize("source", SECONDS)
def test_truth_speaks_of_files_that_are_there(source: str, trees: Trees) -> None:
    root, truth = trees(source)
    files = set(digests(root))
    assert set(truth.labels) == set(truth.recordings)
    for name in truth.recordings:
        media = truth.pictures.get(name, (name,))
        assert files.issuperset(media)
        assert len(media) in (1, truth.recordings[name].traits.frames)
    assert truth.traps
    for trap in truth.traps:
        assert trap.path in files or trap.path in truth.recordings, trap
        assert trap.expect.endswith(".")
    assert not any(count > 1 for count in Counter(truth.traps).values())


@pytest.mark.parametrize("source", SECONDS)
def test_plan_survives_the_disk(source: str, trees: Trees) -> None:
    planned = plan_source(source, seed=SEED, seconds=SECONDS[source], size=SIZE)
    assert {name: truth.traits for name, truth in trees(source)[1].recordings.items()} == planned


@pytest.mark.parametrize("source", SECONDS)
@pytest.mark.parametrize("recordings", [1, 2])
def test_a_part_of_a_tree_is_a_part_of_the_whole(source: str, recordings: int, trees: Trees, tmp_path: Path) -> None:
    request: dict[str, Any] = {"seed": SEED, "seconds": SECONDS[source], "size": SIZE, "recordings": recordings}
    part = render_source(source, tmp_path / source, **request)
    whole, found = digests(trees(source)[0]), digests(part.root)
    tables = re.compile(r".*\.(csv|json|tar\.gz)$")
    assert {path: digest for path, digest in found.items() if not tables.match(path)}.items() <= whole.items()
    render_source(source, part.root, **request)  # over itself
    assert digests(part.root) == found
    assert {trap["path"] for trap in json.loads((part.truth / "traps.json").read_text())} <= {*found, *part.recordings}


@pytest.mark.parametrize("source", ["renji", "kvasir-capsule"])
def test_rendering_again_gives_the_same_bytes(source: str, trees: Trees, tmp_path: Path) -> None:
    """Sound, DICOM and archives carry clocks and random numbers of their own, unless they are told not to."""
    request: dict[str, Any] = {"seed": SEED, "seconds": SECONDS[source], "size": SIZE}
    again = render_source(source, tmp_path / source, **request)
    assert digests(again.root) == digests(trees(source)[0])
    assert digests(again.truth) == digests(truth_root(trees(source)[0]))


@pytest.mark.parametrize("source", SECONDS)
def test_a_tree_of_single_frames(source: str, tmp_path: Path) -> None:
    render_source(source, tmp_path / source, seed=SEED, seconds=0.04, size=(64, 64), recordings=4)
    assert {truth.traits.frames for truth in load_truth(tmp_path / source).recordings.values()} <= {1, 2}


# --- Hyper-Kvasir


def test_hyper_kvasir_table_describes_the_files(trees: Trees) -> None:
    root = trees("hyper-kvasir")[0]
    videos = {path.name: path for path in (root / "labeled-videos").rglob("*") if path.suffix in (".avi", ".mpg")}
    rows = {row["file-name"]: row for row in table(root / "hyper-kvasir-video-metadata.csv", ";")}
    assert len(rows.keys() - videos.keys()) == len(videos.keys() - rows.keys()) == 1
    assert [rows[name]["finding"] for name in videos if name.endswith(".mpg")] == ["None"] * 3
    for name in rows.keys() & videos.keys():
        row = rows[name]
        with av.open(str(videos[name])) as container:
            stream = container.streams.video[0]
            measured = (stream.width, stream.height, sum(1 for _ in container.decode(stream)), stream.average_rate)
        assert measured == tuple(int(row[key]) for key in ("width", "height", "number-of-frames", "fps"))
        assert int(row["length"]) == int(row["number-of-frames"]) // int(row["fps"])
    assert any(row["finding"] == "retroflexed stomach,\xa0" for row in rows.values())
    stems = {row["Video file"] for row in table(root / "labeled-videos/video-labels.csv")}
    assert stems == {name.rsplit(".", 1)[0] for name in videos}


def test_hyper_kvasir_names_that_nearly_collide_are_other_recordings(trees: Trees) -> None:
    root = trees("hyper-kvasir")[0]
    named = {path.name: path for path in root.rglob("*.avi")}
    assert {"polypp 16.avi", "polypp16.avi", "Polypp14.avi"} <= named.keys()
    assert far(decode(named["polypp 16.avi"])[0], decode(named["polypp16.avi"])[0]) > 8
    first, second = sorted(root.glob("labeled-videos/lower-gi-tract/anatomical-landmarks/cecum/*.avi"))
    assert first.read_bytes() == second.read_bytes()


def test_hyper_kvasir_pal_video_is_interlaced_and_anamorphic(trees: Trees) -> None:
    root, truth = trees("hyper-kvasir")
    (name,) = (name for name, recording in truth.recordings.items() if recording.traits.interlaced)
    with av.open(str(root / name)) as container:
        stream = container.streams.video[0]
        shown = list(container.decode(stream))
        assert stream.sample_aspect_ratio == Fraction(16, 15)
    assert all(frame.interlaced_frame for frame in shown)
    rendered = list(frames(truth.recordings[name].traits, SEED))
    for frame, (expected, _) in zip(shown, rendered, strict=True):
        assert far(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), expected) < 9


def test_hyper_kvasir_masks_and_boxes_are_the_truth(trees: Trees) -> None:
    root, truth = trees("hyper-kvasir")
    boxes = json.loads((root / "segmented-images/bounding-boxes.json").read_text())
    seen = 0
    for name, said in truth.labels.items():
        for at, row in said["frames"].items():
            if "segmented-image" not in row:
                continue
            recording, path = truth.recordings[name], root / row["segmented-image"]
            mask = picture(root / row["segmented-image"].replace("/images/", "/masks/"))
            assert ((mask[..., 0] >= 128) == recording.masks(int(at)).any(axis=0)).all()
            entry = boxes.pop(path.stem)
            assert (entry["width"], entry["height"]) == mask.shape[1::-1]
            found = [(box["xmin"], box["ymin"], box["xmax"], box["ymax"]) for box in entry["bbox"]]
            assert found == [(box.xmin, box.ymin, box.xmax, box.ymax) for box in recording.boxes[int(at)]]
            seen += len(found)
            away = [far(shown, picture(path)) for shown in decode(root / name)]
            assert int(np.argmin(away)) == int(at)
    assert seen > 0
    assert boxes == {}


# --- Kvasir-Capsule


def capsule_pictures(root: Path) -> dict[str, tuple[str, Frame]]:
    """Class and pixels of every labelled picture by name; the archive is read, too."""
    found = {}
    for path in sorted((root / "labelled_images").rglob("*.jpg")):
        found[path.name] = (path.parent.name, picture(path))
    with tarfile.open(root / "labelled_images/polyp.tar.gz") as archive:
        for member in archive:
            data = archive.extractfile(member)
            assert data is not None
            found[member.name.split("/")[1]] = (member.name.split("/")[0], picture(io.BytesIO(data.read())))
    return found


def test_capsule_pictures_are_the_frames_that_they_name(trees: Trees) -> None:
    root, truth = trees("kvasir-capsule")
    shown = {Path(name).stem: decode(root / name) for name in truth.recordings}
    pictures = capsule_pictures(root)
    assert len(pictures) > 20
    assert {kind for kind, _ in pictures.values()} >= {"Polyp", "Pylorus", "Blood - fresh", "Normal clean mucosa"}
    for name, (_, pixels) in pictures.items():
        video, number = name.removesuffix(".jpg").split("_")
        away = [far(frame, pixels) for frame in shown[video]]
        still = truth.recordings[f"labelled_videos/{video}.mp4"].traits.frozen
        assert int(np.argmin(away)) == int(number) or any(start <= int(number) < stop for start, stop in still)


def test_capsule_plays_thirty_frames_a_second_of_a_camera_that_takes_two(trees: Trees) -> None:
    for name, truth in trees("kvasir-capsule")[1].recordings.items():
        with av.open(str(trees("kvasir-capsule")[0] / name)) as container:
            rate = container.streams.video[0].average_rate
        assert rate is not None
        assert 29 < rate <= 30
        assert truth.traits.capture == 2
        assert truth.traits.field.shape == "octagon"
        assert truth.traits.width == truth.traits.height
        assert bool(truth.traits.polyps) == name.startswith("labelled_videos")


def test_capsule_table_follows_from_the_notes(trees: Trees) -> None:
    """The published rule: segments first, each picture within its spans; then findings, each frame with a picture."""
    root = trees("kvasir-capsule")[0]
    notes = json.loads((root / "metadata.json").read_text())
    pictures = capsule_pictures(root)
    expected = []
    for video, note in notes.items():
        numbers = sorted(int(name[17:-4]) for name in pictures if name.startswith(video))
        for segment in note["segments"].values():
            kind = segment["metadata"]["pillcam_subtype"] or segment["metadata"]["segment_type"]
            category = "Anatomy" if kind in ("Pylorus", "Ileocecal valve", "Ampulla of Vater") else "Luminal"
            expected += [
                f"{video}_{number}.jpg;{video};{number};{category};{kind};;;;;;;"
                for start, stop in segment["seen"] for number in numbers if start <= number <= stop
            ]  # fmt: skip
        for finding in note["findings"].values():
            kind = finding["metadata"]["pillcam_subtype"]
            for number, row in finding["frames"].items():
                corners = ";".join(f"{corner['x']};{corner['y']}" for corner in row["shape"])
                if int(number) in numbers:
                    expected.append(f"{video}_{number}.jpg;{video};{number};Luminal;{kind};{corners}")
    rows = (root / "metadata.csv").read_text().splitlines()
    assert rows[0] == "filename;video_id;frame_number;finding_category;finding_class;x1;y1;x2;y2;x3;y3;x4;y4"
    assert sorted(rows[1:]) == sorted(expected)
    assert max(Counter(row.split(";")[0] for row in rows[1:]).values()) == 2


def test_capsule_findings_are_the_truth(trees: Trees) -> None:
    notes = json.loads((trees("kvasir-capsule")[0] / "metadata.json").read_text())
    marks = Counter()
    for video, note in notes.items():
        truth = trees("kvasir-capsule")[1].recordings[f"labelled_videos/{video}.mp4"]
        for finding in note["findings"].values():
            for number, row in finding["frames"].items():
                box = truth.boxes[int(number)][0]
                xs, ys = [corner["x"] for corner in row["shape"]], [corner["y"] for corner in row["shape"]]
                assert (min(xs), min(ys), max(xs), max(ys)) == (box.xmin, box.ymin, box.xmax, box.ymax)
                marks.update(key for key in ("interpolated", "blurry") if row[key])
                marks["all"] += 1
    assert 0 < marks["interpolated"] < marks["all"] > 10


def test_capsule_splits_leak_and_repeat_as_the_real_ones_do(trees: Trees) -> None:
    root = trees("kvasir-capsule")[0]
    sides = [table(root / f"official_splits/split_{side}.csv") for side in (0, 1)]
    names = [[row["filename"] for row in side] for side in sides]
    assert {name[:16] for name in names[0]} & {name[:16] for name in names[1]} == {"bca26705313a4644"}
    assert not set(names[0]) & set(names[1])
    assert [len(side) - len(set(side)) for side in names] == [0, 1]
    assert {row["label"] for side in sides for row in side} >= {"Normal", "Ileo-cecal valve", "Blood"}
    assert set().union(*names) < set(capsule_pictures(root))


# --- across sources


def test_polypdiag_and_hyper_kvasir_share_a_recording() -> None:
    request: dict[str, Any] = {"seed": SEED, "seconds": 1.0, "size": SIZE}
    ours, theirs = (plan_source(source, **request) for source in ("hyper-kvasir", "polypdiag"))
    shared = {Path(path).stem: traits for path, traits in ours.items()}
    same = [path for path, traits in theirs.items() if shared.get(Path(path).stem) == traits]
    assert len(same) == 1
