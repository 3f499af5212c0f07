"""Windows that leave no frame out, and scores of classes: by hand, by property, and against scikit-learn."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    recall_score,
    roc_auc_score,
)

from endofm.scores.classification import UNLABELLED, binary_auroc, classification_scores, per_video
from endofm.scores.windows import windows


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 40), st.integers(1, 20))
def test_every_frame_is_in_a_window(num_frames: int, length: int, every: int, stride: int) -> None:
    stride = min(stride, length)
    seen_WT = windows(num_frames, length, every=every, stride=stride)
    assert seen_WT.shape[1] == length and seen_WT.min() == 0 and seen_WT.max() == num_frames - 1
    assert set(seen_WT.ravel()) == set(range(num_frames))
    steps_WT = np.diff(seen_WT, axis=1)
    if num_frames >= length:
        distance = min(every, num_frames // length)
        assert (steps_WT == distance).all()
        starts = [seen_WT[seen_WT[:, 0] % distance == row, 0] for row in range(distance)]
        assert all((np.diff(starts_W) <= stride * distance).all() for starts_W in starts)
        fewest = sum(
            1 + math.ceil((len(range(row, num_frames, distance)) - length) / stride) for row in range(distance)
        )
        assert len(seen_WT) == fewest
    else:
        assert len(seen_WT) == 1 and set(np.diff(seen_WT[0])) <= {0, 1}


def test_windows_by_hand() -> None:
    assert windows(10, 4).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert windows(6, 4, stride=1).tolist() == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]
    assert windows(8, 4, every=2).tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert windows(9, 4, every=36).tolist() == [[0, 2, 4, 6], [2, 4, 6, 8], [1, 3, 5, 7]]
    assert windows(1, 4).tolist() == [[0, 0, 0, 0]]
    assert windows(3, 8).tolist() == [[0, 0, 0, 1, 1, 1, 2, 2]]


@pytest.mark.parametrize(("num_frames", "length", "stride"), [(0, 4, 1), (9, 0, 1), (9, 4, 0), (9, 4, 5)])
def test_windows_that_would_skip_frames_are_refused(num_frames: int, length: int, stride: int) -> None:
    with pytest.raises(ValueError, match="no windows of"):
        windows(num_frames, length, stride=stride)


def test_videos_by_hand() -> None:
    probabilities_W2 = [[0.2, 0.8], [1.0, 0.0], [0.6, 0.4]]
    assert per_video(probabilities_W2, [1, 0, 1], 2) == pytest.approx(np.array([[1.0, 0.0], [0.4, 0.6]]))


@pytest.mark.parametrize("videos", [[0, 0, 0], [0, 1, 2], [0, 1]])
def test_a_video_without_a_window_is_refused(videos: list[int]) -> None:
    with pytest.raises(ValueError, match="windows"):
        per_video(np.ones((3, 2)), videos, 2)


def test_classes_by_hand() -> None:
    """The example of docs/scores.md."""
    lesion_V = np.array([0.9, 0.8, 0.4, 0.7, 0.2, 0.1])
    scores = classification_scores(np.stack([1 - lesion_V, lesion_V], axis=1), [1, 1, 1, 0, 0, UNLABELLED], positive=1)
    assert scores.confusion_JJ == ((1, 1), (1, 2))
    assert (scores.f1, scores.accuracy) == (pytest.approx(4 / 6), pytest.approx(3 / 5))
    assert scores.balanced_accuracy == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scores.auroc == pytest.approx(5 / 6)  # of six pairs, only 0.4 against 0.7 is the wrong way round
    assert (scores.counted, scores.unlabelled) == (5, 1)
    assert scores.f1_by_class == (pytest.approx(2 / 4), pytest.approx(4 / 6))


Table = tuple[NDArray[np.float64], NDArray[np.int64]]


@st.composite
def tables(draw: st.DrawFn, classes: int) -> Table:
    """Probabilities with many ties, and labels, some of which are missing."""
    rng, videos = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.integers(1, 30))
    weights_VJ = rng.integers(1, 5, size=(videos, classes)).astype(np.float64)
    weighting = draw(st.sampled_from([None, np.array([0.9] + [0.1 / (classes - 1)] * (classes - 1))]))  # imbalance
    labels_V = rng.choice(classes, size=videos, p=weighting)
    labels_V[rng.random(videos) < draw(st.sampled_from([0, 0.3]))] = UNLABELLED
    return weights_VJ / weights_VJ.sum(axis=1, keepdims=True), labels_V


@pytest.mark.filterwarnings("ignore::UserWarning")  # theirs, where a class that was told is not in the truth
@given(tables(2))
def test_two_classes_as_in_scikit_learn(table: Table) -> None:
    probabilities_V2, labels_V = table
    known_V = labels_V != UNLABELLED
    assume(known_V.any())
    true, told = labels_V[known_V], probabilities_V2[known_V].argmax(axis=1)
    scores = classification_scores(probabilities_V2, labels_V, positive=1)
    assert scores.accuracy == pytest.approx(accuracy_score(true, told))
    assert np.array_equal(scores.confusion_JJ, confusion_matrix(true, told, labels=[0, 1]))
    if true.any() or told.any():
        assert scores.f1 == pytest.approx(f1_score(true, told))
    else:
        assert scores.f1 is None
    if len(set(true)) == 2:
        assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, told))
        assert scores.auroc == pytest.approx(roc_auc_score(true, probabilities_V2[known_V, 1]))
    else:
        assert scores.balanced_accuracy is None and scores.auroc is None


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(tables(4))
def test_more_classes_as_in_scikit_learn(table: Table) -> None:
    probabilities_VJ, labels_V = table
    known_V = labels_V != UNLABELLED
    assume(known_V.any())
    true, probabilities_KJ = labels_V[known_V], probabilities_VJ[known_V]
    told = probabilities_KJ.argmax(axis=1)
    scores = classification_scores(probabilities_VJ, labels_V)
    assert scores.f1 == pytest.approx(f1_score(true, told, average="macro"))
    assert np.array_equal(scores.confusion_JJ, confusion_matrix(true, told, labels=range(4)))
    recalls = recall_score(true, told, average=None, labels=range(4), zero_division=np.nan)
    assert [np.nan if recall is None else recall for recall in scores.recall_by_class] == pytest.approx(
        list(recalls), nan_ok=True
    )
    each = [roc_auc_score(true == j, probabilities_KJ[:, j]) for j in range(4) if len(set(true == j)) == 2]
    assert scores.auroc == (pytest.approx(np.mean(each)) if each else None)
    if len(set(true)) == 4:
        whole = roc_auc_score(true, probabilities_KJ, multi_class="ovr")
        assert scores.auroc == pytest.approx(whole)
        assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, told))


@given(tables(3))
def test_the_order_of_videos_and_windows_says_nothing(table: Table) -> None:
    probabilities_VJ, labels_V = table
    order_V = np.random.default_rng(len(labels_V)).permutation(len(labels_V))
    assert classification_scores(probabilities_VJ[order_V], labels_V[order_V]) == classification_scores(*table)
    videos_W = np.arange(len(labels_V)) // 2
    before = per_video(probabilities_VJ, videos_W, videos_W[-1] + 1)
    assert per_video(probabilities_VJ[order_V], videos_W[order_V], videos_W[-1] + 1) == pytest.approx(before)


@given(tables(2))
def test_flipping_the_classes_flips_the_scores(table: Table) -> None:
    probabilities_V2, labels_V = table
    assume(not np.equal(*probabilities_V2.T).any())  # of equals, the first is told
    flipped_V = np.where(labels_V == UNLABELLED, UNLABELLED, 1 - labels_V)
    one = classification_scores(probabilities_V2, labels_V, positive=1)
    other = classification_scores(probabilities_V2[:, ::-1], flipped_V, positive=0)
    for name in ("f1", "auroc", "balanced_accuracy", "accuracy", "counted", "unlabelled"):
        assert getattr(one, name) == pytest.approx(getattr(other, name)), name
    assert one.f1_by_class == other.f1_by_class[::-1]
    against = binary_auroc(-probabilities_V2[:, 1], labels_V == 1)
    both = binary_auroc(probabilities_V2[:, 1], labels_V == 1)
    assert both is None if against is None else both == pytest.approx(1 - against)


@given(st.lists(st.integers(0, 2), min_size=1))
def test_the_truth_itself_is_perfect(labels: list[int]) -> None:
    scores = classification_scores(np.eye(3)[labels], labels)
    several = len(set(labels)) > 1
    assert scores.f1 == scores.accuracy == 1
    assert scores.auroc == scores.balanced_accuracy == (1 if several else None)


def test_one_class_has_no_auroc_and_no_balance() -> None:
    scores = classification_scores([[0.1, 0.9], [0.3, 0.7]], [1, 1], positive=1)
    assert (scores.auroc, scores.balanced_accuracy, scores.f1, scores.accuracy) == (None, None, 1, 1)
    nothing = classification_scores([[0.9, 0.1]], [0], positive=1)
    assert (nothing.f1, nothing.accuracy) == (None, 1)


def test_no_label_at_all_leaves_nothing_to_say() -> None:
    scores = classification_scores([[0.9, 0.1]] * 3, [UNLABELLED] * 3, positive=1)
    told = {
        name: value for name, value in asdict(scores).items() if value is not None and not name.endswith("_by_class")
    }
    assert told == {"confusion_JJ": ((0, 0), (0, 0)), "counted": 0, "unlabelled": 3}


@pytest.mark.parametrize(
    ("probabilities", "labels", "positive", "message"),
    [
        ([[0.5, 0.5]], [0], None, "two classes need one"),
        ([[0.2, 0.3, 0.5]], [0], 1, "two classes need one"),
        ([[0.5, 0.5]], [0], 2, "two classes need one"),
        ([[1.0]], [0], None, "two classes need one"),
        ([[0.5, 0.5]], [2], 1, "labels below 2"),
        ([[0.5, 0.5]], [-2], 1, "labels below 2"),
        ([[0.5, 0.5]], [0, 1], 1, "labels below 2"),
        ([[math.nan, 0.5]], [0], 1, "not a finite number"),
        ([0.5], [0], 1, "a class each"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    probabilities: list[list[float]], labels: list[int], positive: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classification_scores(probabilities, labels, positive=positive)
