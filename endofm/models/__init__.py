"""The networks: the video transformer that a run leaves behind, and the heads that only training needs."""

from endofm.models.shapes import SHAPES, create_backbone
from endofm.models.transformer import ModelConfig, VideoTransformer

__all__ = ["SHAPES", "ModelConfig", "VideoTransformer", "create_backbone"]
