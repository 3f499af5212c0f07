"""Stream corpora into pre-training of an endoscopy video transformer.

`import endofm` is cheap: torch is imported when one of the names below is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from endofm.models import ModelConfig, VideoTransformer, Weights, create_backbone, load_backbone, read_backbone

__all__ = ["ModelConfig", "VideoTransformer", "Weights", "create_backbone", "load_backbone", "read_backbone"]

if not TYPE_CHECKING:  # a checker would otherwise take every misspelt name for one that may exist

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from endofm import models

        return getattr(models, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
