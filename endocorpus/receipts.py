"""Shards and the receipts that let the next build skip them: what a tar was made of, and what is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from endocorpus.config import BuildConfig
from endocorpus.corpus.files import atomic_file, digest_bytes, parse_signed, remove, signed_json
from endocorpus.corpus.manifest import SHARDS, parquet_bytes, parse_parquet
from endocorpus.corpus.schema import SCHEMA_VERSION, TABLES
from endocorpus.corpus.shards import Sample, assign_buckets, shard_digest, write_shard
from endocorpus.records import Excluded, Exclusion, RecordingPlan
from endocorpus.rows import Row, card, clip_row, excluded_row, recording_row
from endocorpus.sources.layout import Source
from endocorpus.staging import RECEIPTS, RETRIED, Made, MakeTask, exclusion_of, load_made, reuse_clips


@dataclass(slots=True, kw_only=True)
class Shard:
    """One bucket of recordings on its way to a tar. The receipt is there once the tar is."""

    bucket: str
    tasks: tuple[MakeTask, ...]
    address: str  # of everything that decides the tar's bytes
    receipt: dict[str, Any] | None = field(default=None)

    @property
    def written(self) -> dict[str, Any]:
        assert self.receipt is not None
        return self.receipt


def plan_shards(tasks: Sequence[MakeTask], source: Source, config: BuildConfig, name: str) -> list[Shard]:
    """Distribute recordings over shards."""
    by_id = {task.plan.recording.recording_id: task for task in tasks}
    buckets = assign_buckets(
        weights={rid: len(task.plan.clips) for rid, task in by_id.items()},
        hashes={rid: digest_bytes(rid.encode()) for rid in by_id},
        limit=config.shards.max_clips,
    )
    shards = []
    for bucket, ids in sorted(buckets.items()):
        members = tuple(by_id[rid] for rid in ids)
        decides: list[object] = [SCHEMA_VERSION, source.licence, source.vouched_by, name]
        decides += [(task.clips_id, task.annotations_id, recording_row(task.plan, source)) for task in members]
        address = digest_bytes(json.dumps(decides, sort_keys=True).encode())
        shards.append(Shard(bucket=bucket, tasks=members, address=address))
    return shards


def find_receipts(shards: Sequence[Shard], work: Path, out: Path) -> None:
    """Find the shards that need no work: same address, and the files still have the bytes that were written."""
    for shard in shards:
        receipt = _read(work / RECEIPTS / f"{shard.bucket}.json")
        if receipt is None or receipt["address"] != shard.address:
            continue
        if {row["reason"] for row in receipt["excluded"].values()} & RETRIED:
            continue
        tar, rows = receipt["tar"], receipt["annotations"]
        intact = tar is None or _is_intact(out / SHARDS / tar["name"], tar["xxh3_128"])
        if intact and (rows is None or _is_intact(_rows_path(shard, work), rows)):
            shard.receipt = receipt


def reclaim(stale: Sequence[Shard], work: Path, out: Path) -> None:
    """Take clips that need not be encoded again out of the shards that earlier builds wrote.

    A recording that comes, goes, or gets other labels rewrites its shard; the clips beside it are the same bytes.
    """
    lying = {clips_id: receipt for receipt in _receipts(work) for clips_id in receipt["made_of"].values()}
    for task in (task for shard in stale for task in shard.tasks):
        receipt = lying.get(task.clips_id)
        if receipt and receipt["tar"]:
            keys = {clip.key for clip in task.plan.clips}
            rows = [row for row in receipt["clips"] if row["key"] in keys]
            reuse_clips(task, rows, out / SHARDS / receipt["tar"]["name"])


def _receipts(work: Path) -> Iterator[dict[str, Any]]:
    """All receipts that are as they were written."""
    for path in sorted((work / RECEIPTS).glob("*.json")):
        receipt = _read(path)
        if receipt is not None:
            yield receipt


def _read(path: Path) -> dict[str, Any] | None:
    """A receipt, if there is one and it is as it was written: a damaged one proves nothing."""
    try:
        return parse_signed(path.read_bytes())
    except (OSError, ValueError):
        return None


def _is_intact(path: Path, digest: str) -> bool:
    return path.is_file() and shard_digest(path) == digest


def _rows_path(shard: Shard, work: Path) -> Path:
    return work / RECEIPTS / f"{shard.bucket}.annotations.parquet"


def finish_shard(shard: Shard, source: Source, work: Path, out: Path, name: str) -> None:
    """Write one tar from the finished clips of its recordings, their annotations, and the receipt."""
    done: list[tuple[RecordingPlan, Made]] = []
    excluded: dict[str, Row] = {}
    for task in shard.tasks:
        outcome, recording = load_made(task), task.plan.recording
        if isinstance(outcome, Excluded):
            excluded[recording.recording_id] = excluded_row(exclusion_of(recording, outcome, source))
        else:
            done.append((task.plan, outcome))
    receipt: dict[str, Any] = {
        "address": shard.address,
        "made_of": {task.plan.recording.recording_id: task.clips_id for task in shard.tasks},
        "tar": None,
        "clips": [],
        "excluded": excluded,
        "unusable": [excluded_row(exclusion) for _, made in done for exclusion in made.exclusions],
        "annotations": _write_rows([made.annotations for _, made in done if made.annotations], _rows_path(shard, work)),
    }
    if done:
        tar_name = f"{name}-{shard.bucket}.tar"
        clips = [(plan, made, clip) for plan, made in done for clip in made.clips]
        written = write_shard(
            out / SHARDS / tar_name,
            (
                Sample(clip=clip, card=card(plan, clip, source), masks=_masks(made, clip.plan.key))
                for plan, made, clip in clips
            ),
        )
        receipt["tar"] = {"name": tar_name, "size": written.size, "xxh3_128": written.digest}
        receipt["clips"] = [
            clip_row(plan, clip, source, tar_name, members)
            for (plan, _, clip), members in zip(clips, written.samples, strict=True)
        ]
    with atomic_file(work / RECEIPTS / f"{shard.bucket}.json") as file:
        file.write(signed_json(receipt))
    shard.receipt = receipt


def _masks(made: Made, key: str) -> bytes | None:
    return made.masks[key].read_bytes() if key in made.masks else None


def _write_rows(tables: Sequence[bytes], path: Path) -> str | None:
    """Write the annotations of a shard's recordings as one table, and return its digest."""
    if not tables:
        path.unlink(missing_ok=True)
        return None
    data = parquet_bytes(pa.concat_tables([parse_parquet(table) for table in tables]))
    with atomic_file(path) as file:
        file.write(data)
    return digest_bytes(data)


def all_annotations(shards: Sequence[Shard], work: Path) -> pa.Table:
    """The annotations of all shards, in their order."""
    tables = [
        parse_parquet(_rows_path(shard, work).read_bytes())
        for shard in shards
        if shard.written["annotations"] is not None
    ]
    return pa.concat_tables([TABLES["annotations"].empty_table(), *tables])


def exclusions_of(shards: Sequence[Shard]) -> list[Exclusion]:
    """What was left out while the shards were made: recordings, and annotations."""
    rows = [row for shard in shards for row in (*shard.written["excluded"].values(), *shard.written["unusable"])]
    return [Exclusion(**row) for row in rows]


def to_be_retried(shards: Sequence[Shard]) -> set[str]:
    """Recordings of shards that are not finished whose files could not be read this time; `staging.make` is done."""
    outcomes = {task.plan.recording.recording_id: load_made(task) for shard in shards for task in shard.tasks}
    return {key for key, made in outcomes.items() if isinstance(made, Excluded) and made.reason in RETRIED}


def known_recordings(work: Path) -> set[str]:
    """Recordings whose clips lie in the shards that earlier builds finished."""
    return {row["recording_id"] for receipt in _receipts(work) for row in receipt["clips"]}


def tidy_receipts(shards: Sequence[Shard], work: Path) -> None:
    """Leave only the receipts of the shards that there are."""
    current = {f"{shard.bucket}.json" for shard in shards} | {_rows_path(shard, work).name for shard in shards}
    for receipt in (work / RECEIPTS).iterdir():
        if receipt.name not in current:
            remove(receipt)
