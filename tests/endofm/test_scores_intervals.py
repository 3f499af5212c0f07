"""Intervals over seeds and patients, and the view by which PolypDiag was judged as published."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from endofm.scores.classification import classification_scores
from endofm.scores.intervals import Interval, OverSeeds, bootstrap, over_seeds, paired_difference
from endofm.scores.published import polypdiag, polypdiag_frames, polypdiag_size


def test_seeds_by_hand() -> None:
    """The example of docs/scores.md."""
    assert over_seeds([0.9, 0.8, 0.7]) == OverSeeds(pytest.approx(0.8), pytest.approx(0.1), 3, 0)
    assert over_seeds([0.9, None]) == OverSeeds(0.9, None, 1, 1)
    assert over_seeds([None]) == OverSeeds(None, None, 0, 1) and over_seeds([]) == OverSeeds(None, None, 0, 0)
    told = [str(over_seeds(values)) for values in ([0.9, 0.8, 0.7], [0.9], [0.9, 0.7, None], [None])]
    assert told == [
        "0.800 ± 0.100 (3 runs)",
        "0.900 (one run, no deviation)",
        "0.800 ± 0.141 (2 runs; undefined in 1 more)",
        "undefined",
    ]


def mean_of(values: NDArray[np.float64], units_N: NDArray[np.int64]) -> float:
    return float(values[units_N].mean())


def test_the_interval_of_a_mean_is_that_of_the_binomial_distribution() -> None:
    """Of 40 units, 20 score 1: the resampled sum is binomial (40, 1/2), of which 95 % lie from 14 to 26."""
    values = np.arange(40) % 2.0
    interval = bootstrap(range(40), lambda units_N: mean_of(values, units_N))
    assert interval == Interval(0.5, pytest.approx(14 / 40), pytest.approx(26 / 40), 40, 2000, 0)


def test_frames_of_a_patient_are_drawn_together() -> None:
    """A thousand frames of two patients are two observations: the mean may well be that of either."""
    values = np.repeat([0.0, 1.0], 500)
    interval = bootstrap(["a"] * 500 + ["b"] * 500, lambda units_N: mean_of(values, units_N))
    assert (interval.low, interval.high, interval.groups) == (0, 1, 2)
    as_if_each = bootstrap(range(1000), lambda units_N: mean_of(values, units_N))
    assert as_if_each.low is not None and as_if_each.low > 0.4


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 9)), min_size=1, max_size=12), st.integers(0, 9))
def test_the_order_of_units_says_nothing_and_the_seed_everything(rows: list[tuple[str, int]], seed: int) -> None:
    def interval(some: list[tuple[str, int]]) -> Interval:
        values = np.array([value for _, value in some], float)
        return bootstrap([group for group, _ in some], lambda units_N: mean_of(values, units_N), seed=seed, draws=40)

    one, other = interval(rows), interval(rows[::-1])
    assert one == interval(rows)
    assert (one.low, one.high, one.groups) == (pytest.approx(other.low), pytest.approx(other.high), other.groups)
    if one.groups < 2:
        assert (one.low, one.high, one.draws) == (None, None, 0)
    else:
        assert one.low is not None and one.high is not None and 0 <= one.low <= one.high <= 9


def test_draws_without_a_score_are_left_out_and_counted() -> None:
    lesion_V, labels_V = np.array([0.9, 0.2, 0.4]), np.array([1, 0, 0])

    def auroc(videos_V: NDArray[np.int64]) -> float | None:
        drawn = lesion_V[videos_V]
        return classification_scores(np.stack([1 - drawn, drawn], 1), labels_V[videos_V], positive=1).auroc

    interval = bootstrap(["x", "y", "z"], auroc, draws=500)
    assert (interval.value, interval.low, interval.high) == (1, 1, 1)
    assert interval.draws + interval.undefined == 500
    assert interval.undefined / 500 == pytest.approx((2**3 + 1) / 3**3, abs=0.07)  # x never, or three times
    never = bootstrap(["x", "y"], lambda _: None, draws=10)
    assert never == Interval(None, None, None, 2, 0, 10)


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    """Patients differ by far more than the models, one of which is better by a little on nearly every patient."""
    rng = np.random.default_rng(0)
    patient_V = rng.uniform(0, 1, size=50)
    better_V, worse_V = patient_V + rng.normal(0.05, 0.02, size=50), patient_V
    score_a, score_b = (lambda units_N: mean_of(better_V, units_N)), (lambda units_N: mean_of(worse_V, units_N))
    alone_a, alone_b = bootstrap(range(50), score_a), bootstrap(range(50), score_b)
    assert alone_a.low is not None and alone_b.high is not None and alone_a.low < alone_b.high  # they overlap
    difference = paired_difference(range(50), score_a, score_b)
    assert difference.low is not None and 0.04 < difference.low < 0.05 < (difference.high or 0) < 0.07
    other_way = paired_difference(range(50), score_b, score_a)
    assert (other_way.low, other_way.high) == pytest.approx((-(difference.high or 0), -difference.low))
    same = paired_difference(range(50), score_a, score_a)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert paired_difference(range(2), score_a, lambda _: None).undefined == 2000


def test_published_frames_by_hand() -> None:
    """The example of docs/scores.md."""
    assert polypdiag_frames(9000).tolist() == [0, 36, 72, 109, 145, 182, 218, 255]
    assert polypdiag_frames(150).tolist() == [0, 36, 72, 109, 145, 149, 149, 149]
    assert polypdiag_frames(1).tolist() == [0] * 8
    assert polypdiag_frames(9000, 60)[-1] == 511


RATES = [Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, Fraction(60000, 1001), 60]


@pytest.mark.parametrize("fps", RATES)
def test_published_frames_are_those_that_torch_would_round(fps: Fraction | int) -> None:
    """The released code lets `torch.linspace` space them."""
    last = 32 * 8 / 30 * float(fps) - 1
    for num_frames in (1, 100, 255, 256, 300, 10_000):
        spaced = torch.linspace(0, last, 8).clamp(0, num_frames - 1).long()
        assert polypdiag_frames(num_frames, fps).tolist() == spaced.tolist()


def test_published_size_by_hand() -> None:
    assert polypdiag_size(480, 640) == (224, 298)
    assert polypdiag_size(640, 480) == (298, 224)
    assert polypdiag_size(224, 224) == polypdiag_size(500, 500) == (224, 224)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_published_f1_is_that_of_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    lesion_V, labels_V = np.array([row[0] for row in rows]), np.array([int(row[1]) for row in rows])
    table_V2 = np.stack([1 - lesion_V, lesion_V], axis=1)
    assert polypdiag(table_V2, labels_V) == pytest.approx(
        {"polypdiag_f1_as_published": f1_score(labels_V, table_V2.argmax(axis=1))}
    )


def test_calling_everything_a_polyp_scores_well_as_published() -> None:
    """Of PolypDiag's 253 videos, 162 are abnormal."""
    labels_V = [1] * 162 + [0] * 91
    assert polypdiag(np.tile([0.0, 1.0], (253, 1)), labels_V)["polypdiag_f1_as_published"] == pytest.approx(324 / 415)
    assert math.isclose(
        classification_scores(np.tile([0.0, 1.0], (253, 1)), labels_V, positive=1).balanced_accuracy or 0, 0.5
    )
