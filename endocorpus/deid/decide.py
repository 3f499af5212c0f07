"""The decision whether a recording's pixels may be written.

So far one channel is closed: streams and metadata beside the picture never reach a clip. Whether the picture itself
identifies a patient is not examined yet, so every private recording stays in quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence

from endocorpus.records import Cleared, Excluded, Label, MediaFacts, Reason, Stage
from endocorpus.sources.layout import Source

CLOSED_CHANNELS = ("audio", "subtitles", "data streams", "attachments", "chapters", "container metadata", "captions")


def decide(source: Source, facts: MediaFacts, labels: Sequence[Label]) -> Cleared:
    """Clear a recording of a public source; refuse a private one.

    Raises:
        Excluded: a table denies consent, or the source is private. There is no option to overrule it.
    """
    denied = [label for label in labels if label.name == "consent" and label.code not in {"yes", "y", "1", "true"}]
    if denied:
        raise Excluded(Stage.DEID, Reason.NO_CONSENT, "consent is not given", frames=facts.num_frames)
    if source.privacy != "public":
        raise Excluded(
            Stage.DEID,
            Reason.NOT_CLEARED,
            "private, and this version cannot de-identify pixels yet",
            frames=facts.num_frames,
        )
    removed = {f"{kind} stream": count for kind, count in facts.dropped_streams.items()}
    if facts.metadata_fields:
        removed["metadata field"] = facts.metadata_fields
    return Cleared(by=f"{source.vouched_by}, who declares it public", looked_for=CLOSED_CHANNELS, removed=removed)
