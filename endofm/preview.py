"""A contact sheet of what the model sees: the views of a few clips, and where in the clips they come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from endocorpus.corpus.files import atomic_file
from endocorpus.errors import DataError, UsageError
from endofm.data.batches import load_batch, plan_clip
from endofm.data.clips import ClipSet, load_clips
from endofm.data.decode import decode_frames
from endofm.data.loader import make_order
from endofm.data.places import shard_cache
from endofm.data.settings import DataConfig, decided
from endofm.data.stream import BadClipError, ShardReader
from endofm.data.views import View, ViewPlan, ViewScheme, apply_views, told_of_short_clips

_STRIP_ROWS, _STRIP_COLUMNS = 2, 4  # of frames beside the middle frame, about as high as it is
_MIDDLE_HEIGHT, _STRIP_HEIGHT = 320, 144  # pixels
_LARGEST_THUMBNAIL = 112  # pixels; views are shown at their own size up to this
_LABEL_WIDTH, _GAP, _TEXT_HEIGHT = 176, 6, 18  # pixels
_TAG_WIDTH, _TAG_HEIGHT = 24, 17  # pixels
_LEGEND = (
    "f frames of px pixels; crop: width x height at left, top; b c s: brightness, contrast, saturation times this; "
    "below a picture its frame in the clip, =5 for frame 5 once more"
)
_INK, _FAINT, _PAPER = (30, 30, 34), (120, 120, 128), (250, 250, 250)
# One colour per view, told apart on dark, on red and brown, and on paper.
_COLOURS = (
    (60, 130, 255), (0, 190, 80), (255, 150, 0), (200, 90, 255), (0, 190, 215),
    (170, 175, 0), (255, 80, 160), (150, 150, 165), (130, 215, 255), (190, 125, 60),
)  # fmt: skip


def draw_views(
    corpora: Sequence[Path | str],
    config: ViewScheme,
    out: Path,
    *,
    seed: int,
    num_clips: int,
    data: DataConfig | None = None,
) -> str:
    """Write a PNG of the views that training with this seed makes of its first clips.

    One block a clip: frames of the source, its middle frame with the crop of every view, then a row for every view with
    all its frames as `apply_views` returns them, de-normalised.

    Args:
        corpora: folders or addresses, as for training.
        config: the recipe.
        out: the PNG; replaced if it exists.
        seed: the run's seed.
        num_clips: blocks, at least 1; all clips where there are fewer.
        data: how training reads and shuffles them; as by default if None.

    Returns:
        What is to be known of clips that are too short for the views, of all there are, of damaged ones among those to
        be drawn, which are left out, and of corpora that are not released; empty if there are none.

    Raises:
        DataError: a corpus cannot be read, or all clips to be drawn are damaged.
        UsageError: a number outside its range.
    """
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out}: the views are drawn as a PNG; name a file that ends in .png")
    if num_clips < 1:
        raise UsageError(f"the number of clips must be at least 1, got {num_clips}")
    clips = load_clips(corpora, data=data)
    data = decided(data or DataConfig(), is_remote=clips.is_remote)
    count = min(num_clips, len(clips))
    sampler = make_order(clips, data, batch_size=count, seed=seed)
    positions = sampler.positions(0)
    blocks, damaged = [], []
    with ShardReader(shard_cache(data)) as reader:
        for row, position in zip(sampler.rows_at(positions).tolist(), positions.tolist(), strict=True):
            try:
                blocks.append(_draw_clip(clips, row, position, config, seed, reader))
            except BadClipError as error:
                damaged.append(f"left out: {error}")
    if not blocks:
        raise DataError(damaged[0])
    sheet = _stack(blocks, gap=24)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as file:
        sheet.save(file, format="PNG")
    short = told_of_short_clips(clips.num_frames_N, config)
    return "\n".join([*damaged, *(line for line in (short, clips.warning) if line)])


def _draw_clip(
    clips: ClipSet, row: int, position: int, config: ViewScheme, seed: int, reader: ShardReader
) -> Image.Image:
    """The block of one clip."""
    plan = plan_clip(clips, row, position, config, seed=seed)
    batch = load_batch(clips, [row], [position], config, seed=seed, reader=reader)
    names = config.view_names
    rows = [
        _draw_view(name, view, _to_images(view_tensor[0], config), colour=_colour(index))
        for index, (name, view, view_tensor) in enumerate(
            zip(names, plan.views, apply_views(batch, "cpu"), strict=True)
        )
    ]
    num_frames = int(clips.num_frames_N[row])
    title = f"{clips.key(row)}    {num_frames} frames of {clips.width_N[row]} x {clips.height_N[row]} pixels"
    heading = _text(f"{title}    seed {seed}, position {position}", size=17)
    return _stack([heading, _text(_LEGEND, size=13), _draw_source(clips, row, plan, names, reader), *rows], gap=_GAP)


def _draw_source(clips: ClipSet, row: int, plan: ViewPlan, names: Sequence[str], reader: ShardReader) -> Image.Image:
    """The middle frame with the boxes of all views, then frames spread over the clip, first and last among them."""
    num_frames = int(clips.num_frames_N[row])
    middle = num_frames // 2
    strip = np.linspace(0, num_frames - 1, _STRIP_ROWS * _STRIP_COLUMNS).round().astype(int).tolist()
    wanted = sorted({middle, *strip})
    decoded = decode_frames(reader.read(clips.location(row)), np.array(wanted), num_frames)
    frames = dict(zip(wanted, decoded, strict=True))
    thumbnails = [
        _captioned(_at_height(Image.fromarray(frames[index]), _STRIP_HEIGHT), f"frame {index}") for index in strip
    ]
    boxed = _captioned(_draw_boxes(frames[middle], plan, names), f"frame {middle}, with the crop of every view")
    rows = [thumbnails[i : i + _STRIP_COLUMNS] for i in range(0, len(thumbnails), _STRIP_COLUMNS)]
    return _beside([boxed, _below([_beside(row) for row in rows])])


def _draw_boxes(frame_HWC: NDArray[np.uint8], plan: ViewPlan, names: Sequence[str]) -> Image.Image:
    picture = _at_height(Image.fromarray(frame_HWC), _MIDDLE_HEIGHT)
    draw = ImageDraw.Draw(picture)
    scale = picture.height / frame_HWC.shape[0]
    tags: list[tuple[float, float]] = []
    for index, (name, view) in enumerate(zip(names, plan.views, strict=True)):
        top, left, height, width = (edge * scale for edge in view.box)
        right, bottom = left + width - 1, top + height - 1
        draw.rectangle((left, top, right, bottom), outline=_colour(index), width=4 if name[0] == "g" else 2)
        # Names go round the corners, as boxes often share one.
        tags.append((left if index % 2 else right - _TAG_WIDTH, bottom - _TAG_HEIGHT if index % 4 >= 2 else top))
    for index, (name, (x, y)) in enumerate(zip(names, tags, strict=True)):  # above all boxes
        draw.rectangle((x, y, x + _TAG_WIDTH, y + _TAG_HEIGHT), fill=_colour(index))
        draw.text((x + _TAG_WIDTH / 2, y + _TAG_HEIGHT / 2), name, fill=_INK, font=_font(13), anchor="mm")
    return picture


def _draw_view(name: str, view: View, frames: Sequence[Image.Image], colour: tuple[int, int, int]) -> Image.Image:
    """One row: what was decided about the view, then its frames with their numbers in the clip."""
    size = frames[0].width
    shown = min(size, _LARGEST_THUMBNAIL)
    label = Image.new("RGB", (_LABEL_WIDTH, max(shown + _TEXT_HEIGHT, 4 * _TEXT_HEIGHT)), _PAPER)
    draw = ImageDraw.Draw(label)
    draw.rectangle((0, 0, 6, shown - 1), fill=colour)
    brightness, contrast, saturation = view.factors
    lines = [
        f"{name}  {len(frames)}f  {size}px",
        f"crop {view.box[3]} x {view.box[2]} at {view.box[1]}, {view.box[0]}",
        f"b {brightness:.2f}  c {contrast:.2f}  s {saturation:.2f}" if set(view.factors) != {1.0} else "no jitter",
        ", ".join(word for word, is_so in (("flipped", view.flip), ("grey", view.grayscale)) if is_so),
    ]
    for index, line in enumerate(lines):
        draw.text((14, index * _TEXT_HEIGHT), line, fill=_FAINT if index else _INK, font=_font(13 if index else 15))
    resized = [frame.resize((shown, shown), Image.Resampling.BOX) if shown < size else frame for frame in frames]
    numbers = frame_numbers(view)
    numbered = [_captioned(frame, number) for frame, number in zip(resized, numbers, strict=True)]
    return _beside([label, *numbered])


def frame_numbers(view: View) -> list[str]:
    """What stands below the frames of a view: their numbers in the clip, marked where the one before is repeated."""
    return [f"{'=' * (i > 0 and view.frames[i - 1] == number)}{number}" for i, number in enumerate(view.frames)]


def _to_images(view_CTSS: Tensor, config: ViewScheme) -> list[Image.Image]:
    """De-normalise one view, float32 [3, T, S, S], to pictures."""
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (config.mean, config.std))
    pixels = (view_CTSS * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
    return [Image.fromarray(frame) for frame in pixels.permute(1, 2, 3, 0).contiguous().numpy()]


def _colour(view: int) -> tuple[int, int, int]:
    return _COLOURS[view % len(_COLOURS)]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text(text: str, size: int) -> Image.Image:
    left, _, right, bottom = _font(size).getbbox(text)
    image = Image.new("RGB", (int(right - left) + 2, int(bottom) + 4), _PAPER)
    ImageDraw.Draw(image).text((0, 0), text, fill=_INK, font=_font(size))
    return image


def _at_height(image: Image.Image, height: int) -> Image.Image:
    return image.resize((max(round(image.width * height / image.height), 1), height), Image.Resampling.LANCZOS)


def _captioned(image: Image.Image, caption: str) -> Image.Image:
    """The picture with a line of text below it."""
    words = _text(caption, size=13)
    both = Image.new("RGB", (max(image.width, words.width), image.height + _TEXT_HEIGHT), _PAPER)
    both.paste(image, (0, 0))
    both.paste(words, (0, image.height))
    return both


def _beside(images: Sequence[Image.Image]) -> Image.Image:
    row = Image.new("RGB", (sum(i.width + _GAP for i in images), max(i.height for i in images)), _PAPER)
    x = 0
    for image in images:
        row.paste(image, (x, 0))
        x += image.width + _GAP
    return row


def _stack(images: Sequence[Image.Image], gap: int) -> Image.Image:
    """The pictures one below the other, with a margin all around."""
    column = _below(images, gap)
    sheet = Image.new("RGB", (column.width + 2 * gap, column.height + 2 * gap), _PAPER)
    sheet.paste(column, (gap, gap))
    return sheet


def _below(images: Sequence[Image.Image], gap: int = _GAP) -> Image.Image:
    size = max(i.width for i in images), sum(i.height + gap for i in images) - gap
    column = Image.new("RGB", size, _PAPER)
    y = 0
    for image in images:
        column.paste(image, (0, y))
        y += image.height + gap
    return column
