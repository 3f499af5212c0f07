"""Shards: plain USTAR WebDataset tars, written byte for byte the same every time, and read back with proof.

Offsets and hashes are recorded while the tar is written, so a reader goes straight to a clip and verifies it: plain
sequential readers lose samples silently on a truncated tar or a flipped header bit (measured on webdataset 1.0.2).
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from endocorpus.corpus.files import atomic_file, digest_bytes, digest_stream
from endocorpus.errors import DataError
from endocorpus.records import EncodedClip

KEY = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,78}[a-z0-9])?")  # USTAR holds 100 characters with the extension
LONGEST_NAME = 20  # of a corpus: a key adds up to 50 of a recording's file name, 1 and the number of its first frame
_HEADER_BYTES = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Where one file of a sample lies in its shard, and the xxh3-128 of its bytes."""

    name: str
    offset: int
    size: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One clip on its way into a shard: the video, its card, and its masks as .npz bytes if it has any."""

    clip: EncodedClip
    card: Mapping[str, object]
    masks: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReceipt:
    """A committed shard: size and xxh3-128 of the whole tar, and the members of each sample: card, video, masks."""

    name: str
    size: int
    digest: str
    samples: tuple[tuple[Member, ...], ...]


class _HashingFile(io.RawIOBase):
    """Counts and hashes what is written, so that the tar is never read back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.hasher, self.size = file, xxhash.xxh3_128(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._file.write(data)
        self.hasher.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size


def write_shard(path: Path, samples: Iterable[Sample]) -> ShardReceipt:
    """Write samples as `<key>.json`, `<key>.mp4` and, with masks, `<key>.masks.npz`; commit the tar atomically.

    Raises:
        DataError: a clip's file no longer has the bytes that were audited.
        ValueError: a key that WebDataset or USTAR would cut.
    """
    members: list[tuple[Member, ...]] = []
    with atomic_file(path) as file:
        out = _HashingFile(file)
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            members += [tuple(_add_sample(tar, sample)) for sample in samples]
    return ShardReceipt(name=path.name, size=out.size, digest=out.hasher.hexdigest(), samples=tuple(members))


def _add_sample(tar: tarfile.TarFile, sample: Sample) -> Iterator[Member]:
    clip, key = sample.clip, sample.clip.plan.key
    if not KEY.fullmatch(key):
        raise ValueError(f"not a sample key: {key!r}")
    yield _add(tar, f"{key}.json", (json.dumps(sample.card, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii"))
    video = Path(clip.path).read_bytes()
    if digest_bytes(video) != clip.digest:
        raise DataError(f"{clip.path}: changed after it was encoded; delete it and build again")
    yield _add(tar, f"{key}.mp4", video)
    if sample.masks is not None:
        yield _add(tar, f"{key}.masks.npz", sample.masks)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> Member:
    info = tarfile.TarInfo(name)  # owner, group and times stay zero: no host and no clock in a shard
    info.size, info.mode = len(data), 0o644
    offset = tar.offset + _HEADER_BYTES  # one USTAR header block before the data
    tar.addfile(info, io.BytesIO(data))
    return Member(name=name, offset=offset, size=len(data), digest=digest_bytes(data))


def read_member(shard: BinaryIO, member: Member) -> bytes:
    """The verified bytes of one member of an open shard.

    Raises:
        DataError: the bytes are not those that were written.
    """
    shard.seek(member.offset)
    data = shard.read(member.size)
    if digest_bytes(data) != member.digest:
        raise DataError(f"{member.name} at byte {member.offset} is damaged or cut short")
    return data


def sample_members(row: Mapping[str, Any]) -> tuple[Member, ...]:
    """Card, video and, if there are any, masks of a clip, from its row of `clips.parquet`."""
    kinds = {"json": "json", "mp4": "mp4", "masks": "masks.npz"}
    return tuple(
        Member(
            name=f"{row['key']}.{suffix}",
            offset=row[f"{kind}_offset"],
            size=row[f"{kind}_size"],
            digest=row[f"{kind}_xxh3_128"],
        )
        for kind, suffix in kinds.items()
        if row[f"{kind}_offset"] is not None
    )


def shard_digest(path: Path) -> str:
    """xxh3-128 of a whole shard, headers and padding included."""
    with path.open("rb") as file:
        return digest_stream(file)


def assign_buckets(weights: Mapping[str, int], hashes: Mapping[str, str], limit: int) -> dict[str, tuple[str, ...]]:
    """Distribute recordings over shards by the bits of their hashes: a split-on-overflow (extendible) trie.

    A bucket splits while it holds more than `limit` and more than one recording. The result depends only on the set
    of recordings, so adding or removing one touches its bucket and, when that splits or merges, its sibling.

    Args:
        weights: clips per recording id.
        hashes: hex digest per recording id.
        limit: most clips in a bucket.

    Returns:
        bucket label (its bits, or "all" when nothing was split) -> sorted recording ids.
    """
    bits = {rid: bin(int("1" + hashes[rid], 16))[3:] for rid in weights}
    buckets: dict[str, tuple[str, ...]] = {}

    def place(prefix: str, ids: Sequence[str]) -> None:
        if sum(weights[rid] for rid in ids) <= limit or len(ids) <= 1 or len(prefix) >= 64:
            if ids:
                buckets[prefix or "all"] = tuple(sorted(ids))
            return
        for bit in "01":
            place(prefix + bit, [rid for rid in ids if bits[rid][len(prefix)] == bit])

    place("", sorted(weights))
    return buckets


def tar_members(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, data offset, size) of every member as a plain tar reader sees them.

    Raises:
        DataError: not a readable tar.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                yield info.name, info.offset_data, info.size
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"not a readable tar: {error}") from None
