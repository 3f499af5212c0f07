"""Whole runs whose clips come from a server, are read front to back, or are bad: the weights of a plain run, or a
reason."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from endocorpus.errors import DataError, UsageError
from endofm.cli import main
from endofm.config import PretrainConfig
from endofm.data.clips import load_clips
from endofm.data.loader import make_order
from endofm.pretrain import pretrain
from endofm.preview import draw_views
from tests.endofm.conftest import ClipSpec, MakeCorpus
from tests.endofm.servers import FileServer, serve
from tests.endofm.test_distributed import SETTINGS, _clear
from tests.endofm.test_loader import damage
from tests.endofm.test_pretrain import TINY, assert_same_run, configure, metrics, state, train

SHORT = ("run.length=10 steps", "run.checkpoint_every=5")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def server(corpus: Path) -> Iterator[FileServer]:
    with serve(corpus.parent) as found:
        found.drop_after, found.busy_every = 6_000, 5
        yield found


def options(*overrides: str) -> list[str]:
    return [word for each in (*TINY, *SHORT, *overrides) for word in ("--set", each)]


def test_a_run_from_a_server_that_drops_connections_is_the_local_run(
    corpus: Path, tmp_path: Path, server: FileServer
) -> None:
    train(configure(*SHORT, "data.block_shards=1"), corpus, tmp_path / "local")
    words = ["pretrain", "--config", "debug", "--corpus", f"{server.url}/tiny", "--run-dir", str(tmp_path / "remote")]
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    done = CliRunner().invoke(main, words + options("data.block_shards=1", cache))
    assert done.exit_code == 0, done.output
    assert metrics(tmp_path / "local") == metrics(tmp_path / "remote")
    weights = [(tmp_path / run / "backbone.safetensors").read_bytes() for run in ("local", "remote")]
    assert len(set(weights)) == 1, "where clips lie is no part of the result"
    assert len(list((tmp_path / "cache" / "files").iterdir())) == 3  # two shards and the manifest
    assert sum(bool(asked) for _, asked in server.requests) > 5, "the server did drop connections"
    # The same run goes on from a folder: the order is what was decided at its start.
    longer = configure("run.length=10 steps", "run.checkpoint_every=5", "data.block_shards=1", "run.log_every=1")
    assert train(longer, corpus, tmp_path / "remote").exit_code == 0
    with pytest.raises(UsageError, match=r"begun with data\.block_shards = 1, and now it is 0"):
        train(configure(*SHORT), corpus, tmp_path / "remote")


def test_the_sheet_of_views_is_drawn_from_a_server(
    corpus: Path, tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDOFM_CACHE", str(tmp_path / "cache"))
    views = configure().views
    for place, out in ((corpus, "a.png"), (f"{server.url}/tiny", "b.png")):
        draw_views([place], views, tmp_path / out, seed=3, num_clips=2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_server_that_goes_away_is_one_line(corpus: Path, tmp_path: Path, server: FileServer) -> None:
    server.status["tiny-1.tar"] = 500
    root = server.url.replace("://", "://me:secret@") + "/tiny"
    words = ["pretrain", "--config", "debug", "--corpus", root, "--run-dir", tmp_path / "run"]
    words += options("data.retry_seconds=0.3", f"data.cache_dir={tmp_path / 'cache'}")
    done = subprocess.run([sys.executable, "-m", "endofm", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {server.url}/tiny/shards/tiny-1.tar: gave up after 0.3 seconds")
    assert "secret" not in done.stderr
    assert not (tmp_path / "run" / "quarantine.jsonl").exists()


def second_shard(server: FileServer, config: PretrainConfig) -> str:
    """The name of the shard that a run without steps on it needs next."""
    clips = load_clips([f"{server.url}/tiny"], data=config.data)
    order = make_order(clips, config.data, batch_size=2, seed=config.run.seed)
    first = clips.shard_index_N[order.rows_at(order.positions(0))[0]]
    return str(clips.shards[1 - first]).rpartition("/")[2]


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGUSR1, None])
def test_steps_are_kept_where_the_next_cannot_be_done(
    corpus: Path, tmp_path: Path, server: FileServer, num_workers: int, number: signal.Signals | None
) -> None:
    """A server goes away after a step: the run waits for it until it is told to stop, or no longer."""
    settings = ("run.length=4 steps", "run.batch_size=2", "data.block_shards=1")
    train(configure(*settings), corpus, tmp_path / "local")
    remote = f"data.cache_dir={tmp_path / 'cache'}", f"data.retry_seconds={0.5 if number is None else 100}"
    config = configure(*settings, *remote, f"run.num_workers={num_workers}")
    server.drop_after, server.busy_every = None, 0
    shard, run_dir, text = second_shard(server, config), tmp_path / "run", io.StringIO()
    server.status[shard] = 500

    def ask() -> None:
        while not (run_dir / "metrics.jsonl").exists() or not metrics(run_dir):
            time.sleep(0.05)
        while sum(path.endswith(shard) for path, _ in server.requests) < 3:
            time.sleep(0.05)
        os.kill(os.getpid(), number or 0)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        result = pretrain(config, [f"{server.url}/tiny"], run_dir, console=Console(file=text, width=300))
        assert number is not None and result.exit_code == 75
        # A worker may have been ahead, and the step before been at hand.
        assert num_workers or "stopping instead of waiting; once more" in text.getvalue()
    except DataError as error:
        assert number is None and "gave up after 0.5 seconds" in str(error)
    thread.join()
    rows = metrics(run_dir)
    assert 1 <= len(rows) < 4 and state(run_dir)["step"] == len(rows)
    server.status.clear()
    pretrain(config, [f"{server.url}/tiny"], run_dir, console=Console(file=text, width=300))
    assert metrics(run_dir) == metrics(tmp_path / "local")


def test_a_server_that_never_answers_is_named_and_can_be_left(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        root = f"127.0.0.1:{silent.getsockname()[1]}/x"
        words = ["pretrain", "--config", "debug", "--corpus", f"http://me:secret@{root}", "--run-dir", tmp_path / "run"]
        process = subprocess.Popen(
            [sys.executable, "-m", "endofm", *map(str, words)], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        assert process.stderr.readline() == f"waiting for http://{root}\n"
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1].splitlines()
    assert process.returncode == 75 and len(said) == 2 and not (tmp_path / "run").exists()
    assert said[0].startswith("stopping instead of waiting") and said[1].startswith("stopped before the first step")


def test_a_cache_too_small_is_refused(corpus: Path, tmp_path: Path, server: FileServer) -> None:
    console = Console(file=io.StringIO())
    config = configure(*SHORT, "data.cache_gb=5e-5", f"data.cache_dir={tmp_path / 'cache'}")
    with pytest.raises((UsageError, DataError), match=r"data\.cache_gb"):
        pretrain(config, [f"{server.url}/tiny"], tmp_path / "run", console=console)


@pytest.fixture
def spoilt(corpus: Path, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(corpus, tmp_path / "spoilt"))
    damage(copy, load_clips([copy]), "tiny-4")
    return copy


def told(run_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_dir / "quarantine.jsonl").read_text().splitlines()]


def test_bad_clips_are_told_counted_and_the_same_after_a_new_start(spoilt: Path, tmp_path: Path) -> None:
    text = io.StringIO()
    pretrain(configure(*SHORT), [spoilt], tmp_path / "straight", console=Console(file=text, width=400))
    rows = told(tmp_path / "straight")
    assert {row["key"] for row in rows} == {"tiny-4"} and len(rows) >= 5
    counts = [row["bad_clips"] for row in metrics(tmp_path / "straight")]
    assert counts == sorted(counts) and counts[-1] == 1
    first = rows[0]["step"]
    assert (
        f"step {first}: 1 clip replaced; different bad ones so far: 1, allowed: 3; the last: {spoilt}"
        in text.getvalue()
    )
    shutil.copytree(tmp_path / "straight", tmp_path / "again")
    for name in ("checkpoints/step-00000010.pt", "backbone.safetensors"):
        (tmp_path / "again" / name).unlink()
    train(configure(*SHORT), spoilt, tmp_path / "again")
    assert_same_run(tmp_path / "again", tmp_path / "straight")
    assert told(tmp_path / "again") == rows


def test_a_place_is_counted_once_however_many_substitutes_are_bad(spoilt: Path, tmp_path: Path) -> None:
    """With a block of one shard, whose clips are all bad but one."""
    for key in ("tiny-1", "tiny-2"):
        damage(spoilt, load_clips([spoilt]), key)
    text = io.StringIO()
    config = configure(*SHORT, "data.block_shards=1", "run.length=7 steps")
    pretrain(config, [spoilt], tmp_path / "run", console=Console(file=text, width=400))
    steps = Counter(row["step"] for row in told(tmp_path / "run"))
    places = Counter(step for step, _ in {(row["step"], row["position"]) for row in told(tmp_path / "run")})
    assert steps != places, "some substitutes were bad"
    for step, count in places.items():
        assert f"step {step}: {count} clip{'s' if count > 1 else ''} replaced; " in text.getvalue()


def test_bad_clips_beyond_what_is_allowed_stop_the_run(spoilt: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run/quarantine\.jsonl: 1 bad clips, and 0 are allowed \(data\.bad_clips_al"):
        train(configure(*SHORT, "data.bad_clips_allowed=0.0"), spoilt, tmp_path / "run")
    assert [row["key"] for row in told(tmp_path / "run")] == ["tiny-4"]


def test_two_processes_agree_about_bad_clips(spoilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clips are replaced by the same ones as in one process, and one of them writes it down."""
    _clear(monkeypatch)
    sets = [word for each in SETTINGS for word in ("--set", each)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "endofm"]
    for run, program in (("one", ["-m", "endofm"]), ("two", launcher)):
        words = ["pretrain", "--config", "debug", "--corpus", spoilt, "--run-dir", tmp_path / run, *sets]
        done = subprocess.run(
            [sys.executable, *program, *map(str, words)], capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr
    assert told(tmp_path / "one") == told(tmp_path / "two") != []
    for run in ("one", "two"):
        last = metrics(tmp_path / run)[-1]
        assert (last["clips_seen/tiny"], last["bad_clips"]) == (32.0, 1.0)


def test_front_to_back_resumes_to_the_last_bit(corpus: Path, tmp_path: Path) -> None:
    config = configure(*SHORT, "data.stream=sequential", "data.shuffle_buffer=3")
    words = ["pretrain", "--config", "debug", "--corpus", str(corpus), "--run-dir", str(tmp_path / "straight")]
    done = CliRunner().invoke(main, words + options("data.shuffle_buffer=3") + ["--stream", "sequential"])
    assert done.exit_code == 0, done.output
    shutil.copytree(tmp_path / "straight", tmp_path / "again")
    for name in ("checkpoints/step-00000010.pt", "backbone.safetensors"):
        (tmp_path / "again" / name).unlink()
    train(config, corpus, tmp_path / "again")
    assert_same_run(tmp_path / "again", tmp_path / "straight")


def test_clips_are_counted_by_corpus(corpus: Path, make_corpus: MakeCorpus, tmp_path: Path) -> None:
    other = make_corpus("other", [[ClipSpec(20, 9, 48, 64)]])
    config = configure(*SHORT, "run.length=2 epochs")
    pretrain(config, [corpus, other], tmp_path / "run", console=Console(file=io.StringIO()))
    last = metrics(tmp_path / "run")[-1]
    assert (last["clips_seen/tiny"], last["clips_seen/other"]) == (14.0, 2.0)
