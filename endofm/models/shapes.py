"""Backbones by name."""

from __future__ import annotations

from pydantic import ValidationError

from endocorpus.errors import UsageError
from endofm.models.transformer import ModelConfig, VideoTransformer

SHAPES = {
    "vit_base_patch16": ModelConfig(),
    "vit_small_patch16": ModelConfig(embed_dim=384, num_heads=6),
}
"""The shapes in which weights are published: Endo-FM, SVT, EndoFM-LV and DINO; DINO only for the small one."""


def create_backbone(
    model: str | ModelConfig = "vit_base_patch16",
    *,
    num_frames: int | None = None,
    image_size: int | None = None,
    drop_path: float | None = None,
) -> VideoTransformer:
    """A freshly initialised backbone, in training mode; the draw is from torch's global generator.

    Args:
        model: a name of `SHAPES`, or a shape of your own.
        num_frames: frames that the table of times describes; clips of any other number are taken as well.
        image_size: side in pixels of the picture that the table of positions describes; likewise.
        drop_path: rate of stochastic depth in the last block.

    Raises:
        UsageError: no such name, or a value out of range.
    """
    if isinstance(model, str) and model not in SHAPES:
        raise UsageError(f"no backbone is called {model!r}; there are {', '.join(SHAPES)}, or pass a ModelConfig")
    config = SHAPES[model] if isinstance(model, str) else model
    changes = {"num_frames": num_frames, "image_size": image_size, "drop_path": drop_path}
    return VideoTransformer(changed(config, {key: value for key, value in changes.items() if value is not None}))


def changed(config: ModelConfig, changes: dict[str, int | float]) -> ModelConfig:
    """`config` with some values replaced, and checked as a whole.

    Raises:
        UsageError: a value is out of range, or does not go with the others.
    """
    try:
        # Of a class that says more, such as where weights come from, the shape alone.
        return ModelConfig.model_validate({**config.model_dump(include=set(ModelConfig.model_fields)), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        key, said = ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{key} = {first['input']!r}: {said}") from None
