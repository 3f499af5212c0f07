"""Scores of masks: by hand, by property, against plain set arithmetic; and Dice as Endo-FM published it."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import f1_score, jaccard_score

from endofm.scores.published import best_epoch, cvc, dice_percase
from endofm.scores.segmentation import FOREGROUND, Overlap, overlap, segmentation_scores

Masks = NDArray[np.uint8]
TWO = ("background", "polyp")
THREE = ("background", "adenoma", "serrated")
IGNORE = 255


@st.composite
def clips(draw: st.DrawFn) -> tuple[Masks, Masks]:
    """What was told and what is true of a clip, uint8 [T, H, W] each, of three classes; frames are often empty, and
    pixels or whole frames are often without a truth."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (draw(st.integers(1, 5)), 3, 4)
    told, true = (rng.integers(3, size=shape) * (rng.random((shape[0], 1, 1)) < 0.6) for _ in range(2))
    true[rng.random(shape) < draw(st.sampled_from([0, 0.3]))] = IGNORE
    true[rng.random(shape[0]) < draw(st.sampled_from([0, 0.3]))] = IGNORE
    return told.astype(np.uint8), true.astype(np.uint8)


def same(one: Overlap, other: Overlap) -> None:
    assert one.vector() == pytest.approx(other.vector())


def test_a_clip_by_hand() -> None:
    """The example of docs/scores.md: three frames of four pixels."""
    told = np.array([[[1, 1, 0, 0]], [[0, 0, 0, 0]], [[0, 0, 0, 1]]])
    true = np.array([[[0, 1, 1, 1]], [[0, 0, 0, 0]], [[0, 0, 0, 0]]])
    scores = segmentation_scores([overlap(told, true, 2)], TWO)
    assert asdict(scores.regions["polyp"]) == {
        "dice_by_clip": pytest.approx(2 * 1 / (3 + 3)),
        "iou_by_clip": pytest.approx(1 / 5),
        "dice_by_frame": pytest.approx((2 / 5 + 1 + 0) / 3),
        "iou_by_frame": pytest.approx((1 / 4 + 1 + 0) / 3),
        "dice_where_present": pytest.approx(2 / 5),
        "iou_where_present": pytest.approx(1 / 4),
        "silent_where_absent": pytest.approx(1 / 2),
        "frames": 3,
        "empty_frames": 2,
        "both_empty_frames": 1,
        "both_empty_clips": 0,
    }
    assert scores.regions[FOREGROUND] == scores.regions["polyp"]
    assert (scores.clips, scores.frames, scores.ignored_frames, scores.ignored_clips) == (1, 3, 0, 0)


def test_another_class_of_lesion_is_foreground_all_the_same() -> None:
    scores = segmentation_scores([overlap(np.array([[[1, 2, 2]]]), np.array([[[2, 2, 0]]]), 3)], THREE).regions
    by_clip = {name: region.dice_by_clip for name, region in scores.items()}
    assert by_clip == pytest.approx({"adenoma": 0, "serrated": 2 / 4, FOREGROUND: 4 / 5})


@given(clips())
def test_regions_as_in_scikit_learn(clip: tuple[Masks, Masks]) -> None:
    told, true = clip
    counts = true != IGNORE
    scores = segmentation_scores([overlap(told, true, 3, ignore=IGNORE)], THREE)
    assert scores.ignored_frames == int((~counts.any(axis=(1, 2))).sum())
    if not counts.any():
        assert scores.clips == 0 and scores.ignored_clips == 1
        return
    for region, marked in ((0, [1]), (1, [2]), (2, [1, 2])):
        got = scores.regions[[*THREE[1:], FOREGROUND][region]]
        a, b = np.isin(told, marked), np.isin(true, marked)
        frames = [(p[c], t[c]) for p, t, c in zip(a, b, counts, strict=True) if c.any()]
        assert got.dice_by_clip == pytest.approx(f1_score(b[counts], a[counts], zero_division=1))
        assert got.iou_by_clip == pytest.approx(jaccard_score(b[counts], a[counts], zero_division=1))
        each = [f1_score(t, p, zero_division=1) for p, t in frames]
        assert got.dice_by_frame == pytest.approx(np.mean(each))
        assert got.iou_by_frame == pytest.approx(np.mean([jaccard_score(t, p, zero_division=1) for p, t in frames]))
        present = [score for score, (_, t) in zip(each, frames, strict=True) if t.any()]
        assert got.dice_where_present == (pytest.approx(np.mean(present)) if present else None)
        assert got.empty_frames == len(frames) - len(present)
        assert got.both_empty_frames == sum(not t.any() and not p.any() for p, t in frames)


@given(st.lists(clips(), min_size=1, max_size=4))
def test_counts_of_parts_add(parts: list[tuple[Masks, Masks]]) -> None:
    told, true = (np.concatenate(each) for each in zip(*parts, strict=True))
    whole = overlap(told, true, 3, ignore=IGNORE)
    counted = [overlap(*part, 3, ignore=IGNORE) for part in parts]
    same(sum(counted, start=Overlap.nothing(3)), whole)
    same(sum(reversed(counted), start=Overlap.nothing(3)), whole)
    same(Overlap.from_vector(np.sum([part.vector() for part in counted], axis=0)), whole)
    same(overlap(told[::-1], true[::-1], 3, ignore=IGNORE), whole)
    forward, backward = (segmentation_scores(order, THREE) for order in (counted, counted[::-1]))
    for name, region in forward.regions.items():
        assert asdict(region) == pytest.approx(asdict(backward.regions[name]))


@given(clips())
def test_the_truth_itself_is_perfect(clip: tuple[Masks, Masks]) -> None:
    _, true = clip
    told = np.where(true == IGNORE, 0, true)
    for region in segmentation_scores([overlap(told, true, 3, ignore=IGNORE)], THREE).regions.values():
        assert {region.dice_by_clip, region.iou_by_clip, region.dice_by_frame, region.iou_by_frame} <= {1.0, None}
        assert {region.dice_where_present, region.silent_where_absent} <= {1.0, None}


@given(clips())
def test_swapping_the_classes_swaps_their_scores(clip: tuple[Masks, Masks]) -> None:
    swap = np.arange(256, dtype=np.uint8)
    swap[[1, 2]] = 2, 1
    one, other = (
        segmentation_scores([overlap(told, true, 3, ignore=IGNORE)], THREE).regions
        for told, true in (clip, (swap[clip[0]], swap[clip[1]]))
    )
    assert [one[name] for name in (*THREE[1:], FOREGROUND)] == [other[name] for name in (*THREE[:0:-1], FOREGROUND)]


def test_all_masks_empty() -> None:
    nothing = np.zeros((4, 2, 2), np.uint8)
    silent = segmentation_scores([overlap(nothing, nothing, 2)] * 2, TWO).regions["polyp"]
    assert (silent.dice_by_clip, silent.dice_by_frame, silent.iou_by_frame) == (1, 1, 1)
    assert (silent.dice_where_present, silent.silent_where_absent) == (None, 1)
    assert (silent.frames, silent.empty_frames, silent.both_empty_frames, silent.both_empty_clips) == (8, 8, 8, 2)
    loud = segmentation_scores([overlap(nothing + 1, nothing, 2)], TWO).regions["polyp"]
    assert (loud.dice_by_clip, loud.dice_by_frame, loud.iou_by_frame, loud.silent_where_absent) == (0, 0, 0, 0)
    blind = segmentation_scores([overlap(nothing, nothing + 1, 2)], TWO).regions["polyp"]
    assert (blind.dice_by_clip, blind.dice_by_frame, blind.silent_where_absent) == (0, 0, None)


def test_no_clip_at_all_leaves_nothing_to_say() -> None:
    region = segmentation_scores([], TWO).regions["polyp"]
    assert {value for value in asdict(region).values() if value is not None} == {0}


@pytest.mark.parametrize(
    ("told", "true", "ignore", "message"),
    [
        (np.zeros((1, 2, 2), int), np.zeros((1, 2, 3), int), None, "do not fit"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), None, "do not fit"),
        (np.full((1, 2, 2), 2), np.zeros((1, 2, 2), int), None, r"told to be of class \[2\]"),
        (np.zeros((1, 2, 2), int), np.full((1, 2, 2), 255), None, r"true to be of class \[255\]"),
        (np.zeros((1, 2, 2), int), np.array([[[-1, 1]] * 2]), 255, r"true to be of class \[-1\]"),
    ],
)
def test_what_cannot_be_scored_is_refused(told: Masks, true: Masks, ignore: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlap(told, true, 2, ignore=ignore)


def test_clips_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="another number of classes"):
        segmentation_scores([Overlap.nothing(3)], TWO)


def one_frame(told: list[int], true: list[int]) -> Overlap:
    return overlap(np.array([[told]]), np.array([[true]]), 2)


def test_published_dice_by_hand() -> None:
    """Half right; told where nothing is; silent where nothing is. The first two are the example of docs/scores.md."""
    clips = {
        "a": one_frame([1, 1, 0, 0], [0, 1, 1, 0]),
        "b": one_frame([1, 0, 0, 0], [0, 0, 0, 0]),
        "c": one_frame([0, 0, 0, 0], [0, 0, 0, 0]),
    }
    scores = cvc(clips, leaked={"a", "not here"})
    assert scores == pytest.approx(
        {
            "cvc_dice_as_published": (0.5 + 1 + 0) / 3,
            "cvc_dice_trained_on_as_published": 0.5,
            "cvc_dice_unseen_as_published": 0.5,
            "cvc_dice_right_empty_rule_as_published": (0.5 + 0 + 1) / 3,
            "cvc_clips_all_as_published": 3,
            "cvc_clips_trained_on_as_published": 1,
            "cvc_clips_wrongly_one_as_published": 1,
            "cvc_clips_wrongly_zero_as_published": 1,
        }
    )
    two = cvc({name: clips[name] for name in "ab"}, leaked="a")
    assert (two["cvc_dice_as_published"], two["cvc_dice_right_empty_rule_as_published"]) == (0.75, 0.25)
    assert "cvc_dice_trained_on_as_published" not in cvc(clips, leaked=())
    with pytest.raises(ValueError, match="needs a clip"):
        cvc({}, leaked=())


@given(clips())
def test_published_dice_is_right_but_where_nothing_is(clip: tuple[Masks, Masks]) -> None:
    told, true = clip[0] > 0, np.where(clip[1] == IGNORE, 0, clip[1]) > 0
    percase = dice_percase(int((told & true).sum()), int(told.sum()), int(true.sum()))
    if true.any():
        assert percase == pytest.approx(f1_score(true.ravel(), told.ravel()))
    else:
        assert percase == (1 if told.any() else 0)


def test_the_best_epoch_is_taken_for_each_score() -> None:
    assert best_epoch([{"a": 0.1, "b": 0.9}, {"a": 0.3, "b": 0.2}]) == {"a": 0.3, "b": 0.9}
