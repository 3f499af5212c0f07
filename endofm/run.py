"""A pre-training run put together, and the folder that it alone writes to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from endocorpus.corpus.files import sole_user
from endocorpus.errors import UsageError
from endofm.config import PretrainConfig
from endofm.data.clips import ClipSet
from endofm.distributed import World, agreed
from endofm.health import Health
from endofm.objectives import Objective
from endofm.optim import Schedule
from endofm.probe import Probe


@dataclass(frozen=True)
class Run:
    """The parts of a run; `model` is the objective, or what makes it data-parallel."""

    config: PretrainConfig
    run_dir: Path
    world: World
    console: Console
    clips: ClipSet
    schedule: Schedule
    objective: Objective
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    health: Health
    probe: Probe | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Of the weights that it begins with, if they come from a file; see `endofm.start`."""

    @property
    def order_fingerprint(self) -> str:
        """Of the clips and the order in which they come."""
        return self.clips.order_fingerprint(self.config.data, self.world.size)

    @property
    def total_steps(self) -> int:
        return self.schedule.horizon.total_steps

    def say(self, text: str) -> None:
        """Print a line, once for all processes."""
        if self.world.is_main:
            self.console.print(text, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def sole_writer(run_dir: Path, world: World) -> Iterator[None]:
    """Two runs in one folder would each remove the other's checkpoints. Raises UsageError, in all processes alike."""
    with contextlib.ExitStack() as stack:
        refused = ""
        if world.is_main:
            try:
                busy = f"{run_dir}: another run is training here; wait for it, or name another --run-dir"
                stack.enter_context(sole_user(run_dir / "lock", busy))
            except OSError as error:
                refused = f"{run_dir}: cannot be written: {error.strerror}"
            except UsageError as error:
                refused = str(error)
        if refused := agreed(refused):
            raise UsageError(refused)
        yield


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On a CPU, only algorithms that always give the same bits."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(device.type == "cpu" or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
