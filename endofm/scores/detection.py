"""Scores of boxes. A box is x0, y0, x1, y1 in pixels with the far edge outside; scores are from 0 to 1.

Shape suffixes: K boxes of a frame, N boxes of all frames.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from endofm.scores.ratios import f1, ratio

Rule = Literal["iou50", "iou50_any_class", "centre"]
RULES: tuple[Rule, ...] = ("iou50", "iou50_any_class", "centre")
"""When a told box may hit a true one: an IoU of 0.5 at least and the same class; the same whatever the class; or its
centre lies in the true box, whatever the class."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of a frame: float64 [K, 4], classes from 0 int64 [K], and the scores of those that were told, float64 [K].

    Raises:
        ValueError: shapes differ, a number is not finite, or a box ends before it begins.
    """

    boxes_K4: NDArray[np.float64]
    labels_K: NDArray[np.int64]
    scores_K: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        set_to = functools.partial(object.__setattr__, self)  # frozen, but as it was given it may be float32, or a list
        set_to("boxes_K4", np.asarray(self.boxes_K4, np.float64).reshape(-1, 4))
        set_to("labels_K", np.asarray(self.labels_K, np.int64))
        if self.scores_K is not None:
            set_to("scores_K", np.asarray(self.scores_K, np.float64))
        others = [values for values in (self.labels_K, self.scores_K) if values is not None]
        if any(values.shape != (len(self),) for values in others):
            raise ValueError(f"{len(self)} boxes need as many labels and scores, not {[v.shape for v in others]}")
        if not all(np.isfinite(values).all() for values in (self.boxes_K4, *others)):
            raise ValueError("a box or its score is not a finite number: the network that gave it is broken")
        if (self.boxes_K4[:, 2:] < self.boxes_K4[:, :2]).any():
            raise ValueError(f"a box is x0, y0, x1, y1, and cannot end before it begins: {self.boxes_K4.tolist()}")

    def __len__(self) -> int:
        return len(self.boxes_K4)


def no_boxes(*, told: bool = False) -> Boxes:
    """Of a frame in which nothing is, or nothing was told."""
    return Boxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0) if told else None)


@dataclass(frozen=True, eq=False)
class Frame:
    """What was told of a picture, and what is true. `true` is None where nobody labelled it, and then it is left out;
    `Boxes` without a box are a frame in which nothing is."""

    name: str
    height: int
    width: int
    told: Boxes
    true: Boxes | None


def pairwise_iou(boxes_K4: ArrayLike, others_K4: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of boxes with boxes, [K, K']; 0 where both have no area."""
    a_K14, b_1K4 = np.asarray(boxes_K4, np.float64)[:, None], np.asarray(others_K4, np.float64)[None]
    shared = np.minimum(a_K14[..., 2:], b_1K4[..., 2:]) - np.maximum(a_K14[..., :2], b_1K4[..., :2])
    shared_KK = shared.clip(0).prod(axis=-1)
    union_KK = _areas(a_K14) + _areas(b_1K4) - shared_KK
    iou_KK: NDArray[np.float64] = np.divide(shared_KK, union_KK, out=np.zeros_like(shared_KK), where=union_KK > 0)
    return iou_KK


def _areas(boxes_X4: NDArray[np.float64]) -> NDArray[np.float64]:
    areas_X: NDArray[np.float64] = (boxes_X4[..., 2:] - boxes_X4[..., :2]).prod(axis=-1)
    return areas_X


def hits(told: Boxes, true: Boxes, rule: Rule) -> NDArray[np.bool_]:
    """Which told boxes of a frame hit a true one, bool [K].

    The told boxes choose in the order of their scores, the highest first and equals in the order given: each takes,
    of the true boxes that it may hit and that none before it took, the one with the greatest IoU. So a true box is hit
    once, and a second box on the same lesion is a false positive. Leaving out boxes of low scores changes nothing for
    the others, so one call serves all thresholds.
    """
    iou_KK = pairwise_iou(told.boxes_K4, true.boxes_K4)
    may_KK = _may_hit(told, true, iou_KK, rule)
    hit_K = np.zeros(len(told), bool)
    for place in np.argsort(-scores_of(told), kind="stable"):
        if may_KK[place].any():
            taken = np.where(may_KK[place], iou_KK[place], -1).argmax()
            may_KK[:, taken], hit_K[place] = False, True
    return hit_K


def _may_hit(told: Boxes, true: Boxes, iou_KK: NDArray[np.float64], rule: Rule) -> NDArray[np.bool_]:
    if rule == "centre":
        centre_K12 = (told.boxes_K4[:, None, :2] + told.boxes_K4[:, None, 2:]) / 2
        first_1K2, beyond_1K2 = true.boxes_K4[None, :, :2], true.boxes_K4[None, :, 2:]
        inside_KK: NDArray[np.bool_] = np.all((first_1K2 <= centre_K12) & (centre_K12 < beyond_1K2), axis=-1)
        return inside_KK
    near_KK: NDArray[np.bool_] = iou_KK >= 0.5
    if rule == "iou50":
        near_KK[told.labels_K[:, None] != true.labels_K[None]] = False
    return near_KK


def scores_of(told: Boxes) -> NDArray[np.float64]:
    """Of boxes that were told; those of a truth have none, which is a ValueError."""
    if told.scores_K is None:
        raise ValueError("boxes that were told need scores")
    return told.scores_K


@dataclass(frozen=True)
class Counts:
    """Of the boxes that score as much as a threshold; counts of parts of a data set add."""

    hits: int = 0
    false_alarms: int = 0
    missed: int = 0
    frames: int = 0
    negative_frames: int = 0
    """Frames in which nothing is."""
    negative_false_alarms: int = 0
    """False alarms in them."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def precision(self) -> float | None:
        """Share of told boxes that hit; None if none was told."""
        return ratio(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> float | None:
        """Share of true boxes that were hit; None if there is none."""
        return ratio(self.hits, self.hits + self.missed)

    @property
    def f1(self) -> float | None:
        """2 TP / (2 TP + FP + FN); None if there is no box at all."""
        return f1(self.hits, self.false_alarms, self.missed)

    @property
    def false_alarms_per_frame(self) -> float | None:
        """None without a frame."""
        return ratio(self.false_alarms, self.frames)

    @property
    def false_alarms_per_negative_frame(self) -> float | None:
        """None where every frame shows something."""
        return ratio(self.negative_false_alarms, self.negative_frames)


def count(frames: Iterable[Frame], threshold: float, rule: Rule) -> Counts:
    """Counts of the labelled frames, of boxes whose score is `threshold` at least."""
    total = Counts()
    for frame in frames:
        if frame.true is not None:
            right_K = hits(frame.told, frame.true, rule)[scores_of(frame.told) >= threshold]
            right, wrong, nothing = int(right_K.sum()), int((~right_K).sum()), not len(frame.true)
            total += Counts(right, wrong, len(frame.true) - right, 1, int(nothing), wrong if nothing else 0)
    return total


def best_threshold(frames: Iterable[Frame], rule: Rule = "iou50") -> float:
    """The score that boxes should have at least for the greatest F1; the highest of equally good ones. Choose it on
    validation frames. 0.5 where nothing is ever hit, for then no score is better than another.

    Raises:
        ValueError: no labelled frame has a true box, so there is no recall.
    """
    labelled = [(frame.told, frame.true) for frame in frames if frame.true is not None]
    num_true = sum(len(true) for _, true in labelled)
    if not num_true:
        raise ValueError("a threshold is chosen by what it finds, and no frame has a true box: choose it on others")
    scores_N = np.concatenate([scores_of(told) for told, _ in labelled])
    hits_N = np.concatenate([hits(told, true, rule) for told, true in labelled])
    if not hits_N.any():
        return 0.5
    order_N = np.argsort(-scores_N, kind="stable")
    f1_N = 2 * hits_N[order_N].cumsum() / (np.arange(1, len(order_N) + 1) + num_true)
    falling_N = scores_N[order_N]
    last_of_equals_N = np.append(falling_N[1:] < falling_N[:-1], True)  # a threshold takes all of them or none
    return float(falling_N[np.where(last_of_equals_N, f1_N, -1).argmax()])


def coco_truth(frames: Sequence[Frame], classes: Sequence[str]) -> dict[str, Any]:
    """The labelled frames as a file of COCO's, as json takes it: pictures and boxes from 1 in their order, and class j
    as category j + 1. COCO's boxes are x, y, width, height."""
    labelled = [(number, frame, frame.true) for number, frame in enumerate(frames, 1) if frame.true is not None]
    boxes = [
        {
            "image_id": number,
            "category_id": int(label) + 1,
            "bbox": _xywh(box),
            "area": float(_areas(box)),
            "iscrowd": 0,
        }
        for number, _, true in labelled
        for box, label in zip(true.boxes_K4, true.labels_K, strict=True)
    ]
    return {
        "images": [
            {"id": number, "file_name": frame.name, "height": frame.height, "width": frame.width}
            for number, frame, _ in labelled
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
        "annotations": [{"id": number, **box} for number, box in enumerate(boxes, 1)],
    }


def coco_predictions(frames: Sequence[Frame]) -> list[dict[str, Any]]:
    """What was told of all frames, as a file of results of COCO's, with the numbers of `coco_truth`."""
    return [
        {"image_id": number, "category_id": int(label) + 1, "bbox": _xywh(box), "score": float(score)}
        for number, frame in enumerate(frames, 1)
        for box, label, score in zip(frame.told.boxes_K4, frame.told.labels_K, scores_of(frame.told), strict=True)
    ]


def _xywh(box_4: NDArray[np.float64]) -> list[float]:
    x0, y0, x1, y1 = map(float, box_4)
    return [x0, y0, x1 - x0, y1 - y0]


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's: the mean over 101 recalls of the best precision from there on, then over the classes that have a true
    box; the 100 highest scores of each frame and class count. None if no class has a true box."""

    ap50: float | None
    """At an IoU of 0.5."""
    map: float | None
    """The mean over the IoUs 0.5, 0.55 ... 0.95."""
    ap50_by_class: dict[str, float | None]


def average_precision(frames: Sequence[Frame], classes: Sequence[str]) -> AveragePrecision:
    """Computed by pycocotools from what `coco_truth` and `coco_predictions` give, without a threshold."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labelled = [frame for frame in frames if frame.true is not None]
    truth, told = COCO(), coco_predictions(labelled)
    truth.dataset = coco_truth(labelled, classes)
    if not truth.dataset["annotations"]:
        return AveragePrecision(None, None, dict.fromkeys(classes))
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(told) if told else COCO(), "bbox")
        if not told:  # it cannot load a list of nothing
            evaluation.params.imgIds, evaluation.params.catIds = truth.getImgIds(), truth.getCatIds()
        evaluation.evaluate()
        evaluation.accumulate()
    # IoUs, recalls, classes, sizes (all of them first), numbers of boxes (100 last); -1 where a class has no true box.
    precision_URJ = evaluation.eval["precision"][:, :, :, 0, -1]
    by_class = [_known(precision_URJ[0, :, j]) for j in range(len(classes))]
    return AveragePrecision(
        ap50=_known(precision_URJ[0]),
        map=_known(precision_URJ),
        ap50_by_class=dict(zip(classes, by_class, strict=True)),
    )


def _known(precision: NDArray[np.float64]) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def detection_scores(frames: Sequence[Frame], classes: Sequence[str], threshold: float) -> dict[str, float | None]:
    """All scores of frames, by name; None is undefined.

    For each of `RULES`, `<rule>_precision`, `_recall`, `_f1`, `_false_alarms_per_frame` and
    `_false_alarms_per_negative_frame`, over all boxes of all classes at `threshold`, which `best_threshold` chose on
    others; `ap50`, `map` and `ap50_<class>` of `average_precision`; and `threshold`, `frames`, `negative_frames`,
    `unlabelled_frames`.
    """
    scores: dict[str, float | None] = {"threshold": threshold}
    total = Counts()
    for rule in RULES:
        total = count(frames, threshold, rule)
        names = ("precision", "recall", "f1", "false_alarms_per_frame", "false_alarms_per_negative_frame")
        scores |= {f"{rule}_{name}": getattr(total, name) for name in names}
    precision = average_precision(frames, classes)
    scores |= {"ap50": precision.ap50, "map": precision.map}
    scores |= {f"ap50_{name}": value for name, value in precision.ap50_by_class.items()}
    left_out = len(frames) - total.frames
    return scores | {
        "frames": total.frames,
        "negative_frames": total.negative_frames,
        "unlabelled_frames": left_out,
    }
