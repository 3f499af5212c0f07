"""The configuration of a pre-training run: one strict TOML file, shipped or your own."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from endocorpus.errors import UsageError
from endocorpus.settings import Settings, load_settings
from endofm.data.plan import AnyViews, ViewConfig
from endofm.data.sampler import MAX_SEED
from endofm.data.settings import DataConfig
from endofm.distributed import DeviceChoice, Sharding
from endofm.objectives import ObjectiveConfig
from endofm.objectives.dino import DinoConfig
from endofm.objectives.masked import MaskedConfig
from endofm.optim import Length, OptimConfig
from endofm.start import StartConfig

UNCOMPARED = frozenset(
    {
        "model.attention",
        "run.checkpoint_activations",
        "data.bad_clips_allowed",
        "data.cache_dir",
        "data.cache_gb",
        "data.exclude",  # what it leaves is compared with the clips
        "data.retry_seconds",
        "probe.label",
        "probe.every",
        "run.num_workers",
        "run.checkpoint_every",
        "run.keep_checkpoints",
        "run.log_every",
        "run.device",
        "run.threads",
        "run.sharding",
        "run.skipped_steps",
        "run.tensorboard",
        "run.wandb",
    }
)
"""Keys that a resumed run may change: where and how often, never what is computed."""


def _project(name: str) -> str:
    """The rule of the package wandb for names of projects, which it would tell in the middle of a traceback."""
    if len(name) > 128 or set(name) & set("/\\#?%:"):
        raise ValueError("a project in Weights & Biases has at most 128 characters, and none of / \\ # ? % :")
    return name


class RunConfig(Settings):
    """How long, how much at a time, where, and how often to write."""

    length: Length = Field(default="30 epochs", description='In epochs or in steps: "30 epochs", "500 steps".')
    batch_size: int = Field(default=12, ge=1, description="Clips per step, over all processes together.")
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    num_workers: int = Field(
        default=8, ge=0, description="Decoding processes of each training process; 0 decodes in it."
    )
    checkpoint_every: int = Field(default=500, ge=1, description="Steps.")
    keep_checkpoints: int = Field(default=2, ge=1, description="The newest ones.")
    log_every: int = Field(
        default=10,
        ge=1,
        description="Steps between lines on the console, or half a minute; the metrics file has every one.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="bf16", description="Of the networks; weights and loss stay fp32."
    )
    device: DeviceChoice = "auto"
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Of each training process on a CPU; 0: as many as torch takes. One is fastest for a toy, and where "
        "the cores are shared with others.",
    )
    sharding: Sharding = Field(
        default="none",
        description='Between processes. "full": each holds its share of weights, gradients and moments (FSDP2).',
    )
    accumulate: int = Field(
        default=1, ge=1, description="Parts that a step's clips are taken in, one after the other, to save memory."
    )
    checkpoint_activations: bool = Field(
        default=False,
        description="Keep less than half of what the backward pass needs, and compute the rest again, to save memory.",
    )
    compile: bool = Field(
        default=False, description="Have torch compile the blocks: minutes at the start; not measured on a GPU yet."
    )
    health_every: int = Field(default=50, ge=1, description="Steps between measures of what the features span.")
    tensorboard: bool = Field(default=False, description="Write curves for TensorBoard as well; needs the package.")
    wandb: Annotated[str, AfterValidator(_project)] = Field(
        default="", description="Project in Weights & Biases to send curves to; needs the package."
    )
    skipped_steps: int = Field(
        default=3, ge=0, description="Steps in a row that may be skipped because a number was not finite."
    )


class ProbeConfig(Settings):
    """What the corpus of `--probe` is asked for, and how often; see `endofm.probe`."""

    label: str = Field(default="finding", description="Name of a label in that corpus.")
    every: int = Field(default=500, ge=1, description="Steps; and after the last one.")


class PretrainConfig(Settings):
    """Everything that decides what a run computes, besides the clips. The defaults are the recipe of Endo-FM."""

    views: AnyViews = ViewConfig()
    model: StartConfig = StartConfig()
    objective: ObjectiveConfig = DinoConfig()
    optim: OptimConfig = OptimConfig()
    data: DataConfig = DataConfig()
    probe: ProbeConfig = ProbeConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _views_suit_model(self) -> Self:
        for key in ("global_size", "local_size", "size"):
            side, patch = getattr(self.views, key, 0), self.model.patch_size
            if side % patch:
                raise UsageError(f"views.{key} = {side} must be a multiple of model.patch_size = {patch}")
        if self.views.kind != self.objective.NEEDS_VIEWS:
            needed = self.objective.NEEDS_VIEWS
            raise UsageError(
                f"objective.kind = {self.objective.kind!r} learns from views.kind = {needed!r}, and here it is "
                f"{self.views.kind!r}; set both"
            )
        if len(self.views.view_shapes) < 2:
            raise UsageError("views: a single view has no other to be compared with; add to views.local_frames")
        places = (self.views.view_shapes[0][1] // self.model.patch_size) ** 2
        if isinstance(self.objective, MaskedConfig) and not self.objective.hidden(places):
            raise UsageError(
                f"objective.masked_share = {self.objective.masked_share} hides none of the {places} patches of "
                "views.global_size; raise one of the two"
            )
        return self


def load_config(name_or_path: str | Path, overrides: Iterable[str] = ()) -> PretrainConfig:
    """A shipped configuration by its name such as "debug", or your own TOML file by its path.

    Args:
        name_or_path: a name that is not shipped is taken for a path. A file states what differs from "endofm", or from
            the shipped configuration that it names: ``base = "debug"``.
        overrides: strings such as ``"run.length=200 steps"``, applied on top.

    Raises:
        UsageError: no such configuration; unknown key (with the nearest known one); wrong type, range or combination.
    """
    with as_file(files("endofm") / "configs") as folder:
        shipped = {name: folder / f"{name}.toml" for name in shipped_configs()}
        if str(name_or_path) not in shipped and not Path(name_or_path).is_file():
            names = ", ".join(shipped)
            raise UsageError(f"{name_or_path}: neither a file nor the name of a shipped configuration ({names})")
        path = shipped.get(str(name_or_path), Path(name_or_path))
        return load_settings(PretrainConfig, path, overrides, bases=shipped)


def shipped_configs() -> list[str]:
    """Names of the configurations inside the package."""
    folder = files("endofm") / "configs"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))
