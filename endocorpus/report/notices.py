"""What a reader must know first, in plain sentences, and how the counts compare with what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from endocorpus.report.stats import Stats
from endocorpus.report.text import count, number

NOT_EXAMINED = (
    "Text burnt into the picture and frames outside the body are NOT examined in this version. "
    "Names, dates or faces may be visible in clips."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One statement above the figures. A warning asks for a decision; a note asks to be known."""

    level: str  # warning | note
    lead: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedRow:
    """A count beside what was expected. `alarm` only where the expectation is exact."""

    what: str
    expected: int
    status: str
    found: int | None
    verdict: str
    alarm: bool


def notices(descriptor: Mapping[str, Any], stats: Stats) -> list[Notice]:
    """What applies to this corpus: warnings before notes, and an empty or broken corpus before all."""
    source = descriptor["source"]
    found = [
        *_content(stats),
        *_synthetic(descriptor),
        *_sums(stats, descriptor["config"]["segment"]["stride"]),
        *_missing(descriptor),
        *_licence(source),
    ]
    found += [*_unmapped(descriptor["unmapped"]), *_assumed(source)]
    found += [*_identical(descriptor["counts"]["identical_recordings"]), *_uneven(stats)]
    if stats.clips:
        found.append(Notice(level="warning", lead="De-identification is not complete.", body=NOT_EXAMINED))
        body = "It embeds frames of the recordings: handle it under the same terms as the corpus."
        found.append(Notice(level="note", lead="This page is data.", body=body))
    return sorted(found, key=lambda notice: notice.level != "warning")


def files_sum(stats: Stats) -> int:
    """Files accounted for; equal to those found, or something is wrong."""
    return stats.files_kept + stats.files_sidecar + stats.files_excluded


def _content(stats: Stats) -> list[Notice]:
    if stats.clips:
        return []
    lost = stats.recordings_excluded
    if not lost:
        body = f"No recording was found among {count(stats.files_found, 'file')}."
    else:
        recordings = "The one recording" if lost == 1 else f"All {number(lost)} recordings"
        body = f"{recordings} found {'was' if lost == 1 else 'were'} left out; the reasons are listed under Exclusions."
    return [Notice(level="warning", lead="This corpus holds no clips.", body=body)]


def _synthetic(descriptor: Mapping[str, Any]) -> list[Notice]:
    if not descriptor["synthetic"]:
        return []
    body = (
        f"It was {descriptor['synthetic']}, in the layout of the source that is described below. Nobody was examined."
    )
    return [Notice(level="warning", lead="This corpus is synthetic.", body=body)]


def _identical(copies: int) -> list[Notice]:
    if not copies:
        return []
    body = "Files of equal bytes lie under several names. They share a leak group, but their clips occur repeatedly."
    lead = "1 recording repeats another." if copies == 1 else f"{number(copies)} recordings repeat others."
    return [Notice(level="warning", lead=lead, body=body)]


def _uneven(stats: Stats) -> list[Notice]:
    rows = [row for row in stats.rates.records() if row["variable_rate"]]
    if not rows:
        return []
    recordings, clips = (sum(int(row[what]) for row in rows) for what in ("recordings", "clips"))
    lead = f"The frame rate of {number(recordings)} of {count(stats.recordings, 'recording')} varies."
    body = (
        f"All their frames are there, in {count(clips, 'clip')}, but at one even rate, given under Recordings. "
        "Movements are faster or slower than they were, and lengths are numbers of frames divided by that rate."
    )
    return [Notice(level="warning", lead=lead, body=body)]


def _sums(stats: Stats, stride: int) -> list[Notice]:
    wrong = []
    if files_sum(stats) != stats.files_found:
        wrong.append(f"{number(files_sum(stats))} of {count(stats.files_found, 'file')}")
    if stride == 1 and stats.frames != stats.clip_frames:
        wrong.append(f"{number(stats.clip_frames)} of {count(stats.frames, 'frame')}")
    body = f"Only {' and '.join(wrong)} are accounted for. Do not use this corpus; build it again."
    return [Notice(level="warning", lead="The sums do not agree.", body=body)] if wrong else []


def _missing(descriptor: Mapping[str, Any]) -> list[Notice]:
    rows = [row for row in expected_rows(descriptor) if row.alarm]
    parts = [f"{number(row.found or 0)} of {number(row.expected)} ({row.what})" for row in rows]
    body = f"Found: {'; '.join(parts)}."
    return [Notice(level="warning", lead="The source is not as it should be.", body=body)] if rows else []


def _unmapped(labels: Sequence[Mapping[str, Any]]) -> list[Notice]:
    if not labels:
        return []
    if not any(label["raw"] for label in labels):  # as of a private source
        names = ", ".join(str(label["name"]) for label in labels)
        body = f"Their names: {names}. What was written may hold names of people, so it was dropped."
        return [Notice(level="warning", lead="Labels have values that are not in the vocabulary.", body=body)]
    shown = "; ".join(f"{label['name']}: {label['raw']}" for label in labels[:5])
    body = f"{shown}{' and more' if len(labels) > 5 else ''}. Their rows keep what the provider wrote, without a code."
    return [Notice(level="warning", lead=f"{count(len(labels), 'label')} not in the vocabulary.", body=body)]


def _assumed(source: Mapping[str, Any]) -> list[Notice]:
    body = " ".join(str(line) for line in source["unverified"])
    return [Notice(level="note", lead="Assumed, and not verified by anyone here.", body=body)] if body else []


def _licence(source: Mapping[str, Any]) -> list[Notice]:
    found, licence = [], str(source["licence"])
    if source["licence_status"] == "unverified":
        body = (
            f"It is recorded as {licence}, and nobody has confirmed that with the provider. "
            "The absence of a licence text is not a permission."
        )
        found.append(Notice(level="warning", lead="The licence is unverified.", body=body))
    elif source["licence_status"] != "verified":
        body = f"Third parties report {licence}; the provider's own text was not read."
        found.append(Notice(level="note", lead="The licence is known at second hand.", body=body))
    rules = {
        "no": "Do not pass on the corpus, parts of it, or this page.",
        "unknown": "Nobody has settled whether the corpus or this page may be passed on: treat it as not allowed.",
        "same-licence": f"Passing on the corpus or this page is allowed under the same licence only ({licence}).",
    }
    rule = rules.get(str(source["redistribution"]))
    if rule:
        found.append(Notice(level="note", lead="Redistribution is restricted.", body=rule))
    return found


def expected_rows(descriptor: Mapping[str, Any]) -> list[ExpectedRow]:
    """The counts that the source should hold beside what the build found."""
    return [
        ExpectedRow(
            what=str(row["what"]).replace("_", " "),
            expected=row["expected"],
            status=row["status"],
            found=row["found"],
            verdict=_verdict(row),
            alarm=row["verdict"] == "differs",
        )
        for row in descriptor["expected"]
    ]


def _verdict(row: Mapping[str, Any]) -> str:
    expected, found = row["expected"], row["found"]
    if found is None:
        return "Not counted by this version."
    if row["verdict"] == "absent":
        return "Nothing of this part is here."
    if row["verdict"] == "agrees":
        return "Agrees." if found == expected else "Agrees, as far as the number is known."
    difference = f"{number(abs(found - expected))} {'more' if found > expected else 'fewer'}"
    if row["verdict"] == "differs":
        return f"Differs: {difference} than there should be."
    return f"{difference.capitalize()}; nobody has verified the expected count, so this alone is no fault."
