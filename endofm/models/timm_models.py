"""The backbone as timm users expect a model to be.

    import timm
    import endofm.models  # registers

    model = timm.create_model("endofm_vit_base_patch16_224", num_frames=8, num_classes=2)

timm finds models of other packages only once they are imported, and `import endofm` alone must stay cheap. Input is
video, [B, 3, T, H, W], whatever else timm's models take.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import PretrainedCfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import Tensor, nn

from endocorpus.errors import UsageError
from endofm.models.shapes import SHAPES, changed
from endofm.models.transformer import ModelConfig, VideoTransformer
from endofm.models.weights import read_backbone

_TRAINED_WITH = {
    "url": "",
    "input_size": (3, 224, 224),
    "num_classes": 0,
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "first_conv": "patch_embed.proj",
    "classifier": "head",
    "license": "apache-2.0",
}
default_cfgs = generate_default_cfgs({f"endofm_{shape}_224": _TRAINED_WITH for shape in SHAPES})


class TimmVideoTransformer(VideoTransformer):
    """The backbone with a linear classifier on its class token; without classes there is none, nor a tensor for it."""

    def __init__(self, config: ModelConfig, num_classes: int, pretrained_cfg: PretrainedCfg) -> None:
        super().__init__(config)
        self.num_features = self.head_hidden_size = self.embed_dim = config.embed_dim
        self.pretrained_cfg = self.default_cfg = pretrained_cfg.to_dict()  # type: ignore[no-untyped-call]
        self.reset_classifier(num_classes)

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """Clips [B, 3, T, H, W] to class scores [B, num_classes], or without classes to features [B, D]."""
        scores: Tensor = self.head(super().forward(clip_BCTHW))
        return scores

    def forward_features(self, clip_BCTHW: Tensor) -> Tensor:
        """All tokens [B, 1+N*T, D] after the last norm; the order is that of `forward_tokens`."""
        return self.forward_tokens(clip_BCTHW)

    def forward_head(self, tokens_BLD: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens of `forward_features` to what `forward` gives, or to features [B, D] if `pre_logits`."""
        features_BD = tokens_BLD[:, 0]
        return features_BD if pre_logits else self.head(features_BD)

    def get_classifier(self) -> nn.Module:
        """The last layer; Identity where there are no classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer, drawn as timm draws it; Identity for 0 classes.

        Raises:
            UsageError: features pooled otherwise than by the class token.
        """
        if global_pool not in {None, "token"}:
            raise UsageError(f"global_pool = {global_pool!r}: the class token is the feature of a clip; leave it out")
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def no_weight_decay(self) -> set[str]:
        """Names of the tables, which timm's optimisers then leave undecayed."""
        return {"cls_token", "pos_embed", "time_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which layer, for layer-wise rates."""
        blocks = r"^blocks\.(\d+)" if coarse else [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^(?:cls_token|pos_embed|time_embed|patch_embed)", "blocks": blocks}


@register_model
def endofm_vit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> TimmVideoTransformer:
    """ViT-B/16 with divided space-time attention, as Endo-FM publishes it."""
    return _create("vit_base_patch16", pretrained, **kwargs)


@register_model
def endofm_vit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> TimmVideoTransformer:
    """The same as ViT-S/16."""
    return _create("vit_small_patch16", pretrained, **kwargs)


def _create(
    shape: str,
    pretrained: bool,
    *,
    num_classes: int = 0,
    num_frames: int | None = None,
    img_size: int | None = None,
    drop_path_rate: float | None = None,
    in_chans: int = 3,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,  # noqa: ARG001 - timm passes it on; nothing is downloaded
) -> TimmVideoTransformer:
    name = f"endofm_{shape}_224"
    if in_chans != 3:
        raise UsageError(f"{name}: in_chans = {in_chans}, but the backbone takes three colours")
    cfg = resolve_pretrained_cfg(name, pretrained_cfg=pretrained_cfg, pretrained_cfg_overlay=pretrained_cfg_overlay)
    if pretrained and not cfg.file:
        raise UsageError(
            f"{name}: no weights come with this package, and it downloads none. Get a file of weights (docs/weights.md "
            f"says where), then endofm.load_backbone(FILE), or timm.create_model({name!r}, pretrained=True, "
            "pretrained_cfg_overlay={'file': FILE})"
        )
    asked = {"num_frames": num_frames, "image_size": img_size, "drop_path": drop_path_rate}
    config = changed(SHAPES[shape], {key: value for key, value in asked.items() if value is not None})
    if not (pretrained and cfg.file):
        return TimmVideoTransformer(config, num_classes, cfg)
    weights = read_backbone(cfg.file, num_frames=num_frames)
    fitting = config.model_copy(update={"num_frames": weights.config.num_frames})
    if fitting != weights.config.model_copy(update={"drop_path": config.drop_path, "attention": config.attention}):
        raise UsageError(
            f"{cfg.file}: a backbone of another shape than {name}: {weights.config}; use endofm.load_backbone"
        )
    weights.announce(cfg.file)
    model = TimmVideoTransformer(fitting, 0, cfg)
    model.load_state_dict(weights.backbone)
    model.reset_classifier(num_classes)
    return model
