"""The work area of a build, `<corpus>/.build`: finished pieces that a killed build finds again.

A piece is addressed by everything that decides its bytes. It is made under a temporary name and renamed when it is
complete, so what exists can be used without asking who made it.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from endocorpus.config import BuildConfig
from endocorpus.corpus.files import PARTIAL, atomic_file, digest_bytes, fsync_folder, sole_user
from endocorpus.corpus.manifest import SHARDS, open_corpus
from endocorpus.errors import DataError, UsageError
from endocorpus.media.encode import EncodeConfig, encode, encoder_build
from endocorpus.plan import plan_recording
from endocorpus.records import EncodedClip, Excluded, Exclusion, Reason, Recording, RecordingPlan, Stage
from endocorpus.sources.layout import Source

WORK = ".build"
_FORMAT = 1  # raise it when the same plan would be encoded to other bytes
_RECEIPT = "receipt.json"
RETRIED = {Reason.TIMED_OUT, Reason.CHANGED, Reason.UNREADABLE}  # may be otherwise the next time, so it is tried


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTask:
    """Look at one recording."""

    recording: Recording
    root: Path
    source: Source
    config: BuildConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeTask:
    """Encode one recording into `folder / task_id`."""

    task_id: str
    plan: RecordingPlan
    root: Path
    folder: Path
    config: EncodeConfig


def plan_task(task: PlanTask) -> RecordingPlan | Exclusion:
    """The plan of a recording, or why it is left out."""
    try:
        return plan_recording(task.recording, task.root, task.source, task.config)
    except Excluded as excluded:
        return exclusion_of(task.recording, excluded)
    except OSError as error:  # a failing disk or share: nothing is written while planning
        return exclusion_of(task.recording, _unreadable(Stage.PROBE, error))


def _unreadable(stage: Stage, error: OSError) -> Excluded:
    return Excluded(stage, Reason.UNREADABLE, f"reading stops: {error.strerror}")


def exclusion_of(recording: Recording, excluded: Excluded) -> Exclusion:
    return Exclusion(
        subject=recording.subject,
        unit="recording",
        stage=excluded.stage,
        reason=excluded.reason,
        detail=excluded.detail,
        files=len(recording.media.paths),
        frames=excluded.frames,
    )


def task_id(plan: RecordingPlan, config: EncodeConfig) -> str:
    """Address of a recording's clips: media bytes, spans, sizes, rate, encoder settings and encoder build."""
    facts = plan.facts
    clips = [(clip.key, clip.span.start, clip.span.stop, clip.width, clip.height) for clip in plan.clips]
    decides = [_FORMAT, facts.digest, str(facts.rate), clips, config.model_dump(), encoder_build()]
    return digest_bytes(json.dumps(decides, sort_keys=True).encode())


def encode_task(task: EncodeTask) -> int:
    """Encode one recording and commit its clips, or the reason why it has none. Returns the number of clips.

    Raises:
        DataError: the disk is full.
    """
    final = task.folder / task.task_id
    if (final / _RECEIPT).exists():
        return len(task.plan.clips)
    try:
        partial = Path(tempfile.mkdtemp(prefix=f"{task.task_id}{PARTIAL}", dir=task.folder))
        try:
            receipt = _encode_into(partial, task)
            with atomic_file(partial / _RECEIPT) as file:
                file.write(json.dumps(receipt).encode())
            partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        fsync_folder(task.folder)
    except OSError as error:
        raise disk_error(error, task.folder) from None
    return len(task.plan.clips)


def _encode_into(partial: Path, task: EncodeTask) -> dict[str, Any]:
    try:
        clips = _encode_or_exclude(partial, task)
    except Excluded as excluded:
        for leftover in partial.iterdir():
            leftover.unlink()
        return {"excluded": [excluded.stage, excluded.reason, excluded.detail, task.plan.facts.num_frames]}
    for clip in clips:
        with open(clip.path, "rb") as file:
            os.fsync(file.fileno())
    return {"clips": [_clip_json(clip) for clip in clips]}


def _encode_or_exclude(partial: Path, task: EncodeTask) -> tuple[EncodedClip, ...]:
    try:
        return encode(task.plan, task.root, partial, task.config)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.EIO, errno.ESTALE):  # of a raw file: tried again next time
            raise _unreadable(Stage.ENCODE, error) from None
        raise


def _clip_json(clip: EncodedClip) -> dict[str, Any]:
    facts = {f.name: getattr(clip, f.name) for f in dataclasses.fields(clip) if f.name != "plan"}
    return facts | {"path": Path(clip.path).name, "rate": str(clip.rate)}


def load_encoded(plan: RecordingPlan, folder: Path, task_id: str) -> tuple[EncodedClip, ...] | Excluded:
    """What `encode_task` committed for this plan."""
    final = folder / task_id
    receipt = json.loads((final / _RECEIPT).read_text())
    if "excluded" in receipt:
        stage, reason, detail, frames = receipt["excluded"]
        return Excluded(stage, Reason(reason), detail, frames)
    return tuple(
        EncodedClip(
            **facts
            | {
                "plan": clip,
                "path": str(final / facts["path"]),
                "rate": Fraction(facts["rate"]),
                "keyframes": tuple(facts["keyframes"]),
            }
        )
        for clip, facts in zip(plan.clips, receipt["clips"], strict=True)
    )


def forget_retried(folder: Path) -> None:
    """Clear what an earlier run left: half-made pieces, and failures that deserve another try."""
    for piece in folder.iterdir():
        if PARTIAL in piece.name or not _is_usable(piece / _RECEIPT):
            shutil.rmtree(piece)


def _is_usable(receipt: Path) -> bool:
    try:
        excluded = json.loads(receipt.read_text()).get("excluded")
    except (OSError, ValueError, AttributeError):
        return False
    return not excluded or excluded[1] not in RETRIED


@contextmanager
def work_area(out: Path, name: str, source: str) -> Iterator[Path]:
    """Make and lock the work area of `out`; only one build may write there.

    Raises:
        UsageError: `out` cannot be written, holds something else than the corpus `name` of `source`, or is being built
            by another process.
        DataError: the disk is full.
    """
    work = out / WORK
    if out.is_dir() and any(out.iterdir()) and not work.is_dir() and _owner(out) is None:
        raise UsageError(f"{out}: holds something that is not a corpus; name another folder with --out")
    busy = f"{out}: another build is writing here; wait for it, or name another --out"
    with ExitStack() as stack:
        try:
            for folder in (out / SHARDS, work / "encoded", work / "receipts"):
                folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(sole_user(work / "lock", busy))
        except OSError as error:
            raise UsageError(f"{out}: cannot be written: {error.strerror}") from None
        _claim(out, name, source)
        forget_retried(work / "encoded")
        try:
            yield work
        except OSError as error:
            raise disk_error(error, out) from None


def corpus_name(out: Path, source: str) -> str | None:
    """The name of the corpus of `source` that `out` was begun with, if it was."""
    owner = _owner(out)
    return owner[0] if owner and owner[1] == source else None


def _owner(out: Path) -> tuple[str, str] | None:
    try:
        name, source = (out / WORK / "owner").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        try:
            descriptor = open_corpus(out).descriptor
        except DataError:
            return None
        return str(descriptor["name"]), str(descriptor["source"]["name"])
    return name, source


def recordings_of_receipts(work: Path) -> set[str]:
    """Recordings whose clips lie in the shards that earlier builds finished."""
    found: set[str] = set()
    for path in (work / "receipts").iterdir():
        with suppress(ValueError, KeyError, TypeError):  # a damaged receipt tells nothing
            found |= {row["recording_id"] for row in json.loads(path.read_text())["clips"]}
    return found


def _claim(out: Path, name: str, source: str) -> None:
    """One folder, one corpus: another one here would delete the shards of the first."""
    owner = _owner(out)
    if owner is None:
        with atomic_file(out / WORK / "owner") as file:
            file.write(f"{name} {source}\n".encode())
    elif owner != (name, source):
        held = f"the corpus {owner[0]!r} of source {owner[1]!r}"
        raise UsageError(f"{out}: is {held}, not {name!r} of {source!r}; name another folder with --out")


def disk_error(error: OSError, folder: Path) -> Exception:
    """An OS error as the user's line if it is the machine's state, else as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(f"{folder}: the disk is full; free some space and run the same command, finished work is kept")
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return DataError(f"this machine ran out of something: {error.strerror}; use fewer --workers, then run again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UsageError(f"{folder}: cannot be written: {error.strerror}")
    return error
