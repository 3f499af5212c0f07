"""CholecT45 and CholecT50: one picture a second of gallbladder operations, with tables of triplets in two forms.

Both editions hold the same operations: `VIDnn` of one shows what `VIDnn` of the other shows. Where the camera was out
of the body, the providers have made every pixel black, and the picture keeps its place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import hypot
from typing import Any

from endocorpus.phantom.draws import generator
from endocorpus.phantom.layouts.layout import Files, Item, Layout, Request, Trap, Truths
from endocorpus.phantom.plan import plan_recording
from endocorpus.phantom.traits import Field, Traits

RATE = Fraction(1)
INSTRUMENTS = ("grasper", "bipolar", "hook", "scissors", "clipper", "irrigator")
VERBS = ("grasp", "retract", "dissect", "coagulate", "clip", "cut", "aspirate", "irrigate", "pack", "null_verb")
TARGETS = (
    "gallbladder", "cystic_plate", "cystic_duct", "cystic_artery", "cystic_pedicle", "blood_vessel", "fluid",
    "abdominal_wall_cavity", "liver", "adhesion", "omentum", "peritoneum", "gut", "specimen_bag", "null_target",
)  # fmt: skip
PHASES = (
    "preparation", "carlot-triangle-dissection", "clipping-and-cutting", "gallbladder-dissection",
    "gallbladder-packaging", "cleaning-and-coagulation", "gallbladder-extraction",
)  # fmt: skip
# The hundred triplets in the order of their numbers: what each instrument does, and the numbers of its targets.
_TRIPLETS = (
    ("grasper", "dissect", (1, 0, 10)), ("grasper", "grasp", (3, 2, 4, 1, 0, 12, 8, 10, 11, 13)),
    ("grasper", "pack", (0,)), ("grasper", "retract", (2, 4, 1, 0, 12, 8, 10, 11)),
    ("bipolar", "coagulate", (7, 5, 3, 2, 4, 1, 0, 8, 10, 11)), ("bipolar", "dissect", (9, 3, 2, 1, 0, 10)),
    ("bipolar", "grasp", (1, 8, 13)), ("bipolar", "retract", (2, 4, 0, 8, 10)),
    ("hook", "coagulate", (5, 3, 2, 4, 1, 0, 8, 10)), ("hook", "cut", (5, 11)),
    ("hook", "dissect", (5, 3, 2, 1, 0, 10, 11)), ("hook", "retract", (0, 8)),
    ("scissors", "coagulate", (10,)), ("scissors", "cut", (9, 5, 3, 2, 1, 8, 10, 11)),
    ("scissors", "dissect", (1, 0, 10)), ("clipper", "clip", (5, 3, 2, 4, 1)),
    ("irrigator", "aspirate", (6,)), ("irrigator", "dissect", (2, 4, 1, 0, 10)), ("irrigator", "irrigate", (7, 4, 8)),
    ("irrigator", "retract", (0, 8, 10)), *((instrument, "null_verb", (14,)) for instrument in INSTRUMENTS),
)  # fmt: skip
TRIPLETS = tuple(
    (INSTRUMENTS.index(instrument), VERBS.index(verb), target)
    for instrument, verb, targets in _TRIPLETS
    for target in targets
)
"""Numbers of instrument, verb and target by number of the triplet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One operation in one edition, and its height in terms of the height asked for."""

    edition: str
    number: int
    scale: float = 1.0

    def name(self) -> str:
        return f"VID{self.number:02d}"

    def folder(self) -> str:
        return f"{self.edition}/{'data' if self.edition == 'CholecT45' else 'videos'}/{self.name()}"


_VIDEOS = (
    Video(edition="CholecT45", number=1), Video(edition="CholecT45", number=2, scale=1.5),
    Video(edition="CholecT50", number=1), Video(edition="CholecT50", number=111),
    Video(edition="CholecT45", number=10), Video(edition="CholecT50", number=92),
)  # fmt: skip
_EXTRA_ROW = 2
"""The operation whose label files have one row more than there are pictures."""


def _traits(request: Request, video: Video) -> Traits:
    """The whole frame is tissue, 854:480, without polyps or text; the operation decides everything else."""
    height = max(64, 2 * round(request.size[1] * video.scale / 2))
    width, frames = 2 * round(height * 854 / 960), request.frames(RATE)
    plain = plan_recording(
        request.seed, lumen=7000 + video.number, recording=7000 + video.number, size=(width, height), rate=RATE,
        frames=frames, frame_counter=request.frame_counter, overlays=False, outside=False, frozen=False,
    )  # fmt: skip
    reach = hypot(width, height)
    field = Field(shape="circle", centre=(width / 2, height / 2), radius=reach, flat=reach)
    black = (
        (((0, 1), (frames - 2, frames - 1)) if video.number == 1 else ((frames // 2, frames // 2 + 1),))
        if frames > 3
        else ()
    )
    return replace(plain, field=field, polyps=(), black=black)


def _picture(folder: str, index: int) -> str:
    return f"{folder}/{index:06d}.png"


def _videos(request: Request) -> tuple[Video, ...]:
    return _VIDEOS[: request.recordings]


def _items(request: Request) -> tuple[Item, ...]:
    return tuple(
        Item(path=video.folder(), traits=_traits(request, video), frame_name=partial(_picture, video.folder()))
        for video in _videos(request)
    )


def triplets_of(request: Request, number: int, traits: Traits, frame: int) -> tuple[int, ...]:
    """The triplets seen on a frame of an operation, in ascending order: up to three, none where it is black."""
    if traits.is_black(frame):
        return ()
    rng = generator(request.seed, "triplets", number, frame)
    return tuple(sorted(int(t) for t in rng.choice(len(TRIPLETS), int(rng.integers(4)), replace=False)))


def _phase(traits: Traits, frame: int) -> int:
    return min(frame, traits.frames - 1) * len(PHASES) // traits.frames


def _files(request: Request, truths: Truths) -> Files:
    editions = {video.edition for video in _videos(request)}
    for video in _videos(request):
        traits = truths[video.folder()].traits
        if video.edition == "CholecT45":
            yield from _tables(request, video, traits)
        else:
            yield f"CholecT50/labels/{video.name()}.json", json.dumps(_annotations(request, video, traits)).encode()
    if "CholecT45" in editions:
        yield from _dictionaries()
    if "CholecT50" in editions:
        yield "CholecT50/label_mapping.txt", _maps()
    for edition in sorted(editions):
        yield f"{edition}/LICENSE", b"CC BY-NC-SA 4.0 is the licence of the set that this made-up tree stands for.\n"
        yield f"{edition}/README.md", f"# {edition}\n\nA made-up tree in the layout of {edition}.\n".encode()


def _tables(request: Request, video: Video, traits: Traits) -> Files:
    """Four files of one line per second: the number of the picture, then a 0 or 1 for each class; no heading."""
    rows: dict[str, list[str]] = {kind: [] for kind in ("triplet", "instrument", "verb", "target")}
    sizes = (len(TRIPLETS), len(INSTRUMENTS), len(VERBS), len(TARGETS))
    for frame in range(traits.frames + (video.number == _EXTRA_ROW)):
        seen = triplets_of(request, video.number, traits, frame)
        parts = [set(seen), *({TRIPLETS[triplet][part] for triplet in seen} for part in range(3))]
        for kind, size, present in zip(rows, sizes, parts, strict=True):
            rows[kind].append(",".join([str(frame), *("1" if at in present else "0" for at in range(size))]))
    for kind, lines in rows.items():
        yield f"CholecT45/{kind}/{video.name()}.txt", ("\n".join(lines) + "\n").encode()


def _words(triplet: int) -> str:
    instrument, verb, target = TRIPLETS[triplet]
    return f"{INSTRUMENTS[instrument]},{VERBS[verb]},{TARGETS[target]}"


def _dictionaries() -> Files:
    names = {
        "triplet": tuple(_words(at) for at in range(len(TRIPLETS))), "instrument": INSTRUMENTS, "verb": VERBS,
        "target": TARGETS,
    }  # fmt: skip
    for kind, words in names.items():
        yield f"CholecT45/dict/{kind}.txt", "".join(f"{at}:{word}\n" for at, word in enumerate(words)).encode()
    yield "CholecT45/dict/maps.txt", _maps()


def _maps() -> bytes:
    """Numbers of triplet, instrument, verb, target, and of the pairs of the instrument with each of the others."""
    rows = ["# IVT, I, V, T, IV, IT"]
    rows += [f"{at},{i},{v},{t},{i * len(VERBS) + v},{i * len(TARGETS) + t}" for at, (i, v, t) in enumerate(TRIPLETS)]
    return ("\n".join(rows) + "\n").encode()


def _annotations(request: Request, video: Video, traits: Traits) -> dict[str, Any]:
    """A vector of 15 per triplet, or one without any; boxes and whatever else is absent are -1. Frames are out of
    order, as a reader of JSON may meet them."""
    frames = {}
    for frame in range(traits.frames):
        vectors = []
        for triplet in triplets_of(request, video.number, traits, frame) or (-1,):
            instrument, verb, target = TRIPLETS[triplet] if triplet >= 0 else (-1, -1, -1)
            score = 1 if triplet >= 0 else -1
            vectors.append(
                [triplet, instrument, score, -1, -1, -1, -1, verb, target, -1, -1, -1, -1, -1, _phase(traits, frame)]
            )
        frames[str(frame)] = vectors
    words = {
        "triplet": [_words(at) for at in range(len(TRIPLETS))], "instrument": INSTRUMENTS, "verb": VERBS,
        "target": TARGETS, "phase": PHASES,
    }  # fmt: skip
    return {
        "video": video.number, "fps": 1, "num_frames": traits.frames,
        "categories": {kind: {str(at): word for at, word in enumerate(names)} for kind, names in words.items()},
        "annotations": dict(sorted(frames.items(), reverse=True)),
        "info": {"description": "made up", "bbox_format": "x,y,w,h"},
        "licenses": [{"id": 1, "name": "CC BY-NC-SA 4.0"}],
    }  # fmt: skip


def _traps(request: Request) -> tuple[Trap, ...]:
    found = []
    for video in _videos(request):
        path = video.folder()
        if _traits(request, video).black:
            found.append((path, "black-frames", "Black frames keep their place and their label row; none is dropped."))
        found.append(
            (path, "one-per-second", "Consecutive pictures are a second apart: no video for models of motion.")
        )
        if video.edition == "CholecT45" and video.number == _EXTRA_ROW:
            found.append(
                (f"CholecT45/triplet/{video.name()}.txt", "extra-row", "The last row has no picture: reported.")
            )
            found.append((path, "other-size", "Larger than its neighbours, as the recordings of 1080 lines are."))
        if video.number > 99:
            found.append((path, "three-digits", "VID111 is a video like the others: two or three digits."))
        if video.edition == "CholecT50":
            label = f"CholecT50/labels/{video.name()}.json"
            found.append((label, "no-boxes", "A box of -1 is no box, and a triplet of -1 is none."))
            found.append((label, "key-order", "Frames are keys of text in any order."))
        if video.edition == "CholecT50" and any(
            other.edition == "CholecT45" and other.number == video.number for other in _videos(request)
        ):
            found.append((path, "same-as", f"One leak group with CholecT45/data/{video.name()}."))
    return tuple(Trap(path=path, name=name, expect=expect) for path, name, expect in found)


def _labels(request: Request) -> dict[str, Any]:
    """`triplets` and, in CholecT50, `phase` of every frame by its number."""
    found = {}
    for video in _videos(request):
        traits = _traits(request, video)
        frames: dict[str, dict[str, Any]] = {
            str(at): {"triplets": triplets_of(request, video.number, traits, at)} for at in range(traits.frames)
        }
        if video.edition == "CholecT50":
            for at in range(traits.frames):
                frames[str(at)]["phase"] = _phase(traits, at)
        found[video.folder()] = {"labels": {"operation": video.number, "edition": video.edition}, "frames": frames}
    return found


LAYOUT = Layout(
    recordings=len(_VIDEOS), default=len(_VIDEOS), seconds=8.0, items=_items, files=_files, traps=_traps, labels=_labels
)
