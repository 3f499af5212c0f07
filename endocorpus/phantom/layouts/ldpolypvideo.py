"""LDPolypVideo: labelled videos as numbered pictures with a text file each, and unlabelled AVI files.

Folders 1 to 100 are TrainValid, 101 to 160 are Test. The AVI files show a larger cut of the picture at 24.874 frames
per second, so no labelled picture equals a frame of theirs.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from endocorpus.phantom.annotations import corners
from endocorpus.phantom.layouts.layout import Files, Item, Layout, Request, Trap, Truths
from endocorpus.phantom.plan import RATE, plan_recording
from endocorpus.phantom.traits import Traits

AVI_RATE = Fraction(12437, 500)
LAST_TRAIN = 100
LENGTHS = {1: 53, 2: 50, 10: 31, 101: 40, 145: 45}
"""The most frames of each labelled video."""
UNLABELLED = ("1_7", "1_10", "0_12")

# Labelled videos by number, unlabelled ones by name. "1_" holds polyps somewhere, "0_" none.
_ORDER: tuple[int | str, ...] = (1, 10, 2, 101, "1_7", "1_10", "0_12", 145)


def labelled(request: Request, number: int) -> Traits:
    """One labelled video. 1, 101 and 145 begin outside the body, so they hold frames without a polyp; 2 shows
    three polyps at once; the others show one."""
    frames = request.frames(RATE, LENGTHS[number])
    traits = plan_recording(
        request.seed, lumen=1000 + sorted(LENGTHS).index(number), recording=2000 + number, size=request.size,
        frames=frames, frame_counter=request.frame_counter, overlays=False, outside=False, frozen=False,
    )  # fmt: skip
    first = traits.polyps[0]
    if number == 2:
        beside = tuple(
            replace(first, angle=first.angle + turn, depth=first.depth - 0.25, radius=0.16, height=0.1)
            for turn in (0.9, -0.9)
        )
        return replace(traits, polyps=(first, *beside))
    without = frames // 4 if number in (1, 101, 145) else 0
    return replace(traits, polyps=(first,), outside=((0, without),) if without else ())


def unlabelled(request: Request, name: str) -> Traits:
    """One unlabelled video, "1_" with a polyp and "0_" without; one is combed, as a recorder of fields leaves it."""
    at = UNLABELLED.index(name)
    traits = plan_recording(
        request.seed, lumen=1020 + at, recording=2200 + at, size=request.scaled(768 / 560, 576 / 480),
        rate=AVI_RATE, frames=request.frames(AVI_RATE), frame_counter=request.frame_counter,
    )  # fmt: skip
    if name == "1_10":
        return replace(traits, interlaced=True)
    return traits if name.startswith("1_") else replace(traits, polyps=())


def _side(number: int) -> str:
    return "TrainValid" if number <= LAST_TRAIN else "Test"


def _picture(number: int, index: int) -> str:
    return f"{_side(number)}/Images/{number}/{index + 1:04d}.jpg"


def _item(request: Request, which: int | str) -> Item:
    if isinstance(which, int):
        folder = f"{_side(which)}/Images/{which}"
        return Item(path=folder, traits=labelled(request, which), frame_name=partial(_picture, which))
    folder = "videos with polyps" if which.startswith("1_") else "videos without polyps"
    return Item(path=f"{folder}/{which}.avi", traits=unlabelled(request, which), codec="h264")


def _items(request: Request) -> tuple[Item, ...]:
    return tuple(_item(request, which) for which in _ORDER[: request.recordings])


def _files(request: Request, truths: Truths) -> Files:
    """A text file per labelled picture: how many boxes, then a line for each."""
    for item in _items(request):
        if item.frame_name is None:
            continue
        for index, boxes in enumerate(truths[item.path].boxes):
            lines = [str(len(boxes)), *(" ".join(map(str, corners(box))) for box in boxes)]
            name = item.frame_name(index).replace("/Images/", "/Annotations/").replace(".jpg", ".txt")
            yield name, ("\n".join(lines) + "\n").encode()


def _traps(request: Request) -> tuple[Trap, ...]:
    chosen = _ORDER[: request.recordings]
    planted: dict[int | str, tuple[tuple[str, str], ...]] = {
        1: (("zero-annotation", "A file that says 0 is a frame seen to hold no polyp, not a frame without label."),),
        10: (("lexical-order", "Folders are numbers: 10 comes after 2."),),
        2: (
            ("several-boxes", "Every line after the first is a box of its own."),
            ("same-as", "One leak group with polypdiag videos/2.mp4."),
        ),
        101: (("same-as", "One leak group with polypdiag videos/101.mp4."),),
        145: (("same-as", "One leak group with polypdiag videos/145.mp4."),),
        "1_7": (
            ("same-as", "One leak group with polypdiag videos/1_7.mp4."),
            ("space-in-path", "The folder name holds spaces."),
            ("h264-in-avi", "AVI stores no presentation times, and H.264 with B-frames comes out of order."),
            ("odd-rate", "24.874 frames per second, kept as the fraction 12437/500."),
        ),
        "0_12": (
            ("same-as", "One leak group with polypdiag videos/0_12.mp4."),
            ("unlabelled", "No label file: the folder's name says that the video as a whole shows no polyp."),
        ),
        "1_10": (
            ("lexical-order", "1_10 comes after 1_7."),
            ("interlaced", "Each frame holds two fields: odd rows are half a frame later."),
        ),
    }  # fmt: skip
    return tuple(
        Trap(path=_item(request, which).path, name=name, expect=expect)
        for which in chosen for name, expect in planted[which]
    )  # fmt: skip


def _labels(request: Request) -> dict[str, Any]:
    return {
        item.path: {
            "labels": {"official_split": item.path.split("/")[0]} if item.frame_name else
                      {"polyp": item.path.startswith("videos with polyps")},
            "frames": {},
        }
        for item in _items(request)
    }  # fmt: skip


LAYOUT = Layout(
    recordings=len(_ORDER), default=len(_ORDER), seconds=2.0, items=_items, files=_files, traps=_traps, labels=_labels
)
