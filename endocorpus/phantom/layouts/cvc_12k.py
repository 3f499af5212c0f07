"""What goes by the name CVC-12k: CVC-ClinicDB, CVC-VideoClinicDB and CVC-ColonDB, three sets that lie side by side.

ClinicDB numbers its 612 pictures through; which numbers are one sequence is known from outside the data. VideoClinicDB
has a folder per video, ellipses for masks, and a test part without any. ColonDB keeps each picture with three more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from endocorpus.phantom.annotations import edge, ellipses, picture_bytes, whole_mask
from endocorpus.phantom.camera import coverage
from endocorpus.phantom.layouts.layout import Files, Item, Layout, Request, Trap, Truths
from endocorpus.phantom.plan import RATE, plan_recording, watching
from endocorpus.phantom.traits import Traits
from endocorpus.phantom.truth import RecordingTruth

CLINIC, TRUTH = "CVC-ClinicDB/Original", "CVC-ClinicDB/Ground Truth"
TRAIN, TEST = "CVC-VideoClinicDBtrain_valid", "cvcvideoclinicdbtest"
COLON = "CVC-ColonDB/CVC-ColonDB"
SEQUENCES = {1: (1, 25), 2: (26, 50), 10: (200, 205), 27: (547, 571), 29: (592, 612)}
"""First and last picture of those of ClinicDB's 29 sequences that are rendered."""
_RGB_MASKS, _TWO_PARTS = 2, 27
_LONGEST_VIDEO, _COLON_PICTURES = 30, 12
_TRAIN_LUMENS, _TEST_LUMENS = 1200, 1220


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One recording: its set, and its number there (0 for ColonDB, which does not tell its sequences)."""

    folder: str
    number: int


_PARTS = tuple(
    _Part(folder=folder, number=number)
    for folder, number in (
        (CLINIC, 1), (TRAIN, 1), (CLINIC, 2), (TRAIN, 18), (TEST, 5), (COLON, 0), (CLINIC, 10), (CLINIC, 27), (TEST, 1),
        (CLINIC, 29),
    )
)  # fmt: skip


def video(request: Request, number: int, lumen: int = _TRAIN_LUMENS) -> Traits:
    """One video of VideoClinicDB's training part. Video 1 begins outside the body: frames without a polyp."""
    frames = request.frames(RATE, _LONGEST_VIDEO)
    traits = plan_recording(
        request.seed, lumen=lumen + number, recording=4000 + lumen + number, size=request.size, frames=frames,
        frame_counter=request.frame_counter, overlays=False, outside=False, frozen=False,
    )  # fmt: skip
    without = frames // 5 if number == 1 else 0
    return replace(traits, polyps=traits.polyps[:1], outside=((0, without),) if without else ())


def _sequence(request: Request, number: int) -> Traits:
    """One sequence of ClinicDB: every picture shows a polyp, one sequence shows two."""
    first, last = SEQUENCES[number]
    lumen, frames = 1240 + number, request.frames(RATE, last - first + 1)
    traits = plan_recording(
        request.seed, lumen=lumen, recording=watching(request.seed, lumen, 4200 + number, frames=frames, rate=RATE),
        size=request.size, frames=frames, frame_counter=request.frame_counter, overlays=False, outside=False,
        frozen=False,
    )  # fmt: skip
    polyp = traits.polyps[0]
    beside = replace(polyp, angle=polyp.angle + 0.8, depth=polyp.depth - 0.2, radius=0.16, height=0.1)
    return replace(traits, polyps=(polyp, beside) if number == _TWO_PARTS else (polyp,))


def _colon(request: Request) -> Traits:
    """The pictures of ColonDB, of another size."""
    frames = request.frames(RATE, _COLON_PICTURES)
    return plan_recording(
        request.seed, lumen=1270, recording=watching(request.seed, 1270, 4400, frames=frames, rate=RATE),
        size=request.scaled(1.1), overlays=False, outside=False, frozen=False, frames=frames,
        frame_counter=request.frame_counter,
    )  # fmt: skip


def _clinic_name(first: int, index: int) -> str:
    return f"{CLINIC}/{first + index}.tif"


def _video_name(part: _Part, index: int) -> str:
    return f"{part.folder}/{part.number}/{part.number}-{index + 1}.png"


def _colon_name(index: int) -> str:
    return f"{COLON}/{index + 1}.bmp"


def _item(request: Request, part: _Part) -> Item:
    if part.folder == CLINIC:
        first, last = SEQUENCES[part.number]
        name: Callable[[int], str] = partial(_clinic_name, first)
        return Item(path=f"{CLINIC}/{first}-{last}", traits=_sequence(request, part.number), frame_name=name)
    if part.folder == COLON:
        return Item(path=COLON, traits=_colon(request), frame_name=_colon_name)
    traits = video(request, part.number, _TRAIN_LUMENS if part.folder == TRAIN else _TEST_LUMENS)
    return Item(path=f"{part.folder}/{part.number}", traits=traits, frame_name=partial(_video_name, part))


def _items(request: Request) -> tuple[Item, ...]:
    return tuple(_item(request, part) for part in _PARTS[: request.recordings])


def _files(request: Request, truths: Truths) -> Files:
    for part, item in zip(_PARTS, _items(request), strict=False):
        truth = truths[item.path]
        for index, name in enumerate(item.media()):
            if part.folder == CLINIC:
                yield name.replace(CLINIC, TRUTH), _contour(truth, index, part.number == _RGB_MASKS)
            elif part.folder == TRAIN and not _lacks_mask(part, index):
                shape = (truth.traits.height, truth.traits.width)
                yield name.replace(".png", "_mask.png"), picture_bytes(ellipses(truth.boxes[index], shape), "PNG")
            elif part.folder == COLON:
                yield from _colon_files(truth, index)


def _lacks_mask(part: _Part, index: int) -> bool:
    return part.number == 18 and index == 0


def _contour(truth: RecordingTruth, frame: int, three: bool) -> bytes:
    """A mask of ClinicDB with the exact contour: 0 and 255, in one channel or in ``three``."""
    mask = whole_mask(truth, frame)
    pixels = np.where(mask, 255, 0).astype(np.uint8)
    return picture_bytes(np.repeat(pixels[..., None], 3, axis=2) if three else pixels, "TIFF")


def _colon_files(truth: RecordingTruth, frame: int) -> Files:
    """Beside picture N: ``pN`` the polyp, ``sN`` the part without information, ``cN`` the polyp's contour."""
    mask, traits = whole_mask(truth, frame), truth.traits
    blind = coverage(traits.field, traits.width, traits.height) == 0
    for letter, drawn in (("p", mask), ("s", blind), ("c", edge(mask))):
        yield f"{COLON}/{letter}{frame + 1}.bmp", picture_bytes(drawn, "BMP")


def _traps(request: Request) -> tuple[Trap, ...]:
    planted: dict[tuple[str, int], tuple[tuple[str, str], ...]] = {
        (CLINIC, 1): (
            ("lexical-order", "Numbers have no leading zeros: 10 comes after 9."),
            ("shared-folder", "Pictures 1 to 25 are one recording and 26 to 50 the next."),
            ("space-in-path", "Masks lie in a folder whose name holds a space."),
        ),
        (CLINIC, 2): (("mask-of-three-channels", "A mask of three equal channels is the mask of one."),),
        (CLINIC, 27): (("two-components", "A mask of two parts is two lesions, or one mask; neither part is lost."),),
        (TRAIN, 1): (
            ("masks-beside-frames", "A file ending in _mask is no frame."),
            ("lexical-order", "1-10 comes after 1-9."),
            ("ellipse-masks", "Masks are ellipses around the polyp: less exact than ClinicDB's contours."),
            ("same-as", "One leak group with kumc train2019/CVC_1."),
        ),
        (TRAIN, 18): (("missing-partner", "18-1 has no mask: unlabelled, not free of polyps. The frame is kept."),),
        (TEST, 5): (("no-masks", "The test part has no masks at all: unlabelled, not free of polyps."),),
        (TEST, 1): (("same-folder-name", "Test video 1 is another recording than training video 1."),),
        (COLON, 0): (
            ("masks-beside-frames", "Only names without letter are frames; p, s and c are masks of them."),
            ("unknown-sequences", "The set does not tell its 15 sequences apart: one leak group."),
        ),
    }  # fmt: skip
    return tuple(
        Trap(path=_item(request, part).path, name=name, expect=expect)
        for part in _PARTS[: request.recordings]
        for name, expect in planted.get((part.folder, part.number), ())
    )


def _labels(request: Request) -> dict[str, Any]:
    found = {}
    for part, item in zip(_PARTS, _items(request), strict=False):
        split = {TRAIN: {"official_split": "train"}, TEST: {"official_split": "test"}}.get(part.folder, {})
        frames = range(item.traits.frames)
        masked = [part.folder != TEST and not (part.folder == TRAIN and _lacks_mask(part, index)) for index in frames]
        found[item.path] = {"labels": split, "frames": {str(index): {"mask": masked[index]} for index in frames}}
    return found


LAYOUT = Layout(
    recordings=len(_PARTS), default=len(_PARTS), seconds=2.0, items=_items, files=_files, traps=_traps, labels=_labels
)
