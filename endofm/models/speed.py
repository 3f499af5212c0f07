"""Ways to run the blocks of a network that leave what they compute as it is: compiled, or with less remembered."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import torch
from torch import nn

from endocorpus.errors import UsageError
from endofm.models.transformer import Block

_GRAPHS = 64
"""Of one block: a graph for each list of shapes, with and without gradients. torch gives up after 8 and says little."""


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Inside, torch computes with so many threads on a CPU; as it was if 0."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compile_blocks_(module: nn.Module, device: torch.device, *, backend: str = "inductor") -> None:
    """Have torch compile every block of `module`, once for each list of shapes it meets.

    To be called before `module` is made data-parallel. All blocks share their graphs. Shapes are taken as they are
    (`dynamic=False`): with symbolic ones torch fails at the second shape of clips. Random draws come from another
    generator than without.

    Raises:
        UsageError: `device` is a CPU, and there is no C++ compiler.
    """
    if device.type == "cpu" and backend == "inductor" and not _has_compiler():
        raise UsageError("run.compile = true needs a C++ compiler on a CPU, such as g++, and there is none")
    dynamo = torch._dynamo.config  # noqa: SLF001  # torch has no public name for it
    dynamo.recompile_limit = max(dynamo.recompile_limit, _GRAPHS)
    for block in module.modules():
        if isinstance(block, Block):
            block.compile(dynamic=False, backend=backend)


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))


def recompute_in_blocks_(module: nn.Module) -> None:
    """Have every block of `module` keep less for its backward pass and compute it again: see `recompute`."""
    for block in module.modules():
        if isinstance(block, Block):
            block.recompute = True
