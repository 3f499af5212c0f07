"""The backbone against an independent reference, against the published shapes, and against what must not matter."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from endofm.models import ModelConfig, VideoTransformer, create_backbone
from endofm.models.transformer import Block

SMALL = ModelConfig(embed_dim=32, depth=2, num_heads=2, drop_path=0.0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that hide nothing: every bias, norm, table and `temporal_fc` matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2 and not name.endswith("_embed") and name != "cls_token":
                noise /= math.sqrt(parameter[0].numel())
            parameter.copy_(1 + 0.2 * noise if "norm" in name and name.endswith("weight") else noise)
    return model


def random_backbone(config: ModelConfig = SMALL) -> VideoTransformer:
    model = randomise(create_backbone(config)).eval()
    assert isinstance(model, VideoTransformer)
    return model


def random_clip(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# The reference: one clip, one patch, one place, one frame and one head at a time, in float64, from the state alone.


def reference(model: VideoTransformer, clip_CTHW: Tensor) -> Tensor:
    """All tokens [1+N*T, D] of one clip."""
    state = {key: value.double() for key, value in model.state_dict().items()}
    config, clip = model.config, clip_CTHW.double()
    patch, frames = config.patch_size, clip.shape[1]
    rows, columns, grid = clip.shape[2] // patch, clip.shape[3] // patch, config.image_size // config.patch_size
    cls = state["cls_token"][0, 0] + state["pos_embed"][0, 0]
    patches = torch.empty(rows * columns, frames, config.embed_dim, dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            position = 1 + (row * grid // rows) * grid + column * grid // columns
            for frame in range(frames):
                pixels = clip[:, frame, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
                embedded = (
                    state["patch_embed.proj.weight"].flatten(1) @ pixels.flatten() + state["patch_embed.proj.bias"]
                )
                time = state["time_embed"][0, frame * config.num_frames // frames]
                patches[row * columns + column, frame] = embedded + state["pos_embed"][0, position] + time
    for index in range(config.depth):
        weights = {k.removeprefix(f"blocks.{index}."): v for k, v in state.items() if k.startswith(f"blocks.{index}.")}
        cls, patches = reference_block(weights, config.num_heads, cls, patches)
    return norm(state, "norm", torch.cat([cls[None], patches.flatten(0, 1)]))


def reference_block(weights: dict[str, Tensor], heads: int, cls: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
    moved = torch.empty_like(patches)
    for place, sequence in enumerate(patches):
        change = attend(weights, "temporal_attn", heads, norm(weights, "temporal_norm1", sequence))
        moved[place] = sequence + linear(weights, "temporal_fc", change)
    after, votes = torch.empty_like(patches), []
    for frame in range(patches.shape[1]):
        sequence = torch.cat([cls[None], moved[:, frame]])
        change = attend(weights, "attn", heads, norm(weights, "norm1", sequence))
        votes.append(change[0])
        after[:, frame] = moved[:, frame] + change[1:]
    cls = cls + sum(votes) / len(votes)
    return cls + perceptron(weights, cls), after + perceptron(weights, after)


def attend(weights: dict[str, Tensor], name: str, heads: int, x: Tensor) -> Tensor:
    width = x.shape[1]
    query, key, value = linear(weights, f"{name}.qkv", x).split(width, dim=1)
    outputs = []
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        scores = torch.einsum("id,jd->ij", query[:, part], key[:, part]) / math.sqrt(width / heads)
        exponents = (scores - scores.max()).exp()
        outputs.append(torch.einsum("ij,jd->id", exponents / exponents.sum(1, keepdim=True), value[:, part]))
    return linear(weights, f"{name}.proj", torch.cat(outputs, dim=1))


def perceptron(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    hidden = linear(weights, "mlp.fc1", norm(weights, "norm2", x))
    return linear(weights, "mlp.fc2", hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)


def linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    spread = ((x - x.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / (spread + 1e-6).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


@pytest.mark.parametrize("frames", [2, 4, 8, 16])
@pytest.mark.parametrize("size", [96, 224])
def test_matches_the_plain_reference(frames: int, size: int) -> None:
    check_parity(SMALL, random_clip(2 if size == 96 else 1, 3, frames, size, size))


def test_matches_the_plain_reference_at_published_width() -> None:
    check_parity(ModelConfig(depth=1, drop_path=0.0), random_clip(1, 3, 4, 96, 96))


@pytest.mark.parametrize(("height", "width"), [(448, 112), (112, 448), (32, 16), (240, 224)])
def test_matches_the_plain_reference_on_other_grids(height: int, width: int) -> None:
    """448 x 112 has the 196 patches of 224 x 224 in another grid: the count must not be mistaken for the grid."""
    check_parity(SMALL, random_clip(1, 3, 2, height, width))


def check_parity(config: ModelConfig, clips: Tensor) -> None:
    model = random_backbone(config)
    with torch.no_grad():
        tokens_BLD, cls_BD = model.forward_tokens(clips), model(clips)
    for clip, tokens, cls in zip(clips, tokens_BLD, cls_BD, strict=True):
        expected = reference(model, clip).float()
        assert (tokens - expected).abs().max() <= 2e-5
        assert (cls - expected[0]).abs().max() <= 2e-5


def test_published_tensors() -> None:
    with torch.device("meta"):
        state = create_backbone(ModelConfig()).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert len(shapes) == 247
    assert sum(math.prod(shape) for shape in shapes.values()) == 121_258_752
    block = {
        **{f"{name}.weight": (768,) for name in ("norm1", "temporal_norm1", "norm2")},
        **{f"{name}.qkv.weight": (2304, 768) for name in ("attn", "temporal_attn")},
        **{f"{name}.weight": (768, 768) for name in ("attn.proj", "temporal_attn.proj", "temporal_fc")},
        "mlp.fc1.weight": (3072, 768),
        "mlp.fc2.weight": (768, 3072),
    }
    expected: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, 768),
        "pos_embed": (1, 197, 768),
        "time_embed": (1, 8, 768),
        "patch_embed.proj.weight": (768, 3, 16, 16),
        "norm.weight": (768,),
        **{f"blocks.{index}.{name}": shape for index in range(12) for name, shape in block.items()},
    }
    biases = {name.replace("weight", "bias"): shape[:1] for name, shape in expected.items() if name.endswith("weight")}
    assert shapes == expected | biases


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = create_backbone(ModelConfig(embed_dim=128, depth=3, num_heads=2))
    assert not model.time_embed.any()
    assert {module.eps for module in model.modules() if isinstance(module, nn.LayerNorm)} == {1e-6}
    for block in model.blocks:
        assert isinstance(block, Block)
        assert not block.temporal_fc.weight.any()
        assert not block.temporal_fc.bias.any()
    for tensor in (model.pos_embed, model.cls_token, model.blocks[2].get_parameter("mlp.fc1.weight")):
        assert 0.014 < tensor.std() < 0.026
    for name, parameter in model.named_parameters():
        if name.endswith("bias") and not name.startswith("patch_embed"):
            assert not parameter.any(), name


def test_fresh_network_ignores_the_order_of_frames_and_a_trained_one_does_not() -> None:
    clip = random_clip(1, 3, 4, 32, 32)
    shuffled = clip[:, :, [2, 0, 3, 1]]
    with torch.no_grad():
        fresh, trained = create_backbone(SMALL).eval(), random_backbone()
        torch.testing.assert_close(fresh(clip), fresh(shuffled), rtol=0, atol=1e-5)
        assert (trained(clip) - trained(shuffled)).abs().max() > 1e-2


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 17), st.integers(1, 5), st.integers(1, 5))
def test_any_length_and_grid_and_clips_do_not_see_each_other(batch: int, frames: int, rows: int, columns: int) -> None:
    model = random_backbone()
    clips = random_clip(batch, 3, frames, 16 * rows, 16 * columns)
    with torch.no_grad():
        tokens_BLD = model.forward_tokens(clips)
        assert tokens_BLD.shape == (batch, 1 + frames * rows * columns, SMALL.embed_dim)
        alone = torch.cat([model(clip[None]) for clip in clips])
    torch.testing.assert_close(tokens_BLD[:, 0], alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(1, 3, 2, 30, 32), (1, 3, 2, 32, 40), (1, 1, 2, 32, 32), (3, 2, 32, 32)])
def test_refuses_what_it_would_have_to_cut(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"multiples of 16|\[B, 3, T, H, W\]"):
        create_backbone(SMALL)(torch.zeros(shape))


def test_drop_path_rates_and_rows() -> None:
    model = create_backbone(ModelConfig(embed_dim=32, depth=3, num_heads=2, drop_path=0.4)).train()
    assert [getattr(block.drop_path, "drop_prob", 0.0) for block in model.blocks] == pytest.approx([0.0, 0.2, 0.4])
    rows: list[int] = []
    model.blocks[2].get_submodule("drop_path").register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    model(random_clip(2, 3, 4, 48, 32))
    batch, places, frames = 2, 3 * 2, 4
    assert rows == [batch * places, batch * frames, batch]


def test_a_dropped_place_still_gets_the_bias_of_temporal_fc() -> None:
    block = Block(8, 2, 4.0, drop_path=1 - 1e-12)
    randomise(block)
    tokens = random_clip(1, 1 + 4 * 3, 8)
    out = block.train()(tokens, num_frames=3)
    torch.testing.assert_close(out[:, 0], tokens[:, 0])
    torch.testing.assert_close(out[:, 1:], tokens[:, 1:] + block.temporal_fc.bias)


@pytest.mark.parametrize("shape", [(1, 3, 1, 32, 32), (1, 3, 4, 16, 16), (1, 3, 4, 32, 32), (2, 3, 4, 32, 32)])
def test_every_linear_of_a_frozen_network_reads_contiguous_memory(shape: tuple[int, ...]) -> None:
    """Otherwise torch splits a frozen Linear into many small products, and the teacher is several times slower."""
    model = random_backbone().requires_grad_(False)
    strided: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: None if inputs[0].is_contiguous() else strided.append(name)
            )
    model(random_clip(*shape))
    assert strided == []


def test_every_weight_learns() -> None:
    model = random_backbone().train()
    model(random_clip(2, 3, 4, 32, 48)).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
