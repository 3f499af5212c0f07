"""The probability that a frame was taken out of the body: a frozen network describes it, a small head decides.

The network is EfficientNet-Lite0 as it was trained on everyday photographs (ImageNet); it is not trained further. The
head is a logistic regression on its 1,280 numbers. The one that ships was fitted by `benchmarks/outside.py` on media
that anyone can have; it never saw a hospital's recordings, so a site should fit its own with `calibrate`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.optimize import minimize

from endocorpus.deid.models import load, model_bytes, pins
from endocorpus.errors import DataError
from endocorpus.records import Box

Floats = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]

BACKBONE, HEAD = "outside-backbone", "outside-head"
SIDE, FEATURES = 224, 1280
BATCH = 8
VIEWS = 8
NO_QUESTION = -8.0
"""Log-odds below which a frame is inside at first sight: other views of it could not change that."""
FOLDS = 5
SHARE = 0.2
PRIOR = float(np.log(SHARE / (1 - SHARE)))
LEAST = 20
"""Frames of each kind that a head can be fitted on; below, what is held out is too little to tell anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A logistic regression on the features of the network `backbone`, which is the SHA-256 of its file.

    `weights` are 1,280 little-endian 32-bit floats. `made` says how and on what it was fitted, in words.
    """

    weights: bytes
    bias: float
    backbone: str
    made: str

    def logits(self, features_ND: Floats) -> npt.NDArray[np.float64]:
        """Log-odds of being outside, shape (N,)."""
        weights = np.frombuffer(self.weights, "<f4").astype(np.float64)
        return np.asarray(features_ND.astype(np.float64) @ weights + self.bias, np.float64)

    def probability(self, features_ND: Floats) -> npt.NDArray[np.float64]:
        """Probability of being outside, shape (N,), 0 to 1."""
        return probability(self.logits(features_ND))

    def to_json(self) -> str:
        """The file of a head. It holds no picture, and nothing from which one could be made."""
        row = {"backbone": self.backbone, "made": self.made, "bias": self.bias}
        return json.dumps({**row, "weights": base64.b64encode(self.weights).decode()}, indent=1) + "\n"

    def digest(self) -> str:
        """SHA-256 of the file, for an attestation."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def probability(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What log-odds stand for, 0 to 1."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))), np.float64)


def read_head(text: str) -> Head:
    """The head that a file holds.

    Raises:
        DataError: it is no head, or one for another network than the one that is pinned.
    """
    try:
        row: Mapping[str, Any] = json.loads(text)
        weights = base64.b64decode(row["weights"], validate=True)
        head = Head(weights=weights, bias=float(row["bias"]), backbone=str(row["backbone"]), made=str(row["made"]))
        numbers = np.frombuffer(head.weights, "<f4")
        usable = len(numbers) == FEATURES and bool(np.isfinite([*numbers, head.bias]).all())
    except (ValueError, KeyError, TypeError, AttributeError):
        usable = False
    if not usable:
        raise DataError("the file is no head of the detector of frames outside the body; fit one with calibrate")
    if head.backbone != pins()[BACKBONE].sha256:
        raise DataError("the head was fitted on another network than this version has; fit it again with calibrate")
    return head


@cache
def shipped_head() -> Head:
    """The head that comes with the package.

    Raises:
        DataError: its file is missing or changed.
    """
    return read_head(model_bytes(HEAD, pins()[HEAD]).decode())


def describe(frames: Iterable[Frame], content: Box | None = None) -> Floats:
    """1,280 numbers per frame, shape (N, 1280).

    Args:
        frames: RGB of shape (height, width, 3).
        content: the part of each that shows the endoscopic image; what is around it is not looked at.

    Raises:
        DataError: the network is missing or changed.
    """
    return _described(_small(frame, content) for frame in frames)


def _described(pictures: Iterable[Frame]) -> Floats:
    """What the network says of pictures of shape (224, 224, 3)."""
    network, out, batch = load(BACKBONE), [], []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == BATCH:
            out.append(network(np.stack(batch)))
            batch = []
    if batch:
        out.append(network(np.stack(batch)))
    return np.concatenate(out) if out else np.zeros((0, FEATURES), np.float32)


def cut(frame: Frame, content: Box | None) -> Image.Image:
    """The endoscopic image of a frame. Cut before it is scaled: scaling a part lets its surroundings shine in."""
    left, top, right, bottom = content or (0, 0, frame.shape[1], frame.shape[0])
    return Image.fromarray(np.ascontiguousarray(frame[top:bottom, left:right]))


def views(frame: Frame, content: Box | None = None) -> Floats:
    """What `describe` says of a frame seen in eight ways, shape (8, 1280): whole and without an eighth at each side,
    each mirrored across, down, and both. There is no up in a body, so what one view alone says of tissue is chance.

    Raises:
        DataError: the network is missing or changed.
    """
    left, top, right, bottom = content or (0, 0, frame.shape[1], frame.shape[0])
    wide, high = (right - left) // 8, (bottom - top) // 8
    two = (_small(frame, content), _small(frame, (left + wide, top + high, right - wide, bottom - high)))
    return _described(view[::down, ::across] for view in two for down in (1, -1) for across in (1, -1))


def outside(head: Head, frame: Frame, content: Box | None = None) -> float:
    """Log-odds of a frame to be outside: the mean over its views, or that of the first if it leaves no question."""
    first = float(head.logits(describe([frame], content))[0])
    return first if first < NO_QUESTION else float(head.logits(views(frame, content)).mean())


def _small(frame: Frame, content: Box | None) -> Frame:
    image = cut(frame, content)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """How a head did on frames that it was not fitted on: counts, so that bounds can be computed.

    `missed` are outside frames below `enter`, `lost` inside frames at or above it, `unsure` inside frames between
    `leave` and it.
    """

    outside: int
    missed: int
    inside: int
    lost: int
    unsure: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A head for a site, how the same fit did on held-out frames, and how the head did that it started from."""

    head: Head
    held_out: HeldOut
    before: HeldOut


def calibrate(
    frames_in: Iterable[Frame],
    frames_out: Iterable[Frame],
    *,
    start: Head | None = None,
    made: str = "calibrated on labelled frames of a site",
    enter: float = 0.3,
    leave: float = 0.05,
) -> Calibration:
    """Fit a head on labelled frames, as near to `start` (the shipped one) as they allow.

    About 200 frames from several recordings are enough, in the order in which they were taken: the held-out figures
    come from five runs of neighbouring frames, each judged by a head that did not see it.

    Args:
        frames_in: frames inside the body, RGB of shape (height, width, 3), cut to the endoscopic image.
        frames_out: frames outside it: rooms, people, skin, drapes, screens.

    Raises:
        DataError: fewer than 20 frames of a kind, or a model is missing or changed.
    """
    start = start or shipped_head()
    features = [_seen(group) for group in (frames_in, frames_out)]
    if min(map(len, features)) < LEAST:
        told = " and ".join(f"{len(group)} {name}" for group, name in zip(features, ("inside", "outside"), strict=True))
        raise DataError(f"a head needs at least {LEAST} frames of each kind to be fitted on; there are {told}")
    folds = [np.arange(len(group)) * FOLDS // len(group) for group in features]
    logits: list[list[float]] = [[], []]
    for fold in range(FOLDS):
        rest = [group[numbers != fold] for group, numbers in zip(features, folds, strict=True)]
        head = _fit_views(rest, start, made)
        for kind, (group, numbers) in enumerate(zip(features, folds, strict=True)):
            logits[kind] += _means(head, group[numbers == fold])
    return Calibration(
        head=_fit_views(features, start, made),
        held_out=count(logits[0], logits[1], enter, leave),
        before=count(_means(start, features[0]), _means(start, features[1]), enter, leave),
    )


def _seen(frames: Iterable[Frame]) -> Floats:
    """All views of frames, shape (frames, 8, 1280)."""
    found = [views(frame) for frame in frames]
    return np.stack(found) if found else np.zeros((0, VIEWS, FEATURES), np.float32)


def _fit_views(seen: Sequence[Floats], start: Head, made: str) -> Head:
    """Every view counts as a quarter of a frame: they are much alike."""
    return fit(*(some.reshape(-1, FEATURES) for some in seen), start=start, made=made, strength=VIEWS / 2)


def _means(head: Head, seen: Floats) -> list[float]:
    """Log-odds of frames, as `outside` tells them."""
    return [float(head.logits(one).mean()) for one in seen]


def count(logits_in: Sequence[float], logits_out: Sequence[float], enter: float, leave: float) -> HeldOut:
    """How many frames of each kind fall where, given their log-odds of being outside."""
    low, high = (float(np.log(part / (1 - part))) for part in (leave, enter))
    inside, outside = np.array(logits_in), np.array(logits_out)
    return HeldOut(
        outside=len(outside),
        missed=int((outside < high).sum()),
        inside=len(inside),
        lost=int((inside >= high).sum()),
        unsure=int(((inside >= low) & (inside < high)).sum()),
    )


def fit(inside: Floats, outside: Floats, *, made: str, start: Head | None = None, strength: float = 1.0) -> Head:
    """The logistic regression that tells two groups of features apart.

    Both groups count the same, however many there are, and the odds are then those of a recording of which `SHARE` is
    outside the body.

    Args:
        inside, outside: features of shape (N, 1280).
        start: weights that it is drawn to; none is 0.
        strength: of that pull, as a half times the squared distance, per frame counted once.
    """
    features = np.concatenate([inside, outside]).astype(np.float64)
    labels = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    share = np.where(labels == 1, len(labels) / (2 * len(outside)), len(labels) / (2 * len(inside)))
    origin = np.zeros(FEATURES) if start is None else np.frombuffer(start.weights, "<f4").astype(np.float64)
    middle = features.mean(axis=0)
    centred = features - middle

    def loss(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights, bias = point[:-1], point[-1]
        logits = centred @ weights + bias
        value = (share * (np.logaddexp(0, logits) - labels * logits)).sum()
        wrong = share * (probability(logits) - labels)
        pull = weights - origin
        slope = np.append(centred.T @ wrong + strength * pull, wrong.sum())
        return float(value + strength / 2 * (pull @ pull)), slope

    first = np.append(origin, 0.0 if start is None else start.bias - PRIOR + middle @ origin)
    found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-10}).x
    weights = found[:-1].astype("<f4")
    bias = float(found[-1] - middle @ weights.astype(np.float64) + PRIOR)
    head = Head(weights=weights.tobytes(), bias=round(bias, 6), backbone=pins()[BACKBONE].sha256, made=made)
    return head if start is None else replace(head, made=f"{made}; started from {start.digest()[:16]}")
