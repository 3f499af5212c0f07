"""Fetching ahead: what is wanted arrives, what is not is dropped, and nothing outlives the trainer."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from endofm.data.cache import ShardCache
from endofm.data.prefetch import Prefetcher
from tests.endofm.servers import FileServer, serve
from tests.endofm.test_cache import SIZE, content, shard, wait_for
from tests.endofm.test_loader import alive


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    folder = tmp_path / "served" / "shards"
    folder.mkdir(parents=True)
    for number in range(6):
        (folder / f"{number}.tar").write_bytes(content(number))
    with serve(tmp_path / "served") as found:
        yield found


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 10 * SIZE, 5.0)


def names(cache: ShardCache, folder: str) -> set[str]:
    return {path.name for path in (cache.folder / folder).glob("*")}


def test_what_is_wanted_arrives_and_what_is_not_is_dropped(server: FileServer, cache: ShardCache) -> None:
    server.hold["2.tar"] = threading.Event()
    wanted = [shard(server, number) for number in range(6)]
    prefetcher = Prefetcher(cache)
    try:
        prefetcher.want(wanted[:4])
        wait_for(lambda: ("/shards/2.tar", "") in server.requests)
        assert len(names(cache, "files")) == 2 and len(names(cache, "partial")) == 1
        prefetcher.want(wanted[4:])
        server.hold.pop("2.tar").set()
        wait_for(lambda: len(names(cache, "files")) >= 4)
        assert names(cache, "files") == {f"{wanted[at].xxh3_128}-{SIZE}" for at in (0, 1, 4, 5)}
        assert names(cache, "partial") == set()
    finally:
        prefetcher.close()
    assert multiprocessing.active_children() == []


def test_a_server_in_trouble_is_left_alone_until_more_is_wanted(server: FileServer, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 10 * SIZE, 0.2)
    server.status["0.tar"] = 404
    prefetcher = Prefetcher(cache)
    try:
        prefetcher.want([shard(server, 0), shard(server, 1)])
        wait_for(lambda: server.requests)
        prefetcher.want([shard(server, 2)])
        wait_for(lambda: names(cache, "files"))
        assert names(cache, "files") == {f"{shard(server, 2).xxh3_128}-{SIZE}"}
    finally:
        prefetcher.close()


SCRIPT = """
    import multiprocessing, os, signal, sys
    from pathlib import Path
    from endofm.data.cache import ShardCache
    from endofm.data.prefetch import Prefetcher

    if __name__ == "__main__":
        prefetcher = Prefetcher(ShardCache(Path(sys.argv[1]), 10**9, 5.0))
        print(multiprocessing.active_children()[0].pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_ends_with_the_trainer_however_that_ends(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        check=False,
    )
    pid = int(done.stdout)
    wait_for(lambda: not alive(pid))
