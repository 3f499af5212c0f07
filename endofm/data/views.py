"""The views of a clip: decided as plain values first, then cut from uint8 frames on the device.

`plan_views` makes every random decision about a clip without seeing a pixel; `apply_views` carries the plans of a
whole batch out. The recipe is that of Endo-FM's released pre-training code (which is SVT's), with these differences:
the crop is the first proposal that fits, instead of a mixture of two; grey weighs red, green and blue as ITU-R BT.601
says, instead of exchanging red and blue; colours are clamped to [0, 1] after the jitter; clips of fewer than eleven
frames keep moving in the global views, where the released code repeats one frame. Blur and solarisation have no effect
in the released code, so there are none.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from endocorpus.settings import Settings

GLOBAL_MARGIN = 5  # frames that the window of a global view leaves out at one end of the clip, if it is not too short
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
_JITTERS = _BRIGHTNESS, _CONTRAST, _SATURATION = range(3)
_ORDERS = tuple(itertools.permutations(_JITTERS))
_TAPS = 2  # pixels beyond a crop that a bicubic kernel at its border asks for

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


@dataclasses.dataclass(frozen=True, eq=False)
class ClipBatch:
    """Frames of B clips and the plans of their V views, ready to travel to the device.

    Clips of different sizes, or with different numbers of frames that their views need, are padded with zeros at the
    end of U, H and W. No view ever reads the padding.
    """

    frames_BUHWC: Tensor  # uint8, RGB; the frames that the clip's views need, in order of time
    extent_B3: Tensor  # int64: how much of U, H and W is the clip
    picks_BT: Tensor  # int64: for every frame of every view, views one after the other, its index in U
    boxes_BV4: Tensor  # int64: top, left, height, width, pixels
    flip_BV: Tensor  # bool
    factors_BV3: Tensor  # float32: brightness, contrast, saturation
    order_BV3: Tensor  # int64: in which of these three apply
    grayscale_BV: Tensor  # bool
    positions_B: Tensor  # int64: positions in the endless order of the sampler
    keys: tuple[str, ...]
    crop_limits: tuple[tuple[int, int], ...]  # per view, greatest crop height and width; here, so that no device waits
    config: ViewConfig

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> ClipBatch:
        """A copy on the device, itself where it is there already. From pinned memory the copy does not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> ClipBatch:
        """A copy in page-locked memory, from which a GPU fetches on its own."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> ClipBatch:
        changed = {
            field.name: function(value)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **changed)  # type: ignore[arg-type]  # the names are those of tensors

    def __getstate__(self) -> dict[str, Any]:
        # Between processes every tensor travels as a shared-memory file with a handshake of its own. That is right for
        # the frames and a waste for the rest, which goes by value.
        state = dict(self.__dict__)
        for name, value in state.items():
            if isinstance(value, Tensor) and name != "frames_BUHWC":
                state[name] = value.numpy()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            self.__dict__[name] = torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def make_batch(
    frames_BUHWC: Tensor,
    plans: Sequence[ViewPlan],
    sizes: Sequence[tuple[int, int]],
    config: ViewConfig,
    keys: Sequence[str],
    positions: Sequence[int],
) -> ClipBatch:
    """Bring frames and plans of the same clips together.

    Args:
        frames_BUHWC: uint8; for every clip the frames of `plan.frames_needed`, then padding.
        plans: one per clip.
        sizes: true height and width of each clip's frames, pixels.
        config: the recipe the plans were made with.
        keys: of the clips.
        positions: of the clips in the sampler's order.
    """
    needed = [plan.frames_needed for plan in plans]
    picks = [
        np.searchsorted(frames, np.array([frame for view in plan.views for frame in view.frames]))
        for plan, frames in zip(plans, needed, strict=True)
    ]
    boxes = torch.tensor([[view.box for view in plan.views] for plan in plans])
    return ClipBatch(
        frames_BUHWC=frames_BUHWC,
        extent_B3=torch.tensor([(len(frames), *size) for frames, size in zip(needed, sizes, strict=True)]),
        picks_BT=torch.from_numpy(np.stack(picks)),
        boxes_BV4=boxes,
        flip_BV=torch.tensor([[view.flip for view in plan.views] for plan in plans]),
        factors_BV3=torch.tensor([[view.factors for view in plan.views] for plan in plans], dtype=torch.float32),
        order_BV3=torch.tensor([[view.order for view in plan.views] for plan in plans]),
        grayscale_BV=torch.tensor([[view.grayscale for view in plan.views] for plan in plans]),
        positions_B=torch.tensor(positions),
        keys=tuple(keys),
        crop_limits=tuple((int(height), int(width)) for height, width in boxes[:, :, 2:].amax(dim=0).tolist()),
        config=config,
    )


@torch.no_grad()
def apply_views(batch: ClipBatch, device: torch.device | str) -> list[Tensor]:
    """Make the views of a batch; all pixel work happens on the device, from uint8.

    Order of work: crop and resize, flip, colour jitter, grayscale, clamp to [0, 1], normalise; with the same parameters
    for all frames of a view. The resize is bicubic (a = -0.75, pixel centres, no antialiasing) and sees the crop alone,
    whose border pixels repeat beyond it, exactly as `F.interpolate` of the cropped frames would do it.

    Returns:
        Per view, globals first: float32 [B, 3, T, S, S], contiguous.
    """
    batch = batch.to(device)
    mean_C = torch.tensor(batch.config.mean, device=device).view(3, 1, 1, 1)
    std_C = torch.tensor(batch.config.std, device=device).view(3, 1, 1, 1)
    views: list[Tensor] = []
    stop = 0
    for view, (frames, size) in enumerate(batch.config.view_shapes):
        start, stop = stop, stop + frames
        crop_BCTHW = _gather_crop(
            batch, batch.picks_BT[:, start:stop], batch.boxes_BV4[:, view], batch.crop_limits[view]
        )
        view_BCTSS = _resize_crop(crop_BCTHW, batch.boxes_BV4[:, view], batch.flip_BV[:, view], size)
        view_BCTSS = _jitter(view_BCTSS, batch.factors_BV3[:, view], batch.order_BV3[:, view])
        view_BCTSS = torch.where(_spread(batch.grayscale_BV[:, view]), _luma(view_BCTSS), view_BCTSS)
        views.append(view_BCTSS.clamp_(0, 1).sub_(mean_C).div_(std_C))
    return views


def _gather_crop(batch: ClipBatch, picks_BT: Tensor, box_B4: Tensor, limit: tuple[int, int]) -> Tensor:
    """Gather the crop's pixels of the picked frames, uint8 [B, 3, T, R, K].

    Rows and columns are clamped to the crop, two beyond it on every side and all up to the batch's largest crop: its
    border repeats, and nothing outside the crop, padding least of all, can be read.
    """
    top_B, left_B, height_B, width_B = box_B4.unbind(1)
    device = box_B4.device
    rows_R = torch.arange(-_TAPS, limit[0] + _TAPS, device=device).clamp(min=0)
    columns_K = torch.arange(-_TAPS, limit[1] + _TAPS, device=device).clamp(min=0)
    rows_BR = top_B[:, None] + torch.minimum(rows_R, height_B[:, None] - 1)
    columns_BK = left_B[:, None] + torch.minimum(columns_K, width_B[:, None] - 1)
    clips_B = torch.arange(len(box_B4), device=device)
    gathered_BTRKC = batch.frames_BUHWC[
        clips_B[:, None, None, None],
        picks_BT[:, :, None, None],
        rows_BR[:, None, :, None],
        columns_BK[:, None, None, :],
    ]
    return gathered_BTRKC.permute(0, 4, 1, 2, 3).contiguous()


def _resize_crop(crop_BCTRK: Tensor, box_B4: Tensor, flip_B: Tensor, size: int) -> Tensor:
    """Resize crops to float32 [B, 3, T, size, size] in [0, 1], frames folded into channels, in one `grid_sample`.

    A flip reads the columns backwards, which is what flipping the result would give.
    """
    batch, channels, frames, rows, columns = crop_BCTRK.shape
    centres_S = torch.arange(size, device=crop_BCTRK.device) + 0.5
    across_BS = torch.where(flip_B[:, None], centres_S.flip(0), centres_S)
    y_BS = centres_S * (box_B4[:, 2, None] / size) + _TAPS  # in pixels, where 0.5 is the centre of the first
    x_BS = across_BS * (box_B4[:, 3, None] / size) + _TAPS
    x_BSS = (x_BS * (2 / columns) - 1)[:, None, :].expand(-1, size, -1)
    y_BSS = (y_BS * (2 / rows) - 1)[:, :, None].expand(-1, -1, size)
    grid_BSS2 = torch.stack([x_BSS, y_BSS], dim=-1)  # grid_sample wants x first, and -1 to 1 from edge to edge
    folded = crop_BCTRK.view(batch, channels * frames, rows, columns).float()
    resized = F.grid_sample(folded, grid_BSS2, mode="bicubic", padding_mode="border", align_corners=False)
    return resized.div_(255).view(batch, channels, frames, size, size)


def _jitter(view_BCTSS: Tensor, factors_B3: Tensor, order_B3: Tensor) -> Tensor:
    """Brightness, contrast and saturation, each clip in its own order: blends with black, with each frame's mean grey
    and with each pixel's grey. A factor of 1 returns the pixels unchanged.

    As nothing is clamped in between, the three commute but for rounding; an order is drawn all the same, as the recipe
    draws one, and for jitters that do not commute.
    """
    for op_B in order_B3.unbind(1):
        factor = _spread(factors_B3.gather(1, op_B[:, None]).squeeze(1))
        grey_B1TSS = _luma(view_BCTSS)
        pivot = torch.where(_spread(op_B == _CONTRAST), grey_B1TSS.mean(dim=(-2, -1), keepdim=True), grey_B1TSS)
        pivot = torch.where(_spread(op_B == _BRIGHTNESS), 0.0, pivot)
        view_BCTSS = torch.lerp(pivot.expand_as(view_BCTSS), view_BCTSS, factor)
    return view_BCTSS


def _luma(view_BCTSS: Tensor) -> Tensor:
    """Grey of every pixel, [B, 1, T, S, S]."""
    red, green, blue = view_BCTSS.unbind(1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2]).unsqueeze(1)


def _spread(values_B: Tensor) -> Tensor:
    """Per-clip values in the shape that broadcasts over [B, C, T, S, S]."""
    return values_B.view(-1, 1, 1, 1, 1)
