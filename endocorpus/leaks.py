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


def shared_sets(source: str) -> tuple[Edge, ...]:
    """What `source` shares with other sets, or within itself, where the cases cannot be matched: for people to read."""
    return tuple(edge for edge in leak_edges() if edge.a_case is None and source in (edge.a_source, edge.b_source))


def _follow(edge: Edge, source: str, name: str) -> str | None:
    if edge.a_case is None or edge.b_case is None or edge.a_source != source:
        return None
    match = edge.a_case.fullmatch(name)
    return fold(match.expand(edge.b_case)) if match else None


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
