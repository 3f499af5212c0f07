"""A private hospital's folder: exams under the procedure, named as people name things, some as video in DICOM.

The real set's raw layout is not known; this is what such folders look like. Every name in it is made up and says so,
and is planted: in paths, burnt into pictures, in tags of containers and DICOM headers, in the table of labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from endocorpus.phantom.dicom import PLANTED
from endocorpus.phantom.layouts.layout import Files, Item, Layout, Request, Trap, Truths
from endocorpus.phantom.plan import plan_recording
from endocorpus.phantom.traits import Traits

PERSON = "PHANTOM_PAT"
FOREIGN = "幻影病人 甲"
"""A made-up person in letters beyond ASCII, with a space: "phantom patient A"."""
_TAGS = (("title", PERSON), ("comment", "PHANTOM HOSPITAL"), ("creation_time", "2021-04-02T09:21:00Z"))
_SMALL = 12
"""Frames of the bare recording in DICOM, where nothing is compressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One file, the exam it belongs to, and how its container differs from the plain one of its suffix."""

    path: str
    exam: str
    lumen: int
    codec: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    most: int | None = None
    rate: int = 25
    bare: bool = False


_EXAM = "RJ20210312_0007"
_VIDEOS = (
    Video(path=f"colonoscope/{_EXAM}/video_01.mp4", exam=_EXAM, lumen=80, tags=_TAGS),
    Video(path=f"colonoscope/{_EXAM}/video_02.mp4", exam=_EXAM, lumen=80),
    Video(path=f"gastroscope/{PERSON}_20210402_0921.avi", exam=f"{PERSON}_20210402_0921", lumen=81),
    Video(path="gastroscope/exam_112/IMG_0001.dcm", exam="exam_112", lumen=81, codec="h264"),
    Video(path="gastroscope/exam_112/IMG_0002.dcm", exam="exam_112", lumen=81, codec="jpeg"),
    Video(path="colonoscope/exam_113/IMG_0001.dcm", exam="exam_113", lumen=80, codec="rgb", most=_SMALL),
    Video(path=f"colonoscope/{FOREIGN}_20210405/clip 1.ts", exam=f"{FOREIGN}_20210405", lumen=82, tags=_TAGS),
    Video(path="pretrain/Ours_colon/00001.mp4", exam="00001", lumen=82, rate=30, bare=True),
)
# exam_id, procedure, finding, consent. exam_114 was never copied; the exam in foreign letters was never entered.
_ROWS = (
    (_EXAM, "colonoscopy", "adenoma", "yes"),
    (f"{PERSON}_20210402_0921", "gastroscopy", "gastritis, seen by NOBODY NORA", "yes"),
    ("exam_112", "gastroscopy", "polyp", ""),
    ("exam_113", "colonoscopy", "serrated lesion", "no"),
    ("exam_114", "colonoscopy", "none", "yes"),
)


def _traits(request: Request, at: int) -> Traits:
    """Text and a room in every raw file. The preprocessed one is without: it was cut from the picture long ago."""
    video, rate = _VIDEOS[at], Fraction(_VIDEOS[at].rate)
    return plan_recording(
        request.seed, lumen=video.lumen, recording=8000 + at, size=request.size, rate=rate,
        frames=request.frames(rate, video.most), frame_counter=request.frame_counter,
        overlays=not video.bare, outside=not video.bare, frozen=False,
    )  # fmt: skip


def _items(request: Request) -> tuple[Item, ...]:
    return tuple(
        Item(path=video.path, traits=_traits(request, at), codec=video.codec, tags=video.tags)
        for at, video in enumerate(_VIDEOS[: request.recordings])
    )


def _files(request: Request, truths: Truths) -> Files:
    """The table as a spreadsheet exports it: a byte order mark, and lines that end in CR LF."""
    del request, truths  # the clerk's table does not depend on which videos were copied
    rows = [("exam_id", "procedure", "finding", "consent"), *_ROWS]
    text = "".join(",".join(f'"{cell}"' if "," in cell else cell for cell in row) + "\r\n" for row in rows)
    yield "labels.csv", text.encode("utf-8-sig")


_PLANTED: dict[str, tuple[tuple[str, str], ...]] = {
    _VIDEOS[0].path: (
        ("tags", "Title, comment and time of the container are not published."),
        ("sound", "The sound is not published."),
    ),
    _VIDEOS[1].path: (("same-exam", "Stands on the same side of every split as video_01 of its folder."),),
    _VIDEOS[2].path: (("name-in-path", "The name is in no manifest, log or file name that is published."),),
    _VIDEOS[3].path: (
        ("dicom", "One H.264 stream in MPEG-4 AVC/H.264 High Profile, read without a DICOM viewer's help."),
        ("consent-unknown", "The table says nothing about consent: treated as none."),
    ),
    _VIDEOS[4].path: (("dicom", "A JPEG per frame (JPEG Baseline), in the order of the fragments."),),
    _VIDEOS[5].path: (
        ("dicom", "Bare RGB pixels, frame after frame."),
        ("no-consent", "The table says no: nothing of it is published."),
    ),
    _VIDEOS[6].path: (
        ("name-in-path", "Letters beyond ASCII and a space in the path; the name is published nowhere."),
        ("no-row", "The table has no row for this exam: consent is unknown."),
    ),
    _VIDEOS[7].path: (("preprocessed", "A clip that Endo-FM has cut and scaled, not a recording."),),
}


def _traps(request: Request) -> tuple[Trap, ...]:
    videos = _VIDEOS[: request.recordings]
    found = [(video.path, *planted) for video in videos for planted in _PLANTED[video.path]]
    found += [(video.path, "header", f"Nothing of {', '.join(PLANTED)} is published.") for video in videos
              if video.path.endswith(".dcm")]  # fmt: skip
    found += [
        ("labels.csv", "no-file", "exam_114 has a row and no file: reported."),
        ("labels.csv", "spreadsheet", "A byte order mark and CR LF are no part of the first and last column."),
        (
            "labels.csv",
            "name-in-finding",
            "The free text of a finding names a person: it is not published as it stands.",
        ),
    ]
    return tuple(Trap(path=path, name=name, expect=expect) for path, name, expect in found)


def _labels(request: Request) -> dict[str, Any]:
    """The exam of every file, and its row of the table; null where there is none."""
    rows = {row[0]: dict(zip(("procedure", "finding", "consent"), row[1:], strict=True)) for row in _ROWS}
    return {
        video.path: {"labels": {"exam": video.exam, "row": rows.get(video.exam)}, "frames": {}}
        for video in _VIDEOS[: request.recordings]
    }


LAYOUT = Layout(
    recordings=len(_VIDEOS), default=len(_VIDEOS), seconds=2.0, items=_items, files=_files, traps=_traps, labels=_labels
)
