"""What an objective is: four methods, and everything that the training loop knows about one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from endocorpus.settings import Settings
from endofm.models import VideoTransformer
from endofm.models.flops import Shape


class ObjectiveSettings(Settings):
    """What `[objective]` says, whichever it is."""

    NEEDS_VIEWS: ClassVar[Literal["crops", "pairs"]] = "crops"
    """The `kind` of views that the objective learns from; see `endofm.data.plan`."""


@dataclass(frozen=True)
class LossOutput:
    """What one step yields: the loss to differentiate, and scalars to watch.

    Attributes:
        loss: scalar, the mean over the clips it was given, to be differentiated.
        features_BD: what the encoder makes of the first view of each clip, detached; for `endofm.health`.
        monitors: detached scalars; the loop averages them over all parts and processes. What is no mean over clips is
            for `Objective.after_step` to tell.
        constants: numbers that are the same everywhere, such as a momentum.
    """

    loss: Tensor
    features_BD: Tensor
    monitors: Mapping[str, Tensor] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """A way to learn from views: a module with its networks inside, and `loss`, `frozen`, `after_step`, `step_flops`.

    Parameters, state, and the move to a device are those of `nn.Module`: parameters that require a gradient are
    trained, and the whole `state_dict` goes into each checkpoint. Nothing else may persist from step to step, and
    nothing may depend on how often a step was run. `loss` is asked once or several times in a step, each time for a
    part of the clips. Random draws come from torch's global generator, which the loop seeds at every step.
    """

    @abstractmethod
    def loss(self, views: Sequence[Tensor], step: int) -> LossOutput:
        """The loss of `views`, the global ones first, each [B, 3, T, H, W]; every trainable parameter takes part."""

    @abstractmethod
    def frozen(self, step: int) -> Iterable[nn.Parameter]:
        """Trainable parameters that `step` must leave as they are; asked after the backward pass."""

    @abstractmethod
    def after_step(self, step: int) -> Mapping[str, Tensor]:
        """Called once the optimiser has moved the weights of `step`: the place for moving averages.

        Returns:
            Detached scalars to watch that are about the clips of the whole step, over all parts and processes.
        """

    @property
    @abstractmethod
    def encoder(self) -> VideoTransformer:
        """The backbone that the run is for; exported at the end."""

    @abstractmethod
    def step_flops(self, shapes: Sequence[Shape]) -> int:
        """Floating-point operations of a step for each clip, of the backbones alone, given the shapes of its views.

        A forward pass of what is trained counts three times, for the backward pass costs two.
        """

    def forward(self, views: Sequence[Tensor], step: int) -> LossOutput:
        """`loss`, under the name by which torch's data-parallel wrapper finds it."""
        return self.loss(views, step)
