"""The rows of one or more corpora: where every clip lies and how large it is, in arrays that workers can copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from endocorpus.corpus.mixes import read_mix
from endocorpus.errors import DataError, UsageError
from endofm.data.places import Place, open_place, shard_cache
from endofm.data.remote import RemoteFile, is_url
from endofm.data.settings import DataConfig
from endofm.data.stream import ClipBytes

_READY = "ready"  # other states are tombstones: their bytes are gone
_COLUMNS = (
    "key", "shard", "mp4_offset", "mp4_size", "mp4_xxh3_128", "num_frames", "height", "width", "status", "recording_id"
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ClipSet:
    """Clips of one or more corpora, corpora in the order given, rows in the order of their manifests.

    About 50 bytes a row plus the key, so the 33,000 clips of the Endo-FM mixture pickle into 3 MB.
    """

    shards: tuple[Path | RemoteFile, ...]
    shard_clips_S: NDArray[np.int32]  # how many clips each shard holds, wanted or not
    shard_index_N: NDArray[np.int32]  # into shards
    offset_N: NDArray[np.int64]  # bytes
    size_N: NDArray[np.int64]  # bytes
    digest_N16: NDArray[np.uint8]  # xxh3-128 of the video
    num_frames_N: NDArray[np.int32]
    height_N: NDArray[np.int32]  # pixels
    width_N: NDArray[np.int32]  # pixels
    key_N: NDArray[np.bytes_]  # ASCII
    corpus_N: NDArray[np.int16]  # into corpora
    fingerprint: str
    """xxh3-128, 32 hex digits, of the corpora's names and the keys and digests of all rows, in order: equal for equal
    training data wherever it lies, and never equal with and without a mixture."""
    corpora: tuple[tuple[str, int], ...]
    """Name of each corpus and how many clips it gives, counted as often as a mixture shows them."""
    unreleased: tuple[str, ...] = ()
    """Names of the corpora that do not say that they may leave the house."""

    def __len__(self) -> int:
        return len(self.offset_N)

    @property
    def warning(self) -> str:
        """A line about corpora that are not released; empty where all are."""
        names = ", ".join(self.unreleased)
        said = "warning: not released, so neither they nor what is trained on them may be passed on: "
        return said + names if names else ""

    @property
    def is_remote(self) -> bool:
        """Whether any of the clips must be fetched."""
        return any(isinstance(shard, RemoteFile) for shard in self.shards)

    def key(self, row: int) -> str:
        """The clip's key: its name inside the shard and in the manifest."""
        return bytes(self.key_N[row]).decode("ascii")

    def corpus(self, row: int) -> str:
        """The name of the clip's corpus."""
        return self.corpora[int(self.corpus_N[row])][0]

    def location(self, row: int) -> ClipBytes:
        """Where the clip's video lies, for `stream.ShardReader`."""
        return ClipBytes(
            shard=self.shards[self.shard_index_N[row]],
            key=self.key(row),
            offset=int(self.offset_N[row]),
            size=int(self.size_N[row]),
            xxh3_128=self.digest_N16[row].tobytes(),
        )

    def order_fingerprint(self, data: DataConfig, world: int) -> str:
        """xxh3-128, 32 hex digits, of all that an order is made of: `fingerprint`, and the shards if it goes by them.

        Args:
            data: with `block_shards` decided, see `decided`.
            world: number of ranks, which only a sequential order depends on.
        """
        sequential = data.stream == "sequential"
        if not (sequential or data.block_shards):
            return self.fingerprint
        about = f"{self.fingerprint} {world if sequential else ''} ".encode()
        return xxhash.xxh3_128_hexdigest(about + self.shard_numbers().tobytes())

    def shard_numbers(self) -> NDArray[np.int64]:
        """For every row the number of its shard, counted in the order in which rows name them, int64 [N].

        Unlike `shard_index_N` it does not depend on the order in which corpora with a mixture are given.
        """
        _, first, number_N = np.unique(self.shard_index_N, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[number_N].astype(np.int64)


def load_clips(corpora: Sequence[Path | str], mix: Path | None = None, data: DataConfig | None = None) -> ClipSet:
    """Read the manifests of finished corpora; no shard is opened.

    Args:
        corpora: folders, or addresses (https://..., s3://...). Their order is part of the data order.
        mix: a file of `endocorpus mix`. Its clips and no others are taken, in its order, as often as it says, each
            time as a row of its own; then the order of the corpora means nothing.
        data: what to leave out, and where what is fetched is kept; nothing and the usual place if None.

    Raises:
        UsageError: a folder is missing or is no corpus, there is no such mixture, or an address is none.
        DataError: no corpus, a corpus that is unfinished, damaged or given twice, or no clip in any of them; the
            mixture cannot be read, or names a clip that is not there, or is another one by now; a line of the exclusion
            list names nothing that is there; or a server fails.
    """
    data = data or DataConfig()
    cache = shard_cache(data)
    if any(map(is_url, corpora)):
        cache.forget_damaged()
    places = [open_place(place, cache) for place in corpora]
    _refuse_duplicates(places)
    tables = [_ready_clips(place) for place in places]
    if not sum(table.num_rows for table in tables):
        where = ", ".join(place.where for place in places) or "no corpus was named"
        raise DataError(f"there are no clips to train on: {where}")
    shards: list[Path | RemoteFile] = []
    shard_indices: list[NDArray[np.int32]] = []
    for place, table in zip(places, tables, strict=True):
        named = pc.dictionary_encode(table["shard"].combine_chunks())
        shard_indices.append(named.indices.to_numpy().astype(np.int32) + np.int32(len(shards)))
        shards += [place.shard(name) for name in named.dictionary.to_pylist()]
    clips, shard_index_N = pa.concat_tables(tables), np.concatenate(shard_indices)
    corpus_N = np.repeat(np.arange(len(tables), dtype=np.int16), [table.num_rows for table in tables])
    names = [place.name for place in places]
    rows = np.arange(clips.num_rows) if mix is None else _rows_of_mix(mix, [names[i] for i in corpus_N], clips)
    if data.exclude is not None:
        rows = rows[~_excluded(data.exclude, clips)[rows]]
        if not len(rows):
            raise DataError(f"{data.exclude}: there are no clips left to train on")
    shard_clips_S = np.bincount(shard_index_N, minlength=len(shards)).astype(np.int32)
    clips, shard_index_N, corpus_N = clips.take(pa.array(rows)), shard_index_N[rows], corpus_N[rows]
    if mix is None:
        fingerprint = _fingerprint(names, [clips.filter(pa.array(corpus_N == i)) for i in range(len(names))])
    else:
        fingerprint = _fingerprint_of_mix([names[i] for i in corpus_N], clips)
    shares = Counter(corpus_N.tolist())
    order = list(range(len(names))) if mix is None else list(shares)  # that in which a mixture names them
    number = {i: place for place, i in enumerate(order)}
    return ClipSet(
        shards=tuple(shards),
        shard_clips_S=shard_clips_S,
        shard_index_N=shard_index_N,
        offset_N=clips["mp4_offset"].to_numpy().astype(np.int64),
        size_N=clips["mp4_size"].to_numpy().astype(np.int64),
        digest_N16=_digests(clips),
        num_frames_N=clips["num_frames"].to_numpy().astype(np.int32),
        height_N=clips["height"].to_numpy().astype(np.int32),
        width_N=clips["width"].to_numpy().astype(np.int32),
        key_N=np.array(clips["key"].to_pylist(), dtype=np.bytes_),
        corpus_N=np.array([number[i] for i in corpus_N.tolist()], np.int16),
        fingerprint=fingerprint,
        corpora=tuple((names[i], shares[i]) for i in order),
        unreleased=tuple(places[i].name for i in order if not places[i].released),
    )


def _ready_clips(place: Place) -> pa.Table:
    table = place.clips.select(list(_COLUMNS))
    ready = table.filter(pc.equal(table["status"], _READY))
    # A clip without frames or pixels would fail deep inside a worker, hours later.
    for column in ("num_frames", "height", "width"):
        if ready.num_rows and pc.min(ready[column]).as_py() < 1:
            raise DataError(f"{place.where}: a clip has {column} below 1; run `endocorpus verify {place.where}`")
    return ready


def _rows_of_mix(path: Path, names: Sequence[str], clips: pa.Table) -> NDArray[np.int64]:
    """The rows of `clips` that a mixture takes, int64, a row as often as the mixture shows it."""
    wanted = read_mix(path).table
    digests = clips["mp4_xxh3_128"].to_pylist()
    places = {place: row for row, place in enumerate(zip(names, clips["key"].to_pylist(), strict=True))}
    asked = list(zip(wanted["corpus"].to_pylist(), wanted["key"].to_pylist(), strict=True))
    if lost := [place for place in asked if place not in places]:
        missing = ", ".join(sorted({corpus for corpus, _ in lost} - set(names)))
        raise DataError(
            f"{path}: clips that are not in the corpora given: {len(lost):,} of {len(asked):,}, such as "
            f"{lost[0][1]} of {lost[0][0]!r}; "
            + (f"add --corpus for {missing}" if missing else "write the mixture again with `endocorpus mix`")
        )
    rows = np.array([places[place] for place in asked], np.int64)
    changed = [
        row for row, digest in zip(rows, wanted["mp4_xxh3_128"].to_pylist(), strict=True) if digests[row] != digest
    ]
    if changed:
        raise DataError(
            f"{path}: clips that were encoded anew since: {len(changed):,}, such as {clips['key'][changed[0]]} of "
            f"{names[changed[0]]!r}; write the mixture again with `endocorpus mix`"
        )
    if not len(rows):
        raise DataError(f"{path}: there are no clips to train on")
    return np.repeat(rows, wanted["repeats"].to_numpy())


def _fingerprint_of_mix(names: Sequence[str], clips: pa.Table) -> str:
    hasher = xxhash.xxh3_128(b"mix\n")
    for row in zip(names, clips["key"].to_pylist(), clips["mp4_xxh3_128"].to_pylist(), strict=True):
        hasher.update("\t".join(row).encode() + b"\n")
    return hasher.hexdigest()


def _excluded(path: Path, clips: pa.Table) -> NDArray[np.bool_]:
    """Which clips an exclusion list names, by their keys or their recordings, bool [N].

    A line that names nothing is an error: a misspelt one would train on what must not be trained on.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(f"{path}: {said}; data.exclude names a file of clip keys and recording ids") from None
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    keys, recordings = clips["key"].to_pylist(), clips["recording_id"].to_pylist()
    known = {*keys, *recordings}
    unknown = [(number, line) for number, line in enumerate(lines, 1) if line and line not in known]
    if unknown:
        number, line = unknown[0]
        others = f" (and {len(unknown) - 1:,} more lines)" if len(unknown) > 1 else ""
        raise DataError(
            f"{path}, line {number}: {line!r} is no clip and no recording of the corpora given{others}; correct it, or "
            "take it out"
        )
    wanted = {line for line in lines if line}
    return np.array([key in wanted or recording in wanted for key, recording in zip(keys, recordings, strict=True)])


def _refuse_duplicates(places: Sequence[Place]) -> None:
    """A corpus named twice would be seen twice an epoch; two corpora of one name have clashing keys."""
    seen: dict[str, str] = {}
    for place in places:
        if place.name in seen:
            raise DataError(
                f"corpus {place.name!r} is named twice: {seen[place.name]} and {place.where}; if they are two, build "
                "one of them again under another --name"
            )
        seen[place.name] = place.where


def _digests(clips: pa.Table) -> NDArray[np.uint8]:
    packed = bytes.fromhex("".join(clips["mp4_xxh3_128"].to_pylist()))
    return np.frombuffer(packed, np.uint8).reshape(clips.num_rows, 16)


def _fingerprint(names: Sequence[str], tables: Sequence[pa.Table]) -> str:
    hasher = xxhash.xxh3_128()
    for name, table in zip(names, tables, strict=True):
        hasher.update(f"{name}\n{table.num_rows}\n".encode())
        hasher.update("\n".join(table["key"].to_pylist()).encode())
        hasher.update("".join(table["mp4_xxh3_128"].to_pylist()).encode())
    return hasher.hexdigest()
