"""PolypDiag: whole videos with and without polyps, made of LDPolypVideo and Hyper-Kvasir.

The abnormal test videos are LDPolypVideo 101 to 160, which the ground truth of the frames proves: its last entries are
theirs, in that order, each video padded to a multiple of 16 frames with its last label. Names of the videos are
modelled on a successor of the set; nobody here has seen the archive.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from endocorpus.manifests import manifests_folder
from endocorpus.records import Kind
from endocorpus.sources.layout import VIDEO, LabelError, Labels, Layout, Note, Sidecars, Videos
from endocorpus.sources.readers import lines_of

_PADDED_TO = 16  # frames


def split_list(path: Path, names: Mapping[str, str]) -> Iterator[Note]:
    """``video.mp4,label`` without a header; the file's own name is the split."""
    for number, line in lines_of(path):
        video, comma, label = (part.strip() for part in line.partition(","))
        if not comma or label not in {"0", "1"}:
            raise LabelError(f"line {number}: expected video,0 or video,1")
        stem = re.sub(f"{VIDEO}$", "", video.rpartition("/")[2])
        yield Note(kind=Kind.LABEL, name="finding", raw=label, recording=stem)
        yield Note(kind=Kind.LABEL, name="official_split", raw=names["split"], recording=stem)


def test_frames(path: Path, names: Mapping[str, str]) -> Iterator[Note]:
    """``gt-colon.npy``: labels of the frames of all test videos, of which the last 60 are known."""
    try:
        truth = np.load(path, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - numpy reads the header as Python and raises whatever it stumbles over
        raise LabelError(f"not a numpy array: {error}") from None
    if not isinstance(truth, np.ndarray) or truth.ndim != 1 or truth.dtype.kind not in "biuf":
        raise LabelError("not a list of numbers")
    lengths = abnormal_test_lengths()
    start = len(truth) - sum(-(-length // _PADDED_TO) * _PADDED_TO for length in lengths.values())
    if start < 0:
        raise LabelError(f"an array of {truth.shape}, which does not hold the frames of videos 101 to 160")
    for video, length in lengths.items():
        edges = [0, *(np.flatnonzero(np.diff(truth[start : start + length])) + 1), length]
        for first, stop in pairwise(map(int, edges)):
            note = Note(kind=Kind.LABEL, name="finding", raw=f"{float(truth[start + first]):g}", recording=video)
            yield replace(note, frame=str(first), last=str(stop - 1))
        start += -(-length // _PADDED_TO) * _PADDED_TO


def abnormal_test_lengths() -> dict[str, int]:
    """Frames of LDPolypVideo's test videos, in order."""
    text = (manifests_folder() / "tables" / "ldpolypvideo_lengths.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {row["video"]: int(row["n_frames"]) for row in rows if row["archive_split"] == "Test"}


LAYOUT: Layout = (
    Videos(
        pattern=rf"(?:.*/)?videos/(?P<stem>[^/]+){VIDEO}",
        recording="{stem}",
        case="{stem}",
        case_basis="recording",
        exact_names=True,  # as in Hyper-Kvasir, from which some come
    ),
    Labels(pattern=r"(?:.*/)?splits/(?P<split>train|val|test)\.txt", read=split_list),
    Labels(pattern=r"(?:.*/)?gt-colon\.npy", read=test_frames),
    Sidecars(pattern=r"(?:.*/)?[^/]+\.(?:md|txt|pdf)"),
)
