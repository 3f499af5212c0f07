"""What a source's label strings mean: `manifests/vocabularies/<source>.toml` maps raw strings to codes in `[a-z0-9_]`.

The raw string is always kept beside its code, and a string that no vocabulary knows has no code.
"""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import xxhash

from endocorpus.errors import DataError
from endocorpus.manifests import manifests_folder

_CODE = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The codes of one source: label name -> normalised raw string -> code."""

    source: str
    version: int
    codes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """xxh3-128 of all codes: equal for vocabularies that say the same."""
        return xxhash.xxh3_128_hexdigest(json.dumps(self.codes, sort_keys=True).encode())

    def code(self, name: str, raw: str) -> str | None:
        """The code of the string `raw` of the label `name`, or None where the vocabulary has none."""
        return self.codes.get(name, {}).get(normalise(raw))


@cache
def load_vocabulary(source: str) -> Vocabulary:
    """The vocabulary of a source; an empty one (version 0) where none is written.

    Raises:
        DataError: the file is malformed, or one string stands under two codes.
    """
    path = manifests_folder() / "vocabularies" / f"{source}.toml"
    return read_vocabulary(path) if path.is_file() else Vocabulary(source=source, version=0)


def read_vocabulary(path: Path) -> Vocabulary:
    """Read one file; `DataError` as in `load_vocabulary`."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        version = table.pop("version")
    except (KeyError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: not a vocabulary: {error}") from None
    codes = {name: _aliases(f"{path}: [{name}]", meanings) for name, meanings in table.items()}
    return Vocabulary(source=path.stem, version=version, codes=codes)


def normalise(raw: str) -> str:
    """`raw` without what carries no meaning: composition, case, blanks in a row, commas and the like at its ends."""
    return " ".join(unicodedata.normalize("NFKC", raw).casefold().split()).strip(" ,;.")


def _aliases(where: str, meanings: Mapping[str, list[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for code, raws in meanings.items():
        if not _CODE.fullmatch(code):
            raise DataError(f"{where}: the code {code!r} must be of a-z, 0-9 and _")
        for raw in (code, *raws):
            other = found.setdefault(normalise(raw), code)
            if other != code:
                raise DataError(f"{where}: {raw!r} stands under both {other!r} and {code!r}; keep one")
    return found
