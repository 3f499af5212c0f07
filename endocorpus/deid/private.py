"""What a command may do with a private source: its names are pseudonyms, and no error may say what they stand for."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from endocorpus.deid.pseudonym import KeyedNames, RandomNames, read_key
from endocorpus.deid.vault import open_vault
from endocorpus.errors import DataError, UsageError
from endocorpus.naming import NAMES_NEEDED, Names
from endocorpus.sources.layout import Source

_OUR_LINE = re.compile(r'File "[^"\n]*/(endocorpus/[a-z_/]+\.py)", line ([0-9]+)', re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What the pseudonyms of a private source are made with: a key, or a vault; for which site."""

    key: Path | None = None
    vault: Path | None = None
    site: str | None = None


@contextmanager
def names_of(source: Source, secrets: Secrets, corpus: str, never_in: Iterable[Path]) -> Iterator[Names | None]:
    """The pseudonyms of a private source; None for a public one, which has its own names.

    Inside, nothing that goes wrong with a private source tells the name of a file.

    Args:
        corpus: its name, which stands for the site where none is given: two hospitals have patients of one name.
        never_in: folders in which a secret must not lie, such as the raw tree and the corpus.

    Raises:
        UsageError: none or both of key and vault are given, or one cannot be used; or one is given for a public source.
    """
    given = [f"--{what}" for what in ("key", "vault", "site") if getattr(secrets, what) is not None]
    if source.privacy == "public":
        if given:
            raise UsageError(f"{given[0]} is for private recordings; {source.name} is public here and keeps its names")
        yield None
        return
    site, closed = corpus if secrets.site is None else secrets.site, list(never_in)
    if not site.strip() or "\0" in site:
        raise UsageError("--site: a name is needed, such as that of the hospital or ward")
    if secrets.key is not None and secrets.vault is not None:
        raise UsageError("--key and --vault: pseudonyms are computed or drawn, not both; say one of them")
    with _nameless():
        if secrets.key is not None:
            yield KeyedNames(key=read_key(secrets.key, closed), site=site)
        elif secrets.vault is not None:
            with open_vault(secrets.vault, closed) as vault:
                yield RandomNames(vault=vault, site=site)
        else:
            raise UsageError(NAMES_NEEDED.format(source=source.name))


@contextmanager
def _nameless() -> Iterator[None]:
    """Errors of the system lose their file's name; a fault of the program is told by its place, not by its words."""
    try:
        yield
    except (UsageError, DataError):
        raise
    except OSError as error:
        error.filename = error.filename2 = None
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, its words may hold a name
        places = _OUR_LINE.findall("".join(traceback.format_exception(error)))
        where = f" in {places[-1][0]}, line {places[-1][1]}" if places else ""
        raise DataError(
            f"a fault of the program, {type(error).__name__}{where}; what it says is not shown, as it may hold a name"
        ) from None
