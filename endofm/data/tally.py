"""What a run has trained on so far: clips seen of each corpus, and those that could not be used."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path

from endofm.data.clips import ClipSet
from endofm.data.quarantine import Quarantine, Replaced, most_bad_clips
from endofm.data.settings import DataConfig
from endofm.data.views import ClipBatch
from endofm.distributed import World, agreed, gathered

_SEEN = "clips_seen/"
_BAD = "bad_clips"


def counted(batch: ClipBatch, clips: ClipSet) -> dict[str, float]:
    """What one process adds to the counts of a step: measures whose mean over all processes `Tally` takes."""
    seen = Counter(batch.corpora)
    places = {one.position for one in batch.replaced}  # a substitute that was bad as well is told of the same one
    return {f"{_SEEN}{name}": float(seen[name]) for name, _ in clips.corpora} | {_BAD: float(len(places))}


class Tally:
    """Counts over the steps of a run, as if it had never been interrupted; equal on all processes."""

    def __init__(self, run_dir: Path, clips: ClipSet, world: World, start_step: int, data: DataConfig) -> None:
        """Go on from what the run's metrics and quarantine say of the steps before `start_step`."""
        self._world_size = world.size
        self._seen, rows = agreed(_seen_before(run_dir / "metrics.jsonl", start_step))
        self.lost = start_step - rows
        """Steps done before of which there is no row."""
        self._most = most_bad_clips(data.bad_clips_allowed, len(clips))
        self._quarantine = Quarantine(
            run_dir / "quarantine.jsonl", start_step=start_step, most=self._most, writes=world.is_main
        )

    def note(self, step: int, row: MutableMapping[str, float], replaced: Sequence[Replaced]) -> list[str]:
        """Turn the means of `counted` in a metrics row into sums over the run, and write down what was replaced.

        `bad_clips` becomes the number of different clips that turned out bad so far.

        Args:
            step: its number; each process must call for every one, in order.
            row: of the step, equal on all processes; changed in place.
            replaced: by this process.

        Returns:
            What to tell the user: nothing, if all clips of the step were sound.

        Raises:
            DataError: more clips are bad than may be.
        """
        for name in [name for name in row if name.startswith(_SEEN)]:
            self._seen[name] += round(row[name] * self._world_size)
            row[name] = float(self._seen[name])
        count = round(row[_BAD] * self._world_size)
        if not count:
            row[_BAD] = float(len(self._quarantine))
            return []
        everywhere = sorted(gathered(replaced))  # all processes know of them, so all of them gather
        self._quarantine.add(step, everywhere)
        row[_BAD] = float(len(self._quarantine))
        told = (
            f"{count} clip{'s' if count > 1 else ''} replaced; different bad ones so far: {len(self._quarantine)}, "
            f"allowed: {self._most}; the last: {everywhere[-1].reason}"
        )
        return [told]


def _seen_before(metrics: Path, start_step: int) -> tuple[Counter[str], int]:
    """Clips seen of each corpus, and how many rows there are."""
    last: dict[str, float] = {}
    rows = 0
    for row in _rows(metrics):
        if row.get("step", start_step) >= start_step:
            break
        last, rows = row, rows + 1
    return Counter({name: round(value) for name, value in last.items() if name.startswith(_SEEN)}), rows


def _rows(metrics: Path) -> Iterator[dict[str, float]]:
    if not metrics.exists():
        return
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):  # a crash can leave a torn line; nothing after it is kept
            return
        yield row
