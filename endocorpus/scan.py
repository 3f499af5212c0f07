"""The one walker: every file below a source's root becomes part of a recording, a sidecar, or an exclusion."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from endocorpus.errors import UsageError
from endocorpus.naming import FETCHED, fold, make_id, printable
from endocorpus.records import Exclusion, Media, Reason, Recording, Stage
from endocorpus.sources.layout import IMAGE_SUFFIXES, VIDEO_SUFFIXES, FrameFolders, Sidecars, Source, Videos


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What lies below a root. `num_files` = files of recordings + sidecars + excluded files."""

    recordings: tuple[Recording, ...]
    sidecars: tuple[str, ...]
    exclusions: tuple[Exclusion, ...]
    num_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """One or more files that a layout rule says are one recording."""

    rule: Videos | FrameFolders
    names: Mapping[str, str]  # named groups of the pattern
    paths: tuple[str, ...]
    frames: tuple[int, ...]  # the number of each image; empty for a video


def scan(source: Source, root: Path, prefix: str | None = None) -> Scan:
    """Find the recordings of `source` below `root`, in a stable order; opens no media.

    Args:
        prefix: what ids begin with; the source's name by default.

    Raises:
        UsageError: `root` is not a folder that can be listed.
    """
    prefix = prefix or source.name
    files, trouble = walk(root)
    found, sidecars, unknown = _sort_into_rules(source, files)
    outcomes: list[tuple[str, _Found | None, tuple[str, ...], Reason, str]] = [
        *((path, None, (path,), Reason.UNREADABLE, why) for path, why in trouble),
        *((path, None, (path,), Reason.UNEXPECTED_FILE, _why_unnamed(path)) for path in unknown),
    ]
    kept: list[tuple[_Found, str]] = []
    for same_id in _by_id(prefix, found).values():
        (item, recording_id), *others = same_id
        problem = _ambiguity(same_id) if others else _frame_problem(item)
        if problem is None:
            kept.append((item, recording_id))
        else:
            outcomes += [(_name(other), other, other.paths, *problem) for other, _ in same_id]
    subject = _neutral_subjects(source, prefix, [path for path, *_ in outcomes])
    exclusions = [
        Exclusion(
            subject=subject(path),
            unit="recording" if item else "file",
            stage=Stage.SCAN,
            reason=reason,
            detail=detail if source.privacy == "public" else str(reason),
            files=len(paths),
            frames=len(item.frames) or None if item else None,
        )
        for path, item, paths, reason, detail in sorted(outcomes, key=lambda outcome: outcome[0])
    ]
    recordings = tuple(_recording(source, prefix, item, rid, i) for i, (item, rid) in enumerate(kept, 1))
    return Scan(
        recordings=recordings,
        sidecars=tuple(sidecars),
        exclusions=tuple(exclusions),
        num_files=len(files) + len(trouble),
    )


def walk(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """All files below `root` as sorted `/`-separated relative paths, and the folders that could not be entered.

    Links to folders are followed, each real folder once. What `endocorpus fetch` keeps at the top is not part of it.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder")
    files: list[str] = []
    trouble: list[tuple[str, str]] = []
    seen: set[str] = set()

    def relative(path: str) -> str:
        return os.path.relpath(path, root).replace(os.sep, "/")

    def failed(error: OSError) -> None:
        trouble.append((relative(str(error.filename)), f"folder cannot be listed: {error.strerror}"))

    for folder, folders, names in os.walk(root, onerror=failed, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            trouble.append((relative(folder), "link to a folder that is already part of the tree"))
            folders.clear()
            continue
        seen.add(real)
        folders.sort(key=lambda name: (os.path.islink(os.path.join(folder, name)), name))  # real folders before links
        files += [relative(os.path.join(folder, name)) for name in names]
        if folder == os.fspath(root):
            folders[:] = [name for name in folders if not name.startswith(FETCHED)]
            files = [name for name in files if not name.startswith(FETCHED)]
    if trouble and not files and trouble[0][0] == ".":
        raise UsageError(f"{root}: {trouble[0][1]}")
    return sorted(files), sorted(trouble)


def _sort_into_rules(source: Source, files: Iterable[str]) -> tuple[list[_Found], list[str], list[str]]:
    found: list[_Found] = []
    sidecars: list[str] = []
    unknown: list[str] = []
    folders: dict[tuple[int, tuple[tuple[str, str], ...], str], list[tuple[int, str]]] = defaultdict(list)
    rules = [(rule, re.compile(rule.pattern)) for rule in source.layout]
    for path in files:
        index, match = next(((i, m) for i, (_, p) in enumerate(rules) if (m := p.fullmatch(path))), (0, None))
        if match is None:
            unknown.append(path)
            continue
        rule = rules[index][0]
        names = {key: value or "" for key, value in match.groupdict().items()}
        if isinstance(rule, Sidecars):
            sidecars.append(path)
        elif isinstance(rule, Videos):
            found.append(_Found(rule=rule, names=names | {"path": path}, paths=(path,), frames=()))
        else:
            number = int(names.pop("frame"))
            suffix = os.path.splitext(path)[1].lower()
            folders[index, tuple(sorted(names.items())), suffix].append((number, path))
    for (index, group, _), images in folders.items():
        images.sort()
        rule = rules[index][0]
        assert isinstance(rule, FrameFolders)
        numbers, paths = zip(*images, strict=True)
        folder = os.path.dirname(paths[0]) or "."
        found.append(_Found(rule=rule, names=dict(group) | {"path": folder}, paths=paths, frames=numbers))
    return found, sidecars, unknown


def _by_id(prefix: str, found: Iterable[_Found]) -> dict[str, list[tuple[_Found, str]]]:
    groups: dict[str, list[tuple[_Found, str]]] = defaultdict(list)
    for item in found:
        recording_id = make_id(prefix, _fill(item.rule.recording, item.names))
        groups[recording_id].append((item, recording_id))
    return dict(sorted(groups.items()))


def _fill(template: str, names: Mapping[str, str]) -> str:
    return template.format_map(names)


def _ambiguity(same_id: list[tuple[_Found, str]]) -> tuple[Reason, str]:
    names = ", ".join(repr(printable(_name(item))) for item, _ in same_id)
    return Reason.AMBIGUOUS_NAME, f"{names} name the same recording {same_id[0][1]!r}; rename or remove all but one"


def _frame_problem(item: _Found) -> tuple[Reason, str] | None:
    if not item.frames:
        return None
    gaps = [(a, b) for a, b in pairwise(item.frames) if b != a + 1]
    if not gaps:
        return None
    a, b = gaps[0]
    more = f" and {len(gaps) - 1} more such places" if len(gaps) > 1 else ""
    if a == b:
        return Reason.AMBIGUOUS_NAME, f"two images have the number {a}{more}"
    missing = f"frame {a + 1} is" if b == a + 2 else f"frames {a + 1} to {b - 1} are"
    return Reason.FRAME_GAP, f"{missing} missing{more}"


def _name(item: _Found) -> str:
    """A video's path; a frame sequence's folder, with what its file names begin with where that tells it apart."""
    if not item.frames:
        return item.paths[0]
    before = item.names.get("before")
    return f"{item.names['path']}/{before}*" if before else item.names["path"]


def _neutral_subjects(source: Source, prefix: str, paths: Iterable[str]) -> Callable[[str], str]:
    """How people are told about a path: itself for public sources, a number for private ones."""
    if source.privacy == "public":
        return printable
    numbers = {path: f"{prefix}-excluded-{i:06d}" for i, path in enumerate(sorted(set(paths)), 1)}
    return numbers.__getitem__


def _why_unnamed(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return "an image whose name does not end in the number of a frame"
    if suffix in VIDEO_SUFFIXES:
        return "a video where the source's layout has none"
    return "not a kind of file that the source's layout knows"


def _recording(source: Source, prefix: str, item: _Found, recording_id: str, number: int) -> Recording:
    rule = item.rule
    private = source.privacy == "private"
    neutral = f"{prefix}-{number:06d}"
    case_id = neutral if private else make_id(prefix, _fill(rule.case, item.names))
    return Recording(
        recording_id=neutral if private else recording_id,
        subject=neutral if private else printable(_name(item)),
        media=Media(
            kind="frames" if isinstance(rule, FrameFolders) else "video",
            paths=item.paths,
            rate=rule.rate if isinstance(rule, FrameFolders) else None,
        ),
        case_id=case_id,
        case_basis=rule.case_basis,
        leak_group=case_id,
        labels={name: fold(_fill(template, item.names)) for name, template in sorted(rule.labels.items())},
    )
