"""A split and the corpora of its source: what stands on each side, and what stands on more than one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from endocorpus.census import Entry, open_all, source_of, take_census
from endocorpus.corpus.splits import SIDES, Leak, Split, assign, check
from endocorpus.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """A split of recordings. `sides` by the name of a unit: none where the split leaves it out."""

    split: Split
    entries: tuple[Entry, ...]
    sides: Mapping[str, tuple[str, ...]]
    leaks: tuple[Leak, ...]

    def unit(self, entry: Entry) -> str:
        """What the split calls the recording."""
        return entry.name if self.split.unit == "recording" else entry.case

    def names(self) -> tuple[str, ...]:
        """The sides that anything stands on, as people read them."""
        found = {side for sides in self.sides.values() for side in sides}
        return tuple(side for side in SIDES if side in found) + tuple(sorted(found - set(SIDES)))

    def on(self, side: str | None) -> dict[str, int]:
        """Units, recordings, clips and frames on one side, or on none."""
        chosen = [
            e for e in self.entries if (side in self.sides[self.unit(e)] if side else not self.sides[self.unit(e)])
        ]
        return {
            "units": len({self.unit(entry) for entry in chosen}),
            "recordings": len(chosen),
            "clips": sum(len(entry.clips) for entry in chosen),
            "frames": sum(entry.num_frames for entry in chosen),
        }

    def left_out(self) -> tuple[str, ...]:
        """Units on no side."""
        return tuple(sorted(unit for unit, sides in self.sides.items() if not sides))

    def clip_rows(self) -> list[dict[str, object]]:
        """Rows of `schema.SIDES`, by side, corpus and key; a clip on no side has none."""
        return [
            {
                "corpus": entry.corpus,
                "key": clip.key,
                "side": side,
                "unit": self.unit(entry),
                "leak_group": entry.group_id,
            }
            for side in self.names()
            for entry in self.entries
            if side in self.sides[self.unit(entry)]
            for clip in entry.clips
        ]


def divide(split: Split, folders: Iterable[Path]) -> Divided:
    """Apply a split to the recordings of some corpora; leaks are counted, whether or not the split is known to leak.

    Raises:
        UsageError: a corpus of another source.
        DataError: a corpus cannot be used.
    """
    corpora = open_all(folders)
    for corpus in corpora:
        if source_of(corpus) != split.source:
            raise UsageError(f"{corpus.root}: holds {source_of(corpus)}, and the split is one of {split.source}")
    entries = take_census(corpora)
    rows = [entry.row() for entry in entries]
    sides = assign(split.model_copy(update={"leaky": True}), rows)
    return Divided(split=split, entries=entries, sides=sides, leaks=check(split, rows))
