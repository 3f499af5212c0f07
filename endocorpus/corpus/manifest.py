"""Opening a corpus: its descriptor, its tables and its shards. A folder without a descriptor is not a corpus yet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from endocorpus.corpus.files import atomic_file, digest_bytes, parse_signed, signed_json
from endocorpus.corpus.schema import SCHEMA_VERSION, TABLES
from endocorpus.errors import DataError, UsageError

DESCRIPTOR = "corpus.json"
SHARDS = "shards"
REPORT = "report/index.html"
RELEASED = "released"  # entry of the descriptor

_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*")
_DIGEST = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A complete corpus on disk. `descriptor` is the content of corpus.json, without its own digest."""

    root: Path
    descriptor: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.descriptor["name"])

    @property
    def released(self) -> bool:
        """Whether the corpus says that it may leave the house. What says nothing may not."""
        return is_released(self.descriptor)

    def table(self, name: str) -> pa.Table:
        """One of the Parquet tables of `schema.TABLES`.

        Raises:
            DataError: missing, damaged, or of another schema.
        """
        try:
            committed = str(self.descriptor["tables"][name]["xxh3_128"])
        except KeyError:
            raise DataError(f"{self.root / DESCRIPTOR}: does not list the table {name!r}") from None
        return read_table(self.root, name, committed)

    def clips(self) -> pa.Table:
        """One row per clip, ordered by shard and offset."""
        return self.table("clips")

    def shard_path(self, shard: str) -> Path:
        return self.root / SHARDS / shard


def is_released(descriptor: Mapping[str, Any]) -> bool:
    """`Corpus.released` for the content of a corpus.json."""
    return descriptor.get(RELEASED) is True


def is_corpus(folder: Path) -> bool:
    """Whether a folder says that it is a corpus, or will be one."""
    return any((folder / name).exists() for name in (DESCRIPTOR, ".build"))


def refuse_inside_corpus(path: Path) -> None:
    """Raise a `UsageError` for a file that would be written into a corpus, where it could take the place of a part."""
    for folder in path.resolve().parents:
        if is_corpus(folder):
            raise UsageError(
                f"--out {path}: lies in the corpus {folder}, which only a build may write; use another --out"
            )


def named_corpus(root: Path) -> Corpus:
    """`open_corpus` for a folder that somebody named in a command, perhaps not the one that was meant.

    Raises:
        UsageError: there is no such folder, or nothing in it says that it is or will be a corpus.
        DataError: as `open_corpus`.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder")
    if not is_corpus(root):
        raise UsageError(
            f"{root}: not a corpus; that is a folder which `endocorpus build` has made, with a {DESCRIPTOR}"
        )
    return open_corpus(root)


def open_corpus(root: Path) -> Corpus:
    """Open a finished corpus.

    Raises:
        DataError: not a corpus, an unfinished build, or one written by a newer version.
    """
    root = Path(root)
    try:
        text = (root / DESCRIPTOR).read_text(encoding="utf-8")
    except FileNotFoundError:
        if not root.exists():
            raise DataError(f"{root}: no such corpus") from None
        raise DataError(
            f"{root}: no {DESCRIPTOR}, so this is not a finished corpus; `endocorpus build`, run again, finishes it"
        ) from None
    except OSError as error:
        raise DataError(f"{root / DESCRIPTOR}: {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    descriptor = parse_descriptor(text, root / DESCRIPTOR, "`endocorpus build` writes it again")
    return Corpus(root=root, descriptor=descriptor)


def parse_descriptor(text: str | bytes, where: object, remedy: str) -> dict[str, Any]:
    """The content of a corpus.json that was read from anywhere, without its own digest.

    Args:
        text: of the file.
        where: what to call the file in an error.
        remedy: what to do where it is damaged.

    Raises:
        DataError: damaged or edited, of another schema, or listing what cannot be a file of a corpus.
    """
    try:
        descriptor = json.loads(text)
        version = int(descriptor["schema_version"])
        if version == SCHEMA_VERSION:
            descriptor = parse_signed(text)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise DataError(f"{where}: damaged or edited; {remedy}") from None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{where}: written with schema {version}, this version reads schema {SCHEMA_VERSION}; "
            + ("update endocorpus" if version > SCHEMA_VERSION else "build it again")
        )
    if (strange := _strange(descriptor)) is not None:
        raise DataError(f"{where}: {strange[:200]} is nothing that a build writes; {remedy}")
    return dict(descriptor)


def _strange(descriptor: Mapping[str, Any]) -> str | None:
    """What in a descriptor no build has written. It may come from anybody, and its names become paths."""
    name, shards, tables = (
        descriptor.get(key, default) for key, default in (("name", None), (SHARDS, []), ("tables", {}))
    )
    if not (isinstance(name, str) and name):
        return f"name = {name!r}"
    if not isinstance(shards, list):
        return f"shards = {shards!r}"
    if not isinstance(tables, dict):
        return f"tables = {tables!r}"
    listed = [(tar.get("name") if isinstance(tar, dict) else None, tar) for tar in shards]
    return next(
        (f"{name!r}: {entry!r}" for name, entry in [*listed, *tables.items()] if not _is_file(name, entry)), None
    )


def _is_file(name: object, entry: object) -> bool:
    return (
        isinstance(name, str)
        and _NAME.fullmatch(name) is not None
        and isinstance(entry, dict)
        and isinstance(size := entry.get("size"), int)
        and 0 <= size < 2**63
        and isinstance(digest := entry.get("xxh3_128"), str)
        and _DIGEST.fullmatch(digest) is not None
    )


def table_bytes(name: str, rows: Iterable[Mapping[str, object]]) -> bytes:
    """One table as Parquet; the bytes depend on the rows alone.

    Raises:
        ValueError: a row does not fit the schema (a bug).
    """
    return parquet_bytes(rows_table(TABLES[name], rows))


def rows_table(schema: pa.Schema, rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Rows as a table of `schema`; `ValueError` as in `table_bytes`."""
    table = pa.Table.from_pylist([_complete(row, schema) for row in rows], schema=schema)
    table.validate(full=True)
    return table


def parquet_bytes(table: pa.Table, about: Mapping[str, str] | None = None) -> bytes:
    """A table as Parquet, with `about` among the file's own metadata; the bytes depend on the two alone."""
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", version="2.6", store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(dict(about or {}))
    return bytes(buffer.getvalue().to_pybytes())


def _complete(row: Mapping[str, object], schema: pa.Schema) -> Mapping[str, object]:
    unknown, missing = set(row) - set(schema.names), set(schema.names) - set(row)
    if unknown or missing:
        raise ValueError(f"row does not fit the schema: unknown {sorted(unknown)}, missing {sorted(missing)}")
    for field in schema:
        if not field.nullable and row[field.name] is None:
            raise ValueError(f"column {field.name!r} must have a value")
    return row


def read_table(root: Path, name: str, digest: str) -> pa.Table:
    """Read one table, whose bytes must have the xxh3-128 `digest`, and check its columns.

    Raises:
        DataError: missing, damaged, or of another schema.
    """
    path = root / f"{name}.parquet"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: missing; run `endocorpus verify {root}`") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; run `endocorpus verify {root}`") from None
    return parse_table(data, name, digest, path, f"run `endocorpus verify {root}`")


def parse_table(data: bytes, name: str, digest: str, where: object, remedy: str) -> pa.Table:
    """One table that was read from anywhere. `where` and `remedy` go into errors, as in `parse_descriptor`.

    Raises:
        DataError: not the bytes whose xxh3-128 is `digest`, or of another schema.
    """
    if digest_bytes(data) != digest:  # a flipped bit can turn one valid table into another
        raise DataError(f"{where}: damaged; {remedy}")
    table = parse_parquet(data)
    if table.schema.names != TABLES[name].names:
        raise DataError(f"{where}: columns are not those of schema {SCHEMA_VERSION}")
    return table


def parse_parquet(data: bytes) -> pa.Table:
    """The table that `parquet_bytes` wrote; what it wrote about it is the metadata of the table's schema."""
    # Not read_table: its threads abort the interpreter at exit now and then (seen with pyarrow 26.0.1).
    file = pq.ParquetFile(pa.BufferReader(data))
    return file.read(use_threads=False).replace_schema_metadata(file.metadata.metadata)


def write_descriptor(root: Path, descriptor: Mapping[str, object]) -> None:
    """Commit a corpus: written last, so that its existence means the rest is complete."""
    with atomic_file(root / DESCRIPTOR) as file:
        file.write(signed_json(descriptor))
