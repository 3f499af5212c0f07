"""A cache that several processes share and any of them may die in: whole files, within a bound, fetched once."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from endocorpus.errors import DataError, UsageError
from endofm.data.cache import ShardCache, default_folder
from endofm.data.remote import RemoteFile
from endofm.data.stream import BadClipError, ClipBytes, ShardReader
from tests.endofm.servers import FileServer, serve

SIZE = 40_000


def content(number: int) -> bytes:
    return bytes([number]) + bytes((number * i) % 251 for i in range(SIZE - 1))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    folder = tmp_path / "served" / "shards"
    folder.mkdir(parents=True)
    for number in range(6):
        (folder / f"{number}.tar").write_bytes(content(number))
    with serve(tmp_path / "served") as found:
        yield found


def shard(server: FileServer, number: int) -> RemoteFile:
    return RemoteFile(server.url, f"shards/{number}.tar", SIZE, xxhash.xxh3_128_hexdigest(content(number)))


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 3 * SIZE + 100, 5.0)


def read(cache: ShardCache, wanted: RemoteFile) -> bytes:
    with os.fdopen(cache.open(wanted), "rb") as file:
        return file.read()


def held(cache: ShardCache) -> list[Path]:
    return [path for path in cache.folder.rglob("*") if path.is_file() and path.parent.name != "locks"]


def clip(wanted: RemoteFile, number: int, offset: int, size: int) -> ClipBytes:
    return ClipBytes(wanted, "case", offset, size, xxhash.xxh3_128_digest(content(number)[offset : offset + size]))


def test_a_file_is_fetched_once(server: FileServer, cache: ShardCache) -> None:
    for _ in range(3):
        assert read(cache, shard(server, 1)) == content(1)
    assert len(server.requests) == 1


def test_what_was_used_least_recently_goes_first_and_the_bound_holds(server: FileServer, cache: ShardCache) -> None:
    for number, fetched in ((0, True), (1, True), (2, True), (0, False), (3, True), (0, False), (2, False), (1, True)):
        before = len(server.requests)
        time.sleep(0.01)  # file times are coarse
        assert read(cache, shard(server, number)) == content(number)
        assert (len(server.requests) > before) == fetched, number
        assert sum(path.stat().st_size for path in held(cache)) <= cache.max_bytes


def test_what_is_being_read_outlives_its_eviction(server: FileServer, cache: ShardCache) -> None:
    with os.fdopen(cache.open(shard(server, 0)), "rb") as file:
        for number in range(1, 6):
            read(cache, shard(server, number))
        assert not any(shard(server, 0).xxh3_128 in path.name for path in held(cache))
        assert file.read() == content(0)


def test_strangers_in_the_folder_are_left_alone(server: FileServer, cache: ShardCache) -> None:
    (cache.folder / "files").mkdir(parents=True)
    stranger = cache.folder / "files" / "notes.txt"
    stranger.write_bytes(bytes(10 * SIZE))
    for number in range(5):
        read(cache, shard(server, number))
    assert stranger.exists() and len(held(cache)) == 4


FETCH = """
    import os, sys
    from pathlib import Path
    from endofm.data.cache import ShardCache
    from endofm.data.remote import RemoteFile

    folder, root, name, size, digest = sys.argv[1:]
    print("begun", flush=True)
    descriptor = ShardCache(Path(folder), 10**9, 20.0).open(RemoteFile(root, name, int(size), digest))
    print(len(os.read(descriptor, 10**9)), flush=True)
"""


def fetching(cache: ShardCache, wanted: RemoteFile) -> subprocess.Popen[str]:
    told = [str(cache.folder), wanted.root, wanted.name, str(wanted.size), wanted.xxh3_128]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FETCH), *told], stdout=subprocess.PIPE, text=True, env=environment
    )


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_processes_share_one_download(server: FileServer, cache: ShardCache) -> None:
    server.hold["1.tar"] = threading.Event()
    processes = [fetching(cache, shard(server, 1)) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
    wait_for(lambda: server.requests)
    time.sleep(0.3)  # the other one is at the lock by now, or it will find the file
    server.hold["1.tar"].set()
    for process in processes:
        assert process.communicate(timeout=60)[0] == f"{SIZE}\n" and process.returncode == 0
    assert len(server.requests) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_dies_in_a_download_leaves_nothing_in_the_way(
    server: FileServer, cache: ShardCache, number: signal.Signals
) -> None:
    server.hold["1.tar"] = threading.Event()
    process = fetching(cache, shard(server, 1))
    wait_for(lambda: any(path.parent.name == "partial" for path in held(cache)) and server.requests)
    waiting = fetching(cache, shard(server, 1))
    process.send_signal(number)
    server.hold.pop("1.tar").set()
    process.communicate(timeout=60)
    assert waiting.communicate(timeout=60)[0].endswith(f"{SIZE}\n") and waiting.returncode == 0
    assert read(cache, shard(server, 1)) == content(1)
    assert [path.parent.name for path in held(cache)] == ["files"]
    # What a dead process left of another shard is removed when room is made.
    (cache.folder / "partial" / f"{'0' * 32}-5").write_bytes(b"12345")
    read(cache, shard(server, 2))
    assert {path.parent.name for path in held(cache)} == {"files"}


def test_a_file_that_rots_in_the_cache_is_fetched_again(server: FileServer, cache: ShardCache) -> None:
    with ShardReader(cache) as reader:
        wanted = clip(shard(server, 1), 1, 100, 300)
        good = reader.read(wanted)
        (path,) = held(cache)
        with path.open("r+b") as file:
            file.seek(150)
            file.write(b"\xff\xfe")
        assert reader.read(wanted) == good == content(1)[100:400]
    assert len(server.requests) == 2


def test_damage_on_the_server_costs_the_damaged_clip_alone(server: FileServer, cache: ShardCache) -> None:
    path = server.root / "shards" / "1.tar"
    path.write_bytes(content(1)[:150] + b"\xff\xfe" + content(1)[152:])
    sound, bad = clip(shard(server, 1), 1, 500, 300), clip(shard(server, 1), 1, 100, 300)
    with ShardReader(cache) as reader:
        assert reader.read(sound) == content(1)[500:800]
        with pytest.raises(BadClipError, match=rf"{server.url}/shards/1\.tar: clip case at offset 100 is not what was"):
            reader.read(bad)
        assert len(server.requests) == 2  # the whole shard again, in case it was the way
        path.write_bytes(content(1))
        cache.forget_damaged()
        assert reader.read(bad) == content(1)[100:400]


def test_a_server_that_is_gone_is_no_bad_clip(server: FileServer, cache: ShardCache) -> None:
    server.status["1.tar"] = 404
    with ShardReader(cache) as reader, pytest.raises(DataError) as caught:
        reader.read(clip(shard(server, 1), 1, 100, 300))
    assert not isinstance(caught.value, BadClipError)
    assert [path for path in held(cache) if path.parent.name == "partial"] == []


def test_a_shard_larger_than_the_cache_is_refused(server: FileServer, cache: ShardCache) -> None:
    with pytest.raises(DataError, match=r"1\.tar: 0\.00 GB, and the cache .* may hold 1e-06; raise data\.cache_gb"):
        ShardCache(cache.folder, 1000, 1.0).open(shard(server, 1))
    assert server.requests == []


def test_a_place_that_cannot_be_written_is_named(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file: cannot be written: .*data\.cache_dir, ENDOFM_CACHE"):
        ShardCache(tmp_path / "file", 10**9, 1.0).open(shard(server, 1))


def test_a_disk_that_takes_no_more_is_told(server: FileServer, cache: ShardCache) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, hard))
    try:
        with pytest.raises(DataError, match=r"1\.tar cannot be written: File too large; .*data\.cache_dir"):
            cache.open(shard(server, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert held(cache) == []
    size = shutil.disk_usage(cache.folder).free + 2**40
    vast = RemoteFile(server.url, "shards/1.tar", size, "0" * 32)
    with pytest.raises(DataError, match=r"the disk is full: .* GB are missing for a shard of"):
        ShardCache(cache.folder, 2 * size, 1.0).open(vast)


def test_where_it_lies_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDOFM_CACHE", "/some/where")
    assert default_folder() == Path("/some/where")
    monkeypatch.delenv("ENDOFM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_folder() == Path("/x/endofm/shards")
