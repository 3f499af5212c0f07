"""The errors people see. A bug is any other exception, and is left to crash loudly."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(Exception):
    """The data or the machine is not as needed: one line for the user, exit code 1."""


class UsageError(Exception):
    """The command or its configuration is wrong: one line for the user, exit code 2."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """How the message about an unknown name ends: with the known one that is nearest, or, if none is near, with all."""
    known = tuple(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there is: {', '.join(known)}"
