"""The curves that others draw are those of the metrics file, and go on where the run goes on."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from endocorpus.errors import UsageError
from endofm.pretrain import pretrain
from endofm.sinks import TensorBoard
from tests.endofm.test_pretrain import configure, metrics


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder), purge_orphaned_data=True).Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_every_step_once(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path, 0)
    for step in range(6):
        first.write({"step": step, "loss": 10.0 - step, "grad_norm": float("nan") if step == 2 else 1.0})
    first.close()
    again = TensorBoard(tmp_path, 4)  # as after a crash: the checkpoint was of four steps
    for step in range(4, 8):
        again.write({"step": step, "loss": 20.0 - step})
    again.close()
    drawn = curves(tmp_path / "tensorboard")
    assert drawn["loss"] == [(0, 10), (1, 9), (2, 8), (3, 7), (4, 16), (5, 15), (6, 14), (7, 13)]
    assert [step for step, _ in drawn["grad_norm"]] == [0, 1, 3]


def test_a_run_for_tensorboard(corpus: Path, tmp_path: Path) -> None:
    config = configure("run.length=3 steps", "run.tensorboard=true")
    pretrain(config, [corpus], tmp_path, console=Console(file=io.StringIO()))
    drawn = curves(tmp_path / "tensorboard")
    assert [value for _, value in drawn["loss"]] == pytest.approx([row["loss"] for row in metrics(tmp_path)])
    assert drawn.keys() >= {"clips_per_s", "teacher_information", "lr"}


def test_weights_and_biases_keep_one_run(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="a large package, and not one that the project needs")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for length in ("3 steps", "3 steps"):
        config = configure(f"run.length={length}", "run.wandb=endoscopy", "run.checkpoint_every=1")
        pretrain(config, [corpus], tmp_path, console=Console(file=io.StringIO()))
    identity = (tmp_path / "wandb-id").read_text()
    found = list((tmp_path / "wandb").glob(f"offline-run-*/run-{identity}.wandb"))
    assert found and all(file.stat().st_size > 500 for file in found)


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_package_that_is_not_there(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package or "tensorboard" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    value = "true" if package == "tensorboard" else "x"
    with pytest.raises(UsageError, match=f"run.{package} needs the package {package}: pip install {package}"):
        pretrain(configure(f"run.{package}={value}"), [corpus], tmp_path / "run", console=Console(file=io.StringIO()))
