"""What the networks cost, in floating-point operations counted from their shapes: two for each multiply-and-add.

Matrix products alone, as torch's own counter has it; everything else is less than one per cent. They are those of the
network as published, whatever way is taken to its results, so that shares of a peak compare; `Block` needs 6 % fewer.
"""

from __future__ import annotations

from collections.abc import Iterable

from endofm.models.transformer import ModelConfig

Shape = tuple[int, int]
"""Frames, and height and width in pixels, of a view."""


def forward_flops(config: ModelConfig, shape: Shape, places: int | None = None) -> int:
    """Operations of one forward pass of the backbone over one view; over `places` of its patches only, if given."""
    T, N, D = shape[0], (shape[1] // config.patch_size) ** 2, config.embed_dim
    embed = 2 * T * N * 3 * config.patch_size**2 * D
    seen = N if places is None else places
    adapters = {"none": 0, "st12": 1, "st24": 2}[config.adapters]
    adapter = 2 * T * seen * config.adapter_width * (2 * D + 3)
    block = block_flops(T, seen, D, int(D * config.mlp_ratio), attends_time=config.attends_time)
    return embed + config.depth * (block + adapters * adapter)


def block_flops(T: int, N: int, D: int, hidden: int, *, attends_time: bool = True) -> int:
    """Operations of one block of width `D` over `T` frames of `N` patches, with `hidden` units in its perceptron."""
    time = 2 * T * N * 5 * D * D + 4 * N * T * T * D  # queries, keys, values, projection, temporal_fc; attention
    space = 2 * T * (N + 1) * 4 * D * D + 4 * T * (N + 1) ** 2 * D
    class_tokens = 1 if attends_time else T
    perceptron = 2 * (T * N + class_tokens) * 2 * D * hidden
    return (time if attends_time else 0) + space + perceptron


def passes(config: ModelConfig, shapes: Iterable[Shape]) -> int:
    """Operations of one forward pass over one view of each shape."""
    return sum(forward_flops(config, shape) for shape in shapes)


def with_backward(config: ModelConfig) -> int:
    """How many forward passes a forward and backward pass cost: three, or two where the weights are frozen around
    adapters, so that only what flows through them has a gradient."""
    return 3 if config.adapters == "none" else 2


# Dense bfloat16 without sparsity, from the data sheets of the maker; FLOP/s.
_PEAKS = {"B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}


def peak_flops_per_second(device_name: str) -> float | None:
    """The most that a GPU of this name can do in bfloat16, or None where it is not known."""
    return next((peak for name, peak in _PEAKS.items() if name in device_name), None)
