"""Where corpora lie: a folder, or an address whose files are fetched into the cache when they are needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from endocorpus.corpus.files import digest_bytes
from endocorpus.corpus.manifest import DESCRIPTOR, SHARDS, is_released, named_corpus, parse_descriptor, parse_table
from endocorpus.errors import DataError
from endofm.data.cache import ShardCache, default_folder
from endofm.data.remote import RemoteFile, corpus_url, is_url, read_small, redacted
from endofm.data.settings import DataConfig

_REMEDY = "copy the corpus there again"
_FIRST_CONTACT = 30.0  # seconds


@dataclass(frozen=True)
class Place:
    """A finished corpus, opened. `where` is its folder or address, without credentials; `released` whether it says that
    it may leave the house."""

    name: str
    where: str
    released: bool
    clips: pa.Table  # of `schema.CLIPS`
    _shards: Mapping[str, Path | RemoteFile]

    def shard(self, name: str) -> Path | RemoteFile:
        """The shard of that name, which may not be there.

        Raises:
            DataError: the descriptor does not list it: the manifest of a corpus decides no paths.
        """
        if name not in self._shards:
            raise DataError(f"{self.where}/{DESCRIPTOR}: does not list the shard {name!r}; build or copy it again")
        return self._shards[name]


def open_place(place: Path | str, cache: ShardCache) -> Place:
    """Open a corpus, wherever it lies.

    Raises:
        UsageError: no such folder, nothing there that is or will be a corpus, or an address that cannot be one.
        DataError: an unfinished or damaged corpus, one of another schema, or a server that fails.
    """
    if not is_url(place):
        corpus = named_corpus(Path(place))
        paths = {tar["name"]: corpus.shard_path(tar["name"]) for tar in corpus.descriptor.get(SHARDS, ())}
        return Place(corpus.name, str(corpus.root), corpus.released, corpus.clips(), paths)
    root = corpus_url(str(place))
    where = redacted(root)
    # A misspelt host is no server to wait long for.
    text = read_small(root, DESCRIPTOR, retry_seconds=min(cache.retry_seconds, _FIRST_CONTACT))
    descriptor = parse_descriptor(text, f"{where}/{DESCRIPTOR}", _REMEDY)
    listed = {tar["name"]: _file(root, f"{SHARDS}/{tar['name']}", tar) for tar in descriptor.get(SHARDS, ())}
    try:
        table = _file(root, "clips.parquet", descriptor["tables"]["clips"])
    except KeyError:
        raise DataError(f"{where}/{DESCRIPTOR}: does not list the table 'clips'") from None
    data = _read(table, cache)
    clips = parse_table(data, "clips", table.xxh3_128, table, _REMEDY)
    return Place(descriptor["name"], where, is_released(descriptor), clips, listed)


def shard_cache(data: DataConfig) -> ShardCache:
    """The cache that the settings ask for. Nothing is made before something is fetched."""
    return ShardCache(data.cache_dir or default_folder(), int(data.cache_gb * 1e9), data.retry_seconds)


def _file(root: str, name: str, listed: Mapping[str, Any]) -> RemoteFile:
    return RemoteFile(root, name, listed["size"], listed["xxh3_128"])


def _read(wanted: RemoteFile, cache: ShardCache) -> bytes:
    """A whole file, through the cache, so that the ranks of a node fetch it once."""

    def read() -> bytes:
        with os.fdopen(cache.open(wanted), "rb") as file:
            return file.read()

    data = read()
    return read() if digest_bytes(data) != wanted.xxh3_128 and cache.drop_if_rotten(wanted) else data
