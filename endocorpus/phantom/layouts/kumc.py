"""KUMC (PolypsSet): pictures with a VOC file each; the training part flat and shuffled, the others by sequence.

What a training picture belongs to is told by its VOC file alone: by the folder in ``<path>``, except that sequences
called adenoma have the folder itself as their ``<path>`` and write it before the frame number in ``<filename>``.
Elsewhere these three tags are wrong. Two sequences repeat recordings of other sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

from endocorpus.phantom.annotations import Voc, corners, voc_xml
from endocorpus.phantom.draws import generator
from endocorpus.phantom.layouts import cvc_12k
from endocorpus.phantom.layouts.layout import Files, Item, Layout, Request, Trap, Truths
from endocorpus.phantom.plan import RATE, plan_recording
from endocorpus.phantom.traits import Lesion, Traits

_FLAT = "train2019"
_HOME = "/home/phantom/polyps"
"""The folder of a machine that is nobody's, as annotation programs leave it in their files."""
_LONGEST = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sequence:
    """One sequence: its part of the set, its name there, the class of its polyps ("" for none), and how it is told.

    ``kept`` is the suffix of the pictures, ``told`` the one in ``<filename>``; ``pad`` stands before numbers.
    """

    part: str
    name: str
    finding: str = "adenomatous"
    kept: str = ".jpg"
    told: str = ".jpg"
    pad: str = ""

    @property
    def path(self) -> str:
        return f"{self.part}/{self.name}" if self.part == _FLAT else f"{self.part}/Image/{self.name}"


_SEQUENCES = (
    _Sequence(part=_FLAT, name="adenoma_01"),
    _Sequence(part="val2019", name="1", pad=" "),
    _Sequence(part=_FLAT, name="CVC_1", told=".png"),
    _Sequence(part="test2019", name="1", finding="hyperplastic", kept=".png", told=".bmp"),
    _Sequence(part=_FLAT, name="normal_2", finding=""),
    _Sequence(part="val2019", name="3"),
    _Sequence(part="test2019", name="24", finding="hyperplastic", kept=".png", told=".png"),
)


def _traits(request: Request, sequence: _Sequence, position: int) -> Traits:
    """Like-named recordings of other sources, at every second frame and at each, or a place of their own."""
    if sequence.name == "adenoma_01":
        rate = RATE / 2
        return plan_recording(
            request.seed, lumen=0, recording=0, size=request.size, rate=rate, frames=request.frames(rate, _LONGEST),
            frame_counter=request.frame_counter,
        )  # fmt: skip
    if sequence.name == "CVC_1":
        return cvc_12k.video(request, 1)
    lesion: Lesion = "hyperplastic" if sequence.finding == "hyperplastic" else "adenoma"
    frames = request.frames(Fraction(RATE), _LONGEST - position)
    traits = plan_recording(
        request.seed, lumen=1400 + position, recording=6000 + position, lesion=lesion, size=request.size, frames=frames,
        frame_counter=request.frame_counter, outside=False, frozen=False,
    )  # fmt: skip
    first = traits.polyps[0]
    if sequence.path == "val2019/Image/1" and frames >= 4:
        return replace(traits, polyps=(first,), outside=((0, frames // 4),))
    if sequence.path == "val2019/Image/3":
        beside = replace(first, angle=first.angle - 0.8, depth=first.depth - 0.2, radius=0.16, height=0.1)
        return replace(traits, polyps=(first, beside))
    return replace(traits, polyps=(first,) if sequence.finding else ())


def _flat_name(numbers: tuple[int, ...], index: int) -> str:
    return f"{_FLAT}/Image/{numbers[index]}.jpg"


def _folder_name(sequence: _Sequence, index: int) -> str:
    return f"{sequence.path}/{index + 1}{sequence.kept}"


def _items(request: Request) -> tuple[Item, ...]:
    chosen = _SEQUENCES[: request.recordings]
    planned = [_traits(request, sequence, position) for position, sequence in enumerate(chosen)]
    flat = sum(traits.frames for sequence, traits in zip(chosen, planned, strict=True) if sequence.part == _FLAT)
    shuffled = [int(number) + 1 for number in generator(request.seed, "shuffle").permutation(flat)]
    items = []
    for sequence, traits in zip(chosen, planned, strict=True):
        if sequence.part == _FLAT:
            numbers, shuffled = tuple(shuffled[: traits.frames]), shuffled[traits.frames :]
            items.append(Item(path=sequence.path, traits=traits, frame_name=partial(_flat_name, numbers)))
        else:
            items.append(Item(path=sequence.path, traits=traits, frame_name=partial(_folder_name, sequence)))
    return tuple(items)


def _lost(sequence: _Sequence, frames: int) -> int | None:
    """The frame of a sequence whose VOC file is missing, if any; one that can be spared."""
    return frames // 2 if sequence.path in (f"{_FLAT}/adenoma_01", "test2019/Image/1") and frames > 2 else None


def _tags(sequence: _Sequence, index: int) -> tuple[str, str, str]:
    """``<folder>``, ``<filename>`` and ``<path>`` of a frame."""
    if sequence.part != _FLAT:  # as they were before the pictures were renumbered
        filename = f"{index + 701}{sequence.told}"
        return "Images", filename, f"{_HOME}/unsorted/Images/{filename}"
    folder = f"{_HOME}/train/{sequence.name}"
    if sequence.name.startswith("adenoma"):
        return sequence.name, f"adenoma_{2 * index}{sequence.told}", folder
    return sequence.name, f"{index + 1}{sequence.told}", f"{folder}/{index + 1}{sequence.told}"


def _annotated(request: Request, truths: Truths) -> Iterator[tuple[_Sequence, str, int, list[Voc]]]:
    """Sequence, VOC file, frame and objects of every annotated picture."""
    for sequence, item in zip(_SEQUENCES, _items(request), strict=False):
        for index, name in enumerate(item.media()):
            objects = [(sequence.finding, corners(box)) for box in truths[item.path].boxes[index]]
            if index != _lost(sequence, item.traits.frames):
                yield sequence, name.replace("/Image/", "/Annotation/").rsplit(".", 1)[0] + ".xml", index, objects


def _files(request: Request, truths: Truths) -> Files:
    for sequence, name, index, objects in _annotated(request, truths):
        folder, filename, path = _tags(sequence, index)
        traits = truths[sequence.path].traits
        size = (traits.width, traits.height)
        yield name, voc_xml(objects, folder=folder, filename=filename, path=path, size=size, pad=sequence.pad)
    yield _widow(request), _widow_xml(request)


def _widow(request: Request) -> str:
    """A VOC file whose picture is missing."""
    flat = sum(item.traits.frames for item in _items(request) if item.path.startswith(_FLAT))
    return f"{_FLAT}/Annotation/{flat + 1}.xml"


def _widow_xml(request: Request) -> bytes:
    first = _items(request)[0].traits
    folder, filename, path = _tags(_SEQUENCES[0], first.frames)
    return voc_xml(
        [("adenomatous", (8, 8, 24, 24))], folder=folder, filename=filename, path=path, size=(first.width, first.height)
    )


def _traps(request: Request) -> tuple[Trap, ...]:
    planted: dict[str, tuple[tuple[str, str], ...]] = {
        f"{_FLAT}/adenoma_01": (
            ("shuffled", "Sequence and order come from the VOC files, not from the pictures' numbers."),
            ("folder-for-path", "<path> is the sequence's folder; the frame is the number in <filename>."),
            ("same-as", "One leak group with colonoscopic Adenoma/adenoma_01/videos/WL.mp4."),
        ),
        f"{_FLAT}/CVC_1": (
            ("xml-names-another-suffix", "<filename> says .png, the picture is .jpg: joined by stem."),
            ("same-as", f"One leak group with cvc-12k {cvc_12k.TRAIN}/1."),
        ),
        f"{_FLAT}/normal_2": (("no-object", "A VOC file without object is a frame seen to hold no polyp."),),
        "val2019/Image/1": (
            ("white-space", "Numbers are read without the white space around them."),
            ("xml-names-another-file", "<folder>, <filename> and <path> are wrong: joined by folder and stem."),
            ("no-object", "A VOC file without object is a frame seen to hold no polyp."),
        ),
        "val2019/Image/3": (("several-boxes", "A frame may hold more than one object."),),
        "test2019/Image/1": (
            ("same-folder-name", "test 1 is another sequence than val 1."),
            ("xml-names-another-suffix", "<filename> says .bmp, the picture is .png: joined by folder and stem."),
        ),
        "test2019/Image/24": (("not-a-class", "24 is the number of a sequence; classes stand in the VOC files."),),
    }
    found = [Trap(path=_widow(request), name="missing-partner", expect="A VOC file without picture is left out, told.")]
    for sequence, item in zip(_SEQUENCES, _items(request), strict=False):
        found += [Trap(path=item.path, name=name, expect=expect) for name, expect in planted[sequence.path]]
        lost = _lost(sequence, item.traits.frames)
        if lost is not None:
            known = "its sequence is unknown: left out, and told" if sequence.part == _FLAT else "unlabelled, but kept"
            expect = f"The picture has no VOC file: {known}."
            found.append(Trap(path=item.media()[lost], name="missing-partner", expect=expect))
    return tuple(found)


def _labels(request: Request) -> dict[str, Any]:
    found = {}
    for sequence, item in zip(_SEQUENCES, _items(request), strict=False):
        lost = _lost(sequence, item.traits.frames)
        found[item.path] = {
            "labels": {"official_split": sequence.part.removesuffix("2019")}
            | ({"finding": sequence.finding} if sequence.finding else {}),
            "frames": {str(index): {"annotated": index != lost} for index in range(item.traits.frames)},
        }
    return found


LAYOUT = Layout(
    recordings=len(_SEQUENCES), default=len(_SEQUENCES), seconds=2.0, items=_items, files=_files, traps=_traps,
    labels=_labels,
)  # fmt: skip
