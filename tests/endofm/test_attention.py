"""The two ways of attention are one function, and every Linear gets memory that torch is quick with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from endofm.models.attention import Attention, AttentionChoice, attend, faster_way
from tests.endofm.test_transformer import randomise

SHAPES = [(3, 2), (4, 16), (2, 37), (1, 197)]


def inputs(sequences: int, length: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    return [torch.randn(sequences, 2, length, 16, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_both_ways_give_the_same_values_and_gradients(shape: tuple[int, int], dtype: torch.dtype, most: float) -> None:
    seen = []
    for choice in ("sdpa", "math"):
        query, key, value = inputs(*shape, dtype)
        attended = attend(query, key, value, choice)
        assert attended.dtype == dtype
        attended.square().sum().backward()  # type: ignore[no-untyped-call]
        seen.append([attended.detach(), query.grad, key.grad, value.grad])
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=most * float(one.abs().max()))


def test_a_key_that_is_far_closer_gets_all_the_attention() -> None:
    """A property of the formula, not of either way: with orthogonal keys of great length, values are copied."""
    eye = torch.eye(4).view(1, 1, 4, 4)
    value = torch.arange(16.0).view(1, 1, 4, 4)
    for choice in ("sdpa", "math"):
        torch.testing.assert_close(attend(100 * eye, 100 * eye.flip(2), value, choice), value.flip(2))


@pytest.mark.parametrize(("dtype", "way"), [(torch.float32, "sdpa"), (torch.bfloat16, "math")])
def test_auto_goes_by_device_and_type(dtype: torch.dtype, way: AttentionChoice) -> None:
    assert faster_way(torch.device("cpu"), dtype) == way
    auto, named = (attend(*inputs(2, 37, dtype), choice) for choice in ("auto", way))
    assert torch.equal(auto, named)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_not_measured_takes_the_fused_kernel(dtype: torch.dtype) -> None:
    assert faster_way(torch.device("cuda"), dtype) == "sdpa"
    assert faster_way(torch.device("cpu"), torch.float64) == "sdpa"


def test_under_autocast_auto_sees_the_type_that_is_computed_in() -> None:
    layer = randomise(Attention(32, 2))
    named = randomise(Attention(32, 2, "math"))
    x = torch.randn(2, 5, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), named(x))
