"""Getting a source: download what its provider gives to anybody, take the rest from a folder, unpack all of it.

What came from where is recorded in `.fetch.json` at the top of the raw tree. Archives that were downloaded stay in
`.fetch` beside it until somebody removes them; nothing else needs them.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from endocorpus.archive import PASSWORD, DamagedArchiveError, is_archive
from endocorpus.corpus.files import atomic_file, atomic_path, sole_user
from endocorpus.download import Patience, Wanted, check, download
from endocorpus.errors import DataError, UsageError
from endocorpus.manifests import manifests_folder
from endocorpus.naming import FETCHED
from endocorpus.report.text import count
from endocorpus.unpack import is_whole, read_receipt, sha256_file, unpack

Action = Literal["check", "take", "download", "by hand"]
Watch = Callable[[str, int, int | None], None]  # what is done to which archive, bytes so far, bytes in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One `[[archive]]` of a facts file. A name that is no archive's is a file of the raw tree as it is.

    Folders in the name say where below the destination it belongs.
    """

    name: str
    url: str = ""
    bytes: int | None = None
    sha256: str = ""
    md5: str = ""
    note: str = ""

    @property
    def wanted(self) -> Wanted:
        return Wanted(url=self.url, bytes=self.bytes, sha256=self.sha256, md5=self.md5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """How a source is got, from its facts file."""

    source: str
    access: str
    home: str
    obtain: str
    archives: tuple[Archive, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What came under an archive's name; `url` is empty for what was taken from a folder."""

    url: str
    bytes: int
    sha256: str
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What there is to do for one archive. `file`: where its bytes are, or will be."""

    archive: Archive
    action: Action
    file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one archive; `files` is how many it gave."""

    name: str
    status: Literal["fetched", "by hand", "failed", "planned"]
    detail: str = ""
    bytes: int | None = None
    sha256: str = ""
    files: int = 0


def provider_of(source: str) -> Provider:
    """Read how a source is got.

    Raises:
        UsageError: no such source.
    """
    folder = manifests_folder() / "sources"
    names = sorted(path.stem for path in folder.glob("*.toml"))
    if source not in names:
        raise UsageError(f"no source {source!r}; there is: {', '.join(names)}")
    facts: dict[str, Any] = tomllib.loads((folder / f"{source}.toml").read_text(encoding="utf-8"))
    return Provider(
        source=source,
        access=facts.get("access", ""),
        home=facts["home"],
        obtain=facts["obtain"],
        archives=tuple(Archive(**entry) for entry in facts.get("archive", [])),
    )


def plan_fetch(provider: Provider, dest: Path, folder: Path | None, only: Sequence[str] = ()) -> tuple[Planned, ...]:
    """What there is to do for each archive of a source; looks at the disk, not at the network, and changes nothing.

    Args:
        folder: where archives lie that were downloaded by hand. Where the facts list none, all in it are the source's.
        only: names of archives, with or without their folder; all by default.

    Raises:
        UsageError: there is no such folder, or no archive of a name in `only`.
    """
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--archives {folder}: no such folder")
    lying = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder else []
    archives = provider.archives or tuple(Archive(name=name) for name in lying if is_archive(name))
    if only:
        others = tuple(Archive(name=name) for name in lying if is_archive(name))
        archives = tuple(_named(name, (*archives, *others), provider) for name in dict.fromkeys(only))
    records = read_records(dest)
    return tuple(_plan_one(archive, dest, folder, records.get(archive.name)) for archive in archives)


def _named(name: str, archives: Iterable[Archive], provider: Provider) -> Archive:
    for archive in archives:
        if name in (archive.name, PurePosixPath(archive.name).name):
            return archive
    there = ", ".join(dict.fromkeys(archive.name for archive in archives)) or "none"
    raise UsageError(f"--only {name}: {provider.source} has no archive of this name; there is: {there}")


def _plan_one(archive: Archive, dest: Path, folder: Path | None, record: Record | None) -> Planned:
    base = PurePosixPath(archive.name).name
    own = _state(dest, archive) / base
    kept = own if is_archive(archive.name) or own.exists() else dest / archive.name
    given = [folder / name for name in (archive.name, base) if (folder / name).is_file()] if folder else []
    if given:
        return Planned(archive=archive, action="take", file=given[0])
    if kept.exists() or (record and _is_unpacked(archive, dest, record)):
        return Planned(archive=archive, action="check", file=kept)
    return Planned(archive=archive, action="download" if archive.url else "by hand", file=own)


def _state(dest: Path, archive: Archive) -> Path:
    return dest / FETCHED / archive.name.replace("/", "--")


def _is_unpacked(archive: Archive, dest: Path, record: Record) -> bool:
    """Whether all that came out of an archive is there, by its receipt."""
    receipt = read_receipt(_state(dest, archive))
    return receipt is not None and receipt.sha256 == record.sha256 and is_whole(receipt, _below(dest, archive))


def _below(dest: Path, archive: Archive) -> Path:
    return (dest / archive.name).parent


def fetch(
    plan: Iterable[Planned], dest: Path, *, patience: Patience | None = None, watch: Watch = lambda *_: None
) -> list[Outcome]:
    """Carry out a plan; an archive that fails does not keep the others from being fetched.

    Raises:
        UsageError: a password is missing or wrong, or another process fetches into `dest`.
        DataError: there is no lock to be had in `dest`.
    """
    plan = tuple(plan)
    if all(planned.action == "by hand" for planned in plan):  # leaves no empty folder that looks like a raw tree
        return [_bring(planned, dest, patience, watch) for planned in plan]
    try:
        with sole_user(dest / FETCHED / "lock", f"{dest}: another process fetches into this folder"):
            return [_bring(planned, dest, patience, watch) for planned in plan]
    except OSError as error:
        raise DataError(f"{error.filename or dest}: {error.strerror}; the same command continues") from None


def _bring(planned: Planned, dest: Path, patience: Patience | None, watch: Watch) -> Outcome:
    name = planned.archive.name
    if planned.action == "by hand":
        return Outcome(name=name, status="by hand", detail=planned.archive.note)
    try:
        record, files = _bring_one(planned, dest, patience, watch)
    except DataError as error:
        return Outcome(name=name, status="failed", detail=str(error))
    except OSError as error:
        detail = f"{error.filename or planned.file}: {error.strerror or error}; the same command continues"
        return Outcome(name=name, status="failed", detail=detail)
    detail = {"check": "was there", "take": "from the folder", "download": "downloaded"}[planned.action]
    return Outcome(name=name, status="fetched", detail=detail, bytes=record.bytes, sha256=record.sha256, files=files)


def _bring_one(planned: Planned, dest: Path, patience: Patience | None, watch: Watch) -> tuple[Record, int]:
    """Bytes, then checks, then the tree, then the record: whatever is recorded is all there."""
    archive, file, known = planned.archive, planned.file, read_records(dest).get(planned.archive.name)
    if planned.action == "check" and not file.exists() and known:  # unpacked, and the archive was removed to save room
        receipt = read_receipt(_state(dest, archive))
        return known, len(receipt.files) if receipt else 0
    if planned.action == "download":
        sha256 = _download(archive, file, patience, watch)
    else:
        watch(f"checking {archive.name}", 0, file.stat().st_size)
        sha256 = sha256_file(file)
        wrong = check(file, archive.wanted, sha256)
        if planned.action == "check" and known and known.sha256 != sha256:
            wrong = f"its sha256 is {sha256}, and was {known.sha256} when it was fetched"
        if wrong and planned.action == "check" and archive.url and is_archive(archive.name):
            file.unlink()  # it is our own copy
            sha256 = _download(archive, file, patience, watch)
        elif wrong:
            raise DataError(f"{file}: not what was expected: {wrong}; move it away and get it again")
    size, ours = file.stat().st_size, planned.action != "take" and file != dest / archive.name
    try:
        files = _put(planned, dest, sha256, watch)
    except DamagedArchiveError as error:
        if not (ours and archive.url) or archive.sha256 or archive.md5:  # those would be as damaged the next time
            raise
        file.unlink()
        raise DataError(f"{error}; our copy was removed, so the same command downloads it anew") from None
    if known and known.sha256 == sha256:
        return known, files
    record = Record(
        url=archive.url if ours else "",  # a file found at its place may be from anywhere
        bytes=size,
        sha256=sha256,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _write_records(dest, {**read_records(dest), archive.name: record})
    return record, files


def _download(archive: Archive, file: Path, patience: Patience | None, watch: Watch) -> str:
    return download(
        archive.wanted,
        file,
        patience=patience,
        on_bytes=lambda done, total: watch(f"downloading {archive.name}", done, total),
    )


def _put(planned: Planned, dest: Path, sha256: str, watch: Watch) -> int:
    """Bring an archive's content, or the file itself, to its place; gives the number of files."""
    archive, file = planned.archive, planned.file
    if is_archive(archive.name):
        written = 0

        def on_bytes(size: int) -> None:
            nonlocal written
            written += size
            watch(f"unpacking {archive.name}", written, None)

        receipt = unpack(
            file,
            _below(dest, archive),
            state=_state(dest, archive),
            sha256=sha256,
            password=os.environ.get(PASSWORD),
            on_bytes=on_bytes,
        )
        return len(receipt.files)
    target = dest / archive.name
    if file == target:
        return 1
    if target.exists():
        if sha256_file(target) != sha256:
            raise DataError(f"{target}: already there, and not as {file}; move one of them away")
    elif planned.action == "take":
        with atomic_path(target) as temporary:
            shutil.copyfile(file, temporary)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
    return 1


def read_records(dest: Path) -> dict[str, Record]:
    """What was fetched into a raw tree, by the archive's name.

    Raises:
        DataError: the records are damaged.
    """
    path = dest / f"{FETCHED}.json"
    try:
        return {name: Record(**record) for name, record in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):
        raise DataError(f"{path}: damaged; remove it, and what is there is checked and recorded anew") from None


def _write_records(dest: Path, records: dict[str, Record]) -> None:
    with atomic_file(dest / f"{FETCHED}.json") as file:
        file.write(json.dumps({name: asdict(records[name]) for name in sorted(records)}, indent=2).encode())


def would_be(plan: Iterable[Planned]) -> list[Outcome]:
    """The outcomes of a plan that is not carried out."""
    words: dict[Action, str] = {"check": "check what is there", "take": "unpack", "download": "download and unpack"}
    return [
        Outcome(
            name=planned.archive.name,
            status="by hand" if planned.action == "by hand" else "planned",
            detail=words.get(planned.action, planned.archive.note),
            bytes=planned.archive.bytes,
        )
        for planned in plan
    ]


def steps(provider: Provider, outcomes: Sequence[Outcome]) -> list[str]:
    """What a person has to do for a source of which something is missing; nothing if nothing is."""
    if outcomes and all(outcome.status != "by hand" for outcome in outcomes):
        return []
    access = {"form": "a form is asked for", "email-password": "a password comes by e-mail", "private": "private"}
    lines = [f"access: {access.get(provider.access, provider.access)}"] if provider.access else []
    return [*lines, *([f"page: {provider.home}"] if provider.home else []), *provider.obtain.splitlines()]


def verdict(provider: Provider, outcomes: Sequence[Outcome]) -> None:
    """Say by an exit code what a person has to do.

    Raises:
        UsageError: nothing could be fetched, because it takes a person.
        DataError: part of it failed or is missing.
    """
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    missing = [outcome.name for outcome in outcomes if outcome.status == "by hand"]
    if failed:
        raise DataError(f"{count(len(failed), 'archive')} of {len(outcomes)} failed: {failed[0].detail}")
    if len(missing) == len(outcomes):
        raise UsageError(
            f"{provider.source} cannot be fetched without a person: follow the steps above, then name the folder of "
            "the downloaded archives with --archives"
        )
    if missing:
        raise DataError(f"still missing: {', '.join(missing)}; follow the steps above, then use --archives")
