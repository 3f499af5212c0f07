"""Corpora on a server: the clips, order and batches of the same corpora in a folder, whatever the server does."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from endocorpus.corpus.manifest import open_corpus, write_descriptor
from endocorpus.errors import DataError, UsageError
from endofm.data.clips import ClipSet, load_clips
from endofm.data.loader import ClipLoader, make_loader
from endofm.data.settings import REMOTE_BLOCK_SHARDS, DataConfig, decided
from endofm.data.views import ClipBatch, ViewConfig
from tests.endofm.conftest import ClipSpec, commit, write_corpus
from tests.endofm.servers import FileServer, serve
from tests.endofm.test_loader import assert_same

VIEWS = ViewConfig(global_frames=(2,), local_frames=(2,), global_size=16, local_size=8)
STEPS = 8  # of 4 clips out of 12


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips in six shards."""
    shards = [[ClipSpec(2 * at + 1, 4 + at, 48, 64), ClipSpec(2 * at + 2, 9, 48, 64)] for at in range(6)]
    return write_corpus(tmp_path_factory.mktemp("served"), "many", shards)


@pytest.fixture
def server(many: Path) -> Iterator[FileServer]:
    with serve(many.parent) as found:
        yield found


def settings(tmp_path: Path, **other: Any) -> DataConfig:
    return DataConfig(cache_dir=tmp_path / "cache", retry_seconds=10.0, **other)


def load(clips: ClipSet, data: DataConfig, **options: Any) -> ClipLoader:
    return make_loader(clips, VIEWS, batch_size=4, seed=11, start_step=0, stop_step=STEPS, data=data, **options)


def local(many: Path, **options: Any) -> list[ClipBatch]:
    return list(load(load_clips([many]), DataConfig(**options)))


def test_the_clips_are_those_of_the_folder(many: Path, server: FileServer, tmp_path: Path) -> None:
    here = load_clips([many])
    there = load_clips([f"{server.url}/many/"], data=settings(tmp_path))
    assert there.is_remote and not here.is_remote
    assert there.fingerprint == here.fingerprint and there.corpora == here.corpora
    assert [str(shard) for shard in there.shards] == [
        f"{server.url}/many/shards/{path.name}" for path in map(Path, here.shards)
    ]
    assert [there.location(row)[1:] for row in range(12)] == [here.location(row)[1:] for row in range(12)]


@pytest.mark.parametrize(
    ("options", "num_workers"),
    [({}, 0), ({"block_shards": 2}, 2), ({"stream": "sequential", "shuffle_buffer": 3}, 2), ({"block_shards": 0}, 1)],
)
def test_a_server_that_drops_connections_changes_nothing(
    many: Path, server: FileServer, tmp_path: Path, options: dict[str, Any], num_workers: int
) -> None:
    server.drop_after, server.busy_every = 4_000, 4
    data = settings(tmp_path, **options)
    clips = load_clips([f"{server.url}/many"], data=data)
    expected = local(many, **options)
    with load(clips, data, num_workers=num_workers) as loader:
        for found, wanted in zip(loader, expected, strict=True):
            assert_same(found, wanted)
    assert multiprocessing.active_children() == []
    whole = [path for path, asked in server.requests if path.endswith(".tar") and not asked]
    assert set(whole) == {f"/many/shards/many-{at}.tar" for at in range(6)}
    assert len(server.requests) > 2 * len(whole)
    before = len(server.requests)
    assert len(list(load(load_clips([f"{server.url}/many"], data=data), data))) == STEPS
    assert [path for path, _ in server.requests[before:] if path.endswith((".tar", ".parquet"))] == []


def test_a_bucket(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        names = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
        for name, value in (names | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="hospital")
        for path in many.rglob("*.*"):
            client.upload_file(str(path), "hospital", f"corpora/many/{path.relative_to(many)}")
        data = settings(tmp_path, block_shards=2)
        clips = load_clips(["s3://hospital/corpora/many"], data=data)
        with load(clips, data, num_workers=1) as loader:
            for found, wanted in zip(loader, local(many, block_shards=2), strict=True):
                assert_same(found, wanted)
    finally:
        server.stop()


def size_of(path: Path) -> int:
    """0 if it is evicted as we look."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def test_a_cache_of_two_blocks_is_enough(many: Path, server: FileServer, tmp_path: Path) -> None:
    sizes = sorted(path.stat().st_size for path in (many / "shards").iterdir())
    table = (many / "clips.parquet").stat().st_size
    data = settings(tmp_path, block_shards=1, cache_gb=(sum(sizes[-2:]) + table) / 1e9)
    clips = load_clips([f"{server.url}/many"], data=data)
    with load(clips, data, num_workers=2) as loader:
        for found, wanted in zip(loader, local(many, block_shards=1), strict=True):
            assert_same(found, wanted)
            held = sum(map(size_of, (tmp_path / "cache" / "files").iterdir()))
            assert held <= data.cache_gb * 1e9
    for block_shards, said in ((2, "two blocks of 2 shards"), (0, "all shards, from which clips are drawn")):
        smaller = data.model_copy(update={"block_shards": block_shards})
        with pytest.raises(UsageError, match=rf"data\.cache_gb = .* cannot hold {said}.*; raise it"):
            load(clips, smaller)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_server_that_goes_away_stops_the_run(
    many: Path, server: FileServer, tmp_path: Path, num_workers: int
) -> None:
    """It is no bad clip: nothing is replaced."""
    data = settings(tmp_path).model_copy(update={"retry_seconds": 0.3})
    clips = load_clips([f"{server.url}/many"], data=data)
    server.status[".tar"] = 500
    loader = load(clips, data, num_workers=num_workers)
    with pytest.raises(DataError, match=r"/many/shards/many-\d\.tar: gave up after 0\.3 seconds .*500 Internal"):
        list(loader)
    assert multiprocessing.active_children() == []


def test_what_is_no_corpus_is_told(many: Path, server: FileServer, tmp_path: Path) -> None:
    data = settings(tmp_path)
    with pytest.raises(DataError, match=r"/none/corpus\.json: the server has no such file"):
        load_clips([f"{server.url}/none"], data=data)
    with pytest.raises(UsageError, match="known are http, https, s3 and folders"):
        load_clips(["ftp://x/y"], data=data)
    with pytest.raises(DataError, match=rf"'many' is named twice: {many} and {server.url}/many;"):
        load_clips([many, f"{server.url}/many"], data=data)


@pytest.mark.parametrize("name", ["corpus.json", "clips.parquet"])
def test_a_damaged_copy_is_told(many: Path, tmp_path: Path, name: str) -> None:
    copy = write_corpus(tmp_path, "some", [[ClipSpec(1, 3, 48, 64)]])
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with (
        serve(tmp_path) as server,
        pytest.raises(DataError, match=rf"/some/{name}: damaged( or edited)?; copy the corpus there again"),
    ):
        load_clips([f"{server.url}/some"], data=settings(tmp_path))


def test_a_manifest_that_is_mended_is_read_again(tmp_path: Path) -> None:
    path = write_corpus(tmp_path, "some", [[ClipSpec(1, 3, 48, 64)]]) / "clips.parquet"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + b"?")
    with serve(tmp_path) as server:
        with pytest.raises(DataError, match=r"clips\.parquet: damaged"):
            load_clips([f"{server.url}/some"], data=settings(tmp_path))
        path.write_bytes(sound)
        assert len(load_clips([f"{server.url}/some"], data=settings(tmp_path))) == 1
        (kept,) = (tmp_path / "cache" / "files").iterdir()
        kept.write_bytes(sound[:-1] + b"?")  # it rots here
        assert len(load_clips([f"{server.url}/some"], data=settings(tmp_path))) == 1


def test_a_corpus_decides_no_path_outside(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "served", "some", [[ClipSpec(1, 3, 48, 64)]])
    rows, descriptor = open_corpus(corpus).clips().to_pylist(), open_corpus(corpus).descriptor
    evil = tmp_path / "evil"
    write_descriptor(corpus, {**descriptor, "tables": {"clips": {"size": 7, "xxh3_128": str(evil)}}})
    with serve(corpus.parent) as server:
        for place, address in ((corpus, corpus), (f"{server.url}/some", f"{server.url}/some")):
            with pytest.raises(
                DataError, match=rf"^{address}/corpus\.json: 'clips': .* is nothing that a build writes"
            ):
                load_clips([place], data=settings(tmp_path))
        assert not (tmp_path / "cache").exists() and not evil.exists()
        commit(corpus, "some", [{**row, "shard": "../../evil"} for row in rows])
        for place in (corpus, f"{server.url}/some"):
            with pytest.raises(DataError, match=r"/corpus\.json: does not list the shard '\.\./\.\./evil'"):
                load_clips([place], data=settings(tmp_path))


def test_how_a_run_is_shuffled_is_decided_once() -> None:
    assert decided(DataConfig(), is_remote=False).block_shards == 0
    assert decided(DataConfig(), is_remote=True).block_shards == REMOTE_BLOCK_SHARDS
    assert decided(DataConfig(block_shards=3), is_remote=True).block_shards == 3


def test_the_fingerprint_of_the_order_knows_the_shards(many: Path, tmp_path: Path) -> None:
    shards = [[ClipSpec(2 * at + 1, 4 + at, 48, 64), ClipSpec(2 * at + 2, 9, 48, 64)] for at in range(6)]
    other = write_corpus(tmp_path, "many", [shards[0] + shards[1], *shards[2:]])
    one, two = load_clips([many]), load_clips([other])
    assert one.fingerprint == two.fingerprint
    for data, same in (
        (DataConfig(block_shards=0), True),
        (DataConfig(block_shards=2), False),
        (DataConfig(stream="sequential"), False),
    ):
        assert (one.order_fingerprint(data, 2) == two.order_fingerprint(data, 2)) == same
        world_matters = data.stream == "sequential"
        assert (one.order_fingerprint(data, 1) != one.order_fingerprint(data, 2)) == world_matters
