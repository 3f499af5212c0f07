"""The recordings of one or more finished corpora, by the names that splits, mixtures and leak edges go by.

Inside a corpus a leak group is an id, and recordings that share bytes or an examination have one. Here groups have
their names again ("source/case"), so that a split deals them out as it would without any corpus; and corpora are held
against each other, so that groups that are one in any of them are one in all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc

from endocorpus.corpus.manifest import Corpus, named_corpus
from endocorpus.corpus.splits import Row
from endocorpus.errors import DataError
from endocorpus.leaks import leak_group

READY = "ready"  # other states are tombstones


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What is chosen: one clip of a recording. `digest` is the xxh3-128 of its video, 32 hex digits."""

    key: str
    num_frames: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One recording of a corpus. `name` and `case` are its ids where the source is private.

    `own_group` is the group that edges give its case; `group` that of the corpus, in which several own groups may be
    one; `component` the same over all corpora that were read together, and `common_group` the first of the groups that
    its source has in the component: the name under which a split deals all of them out.
    """

    corpus: str
    source: str
    recording_id: str
    name: str
    case: str
    group_id: str
    own_group: str
    group: str
    labels: Mapping[str, tuple[str, ...]]  # codes by the label's name
    clips: tuple[Clip, ...]
    media: str | None = None  # xxh3-128 of its files, 32 hex digits; None where the source is private
    links: tuple[str, ...] = ()  # hashes of what joins recordings of one source
    others_lost: bool = False  # whether other recordings were left out of its corpus
    component: int = -1
    common_group: str = ""

    @property
    def published(self) -> bool:
        """Whether its name means the same in every corpus; names that an owner gives mean nothing outside his own."""
        return "/" in self.own_group  # the groups of an owner's recordings are ids

    @property
    def num_frames(self) -> int:
        return sum(clip.num_frames for clip in self.clips)

    def row(self) -> Row:
        """The recording as a split looks at it."""
        labels = {name: ";".join(codes) for name, codes in self.labels.items()}
        return Row(recording=self.name, case=self.case, leak_group=self.common_group or self.group, labels=labels)


def open_all(folders: Iterable[Path]) -> tuple[Corpus, ...]:
    """Finished corpora, in the order of their names.

    Raises:
        UsageError: a folder is missing or is no corpus.
        DataError: one is not finished, or two have one name.
    """
    return refuse_twins(sorted(map(named_corpus, folders), key=lambda corpus: corpus.name))


def refuse_twins(corpora: Iterable[Corpus]) -> tuple[Corpus, ...]:
    """`corpora`, each once; a `DataError` if two have one name, so that their keys cannot be told apart."""
    seen: dict[str, Corpus] = {}
    for corpus in corpora:
        if corpus.name in seen and not corpus.root.samefile(seen[corpus.name].root):
            raise DataError(
                f"corpus {corpus.name!r} is named twice: {seen[corpus.name].root} and {corpus.root}; if they are two, "
                "build one of them again under another --name"
            )
        seen.setdefault(corpus.name, corpus)
    return tuple(seen.values())


def take_census(corpora: Sequence[Corpus]) -> tuple[Entry, ...]:
    """All recordings of `corpora` that have clips, by corpus and id.

    Raises:
        DataError: a table is missing or damaged.
    """
    return _join([entry for corpus in corpora for entry in _members(corpus)])


def source_of(corpus: Corpus) -> str:
    """The name of the source that a corpus was built from."""
    return str(corpus.descriptor["source"]["name"])


def _members(corpus: Corpus) -> list[Entry]:
    clips: dict[str, list[Clip]] = defaultdict(list)
    table = corpus.clips()
    columns = ("recording_id", "key", "num_frames", "mp4_xxh3_128")
    for row in table.filter(pc.equal(table["status"], READY)).select(list(columns)).to_pylist():
        recording, key, num_frames, digest = (row[column] for column in columns)
        clips[recording].append(Clip(key=key, num_frames=num_frames, digest=digest))
    rows = [row for row in corpus.table("recordings").to_pylist() if row["recording_id"] in clips]
    source = corpus.descriptor["source"]
    published = source["privacy"] == "public" and source["vouched_by"] == "provider"  # an owner's names are his own
    own = {
        row["recording_id"]: leak_group(row["source"], row["case_name"]) if published else str(row["leak_group"])
        for row in rows
    }
    return [
        Entry(
            corpus=corpus.name,
            source=row["source"],
            recording_id=row["recording_id"],
            name=row["name"] or row["recording_id"],
            case=row["case_name"] or row["case_id"],
            group_id=row["leak_group"],
            own_group=own[row["recording_id"]],
            group=row["leak_group_name"] or row["leak_group"],
            labels=_codes(row["labels"]),
            clips=tuple(sorted(clips[row["recording_id"]], key=lambda clip: clip.key)),
            media=row["media_xxh3_128"],
            links=tuple(row["links"] or ()),
            others_lost=corpus.descriptor["counts"]["excluded_recordings"] > 0,
        )
        for row in sorted(rows, key=lambda row: str(row["recording_id"]))
    ]


def _codes(labels: Iterable[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        if label["value"]:
            found[label["name"]].add(label["value"])
    return {name: tuple(sorted(codes)) for name, codes in sorted(found.items())}


def _join(found: Sequence[Entry]) -> tuple[Entry, ...]:
    """Number the components: recordings with a group, a link, their files' bytes or a clip's in common, in
    however many steps.

    Clips tell of private sources, too; files, of recordings that were cut otherwise; links, of examinations whose
    recordings lie in several corpora.

    A group of an owner's corpus is an id that begins with the corpus's name, so it never meets another corpus's.
    """
    parents: dict[str, str] = {}

    def root(node: str) -> str:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = parents[parent] = parents.setdefault(parent, parent)
            node = parents[node]
        return node

    for entry in found:
        first = root(entry.group)
        files = () if entry.media is None else (f"media {entry.media}",)
        links = (f"link {entry.source} {link}" for link in entry.links)
        for other in (entry.own_group, *files, *links, *(f"clip {clip.digest}" for clip in entry.clips)):
            parents[root(other)] = first = root(first)
    numbers: dict[str, int] = {}
    components = [numbers.setdefault(root(entry.group), len(numbers)) for entry in found]
    common: dict[tuple[int, str], str] = {}
    for entry, component in zip(found, components, strict=True):
        place = component, entry.source
        common[place] = min(common.get(place, entry.group), entry.group)
    return tuple(
        replace(entry, component=component, common_group=common[component, entry.source])
        for entry, component in zip(found, components, strict=True)
    )
