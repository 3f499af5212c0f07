"""Pseudonyms: HMAC-SHA256 (RFC 2104) under a secret key, one domain for each kind of thing; or random, from a vault.

A plain hash of an identifier is no pseudonym: all 8-digit numbers are hashed in under a minute, so whoever has the
hash has the number. Without the key an HMAC says nothing; whoever destroys the key cuts the last tie. A random id of
the vault is not derived from the identifier at all, as HIPAA's Safe Harbor (45 CFR 164.514(c)) wants it.

Dates are dropped. Where intervals matter they may be shifted instead, by days that are secret, the same for all dates
of one patient, and never 0.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

from endocorpus.deid.intake import FILES, neutral_ids
from endocorpus.deid.keeping import make_secret, open_secret
from endocorpus.deid.vault import ID_LENGTH, Vault
from endocorpus.errors import DataError, UsageError

Domain = Literal["patient", "study", "clip"]

KEY_BYTES = 32
SHIFTS = range(30, 366)  # days, forwards or backwards
_FEWEST_DISTINCT = 16  # byte values in a random key; fewer come up less than once in 10**9 keys
_WHAT = "the key file"


@dataclass(frozen=True, slots=True)
class Key:
    """The secret of keyed pseudonyms. `kid` names it without telling anything about it."""

    secret: bytes = field(repr=False)

    @property
    def kid(self) -> str:
        """8 bytes as hex digits."""
        return self.mac(b"kid")[:8].hex()

    def mac(self, message: bytes) -> bytes:
        return hmac.digest(self.secret, message, "sha256")


def new_key(path: Path, never_in: Iterable[Path] = ()) -> Key:
    """Draw a key and keep it in a new file, mode 0600.

    Raises:
        UsageError: the file is there, lies in a corpus, a git tree or a folder of `never_in`, or cannot be made.
    """
    key = Key(secrets.token_bytes(KEY_BYTES))
    make_secret(path, _WHAT, key.secret, never_in)
    return key


def read_key(path: Path, never_in: Iterable[Path] = ()) -> Key:
    """The key that a file keeps.

    Raises:
        UsageError: the file lies where it must not, others could read it, or it does not hold 32 random bytes.
    """
    with os.fdopen(open_secret(path, _WHAT, never_in), "rb") as file:
        secret = file.read(KEY_BYTES + 1)
    if len(secret) != KEY_BYTES:
        size = "longer" if len(secret) > KEY_BYTES else "shorter"
        raise UsageError(f"{path}: {_WHAT} is {size} than {KEY_BYTES} bytes; a key is {KEY_BYTES} random bytes")
    if len(set(secret)) < _FEWEST_DISTINCT:
        raise UsageError(f"{path}: {_WHAT} does not hold random bytes, so it would hide nothing")
    return Key(secret)


def destroy_key(path: Path) -> None:
    """Overwrite and remove a key: from then on nobody can tell whose a keyed pseudonym is. Copies are not reached.

    Raises:
        UsageError: it is no key file that may be used.
    """
    os.close(open_secret(path, _WHAT))
    real = os.path.realpath(path)
    with open(real, "r+b") as file:
        file.write(os.urandom(os.fstat(file.fileno()).st_size))
        file.flush()
        os.fsync(file.fileno())
    os.unlink(real)


def plain(identifier: str, what: str = "an identifier") -> bytes:
    """An identifier as it is told apart from others: in Unicode's compatible composition (NFKC), which makes full-width
    digits and composed letters one with their plain forms.

    Raises:
        DataError: it is empty, or holds the character that separates fields. The message does not quote it.
    """
    normal = unicodedata.normalize("NFKC", identifier)
    if not normal.strip():
        raise DataError(f"{what} is empty: everybody without one would share a pseudonym")
    if "\0" in normal:
        raise DataError(f"{what} holds a zero character")
    return normal.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedNames:
    """Pseudonyms that whoever has the key can make again: the same id for the same patient at every build."""

    key: Key
    site: str

    def of(self, domain: Domain, identifier: str) -> str:
        """`p_`, `s_` or `c_` for patient, study or clip, and 26 of a-z and 2-7: 130 bits.

        Raises:
            DataError: the identifier is empty.
        """
        fields = (domain.encode(), plain(self.site, "the site"), plain(identifier, f"the identifier of a {domain}"))
        return f"{domain[0]}_{self._code(*fields)}"

    def _code(self, *fields: bytes) -> str:
        return base64.b32encode(self.key.mac(b"\0".join(fields))).decode("ascii")[:ID_LENGTH].lower()

    @property
    def kind(self) -> str:
        return "keyed"

    def patients(self, cases: Iterable[str]) -> Mapping[str, str]:
        """`of` without its prefix, for each case."""
        return {case: self.of("patient", case)[2:] for case in cases}

    def files(self, paths: Iterable[str]) -> Mapping[str, str]:
        """As `Names.files`: paths as `os.fsdecode` gives them, bytes that are no Unicode among them."""
        site = plain(self.site, "the site")
        return {path: self._code(FILES.encode(), site, os.fsencode(path)) for path in paths}

    def days(self, patient: str) -> int:
        """Days by which the dates of the patient of this pseudonym are shifted: 30 to 365 either way."""
        drawn = int.from_bytes(self.key.mac(b"date\0" + patient.encode()))  # 256 bits: no choice is favoured
        days = SHIFTS[drawn // 2 % len(SHIFTS)]
        return -days if drawn % 2 else days


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomNames:
    """Pseudonyms that are drawn, and kept in the vault alone."""

    vault: Vault
    site: str

    def of(self, domain: Domain, identifier: str) -> str:
        """As `KeyedNames.of`, of 128 random bits.

        Raises:
            DataError: the identifier is empty, or the vault is damaged.
        """
        original = plain(identifier, f"the identifier of a {domain}")
        return f"{domain[0]}_{self.vault.given(domain, self._site, original)}"

    @property
    def _site(self) -> str:
        return plain(self.site, "the site").decode()

    @property
    def kind(self) -> str:
        return "random"

    def patients(self, cases: Iterable[str]) -> Mapping[str, str]:
        """As `KeyedNames.patients`."""
        originals = {case: plain(case, "the identifier of a patient") for case in cases}
        given = self.vault.given_all("patient", self._site, originals.values())
        return {case: given[original] for case, original in originals.items()}

    def files(self, paths: Iterable[str]) -> Mapping[str, str]:
        """As `KeyedNames.files`; the vault leads back to the path (`intake.original_path`)."""
        return neutral_ids(self.vault, self._site, paths)

    def days(self, patient: str) -> int:
        """As `KeyedNames.days`."""
        return self.vault.shift(patient, SHIFTS)


def shifted(day: date, days: int) -> date:
    """A date moved by the days of its patient. The time of day goes.

    Raises:
        DataError: that is no date any more. The message does not quote it.
    """
    try:
        return date(day.year, day.month, day.day) + timedelta(days=days)
    except OverflowError:
        raise DataError("a date lies outside the calendar") from None
