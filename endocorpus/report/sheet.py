"""The contact sheet: one small picture per recording, from the clips that a training run will read."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from endocorpus.corpus.manifest import Corpus
from endocorpus.corpus.shards import Member, read_member
from endocorpus.errors import DataError
from endocorpus.media.frames import keyframe

MOST = 48
WIDTH = 160  # pixels
_COLUMNS = (
    *("key", "shard", "mp4_offset", "mp4_size", "mp4_xxh3_128", "recording_id", "start_frame"),
    *("num_frames", "rate_num", "rate_den", "keyframes", "labels"),
)
_TALLEST = 4 * WIDTH  # a picture two pixels wide must not become a column of a million


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A frame of a clip as a JPEG data URI. `frame` counts from 0 within the clip."""

    key: str
    recording_id: str
    frame: int
    microseconds: int  # length of the clip
    labels: tuple[str, ...]
    uri: str
    width: int
    height: int


def contact_sheet(corpus: Corpus, most: int = MOST) -> list[Thumbnail]:
    """The middle keyframe of the first clip of up to `most` recordings, spread evenly over their ids.

    Raises:
        DataError: a shard is missing, or a clip's bytes are not those that were written.
    """
    firsts: dict[str, Mapping[str, Any]] = {}
    for row in corpus.clips().select(list(_COLUMNS)).to_pylist():
        best = firsts.get(row["recording_id"])
        if best is None or row["start_frame"] < best["start_frame"]:
            firsts[row["recording_id"]] = row
    rows = [firsts[recording_id] for recording_id in sorted(firsts)]
    return [_thumbnail(corpus, row) for row in spread(rows, most)]


def spread(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Up to `most` rows at even distances, the first one included."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i * len(rows) // most] for i in range(most)]


def _thumbnail(corpus: Corpus, row: Mapping[str, Any]) -> Thumbnail:
    member = Member(
        name=f"{row['key']}.mp4", offset=row["mp4_offset"], size=row["mp4_size"], digest=row["mp4_xxh3_128"]
    )
    path = corpus.shard_path(row["shard"])
    try:
        with path.open("rb") as shard:
            data = read_member(shard, member)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; run `endocorpus verify {corpus.root}`") from None
    middle = len(row["keyframes"]) // 2
    try:
        picture = _small(Image.fromarray(keyframe(data, middle)))
    except DataError as error:
        raise DataError(f"{path}: {member.name} {error}") from None
    return Thumbnail(
        key=row["key"],
        recording_id=row["recording_id"],
        frame=row["keyframes"][middle],
        microseconds=row["num_frames"] * row["rate_den"] * 1_000_000 // row["rate_num"],
        labels=tuple(f"{label['name']}: {label['value'] or label['raw']}" for label in row["labels"]),
        uri="data:image/jpeg;base64," + base64.b64encode(_jpeg(picture)).decode("ascii"),
        width=picture.width,
        height=picture.height,
    )


def _small(picture: Image.Image) -> Image.Image:
    height = min(max(1, round(picture.height * WIDTH / picture.width)), _TALLEST)
    return picture.resize((WIDTH, height), Image.Resampling.LANCZOS)


def _jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.convert("RGB").save(out, format="JPEG", quality=80)
    return out.getvalue()
