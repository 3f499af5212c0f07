"""Rendered trees of the public sources: a reader that does right by the label files finds the truth again."""

from __future__ import annotations

import hashlib
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from endocorpus.phantom import TreeTruth, load_truth, plan_source, read_frame_counter, render_source, truth_root
from endocorpus.phantom.annotations import corners, ellipses, whole_mask
from endocorpus.phantom.layouts import LAYOUTS, Request
from endocorpus.sources.polypdiag import abnormal_test_lengths

SEED, SIZE = 3, (128, 96)
RENDERED = ("cvc-12k", "kumc", "ldpolypvideo", "polypdiag", "sun")
Tree = tuple[Path, TreeTruth]
Trees = Callable[[str], Tree]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    """The default tree of a source, one second long, with the frame number in every picture."""
    root, done = tmp_path_factory.mktemp("raw"), {}

    def tree(source: str) -> Tree:
        if source not in done:
            render_source(source, root / source, seed=SEED, seconds=1.0, size=SIZE, frame_counter=True)
            done[source] = root / source, load_truth(root / source)
        return done[source]

    return tree


def request(source: str, recordings: int, seconds: float = 1.0) -> Request:
    return Request(seed=SEED, recordings=recordings, seconds=seconds, size=SIZE, frame_counter=False)


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pixels(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as picture:
        return np.asarray(picture)


# --- every layout, before rendering


@pytest.mark.parametrize("source", sorted(LAYOUTS))
def test_plans_are_whole_for_any_request(source: str) -> None:
    layout = LAYOUTS[source]
    assert 6 <= layout.default <= 14 and layout.default <= layout.recordings
    for recordings in {1, 2, layout.default - 1, layout.default}:
        for seconds in (0.04, 1.0):
            asked = request(source, recordings, seconds)
            items = layout.items(asked)
            assert len({item.path for item in items}) == len(items) == recordings
            media = [path for item in items for path in item.media()]
            assert len(set(media)) == len(media)
            assert set(layout.labels(asked)) == {item.path for item in items}
            assert all(set(entry) == {"labels", "frames"} for entry in layout.labels(asked).values())
            json.dumps(layout.labels(asked))
            for item in items:
                frames = layout.labels(asked)[item.path]["frames"]
                assert all(0 <= int(index) < item.traits.frames for index in frames)
            for trap in layout.traps(asked):
                assert trap.name and trap.expect.endswith(".")


@pytest.mark.parametrize("source", sorted(LAYOUTS))
def test_a_recording_does_not_depend_on_how_many_there_are(source: str) -> None:
    """KUMC numbers its training pictures through, so there the names change, but never the traits."""
    few, many = (LAYOUTS[source].items(request(source, count)) for count in (2, LAYOUTS[source].default))
    assert [(item.path, item.traits) for item in few] == [(item.path, item.traits) for item in many[:2]]


def test_recordings_that_sources_share_are_told_by_both() -> None:
    seen: dict[tuple[int, int], set[tuple[str, str]]] = {}
    told = set()
    for source in LAYOUTS:
        for path, traits in plan_source(source, seed=SEED, seconds=1.0, size=SIZE).items():
            seen.setdefault((traits.lumen, traits.recording), set()).add((source, path))
        for trap in LAYOUTS[source].traps(request(source, LAYOUTS[source].default)):
            if trap.name == "same-as" and (found := re.fullmatch(r"One leak group with (\S+) (.+)\.", trap.expect)):
                told.add(((source, trap.path), (found[1], found[2])))
    shared = {(one, two) for places in seen.values() for one in places for two in places if one[0] != two[0]}
    assert shared == told and len(told) == 16


# --- every rendered tree


@pytest.mark.parametrize("source", RENDERED)
def test_a_tree_holds_its_plan_and_nothing_else(source: str, trees: Trees) -> None:
    root, truth = trees(source)
    plan = json.loads((truth_root(root) / "plan.json").read_text())
    assert sorted(digests(root)) == plan["files"]
    for recording, known in truth.recordings.items():
        if recording not in truth.pictures:
            assert (root / recording).is_file()
            continue
        assert len(truth.pictures[recording]) == known.traits.frames
        for index, name in enumerate(truth.pictures[recording]):
            shown = pixels(root / name)
            assert shown.shape == (known.traits.height, known.traits.width, 3)
            assert read_frame_counter(shown) == index


@pytest.mark.parametrize("source", RENDERED)
def test_traps_and_labels_are_about_files_that_are_there(source: str, trees: Trees) -> None:
    root, truth = trees(source)
    assert set(truth.labels) == set(truth.recordings)
    names = {trap.name for trap in truth.traps}
    assert len({(trap.path, trap.name) for trap in truth.traps}) == len(truth.traps) >= 6
    for trap in truth.traps:
        assert trap.path in truth.recordings or (root / trap.path).exists(), trap
    assert names & {"lexical-order", "shuffled", "comma-separated"}


def test_a_cut_short_run_can_be_repeated_at_any_point(trees: Trees, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"seed": SEED, "recordings": 2, "seconds": 0.12, "size": (64, 64)}
    out = tmp_path / "kumc"

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    render_source("kumc", out, **asked)
    whole = digests(tmp_path)
    for damage in (
        (out / "val2019/Annotation/1/1.xml").unlink,
        lambda: (out / "val2019/Annotation/1/.2.xml.partial").write_bytes(b"<anno"),
        (truth_root(out) / "boxes.parquet").unlink,
    ):
        damage()
        with pytest.raises(KeyboardInterrupt):
            render_source("kumc", out, on_frame=stop, **asked)
        render_source("kumc", out, **asked)
        (out / "val2019/Annotation/1/.2.xml.partial").unlink(missing_ok=True)
        assert digests(tmp_path) == whole
    (out / "val2019/Annotation/1/99.xml").write_text("by hand")
    with pytest.raises(FileExistsError, match=r"99\.xml was not rendered"):
        render_source("kumc", out, **asked)


# --- sun

SUN = re.compile(r"case_M_(\d{14})_(\w+)_(\d+)_(\d{3})_(\d{3})-(\d+)_a(\d+)_ayy_image(\d{4,})\.jpg")


def sun_key(name: str) -> tuple[int, int, int]:
    found = SUN.fullmatch(Path(name).name)
    assert found is not None
    return int(found[5]), int(found[7]), int(found[8])


def test_sun_has_sequences_around_the_lengths_at_which_clips_are_cut() -> None:
    lengths = {path: traits.frames for path, traits in plan_source("sun", seed=1, size=SIZE).items()}
    assert {149, 150, 299, 300} == {count for path, count in lengths.items() if "negative" in path}
    assert sum(lengths.values()) < 1200


def test_sun_names_sort_by_three_numbers_only(trees: Trees) -> None:
    _, truth = trees("sun")
    wrong, gaps, exams = set(), set(), {}
    for case, names in truth.pictures.items():
        assert list(names) == sorted(names, key=sun_key)
        if list(names) != sorted(names):
            wrong.add(case)
        by_part: dict[tuple[int, int], list[int]] = {}
        for name in names:
            section, shot, number = sun_key(name)
            by_part.setdefault((section, shot), []).append(number)
        if any(numbers[-1] - numbers[0] >= len(numbers) for numbers in by_part.values()):
            gaps.add(case)
        [exams[case]] = {SUN.fullmatch(Path(name).name)[2] for name in names}  # type: ignore[index]
    assert {case.split("_")[1] for case in wrong} == {"positive", "negative"}
    assert len(wrong) == 3 and len(gaps) == 2
    assert {exam: count for exam, count in Counter(exams.values()).items() if count > 1} == {
        exams["sundatabase_positive_part2/case100"]: 2
    }
    assert len({(known.traits.width, known.traits.height) for known in truth.recordings.values()}) > 1
    assert {"sundatabase_positive_part1/case1", "sundatabase_negative_part1/case1"} <= set(truth.pictures)


def test_sun_text_boxes_are_the_truth(trees: Trees) -> None:
    root, truth = trees("sun")
    assert sorted(path.name for path in root.rglob("annotation_txt")) == ["annotation_txt"]
    for case, known in truth.recordings.items():
        table = root / "sundatabase_positive_part1" / "annotation_txt" / f"{Path(case).name}.txt"
        if "negative" in case:
            continue
        rows = [re.fullmatch(r"(\S+\.jpg) (\d+),(\d+),(\d+),(\d+),0", line) for line in table.read_text().splitlines()]
        read = {row[1]: tuple(map(int, row.groups()[1:])) for row in rows if row is not None}
        assert len(read) == len(rows) == known.traits.frames  # every frame of a positive case shows its polyp
        for name, boxes in zip(truth.pictures[case], known.boxes, strict=True):
            assert [read[Path(name).name]] == [corners(box) for box in boxes]


def test_sun_seg_masks_and_boxes_are_the_truth(trees: Trees) -> None:
    root, truth = trees("sun")
    seg, checked, clips = root / "SUN-SEG-Annotation", 0, set()
    frames = {Path(n).stem: (case, i) for case, names in truth.pictures.items() for i, n in enumerate(names)}
    for path in sorted(seg.rglob("bbox_annotation.json")):
        subset, read = path.parent.parent, json.loads(path.read_text())
        boxes = {row["id"]: row["bbox"] for row in read["annotation"]}
        assert len(boxes) == len(read["images"]) == len(read["annotation"])
        for image in read["images"]:
            case, index = frames[image["file_name"]]
            known = truth.recordings[case]
            said = truth.labels[case]["frames"][str(index)]
            assert said == {"subset": subset.relative_to(seg).as_posix(), "clip": image["case_name"]}
            mask = whole_mask(known, index)
            drawn = {
                form: pixels(subset / form / image["case_name"] / f"{image['file_name']}.png")
                for form in ("GT", "Edge", "Polygon", "Scribble")
            }
            assert {value for form in drawn.values() for value in np.unique(form)} == {0, 255}
            np.testing.assert_array_equal(drawn["GT"] > 0, mask)
            assert mask[drawn["Edge"] > 0].all() and 0 < (drawn["Edge"] > 0).sum() <= mask.sum()
            assert (drawn["Polygon"] > 0)[mask].all()
            x, y, width, height = boxes[image["id"]]
            rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert (x, y, width, height) == (cols[0], rows[0], np.ptp(cols) + 1, np.ptp(rows) + 1)
            clips.add((said["subset"], said["clip"]))
            checked += 1
    assert checked == len(list(seg.rglob("GT/*/*.png"))) == len(list(seg.rglob("*.png"))) / 4
    assert ("TestEasyDataset/Unseen", "case4") in clips
    assert {("TrainDataset", "case1_1"), ("TestHardDataset/Seen", "case1_2")} <= clips


def test_sun_seg_classes_are_tabbed_and_one_file_is_nul_bytes(trees: Trees) -> None:
    root, truth = trees("sun")
    told: dict[str, set[str]] = {}
    for path in (root / "SUN-SEG-Annotation").rglob("classification.txt"):
        if b"\0" in path.read_bytes():
            assert path.relative_to(root).as_posix() in {trap.path for trap in truth.traps if trap.name == "nul-bytes"}
            continue
        for line in path.read_text().splitlines():
            name, label = line.split("\t")
            told.setdefault(name, set()).add(label)
    for case, names in truth.pictures.items():
        label = truth.labels[case]["labels"].get("pathology")
        assert all(told.get(Path(name).name, set()) == ({label} if label else set()) for name in names)
    assert {entry["labels"].get("pathology") for entry in truth.labels.values()} >= {"hyperplastic_polyp", None}


# --- ldpolypvideo and polypdiag


def read_boxes(path: Path) -> list[tuple[int, ...]]:
    count, *rows = path.read_text().splitlines()
    boxes = [tuple(map(int, row.split(" "))) for row in rows]
    assert len(boxes) == int(count)
    return boxes


def test_ldpolypvideo_text_files_are_the_truth(trees: Trees) -> None:
    root, truth = trees("ldpolypvideo")
    counts: Counter[int] = Counter()
    for folder, names in truth.pictures.items():
        assert [Path(name).name for name in names] == [f"{n + 1:04d}.jpg" for n in range(len(names))]
        for name, boxes in zip(names, truth.recordings[folder].boxes, strict=True):
            read = read_boxes(root / name.replace("/Images/", "/Annotations/").replace(".jpg", ".txt"))
            assert read == [corners(box) for box in boxes]
            counts[len(read)] += 1
        assert any(truth.recordings[folder].boxes)  # each labelled video of the set shows a polyp somewhere
    assert counts[0] and counts[1] and counts[3]
    assert {int(Path(folder).name) for folder in truth.pictures} == {1, 2, 10, 101, 145}
    assert all((int(Path(folder).name) > 100) == folder.startswith("Test/") for folder in truth.pictures)


def test_ldpolypvideo_avis_are_h264_at_an_odd_rate(trees: Trees) -> None:
    root, truth = trees("ldpolypvideo")
    videos = sorted(set(truth.recordings) - set(truth.pictures))
    assert videos == ["videos with polyps/1_10.avi", "videos with polyps/1_7.avi", "videos without polyps/0_12.avi"]
    for video in videos:
        with av.open(str(root / video)) as container:
            stream = container.streams.video[0]
            assert stream.codec.name == "h264" and float(stream.average_rate or 0) == pytest.approx(24.874)
            shown = [read_frame_counter(np.asarray(f.to_ndarray(format="rgb24"))) for f in container.decode(stream)]
        assert shown == list(range(truth.recordings[video].traits.frames))
        assert any(truth.recordings[video].boxes) == (truth.labels[video]["labels"]["polyp"])


def test_polypdiag_repeats_ldpolypvideo_frame_by_frame(trees: Trees) -> None:
    """How the overlap of the real sets was proved: cut the padding, compare with the other set's label files."""
    (root, truth), (there, other) = trees("polypdiag"), trees("ldpolypvideo")
    rows = {
        tuple(line.split(",")): split
        for split in ("train", "val", "test")
        for line in (root / "splits" / f"{split}.txt").read_text().splitlines()
    }
    assert {(Path(path).name, str(entry["labels"]["label"])): entry["labels"]["official_split"]
            for path, entry in truth.labels.items()} == rows  # fmt: skip
    tested = sorted(name for (name, _), split in rows.items() if split == "test")
    positive = [name for name in tested if (name, "1") in rows]
    labels = np.load(root / "gt-colon.npy")
    rendered = {name: truth.recordings[f"videos/{name}"].traits.frames for name in tested}
    normal = sum(-(-count // 16) * 16 for name, count in rendered.items() if name not in positive)
    real = {f"{video}.mp4": length for video, length in abnormal_test_lengths().items()}  # as long as the real ones
    assert len(labels) == normal + 15_840 == normal + sum(-(-count // 16) * 16 for count in real.values())
    assert not labels[:normal].any() and positive
    at = normal
    for name, length in real.items():
        folder, padded = there / "Test" / "Annotations" / Path(name).stem, -(-length // 16) * 16
        said = [int(bool(read_boxes(path))) for path in sorted(folder.iterdir())] if name in positive else [0]
        assert labels[at : at + padded].tolist() == (said + said[-1:] * padded)[:padded]
        at += padded
    for trap in truth.traps:
        prefix = "One leak group with ldpolypvideo "
        if trap.expect.startswith(prefix):
            twin = trap.expect.removeprefix(prefix).removesuffix(".")
            assert other.recordings[twin].traits == truth.recordings[trap.path].traits


# --- kumc


def numbers(objects: list[ET.Element]) -> list[tuple[int, ...]]:
    return [tuple(int(side.text or "") for side in entry.find("bndbox") or ()) for entry in objects]


def test_kumc_training_pictures_are_put_in_order_by_their_xml(trees: Trees) -> None:
    root, truth = trees("kumc")
    found: dict[str, list[tuple[int, str]]] = {}
    images = {path.stem: path for path in (root / "train2019" / "Image").iterdir()}
    for path in (root / "train2019" / "Annotation").iterdir():
        tags = ET.parse(path).getroot()
        where, filename = tags.findtext("path") or "", tags.findtext("filename") or ""
        folder = where.rsplit("/", 1)[0] if where.endswith((".jpg", ".png", ".bmp")) else where
        number = int(Path(filename).stem.removeprefix("adenoma_"))
        if path.stem in images:
            found.setdefault(folder.rsplit("/", 1)[1], []).append((number, f"train2019/Image/{path.stem}.jpg"))
    gone = {trap.path for trap in truth.traps if trap.name == "missing-partner"}
    shuffled = 0
    for sequence, rows in found.items():
        ordered = [name for _, name in sorted(rows)]
        names = truth.pictures[f"train2019/{sequence}"]
        assert ordered == [name for name in names if name not in gone]
        shuffled += ordered != sorted(ordered, key=lambda name: int(Path(name).stem))
    assert shuffled == len(found) == 3
    widows = {path.stem for path in (root / "train2019" / "Annotation").iterdir()} - set(images)
    assert {f"train2019/Annotation/{stem}.xml" for stem in widows} <= gone and len(widows) == 1
    assert len(gone) == 3


def test_kumc_boxes_are_the_truth_and_names_inside_are_not(trees: Trees) -> None:
    root, truth = trees("kumc")
    spaced = empty = foreign = several = 0
    for recording, names in truth.pictures.items():
        for index, name in enumerate(names):
            path = (root / name.replace("/Image/", "/Annotation/")).with_suffix(".xml")
            if not truth.labels[recording]["frames"][str(index)]["annotated"]:
                assert not path.exists()
                continue
            tags = ET.parse(path).getroot()
            objects = tags.findall("object")
            boxes = truth.recordings[recording].boxes[index]
            assert numbers(objects) == [corners(box) for box in boxes]
            assert {entry.findtext("name") for entry in objects} <= {"adenomatous", "hyperplastic"}
            spaced += b"<xmin> " in path.read_bytes()
            empty += not objects
            several += len(objects) > 1
            foreign += tags.findtext("filename") != Path(name).name
    assert spaced and empty and foreign and several
    assert {"val2019/Image/1", "test2019/Image/1"} <= set(truth.pictures)


# --- the CVC sets


def test_clinicdb_masks_are_the_truth(trees: Trees) -> None:
    root, truth = trees("cvc-12k")
    modes, parts = set(), 0
    for recording, names in truth.pictures.items():
        if not recording.startswith("CVC-ClinicDB/"):
            continue
        first, last = map(int, Path(recording).name.split("-"))
        assert [int(Path(name).stem) for name in names] == list(range(first, last + 1))
        for index, name in enumerate(names):
            mask = pixels(root / name.replace("/Original/", "/Ground Truth/"))
            modes.add(mask.ndim)
            flat = mask if mask.ndim == 2 else mask.max(axis=2)
            assert set(np.unique(flat)) == {0, 255}
            np.testing.assert_array_equal(flat > 0, whole_mask(truth.recordings[recording], index))
            parts += int(ndimage.label(flat, np.ones((3, 3)))[1] > 1)
    assert modes == {2, 3} and parts


def test_video_masks_are_ellipses_and_some_are_missing(trees: Trees) -> None:
    root, truth = trees("cvc-12k")
    missing = []
    for recording, names in truth.pictures.items():
        if "video" not in recording.lower():
            continue
        known = truth.recordings[recording]
        for index, name in enumerate(names):
            path = root / name.replace(".png", "_mask.png")
            assert path.exists() == truth.labels[recording]["frames"][str(index)]["mask"]
            if not path.exists():
                missing.append(name)
                continue
            drawn, mask = pixels(path) > 0, whole_mask(known, index)
            np.testing.assert_array_equal(drawn, ellipses(known.boxes[index], mask.shape))
            assert drawn.any() == mask.any()
            if mask.sum() > 60:
                assert (drawn & mask).sum() / (drawn | mask).sum() > 0.5
    train = [name for name in missing if name.startswith("CVC-VideoClinicDBtrain_valid/")]
    assert train == ["CVC-VideoClinicDBtrain_valid/18/18-1.png"] and len(missing) > 2


def test_colondb_keeps_every_picture_with_three_more(trees: Trees) -> None:
    root, truth = trees("cvc-12k")
    folder = root / "CVC-ColonDB" / "CVC-ColonDB"
    known = truth.recordings["CVC-ColonDB/CVC-ColonDB"]
    assert len(list(folder.iterdir())) == 4 * known.traits.frames
    for index in range(known.traits.frames):
        polyp, blind, contour = (pixels(folder / f"{letter}{index + 1}.bmp") > 0 for letter in "psc")
        np.testing.assert_array_equal(polyp, whole_mask(known, index))
        assert polyp.any() and polyp[contour].all() and contour.any()
        assert pixels(folder / f"{index + 1}.bmp")[:-8][blind[:-8]].max() == 0  # the counter lies in the last rows


def test_colonoscopic_default_lacks_one_partner() -> None:
    traps = LAYOUTS["colonoscopic"].traps(request("colonoscopic", LAYOUTS["colonoscopic"].default))
    assert [trap.path for trap in traps if trap.name == "missing-partner"] == ["Serrated/serrated_15/videos/WL.mp4"]


def test_the_same_tree_anywhere(tmp_path: Path) -> None:
    for name in ("a", "b"):
        render_source("cvc-12k", tmp_path / name / "t", seed=5, recordings=4, seconds=0.08, size=(64, 64))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
