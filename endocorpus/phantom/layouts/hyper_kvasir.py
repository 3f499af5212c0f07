"""Hyper-Kvasir: labelled AVI and MPEG videos, labelled and segmented still pictures, three tables that disagree.

The depth of the folders below `labeled-videos` is known from two examples only, so one video lies higher than the
others. `kilobytes` in the video table is made up, as the table is written without a look at the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from endocorpus.phantom.annotations import picture_bytes, whole_mask
from endocorpus.phantom.layouts.layout import Files, Item, Layout, Request, Trap, Truths
from endocorpus.phantom.plan import plan_recording
from endocorpus.phantom.scene import Scene
from endocorpus.phantom.traits import Traits
from endocorpus.phantom.truth import RecordingTruth

_PAL = (1.0, 1.0)
_SQUARE = (0.8, 1.0)
_LARGE = (1.25, 1.25)
_WIDE = (1.5, 1.5 * 1072 / 1920 * 720 / 576)


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One video. `raw` is its finding in the video table at the root (none: no row), `labels` are Finding 1 and
    Classification 1 of `video-labels.csv`. `scale` is its size in terms of the size asked for, which stands for PAL.
    """

    path: str
    raw: str | None
    labels: tuple[str, str]
    lumen: int
    recording: int
    scale: tuple[float, float] = _PAL
    rate: int = 25
    most: int | None = None

    def stem(self) -> str:
        return self.path.rsplit("/", 1)[1].rsplit(".", 1)[0]

    def organ(self) -> str:
        return "Lower GI" if self.path.startswith("lower") else "Upper GI"


_POLYPS = "lower-gi-tract/pathological-findings/polyps"
_LIFTED = "lower-gi-tract/therapeutic-interventions/dyed-lifted-polyps"
_LANDMARKS = "upper-gi-tract/anatomical-landmarks"
_CECUM = "lower-gi-tract/anatomical-landmarks/cecum"
_FOUND, _LANDMARK, _DONE = "Pathological findings", "Anatomical landmarks", "Therapeutic interventions"
_TAIL = "0000-4000-8000-0000000000"

VIDEOS = (
    Video(path=f"{_POLYPS}/11305ea5-{_TAIL}01.avi", raw="polyp", labels=("Polyps", _FOUND), lumen=50, recording=5000),
    Video(path=f"{_LIFTED}/polypp 16.avi", raw="polyp", labels=("Dyed lifted polyps", _DONE),
          lumen=50, recording=5001),
    Video(path=f"{_LIFTED}/polypp16.avi", raw="polyp", labels=("Dyed lifted polyps", _DONE),
          lumen=51, recording=5002),
    Video(path=f"{_POLYPS}/Polypp14.avi", raw="Polyp", labels=("Polyps", _FOUND), lumen=51, recording=5003),
    Video(path=f"lower-gi-tract/quality-of-mucosal-view/BBPS-2-3/3f2b0001-{_TAIL}02.avi", raw="normal mucosa, BBPS 2",
          labels=("BBPS 2-3", "Quality of mucosal view"), lumen=52, recording=5004, scale=_LARGE, rate=30),
    Video(path=f"{_LANDMARKS}/pylorus/8120fd0a-{_TAIL}03.mpg", raw="None", labels=("Pylorus", _LANDMARK),
          lumen=52, recording=5005, scale=_SQUARE),
    Video(path=f"{_LANDMARKS}/retroflex-stomach/16963978-{_TAIL}04.avi", raw="retroflexed stomach,\xa0",
          labels=("Retroflex stomach", _LANDMARK), lumen=52, recording=5006, scale=_WIDE, most=25),
    Video(path=f"{_CECUM}/44c8c58b-{_TAIL}05.avi", raw="cecum", labels=("Cecum", _LANDMARK), lumen=52, recording=5007),
    Video(path=f"{_CECUM}/a0c1ba13-{_TAIL}06.avi", raw="cecum", labels=("Cecum", _LANDMARK), lumen=52, recording=5007),
    Video(path=f"lower-gi-tract/a61c2926-{_TAIL}07.avi", raw="out of patient", labels=("", ""), lumen=52,
          recording=5008, most=73),
    Video(path=f"{_LANDMARKS}/z-line/05a868ca-{_TAIL}08.mpg", raw="None", labels=("Z-line", _LANDMARK),
          lumen=52, recording=5009, scale=_SQUARE),
    Video(path=f"lower-gi-tract/pathological-findings/ulcerative-colitis/6ea4d1d9-{_TAIL}09.avi", raw="collitis",
          labels=("Ulcerative colitis", _FOUND), lumen=52, recording=5010, scale=(768 / 720, 1.0), rate=20),
    Video(path=f"{_LIFTED}/f0325856-{_TAIL}10.avi", raw=None, labels=("Dyed lifted polyps", _DONE),
          lumen=51, recording=5011, most=34),
    Video(path=f"{_LANDMARKS}/pylorus/b3ae21d4-{_TAIL}11.mpg", raw="None", labels=("Pylorus", _LANDMARK),
          lumen=52, recording=5012, scale=_SQUARE),
)  # fmt: skip
NORMAL = VIDEOS[4]
"""The video that PolypDiag holds, too, as one without a polyp."""
_SHOWS_POLYP = (_POLYPS, _LIFTED)
# Still pictures by the stem of the video that they were taken from: folder below labeled-images, and name.
_STILLS = {
    VIDEOS[0].stem(): (_POLYPS, f"0a1b0001-{_TAIL}21"),
    "polypp16": (_LIFTED, f"0a1b0002-{_TAIL}22"),
    VIDEOS[4].stem(): ("lower-gi-tract/quality-of-mucosal-views/bbps-2-3", f"0a1b0003-{_TAIL}23"),
    VIDEOS[5].stem(): (f"{_LANDMARKS}/pylorus", f"0a1b0004-{_TAIL}24"),
    VIDEOS[7].stem(): (_CECUM, f"0a1b0005-{_TAIL}25"),
}
_SEGMENTED = {"polypp 16": f"cju20001-{_TAIL}31", "Polypp14": f"cju20002-{_TAIL}32"}
_NO_FILE = f"39de6fcf-{_TAIL}99"


def traits_of(request: Request, video: Video) -> Traits:
    """What a video shows. The first is PAL: two fields per frame, pixels wider than high, the scope in a corner."""
    rate = Fraction(video.rate)
    plain = plan_recording(
        request.seed, lumen=video.lumen, recording=video.recording, size=request.scaled(*video.scale), rate=rate,
        frames=request.frames(rate, video.most), frame_counter=request.frame_counter, outside=False, frozen=False,
    )  # fmt: skip
    if not video.path.startswith(_SHOWS_POLYP):
        plain = replace(plain, polyps=())
    if video.raw == "out of patient":
        return replace(plain, outside=((0, plain.frames),))
    if video is not VIDEOS[0]:
        return plain
    wide, high, foot = plain.width // 5, plain.height // 4, plain.height - plain.height // 12
    return replace(plain, interlaced=True, aspect=Fraction(16, 15), inset=(2, foot - high, 2 + wide, foot), overlays=())


def _videos(request: Request) -> tuple[Video, ...]:
    return VIDEOS[: request.recordings]


def _path(video: Video) -> str:
    return f"labeled-videos/{video.path}"


def _items(request: Request) -> tuple[Item, ...]:
    return tuple(Item(path=_path(video), traits=traits_of(request, video)) for video in _videos(request))


def _files(request: Request, truths: Truths) -> Files:
    by_stem = {video.stem(): truths[_path(video)] for video in _videos(request)}
    yield "hyper-kvasir-video-metadata.csv", _video_table(request, truths)
    yield "labeled-videos/video-labels.csv", _video_labels(request)
    stills = {stem: still for stem, still in _STILLS.items() if stem in by_stem}
    for stem, (folder, name) in stills.items():
        yield (
            f"labeled-images/{folder}/{name}.jpg",
            _still(request, by_stem[stem].traits, still_frame(by_stem[stem].traits)),
        )
    yield "labeled-images/image-labels.csv", _image_labels(stills.values())
    yield from _splits(stills.values())
    yield f"unlabeled-images/images/0a1b0006-{_TAIL}26.jpg", _still(request, by_stem[VIDEOS[0].stem()].traits, 0)
    yield from _segmented(request, by_stem)


def still_frame(traits: Traits) -> int:
    """The frame that a video's still picture shows: the one in the middle, counted from 0."""
    return traits.frames // 2


def _still(request: Request, traits: Traits, frame: int) -> bytes:
    return picture_bytes(Scene(traits, request.seed).render(frame)[0], "JPEG")


def _video_table(request: Request, truths: Truths) -> bytes:
    """Semicolons; whole seconds; names with their suffix; a row without a file last, and a file without a row."""
    rows = ["file-name;finding;width;height;number-of-frames;fps;length;kilobytes"]
    for video in _videos(request):
        if video.raw is not None:
            it, rate = truths[_path(video)].traits, video.rate
            name = video.path.rsplit("/", 1)[1]
            kilobytes = it.width * it.height * it.frames >> 13
            rows.append(f"{name};{video.raw};{it.width};{it.height};{it.frames};{rate};{it.frames // rate};{kilobytes}")
    rows.append(f"{_NO_FILE}.avi;colonoc polyp;720;576;3165;25;126;145780")
    return ("\n".join(rows) + "\n").encode()


def _video_labels(request: Request) -> bytes:
    rows = ["Video file,Organ,Finding 1,Finding 2,Classification 1,Classification 2"]
    rows += [f"{v.stem()},{v.organ()},{v.labels[0]},,{v.labels[1]}," for v in _videos(request)]
    return ("\n".join(rows) + "\n").encode()


def _image_labels(stills: Iterable[tuple[str, str]]) -> bytes:
    """The first column is called "Video file" for pictures, too."""
    rows = ["Video file,Organ,Finding,Classification"]
    for folder, name in stills:
        tract, kind, finding = folder.split("/")
        rows.append(f"{name},{'Lower GI' if tract.startswith('lower') else 'Upper GI'},{finding},{kind}")
    rows.append(f"{_NO_FILE},Lower GI,ileum,anatomical-landmarks")
    return ("\n".join(rows) + "\n").encode()


def _splits(stills: Iterable[tuple[str, str]]) -> Files:
    for folds in (2, 5):
        rows = ["file-name;class-name;split-index"]
        rows += [f"{name}.jpg;{folder.rsplit('/', 1)[1]};{at % folds}" for at, (folder, name) in enumerate(stills)]
        yield f"official_splits/{folds}_fold_split.csv", ("\n".join(rows) + "\n").encode()


def _segmented(request: Request, by_stem: dict[str, RecordingTruth]) -> Files:
    """Pictures, masks as JPEG (so not quite 0 and 255), and one table of boxes for all of them."""
    boxes: dict[str, Any] = {}
    for stem, name in _SEGMENTED.items():
        if stem not in by_stem:
            continue
        truth = by_stem[stem]
        frame = still_frame(truth.traits)
        yield f"segmented-images/images/{name}.jpg", _still(request, truth.traits, frame)
        yield f"segmented-images/masks/{name}.jpg", picture_bytes(whole_mask(truth, frame), "JPEG")
        found = [{"label": "polyp", "xmin": b.xmin, "ymin": b.ymin, "xmax": b.xmax, "ymax": b.ymax}
                 for b in truth.boxes[frame]]  # fmt: skip
        boxes[name] = {"height": truth.traits.height, "width": truth.traits.width, "bbox": found}
    yield "segmented-images/bounding-boxes.json", json.dumps(boxes).encode()


_PLANTED: dict[str, tuple[tuple[str, str], ...]] = {
    VIDEOS[0].stem(): (
        ("interlaced", "Every frame is two fields, the upper first: they are not shown as combs."),
        ("anamorphic", "Pixels are 16:15, so the picture is wider on the screen than in the file."),
        ("inset", "The green picture of the scope at the lower left is no tissue."),
    ),
    "polypp 16": (("near-collision", "A recording of its own beside polypp16: spaces in names count."),),
    "polypp16": (("near-collision", "A recording of its own beside 'polypp 16'."),),
    "Polypp14": (("capital", "Joined with the tables on its name as written, its finding with case folded."),),
    NORMAL.stem(): (
        ("rate", "Plays at 30 frames per second, unlike its neighbours."),
        ("same-as", f"One leak group with polypdiag videos/{NORMAL.stem()}.mp4."),
    ),
    VIDEOS[5].stem(): (("no-finding", "The text None in the video table is no finding, and the suffix is .mpg."),),
    VIDEOS[6].stem(): (("no-break-space", "The finding ends in a comma and a no-break space."),),
    VIDEOS[8].stem(): (("identical-files", "Byte for byte the file 44c8c58b: kept once, or in one leak group."),),
    VIDEOS[9].stem(): (
        ("out-of-patient", "The room is seen on every frame: nothing of it is published."),
        ("folder-depth", "Lies right below lower-gi-tract, without a finding."),
    ),
    VIDEOS[11].stem(): (("typo", "The finding collitis is kept as written beside its code."),),
    VIDEOS[12].stem(): (
        ("no-row", "The video table has no row for this file: it is kept and reported."),
        ("short", "Fewer frames than a clip of the Endo-FM rule."),
    ),
}


def _traps(request: Request) -> tuple[Trap, ...]:
    found = [
        Trap(path=_path(video), name=name, expect=expect)
        for video in _videos(request)
        for name, expect in _PLANTED.get(video.stem(), ())
    ]
    table = "hyper-kvasir-video-metadata.csv"
    found.append(
        Trap(path=table, name="no-file", expect=f"The row of {_NO_FILE}.avi, which is not there, is reported.")
    )
    masks = [name for stem, name in _SEGMENTED.items() if stem in {video.stem() for video in _videos(request)}]
    found += [
        Trap(path=f"segmented-images/masks/{name}.jpg", name="lossy-mask", expect="Cut at 128: JPEG blurs 0 and 255.")
        for name in masks
    ]
    return tuple(found)


def _labels(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for video in _videos(request):
        frames: dict[str, dict[str, str]] = {}
        at = str(still_frame(traits_of(request, video)))
        if video.stem() in _STILLS:
            folder, name = _STILLS[video.stem()]
            frames[at] = {"labeled-image": f"labeled-images/{folder}/{name}.jpg"}
        if video.stem() in _SEGMENTED:
            frames[at] = {"segmented-image": f"segmented-images/images/{_SEGMENTED[video.stem()]}.jpg"}
        labels = {
            "raw": video.raw,
            "organ": video.organ(),
            "finding_1": video.labels[0],
            "classification_1": video.labels[1],
        }
        found[_path(video)] = {"labels": labels, "frames": frames}
    return found


LAYOUT = Layout(
    recordings=len(VIDEOS), default=len(VIDEOS), seconds=2.0, items=_items, files=_files, traps=_traps, labels=_labels
)
