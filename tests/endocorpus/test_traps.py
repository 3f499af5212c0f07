"""Every known trap of the sources, on trees of a few bytes: each test fails if somebody reads it the obvious way.

The numbers in names are the sections of `docs/traps.md`, which says for every trap how it is read and which test holds
it; traps that need real pictures are tested where pictures are.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from endocorpus.config import BuildConfig
from endocorpus.labels import Annotated, read_labels
from endocorpus.plan import plan_recording
from endocorpus.records import Excluded, Kind, Reason, Recording
from endocorpus.scan import Scan, scan
from endocorpus.settings import load_settings
from endocorpus.sources import load_source
from endocorpus.sources.polypdiag import abnormal_test_lengths
from tests.endocorpus.conftest import NAMES
from tests.media import write_video

Files = Mapping[str, str | bytes]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "traps.md"


def plant(root: Path, files: Files) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def named(paths: str, content: str = "x") -> Files:
    return dict.fromkeys(paths.split(";"), content)


def by_name(source: str, root: Path) -> Mapping[str, Recording]:
    return {recording.name: recording for recording in scan(load_source(source), root, names=NAMES).recordings}


def order_of(found: Scan) -> dict[str, str]:
    """Stems of the files of every recording, in their order."""
    return {r.name: " ".join(PurePosixPath(path).stem for path in r.media.paths) for r in found.recordings}


def said(source: str, root: Path, name: str, frames: int | None = None) -> Annotated:
    recording = by_name(source, root)[name]
    return read_labels(recording, load_source(source), root, frames or len(recording.media.paths), (100, 80))


def told(found: Annotated) -> set[tuple[int, int, str, str, str]]:
    """(first frame, frame after the last, kind, label name, code) of all annotations."""
    return {(a.span.start, a.span.stop, str(a.kind), a.label.name, a.label.code) for a in found.annotations}


def boxes(found: Annotated) -> list[tuple[int, tuple[float, ...] | None]]:
    return [(a.span.start, a.box) for a in found.annotations if a.kind is Kind.BOX]


def codes(found: Annotated) -> dict[str, set[str]]:
    return {name: {a.code for a in found.labels if a.name == name} for name in {a.name for a in found.labels}}


def sun(scene: int, frame: int, part: int = 1, exam: str = "0U62372100109341") -> str:
    return f"case_M_20181001100941_{exam}_1_005_{part:03d}-1_a{scene}_ayy_image{frame:04d}"


# --- trees: what lies where, and in which order it is shown -----------------------------------------------------------

SUN_NAMES = (sun(2, 1), sun(2, 9999), sun(2, 10000), sun(10, 1), sun(1, 1, part=2))
POSITIVE, SEG = "sundatabase_positive_part1", "data/SUN-SEG"
KUMC_XML = "<annotation><path>{}</path><filename>{}</filename></annotation>"

# section and trap -> source, files, recordings with the stems of their files in order
TREES: Mapping[str, tuple[str, Files, Mapping[str, str]]] = {
    "1.3 the site's spelling without t, and capitals": (
        "colonoscopic",
        named("Hyperplasic/hyperplasic_01/videos/WL.mp4;Hyperplastic/hyperplastic_02/videos/nbi.MP4"),
        {"hyperplasic_01-WL": "WL", "hyperplastic_02-nbi": "nbi"},
    ),
    "2.3 a10 after a2, by three numbers": (
        "sun",
        dict.fromkeys((f"{POSITIVE}/case1/{name}.jpg" for name in sorted(SUN_NAMES)), "x"),
        {"pos-case1": " ".join(SUN_NAMES)},
    ),
    "2.3 positive and negative case1 are two": (
        "sun",
        named(f"{POSITIVE}/case1/{sun(1, 1)}.jpg;sundatabase_negative_part4/case1/{sun(1, 1, exam='Z')}.jpg"),
        {"pos-case1": sun(1, 1), "neg-case1": sun(1, 1, exam="Z")},
    ),
    "2.3 unpacked flat": (
        "sun",
        named(f"SUN-Positive/case1/{sun(1, 1)}.jpg;SUN-Negative/case1/{sun(1, 2)}.jpg"),
        {"pos-case1": sun(1, 1), "neg-case1": sun(1, 2)},
    ),
    "2.4 re-organised by SUN-SEG's script, some without a suffix": (
        "sun",
        named(
            f"{SEG}/TrainDataset/Frame/case1_10/{sun(10, 1)}.jpg;{SEG}/TrainDataset/Frame/case1_10/{sun(2, 1)}.jpg;"
            f"{SEG}/TestEasyDataset/Unseen/Frame/case4/{sun(3, 1)}.jpg"
        ),
        {"seg-case1_10": f"{sun(2, 1)} {sun(10, 1)}", "seg-case4": sun(3, 1)},
    ),
    "2.7 withdrawn frames leave gaps": (
        "sun",
        named(f"{POSITIVE}/case1/{sun(1, 1)}.jpg;{POSITIVE}/case1/{sun(1, 7)}.jpg"),
        {"pos-case1": f"{sun(1, 1)} {sun(1, 7)}"},
    ),
    "3.3 Train and TrainValid, numbers without padding": (
        "ldpolypvideo",
        named("Train/Images/2/0001.jpg;Train/Images/10/0002.jpg;Train/Images/10/0001.jpg;Test/Images/101/0001.jpg"),
        {"2": "0001", "10": "0001 0002", "101": "0001"},
    ),
    "3.3 frame 10000 follows 9999": (
        "ldpolypvideo",
        named("TrainValid/Images/1/10000.jpg;TrainValid/Images/1/9999.jpg"),
        {"1": "9999 10000"},
    ),
    "3.3 unlabelled videos lie in folders with blanks": (
        "ldpolypvideo",
        named("videos with polyps/1_1.avi;videos without polyps/0_1.AVI"),
        {"1_1": "1_1", "0_1": "0_1"},
    ),
    "4.2 names that differ in a blank or a capital": (
        "hyper-kvasir",
        named(
            "labeled-videos/lower-gi-tract/t/polypp 16.avi;labeled-videos/lower-gi-tract/t/polypp16.avi;"
            "labeled-videos/lower-gi-tract/t/Polypp16.avi"
        ),
        {"polypp 16": "polypp 16", "polypp16": "polypp16", "Polypp16": "Polypp16"},
    ),
    "4.3 folders of any depth, both spellings, mpg": (
        "hyper-kvasir",
        named(
            "labeled-videos/a.avi;labelled-videos/upper-gi-tract/b.mpg;"
            "hk/labeled-videos/lower-gi-tract/quality-of-mucosal-view/BBPS-2-3/x/c.avi"
        ),
        {"a": "a", "b": "b", "c": "c"},
    ),
    "5.4 labeled and labelled": (
        "kvasir-capsule",
        named(f"labeled_videos/{'a' * 16}.mp4;unlabelled_videos/{'b' * 16}.mp4"),
        {"a" * 16: "a" * 16, "b" * 16: "b" * 16},
    ),
    "6.4 ids of two and three digits": (
        "cholectriplet",
        named("CholecT50/videos/VID01/000000.png;CholecT50/videos/VID111/000000.png;CholecT45/data/VID01/000000.png"),
        {"t50-vid01": "000000", "t50-vid111": "000000", "t45-vid01": "000000"},
    ),
    "7.3 names of any kind": (
        "polypdiag",
        named("videos/101.mp4;videos/1_7.mp4;videos/11305ea5-0000-4000-8000-000000000001.mp4"),
        {name: name for name in ("101", "1_7", "11305ea5-0000-4000-8000-000000000001")},
    ),
    "8.1 three sets are not one": (
        "cvc-12k",
        named("CVC-ClinicDB/Original/1.tif;CVC-VideoClinicDBtrain_valid/1/1-1.png;CVC-ColonDB/CVC-ColonDB/1.bmp"),
        {"clinicdb-01": "1", "videodb-train-1": "1-1", "colondb": "1"},
    ),
    "8.2 twenty-nine sequences in one folder": (
        "cvc-12k",
        named(";".join(f"CVC-ClinicDB/Original/{n}.tif" for n in (612, 10, 26, 2, 25, 1, 592))),
        {"clinicdb-01": "1 2 10 25", "clinicdb-02": "26", "clinicdb-29": "592 612"},
    ),
    "8.2 the copy as PNG": (
        "cvc-12k",
        named("CVC-ClinicDB/PNG/Original/2.png;CVC-ClinicDB/PNG/Original/10.png"),
        {"clinicdb-01": "2 10"},
    ),
    "8.4 masks among the frames, numbers without padding": (
        "cvc-12k",
        named(";".join(f"CVC-VideoClinicDBtrain_valid/1/1-{n}{m}.png" for n in (10, 9, 1) for m in ("", "_mask"))),
        {"videodb-train-1": "1-1 1-9 1-10"},
    ),
    "8.4 test videos have numbers of training videos": (
        "cvc-12k",
        named("CVC-VideoClinicDBtrain_valid/5/5-1.png;cvcvideoclinicdbtest/5/5-1.png"),
        {"videodb-train-5": "5-1", "videodb-test-5": "5-1"},
    ),
    "8.7 contours and outlines of ColonDB are no frames": (
        "cvc-12k",
        named(";".join(f"CVC-ColonDB/CVC-ColonDB/{name}.bmp" for name in ("10", "2", "p2", "s2", "c2"))),
        {"colondb": "2 10"},
    ),
    "9.3 val and test have the same numbers, folders are no classes": (
        "kumc",
        named("val2019/Image/1/10.jpg;val2019/Image/1/9.jpg;test2019/Image/1/1.png"),
        {"val-1": "9 10", "test-1": "1"},
    ),
    "9.3 training frames are shuffled, their XML says where they belong": (
        "kumc",
        named("train2019/Image/17.jpg;train2019/Image/103.jpg;train2019/Image/5.jpg")
        | {
            "train2019/Annotation/17.xml": KUMC_XML.format("/home/x/adenoma_3/10.bmp", "10.bmp"),
            "train2019/Annotation/103.xml": KUMC_XML.format(r"D:\x\adenoma_3\2.bmp", "2.bmp"),
            "train2019/Annotation/5.xml": KUMC_XML.format("/home/x/Image", "adenoma_4_0001.jpg"),
        },
        {"train-adenoma_3": "103 17", "train-adenoma_4": "5"},
    ),
}


@pytest.mark.parametrize("trap", TREES)
def test_trees(trap: str, tmp_path: Path) -> None:
    source, files, expected = TREES[trap]
    found = scan(load_source(source), plant(tmp_path, files))
    assert order_of(found) == expected
    assert not found.exclusions or {e.reason for e in found.exclusions} == {Reason.NO_PARTNER}


def test_1_4_both_lights_of_a_lesion_share_a_case(tmp_path: Path) -> None:
    both = by_name("colonoscopic", plant(tmp_path, named("A/x;" + ";".join(_lesion(n) for n in ("WL", "NBI")))))
    assert len(both) == 2 and len({(r.case_id, r.leak_group) for r in both.values()}) == 1


def _lesion(light: str) -> str:
    return f"Serrated/serrated_15/videos/{light}.mp4"


def test_1_7_a_missing_narrow_band_video_does_not_take_the_other(tmp_path: Path) -> None:
    assert set(by_name("colonoscopic", plant(tmp_path, named(_lesion("WL"))))) == {"serrated_15-WL"}


def test_2_2_two_negative_cases_are_faster(tmp_path: Path) -> None:
    names = ";".join(f"SUN-Negative/case{n}/{sun(1, n)}.jpg" for n in (1, 6, 7, 13))
    rates = {name: r.media.rate for name, r in by_name("sun", plant(tmp_path, named(names))).items()}
    assert rates == {
        "neg-case1": 30,
        "neg-case6": Fraction(100, 3),
        "neg-case7": Fraction(100, 3),
        "neg-case13": 30,
    }


def test_2_3_time_and_examination_in_names_are_hashed(tmp_path: Path) -> None:
    names = named(f"{POSITIVE}/case1/{sun(1, 1)}.jpg;{POSITIVE}/case2/{sun(2, 1)}.jpg;{POSITIVE}/case3/")
    files = {path: "x" for path in names if not path.endswith("/")} | {
        f"{POSITIVE}/case3/{sun(1, 1, exam='OTHER')}.jpg": "x"
    }
    one, two, three = by_name("sun", plant(tmp_path, files)).values()
    assert one.links == two.links != three.links and one.case_id != two.case_id
    shown = f"{one.recording_id}{one.subject}{one.links}{dict(one.labels)}"
    assert "0U62372100109341" not in shown and "20181001100941" not in shown


def test_2_4_seen_clips_share_the_group_of_training_clips(tmp_path: Path) -> None:
    files = named(
        f"{SEG}/TrainDataset/Frame/case2_1/{sun(1, 1)}.jpg;{SEG}/TestHardDataset/Seen/Frame/case2_3/{sun(3, 1)}.jpg;"
        f"{POSITIVE}/case2/{sun(2, 1)}.jpg"
    )
    found = by_name("sun", plant(tmp_path, files))
    assert {r.leak_group for r in found.values()} == {"sun-pos-case2"}
    assert codes(said("sun", tmp_path, "seg-case2_3")) == {"official_split": {"test_hard_seen"}}


@pytest.mark.parametrize(
    ("source", "name"),
    [("ldpolypvideo", "TrainValid.rar"), ("kvasir-capsule", "labelled_videos.ZIP"), ("sun", "x/part.tar.gz")],
)
def test_3_1_an_archive_that_lies_in_the_tree_is_named_as_such(source: str, name: str, tmp_path: Path) -> None:
    (exclusion,) = scan(load_source(source), plant(tmp_path, named(name))).exclusions
    assert exclusion.subject == name and "unpack" in exclusion.detail


def test_8_2_one_copy_of_the_sequences_is_enough(tmp_path: Path) -> None:
    """The mirror holds every picture as TIFF and as PNG; neither is taken in silence, and nothing is taken twice."""
    found = scan(load_source("cvc-12k"), plant(tmp_path, named(";".join(_copies()))))
    assert not found.recordings and {e.reason for e in found.exclusions} == {Reason.AMBIGUOUS_NAME}


def _copies() -> list[str]:
    return [f"CVC-ClinicDB/{kind}/Original/{n}.{kind.lower()}" for kind in ("PNG", "TIF") for n in (1, 2)]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("CVC-VideoClinicDBtrain_valid/1/1-10.png", "CVC-VideoClinicDBtrain_valid/1/1-10_mask.png"),
        ("CVC-VideoClinicDBtrain_valid/1/1_10.png", "CVC-VideoClinicDBtrain_valid/1/1_10_mask.png"),
        ("CVC-VideoClinicDBtrain_valid/1/001-0010.png", "CVC-VideoClinicDBtrain_valid/1/001-0010_Polyp.tif"),
        ("CVC-ClinicVideoDB_train/1/1-10.png", "CVC-ClinicVideoDB_train/1/1-10_mask.png"),
        ("CVC-ClinicDB/Original/10.tif", "CVC-ClinicDB/Ground Truth/10.tif"),
        ("CVC-ClinicDB/PNG/Original/10.png", "CVC-ClinicDB/PNG/Ground Truth/10.png"),
        ("CVC-ColonDB/CVC-ColonDB/10.bmp", "CVC-ColonDB/CVC-ColonDB/p10.bmp"),
    ],
)
def test_8_4_masks_find_their_frame_under_every_name(image: str, mask: str, tmp_path: Path) -> None:
    root = plant(tmp_path, named(f"{image};{mask}"))
    (recording,) = scan(load_source("cvc-12k"), root).recordings
    assert recording.media.paths == (image,)
    found = said("cvc-12k", root, recording.name)
    assert [(a.span.start, a.mask) for a in found.annotations] == [(0, mask)] and not found.exclusions


def test_8_4_a_frame_without_a_mask_stays(tmp_path: Path) -> None:
    names = named("CVC-VideoClinicDBtrain_valid/18/18-1.png;CVC-VideoClinicDBtrain_valid/18/18-2.png")
    root = plant(tmp_path, names | named("CVC-VideoClinicDBtrain_valid/18/18-2_mask.png"))
    assert [a.span.start for a in said("cvc-12k", root, "videodb-train-18").annotations] == [1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("colonoscope/RJ2021_7/video_01.mp4", "colonoscope/RJ2021_7/video_02.mp4"),
        ("exam_1/part/a.mp4", "exam_1/b.dcm"),
        ("x/Gastroscopy/exam/deep/a.avi", "x/Gastroscopy/exam/b.mpg"),
    ],
)
def test_10_parts_of_one_examination_are_one_case(one: str, other: str, tmp_path: Path) -> None:
    found = scan(
        load_source("renji"), plant(tmp_path, named(f"{one};{other};colonoscope/alone.mp4")), names=NAMES
    ).recordings
    assert len(found) == 3 and len({r.case_id for r in found}) == 2


def test_10_names_of_patients_are_told_to_nobody(tmp_path: Path) -> None:
    files = named("gastroscope/ZhangSan_2021/a.avi;ZhangSan.zip;gastroscope/ZhangSan_2021/c.xyz")
    found = scan(load_source("renji"), plant(tmp_path, files), names=NAMES)
    shown = [(r.recording_id, r.subject, r.case_id, r.leak_group, dict(r.labels)) for r in found.recordings]
    assert len(found.exclusions) == 2 and "zhang" not in f"{shown}{found.exclusions}".lower()


@pytest.mark.parametrize(
    ("consent", "reason"),
    [("yes", Reason.IN_DOUBT), ("YES ", Reason.IN_DOUBT), ("no", Reason.NO_CONSENT), ("0", Reason.NO_CONSENT)],
)
def test_10_consent_that_is_not_given_is_the_reason(consent: str, reason: Reason, tmp_path: Path) -> None:
    write_video(tmp_path / "colonoscope" / "E1" / "a.mp4", 30, size=(64, 48))
    plant(tmp_path, {"labels.csv": f"exam_id,procedure,finding,consent\nE1,colonoscopy,polyp,{consent}\n"})
    (recording,) = scan(load_source("renji"), tmp_path, names=NAMES).recordings
    with pytest.raises(Excluded) as excluded:
        plan_recording(recording, tmp_path, load_source("renji"), load_settings(BuildConfig))
    assert excluded.value.reason is reason


# --- labels: what is said about which frame ---------------------------------------------------------------------------


def test_2_3_corners_not_sides_and_class_one_is_no_polyp(tmp_path: Path) -> None:
    lines = f"{sun(10, 1)}.jpg 4,5,56,72,0\n{sun(2, 1)}.jpg 0,0,9,9,1\n"
    images = named(f"{POSITIVE}/case1/{sun(2, 1)}.jpg;{POSITIVE}/case1/{sun(10, 1)}.jpg")
    found = said("sun", plant(tmp_path, images | {f"{POSITIVE}/annotation_txt/case1.txt": lines}), "pos-case1")
    assert boxes(found) == [(1, (4, 5, 56, 72))]
    assert told(found) == {(0, 1, "none", "box", "non_polyp"), (1, 2, "box", "box", "polyp")}


def test_2_3_all_boxes_may_lie_beside_part_1(tmp_path: Path) -> None:
    files = named(f"sundatabase_positive_part2/case100/{sun(1, 1)}.jpg") | {
        f"{POSITIVE}/annotation_txt/case100.txt": f"{sun(1, 1)}.jpg 1,2,3,4,0"
    }
    assert boxes(said("sun", plant(tmp_path, files), "pos-case100")) == [(0, (1, 2, 3, 4))]


@pytest.mark.parametrize("key", ["annotation", "annotations"])
@pytest.mark.parametrize("name", [sun(1, 1), f"{sun(1, 1)}.jpg", f"case1_1/{sun(1, 1)}"])
def test_2_4_sides_not_corners_singular_key_and_names_without_suffix(key: str, name: str, tmp_path: Path) -> None:
    tree = {
        "images": [{"id": 7, "case_name": "case1_1", "file_name": name}],
        key: [{"id": 7, "bbox": [10, 20, 30, 40]}],
    }
    files = named(f"{SEG}/TrainDataset/Frame/case1_1/{sun(1, 1)}.jpg") | {
        f"{SEG}/TrainDataset/Detection/bbox_annotation.json": json.dumps(tree)
    }
    assert boxes(said("sun", plant(tmp_path, files), "seg-case1_1")) == [(0, (10, 20, 40, 60))]


def test_2_4_one_list_of_classes_for_all_clips_of_a_part(tmp_path: Path) -> None:
    files = named(
        f"{SEG}/TrainDataset/Frame/case1_1/{sun(1, 1)}.jpg;{SEG}/TrainDataset/Frame/case2/{sun(2, 1)}.jpg"
    ) | {
        f"{SEG}/TrainDataset/Classification/classification.txt": (
            f"{sun(2, 1)}.jpg\tlow_grade_adenoma\n{sun(1, 1)}.jpg\thyperplastic_polyp\n"
        )
    }
    root = plant(tmp_path, files)
    assert told(said("sun", root, "seg-case1_1")) == {(0, 1, "label", "finding", "hyperplastic_polyp")}
    assert told(said("sun", root, "seg-case2")) == {(0, 1, "label", "finding", "low_grade_adenoma")}


@pytest.mark.parametrize("folder", ["SUN-SEG", "SUN-SEG-Annotation-v2"])
def test_2_4_masks_of_clips_join_the_case_they_were_cut_from(folder: str, tmp_path: Path) -> None:
    """Whoever does not run the provider's script has whole cases, and masks under names of clips."""
    mask = f"{folder}/TestEasyDataset/Unseen/GT/case4_2/{sun(10, 1)}.png"
    root = plant(tmp_path, named(f"{POSITIVE}/case4/{sun(2, 1)}.jpg;{POSITIVE}/case4/{sun(10, 1)}.jpg;{mask}"))
    found = said("sun", root, "pos-case4")
    assert [(a.span.start, a.mask) for a in found.annotations] == [(1, mask)] and not found.exclusions


@pytest.mark.parametrize("size", [64, 1_000])
def test_2_7_a_list_of_nul_bytes_is_damaged(size: int, tmp_path: Path) -> None:
    folder = f"{SEG}/TestEasyDataset/Seen"
    files: Files = named(f"{folder}/Frame/case2_3/{sun(1, 1)}.jpg;{folder}/GT/case2_3/{sun(1, 1)}.png") | {
        f"{folder}/Classification/classification.txt": b"\0" * size
    }
    found = scan(load_source("sun"), plant(tmp_path, files))
    assert [(e.reason, e.unit) for e in found.exclusions] == [(Reason.BAD_LABELS, "annotation")]
    assert len(found.recordings) == 1


LDP = "TrainValid/Images/1/0001.jpg;TrainValid/Images/1/0002.jpg"
REAL_COLON = "001-001_frames/001-001_1.jpg;001-001_frames/001-001_2.jpg"
SUN_SEG = ";".join(f"{SEG}/TrainDataset/Frame/case1/{sun(1, frame)}.jpg" for frame in (1, 2))


def test_3_3_the_first_line_is_a_count_and_zero_is_an_answer(tmp_path: Path) -> None:
    files = named(LDP) | {
        "TrainValid/Annotations/1/0001.txt": "2\n12 8 24 20\n3 5 30 55\n",
        "TrainValid/Annotations/1/0002.txt": "0",
    }
    found = said("ldpolypvideo", plant(tmp_path, files), "1")
    assert boxes(found) == [(0, (12, 8, 24, 20)), (0, (3, 5, 30, 55))]
    assert (1, 2, "none", "box", "polyp") in told(found) or [k for *_, k, _, _ in told(found)].count("none") == 1


@pytest.mark.parametrize("text", ["", "1\n", "0\n1 2 3 4\n", "2\n1 2 3 4\n", "1\n1 2 3\n", "nan\n", "inf\n", "a\n"])
def test_3_7_a_count_that_is_not_kept_is_damage(text: str, tmp_path: Path) -> None:
    found = said("ldpolypvideo", plant(tmp_path, named(LDP) | {"TrainValid/Annotations/1/0001.txt": text}), "1")
    assert [e.reason for e in found.exclusions] == [Reason.BAD_LABELS] and not found.annotations


HK = "11305ea5-389a-46c8-95f3-94a1af84247d"


def test_4_2_free_text_is_coded_and_kept(tmp_path: Path) -> None:
    header = "file-name;finding;width;height;number-of-frames;fps;length;kilobytes"
    rows = {
        "polypp 16.avi": ("retroflexed stomach,\xa0", "retroflex_stomach"),
        "polypp16.avi": ("Stained lifted polyp", "stained_lifted_polyp"),
        f"{HK}.avi": ("collitis", "colitis"),
        "x.mpg": ("None", "not_recorded"),
    }
    table = "\n".join([header, *(f"{name};{raw};720;576;150;25;6;900" for name, (raw, _) in rows.items())])
    root = plant(tmp_path, named(";".join(f"labeled-videos/{name}" for name in rows)))
    plant(root, {"hyper-kvasir-video-metadata.csv": table})
    for name, (raw, code) in rows.items():
        labels = said("hyper-kvasir", root, PurePosixPath(name).stem, 150).labels
        assert [(label.raw, label.code) for label in labels if label.name == "finding"] == [(raw, code)]


@pytest.mark.parametrize("name", [HK, f"{HK}.avi", f"lower-gi-tract/polyps/{HK}.avi"])
def test_4_3_the_table_may_name_stem_file_or_path(name: str, tmp_path: Path) -> None:
    table = f"Video file,Organ,Finding 1,Finding 2,Classification 1,Classification 2\n{name},Lower GI,polyp,,a,\n"
    files = named(f"labeled-videos/x/{HK}.avi") | {"labeled-videos/video-labels.csv": table}
    assert "polyp" in codes(said("hyper-kvasir", plant(tmp_path, files), HK, 9))["finding_1"]


def test_4_3_archive_and_table_differ_on_both_sides(tmp_path: Path) -> None:
    table = "file-name;finding\nabsent.avi;polyp\nhere.avi;polyp\n"
    files = named("labeled-videos/here.avi;labeled-videos/unlisted.avi") | {"hyper-kvasir-video-metadata.csv": table}
    found = scan(load_source("hyper-kvasir"), plant(tmp_path, files))
    assert set(order_of(found)) == {"here", "unlisted"}
    assert [(e.reason, "absent" in e.detail) for e in found.exclusions] == [(Reason.NO_PARTNER, True)]


def test_4_3_still_images_are_no_recordings(tmp_path: Path) -> None:
    files = named(
        "labeled-images/upper-gi-tract/pathological-findings/esophagitis-a/1.jpg;unlabeled-images/images/2.jpg;"
        "segmented-images/masks/3.jpg"
    )
    found = scan(load_source("hyper-kvasir"), plant(tmp_path, files))
    assert not found.recordings and not found.exclusions and found.sidecars == {"still image": 3}


CAPSULE = "bca26705313a4644"
CAPSULE_HEAD = "filename;video_id;frame_number;finding_category;finding_class;x1;y1;x2;y2;x3;y3;x4;y4\n"


def test_5_3_two_pictures_a_second_whatever_the_file_plays(tmp_path: Path) -> None:
    assert (
        by_name("kvasir-capsule", plant(tmp_path, named(f"labelled_videos/{CAPSULE}.mp4")))[CAPSULE].capture_rate == 2
    )


def test_5_4_corners_short_rows_and_two_rows_of_one_frame(tmp_path: Path) -> None:
    table = CAPSULE_HEAD + (
        f"{CAPSULE}_0.jpg;{CAPSULE};0;Luminal;Normal clean mucosa;;;;;;;\n"
        f"{CAPSULE}_3.jpg;{CAPSULE};3;Anatomy;Pylorus;;;;;;;;\n"
        f"{CAPSULE}_3.jpg;{CAPSULE};3;Luminal;Blood - fresh;10;20;30;20;30;40;10;40\n"
        f"{CAPSULE}_3.jpg;{CAPSULE};3;Luminal;Blood - fresh;10;20;30;20;30;40;10;40\n"
        f"{CAPSULE}_4.jpg;{CAPSULE};4;Luminal;Polyp;;;;;;;;\n"
    )
    root = plant(tmp_path, named(f"labelled_videos/{CAPSULE}.mp4") | {"metadata.csv": table})
    found = said("kvasir-capsule", root, CAPSULE, 4)  # frames 0 to 3: frame numbers count from 0
    findings = {(a.span.start, a.kind, a.label.code) for a in found.annotations if a.label.name == "finding"}
    assert findings == {
        (0, Kind.LABEL, "normal_clean_mucosa"),
        (3, Kind.LABEL, "pylorus"),
        (3, Kind.LABEL, "blood_fresh"),
        (3, Kind.POLYGON, "blood_fresh"),
    }
    (outline,) = [a.polygon for a in found.annotations if a.kind is Kind.POLYGON]
    assert outline == (10, 20, 30, 20, 30, 40, 10, 40)
    assert [e.reason for e in found.exclusions] == [Reason.NO_PARTNER]


def test_5_4_segments_hold_their_last_frame_and_machine_drawn_outlines_say_so(tmp_path: Path) -> None:
    square = [{"x": x, "y": y} for x, y in ((1, 2), (5, 2), (5, 6), (1, 6))]
    frames = {str(n): {"shape": square, "blurry": False, "interpolated": n != 2} for n in (10, 9, 2)}
    segment = {"metadata": {"pillcam_subtype": None, "segment_type": "Pylorus"}, "seen": [[0, 2], [5, 9999]]}
    tree = {
        CAPSULE: {"segments": {"s": segment}, "findings": {"f": {"metadata": {"name": "Polyp 1"}, "frames": frames}}}
    }
    root = plant(tmp_path, named(f"labelled_videos/{CAPSULE}.mp4") | {"metadata.json": json.dumps(tree)})
    found = said("kvasir-capsule", root, CAPSULE, 12)
    assert [(a.span.start, a.span.stop) for a in found.annotations if a.label.name == "segment"] == [(0, 3), (5, 12)]
    outlines = [(a.span.start, a.notes) for a in found.annotations if a.kind is Kind.POLYGON]
    assert outlines == [(2, ()), (9, ("interpolated",)), (10, ("interpolated",))]


def test_5_5_both_lists_name_a_video_and_one_names_an_image_twice(tmp_path: Path) -> None:
    row = f"{CAPSULE}_20404.jpg,Ileo-cecal valve\n"
    files = named(f"labelled_videos/{CAPSULE}.mp4") | {
        "official_splits/split_0.csv": f"filename,label\n{row}",
        "official_splits/split_1.csv": f"filename,label\n{row}{row}",
    }
    found = said("kvasir-capsule", plant(tmp_path, files), CAPSULE, 9)
    assert codes(found)["official_split"] == {"split_0", "split_1"} and len(found.labels) == 3


@pytest.mark.parametrize(
    "folder", ["Ileocecal valve", "ileocecal_valve", "Ileo-cecal valve", "ileocecal_valve.tar/Ileocecal valve"]
)
def test_5_8_three_spellings_of_a_class_are_one(folder: str, tmp_path: Path) -> None:
    images = f"labelled_videos/{CAPSULE}.mp4;labeled_images/{folder}/{CAPSULE}_2.jpg"
    found = said("kvasir-capsule", plant(tmp_path, named(images)), CAPSULE, 3)
    assert told(found) == {(2, 3, "label", "finding", "ileocecal_valve")} and not found.unmapped


T45 = {
    **named("CholecT45/data/VID01/000000.png;CholecT45/data/VID01/000001.png"),
    **{f"CholecT45/dict/{part}.txt": "1:clip\n0:cut\n" for part in ("triplet", "instrument", "verb", "target")},
}


def test_6_3_no_header_frames_from_zero_and_one_row_too_many(tmp_path: Path) -> None:
    root = plant(tmp_path, T45 | {"CholecT45/verb/VID01.txt": "0,0,1\n1,1,0\n2,1,1\n"})
    found = said("cholectriplet", root, "t45-vid01")
    assert told(found) == {(0, 1, "label", "verb", "clip"), (1, 2, "label", "verb", "cut")}
    assert [e.reason for e in found.exclusions] == [Reason.NO_PARTNER]


def test_6_3_a_row_of_zeros_is_an_answer_and_a_short_row_is_damage(tmp_path: Path) -> None:
    root = plant(tmp_path, T45 | {"CholecT45/verb/VID01.txt": "0,0,0\n1,0,1\n", "CholecT45/target/VID01.txt": "0,1\n"})
    found = said("cholectriplet", root, "t45-vid01")
    assert [(a.span.start, a.kind) for a in found.annotations] == [(0, Kind.NONE), (1, Kind.LABEL)]
    assert [e.reason for e in found.exclusions] == [Reason.BAD_LABELS]


@pytest.mark.parametrize("words", [None, "0:cut\n0:clip\n", "1:cut\n2:clip\n", "cut\nclip\n"])
def test_6_3_columns_that_nothing_names_are_told_and_the_recording_stays(words: str | None, tmp_path: Path) -> None:
    root = plant(tmp_path, T45 | {"CholecT45/verb/VID01.txt": "0,0,1\n1,1,0\n"})
    (root / "CholecT45/dict/verb.txt").unlink()
    if words:
        plant(root, {"CholecT45/dict/verb.txt": words})
    found = said("cholectriplet", root, "t45-vid01")
    assert [e.reason for e in found.exclusions] == [Reason.BAD_LABELS] and not found.annotations


def t50(**rows: list[list[float]]) -> str:
    words = {
        "triplet": {"17": "grasper,retract,gallbladder", "94": "grasper,null_verb,null_target"},
        "instrument": {"0": "grasper"},
        "verb": {"1": "retract"},
        "target": {"0": "gallbladder"},
        "phase": {"1": "carlot-triangle-dissection"},
    }
    return json.dumps({"categories": words, "annotations": {key.lstrip("f"): row for key, row in rows.items()}})


def vector(triplet: int, phase: int) -> list[float]:
    """Fifteen numbers as in the public release, where every box is -1."""
    used = triplet == 17
    return [triplet, 0 if used else -1, 1, -1, -1, -1, -1, 1 if used else -1, 0 if used else -1, *[-1] * 5, phase]


def test_6_4_frames_are_text_in_any_order_and_minus_one_is_nothing(tmp_path: Path) -> None:
    frames = named(";".join(f"CholecT50/videos/VID111/{n:06d}.png" for n in range(11)))
    text = t50(f10=[vector(17, 1)], f9=[vector(-1, 1)], f2=[vector(17, -1)])
    found = said("cholectriplet", plant(tmp_path, frames | {"CholecT50/labels/VID111.json": text}), "t50-vid111")
    assert {row for row in told(found) if row[2] != "label"} == {
        (10, 11, "triplet", "triplet", "grasper_retract_gallbladder"),
        (9, 10, "none", "triplet", ""),
        (2, 3, "triplet", "triplet", "grasper_retract_gallbladder"),
    }
    assert {row[0] for row in told(found) if row[3] == "phase"} == {9, 10}
    assert not boxes(found) and not found.unmapped and not found.exclusions


def test_6_5_the_phase_is_spelled_carlot(tmp_path: Path) -> None:
    files = named("CholecT50/videos/VID01/000000.png") | {"CholecT50/labels/VID01.json": t50(f0=[vector(-1, 1)])}
    found = said("cholectriplet", plant(tmp_path, files), "t50-vid01")
    (phase,) = [a.label for a in found.annotations if a.label.name == "phase"]
    assert phase.raw == "carlot-triangle-dissection" and "ca" in phase.code


def test_6_7_the_same_operation_in_both_sets_is_one_patient(tmp_path: Path) -> None:
    files = named("CholecT45/data/VID01/000000.png;CholecT50/videos/VID01/000000.png")
    both = by_name("cholectriplet", plant(tmp_path, files)).values()
    assert len(both) == 2 and len({(r.case_id, r.leak_group) for r in both}) == 1


def test_6_9_black_frames_keep_their_place(tmp_path: Path) -> None:
    folder = tmp_path / "CholecT45" / "data" / "VID01"
    folder.mkdir(parents=True)
    for number, grey in enumerate((90, 0, 0, 90)):
        Image.new("RGB", (48, 48), (grey, grey, grey)).save(folder / f"{number:06d}.png")
    config = load_settings(BuildConfig, overrides=["segment.policy=endofm150"])
    plan = plan_recording(
        by_name("cholectriplet", tmp_path)["t45-vid01"], tmp_path, load_source("cholectriplet"), config
    )
    assert plan.facts.num_frames == 4 and plan.rate == 1 and [len(clip.span) for clip in plan.clips] == [4]


@pytest.mark.parametrize("blank", ["", " "])
def test_7_3_lists_have_commas_and_no_header(blank: str, tmp_path: Path) -> None:
    files = named("videos/101.mp4;videos/0_12.mp4") | {
        "splits/test.txt": f"101.mp4,{blank}1\n0_12.mp4,{blank}0\n",
        "splits/train.txt": "",
    }
    root = plant(tmp_path, files)
    assert codes(said("polypdiag", root, "101", 9)) == {"finding": {"abnormal"}, "official_split": {"test"}}
    assert codes(said("polypdiag", root, "0_12", 9)) == {"finding": {"normal"}, "official_split": {"test"}}


@pytest.mark.parametrize("name", ["polypp 16", "polypp 16.mp4", "polypp 16.AVI", "videos/polypp 16.mp4"])
def test_7_3_lists_name_stems_files_or_paths(name: str, tmp_path: Path) -> None:
    root = plant(tmp_path, named("videos/polypp 16.avi;videos/polypp16.avi") | {"splits/val.txt": f"{name},1\n"})
    assert codes(said("polypdiag", root, "polypp 16", 9))["finding"] == {"abnormal"}
    assert not said("polypdiag", root, "polypp16", 9).labels


def test_7_4_frame_labels_are_the_last_sixty_videos_padded_to_sixteen(tmp_path: Path) -> None:
    lengths = abnormal_test_lengths()
    truths = {video: np.arange(length) % 7 < int(video) % 7 for video, length in lengths.items()}
    padded = [np.pad(truth, (0, -len(truth) % 16), mode="edge") for truth in truths.values()]
    plant(tmp_path, named("videos/101.mp4;videos/160.mp4"))
    np.save(tmp_path / "gt-colon.npy", np.concatenate([np.zeros(320, bool), *padded]).astype(np.int64))
    for video in ("101", "160"):
        found = said("polypdiag", tmp_path, video, lengths[video])
        shown = np.zeros(lengths[video], bool)
        for each in found.annotations:
            shown[each.span.start : each.span.stop] = each.label.code == "abnormal"
        assert np.array_equal(shown, truths[video]) and not found.exclusions
        assert sum(len(each.span) for each in found.annotations) == lengths[video]


def voc(*objects: str, name: str = "1.bmp") -> str:
    return f"<annotation><folder>9</folder><filename>{name}</filename>{''.join(objects)}</annotation>"


def polyp(*corners: float, name: str = "adenomatous") -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    inside = "".join(f"<{tag}> {value}\n</{tag}>" for tag, value in tags)
    return f"<object><name> {name} </name><bndbox>{inside}</bndbox></object>"


def test_9_3_images_and_xml_join_on_the_stem_alone(tmp_path: Path) -> None:
    """The XML of image 1 says that it is of image 2.bmp, and the other way round; numbers have blanks around them."""
    files = named("test2019/Image/1/1.png;test2019/Image/1/2.png;test2019/Image/1/3.png") | {
        "test2019/Annotation/1/1.xml": voc(polyp(1, 2, 30, 40), polyp(5, 6, 7, 8, name="hyperplastic"), name="2.bmp"),
        "test2019/Annotation/1/2.xml": voc(name="1.bmp"),
    }
    found = said("kumc", plant(tmp_path, files), "test-1")
    assert boxes(found) == [(0, (1, 2, 30, 40)), (0, (5, 6, 7, 8))]
    assert [(a.span.start, a.kind) for a in found.annotations if a.kind is not Kind.BOX] == [(1, Kind.NONE)]
    assert {a.label.code for a in found.annotations if a.kind is Kind.BOX} == {"adenomatous", "hyperplastic"}


def test_9_3_images_and_xml_without_a_partner_are_told(tmp_path: Path) -> None:
    files = named("train2019/Image/9.jpg;train2019/Image/17.jpg;val2019/Image/1/1.jpg") | {
        "train2019/Annotation/17.xml": KUMC_XML.format("x/adenoma_3/1.jpg", "1.jpg"),
        "train2019/Annotation/18.xml": KUMC_XML.format("x/adenoma_5/1.jpg", "1.jpg"),
        "val2019/Annotation/1/7.xml": voc(),
    }
    found = scan(load_source("kumc"), plant(tmp_path, files))
    assert order_of(found) == {"train-adenoma_3": "17", "val-1": "1"}
    assert sorted((e.unit, e.reason) for e in found.exclusions) == [
        ("annotation", Reason.NO_PARTNER),
        ("annotation", Reason.NO_PARTNER),
        ("file", Reason.NO_PARTNER),
    ]
    assert "images without a label file: 1 of 1, such as 1.jpg" in {e.detail for e in found.exclusions}
    assert [e.reason for e in said("kumc", tmp_path, "val-1").exclusions] == [Reason.NO_PARTNER]


# --- labels that should be there --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "labelled", "images", "missing"),
    [
        ("ldpolypvideo", "TrainValid/Annotations/1/1.txt", LDP, "0002.jpg"),
        ("kumc", "test2019/Annotation/3/2.xml", "test2019/Image/3/1.jpg;test2019/Image/3/2.jpg", "1.jpg"),
        (
            "cvc-12k",
            "CVC-ClinicDB/Ground Truth/1.tif",
            "CVC-ClinicDB/Original/1.tif;CVC-ClinicDB/Original/2.tif",
            "2.tif",
        ),
        ("cvc-12k", "CVC-ColonDB/p1.tiff", "CVC-ColonDB/1.tiff;CVC-ColonDB/2.tiff", "2.tiff"),
        ("real-colon", "001-001_annotations/001-001_1.xml", REAL_COLON, "001-001_2.jpg"),
        ("sun", f"{SEG}/TrainDataset/GT/case1/{sun(1, 2)}.png", SUN_SEG, f"{sun(1, 1)}.jpg"),
    ],
)
def test_a_label_file_that_each_image_should_have_is_missed(
    source: str, labelled: str, images: str, missing: str, tmp_path: Path
) -> None:
    (found,) = scan(load_source(source), plant(tmp_path, named(f"{images};{labelled}"))).exclusions
    assert (found.unit, found.reason, found.files) == ("annotation", Reason.NO_PARTNER, 0)
    assert found.detail == f"images without a label file: 1 of 2, such as {missing}"


def test_labels_are_missed_only_where_the_provider_has_them(tmp_path: Path) -> None:
    """Not of negative cases, test videos and unlabelled videos; of ClinicVideoDB, some frames have no mask."""
    for source, images in (
        ("sun", f"sundatabase_negative_part4/case1/{sun(1, 1)}.jpg"),
        ("cvc-12k", "cvcvideoclinicdbtest/1/1-1.png;CVC-VideoClinicDBtrain_valid/18/18-1.png"),
        ("ldpolypvideo", "videos with polyps/1_1.avi"),
    ):
        assert not scan(load_source(source), plant(tmp_path / source, named(images))).exclusions
    (found,) = scan(load_source("sun"), plant(tmp_path / "box", named(f"{POSITIVE}/case1/{sun(1, 1)}.jpg"))).exclusions
    assert found.detail == "its label file is not here"


# --- text as programs write it ----------------------------------------------------------------------------------------

_BOX = "1\n1 2 3 4"
TEXTS: Mapping[str, tuple[str, str, Files, str, str]] = {  # source, recording, its files, label file, its text
    "sun": (
        "sun",
        "pos-case1",
        named(f"{POSITIVE}/case1/{sun(1, 1)}.jpg"),
        f"{POSITIVE}/annotation_txt/case1.txt",
        f"{sun(1, 1)}.jpg 1,2,3,4,0",
    ),
    "sun-seg": (
        "sun",
        "seg-case1",
        named(f"{SEG}/TrainDataset/Frame/case1/{sun(1, 1)}.jpg"),
        f"{SEG}/TrainDataset/Classification/classification.txt",
        f"{sun(1, 1)}.jpg\tlow_grade_adenoma",
    ),
    "ldpolypvideo": (
        "ldpolypvideo",
        "1",
        named("TrainValid/Images/1/0001.jpg"),
        "TrainValid/Annotations/1/0001.txt",
        _BOX,
    ),
    "hyper-kvasir": (
        "hyper-kvasir",
        "a",
        named("labeled-videos/lower-gi-tract/a.avi"),
        "hyper-kvasir-video-metadata.csv",
        "file-name;finding\na.avi;polyp",
    ),
    "kvasir-capsule": (
        "kvasir-capsule",
        CAPSULE,
        named(f"labelled_videos/{CAPSULE}.mp4"),
        "metadata.csv",
        f"{CAPSULE_HEAD}{CAPSULE}_1.jpg;{CAPSULE};1;Luminal;Polyp;;;;;;;;",
    ),
    "cholect45": ("cholectriplet", "t45-vid01", T45, "CholecT45/verb/VID01.txt", "0,0,1\n1,1,0"),
    "cholect50": (
        "cholectriplet",
        "t50-vid01",
        named("CholecT50/videos/VID01/000000.png"),
        "CholecT50/labels/VID01.json",
        t50(f0=[vector(17, 1)]),
    ),
    "polypdiag": ("polypdiag", "101", named("videos/101.mp4"), "splits/val.txt", "101.mp4,1"),
    "kumc": ("kumc", "val-1", named("val2019/Image/1/1.jpg"), "val2019/Annotation/1/1.xml", voc(polyp(1, 2, 3, 4))),
    "renji": (
        "renji",
        "colonoscope/e1/a.mp4",
        named("colonoscope/e1/a.mp4"),
        "labels.csv",
        "exam_id,procedure,finding,consent\ne1,colonoscopy,polyp,yes",
    ),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("dress", ["mark", "carriage returns", "blank lines", "no end of line"])
def test_12_text_means_the_same_however_it_was_saved(kind: str, dress: str, tmp_path: Path) -> None:
    source, name, files, path, text = TEXTS[kind]
    plain = said(source, plant(tmp_path / "plain", {**files, path: f"{text}\n"}), name, 2)
    data = {
        "mark": b"\xef\xbb\xbf" + text.encode() + b"\n",
        "carriage returns": text.replace("\n", "\r\n").encode() + b"\r\n",
        "blank lines": text.encode() + b"\n\n \n",
        "no end of line": text.encode(),
    }[dress]
    again = said(source, plant(tmp_path / "dressed", {**files, path: data}), name, 2)
    assert again == plain and (plain.annotations or len(plain.decisive) > 1) and not plain.exclusions


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("damage", ["nul bytes", "not UTF-8", "empty", "blank"])
def test_12_damaged_text_is_told_and_the_recording_stays(kind: str, damage: str, tmp_path: Path) -> None:
    source, name, files, path, text = TEXTS[kind]
    data = {
        "nul bytes": text.encode() + b"\0" * 16,
        "not UTF-8": text.encode() + b"\xff\xfe\xfa",
        "empty": b"",
        "blank": b" \r\n\n",
    }[damage]
    root = plant(tmp_path, {**files, path: data})
    found = said(source, root, name, 2)
    reasons = {e.reason for e in (*scan(load_source(source), root, names=NAMES).exclusions, *found.exclusions)}
    masks_lack = {Reason.NO_PARTNER} if kind == "sun-seg" else set()
    assert reasons == {Reason.BAD_LABELS} | masks_lack and not found.annotations


@pytest.mark.parametrize("sign", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_12_only_ends_of_lines_end_a_row(sign: str, tmp_path: Path) -> None:
    """Free text holds signs that some programs take for ends of lines: an ellipsis of Windows, a page break."""
    table = f"file-name;finding\na.avi;polyp{sign}large\n"
    root = plant(tmp_path, named("labeled-videos/a.avi") | {"hyper-kvasir-video-metadata.csv": table})
    assert not scan(load_source("hyper-kvasir"), root).exclusions
    assert [a.raw for a in said("hyper-kvasir", root, "a", 2).labels if a.name == "finding"] == [f"polyp{sign}large"]


# --- docs/traps.md ----------------------------------------------------------------------------------------------------


def test_the_page_of_traps_names_tests_that_exist() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    cited = [(row, re.findall(r"`(test_\w+)\.(test_\w+)(?:\[([^\]`]+)\])?`", row)) for row in rows]
    assert len(rows) > 60 and all(tests for _, tests in cited), [row for row, tests in cited if not tests]
    for _, tests in cited:
        for module, name, trap in tests:
            (path,) = ROOT.glob(f"tests/**/{module}.py")
            text = path.read_text(encoding="utf-8")
            functions = {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
            assert name in functions and (not trap or f'"{trap}"' in text), (module, name, trap)


def test_every_trap_of_the_trees_stands_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [trap for trap in TREES if trap not in page] == []
