"""Attention, computed in one of two ways of equal result: torch's fused kernel, or written out as products and softmax.

Shape suffixes: S sequences of M tokens, A heads, D width, E width of a head.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

AttentionChoice = Literal["auto", "sdpa", "math"]

_MEASURED: dict[tuple[str, torch.dtype], Literal["sdpa", "math"]] = {
    ("cpu", torch.float32): "sdpa",
    ("cpu", torch.bfloat16): "math",
}
"""The faster way by device and type, for sequences of 2 to 197 tokens forwards and backwards (docs/benchmarks.md): on a
CPU the length never turned it. What has not been measured, every GPU so far, takes the fused kernel."""


def faster_way(device: torch.device, dtype: torch.dtype) -> Literal["sdpa", "math"]:
    """What "auto" means for inputs like these."""
    return _MEASURED.get((device.type, dtype), "sdpa")


def attend(query_SAME: Tensor, key_SAME: Tensor, value_SAME: Tensor, choice: AttentionChoice = "auto") -> Tensor:
    """softmax(q k^T / sqrt(E)) v, [S, A, M, E] to the same shape; tokens see only their own sequence."""
    if choice == "auto":
        choice = faster_way(query_SAME.device, query_SAME.dtype)
    if choice == "sdpa":
        return scaled_dot_product_attention(query_SAME, key_SAME, value_SAME)
    scores_SAMM = (query_SAME * query_SAME.shape[-1] ** -0.5) @ key_SAME.transpose(-2, -1)
    attended_SAME: Tensor = scores_SAMM.softmax(dim=-1) @ value_SAME
    return attended_SAME


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values, in that order."""

    def __init__(self, width: int, num_heads: int, choice: AttentionChoice = "auto") -> None:
        super().__init__()
        self.num_heads, self.choice = num_heads, choice
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_SMD: Tensor) -> Tensor:
        """[S, M, D] to the same shape; tokens see only their own sequence."""
        projected: Tensor = self.proj(self.before_projection(x_SMD))
        return projected

    def before_projection(self, x_SMD: Tensor) -> Tensor:
        """The heads' outputs side by side, in contiguous memory: what `forward` projects; [S, M, D] to [S, M, D]."""
        S, M, D = x_SMD.shape
        qkv = self.qkv(x_SMD).view(S, M, 3, self.num_heads, D // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        # The copy is needed even where the layout would do without: torch runs a *frozen* Linear on strided input as
        # many small products, which makes the teacher several times slower.
        return attend(query, key, value, self.choice).transpose(1, 2).flatten(2).contiguous()
