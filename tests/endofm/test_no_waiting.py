"""A step never asks the device for a number, and batches reach it in order: else a GPU idles while the host waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from endofm import pretrain as module
from endofm.data.clips import load_clips
from endofm.data.device import on_device
from endofm.data.loader import make_loader
from endofm.data.views import ClipBatch, ViewConfig
from endofm.run import Run
from tests.endofm.test_pretrain import configure

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "bincount", "repeat_interleave.Tensor")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Waits(TorchDispatchMode):
    """Notes each operation for which the host would have to wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.operations = list[str](), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        by_mask = name.startswith("index") and any(
            index is not None and index.dtype is torch.bool for index in (args[1] if isinstance(args[1], list) else ())
        )
        self.operations += 1
        if by_mask or name.partition(".")[0] in WAITS or name in WAITS:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def test_the_watch_sees_what_waits() -> None:
    numbers = torch.arange(4.0)
    with Waits() as waits:
        numbers.sum().item()
        numbers[numbers > 1]
        numbers.nonzero()
        bool(numbers[0] > 1)
        numbers[torch.tensor([1])]
    assert [name.partition(".")[0] for name in waits.seen] == [
        "_local_scalar_dense", "index", "nonzero", "_local_scalar_dense"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [(), ("run.precision=bf16", "run.accumulate=2"), ("objective.kind=masked",), ("run.checkpoint_activations=true",)],
    ids=["plain", "in parts", "masked", "recomputed"],
)
def test_a_step_waits_for_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    watched: list[Waits] = []
    train_step = module.train_step

    def watching(run: Run, batch: ClipBatch, number: int) -> module.Step:
        with Waits() as waits:
            watched.append(waits)
            return train_step(run, batch, number)

    monkeypatch.setattr(module, "train_step", watching)
    config = configure("run.length=2 steps", "optim.warmup=1 steps", "run.health_every=100", *overrides)
    module.pretrain(config, [corpus], tmp_path)
    assert [waits.seen for waits in watched] == [[], []]
    assert watched[0].operations > 500


@needs_gpu
def test_a_step_on_a_gpu_waits_for_nothing(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's own watch, which also sees copies out of memory that is not page-locked. The first step may wait."""
    train_step = module.train_step

    def watching(run: Run, batch: ClipBatch, number: int) -> module.Step:
        torch.cuda.set_sync_debug_mode("error" if number else "default")
        try:
            return train_step(run, batch, number)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(module, "train_step", watching)
    config = configure("run.length=4 steps", "run.health_every=100", "run.device=cuda", "run.log_every=4")
    assert module.pretrain(config, [corpus], tmp_path).steps == 4


@pytest.fixture
def batches(corpus: Path) -> Iterator[Iterator[ClipBatch]]:
    views = ViewConfig(global_frames=(2, 3), local_frames=(2,), global_size=32, local_size=16)
    with make_loader(load_clips([corpus]), views, batch_size=2, seed=0, start_step=0, stop_step=3) as loader:
        yield loader


def test_on_a_cpu_batches_pass_as_they_are_and_none_is_taken_ahead(batches: Iterator[ClipBatch]) -> None:
    taken: list[ClipBatch] = []

    def noted() -> Iterator[ClipBatch]:
        for batch in batches:
            taken.append(batch)
            yield batch

    for number, batch in enumerate(on_device(noted(), torch.device("cpu"))):
        assert batch is taken[-1] and len(taken) == number + 1
    assert len(taken) == 3


@needs_gpu
def test_on_a_gpu_batches_arrive_whole_and_in_order(batches: Iterator[ClipBatch]) -> None:
    here = [batch.pin_memory() for batch in batches]
    for batch, moved in zip(here, on_device(iter(here), torch.device("cuda")), strict=True):
        assert moved.keys == batch.keys and moved.pixels.is_cuda
        assert torch.equal(moved.pixels.cpu(), batch.pixels)
