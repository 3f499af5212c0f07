"""The decision whether a recording's pixels may be written.

So far one channel is closed: streams and metadata beside the picture never reach a clip. Whether the picture itself
identifies a patient is not examined yet, so every private recording stays in quarantine.
"""

from __future__ import annotations

from endocorpus.records import Cleared, Excluded, MediaFacts, Privacy, Reason, Stage

CLOSED_CHANNELS = ("audio", "subtitles", "data streams", "attachments", "chapters", "container metadata", "captions")


def decide(privacy: Privacy, facts: MediaFacts) -> Cleared:
    """Clear a recording of a public source; refuse a private one.

    Raises:
        Excluded: the source is private. There is no option to overrule it.
    """
    if privacy != "public":
        raise Excluded(
            Stage.DEID,
            Reason.NOT_CLEARED,
            "private, and this version cannot de-identify pixels yet",
            frames=facts.num_frames,
        )
    removed = {f"{kind} stream": count for kind, count in facts.dropped_streams.items()}
    if facts.metadata_fields:
        removed["metadata field"] = facts.metadata_fields
    return Cleared(by="the source's provider published it", looked_for=CLOSED_CHANNELS, removed=removed)
