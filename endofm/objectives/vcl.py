"""Static and dynamic concepts of video: VCL (Qian et al., ECCV 2022), one of the systems that Endo-FM compares with.

Two consecutive clips of a recording, a still of each, and the differences of their frames. What a clip shares with its
still is static, what it shares with its differences is dynamic; prototypes ("concepts") of both kinds are assigned in
balance and predicted from one view to another. No second network, no moving average.

Written from a description of the released code, with a video transformer instead of a convolutional network, and
without its slips; `docs/objectives.md` lists what differs.

Shape suffixes: B clips, V the six views v1 v2 s1 s2 d1 d2, D feature width, K concepts of one kind (C of one or both),
E width of concepts, T frames, H W rows, columns of patches, L tokens of a clip, X places of a map, Q clips remembered,
R clips of all processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool3d, cosine_similarity, cross_entropy, log_softmax, normalize, softmax

from endofm.distributed import gather_rows, global_rows
from endofm.health import remember_
from endofm.models import ModelConfig, VideoTransformer, create_backbone
from endofm.models.flops import Shape, passes, with_backward
from endofm.objectives.base import LossOutput, Objective, ObjectiveSettings
from endofm.objectives.concepts import ConceptAttention, chosen, contrast_of_concepts
from endofm.objectives.dino import by_shape, information
from endofm.objectives.sinkhorn import sinkhorn
from endofm.optim import Horizon

V1, V2, S1, S2, D1, D2 = range(6)
STATIC, DYNAMIC = (V1, V2, S1, S2), (V1, V2, D1, D2)
KINDS = ("clip", "still", "difference")  # of views 0 and 1, 2 and 3, 4 and 5


class VclConfig(ObjectiveSettings):
    """The defaults are those of VCL's released code for Kinetics, where it has them."""

    NEEDS_VIEWS: ClassVar[Literal["crops", "pairs"]] = "pairs"

    kind: Literal["vcl"] = "vcl"
    concepts: int = Field(default=100, ge=2, description="Static ones, and as many dynamic ones.")
    concept_width: int = Field(default=512, ge=1)
    projection: int = Field(default=128, ge=1, description="Width of what is contrasted between clips.")
    instance_temperature: float = Field(default=0.07, gt=0)
    concept_temperature: float = Field(default=0.1, gt=0)
    sinkhorn_temperature: float = Field(default=0.05, ge=0.03)
    sinkhorn_iterations: int = Field(default=3, ge=1)
    entropy_weight: float = Field(default=0.1, ge=0, description="Of saying nothing about concepts of the wrong kind.")
    queue: int = Field(default=1024, ge=0, description="Clips whose scores are remembered for balancing; 0: none.")
    frozen_share: float = Field(default=0.01, ge=0, le=1, description="Of the run, for which concepts stay put.")
    local_after: float = Field(default=0.1, ge=0, le=1, description="Share of the run before concepts have places.")
    local_concepts: int = Field(default=10, ge=2, description="Places are compared of one less than the best so many.")
    local_margin: float = Field(default=1.4, gt=0, description="Distance up to which other clips' concepts repel.")


class Vcl(Objective):
    """VCL over views v1 v2 s1 s2; the differences d1 d2 are made here.

    State: `backbone.*`, heads, `concepts.*`, and the scores of the clips seen last with how many there are.
    """

    queue_QVC: Tensor
    pushed: Tensor

    def __init__(self, config: VclConfig, model: ModelConfig, *, horizon: Horizon) -> None:
        """Everything initialised from torch's global generator.

        Args:
            config: the loss.
            model: shape of the backbone.
            horizon: the length of the run, for what begins in the course of it.
        """
        super().__init__()
        self.config, self.horizon = config, horizon
        K, E, D = config.concepts, config.concept_width, model.embed_dim
        self.backbone = create_backbone(model)
        self.instance = nn.ModuleDict(
            {name: _projector(D, config.projection) for name in ("vv", "vs", "vd", "sv", "dv")}
        )
        self.heads = nn.ModuleDict({kind: _perceptron(D, D, E) for kind in KINDS})
        directions = {kind: nn.Parameter(normalize(torch.randn(2 * K, E), dim=1)) for kind in KINDS}
        self.concepts = nn.ParameterDict(directions)
        self.decoders = nn.ModuleDict({kind: _perceptron(K if kind != "clip" else 2 * K, D, D) for kind in KINDS})
        self.local = ConceptAttention(D, E)
        self.register_buffer("queue_QVC", torch.zeros(config.queue, 6, 2 * K))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))
        self._scores: list[Tensor] = []  # of the parts of the step at hand, over all processes

    @property
    def encoder(self) -> VideoTransformer:
        """The backbone."""
        return self.backbone

    def loss(self, views: Sequence[Tensor], step: int) -> LossOutput:
        """The sum of six losses, as released: instances, alignment, 0.1 entropy, fidelity and, later, local concepts.

        Raises:
            ValueError: not four views.
        """
        if len(views) != 4:
            raise ValueError(f"expected the views v1 v2 s1 s2, got {len(views)}")
        six = [*views, *(differences(view) for view in views[:2])]
        tokens = by_shape(lambda stacks: [self.backbone.forward_tokens(stack) for stack in stacks], six)
        with torch.autocast(views[0].device.type, enabled=False):
            tokens = [tokens_BLD.float() for tokens_BLD in tokens]
            features_VBD = torch.stack([tokens_BLD[:, 0] for tokens_BLD in tokens])
            scores_VBC = self._score(features_VBD)
            parts = {
                "loss_instances": self._instances(features_VBD),
                **self._alignment(scores_VBC),
                "loss_fidelity": self._fidelity(features_VBD, scores_VBC),
                "loss_local": self._local(six, tokens, scores_VBC, step),
            }
            monitors = {name: value.detach() for name, value in parts.items()}
        return LossOutput(torch.stack(list(parts.values())).sum(), features_VBD[V1].detach(), monitors)

    def _score(self, features_VBD: Tensor) -> Tensor:
        """Cosines with the concepts [V, B, 2K], static ones first; every kind of view has its own of both."""
        scores = []
        for view, features_BD in enumerate(features_VBD):
            kind = KINDS[view // 2]
            projected_BE = normalize(self.heads[kind](features_BD), dim=1)
            scores.append(projected_BE @ normalize(self.concepts[kind], dim=1).T)
        scores_VBC = torch.stack(scores)
        self._scores.append(gather_rows(scores_VBC.detach().transpose(0, 1).contiguous()))
        return scores_VBC

    def _instances(self, features_VBD: Tensor) -> Tensor:
        """InfoNCE between the two clips, and between each clip and the other's still and differences."""
        projected = {
            name: [head(features_BD) for features_BD in features_VBD[2 * "vsd".index(name[0]) :][:2]]
            for name, head in self.instance.items()
        }
        total = self._contrast(projected["vv"], projected["vv"])
        for there, back in (("vs", "sv"), ("vd", "dv")):
            total = total + self._contrast(projected[there], projected[back])
            total = total + self._contrast(projected[back], projected[there])
        return total

    def _contrast(self, queries: Sequence[Tensor], keys: Sequence[Tensor]) -> Tensor:
        """The mean of two: the first clip's queries among the second's keys, and the other way round.

        Keys are those of all processes' clips, and carry no gradient.
        """
        losses = []
        for query_BP, key_BP in zip(queries, reversed(keys), strict=True):
            all_keys = gather_rows(normalize(key_BP.detach(), dim=1))
            logits = normalize(query_BP, dim=1) @ all_keys.T / self.config.instance_temperature
            mine = torch.tensor(global_rows(len(query_BP)), device=logits.device)
            losses.append(cross_entropy(logits, mine))
        return torch.stack(losses).mean()

    def _alignment(self, scores_VBC: Tensor) -> dict[str, Tensor]:
        """Each view's balanced assignment predicted from the three others; nothing said by views of the other kind."""
        K, losses, entropies = self.config.concepts, {}, []
        scaled_VBC = scores_VBC / self.config.concept_temperature
        for name, views, others, columns in (
            ("loss_static", STATIC, (D1, D2), slice(0, K)),
            ("loss_dynamic", DYNAMIC, (S1, S2), slice(K, 2 * K)),
        ):
            log_VBK = log_softmax(scaled_VBC[list(views), :, columns], dim=-1)
            clips = log_VBK.shape[1]
            pairs_VV = -torch.einsum("ibk,jbk->ij", self._assign(columns, views, clips), log_VBK) / clips
            losses[name] = (pairs_VV.sum() - pairs_VV.diagonal().sum()) / 12  # ordered pairs of four
            entropies.append(torch.special.entr(softmax(scaled_VBC[list(others), :, columns], dim=-1)).sum(-1).mean())
        return {**losses, "loss_entropy": -self.config.entropy_weight * torch.stack(entropies).sum()}

    def _assign(self, columns: slice, views: Sequence[int], clips: int) -> Tensor:
        """Balanced assignments [4, B, K] of this process's clips, among all processes' and the remembered ones."""
        scores_RVC, config = self._scores[-1], self.config
        remembered_Q = torch.arange(config.queue, device=scores_RVC.device) < self.pushed
        counts_X = torch.cat([remembered_Q.new_ones(len(scores_RVC)), remembered_Q])
        balanced = [
            sinkhorn(
                torch.cat([scores_RVC[:, view, columns], self.queue_QVC[:, view, columns]]),
                temperature=config.sinkhorn_temperature,
                iterations=config.sinkhorn_iterations,
                counts_X=counts_X,
                alone=True,
            )
            for view in views
        ]
        return torch.stack(balanced)[:, global_rows(clips)]

    def _fidelity(self, features_VBD: Tensor, scores_VBC: Tensor) -> Tensor:
        """Less the cosine between what can be read from the scores and the feature they are of; each kind's mean."""
        K, losses = self.config.concepts, []
        columns = {"clip": slice(0, 2 * K), "still": slice(0, K), "difference": slice(K, 2 * K)}
        for number, kind in enumerate(KINDS):
            pair = slice(2 * number, 2 * number + 2)
            read_VBD = self.decoders[kind](scores_VBC[pair, :, columns[kind]])
            losses.append(-cosine_similarity(read_VBD, features_VBD[pair].detach(), dim=-1).mean())
        return torch.stack(losses).sum()

    def _local(self, views: Sequence[Tensor], tokens: Sequence[Tensor], scores_VBC: Tensor, step: int) -> Tensor:
        """What concepts find where; before its time 0, of which every weight of `local` takes part."""
        if self._is_too_early(step):
            zero: Tensor = sum((weight.sum() for weight in self.local.parameters()), scores_VBC.new_zeros(())) * 0
            return zero
        K, best, losses = self.config.concepts, self.config.local_concepts, []
        columns = {"clip": slice(0, 2 * K), "still": slice(0, K), "difference": slice(K, 2 * K)}
        for number, kind in enumerate(KINDS):
            pair = (2 * number, 2 * number + 1)
            found = [self.local(self.concepts[kind][columns[kind]], self._map(views[v], tokens[v])) for v in pair]
            high = [chosen(scores_VBC[v, :, columns[kind]].detach(), best) for v in pair]
            for one, other in ((0, 1), (1, 0)):
                wanted_BC = high[0] & high[1]
                margin = self.config.local_margin
                losses.append(contrast_of_concepts(found[one], found[other], wanted_BC, margin=margin) / 2)
        return torch.stack(losses).sum()

    def _map(self, view_BCTHW: Tensor, tokens_BLD: Tensor) -> Tensor:
        """The patches' tokens [B, X, D], averaged over two frames and two by two patches where there are as many."""
        (rows, columns), T = self.backbone.grid_of(view_BCTHW), view_BCTHW.shape[2]
        map_BDHWT = tokens_BLD[:, 1:].reshape(len(tokens_BLD), rows, columns, T, -1).permute(0, 4, 1, 2, 3)
        size = (max(1, rows // 2), max(1, columns // 2), max(1, T // 2))
        return adaptive_avg_pool3d(map_BDHWT, size).flatten(2).transpose(1, 2)

    def _is_too_early(self, step: int) -> bool:
        return step < self.config.local_after * self.horizon.total_steps

    def frozen(self, step: int) -> Iterable[nn.Parameter]:
        """The concepts at first, and what finds their places until its time has come."""
        if step < self.config.frozen_share * self.horizon.total_steps:
            yield from self.concepts.parameters()
        if self._is_too_early(step):
            yield from self.local.parameters()

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, Tensor]:  # noqa: ARG002 - the same at every step
        """Remember the scores of the step's clips, of all processes; concepts keep their length.

        Returns:
            `concept_information`: how much the static concepts of a clip tell about which clip it is; see
            `information`.
        """
        scores_RVC = torch.cat(self._scores)
        self._scores.clear()
        static_RK = softmax(scores_RVC[:, V1, : self.config.concepts] / self.config.concept_temperature, dim=1)
        if len(self.queue_QVC):
            remember_(self.queue_QVC, self.pushed, scores_RVC)
        for concepts_CE in self.concepts.values():
            concepts_CE.copy_(normalize(concepts_CE, dim=1))
        return {"concept_information": information(static_RK)}

    def step_flops(self, shapes: Sequence[Shape]) -> int:
        """Three passes over the views and over the differences, which have the clips' shapes."""
        model = self.backbone.config
        return with_backward(model) * passes(model, [*shapes, *shapes[:2]])


def differences(view_BCTHW: Tensor) -> Tensor:
    """Each frame less the one before; the first, which has none, as the second. Of a single frame: zeros."""
    change = view_BCTHW[:, :, 1:] - view_BCTHW[:, :, :-1]
    return torch.cat([change[:, :, :1], change], dim=2) if change.shape[2] else torch.zeros_like(view_BCTHW)


def _projector(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))


def _perceptron(width: int, hidden: int, out: int) -> nn.Sequential:
    """With a layer norm where the released code has a batch norm: no clip's result depends on the others."""
    return nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, out))
