"""The backbone behaves as a model of timm, and its weights come from a file or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.optim import create_optimizer_v2

import endofm.models
from endocorpus.errors import UsageError
from endofm.checkpoint import export_backbone
from endofm.models import SHAPES, create_backbone
from tests.endofm import published as p

NAME = "endofm_vit_small_patch16_224"
CLIP = torch.randn(2, 3, 4, 32, 48, generator=torch.Generator().manual_seed(0))


def test_every_published_shape_is_listed_and_created() -> None:
    assert timm.list_models("endofm*") == sorted(f"endofm_{shape}_224" for shape in SHAPES)
    assert timm.list_models("endofm*", pretrained=True) == []
    for shape in SHAPES:
        with torch.device("meta"):
            model = timm.create_model(f"endofm_{shape}_224", num_frames=16)
            plain = create_backbone(shape, num_frames=16)
        shapes = {name: tensor.shape for name, tensor in plain.state_dict().items()}
        assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes
        assert model.config == plain.config


def test_features_and_scores_are_where_timm_users_look() -> None:
    model = timm.create_model(NAME, num_classes=5, drop_path_rate=0.0, img_size=96).eval()
    assert (model.num_features, model.head_hidden_size, model.num_classes) == (384, 384, 5)
    assert model.config.image_size == 96 and isinstance(model.get_classifier(), torch.nn.Linear)
    torch.nn.init.normal_(model.blocks[0].temporal_fc.weight, std=0.1)
    with torch.no_grad():
        tokens = model.forward_features(CLIP)
        assert tokens.shape == (2, 1 + 2 * 3 * 4, 384) and torch.equal(tokens, model.forward_tokens(CLIP))
        assert torch.equal(model.forward_head(tokens), model(CLIP)) and model(CLIP).shape == (2, 5)
        features = model.forward_head(tokens, pre_logits=True)
        model.reset_classifier(0)
        assert torch.equal(model(CLIP), features) and features.shape == (2, 384)
    assert len(model.state_dict()) == 247
    model.reset_classifier(3, global_pool="token")
    assert model(CLIP).shape == (2, 3)
    with pytest.raises(UsageError, match="global_pool = 'avg'"):
        model.reset_classifier(3, global_pool="avg")


def test_timm_knows_how_to_feed_and_to_optimise_it() -> None:
    model = timm.create_model(NAME, num_classes=2)
    data = resolve_model_data_config(model)
    assert data["input_size"] == (3, 224, 224) and data["mean"] == (0.485, 0.456, 0.406)
    groups = create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5).param_groups
    of = {id(parameter): name for name, parameter in model.named_parameters()}
    scale = {of[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
    decay = {of[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert scale["time_embed"] == scale["patch_embed.proj.weight"] < scale["blocks.0.temporal_fc.weight"]
    assert scale["blocks.0.attn.qkv.weight"] < scale["blocks.11.attn.qkv.weight"] < scale["head.weight"] == 1.0
    assert [name for name in ("cls_token", "pos_embed", "time_embed", "norm.bias") if decay[name]] == []
    assert decay["head.weight"] == 0.1


def test_weights_come_from_a_file_or_the_error_says_from_where(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no weights come with this package.*load_backbone\(FILE\)"):
        timm.create_model(NAME, pretrained=True)
    torch.manual_seed(0)
    saved = create_backbone("vit_small_patch16", num_frames=16)
    path = tmp_path / "backbone.safetensors"
    export_backbone(path, saved.config, saved.state_dict(), {})
    options: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
    model = timm.create_model(NAME, num_classes=2, drop_path_rate=0.3, **options)
    assert model.config.num_frames == 16 and model.config.drop_path == 0.3 and model.num_classes == 2
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.state_dict().items())
    with pytest.warns(UserWarning, match="resized from 16 to 8"):
        assert timm.create_model(NAME, num_frames=8, **options).config.num_frames == 8
    again = timm.create_model(NAME, num_frames=16, checkpoint_path=str(path))
    assert torch.equal(again.state_dict()["cls_token"], saved.cls_token)

    narrow = p.save(tmp_path / "narrow.pth", p.numbers(1))
    with pytest.raises(UsageError, match=r"narrow\.pth: a backbone of another shape than endofm_vit_small"):
        timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay={"file": str(narrow)})


def test_what_the_network_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="in_chans = 1"):
        timm.create_model(NAME, in_chans=1)
    with pytest.raises(UsageError, match="image_size = 100"):
        timm.create_model(NAME, img_size=100)
    with pytest.raises(TypeError, match="qkv_bias"):
        timm.create_model(NAME, qkv_bias=False)
    assert endofm.models.timm_models.TimmVideoTransformer is type(timm.create_model(NAME))
