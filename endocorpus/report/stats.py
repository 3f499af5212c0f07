"""Statistics of a corpus as plain values that add: those of two corpora without a common recording are the sum.

Everything is an integer count over fixed keys or fixed bins, so sums are exact and their order does not matter. Means
and percentages are left to whoever shows them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from endocorpus.corpus.manifest import Corpus

_MICRO = 1_000_000
_MEDIA = ("recordings", "clips", "frames", "microseconds")

LENGTH_EDGES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 30.0, 60.0, math.inf)  # seconds
BRIGHTNESS_EDGES = tuple(16.0 * i for i in range(17))  # mean luma, 0..255
# Variance of the Laplacian spans orders of magnitude: each bin is twice as wide as the one before.
SHARPNESS_EDGES = (0.0, *(float(2**i) for i in range(2, 14)), math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Integer sums by key: `rows` maps one value for each name of `by` to one sum for each name of `of`."""

    by: tuple[str, ...]
    of: tuple[str, ...]
    rows: Mapping[tuple[str | int, ...], tuple[int, ...]]

    def __add__(self, other: Table) -> Table:
        if (self.by, self.of) != (other.by, other.of):
            raise ValueError(f"tables of {self.by} by {self.of} and of {other.by} by {other.of} do not add")
        rows = dict(self.rows)
        for key, values in other.rows.items():
            rows[key] = tuple(a + b for a, b in zip(rows.get(key, (0,) * len(values)), values, strict=True))
        return Table(by=self.by, of=self.of, rows=dict(sorted(rows.items())))

    def records(self) -> list[dict[str, str | int]]:
        """The rows by name, in the order of their keys."""
        return [dict(zip((*self.by, *self.of), (*key, *sums), strict=True)) for key, sums in self.rows.items()]

    def to_json(self) -> list[dict[str, str | int | float]]:
        """The rows by name; durations in seconds."""
        return [dict(_seconds(name, value) for name, value in record.items()) for record in self.records()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of values in the bins between `edges`, and the lowest and highest value seen.

    An edge belongs to the bin below it: lengths are cut to whole seconds, and 5 s are read as the end of "4 to 5 s".
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    lowest: float | None = None
    highest: float | None = None

    def __add__(self, other: Histogram) -> Histogram:
        if self.edges != other.edges:
            raise ValueError("histograms with different bins do not add")
        ends = [end for end in (self.lowest, self.highest, other.lowest, other.highest) if end is not None]
        return Histogram(
            edges=self.edges,
            counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            lowest=min(ends, default=None),
            highest=max(ends, default=None),
        )

    def to_json(self) -> dict[str, Any]:
        """Bins by their edges; an open last bin ends at null, because JSON has no infinity."""
        edges = [edge if math.isfinite(edge) else None for edge in self.edges]
        return {"edges": edges, "counts": list(self.counts), "lowest": self.lowest, "highest": self.highest}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a corpus holds. Durations are in microseconds, sizes in bytes; frames count those of kept recordings."""

    files_found: int
    files_kept: int
    files_sidecar: int
    files_excluded: int
    recordings: int
    recordings_excluded: int
    cases: int
    clips: int
    frames: int
    clip_frames: int  # equal to `frames`, or something is wrong
    microseconds: int
    source_bytes: int
    shards: int
    shard_bytes: int
    media: Table
    cases_by_basis: Table
    sizes: Table
    rates: Table
    codecs: Table
    labels: Table
    annotations: Table
    reasons: Table
    cleared: Table
    looked_for: Table
    removed: Table
    doubts: Table
    clip_seconds: Histogram
    brightness: Histogram
    sharpness: Histogram

    def __add__(self, other: Stats) -> Stats:
        """The statistics of two corpora that share neither a recording nor a case."""
        return Stats(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def to_json(self) -> dict[str, Any]:
        """All of it in JSON's own types; durations in seconds."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            name, value = _seconds(f.name, value) if isinstance(value, int) else (f.name, value.to_json())
            out[name] = value
        return out


def _seconds(name: str, value: str | int) -> tuple[str, str | int | float]:
    return ("seconds", int(value) / _MICRO) if name == "microseconds" else (name, value)


def compute(corpus: Corpus) -> Stats:
    """The statistics of one corpus, from its tables and its descriptor; no shard is opened.

    Raises:
        DataError: a table is missing or damaged.
    """
    recordings, clips = _recordings(corpus), _clips(corpus)
    excluded = _frame(corpus, "excluded", ("unit", "reason", "files", "frames"))
    excluded = excluded.assign(exclusions=1, recordings=(excluded["unit"] == "recording").astype(int))
    counts, shards = corpus.descriptor["counts"], corpus.descriptor["shards"]
    cases = recordings.drop_duplicates("case_id").assign(cases=1)
    return Stats(
        files_found=int(counts["files"]),
        files_kept=int(recordings["num_files"].sum()),
        files_sidecar=sum(counts["sidecars"].values()),
        files_excluded=int(excluded["files"].sum()),
        recordings=len(recordings),
        recordings_excluded=int(excluded["recordings"].sum()),
        cases=len(cases),
        clips=len(clips),
        frames=int(recordings["frames"].sum()),
        clip_frames=int(clips["num_frames"].sum()),
        microseconds=int(recordings["microseconds"].sum()),
        source_bytes=int(recordings["bytes"].sum()),
        shards=len(shards),
        shard_bytes=sum(int(shard["size"]) for shard in shards),
        media=_table(recordings, ("media_kind",), _MEDIA),
        cases_by_basis=_table(cases, ("case_basis",), ("cases",)),
        sizes=_table(recordings, ("width", "height"), _MEDIA),
        rates=_table(recordings, ("rate", "capture_rate", "variable_rate"), _MEDIA),
        codecs=_table(recordings, ("codec", "container"), _MEDIA),
        labels=_labels(corpus),
        annotations=_annotations(corpus),
        reasons=_table(excluded, ("reason",), ("exclusions", "recordings", "files", "frames")),
        **_deid(corpus),
        clip_seconds=histogram(clips["seconds"], LENGTH_EDGES),
        brightness=histogram(clips["quality.mean_luma"], BRIGHTNESS_EDGES),
        sharpness=histogram(clips["quality.sharpness"], SHARPNESS_EDGES),
    )


def histogram(values: Iterable[float], edges: Sequence[float]) -> Histogram:
    """Count values into the bins between rising `edges`; those beyond either end join the outer bins."""
    seen = [float(value) for value in values]
    counts = [0] * (len(edges) - 1)
    for value in seen:
        counts[min(max(bisect_left(edges, value) - 1, 0), len(counts) - 1)] += 1
    return Histogram(
        edges=tuple(edges), counts=tuple(counts), lowest=min(seen, default=None), highest=max(seen, default=None)
    )


def _frame(corpus: Corpus, table: str, columns: tuple[str, ...]) -> pd.DataFrame:
    frame = corpus.table(table).select(list(columns)).to_pandas()
    assert isinstance(frame, pd.DataFrame)
    return frame


def _recordings(corpus: Corpus) -> pd.DataFrame:
    """One row per kept recording, with a one to count it by and its duration in whole microseconds."""
    facts = ("num_files", "case_id", "case_basis", "bytes", "media_kind", "width", "height", "codec", "container")
    rates = ("num_frames", "rate_num", "rate_den", "capture_rate_num", "capture_rate_den")
    frame = _frame(corpus, "recordings", (*facts, "variable_rate", "num_clips"))
    timing = corpus.table("recordings").select(list(rates)).to_pylist()  # Python's integers: no overflow
    return frame.assign(
        recordings=1,
        clips=frame["num_clips"],
        frames=[row["num_frames"] for row in timing],
        rate=[_rate(row["rate_num"], row["rate_den"]) for row in timing],
        capture_rate=[_rate(row["capture_rate_num"], row["capture_rate_den"]) for row in timing],
        microseconds=[_microseconds(row) for row in timing],
    )


def _microseconds(row: Mapping[str, int | None]) -> int:
    """Duration in the time of the examination, which the container's rate may hide."""
    rate = "capture_rate" if row["capture_rate_num"] else "rate"
    frames, num, den = row["num_frames"] or 0, row[f"{rate}_num"] or 1, row[f"{rate}_den"] or 1
    return (frames * den * _MICRO + num // 2) // num


def _rate(num: int | None, den: int | None) -> str:
    """Frames per second as a fraction; nothing where there is none."""
    if not num:
        return ""
    return str(num) if den == 1 else f"{num}/{den}"


def _clips(corpus: Corpus) -> pd.DataFrame:
    columns = ["num_frames", "rate_num", "rate_den", "quality"]
    clips = corpus.clips().select(columns).flatten().to_pandas()
    assert isinstance(clips, pd.DataFrame)
    seconds = clips["num_frames"] * clips["rate_den"] / clips["rate_num"]
    return clips.assign(seconds=seconds.round(1))  # 150 frames at 29.97 a second are the 5 s that were asked for


def _labels(corpus: Corpus) -> Table:
    rows = [
        (label["name"], label["value"] or label["raw"], int(table == "recordings"), int(table == "clips"))
        for table in ("recordings", "clips")
        for labels in corpus.table(table).column("labels").to_pylist()
        for label in labels
    ]
    by, of = ("name", "value"), ("recordings", "clips")
    return _table(pd.DataFrame(rows, columns=[*by, *of]), by, of)


def _annotations(corpus: Corpus) -> Table:
    """How many rows, frames and clips each kind of annotation has. A span counts all its frames."""
    by, of = ("kind", "name", "value"), ("rows", "frames", "clips")
    rows = _frame(corpus, "annotations", ("key", "frame", "stop", *by, "raw"))
    rows = rows.assign(rows=1, frames=rows["stop"] - rows["frame"], clips=0)
    rows["value"] = rows["value"].where(rows["value"] != "", rows["raw"])
    first = ~rows.duplicated(["key", *by])
    rows.loc[first, "clips"] = 1
    return _table(rows, by, of)


def _deid(corpus: Corpus) -> dict[str, Table]:
    """What was looked for, found, removed and let pass, and on whose word pixels were written, by number of
    recordings."""
    rows = corpus.table("deid").to_pylist()
    cleared = pd.DataFrame(
        [(row["status"], row["cleared_by"], 1) for row in rows], columns=["status", "cleared_by", "recordings"]
    )
    looked = pd.DataFrame([(what, 1) for row in rows for what in row["looked_for"]], columns=["what", "recordings"])
    removed = pd.DataFrame(
        [(item["what"], item["count"], 1) for row in rows for item in row["removed"]],
        columns=["what", "removed", "recordings"],
    )
    doubts = pd.DataFrame([(doubt, 1) for row in rows for doubt in row["doubts"]], columns=["doubt", "recordings"])
    return {
        "doubts": _table(doubts, ("doubt",), ("recordings",)),
        "cleared": _table(cleared, ("status", "cleared_by"), ("recordings",)),
        "looked_for": _table(looked, ("what",), ("recordings",)),
        "removed": _table(removed, ("what",), ("removed", "recordings")),
    }


def _table(frame: pd.DataFrame, by: tuple[str, ...], of: tuple[str, ...]) -> Table:
    sums = frame.groupby(list(by), sort=False)[list(of)].sum().reset_index()
    rows = {
        tuple(_plain(value) for value in row[: len(by)]): tuple(int(value) for value in row[len(by) :])
        for row in sums.itertuples(index=False, name=None)
    }
    return Table(by=by, of=of, rows=dict(sorted(rows.items())))


def _plain(value: object) -> str | int:
    """A key without numpy's types, which JSON does not know."""
    plain = value.item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, int) else str(plain)
