"""What the views of a clip are, decided as plain values: frames, crop, flip, colours. No pixel is seen here.

The recipe is that of Endo-FM's released pre-training code (which is SVT's) without its slips. Five settings bring those
back, one by one: `window_frames`, `shrink_margin`, `mixed_crop`, `grey_weights` and `clamp`. Blur and solarisation have
no effect in the released code, so there are none. `docs/recipes.md` compares paper, code and recipes line by line.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, Tag, model_validator

from endocorpus.settings import Settings, by_kind

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


class ViewScheme(Settings):
    """What every way to make views of a clip says about their pictures."""

    kind: str
    aspect_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Least and greatest width over height of a crop."""
    flip_probability: Probability = 0.5
    jitter_probability: Probability = 0.8
    brightness: Probability = 0.4
    """Brightness is multiplied by a factor from 1 - brightness to 1 + brightness; so too the next two."""
    contrast: Probability = 0.4
    saturation: Probability = 0.2
    grayscale_probability: Probability = 0.2
    grey_weights: Rgb = (0.299, 0.587, 0.114)
    """Weights of red, green and blue in grey, for contrast, saturation and grayscale: those of ITU-R BT.601. The
    released code has them the other way round, for pictures in the order blue, green, red."""
    clamp: bool = True
    """Whether colours that the resize or the jitter took beyond [0, 1] are cut off; the released code leaves them."""
    mean: Rgb = (0.485, 0.456, 0.406)
    """Subtracted from red, green and blue in [0, 1]: the means of ImageNet."""
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    """Divides them after that."""

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        for name in ("global_scale", "local_scale", "scale", "aspect_ratio"):
            least, greatest = getattr(self, name, (0, 1))
            if least > greatest:
                raise ValueError(f"{name}: the least value must come first")
        return self

    @property
    def view_shapes(self) -> tuple[tuple[int, int], ...]:
        """(frames, height and width in pixels) of every view, globals first."""
        raise NotImplementedError

    @property
    def view_names(self) -> tuple[str, ...]:
        """Of every view, short."""
        raise NotImplementedError

    @property
    def num_globals(self) -> int:
        """How many of the views, counted from the first, are global."""
        raise NotImplementedError

    def crop_scale(self, view: int) -> tuple[float, float]:
        """Least and greatest share of the picture's area in a view."""
        raise NotImplementedError


class ViewConfig(ViewScheme):
    """Global and local crops. The defaults are the recipe `endofm` (Endo-FM, `datasets/transform.py`)."""

    kind: Literal["crops"] = "crops"
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
    mixed_crop: bool = False
    """Whether a crop is a mixture of two proposals, as in the released code, whose loop over ten of them lacks its
    `break`: the last one that fits says where, the tenth says how large, and the picture's border cuts off the rest."""
    local_span: Share = 1 / 8
    """Length of a local view's window, as a share of the clip's."""
    window_frames: Annotated[int, Field(ge=0)] = 0
    """Frames of a longer clip that all its views are taken from, beginning anywhere but at its first; 0 takes the whole
    clip. 256 in the released code."""
    shrink_margin: bool = True
    """Whether the five frames that a global view leaves out at one end become fewer in a clip of ten frames or fewer,
    which would stand still otherwise. The released code leaves out five of any clip."""

    @model_validator(mode="after")
    def _windows_hold_views(self) -> Self:
        longest = max(self.global_frames + self.local_frames)
        if 0 < self.window_frames < longest:
            raise ValueError(f"window_frames: must be 0, or at least the {longest} frames of the longest view")
        return self

    @property
    def view_shapes(self) -> tuple[tuple[int, int], ...]:
        """(frames, height and width in pixels) of every view, globals first."""
        shapes = [(frames, self.global_size) for frames in self.global_frames]
        return tuple(shapes + [(frames, self.local_size) for frames in self.local_frames])

    @property
    def view_names(self) -> tuple[str, ...]:
        """g1, g2, ... for the global views, l1, l2, ... for the local ones."""
        names = [f"g{number + 1}" for number in range(len(self.global_frames))]
        return tuple(names + [f"l{number + 1}" for number in range(len(self.local_frames))])

    @property
    def num_globals(self) -> int:
        """Of `global_frames`."""
        return len(self.global_frames)

    def crop_scale(self, view: int) -> tuple[float, float]:
        """`global_scale` or `local_scale`."""
        return self.global_scale if view < self.num_globals else self.local_scale


class PairViewConfig(ViewScheme):
    """Two consecutive clips, each with a still of itself: what VCL learns from (Qian et al., 2022; its released code).

    The released code draws frames, stills and colours as here; its crops and its hue were not published, so `scale` is
    that of Endo-FM's global views, and hue stays as it is.
    """

    kind: Literal["pairs"] = "pairs"
    jitter_probability: Probability = 1.0
    brightness: Probability = 0.5
    contrast: Probability = 0.5
    saturation: Probability = 0.5
    grayscale_probability: Probability = 0.5
    frames: Annotated[int, Field(ge=2)] = 8
    """Of each of the two clips."""
    size: Pixels = 224
    """Height and width of a view, pixels."""
    scale: tuple[Share, Share] = (0.4, 1.0)
    """Least and greatest share of the picture's area in a view."""
    fastest: Annotated[int, Field(ge=1)] = 3
    """Greatest distance between frames that follow each other; drawn from 1 up, as far as the clip is long enough."""
    static: Literal["repeat", "single"] = "single"
    """Whether a still is its frame repeated `frames` times, as published, or one frame, at that much less work."""

    @property
    def view_shapes(self) -> tuple[tuple[int, int], ...]:
        """(frames, height and width in pixels): first and second clip, then the stills of both."""
        still = self.frames if self.static == "repeat" else 1
        return (self.frames, self.size), (self.frames, self.size), (still, self.size), (still, self.size)

    @property
    def view_names(self) -> tuple[str, ...]:
        """As VCL's description has them."""
        return "v1", "v2", "s1", "s2"

    @property
    def num_globals(self) -> int:
        """The two clips."""
        return 2

    def crop_scale(self, view: int) -> tuple[float, float]:  # noqa: ARG002 - all alike
        """`scale`."""
        return self.scale


AnyViews = Annotated[Annotated[ViewConfig, Tag("crops")] | Annotated[PairViewConfig, Tag("pairs")], by_kind("crops")]


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


def plan_views(num_frames: int, height: int, width: int, config: ViewScheme, rng: np.random.Generator) -> ViewPlan:
    """Decide the views of one clip.

    Args:
        num_frames: of the clip, at least 1.
        height: of its frames, pixels.
        width: of its frames, pixels.
        config: the recipe.
        rng: consumed by the same number of draws whatever `config` holds besides the number of views; the loader
            passes `np.random.default_rng((seed, position))`.
    """
    draws_VD = rng.random((len(config.view_shapes), _DRAWS)).tolist()
    starts = [draws[_START] for draws in draws_VD]
    if isinstance(config, PairViewConfig):
        frames_V = _pair_frames(num_frames, config, starts)
    else:
        assert isinstance(config, ViewConfig)
        frames_V = _crop_frames(num_frames, config, starts)
    mixed = isinstance(config, ViewConfig) and config.mixed_crop
    views = [
        View(
            frames=frames,
            box=_crop(height, width, config.crop_scale(view), config.aspect_ratio, draws, mixed=mixed),
            flip=draws[_FLIP] < config.flip_probability,
            factors=_factors(config, draws),
            order=_ORDERS[int(draws[_ORDER] * len(_ORDERS))],
            grayscale=draws[_GRAYSCALE] < config.grayscale_probability,
        )
        for view, (frames, draws) in enumerate(zip(frames_V, draws_VD, strict=True))
    ]
    return ViewPlan(tuple(views))


def _crop_frames(num_frames: int, config: ViewConfig, starts: Sequence[float]) -> list[tuple[int, ...]]:
    """Frames of the clip for every view; a view's window begins where its draw of `starts` says."""
    # A global view has no start of its own to be drawn: the first one's decides about the clip's window.
    offset, num_frames = _clip_window(num_frames, config.window_frames, starts[0])
    chosen = []
    for view, ((frames, _), start) in enumerate(zip(config.view_shapes, starts, strict=True)):
        if view < config.num_globals:
            window = _global_window(num_frames, view, config.shrink_margin)
        else:
            window = _local_window(num_frames, config.local_span, start)
        chosen.append(tuple(offset + frame for frame in spread(*window, frames, num_frames)))
    return chosen


def _pair_frames(num_frames: int, config: PairViewConfig, starts: Sequence[float]) -> list[tuple[int, ...]]:
    """Frames of the two clips and of their stills: the draws are pace, beginning, place of the still in both, none.

    A clip that is shorter than both together is spread over them, its frames repeated.
    """
    T = config.frames
    pace = 1 + int(starts[0] * min(config.fastest, num_frames // (2 * T))) if num_frames >= 2 * T else 0
    begin = int(starts[1] * (num_frames - (2 * T - 1) * pace))
    frames = [begin + index * pace for index in range(2 * T)] if pace else spread(0, num_frames - 1, 2 * T, num_frames)
    still = int(starts[2] * T)
    times = config.view_shapes[2][0]
    return [tuple(frames[:T]), tuple(frames[T:]), (frames[still],) * times, (frames[T + still],) * times]


def told_of_short_clips(num_frames_N: NDArray[np.integer[Any]], config: ViewScheme) -> str:
    """A sentence on the clips that have fewer frames than the longest view asks for; empty where there are none."""
    longest = max(frames for frames, _ in config.view_shapes)
    short = int((num_frames_N < longest).sum())
    if not short:
        return ""
    told = f"clips with fewer frames than the longest view, which has {longest}: {short:,} of {len(num_frames_N):,}"
    return f"{told}; their longer views repeat frames"


def spread(first: int, last: int, count: int, num_frames: int) -> tuple[int, ...]:
    """`count` frames evenly from `first` to `last`, both included, rounded down and clamped into the clip.

    In integers, so that no platform's rounding moves a frame. The released code truncates a float32 `linspace`, which
    comes to the same for all windows of clips of up to 400 frames, unless a platform fuses its multiply-adds.
    """
    steps = max(count - 1, 1)
    return tuple(min(max((first * (steps - i) + last * i) // steps, 0), num_frames - 1) for i in range(count))


def _clip_window(num_frames: int, longest: int, draw: float) -> tuple[int, int]:
    """First frame and number of frames of the part of a clip that its views see.

    The released decoder begins at a real number, not at a frame, takes the frames from there up to `longest` - 1 later,
    and one more. So it begins with the frame after, and the clip's first never takes part.
    """
    if not 0 < longest < num_frames:
        return 0, num_frames
    return 1 + int(draw * (num_frames - longest)), longest


def _global_window(num_frames: int, view: int, shrink: bool) -> tuple[int, int]:
    """The first global view leaves out the clip's end, the second its start.

    Where it may `shrink`, the margin is never as much as half of a short clip: whole, which suits the recipe's clips of
    150 frames, it would make a still picture of five or six.
    """
    margin = min(GLOBAL_MARGIN, (num_frames - 1) // 2) if shrink else GLOBAL_MARGIN
    return (0, num_frames - margin) if view % 2 == 0 else (margin, num_frames)


def _local_window(num_frames: int, span: float, draw: float) -> tuple[int, int]:
    length = int(num_frames * span)
    starts = max(num_frames - length, 1)  # a span of 1 leaves no choice
    start = int(draw * starts)
    return start, start + length


def _crop(
    height: int,
    width: int,
    scale: tuple[float, float],
    aspect_ratio: tuple[float, float],
    draws: Sequence[float],
    *,
    mixed: bool,
) -> tuple[int, int, int, int]:
    """The first of ten proposals of area and aspect ratio that fits, anywhere in the picture; if none does, the
    largest central box of an allowed aspect ratio.

    Where `mixed`, the last one that fits says where, the tenth how large, and the border cuts off what lies beyond.
    """
    proposals = _proposals(height, width, scale, aspect_ratio, draws)
    first = next((size for size in proposals if _fits(size, height, width)), None)
    if first is None:
        crop_width = min(width, max(round(height * aspect_ratio[1]), 1))
        crop_height = min(height, max(round(width / aspect_ratio[0]), 1))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width
    size = placed = first
    if mixed:
        for size in proposals:
            placed = size if _fits(size, height, width) else placed
    top = int(draws[_TOP] * (height - placed[0] + 1))
    left = int(draws[_LEFT] * (width - placed[1] + 1))
    return top, left, min(max(size[0], 1), height - top), min(max(size[1], 1), width - left)


def _proposals(
    height: int, width: int, scale: tuple[float, float], aspect_ratio: tuple[float, float], draws: Sequence[float]
) -> Iterator[tuple[int, int]]:
    """Heights and widths, pixels: of a uniform share of the picture's area and a log-uniform aspect ratio each."""
    least, greatest = math.log(aspect_ratio[0]), math.log(aspect_ratio[1])
    for area_draw, ratio_draw in zip(draws[_AREAS], draws[_RATIOS], strict=True):
        area = (scale[0] + area_draw * (scale[1] - scale[0])) * height * width
        ratio = math.exp(least + ratio_draw * (greatest - least))
        yield round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))


def _fits(size: tuple[int, int], height: int, width: int) -> bool:
    return 0 < size[0] <= height and 0 < size[1] <= width


def _factors(config: ViewScheme, draws: Sequence[float]) -> tuple[float, float, float]:
    if draws[_JITTER] >= config.jitter_probability:
        return 1.0, 1.0, 1.0
    brightness, contrast, saturation = (2 * draw - 1 for draw in draws[_FACTORS])
    return 1 + brightness * config.brightness, 1 + contrast * config.contrast, 1 + saturation * config.saturation
