"""Self-distillation over views in space and time: the pre-training of Endo-FM (Wang et al., 2023, section 2).

A student that sees any view must predict what a slow average of itself, the teacher, makes of the global views
(DINO: Caron et al., 2021; for video: SVT, Ranasinghe et al., 2022).

Shape suffixes: V views, G global views, B clips, D feature width, K prototypes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal, Protocol, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import log_softmax, softmax

from endofm.distributed import all_reduce_mean_, processes
from endofm.models import ModelConfig, VideoTransformer, create_backbone
from endofm.models.flops import Shape, passes, with_backward
from endofm.models.heads import DINOHead
from endofm.objectives.base import LossOutput, Objective, ObjectiveSettings
from endofm.optim import Horizon, Length, cosine


class DistillationConfig(ObjectiveSettings):
    """Head, temperatures and teacher; the defaults are what the Endo-FM code runs with."""

    kind: str
    prototypes: int = Field(default=65536, ge=2)
    head_hidden: int = Field(default=2048, ge=1)
    head_bottleneck: int = Field(default=256, ge=1)
    student_temperature: float = Field(default=0.1, gt=0, description="0.1 in the released code, 0.07 in the paper.")
    teacher_temperature: float = Field(default=0.04, gt=0)
    centre_momentum: float = Field(default=0.9, ge=0, le=1)
    teacher_momentum: float = Field(default=0.996, ge=0, le=1, description="At step 0; a cosine takes it to 1.")
    freeze_last_layer: Length = Field(default="1 epoch", description="The student's prototypes stay put for this long.")


class DinoConfig(DistillationConfig):
    """The loss and the teacher; the defaults are what the Endo-FM code runs with."""

    kind: Literal["dino"] = "dino"
    reduction: Literal["mean", "sum"] = Field(
        default="mean", description="Over the pairs of views: mean in the released code, sum in the paper."
    )
    teacher_drop_path: bool = Field(
        default=False, description="Whether the teacher drops paths as the student does: a slip of the released code."
    )


class Distillation(Objective):
    """What every objective with a slow teacher has: two networks, the centre, and the loss between class tokens.

    State: `student.*`, `teacher.*` (each `backbone.*` and `head.*`, as in the released checkpoints) and `centre`.
    """

    centre: Tensor

    def __init__(self, config: DistillationConfig, model: ModelConfig, *, num_globals: int, horizon: Horizon) -> None:
        """A student initialised from torch's global generator, and a teacher that equals it.

        Args:
            config: of which the fields of `DistillationConfig` are read here.
            model: shape of the backbone.
            num_globals: how many of the views, counted from the first, are global.
            horizon: the length of the run, for the teacher's momentum and the frozen start.
        """
        super().__init__()
        self.distillation, self.num_globals, self.horizon = config, num_globals, horizon
        self.student = StudentTeacher(config, model)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(config.prototypes))
        self._part_means: list[Tensor] = []  # of the parts of the step at hand, see `_means`
        self._num_targets = 0  # in them

    @property
    def encoder(self) -> VideoTransformer:
        """The teacher's backbone."""
        return self.teacher.backbone

    def train(self, mode: bool = True) -> Self:
        """As in torch, but the teacher stays in evaluation mode: its targets carry no stochastic depth."""
        super().train(mode)
        self.teacher.eval()
        return self

    def distil(self, features_GBD: Tensor, logits_GBK: Tensor, logits_VBK: Tensor, step: int) -> LossOutput:
        """Cross-entropy, the mean over all ordered pairs (global view of the teacher, other view of the student).

        Args:
            features_GBD: what the teacher's backbone makes of the global views.
            logits_GBK: what its head makes of those.
            logits_VBK: what the student makes of all views.
            step: counted from 0.
        """
        config = self.distillation
        with torch.autocast(logits_VBK.device.type, enabled=False):
            targets_GBK = softmax((logits_GBK - self.centre) / config.teacher_temperature, dim=-1)
            log_student_VBK = log_softmax(logits_VBK / config.student_temperature, dim=-1)
            pairs_GV = cross_entropies(targets_GBK, log_student_VBK)
        self._part_means.append(_means(logits_GBK, targets_GBK))
        self._num_targets += targets_GBK.shape[:2].numel()
        monitors = _parts_of(pairs_GV.detach())
        constants = {"ema": self._momentum(step), "loss_at_chance": math.log(config.prototypes)}
        return LossOutput(mean_over_pairs(pairs_GV), features_GBD[0].detach(), monitors, constants)

    def frozen(self, step: int) -> Iterable[nn.Parameter]:
        """The student's prototypes, while `freeze_last_layer` lasts."""
        frozen = step < self.horizon.steps(self.distillation.freeze_last_layer)
        return self.student.head.last_layer.parameters() if frozen else ()

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, Tensor]:
        """Move the teacher towards the student, and the centre towards the mean of this step's teacher logits.

        Returns:
            What tells a collapse: `teacher_information` (see `told_by`), `teacher_entropy` (of a target, as a share of
            ln K) and `centre_norm`, before it moves.
        """
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        apart = [(teacher, student) for teacher, student in pairs if teacher is not student]  # see `models.adapters`
        teachers: list[Tensor] = [teacher for teacher, _ in apart]
        torch._foreach_lerp_(teachers, [student for _, student in apart], 1 - self._momentum(step))
        K = self.distillation.prototypes
        means = all_reduce_mean_(torch.stack(self._part_means).mean(dim=0))
        self._part_means.clear()
        batch_centre, target_K, entropy = torch.split(means, [K, K, 1])
        monitors = {
            "teacher_entropy": entropy.squeeze() / math.log(K),
            "teacher_information": told_by(target_K, entropy.squeeze(), self._num_targets * processes()),
            "centre_norm": self.centre.norm(),
        }
        self._num_targets = 0
        # After a step that was skipped for its numbers, the centre stays finite as well.
        batch_centre = torch.where(batch_centre.isfinite().all(), batch_centre, self.centre)
        self.centre.lerp_(batch_centre, 1 - self.distillation.centre_momentum)
        return monitors

    def _momentum(self, step: int) -> float:
        return cosine(step, self.horizon.total_steps, self.distillation.teacher_momentum, 1.0)


class Dino(Distillation):
    """DINO with any number of views, of any shapes."""

    def __init__(self, config: DinoConfig, model: ModelConfig, *, num_globals: int, horizon: Horizon) -> None:
        """See `Distillation`."""
        super().__init__(config, model, num_globals=num_globals, horizon=horizon)
        self.config = config
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As in torch, but the teacher stays in evaluation mode unless `teacher_drop_path`: so its targets carry no
        stochastic depth. The released code leaves it training; its targets are those of a random sub-network.
        """
        super().train(mode)
        self.teacher.train(mode and self.config.teacher_drop_path)
        return self

    def loss(self, views: Sequence[Tensor], step: int) -> LossOutput:
        """Cross-entropy over all ordered pairs (global view of the teacher, other view of the student), mean or sum.

        Raises:
            ValueError: fewer views than it takes to form a pair.
        """
        if len(views) < max(2, self.num_globals):
            raise ValueError(f"{len(views)} views cannot hold {self.num_globals} global ones and a pair")
        with torch.no_grad():
            features_GBD, logits_GBK = self.teacher(views[: self.num_globals])
        _, logits_VBK = self.student(views)
        output = self.distil(features_GBD, logits_GBK, logits_VBK, step)
        if self.config.reduction == "mean":
            return output
        pairs = self.num_globals * (len(views) - 1)
        at_chance = {"loss_at_chance": pairs * output.constants["loss_at_chance"]}
        return replace(output, loss=output.loss * pairs, constants={**output.constants, **at_chance})

    def step_flops(self, shapes: Sequence[Shape]) -> int:
        """The student sees all views, forwards and backwards, the teacher the global ones."""
        model = self.encoder.config
        return with_backward(model) * passes(model, shapes) + passes(model, shapes[: self.num_globals])


class StudentTeacher(nn.Module):
    """Backbone and head: the network that student and teacher each have one of."""

    def __init__(self, config: DistillationConfig, model: ModelConfig) -> None:
        super().__init__()
        self.backbone = create_backbone(model)
        self.head = DINOHead(
            model.embed_dim, config.prototypes, hidden=config.head_hidden, bottleneck=config.head_bottleneck
        )

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """V views, each [B, 3, T, H, W], to features [V, B, D] and logits [V, B, K]."""
        features_VBD = encode_by_shape(self.backbone, views)
        return features_VBD, self.head(features_VBD)


class EncodesShapes(Protocol):
    """A backbone that takes clips of several shapes at once; see `VideoTransformer.forward_shapes`."""

    def forward_shapes(self, clips: Sequence[Tensor], /) -> list[Tensor]:
        """Features of each stack of clips."""
        ...


def encode_by_shape(backbone: EncodesShapes, views: Sequence[Tensor]) -> Tensor:
    """Features of all views in their order [V, B, D], those of one shape stacked."""
    return torch.stack(by_shape(backbone.forward_shapes, views))


def by_shape(encode: Callable[[list[Tensor]], list[Tensor]], views: Sequence[Tensor]) -> list[Tensor]:
    """What `encode` makes of each view, in their order; it is handed them in stacks of equal shapes."""
    members: dict[torch.Size, list[int]] = {}
    for index, view in enumerate(views):
        members.setdefault(view.shape, []).append(index)
    stacks = encode([torch.cat([views[index] for index in indices]) for indices in members.values()])
    made: dict[int, Tensor] = {}
    for indices, stack in zip(members.values(), stacks, strict=True):
        made.update(zip(indices, stack.chunk(len(indices)), strict=True))
    return [made[index] for index in range(len(views))]


def cross_entropies(targets_GBK: Tensor, log_student_VBK: Tensor) -> Tensor:
    """-sum_k p log q of every pair of views, averaged over clips [G, V]; 0 for a view and itself, which is no pair.

    View g of the teacher is view g of the student.
    """
    (num_globals, num_clips, _), num_views = targets_GBK.shape, len(log_student_VBK)
    pairs_GV = -torch.einsum("gbk,vbk->gv", targets_GBK, log_student_VBK) / num_clips
    different_GV = ~torch.eye(num_globals, num_views, dtype=torch.bool, device=pairs_GV.device)
    return pairs_GV.masked_fill(~different_GV, 0)


def mean_over_pairs(pairs_GV: Tensor) -> Tensor:
    """The mean over the G * (V-1) pairs of different views, all with equal weight.

    With 2 global and 8 local views these are 18 pairs; the paper's two losses, globals against globals and against
    locals, are their two parts.
    """
    num_globals, num_views = pairs_GV.shape
    return pairs_GV.sum() / (num_globals * (num_views - 1))


def _means(logits_GBK: Tensor, targets_GBK: Tensor) -> Tensor:
    """Side by side, the means over views and clips of logits [K] and targets [K], and of the entropy of a target [1]:
    means of parts and of processes can be averaged again, and travel in one message."""
    entropy = torch.special.entr(targets_GBK).sum(-1).mean()[None]
    return torch.cat([logits_GBK.float().mean(dim=(0, 1)), targets_GBK.mean(dim=(0, 1)), entropy])


def _parts_of(pairs_GV: Tensor) -> dict[str, Tensor]:
    """The means over pairs of two global views, and of a global and a local one; each where there are such pairs."""
    num_globals, num_views = pairs_GV.shape
    parts = {}
    if num_globals > 1:
        parts["loss_global"] = pairs_GV[:, :num_globals].sum() / (num_globals * (num_globals - 1))
    if num_views > num_globals:
        parts["loss_local"] = pairs_GV[:, num_globals:].mean()
    return parts


def information(targets_XK: Tensor) -> Tensor:
    """`told_by` the targets at hand."""
    return told_by(targets_XK.mean(dim=0), torch.special.entr(targets_XK).sum(-1).mean(), len(targets_XK))


def told_by(target_K: Tensor, entropy: Tensor, count: int) -> Tensor:
    """How much a target tells about which one it is: the mean KL divergence from the mean target, as a share of the
    most that so many targets could tell; 0 where all are alike, whether they name one prototype or none.

    Args:
        target_K: the mean of the targets.
        entropy: the mean of their entropies, a scalar.
        count: of targets.
    """
    most = math.log(min(count, len(target_K)))
    told: Tensor = torch.special.entr(target_K).sum() - entropy
    return told / most if most else entropy * 0
