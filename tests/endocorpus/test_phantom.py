"""The phantom: same request, same bytes; and what it says about its pixels is true of its pixels."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from endocorpus.phantom import (
    Overlay,
    PhantomTree,
    Traits,
    frames,
    load_truth,
    plan_recording,
    plan_source,
    read_frame_counter,
    render_frames,
    render_source,
    render_video,
    truth_root,
)
from endocorpus.phantom.camera import coverage
from endocorpus.phantom.scene import Scene
from endocorpus.phantom.video import encode

Frame = npt.NDArray[np.uint8]
SEED = 11
# From the reference on the real data set.
LAYOUT = re.compile(
    r"^(Hyperplasic|Serrated|Adenoma)/(hyperplasic|serrated|adenoma)_(\d{2})/videos/(WL|NBI)\.mp4$"
)  # fmt: skip


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def decode(path: Path) -> list[Frame]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def small(**changes: object) -> Traits:
    """A short, bare recording: no text, no spans."""
    plain = {"size": (192, 160), "frames": 12, "overlays": False, "outside": False, "frozen": False}
    return plan_recording(SEED, **{**plain, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> PhantomTree:
    """Seven recordings: the last lesion lacks its second light. 48 frames each: long enough for every kind of span."""
    out = tmp_path_factory.mktemp("raw") / "colonoscopic"
    return render_source("colonoscopic", out, seed=SEED, recordings=7, seconds=1.92, size=(192, 160))


# --- same request, same bytes


def test_another_process_renders_the_same_bytes(tree: PhantomTree, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "colonoscopic"
    script = (
        "import sys; from pathlib import Path; from endocorpus.phantom import render_source;"
        f"render_source('colonoscopic', Path(sys.argv[1]), seed={SEED}, recordings=7, seconds=1.92, size=(192, 160))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    subprocess.run([sys.executable, "-c", script, str(out)], check=True, env=environment)
    assert digests(out) == digests(tree.root)
    assert digests(truth_root(out)) == digests(tree.truth)


def test_recordings_do_not_depend_on_their_neighbours(tree: PhantomTree, tmp_path: Path) -> None:
    path = tree.recordings[3]
    traits = plan_source("colonoscopic", seed=SEED, recordings=7, seconds=1.92, size=(192, 160))[path]
    render_video(tmp_path / "alone.mp4", traits, SEED)
    assert (tmp_path / "alone.mp4").read_bytes() == (tree.root / path).read_bytes()


def test_another_seed_renders_another_place() -> None:
    first = next(frames(small(), SEED))[0].astype(int)
    second = next(frames(small(), SEED + 1))[0].astype(int)
    assert np.abs(first - second).mean() > 8


def test_rendering_over_itself_changes_nothing(tmp_path: Path) -> None:
    request = {"seed": 1, "recordings": 1, "seconds": 0.2, "size": (96, 80)}
    out = tmp_path / "c"
    render_source("colonoscopic", out, **request)  # type: ignore[arg-type]
    before = digests(tmp_path)
    render_source("colonoscopic", out, **request)  # type: ignore[arg-type]
    assert digests(tmp_path) == before


def test_a_killed_run_leaves_no_half_file_and_can_be_repeated(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    request = {"seed": 1, "recordings": 2, "seconds": 0.2, "size": (96, 80)}
    with pytest.raises(KeyboardInterrupt):
        render_source("colonoscopic", tmp_path / "c", on_frame=stop, **request)  # type: ignore[arg-type]
    assert sorted(path.name for path in (tmp_path / "c").rglob("*.*")) == ["WL.mp4"]
    with pytest.raises(FileNotFoundError):
        load_truth(tmp_path / "c")
    (tmp_path / "c" / "Adenoma/adenoma_01/videos/.NBI.mp4.partial").write_bytes(b"what a power cut leaves")
    done: list[int] = []
    render_source("colonoscopic", tmp_path / "c", on_frame=done.append, **request)  # type: ignore[arg-type]
    assert done == list(range(1, 11))
    assert sorted(path.name for path in (tmp_path / "c").rglob("*.mp4*")) == ["NBI.mp4", "WL.mp4"]


# --- the tree


def test_tree_is_the_layout_of_the_source_and_nothing_else(tree: PhantomTree) -> None:
    files = list(digests(tree.root))
    videos = [path for path in files if path.endswith(".mp4")]
    assert sorted(videos) == sorted(tree.recordings) == [
        "Adenoma/adenoma_01/videos/NBI.mp4", "Adenoma/adenoma_01/videos/WL.mp4",
        "Adenoma/adenoma_40/videos/NBI.mp4", "Adenoma/adenoma_40/videos/WL.mp4",
        "Hyperplasic/hyperplasic_01/videos/NBI.mp4", "Hyperplasic/hyperplasic_01/videos/WL.mp4",
        "Serrated/serrated_15/videos/WL.mp4",
    ]  # fmt: skip
    assert all(LAYOUT.match(path) for path in videos)
    lesions = {path.rsplit("/", 2)[0] for path in videos}
    assert set(files) - set(videos) == {"data.txt", *(f"{lesion}/cam.xml" for lesion in lesions)}


def test_truth_lies_beside_the_tree(tree: PhantomTree) -> None:
    assert tree.truth == tree.root.parent / "colonoscopic.truth"
    assert not tree.truth.is_relative_to(tree.root)
    expected = {
        "plan.json",
        "boxes.parquet",
        "labels.json",
        "traps.json",
        *(f"masks/{path}.npz" for path in tree.recordings),
    }
    assert set(digests(tree.truth)) == expected


def test_feature_table_has_three_header_rows(tree: PhantomTree) -> None:
    rows = [line.split(",") for line in (tree.root / "data.txt").read_text().splitlines()]
    assert rows[0] == ["adenoma_01"] * 2 + ["adenoma_40"] * 2 + ["hyperplasic_01"] * 2 + ["serrated_15"]
    assert rows[1] == ["3", "3", "3", "3", "1", "1", "2"]
    assert rows[2] == ["1", "2", "1", "2", "1", "2", "1"]
    assert len(rows) == 3 + 698
    assert {len(row) for row in rows} == {7}


def test_every_recording_of_the_real_set_has_its_place() -> None:
    planned = plan_source("colonoscopic", seed=1, recordings=152, seconds=1, size=(64, 64))
    assert len(planned) == 152
    assert all(LAYOUT.match(path) for path in planned)
    counts = {kind: sum(path.startswith(kind) for path in planned) for kind in ("Adenoma", "Hyper", "Serrated")}
    assert counts == {"Adenoma": 80, "Hyper": 42, "Serrated": 30}


@pytest.mark.parametrize("seed", range(6))
def test_a_default_set_has_recordings_with_and_without_each_trait(seed: int) -> None:
    planned = list(plan_source("colonoscopic", seed=seed).values())
    for trait in ("overlays", "outside", "frozen"):
        assert {bool(getattr(traits, trait)) for traits in planned} == {True, False}, trait
    assert {traits.field.shape for traits in planned} == {"circle", "octagon"}
    sizes = {(traits.width, traits.height, traits.rate, traits.frames) for traits in planned}
    assert sizes == {(320, 256, Fraction(25), 200)}
    assert not any(traits.frame_counter for traits in planned)


def test_videos_have_the_planned_frames_rate_and_no_metadata(tree: PhantomTree) -> None:
    for path, truth in load_truth(tree.root).recordings.items():
        with av.open(str(tree.root / path)) as container:
            stream = container.streams.video[0]
            assert (len(container.streams), stream.codec.name) == (1, "h264")
            assert stream.average_rate == truth.traits.rate == 25
            assert (stream.width, stream.height) == (truth.traits.width, truth.traits.height) == (192, 160)
            assert sum(1 for _ in container.decode(stream)) == truth.traits.frames == 48
            assert not {"creation_time", "title", "comment", "encoder"} & set(container.metadata)


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".webm", ".mpg"])
def test_other_containers_and_rates(suffix: str, tmp_path: Path) -> None:
    traits = small(rate=Fraction(30000, 1001), frame_counter=True)
    render_video(tmp_path / f"a{suffix}", traits, SEED)
    with av.open(str(tmp_path / f"a{suffix}")) as container:
        assert abs(float(container.streams.video[0].guessed_rate or 0) - 30000 / 1001) < 0.05
    assert [read_frame_counter(picture) for picture in decode(tmp_path / f"a{suffix}")] == list(range(traits.frames))


# --- refusals


def test_refuses_what_it_did_not_render(tmp_path: Path) -> None:
    request = {"seed": 1, "recordings": 1, "seconds": 0.2, "size": (96, 80)}
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "patient.mp4").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="choose another directory"):
        render_source("colonoscopic", foreign, **request)  # type: ignore[arg-type]
    assert digests(tmp_path) == {"foreign/patient.mp4": hashlib.sha256(b"precious").hexdigest()}

    own = tmp_path / "own"
    render_source("colonoscopic", own, **request)  # type: ignore[arg-type]
    with pytest.raises(FileExistsError, match="another request"):
        render_source("colonoscopic", own, **{**request, "seed": 2})  # type: ignore[arg-type]
    (own / "notes.txt").write_text("added by hand")
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        render_source("colonoscopic", own, **request)  # type: ignore[arg-type]


def test_refuses_requests_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is one for: .*colonoscopic, "):
        render_source("colonoscopy", tmp_path / "x", seed=1)
    with pytest.raises(ValueError, match="1 to 152"):
        plan_source("colonoscopic", seed=1, recordings=153)
    with pytest.raises(ValueError, match="no container"):
        render_video(tmp_path / "a.gif", small(), SEED)
    with pytest.raises(ValueError, match="even sides"):
        small(size=(193, 160))
    with pytest.raises(ValueError, match="do not lie"):
        replace(small(), outside=((5, 13),))
    with pytest.raises(ValueError, match="does not fit"):
        replace(small().polyps[0], radius=0.7)
    assert not any(tmp_path.iterdir())


# --- truth about polyps


@pytest.mark.parametrize(("lumen", "lesion"), [(0, "adenoma"), (1, "hyperplastic"), (2, "serrated")])
def test_masks_lie_where_the_polyps_are(lumen: int, lesion: str) -> None:
    """Take the polyps away: the picture changes inside their masks and nowhere else."""
    traits = small(size=(320, 256), frames=200, lumen=lumen, lesion=lesion)
    with_polyp, without = Scene(traits, SEED), Scene(replace(traits, polyps=()), SEED)
    seen = 0
    for index in range(0, 200, 25):
        picture, truth = with_polyp.render(index)
        bare, _ = without.render(index)
        change = np.abs(picture.astype(int) - bare).max(axis=2)
        mask = truth.labels > 0
        seen += int(mask.sum())
        around = ndimage.binary_dilation(mask, iterations=3)  # focus and mip levels blur the edge a little
        assert change[~around].max(initial=0) <= 8
        if mask.sum() > 300:
            core = ndimage.binary_erosion(mask, iterations=1)
            assert (change[core] > 6).mean() > 0.75
    assert seen > 1000


def test_boxes_bound_the_masks(tree: PhantomTree) -> None:
    boxes = 0
    for truth in load_truth(tree.root).recordings.values():
        for frame in range(truth.traits.frames):
            masks = truth.masks(frame)
            assert masks.shape == (len(truth.traits.polyps), 160, 192)
            assert {box.polyp for box in truth.boxes[frame]} == {i for i, mask in enumerate(masks) if mask.any()}
            for box in truth.boxes[frame]:
                mask = masks[box.polyp]
                inside = mask[box.ymin : box.ymax, box.xmin : box.xmax]
                assert box.area == mask.sum() == inside.sum()
                assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
                boxes += 1
    assert boxes > 100


def test_truth_on_disk_is_the_truth_in_memory(tree: PhantomTree) -> None:
    loaded = load_truth(tree.root)
    planned = plan_source("colonoscopic", seed=SEED, recordings=7, seconds=1.92, size=(192, 160))
    assert (loaded.source, loaded.seed) == ("colonoscopic", SEED)
    assert {path: truth.traits for path, truth in loaded.recordings.items()} == planned
    path = tree.recordings[2]
    for index, (_, truth) in enumerate(frames(planned[path], SEED)):
        assert truth.boxes == loaded.recordings[path].boxes[index]
        masks = loaded.recordings[path].masks(index)
        np.testing.assert_array_equal(masks.any(axis=0), truth.labels > 0)
    assert truth_root(Path()).name == f"{Path.cwd().name}.truth"
    plan = json.loads((tree.truth / "plan.json").read_text())
    octagons = [r["field"] for r in plan["recordings"].values() if r["field"]["shape"] == "octagon"]
    assert [len(field["polygon"]) for field in octagons] == [8] * 3


# --- what the frames look like


@pytest.mark.parametrize("lumen", [0, 1])
def test_border_is_black_and_the_field_is_not(lumen: int, tmp_path: Path) -> None:
    traits = small(lumen=lumen)
    shown = coverage(traits.field, traits.width, traits.height)
    assert 0.3 < (shown > 0).mean() < 0.85
    for picture, _ in frames(traits, SEED):
        assert picture[shown == 0].max() == 0
        assert picture[shown == 1].mean() > 50
    render_video(tmp_path / "a.mp4", traits, SEED)
    far = ~ndimage.binary_dilation(shown > 0, iterations=16)  # the codec rings within the blocks at the edge
    assert far.mean() > 0.05
    assert max(picture[far].max() for picture in decode(tmp_path / "a.mp4")) <= 12


def test_octagon_is_the_polygon_of_the_truth() -> None:
    traits = next(t for t in (small(lumen=n) for n in range(2)) if t.field.shape == "octagon")
    drawn = Image.new("L", (traits.width, traits.height))
    ImageDraw.Draw(drawn).polygon([(x - 0.5, y - 0.5) for x, y in traits.field.polygon()], fill=1)
    shown = coverage(traits.field, traits.width, traits.height) > 0.5
    assert (np.asarray(drawn).astype(bool) != shown).mean() < 0.01


def test_both_lights_show_the_same_place_in_another_hue() -> None:
    white, narrow = small(light="WL"), small(light="NBI")
    for (wl, wl_truth), (nbi, nbi_truth) in zip(frames(white, SEED), frames(narrow, SEED), strict=True):
        np.testing.assert_array_equal(wl_truth.labels, nbi_truth.labels)
        tissue = (wl.sum(axis=2) > 120) & (wl_truth.labels == 0)
        red, green, blue = (float(wl[tissue][:, channel].mean()) for channel in range(3))
        assert red > 1.3 * green > 1.3 * blue  # pink to orange
        red, green, blue = (float(nbi[tissue][:, channel].mean()) for channel in range(3))
        assert green > max(red, blue)  # green to cyan
        assert blue > 0.8 * red


def test_camera_moves() -> None:
    pictures = [picture.astype(int) for picture, _ in frames(small(frames=40), SEED)]
    assert np.abs(pictures[0] - pictures[39]).mean() > 1.5 * np.abs(pictures[0] - pictures[1]).mean()


def test_out_of_body_spans_are_bright_rooms_without_lesions() -> None:
    traits = replace(small(frames=10), outside=((0, 4),))
    rendered = list(frames(traits, SEED))
    inside = coverage(traits.field, traits.width, traits.height) == 1
    for index, (picture, truth) in enumerate(rendered):
        assert truth.outside == (index < 4)
        red, blue = float(picture[inside][:, 0].mean()), float(picture[inside][:, 2].mean())
        assert (red < 1.2 * blue) == (index < 4)
    assert not any(truth.labels.any() for _, truth in rendered[:4])


def test_a_still_picture_repeats_the_frame_before_it() -> None:
    traits = replace(small(), frozen=((5, 8),))
    pictures = [picture for picture, _ in frames(traits, SEED)]
    still = [bool((a == b).all()) for a, b in pairwise(pictures)]
    assert still == [4 <= index < 7 for index in range(11)]


def test_overlays_change_their_boxes_during_their_spans_only() -> None:
    traits = small(size=(320, 256), frames=60, overlays=True)
    traits = replace(traits, overlays=tuple(
        replace(overlay, span=(20, 40)) if index == len(traits.overlays) - 1 else overlay
        for index, overlay in enumerate(traits.overlays)
    ))  # fmt: skip
    kinds = {overlay.kind for overlay in traits.overlays}
    assert kinds == {"name", "identifier", "date", "clock", "device", "site"}
    assert {overlay.on_tissue for overlay in traits.overlays} == {True, False}
    burnt, bare = Scene(traits, SEED), Scene(replace(traits, overlays=()), SEED)
    for index in (0, 19, 20, 39, 40, 59):
        change = (burnt.render(index)[0] != bare.render(index)[0]).any(axis=2)
        for overlay in traits.overlays:
            x0, y0, x1, y1 = overlay.box
            assert change[y0:y1, x0:x1].mean() > 0.1 or not overlay.span[0] <= index < overlay.span[1]
        for overlay in traits.overlays:
            x0, y0, x1, y1 = overlay.box
            if overlay.span[0] <= index < overlay.span[1]:
                change[y0:y1, x0:x1] = False
        assert not change.any()


def test_clock_runs_and_its_box_stands() -> None:
    traits = small(size=(320, 256), frames=60, overlays=True)
    clock: Overlay = next(overlay for overlay in traits.overlays if overlay.kind == "clock")
    scene, (x0, y0, x1, y1) = Scene(traits, SEED), clock.box
    border = coverage(traits.field, traits.width, traits.height)[y0:y1, x0:x1] == 0
    shown = [scene.render(index)[0][y0:y1, x0:x1][border] for index in (0, 24, 25, 50)]
    assert [bool((a == b).all()) for a, b in pairwise(shown)] == [True, False, False]


# --- frame counter


def test_frame_counter_survives_halving_and_a_coarse_codec(tmp_path: Path) -> None:
    traits = small(size=(320, 256), frames=75, frame_counter=True, overlays=True)
    render_video(tmp_path / "full.mp4", traits, SEED, crf=28)
    full = decode(tmp_path / "full.mp4")
    assert [read_frame_counter(picture) for picture in full] == list(range(75))
    halves = (np.asarray(Image.fromarray(picture).resize((160, 128), Image.Resampling.BICUBIC)) for picture in full)
    encode(tmp_path / "half.mp4", halves, (160, 128), traits.rate, crf=28, gop=50)
    assert [read_frame_counter(picture) for picture in decode(tmp_path / "half.mp4")] == list(range(75))


def test_frame_counter_is_missed_where_there_is_none() -> None:
    bare = next(frames(small(), SEED))[0]
    with pytest.raises(ValueError, match="no frame counter"):
        read_frame_counter(bare)
    counted = next(frames(small(frame_counter=True), SEED))[0]
    assert read_frame_counter(counted) == 0
    counted[-20:, 9:19] = 255  # one block of the strip turns white
    with pytest.raises(ValueError, match="no frame counter"):
        read_frame_counter(counted)


def test_numbered_frames(tmp_path: Path) -> None:
    traits = small(frames=3)
    truth = render_frames(tmp_path / "png", traits, SEED, name=lambda index: f"frame_{index + 1}.png")
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == [f"frame_{n}.png" for n in (1, 2, 3)]
    for index, (picture, _) in enumerate(frames(traits, SEED)):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "png" / f"frame_{index + 1}.png")), picture)
    assert len(truth.boxes) == 3
    render_frames(tmp_path / "jpg", traits, SEED)
    assert sorted(path.name for path in (tmp_path / "jpg").iterdir()) == ["000000.jpg", "000001.jpg", "000002.jpg"]
    with pytest.raises(ValueError, match=r"a \.bmp, a \.jpeg, a \.jpg, a \.png, a \.tif"):
        render_frames(tmp_path / "gif", traits, SEED, name=lambda index: f"{index}.gif")
