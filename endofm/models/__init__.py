"""The networks: the video transformer that a run leaves behind, and the heads that only training needs."""

from endofm.models.transformer import ModelConfig, VideoTransformer, create_backbone

__all__ = ["ModelConfig", "VideoTransformer", "create_backbone"]
