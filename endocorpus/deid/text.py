"""Where text stands in a frame: PP-OCR's detector, with the steps around the network written out here.

Finding is enough to mask, so what the text says is never known: the recogniser tells whether a line can be read at all,
and letters are counted by their kind. They are put together to a string in one case only, to compare it with known
identifiers (`Known`), and nothing but the answer leaves that comparison.

Source: Liao et al., "Real-time Scene Text Detection with Differentiable Binarization", AAAI 2020; PP-OCRv6 small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, floor

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from endocorpus.deid.models import Floats, load, load_text

Frame = npt.NDArray[np.uint8]
"""RGB of shape (height, width, 3)."""

Known = Callable[[str], bool]
"""Whether what was read, with letters wrong or missing, is a known identifier. It must not keep what it is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """A detector and a recogniser, by their names in `manifests/models.toml`, and how the first wants to see colours:
    `mean` is subtracted from each channel of 0 to 255, blue first, which is then divided by `spread`."""

    detector: str
    recogniser: str
    alphabet: str | None  # a file of one letter a line; None: the recogniser's own file holds it
    mean: tuple[float, float, float]
    spread: tuple[float, float, float]


MASKING = Networks(
    detector="text-detector",
    recogniser="text-recogniser",
    alphabet=None,
    mean=(127.5, 127.5, 127.5),
    spread=(127.5, 127.5, 127.5),
)

INK = 0.3  # probability from which a pixel belongs to text
FAINT_INK = 0.2
SURE, FAINT = 0.5, 0.3  # mean probability over a box from which it is text, or may be
UNCLIP = 1.6  # the network marks the core of a line; its area over its outline, times this, is how far the line reaches
SAME = 0.5  # overlap over union from which two boxes are of one line
SMALLEST = 3  # pixels of the shorter side of a core
LINE = 2.0  # times its height that a line of print is long at least
TALLEST, TALL, TOO_TALL = 64, 0.1, 0.25  # pixels, and parts of the picture's shorter side, that a line is high at most
SHORT_SIDE = 736  # pixels that the shorter side of what the network sees has at least
MOST_ZOOM = 3.0
_STEP = 32  # the network halves its input five times


@dataclass(frozen=True, slots=True, order=True)
class TextBox:
    """A line of text: half-open pixels of the frame, and the detector's mean probability over it, 0 to 1."""

    left: int
    top: int
    right: int
    bottom: int
    score: float

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def lies_in(self, other: TextBox) -> bool:
        """Whether no pixel of this box lies outside `other`."""
        left_top = other.left <= self.left and other.top <= self.top
        return left_top and self.right <= other.right and self.bottom <= other.bottom

    def moved(self, x: int, y: int) -> TextBox:
        """The same box in a picture whose corner lies at (-x, -y) of this one."""
        return TextBox(self.left + x, self.top + y, self.right + x, self.bottom + y, self.score)

    def scaled(self, across: float, down: float) -> TextBox:
        """The same box in a picture that is so many times as wide and as high."""
        left, right = floor(self.left * across), ceil(self.right * across)
        return TextBox(left, floor(self.top * down), right, ceil(self.bottom * down), self.score)


@dataclass(frozen=True, slots=True)
class Found:
    """What the detector sees in a picture: lines in which letters can be read, or that are known; lines of which it is
    sure, but in which none can; and what may be lines."""

    read: tuple[TextBox, ...]
    unread: tuple[TextBox, ...]
    faint: tuple[TextBox, ...]

    def moved(self, x: int, y: int) -> Found:
        """The same in a picture whose corner lies at (-x, -y) of this one."""
        return Found(*(tuple(box.moved(x, y) for box in some) for some in (self.read, self.unread, self.faint)))

    def __or__(self, other: Found) -> Found:
        pairs = ((self.read, other.read), (self.unread, other.unread), (self.faint, other.faint))
        return Found(*(tuple(sorted({*one, *two})) for one, two in pairs))


NOTHING = Found((), (), ())


def find_text(frame: Frame, threads: int = 1, zoom: float | None = None, known: Sequence[TextBox] = ()) -> Found:
    """Lines of text in a frame of shape (height, width, 3), in its pixels.

    Args:
        zoom: how much the frame is enlarged before the network sees it; by default as much as small frames need.
        known: lines that were read before; one at the same place counts as read.

    Raises:
        DataError: the model is missing or changed.
    """
    height, width = frame.shape[:2]
    zoom = zoom or min(MOST_ZOOM, max(1.0, SHORT_SIDE / min(height, width)))
    chance, scale = chances(frame, zoom, MASKING, threads)
    strong = boxes_of(chance, INK, SURE, scale, (width, height))
    weak = boxes_of(chance, FAINT_INK, FAINT, scale, (width, height))
    tallest = max(min(TALLEST, min(height, width) * TOO_TALL), min(height, width) * TALL)
    strong = tuple(
        box for box in strong if _is_line(box, tallest) or _is_title(box, tallest) or _is_short(box, tallest)
    )
    read = tuple(
        box
        for box in strong
        if any(overlap(box, old) >= SAME for old in known) or _is_read(frame, box, tallest, threads)
    )
    unread = tuple(box for box in strong if box not in read and _is_line(box, tallest))
    return Found(read=read, unread=unread, faint=tuple(box for box in weak if _is_line(box, tallest)))


def chances(frame: Frame, zoom: float, networks: Networks, threads: int = 1) -> tuple[Floats, tuple[float, float]]:
    """The detector's map of a frame enlarged by `zoom`, of shape (height, width): how likely each of its pixels is of
    text; and the pixels of the frame per pixel of the map, horizontally and vertically.

    Raises:
        DataError: the model is missing or changed.
    """
    height, width = frame.shape[:2]
    seen = frame
    if zoom != 1:
        size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
        seen = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
    found = load(networks.detector, threads)(_batch(seen, networks))[0, 0, : seen.shape[0], : seen.shape[1]]
    return found, (width / seen.shape[1], height / seen.shape[0])


def overlap(one: TextBox, other: TextBox) -> float:
    """Intersection over union of two boxes."""
    wide = min(one.right, other.right) - max(one.left, other.left)
    high = min(one.bottom, other.bottom) - max(one.top, other.top)
    both = max(0, wide) * max(0, high)
    return both / (one.width * one.height + other.width * other.height - both)


def _is_line(box: TextBox, tallest: float) -> bool:
    """Whether a box has the shape of a line of print. Round things, as tall as wide, pass for a single letter: the
    ring of the field of view is an O, a vessel an S."""
    return box.height <= tallest and box.width >= LINE * box.height


def _is_title(box: TextBox, tallest: float) -> bool:
    return box.height > tallest and box.width >= LINE * box.height


def _is_short(box: TextBox, tallest: float) -> bool:
    """A short word, or a line from top to bottom."""
    return min(box.height, box.width) <= tallest and box.width < LINE * box.height


def _is_read(frame: Frame, box: TextBox, tallest: float, threads: int) -> bool:
    """Whether letters can be read in a box; of what is not even long like a line, it takes more to believe them."""
    line = read_line(frame[box.top : box.bottom, box.left : box.right], MASKING, threads)
    if _is_line(box, tallest):
        return line.score >= READABLE and line.latin + 2 * line.chinese >= 2
    letters = LATIN_LETTERS if _is_title(box, tallest) else 2
    return line.score >= SHORT_READABLE and (line.latin >= letters or line.chinese >= CHINESE_LETTERS)


def look_closely(frame: Frame, threads: int = 1, known: Sequence[TextBox] = ()) -> Found:
    """`find_text` in four overlapping quarters, each enlarged twice: small print in the corners is missed without."""
    height, width = frame.shape[:2]
    overlap = 64  # pixels that two quarters share, so that a short line lies whole in one
    high, wide = min(height, (height + overlap) // 2), min(width, (width + overlap) // 2)
    found = NOTHING
    for top in sorted({0, height - high}):
        for left in sorted({0, width - wide}):
            quarter = np.ascontiguousarray(frame[top : top + high, left : left + wide])
            zoom = max(2.0, min(MOST_ZOOM, SHORT_SIDE / min(quarter.shape[:2])))
            old = [box.moved(-left, -top) for box in known]
            found |= find_text(quarter, threads, zoom, old).moved(left, top)
    return found


def _batch(frame: Frame, networks: Networks) -> Floats:
    """A frame as the detector wants it, with sides that it can halve; shape (1, 3, height, width)."""
    height, width = frame.shape[:2]
    more = ((0, -height % _STEP), (0, -width % _STEP), (0, 0))
    padded = np.pad(frame[..., ::-1], more, mode="edge").astype(np.float32)
    normal = (padded - np.array(networks.mean, np.float32)) / np.array(networks.spread, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])


def boxes_of(
    chance: Floats, ink: float, least: float, scale: tuple[float, float], size: tuple[int, int]
) -> tuple[TextBox, ...]:
    """Upright boxes around the lines in a map of probabilities of shape (height, width).

    Args:
        ink: probability from which a pixel belongs to a line.
        least: mean probability from which a connected group of such pixels is a line.
        scale: pixels of the frame per pixel of the map, horizontally and vertically.
        size: width and height of the frame.
    """
    marked = chance > ink
    if not marked.any():
        return ()
    grown = marked.copy()  # by one pixel to the right and below, which joins letters of a line
    grown[:, 1:] |= marked[:, :-1]
    grown[1:] |= grown[:-1]
    groups, count = ndimage.label(grown, structure=np.ones((3, 3), np.int8))
    means = ndimage.mean(chance, np.where(marked, groups, 0), np.arange(1, count + 1))
    found = []
    for (rows, cols), mean in zip(ndimage.find_objects(groups), np.atleast_1d(means), strict=True):
        high, wide = rows.stop - rows.start, cols.stop - cols.start
        if not mean >= least or min(high, wide) < SMALLEST:
            continue
        reach = UNCLIP * high * wide / (2 * (high + wide))
        found.append(
            TextBox(
                max(0, floor((cols.start - reach) * scale[0])),
                max(0, floor((rows.start - reach) * scale[1])),
                min(size[0], ceil((cols.stop + reach) * scale[0])),
                min(size[1], ceil((rows.stop + reach) * scale[1])),
                round(float(mean), 4),
            )
        )
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class Legible:
    """Of one line that can be read: how sure the recogniser is of it (0 to 1), how many letters of each kind it has,
    and whether it is a known identifier."""

    score: float
    latin: int  # letters and digits
    chinese: int  # and Japanese or Korean
    known: bool = False


READABLE = 0.5  # score from which a line is read rather than guessed
SHORT_READABLE = 0.7
LATIN_LETTERS, CHINESE_LETTERS = 3, 2  # fewer are what a recogniser sees in the edge of a black bar
_LINE_HEIGHT, _LINE_WIDTH, _WIDEST = 48, 320, 3200  # pixels of what the recogniser sees


def read_line(line: Frame, networks: Networks, threads: int = 1, known: Known | None = None) -> Legible:
    """What can be read in a picture of one line. Nothing of what it says leaves this function.

    Connectionist temporal classification, greedy: the best class of each column, repeats and blanks dropped.

    Raises:
        DataError: a model is missing or changed.
    """
    if line.shape[0] > 1.5 * line.shape[1]:
        line = np.rot90(line)
    wide = min(_WIDEST, max(1, ceil(_LINE_HEIGHT * line.shape[1] / line.shape[0])))
    image = Image.fromarray(np.ascontiguousarray(line)).resize((wide, _LINE_HEIGHT), Image.Resampling.BILINEAR)
    batch = np.zeros((1, 3, _LINE_HEIGHT, max(wide, _LINE_WIDTH)), np.float32)
    batch[0, :, :, :wide] = (np.asarray(image, np.float32)[..., ::-1] / np.float32(127.5) - 1).transpose(2, 0, 1)
    chances = load(networks.recogniser, threads)(batch)[0]
    best, sure = chances.argmax(axis=1), chances.max(axis=1)
    kept = (best != 0) & np.concatenate([[True], best[1:] != best[:-1]])
    if not kept.any():
        return Legible(score=0.0, latin=0, chinese=0)
    kinds = _kinds(networks, threads)[best[kept]]
    return Legible(
        score=round(float(sure[kept].mean()), 4),
        latin=int((kinds == _LATIN).sum()),
        chinese=int((kinds == _CHINESE).sum()),
        known=known is not None and known("".join(_letters(networks, threads)[number] for number in best[kept])),
    )


_OTHER, _LATIN, _CHINESE = 0, 1, 2


@cache
def _letters(networks: Networks, threads: int) -> tuple[str, ...]:
    """What each class of the recogniser stands for; class 0 is no letter, the last is a blank."""
    if networks.alphabet is None:
        text = load(networks.recogniser, threads).note("character") or ""
    else:
        text = load_text(networks.alphabet)
    return "", *text.splitlines(), " "


@cache
def _kinds(networks: Networks, threads: int) -> npt.NDArray[np.int8]:
    """The kind of letter that each class of the recogniser stands for."""
    return np.array([_kind(letter) for letter in _letters(networks, threads)], np.int8)


def _kind(letter: str) -> int:
    if "\u2e80" <= letter[:1] <= "\u9fff" or "\uac00" <= letter[:1] <= "\ud7af" or letter[:1] >= "\U00020000":
        return _CHINESE
    return _LATIN if letter.isalnum() else _OTHER
