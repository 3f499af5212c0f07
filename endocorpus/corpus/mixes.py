"""A mixture as a file: which clips of which corpora train, and how often. Written by `endocorpus mix`, read by whoever
trains; what decided about it (rows, leaks) need not be known to read it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from endocorpus.corpus.files import digest_bytes
from endocorpus.corpus.manifest import parquet_bytes, parse_parquet, rows_table
from endocorpus.corpus.schema import MIX
from endocorpus.errors import DataError, UsageError

_ABOUT = "endocorpus.mix"  # key of the file's own metadata
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MixFile:
    """A mixture as read. `table` has the columns of `schema.MIX`; `about` says how it was asked for."""

    table: pa.Table
    about: Mapping[str, object]


def mix_bytes(rows: Iterable[Mapping[str, object]], about: Mapping[str, object]) -> bytes:
    """The file of a mixture; its bytes depend on the rows, their order and `about` alone.

    Raises:
        ValueError: a row does not fit the schema (a bug).
    """
    table = rows_table(MIX, rows)
    told = {"version": _VERSION, "about": about}
    return parquet_bytes(table, {_ABOUT: json.dumps(told | {"digest": _digest(table, told)}, sort_keys=True)})


def read_mix(path: Path) -> MixFile:
    """Read and check a mixture.

    Raises:
        UsageError: there is no such file.
        DataError: not a mixture, damaged or edited, of a newer version, or it shows a clip less than once.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; `endocorpus mix --out` writes a mixture") from None
    try:
        table = parse_parquet(data)
        told = json.loads((table.schema.metadata or {})[_ABOUT.encode()])
        version, digest, about = int(told["version"]), told.pop("digest"), dict(told["about"])
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError):  # OSError: Arrow's own
        raise DataError(f"{path}: not a mixture, or damaged; `endocorpus mix --out` writes one") from None
    if version > _VERSION:
        raise DataError(f"{path}: a mixture of version {version}, this version reads {_VERSION}; update endocorpus")
    if table.schema.names != MIX.names or _digest(table, told) != digest:
        raise DataError(f"{path}: damaged or edited; write it again with `endocorpus mix`")
    if any(repeats < 1 for repeats in table["repeats"].to_pylist()):
        raise DataError(f"{path}: a clip is shown less than once; write it again with `endocorpus mix`")
    return MixFile(table=table, about=about)


def _digest(table: pa.Table, told: Mapping[str, object]) -> str:
    """xxh3-128 of all that the file says."""
    return digest_bytes(json.dumps([told, table.to_pydict()], sort_keys=True).encode())
