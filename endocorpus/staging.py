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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from endocorpus.annotate import annotate_clips, mask_bytes
from endocorpus.config import BuildConfig
from endocorpus.corpus.files import (
    PARTIAL,
    atomic_file,
    fsync_folder,
    parse_signed,
    remove,
    signed_json,
    sole_user,
)
from endocorpus.corpus.manifest import SHARDS, open_corpus, table_bytes
from endocorpus.corpus.schema import SCHEMA_VERSION
from endocorpus.corpus.shards import read_member, sample_members
from endocorpus.deid.addresses import addresses
from endocorpus.deid.checks import check_clips
from endocorpus.deid.head import Head
from endocorpus.deid.models import proven
from endocorpus.deid.reread import MODELS as CHECKING
from endocorpus.errors import DataError, UsageError
from endocorpus.labels import gather, labels_digest, read_labels
from endocorpus.media.encode import EncodeConfig, encode
from endocorpus.media.ffmpeg_run import encoder_build
from endocorpus.plan import plan_recording
from endocorpus.records import REASON_TEXT, EncodedClip, Excluded, Exclusion, Reason, Recording, RecordingPlan, Stage
from endocorpus.sources.layout import Source

WORK = ".build"
LOOKS, ENCODED, ANNOTATED, RECEIPTS = "looks", "encoded", "annotated", "receipts"
_FORMAT = 5  # raise it when the same plan would be encoded to other bytes
_RECEIPT = "receipt.json"
_ROWS = "annotations.parquet"
RETRIED = {Reason.TIMED_OUT, Reason.CHANGED, Reason.UNREADABLE}  # may be otherwise the next time, so it is tried


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTask:
    """Look at one recording."""

    recording: Recording
    root: Path
    source: Source
    config: BuildConfig
    looks: Callable[[bytes], Path] | None = None  # where what was seen of a recording is kept
    head: Head | None = None  # a site's own


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeTask:
    """Encode one recording into `work / encoded / clips_id`, and carry its annotations over into
    `work / annotated / annotations_id`."""

    clips_id: str
    annotations_id: str
    plan: RecordingPlan
    root: Path
    source: Source
    work: Path
    config: EncodeConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a task committed: clips, label maps as .npz by clip key, the annotations table, and what it left out."""

    clips: tuple[EncodedClip, ...]
    masks: Mapping[str, Path]
    annotations: bytes | None  # Parquet
    exclusions: tuple[Exclusion, ...]


def plan_task(task: PlanTask) -> RecordingPlan | Exclusion:
    """The plan of a recording, or why it is left out."""
    try:
        return plan_recording(task.recording, task.root, task.source, task.config, task.looks, task.head)
    except Excluded as excluded:
        return exclusion_of(task.recording, excluded, task.source)
    except OSError as error:  # a failing disk or share: nothing is written while planning
        unreadable = Excluded(Stage.PROBE, Reason.UNREADABLE, f"reading stops: {error.strerror}")
        return exclusion_of(task.recording, unreadable, task.source)
    except Exception as error:
        error.add_note(f"while looking at {task.recording.subject}")
        raise


def exclusion_of(recording: Recording, excluded: Excluded, source: Source) -> Exclusion:
    """The exclusion of a recording. What is found in private files may be known from elsewhere, so of their details
    only those of the de-identification are told, which hold no value."""
    told = source.privacy == "public" or excluded.stage == Stage.DEID
    return Exclusion(
        subject=recording.subject,
        unit="recording",
        stage=excluded.stage,
        reason=excluded.reason,
        detail=excluded.detail if told else REASON_TEXT[excluded.reason],
        files=len(recording.media.paths),
        frames=excluded.frames,
    )


def make_task(plan: RecordingPlan, root: Path, source: Source, work: Path, config: EncodeConfig) -> MakeTask:
    """The task of a recording. The ids are addresses of everything that decides the bytes of what it makes."""
    facts = plan.facts
    clips = [(clip.key, clip.span.start, clip.span.stop, clip.stride, clip.width, clip.height) for clip in plan.clips]
    cut = dataclasses.astuple(plan.cut)
    filled = [dataclasses.astuple(part) for part in plan.clearance.filled]
    tools = [encoder_build(), proven(*CHECKING)]
    decides = [_FORMAT, facts.digest, str(plan.rate), clips, cut, filled, config.model_dump(), *tools]
    picture = (facts.width, facts.height, facts.stored_width, facts.stored_height)
    said = [_FORMAT, SCHEMA_VERSION, facts.digest, plan.annotations_digest, clips, cut, picture]
    clips_id, annotations_id = (json.dumps(what, sort_keys=True).encode() for what in (decides, said))
    address = addresses(source.privacy, work)
    return MakeTask(
        clips_id=address(clips_id),
        annotations_id=address(annotations_id),
        plan=plan,
        root=root,
        source=source,
        work=work,
        config=config,
    )


def make(task: MakeTask) -> int:
    """Encode one recording and commit its clips, or the reason why it has none; then its annotations, if it has any.

    Returns:
        The number of clips.

    Raises:
        DataError: the disk is full.
    """
    try:
        _commit(task.work / ENCODED, task.clips_id, partial(_encode_into, task=task))
        if task.plan.annotations:
            _commit(task.work / ANNOTATED, task.annotations_id, partial(_annotate_into, task=task))
    except OSError as error:
        if task.source.privacy == "private":
            error.filename = error.filename2 = None
        raise disk_error(error, task.work) from None
    except Exception as error:
        error.add_note(f"while making the clips of {task.plan.recording.subject}")
        raise
    return len(task.plan.clips)


def _commit(folder: Path, name: str, write: Callable[[Path], dict[str, Any]]) -> None:
    """Make `folder / name` with its receipt under a temporary name, unless it is there."""
    final = folder / name
    if (final / _RECEIPT).exists():
        return
    unfinished = Path(tempfile.mkdtemp(prefix=f"{name}{PARTIAL}", dir=folder))
    try:
        receipt = write(unfinished)
        for piece in unfinished.iterdir():
            with piece.open("rb") as file:
                os.fsync(file.fileno())
        with atomic_file(unfinished / _RECEIPT) as file:
            file.write(signed_json(receipt))
        unfinished.rename(final)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    fsync_folder(folder)


def reuse_clips(task: MakeTask, rows: Sequence[Mapping[str, Any]], shard: Path) -> None:
    """Commit the clips of a task from the shard in which they lie, unless one of them is damaged or missing.

    Args:
        rows: their rows of `clips.parquet`, in order.
    """

    def write(folder: Path) -> dict[str, Any]:
        clips = []
        with shard.open("rb") as file:
            for number, (clip, row) in enumerate(zip(task.plan.clips, rows, strict=True)):
                video = next(member for member in sample_members(row) if member.name == f"{clip.key}.mp4")
                path = folder / f"{number:06d}.mp4"
                path.write_bytes(read_member(file, video))
                encoded = EncodedClip(
                    plan=clip,
                    path=str(path),
                    size=video.size,
                    digest=video.digest,
                    num_frames=row["num_frames"],
                    rate=Fraction(row["rate_num"], row["rate_den"]),
                    keyframes=tuple(row["keyframes"]),
                    **row["quality"],
                )
                clips.append(_clip_json(encoded))
        return {"clips": clips}

    try:
        _commit(task.work / ENCODED, task.clips_id, write)
    except (DataError, ValueError, StopIteration, FileNotFoundError):
        return  # then it is encoded again
    except OSError as error:
        raise disk_error(error, task.work) from None


def _encode_into(folder: Path, task: MakeTask) -> dict[str, Any]:
    try:
        clips = encode(task.plan, task.root, folder, task.config)
        paths = [Path(clip.path) for clip in clips]
        check_clips(paths, task.plan.recording.media, task.plan.facts, task.root, task.source.privacy)
    except Excluded as excluded:
        for leftover in folder.iterdir():
            leftover.unlink()
        told = exclusion_of(task.plan.recording, excluded, task.source)
        return {"excluded": [told.stage, told.reason, told.detail, task.plan.facts.num_frames]}
    return {"clips": [_clip_json(clip) for clip in clips]}


def _annotate_into(folder: Path, task: MakeTask) -> dict[str, Any]:
    recording, facts = task.plan.recording, task.plan.facts
    picture = (facts.stored_width, facts.stored_height)
    said = read_labels(recording, task.source, task.root, facts.num_frames, picture)
    by_clip, wrong = annotate_clips(task.plan, said.annotations, task.root)
    if labels_digest(recording, task.source, task.root) != task.plan.annotations_digest:
        raise DataError(f"{recording.subject}: its label files changed during the build; run the same command again")
    rows = [row for clip in task.plan.clips if clip.key in by_clip for row in by_clip[clip.key].rows]
    (folder / _ROWS).write_bytes(table_bytes("annotations", rows))
    for key, found in by_clip.items():
        if found.masks:
            (folder / f"{key}.npz").write_bytes(mask_bytes(found.masks))
    exclusions = gather(recording, Stage.ANNOTATE, wrong, private=task.source.privacy == "private")
    return {"exclusions": [dataclasses.asdict(exclusion) for exclusion in exclusions]}


def _clip_json(clip: EncodedClip) -> dict[str, Any]:
    facts = {f.name: getattr(clip, f.name) for f in dataclasses.fields(clip) if f.name != "plan"}
    return facts | {"path": Path(clip.path).name, "rate": str(clip.rate)}


def load_made(task: MakeTask) -> Made | Excluded:
    """What `make` committed for this task."""
    final = task.work / ENCODED / task.clips_id
    receipt = parse_signed((final / _RECEIPT).read_bytes())
    if "excluded" in receipt:
        stage, reason, detail, frames = receipt["excluded"]
        return Excluded(Stage(stage), Reason(reason), detail, frames)
    clips = tuple(
        EncodedClip(
            **facts
            | {
                "plan": clip,
                "path": str(final / facts["path"]),
                "rate": Fraction(facts["rate"]),
                "keyframes": tuple(facts["keyframes"]),
            }
        )
        for clip, facts in zip(task.plan.clips, receipt["clips"], strict=True)
    )
    if not task.plan.annotations:
        return Made(clips=clips, masks={}, annotations=None, exclusions=())
    said = task.work / ANNOTATED / task.annotations_id
    rows = parse_signed((said / _RECEIPT).read_bytes())["exclusions"]
    return Made(
        clips=clips,
        masks={path.stem: path for path in sorted(said.glob("*.npz"))},
        annotations=(said / _ROWS).read_bytes(),
        exclusions=tuple(Exclusion(**row) for row in rows),
    )


def forget_retried(folder: Path) -> None:
    """Clear what an earlier run left: half-made pieces, and failures that deserve another try."""
    for piece in folder.iterdir():
        if PARTIAL in piece.name or not _is_usable(piece / _RECEIPT):
            remove(piece)


def _is_usable(receipt: Path) -> bool:
    try:
        excluded = parse_signed(receipt.read_bytes()).get("excluded")
    except (OSError, ValueError):
        return False
    return not excluded or excluded[1] not in RETRIED


def kept_looks(work: Path, source: Source) -> Callable[[bytes], Path]:
    """Where what was seen of a recording is kept, by everything that decides it: with the corpus, or for public sources
    in one place for all corpora, if $ENDOCORPUS_LOOKS names one."""
    shared = os.environ.get("ENDOCORPUS_LOOKS") if source.privacy == "public" else None
    folder = Path(shared) if shared else work / LOOKS
    folder.mkdir(parents=True, exist_ok=True)
    return partial(_look_path, folder, addresses(source.privacy, work))


def _look_path(folder: Path, address: Callable[[bytes], str], decides: bytes) -> Path:
    return folder / f"{address(decides)}.json"


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
            for folder in (out / SHARDS, work / LOOKS, work / ENCODED, work / ANNOTATED, work / RECEIPTS):
                folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(sole_user(work / "lock", busy))
        except OSError as error:
            raise UsageError(f"{out}: cannot be written: {error.strerror}") from None
        _claim(out, name, source)
        forget_retried(work / ENCODED)
        for piece in (work / ANNOTATED).iterdir():  # quickly made again, and unlike clips not proved when they are used
            remove(piece)
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
