"""The one walker: every file below a source's root becomes part of a recording, a sidecar, or an exclusion."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from endocorpus.archive import SUFFIXES as ARCHIVE_SUFFIXES
from endocorpus.errors import UsageError
from endocorpus.labels import missing_labels, unknown_names
from endocorpus.leaks import leak_group
from endocorpus.naming import NAMES_NEEDED, Names, fold, hidden, make_id, name_key, printable
from endocorpus.records import REASON_TEXT, Exclusion, LabelFile, Media, Reason, Recording, Stage
from endocorpus.sources.layout import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    FrameFolders,
    Labels,
    Rule,
    Sidecars,
    Source,
    Videos,
)
from endocorpus.walk import walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What lies below a root. `num_files` = files of recordings + `sidecars` + excluded files; a sidecar is a label
    file, a document, a still image or a derived file."""

    recordings: tuple[Recording, ...]
    sidecars: Mapping[str, int]
    exclusions: tuple[Exclusion, ...]
    num_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """One or more files that a layout rule says are one recording."""

    rule: Videos | FrameFolders
    names: Mapping[str, str]  # groups of the pattern that the files share
    paths: tuple[str, ...]
    order: tuple[tuple[int, ...], ...] = ()  # sort key of each image; empty for a video
    links: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return name_key(_fill(self.rule.recording, self.names))

    @property
    def case(self) -> str:
        return _fill(self.rule.case, self.names)

    @property
    def place(self) -> str:
        """What its pseudonym is made of: a video's path, byte by byte; a sequence's name, whatever frames it has."""
        return self.name if self.order else self.paths[0]

    @property
    def where(self) -> str:
        """A video's path; a frame sequence's folder, with what tells it apart there: what its file names begin with,
        or its name where they tell nothing."""
        if not self.order:
            return self.paths[0]
        if isinstance(self.rule, FrameFolders) and self.rule.named_by is not None:
            return f"{self.names['path']} ({self.name})"
        before = self.names.get("before")
        return f"{self.names['path']}/{before}*" if before else self.names["path"]


@dataclass(slots=True)
class _Sorted:
    """Files by what the layout says of them."""

    found: list[_Found] = field(default_factory=list)
    labels: list[LabelFile] = field(default_factory=list)
    sidecars: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    nameless: list[str] = field(default_factory=list)  # images whose sequence stands in a file that is not there


_Outcome = tuple[str, _Found | None, tuple[str, ...], Reason, str]


def scan(source: Source, root: Path, prefix: str | None = None, names: Names | None = None) -> Scan:
    """Find the recordings of `source` below `root` and the label files about them, in a stable order; opens no media.

    Args:
        prefix: what ids begin with; the source's name by default.
        names: what stands for the names of a private source, which has no other ids.

    Raises:
        UsageError: `root` is not a folder that can be listed, or the source is private and `names` are missing.
    """
    prefix, public = prefix or source.name, source.privacy == "public"
    hiding = None if public else names
    if hiding is None and not public:
        raise UsageError(NAMES_NEEDED.format(source=source.name))
    files, trouble = walk(root)
    kinds = _sort_into_rules(source, files, root)
    outcomes: list[_Outcome] = [
        *((path, None, (path,), Reason.UNREADABLE, why) for path, why in trouble),
        *((path, None, (path,), Reason.UNEXPECTED_FILE, _why_unnamed(path)) for path in kinds.unknown),
        *((path, None, (path,), Reason.NO_PARTNER, "no file tells its sequence") for path in kinds.nameless),
    ]
    kept: list[tuple[_Found, str]] = []
    for same_id in _by_id(prefix, kinds.found).values():
        (item, recording_id), *others = same_id
        problem = _ambiguity(same_id) if others else _frame_problem(item)
        if problem is None:
            kept.append((item, recording_id))
        else:
            outcomes += [(other.where, other, other.paths, *problem) for other, _ in same_id]
    own, tables, orphans = _assign_labels(source, kinds.labels, {item.name for item, _ in kept}, root)
    cases = _case_ids(source, prefix, [item for item, _ in kept], hiding)
    ids = [named for _, named in kept]
    if hiding is not None:
        given = hiding.files(item.place for item, _ in kept)
        ids = [f"{prefix}-{given[item.place]}" for item, _ in kept]
    recordings = [
        _recording(source, item, recording_id, cases[item.case], own[item.name])
        for (item, _), recording_id in zip(kept, ids, strict=True)
    ]
    outcomes += [
        (item.where, None, (), Reason.NO_PARTNER, missing)
        for (item, _), recording in zip(kept, recordings, strict=True)
        for missing in missing_labels(source, recording, item.rule.recording)
    ]
    wrong = unknown_names(source, tables, recordings, root)
    recordings = [replace(found, label_files=(*found.label_files, *tables)) for found in recordings]
    outcomes += orphans + [(file.path, None, (), reason, detail) for file, reason, detail in wrong]
    outcomes.sort(key=lambda outcome: outcome[0])
    subjects = {path: printable(path) for path, *_ in outcomes}
    if hiding is not None:
        subjects = {path: f"{prefix}-excluded-{code}" for path, code in hiding.files(subjects).items()}
    exclusions = [
        Exclusion(
            subject=subjects[path],
            unit="recording" if item else "file" if paths else "annotation",
            stage=Stage.SCAN,
            reason=reason,
            detail=printable(detail) if public else REASON_TEXT[reason],
            files=len(paths),
            frames=len(item.order) or None if item else None,
        )
        for path, item, paths, reason, detail in outcomes
    ]
    return Scan(
        recordings=tuple(sorted(recordings, key=lambda recording: recording.recording_id)),
        sidecars=dict(sorted(kinds.sidecars.items())),
        exclusions=tuple(exclusions),
        num_files=len(files) + len(trouble),
    )


def _sort_into_rules(source: Source, files: Iterable[str], root: Path) -> _Sorted:
    kinds = _Sorted()
    images: dict[tuple[int, tuple[tuple[str, str], ...]], list[_Image]] = defaultdict(list)
    rules = [(rule, re.compile(rule.pattern, re.DOTALL)) for rule in source.layout]  # names may hold line ends
    for path in files:
        index, match = next(((i, m) for i, (_, p) in enumerate(rules) if (m := p.fullmatch(path))), (0, None))
        if match is None:
            kinds.unknown.append(path)
            continue
        rule = rules[index][0]
        names = {key: value or "" for key, value in match.groupdict().items()}
        if isinstance(rule, Sidecars):
            kinds.sidecars[rule.what] += 1
        elif isinstance(rule, Labels):
            kinds.sidecars["label file"] += 1
            kinds.labels.append(LabelFile(path=path, rule=index, frame=_frame(rule, names), names=names))
        elif isinstance(rule, Videos):
            kinds.found.append(_Found(rule=rule, names=names | {"path": path}, paths=(path,)))
        else:
            image = _image(rule, names, path, root)
            if image is None:
                kinds.nameless.append(path)
                continue
            images[index, tuple(sorted(image.shared.items()))].append(image)
    for (index, shared), group in images.items():
        kinds.found.append(_sequence(rules[index][0], dict(shared), group))
    return kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """One image of a sequence: its place in the order, and the groups that it shares with the rest."""

    path: str
    order: tuple[int, ...]
    shared: Mapping[str, str]
    links: frozenset[str]


def _image(rule: FrameFolders, names: dict[str, str], path: str, root: Path) -> _Image | None:
    """The place of an image, or None if nothing tells."""
    told = _told(rule, names, rule.order[-1], root)
    if told is None:
        return None
    alone = {*rule.order, *rule.links, "frame"}
    return _Image(
        path=path,
        order=tuple(int(told[group]) for group in rule.order),
        links=frozenset(hidden(told[group]) for group in rule.links),
        shared={key: told[key] for key in sorted(told) if key not in alone},
    )


def _told(rule: FrameFolders | Labels, names: Mapping[str, str], number: str, root: Path) -> Mapping[str, str] | None:
    """The groups of a file's name with what the file beside it, and the ranges of numbers, add; None if they fail."""
    if rule.named_by is not None:
        beside = root / _fill(rule.named_by.path, names)
        told = rule.named_by.read(beside) if beside.is_file() else None
        if told is None:
            return None
        names = {**names, **told}
    if rule.ranges:
        value = int(names[number])
        place = bisect_right(rule.ranges, (value, 10**12))
        if not place or value > rule.ranges[place - 1][1]:
            return None
        names = {**names, "range": f"{place:02d}"}
    return names


def _sequence(rule: Rule, shared: dict[str, str], images: list[_Image]) -> _Found:
    assert isinstance(rule, FrameFolders)
    images.sort(key=lambda image: (image.order, image.path))
    return _Found(
        rule=rule,
        names=shared | {"path": os.path.dirname(images[0].path) or "."},
        paths=tuple(image.path for image in images),
        order=tuple(image.order for image in images),
        links=frozenset().union(*(image.links for image in images)),
    )


def _by_id(prefix: str, found: Iterable[_Found]) -> dict[str, list[tuple[_Found, str]]]:
    groups: dict[str, list[tuple[_Found, str]]] = defaultdict(list)
    for item in found:
        exact = isinstance(item.rule, Videos) and item.rule.exact_names
        recording_id = make_id(prefix, item.name, exact=exact)
        groups[recording_id].append((item, recording_id))
    return dict(sorted(groups.items()))


def _fill(template: str, names: Mapping[str, str]) -> str:
    return template.format_map(names)


def _ambiguity(same_id: list[tuple[_Found, str]]) -> tuple[Reason, str]:
    names = ", ".join(repr(printable(item.where)) for item, _ in same_id)
    return Reason.AMBIGUOUS_NAME, f"{names} name the same recording {same_id[0][1]!r}; rename or remove all but one"


def _frame_problem(item: _Found) -> tuple[Reason, str] | None:
    if not item.order:
        return None
    assert isinstance(item.rule, FrameFolders)
    twins = [a for a, b in pairwise(item.order) if a == b]
    if twins:
        more = f" and {len(twins) - 1} more such places" if len(twins) > 1 else ""
        return Reason.AMBIGUOUS_NAME, f"two images have the number {'-'.join(map(str, twins[0]))}{more}"
    numbers = [order[-1] for order in item.order]
    gaps = [(a, b) for a, b in pairwise(numbers) if b != a + 1]
    if not gaps or item.rule.gaps == "join":
        return None
    a, b = gaps[0]
    more = f" and {len(gaps) - 1} more such places" if len(gaps) > 1 else ""
    missing = f"frame {a + 1} is" if b == a + 2 else f"frames {a + 1} to {b - 1} are"
    return Reason.FRAME_GAP, f"{missing} missing{more}"


def _assign_labels(
    source: Source, files: Iterable[LabelFile], names: set[str], root: Path
) -> tuple[dict[str, list[LabelFile]], list[LabelFile], list[_Outcome]]:
    """Label files by the recording that they are about, tables about many, and what is about none that is here."""
    own: dict[str, list[LabelFile]] = defaultdict(list)
    tables: list[LabelFile] = []
    orphans: Counter[tuple[str, str]] = Counter()
    for file in files:
        rule = source.layout[file.rule]
        assert isinstance(rule, Labels)
        if not rule.recording:
            tables.append(file)
            continue
        told = _told(rule, file.names, "frame", root)
        wanted = [name_key(_fill(template, told)) for template in rule.recording] if told else []
        name = next((each for each in wanted if each in names), None)
        if name is None:
            orphans[os.path.dirname(file.path), wanted[0] if wanted else "that nothing tells"] += 1
        else:
            own[name].append(file)
    outcomes: list[_Outcome] = [
        (folder, None, (), Reason.NO_PARTNER, f"label files: {count}, about the recording {name}, which is not here")
        for (folder, name), count in orphans.items()
    ]
    return own, tables, outcomes


def _why_unnamed(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return "an image that no rule of the layout takes: not numbered, or --root is a folder too high or too deep"
    if path.lower().endswith(ARCHIVE_SUFFIXES):
        return "an archive: what is packed in it is not part of the tree until it is unpacked (endocorpus fetch does)"
    if suffix in VIDEO_SUFFIXES:
        return "a video where the source's layout has none"
    return "not a kind of file that the source's layout knows"


def _frame(rule: Labels, names: Mapping[str, str]) -> str | None:
    return _fill(rule.frame, names) if rule.frame else None


def _case_ids(
    source: Source, prefix: str, found: Sequence[_Found], hiding: Names | None
) -> dict[str, tuple[str, str, str | None]]:
    """(case id, leak group, its name) by case name. A private case is a patient, and has a pseudonym. The names of an
    owner's own cases mean nothing outside the corpus, those of a published set mean the same in every corpus."""
    exact = {item.case: isinstance(item.rule, Videos) and item.rule.exact_names for item in found}
    if hiding is not None:
        folded = {case: fold(case) or "blank" for case in exact}
        given = hiding.patients(sorted(set(folded.values())))
        return {case: (f"{prefix}-{given[name]}", f"{prefix}-{given[name]}", None) for case, name in folded.items()}
    ids = {case: make_id(prefix, case, exact=is_exact) for case, is_exact in exact.items()}
    if source.vouched_by == "owner":
        return {case: (case_id, case_id, None) for case, case_id in ids.items()}
    groups = {case: leak_group(source.name, case).partition("/") for case in ids}
    return {case: (ids[case], make_id(group[0], group[2]), "".join(group)) for case, group in groups.items()}


def _recording(
    source: Source, item: _Found, recording_id: str, ids: tuple[str, str, str | None], files: Iterable[LabelFile]
) -> Recording:
    rule = item.rule
    images = isinstance(rule, FrameFolders)
    return Recording(
        recording_id=recording_id,
        name=item.name,
        subject=recording_id if source.privacy == "private" else printable(item.where),
        media=Media(
            kind="frames" if images else "video",
            paths=item.paths,
            rate=rule.rate if isinstance(rule, FrameFolders) else None,
        ),
        case_id=ids[0],
        case_name=name_key(item.case),
        case_basis=rule.case_basis,
        leak_group=ids[1],
        leak_group_name=ids[2],
        links=tuple(sorted(item.links)),
        labels={name: _fill(template, item.names) for name, template in sorted(rule.labels.items())},
        label_files=tuple(files),
        capture_rate=rule.capture_rate,
    )
