"""What a training set must not hold: the recordings of a source, or of one side of a split, wherever else they stand.

What edges say counts whatever its certainty, and needs no corpus of the source in question: the edges give the names
that its cases may have. A case counts as held out until something says that it stands on other sides only: the names
that its recordings can have, where the split goes by names, or a list, where it goes by lists. What corpora of the
source know beyond the edges counts too: their own leak groups, and files or clips of equal bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from endocorpus.census import Entry
from endocorpus.corpus.splits import SIDES, SPLITS, Row, Split, assign, load_split
from endocorpus.errors import UsageError, did_you_mean
from endocorpus.leaks import CERTAINTIES, Certainty, Edge, Kind, Member, members, origins, path_to_end, shared_sets
from endocorpus.naming import fold
from endocorpus.sources import SOURCES, load_source
from endocorpus.sources.layout import FrameFolders, Videos
from endocorpus.vocabulary import load_vocabulary

WHOLE_SET: tuple[Kind, ...] = ("identical", "contains")
"""Kinds of edges between whole sets that leave no case in doubt; the others leave open which cases are meant."""
_UNLISTED = "it may be held out itself: no list at hand puts it on another side"
_ONE_GROUP = "The corpora put them into one leak group: equal bytes, or one examination."


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What is to be kept out of training. `spelt` is how it was asked for; without a split it is the whole source."""

    spelt: str
    source: str
    split: Split | None = None
    sides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Why a recording must not train: which held-out data it shows, through which case, and who says so."""

    of: str
    kind: Kind | Literal["itself", "group"]
    certainty: Certainty | None
    evidence: str
    through: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Held-out data together with what corpora tell about it.

    `sides` are those of the cases of which they are known; any other case of the source may be held out. `components`
    are the numbers that `take_census` gave the held-out recordings at hand, with the name of one of each.
    """

    held: HeldOut
    sides: Mapping[str, frozenset[str]] = field(default_factory=dict)  # by folded name of the case
    lists_at_hand: bool = False  # whether a corpus has recordings on each of the sides that are held out
    components: Mapping[int, str] = field(default_factory=dict)


def held_out(spelt: str) -> HeldOut:
    """Read "SOURCE", "SPLIT" (its test side) or "SPLIT:SIDE".

    Raises:
        UsageError: neither a source nor a split, or a side that the split does not have.
    """
    name, colon, side = spelt.partition(":")
    if name in SOURCES and not colon:
        return HeldOut(spelt=spelt, source=name)
    if name not in SPLITS:
        if name in SOURCES:
            raise UsageError(f"--without-leaks {spelt}: a source has no sides; say {name}, or name a split")
        hint = did_you_mean(name, (*SOURCES, *SPLITS))
        raise UsageError(f"--without-leaks {spelt}: neither a source nor a split{hint}")
    split = load_split(name)
    known = sides_of(split)
    sides = (side,) if colon else tuple(each for each in known if each.startswith("test"))
    if not sides or not set(sides) <= set(known):
        choice = " or ".join(f"{name}:{each}" for each in known)
        problem = f"no side {side!r}" if colon else "no side whose name begins with test"
        raise UsageError(f"--without-leaks {spelt}: the split has {problem}; say {choice}")
    return HeldOut(spelt=spelt, source=split.source, split=split, sides=sides)


def sides_of(split: Split) -> tuple[str, ...]:
    """The names of a split's sides."""
    if split.by_label is None:
        return SIDES
    return tuple(dict.fromkeys(load_vocabulary(split.source).codes.get(split.by_label, {}).values())) or SIDES


def watch(held: HeldOut, entries: Iterable[Entry]) -> Watch:
    """Learn from the recordings of the source, in whatever corpus they are."""
    of_source = [entry for entry in entries if entry.source == held.source]
    sides: Mapping[str, frozenset[str]] = {}
    listed = False
    if held.split is not None and held.split.by_label is not None:
        sides, listed = _sides_by_list(held, held.split, of_source)
    elif held.split is not None:
        sides = _sides_by_name(held.split, [(fold(entry.case), entry.row().leak_group) for entry in of_source])
    return Watch(
        held=held,
        sides=sides,
        lists_at_hand=listed,
        components={
            entry.component: f"{entry.corpus}: {entry.recording_id}"
            for entry in reversed(of_source)
            if held.split is None or sides.get(fold(entry.case), set(held.sides)) & set(held.sides)
        },
    )


def case_leaks(watched: Watch, entry: Entry, own_groups: Sequence[str]) -> Finding | None:
    """Whether a recording can show held-out data, by its groups.

    Args:
        own_groups: those of all recordings in the entry's component; its own is looked at first.
    """
    held = watched.held
    found = [
        _by_edges(watched, entry, member, group)
        for group in sorted(own_groups, key=lambda group: (group != entry.own_group, group))
        for member in members(group)
        if member.source == held.source and _may_be_held(watched, member, group)
    ]
    if found:
        return min(found, key=lambda finding: CERTAINTIES.index(finding.certainty) if finding.certainty else -1)
    if entry.component in watched.components:
        return Finding(
            of=held.spelt,
            kind="group",
            certainty="computed",
            evidence=_ONE_GROUP,
            through=watched.components[entry.component],
        )
    return None


def set_leaks(held: HeldOut, source: str) -> tuple[Finding, ...]:
    """What edges between whole sets say about all recordings of a source: what leaves no doubt first."""
    homes = origins(held.source)
    found = [
        Finding(of=held.spelt, kind=edge.kind, certainty=edge.certainty, evidence=f"{_ends(edge)}: {edge.evidence}")
        for edge in shared_sets(source)
        if (edge.b_source if edge.a_source == source else edge.a_source) in homes
    ]
    return tuple(sorted(found, key=lambda finding: finding.kind not in WHOLE_SET))


def unknown_sides(watched: Watch) -> bool:
    """Whether lists would tell which cases are held out, and none at hand does: any case has to be taken for one."""
    split = watched.held.split
    return split is not None and split.by_label is not None and not watched.lists_at_hand


def _sides_by_list(held: HeldOut, split: Split, entries: Iterable[Entry]) -> tuple[dict[str, frozenset[str]], bool]:
    """The sides that lists tell, by folded name of the case, and whether any corpus has the lists that are needed.

    A corpus that has no recording on one of the held-out sides may lack its list, and the list of another corpus may
    be of other recordings: such a corpus can say that a case is held out, and never that one is not. Nor can one that
    lost recordings, where a case has several. Where a list does not name a case, that says nothing.
    """
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    lost: set[str] = set()
    for entry in entries:
        found[entry.corpus][fold(entry.case)] |= set(entry.labels.get(split.by_label or "", ()))
        if entry.others_lost and _units(split, fold(entry.case)) is None:
            lost.add(entry.corpus)
    told: dict[str, set[str]] = defaultdict(set)
    listed = False
    for corpus, cases in found.items():
        knows = corpus not in lost and set(held.sides) <= set().union(*cases.values())
        listed |= knows
        for case, sides in cases.items():
            told[case] |= sides if knows else sides & set(held.sides)
    return {case: frozenset(sides) for case, sides in told.items() if sides}, listed


def _sides_by_name(split: Split, cases: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    """The sides of cases, given with the leak groups that they are dealt out by; of those whose names tell them.

    All cases of a group have to be asked together, because a pattern takes its whole group along.
    """
    cases = list(cases)
    units = {case: found for case, _ in cases if (found := _units(split, case)) is not None}
    rows = [Row(recording=unit, case=case, leak_group=group) for case, group in cases for unit in units.get(case, ())]
    assigned = assign(_unchecked(split), rows)
    return {case: frozenset(side for unit in found for side in assigned[unit]) for case, found in units.items()}


def _units(split: Split, case: str) -> tuple[str, ...] | None:
    """All names that a split may have for a case: its own, or those of the recordings that it can have, at hand or
    not. None where the name of a recording says more than that of its case."""
    if split.unit == "case":
        return (case,)
    names: dict[str, None] = {}
    for rule in load_source(split.source).layout:
        if isinstance(rule, Videos | FrameFolders):
            before, inside, after = rule.recording.partition(rule.case)
            if not inside or "{" in before + after:
                return None
            names[before + case + after] = None
    return tuple(names)


def _may_be_held(watched: Watch, member: Member, group: str) -> bool:
    split, sides = watched.held.split, set(watched.held.sides)
    if split is None or member.case is None:
        return True
    told = watched.sides
    if member.case not in told and split.by_label is None:
        names = [each.case for each in members(group) if each.source == split.source and each.case is not None]
        told = _sides_by_name(split, [(name, group) for name in names])
    return bool(told.get(member.case, sides) & sides)


def _unchecked(split: Split) -> Split:
    """A split that leaks still says what is tested on."""
    return split.model_copy(update={"leaky": True})


def _by_edges(watched: Watch, entry: Entry, member: Member, group: str) -> Finding:
    held, own = watched.held, entry.own_group == group
    path = dict.fromkeys((*member.edges, *(path_to_end(entry.source, entry.case) if own else ())))
    there = f"{member.source}/{member.case or '*'}"
    if own and (member.source, member.case) == (entry.source, fold(entry.case)):
        unlisted = held.split is not None and held.split.by_label is not None and member.case not in watched.sides
        evidence = _UNLISTED if unlisted else "it is held out itself"
        return Finding(of=held.spelt, kind="itself", certainty=None, evidence=evidence, through=there)
    said = [edge.evidence for edge in path] + ([] if own and path else [_ONE_GROUP])
    return Finding(
        of=held.spelt,
        kind=next(iter(path)).kind if path else "group",
        certainty=max((edge.certainty for edge in path), key=CERTAINTIES.index, default="computed"),
        evidence=" ".join(said),
        through=there,
    )


def _ends(edge: Edge) -> str:
    return f"{edge.a_source} {edge.kind} {edge.b_source}"
