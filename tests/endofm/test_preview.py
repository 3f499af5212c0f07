"""The contact sheet: it shows the very pixels that the model gets, of the very clips that come first."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from endocorpus.corpus.manifest import open_corpus, write_descriptor
from endocorpus.errors import DataError, UsageError
from endofm.data.clips import load_clips
from endofm.data.loader import make_loader
from endofm.data.views import View, ViewConfig, apply_views
from endofm.preview import draw_views, frame_numbers
from tests.endofm.conftest import ClipSpec, MakeCorpus
from tests.endofm.test_loader import damage

VIEWS = ViewConfig(global_frames=(3, 2), local_frames=(2,), global_size=48, local_size=24)


def open_sheet(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def contains(sheet_HWC: NDArray[np.uint8], picture_HWC: NDArray[np.uint8]) -> bool:
    """Whether the picture is somewhere on the sheet, but for rounding: sums depend a little on the size of a batch."""
    sheet, picture = sheet_HWC.astype(np.int16), picture_HWC.astype(np.int16)
    height, width = picture.shape[:2]
    tops, lefts = np.nonzero((np.abs(sheet - picture[0, 0]) <= 1).all(axis=-1))
    places = [
        sheet[top : top + height, left : left + width] for top, left in zip(tops.tolist(), lefts.tolist(), strict=True)
    ]
    return any(place.shape == picture.shape and np.abs(place - picture).max() <= 1 for place in places)


def test_the_sheet_shows_what_the_model_sees(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.png"
    told = draw_views([corpus], VIEWS, out, seed=5, num_clips=2)
    assert "fewer frames than the longest view, which has 3: 1 of 7;" in told
    sheet = open_sheet(out)
    (batch,) = make_loader(load_clips([corpus]), VIEWS, batch_size=2, seed=5, start_step=0, stop_step=1)
    mean, std = (np.array(values, np.float32)[:, None, None, None] for values in (VIEWS.mean, VIEWS.std))
    shown = 0
    for view in apply_views(batch, "cpu"):
        for clip_CTSS in view.numpy():
            pixels = (clip_CTSS * std + mean).clip(0, 1) * 255
            for frame_CSS in pixels.transpose(1, 0, 2, 3):
                assert contains(sheet, frame_CSS.round().astype(np.uint8).transpose(1, 2, 0))
                shown += 1
    assert shown == 2 * (3 + 2 + 2)


def test_the_same_sheet_every_time(corpus: Path, tmp_path: Path) -> None:
    sheets = []
    for seed in (1, 1, 2):
        draw_views([corpus], VIEWS, tmp_path / "sheet.png", seed=seed, num_clips=1)
        sheets.append((tmp_path / "sheet.png").read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


def test_more_clips_than_there_are_is_all_of_them(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    corpus = make_corpus("two", [[ClipSpec(1, 8, 48, 64), ClipSpec(2, 8, 48, 64)]])
    heights = []
    for num_clips in (1, 2, 50):
        assert draw_views([corpus], VIEWS, tmp_path / "sheet.png", seed=0, num_clips=num_clips) == ""
        heights.append(open_sheet(tmp_path / "sheet.png").shape[0])
    assert heights[0] < heights[1] == heights[2]


def test_a_corpus_that_is_not_released_is_told(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    corpus = make_corpus("two", [[ClipSpec(1, 8, 48, 64)]])
    write_descriptor(corpus, {**open_corpus(corpus).descriptor, "released": False})
    assert "not released" in draw_views([corpus], VIEWS, tmp_path / "sheet.png", seed=0, num_clips=1)


def test_every_view_has_its_box_on_the_source(corpus: Path, tmp_path: Path) -> None:
    draw_views([corpus], VIEWS, tmp_path / "sheet.png", seed=0, num_clips=1)
    sheet = open_sheet(tmp_path / "sheet.png")
    middle = sheet[: sheet.shape[0] // 2, : sheet.shape[1] // 2]
    for colour in ((60, 130, 255), (0, 190, 80), (255, 150, 0)):
        assert (middle == colour).all(axis=-1).sum() > 100, colour


def test_repeated_frames_are_marked() -> None:
    view = View(
        frames=(0, 3, 3, 3, 7), box=(0, 0, 1, 1), flip=False, factors=(1, 1, 1), order=(0, 1, 2), grayscale=False
    )
    assert frame_numbers(view) == ["0", "3", "=3", "=3", "7"]


def test_a_sheet_of_small_views_is_not_mostly_empty(corpus: Path, tmp_path: Path) -> None:
    draw_views([corpus], VIEWS, tmp_path / "sheet.png", seed=0, num_clips=1)
    sheet = open_sheet(tmp_path / "sheet.png")
    paper = sheet.reshape(-1, 3).max(axis=0)
    right_half = sheet[:, sheet.shape[1] // 2 :]
    used = (right_half != paper).any(axis=(1, 2))
    assert used.mean() > 0.4, "rows of pixels with something in the right half"


def test_views_are_named_by_kind() -> None:
    assert list(ViewConfig().view_names) == ["g1", "g2", "l1", "l2", "l3", "l4", "l5", "l6", "l7", "l8"]


def test_a_damaged_clip_is_left_out_and_told(corpus: Path, tmp_path: Path) -> None:
    copy, out = Path(shutil.copytree(corpus, tmp_path / "copy")), tmp_path / "sheet.png"
    draw_views([copy], VIEWS, out, seed=5, num_clips=7)
    height = open_sheet(out).shape[0]
    damage(copy, load_clips([copy]), "tiny-4")
    told = draw_views([copy], VIEWS, out, seed=5, num_clips=7)
    assert told.startswith(f"left out: {copy}/shards/tiny-0.tar: clip tiny-4 at offset")
    assert open_sheet(out).shape[0] < height
    for key in (f"tiny-{number}" for number in (1, 2, 3, 5, 6, 7)):
        damage(copy, load_clips([copy]), key)
    with pytest.raises(DataError, match=r"left out: .* at offset"):
        draw_views([copy], VIEWS, tmp_path / "none.png", seed=5, num_clips=7)
    assert not (tmp_path / "none.png").exists()


def test_failures_leave_no_sheet(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="number of clips must be at least 1"):
        draw_views([corpus], VIEWS, tmp_path / "sheet.png", seed=0, num_clips=0)
    with pytest.raises(UsageError):
        draw_views([tmp_path / "nothing"], VIEWS, tmp_path / "sheet.png", seed=0, num_clips=1)
    assert list(tmp_path.iterdir()) == []
