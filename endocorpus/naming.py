"""Names that are safe everywhere: ids in `[a-z0-9-]`, and paths printed on one line whatever bytes they hold."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Protocol

import xxhash

FETCHED = ".fetch"  # what begins so at the top of a raw tree is the book-keeping of `endocorpus fetch`, not data
_PLAIN = re.compile(r"[a-z0-9_-]+")
_SLUG_LENGTH = 40
NAMES_NEEDED = (
    "{source} is private here, so pseudonyms stand for the names of its files, and take a secret: say --key FILE "
    "(`endocorpus deid new-key FILE` makes one), or --vault FILE for random ids (it is made if it is not there). Keep "
    "it outside of the raw tree, and of every corpus and git tree"
)


class Names(Protocol):
    """What stands for the names of a private source, each 26 of a-z and 2-7: pseudonyms, which lead nowhere without a
    secret. `endocorpus.deid.pseudonym` makes them."""

    @property
    def kind(self) -> str:
        """`keyed` or `random`."""

    def patients(self, cases: Iterable[str]) -> Mapping[str, str]:
        """The pseudonym of the patient behind each name of a case; none of them is empty."""

    def files(self, paths: Iterable[str]) -> Mapping[str, str]:
        """The pseudonym of each path below the raw root, told apart byte by byte."""


def make_id(prefix: str, text: str, exact: bool = False) -> str:
    """An id for `text`: its slug, and a hash of it where the slug alone would lose something.

    Texts that differ only in case, blanks or Unicode composition get the same id: such names are one name on some
    file systems, and whoever scans must notice. With `exact` only composition is ignored, and they differ.
    """
    same = unicodedata.normalize("NFC", text) if exact else fold(text)
    slug = re.sub(r"[^a-z0-9]+", "-", unicodedata.normalize("NFKD", fold(text)).encode("ascii", "ignore").decode())
    slug = slug.strip("-")
    if slug and _PLAIN.fullmatch(same) and len(slug) <= _SLUG_LENGTH:
        return f"{prefix}-{slug}"
    tail = xxhash.xxh3_64_hexdigest(same.encode("utf-8", "surrogateescape"))[:8]
    return "-".join(part for part in (prefix, slug[:_SLUG_LENGTH].strip("-"), tail) if part)


def hidden(text: str) -> str:
    """A hash that stands for `text` where only equality matters and the text should travel no further."""
    return xxhash.xxh3_64_hexdigest(fold(text).encode("utf-8", "surrogateescape"))


def fold(text: str) -> str:
    """`text` without what case-insensitive or careless systems ignore: case, blanks, Unicode composition."""
    return "".join(unicodedata.normalize("NFC", text).casefold().split())


def name_key(text: str) -> str:
    """A recording's name as label tables are matched with it."""
    return unicodedata.normalize("NFC", text)


def printable(path: str) -> str:
    """A path as one line of valid Unicode: undecodable bytes and control characters become escapes."""
    clean = path.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in clean)
