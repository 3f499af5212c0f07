"""What label files say arrives once, on its frame and pixels; what cannot be used is told, and harms nothing else."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from endocorpus.annotate import annotate_clips, clip_frames
from endocorpus.build import build
from endocorpus.cli import main
from endocorpus.config import BuildConfig
from endocorpus.corpus.manifest import Corpus
from endocorpus.geometry import Placement, place
from endocorpus.labels import read_labels
from endocorpus.plan import join_groups, plan_recording
from endocorpus.records import (
    Annotation,
    ClipPlan,
    Cut,
    Kind,
    Label,
    MediaFacts,
    Reason,
    Recording,
    RecordingPlan,
    Span,
)
from endocorpus.scan import scan
from endocorpus.segment import SegmentConfig, segment
from endocorpus.settings import load_settings
from endocorpus.sources import load_source
from endocorpus.sources.layout import Source
from endocorpus.staging import make_task
from tests.endocorpus.conftest import NAMES
from tests.endocorpus.test_traps import SEG, TEXTS, named, plant, polyp, said, sun, voc
from tests.media import write_frames

CONFIG = load_settings(BuildConfig, overrides=["segment.policy=endofm150", "encode.preset=ultrafast"])
BOXES = st.tuples(*[st.floats(-20, 220, width=32)] * 4).map(
    lambda v: (min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]) + 1, max(v[1], v[3]) + 1)
)


def facts_of(size: tuple[int, int], frames: int = 40, displayed: int | None = None) -> MediaFacts:
    return MediaFacts(
        num_frames=frames,
        rate=Fraction(25),
        variable_rate=False,
        width=displayed or size[0],
        height=size[1],
        stored_width=size[0],
        stored_height=size[1],
        codec="png",
        container="png",
        dropped_streams={},
        metadata_fields=0,
        digest="0" * 32,
        bytes=1,
    )


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    """Any cut and any scale, of pictures whose pixels may not be square."""
    size = draw(st.tuples(st.integers(20, 200), st.integers(20, 200)))
    facts = facts_of(size, displayed=draw(st.sampled_from([size[0], size[0] * 2, size[0] + 7])))
    left, right = draw(st.integers(0, 8)), draw(st.integers(0, 8))
    top, bottom = draw(st.integers(0, 8)), draw(st.integers(0, 8))
    clip = draw(st.tuples(st.integers(4, 128), st.integers(4, 128)))
    return place(facts, Cut(left=left, top=top, right=right, bottom=bottom), clip)


# --- geometry ---------------------------------------------------------------------------------------------------------


@given(placements(), BOXES)
def test_a_box_goes_where_its_corners_go(placement: Placement, box: tuple[float, float, float, float]) -> None:
    xmin, ymin, xmax, ymax = box
    corners = placement.polygon((xmin, ymin, xmax, ymin, xmax, ymax, xmin, ymax))
    xs, ys = np.clip(corners[::2], 0, placement.size[0]), np.clip(corners[1::2], 0, placement.size[1])
    seen = placement.box(box)
    if seen is None:
        assert xs.min() == xs.max() or ys.min() == ys.max()
    else:
        assert np.allclose(seen, (xs.min(), ys.min(), xs.max(), ys.max()))


@given(placements())
def test_what_is_kept_of_the_picture_fills_the_clip(placement: Placement) -> None:
    width, height = placement.stored
    whole = placement.box((0, 0, width, height))
    assert whole is not None and np.allclose(whole, (0, 0, *placement.size), atol=1e-9)


@given(placements(), st.data())
def test_a_mask_goes_where_its_box_goes_and_keeps_its_area(placement: Placement, data: st.DataObject) -> None:
    width, height = placement.stored
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    made = placement.mask(mask)
    assert made.shape == placement.size[::-1]
    box = placement.box((left, top, right, bottom))
    if box is None:
        assert not made.any()
        return
    sides = box[2] - box[0], box[3] - box[1]
    assert abs(float(made.sum()) - sides[0] * sides[1]) <= sum(sides) + 1, "half a pixel along every edge"
    rows, columns = np.nonzero(made)
    if min(sides) >= 2:  # so that one whole pixel lies across every edge
        extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.subtract(extent, box)).max() <= 0.51


@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.randoms(use_true_random=False))
def test_whole_numbers_lose_nothing_of_a_mask(zoom: int, left: int, top: int, random: object) -> None:
    mask = np.random.default_rng(random.randrange(2**32)).random((12, 9)) < 0.4  # type: ignore[attr-defined]
    cut = Cut(left=left, top=top)
    placement = place(facts_of((9, 12)), cut, ((9 - left) * zoom, (12 - top) * zoom))
    kept = mask[top:, left:]
    assert np.array_equal(placement.mask(mask), np.repeat(np.repeat(kept, zoom, 0), zoom, 1))


# --- time -------------------------------------------------------------------------------------------------------------


def cut_into_clips(frames: int, config: SegmentConfig) -> tuple[ClipPlan, ...]:
    spans = segment(Span(start=0, stop=frames), Fraction(25), config)
    return tuple(ClipPlan(key=f"k-{i}", span=s, width=40, height=30, stride=config.stride) for i, s in enumerate(spans))


@st.composite
def spans_of_recordings(draw: st.DrawFn) -> tuple[Span, tuple[ClipPlan, ...]]:
    frames, stride = draw(st.integers(1, 700)), draw(st.integers(1, 40))
    published = draw(st.booleans())
    config = SegmentConfig(policy="endofm150" if published else "seconds", stride=stride, min_seconds=0.01)
    start = draw(st.integers(0, frames - 1))
    return Span(start=start, stop=draw(st.integers(start + 1, frames))), cut_into_clips(frames, config)


@given(spans_of_recordings())
def test_clips_show_each_frame_of_a_span_once(case: tuple[Span, tuple[ClipPlan, ...]]) -> None:
    span, clips = case
    shown = [clip.span.start + i * clip.stride for clip in clips for i in clip_frames(span, clip)]
    assert shown == [frame for frame in range(span.start, span.stop) if frame % clips[0].stride == 0]
    assert all(0 <= i < clip.num_frames for clip in clips for i in clip_frames(span, clip))


def plan_of(recording: Recording, size: tuple[int, int], clips: tuple[ClipPlan, ...], cut: Cut) -> RecordingPlan:
    return RecordingPlan(
        recording=recording,
        facts=facts_of(size, frames=clips[-1].span.stop),
        clearance=None,  # type: ignore[arg-type] - nothing here writes a pixel
        clips=clips,
        rate=Fraction(25),
        cut=cut,
        labels=(),
        annotations={},
        annotations_digest="",
        exclusions=(),
        unmapped=(),
    )


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    root = plant(tmp_path_factory.mktemp("one"), named("a/1.png"))
    (found,) = scan(load_source("folder", "public"), root).recordings
    return found


@settings(max_examples=60)
@given(case=spans_of_recordings(), box=BOXES, left=st.integers(0, 30), top=st.integers(0, 30))
def test_a_box_is_on_every_frame_of_its_span_and_on_its_pixels(
    recording: Recording,
    case: tuple[Span, tuple[ClipPlan, ...]],
    box: tuple[float, float, float, float],
    left: int,
    top: int,
) -> None:
    span, clips = case
    label = Label(name="finding", raw="polyp", code="polyp")
    found = Annotation(span=span, kind=Kind.BOX, label=label, origin="a.txt", box=box, instance=3)
    plan = plan_of(recording, (200, 180), clips, Cut(left=left, top=top))
    by_clip, wrong = annotate_clips(plan, [found], Path())
    rows = [row for clip in clips if clip.key in by_clip for row in by_clip[clip.key].rows]
    starts = {clip.key: clip.span.start for clip in clips}
    shown = Counter(
        starts[str(row["key"])] + i * clips[0].stride
        for row in rows
        for i in range(int(str(row["frame"])), int(str(row["stop"])))
    )
    seen = place(plan.facts, plan.cut, (40, 30)).box(box)
    wanted = [f for f in range(span.start, span.stop) if f % clips[0].stride == 0] if seen else []
    assert sorted(shown.elements()) == wanted and not wrong
    for row in rows:  # kept as 32-bit numbers
        assert [row[corner] for corner in ("xmin", "ymin", "xmax", "ymax")] == pytest.approx(seen, rel=1e-6)
        assert row["instance"] == 3


# --- masks ------------------------------------------------------------------------------------------------------------

FRAMES, SIZE = 3, (48, 32)  # width, height


def mask_of(left: int, top: int, right: int, bottom: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(SIZE[::-1], bool)
    mask[top:bottom, left:right] = True
    return mask


DISC = mask_of(10, 4, 22, 20)


def clip_tree(root: Path, masks: Mapping[int, Image.Image], suffix: str = "png", **kwargs: object) -> Path:
    """A SUN-SEG clip of three pictures with these masks, by frame number."""
    folder = root / SEG / "TrainDataset"
    write_frames(folder / "Frame" / "case1_1", range(1, FRAMES + 1), size=SIZE, name=sun(1, 1)[:-4] + "000{}.jpg")
    for number, picture in masks.items():
        path = folder / "GT" / "case1_1" / f"{sun(1, number)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format=suffix, **kwargs)  # type: ignore[arg-type]
    return root


def annotated(
    root: Path,
) -> tuple[list[Mapping[str, object]], Mapping[str, npt.NDArray[np.uint8]], list[tuple[str, str]]]:
    """Rows, label maps, and (reason, detail) of what is wrong, of the one clip below `root`."""
    source = load_source("sun")
    (found,) = scan(source, root).recordings
    plan = plan_recording(found, root, source, CONFIG)
    picture = (plan.facts.stored_width, plan.facts.stored_height)
    read = read_labels(found, source, root, plan.facts.num_frames, picture)
    by_clip, wrong = annotate_clips(plan, read.annotations, root)
    told = [*wrong, *read.exclusions]
    ((_, clip),) = by_clip.items() if by_clip else [("", None)]
    rows, maps = (list(clip.rows), clip.masks) if clip else ([], {})
    return rows, maps, [(str(each.reason), each.detail) for each in told]


def grey(mask: npt.NDArray[np.bool_], low: int = 0, high: int = 255) -> Image.Image:
    return Image.fromarray(np.where(mask, high, low).astype(np.uint8))


def palette(mask: npt.NDArray[np.bool_]) -> Image.Image:
    picture = Image.fromarray(mask.astype(np.uint8), mode="P")
    picture.putpalette([90, 90, 90, 40, 0, 0])  # object 1 is darker than what is around it: brightness says nothing
    return picture


KINDS: Mapping[str, Callable[[npt.NDArray[np.bool_]], Image.Image]] = {
    "black and white": grey,
    "nearly black and white": lambda mask: grey(mask, 8, 246),
    "colours": lambda mask: grey(mask).convert("RGB"),
    "one bit": lambda mask: grey(mask).convert("1"),
    "numbers of objects": lambda mask: grey(mask, 0, 1),
    "palette": palette,
}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_every_kind_are_the_same_mask(kind: str, tmp_path: Path) -> None:
    rows, maps, wrong = annotated(clip_tree(tmp_path, {2: KINDS[kind](DISC)}))
    assert [(row["kind"], row["frame"], row["stop"]) for row in rows] == [("mask", 1, 2)] and not wrong
    assert [rows[0][corner] for corner in ("xmin", "ymin", "xmax", "ymax")] == [10, 4, 22, 20]
    assert np.array_equal(maps[str(rows[0]["mask"])], DISC.astype(np.uint8))


def test_a_mask_saved_as_jpeg_is_read_by_a_threshold(tmp_path: Path) -> None:
    rows, maps, wrong = annotated(clip_tree(tmp_path, {2: grey(DISC)}, suffix="jpeg", quality=60))
    assert not wrong and np.array_equal(maps[str(rows[0]["mask"])] > 0, DISC)


def test_noise_of_an_empty_jpeg_mask_is_no_object(tmp_path: Path) -> None:
    rows, maps, wrong = annotated(clip_tree(tmp_path, {1: grey(DISC | True, 0, 1)}, suffix="jpeg"))
    assert [row["kind"] for row in rows] == ["none"] and not maps and not wrong


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_mask_says_that_nothing_is_there(kind: str, tmp_path: Path) -> None:
    rows, maps, wrong = annotated(clip_tree(tmp_path, {1: KINDS[kind](DISC & False)}))
    assert [(row["kind"], row["frame"], row["xmin"], row["mask"]) for row in rows] == [("none", 0, None, None)]
    assert not maps and not wrong


def test_a_mask_of_another_size_and_a_damaged_one_are_told_and_the_rest_stays(tmp_path: Path) -> None:
    root = clip_tree(tmp_path, {1: grey(DISC).resize((24, 16)), 2: grey(DISC), 3: grey(DISC)})
    (root / SEG / "TrainDataset" / "GT" / "case1_1" / f"{sun(1, 3)}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows, _, wrong = annotated(root)
    assert [row["frame"] for row in rows] == [1]
    assert [reason for reason, _ in wrong] == ["misplaced", "bad_labels"]
    assert "24x16 for a picture of 48x32" in wrong[0][1]


def box_list(box: tuple[int, ...]) -> str:
    return json.dumps({"images": [{"id": 1, "file_name": sun(1, 2)}], "annotation": [{"id": 1, "bbox": box}]})


@pytest.mark.parametrize(("box", "fits"), [((10, 4, 12, 16), True), ((4, 10, 16, 12), True), ((1, 26, 4, 5), False)])
def test_a_box_that_misses_the_mask_of_its_frame_is_left_out(box: tuple[int, ...], fits: bool, tmp_path: Path) -> None:
    """The provider's older lists had x and y swapped; beside a mask it shows, unless both happen to meet."""
    root = clip_tree(tmp_path, {2: grey(DISC)})
    plant(root, {f"{SEG}/TrainDataset/Detection/bbox_annotation.json": box_list(box)})
    rows, _, wrong = annotated(root)
    assert [row["kind"] for row in rows if row["frame"] == 1] == (["box", "mask"] if fits else ["mask"])
    assert [reason for reason, _ in wrong] == ([] if fits else ["misplaced"])
    assert fits or "x and y may be swapped" in wrong[0][1]


# --- what cannot be used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TEXTS)
@settings(max_examples=40)
@given(data=st.data())
def test_no_damage_to_a_label_file_ends_a_build(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source, name, files, path, text = TEXTS[kind]
    whole = text.encode()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    extra = [b"", b"nan", b"1e999", b"-1", b"null", b"[]", b'"', b"\r", b"9" * 5000, b"[" * 5000, b"true", b"\xc2\xb2"]
    put = data.draw(st.one_of(st.sampled_from(extra), st.binary(max_size=6)))
    root = plant(tmp_path_factory.mktemp("damaged"), {**files, path: whole[:start] + put + whole[stop:]})
    told = scan(load_source(source), root, names=NAMES).exclusions
    found = said(source, root, name, 2)
    assert {e.unit for e in (*told, *found.exclusions)} <= {"annotation"}
    assert all(0 <= a.span.start < a.span.stop <= 2 for a in found.annotations)
    shutil.rmtree(root)


def many_bad_boxes(root: Path, count: int) -> Path:
    lines = "".join(f"{sun(1, n)}.jpg 90,90,{10 + n},20,0\n" for n in range(1, count + 1))
    return plant(root, {"SUN-Positive/annotation_txt/case1.txt": lines} | dict.fromkeys(_images(count), "x"))


def _images(count: int) -> list[str]:
    return [f"SUN-Positive/case1/{sun(1, n)}.jpg" for n in range(1, count + 1)]


def test_many_faults_of_one_kind_are_one_line(tmp_path: Path) -> None:
    found = said("sun", many_bad_boxes(tmp_path, 500), "pos-case1")
    (told,) = found.exclusions
    assert told.reason is Reason.MISPLACED and told.detail.endswith("(and 499 more like it)") and not found.annotations
    assert told.detail.startswith("SUN-Positive/annotation_txt/case1.txt, line 1: frame 0: the box 90,90,11,20")


def test_what_is_wrong_names_its_file_and_the_place_in_it(tmp_path: Path) -> None:
    folder = "TrainValid/Annotations/1"
    files = {f"TrainValid/Images/1/{n:04d}.jpg": "x" for n in range(1, 5)} | {
        f"{folder}/0001.txt": "2\n1 2 3 4\n1 2 300 4\n",
        f"{folder}/0002.txt": "2\n1 2 3 4\n",
        f"{folder}/0003.txt": "1\n1 2 x 4\n",
        f"{folder}/0004.txt": "0\n",
        f"{folder}/0009.txt": "1\n1 2 3 4\n",
    }
    told = [e.detail for e in said("ldpolypvideo", plant(tmp_path / "ldp", files), "1").exclusions]
    assert told == [
        f"{folder}/0002.txt: line 1 promises 2 boxes, 1 follow (and 1 more like it)",
        f"{folder}/0001.txt, line 3: frame 0: the box 1,2,300,4 leaves the picture of 100x80",
        f"{folder}/0009.txt, line 2: a box for the frame '0009', which is not here",
    ]
    listed = {"TrainDataset/Classification/classification.txt": f"{sun(1, 1)}.jpg\tpolyp\n{sun(1, 7)}.jpg\tpolyp\n"}
    seg = {f"TrainDataset/{part}/case1/{sun(1, 1)}.{kind}": "x" for part, kind in (("Frame", "jpg"), ("GT", "png"))}
    (table,) = scan(load_source("sun"), plant(tmp_path / "sun", listed | seg)).exclusions
    assert table.detail == "rows about frames that are not here: 1, such as line 2"


@pytest.mark.parametrize(
    ("box", "fits"),
    [
        ("0,0,100,80", True),
        ("-1,-1,101,81", True),  # many tools write one pixel too far
        ("0,0,102,80", False),
        ("0,0,100,82", False),
        ("-2,0,100,80", False),
        ("0,-2,100,80", False),
        ("5,5,5,9", False),
        ("5,9,9,5", False),
    ],
)
def test_a_box_lies_in_the_picture(box: str, fits: bool, tmp_path: Path) -> None:
    files = {"SUN-Positive/annotation_txt/case1.txt": f"{sun(1, 1)}.jpg {box},0"} | dict.fromkeys(_images(1), "x")
    found = said("sun", plant(tmp_path, files), "pos-case1")  # a picture of 100x80
    assert (len(found.annotations), [e.reason for e in found.exclusions]) == (
        (1, []) if fits else (0, [Reason.MISPLACED])
    )


def test_private_sources_tell_no_name_of_a_label_file(tmp_path: Path) -> None:
    private = dataclasses.replace(load_source("sun"), privacy="private")
    root = many_bad_boxes(tmp_path, 3)
    plant(root, {"SUN-Positive/annotation_txt/case9.txt": "x", "SUN-SEG/TrainDataset/Classification/x.rar": "x"})
    found = scan(private, root, names=NAMES)
    read = read_labels(found.recordings[0], private, root, 3, (100, 80))
    shown = f"{found.exclusions}{read.exclusions}"
    assert len(found.exclusions) == 2 and len(read.exclusions) == 1
    assert not [word for word in ("SUN", "case", "image0", "90,90", "txt", ".rar") if word in shown]


@pytest.mark.parametrize(
    "outline",
    [
        (1, 2, 5, 6),
        (1, 2, 5, 6, 9),
        (-9, -9, -5, -9, -5, -5),
        (200, 1, 210, 1, 210, 9),
        (1, 1, 1, 5, 1, 9),
        ("nan",) * 6,
    ],
)
def test_an_outline_that_no_clip_can_show_is_told(outline: tuple[float, ...], tmp_path: Path) -> None:
    pairs = zip(outline[::2], (*outline, 0)[1::2], strict=False)
    shape = [{"x": float(x), "y": float(y)} for x, y in pairs] if len(outline) != 4 else [{"x": 1, "y": 2}] * 2
    if len(outline) == 5:
        shape = [{"x": 1, "y": 2}, {"x": 3}]  # type: ignore[dict-item]
    finding = {"metadata": {"name": "Polyp"}, "frames": {"0": {"shape": shape}}}
    video = "a" * 16
    text = json.dumps({video: {"findings": {"f": finding}}})
    root = plant(tmp_path, named(f"labelled_videos/{video}.mp4") | {"metadata.json": text})
    found = said("kvasir-capsule", root, video, 4)
    exclusions = (*scan(load_source("kvasir-capsule"), root).exclusions, *found.exclusions)
    assert not found.annotations and len(exclusions) == 1


# --- --strict, and what a change costs --------------------------------------------------------------------------------


def kumc_tree(root: Path, name: str = "adenomatous") -> Path:
    for sequence in (1, 2):
        write_frames(root / "val2019" / "Image" / str(sequence), range(1, 31), size=(64, 48), name="{}.png")
    empty = {f"val2019/Annotation/{sequence}/{frame}.xml": voc() for sequence in (1, 2) for frame in range(1, 31)}
    return plant(root, empty | {"val2019/Annotation/1/2.xml": voc(polyp(4, 5, 30, 40, name=name))})


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_strict_refuses_a_word_without_a_code(tmp_path: Path) -> None:
    told = ("build", "--source", "kumc", "--workers", 1, "--set", "encode.preset=ultrafast")
    good = run(*told, "--strict", "--root", kumc_tree(tmp_path / "good"), "--out", tmp_path / "c")
    assert good.exit_code == 0, good.output
    odd = ("--root", kumc_tree(tmp_path / "odd", name="polipo"), "--out", tmp_path / "d")
    refused = run(*told, "--strict", *odd)
    assert refused.exit_code == 1 and "the finding 'polipo' has no code" in refused.stderr
    assert not (tmp_path / "d" / "corpus.json").exists() and not list((tmp_path / "d" / "shards").glob("*"))
    assert run(*told, *odd).exit_code == 0


def test_images_without_their_label_file_are_counted(tmp_path: Path) -> None:
    """Where the provider has a file for every image, none means that something is missing, not that nothing is seen."""
    root = kumc_tree(tmp_path / "raw")
    for frame in (7, 9):
        (root / f"val2019/Annotation/2/{frame}.xml").unlink()
    made = build(load_source("kumc"), root, tmp_path / "c", CONFIG)
    assert [(e["unit"], e["reason"], e["subject"], e["detail"]) for e in made.table("excluded").to_pylist()] == [
        ("annotation", "no_partner", "val2019/Image/2", "images without a label file: 2 of 30, such as 7.png")
    ]
    assert made.descriptor["counts"]["recordings"] == 2
    page = (made.root / "report" / "index.html").read_text()
    assert "images without a label file: 2 of 30, such as 7.png" in page and "1 entry about labels" in page
    refused = run("scan", "--source", "kumc", "--root", root, "--strict")
    assert refused.exit_code == 1 and "missing or cannot be used: no_partner in val2019/Image/2" in refused.stderr


def test_strict_refuses_a_count_that_differs(tmp_path: Path) -> None:
    write_frames(tmp_path / "raw" / "TrainValid" / "Images" / "1", range(1, 31), size=(64, 48), name="{:04d}.png")
    told = ("scan", "--source", "ldpolypvideo", "--root", tmp_path / "raw")
    assert run(*told).exit_code == 0
    strict = run(*told, "--strict")
    assert strict.exit_code == 1 and "30 frames instead of 40,186" in strict.stderr


def clips_of(corpus: Corpus) -> dict[str, tuple[str, str]]:
    return {row["key"]: (row["shard"], row["mp4_xxh3_128"]) for row in corpus.clips().to_pylist()}


def test_a_changed_label_changes_its_shard_and_no_clip(tmp_path: Path) -> None:
    source, root = load_source("kumc"), kumc_tree(tmp_path / "raw")
    config = CONFIG.model_copy(update={"shards": CONFIG.shards.model_copy(update={"max_clips": 1})})

    def addresses() -> dict[str, tuple[str, str]]:
        plans = [plan_recording(r, root, source, config) for r in scan(source, root).recordings]
        tasks = [make_task(plan, root, source, tmp_path, config.encode) for plan in plans]
        return {task.plan.recording.name: (task.clips_id, task.annotations_id) for task in tasks}

    first, before = build(source, root, tmp_path / "c", config), addresses()
    shards = {entry["name"]: entry["xxh3_128"] for entry in first.descriptor["shards"]}
    clips, said_before = clips_of(first), first.table("annotations").num_rows
    plant(root, {"val2019/Annotation/1/2.xml": voc(polyp(4, 5, 30, 40), polyp(1, 2, 3, 9, name="hyperplastic"))})
    second, after = build(source, root, tmp_path / "c", config), addresses()
    assert clips_of(second) == clips and len(shards) == 2
    assert (said_before, second.table("annotations").num_rows) == (60, 61)
    assert [name for name in before if before[name][0] != after[name][0]] == []
    assert [name for name in before if before[name][1] != after[name][1]] == ["val-1"]


# --- leak groups ------------------------------------------------------------------------------------------------------


def test_equal_bytes_and_links_join_leak_groups(tmp_path: Path) -> None:
    source: Source = load_source("sun")
    for case, exam, start in ((1, "AAA", 1), (2, "AAA", 31), (3, "CCC", 31), (4, "DDD", 61)):
        names = sun(1, 1, exam=exam)[:-4] + "{:04d}.jpg"
        write_frames(tmp_path / "SUN-Positive" / f"case{case}", range(start, start + 30), size=(64, 48), name=names)
    plans = join_groups([plan_recording(r, tmp_path, source, CONFIG) for r in scan(source, tmp_path).recordings])
    groups = {plan.recording.name: plan.recording.leak_group for plan in plans}
    assert groups["pos-case1"] == groups["pos-case2"], "one examination"
    assert groups["pos-case2"] == groups["pos-case3"], "equal bytes"
    assert groups["pos-case4"] == "sun-pos-case4" != groups["pos-case1"]


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.sets(st.integers(0, 5), max_size=2)), min_size=1, max_size=8
    )
)
def test_leak_groups_are_what_hangs_together(recording: Recording, rows: list[tuple[int, int, set[int]]]) -> None:
    base = plan_of(recording, (64, 48), cut_into_clips(30, SegmentConfig()), Cut())
    plans = [
        dataclasses.replace(
            base,
            facts=dataclasses.replace(base.facts, digest=f"{digest}"),
            recording=dataclasses.replace(
                recording, name=str(number), leak_group=f"g{group}", links=tuple(f"link{link}" for link in links)
            ),
        )
        for number, (group, digest, links) in enumerate(rows)
    ]
    found = [plan.recording.leak_group for plan in join_groups(plans)]
    component = list(range(len(rows)))
    for _ in rows:
        for i, one in enumerate(rows):
            for j, other in enumerate(rows):
                if one[0] == other[0] or one[1] == other[1] or one[2] & other[2]:
                    component[i] = component[j] = min(component[i], component[j])
    assert [[a == b for b in found] for a in found] == [[a == b for b in component] for a in component]
