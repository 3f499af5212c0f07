"""Label files of an enemy: whatever they hold, no label comes to rest on a wrong frame, and nothing is lost untold."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from endocorpus.build import BuildWatcher, build
from endocorpus.config import BuildConfig
from endocorpus.corpus.manifest import Corpus
from endocorpus.errors import DataError
from endocorpus.expect import refuse_loose
from endocorpus.frame_names import frame_index
from endocorpus.labels import labels_digest
from endocorpus.media.frames import read_mask
from endocorpus.plan import plan_recording
from endocorpus.records import Excluded, Reason
from endocorpus.scan import scan
from endocorpus.settings import load_settings
from endocorpus.sources import load_source
from endocorpus.verify import verify
from tests.endocorpus.conftest import fingerprint
from tests.endocorpus.test_traps import by_name, named, plant, polyp, said, told
from tests.media import write_frames

LDP = load_source("ldpolypvideo")
SHORT = load_settings(BuildConfig, overrides=["segment.policy=endofm150"])
HEADER = "filename;video_id;frame_number;finding_category;finding_class;x1;y1;x2;y2;x3;y3;x4;y4\n"
CAPSULE = {"labelled_videos/0123456789abcdef.mp4": "x"}


def boxed_tree(root: Path, first: int = 1) -> Path:
    """Six frames from number `first`; labels of frames 1 to 6, whose box moves with the number."""
    write_frames(root / "Test" / "Images" / "101", range(first, first + 6), name="{:04d}.jpg")
    boxes = {f"Test/Annotations/101/{n:04d}.txt": f"1\n{n} {n} {n + 20} {n + 20}\n" for n in range(1, 7)}
    return plant(root, boxes)


def boxes_of(corpus: Corpus) -> list[tuple[int, float]]:
    return [(row["frame"], row["xmin"]) for row in corpus.table("annotations").to_pylist()]


def test_labels_follow_frames_that_are_renamed(tmp_path: Path) -> None:
    root = boxed_tree(tmp_path / "raw")
    before = boxes_of(build(LDP, root, tmp_path / "c", SHORT))
    folder = root / "Test" / "Images" / "101"
    for number in range(6, 0, -1):
        (folder / f"{number:04d}.jpg").rename(folder / f"{number + 3:04d}.jpg")
    after = build(LDP, root, tmp_path / "c", SHORT)
    assert boxes_of(after) == [(0, 4.0), (1, 5.0), (2, 6.0)] != before
    assert fingerprint(after.root) == fingerprint(build(LDP, root, tmp_path / "fresh", SHORT).root)


def test_labels_that_change_during_a_build_are_not_trusted(tmp_path: Path) -> None:
    root = boxed_tree(tmp_path / "raw")
    file = root / "Test" / "Annotations" / "101" / "0002.txt"

    class Changes(BuildWatcher):
        def planned(self, *_: object) -> None:
            file.write_text("1\n90 90 99 99\n")

    with pytest.raises(DataError, match="label files changed during the build"):
        build(LDP, root, tmp_path / "c", SHORT, watcher=Changes())
    assert (1, 90.0) in boxes_of(build(LDP, root, tmp_path / "c", SHORT))


def test_stems_that_are_one_number_are_two_frames(tmp_path: Path) -> None:
    """Image 1 is frame 3 of its sequence and image 01 frame 7, as their XML files say; 002 could be either 02 or 2."""
    here = named("train2019/Image/1.jpg;train2019/Image/01.jpg;train2019/Image/2.jpg;train2019/Image/02.jpg")
    xml = {
        f"train2019/Annotation/{stem}.xml": f"<annotation><path>/data/seq/{number}.jpg</path>{polyp(number, 2, 30, 40)}"
        "</annotation>"
        for stem, number in (("1", 3), ("01", 7), ("2", 4), ("02", 8))
    }
    found = said("kumc", plant(tmp_path, here | xml), "train-seq")
    assert [Path(path).stem for path in by_name("kumc", tmp_path)["train-seq"].media.paths] == ["1", "2", "01", "02"]
    assert [(a.span.start, a.box and a.box[0]) for a in found.annotations] == [(0, 3), (1, 4), (2, 7), (3, 8)]
    index = frame_index(by_name("kumc", tmp_path)["train-seq"], 4)
    assert [index(stem) for stem in ("1", "01", "001", "3")] == [0, 2, None, None]


def test_a_segment_that_ends_before_it_begins_is_told_as_that(tmp_path: Path) -> None:
    text = '{"0123456789abcdef": {"segments": {"a": {"metadata": {"segment_type": "x"}, "seen": [[9, 4]]}}}}'
    found = said("kvasir-capsule", plant(tmp_path, CAPSULE | {"metadata.json": text}), "0123456789abcdef", 30)
    (exclusion,) = found.exclusions
    assert exclusion.reason is Reason.BAD_LABELS and "from frame 9 to 4, which lies before it" in exclusion.detail


@pytest.mark.parametrize("corner", ["1_0", "nan", "1e999", ""])
def test_corners_of_an_outline_are_plain_numbers(corner: str, tmp_path: Path) -> None:
    row = f"a.jpg;0123456789abcdef;3;Luminal;Polyp;{corner};1;9;1;9;9;1;9\n"
    root = plant(tmp_path, CAPSULE | {"metadata.csv": HEADER + row})
    (exclusion,) = scan(load_source("kvasir-capsule"), root).exclusions
    assert exclusion.reason is Reason.BAD_LABELS and "the corners of frame 3: expected 8 numbers" in exclusion.detail


def test_a_row_that_names_nobody_is_about_nobody(tmp_path: Path) -> None:
    root = plant(tmp_path, CAPSULE | {"metadata.csv": f"{HEADER}a.jpg;;3;Luminal;Polyp;;;;;;;;\n"})
    assert not said("kvasir-capsule", root, "0123456789abcdef", frames=30).annotations
    (exclusion,) = scan(load_source("kvasir-capsule"), root).exclusions
    assert exclusion.reason is Reason.NO_PARTNER and "''" in exclusion.detail


@pytest.mark.parametrize(("last", "kept"), [("-5", 0), ("null", 0), ("4.0", 0), ("4", 5), ("99", 30)])
def test_only_a_number_ends_a_segment(last: str, kept: int, tmp_path: Path) -> None:
    segment = f'{{"metadata": {{"segment_type": "Pylorus"}}, "seen": [[0, {last}]]}}'
    text = f'{{"0123456789abcdef": {{"segments": {{"s": {segment}}}}}}}'
    found = said("kvasir-capsule", plant(tmp_path, CAPSULE | {"metadata.json": text}), "0123456789abcdef", frames=30)
    assert sum(len(annotation.span) for annotation in found.annotations) == kept
    assert bool(found.exclusions) == (kept == 0)


def test_a_table_that_is_read_beside_another_file_counts_even_if_damaged(tmp_path: Path) -> None:
    source, files = load_source("real-colon"), {"001-001_frames/001-001_1.jpg": "x", "lesion_info.csv": "a,b\n1,2\n"}
    root = plant(tmp_path, files)
    before = labels_digest(by_name("real-colon", root)["001-001"], source, root)
    plant(root, {"lesion_info.csv": "a,b\n1,3\n"})
    assert labels_digest(by_name("real-colon", root)["001-001"], source, root) != before


def test_outlines_of_one_frame_have_one_order(tmp_path: Path) -> None:
    rows = [f"a.jpg;0123456789abcdef;3;Luminal;Polyp;{x};1;{x + 9};1;{x + 9};9;{x};9" for x in (12, 5, 26, 19)]
    root = plant(tmp_path, CAPSULE | {"metadata.csv": HEADER + "\n".join(rows) + "\n"})
    found = said("kvasir-capsule", root, "0123456789abcdef", frames=30)
    assert [a.polygon[0] for a in found.annotations if a.polygon] == [5, 12, 19, 26]


@pytest.mark.parametrize(
    "table",
    [
        'file-name;finding\na.avi;"polyp\nb.avi;polyp\n',  # a quotation mark that nothing closes
        'file-name;finding\na.avi;"polyp\nb.avi;polyp"\n',
        "file-name;finding;finding\na.avi;polyp;WRONG\nb.avi;polyp;WRONG\n",
    ],
)
def test_a_table_is_read_whole_or_not_at_all(table: str, tmp_path: Path) -> None:
    videos = {f"labeled-videos/lower-gi-tract/x/{name}.avi": "x" for name in "ab"}
    root = plant(tmp_path, videos | {"hyper-kvasir-video-metadata.csv": table})
    assert [e.reason for e in scan(load_source("hyper-kvasir"), root).exclusions] == [Reason.BAD_LABELS]
    assert "finding" not in {label.name for label in said("hyper-kvasir", root, "a", frames=9).labels}


def test_half_a_character_in_a_table_ends_nothing(tmp_path: Path) -> None:
    segment = '{"metadata": {"segment_type": "x\\ud83d"}, "seen": [[0, 2]]}'
    text = f'{{"0123456789abcdef": {{"segments": {{"s": {segment}}}}}}}'
    found = said("kvasir-capsule", plant(tmp_path, CAPSULE | {"metadata.json": text}), "0123456789abcdef", frames=30)
    assert [a.label.raw.encode() for a in found.annotations] == [b"x\\ud83d"]


@pytest.mark.parametrize("number", ["99999999999", "9" * 5000])
def test_numbers_of_any_length_end_nothing(number: str, tmp_path: Path) -> None:
    box = "<bndbox><xmin>1</xmin><xmax>9</xmax><ymin>1</ymin><ymax>9</ymax></bndbox>"
    xml = f"<a><object><name>polyp</name><unique_id>001-001_{number}</unique_id>{box}</object></a>"
    files = {"001-001_frames/001-001_1.jpg": "x", "001-001_annotations/001-001_1.xml": xml}
    assert len(said("real-colon", plant(tmp_path / "r", files), "001-001").annotations) == 1
    path = f"<annotation><path>/a/seqX/{number}.jpg</path></annotation>"
    kumc = plant(tmp_path / "k", {"train2019/Image/1.jpg": "x", "train2019/Annotation/1.xml": path})
    assert {e.reason for e in scan(load_source("kumc"), kumc).exclusions} <= {Reason.NO_PARTNER}


@pytest.mark.parametrize("kind", ["dangling", "fifo", "folder"])
def test_a_label_that_is_no_file_costs_its_own_frame_alone(kind: str, tmp_path: Path) -> None:
    root = boxed_tree(tmp_path / "raw")
    file = root / "Test" / "Annotations" / "101" / "0002.txt"
    file.unlink()
    if kind == "dangling":
        file.symlink_to(tmp_path / "nowhere")
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        plant(root, {"Test/Annotations/101/0002.txt/inside": "x"})
    (recording,) = scan(LDP, root).recordings
    plan = plan_recording(recording, root, LDP, SHORT)
    assert plan.annotations["box"] == 5
    assert [e.reason for e in plan.exclusions] == ([] if kind == "folder" else [Reason.BAD_LABELS])


def test_strict_refuses_labels_that_cannot_be_used(tmp_path: Path) -> None:
    root = boxed_tree(tmp_path)
    (root / "Test" / "Annotations" / "101" / "0002.txt").write_bytes(b"\0\0")
    found = scan(LDP, root)
    plans = [plan_recording(recording, root, LDP, SHORT) for recording in found.recordings]
    with pytest.raises(DataError, match="missing or cannot be used: bad_labels"):
        refuse_loose(LDP, found, plans)


def test_python_numbers_are_no_numbers_of_a_label_file(tmp_path: Path) -> None:
    root = boxed_tree(tmp_path)
    plant(root, {"Test/Annotations/101/0002.txt": "1\n1_0 1_0 2_0 ٢٥\n"})
    assert len(told(said("ldpolypvideo", root, "101"))) == 5


def test_a_box_too_thin_for_the_table_is_told_and_the_corpus_verifies(tmp_path: Path) -> None:
    root = boxed_tree(tmp_path / "raw")
    plant(root, {"Test/Annotations/101/0002.txt": "1\n10.0000000001 10 10.0000000002 20\n"})
    corpus = build(LDP, root, tmp_path / "c", SHORT)
    assert verify(corpus).problems == () and len(boxes_of(corpus)) == 5
    assert corpus.descriptor["counts"]["excluded_by_reason"] == {"misplaced": 1}


def disc(low: int, high: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    y, x = np.mgrid[0:40, 0:40]
    return np.where((x - 20) ** 2 + (y - 20) ** 2 < 100, high, low).astype(np.uint8)


@pytest.mark.parametrize("values", [(0, 2), (0, 100), (0, 255), (8, 246), (0, 1)])
def test_whatever_two_values_a_mask_has_the_brighter_is_the_object(values: tuple[int, int], tmp_path: Path) -> None:
    Image.fromarray(disc(*values)).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), disc(0, 1) == 1)


def test_pictures_that_are_no_clear_masks_are_refused(tmp_path: Path) -> None:
    shape = Image.fromarray(disc(0, 255))
    clear = Image.merge("RGBA", [Image.new("L", (40, 40), 255)] * 3 + [shape])
    clear.save(tmp_path / "alpha.png")
    Image.new("L", (40, 40)).save(tmp_path / "moving.png", save_all=True, append_images=[shape])
    Image.fromarray(np.tile(np.arange(40, dtype=np.uint8) * 6, (40, 1))).save(tmp_path / "ramp.png")
    Image.new("L", (40, 40), 100).save(tmp_path / "grey.png")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(Excluded) as caught:
            read_mask(path)
        assert caught.value.reason is Reason.BAD_LABELS, path


def test_two_mask_files_of_one_frame_stay_two_objects(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    write_frames(root / "CVC-VideoClinicDBtrain_valid" / "1", range(1, 4), name="1-{}.png", size=(40, 40))
    folder = root / "CVC-VideoClinicDBtrain_valid" / "1"
    Image.fromarray(disc(0, 255)).save(folder / "1-1_mask.png")
    Image.fromarray(np.roll(disc(0, 255), 15, axis=1)).save(folder / "1-1_Polyp.png")
    rows = build(load_source("cvc-12k"), root, tmp_path / "c", SHORT).table("annotations").to_pylist()
    assert [(row["frame"], row["instance"]) for row in rows] == [(0, 0), (0, 1)]


def test_a_box_that_two_files_draw_is_one_box(tmp_path: Path) -> None:
    stem = "case_M_20181001100941_0U62372100109341_1_005_001-1_a2_ayy_image0001"
    coco = (
        f'{{"images": [{{"id": "i", "file_name": "{stem}"}}], "annotation": [{{"id": "i", "bbox": [4, 5, 20, 30]}}]}}'
    )
    files = {
        f"sundatabase_positive_part1/case1/{stem}.jpg": "x",
        "sundatabase_positive_part1/annotation_txt/case1.txt": f"{stem}.jpg 4,5,24,35,0\n",
        "SUN-SEG-Annotation/TrainDataset/Detection/bbox_annotation.json": coco,
    }
    assert len(said("sun", plant(tmp_path, files), "pos-case1").annotations) == 1
    other = coco.replace("[4, 5, 20, 30]", "[4, 5, 21, 30]")
    plant(tmp_path, {"SUN-SEG-Annotation/TrainDataset/Detection/bbox_annotation.json": other})
    assert len(said("sun", tmp_path, "pos-case1").annotations) == 2
