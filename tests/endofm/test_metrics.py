"""The metrics file reads as one undisturbed run, and speeds are those of the clock."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from endofm import metrics
from endofm.metrics import Cost, MetricsFile, RunLog


def rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, start: int, stop: int, run: int) -> None:
    file = MetricsFile(path, start)
    for step in range(start, stop):
        file.write({"step": step, "loss": 1 / 3, "run": run})
    file.close()


@pytest.mark.parametrize("resume_at", [0, 1, 5, 8])
@pytest.mark.parametrize("torn", ["", '{"step": 8, "lo', "\x00\x00\n", "[]\n"])
def test_a_resumed_file_has_every_step_once(tmp_path: Path, resume_at: int, torn: str) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    write(path, 0, 8, run=1)
    path.write_text(path.read_text() + torn)
    write(path, resume_at, 12, run=2)
    assert [row["step"] for row in rows(path)] == list(range(12))
    assert [row["run"] for row in rows(path)] == [1] * resume_at + [2] * (12 - resume_at)
    assert {row["loss"] for row in rows(path)} == {1 / 3}


def test_a_row_is_on_disk_once_written(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl", 0)
    file.write({"step": 0})
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 0}]
    file.close()


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl", 0)
    file.write({"step": 0, "loss": float("nan"), "grad_norm": float("inf")})
    file.close()
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 0, "loss": None, "grad_norm": None}]


def open_log(path: Path | None, text: io.StringIO, *, start_step: int, clips: int, **lengths: int) -> RunLog:
    sinks = [MetricsFile(path, start_step)] if path else []
    cost = Cost(clips, flops_per_clip=2e12, device=torch.device("cpu"), peak_flops_per_s=1e14)
    return RunLog(sinks, Console(file=text, width=200), start_step=start_step, cost=cost, **lengths)


def test_speed_and_share_of_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, waited = 100.0, 0.0
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now)
    text = io.StringIO()
    path = tmp_path / "metrics.jsonl"
    with open_log(path, text, start_step=4, total_steps=9, log_every=2, clips=12) as log:
        for step, (wait, work) in enumerate([(1, 3), (2, 2), (0, 6), (0, 2), (1, 1)], start=4):
            now += wait
            now += work
            waited += wait
            log.steps([{"step": step, "loss": 2.5, "lr": 1e-4}], waited)
            log.tell({"step": step, "loss": 2.5, "lr": 1e-4})
    assert [row["clips_per_s"] for row in rows(path)] == [3, 3, 2, 6, 6]
    assert [row["tflop_per_s"] for row in rows(path)] == [6, 6, 4, 12, 12]
    assert [row["mfu"] for row in rows(path)] == pytest.approx([0.06, 0.06, 0.04, 0.12, 0.12])
    assert all(row["memory_gib"] > 0.01 for row in rows(path))
    assert [row["data_wait_share"] for row in rows(path)] == [0.25, 0.5, 0, 0, 0.5]
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert lines == [
        "step 5/9 loss 2.5000 lr 1.00e-04 3.0 clips/s 25% waiting for data 4.0 s",
        "step 6/9 loss 2.5000 lr 1.00e-04 3.0 clips/s 50% waiting for data 8.0 s, about 12.0 s left",
        "step 8/9 loss 2.5000 lr 1.00e-04 3.0 clips/s 0% waiting for data 16.0 s, about 4.0 s left",
        "step 9/9 loss 2.5000 lr 1.00e-04 6.0 clips/s 50% waiting for data 18.0 s",
    ]


def test_slow_steps_are_told_before_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now)
    text = io.StringIO()
    path = tmp_path / "metrics.jsonl"
    with open_log(path, text, start_step=0, total_steps=99, log_every=50, clips=1) as log:
        for step, seconds in enumerate([9, 9, 9, 9, 9, 9, 40]):
            now += seconds
            log.steps([{"step": step, "loss": 2.5, "lr": 1e-4}], 0.0)
            log.tell({"step": step, "loss": 2.5, "lr": 1e-4})
    assert [line.split()[1] for line in text.getvalue().splitlines()] == ["1/99", "5/99", "7/99"]


def test_other_processes_are_silent(tmp_path: Path) -> None:
    text = io.StringIO()
    with open_log(None, text, start_step=0, total_steps=1, log_every=1, clips=1) as log:
        log.steps([{"step": 0, "loss": 1.0, "lr": 1.0}], 0.0)
        log.tell({"step": 0, "loss": 1.0, "lr": 1.0})
    assert text.getvalue() == ""
    assert not list(tmp_path.iterdir())
