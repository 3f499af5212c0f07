"""Self-distillation with most of the picture hidden: what a student of a fifth of the patches can tell of the rest.

After STOMP (Hallerfelt et al., 2026): the teacher sees whole global views, the student a fifth of their patches. The
class tokens are compared as in DINO; a small decoder predicts, for every hidden patch, which of some prototypes the
teacher's token is nearest to, balanced over all hidden patches. `docs/objectives.md` says what differs.

Shape suffixes: G global views, B clips, N patches of a frame, K of them seen, M hidden, T frames, D width, L tokens
1 + K*T, X hidden tokens of all clips, P prototypes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from endofm.distributed import global_rows
from endofm.models import ModelConfig
from endofm.models.flops import Shape, block_flops, forward_flops, passes, with_backward
from endofm.models.transformer import Block, at_places, positions, times
from endofm.objectives.base import LossOutput
from endofm.objectives.dino import Distillation, DistillationConfig, encode_by_shape, information
from endofm.objectives.sinkhorn import sinkhorn
from endofm.optim import Horizon


class MaskedConfig(DistillationConfig):
    """The defaults are those of STOMP's released configuration, where it has them."""

    kind: Literal["masked"] = "masked"
    student_temperature: float = Field(default=0.07, gt=0)
    masked_share: float = Field(default=0.8, gt=0, lt=1, description="Of a global view's patches, hidden.")
    patch_prototypes: int = Field(default=1024, ge=2, description="That hidden patches are assigned to.")
    patch_temperature: float = Field(default=0.1, gt=0, description="Of the prediction of an assignment.")
    sinkhorn_temperature: float = Field(default=0.1, ge=0.03, description="Of the balanced assignment.")
    sinkhorn_iterations: int = Field(default=10, ge=1)
    prototypes_follow: Literal["teacher", "both"] = Field(
        default="teacher",
        description="What moves the prototypes: the teacher's tokens alone (CAPI), or guesses as well (STOMP's code).",
    )
    patch_weight: float = Field(
        default=0.5, ge=0, le=1, description="Of the patches in the loss; 1 less this: of DINO."
    )
    decoder_width: int = Field(default=384, ge=1)
    decoder_depth: int = Field(default=4, ge=1)
    decoder_heads: int = Field(default=6, ge=1)

    @field_validator("decoder_heads")
    @classmethod
    def _heads_divide_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("decoder_width", heads)
        if width % heads:
            raise ValueError(f"decoder_width = {width} cannot be shared by {heads} heads")
        return heads

    def hidden(self, places: int) -> int:
        """How many of `places` are hidden, rounded down."""
        return math.floor(places * self.masked_share + 1e-9)


class Masked(Distillation):
    """DINO between class tokens, and balanced prototypes of hidden patches.

    State: that of `Distillation`, `decoder.*` and `patch_prototypes`.
    """

    def __init__(self, config: MaskedConfig, model: ModelConfig, *, num_globals: int, horizon: Horizon) -> None:
        """See `Distillation`. The places that will be hidden follow from the seed of torch's generator as it is now."""
        super().__init__(config, model, num_globals=num_globals, horizon=horizon)
        self.config, self.seed = config, torch.initial_seed()
        self.decoder = Decoder(config, model)
        self.patch_prototypes = nn.Parameter(
            normalize(torch.rand(config.patch_prototypes, model.embed_dim).mul_(2).sub_(1), dim=1)
        )
        self.train()

    def loss(self, views: Sequence[Tensor], step: int) -> LossOutput:
        """`patch_weight` between the cross-entropy of class tokens, as in `Dino`, and that of hidden patches.

        Raises:
            ValueError: fewer views than it takes to form a pair.
        """
        if len(views) < max(2, self.num_globals):
            raise ValueError(f"{len(views)} views cannot hold {self.num_globals} global ones and a pair")
        students, teachers, told = [], [], []
        for number, view in enumerate(views[: self.num_globals]):
            grid, frames = self.student.backbone.grid_of(view), view.shape[2]
            chosen = self.places(step, number, len(view), math.prod(grid))
            seen_BK, hidden_BM = (places.to(view.device, non_blocking=True) for places in chosen)
            students.append(self.student.backbone.forward_tokens(view, seen_BK))
            with torch.no_grad():
                teachers.append(self.teacher.backbone.forward_tokens(view))
            guesses_XD = self.decoder(students[-1], seen_BK, hidden_BM, grid, frames)
            told.append(self._patch_loss(guesses_XD, hidden_targets(teachers[-1], hidden_BM, frames)))
        output = self._distil(views, students, teachers, step)
        patches = {name: torch.stack([each[name] for each in told]).mean() for name in told[0]}
        share = self.config.patch_weight
        chance = (1 - share) * math.log(self.config.prototypes) + share * 2 * math.log(self.config.patch_prototypes)
        return replace(
            output,
            loss=(1 - share) * output.loss + share * (patches["loss_patches"] + patches["loss_prototypes"]),
            monitors={**output.monitors, **{name: value.detach() for name, value in patches.items()}},
            constants={**output.constants, "loss_at_chance": chance},
        )

    def _distil(
        self, views: Sequence[Tensor], student_tokens: list[Tensor], teacher_tokens: list[Tensor], step: int
    ) -> LossOutput:
        """The loss between class tokens, of which those of the student's global views saw little."""
        features_VBD = torch.stack([tokens_BLD[:, 0] for tokens_BLD in student_tokens])
        if len(views) > self.num_globals:
            locals_VBD = encode_by_shape(self.student.backbone, views[self.num_globals :])
            features_VBD = torch.cat([features_VBD, locals_VBD])
        with torch.no_grad():
            features_GBD = torch.stack([tokens_BLD[:, 0] for tokens_BLD in teacher_tokens])
            logits_GBK = self.teacher.head(features_GBD)
        return self.distil(features_GBD, logits_GBK, self.student.head(features_VBD), step)

    def places(self, step: int, view: int, clips: int, places: int) -> tuple[Tensor, Tensor]:
        """Which patches are seen and which are hidden, int64 [B, K] and [B, M], each in ascending order.

        A function of the run's seed, the step, the view and the clip's row in the global batch: the same for any number
        of processes and of parts. The parts of a step come one after the other, as the centre counts them.
        """
        rows = global_rows(clips, first=clips * len(self._part_means))
        order = np.stack([np.random.default_rng((self.seed, step, view, row)).permutation(places) for row in rows])
        hidden_BM, seen_BK = np.split(order, [self.config.hidden(places)], axis=1)
        return torch.from_numpy(np.sort(seen_BK)), torch.from_numpy(np.sort(hidden_BM))

    def _patch_loss(self, guesses_XD: Tensor, targets_XD: Tensor) -> dict[str, Tensor]:
        """The loss of the guesses, and what the prototypes learn by; how much the teacher's assignments tell apart.

        A guess is compared with the balanced assignment of the teacher's token. Prototypes that follow the teacher
        learn by its own scores and the same assignments (CAPI: Darcet et al., 2025), so that a student that cannot
        guess yet has no say in what there is to guess. Otherwise, as in STOMP's code, they learn by the balanced
        assignments of the guesses and by the guesses themselves; that can end with prototypes that are all alike.
        """
        config, teacher_only = self.config, self.config.prototypes_follow == "teacher"
        balance = partial(sinkhorn, temperature=config.sinkhorn_temperature, iterations=config.sinkhorn_iterations)
        with torch.autocast(guesses_XD.device.type, enabled=False):
            prototypes_PD = normalize(self.patch_prototypes, dim=1)
            theirs_XP = normalize(targets_XD.float(), dim=1) @ prototypes_PD.T
            steady_PD = prototypes_PD.detach() if teacher_only else prototypes_PD
            guessed_XP = normalize(guesses_XD.float(), dim=1) @ steady_PD.T
            assigned_XP = balance(theirs_XP)
            wanted_XP = assigned_XP if teacher_only else balance(guessed_XP)
            return {
                "loss_patches": soft_cross_entropy(assigned_XP, guessed_XP / config.patch_temperature),
                "loss_prototypes": soft_cross_entropy(wanted_XP, theirs_XP / config.patch_temperature),
                "patch_information": information(assigned_XP),
            }

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, Tensor]:
        """As `Distillation`; and the prototypes, of which only the direction matters, keep their length."""
        self.patch_prototypes.copy_(normalize(self.patch_prototypes, dim=1))
        return super().after_step(step)

    def step_flops(self, shapes: Sequence[Shape]) -> int:
        """The student sees few patches of the global views, the decoder all, the teacher all of them."""
        model, config = self.encoder.config, self.config
        student, decoder = passes(model, shapes[self.num_globals :]), 0
        for frames, side in shapes[: self.num_globals]:
            places = (side // model.patch_size) ** 2
            hidden, width = config.hidden(places), config.decoder_width
            student += forward_flops(model, (frames, side), places - hidden)
            decoder += config.decoder_depth * block_flops(frames, places, width, 4 * width)
            decoder += 2 * frames * places * width * model.embed_dim  # into the decoder and out of it
            decoder += 2 * 2 * frames * hidden * model.embed_dim * config.patch_prototypes
        return with_backward(model) * student + 3 * decoder + passes(model, shapes[: self.num_globals])


def soft_cross_entropy(targets_XK: Tensor, logits_XK: Tensor) -> Tensor:
    """-sum_k target log softmax(logits), the mean over rows, a scalar."""
    return -(targets_XK * log_softmax(logits_XK, dim=1)).sum(dim=1).mean()


class Decoder(nn.Module):
    """A small transformer that guesses the tokens of hidden patches from those that were seen."""

    def __init__(self, config: MaskedConfig, model: ModelConfig) -> None:
        """Initialised from torch's global generator as `VideoTransformer` is."""
        super().__init__()
        width, grid_size = config.decoder_width, model.image_size // model.patch_size
        self.embed = nn.Linear(model.embed_dim, width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid_size**2, width))
        self.time_embed = nn.Parameter(torch.zeros(1, model.num_frames, width))
        blocks = [Block(width, config.decoder_heads, 4.0, drop_path=0.0) for _ in range(config.decoder_depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, model.embed_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for table in (self.mask_token, self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)
        for block in blocks:
            nn.init.zeros_(block.temporal_fc.weight)

    def forward(
        self, tokens_BLD: Tensor, seen_BK: Tensor, hidden_BM: Tensor, grid: tuple[int, int], num_frames: int
    ) -> Tensor:
        """Guesses [B*M*T, D], clip by clip, patch by patch, frame by frame.

        Args:
            tokens_BLD: the student's, as `VideoTransformer.forward_tokens` gives them; the class token is not used.
            seen_BK: the patches that they are of.
            hidden_BM: all others.
            grid: rows and columns of patches.
            num_frames: T.
        """
        B, T, N = len(tokens_BLD), num_frames, grid[0] * grid[1]
        seen_BKTW = self.embed(tokens_BLD[:, 1:]).view(B, seen_BK.shape[1], T, -1)
        mask_BMTW = self.mask_token[..., None, :].expand(B, hidden_BM.shape[1], T, -1).to(seen_BKTW.dtype)
        back_BN = torch.cat([seen_BK, hidden_BM], dim=1).argsort(dim=1)
        patches_BNTW = at_places(torch.cat([seen_BKTW, mask_BMTW], dim=1), back_BN)
        patches_BNTW = patches_BNTW + positions(self.pos_embed, *grid)[:, None] + times(self.time_embed, T)
        cls_B1W = (self.cls_token + self.pos_embed[:, :1]).expand(B, 1, -1)
        tokens_BLW = torch.cat([cls_B1W, patches_BNTW.flatten(1, 2)], dim=1)
        for block in self.blocks:
            (tokens_BLW,) = block([tokens_BLW], [T])
        hidden_BMTW = at_places(tokens_BLW[:, 1:].view(B, N, T, -1), hidden_BM)
        guesses: Tensor = self.head(self.norm(hidden_BMTW))
        return guesses.flatten(0, 2)


@torch.no_grad()
def hidden_targets(tokens_BLD: Tensor, hidden_BM: Tensor, num_frames: int) -> Tensor:
    """The teacher's tokens of hidden patches [B*M*T, D], in the order of the decoder's guesses.

    Less the mean of their clip's patches, over their deviation, per dimension: what all patches of a clip have in
    common is no part of the question.
    """
    patches_BXD = tokens_BLD[:, 1:].float()
    deviation_B1D = patches_BXD.std(dim=1, keepdim=True) + 1e-6
    patches_BXD = (patches_BXD - patches_BXD.mean(dim=1, keepdim=True)) / deviation_B1D
    B, X, D = patches_BXD.shape
    return at_places(patches_BXD.view(B, X // num_frames, num_frames, D), hidden_BM).flatten(0, 2)
