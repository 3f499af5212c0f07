"""Checks of finished clips, before they may be used: what was meant to be left out is looked for once more.

A finding destroys the clips of the whole recording. There is nothing to overrule it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from endocorpus.deid.attest import Check
from endocorpus.deid.bitstream import audit_clip
from endocorpus.deid.head import HEAD, Head
from endocorpus.deid.known import identifiers
from endocorpus.deid.look import MODELS as LOOKING
from endocorpus.deid.models import attest
from endocorpus.deid.reread import MODELS as CHECKING
from endocorpus.deid.reread import reread_clips
from endocorpus.deid.search import in_noise
from endocorpus.records import Excluded, Media, MediaFacts, Privacy, Reason, Stage

CHECKS: dict[Privacy, tuple[Check, ...]] = {
    "public": (Check.STREAMS, Check.CONTAINER, Check.READ_AGAIN),  # whose names are in the corpus as they are
    "private": (Check.STREAMS, Check.CONTAINER, Check.IDENTIFIERS, Check.READ_AGAIN),
}
"""What is checked. `media.encode` has counted streams and frames of each clip before."""


def check_clips(paths: Iterable[Path], media: Media, facts: MediaFacts, root: Path, privacy: Privacy) -> None:
    """Look through the finished clips of a recording.

    Raises:
        Excluded: there is something in them beside the pictures, or something can be read in these.
        DataError: a model is missing or changed.
    """
    known = identifiers(media, facts, root) if privacy == "private" else None
    for path in paths:
        data = path.read_bytes()
        if found := audit_clip(data):
            raise _found(f"a finished clip holds more than pictures: {found[0]}")
        if known and in_noise(data, known):
            raise _found("the bytes of a finished clip hold a name, number or date that the recording has")
        if reread_clips([data], what=known):
            raise _found("text can be read in a finished clip")


def models_used(head: Head | None) -> Mapping[str, Mapping[str, Any]]:
    """What an attestation says of the models that looked at recordings and at finished clips.

    Args:
        head: a site's own, if it was used in the place of the one that ships.

    Raises:
        DataError: a model is missing or changed.
    """
    used = dict(attest(*LOOKING, *CHECKING))
    if head is not None:
        own = {"sha256": head.digest(), "origin": "fitted by the site on frames of its own", "licence": "of the site"}
        used[HEAD] = {**used[HEAD], **own, "requires": "a file of the site"}
    return used


def _found(detail: str) -> Excluded:
    return Excluded(Stage.DEID, Reason.LEAK_FOUND, detail)
