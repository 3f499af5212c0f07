"""The vault: one table, outside of every corpus, that alone maps neutral random ids to what they stand for.

An id of the vault is drawn, not computed, so nothing but the table leads back. Whoever destroys the table makes the
ids meaningless.
"""

from __future__ import annotations

import base64
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from endocorpus.deid.keeping import make_secret, open_secret, safe_place
from endocorpus.errors import DataError

ID_LENGTH = 26  # characters of base32, 5 bits each
_WHAT = "the vault"
_WAIT = 60.0  # seconds for another process that writes into it
_SCHEMA = """
CREATE TABLE IF NOT EXISTS names (
    domain TEXT NOT NULL, site TEXT NOT NULL, original BLOB NOT NULL, given TEXT NOT NULL UNIQUE,
    PRIMARY KEY (domain, site, original)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shifts (patient TEXT PRIMARY KEY, days INTEGER NOT NULL) WITHOUT ROWID;
"""


def random_id() -> str:
    """An id of 128 random bits: 26 of a-z and 2-7."""
    return base64.b32encode(secrets.token_bytes(16)).decode("ascii")[:ID_LENGTH].lower()


class Vault:
    """An open vault. What is stored are bytes, so that a name in any encoding comes back as it was."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def given(self, domain: str, site: str, original: bytes) -> str:
        """The id of `original` in its domain and site; drawn when it is first asked for."""
        return self.given_all(domain, site, [original])[original]

    def given_all(self, domain: str, site: str, originals: Iterable[bytes]) -> dict[bytes, str]:
        """`given` of many: they are kept all together, or none."""
        self._connection.execute("BEGIN IMMEDIATE")  # two processes must not draw two ids for one name
        with self._connection:
            return {original: self._id(domain, site, original) for original in originals}

    def _id(self, domain: str, site: str, original: bytes) -> str:
        row = self._connection.execute(
            "SELECT given FROM names WHERE domain = ? AND site = ? AND original = ?", (domain, site, original)
        ).fetchone()
        if row:
            return str(row[0])
        drawn = random_id()
        self._connection.execute("INSERT INTO names VALUES (?, ?, ?, ?)", (domain, site, original, drawn))
        return drawn

    def shift(self, patient: str, choices: range) -> int:
        """Days by which the dates of a patient, by their id, are shifted; an entry of `choices`, drawn once."""
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            row = self._connection.execute("SELECT days FROM shifts WHERE patient = ?", (patient,)).fetchone()
            if row:
                return int(row[0])
            drawn: int = secrets.choice((*choices, *(-days for days in choices)))
            self._connection.execute("INSERT INTO shifts VALUES (?, ?)", (patient, drawn))
            return drawn

    def original(self, given: str) -> bytes | None:
        """What an id stands for, for those who may know; None for an id that the vault never gave."""
        row = self._connection.execute("SELECT original FROM names WHERE given = ?", (given,)).fetchone()
        return bytes(row[0]) if row else None

    def forget(self, given: Iterable[str]) -> int:
        """Erase ids for good (the bytes are overwritten); how many there were. The same name then gets another id."""
        ids = [(name,) for name in given]
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            self._connection.executemany("DELETE FROM shifts WHERE patient = ?", ids)
            return self._connection.executemany("DELETE FROM names WHERE given = ?", ids).rowcount


@contextmanager
def open_vault(path: Path, never_in: Iterable[Path] = ()) -> Iterator[Vault]:
    """Open a vault, made if it is not there, mode 0600. What sqlite writes beside it takes over the mode.

    Raises:
        UsageError: it lies in a corpus, in a git tree or in a folder of `never_in`, or others could read it.
        DataError: it is damaged, or no vault.
    """
    closed = list(never_in)
    if not os.path.lexists(path):
        make_secret(path, _WHAT, b"", closed)
    os.close(open_secret(path, _WHAT, closed))
    real = safe_place(path, _WHAT, closed)
    try:
        connection = sqlite3.connect(f"{real.as_uri()}?mode=rw", uri=True, timeout=_WAIT, isolation_level=None)
        try:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA temp_store = MEMORY")  # names must not lie in temporary files
            connection.executescript(_SCHEMA)
            yield Vault(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise DataError(f"{path}: the vault cannot be used: {type(error).__name__}") from None
