"""Who am I among the processes of this run, by RANK, WORLD_SIZE and LOCAL_RANK, and what these say to each other.

`torchrun` sets those; without it a run is a world of one. Everything below is handed a `World` value; only the command
line looks at LOCAL_RANK itself, to speak once for a machine.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from endocorpus.errors import UsageError
from endofm.models.flops import peak_flops_per_second

T = TypeVar("T")

DeviceChoice = Literal["auto", "cpu", "cuda"]
Sharding = Literal["none", "full"]


@dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh | None = field(default=None, compare=False, repr=False)
    """Of all processes, to divide tensors between them; None for one alone."""

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files and speaks to the user."""
        return self.rank == 0

    @property
    def peak_flops_per_s(self) -> float | None:
        """The most that the devices of all processes can do together in bfloat16, all being alike; None if unknown."""
        if self.device.type != "cuda":
            return None
        peak = peak_flops_per_second(torch.cuda.get_device_name(self.device))
        return peak * self.size if peak else None


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
    mesh = init_device_mesh(device.type, (size,))
    try:
        yield World(rank, size, device, mesh)
    finally:
        # Torch remembers every mesh on which it divided a tensor, and a mesh keeps its group: gloo's threads outlive
        # `destroy_process_group`, and if one lets go of its last tensor while Python ends, the process is aborted
        # ("terminate called without an active exception"; torch 2.14).
        mesh._pg_registry.clear()  # noqa: SLF001
        dist.destroy_process_group()
        gc.collect()  # a divided model is full of cycles that keep the group too


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


def gathered(values: Sequence[T]) -> list[T]:
    """The values of all processes, in rank order; each must call."""
    if not dist.is_initialized():
        return list(values)
    parts: list[Sequence[T]] = [()] * dist.get_world_size()
    dist.all_gather_object(parts, tuple(values))
    return [value for part in parts for value in part]


def data_parallel(module: nn.Module, world: World, sharding: Sharding, units: Sequence[nn.Module]) -> nn.Module:
    """`module` such that a backward pass averages gradients over all processes; alone in the world, as it is.

    Args:
        module: it is moved to the device already.
        world: the processes.
        sharding: "none" keeps everything on every process (DDP); "full" divides weights, gradients and moments
            between them, and gathers the weights of one unit at a time (FSDP2, in place: it returns `module`).
        units: the parts of `module` whose weights are gathered together, inner ones first.
    """
    if world.size == 1:
        return module
    if sharding == "full":
        for unit in (*units, module):
            fully_shard(unit, mesh=world.mesh)
            for name in ("forward_shapes", "forward_tokens"):  # besides `forward`, which gathers weights by itself
                if hasattr(unit, name):
                    register_fsdp_forward_method(unit, name)
        return module
    devices = [world.device] if world.device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=devices)


@contextmanager
def gradients_stay_local(model: nn.Module, when: bool) -> Iterator[None]:
    """Inside, if `when`, a backward pass only adds to this process's gradients; the next one outside averages all."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not when)
        yield
        model.set_requires_gradient_sync(True)
        return
    with model.no_sync() if when and isinstance(model, DistributedDataParallel) else nullcontext():
        yield


def whole(tensor: Tensor) -> Tensor:
    """`tensor` itself, or all of it where processes hold shards; each must call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def whole_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """State of a module and its optimiser on the CPU, alike for every world and sharding; each process must call.

    With shards, only the first process gets it; the others get empty ones.
    """
    return whole_module_state(module), dict(get_optimizer_state_dict(module, optimizer, options=_WHOLE))


def whole_module_state(module: nn.Module) -> dict[str, Any]:
    """As `whole_state`, of a module alone."""
    return dict(get_model_state_dict(module, options=_WHOLE))


def load_whole_state_(
    module: nn.Module, optimizer: torch.optim.Optimizer, state: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Put back what `whole_state` gave, in any world and sharding; each process holds all of `state`."""
    set_model_state_dict(module, state[0], options=StateDictOptions(full_state_dict=True))
    set_optimizer_state_dict(module, optimizer, state[1], options=StateDictOptions(full_state_dict=True))


def processes() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def agreed(value: T) -> T:
    """What the main process says, for whatever might look different to each; each must call."""
    return gathered([value])[0]


def global_rows(count: int, first: int = 0) -> list[int]:
    """Where `count` rows of this process, from its row `first` on, are in the global batch; see `gather_rows`."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    return [row * size + rank for row in range(first, first + count)]


def gather_rows(rows_BD: Tensor) -> Tensor:
    """The rows of all processes, in the order of the global batch: row b of rank r is row b * world + r of it."""
    if not dist.is_initialized():
        return rows_BD
    gathered_WBD = [torch.empty_like(rows_BD) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered_WBD, rows_BD.contiguous())
    return torch.stack(gathered_WBD, dim=1).flatten(0, 1)


def barrier() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()
