"""What a source should hold, beside what is here. Only what is known exactly, or nearly, can raise an alarm."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from endocorpus.errors import DataError
from endocorpus.labels import BOXED_FRAMES
from endocorpus.records import Recording, RecordingPlan
from endocorpus.scan import Scan
from endocorpus.sources.layout import Expected, Source, judge

Verdict = Literal["agrees", "differs", "absent", "not counted", "unverified"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One expected count beside the count found; None where it was not counted.

    `absent`: nothing of that part is here, as when only one of several archives was fetched. `unverified`: it
    differs from a number that nobody has verified, which is no fault of the data.
    """

    what: str
    of: str
    expected: int
    status: str
    found: int | None
    verdict: Verdict


def compare(source: Source, scanned: Scan, plans: Sequence[RecordingPlan] | None = None) -> tuple[Compared, ...]:
    """Every expected count of a source beside what a scan, and the plans if they are there, found."""
    return tuple(_compared(what, expected, scanned, plans) for what, expected in sorted(source.expected.items()))


def _compared(what: str, expected: Expected, scanned: Scan, plans: Sequence[RecordingPlan] | None) -> Compared:
    wanted, of = re.compile(expected.where or ".*", re.DOTALL), expected.of or what
    recordings = [recording for recording in scanned.recordings if wanted.fullmatch(recording.name)]
    matching = None if plans is None else [plan for plan in plans if wanted.fullmatch(plan.recording.name)]
    found = _found(of, recordings, matching)
    return Compared(
        what=what,
        of=of,
        expected=expected.count,
        status=expected.status,
        found=found,
        verdict=_verdict(expected, found, here=bool(recordings)),
    )


def _verdict(expected: Expected, found: int | None, here: bool) -> Verdict:
    if found is None:
        return "not counted"
    if found == 0 and expected.count and not here:
        return "absent"
    return judge(found, expected.count, expected.status)


def _found(of: str, recordings: Sequence[Recording], plans: Sequence[RecordingPlan] | None) -> int | None:
    if of == "recordings":
        return len(recordings)
    if of == "cases":
        return len({recording.case_id for recording in recordings})
    if plans is None:
        return _pictures(recordings) if of == "frames" else None
    if of == "clips":
        return sum(len(plan.clips) for plan in plans)
    if of == "frames":
        return sum(plan.facts.num_frames for plan in plans)
    kinds = {"boxes": "box", "masks": "mask", "polygons": "polygon", "triplets": "triplet"}
    kind = kinds.get(of, of)
    if kind in kinds.values() or kind == BOXED_FRAMES:
        return sum(plan.annotations.get(kind, 0) for plan in plans)
    return None


def _pictures(recordings: Sequence[Recording]) -> int | None:
    """Frames of recordings that are folders of pictures; a video would have to be opened."""
    if any(recording.media.kind == "video" for recording in recordings):
        return None
    return sum(len(recording.media.paths) for recording in recordings)


def unmapped_labels(plans: Sequence[RecordingPlan]) -> list[dict[str, object]]:
    """Labels that the vocabulary should know and does not, with how many recordings have them. What was written is
    left empty for a private source."""
    counts = Counter((label.name, label.raw) for plan in plans for label in plan.unmapped)
    return [{"name": name, "raw": raw, "recordings": count} for (name, raw), count in sorted(counts.items())]


def refuse_loose(source: Source, scanned: Scan, plans: Sequence[RecordingPlan] | None = None) -> None:
    """For whoever wants the data exactly as published.

    Raises:
        DataError: a count differs from what the source should hold, or a label is not in its vocabulary.
    """
    differ = [row for row in compare(source, scanned, plans) if row.verdict == "differs"]
    faults = [f"{row.found:,} {row.of} instead of {row.expected:,} ({row.what})" for row in differ]
    lost = [
        e
        for e in (*scanned.exclusions, *(e for plan in plans or () for e in plan.exclusions))
        if e.unit == "annotation"
    ]
    faults += [f"labels that are missing or cannot be used: {lost[0].reason} in {lost[0].subject}"] if lost else []
    for row in unmapped_labels(plans or ()):
        said = repr(row["raw"]) if source.privacy == "public" else f"of {row['recordings']} recordings"
        faults.append(f"the {row['name']} {said} has no code")
    if faults:
        more = f", and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DataError(f"--strict: {source.name} is not as it should be: {'; '.join(faults[:5])}{more}")
