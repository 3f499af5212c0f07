"""Masks: what moves is found, what is written on it is hidden, and what is planned is what ffmpeg and numpy apply."""

from __future__ import annotations

import dataclasses
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from endocorpus.deid.field import find_layouts, row_edges
from endocorpus.deid.look import plan_masks
from endocorpus.deid.mask import GRID, Doubt, LayoutMask, MaskPlan, bands, hidden_part, snap
from endocorpus.deid.models import Pin, attest, load, model_bytes, pins
from endocorpus.deid.overlay import NORMAL, Pace, sample_frames
from endocorpus.deid.reread import MODELS
from endocorpus.deid.text import boxes_of, find_text
from endocorpus.errors import DataError
from endocorpus.media.paint import filters
from endocorpus.media.probe import probe
from endocorpus.media.sampled import sampled
from endocorpus.phantom.identity import plan_identity, render_planted
from endocorpus.records import Box, Cut, Media, MediaFacts, Span
from tests.media import FFMPEG, write_video

Frame = npt.NDArray[np.uint8]


def tissue(seed: int, height: int, width: int, grain: float = 12) -> Frame:
    """Soft reddish blobs."""
    rng = np.random.default_rng(seed)
    soft = ndimage.gaussian_filter(rng.standard_normal((height, width)), grain)
    level = 130 + 40 * soft / soft.std()
    return np.clip(level[..., None] * (1.2, 0.6, 0.5), 0, 255).astype(np.uint8)


# --- models ---------------------------------------------------------------------------------------------------------


def test_every_pinned_text_model_is_the_installed_file_and_runs() -> None:
    for name in ("text-detector", "text-recogniser", *MODELS):
        assert len(model_bytes(name, pins()[name])) == pins()[name].bytes
        assert attest(name)[name]["sha256"] == pins()[name].sha256
    batch = np.zeros((1, 3, 64, 64), np.float32)
    assert load("text-detector")(batch).shape == (1, 1, 64, 64)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"package": "no-such-package-of-models"}, "is not installed"),
        ({"file": "rapidocr/models/none.onnx"}, "cannot be read"),
        ({"sha256": "0" * 64}, "SHA-256 differs"),
    ],
)
def test_a_model_that_is_missing_or_changed_stops_the_program_and_says_what_to_install(
    change: dict[str, str], says: str
) -> None:
    pin: Pin = dataclasses.replace(pins()["text-detector"], **change)
    with pytest.raises(DataError, match=says) as error:
        model_bytes("text-detector", pin)
    assert "pip install" in str(error.value) and pin.requires in str(error.value)


# --- text -----------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.integers(8, 60), st.integers(4, 30), st.integers(3, 12), st.integers(12, 60))
def test_a_box_holds_every_pixel_of_its_line_and_more(top: int, left: int, high: int, wide: int) -> None:
    chance = np.zeros((120, 160), np.float32)
    chance[top : top + high, left : left + wide] = 0.9
    (box,) = boxes_of(chance, 0.3, 0.5, (2.0, 2.0), (320, 240))
    assert box.left <= 2 * left and box.top <= 2 * top
    assert box.right >= 2 * (left + wide) and box.bottom >= 2 * (top + high)
    assert box.score == pytest.approx(0.9, abs=1e-3)
    assert boxes_of(chance * np.float32(0.4), 0.3, 0.5, (2.0, 2.0), (320, 240)) == ()


def test_lines_are_found_and_their_letters_hidden_and_tissue_is_left_alone() -> None:
    plain = tissue(11, 480, 640)
    assert find_text(plain).read == find_text(plain).unread == ()
    image, ink = Image.fromarray(plain), Image.new("L", (640, 480))
    for row, px in enumerate((14, 18, 24, 36)):
        for drawn, fill in ((image, (255, 255, 255)), (ink, 255)):
            ImageDraw.Draw(drawn).text((40, 60 + 90 * row), "NOBODY, N 31/02", fill, ImageFont.load_default(px))
    written = np.asarray(image)
    hidden = np.zeros((480, 640), np.bool_)
    for box in find_text(written).read:
        hidden[box.top : box.bottom, box.left : box.right] = True
    assert hidden[np.asarray(ink) > 64].mean() >= 0.95
    assert hidden.mean() < 0.2


# --- when to look ---------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(1, 40_000), st.sampled_from((Fraction(1), Fraction(10), Fraction(30000, 1001), Fraction(60))))
def test_every_stratum_of_time_is_looked_at_once_as_its_seed_says(num_frames: int, rate: Fraction) -> None:
    numbers = sample_frames(num_frames, rate, 7, "a", NORMAL)
    assert numbers == sample_frames(num_frames, rate, 7, "a", NORMAL)
    assert list(numbers) == sorted(set(numbers)) and numbers[0] >= 0 and numbers[-1] < num_frames
    assert len(numbers) >= min(num_frames, NORMAL.least)
    assert max(np.diff([-1, *numbers, num_frames])) <= 2 * max(1, rate / NORMAL.per_second)


def test_times_differ_between_seeds_and_recordings_and_fall_on_no_grid() -> None:
    rate = Fraction(25)
    once = sample_frames(25 * 600, rate, 1, "a", NORMAL)
    assert once != sample_frames(25 * 600, rate, 2, "a", NORMAL) != sample_frames(25 * 600, rate, 2, "b", NORMAL)
    assert len({number % 25 for number in once}) == 25


# --- the plan -------------------------------------------------------------------------------------------------------

BOXES = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 200), st.integers(1, 90), st.integers(1, 60)).map(
        lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
    ),
    max_size=8,
)


def painted(boxes: tuple[Box, ...] | list[Box], width: int = 310, height: int = 215) -> npt.NDArray[np.int64]:
    count = np.zeros((height, width), np.int64)
    for left, top, right, bottom in boxes:
        count[top:bottom, left:right] += 1
    return count


@settings(max_examples=80)
@given(BOXES)
def test_bars_cover_what_they_hide_on_a_grid_that_tells_no_length(boxes: list[Box]) -> None:
    bars = snap(boxes, 310, 215)
    assert (painted(bars)[painted(boxes) > 0] == 1).all() and painted(bars).max(initial=0) <= 1
    for left, top, right, bottom in bars:
        assert left % GRID == top % GRID == 0 and (right % GRID == 0 or right == 310)
        assert bottom % GRID == 0 or bottom == 215
    nudged = [(left, top, right - 1 if (right - 1) % GRID else right, bottom) for left, top, right, bottom in boxes]
    assert snap([b for b in nudged if b[2] > b[0]], 310, 215) == bars or any(b[2] - b[0] == 1 for b in boxes)


@settings(max_examples=30)
@given(st.integers(20, 150), st.integers(100, 200), st.integers(90, 160))
def test_bands_show_no_pixel_outside_and_lose_little(radius: int, x: int, y: int) -> None:
    rows = np.arange(320)
    half = np.sqrt(np.maximum(0.0, radius**2 - (rows - y) ** 2)).astype(np.int64)
    left, right = np.maximum(0, x - half), x + half
    shown = painted(bands(left, right), 360, 320)
    columns = np.arange(360)[None]
    exact = (columns >= left[:, None]) & (columns < right[:, None])
    assert shown.max() == 1 and not (shown.astype(bool) & ~exact).any()
    assert shown.sum() >= 0.995 * exact.sum()


def test_ffmpeg_and_numpy_hide_the_same_pixels(tmp_path: Path) -> None:
    masks = MaskPlan(
        width=160,
        height=128,
        crop=(10, 4, 150, 126),
        layouts=(
            LayoutMask(
                span=Span(start=0, stop=12), field=((30, 5, 120, 40), (20, 40, 150, 126)), boxes=((32, 16, 64, 48),)
            ),
            LayoutMask(span=Span(start=8, stop=20), field=((10, 4, 151, 90),), boxes=()),
        ),
        doubts=(),
    )  # fmt: skip
    facts = MediaFacts(
        num_frames=20, rate=Fraction(25), variable_rate=False, width=160, height=128, stored_width=160,
        stored_height=128, codec="", container="", dropped_streams={}, metadata_fields=0, digest="", bytes=0,
    )  # fmt: skip
    rng = np.random.default_rng(3)
    frames = rng.integers(60, 255, (20, 128, 160, 3)).astype(np.uint8)
    for stride in (1, 3):
        chain = filters(facts, Cut(left=10, top=4, right=10, bottom=2), masks.filled())
        graph = ",".join(
            [name + "=" + ":".join(f"{key}='{value}'" for key, value in args.items()) for name, args in chain]
            + [f"select='not(mod(n,{stride}))'"]
        )
        command = [FFMPEG, "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "160x128", "-i", "-"]
        command += ["-vf", graph, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        out = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=True).stdout
        got = np.frombuffer(out, np.uint8).reshape(-1, 122, 140, 3)
        for place, number in enumerate(range(0, 20, stride)):
            wanted = masks.apply(frames[number], number)
            assert ((got[place] < 8).all(axis=-1) == (wanted == 0).all(axis=-1)).all(), (stride, number)
    assert masks.hidden(25).all()  # a frame that was not planned shows nothing


def test_how_much_of_a_field_is_hidden() -> None:
    assert hidden_part(((0, 0, 100, 50),), ((0, 0, 25, 50), (200, 0, 300, 50))) == 0.25
    assert hidden_part((), ((0, 0, 5, 5),)) == 0


# --- the field ------------------------------------------------------------------------------------------------------


def disc(height: int, width: int, x: float, y: float, radius: float) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 < radius**2)


def moving(where: npt.NDArray[np.bool_], count: int, panel: int = 90) -> Frame:
    """Grey pictures with tissue that moves in `where`, and a still panel beside it."""
    height, width = where.shape
    film = np.stack([np.roll(tissue(1, height, width, 6)[..., 0], 7 * number, axis=1) for number in range(count)])
    still = np.zeros((height, width), np.uint8)
    still[10:60:4, 5:60] = panel
    return np.where(where, np.maximum(film, 30), still).astype(np.uint8)


def overlap(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_what_moves_is_the_field_and_a_still_panel_is_not() -> None:
    where = disc(180, 320, 200, 90, 80)
    (layout,) = find_layouts(moving(where, 40), range(0, 400, 10), 400, Fraction(25))
    assert layout.doubts == () and layout.span == Span(start=0, stop=400)
    assert overlap(layout.area, where) > 0.9
    left, right = row_edges(layout.area, None, 320, 180)
    assert not (painted(bands(left, right), 320, 180).astype(bool)[:, :60]).any()


def test_a_change_of_layout_is_found_to_the_second() -> None:
    one, other = disc(180, 320, 220, 90, 80), np.ones((180, 320), np.bool_)
    film = np.concatenate([moving(one, 45), moving(other, 35)])
    first, second = find_layouts(film, range(0, 800, 10), 800, Fraction(25))
    assert abs(first.span.stop - 450) <= 20 and first.span.stop == second.span.start and second.span.stop == 800
    assert overlap(first.area, one) > 0.9 and overlap(second.area, other) > 0.9


def test_doubts_say_why_the_field_is_not_proven() -> None:
    where = disc(180, 320, 200, 90, 80)
    at, rate = range(0, 400, 10), Fraction(25)
    still = np.repeat(moving(where, 1), 40, axis=0)
    (layout,) = find_layouts(still, at, 400, rate)
    assert layout.doubts == (Doubt.NO_MOTION,) and overlap(layout.area, where) > 0.85  # what is lit
    (layout,) = find_layouts(moving(where, 10), range(10), 10, rate)
    assert Doubt.FEW_FRAMES in layout.doubts
    (layout,) = find_layouts(moving(disc(180, 320, 160, 90, 30), 40), at, 400, rate)
    assert layout.doubts == (Doubt.SMALL_FIELD,)
    two = disc(180, 320, 80, 90, 60) | disc(180, 320, 240, 90, 60)
    (layout,) = find_layouts(moving(two, 40, panel=0), at, 400, rate)
    assert layout.doubts == (Doubt.TWO_FIELDS,)


def test_black_frames_of_a_provider_change_nothing() -> None:
    film = moving(disc(180, 320, 200, 90, 80), 40)
    (plain,) = find_layouts(film, range(0, 400, 10), 400, Fraction(25))
    film[15:20] = 0
    (layout,) = find_layouts(film, range(0, 400, 10), 400, Fraction(25))
    assert overlap(layout.area, plain.area) > 0.95 and layout.span == plain.span


# --- frames as ffmpeg shows them ------------------------------------------------------------------------------------

QUARTERS = [(a, b) for a in (1, -1) for b in (1, -1)]
MATRICES = [(a, 0, 0, d) for a, d in QUARTERS] + [(0, b, c, 0) for b, c in QUARTERS]


@pytest.mark.parametrize("matrix", MATRICES)
def test_frames_are_turned_and_mirrored_as_ffmpeg_does(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    path = write_video(tmp_path / "turned.mp4", 6)
    path = path if isinstance(path, Path) else tmp_path / "turned.mp4"
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix comes after 40 bytes
    a, b, c, d = matrix
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    media = Media(kind="video", paths=(path.name,))
    facts = probe(media, tmp_path)
    command = [FFMPEG, "-loglevel", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    shown = np.frombuffer(raw, np.uint8).reshape(-1, facts.height, facts.width, 3)
    got = dict(sampled(media, facts, tmp_path, [1, 4]))
    assert list(got) == [1, 4]
    for number, frame in got.items():
        assert np.abs(frame.astype(int) - shown[number]).mean() < 1


# --- the whole ------------------------------------------------------------------------------------------------------


def test_nothing_is_hidden_of_tissue_without_text(tmp_path: Path) -> None:
    plan = plan_identity(2003, (480, 320), 6, 5, "circle", items=0)
    render_planted(tmp_path / "film.mp4", plan)
    media = Media(kind="video", paths=("film.mp4",))
    masks = plan_masks(media, probe(media, tmp_path), tmp_path, seed=0, pace=Pace(close_looks=1))
    assert masks.tissue_hidden() <= 0.01 and masks.doubts == ()
