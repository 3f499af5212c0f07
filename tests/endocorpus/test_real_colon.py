"""REAL-Colon: what is read of a rendered tree is its truth, damage is told, and the page about adding it is true."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from endocorpus.cli import main
from endocorpus.config import BuildConfig
from endocorpus.corpus.manifest import open_corpus
from endocorpus.labels import Annotated, read_labels
from endocorpus.manifests import manifests_folder
from endocorpus.plan import plan_recording
from endocorpus.records import Annotation, Excluded, Kind, Reason, Recording
from endocorpus.scan import Scan, scan
from endocorpus.settings import load_settings
from endocorpus.sources import load_source, read_rate, readers
from endocorpus.sources.layout import Archive, Expected, FrameFolders, Labels, NamedBy, Note, Sidecars, Source, Videos
from tests.endocorpus.phantoms import Trees
from tests.media import write_video

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-source.md").read_text(encoding="utf-8")
SOURCE = load_source("real-colon")
CONFIG = load_settings(BuildConfig, overrides=["segment.min_seconds=0.1"])
CLASSES = {"adenoma": "adenoma", "hyperplastic": "hyperplastic_polyp", "serrated": "sessile_serrated_lesion"}


@pytest.fixture
def copy(trees: Trees, tmp_path: Path) -> Path:
    """A tree that a test may damage."""
    return Path(shutil.copytree(trees("real-colon")[0], tmp_path / "raw"))


def said_of(root: Path, name: str) -> Annotated:
    (recording,) = [r for r in scan(SOURCE, root).recordings if r.name == name]
    plan = plan_recording(recording, root, SOURCE, CONFIG)
    return read_labels(
        recording, SOURCE, root, plan.facts.num_frames, (plan.facts.stored_width, plan.facts.stored_height)
    )


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def boxes(said: Annotated) -> list[Annotation]:
    return [found for found in said.annotations if found.kind is Kind.BOX]


def by_name(found: Scan) -> Mapping[str, Recording]:
    return {recording.name: recording for recording in found.recordings}


# --- the whole tree


def test_every_file_is_named(trees: Trees) -> None:
    root, truth = trees("real-colon")
    found = scan(SOURCE, root)
    assert not found.exclusions
    assert {f"{name}_frames": r.media.paths for name, r in by_name(found).items()} == truth.pictures
    frames = sum(map(len, truth.pictures.values()))
    assert found.sidecars == {"document": 1, "label file": frames + 2} and found.num_files == 2 * frames + 3
    assert all(r.case_id == r.leak_group == f"real-colon-{name}" for name, r in by_name(found).items())
    assert {r.labels["study"] for r in found.recordings} == {"001", "002", "003", "004"}


def test_boxes_are_the_truth_with_the_histology_of_their_lesion(trees: Trees) -> None:
    root, truth = trees("real-colon")
    several = 0
    for folder, known in truth.recordings.items():
        said = said_of(root, folder.removesuffix("_frames"))
        classes = [CLASSES[polyp.lesion] for polyp in known.traits.polyps]
        planted = {
            (index, box.polyp + 1, (box.xmin, box.ymin, box.xmax, box.ymax), classes[box.polyp])
            for index, frame in enumerate(known.boxes)
            for box in frame
        }
        found = [(a.span.start, a.instance, a.box, a.label.code) for a in boxes(said)]
        assert set(found) == planted and len(found) == len(planted) and not said.exclusions
        nothing = {a.span.start for a in said.annotations if a.kind is Kind.NONE}
        assert nothing == {index for index, frame in enumerate(known.boxes) if not frame}
        several += len({instance for _, instance, _, _ in found}) > 1
    assert several, "one recording shows two lesions"


def test_the_rate_is_the_one_that_the_table_rounds(trees: Trees) -> None:
    root, truth = trees("real-colon")
    rates = {
        f"{r.name}_frames": plan_recording(r, root, SOURCE, CONFIG).examined_rate for r in scan(SOURCE, root).recordings
    }
    assert rates == {folder: known.traits.rate for folder, known in truth.recordings.items()}
    assert set(rates.values()) == {Fraction(25), Fraction(30000, 1001), Fraction(60000, 1001)}


def test_no_age_and_no_sex_is_taken(trees: Trees) -> None:
    root, _ = trees("real-colon")
    labels = {label.name for name in by_name(scan(SOURCE, root)) for label in said_of(root, name).labels}
    assert labels == {"study", "frames_per_second", "endoscope", "bbps", "finding", "site", "size_mm"}


# --- rates


@given(st.integers(min_value=6, max_value=500), st.integers(min_value=2, max_value=8))
def test_rounded_broadcast_rates_are_made_whole(number: int, digits: int) -> None:
    exact = Fraction(number * 1000, 1001)
    assert read_rate(f"{float(exact):.{digits}f}") == read_rate(str(exact)) == exact
    assert read_rate(str(number)) == read_rate(f"{number}.0") == number


@given(st.fractions(min_value=Fraction(1, 1000), max_value=1000, max_denominator=1000))
def test_a_rate_moves_by_no_more_than_its_rounding(rate: Fraction) -> None:
    read = read_rate(str(rate))
    assert read is not None and abs(read - rate) < Fraction(1, 200)
    assert read_rate(str(read)) == read


@pytest.mark.parametrize(
    "text", ["", "0", "-25", "abc", "1/0", "1e400", "1001", "nan", "inf", "1e9999999999", "1e-9999999999", "9" * 5000]
)
def test_what_is_no_rate(text: str) -> None:
    assert read_rate(text) is None


@pytest.mark.parametrize("told", ["-5", "0", "1e400", "fast"])
def test_a_recording_whose_table_gives_no_rate_is_left_out(copy: Path, told: str) -> None:
    edit(copy / "video_info.csv", "Olympus,29.97", f"Olympus,{told}")
    with pytest.raises(Excluded, match="frames per second are not one number") as excluded:
        said_of(copy, "001-001")
    assert excluded.value.reason is Reason.DAMAGED


def test_two_rates_of_one_recording_are_none(copy: Path) -> None:
    with (copy / "video_info.csv").open("a", encoding="utf-8") as table:
        table.write("001-001,51,M,Olympus,50,15,2,6\n")
    with pytest.raises(Excluded, match="not one number"):
        said_of(copy, "001-001")
    assert boxes(said_of(copy, "002-001"))


# --- what archives and hands do to a tree


def own_folders(root: Path) -> None:
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        folder.rename(root / "moving")
        (root / folder.name).mkdir()
        (root / "moving").rename(root / folder.name / folder.name)


def singular(root: Path) -> None:
    for folder in root.glob("*_annotations"):
        folder.rename(root / folder.name.removesuffix("s"))


def deeper(root: Path) -> None:
    shutil.copytree(root, root / "dataset" / "v2")
    for path in [path for path in root.iterdir() if path.name != "dataset"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("change", [own_folders, singular, deeper])
def test_other_ways_to_unpack_say_the_same(trees: Trees, copy: Path, change: Callable[[Path], None]) -> None:
    root, _ = trees("real-colon")
    change(copy)
    found, before = scan(SOURCE, copy), scan(SOURCE, root)
    assert not found.exclusions and [r.recording_id for r in found.recordings] == [
        r.recording_id for r in before.recordings
    ]
    said, told = said_of(copy, "001-001"), said_of(root, "001-001")
    assert said.labels == told.labels and not said.exclusions
    assert [dataclasses.replace(a, origin="") for a in said.annotations] == [
        dataclasses.replace(a, origin="") for a in told.annotations
    ]


def test_a_missing_picture_leaves_the_recording_out(copy: Path) -> None:
    (copy / "001-001_frames" / "001-001_3.jpg").unlink()
    found = scan(SOURCE, copy)
    assert "001-001" not in by_name(found) and len(found.recordings) == 5
    assert [e.detail for e in found.exclusions if e.reason is Reason.FRAME_GAP] == ["frame 3 is missing"]
    assert any(e.subject == "001-001_annotations" and e.reason is Reason.NO_PARTNER for e in found.exclusions)


def test_boxes_outlive_the_table_of_lesions(copy: Path) -> None:
    planted = boxes(said_of(copy, "001-001"))
    edit(copy / "lesion_info.csv", "001-001_2,001-001", "001-001_7,001-001")  # a lesion that no box names
    assert {(a.instance, a.label.code) for a in boxes(said_of(copy, "001-001"))} == {(1, "adenoma"), (2, "lesion")}
    (copy / "lesion_info.csv").write_bytes(b"\0" * 64)
    assert [(e.subject, e.reason) for e in scan(SOURCE, copy).exclusions] == [("lesion_info.csv", Reason.BAD_LABELS)]
    assert {a.label.code for a in boxes(said_of(copy, "001-001"))} == {"lesion"}
    (copy / "lesion_info.csv").unlink()
    bare = boxes(said_of(copy, "001-001"))
    assert [(a.span, a.instance, a.box) for a in bare] == [(a.span, a.instance, a.box) for a in planted]


def test_corners_are_read_by_name_and_turned_boxes_are_told(copy: Path) -> None:
    (first, *_) = boxes(said_of(copy, "002-001"))
    assert first.box is not None
    path = copy / "002-001_annotations" / f"002-001_{first.span.start + 1}.xml"
    edit(path, f"<xmax>{first.box[2]:g}</xmax>", f"<xmax>{first.box[0]:g}</xmax>")
    said = said_of(copy, "002-001")
    assert first not in said.annotations
    (told,) = said.exclusions
    assert told.reason is Reason.MISPLACED and told.detail.startswith(
        f"002-001_annotations/{path.name}, object 1: frame {first.span.start}: the box"
    )


def test_a_recording_without_a_row_has_the_declared_rate(copy: Path) -> None:
    rows = (copy / "video_info.csv").read_text(encoding="utf-8").splitlines()
    (copy / "video_info.csv").write_text("\n".join(row for row in rows if not row.startswith("002-001")) + "\n")
    recording = by_name(scan(SOURCE, copy))["002-001"]
    assert plan_recording(recording, copy, SOURCE, CONFIG).examined_rate == 30


# --- docs/adding-a-source.md


SKELETON, EXAMPLE = PAGE.split("The rest of this page", 1)


def blocks(language: str, text: str = EXAMPLE) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_skeleton_of_the_page_is_a_source(tmp_path: Path) -> None:
    """Its two files, typed into a checkout and nothing else changed."""
    for name in ("endocorpus", "manifests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    files = [text for language in ("toml", "python") for text in blocks(language, SKELETON)]
    assert len(files) == 2 and sum(len(text.splitlines()) for text in files) < 30
    for text in files:
        (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    write_video(tmp_path / "raw" / "p1" / "a.mp4", 30)
    write_video(tmp_path / "raw" / "p1" / "b.mp4", 40)
    (tmp_path / "raw" / "readme.txt").touch()
    told = ("--source", "my-set", "--root", "raw", "--workers", "1", "--set", "segment.min_seconds=1")
    for command in (("sources", "my-set"), ("scan", *told[:4], "--strict"), ("build", *told)):
        done = subprocess.run(
            [sys.executable, "-m", "endocorpus", *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    made = open_corpus(tmp_path / "corpora" / "my-set").table("recordings").to_pylist()
    assert {(row["name"], row["case_name"]) for row in made} == {("p1-a", "p1"), ("p1-b", "p1")}
    assert len({row["leak_group"] for row in made}) == 1


def test_the_example_of_the_page_is_the_shipped_source() -> None:
    module = (ROOT / "endocorpus" / "sources" / "real_colon.py").read_text(encoding="utf-8")
    facts = (manifests_folder() / "sources" / "real-colon.toml").read_text(encoding="utf-8")
    vocabulary = (manifests_folder() / "vocabularies" / "real-colon.toml").read_text(encoding="utf-8")
    assert len(blocks("python")) >= 1 and len(blocks("toml")) >= 2
    assert all(block in module for block in blocks("python"))
    assert all(block in facts + vocabulary for block in blocks("toml")) and all(map(tomllib.loads, blocks("toml")))


@pytest.mark.parametrize("rule", [Videos, FrameFolders, NamedBy, Labels, Sidecars, Note, Source, Expected, Archive])
def test_the_page_explains_every_word_of_the_grammar(rule: type) -> None:
    unsaid = {"name", "layout"} if rule is Source else {"kind", "raw"} if rule is Note else set()
    written = {"archives": "archive"}  # as the facts file spells it
    for name in {field.name for field in dataclasses.fields(rule)} - unsaid:
        assert re.search(rf"`[^`\n]*\b{written.get(name, name)}\b[^`\n]*`", PAGE), (rule.__name__, name)


def test_the_page_names_what_is_there() -> None:
    for name in re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|toml|csv|md))`", PAGE):
        assert "NAME" in name or (ROOT / name).exists(), name
    for name in re.findall(r"`(\w+)\([^`]*\)`", PAGE):
        assert hasattr(readers, name) or hasattr(re, name), name
    listed = {name for name, value in vars(readers).items() if getattr(value, "__module__", "") == readers.__name__}
    told = {name for name in listed if name.islower() and not name.startswith("_") and re.search(rf"`{name}\b", PAGE)}
    makers = {"counted_boxes", "voc_boxes", "coco_boxes", "mask_picture", "from_name", "table", "listed"}
    assert makers <= told


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    ours = [shlex.split(line) for line in lines if line.startswith("endocorpus ")]
    assert [words[1] for words in ours] == ["sources", "phantom", "scan", "plan", "build", "verify"]
    for words in ours:
        done = CliRunner().invoke(main, words[1:])
        assert done.exit_code == 0, (words, done.output)
    tests = [word for line in lines if " pytest " in line for word in shlex.split(line) if word.startswith("tests/")]
    assert tests and all((ROOT / name).exists() for name in tests)
