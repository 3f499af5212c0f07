"""The page on which a person looks at masked clips and decides: worst first, by keyboard, without a network.

Two sets of clips are shown. The worst tenth by score, all of it: that is where leaks are likely. And a random sample
of all clips: only that says something about those that nobody looked at. `signoff.py` reads the decisions back.

The page is one file that loads nothing. It holds pictures of clips that nobody has released yet, so only its owner can
read it, and it is not written into a corpus.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from endocorpus.corpus.files import atomic_path
from endocorpus.corpus.manifest import Corpus, refuse_inside_corpus
from endocorpus.deid.chain import canonical, sha256
from endocorpus.deid.describe import clips_digest, read_clip
from endocorpus.errors import DataError, UsageError
from endocorpus.media.frames import frames_at
from endocorpus.records import Box, Span

SAMPLE = 299  # none of them leaks: at most 1 % do, at 95 % confidence
WORST_SHARE = Fraction(1, 10)
FRAMES = 16  # of a clip
_WIDEST = 480  # pixels of a frame on the sheet; a clip is shown as large as it is, up to this
_GAP = 4  # pixels between frames
_GROUND = 24  # grey of the gaps: neither the black of masks nor tissue
_COLUMNS = ("key", "shard", "mp4_offset", "mp4_size", "mp4_xxh3_128", "num_frames", "width", "height")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskBox:
    """A filled box in pixels of the clip's picture, half-open, on frames `start` up to, not including, `stop`."""

    left: int
    top: int
    right: int
    bottom: int
    start: int = 0
    stop: int | None = None  # to the end


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipMask:
    """What was masked in a clip, and how doubtful it is: the higher `score`, the earlier it is shown."""

    boxes: tuple[MaskBox, ...] = ()
    score: float = 0.0


def place_boxes(
    boxes: Iterable[tuple[Box, Span]], *, crop: Box, clip: Span, stride: int, size: tuple[int, int]
) -> tuple[MaskBox, ...]:
    """Boxes that are filled in a recording, as they lie in the picture of a clip; rounded outwards.

    Args:
        boxes: each with the frames of the recording on which it is filled.
        crop: what the clip shows of the displayed picture.
        clip: the frames of the recording that the clip was made of, every `stride`-th of them.
        size: width and height of the clip's picture.
    """
    across, down = Fraction(size[0], crop[2] - crop[0]), Fraction(size[1], crop[3] - crop[1])
    placed = []
    for (left, top, right, bottom), span in boxes:
        since = [max(0, min(at, clip.stop) - clip.start) for at in (span.start, span.stop)]
        start, stop = (math.ceil(Fraction(frames, stride)) for frames in since)
        box = MaskBox(
            left=max(0, math.floor((left - crop[0]) * across)),
            top=max(0, math.floor((top - crop[1]) * down)),
            right=min(size[0], math.ceil((right - crop[0]) * across)),
            bottom=min(size[1], math.ceil((bottom - crop[1]) * down)),
            start=start,
            stop=stop,
        )
        if box.left < box.right and box.top < box.bottom and start < stop:
            placed.append(box)
    return tuple(placed)


def covered_pixels(boxes: Iterable[MaskBox], size: tuple[int, int]) -> int:
    """How many pixels of a clip's picture, (width, height), are filled on any of its frames."""
    filled = np.zeros((size[1], size[0]), np.bool_)
    for box in boxes:
        filled[box.top : box.bottom, box.left : box.right] = True
    return int(filled.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewPlan:
    """Which clips are shown, in which order. A function of the corpus, the scores and the seed."""

    name: str
    clips_digest: str
    seed: int
    num_clips: int  # in the corpus
    worst: tuple[str, ...]
    sample: tuple[str, ...]  # drawn at random from all clips
    order: tuple[str, ...]  # both, worst first

    @property
    def digest(self) -> str:
        """SHA-256 of the plan, which a page's decisions repeat."""
        return sha256(canonical([self.name, self.clips_digest, self.seed, self.worst, self.sample, self.order]))


def plan_review(
    name: str,
    digest: str,
    scores: Mapping[str, float],
    *,
    seed: int = 0,
    sample: int = SAMPLE,
    worst_share: Fraction = WORST_SHARE,
) -> ReviewPlan:
    """Choose what is shown of the clips in `scores` (key -> score).

    The sample depends on `digest`, so that a corpus from which leaks were removed is sampled anew: putting fresh clips
    in the place of those that leaked would sooner or later pass any corpus.

    Args:
        digest: `clips_digest` of the corpus.
        sample: how many clips to draw; all of them where there are fewer.
        worst_share: of all clips, rounded up; those with a score of 0 are not doubtful.
    """
    if sample < 1 or not all(math.isfinite(score) for score in scores.values()):
        raise ValueError("a sample has clips, and their scores are numbers")
    drawn = sorted(scores, key=lambda key: hashlib.sha256(canonical([seed, digest, key])).digest())
    place = {key: i for i, key in enumerate(drawn)}  # ties in an order that says nothing
    ranked = sorted(scores, key=lambda key: (-scores[key], place[key]))
    doubtful = [key for key in ranked if scores[key] > 0]
    worst, random = tuple(doubtful[: math.ceil(len(scores) * worst_share)]), tuple(sorted(drawn[:sample]))
    shown = {*worst, *random}
    order = tuple(key for key in ranked if key in shown)
    return ReviewPlan(
        name=name, clips_digest=digest, seed=seed, num_clips=len(scores), worst=worst, sample=random, order=order
    )


def plan_corpus_review(
    corpus: Corpus, masks: Mapping[str, ClipMask] = MappingProxyType({}), *, seed: int = 0, sample: int = SAMPLE
) -> ReviewPlan:
    """`plan_review` of a corpus. `masks` is by clip key; a clip without any has the score 0.

    Raises:
        DataError: a table is missing or damaged.
        UsageError: there is nothing to review.
        ValueError: a mask is of no clip of the corpus (a bug).
    """
    keys = corpus.clips().column("key").to_pylist()
    if not keys:
        raise UsageError(f"{corpus.root}: holds no clips, so there is nothing to review")
    if strange := set(masks) - set(keys):
        raise ValueError(f"a mask of no clip of the corpus: {min(strange)}")
    scores = {key: masks[key].score if key in masks else 0.0 for key in keys}
    return plan_review(corpus.name, clips_digest(corpus), scores, seed=seed, sample=sample)


def review_page(
    corpus: Corpus,
    out: Path,
    masks: Mapping[str, ClipMask] = MappingProxyType({}),
    *,
    seed: int = 0,
    sample: int = SAMPLE,
    frames: int = FRAMES,
) -> ReviewPlan:
    """Write the page for `corpus` to `out`, whole or not at all, readable by its owner alone; return what it shows.

    Args:
        masks: by clip key; they are drawn as outlines, the clips themselves are masked already.
        frames: of each clip, at jittered times, so that nothing that blinks can hide between them.

    Raises:
        UsageError: `out` lies in a corpus, or there is nothing to review.
        DataError: a table or a shard is missing or damaged.
        OSError: `out` cannot be written.
    """
    refuse_inside_corpus(out)
    plan = plan_corpus_review(corpus, masks, seed=seed, sample=sample)
    rows = {row["key"]: row for row in corpus.clips().select(list(_COLUMNS)).to_pylist()}
    head, tail = _template(plan).split("<!-- clips -->")
    with atomic_path(out) as temporary:
        temporary.touch(mode=0o600)
        temporary.chmod(0o600)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(head)
            for key in plan.order:
                card = _card(corpus, rows[key], masks.get(key, ClipMask()), plan, frames)
                # A picture is some hundred kilobytes: they are written one by one, and the browser shows one at a time.
                file.write(f'<script type="application/json" class="clip">{_inert(card)}</script>\n')
            file.write(tail)
    return plan


def _inert(value: object) -> str:
    """JSON that no HTML parser takes for markup."""
    return json.dumps(value, sort_keys=True).replace("<", "\\u003c")


def _template(plan: ReviewPlan) -> str:
    folder = resources.files("endocorpus.deid")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("review.css", "review.js"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(folder.joinpath("review.html.jinja").read_text(encoding="utf-8"))
    about = {"corpus": plan.name, "clips_digest": plan.clips_digest, "plan": plan.digest, "seed": plan.seed}
    about |= {"sample": len(plan.sample)}
    return template.render(
        plan=plan,
        about=Markup(_inert(about)),
        style=Markup(style),
        script=Markup(script),
        style_hash=_csp(style),
        script_hash=_csp(script),
    )


def _csp(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _card(corpus: Corpus, row: Mapping[str, Any], mask: ClipMask, plan: ReviewPlan, frames: int) -> dict[str, Any]:
    """What the page knows of one clip."""
    key = row["key"]
    numbers = jittered(f"{plan.seed}/{key}", row["num_frames"], frames)
    try:
        pictures = frames_at(read_clip(corpus, row), numbers)
    except DataError as error:
        raise DataError(f"{key}: {error}") from None
    sheet, cells = contact_sheet(pictures)
    why = [word for word, keys in (("among the worst", plan.worst), ("random sample", plan.sample)) if key in keys]
    return {
        "key": key,
        "why": " and ".join(why),
        "score": round(mask.score, 3),
        "width": sheet.width,
        "height": sheet.height,
        "boxes": list(_outlines(mask, numbers, cells, (row["width"], row["height"]))),
        "frames": len(numbers),
        "picture": "data:image/webp;base64," + base64.b64encode(_webp(sheet)).decode("ascii"),
    }


def jittered(name: str, length: int, number: int) -> list[int]:
    """Up to `number` different frames of `length`, one at a random place in each of as many equal parts."""
    number = min(number, length)
    edges = [length * i // number for i in range(number + 1)]
    rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    return [int(rng.integers(start, stop)) for start, stop in pairwise(edges)]


Cell = tuple[int, int, int, int]


def contact_sheet(pictures: Sequence[npt.NDArray[np.uint8]]) -> tuple[Image.Image, list[Cell]]:
    """Pictures of one size, (height, width, 3) each, side by side, and where each is: left, top, width, height."""
    height, width = pictures[0].shape[:2]
    scale = min(1.0, _WIDEST / width)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    columns = _columns(len(pictures), width, height)
    rows = math.ceil(len(pictures) / columns)
    size = (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP)
    sheet = Image.new("RGB", size, (_GROUND, _GROUND, _GROUND))
    cells = [((i % columns) * (width + _GAP), (i // columns) * (height + _GAP)) for i in range(len(pictures))]
    for picture, place in zip(pictures, cells, strict=True):
        shown = Image.fromarray(picture)
        if shown.size != (width, height):
            shown = shown.resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(shown, place)
    return sheet, [(*place, width, height) for place in cells]


def _columns(number: int, width: int, height: int) -> int:
    """With how many columns pictures are largest in twice as much width as height, which a screen has left for them."""

    def scale(columns: int) -> float:
        return min(2 / (columns * width), 1 / (math.ceil(number / columns) * height))

    return max(range(1, number + 1), key=scale)


def _outlines(
    mask: ClipMask, numbers: Sequence[int], cells: Sequence[Cell], size: tuple[int, int]
) -> Iterator[list[float]]:
    """Boxes in pixels of the sheet: left, top, width, height."""
    for number, (x, y, width, height) in zip(numbers, cells, strict=True):
        across, down = width / size[0], height / size[1]
        for box in mask.boxes:
            if box.start <= number and (box.stop is None or number < box.stop):
                edges = (x + box.left * across, y + box.top * down)
                yield [
                    round(value, 1)
                    for value in (*edges, (box.right - box.left) * across, (box.bottom - box.top) * down)
                ]


def _webp(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="WEBP", quality=88, method=2)
    return out.getvalue()
