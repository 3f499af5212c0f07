"""Which objective a run has: `[objective] kind` in its configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import Tag

from endocorpus.settings import by_kind
from endofm.models import ModelConfig
from endofm.objectives.base import Objective
from endofm.objectives.dino import Dino, DinoConfig
from endofm.objectives.masked import Masked, MaskedConfig
from endofm.objectives.vcl import Vcl, VclConfig
from endofm.optim import Horizon

ObjectiveConfig = Annotated[
    Annotated[DinoConfig, Tag("dino")] | Annotated[MaskedConfig, Tag("masked")] | Annotated[VclConfig, Tag("vcl")],
    by_kind("dino"),
]


def create_objective(config: ObjectiveConfig, model: ModelConfig, *, num_globals: int, horizon: Horizon) -> Objective:
    """The objective that `config` describes, initialised from torch's global generator.

    Args:
        config: one of the classes of `ObjectiveConfig`; its class decides.
        model: shape of the backbone.
        num_globals: how many of the views, counted from the first, are global.
        horizon: the length of the run, for what changes in the course of it.
    """
    match config:
        case DinoConfig():
            return Dino(config, model, num_globals=num_globals, horizon=horizon)
        case MaskedConfig():
            return Masked(config, model, num_globals=num_globals, horizon=horizon)
        case VclConfig():
            return Vcl(config, model, horizon=horizon)
