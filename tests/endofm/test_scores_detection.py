"""Scores of boxes: by hand, by property, against pycocotools asked another way; and F1 as Endo-FM published it."""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import iou as coco_iou

from endofm.scores.detection import (
    RULES,
    Boxes,
    Counts,
    Frame,
    Rule,
    average_precision,
    best_threshold,
    coco_predictions,
    coco_truth,
    count,
    detection_scores,
    hits,
    no_boxes,
    pairwise_iou,
)
from endofm.scores.published import kumc

CLASSES = ("adenoma", "hyperplastic")
Corners = tuple[float, float, float, float]


def told(*boxes: tuple[Corners, float, int]) -> Boxes:
    corners, scores, labels = zip(*boxes, strict=True) if boxes else ((), (), ())
    return Boxes(np.array(corners), np.array(labels, np.int64), np.array(scores))


def true(*boxes: tuple[Corners, int]) -> Boxes:
    corners, labels = zip(*boxes, strict=True) if boxes else ((), ())
    return Boxes(np.array(corners), np.array(labels, np.int64))


def frame(said: Boxes, truth: Boxes | None, name: str = "f") -> Frame:
    return Frame(name, 32, 32, said, truth)


@st.composite
def frames(draw: st.DrawFn, *, ties: bool = True) -> list[Frame]:
    """Frames with tiny boxes, many near a true one, some in none, some unlabelled."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def boxes(number: int) -> np.ndarray:
        start_K2, size_K2 = rng.integers(0, 20, size=(number, 2)), rng.integers(1, 8, size=(number, 2))
        return np.concatenate([start_K2, start_K2 + size_K2], axis=1).astype(np.float64)

    made = []
    for number in range(draw(st.integers(1, 8))):
        true_K4, strays_K4 = boxes(rng.integers(0, 4)), boxes(rng.integers(0, 3))
        near_K4 = np.repeat(true_K4, rng.integers(0, 3, size=len(true_K4)), axis=0)
        near_K4[:, :2] -= rng.integers(0, 2, size=(len(near_K4), 2))
        told_K4 = np.concatenate([near_K4, strays_K4])
        scores_K = rng.integers(1, 9, size=len(told_K4)) / 8 if ties else rng.permutation(len(told_K4) * 9)[::9] / 999
        said = Boxes(told_K4, rng.integers(0, 2, size=len(told_K4)), scores_K + (0 if ties else number / 9999))
        truth = Boxes(true_K4, rng.integers(0, 2, size=len(true_K4)))
        made.append(frame(said, truth if rng.random() < 0.9 else None, f"frame {number}"))
    return made


def test_boxes_by_hand() -> None:
    """The example of docs/scores.md."""
    first = frame(
        told(((0, 0, 10, 10), 0.9, 0), ((0, 0, 10, 8), 0.8, 0), ((20, 20, 24, 24), 0.7, 0), ((9, 9, 11, 11), 0.2, 0)),
        true(((0, 0, 10, 9), 0), ((20, 20, 24, 28), 1)),
    )
    second = frame(told(((5, 5, 9, 9), 0.6, 1)), true())
    both = [first, second]
    assert [hits(first.told, first.true or no_boxes(), rule).tolist() for rule in RULES] == [
        [True, False, False, False],  # the second lies on a lesion that is taken, the third is told as another class
        [True, False, True, False],  # an IoU of exactly one half
        [True, False, True, False],
    ]
    exact = count(both, 0.5, "iou50")
    assert exact == Counts(1, 3, 1, 2, 1, 1)
    assert (exact.precision, exact.recall, exact.f1) == (1 / 4, 1 / 2, 2 / 6)
    assert (exact.false_alarms_per_frame, exact.false_alarms_per_negative_frame) == (1.5, 1)
    anywhere = count(both, 0.5, "iou50_any_class")
    assert (anywhere.precision, anywhere.recall, anywhere.f1) == (2 / 4, 1, 4 / 6)
    assert best_threshold(both, "iou50") == 0.9  # 2/3; then 1/2, 2/5, 1/3
    assert best_threshold(both, "iou50_any_class") == 0.7  # 2/3, 1/2, 4/5, 2/3


def test_the_best_box_is_taken_and_not_the_first() -> None:
    """The surer box could hit both; it takes the one that it fits better, so that the other box has one left."""
    truth = true(((0, 0, 10, 10), 0), ((0, 2, 10, 12), 0))
    assert hits(told(((0, 2, 10, 12), 0.9, 0), ((0, 0, 10, 7), 0.8, 0)), truth, "iou50").tolist() == [True, True]


@pytest.mark.parametrize(("x", "y", "inside"), [(4, 4, True), (7.99, 5.99, True), (8, 5, False), (5, 6, False)])
def test_the_far_edge_is_outside(x: float, y: float, inside: bool) -> None:
    point = told(((x, y, x, y), 0.9, 1))
    assert hits(point, true(((4, 4, 8, 6), 0)), "centre").tolist() == [inside]
    assert hits(point, true(((4, 4, 8, 6), 0)), "iou50_any_class").tolist() == [False]


@given(frames())
def test_intersection_over_union_as_in_coco(some: list[Frame]) -> None:
    for each in some:
        if each.true is not None and len(each.told) and len(each.true):
            size_first = [np.hstack([b[:, :2], b[:, 2:] - b[:, :2]]) for b in (each.told.boxes_K4, each.true.boxes_K4)]
            crowd = np.zeros(len(each.true), np.uint8)
            assert pairwise_iou(each.told.boxes_K4, each.true.boxes_K4) == pytest.approx(coco_iou(*size_first, crowd))


@given(frames(), st.sampled_from(RULES), st.floats(0, 1))
def test_counts_hold_together(some: list[Frame], rule: Rule, threshold: float) -> None:
    counts = count(some, threshold, rule)
    labelled = [(each.told, each.true) for each in some if each.true is not None]
    assert counts.hits + counts.missed == sum(len(truth) for _, truth in labelled)
    kept = [int((np.asarray(said.scores_K) >= threshold).sum()) for said, _ in labelled]
    assert counts.hits + counts.false_alarms == sum(kept)
    alarms = [number for number, (_, truth) in zip(kept, labelled, strict=True) if not len(truth)]
    assert (counts.negative_frames, counts.negative_false_alarms) == (len(alarms), sum(alarms))
    assert count(some, threshold, "iou50").hits <= count(some, threshold, "iou50_any_class").hits
    middle = len(some) // 2
    assert count(some[:middle], threshold, rule) + count(some[middle:], threshold, rule) == counts
    assert count(reversed(some), threshold, rule) == counts


@given(frames(), st.sampled_from(RULES), st.floats(0, 1))
def test_boxes_below_the_threshold_change_nothing(some: list[Frame], rule: Rule, threshold: float) -> None:
    def without(said: Boxes) -> Boxes:
        assert said.scores_K is not None
        kept_K = said.scores_K >= threshold
        return Boxes(said.boxes_K4[kept_K], said.labels_K[kept_K], said.scores_K[kept_K])

    assert count([replace(each, told=without(each.told)) for each in some], 0, rule) == count(some, threshold, rule)


@given(frames(), st.sampled_from(RULES))
def test_no_threshold_is_better_than_the_best(some: list[Frame], rule: Rule) -> None:
    if not any(each.true is not None and len(each.true) for each in some):
        with pytest.raises(ValueError, match="no frame has a true box"):
            best_threshold(some, rule)
        return
    best = best_threshold(some, rule)
    every = {float(score) for each in some for score in np.asarray(each.told.scores_K)}
    f1_by_threshold = {threshold: count(some, threshold, rule).f1 or 0 for threshold in every | {best}}
    most = max(f1_by_threshold.values())
    assert f1_by_threshold[best] == pytest.approx(most)
    if most:
        assert not [high for high, f1 in f1_by_threshold.items() if high > best and f1 >= most]
    else:
        assert best == 0.5


@given(frames())
def test_swapping_the_classes_swaps_their_scores(some: list[Frame]) -> None:
    def swapped(boxes: Boxes) -> Boxes:
        return replace(boxes, labels_K=1 - boxes.labels_K)

    other = [
        replace(each, told=swapped(each.told), true=None if each.true is None else swapped(each.true)) for each in some
    ]
    one, two = detection_scores(some, CLASSES, 0.5), detection_scores(other, CLASSES[::-1], 0.5)
    assert one == pytest.approx(two)


def asked_directly(some: list[Frame], number: int) -> tuple[float, float]:
    """AP50 and mAP as pycocotools prints them, from files."""
    labelled = [each for each in some if each.true is not None]
    truth = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = json.loads(json.dumps(coco_truth(labelled, CLASSES[:number])))
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(coco_predictions(labelled)))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1]), float(evaluation.stats[0])


@given(frames())
def test_average_precision_as_pycocotools_sums_it_up(some: list[Frame]) -> None:
    ours = average_precision(some, CLASSES)
    if not any(each.true is not None and len(each.told) for each in some):
        assert ours.ap50 in {0, None} and ours.map in {0, None}
        return
    ap50, ap = asked_directly(some, 2)
    assert (ours.ap50, ours.map) == ((None, None) if ap50 < 0 else (pytest.approx(ap50), pytest.approx(ap)))


@given(frames(ties=False))
def test_average_precision_follows_from_our_own_hits(some: list[Frame]) -> None:
    """Two implementations: theirs, and precision and recall at every threshold by `hits`."""
    labelled = [(each.told, each.true) for each in some if each.true is not None]
    by_class = []
    for j in range(2):
        parts = [
            (Boxes(t.boxes_K4[t.labels_K == j], t.labels_K[t.labels_K == j], np.asarray(t.scores_K)[t.labels_K == j]),
             Boxes(g.boxes_K4[g.labels_K == j], g.labels_K[g.labels_K == j])) for t, g in labelled
        ]  # fmt: skip
        if not (num_true := sum(len(g) for _, g in parts)):
            continue
        scores_N = np.concatenate([np.asarray(t.scores_K) for t, _ in parts])
        order_N = np.argsort(-scores_N, kind="stable")
        right_N = np.concatenate([hits(t, g, "iou50") for t, g in parts])[order_N].cumsum()
        precision_N, recall_N = right_N / np.arange(1, len(right_N) + 1), right_N / num_true
        levels = [precision_N[recall_N >= level - 1e-12].max(initial=0) for level in np.linspace(0, 1, 101)]
        by_class.append(np.mean(levels))
    ours = average_precision(some, CLASSES).ap50
    assert ours == (pytest.approx(np.mean(by_class)) if by_class else None)


@given(frames())
def test_the_truth_itself_is_perfect(some: list[Frame]) -> None:
    perfect = [
        replace(each, told=replace(each.true, scores_K=np.ones(len(each.true))))
        for each in some
        if each.true is not None
    ]
    scores = detection_scores(perfect, CLASSES, 0.5)
    for name in ("ap50", "map", *(f"{rule}_{what}" for rule in RULES for what in ("precision", "recall", "f1"))):
        assert scores[name] == (pytest.approx(1) if any(len(each.told) for each in perfect) else None), name
    assert kumc(perfect)["kumc_f1_as_published"] == (1 if any(len(each.told) for each in perfect) else 0)


def test_nothing_told_and_nothing_there() -> None:
    lesion = true(((4, 4, 5, 5), 0))
    blind = detection_scores([frame(no_boxes(told=True), lesion)], CLASSES, 0.5)
    assert (blind["iou50_precision"], blind["iou50_recall"], blind["iou50_f1"], blind["ap50"]) == (None, 0, 0, 0)
    assert (blind["ap50_adenoma"], blind["ap50_hyperplastic"]) == (0, None)
    assert blind["iou50_false_alarms_per_negative_frame"] is None
    loud = detection_scores([frame(told(((4, 4, 5, 5), 0.9, 0)), no_boxes())], CLASSES, 0.5)
    assert (loud["iou50_precision"], loud["iou50_recall"], loud["iou50_f1"], loud["ap50"]) == (0, None, 0, None)
    assert loud["iou50_false_alarms_per_negative_frame"] == 1
    silent = detection_scores([frame(no_boxes(told=True), no_boxes())], CLASSES, 0.5)
    assert (silent["iou50_f1"], silent["ap50"], silent["map"], silent["negative_frames"]) == (None, None, None, 1)
    unseen = detection_scores([frame(no_boxes(told=True), None)], CLASSES, 0.5)
    assert (unseen["frames"], unseen["unlabelled_frames"], unseen["iou50_f1"]) == (0, 1, None)
    assert best_threshold([frame(no_boxes(told=True), lesion)]) == 0.5


def test_one_box_of_one_pixel_on_the_only_frame_is_found() -> None:
    """In files of COCO's, a true box numbered 0 would never be found."""
    pixel = [frame(told(((7, 7, 8, 8), 0.6, 0)), true(((7, 7, 8, 8), 0)))]
    assert average_precision(pixel, CLASSES[:1]).map == pytest.approx(1)
    assert count(pixel, 0.6, "iou50") == Counts(1, 0, 0, 1, 0, 0)


def test_files_of_cocos_by_hand() -> None:
    some = [
        frame(told(((1, 2, 4, 4), 0.5, 1)), None, "a.png"),
        frame(told(((0, 0, 2, 3), 0.25, 0)), true(((1, 2, 4, 4), 1)), "b.png"),
    ]
    assert coco_truth(some, CLASSES) == {
        "images": [{"id": 2, "file_name": "b.png", "height": 32, "width": 32}],
        "categories": [{"id": 1, "name": "adenoma"}, {"id": 2, "name": "hyperplastic"}],
        "annotations": [
            {"id": 1, "image_id": 2, "category_id": 2, "bbox": [1.0, 2.0, 3.0, 2.0], "area": 6.0, "iscrowd": 0}
        ],
    }
    assert coco_predictions(some) == [
        {"image_id": 1, "category_id": 2, "bbox": [1.0, 2.0, 3.0, 2.0], "score": 0.5},
        {"image_id": 2, "category_id": 1, "bbox": [0.0, 0.0, 2.0, 3.0], "score": 0.25},
    ]


@pytest.mark.parametrize(
    ("corners", "labels", "scores", "message"),
    [
        ([[0, 0, 1, 1]], [0, 0], [0.5], "as many labels"),
        ([[0, 0, 1, 1]], [0], [0.5, 0.5], "as many labels"),
        ([[0, 0, 1, 1]], [0], [math.nan], "not a finite number"),
        ([[0, 0, math.inf, 1]], [0], [0.5], "not a finite number"),
        ([[2, 0, 1, 1]], [0], [0.5], "end before it begins"),
    ],
)
def test_what_is_no_box_is_refused(
    corners: list[list[float]], labels: list[int], scores: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Boxes(np.array(corners), np.array(labels), np.array(scores))


def test_boxes_that_were_told_need_scores() -> None:
    with pytest.raises(ValueError, match="need scores"):
        count([frame(no_boxes(), no_boxes())], 0.5, "iou50")


def test_published_f1_by_hand() -> None:
    """The example of docs/scores.md: a box in the wrong place is as good as any."""
    lesion, elsewhere = true(((0, 0, 4, 4), 0)), ((20, 20, 30, 30), 0.5, 1)
    some = [
        frame(told(elsewhere, elsewhere), lesion),
        frame(told(((0, 0, 4, 4), 0.49, 0)), lesion),
        frame(told(elsewhere), no_boxes()),
        frame(no_boxes(told=True), no_boxes()),
        frame(told(elsewhere), None),
    ]
    assert kumc(some) == {
        "kumc_precision_as_published": 0.5,
        "kumc_recall_as_published": 0.5,
        "kumc_f1_as_published": 0.5,
    }
    assert detection_scores(some, CLASSES, 0.5)["iou50_f1"] == 0
    assert set(kumc([]).values()) == {0}
