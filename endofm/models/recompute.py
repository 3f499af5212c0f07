"""Memory for time: what a backward pass needs is partly computed again instead of kept.

Products are dear, and their results small beside all that lies between them: norms, copies in other layouts, softmax,
GELU. So the products are kept and the rest is not (selective activation checkpointing, as in torchtitan and DINOv3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

T = TypeVar("T")

_KEPT = frozenset(
    getattr(torch.ops.aten, name).default
    for name in (
        "mm",
        "addmm",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
    )
)


def recomputed(function: Callable[..., T], *inputs: Any) -> T:
    """`function(*inputs)`, whose backward pass will run it once more but for its products; draws are repeated, so that
    values and gradients are those that they would have been."""
    contexts = partial(create_selective_checkpoint_contexts, _keep_products)
    output: T = checkpoint(function, *inputs, use_reentrant=False, context_fn=contexts)
    return output


def _keep_products(_context: Any, operation: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
