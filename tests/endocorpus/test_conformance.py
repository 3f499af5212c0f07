"""One suite judges every source: its tree is rendered with all its traps, scanned, built, verified, and held against
the truth: every file accounted for, every frame in its place, every annotation on its frame and its pixels."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from endocorpus.build import build
from endocorpus.config import BuildConfig
from endocorpus.corpus.manifest import Corpus
from endocorpus.corpus.shards import read_member, sample_members
from endocorpus.media.probe import probe
from endocorpus.media.sampled import sampled
from endocorpus.phantom import RecordingTruth, TreeTruth, load_truth, render_source
from endocorpus.phantom.layouts import LAYOUTS
from endocorpus.records import Reason
from endocorpus.scan import Scan, scan
from endocorpus.settings import load_settings
from endocorpus.sources import SOURCES, load_source
from endocorpus.verify import verify
from tests.endocorpus.conftest import NAMES
from tests.endocorpus.phantoms import decode

PLAIN = ("segment.policy=endofm150", "encode.crf=10", "encode.preset=ultrafast")
STRIDED = (*PLAIN, "segment.stride=3")
MOVED = (*PLAIN, "segment.stride=2", "encode.short_side=64", "encode.cut=[6, 4, 10, 0]")
RENDERED = sorted(set(SOURCES) & set(LAYOUTS))
PUBLIC = [name for name in RENDERED if load_source(name).privacy == "public"]
SECONDS = {"cholectriplet": 6.0}  # one picture a second

# What a tree plants that cannot be used: (reason, how many). Everything else that is left out is a fault.
PLANTED: Mapping[str, Mapping[Reason, int]] = {
    "cholectriplet": {Reason.NO_PARTNER: 4},  # rows beyond the last picture, one each in four label files
    "hyper-kvasir": {Reason.NO_PARTNER: 1},  # a row about a file that is not there
    "kumc": {Reason.NO_PARTNER: 3},  # a label file without image, two images without label file
    "polypdiag": {Reason.NO_PARTNER: 1},  # frame labels of 58 videos that are not rendered
    "sun": {Reason.BAD_LABELS: 1},  # a list full of NUL bytes
}


@dataclass(frozen=True)
class Built:
    """A rendered tree, its truth, what a scan finds, and a corpus of it."""

    root: Path
    truth: TreeTruth
    scanned: Scan
    corpus: Corpus

    def truth_of(self, clip: Mapping[str, Any]) -> tuple[RecordingTruth, list[int]]:
        """What was rendered of a clip's recording, and which of its frames the clip shows."""
        (paths,) = (r.media.paths for r in self.scanned.recordings if r.recording_id == clip["recording_id"])
        key = key_of(self.truth, paths)
        shown = range(clip["start_frame"], clip["stop_frame"], clip["stride"])
        pictures = self.truth.pictures.get(key)
        return self.truth.recordings[key], [pictures.index(paths[i]) for i in shown] if pictures else list(shown)


def key_of(truth: TreeTruth, paths: tuple[str, ...]) -> str:
    """The truth's name of a recording; where a tree plants images that belong nowhere, some of its pictures lack."""
    if len(paths) == 1 and paths[0] in truth.recordings:
        return paths[0]
    (key,) = (key for key, pictures in truth.pictures.items() if set(paths) <= set(pictures))
    assert [path for path in truth.pictures[key] if path in set(paths)] == list(paths)  # in order
    return key


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, TreeTruth]]:
    """Rendered trees, each made once."""
    folder = tmp_path_factory.mktemp("trees")
    done: dict[str, tuple[Path, TreeTruth]] = {}

    def give(name: str) -> tuple[Path, TreeTruth]:
        if name not in done:
            seconds = SECONDS.get(name, 1.0)
            root = render_source(name, folder / name, seed=5, seconds=seconds, size=(128, 96)).root
            done[name] = root, load_truth(root)
        return done[name]

    return give


@pytest.fixture(scope="module")
def built(
    tree: Callable[[str], tuple[Path, TreeTruth]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Built]:
    """Corpora of rendered trees, each built once."""
    folder = tmp_path_factory.mktemp("corpora")
    done: dict[tuple[str, tuple[str, ...]], Built] = {}

    def give(name: str, settings: tuple[str, ...] = PLAIN) -> Built:
        if (name, settings) not in done:
            root, truth = tree(name)
            source, config = load_source(name), load_settings(BuildConfig, overrides=settings)
            corpus = build(source, root, folder / f"{name}-{len(done)}", config, name=name, names=NAMES)
            done[name, settings] = Built(root, truth, scan(source, root, names=NAMES), corpus)
        return done[name, settings]

    return give


@pytest.mark.parametrize("name", RENDERED)
def test_every_file_is_named_and_every_recording_is_in_order(
    name: str, tree: Callable[[str], tuple[Path, TreeTruth]]
) -> None:
    root, truth = tree(name)
    found = scan(load_source(name), root, names=NAMES)
    files = sum(len(r.media.paths) for r in found.recordings) + sum(found.sidecars.values())
    assert files + sum(e.files for e in found.exclusions) == found.num_files
    assert found.num_files == sum(1 for path in root.rglob("*") if path.is_file())
    assert sorted(key_of(truth, r.media.paths) for r in found.recordings) == sorted(truth.recordings)
    assert not [e for e in found.exclusions if e.reason is Reason.UNEXPECTED_FILE]
    assert len({r.recording_id for r in found.recordings}) == len(found.recordings)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_corpus_of_it_verifies_and_leaves_out_only_what_was_planted(name: str, built: Callable[..., Built]) -> None:
    made = built(name)
    assert verify(made.corpus).problems == ()
    assert made.corpus.descriptor["counts"]["excluded_by_reason"] == {
        str(reason): count for reason, count in PLANTED.get(name, {}).items()
    }
    assert made.corpus.descriptor["counts"]["recordings"] == len(made.truth.recordings)
    assert made.corpus.descriptor["unmapped"] == []


@pytest.mark.parametrize("settings", [PLAIN, STRIDED], ids=["plain", "strided"])
@pytest.mark.parametrize("name", PUBLIC)
def test_every_frame_is_where_the_manifest_says(
    name: str, settings: tuple[str, ...], built: Callable[..., Built]
) -> None:
    made = built(name, settings)
    for row in made.corpus.clips().to_pylist():
        truth, _ = made.truth_of(row)
        if not truth.traits.black:  # black frames are all the same
            assert_shows(made, row)


@pytest.mark.parametrize("settings", [PLAIN, MOVED], ids=["plain", "moved"])
@pytest.mark.parametrize("name", ["sun", "cvc-12k"])
def test_masks_follow_the_clip(name: str, settings: tuple[str, ...], built: Callable[..., Built]) -> None:
    made = built(name, settings)
    clips = {row["key"]: row for row in made.corpus.clips().to_pylist()}
    overlaps = []
    for row in made.corpus.table("annotations").to_pylist():
        if row["kind"] != "mask" or row["name"] != "mask" or "ellipse" in row["notes"]:
            continue
        clip = clips[row["key"]]
        with np.load(io.BytesIO(sample(made.corpus, clip)["masks.npz"])) as maps:
            kept = maps[row["mask"]] == row["instance"] + 1
        overlaps.append(overlap(kept, moved_truth(made, clip, row["frame"], settings)))
    assert len(overlaps) > 30 and np.mean(overlaps) >= 0.97


@pytest.mark.parametrize("settings", [PLAIN, MOVED], ids=["plain", "moved"])
@pytest.mark.parametrize("name", ["ldpolypvideo", "sun", "kumc", "kvasir-capsule"])
def test_boxes_follow_the_clip(name: str, settings: tuple[str, ...], built: Callable[..., Built]) -> None:
    made = built(name, settings)
    clips = {row["key"]: row for row in made.corpus.clips().to_pylist()}
    found: dict[tuple[str, int], list[list[float]]] = {}
    for row in made.corpus.table("annotations").to_pylist():
        if row["kind"] in {"box", "polygon"}:
            box = [row[corner] for corner in ("xmin", "ymin", "xmax", "ymax")]
            found.setdefault((row["key"], row["frame"]), []).append(box)
    assert len(found) > 10
    for (key, frame), boxes in found.items():
        true = true_boxes(made, clips[key], frame, settings)
        for box in boxes:
            assert min(np.abs(np.subtract(box, other)).max() for other in true) < 1.01, (key, frame)
    if name in {"ldpolypvideo", "kumc"}:  # where every frame is labelled, each object of each frame is there
        for key, clip in clips.items():
            for frame in range(clip["num_frames"]) if any(k == key for k, _ in found) else ():
                assert (
                    len(found.get((key, frame), [])) >= len(true_boxes(made, clip, frame, settings)) or name == "kumc"
                )


@pytest.mark.parametrize("name", PUBLIC)
def test_recordings_that_sources_share_share_a_leak_group(
    name: str, tree: Callable[[str], tuple[Path, TreeTruth]]
) -> None:
    """The traps `same-as` name a recording of another tree: case-level edges join them, or a set-level edge says so."""
    from endocorpus.leaks import shared_sets

    root, truth = tree(name)
    groups = groups_of(name, root, truth)
    for trap in truth.traps:
        if trap.name != "same-as":
            continue
        other, _, path = trap.expect.removeprefix("One leak group with ").rstrip(".").partition(" ")
        other, path = (other, path) if other in LAYOUTS else (name, other)
        edges = {(edge.a_source, edge.b_source) for edge in shared_sets(name)}
        same = groups[trap.path] == groups_of(other, *tree(other))[path]
        assert same or {(name, other), (other, name)} & edges, trap


def groups_of(name: str, root: Path, truth: TreeTruth) -> dict[str, str]:
    """Leak groups by the truth's names of recordings."""
    return {key_of(truth, r.media.paths): r.leak_group for r in scan(load_source(name), root, names=NAMES).recordings}


def test_private_recordings_stay_in_quarantine_and_nameless(built: Callable[..., Built]) -> None:
    made = built("renji")
    assert made.corpus.descriptor["counts"]["clips"] == 0
    told = json.dumps(
        [row for table in ("recordings", "excluded", "deid") for row in made.corpus.table(table).to_pylist()]
    )
    told += json.dumps(dict(made.corpus.descriptor), default=str)
    for word in ("PHANTOM", "RJ2021", "exam_112", "幻影"):
        assert word not in told


def sample(corpus: Corpus, row: Mapping[str, Any]) -> dict[str, bytes]:
    """The members of one sample by suffix."""
    with corpus.shard_path(row["shard"]).open("rb") as shard:
        return {member.name.partition(".")[2]: read_member(shard, member) for member in sample_members(row)}


def overlap(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))


def assert_shows(made: Built, clip: Mapping[str, Any]) -> None:
    """Every frame of a clip is more like the frame of the raw recording that the manifest names than like any other,
    where it is shown."""
    (recording,) = (r for r in made.scanned.recordings if r.recording_id == clip["recording_id"])
    facts = probe(recording.media, made.root)
    left, top, right, bottom = _cut(made, clip)
    box, size = (left, top, facts.width - right, facts.height - bottom), (clip["width"], clip["height"])
    raw = np.stack(
        [
            np.asarray(Image.fromarray(frame).crop(box).resize(size, Image.Resampling.BICUBIC), np.int16)
            for _, frame in sampled(recording.media, facts, made.root, range(facts.num_frames))
        ]
    )
    written = decode(io.BytesIO(sample(made.corpus, clip)["mp4"]))
    named = list(range(clip["start_frame"], clip["stop_frame"], clip["stride"]))
    assert len(written) == len(named) == clip["num_frames"]
    for frame, number in zip(written, named, strict=True):
        is_shown = frame.max(axis=-1) > 24
        far = np.abs(raw[:, is_shown] - frame[is_shown]).mean(axis=(1, 2))
        assert is_shown.mean() > 0.05 and far[number] <= far.min() + 0.02, (clip["key"], number, far.argmin())


def _cut(made: Built, clip: Mapping[str, Any], settings: tuple[str, ...] = PLAIN) -> tuple[int, int, int, int]:
    """What is cut off of a recording's picture: by the settings, and by de-identification."""
    (row,) = (row for row in made.corpus.table("deid").to_pylist() if row["recording_id"] == clip["recording_id"])
    (size,) = (
        (row["width"], row["height"])
        for row in made.corpus.table("recordings").to_pylist()
        if row["recording_id"] == clip["recording_id"]
    )
    crop, (left, top, right, bottom) = row["crop"], (6, 4, 10, 0) if settings is MOVED else (0, 0, 0, 0)
    edges = (crop["left"], crop["top"], size[0] - crop["right"], size[1] - crop["bottom"])
    assert all(edge >= least for edge, least in zip(edges, (left, top, right, bottom), strict=True)), "shown, but cut"
    return edges


def moved_truth(made: Built, clip: Mapping[str, Any], frame: int, settings: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """The rendered masks of a clip's frame, cut and scaled by counting samples."""
    truth, shown = made.truth_of(clip)
    mask = truth.masks(shown[frame]).any(axis=0)
    left, top, right, bottom = _cut(made, clip, settings)
    kept = mask[top : mask.shape[0] - bottom, left : mask.shape[1] - right]
    fine = 8  # samples per pixel and axis
    rows = ((np.arange(clip["height"] * fine) + 0.5) * kept.shape[0] / (clip["height"] * fine)).astype(int)
    columns = ((np.arange(clip["width"] * fine) + 0.5) * kept.shape[1] / (clip["width"] * fine)).astype(int)
    samples = kept[rows][:, columns].reshape(clip["height"], fine, clip["width"], fine)
    return np.asarray(samples.mean(axis=(1, 3)) >= 0.5)


def true_boxes(made: Built, clip: Mapping[str, Any], frame: int, settings: tuple[str, ...]) -> list[list[float]]:
    truth, shown = made.truth_of(clip)
    left, top, right, bottom = _cut(made, clip, settings)
    width, height = truth.traits.width - left - right, truth.traits.height - top - bottom
    across, down = clip["width"] / width, clip["height"] / height
    boxes = truth.boxes[shown[frame]]
    moved = [
        ((b.xmin - left) * across, (b.ymin - top) * down, (b.xmax - left) * across, (b.ymax - top) * down)
        for b in boxes
    ]
    limit = (clip["width"], clip["height"]) * 2
    clipped = [[min(max(v, 0.0), most) for v, most in zip(box, limit, strict=True)] for box in moved]
    return [box for box in clipped if box[0] < box[2] and box[1] < box[3]]
