"""What recordings of different sources, or of one source, share: `manifests/leak_edges.csv`, and the groups it makes.

A splitter that separates cases but not leak groups tests on what it trained on. An edge leads from a case to the case
that its pictures come from. Following the edges to their end names the group of a case, and every case of a group ends
at the same name. Edges that nobody has verified count too: a group that is too large costs little, a leak much.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Literal, get_args

from endocorpus.errors import DataError
from endocorpus.manifests import manifests_folder
from endocorpus.naming import fold

Kind = Literal["identical", "contains", "overlaps", "same-case"]
Certainty = Literal["verified", "computed", "third-party", "unverified"]
CERTAINTIES: tuple[Certainty, ...] = get_args(Certainty)
"""From the surest to the least sure."""
_COLUMNS = ["a_source", "a_case", "b_source", "b_case", "kind", "certainty", "evidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Cases of `a_source` share pictures with cases of `b_source`.

    `a_case` is a regular expression over the whole folded name of a case, `b_case` the template of the other case's
    name. Both are None where only the sets are known to share something.
    """

    a_source: str
    a_case: re.Pattern[str] | None
    b_source: str
    b_case: str | None
    kind: Kind
    certainty: Certainty
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A case that edges put into a group. `case` is None where the edge does not tell its name: any case of `source`
    may be meant. `edges` lead from it to the group's end."""

    source: str
    case: str | None
    edges: tuple[Edge, ...]


def load_edges(path: Path) -> tuple[Edge, ...]:
    """Read and check a table of edges.

    Raises:
        DataError: a column, kind, certainty or pattern is wrong, or edges lead round in a circle.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        if reader.fieldnames != _COLUMNS:
            raise DataError(f"{path}: the columns must be {','.join(_COLUMNS)}")
        edges = tuple(_edge(f"{path}: line {reader.line_num}", row) for row in reader)
    _refuse_circles(path, edges)
    return edges


@cache
def leak_edges() -> tuple[Edge, ...]:
    """The edges that ship with the package."""
    return load_edges(manifests_folder() / "leak_edges.csv")


def leak_group(source: str, case: str, edges: Iterable[Edge] | None = None) -> str:
    """The name of the group that a case belongs to: "source/case" of the case where its edges end.

    Names are folded as ids are, so cases that share an id share a group.

    Args:
        case: the case's name before it becomes an id, such as "pos-case1".
        edges: other edges than those that ship with the package.

    Raises:
        DataError: edges lead from one case to two others.
    """
    edges = leak_edges() if edges is None else tuple(edges)
    name = fold(case)
    while ends := {(edge.b_source, there) for edge in edges if (there := _follow(edge, source, name)) is not None}:
        if len(ends) > 1:
            raise DataError(f"leak_edges.csv: {source}/{name} leads to several cases: {sorted(ends)}; keep one")
        ((source, name),) = ends
    return f"{source}/{name}"


def members(group: str, edges: Iterable[Edge] | None = None) -> tuple[Member, ...]:
    """Every case that can stand in a group as far as edges tell, whether or not anybody has it; the end comes first.

    Args:
        group: as `leak_group` names it.
        edges: other edges than those that ship with the package.
    """
    edges = leak_edges() if edges is None else tuple(edges)
    source, _, case = group.partition("/")
    found = [Member(source=source, case=case, edges=())]
    seen = {(source, found[0].case)}
    for member in found:  # grows while it is walked
        for edge in edges:
            for before in _before(edge, member):
                if (edge.a_source, before) not in seen:
                    seen.add((edge.a_source, before))
                    found.append(Member(source=edge.a_source, case=before, edges=(edge, *member.edges)))
    return tuple(found)


def path_to_end(source: str, case: str, edges: Iterable[Edge] | None = None) -> tuple[Edge, ...]:
    """The edges that lead from a case to the end of its group; none if it is the end."""
    edges = leak_edges() if edges is None else tuple(edges)
    name, path = fold(case), []
    while step := next(((e, there) for e in edges if (there := _follow(e, source, name)) is not None), None):
        path.append(step[0])
        source, name = step[0].b_source, step[1]
    return tuple(path)


def origins(source: str, edges: Iterable[Edge] | None = None) -> frozenset[str]:
    """`source`, and the sources that pictures of its cases come from."""
    edges = leak_edges() if edges is None else tuple(edges)
    found = {source}
    while more := {e.b_source for e in edges if e.a_case is not None and e.a_source in found} - found:
        found |= more
    return frozenset(found)


def shared_sets(source: str) -> tuple[Edge, ...]:
    """What `source` shares with other sets, or within itself, where the cases cannot be matched: for people to read."""
    return tuple(edge for edge in leak_edges() if edge.a_case is None and source in (edge.a_source, edge.b_source))


def _follow(edge: Edge, source: str, name: str) -> str | None:
    if edge.a_case is None or edge.b_case is None or edge.a_source != source:
        return None
    match = edge.a_case.fullmatch(name)
    return fold(match.expand(edge.b_case)) if match else None


def _before(edge: Edge, member: Member) -> tuple[str | None, ...]:
    """The name of the case that `edge` leads from to `member`: () if there is none, (None,) if it cannot be told.

    Told are patterns that are a plain name, or one group between plain parts whose template is that group between
    plain parts; whatever is told has been followed back.
    """
    if edge.a_case is None or edge.b_case is None or edge.b_source != member.source:
        return ()
    if member.case is None:
        return (None,)
    plain = r"[\w-]*"
    ends = re.fullmatch(rf"({plain})\\1({plain})", edge.b_case)
    around = re.fullmatch(rf"({plain})\((?!\?)(.*)\)({plain})", edge.a_case.pattern)
    if ends is None:
        if "\\" not in edge.b_case and fold(edge.b_case) != member.case:
            return ()
        name = edge.a_case.pattern if re.fullmatch(plain, edge.a_case.pattern) else None
    else:
        first, last = (fold(part) for part in ends.groups())
        inner = member.case.removeprefix(first).removesuffix(last)
        if first + inner + last != member.case:
            return ()
        name = f"{around[1]}{inner}{around[3]}" if around is not None and _is_pattern(around[2]) else None
    if name is None:
        return (None,)
    return (name,) if _follow(edge, edge.a_source, name) == member.case else ()


def _is_pattern(text: str) -> bool:
    """Whether this stands alone as a regular expression: what is between the brackets of `(a)(b)` does not."""
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _edge(where: str, row: dict[str, str]) -> Edge:
    kind = next((k for k in get_args(Kind) if k == row["kind"]), None)
    certainty = next((c for c in get_args(Certainty) if c == row["certainty"]), None)
    if kind is None or certainty is None or not row["evidence"]:
        raise DataError(f"{where}: kind, certainty or evidence is missing or not one of the known words")
    if (row["a_case"] == "*") != (row["b_case"] == "*"):
        raise DataError(f"{where}: an edge joins two cases or two whole sets, not one of each")
    whole = row["a_case"] == "*"
    try:
        pattern = None if whole else re.compile(row["a_case"])
    except re.error as error:
        raise DataError(f"{where}: a_case is not a regular expression: {error}") from None
    return Edge(
        a_source=row["a_source"],
        a_case=pattern,
        b_source=row["b_source"],
        b_case=None if whole else row["b_case"],
        kind=kind,
        certainty=certainty,
        evidence=row["evidence"],
    )


def _refuse_circles(path: Path, edges: Iterable[Edge]) -> None:
    """Between sources no path may lead back; within a source an edge must end at a case that no such edge leaves."""
    cases = [edge for edge in edges if edge.a_case]
    within = [edge for edge in cases if edge.a_source == edge.b_source]
    graph: dict[str, set[str]] = {}
    for edge in cases:
        if edge not in within:
            graph.setdefault(edge.a_source, set()).add(edge.b_source)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise DataError(f"{path}: edges lead round in a circle: {' -> '.join(error.args[1])}") from None
    for edge in within:
        end = edge.b_case or ""
        if "\\" in end or any(_follow(other, edge.b_source, fold(end)) is not None for other in within):
            raise DataError(f"{path}: {edge.a_source}: an edge within a source must end at one case that has no edge")
