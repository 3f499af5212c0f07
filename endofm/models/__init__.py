"""The networks: the video transformer that a run leaves behind, and the heads that only training needs.

Importing this package registers the published shapes with timm; see `timm_models`.
"""

from endofm.models import timm_models as timm_models
from endofm.models.shapes import SHAPES, create_backbone
from endofm.models.transformer import ModelConfig, VideoTransformer
from endofm.models.weights import Weights, load_backbone, read_backbone

__all__ = [
    "SHAPES",
    "ModelConfig",
    "VideoTransformer",
    "Weights",
    "create_backbone",
    "load_backbone",
    "read_backbone",
]
