"""The errors people see. A bug is any other exception, and is left to crash loudly."""

from __future__ import annotations


class DataError(Exception):
    """The data or the machine is not as needed: one line for the user, exit code 1."""


class UsageError(Exception):
    """The command or its configuration is wrong: one line for the user, exit code 2."""
