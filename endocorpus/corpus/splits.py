"""Splits: which recordings or cases train, which validate, which test. `manifests/splits/<name>.toml`.

A leak group on two sides means that a model is tested on what it was trained on. Published splits that do so are
shipped because published numbers rest on them, and are flagged `leaky`; any other split is refused when it leaks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import xxhash
from pydantic import model_validator

from endocorpus.errors import DataError, UsageError, did_you_mean
from endocorpus.manifests import manifests_folder
from endocorpus.naming import fold
from endocorpus.settings import Settings, load_settings

SIDES = ("train", "val", "test")
SPLITS: tuple[str, ...] = tuple(sorted(path.stem for path in (manifests_folder() / "splits").glob("*.toml")))


class Sides(Settings):
    """Regular expressions over the whole name of a unit, by side."""

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


class Shares(Settings):
    """Shares of the leak groups in per cent, dealt out by a hash of seed and group.

    A group's side depends on nothing else, so it stays when recordings are added, and it is the same in every split
    that has the same seed and shares, whatever the source.
    """

    seed: str
    train: int
    val: int
    test: int

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if min(self.train, self.val, self.test) < 0 or self.train + self.val + self.test != 100:
            raise ValueError("train, val and test are shares in per cent and must add up to 100")
        return self

    def side(self, leak_group: str) -> str:
        """Where this leak group goes."""
        place = xxhash.xxh3_64_intdigest(f"{self.seed}/{leak_group}".encode("utf-8", "surrogateescape")) % 100
        return "train" if place < self.train else "val" if place < self.train + self.val else "test"


class Split(Settings):
    """One split. `by_label`: the side is the code of that label, several joined by ";" where a list repeats a unit."""

    title: str
    task: str
    source: str
    origin: str
    leaky: bool
    note: str
    unit: Literal["recording", "case"]
    by_label: str | None = None
    sides: Sides = Sides()
    by_leak_group: Shares | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        named = any(getattr(self.sides, side) for side in SIDES)
        if (self.by_label is not None) == (named or self.by_leak_group is not None):
            raise ValueError("a split goes either by a label, or by [sides] and [by_leak_group]")
        for pattern in (pattern for side in SIDES for pattern in getattr(self.sides, side)):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a split looks at: one recording, by the names that its source's layout gives it."""

    recording: str
    case: str
    leak_group: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A leak group on several sides, and which units of each side belong to it."""

    leak_group: str
    units: Mapping[str, tuple[str, ...]]


def load_split(name: str) -> Split:
    """One of `SPLITS`.

    Raises:
        UsageError: no such split, or its file is malformed.
    """
    if name not in SPLITS:
        raise UsageError(f"no split {name!r}{did_you_mean(name, SPLITS)}")
    return load_settings(Split, manifests_folder() / "splits" / f"{name}.toml")


def assign(split: Split, rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """The sides of every unit, by its name; empty where the split leaves the unit out.

    Args:
        rows: recordings of the split's source.

    Raises:
        DataError: a leak group lies on several sides, and the split does not say that it leaks.
    """
    sides = _sides(split, rows)
    leaks = _leaks(split, rows, sides)
    if leaks and not split.leaky:
        first = leaks[0]
        places = "; ".join(f"{side}: {', '.join(units)}" for side, units in first.units.items())
        raise DataError(
            f"split {split.title!r}: {len(leaks)} leak groups lie on several sides, such as {first.leak_group!r} "
            f"({places}); use a split by leak group for this data"
        )
    return sides


def check(split: Split, rows: Sequence[Row]) -> tuple[Leak, ...]:
    """The leak groups that lie on more than one side, in the order of their names. Flagged or not, all are counted."""
    return _leaks(split, rows, _sides(split, rows))


def _sides(split: Split, rows: Iterable[Row]) -> dict[str, tuple[str, ...]]:
    units: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        units[_unit(split, row)].append(row)
    if split.by_label is not None:
        return {unit: _labelled(split.by_label, members) for unit, members in units.items()}
    named = {unit: _named(split.sides, unit) for unit in units}
    if split.by_leak_group is None:
        return named
    # A group that a pattern names a part of stays whole: its other units follow.
    groups: dict[str, set[str]] = defaultdict(set)
    for unit, members in units.items():
        for row in members:
            groups[row.leak_group] |= set(named[unit])
    shares = split.by_leak_group
    return {
        unit: named[unit]
        or _ordered(side for row in members for side in groups[row.leak_group] or {shares.side(row.leak_group)})
        for unit, members in units.items()
    }


def _unit(split: Split, row: Row) -> str:
    return row.recording if split.unit == "recording" else row.case


def _labelled(label: str, rows: Iterable[Row]) -> tuple[str, ...]:
    return _ordered(side for row in rows for side in row.labels.get(label, "").split(";") if side)


def _named(sides: Sides, unit: str) -> tuple[str, ...]:
    name = fold(unit)
    return tuple(side for side in SIDES if any(re.fullmatch(pattern, name) for pattern in getattr(sides, side)))


def _ordered(sides: Iterable[str]) -> tuple[str, ...]:
    found = set(sides)
    return tuple(side for side in SIDES if side in found) + tuple(sorted(found - set(SIDES)))


def _leaks(split: Split, rows: Iterable[Row], sides: Mapping[str, tuple[str, ...]]) -> tuple[Leak, ...]:
    groups: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        unit = _unit(split, row)
        for side in sides[unit]:
            groups[row.leak_group][side].add(unit)
    return tuple(
        Leak(leak_group=group, units={side: tuple(sorted(found[side])) for side in _ordered(found)})
        for group, found in sorted(groups.items())
        if len(found) > 1
    )
