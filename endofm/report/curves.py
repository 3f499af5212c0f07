"""Curves of measures over steps: which belong together, and their geometry. The page draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 200  # units of a drawing, which scales with the page
FRAME = _LEFT, _RIGHT, _TOP, _BASE = 88, 632, 14, 176  # left of it are labels of up to eleven characters
_BUCKETS = 260  # points of a curve; more steps than that are drawn as their mean, within their range

Row = Mapping[str, float | None]


@dataclass(frozen=True)
class Panel:
    """Measures that are drawn together."""

    title: str
    note: str
    keys: tuple[str, ...]


PANELS = (
    Panel(
        "Loss",
        "Cross-entropy of student and teacher. At the level of guessing the student knows nothing; near 0 there is "
        "nothing left to know, which is seldom a good sign.",
        ("loss", "loss_at_chance", "loss_global", "loss_local"),
    ),
    Panel(
        "What the teacher says",
        "Information: how much a target tells about which clip it is of. Below 0.02 for 100 steps it sets off an "
        "alarm. Entropy: 0 where a target names one prototype, 1 where it spreads over all.",
        ("teacher_information", "teacher_entropy"),
    ),
    Panel("Directions in use", "Effective rank of the features of the last 512 clips.", ("feature_rank",)),
    Panel(
        "How far apart clips are",
        "Spread of a step's features about their mean, and 1 less the mean cosine of the last 512 clips. 0: all alike.",
        ("feature_spread", "feature_diversity"),
    ),
    Panel(
        "Nearest neighbours with labels",
        "Share of labelled clips whose nearest clips of other leak groups bear their label. Balanced: the mean of the "
        "labels' own shares; that of features that know nothing is at chance.",
        ("knn_balanced_accuracy", "knn_at_chance", "knn_accuracy"),
    ),
    Panel("Gradient", "Norm of all gradients before clipping. Gaps are skipped steps.", ("grad_norm",)),
    Panel("Centre", "Length of the centre that is subtracted from the teacher's output.", ("centre_norm",)),
    Panel("Learning rate", "", ("lr",)),
    Panel("Weight decay", "", ("weight_decay",)),
    Panel("Clips per second", "Over all processes.", ("clips_per_s",)),
    Panel("Waiting for data", "Share of a step's time.", ("data_wait_share",)),
    Panel("Share of the devices' peak", "Model FLOP utilisation.", ("mfu",)),
    Panel("Memory", "GiB, the peak of the main process so far.", ("memory_gib",)),
)


@dataclass(frozen=True)
class Line:
    """One curve: SVG paths of its mean and, where steps are drawn together, of their range; its last value."""

    key: str
    path: str
    band: str
    last: float


@dataclass(frozen=True)
class Chart:
    """A panel laid out, with what its axes say."""

    panel: Panel
    lines: tuple[Line, ...]
    low: float
    high: float
    first_step: int
    last_step: int


def charts(rows: Sequence[Row]) -> list[Chart]:
    """A chart of each panel of which the rows hold anything; values that are not finite leave gaps."""
    drawn = []
    for panel in PANELS:
        series = {key: found for key in panel.keys if len(found := _series(rows, key))}
        if series:
            drawn.append(_chart(panel, series))
    return drawn


def _series(rows: Sequence[Row], key: str) -> NDArray[np.float64]:
    """Steps and values [N, 2] of the rows that have the measure; NaN where it is null."""
    found = [(row["step"], math.nan if row[key] is None else row[key]) for row in rows if key in row]
    values = np.array(found, np.float64).reshape(-1, 2)
    return values if np.isfinite(values[:, 1]).any() else values[:0]


def _chart(panel: Panel, series: Mapping[str, NDArray[np.float64]]) -> Chart:
    together = np.concatenate(list(series.values()))
    low, high = float(np.nanmin(together[:, 1])), float(np.nanmax(together[:, 1]))
    first, last = int(together[:, 0].min()), int(together[:, 0].max())
    lines = tuple(_line(key, values, (low, high), (first, last)) for key, values in series.items())
    return Chart(panel, lines, low, high, first, last)


def _line(key: str, values: NDArray[np.float64], span: tuple[float, float], steps: tuple[int, int]) -> Line:
    buckets = np.array_split(values, min(len(values), _BUCKETS))
    means, lows, highs = [], [], []
    for bucket in buckets:
        finite = bucket[np.isfinite(bucket[:, 1])]
        if len(finite):
            x = _x(float(finite[:, 0].mean()), steps)
            means.append((x, _y(float(finite[:, 1].mean()), span)))
            lows.append((x, _y(float(finite[:, 1].min()), span)))
            highs.append((x, _y(float(finite[:, 1].max()), span)))
        else:
            means.append((math.nan, math.nan))
    band = "M" + "L".join(_point(point) for point in highs + lows[::-1]) + "Z" if len(values) > _BUCKETS else ""
    finite = values[np.isfinite(values[:, 1])]
    return Line(key, _path(means), band, float(finite[-1, 1]))


def _path(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path through the points, lifted where one is missing; a point alone becomes a dot."""
    path, pen_down = "", False
    for x, y in points:
        if math.isnan(x):
            pen_down = False
            continue
        path += f"{'L' if pen_down else 'M'}{_point((x, y))}" + ("" if pen_down else "h0")
        pen_down = True
    return path


def _point(point: tuple[float, float]) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"


def _x(step: float, steps: tuple[int, int]) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (step - steps[0]) / max(steps[1] - steps[0], 1)


def _y(value: float, span: tuple[float, float]) -> float:
    height = span[1] - span[0]
    return (_TOP + _BASE) / 2 if height == 0 else _BASE - (_BASE - _TOP) * (value - span[0]) / height
