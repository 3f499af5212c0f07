"""Checks of finished clips, before they may be used: what was meant to be left out is looked for once more.

A finding destroys the clips of the whole recording. There is nothing to overrule it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from endocorpus.deid.attest import Check
from endocorpus.deid.bitstream import audit_clip
from endocorpus.records import Excluded, Reason, Stage

CHECKS = tuple(str(check) for check in (Check.STREAMS, Check.CONTAINER))
"""What is checked. `media.encode` has counted streams and frames of each clip before."""


def check_clips(paths: Iterable[Path]) -> None:
    """Look through the finished clips of a recording.

    Raises:
        Excluded: there is something in them beside the pictures.
    """
    for path in paths:
        if found := audit_clip(path.read_bytes()):
            raise Excluded(Stage.DEID, Reason.LEAK_FOUND, f"a finished clip holds more than pictures: {found[0]}")
