"""How the weights move: run length, schedules as pure functions of the step, AdamW groups, gradient clipping.

Steps count from 0. Nothing here remembers a step, so a resumed run only has to ask for the same one again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

import torch
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor, nn

from endocorpus.errors import UsageError
from endocorpus.settings import Settings

_LENGTH = re.compile(r"(?P<steps>\d+) steps?|(?P<epochs>\d+(\.\d+)?) epochs?")


def _with_unit(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError(f'a length needs a unit: "{value} steps" or "{value} epochs"')
    return value


def _length(text: str) -> str:
    if not _LENGTH.fullmatch(text):
        raise ValueError('expected a length such as "200 steps" or "30 epochs"')
    return text


Length = Annotated[str, AfterValidator(_length), BeforeValidator(_with_unit)]
"""A stretch of training with its unit, "200 steps" or "30 epochs"; an epoch is one pass over the clips."""


class OptimConfig(Settings):
    """AdamW and its schedules; the defaults are those of the Endo-FM code (`train_ssl.py`, `utils/utils.py`)."""

    lr_per_256_clips: float = Field(default=5e-4, gt=0, description="Peak learning rate = this * batch_size / 256.")
    final_lr: float = Field(default=1e-6, ge=0)
    warmup: Length = Field(default="10 epochs", description="Linear from 0; must be shorter than the run.")
    weight_decay: float = Field(default=0.04, ge=0)
    final_weight_decay: float = Field(default=0.4, ge=0)
    decay_tables: bool = Field(
        default=False, description="Whether the class token and the tables of positions and times decay as well."
    )
    clip_norm: float = Field(default=3.0, gt=0, description="Largest L2 norm of each parameter's own gradient.")


@dataclass(frozen=True)
class Horizon:
    """The length of a run; the one place where epochs become steps."""

    total_steps: int
    steps_per_epoch: Fraction

    @classmethod
    def of(cls, length: str, *, num_clips: int, batch_size: int) -> Horizon:
        """A run of `length` over `num_clips` clips; a step takes `batch_size` of them, and none is left out.

        Raises:
            UsageError: the run would not last a single step.
        """
        steps_per_epoch = Fraction(num_clips, batch_size)
        horizon = cls(cls(0, steps_per_epoch).steps(length), steps_per_epoch)
        if horizon.total_steps < 1:
            raise UsageError(
                f"run.length = {length!r} is less than one step of {batch_size} clips; there are {num_clips} clips"
            )
        return horizon

    def steps(self, length: str) -> int:
        """Whole steps within `length`."""
        match = _LENGTH.fullmatch(_length(length))
        assert match
        return int(match["steps"]) if match["steps"] else int(Fraction(match["epochs"]) * self.steps_per_epoch)


def cosine(step: int, total: int, first: float, last: float) -> float:
    """Half a cosine from `first` at step 0 towards `last`, which it would reach at step `total`."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * step / total))


@dataclass(frozen=True)
class Schedule:
    """The rates of every step.

    Raises:
        UsageError: the warm-up is not shorter than the run.
    """

    config: OptimConfig
    horizon: Horizon
    batch_size: int

    def __post_init__(self) -> None:
        warmup, total = self.horizon.steps(self.config.warmup), self.horizon.total_steps
        if warmup >= total:
            raise UsageError(
                f"optim.warmup = {self.config.warmup!r} is {warmup} steps: it must be shorter than the run of {total}; "
                'set a longer run.length, or a shorter optim.warmup; "0 steps" is none'
            )

    def lr(self, step: int) -> float:
        """Linear from 0 to the peak at the last step of the warm-up, then a cosine towards `final_lr` (as DINO)."""
        peak = self.config.lr_per_256_clips * self.batch_size / 256
        warmup = self.horizon.steps(self.config.warmup)
        if step < warmup:
            return peak * step / max(1, warmup - 1)
        return cosine(step - warmup, self.horizon.total_steps - warmup, peak, self.config.final_lr)

    def weight_decay(self, step: int) -> float:
        """Half a cosine from `weight_decay` towards `final_weight_decay`."""
        return cosine(step, self.horizon.total_steps, self.config.weight_decay, self.config.final_weight_decay)


_TABLES = frozenset({"cls_token", "pos_embed", "time_embed"})


def make_optimizer(module: nn.Module, *, decay_tables: bool = False) -> torch.optim.AdamW:
    """AdamW over the trainable parameters in two groups: group 0 decays, group 1 does not.

    Group 1 holds biases, norms and every other vector and, unless `decay_tables`, the class token and the position and
    time tables: pulling those to zero is not a prior anyone wants (the released code decays them by up to 0.4).
    `schedule_` sets the rates before each step.
    """
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_table = name.rpartition(".")[2] in _TABLES
            spared = parameter.ndim <= 1 or (is_table and not decay_tables)
            (undecayed if spared else decayed).append(parameter)
    groups = [{"params": decayed}, {"params": undecayed}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, fused=True)
    for parameter in (*decayed, *undecayed):
        # What torch would make at the first gradient: a checkpoint of before then, of frozen weights for instance,
        # must hold it too, or nothing can go on from it.
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def schedule_(optimizer: torch.optim.Optimizer, *, lr: float, weight_decay: float) -> None:
    """Set this step's rates on the two groups of `make_optimizer`."""
    decayed, undecayed = optimizer.param_groups
    decayed.update(lr=lr, weight_decay=weight_decay)
    undecayed.update(lr=lr, weight_decay=0.0)


@torch.no_grad()
def clip_each_(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Shrink each gradient to an L2 norm of at most `max_norm` by itself, not all of them together.

    Returns the norm of all gradients before clipping, as a scalar tensor: nothing waits for the device here.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))  # noqa: SLF001  # torch has no public name for it
    torch._foreach_mul_(gradients, list((max_norm / (norms + 1e-6)).clamp(max=1.0).unbind()))
    total: Tensor = norms.norm()
    return total


def skip_if_not_finite_(optimizer: torch.optim.Optimizer, grad_norm: Tensor) -> None:
    """Let the next step of a fused optimiser move nothing, moments included, if `grad_norm` is not finite.

    The decision is taken on the device. Gradients were averaged before, so all processes decide alike.
    """
    optimizer.grad_scale = None  # type: ignore[attr-defined]  # how torch's own gradient scaler asks for the same
    optimizer.found_inf = (~grad_norm.isfinite()).float()  # type: ignore[attr-defined]
