"""SUN and SUN-SEG: a folder of JPEG pictures per case, and the annotation of the positive ones in two forms.

Positive and negative cases have the same folder names. SUN's own text files, one per positive case, all lie in the
first positive archive. SUN-SEG cuts cases into clips and names its masks after SUN's pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import groupby
from typing import Any

from endocorpus.phantom.annotations import Mask, corners, edge, hull, picture_bytes, whole_mask
from endocorpus.phantom.layouts.layout import Files, Item, Layout, Request, Trap, Truths
from endocorpus.phantom.plan import plan_recording, watching
from endocorpus.phantom.traits import Lesion
from endocorpus.phantom.truth import RecordingTruth

RATE = Fraction(30)
POSITIVE = "sundatabase_positive_part1"
SEG = "SUN-SEG-Annotation"
_LESIONS: dict[str, Lesion] = {"hyperplastic_polyp": "hyperplastic", "": "adenoma"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One case: its folder, how many frames at most, how its pictures' names are counted, and what is known of it.

    ``parts`` are the numbers before and after the hyphen's ``_a`` of a name, in order of time; ``first`` is the
    number of the first picture of each part. ``clips`` are SUN-SEG's: subset, name and share of the frames.
    """

    part: str
    number: int
    most: int
    exam: int
    parts: tuple[tuple[int, int], ...] = ((1, 1),)
    first: int = 1
    gap: bool = False
    small: bool = False
    pathology: str = ""
    clips: tuple[tuple[str, str, int], ...] = ()

    @property
    def path(self) -> str:
        return f"{self.part}/case{self.number}"


# A case of few frames and one of more than 9999; sizes and gaps; the lengths at which a 5-second clip is cut or not.
_CASES: tuple[_Case, ...] = (
    _Case(
        part=POSITIVE, number=1, most=45, exam=1, parts=((1, 2), (1, 10), (2, 1)), gap=True, small=True,
        pathology="low_grade_adenoma",
        clips=(("TrainDataset", "case1_1", 1), ("TestHardDataset/Seen", "case1_2", 1), ("TrainDataset", "case1_3", 1)),
    ),
    _Case(part="sundatabase_negative_part1", number=1, most=149, exam=11),
    _Case(
        part=POSITIVE, number=2, most=40, exam=2, parts=((2, 13),), gap=True, pathology="high_grade_adenoma",
        clips=(("TrainDataset", "case2_1", 1), ("TestEasyDataset/Seen", "case2_3", 1)),
    ),
    _Case(
        part="sundatabase_positive_part2", number=100, most=36, exam=2, small=True, pathology="hyperplastic_polyp",
        clips=(("TrainDataset", "case100", 1),),
    ),
    _Case(part="sundatabase_negative_part1", number=2, most=150, exam=12, parts=((1, 2), (1, 10))),
    _Case(
        part=POSITIVE, number=4, most=20, exam=4, pathology="low_grade_adenoma",
        clips=(("TestEasyDataset/Unseen", "case4", 1),),
    ),
    _Case(part="sundatabase_negative_part2", number=6, most=299, exam=16, first=9990, small=True),
    _Case(
        part=POSITIVE, number=10, most=30, exam=10, pathology="low_grade_adenoma",
        clips=(("TestHardDataset/Unseen", "case10_1", 2), ("TestHardDataset/Unseen", "case10_2", 1)),
    ),
    _Case(part="sundatabase_negative_part4", number=13, most=300, exam=23),
)  # fmt: skip
_NUL_SUBSET = "TestEasyDataset/Unseen"


def _stem(case: _Case, frames: int, index: int) -> str:
    """The name of picture ``index``, without suffix: time, exam token, counters, part, and number within the part.

    The time is no such day, and the token is made up. A gap leaves out one number in the middle of each part.
    """
    part = index * len(case.parts) // frames
    start = -(-part * frames // len(case.parts))
    length = -(-(part + 1) * frames // len(case.parts)) - start
    at = index - start
    number = case.first + at + (1 if case.gap and at >= length // 2 > 0 else 0)
    section, shot = case.parts[part]
    time = f"20990230{9 + case.exam % 9:02d}{case.number % 60:02d}07"
    return f"case_M_{time}_0U{case.exam:014d}_1_005_{section:03d}-1_a{shot}_ayy_image{number:04d}"


def _picture(case: _Case, frames: int, index: int) -> str:
    return f"{case.path}/{_stem(case, frames, index)}.jpg"


def _item(request: Request, position: int) -> Item:
    case = _CASES[position]
    frames = request.frames(RATE, case.most)
    # Every frame of a positive case shows its polyp.
    camera = watching(request.seed, 1100 + position, 3000 + position, frames=frames, rate=RATE)
    traits = plan_recording(
        request.seed, lumen=1100 + position, recording=camera, rate=RATE, frames=frames,
        lesion=_LESIONS.get(case.pathology, "adenoma"), frame_counter=request.frame_counter, frozen=False,
        outside=False, size=request.scaled(1158 / 1240, 1008 / 1080) if case.small else request.size,
    )  # fmt: skip
    polyps = traits.polyps[:1] if case.pathology else ()
    return Item(path=case.path, traits=replace(traits, polyps=polyps), frame_name=partial(_picture, case, frames))


def _items(request: Request) -> tuple[Item, ...]:
    return tuple(_item(request, position) for position in range(request.recordings))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shot:
    """One annotated picture: SUN-SEG's subset and clip that hold it, its case, and its truth on ``frame``."""

    subset: str
    clip: str
    case: _Case
    truth: RecordingTruth
    frame: int

    @property
    def stem(self) -> str:
        return _stem(self.case, self.truth.traits.frames, self.frame)


def _clip(case: _Case, frames: int, index: int) -> tuple[str, str]:
    """Which of the case's clips holds frame ``index``."""
    shares = [share for _, _, share in case.clips]
    ends = [sum(shares[: last + 1]) * frames / sum(shares) for last in range(len(shares))]
    subset, clip, _ = case.clips[next(which for which, end in enumerate(ends) if index < end)]
    return subset, clip


def _shots(request: Request, truths: Truths) -> Iterator[_Shot]:
    for case in _CASES[: request.recordings]:
        frames = truths[case.path].traits.frames
        for index in range(frames if case.pathology else 0):
            subset, clip = _clip(case, frames, index)
            yield _Shot(subset=subset, clip=clip, case=case, truth=truths[case.path], frame=index)


def _files(request: Request, truths: Truths) -> Files:
    for case in _CASES[: request.recordings]:
        if case.pathology:
            yield f"{POSITIVE}/annotation_txt/case{case.number}.txt", _text(case, truths[case.path])
    shots = sorted(_shots(request, truths), key=lambda shot: (shot.subset, shot.case.number, shot.frame))
    for shot in shots:
        mask = whole_mask(shot.truth, shot.frame)
        forms: dict[str, Mask] = {"GT": mask, "Edge": edge(mask), "Polygon": hull(mask), "Scribble": mask}
        for form, drawn in forms.items():
            yield f"{SEG}/{shot.subset}/{form}/{shot.clip}/{shot.stem}.png", picture_bytes(drawn, "PNG")
    for subset, group in groupby(shots, key=lambda shot: shot.subset):
        held = list(group)
        yield f"{SEG}/{subset}/Classification/classification.txt", _classes(subset, held)
        yield f"{SEG}/{subset}/Detection/bbox_annotation.json", _detection(held)


def _text(case: _Case, truth: RecordingTruth) -> bytes:
    """SUN's own annotation: a row per picture with the box's corners and the class, 0 for a polyp."""
    rows = [
        f"{_stem(case, truth.traits.frames, index)}.jpg {','.join(map(str, corners(box)))},0\n"
        for index, boxes in enumerate(truth.boxes)
        for box in boxes
    ]
    return "".join(rows).encode()


def _classes(subset: str, shots: list[_Shot]) -> bytes:
    """A row per picture: name, tab, pathology. One subset's file came out as NUL bytes after its first row."""
    rows = [f"{shot.stem}.jpg\t{shot.case.pathology}\n".encode() for shot in shots]
    if subset == _NUL_SUBSET:
        rows[1:] = [b"\0" * len(row) for row in rows[1:]]
    return b"".join(rows)


def _detection(shots: list[_Shot]) -> bytes:
    """Boxes much like COCO's, but under "annotation" without s, joined by a text id; ``x, y, width, height``."""
    images, boxes = [], []
    for shot in shots:
        name, traits = shot.stem.split("_"), shot.truth.traits
        key = f"{shot.clip}-{name[7]}-{name[9]}"
        images.append(
            {"id": key, "width": traits.width, "height": traits.height, "case_name": shot.clip, "file_name": shot.stem}
        )
        boxes += [
            {"id": key, "bbox": [box.xmin, box.ymin, box.xmax - box.xmin, box.ymax - box.ymin]}
            for box in shot.truth.boxes[shot.frame]
        ]
    info = {"year": 2021, "version": "v1.0", "description": "", "contributor": "", "url": "", "date_created": ""}
    return json.dumps({"info": info, "images": images, "annotation": boxes}).encode()


def _traps(request: Request) -> tuple[Trap, ...]:
    planted: dict[tuple[int, str], str] = {
        (0, "lexical-order"): "Order is (number before the hyphen, number after _a, picture number): a2, a10, a1.",
        (0, "numbering-gap"): "A missing picture number does not cut the case in two, and is told.",
        (0, "varying-size"): "Cases differ in size, so boxes are scaled case by case.",
        (0, "same-case-seen"): "TestHardDataset/Seen holds a clip of a case that TrainDataset holds: one leak group.",
        (1, "same-folder-name"): "Negative case1 is another recording than positive case1.",
        (2, "same-exam"): "Cases 2 and 100 share the exam token in their names: one leak group.",
        (3, "annotation-elsewhere"): "The text file of a case in part 2 lies in the annotation_txt of part 1.",
        (4, "lexical-order"): "a10 comes after a2.",
        (6, "lexical-order"): "image9999 comes before image10000.",
    }
    found = [
        Trap(path=_CASES[position].path, name=name, expect=expect)
        for (position, name), expect in planted.items() if position < request.recordings
    ]  # fmt: skip
    if request.recordings > 5:
        found += [
            Trap(path=f"{SEG}/{_NUL_SUBSET}/Classification/classification.txt", name="nul-bytes",
                 expect="The file is reported as damaged; no class is made up for the rows that are NUL bytes."),
            Trap(path=f"{SEG}/{_NUL_SUBSET}/GT/case4", name="clip-without-number",
                 expect="A clip folder may have no _M: the case has one clip."),
        ]  # fmt: skip
    return tuple(found)


def _labels(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for case, item in zip(_CASES, _items(request), strict=False):
        labels: dict[str, Any] = {"polyp": bool(case.pathology), "exam": f"0U{case.exam:014d}"}
        frames: dict[str, Any] = {}
        if case.pathology:
            clips = [_clip(case, item.traits.frames, index) for index in range(item.traits.frames)]
            frames = {str(index): {"subset": subset, "clip": clip} for index, (subset, clip) in enumerate(clips)}
            if case.clips[0][0] != _NUL_SUBSET:
                labels["pathology"] = case.pathology
        found[item.path] = {"labels": labels, "frames": frames}
    return found


LAYOUT = Layout(
    recordings=len(_CASES), default=len(_CASES), seconds=10.0, items=_items, files=_files, traps=_traps, labels=_labels
)
