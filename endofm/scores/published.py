"""The scores of Endo-FM (Wang et al., 2023) as its released code takes them, faults and all, for comparison with what
is printed in papers. Every key ends in `_as_published`. Scores that mean what they say are in the other modules;
`docs/scores.md` tells of each fault and whom it flatters.

Read from the repository med-air/Endo-FM. Shape suffixes: V videos, J classes, T frames of a clip.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from endofm.scores.classification import classification_scores
from endofm.scores.detection import Counts, Frame, scores_of
from endofm.scores.ratios import mean
from endofm.scores.segmentation import Overlap, dice

POLYPDIAG_MEAN = (0.45, 0.45, 0.45)
"""Subtracted from red, green and blue in [0, 1], other than in pre-training; `POLYPDIAG_STD` divides after that."""
POLYPDIAG_STD = (0.225, 0.225, 0.225)
POLYPDIAG_SIDE = 224


def polypdiag_frames(num_frames: int, fps: Fraction | float = 30) -> NDArray[np.int64]:
    """The 8 frames by which a video is judged: of its first 256 frames at 30 per second (8.5 s), evenly from the first
    to the last, rounded down; a shorter video repeats its last frame."""
    last = float(32 * 8 * Fraction(fps) / 30) - 1
    return np.linspace(0, last, 8, dtype=np.float32).clip(0, num_frames - 1).astype(np.int64)


def polypdiag_size(height: int, width: int) -> tuple[int, int]:
    """Height and width to which a frame is resized, bilinearly, so that its short side is 224. Of that, the left 224
    columns of a wide picture are seen, the top 224 rows of a tall one."""
    if width < height:
        return math.floor(height / width * POLYPDIAG_SIDE), POLYPDIAG_SIDE
    return POLYPDIAG_SIDE, math.floor(width / height * POLYPDIAG_SIDE)


def polypdiag(probabilities_V2: ArrayLike, labels_V: ArrayLike) -> dict[str, float]:
    """F1 of class 1 over videos, each judged by the one view of `polypdiag_frames` and `polypdiag_size`; as
    scikit-learn's `f1_score`, 0 where it is undefined."""
    scores = classification_scores(probabilities_V2, labels_V, positive=1)
    return {"polypdiag_f1_as_published": scores.f1 or 0.0}


def cvc(clips: Mapping[str, Overlap], leaked: Collection[str]) -> dict[str, float]:
    """Dice of the foreground of each clip as one volume, and the mean over clips; with the rule of
    `calculate_metric_percase` for empty masks, which is the wrong way round: see `dice_percase`.

    Args:
        clips: by name; as published, the test side of the split `cvc-endofm-as-published`.
        leaked: names of clips that were trained on: there, those that stand in its training side too.

    Returns:
        `cvc_dice_as_published` over all clips; if there are such, `cvc_dice_trained_on_as_published` over the leaked
        ones and `cvc_dice_unseen_as_published` over the others; `cvc_dice_right_empty_rule_as_published`, over all
        clips, which differs only by the rule; `cvc_clips_<kind>_as_published` counts of clips: `all`, `trained_on`,
        `wrongly_one` (nothing there, something told), `wrongly_zero` (nothing there, nothing told).

    Raises:
        ValueError: there is no clip.
    """
    if not clips:
        raise ValueError("a mean over clips needs a clip")
    pixels = {name: clip.pixels_R3[-1] for name, clip in clips.items()}
    percase = {name: dice_percase(*map(int, pixels_3)) for name, pixels_3 in pixels.items()}
    right = {name: float(dice(pixels_3)) for name, pixels_3 in pixels.items()}
    known = [name for name in clips if name in leaked]
    means = {
        "dice": mean(percase.values()),
        "dice_trained_on": mean(percase[name] for name in known),
        "dice_unseen": mean(value for name, value in percase.items() if name not in leaked),
        "dice_right_empty_rule": mean(right.values()),
        "clips_all": len(clips),
        "clips_trained_on": len(known),
        "clips_wrongly_one": sum(percase[name] > right[name] for name in clips),
        "clips_wrongly_zero": sum(percase[name] < right[name] for name in clips),
    }
    return {f"cvc_{name}_as_published": value for name, value in means.items() if value is not None}


def dice_percase(both: int, told: int, true: int) -> float:
    """Dice of medpy, from counts of pixels; but 1 where something was told and nothing is true, and 0 where nothing was
    told, even if nothing is true."""
    if told and true:
        return 2 * both / (told + true)
    return 1.0 if told else 0.0


def kumc(frames: Iterable[Frame], score: float = 0.5) -> dict[str, float]:
    """Precision, recall and F1 of frames: a frame with a true box is found if any box, anywhere and of any class, has
    `score`; one without is a false alarm if any has. Boxes are never compared. 0 where a score is undefined."""
    total = Counts()
    for frame in frames:
        if frame.true is not None:
            told, true = bool((scores_of(frame.told) >= score).any()), bool(len(frame.true))
            total += Counts(told and true, told and not true, true and not told)
    scores = {"precision": total.precision, "recall": total.recall, "f1": total.f1}
    return {f"kumc_{name}_as_published": value or 0.0 for name, value in scores.items()}


def best_epoch(epochs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The greatest of each score over the epochs of a run: on PolypDiag and CVC-12k, the released code prints the best
    on the very videos that it reports."""
    return {name: max(epoch[name] for epoch in epochs) for name in epochs[0]}
