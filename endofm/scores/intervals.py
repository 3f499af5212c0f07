"""How far a score can be trusted: over seeds, and over the patients who happen to be in the test set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from endofm.scores.ratios import mean

Statistic = Callable[[NDArray[np.int64]], float | None]
"""A score of the units whose numbers it gets, some of them repeatedly; None where it is undefined."""


@dataclass(frozen=True)
class OverSeeds:
    """The mean of a score over runs that differ in their seed, and how much they differ."""

    mean: float | None
    """None if no run has the score."""
    std: float | None
    """Of the sample: squares are divided by runs - 1. None, and not 0, if fewer than two runs have the score."""
    runs: int
    """That have the score."""
    undefined: int
    """Runs that have not."""

    def __str__(self) -> str:
        if self.mean is None:
            return "undefined"
        note = f"; undefined in {self.undefined} more" if self.undefined else ""
        spread = "one run, no deviation" if self.std is None else f"{self.runs} runs"
        return f"{self.mean:.3f}{'' if self.std is None else f' ± {self.std:.3f}'} ({spread}{note})"


def over_seeds(values: Iterable[float | None]) -> OverSeeds:
    """Mean and standard deviation of the values that are not None."""
    every = list(values)
    known = [value for value in every if value is not None]
    std = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return OverSeeds(mean(known), std, len(known), len(every) - len(known))


@dataclass(frozen=True)
class Interval:
    """A score, and between which values it lies in 95 % of the test sets that might have been drawn instead."""

    value: float | None
    low: float | None
    high: float | None
    """Both None if fewer than two groups are there, or if no draw has the score."""
    groups: int
    draws: int
    """That have the score."""
    undefined: int
    """Draws that have not, such as those of one class; left out."""


def bootstrap(groups: Sequence[str | int], statistic: Statistic, *, seed: int = 0, draws: int = 2000) -> Interval:
    """A percentile interval of 95 % (Efron, 1979): as many groups as there are, drawn with replacement, again and
    again, each time with all their units; the 2.5th and the 97.5th percentile of the scores.

    What is drawn must be what a new test set would be made of: patients, not their frames. Name for each unit (video,
    clip, frame) its leak group, or its video where there is none. The same seed draws the same groups, in whatever
    order the units come. Where counts add, let a unit be a video and `statistic` add up what was counted before: it is
    asked `draws` times.

    Args:
        groups: of each unit.
        statistic: the score of the units with these numbers.
        seed: of the draws.
        draws: how often.
    """
    members: dict[str | int, list[int]] = {}
    for unit, group in enumerate(groups):
        members.setdefault(group, []).append(unit)
    units = [np.array(members[group], np.int64) for group in sorted(members, key=str)]
    value = statistic(np.arange(len(groups)))
    if len(units) < 2:
        return Interval(value, None, None, len(units), 0, 0)
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(np.concatenate([units[group] for group in rng.integers(len(units), size=len(units))]))
        for _ in range(draws)
    ]
    known = [score for score in drawn if score is not None]
    low, high = (float(edge) for edge in np.percentile(known, (2.5, 97.5))) if known else (None, None)
    return Interval(value, low, high, len(units), len(known), draws - len(known))


def paired_difference(
    groups: Sequence[str | int], first: Statistic, second: Statistic, *, seed: int = 0, draws: int = 2000
) -> Interval:
    """The interval of `first` - `second`, two models' scores of the same units: both are scored on the same draws, so
    that what is hard for both counts for neither. If 0 lies outside, one is better beyond the luck of the test set."""

    def difference(units_N: NDArray[np.int64]) -> float | None:
        a, b = first(units_N), second(units_N)
        return None if a is None or b is None else a - b

    return bootstrap(groups, difference, seed=seed, draws=draws)
