"""Bar charts of histograms: only the geometry; the page draws it. Each has its numbers beside it in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from endocorpus.report.stats import Histogram
from endocorpus.report.text import count, number, plain

WIDTH, HEIGHT = 320, 132  # units of the drawing, which scales with the page
_LEFT, _RIGHT, _TOP, _BASE = 12.0, 308.0, 20.0, 108.0
_LABELS = 8  # more would run into each other
_TIES = 3  # bins of equal height that a sentence can name


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bin: its rectangle, its range in words and its count."""

    x: float
    y: float
    width: float
    height: float
    label: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """An edge of the bins that is written below the axis."""

    x: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A drawing and its text alternative."""

    title: str
    unit: str
    note: str
    summary: str
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    highest: int  # the count that the tallest bar stands for


def chart(histogram: Histogram, *, title: str, unit: str, note: str) -> Chart:
    """Lay out a histogram of clips; empty bins beyond the last used one are left out where the last bin is open.

    Args:
        unit: of the values, written after them; may be empty.
        note: one sentence on what the values mean.
    """
    edges, counts = _used(histogram)
    highest = max(counts, default=0)
    step = (_RIGHT - _LEFT) / len(counts)
    bars = []
    for i, value in enumerate(counts):
        height = (_BASE - _TOP) * value / highest if highest else 0.0
        if value:
            height = max(height, 1.5)  # one clip among thousands still shows
        bars.append(
            Bar(
                x=round(_LEFT + i * step + 1, 2),
                y=round(_BASE - height, 2),
                width=round(step - 2, 2),
                height=round(height, 2),
                label=_range(edges[i], edges[i + 1], unit),
                count=value,
            )
        )
    every = math.ceil(len(edges) / _LABELS)
    ticks = tuple(
        Tick(x=round(_LEFT + i * step, 2), label=plain(edge) if math.isfinite(edge) else "more")
        for i, edge in enumerate(edges)
        if i % every == 0
    )
    summary = _summary(histogram, bars, unit)
    return Chart(title=title, unit=unit, note=note, summary=summary, bars=tuple(bars), ticks=ticks, highest=highest)


def _used(histogram: Histogram) -> tuple[tuple[float, ...], tuple[int, ...]]:
    if math.isfinite(histogram.edges[-1]):
        return histogram.edges, histogram.counts
    last = max((i for i, value in enumerate(histogram.counts) if value), default=0)
    return histogram.edges[: last + 2], histogram.counts[: last + 1]


def _range(low: float, high: float, unit: str) -> str:
    after = f" {unit}" if unit else ""
    return f"{plain(low)} to {plain(high)}{after}" if math.isfinite(high) else f"{plain(low)}{after} and more"


def _summary(histogram: Histogram, bars: list[Bar], unit: str) -> str:
    clips = sum(histogram.counts)
    if histogram.lowest is None or histogram.highest is None:
        return "No clips."
    after = f" {unit}" if unit else ""
    if histogram.lowest == histogram.highest:
        return f"{count(clips, 'clip')}, {'all of ' if clips > 1 else ''}{plain(histogram.lowest)}{after}."
    ends = f"{count(clips, 'clip')}, from {plain(histogram.lowest)} to {plain(histogram.highest)}{after}"
    tallest = [bar for bar in bars if bar.count == max(bar.count for bar in bars)]
    if len(tallest) > _TIES:
        return f"{ends}."
    each = " each" if len(tallest) > 1 else ""
    return f"{ends}; most often {' and '.join(bar.label for bar in tallest)} ({number(tallest[0].count)}{each})."
