"""The backbone against an independent reference, against the published shapes, and against what must not matter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from endocorpus.errors import UsageError
from endofm.data.views import ViewConfig
from endofm.models import SHAPES, ModelConfig, VideoTransformer, create_backbone
from endofm.models.attention import AttentionChoice
from endofm.models.transformer import Block, DropPath
from endofm.objectives.dino import DinoConfig, StudentTeacher
from tests.endofm.plain_timesformer import plain_tokens, published_shapes

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


@pytest.fixture(scope="module")
def published() -> VideoTransformer:
    """ViT-B/16 with random weights."""
    return random_backbone(ModelConfig())


@pytest.mark.parametrize("frames", [2, 4, 8, 16])
@pytest.mark.parametrize("size", [96, 224])
def test_the_published_network_matches_the_plain_reference(published: VideoTransformer, frames: int, size: int) -> None:
    assert disparity(published, random_clip(1, 3, frames, size, size)) <= 2e-5


@pytest.mark.parametrize(
    ("frames", "height", "width"),
    [(2, 448, 112), (3, 112, 448), (5, 32, 16), (16, 240, 224), (1, 16, 16), (11, 96, 96), (8, 224, 224)],
)
def test_matches_the_plain_reference_in_double_precision_on_any_grid(frames: int, height: int, width: int) -> None:
    """448 x 112 has the 196 patches of 224 x 224 in another grid: the count must not be mistaken for the grid."""
    assert disparity(random_backbone(), random_clip(2, 3, frames, height, width), torch.float64) <= 2e-5


def disparity(model: VideoTransformer, clips: Tensor, dtype: torch.dtype = torch.float32) -> float:
    """Largest absolute difference to the reference over all tokens; the reference computes in `dtype`."""
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        tokens_BLD = model.forward_tokens(clips)
        plain_BLD = torch.stack([plain_tokens(state, model.config.num_heads, clip) for clip in clips])
    assert tokens_BLD.shape == plain_BLD.shape
    return float((tokens_BLD - plain_BLD).abs().max())


def test_the_feature_is_the_class_token() -> None:
    model, clips = random_backbone(), random_clip(2, 3, 4, 48, 32)
    with torch.no_grad():
        assert torch.equal(model(clips), model.forward_tokens(clips)[:, 0])


def test_tokens_come_place_by_place_and_frame_by_frame() -> None:
    """Space-major, time-minor, found by planting: with every mixing layer silenced, a token tells only of its patch."""
    model = random_backbone()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("blocks.") or name.endswith("_embed"):
                parameter.zero_()
    rows, columns, frames = 2, 3, 4
    clip = torch.zeros(1, 3, frames, 16 * rows, 16 * columns)
    with torch.no_grad():
        before = model.forward_tokens(clip)[0]
        for row in range(rows):
            for column in range(columns):
                for frame in range(frames):
                    planted = clip.clone()
                    planted[:, :, frame, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1.0
                    moved = (model.forward_tokens(planted)[0] - before).abs().amax(1).nonzero().flatten().tolist()
                    assert moved == [1 + (row * columns + column) * frames + frame]


def test_published_tensors() -> None:
    with torch.device("meta"):
        state = create_backbone(ModelConfig()).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert len(shapes) == 247
    assert sum(math.prod(shape) for shape in shapes.values()) == 121_258_752
    assert shapes == published_shapes()


def test_backbones_go_by_name_and_take_changes() -> None:
    with torch.device("meta"):
        small, long = create_backbone("vit_small_patch16"), create_backbone("vit_base_patch16", num_frames=32)
        own = create_backbone(SMALL, image_size=32, drop_path=0.2)
    assert sum(parameter.numel() for parameter in small.parameters()) == 30_548_352
    assert long.time_embed.shape == (1, 32, 768) and len(long.state_dict()) == 247
    assert own.pos_embed.shape == (1, 5, 32) and own.config.drop_path == 0.2 and own.config.depth == SMALL.depth


def test_a_wrong_name_or_value_is_refused() -> None:
    with pytest.raises(UsageError, match=f"'vit_huge'; there are {', '.join(SHAPES)}"):
        create_backbone("vit_huge")
    for changes, said in (({"num_frames": 0}, "num_frames = 0"), ({"image_size": 100}, "image_size = 100: not a mult")):
        with pytest.raises(UsageError, match=said):
            create_backbone("vit_base_patch16", **changes)


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


@settings(max_examples=15)
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
    assert [float(getattr(block.drop_path, "keep", 1.0)) for block in model.blocks] == pytest.approx([1.0, 0.8, 0.6])
    rows: list[int] = []
    model.blocks[2].get_submodule("drop_path").register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    model(random_clip(2, 3, 4, 48, 32))
    batch, places, frames = 2, 3 * 2, 4
    assert rows == [batch * places, batch * frames, batch]


def test_dropped_rows_are_zero_and_the_others_make_up_for_them() -> None:
    torch.manual_seed(0)
    drop, rows = DropPath(0.25), torch.rand(4000, 2, 3) + 1
    dropped = drop.train()(rows)
    zero = (dropped == 0).flatten(1)
    assert torch.equal(zero.all(1), zero.any(1)) and zero.all(1).float().mean() == pytest.approx(0.25, abs=0.03)
    kept = ~zero.all(1)
    torch.testing.assert_close(dropped[kept], rows[kept] / 0.75)
    assert torch.equal(drop.eval()(rows), rows)


@pytest.mark.parametrize("places", [1, 4], ids=["apart", "folded"])
def test_a_dropped_place_still_gets_the_bias_of_temporal_fc(places: int) -> None:
    block = Block(8, 2, 4.0, drop_path=1 - 1e-12)
    randomise(block)
    tokens = random_clip(1, 1 + places * 3, 8)
    (out,) = block.train()([tokens], [3])
    torch.testing.assert_close(out[:, 0], tokens[:, 0])
    torch.testing.assert_close(out[:, 1:], tokens[:, 1:] + block.temporal_fc.bias)


class Unfolded(Block):
    """The block as it is published: projection, drop, `temporal_fc`."""

    def _in_time(self, patches_PTD: Tensor, fold: tuple[Tensor, Tensor] | None) -> Tensor:
        assert fold is not None, "too few tokens to fold for"
        return super()._in_time(patches_PTD, None)


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_folding_changes_neither_values_nor_gradients(drop_path: float) -> None:
    """For all shapes of a step together, with the same rows dropped."""
    results = []
    for kind in (Block, Unfolded):
        block = randomise(kind(16, 2, 2.0, drop_path)).train()
        stacks = [random_clip(2, 1 + 9 * 4, 16).requires_grad_(), random_clip(3, 1 + 4 * 2, 16).requires_grad_()]
        torch.manual_seed(0)
        out = block(stacks, [4, 2])
        sum(tokens.square().mean() for tokens in out).backward()
        results.append([*out, *(stack.grad for stack in stacks), *(p.grad for p in block.parameters())])
    for folded, plain in zip(*results, strict=True):
        torch.testing.assert_close(folded, plain, rtol=1e-5, atol=1e-5 * float(plain.detach().abs().max()))


def test_folding_is_as_exact_in_bfloat16() -> None:
    """Rounding the product of the weights costs no more than rounding what lay between the two layers."""
    block, unfolded = (randomise(kind(64, 2, 2.0, 0.0)) for kind in (Block, Unfolded))
    stacks = [random_clip(2, 1 + 16 * 8, 64)]
    with torch.no_grad():
        exact = unfolded.double()([stacks[0].double()], [8])[0]
        unfolded.float()
        with torch.autocast("cpu", torch.bfloat16):
            errors = [float((kind(stacks, [8])[0] - exact).norm()) for kind in (block, unfolded)]
    assert 0 < errors[0] < 1.2 * errors[1]


def test_the_weights_are_folded_once_a_step_and_only_if_it_pays() -> None:
    model = random_backbone()
    folds: list[int] = []
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        block._fold = lambda fold=block._fold, index=index: folds.append(index) or fold()  # type: ignore[method-assign]
    width = SMALL.embed_dim
    model.forward_shapes([random_clip(1, 3, 2, 32, 32), random_clip(1, 3, width // 4 - 2, 32, 32)])
    assert folds == [], "as many tokens as the width: the product costs what it saves"
    model.forward_shapes([random_clip(1, 3, 2, 32, 32), random_clip(2, 3, 4, 48, 32), random_clip(1, 3, 1, 16, 16)])
    assert folds == [0, 1]


def test_several_shapes_at_once_are_each_as_alone() -> None:
    model = random_backbone()
    stacks = [random_clip(2, 3, 4, 48, 32), random_clip(1, 3, 2, 32, 32), random_clip(3, 3, 1, 16, 48)]
    with torch.no_grad():
        for together, stack in zip(model.forward_shapes(stacks), stacks, strict=True):
            torch.testing.assert_close(together, model(stack), rtol=0, atol=2e-5)


class Watch(TorchFunctionMode):
    """Notes every product of a Linear, of a layer or not, that reads strided memory."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.strided = 0, list[tuple[int, ...]]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.linear and args[0].ndim > 1:
            self.calls += 1
            if not args[0].is_contiguous():
                self.strided.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("attention", ["sdpa", "math"])
@pytest.mark.parametrize("batch", [1, 2])
def test_every_linear_of_a_frozen_network_reads_contiguous_memory(batch: int, attention: AttentionChoice) -> None:
    """Otherwise torch splits a frozen Linear into many small products, and the teacher is several times slower.

    For all views of the recipe, each alone and all together; one clip is the trap, where a transposition is a view.
    """
    config = SMALL.model_copy(update={"attention": attention})
    network = StudentTeacher(DinoConfig(prototypes=8, head_hidden=8, head_bottleneck=4), config)
    randomise(network.requires_grad_(False))
    views = [random_clip(batch, 3, frames, size, size) for frames, size in ViewConfig().view_shapes]
    views += [random_clip(batch, 3, frames, side, side) for frames, side in ((1, 32), (4, 16), (1, 16))]
    with Watch() as watch:
        for view in views:
            network([view])
        network(views)
    assert watch.strided == []
    assert watch.calls > 8 * SMALL.depth * len(views)


def test_every_weight_learns() -> None:
    model = random_backbone().train()
    model(random_clip(2, 3, 4, 32, 48)).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
