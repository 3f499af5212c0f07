"""Who am I among the processes of this run: the only reader of RANK, WORLD_SIZE and LOCAL_RANK.

`torchrun` sets those; without it a run is a world of one. Everything below is handed a `World` value.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from endocorpus.errors import UsageError

DeviceChoice = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files and speaks to the user."""
        return self.rank == 0


@contextmanager
def join_world(choice: DeviceChoice) -> Iterator[World]:
    """Join the processes that `torchrun` started, if it did: gloo between CPUs, nccl between GPUs.

    Args:
        choice: "auto" takes a GPU where there is one.

    Raises:
        UsageError: a GPU was asked for and there is none, or the variables of `torchrun` are incomplete.
    """
    rank, size, local_rank = _identity()
    device = _device(choice, local_rank)
    if size == 1:
        yield World(rank, size, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except ValueError as error:  # MASTER_ADDR or MASTER_PORT is missing
        raise UsageError(f"the processes cannot meet: {error}; start with torchrun") from None
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()


def _identity() -> tuple[int, int, int]:
    values = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if values == [None, None, None]:
        return 0, 1, 0
    try:
        rank, size, local_rank = (int(value or "") for value in values)
    except ValueError:
        raise UsageError(
            "RANK, WORLD_SIZE and LOCAL_RANK must be set together, to numbers; start with torchrun"
        ) from None
    return rank, size, local_rank


def _device(choice: DeviceChoice, local_rank: int) -> torch.device:
    available = torch.cuda.is_available()
    if choice == "cuda" and not available:
        raise UsageError("run.device = 'cuda', but torch sees no GPU here; use 'cpu' or 'auto'")
    return torch.device("cuda", local_rank) if available and choice != "cpu" else torch.device("cpu")


def all_reduce_mean_(tensor: Tensor) -> Tensor:
    """Replace `tensor` by its mean over all processes, in place, and return it; alone in the world, do nothing."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()
    return tensor


def gather_keys(keys: Sequence[str]) -> list[str]:
    """The keys of all processes, in rank order; each must call."""
    if not dist.is_initialized():
        return list(keys)
    gathered: list[Sequence[str]] = [()] * dist.get_world_size()
    dist.all_gather_object(gathered, tuple(keys))
    return [key for part in gathered for key in part]


def data_parallel(module: nn.Module, world: World) -> nn.Module:
    """`module` such that a backward pass averages gradients over all processes; alone in the world, as it is."""
    if world.size == 1:
        return module
    devices = [world.device] if world.device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=devices)


def barrier() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()
