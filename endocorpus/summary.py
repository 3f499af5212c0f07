"""What a corpus holds, in the few lines that a terminal has room for; the report has the rest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from endocorpus.config import BuildConfig
from endocorpus.console import duration
from endocorpus.corpus.manifest import REPORT, Corpus
from endocorpus.records import Reason
from endocorpus.release import standing
from endocorpus.report.stats import Table, compute
from endocorpus.report.text import count, rate, size

_MOST = 4  # kinds of a thing that are told; the rest is counted


def headline(corpus: Corpus) -> str:
    """How much there is, and where its report lies."""
    counts = corpus.descriptor["counts"]
    return (
        f"{corpus.root}: {count(counts['clips'], 'clip')} of {count(counts['recordings'], 'recording')}, "
        f"{duration(counts['seconds'])}, {count(len(corpus.descriptor['shards']), 'shard')}; "
        f"report: {corpus.root / REPORT}"
    )


def repeats(copies: int) -> str:
    """How many recordings are copies of others, byte for byte; empty where none is."""
    if not copies:
        return ""
    return "1 recording repeats another" if copies == 1 else f"{copies:,} recordings repeat others"


def facts(corpus: Corpus) -> list[tuple[str, str]]:
    """Names and values of what to know about a corpus besides its size.

    Raises:
        DataError: a table is missing or damaged.
    """
    descriptor, stats = corpus.descriptor, compute(corpus)
    source = descriptor["source"]
    told = [
        ("source", f"{source['name']}: {source['title']}"),
        ("licence", f"{source['licence']} ({source['licence_status']})"),
        ("privacy", str(source["privacy"])),
        ("released", standing(corpus).sentence),
        ("synthetic", f"yes: {descriptor['synthetic']}" if descriptor["synthetic"] else "no"),
        ("settings", _changed(descriptor["config"])),
        ("sizes", _most(stats.sizes, lambda row: f"{row['width']}x{row['height']}")),
        ("rates", _most(stats.rates, _rate)),
        ("labels", _labels(stats.labels)),
        ("annotations", _annotations(stats.annotations)),
        ("duplicates", repeats(descriptor["counts"]["identical_recordings"]) or "none"),
        ("bytes", size(stats.shard_bytes)),
    ]
    return [(name, value or "none") for name, value in told]


def left_out(corpus: Corpus, gone: Collection[str]) -> Iterator[str]:
    """What is not in a corpus although it was found, or stood in it before, by reason, and where all of it is listed.

    Args:
        gone: ids of recordings that the corpus held before its last build.
    """
    rows = corpus.table("excluded").to_pylist()
    for unit, words in (("recording", "recordings"), ("file", "other files"), ("annotation", "entries about labels")):
        reasons = Counter(str(row["reason"]) for row in rows if row["unit"] == unit)
        told = ", ".join(f"{reason} {times:,}" for reason, times in reasons.most_common())
        if told:
            yield f"left out, {words}: {reasons.total():,} ({told})"
    if rows:
        yield f"the list of what was left out: {corpus.root / 'excluded.parquet'}, and the report"
    if gone:
        some = ", ".join(sorted(gone)[:_MOST]) + (", ..." if len(gone) > _MOST else "")
        are = "is" if len(gone) == 1 else "are"
        yield f"{count(len(gone), 'recording')} that this corpus held before {are} gone: {some}"


_KEPT_BACK = (Reason.IN_DOUBT, Reason.NOTHING_INSIDE, Reason.NOTHING_SHOWN, Reason.LEAK_FOUND, Reason.NO_CONSENT)


def why_empty(corpus: Corpus) -> str:
    """What became of the recordings of a corpus without clips."""
    reasons = corpus.descriptor["counts"]["excluded_by_reason"]
    if kept_back := sum(reasons.get(reason, 0) for reason in _KEPT_BACK):
        return (
            f"{corpus.root}: no clip was written: {count(kept_back, 'recording')} kept back by de-identification. "
            "Why, is in the exclusions above; nothing overrules it"
        )
    return f"{corpus.root}: no clip was written; see the exclusions above"


def _changed(config: Mapping[str, Any]) -> str:
    """Settings that are not the defaults."""
    defaults = BuildConfig().model_dump(mode="json")
    changed = [
        f"{section}.{key} = {json.dumps(value)}"
        for section, table in config.items()
        for key, value in table.items()
        if defaults.get(section, {}).get(key) != value
    ]
    return ", ".join(changed) or "the defaults"


def _rate(row: Mapping[str, str | int]) -> str:
    """Pictures of the examination in a second, which the file's own rate may hide."""
    examined = str(row["capture_rate"] or row["rate"])
    lies = f", nominally {rate(str(row['rate']))}" if row["capture_rate"] else ""
    return f"{rate(examined)} a second{', varying' if row['variable_rate'] else ''}{lies}"


def _most(table: Table, words: Callable[[Mapping[str, str | int]], str]) -> str:
    """Kinds of recordings, the most frequent first."""
    rows = sorted(table.records(), key=lambda row: -int(row["recordings"]))
    return _and_more([f"{words(row)} ({count(int(row['recordings']), 'recording')})" for row in rows])


def _labels(table: Table) -> str:
    names: dict[str, list[Mapping[str, str | int]]] = {}
    for row in table.records():
        names.setdefault(str(row["name"]), []).append(row)
    told = []
    for name, rows in names.items():
        rows.sort(key=lambda row: -int(row["clips"] or row["recordings"]))
        told.append(f"{name}: " + _and_more([f"{row['value']} ({_of(row)})" for row in rows]))
    return "; ".join(told)


def _annotations(table: Table) -> str:
    """How many there are on frames, by kind."""
    kinds: Counter[str] = Counter()
    for row in table.records():
        kinds[str(row["kind"])] += int(row["rows"])
    return ", ".join(f"{kind} {rows:,}" for kind, rows in sorted(kinds.items()))


def _of(row: Mapping[str, str | int]) -> str:
    clips = int(row["clips"])
    return count(clips, "clip") if clips else count(int(row["recordings"]), "recording")


def _and_more(items: Sequence[str]) -> str:
    more = f", and {len(items) - _MOST} more" if len(items) > _MOST else ""
    return ", ".join(items[:_MOST]) + more
