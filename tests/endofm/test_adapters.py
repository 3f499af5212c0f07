"""Adapters: nothing at first, then all that moves; and runs that start from given weights."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import endofm
from endocorpus.errors import UsageError
from endofm import pretrain as module
from endofm.config import PretrainConfig, load_config
from endofm.models import ModelConfig, create_backbone, read_backbone
from endofm.models.adapters import STAdapter, adapter_parameters, freeze_all_but_adapters_
from endofm.models.flops import forward_flops
from endofm.objectives.dino import Dino, DinoConfig
from endofm.optim import Horizon
from endofm.pretrain import pretrain
from endofm.start import freeze_
from tests.endofm.test_pretrain import TINY, assert_same_bits, metrics, state

PLAIN = ModelConfig(embed_dim=16, depth=2, num_heads=2, image_size=32, num_frames=4, drop_path=0.0)
ADAPTED = PLAIN.model_copy(update={"adapters": "st24", "adapter_width": 6})


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def both(adapters: str = "st24") -> tuple[torch.nn.Module, torch.nn.Module]:
    """A backbone, and the same with adapters."""
    torch.manual_seed(0)
    plain = create_backbone(PLAIN)
    for block in plain.blocks:
        torch.nn.init.normal_(block.get_parameter("temporal_fc.weight"), std=0.1)
    adapted = create_backbone(ADAPTED.model_copy(update={"adapters": adapters}))
    missing, unexpected = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all("adapter" in name for name in missing)
    return plain, adapted


@pytest.mark.parametrize("adapters", ["st12", "st24"])
@pytest.mark.parametrize(("frames", "size"), [(4, 32), (1, 16), (3, 48)])
def test_new_adapters_change_not_a_bit(adapters: str, frames: int, size: int) -> None:
    plain, adapted = both(adapters)
    clip = torch.randn(2, 3, frames, size, size)
    with torch.no_grad():
        assert torch.equal(plain.forward_tokens(clip), adapted.forward_tokens(clip))


SPACE = PLAIN.model_copy(update={"attends": "space"})


def image_transformer(width: int = 16, heads: int = 2) -> VisionTransformer:
    """timm's, of the same shape, with random weights in every tensor."""
    torch.manual_seed(1)
    network = VisionTransformer(
        img_size=32, patch_size=16, embed_dim=width, depth=2, num_heads=heads, num_classes=0, global_pool=""
    )
    for tensor in network.state_dict().values():
        torch.nn.init.normal_(tensor, std=0.3)
    return network.eval()


@pytest.mark.parametrize(("frames", "side"), [(1, 32), (5, 32)])
def test_attending_in_space_alone_is_an_image_transformer_shown_each_frame(frames: int, side: int) -> None:
    """Parity with timm: class tokens of the frames, their mean, and the last norm on that (ST-Adapter's way)."""
    theirs, ours = image_transformer(), create_backbone(SPACE).eval()
    ours.load_state_dict(theirs.state_dict())
    clip_BCTHW = torch.randn(3, 3, frames, side, side)
    norm, theirs.norm = theirs.norm, torch.nn.Identity()
    with torch.no_grad():
        tokens_FLD = theirs.forward_features(clip_BCTHW.transpose(1, 2).flatten(0, 1))
        expected_BD = norm(tokens_FLD[:, 0].view(3, frames, -1).mean(dim=1))
        torch.testing.assert_close(ours(clip_BCTHW), expected_BD, rtol=0, atol=2e-5)
        tokens_BLD = ours.forward_tokens(clip_BCTHW)
        torch.testing.assert_close(tokens_BLD[:, 0], expected_BD, rtol=0, atol=2e-5)
        patches_BXD = tokens_FLD[:, 1:].unflatten(0, (3, frames)).transpose(1, 2).flatten(1, 2)
        torch.testing.assert_close(tokens_BLD[:, 1:], norm(patches_BXD), rtol=0, atol=2e-5)
        backwards = clip_BCTHW.flip(2)
        torch.testing.assert_close(ours(backwards), ours(clip_BCTHW), rtol=0, atol=2e-5)


def test_in_space_alone_only_the_convolution_knows_the_order_of_frames() -> None:
    ours = create_backbone(SPACE.model_copy(update={"adapters": "st24", "adapter_width": 6})).eval()
    clip_BCTHW = torch.randn(2, 3, 4, 32, 32)
    for moved in (False, True):
        if moved:
            for name, weight in ours.named_parameters():
                if name.endswith("conv.weight"):
                    torch.nn.init.normal_(weight)
        with torch.no_grad():
            apart = (ours(clip_BCTHW) - ours(clip_BCTHW.flip(2))).abs().max()
        assert (apart > 1e-3) == moved


def test_published_counts() -> None:
    for adapters, count in (("st12", 7_110_144), ("st24", 14_220_288)):
        with torch.device("meta"):
            backbone = create_backbone(ModelConfig(adapters=adapters))  # type: ignore[arg-type]
        freeze_all_but_adapters_(backbone)
        assert sum(parameter.numel() for parameter in backbone.parameters() if parameter.requires_grad) == count
        assert sum(parameter.numel() for parameter in adapter_parameters(backbone)) == count
        share = forward_flops(backbone.config, (8, 224)) / forward_flops(ModelConfig(), (8, 224)) - 1
        assert share == pytest.approx(0.057 * count / 7_110_144, rel=0.02)


def test_what_moves_first_is_the_convolution() -> None:
    """While it is zero, the layer before it and the weights after it have no influence: their gradient is exactly 0."""
    _, adapted = both()
    freeze_all_but_adapters_(adapted)
    adapted.forward_tokens(torch.randn(2, 3, 4, 32, 32)).square().mul(torch.rand(16)).sum().backward()
    for name, parameter in adapted.named_parameters():
        if "adapter" not in name:
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None
        moves = name.endswith(("conv.weight", "conv.bias", "fc2.bias"))
        assert bool(parameter.grad.any()) == moves, name


def test_an_adapter_is_the_published_convolution_over_time() -> None:
    """Against a plain loop over frames and channels; frames beyond the ends are zero."""
    torch.manual_seed(0)
    adapter = STAdapter(5, 3).double()
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    patches = torch.randn(2, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        inner, taps = adapter.fc1(patches), adapter.conv.weight[:, 0, :, 0, 0]
        expected = torch.zeros(2, 4, 3, dtype=torch.float64) + adapter.conv.bias
        for frame in range(4):
            for tap in range(3):
                if 0 <= frame + tap - 1 < 4:
                    expected[:, frame] += inner[:, frame + tap - 1] * taps[:, tap]
        torch.testing.assert_close(adapter(patches), patches + adapter.fc2(expected))


def test_an_adapter_leaves_the_class_token_alone() -> None:
    """One before the last perceptron changes the patches only, since nothing comes after it that mixes tokens."""
    plain, adapted = both("st12")
    adapter = adapted.blocks[-1].perceptron_adapter
    torch.nn.init.normal_(adapter.conv.weight)
    clip = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        before, after = plain.forward_tokens(clip), adapted.forward_tokens(clip)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.isclose(before[:, 1:], after[:, 1:]).all(dim=-1).any()


def make_dino(share: bool) -> Dino:
    torch.manual_seed(0)
    config = DinoConfig(prototypes=16, head_hidden=8, head_bottleneck=4, freeze_last_layer="0 steps")
    dino = Dino(config, ADAPTED, num_globals=2, horizon=Horizon.of("10 steps", num_clips=4, batch_size=2))
    freeze_(dino, share=share)
    return dino


def test_a_shared_base_is_one_and_trains_as_two_would() -> None:
    views = [torch.randn(2, 3, frames, 32, 32) for frames in (2, 4)]
    pair = make_dino(share=True), make_dino(share=False)
    for dino in pair:
        base = {
            name: value.clone() for name, value in dino.student.backbone.named_parameters() if "adapter" not in name
        }
        optimizer = torch.optim.Adam([p for p in dino.parameters() if p.requires_grad], lr=1e-2)
        for step in range(6):
            optimizer.zero_grad()
            dino.loss(views, step).loss.backward()
            optimizer.step()
            dino.after_step(step)
        for network in (dino.student, dino.teacher):
            assert all(torch.equal(network.backbone.get_parameter(name), value) for name, value in base.items())
        first = dino.teacher.backbone.blocks[0].perceptron_adapter
        assert all(bool(value.any()) for value in first.parameters())
    one, two = (dino.state_dict() for dino in pair)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], msg=name)
    shared = {id(p) for p in pair[0].student.backbone.parameters()} & {id(p) for p in pair[0].teacher.parameters()}
    assert len(shared) == len(base)
    assert sum(p.numel() for p in pair[0].parameters()) < 0.7 * sum(p.numel() for p in pair[1].parameters())


def configure(*overrides: str) -> PretrainConfig:
    return load_config("debug", [*TINY, "run.length=6 steps", "run.checkpoint_every=3", *overrides])


def train(config: PretrainConfig, corpus: Path, run_dir: Path) -> Path:
    result = pretrain(config, [corpus], run_dir, console=Console(file=io.StringIO()))
    assert result.backbone is not None
    return result.backbone


def about(path: Path) -> dict[str, object]:
    with safe_open(path, "pt") as file:
        return dict(json.loads(file.metadata()["endofm"]))


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_a_run_trains_adapters_in_given_weights(
    corpus: Path, tmp_path: Path, sharding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = train(configure(), corpus, tmp_path / "first")
    adapted = configure(
        f"model.weights={given}", "model.adapters=st24", "model.adapter_width=8", f"run.sharding={sharding}"
    )
    straight = train(adapted, corpus, tmp_path / "straight")
    before, after = read_backbone(given), read_backbone(straight)
    assert (after.config.adapters, after.config.adapter_width) == ("st24", 8)
    added = after.backbone.keys() - before.backbone.keys()
    assert all("adapter" in name for name in added)
    assert len(added) == 2 * 2 * 6
    assert all(torch.equal(after.backbone[name], value) for name, value in before.backbone.items()), "frozen"
    convolutions: list[Tensor] = [value for name, value in after.backbone.items() if name.endswith("conv.weight")]
    # The last one changes only patches that no class token sees any more.
    trained = [bool(value.any()) for value in convolutions]
    assert sorted(trained) == [False, True, True, True]
    loaded = endofm.load_backbone(straight)
    assert loaded(torch.randn(1, 3, 2, 32, 32)).shape == (1, 16)
    told = about(straight)
    assert told["weights"]["file"] == "backbone.safetensors"  # type: ignore[index]
    assert str(tmp_path) not in json.dumps(told)
    # An interrupted run goes on without the file.
    save = module.save

    def stop(run: module.Run, step: int) -> None:
        save(run, step)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        train(adapted, corpus, tmp_path / "resumed")
    monkeypatch.undo()
    given.unlink()
    train(adapted, corpus, tmp_path / "resumed")
    assert metrics(tmp_path / "straight") == metrics(tmp_path / "resumed")
    assert straight.read_bytes() == (tmp_path / "resumed" / "backbone.safetensors").read_bytes()
    assert_same_bits(state(tmp_path / "straight")["objective"], state(tmp_path / "resumed")["objective"])
    assert endofm.load_backbone(tmp_path / "resumed" / "checkpoints" / "step-00000006.pt").config == loaded.config


def test_a_run_trains_adapters_in_a_frozen_image_transformer(corpus: Path, tmp_path: Path) -> None:
    """As ST-Adapter is published: image weights as they are, nothing made up for time, and what is left loads again."""
    images = image_transformer(width=64, heads=1).state_dict()
    torch.save(images, tmp_path / "images.pth")
    sets = (f"model.weights={tmp_path / 'images.pth'}", "model.attends=space", "model.adapters=st24")
    shape = "model.embed_dim=64", "model.num_heads=1", "model.adapter_width=4"
    train(load_config("debug", [*TINY, *shape, *sets]), corpus, tmp_path / "run")
    backbone = endofm.load_backbone(tmp_path / "run" / "backbone.safetensors")
    assert backbone.config.attends == "space" and "time_embed" not in backbone.state_dict()
    for name, tensor in images.items():
        assert torch.equal(backbone.state_dict()[name], tensor), name
    assert backbone.blocks[0].get_parameter("attention_adapter.conv.weight").abs().max() > 0
    assert "changes" not in json.loads((tmp_path / "run" / "weights.json").read_text())


def test_attention_along_time_that_was_trained_is_not_dropped(corpus: Path, tmp_path: Path) -> None:
    config = load_config("debug", TINY)
    train(config, corpus, tmp_path / "video")
    weights = tmp_path / "video" / "backbone.safetensors"
    with pytest.raises(UsageError, match="its attention along time is trained"):
        train(load_config("debug", [*TINY, f"model.weights={weights}", "model.attends=space"]), corpus, tmp_path / "a")


def test_weights_of_another_shape(corpus: Path, tmp_path: Path) -> None:
    given = train(configure("model.depth=1"), corpus, tmp_path / "first")
    with pytest.raises(UsageError, match=r"another shape; set model\.depth = 1"):
        train(configure(f"model.weights={given}"), corpus, tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_given_weights_are_those_of_student_and_teacher(corpus: Path, tmp_path: Path) -> None:
    given = train(configure(), corpus, tmp_path / "first")
    train(
        configure(f"model.weights={given}", "optim.lr_per_256_clips=1e-9", "optim.final_lr=0", "model.num_frames=6"),
        corpus, tmp_path / "second",
    )  # fmt: skip
    objective = state(tmp_path / "second")["objective"]
    for name, value in read_backbone(given, num_frames=6).backbone.items():
        for network in ("student", "teacher"):
            torch.testing.assert_close(objective[f"{network}.backbone.{name}"], value, atol=1e-6, rtol=0)
