"""What is measured is the loader of a run: its clips, its views, its bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from endofm.cli import main
from endofm.data.clips import load_clips
from endofm.data.loader import make_loader
from tests.endofm.servers import serve
from tests.endofm.test_pretrain import configure

SMALL = ("--config", "debug", "--set", "run.batch_size=2", "--steps", "2")


def bench(corpus: Path, *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["bench", "loader", "--corpus", str(corpus), *SMALL, *arguments, "--json"])
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_one_core_and_what_goes_to_the_device(corpus: Path) -> None:
    told = bench(corpus, "--workers", "0")
    assert told["clips"] == len(load_clips([corpus]))
    assert told["samples_per_core_second"] == pytest.approx(1000 / told["milliseconds"])
    assert told["samples_per_second"] is None and told["wait_share"] is None
    views = configure().views.model_copy(update={"global_frames": (4, 8), "local_frames": (2, 2, 4)})
    frames = []
    with make_loader(load_clips([corpus]), views, batch_size=2, seed=0, start_step=0, stop_step=4) as loader:
        frames = [batch.pixels.nbytes for batch in loader]
    assert sum(frames) < told["megabytes"] * 1e6 * 4 * 2 < sum(frames) + 4 * 4096, "pixels, and little else"


def test_from_a_worker_with_a_step_that_takes_its_time(corpus: Path) -> None:
    told = bench(corpus, "--workers", "1", "--step-seconds", "0.3")
    assert told["workers"] == 1 and told["samples_per_second"] > 0 and told["trainer_milliseconds"] > 0
    assert told["step_seconds"] == 0.3 and 0 <= told["wait_share"] < 1


def test_told_as_a_table(corpus: Path) -> None:
    done = CliRunner().invoke(main, ["bench", "loader", "--corpus", str(corpus), *SMALL, "--workers", "0"])
    assert done.exit_code == 0
    assert "samples per second and core" in done.stdout and "MB" in done.stdout and "processes" not in done.stdout


@pytest.mark.parametrize("arguments", [["--step-seconds", "inf"], ["--step-seconds", "nan"], ["--step-seconds", "-1"]])
def test_a_step_takes_a_time_that_can_be_slept_for(corpus: Path, arguments: list[str]) -> None:
    done = CliRunner().invoke(main, ["bench", "loader", "--corpus", str(corpus), *SMALL, *arguments])
    assert done.exit_code == 2 and "expected 0 to 60 seconds" in done.output


def test_without_processes_nothing_is_waited_for(corpus: Path) -> None:
    options = [*SMALL, "--workers", "0", "--step-seconds", "1"]
    done = CliRunner().invoke(main, ["bench", "loader", "--corpus", str(corpus), *options])
    assert done.exit_code == 2 and "--workers 0 has none" in done.output


def test_a_corpus_on_a_server(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDOFM_CACHE", str(tmp_path))
    with serve(corpus.parent) as server:
        options = ["--corpus", f"{server.url}/tiny", *SMALL, "--workers", "0", "--json"]
        done = CliRunner().invoke(main, ["bench", "loader", *options])
    assert done.exit_code == 0 and json.loads(done.stdout)["clips"] == 7, done.output
