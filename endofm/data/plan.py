"""What the views of a clip are, decided as plain values: frames, crop, flip, colours. No pixel is seen here.

The recipe is that of Endo-FM's released pre-training code (which is SVT's), with these differences: the crop is the
first proposal that fits, instead of a mixture of two; grey weighs red, green and blue as ITU-R BT.601 says, instead of
exchanging red and blue; colours are clamped to [0, 1] after the jitter; clips of fewer than eleven frames keep moving
in the global views, where the released code repeats one frame. Blur and solarisation have no effect in the released
code, so there are none.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from endocorpus.settings import Settings

GLOBAL_MARGIN = 5  # frames that the window of a global view leaves out at one end of the clip, if it is not too short
JITTERS = BRIGHTNESS, CONTRAST, SATURATION = range(3)
_ORDERS = tuple(itertools.permutations(JITTERS))

# What each of a view's uniform draws decides. All are always drawn, so no setting shifts another's randomness.
_START, _TOP, _LEFT, _FLIP, _JITTER, _ORDER, _GRAYSCALE = range(7)
_FACTORS, _AREAS, _RATIOS = slice(7, 10), slice(10, 20), slice(20, 30)
_DRAWS = 30

Pixels = Annotated[int, Field(ge=1)]
Counts = tuple[Annotated[int, Field(ge=1)], ...]
Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Rgb = tuple[float, float, float]


class ViewConfig(Settings):
    """Which views are made of every clip. The defaults are the recipe `endofm` (Endo-FM, `datasets/transform.py`)."""

    global_frames: Annotated[Counts, Field(min_length=1)] = (8, 16)
    """Frames of each global view. Views alternate between the window without the clip's last frames and the one
    without its first."""
    local_frames: Counts = (2, 2, 4, 4, 8, 8, 16, 16)
    """Frames of each local view, all from a short window at a random time."""
    global_size: Pixels = 224
    """Height and width of a global view, pixels."""
    local_size: Pixels = 96
    """Height and width of a local view, pixels."""
    global_scale: tuple[Share, Share] = (0.4, 1.0)
    """Least and greatest share of the picture's area in a global view."""
    local_scale: tuple[Share, Share] = (0.05, 0.4)
    """Least and greatest share of the picture's area in a local view."""
    aspect_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Least and greatest width over height of a crop."""
    local_span: Share = 1 / 8
    """Length of a local view's window, as a share of the clip's."""
    flip_probability: Probability = 0.5
    jitter_probability: Probability = 0.8
    brightness: Probability = 0.4
    """Brightness is multiplied by a factor from 1 - brightness to 1 + brightness; so too the next two."""
    contrast: Probability = 0.4
    saturation: Probability = 0.2
    grayscale_probability: Probability = 0.2
    mean: Rgb = (0.485, 0.456, 0.406)
    """Subtracted from red, green and blue in [0, 1]: the means of ImageNet."""
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    """Divides them after that."""

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        for name in ("global_scale", "local_scale", "aspect_ratio"):
            least, greatest = getattr(self, name)
            if least > greatest:
                raise ValueError(f"{name}: the least value must come first")
        return self

    @property
    def view_shapes(self) -> tuple[tuple[int, int], ...]:
        """(frames, height and width in pixels) of every view, globals first."""
        shapes = [(frames, self.global_size) for frames in self.global_frames]
        return tuple(shapes + [(frames, self.local_size) for frames in self.local_frames])


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """Everything decided about one view."""

    frames: tuple[int, ...]  # of the clip, in order of time
    box: tuple[int, int, int, int]  # top, left, height, width of the crop, pixels
    flip: bool  # left to right
    factors: tuple[float, float, float]  # brightness, contrast, saturation; 1 changes nothing
    order: tuple[int, ...]  # in which they apply: 0 brightness, 1 contrast, 2 saturation
    grayscale: bool


@dataclasses.dataclass(frozen=True, slots=True)
class ViewPlan:
    """The views of one clip, globals first."""

    views: tuple[View, ...]

    @property
    def frames_needed(self) -> NDArray[np.int64]:
        """Frames that any view uses, int64 [U], strictly increasing."""
        return np.array(sorted({frame for view in self.views for frame in view.frames}), dtype=np.int64)


def plan_views(num_frames: int, height: int, width: int, config: ViewConfig, rng: np.random.Generator) -> ViewPlan:
    """Decide the views of one clip.

    Args:
        num_frames: of the clip, at least 1.
        height: of its frames, pixels.
        width: of its frames, pixels.
        config: the recipe.
        rng: consumed by the same number of draws whatever `config` holds besides the number of views; the loader
            passes `np.random.default_rng((seed, position))`.
    """
    draws_VD = rng.random((len(config.view_shapes), _DRAWS))
    views: list[View] = []
    for view, ((frames, _), draws) in enumerate(zip(config.view_shapes, draws_VD.tolist(), strict=True)):
        is_global = view < len(config.global_frames)
        if is_global:
            window = _global_window(num_frames, view)
        else:
            window = _local_window(num_frames, config.local_span, draws[_START])
        views.append(
            View(
                frames=spread(*window, frames, num_frames),
                box=_crop(height, width, config.global_scale if is_global else config.local_scale, config, draws),
                flip=draws[_FLIP] < config.flip_probability,
                factors=_factors(config, draws),
                order=_ORDERS[int(draws[_ORDER] * len(_ORDERS))],
                grayscale=draws[_GRAYSCALE] < config.grayscale_probability,
            )
        )
    return ViewPlan(tuple(views))


def told_of_short_clips(num_frames_N: NDArray[np.integer[Any]], config: ViewConfig) -> str:
    """A sentence on the clips that have fewer frames than the longest view asks for; empty where there are none."""
    longest = max(frames for frames, _ in config.view_shapes)
    short = int((num_frames_N < longest).sum())
    if not short:
        return ""
    told = f"clips with fewer frames than the longest view, which has {longest}: {short:,} of {len(num_frames_N):,}"
    return f"{told}; their longer views repeat frames"


def spread(first: int, last: int, count: int, num_frames: int) -> tuple[int, ...]:
    """`count` frames evenly from `first` to `last`, both included, rounded down and clamped into the clip.

    In integers, so that no platform's rounding moves a frame; the released code truncates a float32 `linspace`.
    """
    steps = max(count - 1, 1)
    return tuple(min(max((first * (steps - i) + last * i) // steps, 0), num_frames - 1) for i in range(count))


def _global_window(num_frames: int, view: int) -> tuple[int, int]:
    """The first global view leaves out the clip's end, the second its start: never as much as half of a short clip.

    With the whole margin, which suits the recipe's clips of 150 frames, a clip of five or six would be a still picture.
    """
    margin = min(GLOBAL_MARGIN, (num_frames - 1) // 2)
    return (0, num_frames - margin) if view % 2 == 0 else (margin, num_frames)


def _local_window(num_frames: int, span: float, draw: float) -> tuple[int, int]:
    length = int(num_frames * span)
    starts = max(num_frames - length, 1)  # a span of 1 leaves no choice
    start = int(draw * starts)
    return start, start + length


def _crop(
    height: int, width: int, scale: tuple[float, float], config: ViewConfig, draws: Sequence[float]
) -> tuple[int, int, int, int]:
    """The first of ten proposals of area and aspect ratio that fits, anywhere in the picture; if none does, the
    largest central box of an allowed aspect ratio."""
    least, greatest = math.log(config.aspect_ratio[0]), math.log(config.aspect_ratio[1])
    for area_draw, ratio_draw in zip(draws[_AREAS], draws[_RATIOS], strict=True):
        area = (scale[0] + area_draw * (scale[1] - scale[0])) * height * width
        ratio = math.exp(least + ratio_draw * (greatest - least))
        crop_height, crop_width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < crop_height <= height and 0 < crop_width <= width:
            top = int(draws[_TOP] * (height - crop_height + 1))
            left = int(draws[_LEFT] * (width - crop_width + 1))
            return top, left, crop_height, crop_width
    crop_width = min(width, max(round(height * config.aspect_ratio[1]), 1))
    crop_height = min(height, max(round(width / config.aspect_ratio[0]), 1))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _factors(config: ViewConfig, draws: Sequence[float]) -> tuple[float, float, float]:
    if draws[_JITTER] >= config.jitter_probability:
        return 1.0, 1.0, 1.0
    brightness, contrast, saturation = (2 * draw - 1 for draw in draws[_FACTORS])
    return 1 + brightness * config.brightness, 1 + contrast * config.contrast, 1 + saturation * config.saturation
