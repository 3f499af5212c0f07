"""Whether a run is still learning: what its features span, and alarms where they or the targets collapse.

Nothing here changes the training. The measures go into the metrics file, the alarms to the console as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

REMEMBERED = 512
"""Clips, the last ones seen, whose features are measured together."""


class Health(nn.Module):
    """The features of the clips that were seen last, over all processes; it goes into the checkpoints.

    Shape suffixes: Q remembered clips, B clips of a step, D feature width.
    """

    features_QD: Tensor
    seen: Tensor

    def __init__(self, width: int) -> None:
        """Nothing remembered yet, of features `width` wide."""
        super().__init__()
        self.register_buffer("features_QD", torch.zeros(REMEMBERED, width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def remember(self, features_BD: Tensor) -> None:
        """Take in the features of a step, in the order of its global batch; the oldest are forgotten.

        A step with numbers that are not finite is passed over, without asking the device about it.
        """
        remember_(self.features_QD, self.seen, features_BD)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """`feature_rank` and `feature_diversity` of the remembered clips; nothing before there are eight."""
        known = min(int(self.seen), REMEMBERED)
        if known < 8:
            return {}
        features_QD = self.features_QD[:known]
        return {"feature_rank": effective_rank(features_QD), "feature_diversity": diversity(features_QD)}


def remember_(ring_QX: Tensor, seen: Tensor, newest_BX: Tensor) -> None:
    """Write rows over the oldest ones of a ring; nothing, if any number of them is not finite.

    The decision is taken on the device, which nobody waits for.

    Args:
        ring_QX: of any dimensions after the first.
        seen: how many rows were ever written, an int64 scalar, which is moved on.
        newest_BX: the last Q of them count.
    """
    newest_BX = newest_BX[-len(ring_QX) :].to(ring_QX.dtype)
    places_B = (seen + torch.arange(len(newest_BX), device=seen.device)) % len(ring_QX)
    sound = newest_BX.isfinite().all()
    ring_QX[places_B] = torch.where(sound, newest_BX, ring_QX[places_B])
    seen += torch.where(sound, len(newest_BX), 0)


def spread_of(features_XD: Tensor) -> Tensor:
    """Root mean square distance of unit-length features from their mean, a scalar: 0 where all are alike, at most 1."""
    unit_XD = normalize(features_XD.float(), dim=-1)
    return (unit_XD - unit_XD.mean(dim=0)).square().sum(dim=-1).mean().sqrt()


def effective_rank(features_QD: Tensor) -> float:
    """How many directions the features use: the exponential of the entropy of their normalised singular values.

    RankMe (Garrido et al., 2023), of features less their mean, since the class tokens of an untrained transformer
    have one large direction in common. From 1 to min(Q - 1, D).
    """
    centred_QD = (features_QD - features_QD.mean(dim=0)).double()
    values = torch.linalg.svdvals(centred_QD)
    shares = values / values.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return float(torch.special.entr(shares).sum().exp())


def diversity(features_QD: Tensor) -> float:
    """1 less the mean cosine between the features of two different clips: 0 where all clips look alike."""
    unit_QD, known = normalize(features_QD.double(), dim=1), len(features_QD)
    total = float(unit_QD.sum(dim=0).square().sum())  # of all cosines, those of clips with themselves included
    return 1 - (total - known) / (known * (known - 1))


_PATIENCE = 100  # steps in a row that a sign must last: a bad batch is no collapse, and 200 steps are soon enough
_TARGETS_ALIKE = 0.02  # of `teacher_information`
_FEATURES_ALIKE = 0.01  # of `feature_spread`


@dataclass
class Alarms:
    """Listens to the rows of a run and says, once per sign, that something has collapsed.

    What it has heard is not kept in checkpoints: a run that goes on hears the signs again.
    """

    lasted: dict[str, int] = field(default_factory=dict)
    """Steps in a row for which each sign has been there."""

    def hear(self, row: Mapping[str, float]) -> list[str]:
        """The alarms that this step's row sets off, each a sentence that names the measure."""
        alarms = []
        for sign, (is_there, sentence) in _signs(row).items():
            self.lasted[sign] = self.lasted.get(sign, 0) + 1 if is_there else 0
            if self.lasted[sign] == _PATIENCE:
                alarms.append(f"ALARM: for {_PATIENCE} steps {sentence}; see docs/training-health.md")
        return alarms


def _signs(row: Mapping[str, float]) -> dict[str, tuple[bool, str]]:
    """Name, presence and description of every sign that can be read from this row."""
    signs: dict[str, tuple[bool, str]] = {}
    if "teacher_information" in row:
        told, chance = row["teacher_information"], row["loss_at_chance"]
        about = f"teacher_information {told:.4f}, loss {row['loss']:.4f}; {chance:.4f} is that of guessing"
        signs["targets"] = told < _TARGETS_ALIKE, f"the teacher has said the same of every clip ({about})"
    if "feature_spread" in row:
        spread = row["feature_spread"]
        about = f"feature_spread {spread:.4f}"
        signs["features"] = spread < _FEATURES_ALIKE, f"the features of all clips have been alike ({about})"
    return signs
