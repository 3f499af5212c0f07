"""The key that signs attestations and reviews: 32 random bytes in a file of its own, kept as `keeping.py` demands.

It is not the key of the pseudonyms: its public half is handed out, and it is kept as long as signatures are to be made,
while the other may have to be destroyed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from endocorpus.deid.keeping import make_secret, open_secret
from endocorpus.errors import UsageError

KEY_BYTES = 32
_WHAT = "the signing key"


def new_signing_key(path: Path, never_in: Iterable[Path] = ()) -> bytes:
    """Draw a key and keep it in a new file, mode 0600.

    Raises:
        UsageError: the file is there, lies in a corpus, a git tree or a folder of `never_in`, or cannot be made.
    """
    key = secrets.token_bytes(KEY_BYTES)
    make_secret(path, _WHAT, key, never_in)
    return key


def read_signing_key(path: Path, never_in: Iterable[Path] = ()) -> bytes:
    """The 32 bytes of a key file.

    Raises:
        UsageError: it is missing, lies where it must not, others could read it, or it is no key.
    """
    descriptor = open_secret(path, _WHAT, never_in)
    try:
        key = os.read(descriptor, KEY_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {_WHAT} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(key) != KEY_BYTES:
        raise UsageError(f"{path}: {_WHAT} has {KEY_BYTES} bytes, this file does not")
    return key
