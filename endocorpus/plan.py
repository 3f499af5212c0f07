"""Recording -> RecordingPlan: facts, the privacy decision, and the clips. No pixel is written here."""

from __future__ import annotations

from pathlib import Path

from endocorpus.config import BuildConfig
from endocorpus.deid.decide import decide
from endocorpus.media.encode import picture_size
from endocorpus.media.probe import probe
from endocorpus.records import ClipPlan, Recording, RecordingPlan
from endocorpus.segment import segment
from endocorpus.sources.layout import Source


def plan_recording(recording: Recording, root: Path, source: Source, config: BuildConfig) -> RecordingPlan:
    """Decide everything about one recording.

    Raises:
        Excluded: it cannot or may not become clips.
    """
    facts = probe(recording.media, root)
    clearance = decide(source, facts)
    width, height = picture_size(facts.width, facts.height, config.encode)
    spans = segment(facts.num_frames, facts.rate, config.segment)
    clips = tuple(
        ClipPlan(key=f"{recording.recording_id}-{span.start:07d}", span=span, width=width, height=height)
        for span in spans
    )
    return RecordingPlan(recording=recording, facts=facts, clearance=clearance, clips=clips)
