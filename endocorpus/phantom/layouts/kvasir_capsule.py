"""Kvasir-Capsule: capsule videos that play fifteen times too fast, pictures cut from them, segments and findings.

A capsule takes two pictures a second; the files play about thirty. Frames are counted from 0 here, in every label
file (the real set does not say). A picture `<video>_<n>.jpg` is frame `n` as it was before the video was encoded.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from endocorpus.phantom.annotations import picture_bytes
from endocorpus.phantom.layouts.layout import Files, Item, Layout, Request, Trap, Truths
from endocorpus.phantom.plan import plan_recording
from endocorpus.phantom.scene import Box, Scene
from endocorpus.phantom.traits import Field, Traits
from endocorpus.phantom.truth import RecordingTruth

CAPTURE = Fraction(2)
_NORMAL, _REDUCED, _VALVE, _AMPULLA = (
    "Normal clean mucosa", "Reduced mucosal view", "Ileocecal valve", "Ampulla of Vater",
)  # fmt: skip
_ANATOMY = ("Pylorus", _VALVE, _AMPULLA)
_PACKED = "Polyp"
"""The class whose pictures are still in their archive."""
# What the splits call a class; they leave out polyps, hematin and the ampulla.
_SPLIT_NAMES = {
    _NORMAL: "Normal", _VALVE: "Ileo-cecal valve", _REDUCED: "Reduced Mucosal View", "Pylorus": "Pylorus",
    "Angiectasia": "Angiectasia", "Foreign body": "Foreign Bodies", "Erosion": "Erosion", "Ulcer": "Ulcer",
    "Lymphangiectasia": "Lymphangiectasia", "Erythema": "Erythematous", "Blood - fresh": "Blood",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One examination. `finding` is the class of its boxes and `segments` the classes of its two spans, for a
    labelled one; `splits` says on which sides of the official split its pictures stand."""

    name: str
    finding: str = ""
    segments: tuple[str, str] = ("", "")
    splits: tuple[int, ...] = ()
    rate: Fraction = Fraction(30)

    def path(self) -> str:
        return f"{'labelled' if self.finding else 'unlabelled'}_videos/{self.name}.mp4"


_VIDEOS = (
    Video(name="bca26705313a4644", finding="Polyp", segments=("Pylorus", _NORMAL), splits=(0, 1)),
    Video(name="04a78ef00c5245e0"),
    Video(name="7ad22d50ebaf4596", finding="Blood - fresh", segments=(_VALVE, _REDUCED),
          splits=(0,), rate=Fraction(30000, 1001)),
    Video(name="8885668afb844852", finding="Angiectasia", segments=(_AMPULLA, _NORMAL),
          splits=(1,)),
    Video(name="0e1f4aab2f1c6e77", rate=Fraction(30000, 1001)),
    Video(name="64440803f87b4843", finding="Erosion", segments=("Pylorus", _REDUCED), splits=(1,)),
)  # fmt: skip


def _traits(request: Request, at: int) -> Traits:
    """Square, black outside an octagon, no text. Some begin before the capsule is swallowed, some rest for a while."""
    video = _VIDEOS[at]
    side = min(request.size)
    frames = request.frames(video.rate)
    plain = plan_recording(
        request.seed, lumen=60 + at, recording=6000 + at, size=(side, side), rate=video.rate, frames=frames,
        frame_counter=request.frame_counter, overlays=False, outside=False, frozen=False,
    )  # fmt: skip
    reach = round(0.49 * side)
    field = Field(shape="octagon", centre=(side / 2, side / 2), radius=reach, flat=reach)
    tenth = frames // 10
    return replace(
        plain, field=field, capture=CAPTURE, polyps=plain.polyps if video.finding else (),
        outside=((0, tenth),) if at % 3 == 0 and tenth else (),
        frozen=((7 * tenth, 9 * tenth),) if at % 3 == 1 and tenth else (),
    )  # fmt: skip


def _items(request: Request) -> tuple[Item, ...]:
    return tuple(Item(path=video.path(), traits=_traits(request, at)) for at, video in _chosen(request))


def _chosen(request: Request) -> list[tuple[int, Video]]:
    return list(enumerate(_VIDEOS[: request.recordings]))


def _spans(video: Video, frames: int) -> dict[str, list[list[int]]]:
    """First and last frame of every time a segment's class is seen: the anatomy once, the other class twice."""

    def span(start: int, stop: int) -> list[int]:
        return [frames * start // 20, frames * stop // 20]

    return {video.segments[0]: [span(2, 3)], video.segments[1]: [span(6, 7), span(11, 12)]}


def _found(truth: RecordingTruth) -> dict[int, Box]:
    """The box on each frame of the finding's span that shows the finding; it overlaps the second segment."""
    frames = truth.traits.frames
    span = range(frames * 11 // 20, max(frames * 14 // 20, 1))
    return {frame: truth.boxes[frame][0] for frame in span if truth.boxes[frame]}


def _pictured(video: Video, truth: RecordingTruth) -> dict[int, str]:
    """The class of every frame of which there is a picture: the ends of each segment, and a few of the finding."""
    spans = _spans(video, truth.traits.frames)
    chosen = {frame: kind for kind, seen in spans.items() for span in seen for frame in span}
    found = list(_found(truth))
    return chosen | dict.fromkeys([*found[:2], *found[2::8]], video.finding)


def _files(request: Request, truths: Truths) -> Files:
    labelled = [(video, truths[video.path()]) for _, video in _chosen(request) if video.finding]
    packed: dict[str, bytes] = {}
    for video, truth in reversed(labelled):  # the places that were rendered last are still in memory
        scene = Scene(truth.traits, request.seed)
        for frame, kind in sorted(_pictured(video, truth).items()):
            name, data = f"{kind}/{video.name}_{frame}.jpg", picture_bytes(scene.render(frame)[0], "JPEG")
            if kind == _PACKED:
                packed[name] = data
            else:
                yield f"labelled_images/{name}", data
    yield f"labelled_images/{_PACKED.lower()}.tar.gz", _pack(packed)
    yield "metadata.csv", _table(labelled)
    notes = {video.name: _notes(video, truth) for video, truth in labelled}
    yield "metadata.json", json.dumps(notes).encode()
    yield from _splits(labelled)


def _pack(files: dict[str, bytes]) -> bytes:
    """A .tar.gz without times or owners."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as zipped, tarfile.open(
        fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT
    ) as archive:  # fmt: skip
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _corners(box: Box) -> list[dict[str, int]]:
    return [
        {"x": box.xmin, "y": box.ymin}, {"x": box.xmax, "y": box.ymin},
        {"x": box.xmax, "y": box.ymax}, {"x": box.xmin, "y": box.ymax},
    ]  # fmt: skip


def _notes(video: Video, truth: RecordingTruth) -> dict[str, Any]:
    """Everything about one video. Frames are text and out of order, as in any JSON object; of three boxes, one was
    drawn and two were filled in by a machine."""
    segments = {
        f"{video.name[:8]}-s{at}": {
            # The script that makes metadata.csv falls back to the type where the subtype is null.
            "metadata": {"pillcam_subtype": kind if kind in _ANATOMY else None, "segment_type": kind},
            "seen": seen,
        }
        for at, (kind, seen) in enumerate(_spans(video, truth.traits.frames).items())
    }
    frames = {
        str(frame): {"shape": _corners(box), "blurry": frame % 7 == 0, "interpolated": at % 3 != 0}
        for at, (frame, box) in enumerate(_found(truth).items())
    }
    finding = {
        "metadata": {"name": f"{video.finding} 1", "pillcam_subtype": video.finding},
        "frames": dict(sorted(frames.items())),
    }
    return {"segments": segments, "findings": {f"{video.name[:8]}-f0": finding}}


def _table(labelled: list[tuple[Video, RecordingTruth]]) -> bytes:
    """Rows of segments without corners (and one separator short), then of findings: a frame in both has two."""
    rows = ["filename;video_id;frame_number;finding_category;finding_class;x1;y1;x2;y2;x3;y3;x4;y4"]
    for video, truth in labelled:
        pictured = sorted(_pictured(video, truth))
        for kind, seen in _spans(video, truth.traits.frames).items():
            category = "Anatomy" if kind in _ANATOMY else "Luminal"
            inside = [frame for start, stop in seen for frame in pictured if start <= frame <= stop]
            rows += [f"{video.name}_{frame}.jpg;{video.name};{frame};{category};{kind};;;;;;;" for frame in inside]
        for frame, box in _found(truth).items():
            if frame in pictured:
                numbers = ";".join(f"{corner['x']};{corner['y']}" for corner in _corners(box))
                rows.append(f"{video.name}_{frame}.jpg;{video.name};{frame};Luminal;{video.finding};{numbers}")
    return ("\n".join(rows) + "\n").encode()


def _splits(labelled: list[tuple[Video, RecordingTruth]]) -> Files:
    """One video stands on both sides, with other pictures on each; split_1 names its first picture twice."""
    sides: list[list[str]] = [[], []]
    for video, truth in labelled:
        for at, (frame, kind) in enumerate(sorted(_pictured(video, truth).items(), reverse=True)):
            if kind in _SPLIT_NAMES:
                side = video.splits[at % len(video.splits)]
                sides[side].append(f"{video.name}_{frame}.jpg,{_SPLIT_NAMES[kind]}")
    sides[1] += sides[1][:1]
    for side, rows in enumerate(sides):
        yield f"official_splits/split_{side}.csv", ("\n".join(["filename,label", *rows]) + "\n").encode()


_TABLE_TRAPS = (
    ("metadata.csv", "two-rows-per-frame", "A frame in a segment and in a finding has two rows; both hold."),
    ("metadata.csv", "four-corners", "Semicolons, and four corners x;y: not x, y, width, height."),
    ("metadata.csv", "short-rows", "Rows of segments have twelve fields under a heading of thirteen."),
    ("metadata.json", "interpolated", "Boxes that a machine filled in are marked as such."),
    ("official_splits/split_1.csv", "duplicate-name", "A picture that is named twice counts once."),
    ("official_splits/split_0.csv", "other-names", "The splits call classes otherwise than folders and tables do."),
)


def _traps(request: Request) -> tuple[Trap, ...]:
    archive = f"labelled_images/{_PACKED.lower()}.tar.gz"
    found = [(archive, "archive", "Its pictures are read from it, or it is named as unread.")]
    for at, video in _chosen(request):
        path, traits = video.path(), _traits(request, at)
        found.append((path, "capture-rate", "Frame n was taken after n/2 seconds, whatever the file plays at."))
        if traits.outside:
            found.append((path, "room", "The first frames show the room, before the capsule is swallowed."))
        if traits.frozen:
            found.append((path, "capsule-at-rest", "Equal frames in a row are kept: the capsule lies still."))
        if len(video.splits) > 1:
            found.append((path, "video-in-both-splits", "Both official splits hold its pictures: they leak."))
    return tuple(Trap(path=path, name=name, expect=expect) for path, name, expect in (*found, *_TABLE_TRAPS))


def _labels(request: Request) -> dict[str, Any]:
    """`segments` by class, first and last frame; the boxes of `finding` are those of the truth, frame by frame."""
    return {
        video.path(): {
            "labels": {
                "finding": video.finding or None,
                "segments": _spans(video, _traits(request, at).frames) if video.finding else {},
            },
            "frames": {},
        }
        for at, video in _chosen(request)
    }


LAYOUT = Layout(
    recordings=len(_VIDEOS), default=len(_VIDEOS), seconds=4.0, items=_items, files=_files, traps=_traps, labels=_labels
)
