"""Heads that turn backbone features into what an objective compares.

Shape suffixes: X any number of leading dimensions, D feature width, K prototypes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize


class DINOHead(nn.Module):
    """Three-layer perceptron, unit length, then similarity to K unit prototypes (Caron et al., 2021, appendix C).

    State keys are those of the released code: `mlp.{0,2,4}.{weight,bias}`, `last_layer.{weight_g,weight_v}`. There is
    no batch norm, and the prototypes keep length one because `weight_g` is frozen at one.
    """

    def __init__(self, width: int, prototypes: int, *, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.last_layer = Prototypes(bottleneck, prototypes)

    def forward(self, features_XD: Tensor) -> Tensor:
        """Features [..., D] to cosine similarities [..., K] in float32, whatever autocast says."""
        similarities_XK: Tensor = self.last_layer(normalize(self.mlp(features_XD).float(), dim=-1))
        return similarities_XK


class Prototypes(nn.Module):
    """Weight-normed Linear without bias; written out because torch's own parametrisation has other state keys."""

    def __init__(self, width: int, prototypes: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(prototypes, 1), requires_grad=False)
        self.weight_v = nn.Parameter(torch.empty(prototypes, width))
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))  # as nn.Linear starts; only the direction matters

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., prototypes]."""
        # bfloat16 would round a cosine by up to 0.004, a tenth of the teacher's temperature, to save next to nothing.
        with torch.autocast(x.device.type, enabled=False):
            return linear(x, self.weight_v * (self.weight_g / self.weight_v.norm(dim=1, keepdim=True)))
