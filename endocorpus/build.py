"""The assembly: raw files -> recordings -> plans -> clips -> shards -> manifests -> report. Reading this file is
understanding the pipeline.

Every step is a function of values that can be printed. Whatever is found is kept, or excluded with a reason, and the
sums are checked before the corpus is committed. A killed build is continued by running it again.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from endocorpus import __version__
from endocorpus.config import BuildConfig
from endocorpus.corpus.files import PARTIAL, atomic_file, digest_bytes, digest_file
from endocorpus.corpus.manifest import (
    DESCRIPTOR,
    REPORT,
    SHARDS,
    Corpus,
    open_corpus,
    parquet_bytes,
    table_bytes,
    write_descriptor,
)
from endocorpus.corpus.schema import SCHEMA_VERSION, TABLES
from endocorpus.corpus.shards import KEY, LONGEST_NAME
from endocorpus.deid.checks import models_used
from endocorpus.deid.head import Head
from endocorpus.deid.intake import no_core_dumps
from endocorpus.engine import run_tasks
from endocorpus.errors import DataError, UsageError
from endocorpus.expect import compare, refuse_loose, unmapped_labels
from endocorpus.media.ffmpeg_run import encoder_build
from endocorpus.naming import Names
from endocorpus.phantom.truth import rendered_by
from endocorpus.plan import join_groups
from endocorpus.receipts import (
    Shard,
    all_annotations,
    exclusions_of,
    find_receipts,
    finish_shard,
    known_recordings,
    plan_shards,
    reclaim,
    tidy_receipts,
    to_be_retried,
)
from endocorpus.records import Excluded, Exclusion, Reason, RecordingPlan, Stage
from endocorpus.release import OWN, TakenIn, rejected_recordings, settle, take_in
from endocorpus.report.page import write_report
from endocorpus.report.text import count
from endocorpus.rows import Row, deid_row, excluded_row, recording_row
from endocorpus.scan import Scan, scan
from endocorpus.sources import source_facts
from endocorpus.sources.layout import Source
from endocorpus.staging import (
    ANNOTATED,
    ENCODED,
    MakeTask,
    PlanTask,
    corpus_name,
    exclusion_of,
    kept_looks,
    make,
    make_task,
    plan_task,
    work_area,
)


class BuildWatcher:
    """What a build tells whoever watches, in this order; `looked` and `encoded` come once per recording."""

    def reviewed(self, found: TakenIn) -> None:
        """Decisions were read back; not told where there are none."""

    def scanned(self, scan: Scan) -> None: ...

    def looked(self) -> None: ...

    def planned(self, plans: Sequence[RecordingPlan], exclusions: Sequence[Exclusion]) -> None: ...

    def encoding(self, clips: int, seconds: float, folder: Path) -> None:
        """So much is to be done; clips appear below `folder` while a recording is being encoded."""

    def encoded(self, clips: int, seconds: float) -> None: ...

    def dropped(self, recordings: set[str]) -> None:
        """Ids of recordings that the corpus held before and holds no more; not told where there is none."""


def build(
    source: Source,
    root: Path,
    out: Path,
    config: BuildConfig,
    *,
    name: str | None = None,
    workers: int = 1,
    shrink: bool = False,
    strict: bool = False,
    names: Names | None = None,
    watcher: BuildWatcher | None = None,
    decisions: Path | None = None,
    signing_key: bytes | None = None,
    head: Head | None = None,
) -> Corpus:
    """Build the corpus of `source` from the files below `root`, or bring it up to date, and return it opened.

    Args:
        out: folder of the corpus; made if need be.
        name: corpus name, which starts every key and shard name; by default the one that `out` has, or the source's.
        workers: processes; the bytes of the corpus do not depend on it.
        shrink: whether more than half of the recordings that `out` holds may go.
        strict: stop before anything is encoded when counts differ from what the source should hold, or a label is not
            in its vocabulary.
        names: what stands for the names of a private source; the same ones, for the same corpus, at every build.
        watcher: told about progress.
        decisions: file of decisions on the corpus as it lies in `out`, to be signed; recordings of which a clip was
            rejected go, and stay out.
        signing_key: the 32 bytes of the site's Ed25519 key; with it the corpus is attested.
        head: a site's own, of the detector of what is outside the body; by default the one that ships.

    Raises:
        UsageError: `root` or `out` cannot be used, a private source has no `names`, `root` holds no media, or too much
            would go without `shrink`.
        DataError: the disk is full, the raw files vanished meanwhile, or `strict` finds something.
    """
    name, watcher = name or corpus_name(out, source.name) or source.name, watcher or BuildWatcher()
    if not KEY.fullmatch(name) or len(name) > LONGEST_NAME:
        raise UsageError(f"--name {name!r}: a name is made of up to {LONGEST_NAME} of a-z, 0-9 and, inside, -")
    no_core_dumps()
    _refuse_nesting(root, out)
    scanned = scan_filled(source, root, name, names)
    with work_area(out, name, source.name) as work:
        rejected = _rejected(out, decisions, signing_key, watcher)
        watcher.scanned(scanned)
        looks = kept_looks(work, source)
        plans, exclusions = plan_all(scanned, source, root, config, workers, watcher, rejected, looks, head)
        watcher.planned(plans, exclusions)
        planned, before = {plan.recording.recording_id for plan in plans}, known_recordings(work)
        if not shrink:
            _refuse_shrinking(before - rejected, planned, root, out)
        if strict:
            refuse_loose(source, scanned, plans)
        tasks = [make_task(plan, root, source, work, config.encode) for plan in plans]
        shards = plan_shards(tasks, source, config, name)
        find_receipts(shards, work, out)
        stale = [shard for shard in shards if shard.receipt is None]
        reclaim(stale, work, out)
        _make_clips([task for shard in stale for task in shard.tasks], work, workers, watcher)
        _refuse_lost_root(scanned, root)
        if not shrink:
            _refuse_shrinking(before - rejected, planned - to_be_retried(stale), root, out)
        if stale:
            (out / DESCRIPTOR).unlink(missing_ok=True)  # from here to the end this is not a finished corpus
        for shard in stale:
            finish_shard(shard, source, work, out, name)
        exclusions += exclusions_of(shards)
        made_with = {
            "synthetic": rendered_by(root),
            "deid": {"models": models_used(head)},
            "ids": "as published" if names is None or source.privacy == "public" else names.kind,
        }
        _commit(scanned, plans, exclusions, shards, source, work, out, config, name, made_with)
        corpus = settle(open_corpus(out), signing_key)
        for made in (work / ENCODED, work / ANNOTATED):
            shutil.rmtree(made)
        tidy_receipts(shards, work)
        if gone := before - known_recordings(work):
            watcher.dropped(gone)
    return corpus


def _rejected(out: Path, decisions: Path | None, key: bytes | None, watcher: BuildWatcher) -> frozenset[str]:
    """Recordings that reviewers have rejected, those of new decisions among them."""
    if decisions is not None:
        if key is None:
            raise UsageError("--decisions are signed when they are read: name the key with --signing-key")
        watcher.reviewed(take_in(out, decisions, key))
    return rejected_recordings(out)


def scan_filled(source: Source, root: Path, name: str, names: Names | None = None) -> Scan:
    """`scan` of a root that holds something to build from: a mistyped one must not become a corpus without recordings.

    Raises:
        UsageError: `root` is no folder, or no file in it can be a recording or part of one.
    """
    found = scan(source, root, name, names)
    if found.recordings or any(
        e.unit == "recording" or (e.files and e.reason == Reason.NO_PARTNER) for e in found.exclusions
    ):
        return found
    closed = sum(e.reason == Reason.UNREADABLE for e in found.exclusions)
    where = "" if source.name == "folder" else f" where the source {source.name!r} has them"
    also = f", in {count(found.num_files - closed, 'file')}" if found.num_files > closed else ""
    shut = f"; {count(closed, 'folder')} could not be entered" if closed else ""
    raise UsageError(f"{root}: holds no video and no numbered frames{where}{also}{shut}. Nothing was written")


def _refuse_shrinking(before: set[str], left: set[str], root: Path, out: Path) -> None:
    """A disk that is not mounted, or a forgotten --privacy, must not empty a corpus that took days to build."""
    gone = before - left
    if 2 * len(gone) > len(before):
        raise UsageError(
            f"{out}: nothing was changed: {len(gone)} of its {len(before)} recordings are no longer in {root}, cannot "
            "be read, are no longer cleared, or are called otherwise under another --key, --vault or --site, and their "
            "clips would be removed. Check these, --root and --privacy; if it is meant, say --shrink"
        )


def _refuse_lost_root(scanned: Scan, root: Path) -> None:
    """A share that goes away during a build leaves no folder, or an empty one, and says nothing about its files."""
    try:
        lost = scanned.num_files > 0 and not any(root.iterdir())
    except OSError:
        lost = True
    if lost:
        raise DataError(f"{root}: is gone; nothing was changed. Bring it back and run the same command")


def _refuse_nesting(root: Path, out: Path) -> None:
    if out.resolve() == root.resolve() or root.resolve() in out.resolve().parents:
        raise UsageError(f"{out}: lies inside the raw tree {root}, where it would be taken for data; use another --out")


def plan_all(
    scanned: Scan,
    source: Source,
    root: Path,
    config: BuildConfig,
    workers: int,
    watcher: BuildWatcher,
    rejected: Collection[str] = (),
    looks: Callable[[bytes], Path] | None = None,
    head: Head | None = None,
) -> tuple[list[RecordingPlan], list[Exclusion]]:
    """Plans by recording id, and everything that was left out so far. Opens media; writes only what it saw of them.

    Args:
        rejected: ids of recordings that stay out because of a review.
        looks: where what was seen of a recording is kept, as in `look_once`.
        head: a site's own, of the detector of what is outside the body.
    """
    no_core_dumps()
    wanted = [r for r in scanned.recordings if r.recording_id not in rejected]
    tasks = [PlanTask(recording=r, root=root, source=source, config=config, looks=looks, head=head) for r in wanted]
    refused = Excluded(Stage.DEID, Reason.REJECTED, "a reviewer rejected one of its clips")
    outcomes: list[RecordingPlan | Exclusion] = [
        exclusion_of(r, refused, source) for r in scanned.recordings if r.recording_id in rejected
    ]
    for _, outcome in run_tasks(plan_task, tasks, workers):
        outcomes.append(outcome)
        watcher.looked()
    plans = sorted((o for o in outcomes if isinstance(o, RecordingPlan)), key=lambda p: p.recording.recording_id)
    unusable = [exclusion for plan in plans for exclusion in plan.exclusions]
    planned = {plan.recording.recording_id for plan in plans}
    left_out = [recording for recording in scanned.recordings if recording.recording_id not in planned]
    return join_groups(plans, left_out), [
        *scanned.exclusions,
        *(o for o in outcomes if isinstance(o, Exclusion)),
        *unusable,
    ]


def _make_clips(tasks: list[MakeTask], work: Path, workers: int, watcher: BuildWatcher) -> None:
    tasks.sort(key=lambda task: -task.plan.facts.num_frames)  # the longest first, so that none is left over at the end
    watcher.encoding(sum(len(t.plan.clips) for t in tasks), sum(_seconds(t.plan) for t in tasks), work / ENCODED)
    for task, clips in run_tasks(make, tasks, workers):
        watcher.encoded(clips, _seconds(task.plan))


def _seconds(plan: RecordingPlan) -> float:
    return float(plan.facts.num_frames / plan.examined_rate)


def _commit(
    scanned: Scan,
    plans: Sequence[RecordingPlan],
    exclusions: Sequence[Exclusion],
    shards: Sequence[Shard],
    source: Source,
    work: Path,
    out: Path,
    config: BuildConfig,
    name: str,
    made_with: Mapping[str, Any],
) -> None:
    """Check the sums, write the tables and the report, and, last, the descriptor that makes it a corpus.

    Args:
        made_with: what the descriptor says beside what follows from the other arguments.
    """
    lost = {recording_id for shard in shards for recording_id in shard.written["excluded"]}
    kept = [plan for plan in plans if plan.recording.recording_id not in lost]
    clips = [row for shard in shards for row in shard.written["clips"]]
    _reconcile(scanned, kept, exclusions, clips)
    tars = sorted((shard.written["tar"] for shard in shards if shard.written["tar"]), key=lambda tar: tar["name"])
    rows: dict[str, list[Row]] = {
        "recordings": [recording_row(plan, source) for plan in kept],
        "clips": sorted(clips, key=lambda row: (row["shard"], row["mp4_offset"])),
        "deid": [deid_row(plan, source) for plan in kept],
        "excluded": [excluded_row(e) for e in sorted(exclusions, key=lambda e: (e.subject, e.reason))],
    }
    said = all_annotations(shards, work)
    tables = {table: table_bytes(table, rows[table]) if table in rows else parquet_bytes(said) for table in TABLES}
    descriptor: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "endocorpus": __version__,
        "encoder": encoder_build(),
        "config": config.model_dump(mode="json"),
        "config_digest": digest_bytes(config.model_dump_json().encode()),
        "source": source_facts(source),
        **made_with,
        "expected": [dataclasses.asdict(row) for row in compare(source, scanned, plans)],
        "unmapped": unmapped_labels(plans),
        "counts": _counts(scanned, kept, exclusions, clips),
        "shards": tars,
        "tables": {
            table: {"rows": len(rows.get(table, said)), "size": len(data), "xxh3_128": digest_bytes(data)}
            for table, data in tables.items()
        },
    }
    if _is_committed(out, descriptor):
        return
    (out / DESCRIPTOR).unlink(missing_ok=True)  # from here to the end this is not a finished corpus
    for old in _own_shards(out, name) - {tar["name"] for tar in tars}:
        (out / SHARDS / old).unlink()
    for table, data in tables.items():
        with atomic_file(out / f"{table}.parquet") as file:
            file.write(data)
    write_report(Corpus(root=out, descriptor=descriptor), out / REPORT)
    write_descriptor(out, descriptor | {"report": digest_file(out / REPORT)})


def _own_shards(out: Path, name: str) -> set[str]:
    """Files below shards/ that builds of this corpus made, whole or in part; what else lies there is not ours."""
    ours = re.compile(rf"{re.escape(name)}-(?:all|[01]+)\.tar|\.{re.escape(name)}-(?:all|[01]+)\.tar{PARTIAL}")
    return {path.name for path in (out / SHARDS).iterdir() if ours.fullmatch(path.name) and path.is_file()}


def _is_committed(out: Path, descriptor: Mapping[str, Any]) -> bool:
    """Whether `out` already holds exactly this corpus, so that nobody who reads it now need be disturbed."""
    try:
        committed = dict(open_corpus(out).descriptor)
        report = committed.pop("report", None)
        for entry in OWN:
            committed.pop(entry, None)
    except DataError:
        return False
    if committed != descriptor or not (out / REPORT).is_file() or digest_file(out / REPORT) != report:
        return False
    tables = ((out / f"{table}.parquet", entry) for table, entry in descriptor["tables"].items())
    if _own_shards(out, str(descriptor["name"])) != {tar["name"] for tar in descriptor["shards"]}:
        return False
    return all(path.is_file() and digest_file(path) == entry["xxh3_128"] for path, entry in tables)


def _reconcile(
    scanned: Scan, kept: Sequence[RecordingPlan], exclusions: Sequence[Exclusion], clips: Sequence[Row]
) -> None:
    """Scanned = kept + excluded, for files, recordings and frames. Anything else is a bug, and stops the build."""
    files = sum(len(plan.recording.media.paths) for plan in kept) + sum(scanned.sidecars.values())
    files += sum(exclusion.files for exclusion in exclusions)
    found = len(scanned.recordings) + sum(e.unit == "recording" for e in scanned.exclusions)
    recordings = len(kept) + sum(e.unit == "recording" for e in exclusions)
    frames = sum(clip.num_frames for plan in kept for clip in plan.clips)
    written = sum(int(str(row["num_frames"])) for row in clips)
    if (files, recordings, frames) != (scanned.num_files, found, written):
        raise RuntimeError(
            f"the sums do not agree: {files} of {scanned.num_files} files, {recordings} of {found} recordings, "
            f"{written} of {frames} frames are accounted for"
        )


def _counts(scanned: Scan, kept: Sequence[RecordingPlan], exclusions: Sequence[Exclusion], clips: Sequence[Row]) -> Row:
    return {
        "files": scanned.num_files,
        "sidecars": dict(scanned.sidecars),
        "recordings": len(kept),
        "cases": len({plan.recording.case_id for plan in kept}),
        "clips": len(clips),
        "frames": sum(int(str(row["num_frames"])) for row in clips),
        "seconds": round(sum(_seconds(plan) for plan in kept), 3),
        "identical_recordings": len(kept) - len({plan.facts.digest for plan in kept}),
        "excluded_recordings": sum(e.unit == "recording" for e in exclusions),
        "excluded_files": sum(e.unit == "file" for e in exclusions),
        "unusable_annotations": sum(e.unit == "annotation" for e in exclusions),
        "excluded_by_reason": dict(sorted(Counter(str(e.reason) for e in exclusions).items())),
    }
