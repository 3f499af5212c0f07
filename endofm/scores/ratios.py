"""Ratios of counts, and how None travels."""

from __future__ import annotations

from collections.abc import Iterable


def ratio(part: float, whole: float) -> float | None:
    """`part` / `whole`, or None where there is nothing to divide by."""
    return part / whole if whole else None


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are not None; None if none are left."""
    known = [value for value in values if value is not None]
    return ratio(sum(known), len(known))


def f1(hits: float, false_alarms: float, missed: float) -> float | None:
    """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall; None if there was nothing to find and
    nothing was found."""
    return ratio(2 * hits, 2 * hits + false_alarms + missed)
