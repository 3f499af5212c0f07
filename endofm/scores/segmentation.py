"""Scores of masks, from counts of pixels that add: no more than a frame of a long video is ever held.

Shape suffixes: T frames, H and W pixels, J classes with the background first, R regions: the classes but the
background, then all of them as one, the foreground.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from endofm.scores.ratios import mean, ratio

FOREGROUND = "foreground"


@dataclass(frozen=True, eq=False)
class Overlap:
    """What is counted of one clip or a part of it; parts add, whatever their order and on whichever process.

    Attributes:
        pixels_R3: int64; of each region, pixels that are both told and true, that are told, and that are true.
        dice_R: float64; the sum over frames of the frame's own Dice.
        iou_R: likewise.
        empty_R: int64; frames whose truth has nothing of the region.
        both_empty_R: int64; those of them in which nothing was told either, and which therefore scored 1.
        frames: that were scored.
        ignored: frames without a pixel that counts, which were left out.
    """

    pixels_R3: NDArray[np.int64]
    dice_R: NDArray[np.float64]
    iou_R: NDArray[np.float64]
    empty_R: NDArray[np.int64]
    both_empty_R: NDArray[np.int64]
    frames: int
    ignored: int

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @classmethod
    def nothing(cls, num_classes: int) -> Self:
        """What `+` begins with."""
        return cls.from_vector(np.zeros(7 * num_classes + 2))

    def vector(self) -> NDArray[np.float64]:
        """All numbers, float64 [7 J + 2] for J classes and exact up to 2**53 pixels, for processes to add up."""
        return np.concatenate([np.ravel(getattr(self, each.name)) for each in fields(self)]).astype(np.float64)

    @classmethod
    def from_vector(cls, numbers: NDArray[np.float64]) -> Self:
        """The inverse of `vector`."""
        regions = (len(numbers) - 2) // 7
        ends = np.cumsum([3 * regions, regions, regions, regions, regions])
        pixels, dice_R, iou_R, empty, both_empty, (frames, ignored) = np.split(numbers, ends)
        return cls(
            pixels_R3=pixels.astype(np.int64).reshape(regions, 3),
            dice_R=dice_R,
            iou_R=iou_R,
            empty_R=empty.astype(np.int64),
            both_empty_R=both_empty.astype(np.int64),
            frames=int(frames),
            ignored=int(ignored),
        )


def dice(pixels_X3: NDArray[np.int64]) -> NDArray[np.float64]:
    """2 |A and B| / (|A| + |B|) (Dice, 1945; Sorensen, 1948) from the counts [..., 3] of `Overlap`; 1 where both are
    empty, so 0 where one is."""
    both_X, told_X, true_X = np.moveaxis(np.asarray(pixels_X3, np.float64), -1, 0)
    return _share(2 * both_X, told_X + true_X)


def iou(pixels_X3: NDArray[np.int64]) -> NDArray[np.float64]:
    """|A and B| / |A or B| (Jaccard, 1901) from the same counts by the same rule."""
    both_X, told_X, true_X = np.moveaxis(np.asarray(pixels_X3, np.float64), -1, 0)
    return _share(both_X, told_X + true_X - both_X)


def _share(part_X: NDArray[np.float64], whole_X: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part_X, whole_X, out=np.ones_like(part_X), where=whole_X > 0)


def overlap(
    told_THW: NDArray[np.integer], true_THW: NDArray[np.integer], num_classes: int, *, ignore: int | None = None
) -> Overlap:
    """Counts of frames of one clip.

    Args:
        told_THW: the class told of each pixel, integers.
        true_THW: the true class of each pixel.
        num_classes: J, with the background, which is class 0.
        ignore: a value in the truth of pixels that do not count. A frame of nothing else has no mask, and is left out.

    Raises:
        ValueError: shapes differ, or a value is no class.
    """
    if told_THW.shape != true_THW.shape or told_THW.ndim != 3:
        raise ValueError(f"masks of shape {list(told_THW.shape)} do not fit a truth of shape {list(true_THW.shape)}")
    each = [_confusion(*frame, num_classes, ignore) for frame in zip(told_THW, true_THW, strict=True)]
    confusion_TJJ = np.array([confusion_JJ for confusion_JJ in each if confusion_JJ.any()], np.int64)
    confusion_TJJ = confusion_TJJ.reshape(-1, num_classes, num_classes)
    pixels_TR3 = _of_regions(confusion_TJJ)
    told_TR, true_TR = pixels_TR3[..., 1], pixels_TR3[..., 2]
    return Overlap(
        pixels_R3=pixels_TR3.sum(axis=0),
        dice_R=dice(pixels_TR3).sum(axis=0),
        iou_R=iou(pixels_TR3).sum(axis=0),
        empty_R=(true_TR == 0).sum(axis=0),
        both_empty_R=((true_TR == 0) & (told_TR == 0)).sum(axis=0),
        frames=len(confusion_TJJ),
        ignored=len(each) - len(confusion_TJJ),
    )


def _confusion(
    told_HW: NDArray[np.integer], true_HW: NDArray[np.integer], num_classes: int, ignore: int | None
) -> NDArray[np.int64]:
    """Pixels by true class (row) and told class (column) [J, J]."""
    told_P, true_P = told_HW.ravel(), true_HW.ravel()
    if ignore is not None:
        counts_P = true_P != ignore
        told_P, true_P = told_P[counts_P], true_P[counts_P]
    for name, values_P in (("told", told_P), ("true", true_P)):
        if len(values_P) and not 0 <= int(values_P.min()) <= int(values_P.max()) < num_classes:
            strange = [value for value in np.unique(values_P).tolist() if not 0 <= value < num_classes]
            raise ValueError(f"pixels are {name} to be of class {strange}; there are {num_classes}, from 0")
    pairs_P = true_P.astype(np.int64) * num_classes + told_P
    return np.bincount(pairs_P, minlength=num_classes**2).reshape(num_classes, num_classes)


def _of_regions(confusion_TJJ: NDArray[np.int64]) -> NDArray[np.int64]:
    """[T, R, 3], as in `Overlap`."""
    both_TJ = confusion_TJJ.diagonal(axis1=1, axis2=2)
    classes_TJ3 = np.stack([both_TJ, confusion_TJJ.sum(axis=1), confusion_TJJ.sum(axis=2)], axis=-1)[:, 1:]
    lesion_TJJ = confusion_TJJ[:, 1:, 1:]
    foreground_T3 = np.stack(
        [lesion_TJJ.sum(axis=(1, 2)), confusion_TJJ[:, :, 1:].sum(axis=(1, 2)), confusion_TJJ[:, 1:].sum(axis=(1, 2))],
        axis=-1,
    )
    return np.concatenate([classes_TJ3, foreground_T3[:, None]], axis=1)


@dataclass(frozen=True)
class RegionScores:
    """Shares from 0 to 1 of one class, or of the foreground; None where there is nothing to take a mean of."""

    dice_by_clip: float | None
    """Mean over clips of the Dice of T x H x W as one volume. A clip of which nothing is true nor told scores 1."""
    iou_by_clip: float | None
    dice_by_frame: float | None
    """Mean over all frames of all clips of the frame's own Dice. A frame without the region scores 1 if none was told
    of it, else 0."""
    iou_by_frame: float | None
    dice_where_present: float | None
    """The same over frames whose truth has the region, so that empty ones flatter nobody."""
    iou_where_present: float | None
    silent_where_absent: float | None
    """Share of frames without the region in which nothing was told of it."""
    frames: int
    empty_frames: int
    """Of them, without the region in the truth."""
    both_empty_frames: int
    """Of these, without it in what was told too."""
    both_empty_clips: int
    """Clips without it in either, which scored 1."""


@dataclass(frozen=True)
class SegmentationScores:
    """By the name of the class, and of `FOREGROUND`."""

    regions: dict[str, RegionScores]
    clips: int
    frames: int
    ignored_frames: int
    """Without a mask, and left out."""
    ignored_clips: int
    """Without a frame that has one, and left out."""


def segmentation_scores(clips: Iterable[Overlap], classes: Sequence[str]) -> SegmentationScores:
    """Scores of clips, each of them whole (the sum of its parts), for every class but the background and for all of
    them as one. Of two classes the foreground is the second.

    Args:
        clips: in any order.
        classes: names, the background's first.

    Raises:
        ValueError: the clips are of another number of classes.
    """
    everything = list(clips)
    seen = [clip for clip in everything if clip.frames]
    if any(len(clip.dice_R) != len(classes) for clip in everything):
        raise ValueError(f"the clips were counted with another number of classes than {', '.join(classes)}")
    total = sum(everything, start=Overlap.nothing(len(classes)))
    names = [*classes[1:], FOREGROUND]
    return SegmentationScores(
        regions={name: _region(region, seen, total) for region, name in enumerate(names)},
        clips=len(seen),
        frames=total.frames,
        ignored_frames=total.ignored,
        ignored_clips=len(everything) - len(seen),
    )


def _region(region: int, clips: Sequence[Overlap], total: Overlap) -> RegionScores:
    frames, empty = total.frames, int(total.empty_R[region])
    silent, present = int(total.both_empty_R[region]), frames - empty
    of_frames, of_ious = float(total.dice_R[region]), float(total.iou_R[region])
    return RegionScores(
        dice_by_clip=mean(float(dice(clip.pixels_R3[region])) for clip in clips),
        iou_by_clip=mean(float(iou(clip.pixels_R3[region])) for clip in clips),
        dice_by_frame=ratio(of_frames, frames),
        iou_by_frame=ratio(of_ious, frames),
        # An empty frame added 1 if nothing was told, else 0.
        dice_where_present=ratio(of_frames - silent, present),
        iou_where_present=ratio(of_ious - silent, present),
        silent_where_absent=ratio(silent, empty),
        frames=frames,
        empty_frames=empty,
        both_empty_frames=silent,
        both_empty_clips=sum(not clip.pixels_R3[region].any() for clip in clips),
    )
