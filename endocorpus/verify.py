"""Re-open everything: is this corpus, byte for byte and frame for frame, what was committed?"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av.error
import numpy as np

from endocorpus.corpus.files import digest_file
from endocorpus.corpus.manifest import REPORT, SHARDS, Corpus
from endocorpus.corpus.schema import TABLES
from endocorpus.corpus.shards import read_member, sample_members, tar_members
from endocorpus.deid.chain import sha256
from endocorpus.engine import run_tasks
from endocorpus.errors import DataError
from endocorpus.media.inspect import inspect_clip
from endocorpus.release import check_release


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is not as committed: in which file, and what."""

    where: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Outcome: no problems means that every byte and every frame was looked at and found as committed."""

    shards: int
    clips: int
    bytes: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ShardTask:
    path: Path
    name: str
    size: int
    digest: str
    rows: tuple[Mapping[str, Any], ...]
    decode: bool
    attested: Mapping[str, str] | None  # SHA-256 by clip key


def verify(
    corpus: Corpus,
    *,
    decode: bool = True,
    workers: int = 1,
    signer: str | None = None,
    progress: Callable[[int], None] = lambda _clips: None,
) -> Verification:
    """Check tables, shards and clips of a corpus against its descriptor and manifests, and what was signed about it.

    Args:
        decode: decode every clip as well, and check frames, size and that nothing stands beside the picture.
        workers: processes; each takes whole shards.
        signer: public key of whoever must have signed the attestation, 64 hex digits; by default it need not be there,
            and whose key signed is not judged.
        progress: called with the number of clips done since the last call.
    """
    problems = list(_check_tables(corpus))
    if any(
        problem.where.endswith(".parquet") for problem in problems
    ):  # the manifests cannot be trusted to judge the shards
        return Verification(shards=0, clips=0, bytes=0, problems=tuple(problems))
    by_shard: dict[str, list[Mapping[str, Any]]] = {entry["name"]: [] for entry in corpus.descriptor["shards"]}
    for row in corpus.clips().to_pylist():
        by_shard.setdefault(row["shard"], []).append(row)
    listed = {entry["name"]: entry for entry in corpus.descriptor["shards"]}
    problems += _check_sums(corpus, by_shard, listed)
    problems += _check_annotations(corpus, {row["key"]: row for rows in by_shard.values() for row in rows})
    found = check_release(corpus, signer)
    problems += [Problem(where=where, what=what) for where, what in found.problems]
    tasks = [
        _ShardTask(
            path=corpus.shard_path(name),
            name=name,
            size=entry["size"],
            digest=entry["xxh3_128"],
            rows=tuple(by_shard[name]),
            decode=decode,
            attested=found.attested,
        )
        for name, entry in sorted(listed.items())
    ]
    for task, wrong in run_tasks(_check_shard, tasks, workers):
        problems += wrong
        progress(len(task.rows))
    return Verification(
        shards=len(tasks),
        clips=sum(len(task.rows) for task in tasks),
        bytes=sum(task.size for task in tasks),
        problems=tuple(sorted(problems, key=lambda p: (p.where, p.what))),
    )


def _check_tables(corpus: Corpus) -> Iterator[Problem]:
    for name in TABLES:
        path = corpus.root / f"{name}.parquet"
        entry = corpus.descriptor["tables"][name]
        if not path.is_file():
            yield Problem(where=path.name, what="missing")
        elif _digest(path) != entry["xxh3_128"]:
            yield Problem(where=path.name, what="its bytes are not those that were committed, or cannot be read")
    report = corpus.root / REPORT
    if not report.is_file() or _digest(report) != corpus.descriptor["report"]:
        yield Problem(where=REPORT, what="is not the page that was committed")


def _digest(path: Path) -> str | None:
    try:
        return digest_file(path)
    except OSError:
        return None


def _check_sums(corpus: Corpus, by_shard: Mapping[str, list[Any]], listed: Mapping[str, Any]) -> Iterator[Problem]:
    counts = corpus.descriptor["counts"]
    rows = [row for shard in by_shard.values() for row in shard]
    sums = {
        "clips": len(rows),
        "frames": sum(row["num_frames"] for row in rows),
        "recordings": corpus.table("recordings").num_rows,
    }
    for what, found in sums.items():
        if found != counts[what]:
            yield Problem(where="corpus.json", what=f"says {counts[what]} {what}, the manifests hold {found}")
    if len({row["key"] for row in rows}) != len(rows):
        yield Problem(where="clips.parquet", what="a clip's key occurs twice")
    for name in sorted(set(by_shard) - set(listed)):
        yield Problem(where="clips.parquet", what=f"names shard {name}, which corpus.json does not list")
    for stray in sorted((corpus.root / SHARDS).glob("*")):
        if stray.name not in listed:
            yield Problem(where=f"{SHARDS}/{stray.name}", what="does not belong to the corpus")


def _check_shard(task: _ShardTask) -> list[Problem]:
    where = f"{SHARDS}/{task.name}"
    try:
        return _check_bytes(task, where)
    except OSError as error:
        return [Problem(where=where, what=f"cannot be read: {error.strerror}")]


def _check_bytes(task: _ShardTask, where: str) -> list[Problem]:
    size = task.path.stat().st_size
    problems = []
    if size != task.size:
        problems.append(Problem(where=where, what=f"has {size} bytes, {task.size} were committed"))
    damaged = list(_check_members(task, where))
    if digest_file(task.path) != task.digest and not damaged:
        problems.append(Problem(where=where, what="damaged in a tar header or in padding; no clip is touched"))
    return problems + damaged + list(_check_tar(task, where))


def _check_members(task: _ShardTask, where: str) -> Iterator[Problem]:
    with task.path.open("rb") as shard:
        for row in task.rows:
            try:
                card, video, *masks = (read_member(shard, member) for member in sample_members(row))
            except DataError as error:
                yield Problem(where=where, what=str(error))
                continue
            yield from _check_clip(row, card, video, where, task.decode)
            if task.attested is not None and task.attested.get(row["key"]) != sha256(video):
                yield Problem(where=where, what=f"{row['key']}.mp4 does not have the bytes that were attested")
            yield from _check_masks(row, masks, where)


def _check_clip(row: Mapping[str, Any], card: bytes, video: bytes, where: str, decode: bool) -> Iterator[Problem]:
    told = json.loads(card)
    different = [name for name in told if name in row and told[name] != row[name]]
    if different:
        yield Problem(where=where, what=f"{row['key']}.json differs from the manifest in {', '.join(different)}")
    if not decode:
        return
    try:
        facts = inspect_clip(io.BytesIO(video))
    except av.error.FFmpegError as error:
        yield Problem(where=where, what=f"{row['key']}.mp4 cannot be decoded: {error.strerror}")
        return
    for name in ("num_frames", "width", "height"):
        if getattr(facts, name) != row[name]:
            yield Problem(where=where, what=f"{row['key']}.mp4 has {name} {getattr(facts, name)}, not {row[name]}")
    if facts.beside:
        yield Problem(where=where, what=f"{row['key']}.mp4 carries more than pixels: {', '.join(facts.beside)}")


def _check_masks(row: Mapping[str, Any], masks: list[bytes], where: str) -> Iterator[Problem]:
    """Label maps must open and have the size of the clip."""
    for data in masks:
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as maps:
                shapes = {maps[entry].shape for entry in maps.files}
        except (ValueError, OSError, KeyError, zipfile.BadZipFile):
            shapes = set()
        if shapes != {(row["height"], row["width"])}:
            yield Problem(where=where, what=f"{row['key']}.masks.npz does not hold label maps of the clip's size")


def _check_annotations(corpus: Corpus, by_key: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Every annotation lies on frames and inside the picture of a clip that there is."""
    columns = ("key", "frame", "stop", "xmin", "ymin", "xmax", "ymax")
    wrong: Counter[str] = Counter()
    for key, frame, stop, *box in zip(*(corpus.table("annotations")[c].to_pylist() for c in columns), strict=True):
        clip = by_key.get(key)
        if clip is None:
            wrong["of clips that are not in the manifest"] += 1
        elif not 0 <= frame < stop <= clip["num_frames"]:
            wrong["beyond the frames of their clip"] += 1
        elif box[0] is not None and not _in_picture(box, clip["width"], clip["height"]):
            wrong["outside the picture of their clip"] += 1
    for what, count in sorted(wrong.items()):
        yield Problem(where="annotations.parquet", what=f"rows {what}: {count}")


def _in_picture(box: Sequence[float], width: int, height: int) -> bool:
    xmin, ymin, xmax, ymax = box
    return 0 <= xmin < xmax <= width and 0 <= ymin < ymax <= height


def _check_tar(task: _ShardTask, where: str) -> Iterator[Problem]:
    """A plain tar reader must see the same members at the same places as the manifest says."""
    planned = [(member.name, member.offset, member.size) for row in task.rows for member in sample_members(row)]
    try:
        seen = list(tar_members(task.path))
    except DataError as error:
        yield Problem(where=where, what=str(error))
        return
    if sorted(seen) != sorted(planned):
        yield Problem(where=where, what=f"a tar reader sees {len(seen)} members, the manifest lists {len(planned)}")
