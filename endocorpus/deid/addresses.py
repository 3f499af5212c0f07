"""Addresses of finished pieces in the work area of a build.

A piece is addressed by everything that decides its bytes, the digest of the recording's files among it. For a private
source a plain hash of that would tell whoever holds a recording that it is in the corpus; so it is an HMAC under a
secret of the work area.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from endocorpus.corpus.files import digest_bytes
from endocorpus.records import Privacy

SECRET = "secret"  # in the work area, mode 0600; whoever removes it makes the next build encode everything again
_BYTES = 32


def addresses(privacy: Privacy, work: Path) -> Callable[[bytes], str]:
    """How pieces in the work area `work` are addressed."""
    return digest_bytes if privacy == "public" else partial(keyed_address, work)


def keyed_address(work: Path, decides: bytes) -> str:
    """The address of what `decides` the bytes of a piece, 32 hex digits. Draws the secret when there is none."""
    return hmac.digest(_secret(work / SECRET), decides, "sha256")[:16].hex()


def _secret(path: Path) -> bytes:
    with suppress(FileNotFoundError):
        found = path.read_bytes()
        if len(found) == _BYTES:
            return found
        path.unlink()  # cut short when it was drawn
    drawn = secrets.token_bytes(_BYTES)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(drawn)
        file.flush()
        os.fsync(file.fileno())
    return drawn
