"""Recording -> RecordingPlan: facts, the privacy decision, and the clips. No pixel is written here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from endocorpus.config import BuildConfig
from endocorpus.deid.decide import HANDLING, decide, refuse_denied
from endocorpus.deid.head import Head
from endocorpus.deid.intake import refuse_hostile_media
from endocorpus.deid.look import Looking, look_once
from endocorpus.deid.overlay import PACES
from endocorpus.labels import count_kinds, labels_digest, read_labels
from endocorpus.media.encode import picture_size, shown_part
from endocorpus.media.probe import probe
from endocorpus.records import ClipPlan, Excluded, Label, Reason, Recording, RecordingPlan, Span, Stage
from endocorpus.segment import segment, segment_kept
from endocorpus.sources import read_rate
from endocorpus.sources.layout import Source

RATE_LABEL = "frames_per_second"  # a label of this name is a fact about time, where a table gives one


def join_groups(plans: Sequence[RecordingPlan], left_out: Sequence[Recording] = ()) -> list[RecordingPlan]:
    """Give recordings of equal bytes, or with a link in common, one leak group, and with them their whole groups.

    A copy under another name is the same patient in both places, and so are two lesions of one examination. What was
    left out still joins those that it is linked with, here and in other corpora.
    """
    groups: dict[str, str] = {}  # leak group -> a group that it is joined with

    def find(group: str) -> str:
        while groups.get(group, group) != group:
            group = groups[group]
        return group

    first: dict[str, str] = {}
    known = [(plan.recording, (plan.facts.digest, *plan.recording.links)) for plan in plans]
    for recording, ties in (*known, *((recording, recording.links) for recording in left_out)):
        for shared in ties:
            ours = find(recording.leak_group)
            theirs = find(first.setdefault(shared, ours))
            groups[max(ours, theirs)] = min(ours, theirs)
    names = {r.leak_group: r.leak_group_name for r in (*(plan.recording for plan in plans), *left_out)}
    joined = [(plan, find(plan.recording.leak_group)) for plan in plans]
    return [
        replace(plan, recording=replace(plan.recording, leak_group=group, leak_group_name=names[group]))
        for plan, group in joined
    ]


def plan_recording(
    recording: Recording,
    root: Path,
    source: Source,
    config: BuildConfig,
    looks: Callable[[bytes], Path] | None = None,
    head: Head | None = None,
) -> RecordingPlan:
    """Decide everything about one recording.

    Args:
        looks: where what was seen of the recording is kept, as in `look_once`.
        head: a site's own, of the detector of what is outside the body.

    Raises:
        Excluded: it cannot or may not become clips.
    """
    if recording.media.kind == "video":
        refuse_hostile_media(root / path for path in recording.media.paths)
    facts = probe(recording.media, root)
    said = read_labels(recording, source, root, facts.num_frames, (facts.stored_width, facts.stored_height))
    refuse_denied(facts, said.decisive)
    rate = _capture_rate(recording, said.decisive) or facts.rate
    spans = segment(Span(start=0, stop=facts.num_frames), rate, config.segment)  # too short ones need no look
    how = Looking(policy=HANDLING[source.privacy].outside, pace=PACES[config.look.pace], head=head)
    seen = look_once(recording.media, replace(facts, rate=rate), root, how, looks)
    clearance = decide(source, facts, rate, seen)
    if clearance.kept != (Span(start=0, stop=facts.num_frames),):
        spans = segment_kept(clearance.kept, rate, config.segment)
    cut = shown_part(facts, clearance.crop, config.encode)
    width, height = picture_size(*cut.leaves(facts), config.encode)
    stride = config.segment.stride
    return RecordingPlan(
        recording=recording,
        facts=facts,
        clearance=clearance,
        clips=tuple(
            ClipPlan(
                key=f"{recording.recording_id}-{span.start:07d}", span=span, width=width, height=height, stride=stride
            )
            for span in spans
        ),
        rate=rate / stride,
        cut=cut,
        labels=said.labels,
        annotations=count_kinds(said.annotations),
        annotations_digest=labels_digest(recording, source, root),
        exclusions=said.exclusions,
        unmapped=said.unmapped,
    )


def _capture_rate(recording: Recording, labels: Sequence[Label]) -> Fraction | None:
    """Frames per second of the examination where the media's own rate lies: as declared, or as a table says."""
    told = {read_rate(label.raw) for label in labels if label.name == RATE_LABEL}
    if None in told or len(told) > 1:
        raise Excluded(Stage.PROBE, Reason.DAMAGED, "a table's frames per second are not one number from 0 to 1000")
    return told.pop() if told else recording.capture_rate
