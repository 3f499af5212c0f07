"""REAL-Colon: whole colonoscopies as numbered pictures, a VOC file for each of them, tables of videos and lesions.

Pictures are counted from 1, without leading zeros. Corners come in the order xmin, xmax, ymin, ymax.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

from endocorpus.phantom.layouts.layout import Files, Item, Layout, Request, Trap, Truths
from endocorpus.phantom.plan import plan_recording
from endocorpus.phantom.scene import Box
from endocorpus.phantom.traits import Lesion, Traits

_CLASSES: dict[Lesion, tuple[str, str]] = {
    "adenoma": ("tubular adenoma", "AD"), "hyperplastic": ("hyperplastic polyp", "HP"),
    "serrated": ("sessile serrated lesion", "SSL"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One colonoscopy: site and number, rate, whether lesions were removed in it, and its row of the table."""

    name: str
    rate: str
    lesion: Lesion | None
    brand: str
    most: int | None = None

    def fraction(self) -> Fraction:
        """The rate that the table rounds to two digits."""
        return {"29.97": Fraction(30000, 1001), "59.94": Fraction(60000, 1001)}.get(self.rate, Fraction(self.rate))


_VIDEOS = (
    Video(name="001-001", rate="29.97", lesion="adenoma", brand="Olympus"),
    Video(name="001-002", rate="29.97", lesion=None, brand="Olympus"),
    Video(name="002-001", rate="25.0", lesion="hyperplastic", brand="Fuji"),
    Video(name="003-015", rate="59.94", lesion="serrated", brand="Olympus", most=64),
    Video(name="004-010", rate="29.97", lesion="adenoma", brand="Fuji"),
    Video(name="004-009", rate="29.97", lesion=None, brand="Fuji", most=9),
)


def _traits(request: Request, at: int) -> Traits:
    """Sites differ in size. The first shows two lesions, and begins out of the body; some begin and end there."""
    video = _VIDEOS[at]
    rate, scale = video.fraction(), (1.0, 1.25)[video.name.startswith("004")]
    plain = plan_recording(
        request.seed, lumen=90 + at, recording=9000 + at, lesion=video.lesion or "adenoma",
        size=request.scaled(scale), rate=rate, frames=request.frames(rate, video.most),
        frame_counter=request.frame_counter, overlays=False, outside=at % 2 == 0, frozen=False,
    )  # fmt: skip
    if video.lesion is None:
        return replace(plain, polyps=())
    first = plain.polyps[0]
    if at:
        return replace(plain, polyps=(first,))
    beside = replace(first, angle=first.angle + 0.9, depth=first.depth + 0.2, radius=0.18, height=0.12)
    return replace(plain, polyps=(first, beside))


def _picture(name: str, index: int) -> str:
    return f"{name}_frames/{name}_{index + 1}.jpg"


def _items(request: Request) -> tuple[Item, ...]:
    return tuple(
        Item(path=f"{video.name}_frames", traits=_traits(request, at), frame_name=partial(_picture, video.name))
        for at, video in enumerate(_VIDEOS[: request.recordings])
    )


def _files(request: Request, truths: Truths) -> Files:
    videos = [(video, truths[f"{video.name}_frames"]) for video in _VIDEOS[: request.recordings]]
    for video, truth in videos:
        for index, boxes in enumerate(truth.boxes):
            name = f"{video.name}_{index + 1}"
            yield f"{video.name}_annotations/{name}.xml", _voc(video.name, name, truth.traits, boxes)
    infos = ["unique_video_name,age,sex,endoscope_brand,fps,num_frames,num_lesions,bbps"]
    lesions = ["unique_object_id,unique_video_name,size [mm],site,histology_extended,histology_class"]
    for at, (video, truth) in enumerate(videos):
        polyps = truth.traits.polyps
        person, score = f"{51 + 3 * at},{'MF'[at % 2]}", 6 + at % 4
        numbers = f"{video.rate},{truth.traits.frames},{len(polyps)},{score}"
        infos.append(f"{video.name},{person},{video.brand},{numbers}")
        for number, polyp in enumerate(polyps, start=1):
            extended, kind = _CLASSES[polyp.lesion]
            millimetres = round(25 * polyp.radius)
            lesions.append(f"{video.name}_{number},{video.name},{millimetres},sigmoid,{extended},{kind}")
    yield "video_info.csv", ("\n".join(infos) + "\n").encode()
    yield "lesion_info.csv", ("\n".join(lesions) + "\n").encode()
    yield "dataset_description.md", b"# REAL-colon dataset\n\nA made-up tree in the layout of REAL-Colon.\n"


def _voc(video: str, name: str, traits: Traits, boxes: tuple[Box, ...]) -> bytes:
    """One picture's file; without an `object` where no lesion is seen."""
    lines = [
        "<annotation>", "    <version_fmt>1.0</version_fmt>", f"    <folder>{video}</folder>",
        f"    <filename>{name}.jpg</filename>", "    <source>", "        <database>cosmoimd</database>",
        "        <release>v1.0_20230228</release>", "    </source>", "    <size>",
        f"        <width>{traits.width}</width>", f"        <height>{traits.height}</height>",
        "        <depth>3</depth>", "    </size>",
    ]  # fmt: skip
    for number, box in enumerate(boxes, start=1):
        lines += [
            "    <object>", "        <name>lesion</name>", f"        <unique_id>{video}_{box.polyp + 1}</unique_id>",
            f"        <box_id>{number}</box_id>", "        <bndbox>",
            f"            <xmin>{box.xmin}</xmin>", f"            <xmax>{box.xmax}</xmax>",
            f"            <ymin>{box.ymin}</ymin>", f"            <ymax>{box.ymax}</ymax>",
            "        </bndbox>", "    </object>",
        ]  # fmt: skip
    return ("\n".join([*lines, "</annotation>"]) + "\n").encode()


def _traps(request: Request) -> tuple[Trap, ...]:
    found = []
    for at, video in enumerate(_VIDEOS[: request.recordings]):
        folder, traits = f"{video.name}_frames", _traits(request, at)
        if traits.frames > 9:
            found.append((folder, "lexical-order", "Picture 10 comes after picture 9."))
        if not traits.polyps:
            found.append((folder, "no-object", "A file without an object says that no lesion is seen."))
        if len(traits.polyps) > 1:
            found.append(
                (folder, "several-lesions", "Boxes belong to lesions by unique_id, not by their place in the file.")
            )
        if video.rate == "59.94":
            found.append((folder, "rate", "Twice the rate of the others; the table rounds 60000/1001."))
        found.append((folder, "corner-order", "Corners are read by name: xmax stands before ymin."))
        found.append((folder, "two-folders", "The pictures' labels lie in the folder that ends in _annotations."))
    return tuple(Trap(path=path, name=name, expect=expect) for path, name, expect in found)


def _labels(request: Request) -> dict[str, Any]:
    """Lesions of every colonoscopy by their id; the boxes are those of the truth, lesion 1 being polyp 0."""
    return {
        f"{video.name}_frames": {
            "labels": {
                "fps": video.rate, "endoscope_brand": video.brand,
                "lesions": {
                    f"{video.name}_{number}": _CLASSES[polyp.lesion][1]
                    for number, polyp in enumerate(_traits(request, at).polyps, start=1)
                },
            },
            "frames": {},
        }
        for at, video in enumerate(_VIDEOS[: request.recordings])
    }  # fmt: skip


LAYOUT = Layout(
    recordings=len(_VIDEOS), default=len(_VIDEOS), seconds=2.0, items=_items, files=_files, traps=_traps, labels=_labels
)
