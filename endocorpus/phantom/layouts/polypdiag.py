"""PolypDiag: whole videos with one label each, lists of them, and the ground truth of the test part frame by frame.

Its videos are those of LDPolypVideo and Hyper-Kvasir under the same names: a tree of those sources with the same
seed, length and size shows the same frames.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from endocorpus.phantom.layouts.hyper_kvasir import NORMAL, traits_of
from endocorpus.phantom.layouts.layout import Files, Item, Layout, Request, Trap, Truths
from endocorpus.phantom.layouts.ldpolypvideo import labelled, unlabelled
from endocorpus.phantom.plan import RATE, plan_recording
from endocorpus.phantom.traits import Traits
from endocorpus.sources.polypdiag import abnormal_test_lengths

_PADDING = 16
"""The ground truth of each test video is as long as the next multiple of this; its last label is repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Video:
    stem: str
    split: str
    label: int


_VIDEOS = tuple(
    _Video(stem=stem, split=split, label=label)
    for stem, split, label in (
        ("101", "test", 1), ("0_12", "test", 0), ("1_7", "train", 1), ("145", "test", 1), (NORMAL.stem(), "test", 0),
        ("2", "val", 1), ("0_3", "train", 0),
    )
)  # fmt: skip


def _traits(request: Request, stem: str) -> Traits:
    """A video of LDPolypVideo or of Hyper-Kvasir, or one without a polyp that is nobody else's."""
    if stem.isdigit():
        return labelled(request, int(stem))
    if stem in ("1_7", "0_12"):
        return unlabelled(request, stem)
    if stem == NORMAL.stem():
        return traits_of(request, NORMAL)
    normal = plan_recording(
        request.seed, lumen=1300 + len(stem), recording=5000 + len(stem), size=request.scaled(1.2),
        frames=request.frames(RATE), frame_counter=request.frame_counter,
    )  # fmt: skip
    return replace(normal, polyps=())


def _items(request: Request) -> tuple[Item, ...]:
    return tuple(
        Item(path=f"videos/{video.stem}.mp4", traits=_traits(request, video.stem))
        for video in _VIDEOS[: request.recordings]
    )


def _files(request: Request, truths: Truths) -> Files:
    """The three lists, and ``gt-colon.npy``: the normal test videos, then all of LDPolypVideo's test videos by number.

    A video is as long there as the real one; a phantom's last label fills the rest.
    """
    chosen = _VIDEOS[: request.recordings]
    for split in ("train", "val", "test"):
        rows = [f"{video.stem}.mp4,{video.label}\n" for video in chosen if video.split == split]
        yield f"splits/{split}.txt", "".join(rows).encode()
    shown = {
        video.stem: [int(bool(boxes)) for boxes in truths[f"videos/{video.stem}.mp4"].boxes]
        for video in chosen
        if video.split == "test"
    }
    lengths = abnormal_test_lengths()
    parts = [_padded(labels, len(labels)) for stem, labels in shown.items() if stem not in lengths]
    parts += [_padded(shown.get(stem, [0]), length) for stem, length in lengths.items()]
    buffer = io.BytesIO()
    np.save(buffer, np.array([label for part in parts for label in part], np.int64), allow_pickle=False)
    yield "gt-colon.npy", buffer.getvalue()


def _padded(labels: list[int], length: int) -> list[int]:
    """Labels of `length` frames, filled up to a multiple of 16 with the last one."""
    whole = (labels + labels[-1:] * length)[:length]
    return whole + whole[-1:] * (-length % _PADDING)


def _traps(request: Request) -> tuple[Trap, ...]:
    stems = [video.stem for video in _VIDEOS[: request.recordings]]
    same = [
        Trap(path=f"videos/{stem}.mp4", name="same-as",
             expect=f"One leak group with {there}.")
        for stem, there in (
            ("101", "ldpolypvideo Test/Images/101"), ("145", "ldpolypvideo Test/Images/145"),
            ("2", "ldpolypvideo TrainValid/Images/2"), ("1_7", "ldpolypvideo videos with polyps/1_7.avi"),
            ("0_12", "ldpolypvideo videos without polyps/0_12.avi"),
            (NORMAL.stem(), f"hyper-kvasir labeled-videos/{NORMAL.path}"),
        )
        if stem in stems
    ]  # fmt: skip
    return (
        *same,
        Trap(path="splits/test.txt", name="comma-separated", expect="Name and label stand around a comma, no header."),
        Trap(path="gt-colon.npy", name="padded-labels",
             expect="Each video's labels are cut to its frames: they were filled up to a multiple of 16."),
    )  # fmt: skip


def _labels(request: Request) -> dict[str, Any]:
    return {
        f"videos/{video.stem}.mp4": {"labels": {"label": video.label, "official_split": video.split}, "frames": {}}
        for video in _VIDEOS[: request.recordings]
    }


LAYOUT = Layout(
    recordings=len(_VIDEOS), default=len(_VIDEOS), seconds=2.0, items=_items, files=_files, traps=_traps,
    labels=_labels,
)  # fmt: skip
