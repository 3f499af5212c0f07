"""The walker: whatever lies in a tree becomes part of a recording, a sidecar or an exclusion."""

from __future__ import annotations

import os
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endocorpus.errors import UsageError
from endocorpus.naming import make_id, printable
from endocorpus.records import Reason
from endocorpus.scan import Scan, scan
from endocorpus.sources import load_source
from tests.endocorpus.conftest import NAMES

PUBLIC = load_source("folder", "public")
PRIVATE = load_source("folder")


def tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def accounted(found: Scan) -> int:
    files = sum(len(recording.media.paths) for recording in found.recordings)
    return files + sum(found.sidecars.values()) + sum(exclusion.files for exclusion in found.exclusions)


def test_frames_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    names = [f"img{number}.png" for number in range(8, 121)]
    [recording] = scan(PUBLIC, tree(tmp_path, *(f"case/{name}" for name in names))).recordings
    assert [Path(path).name for path in recording.media.paths] == names
    assert sorted(names) != names


def test_folders_of_frames_are_told_apart(tmp_path: Path) -> None:
    found = scan(PUBLIC, tree(tmp_path, "a/i1.jpg", "a/i2.jpg", "a/mask1.jpg", "a/mask2.jpg", "b/i1.jpg", "7.jpg"))
    assert sorted(r.media.paths for r in found.recordings) == [
        ("7.jpg",),
        ("a/i1.jpg", "a/i2.jpg"),
        ("a/mask1.jpg", "a/mask2.jpg"),
        ("b/i1.jpg",),
    ]


@pytest.mark.parametrize(
    ("numbers", "detail"),
    [
        ([1, 2, 4], "frame 3 is missing"),
        ([1, 2, 9], "frames 3 to 8 are missing"),
        ([1, 3, 5], "frame 2 is missing and 1 more such places"),
    ],
)
def test_a_gap_in_the_frames_is_an_exclusion(tmp_path: Path, numbers: list[int], detail: str) -> None:
    found = scan(PUBLIC, tree(tmp_path, *(f"case 1/f{number}.jpg" for number in numbers)))
    [exclusion] = found.exclusions
    assert (exclusion.reason, exclusion.subject, exclusion.detail) == (Reason.FRAME_GAP, "case 1/f*", detail)
    assert (exclusion.files, exclusion.frames) == (3, 3) and not found.recordings


def test_two_images_with_one_number_are_ambiguous(tmp_path: Path) -> None:
    [exclusion] = scan(PUBLIC, tree(tmp_path, "c/f1.jpg", "c/f01.jpg", "c/f2.jpg")).exclusions
    assert exclusion.reason is Reason.AMBIGUOUS_NAME and "two images have the number 1" in exclusion.detail


@pytest.mark.parametrize(
    "pair",
    [("a.mp4", "A.mp4"), ("a b.mp4", "ab.mp4"), ("Ä.mp4", "ä.mp4"), ("é.mp4", "e\u0301.mp4"), ("x/a.MP4", "X/a.mp4")],
)
def test_names_that_differ_only_in_case_or_blanks_are_both_excluded(tmp_path: Path, pair: tuple[str, str]) -> None:
    found = scan(PUBLIC, tree(tmp_path, *pair))
    assert not found.recordings
    assert {e.subject for e in found.exclusions} == set(pair)
    assert {e.reason for e in found.exclusions} == {Reason.AMBIGUOUS_NAME}
    assert all(repr(name) in e.detail for e in found.exclusions for name in pair)


def test_names_in_other_scripts_stay_distinct(tmp_path: Path) -> None:
    names = ["视频.mp4", "影片.mp4", "видео 1.mp4", "a_b.mp4", "a-b.mp4", "a.avi", "a.mp4"]
    found = scan(PUBLIC, tree(tmp_path, *names))
    assert sorted(r.subject for r in found.recordings) == sorted(names)
    assert len({r.recording_id for r in found.recordings}) == len(names)


def test_sequences_whose_names_differ_only_in_punctuation_stay_distinct(tmp_path: Path) -> None:
    found = scan(PUBLIC, tree(tmp_path, "a_1.png", "a-1.png", "b/a_1.png", "b/a-1.png"))
    assert len({r.recording_id for r in found.recordings}) == 4 and not found.exclusions


def test_unknown_files_and_folders_that_cannot_be_entered_are_listed(tmp_path: Path) -> None:
    tree(tmp_path, "a.mp4", "notes.txt", ".DS_Store", "deep/er/thumbs.db")
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    found = scan(PUBLIC, tmp_path)
    assert {(e.subject, e.reason) for e in found.exclusions} == {
        ("notes.txt", Reason.UNEXPECTED_FILE),
        (".DS_Store", Reason.UNEXPECTED_FILE),
        ("deep/er/thumbs.db", Reason.UNEXPECTED_FILE),
        ("deep/loop", Reason.UNREADABLE),
    }
    assert {r.subject for r in found.recordings} == {"a.mp4", "dangling.mp4"}  # probing says that it cannot be opened
    assert accounted(found) == found.num_files == 6


@pytest.mark.parametrize("link", ["..", "../c", "../c/.build/encoded"])
def test_links_that_lead_to_a_corpus_are_not_followed_into_it(link: str, tmp_path: Path) -> None:
    tree(tmp_path, "raw/a.mp4", "c/.build/encoded/x/clip.mp4", "d/corpus.json", "d/shards/clip.mp4")
    (tmp_path / "raw" / "up").symlink_to(tmp_path / "raw" / link)
    found = scan(PUBLIC, tmp_path / "raw")
    assert {r.subject for r in found.recordings} == {"a.mp4"}
    assert {e.detail for e in found.exclusions} >= {"a corpus, which is no part of the raw tree"}
    assert accounted(found) == found.num_files


def test_sequences_that_share_a_folder_are_told_apart(tmp_path: Path) -> None:
    """KUMC's training frames lie in one folder, and only the files beside them say to which sequence they belong."""
    for stem, sequence in ((1, "a"), (2, "a"), (3, "b"), (4, "b")):
        tree(tmp_path, f"train2019/Image/{stem}.jpg")
        beside = tmp_path / "train2019" / "Annotation" / f"{stem}.xml"
        beside.parent.mkdir(exist_ok=True)
        beside.write_text(
            f"<annotation><path>/data/{sequence}/{stem % 2 if sequence == 'a' else 7}.jpg</path></annotation>"
        )
    found = scan(load_source("kumc"), tmp_path)
    assert [r.subject for r in found.recordings] == ["train2019/Image (train-a)"]
    assert [e.subject for e in found.exclusions if e.unit == "recording"] == ["train2019/Image (train-b)"]


def test_undecodable_names_become_printable(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff\nname.txt")).write_bytes(b"x")
    [exclusion] = scan(PUBLIC, tmp_path).exclusions
    assert exclusion.subject == "bad\\udcff\\nname.txt"
    exclusion.subject.encode("utf-8")


def test_line_ends_in_names_are_part_of_them(tmp_path: Path) -> None:
    tree(tmp_path, "ward\n7/a\nb.mp4", "x\ny/1.png", "x\ny/2.png")
    found = scan(PUBLIC, tmp_path)
    assert {r.subject for r in found.recordings} == {r"ward\n7/a\nb.mp4", r"x\ny"} and not found.exclusions


def test_private_names_never_appear(tmp_path: Path) -> None:
    canary = "Zhang_Wei_310101"
    tree(tmp_path, f"{canary}/{canary}.mp4", f"{canary}/{canary}.MP4", f"{canary}/{canary}.txt", f"{canary}/i1.jpg")
    found = scan(PRIVATE, tmp_path, names=NAMES)
    shown = [(r.recording_id, r.subject, r.case_id, r.leak_group, dict(r.labels)) for r in found.recordings]
    assert canary.lower() not in f"{shown} {found.exclusions}".lower().replace("-", "_")
    assert len(found.recordings) == 1 and len(found.exclusions) == 3
    assert len({e.subject for e in found.exclusions}) == 3


def test_a_root_that_is_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        scan(PUBLIC, tmp_path / "none")
    with pytest.raises(UsageError, match="no such folder"):
        scan(PUBLIC, tree(tmp_path, "file") / "file")


names = st.text(alphabet="ab A_-.1é" + string.digits, min_size=1, max_size=8).filter(lambda n: n.strip(". ") == n and n)


@settings(max_examples=60)
@given(
    st.sets(
        st.builds(
            lambda d, n, s: d + n + s,
            st.sampled_from(["", "x/", "X/", "y/z/"]),
            names,
            st.sampled_from([".mp4", ".jpg", ".txt", ""]),
        ),
        max_size=12,
    )
)
def test_nothing_is_lost(tmp_path_factory: pytest.TempPathFactory, paths: set[str]) -> None:
    root = tmp_path_factory.mktemp("tree")
    files = 0
    for path in sorted(paths):
        target = root / path
        if not target.exists() and not any(parent.is_file() for parent in target.parents):
            tree(root, path)
            files += 1
    found = scan(PUBLIC, root)
    assert found.num_files == files == accounted(found)
    ids = [r.recording_id for r in found.recordings]
    assert len(set(ids)) == len(ids) and ids == sorted(ids)


@given(st.text(max_size=60), st.text(max_size=60))
def test_ids_are_safe_and_printable_names_are_one_line(text: str, other: str) -> None:
    made = make_id("folder", text)
    assert set(made) <= set(string.ascii_lowercase + string.digits + "-") and len(made) <= 64
    assert not made.startswith("-") and not made.endswith("-") and printable(text).isprintable()
    if "".join(text.split()).casefold() != "".join(other.split()).casefold() and text.isascii() and other.isascii():
        plain = all(
            part.replace("-", "").replace("_", "").isalnum() for part in (text, other)
        )  # the layout spells these
        assert plain or make_id("folder", other) != made


def test_images_of_one_sequence_may_have_several_formats(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.png", "3.JPG"):
        (tmp_path / name).touch()
    found = scan(load_source("folder", "public"), tmp_path)
    assert [recording.media.paths for recording in found.recordings] == [("1.jpg", "2.png", "3.JPG")]
    (tmp_path / "2.jpg").touch()
    (told,) = scan(load_source("folder", "public"), tmp_path).exclusions
    assert told.reason is Reason.AMBIGUOUS_NAME and "two images have the number 2" in told.detail and told.files == 4
