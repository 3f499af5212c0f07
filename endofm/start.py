"""What a run starts from: weights of a file under `[model]`, and which of them it trains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from endocorpus.corpus.files import atomic_file
from endocorpus.errors import UsageError
from endofm.models import ModelConfig, VideoTransformer, read_backbone
from endofm.models.adapters import STAdapter, freeze_all_but_adapters_, share_all_but_adapters_

_NOTE = "weights.json"


class StartConfig(ModelConfig):
    """The shape of the backbone, and where its weights come from."""

    weights: str = Field(
        default="", description="A file of weights to start from, of any kind in docs/weights.md; random if empty."
    )

    @property
    def shape(self) -> ModelConfig:
        """All but where its weights come from."""
        return ModelConfig(**self.model_dump(exclude={"weights"}))


def load_weights_(objective: nn.Module, config: StartConfig) -> dict[str, Any]:
    """Give every backbone of an objective the weights of `config.weights`; adapters that the file lacks stay as new.

    Heads and decoders start from random weights in any case.

    Returns:
        What the file is, for whoever asks where the weights of the run come from; no folder of this machine.

    Raises:
        UsageError: they are of another shape.
        DataError: no such file, or not weights of a backbone.
    """
    weights = read_backbone(config.weights, num_frames=config.num_frames)
    state, shape, told = weights.backbone, weights.config, dict(weights.provenance)
    free = {"drop_path", "attention", "adapters", "adapter_width"}
    if config.attends == "space":
        free.add("num_frames")  # of which such a network knows nothing
        if shape.attends == "space-time":
            state, shape = _without_time(state, config.weights), shape.model_copy(update={"attends": "space"})
            told.pop("changes", None)
    ours, theirs = config.shape.model_dump(exclude=free), shape.model_dump(exclude=free)
    if different := [key for key in ours if ours[key] != theirs[key]]:
        said = ", ".join(f"model.{key} = {theirs[key]!r}" for key in different)
        raise UsageError(f"model.weights = {config.weights!r}: holds a backbone of another shape; set {said}")
    for backbone in _backbones(objective):
        missing, unexpected = backbone.load_state_dict(state, strict=False)
        new = {
            f"{name}.{own}"
            for name, module in backbone.named_modules()
            if isinstance(module, STAdapter)
            for own, _ in module.named_parameters()
        }
        if unexpected or set(missing) - new:
            raise UsageError(f"model.weights = {config.weights!r}: its adapters are not those of model.adapters")
    return {"file": Path(config.weights).name, **told}


def _without_time(state: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Weights of images as they were before attention along time was made up for them.

    Raises:
        UsageError: it is not made up, but trained.
    """
    idle = ("temporal_fc.weight", "temporal_fc.bias", "time_embed")
    if any(name.endswith(idle) and tensor.any() for name, tensor in state.items()):
        raise UsageError(
            f"model.weights = {path!r}: its attention along time is trained, and model.attends = 'space' would drop it"
        )
    return {name: tensor for name, tensor in state.items() if "temporal_" not in name and name != "time_embed"}


def freeze_(objective: nn.Module, *, share: bool) -> None:
    """Where backbones have adapters, let these train and nothing else of the backbones.

    Args:
        objective: its first backbone is the one that is trained.
        share: whether the other backbones are to use the frozen parameters of the first, instead of copies.
    """
    first, *others = _backbones(objective)
    if first.config.adapters == "none":
        return
    for backbone in (first, *others):
        freeze_all_but_adapters_(backbone)
    for other in others if share else ():
        share_all_but_adapters_(first, other)


def _backbones(objective: nn.Module) -> list[VideoTransformer]:
    return [module for module in objective.modules() if isinstance(module, VideoTransformer)]


def note(run_dir: Path, origin: dict[str, Any]) -> None:
    """Leave word of the weights that a run began with, for its end, which may be on a day when the file is gone.

    Nothing is left for random weights, not even what a run that began here before has left.
    """
    if not origin:
        (run_dir / _NOTE).unlink(missing_ok=True)
        return
    with atomic_file(run_dir / _NOTE) as file:
        file.write(json.dumps(origin, indent=2).encode() + b"\n")


def noted(run_dir: Path) -> dict[str, Any]:
    """What `note` left; empty if nothing."""
    path = run_dir / _NOTE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
