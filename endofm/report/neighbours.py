"""Which clips the features of a run find alike: the nearest ones of other leak groups, as pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from endocorpus.corpus.manifest import named_corpus
from endocorpus.errors import DataError
from endofm.checkpoint import latest_checkpoint
from endofm.config import load_config
from endofm.data.clips import ClipSet, load_clips
from endofm.data.decode import decode_frames
from endofm.data.stream import ShardReader
from endofm.models.weights import load_backbone
from endofm.probe import encode_rows, sound

_ASKED, _SHOWN, _MOST = 8, 5, 1000
_HEIGHT = 120  # pixels of a picture


@dataclass(frozen=True)
class Picture:
    """The middle frame of a clip as a data address, what is known of it, and how near it is (1 for the clip asked)."""

    image: str
    key: str
    labels: str
    cosine: float


def neighbours(run_dir: Path, corpus: Path) -> tuple[list[list[Picture]], tuple[str, ...]]:
    """Rows of pictures: a clip of the corpus, then the clips of other leak groups, the nearest first. And the keys of
    damaged clips, which take no part.

    The features are those of the run's exported backbone, or of its newest checkpoint. Of a large corpus, a thousand
    clips at equal distances take part.

    Raises:
        UsageError: the folder holds no corpus.
        DataError: the run has left no weights or no configuration yet, or the corpus cannot be read.
    """
    weights = run_dir / "backbone.safetensors"
    found = weights if weights.exists() else latest_checkpoint(run_dir)
    if found is None or not (run_dir / "config.toml").exists():
        raise DataError(f"{run_dir}: no weights and configuration of this run yet; leave --corpus out")
    views = load_config(run_dir / "config.toml").views
    table = named_corpus(corpus).clips().select(["key", "leak_group", "labels"]).to_pylist()
    known = {row["key"]: row for row in table}
    clips = load_clips([corpus])
    taken = np.unique(np.linspace(0, len(clips) - 1, min(len(clips), _MOST)).round().astype(np.int64))
    rows, damaged = sound(clips, taken.tolist())
    if not rows:
        raise DataError(f"{corpus}: all clips are damaged; run `endocorpus verify {corpus}`")
    rows_N = np.array(rows)
    unit_ND = normalize(encode_rows(load_backbone(found), clips, rows_N, views).double(), dim=1)
    groups = np.array([known[clips.key(int(row))]["leak_group"] for row in rows_N])
    asked = np.unique(np.linspace(0, len(rows_N) - 1, min(len(rows_N), _ASKED)).round().astype(np.int64))
    return [_row(clips, rows_N, unit_ND, groups, int(place), known) for place in asked], damaged


def _row(
    clips: ClipSet,
    rows_N: np.ndarray[tuple[int], np.dtype[np.int64]],
    unit_ND: torch.Tensor,
    groups: np.ndarray[tuple[int], np.dtype[np.str_]],
    place: int,
    known: dict[str, dict[str, object]],
) -> list[Picture]:
    cosine_N = unit_ND @ unit_ND[place]
    order = [
        other for other in cosine_N.argsort(descending=True, stable=True).tolist() if groups[other] != groups[place]
    ]
    shown = [(place, 1.0), *((other, float(cosine_N[other])) for other in order[:_SHOWN])]
    return [_picture(clips, int(rows_N[other]), cosine, known) for other, cosine in shown]


def _picture(clips: ClipSet, row: int, cosine: float, known: dict[str, dict[str, object]]) -> Picture:
    key, num_frames = clips.key(row), int(clips.num_frames_N[row])
    with ShardReader() as reader:
        frame_HWC = decode_frames(reader.read(clips.location(row)), np.array([num_frames // 2]), num_frames)[0]
    image = Image.fromarray(frame_HWC)
    image = image.resize((max(round(image.width * _HEIGHT / image.height), 1), _HEIGHT))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return Picture(f"data:image/jpeg;base64,{data}", key, _labels(known[key]["labels"]), cosine)


def _labels(labels: object) -> str:
    assert isinstance(labels, Sequence)
    return ", ".join(dict.fromkeys(str(label["value"] or label["raw"]) for label in labels))
