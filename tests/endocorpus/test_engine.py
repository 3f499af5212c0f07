"""Tasks by id: the same results here and in processes, and workers that do not outlive what started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from endocorpus.config import BuildConfig
from endocorpus.engine import run_tasks
from endocorpus.errors import DataError
from endocorpus.records import Excluded, Reason, Recording, Stage
from endocorpus.sources import load_source
from endocorpus.staging import PlanTask, plan_task
from tests.endocorpus.test_media import recording


def square(number: int) -> int:
    return number * number


def fail(number: int) -> int:
    if number == 3:
        raise Excluded(Stage.ENCODE, Reason.DAMAGED, "three", frames=3)
    return number


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def linger(folder: str) -> str:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)
    return folder


@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_has_its_result(workers: int) -> None:
    assert dict(run_tasks(square, list(range(50)), workers)) == {n: n * n for n in range(50)}
    assert list(run_tasks(square, [], workers)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_arrives_whole(workers: int) -> None:
    with pytest.raises(Excluded) as caught:
        list(run_tasks(fail, list(range(10)), workers))
    assert (caught.value.stage, caught.value.reason, caught.value.detail, caught.value.frames) == (
        Stage.ENCODE,
        Reason.DAMAGED,
        "three",
        3,
    )


def stumble(recording: Recording) -> object:
    no_root: Any = None
    return plan_task(PlanTask(recording=recording, root=no_root, source=load_source("folder"), config=BuildConfig()))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bug_names_the_recording_that_it_was_found_on(workers: int) -> None:
    with pytest.raises(TypeError) as caught:
        list(run_tasks(stumble, [recording("ward/a.mp4")] * 2, workers))
    assert caught.value.__notes__ == ["while looking at r"]


def test_a_worker_that_is_killed_is_one_line() -> None:
    with pytest.raises(DataError, match="a worker process died"):
        list(run_tasks(die, list(range(10)), 2))


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    ask = "from tests.endocorpus.test_engine import *; list(run_tasks(linger, [sys.argv[1]] * 2, 2))"
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", ask, str(tmp_path)], cwd=root)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    parent.kill()
    parent.wait()
    while any(running(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
