"""Operations counted from shapes are those that torch counts while it computes."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from endofm.models import ModelConfig, create_backbone
from endofm.models.flops import forward_flops, peak_flops_per_second
from endofm.objectives.dino import Dino, DinoConfig
from endofm.optim import Horizon

VITB = ModelConfig()
RECIPE = [(8, 224), (16, 224)], [(frames, 96) for frames in (2, 2, 4, 4, 8, 8, 16, 16)]


@pytest.mark.parametrize("shape", [(8, 224), (16, 224), (2, 96), (1, 16), (3, 32)])
@pytest.mark.parametrize(
    "config",
    [VITB, ModelConfig(attends="space"), ModelConfig(embed_dim=96, depth=2, num_heads=3, mlp_ratio=2.5, patch_size=8)],
)
def test_as_many_as_torch_counts(shape: tuple[int, int], config: ModelConfig) -> None:
    with torch.device("meta"):
        backbone = create_backbone(config).eval()
        clip = torch.empty(1, 3, shape[0], shape[1], shape[1])
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        backbone(clip)
    tokens, width = shape[0] * (shape[1] // config.patch_size) ** 2, config.embed_dim
    saved = config.depth * 2 * width**2 * max(0, tokens - width)  # one product, not one a token
    saved *= config.attends == "space-time"
    assert forward_flops(config, shape) - saved == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_the_published_step() -> None:
    """A clip of Endo-FM's recipe costs 6.30e12: three passes of ten views for the student, and the teacher's two."""
    globals_, locals_ = RECIPE
    with torch.device("meta"):
        dino = Dino(DinoConfig(prototypes=2), VITB, num_globals=2, horizon=Horizon(10, Fraction(1)))
    assert dino.step_flops(globals_ + locals_) / 1e12 == pytest.approx(6.296, rel=1e-3)


def test_peaks_of_known_devices() -> None:
    assert peak_flops_per_second("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops_per_second("NVIDIA H100 PCIe") == 756e12
    assert peak_flops_per_second("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops_per_second("Toaster 3000") is None
