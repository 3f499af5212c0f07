"""The views of a batch, cut from the planes of its frames on the device as `plan` decided them.

`plan.plan_views` makes every random decision about a clip without seeing a pixel, `planes` says what travels, and
`apply_views` carries the plans of a whole batch out.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from endofm.data.plan import (
    BRIGHTNESS,
    CONTRAST,
    Rgb,
    View,
    ViewConfig,
    ViewPlan,
    ViewScheme,
    plan_views,
    told_of_short_clips,
)
from endofm.data.planes import HALVED
from endofm.data.quarantine import Replaced

__all__ = [
    "ClipBatch",
    "View",
    "ViewConfig",
    "ViewPlan",
    "ViewScheme",
    "apply_views",
    "make_batch",
    "plan_views",
    "told_of_short_clips",
]

_TAPS = 2  # pixels beyond a crop that a bicubic kernel at its border asks for


@dataclasses.dataclass(frozen=True, eq=False)
class ClipBatch:
    """What B clips look like and the plans of their V views, ready to travel to the device.

    The pixels of all clips, of any sizes, lie one after the other. `cuts_BU5` says where; where a clip's views need
    fewer frames than those of another one, its last rows are zeros.
    """

    pixels: Tensor  # uint8 [bytes]: planes of the frames that the views need, cut; see `planes`
    cuts_BU5: Tensor  # int64: where each of them lies and which pixels it holds, see `planes.lay_out`
    to_rgb_B34: Tensor  # float32: what makes RGB of a clip's planes, see `planes.rgb_matrix`
    picks_BT: Tensor  # int64: for every frame of every view, views one after the other, its index in U
    boxes_BV4: Tensor  # int64: top, left, height, width, pixels
    flip_BV: Tensor  # bool
    factors_BV3: Tensor  # float32: brightness, contrast, saturation
    order_BV3: Tensor  # int64: in which of these three apply
    grayscale_BV: Tensor  # bool
    positions_B: Tensor  # int64: positions in the endless order of the sampler
    keys: tuple[str, ...]
    crop_limits: tuple[tuple[int, int], ...]  # per view, greatest crop height and width; here, so that no device waits
    config: ViewScheme
    halved: int = HALVED  # how often the sides of the colour planes are halved
    corpora: tuple[str, ...] = ()  # name of each clip's corpus
    replaced: tuple[Replaced, ...] = ()  # bad clips that others stand in for, here

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> ClipBatch:
        """A copy on the device, itself where it is there already. From pinned memory the copy does not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> ClipBatch:
        """A copy in page-locked memory, from which a GPU fetches on its own."""
        return self._map(lambda tensor: tensor.pin_memory())

    def used_on(self, stream: torch.Stream) -> None:
        """Let the memory of a copy that was made on another stream live until this one is done with it."""
        self._map(lambda tensor: tensor.record_stream(stream) or tensor)  # type: ignore[func-returns-value]

    @property
    def num_bytes(self) -> int:
        """Of all tensors: what travels to the device."""
        return sum(value.nbytes for value in self.__dict__.values() if isinstance(value, Tensor))

    def _map(self, function: Callable[[Tensor], Tensor]) -> ClipBatch:
        changed = {
            field.name: function(value)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **changed)  # type: ignore[arg-type]  # the names are those of tensors

    def __getstate__(self) -> dict[str, Any]:
        # Between processes every tensor travels as a shared-memory file with a handshake of its own. That is right for
        # the pixels and a waste for the rest, which goes by value.
        state = dict(self.__dict__)
        for name, value in state.items():
            if isinstance(value, Tensor) and name != "pixels":
                state[name] = value.numpy()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            self.__dict__[name] = torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def make_batch(
    pixels: Tensor,
    cuts: Sequence[NDArray[np.int64]],
    to_rgb: Sequence[NDArray[np.float32]],
    plans: Sequence[ViewPlan],
    config: ViewScheme,
    keys: Sequence[str],
    positions: Sequence[int],
    *,
    halved: int = HALVED,
) -> ClipBatch:
    """Bring pixels and plans of the same clips together.

    Args:
        pixels: uint8 [bytes].
        cuts: for every clip a row for each of `plan.frames_needed`; see `planes.lay_out`.
        to_rgb: for every clip what makes RGB of its planes; see `planes.rgb_matrix`.
        plans: one per clip.
        config: the recipe the plans were made with.
        keys: of the clips.
        positions: of the clips in the sampler's order.
        halved: how often the sides of the colour planes are halved.
    """
    picks = [
        np.searchsorted(plan.frames_needed, np.array([frame for view in plan.views for frame in view.frames]))
        for plan in plans
    ]
    cuts_BU5 = np.zeros((len(plans), max(map(len, cuts)), 5), np.int64)
    for row, cuts_U5 in zip(cuts_BU5, cuts, strict=True):
        row[: len(cuts_U5)] = cuts_U5
    boxes = torch.tensor([[view.box for view in plan.views] for plan in plans])
    return ClipBatch(
        pixels=pixels,
        cuts_BU5=torch.from_numpy(cuts_BU5),
        to_rgb_B34=torch.from_numpy(np.stack(to_rgb)),
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
        halved=halved,
    )


@torch.no_grad()
def apply_views(batch: ClipBatch, device: torch.device | str) -> list[Tensor]:
    """Make the views of a batch; all pixel work happens on the device.

    Order of work: colours to RGB, crop and resize, flip, colour jitter, grayscale, clamp to [0, 1] where the recipe
    says so, normalise; with the same parameters for all frames of a view. The resize is bicubic (a = -0.75, pixel
    centres, no antialiasing) and sees the crop alone, whose border pixels repeat beyond it, exactly as `F.interpolate`
    of the cropped frames would do it.

    Returns:
        Per view, globals first: float32 [B, 3, T, S, S], contiguous.
    """
    batch = batch.to(device)
    device = torch.device(device)
    mean_C111, std_C111 = _per_colour(batch.config.mean, device), _per_colour(batch.config.std, device)
    weights = batch.config.grey_weights
    views: list[Tensor] = []
    stop = 0
    for view, (frames, size) in enumerate(batch.config.view_shapes):
        start, stop = stop, stop + frames
        crop_BCTHW = _gather_crop(
            batch, batch.picks_BT[:, start:stop], batch.boxes_BV4[:, view], batch.crop_limits[view]
        )
        view_BCTSS = _resize_crop(crop_BCTHW, batch.boxes_BV4[:, view], batch.flip_BV[:, view], size)
        view_BCTSS = _jitter(view_BCTSS, batch.factors_BV3[:, view], batch.order_BV3[:, view], weights)
        grey_B1TSS = _grey(view_BCTSS, weights)
        view_BCTSS = torch.where(_spread(batch.grayscale_BV[:, view]), grey_B1TSS, view_BCTSS)
        if batch.config.clamp:
            view_BCTSS.clamp_(0, 1)
        views.append(view_BCTSS.sub_(mean_C111).div_(std_C111))
    return views


@functools.cache  # a new one would make the host wait, as it comes from memory that is not page-locked
def _per_colour(values: Rgb, device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(3, 1, 1, 1)


def _gather_crop(batch: ClipBatch, picks_BT: Tensor, box_B4: Tensor, limit: tuple[int, int]) -> Tensor:
    """Gather the crop's pixels of the picked frames as RGB, float32 [B, 3, T, R, K], 0 to 255.

    Rows and columns are clamped to the crop, two beyond it on every side and all up to the batch's largest crop: its
    border repeats, and nothing outside the crop can be read. The four pixels of a square have its colour.
    """
    top_B, left_B, height_B, width_B = box_B4.unbind(1)
    device = box_B4.device
    rows_R = torch.arange(-_TAPS, limit[0] + _TAPS, device=device).clamp(min=0)
    columns_K = torch.arange(-_TAPS, limit[1] + _TAPS, device=device).clamp(min=0)
    rows_B1R1 = (top_B[:, None] + torch.minimum(rows_R, height_B[:, None] - 1))[:, None, :, None]
    columns_B11K = (left_B[:, None] + torch.minimum(columns_K, width_B[:, None] - 1))[:, None, None, :]
    cuts_BT5 = batch.cuts_BU5.gather(1, picks_BT[:, :, None].expand(-1, -1, 5))
    offset, top, left, height, width = (column[:, :, None, None] for column in cuts_BT5.unbind(2))
    planes = []
    for halved in (0, batch.halved, batch.halved):
        rows, columns = (rows_B1R1 >> halved) - (top >> halved), (columns_B11K >> halved) - (left >> halved)
        row_bytes = (width + halved) >> halved
        planes.append(batch.pixels[offset + rows * row_bytes + columns])
        offset = offset + row_bytes * ((height + halved) >> halved)
    planes_B3X = torch.stack(planes, dim=1).flatten(2).float()
    to_rgb_B34 = batch.to_rgb_B34
    rgb_B3X = torch.baddbmm(to_rgb_B34[:, :, 3:], to_rgb_B34[:, :, :3], planes_B3X).clamp_(0, 255)
    return rgb_B3X.view(len(box_B4), 3, *planes[0].shape[1:])


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
    folded = crop_BCTRK.view(batch, channels * frames, rows, columns)
    resized = F.grid_sample(folded, grid_BSS2, mode="bicubic", padding_mode="border", align_corners=False)
    return resized.div_(255).view(batch, channels, frames, size, size)


def _jitter(view_BCTSS: Tensor, factors_B3: Tensor, order_B3: Tensor, weights: Rgb) -> Tensor:
    """Brightness, contrast and saturation, each clip in its own order: blends with black, with each frame's mean grey
    and with each pixel's grey. A factor of 1 returns the pixels unchanged.

    As nothing is clamped in between, the three commute but for rounding; an order is drawn all the same, as the recipe
    draws one, and for jitters that do not commute.
    """
    for op_B in order_B3.unbind(1):
        factor = _spread(factors_B3.gather(1, op_B[:, None]).squeeze(1))
        grey_B1TSS = _grey(view_BCTSS, weights)
        pivot = torch.where(_spread(op_B == CONTRAST), grey_B1TSS.mean(dim=(-2, -1), keepdim=True), grey_B1TSS)
        pivot = torch.where(_spread(op_B == BRIGHTNESS), 0.0, pivot)
        view_BCTSS = torch.lerp(pivot.expand_as(view_BCTSS), view_BCTSS, factor)
    return view_BCTSS


def _grey(view_BCTSS: Tensor, weights: Rgb) -> Tensor:
    """Grey of every pixel, [B, 1, T, S, S]."""
    red, green, blue = view_BCTSS.unbind(1)
    return (red * weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2]).unsqueeze(1)


def _spread(values_B: Tensor) -> Tensor:
    """Per-clip values in the shape that broadcasts over [B, C, T, S, S]."""
    return values_B.view(-1, 1, 1, 1, 1)
