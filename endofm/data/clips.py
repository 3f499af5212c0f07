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

from endocorpus.corpus.manifest import Corpus, named_corpus
from endocorpus.corpus.mixes import read_mix
from endocorpus.errors import DataError
from endofm.data.stream import ClipBytes

_READY = "ready"  # other states are tombstones: their bytes are gone
_COLUMNS = ("key", "shard", "mp4_offset", "mp4_size", "mp4_xxh3_128", "num_frames", "height", "width", "status")


@dataclass(frozen=True, eq=False)
class ClipSet:
    """Clips of one or more corpora, corpora in the order given, rows in the order of their manifests.

    About 50 bytes a row plus the key, so the 33,000 clips of the Endo-FM mixture pickle into 3 MB.
    """

    shard_paths: tuple[Path, ...]
    shard_index_N: NDArray[np.int32]  # into shard_paths
    offset_N: NDArray[np.int64]  # bytes
    size_N: NDArray[np.int64]  # bytes
    digest_N16: NDArray[np.uint8]  # xxh3-128 of the video
    num_frames_N: NDArray[np.int32]
    height_N: NDArray[np.int32]  # pixels
    width_N: NDArray[np.int32]  # pixels
    key_N: NDArray[np.bytes_]  # ASCII
    fingerprint: str
    """xxh3-128, 32 hex digits, of the corpora's names and the keys and digests of all rows, in order: equal for equal
    training data wherever it lies, and never equal with and without a mixture."""
    corpora: tuple[tuple[str, int], ...]
    """Name of each corpus and how many clips it gives, counted as often as a mixture shows them."""

    def __len__(self) -> int:
        return len(self.offset_N)

    def key(self, row: int) -> str:
        """The clip's key: its name inside the shard and in the manifest."""
        return bytes(self.key_N[row]).decode("ascii")

    def location(self, row: int) -> ClipBytes:
        """Where the clip's video lies, for `stream.ShardReader`."""
        return ClipBytes(
            shard_path=self.shard_paths[self.shard_index_N[row]],
            key=self.key(row),
            offset=int(self.offset_N[row]),
            size=int(self.size_N[row]),
            xxh3_128=self.digest_N16[row].tobytes(),
        )


def load_clips(corpora: Sequence[Path], mix: Path | None = None) -> ClipSet:
    """Read the manifests of finished corpora; no shard is opened.

    Args:
        corpora: corpus folders. Their order is part of the data order.
        mix: a file of `endocorpus mix`. Its clips and no others are taken, in its order, as often as it says, each
            time as a row of its own; then the order of the corpora means nothing.

    Raises:
        UsageError: a folder is missing or is no corpus, or there is no such mixture.
        DataError: no corpus, a corpus that is unfinished, damaged or given twice, or no clip in any of them; or the
            mixture cannot be read, or names a clip that is not there, or is another one by now.
    """
    opened = [named_corpus(Path(path)) for path in corpora]
    _refuse_duplicates(opened)
    tables = [_ready_clips(corpus) for corpus in opened]
    if not sum(table.num_rows for table in tables):
        where = ", ".join(str(corpus.root) for corpus in opened) or "no corpus was named"
        raise DataError(f"there are no clips to train on: {where}")
    shard_paths: list[Path] = []
    shard_indices: list[NDArray[np.int32]] = []
    for corpus, table in zip(opened, tables, strict=True):
        shards = pc.dictionary_encode(table["shard"].combine_chunks())
        shard_indices.append(shards.indices.to_numpy().astype(np.int32) + np.int32(len(shard_paths)))
        shard_paths += [corpus.shard_path(name) for name in shards.dictionary.to_pylist()]
    clips, shard_index_N = pa.concat_tables(tables), np.concatenate(shard_indices)
    fingerprint = _fingerprint([corpus.name for corpus in opened], tables)
    shares = tuple((corpus.name, table.num_rows) for corpus, table in zip(opened, tables, strict=True))
    if mix is not None:
        names = [name for name, num_clips in shares for _ in range(num_clips)]
        rows = _rows_of_mix(mix, names, clips)
        clips, shard_index_N = clips.take(pa.array(rows)), shard_index_N[rows]
        names = [names[row] for row in rows]
        fingerprint, shares = _fingerprint_of_mix(names, clips), tuple(Counter(names).items())
    return ClipSet(
        shard_paths=tuple(shard_paths),
        shard_index_N=shard_index_N,
        offset_N=clips["mp4_offset"].to_numpy().astype(np.int64),
        size_N=clips["mp4_size"].to_numpy().astype(np.int64),
        digest_N16=_digests(clips),
        num_frames_N=clips["num_frames"].to_numpy().astype(np.int32),
        height_N=clips["height"].to_numpy().astype(np.int32),
        width_N=clips["width"].to_numpy().astype(np.int32),
        key_N=np.array(clips["key"].to_pylist(), dtype=np.bytes_),
        fingerprint=fingerprint,
        corpora=shares,
    )


def _ready_clips(corpus: Corpus) -> pa.Table:
    table = corpus.clips().select(list(_COLUMNS))
    ready = table.filter(pc.equal(table["status"], _READY))
    # A clip without frames or pixels would fail deep inside a worker, hours later.
    for column in ("num_frames", "height", "width"):
        if ready.num_rows and pc.min(ready[column]).as_py() < 1:
            raise DataError(f"{corpus.root}: a clip has {column} below 1; run `endocorpus verify {corpus.root}`")
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


def _refuse_duplicates(corpora: Sequence[Corpus]) -> None:
    """A corpus named twice would be seen twice an epoch; two corpora of one name have clashing keys."""
    seen: dict[str, Path] = {}
    for corpus in corpora:
        if corpus.name in seen:
            raise DataError(
                f"corpus {corpus.name!r} is named twice: {seen[corpus.name]} and {corpus.root}; if they are two, build "
                "one of them again under another --name"
            )
        seen[corpus.name] = corpus.root


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
