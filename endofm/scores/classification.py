"""Scores of classes that were told of whole videos.

Shape suffixes: W windows, V videos, J classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from endofm.scores.ratios import f1, mean, ratio

UNLABELLED = -1
"""In the place of a class where nobody said what a video shows."""


@dataclass(frozen=True)
class ClassificationScores:
    """Shares from 0 to 1; None is undefined, see `classification_scores`."""

    f1: float | None
    auroc: float | None
    balanced_accuracy: float | None
    accuracy: float | None
    f1_by_class: tuple[float | None, ...]
    recall_by_class: tuple[float | None, ...]
    confusion_JJ: tuple[tuple[int, ...], ...]
    """Videos by true class (row) and told class (column)."""
    counted: int
    """Videos with a label, which all of this is about."""
    unlabelled: int
    """Videos without one, which were left out."""


def per_video(probabilities_WJ: ArrayLike, videos_W: ArrayLike, num_videos: int) -> NDArray[np.float64]:
    """Class probabilities of videos, float64 [V, J]: the mean over the windows of each, all weighing alike.

    Args:
        probabilities_WJ: of windows, such as `windows` cuts, in any order.
        videos_W: which video each window is of, from 0.
        num_videos: V.

    Raises:
        ValueError: a video has no window, or a number is not finite.
    """
    probabilities = _finite(probabilities_WJ)
    videos = np.asarray(videos_W, np.int64)
    if videos.shape != probabilities.shape[:1]:
        raise ValueError(f"{len(probabilities)} windows have videos of shape {list(videos.shape)}")
    counts_V = np.bincount(videos, minlength=num_videos)
    if len(counts_V) != num_videos or not counts_V.all():
        raise ValueError(f"each of {num_videos} videos needs a window, and no other; windows by video: {counts_V}")
    sums_VJ = np.stack([np.bincount(videos, column_W, num_videos) for column_W in probabilities.T], axis=1)
    return sums_VJ / counts_V[:, None]


def classification_scores(
    probabilities_VJ: ArrayLike, labels_V: ArrayLike, *, positive: int | None = None
) -> ClassificationScores:
    """Scores of the class that each video most probably is of; the first of equals.

    * `f1`: 2 TP / (2 TP + FP + FN). Of two classes it is that of `positive`; of more, the mean over the classes that
      were meant or told at least once, all weighing alike ("macro"). None if there are no such classes.
    * `auroc`: the probability that a video of the class gets a higher probability of it than one of the others, ties
      counting one half (Mann and Whitney, 1947). Of two classes it is that of `positive`; of more, the mean over the
      classes, each against the rest (Provost and Domingos, 2000, without their weights). A class that no video or
      that every video is of has none and is left out. None, never 0.5, if no class has one.
    * `balanced_accuracy`: the mean of the classes' recalls, over classes that are there (Brodersen et al., 2010).
      None if fewer than two are: always telling the same would be perfect.
    * `accuracy`: the share of videos whose class was told. None without a video.

    All but `auroc` are as in scikit-learn, where it gives a number without a warning.

    Args:
        probabilities_VJ: of at least two classes.
        labels_V: classes from 0; `UNLABELLED` leaves a video out.
        positive: which of two classes is to be found; needed for two, and for no other number of them.

    Raises:
        ValueError: shapes, labels or `positive` do not fit; a probability is not finite.
    """
    probabilities, labels = _finite(probabilities_VJ), np.asarray(labels_V, np.int64)
    num_classes = probabilities.shape[1]
    if num_classes < 2 or (positive is None) == (num_classes == 2) or positive not in {None, *range(num_classes)}:
        raise ValueError(f"of {num_classes} classes, positive = {positive}: two classes need one of them, more none")
    if labels.shape != probabilities.shape[:1] or not ((labels >= UNLABELLED) & (labels < num_classes)).all():
        raise ValueError(f"{len(probabilities)} videos need as many labels below {num_classes}, not {labels}")
    known_V = labels != UNLABELLED
    probabilities, labels = probabilities[known_V], labels[known_V]
    confusion_JJ = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion_JJ, (labels, probabilities.argmax(axis=1)), 1)
    hits_J, true_J, told_J = confusion_JJ.diagonal(), confusion_JJ.sum(axis=1), confusion_JJ.sum(axis=0)
    f1_J = [f1(int(h), int(p - h), int(t - h)) for h, t, p in zip(hits_J, true_J, told_J, strict=True)]
    recall_J = [ratio(int(hits), int(true)) for hits, true in zip(hits_J, true_J, strict=True)]
    if positive is None:
        auroc = mean(binary_auroc(probabilities[:, j], labels == j) for j in range(num_classes))
    else:
        auroc = binary_auroc(probabilities[:, positive], labels == positive)
    return ClassificationScores(
        f1=mean(f1_J) if positive is None else f1_J[positive],
        auroc=auroc,
        balanced_accuracy=mean(recall_J) if np.count_nonzero(true_J) > 1 else None,
        accuracy=ratio(int(hits_J.sum()), len(labels)),
        f1_by_class=tuple(f1_J),
        recall_by_class=tuple(recall_J),
        confusion_JJ=tuple(tuple(map(int, row)) for row in confusion_JJ),
        counted=len(labels),
        unlabelled=int((~known_V).sum()),
    )


def binary_auroc(scores_V: ArrayLike, positive_V: ArrayLike) -> float | None:
    """The area under the receiver operating characteristic; None unless both kinds are there."""
    scores, positive = np.asarray(scores_V, np.float64), np.asarray(positive_V, bool)
    pairs = int(positive.sum()) * int((~positive).sum())
    if not pairs:
        return None
    least = positive.sum() * (positive.sum() + 1) / 2  # sum of the ranks of the positive, were they all below
    return float((rankdata(scores)[positive].sum() - least) / pairs)


def _finite(probabilities_XJ: ArrayLike) -> NDArray[np.float64]:
    probabilities = np.asarray(probabilities_XJ, np.float64)
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities have a row and a class each, not the shape {list(probabilities.shape)}")
    if not np.isfinite(probabilities).all():
        raise ValueError("a probability is not a finite number: the network that gave it is broken")
    return probabilities
