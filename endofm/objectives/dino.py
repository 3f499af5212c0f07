"""Self-distillation over views in space and time: the pre-training of Endo-FM (Wang et al., 2023, section 2).

A student that sees any view must predict what a slow average of itself, the teacher, makes of the global views
(DINO: Caron et al., 2021; for video: SVT, Ranasinghe et al., 2022).

Shape suffixes: V views, G global views, B clips, D feature width, K prototypes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import log_softmax, softmax

from endocorpus.settings import Settings
from endofm.distributed import all_reduce_mean_
from endofm.health import spread_of
from endofm.models import ModelConfig, VideoTransformer, create_backbone
from endofm.models.flops import Shape, passes
from endofm.models.heads import DINOHead
from endofm.objectives import LossOutput, Objective
from endofm.optim import Horizon, Length, cosine


class DinoConfig(Settings):
    """The loss and the teacher; the defaults are what the Endo-FM code runs with."""

    prototypes: int = Field(default=65536, ge=2)
    head_hidden: int = Field(default=2048, ge=1)
    head_bottleneck: int = Field(default=256, ge=1)
    student_temperature: float = Field(default=0.1, gt=0, description="0.1 in the released code, 0.07 in the paper.")
    teacher_temperature: float = Field(default=0.04, gt=0)
    reduction: Literal["mean", "sum"] = Field(
        default="mean", description="Over the pairs of views: mean in the released code, sum in the paper."
    )
    centre_momentum: float = Field(default=0.9, ge=0, le=1)
    teacher_momentum: float = Field(default=0.996, ge=0, le=1, description="At step 0; a cosine takes it to 1.")
    teacher_drop_path: bool = Field(
        default=False, description="Whether the teacher drops paths as the student does: a slip of the released code."
    )
    freeze_last_layer: Length = Field(default="1 epoch", description="The student's prototypes stay put for this long.")


class Dino(Objective):
    """DINO with any number of views, of any shapes.

    State: `student.*`, `teacher.*` (each `backbone.*` and `head.*`, as in the released checkpoints) and `centre`.
    """

    centre: Tensor

    def __init__(self, config: DinoConfig, model: ModelConfig, *, num_globals: int, horizon: Horizon) -> None:
        """A student initialised from torch's global generator, and a teacher that equals it.

        Args:
            num_globals: how many of the views, counted from the first, are global.
            horizon: the length of the run, for the teacher's momentum and the frozen start.
        """
        super().__init__()
        self.config, self.num_globals, self.horizon = config, num_globals, horizon
        self.student = StudentTeacher(config, model)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(config.prototypes))
        self._batch_centres: list[Tensor] = []  # of the parts of the step at hand
        self.train()

    @property
    def encoder(self) -> VideoTransformer:
        """The teacher's backbone."""
        return self.teacher.backbone

    def train(self, mode: bool = True) -> Self:
        """As in torch, but the teacher stays in evaluation mode unless `teacher_drop_path`: so its targets carry no
        stochastic depth. The released code leaves it training; its targets are those of a random sub-network.
        """
        super().train(mode)
        if not self.config.teacher_drop_path:
            self.teacher.eval()
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
        with torch.autocast(logits_VBK.device.type, enabled=False):
            targets_GBK = softmax((logits_GBK - self.centre) / self.config.teacher_temperature, dim=-1)
            log_student_VBK = log_softmax(logits_VBK / self.config.student_temperature, dim=-1)
            loss = mean_cross_entropy(targets_GBK, log_student_VBK)
        pairs = self.num_globals * (len(views) - 1) if self.config.reduction == "sum" else 1
        self._batch_centres.append(logits_GBK.mean(dim=(0, 1)))
        constants = {"ema": self._momentum(step), "loss_at_chance": pairs * math.log(self.config.prototypes)}
        return LossOutput(loss * pairs, features_GBD[0].detach(), self._monitors(targets_GBK, features_GBD), constants)

    def _monitors(self, targets_GBK: Tensor, features_GBD: Tensor) -> dict[str, Tensor]:
        """What tells a collapse.

        `teacher_entropy`: of a target, as a share of ln K. `teacher_information`: how much a target tells about which
        clip and view it is of, the mean KL divergence from the mean target, as a share of the most that so many targets
        could tell; 0 where all are alike, whether they name one prototype or none.
        """
        targets_XK = targets_GBK.flatten(0, 1)
        entropy = torch.special.entr(targets_XK).sum(-1).mean()
        most = math.log(min(targets_XK.shape))
        information = (torch.special.entr(targets_XK.mean(dim=0)).sum() - entropy) / most if most else entropy * 0
        return {
            "teacher_entropy": entropy / math.log(self.config.prototypes),
            "teacher_information": information,
            "centre_norm": self.centre.norm(),
            "feature_spread": spread_of(features_GBD.flatten(0, 1)),
        }

    def frozen(self, step: int) -> Iterable[nn.Parameter]:
        """The student's prototypes, while `freeze_last_layer` lasts."""
        frozen = step < self.horizon.steps(self.config.freeze_last_layer)
        return self.student.head.last_layer.parameters() if frozen else ()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the teacher towards the student, and the centre towards the mean of this step's teacher logits."""
        student: list[Tensor] = list(self.student.parameters())
        teacher: list[Tensor] = list(self.teacher.parameters())
        torch._foreach_lerp_(teacher, student, 1 - self._momentum(step))
        batch_centre = all_reduce_mean_(torch.stack(self._batch_centres).mean(dim=0))
        self._batch_centres.clear()
        # After a step that was skipped for its numbers, the centre stays finite as well.
        batch_centre = torch.where(batch_centre.isfinite().all(), batch_centre, self.centre)
        self.centre.lerp_(batch_centre, 1 - self.config.centre_momentum)

    def step_flops(self, shapes: Sequence[Shape]) -> int:
        """The student sees all views, forwards and backwards, the teacher the global ones."""
        model = self.encoder.config
        return 3 * passes(model, shapes) + passes(model, shapes[: self.num_globals])

    def _momentum(self, step: int) -> float:
        return cosine(step, self.horizon.total_steps, self.config.teacher_momentum, 1.0)


class StudentTeacher(nn.Module):
    """Backbone and head: the network that student and teacher each have one of."""

    def __init__(self, config: DinoConfig, model: ModelConfig) -> None:
        super().__init__()
        self.backbone = create_backbone(model)
        self.head = DINOHead(
            model.embed_dim, config.prototypes, hidden=config.head_hidden, bottleneck=config.head_bottleneck
        )

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """V views, each [B, 3, T, H, W], to features [V, B, D] and logits [V, B, K]."""
        features_VBD = encode_by_shape(self.backbone, views)
        return features_VBD, self.head(features_VBD)


def encode_by_shape(backbone: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Features of all views in their order [V, B, D], with one pass of `backbone` for each distinct shape."""
    members: dict[torch.Size, list[int]] = {}
    for index, view in enumerate(views):
        members.setdefault(view.shape, []).append(index)
    features: dict[int, Tensor] = {}
    for indices in members.values():
        together = backbone(torch.cat([views[index] for index in indices]))
        features.update(zip(indices, together.chunk(len(indices)), strict=True))
    return torch.stack([features[index] for index in range(len(views))])


def mean_cross_entropy(targets_GBK: Tensor, log_student_VBK: Tensor) -> Tensor:
    """-sum_k p log q, averaged over clips and over the G * (V-1) pairs of different views, all with equal weight.

    View g of the teacher is view g of the student, and that pair is left out. With 2 global and 8 local views these
    are 18 pairs; the paper's two losses, globals against globals and against locals, are their two parts.
    """
    (num_globals, num_clips, _), num_views = targets_GBK.shape, len(log_student_VBK)
    pairs_GV = -torch.einsum("gbk,vbk->gv", targets_GBK, log_student_VBK) / num_clips
    different_GV = ~torch.eye(num_globals, num_views, dtype=torch.bool, device=pairs_GV.device)
    return pairs_GV.masked_fill(~different_GV, 0).sum() / (num_globals * (num_views - 1))
