"""A mixture for training, chosen from finished corpora: which recordings its rows take, and which may not train.

`manifests/mixes/<name>.toml` holds the mixtures; the one of Endo-FM says of each row what the paper's table prints.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from endocorpus.census import Entry, open_all, refuse_twins, source_of, take_census
from endocorpus.corpus.manifest import Corpus
from endocorpus.errors import DataError, UsageError, did_you_mean
from endocorpus.heldout import WHOLE_SET, Finding, HeldOut, Watch, case_leaks, set_leaks, unknown_sides, watch
from endocorpus.manifests import manifests_folder
from endocorpus.naming import fold
from endocorpus.segment import SegmentConfig
from endocorpus.settings import Settings, load_settings
from endocorpus.sources import SOURCES
from endocorpus.sources.layout import Status, judge

MIXES: tuple[str, ...] = tuple(sorted(path.stem for path in (manifests_folder() / "mixes").glob("*.toml")))
Reason = Literal["not-in-mixture", "segmentation", "leak", "set-leak", "set-overlap"]


class MixRow(Settings):
    """One row: the recordings of a source whose whole folded name `where` matches and whose labels have these codes.

    `segment` is how they must have been cut; without it any cut will do. `paper_*` is what was published, `clips` and
    `frames` what the cut gives on these recordings where their lengths are known, `status` how sure `paper_clips` is.
    """

    title: str
    source: str
    where: str = ".+"
    labels: dict[str, str] = Field(default_factory=dict)
    segment: SegmentConfig | None = None
    repeats: int = Field(default=1, ge=1, le=10_000)  # how often an epoch shows each clip
    paper_clips: int | None = None
    paper_frames: int | None = None
    clips: int | None = None
    frames: int | None = None
    status: Status = "unverified"
    note: str = ""

    @model_validator(mode="after")
    def _can_match(self) -> Self:
        if self.source not in SOURCES:
            raise ValueError(f"there is no source {self.source!r}{did_you_mean(self.source, SOURCES)}")
        try:
            re.compile(self.where)
        except re.error as error:
            raise ValueError(f"{self.where!r} is not a regular expression: {error}") from None
        return self

    def takes(self, entry: Entry) -> bool:
        """Whether the row is about this recording, however it is cut."""
        codes = {(name, code) for name, found in entry.labels.items() for code in found}
        named = entry.source == self.source and re.fullmatch(self.where, fold(entry.name))
        return bool(named) and set(self.labels.items()) <= codes


class Mix(Settings):
    """A mixture: its rows, in the order of the clips."""

    title: str
    citation: str = ""
    paper_clips: int | None = None
    paper_frames: int | None = None
    row: tuple[MixRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _titles(self) -> Self:
        if len({row.title for row in self.row}) < len(self.row):
            raise ValueError("two rows have one title")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What becomes of one recording. It trains if there is no `reason` against it."""

    entry: Entry
    row: MixRow | None
    reason: Reason | None = None
    finding: Finding | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A mixture with the recordings of some corpora, all accounted for, and what people should know about it."""

    mix: Mix
    corpora: tuple[Corpus, ...]
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]

    def of(self, row: MixRow) -> tuple[Choice, ...]:
        """The recordings that a row takes."""
        return tuple(choice for choice in self.choices if choice.row is row)

    def clip_rows(self) -> list[dict[str, object]]:
        """Rows of `schema.MIX`: as the mixture's rows follow each other, then by corpus and key."""
        return [
            {
                "corpus": choice.entry.corpus,
                "key": clip.key,
                "row": row.title,
                "source": choice.entry.source,
                "recording_id": choice.entry.recording_id,
                "leak_group": choice.entry.group_id,
                "num_frames": clip.num_frames,
                "repeats": row.repeats,
                "mp4_xxh3_128": clip.digest,
            }
            for row in self.mix.row
            for choice in self.of(row)
            if choice.reason is None
            for clip in choice.entry.clips
        ]

    def excluded_rows(self) -> list[dict[str, object]]:
        """Rows of `schema.MIX_EXCLUDED`, one for every recording that is left out."""
        return [_excluded(choice) for choice in self.choices if choice.reason is not None]


def load_mix(name_or_path: str) -> Mix:
    """A mixture that ships, by its name, or your own TOML file, by its path.

    Raises:
        UsageError: neither, or the file is malformed.
    """
    if name_or_path in MIXES:
        return load_settings(Mix, manifests_folder() / "mixes" / f"{name_or_path}.toml")
    if not Path(name_or_path).is_file():
        raise UsageError(f"{name_or_path}: neither a file nor a mixture{did_you_mean(name_or_path, MIXES)}")
    return load_settings(Mix, Path(name_or_path))


def choose(
    mix: Mix,
    folders: Iterable[Path],
    *,
    without: Iterable[HeldOut] = (),
    against: Iterable[Path] = (),
    drop_overlaps: bool = False,
) -> Chosen:
    """Decide about every recording of some corpora.

    Args:
        folders: of the corpora to choose from.
        without: what must not train, nor anything that shows the same.
        against: folders of corpora of it, which tell more than names do; nothing of them is taken.
        drop_overlaps: whether a set goes of which nobody knows which cases are held out; otherwise that is a warning.

    Raises:
        UsageError: two rows take one recording, or a corpus of `against` has nothing to do with `without`.
        DataError: a corpus cannot be used, or two hold one recording, cut as its row wants it.
    """
    without, against = tuple(without), tuple(against)
    corpora = open_all(folders)
    beside = open_all(against)
    for corpus in beside:
        if source_of(corpus) not in {held.source for held in without}:
            raise UsageError(
                f"--against {corpus.root}: holds {source_of(corpus)}, and --without-leaks names nothing of that source"
            )
    census = take_census(refuse_twins((*corpora, *beside)))
    watches = [watch(held, census) for held in without]
    cuts = {corpus.name: SegmentConfig.model_validate(corpus.descriptor["config"]["segment"]) for corpus in corpora}
    groups: dict[int, set[str]] = defaultdict(set)
    for entry in census:
        groups[entry.component].add(entry.own_group)
    choices = []
    for entry in (entry for entry in census if entry.corpus in cuts):
        choice = _fitting(mix, entry, cuts[entry.corpus])
        if choice.reason is None:
            choice = _judge(choice, sorted(groups[entry.component]), watches, drop_overlaps=drop_overlaps)
        choices.append(choice)
    _refuse_twice(choices)
    return Chosen(
        mix=mix, corpora=corpora, choices=tuple(choices), warnings=tuple(_warnings(corpora, choices, watches))
    )


def _fitting(mix: Mix, entry: Entry, cut: SegmentConfig) -> Choice:
    rows = [row for row in mix.row if row.takes(entry)]
    if len(rows) > 1:
        titles = " and ".join(repr(row.title) for row in rows[:2])
        raise UsageError(f"{titles} both take the recording {entry.recording_id}; a recording may stand in one row")
    if not rows:
        detail = f"no row takes this recording of {entry.source}"
        return Choice(entry=entry, row=None, reason="not-in-mixture", detail=detail)
    (row,) = rows
    if row.segment is not None and _rule(row.segment) != _rule(cut):
        detail = f"cut by {_words(cut)}, and the row wants {_words(row.segment)}"
        return Choice(entry=entry, row=row, reason="segmentation", detail=detail)
    return Choice(entry=entry, row=row)


def _judge(choice: Choice, own_groups: Sequence[str], watches: Iterable[Watch], *, drop_overlaps: bool) -> Choice:
    def out(reason: Reason, finding: Finding) -> Choice:
        return Choice(entry=choice.entry, row=choice.row, reason=reason, finding=finding)

    watches = tuple(watches)
    for watched in watches:
        if found := case_leaks(watched, choice.entry, own_groups):
            return out("leak", found)
    of_sets = [finding for watched in watches for finding in set_leaks(watched.held, choice.entry.source)]
    for finding in of_sets:
        if finding.kind in WHOLE_SET:
            return out("set-leak", finding)
    return out("set-overlap", of_sets[0]) if of_sets and drop_overlaps else choice


def _rule(config: SegmentConfig) -> tuple[object, ...]:
    """What of a cut decides where clips begin and end."""
    lengths = (config.clip_seconds, config.min_seconds) if config.policy == "seconds" else ()
    return config.policy, config.stride, *lengths


def _words(config: SegmentConfig) -> str:
    settings = [f"segment.policy={config.policy}"]
    settings += [f"segment.stride={config.stride}"] if config.stride > 1 else []
    settings += [f"segment.clip_seconds={config.clip_seconds:g}"] if config.policy == "seconds" else []
    return " ".join(settings)


def _refuse_twice(choices: Iterable[Choice]) -> None:
    seen: dict[tuple[str, str], Entry] = {}
    for entry in (choice.entry for choice in choices if choice.reason is None):
        if not entry.published:
            continue
        first = seen.setdefault((entry.source, entry.name), entry)
        if first is not entry:
            raise DataError(
                f"the corpora {first.corpus!r} and {entry.corpus!r} both hold {entry.source} {entry.name!r}, which "
                "would train twice; give one of them"
            )


def _warnings(corpora: Iterable[Corpus], choices: Sequence[Choice], watches: Iterable[Watch]) -> list[str]:
    kept: dict[str, list[Entry]] = defaultdict(list)
    for choice in choices:
        if choice.reason is None:
            kept[choice.entry.source].append(choice.entry)
    rendered = [corpus.name for corpus in corpora if corpus.descriptor["synthetic"]]
    told = [f"rendered, not real: {', '.join(rendered)}"] if rendered else []
    for watched in watches:
        held = watched.held
        if unknown_sides(watched):
            told.append(
                f"{held.spelt}: no corpus at hand tells which cases of {held.source} stand there, so all of them may; "
                "give a corpus that has all its lists and recordings with --against"
            )
        for source, entries in sorted(kept.items()):
            clips = sum(len(entry.clips) for entry in entries)
            told += [
                f"{held.spelt} may share cases with {source}, which keeps {clips:,} clips; nobody knows which cases. "
                f"--drop-overlapping-sets leaves them out. ({finding.certainty}: {finding.evidence})"
                for finding in set_leaks(held, source)
            ]
    return told


def _excluded(choice: Choice) -> dict[str, object]:
    entry, finding = choice.entry, choice.finding
    evidence = choice.detail
    if finding is not None:
        evidence = f"{finding.through}: {finding.evidence}" if finding.through else finding.evidence
    return {
        "corpus": entry.corpus,
        "subject": entry.recording_id,
        "source": entry.source,
        "leak_group": entry.group_id,
        "row": choice.row.title if choice.row else None,
        "reason": choice.reason,
        "of": finding.of if finding else None,
        "kind": finding.kind if finding else None,
        "certainty": finding.certainty if finding else None,
        "evidence": evidence,
        "clips": len(entry.clips),
        "frames": entry.num_frames,
    }


def row_report(chosen: Chosen) -> list[dict[str, object]]:
    """Row by row what was found, before anything is left out as a leak, what is kept, and what was published."""
    given: dict[str, list[str]] = defaultdict(list)
    for corpus in chosen.corpora:
        given[source_of(corpus)].append(corpus.name)
    report = []
    for row in chosen.mix.row:
        choices = chosen.of(row)
        found = tally(choice for choice in choices if choice.reason != "segmentation")
        report.append(
            {
                "row": row.title,
                "source": row.source,
                "corpora": given[row.source],
                "status": row.status,
                "repeats": row.repeats,
                "found": found,
                "kept": tally(choice for choice in choices if choice.reason is None),
                "published": {"clips": row.paper_clips, "frames": row.paper_frames},
                "expected": {"clips": row.clips, "frames": row.frames},
                "remark": _remark(row, given[row.source], len(choices) - found["recordings"], found["clips"]),
                "note": row.note,
            }
        )
    return report


def _remark(row: MixRow, corpora: Sequence[str], cut_otherwise: int, clips: int) -> str:
    if not corpora:
        return f"no corpus of {row.source} is given"
    if cut_otherwise and row.segment is not None:
        settings = " ".join(f"--set {each}" for each in _words(row.segment).split())
        return f"recordings cut otherwise: {cut_otherwise:,}; build with {settings}"
    if row.paper_clips is None:
        return ""
    if clips == row.paper_clips:
        return "agrees"
    difference = f"{abs(clips - row.paper_clips):,} {'more' if clips > row.paper_clips else 'fewer'}"
    return {
        "agrees": f"{difference}, which is near enough",
        "differs": f"differs: {difference} than there should be",
        "unverified": f"{difference}; nobody has verified the published number, so this alone is no fault",
    }[judge(clips, row.paper_clips, row.status)]


def exclusion_report(chosen: Chosen) -> list[dict[str, object]]:
    """What is left out, by reason and by the edge that says so, in the order of first mention."""
    groups: dict[tuple[object, ...], list[Choice]] = defaultdict(list)
    keys = ("reason", "source", "of", "kind", "certainty", "evidence")
    for choice in chosen.choices:
        finding = choice.finding
        if choice.reason is not None:
            edge = (
                (finding.of, finding.kind, finding.certainty, finding.evidence)
                if finding
                else (None, None, None, choice.detail)
            )
            groups[choice.reason, choice.entry.source, *edge].append(choice)
    return [dict(zip(keys, group, strict=True)) | dict(tally(choices)) for group, choices in groups.items()]


def tally(choices: Iterable[Choice]) -> Mapping[str, int]:
    """Recordings, clips and frames."""
    entries = [choice.entry for choice in choices]
    return {
        "recordings": len(entries),
        "clips": sum(len(entry.clips) for entry in entries),
        "frames": sum(entry.num_frames for entry in entries),
    }
