"""Reading by offset: the right bytes, or an error that says where they are wrong."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import xxhash

from endocorpus.errors import DataError
from endofm.data import stream
from endofm.data.stream import ClipBytes, ShardReader

PAYLOAD = bytes(range(256)) * 20


@pytest.fixture
def clip(tmp_path: Path) -> ClipBytes:
    return write(tmp_path, "one-0.tar")


def write(root: Path, name: str) -> ClipBytes:
    path = root / "tiny" / "shards" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"before" + PAYLOAD + b"after")
    return ClipBytes(path, "case-1", len(b"before"), len(PAYLOAD), xxhash.xxh3_128_digest(PAYLOAD))


def test_reads_the_clip_and_nothing_around_it(clip: ClipBytes) -> None:
    with ShardReader() as reader:
        assert reader.read(clip) == PAYLOAD
        assert reader.read(clip) == PAYLOAD


def test_one_flipped_bit_is_found_and_located(clip: ClipBytes) -> None:
    data = bytearray(clip.shard.read_bytes())
    data[clip.offset + 1000] ^= 4
    clip.shard.write_bytes(data)
    with ShardReader() as reader, pytest.raises(DataError) as caught:
        reader.read(clip)
    assert str(caught.value) == (
        f"{clip.shard}: clip case-1 at offset 6 is not what was written: "
        f"its 5120 bytes fail their xxh3-128 check; run `endocorpus verify {clip.shard.parent.parent}`"
    )


def test_damage_that_comes_after_the_first_read_is_found(clip: ClipBytes) -> None:
    with ShardReader() as reader:
        reader.read(clip)
        with clip.shard.open("r+b") as file:
            file.seek(clip.offset)
            file.write(b"\xff")
        with pytest.raises(DataError, match="is not what was written"):
            reader.read(clip)


def test_a_cut_shard_is_found(clip: ClipBytes) -> None:
    os.truncate(clip.shard, clip.offset + 100)
    with ShardReader() as reader, pytest.raises(DataError, match="has 100 of 5120 bytes: the shard ends too early"):
        reader.read(clip)


def test_a_missing_shard_is_a_data_error(clip: ClipBytes) -> None:
    clip.shard.unlink()
    with ShardReader() as reader, pytest.raises(DataError, match=r"cannot be read: No such file.*endocorpus verify"):
        reader.read(clip)


def test_reads_that_return_less_than_asked_go_on(clip: ClipBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: pread(descriptor, min(size, 999), offset))
    with ShardReader() as reader:
        assert reader.read(clip) == PAYLOAD


def test_descriptors_are_kept_few_and_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_MAX_OPEN_SHARDS", 3)
    clips = [write(tmp_path, f"one-{index}.tar") for index in range(8)]
    before = open_files(tmp_path)
    with ShardReader() as reader:
        for clip in clips + clips[::-1]:
            assert reader.read(clip) == PAYLOAD
        assert len(open_files(tmp_path)) == 3
    assert open_files(tmp_path) == before == []


def open_files(below: Path) -> list[str]:
    links = Path("/proc/self/fd")
    if not links.exists():
        pytest.skip("this system does not list a process's open files")
    targets = []
    for link in links.iterdir():
        try:
            targets.append(os.readlink(link))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return [target for target in targets if target.startswith(str(below))]


def test_locations_travel_to_workers(clip: ClipBytes) -> None:
    assert pickle.loads(pickle.dumps(clip)) == clip
