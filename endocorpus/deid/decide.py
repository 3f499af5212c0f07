"""The decision which pixels of a recording may be written: consent, what was seen, and the policy of the source.

Every rule can only take away. There is no option to overrule one, and no source that is not looked at: what differs is
what a doubt does. A recording as it leaves a hospital goes into quarantine with it. What a provider has cut and cleaned
before it was published is kept, the doubt is written down, and only what surely is outside the body is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction

from endocorpus.deid.attest import Measure
from endocorpus.deid.chain import sha256
from endocorpus.deid.look import Seen
from endocorpus.deid.outside import CLEANED, Look, Place, Policy, Stretch, judge, kept, shows_much_text, tally
from endocorpus.records import Cleared, Excluded, Filled, Label, MediaFacts, Privacy, Reason, Stage
from endocorpus.sources.layout import Source

CLOSED_CHANNELS = (
    *("audio", "subtitles", "data streams", "attachments", "chapters", "container metadata", "captions", "SEI"),
    *("panels around the picture", "text on the picture", "faces", "stretches outside the body"),
)
MEASURES = tuple(str(measure) for measure in Measure)
BY_RULES = "what was seen of it leaves no doubt; releasable once a person has signed for it"
PERHAPS_OUTSIDE = "perhaps outside the body"
_YES = {"yes", "y", "1", "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Handling:
    """What doubts do, and the rules of `outside`. A provider has looked at what he cut and published: that the network
    takes it for outside, or that it shows much text, is then a doubt; only a face decides."""

    doubts_pass: bool
    looks_decide: bool
    outside: Policy


HANDLING: Mapping[Privacy, Handling] = {
    "private": Handling(doubts_pass=False, looks_decide=True, outside=Policy()),
    "public": Handling(doubts_pass=True, looks_decide=False, outside=CLEANED),
}


def refuse_denied(facts: MediaFacts, labels: Sequence[Label]) -> None:
    """Leave out a recording without looking at it.

    Raises:
        Excluded: a table denies consent.
    """
    denied = [label for label in labels if label.name == "consent" and label.code not in _YES]
    if denied:
        raise Excluded(Stage.DEID, Reason.NO_CONSENT, "consent is not given", frames=facts.num_frames)


def decide(source: Source, facts: MediaFacts, rate: Fraction, seen: Seen) -> Cleared:
    """What of a recording may be written, going by what was seen of it.

    Args:
        rate: frames per second, in the time of the examination.

    Raises:
        Excluded: nothing may.
    """
    handling, masks, frames = HANDLING[source.privacy], seen.masks, facts.num_frames
    if masks.shows_nothing:
        raise Excluded(Stage.DEID, Reason.NOTHING_SHOWN, "no moving or lit picture was found", frames=frames)
    if masks.doubts and not handling.doubts_pass:
        raise Excluded(Stage.DEID, Reason.IN_DOUBT, ", ".join(map(str, masks.doubts)), frames=frames)
    looks = seen.looks if handling.looks_decide else [_in_doubt_at_most(look, handling.outside) for look in seen.looks]
    stretches = judge(looks, frames, rate, handling.outside)
    spans = kept(stretches, doubts=handling.doubts_pass)
    if not spans:
        raise Excluded(Stage.DEID, Reason.NOTHING_INSIDE, _said(stretches), frames=frames)
    outside = {what: count for what, count in tally(stretches).items() if count}
    boxes = tuple(Filled(span=layout.span, rectangles=layout.boxes) for layout in masks.layouts if layout.boxes)
    perhaps = (PERHAPS_OUTSIDE,) if outside.get(Place.DOUBT) else ()
    return Cleared(
        by=f"{source.vouched_by}, who declares it public" if source.privacy == "public" else BY_RULES,
        measures=MEASURES,
        doubts=(*(str(doubt).replace("_", " ") for doubt in masks.doubts), *perhaps),
        looked_for=CLOSED_CHANNELS,
        removed=_removed(facts, boxes, frames - sum(map(len, spans))),
        crop=masks.crop,
        filled=masks.filled(),
        boxes=boxes,
        kept=spans,
        outside=outside,
        parameters=_fingerprint(handling, seen),
    )


def _in_doubt_at_most(look: Look, policy: Policy) -> Look:
    """A look of which a face alone can say that it was outside."""
    least = policy.leave if shows_much_text(look, policy) else 0.0
    outside = min(max(look.outside, least), math.nextafter(policy.enter, 0))
    return replace(look, outside=outside, text_lines=0, text_share=0.0)


def _said(stretches: Sequence[Stretch]) -> str:
    """What speaks against keeping anything, in words of ours."""
    return ", ".join(dict.fromkeys(str(why) for stretch in stretches for why in stretch.why))


def _removed(facts: MediaFacts, boxes: Sequence[Filled], outside: int) -> dict[str, int]:
    removed = {f"{kind} stream": count for kind, count in facts.dropped_streams.items()}
    removed["metadata field"] = facts.metadata_fields
    removed["box over text"] = len({box for filled in boxes for box in filled.rectangles})
    removed["frame outside the body"] = outside
    return {what: count for what, count in removed.items() if count}


def _fingerprint(handling: Handling, seen: Seen) -> str:
    """SHA-256 of the settings and of all that was seen."""
    text = json.dumps([asdict(handling), asdict(seen)], sort_keys=True, default=str)
    return sha256(text.encode())
