"""Where in a clip a concept is seen: attention in which concepts compete for places, and a contrast of what they find.

Of VCL (Qian et al., 2022, its released code). Shape suffixes as in `vcl`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu

from endofm.distributed import all_reduce_mean_, gather_rows, global_rows

_NEAR_ZERO = 1e-5  # under the root of a squared distance, whose slope has no bound at zero


class ConceptAttention(nn.Module):
    """One round of attention from concepts to the places of a map, softmax over the concepts (as in slot attention)."""

    def __init__(self, width: int, concept_width: int) -> None:
        """From maps of `width` to concepts of `concept_width`."""
        super().__init__()
        E = concept_width
        self.norm_concepts, self.norm_places, self.norm_found = nn.LayerNorm(E), nn.LayerNorm(width), nn.LayerNorm(E)
        self.query = nn.Linear(E, E, bias=False)
        self.key = nn.Linear(width, E, bias=False)
        self.value = nn.Linear(width, E, bias=False)
        self.perceptron = nn.Sequential(nn.Linear(E, max(1, E // 2)), nn.ReLU(), nn.Linear(max(1, E // 2), E))

    def forward(self, concepts_CE: Tensor, map_BXD: Tensor) -> Tensor:
        """What each concept finds in each map, [B, C, E]."""
        places_BXD = self.norm_places(map_BXD)
        logits_BXC = self.key(places_BXD) @ self.query(self.norm_concepts(concepts_CE)).T * concepts_CE.shape[1] ** -0.5
        attention_BXC = logits_BXC.softmax(dim=2) + 1e-8
        attention_BXC = attention_BXC / attention_BXC.sum(dim=1, keepdim=True)
        found_BCE = attention_BXC.mT @ self.value(places_BXD) + concepts_CE
        found: Tensor = found_BCE + self.perceptron(self.norm_found(found_BCE))
        return found


def chosen(scores_BC: Tensor, best: int) -> Tensor:
    """Which concepts score strictly above the `best`-th of their clip, bool [B, C]: at most `best` - 1."""
    limit_B1 = scores_BC.topk(min(best, scores_BC.shape[1]), dim=1).values[:, -1:]
    return scores_BC > limit_B1


def contrast_of_concepts(query_BCE: Tensor, key_BCE: Tensor, wanted_BC: Tensor, *, margin: float) -> Tensor:
    """Pull what a concept finds in two views of a clip together, push what it finds in other clips `margin` apart.

    The sum over the wanted concepts of all clips of the squared distance within the clip and the mean of
    max(0, margin - distance)^2 over all other clips; by one more than there are wanted ones. Other clips, and the
    count, are those of all processes, of whose results the mean is meant. No gradient reaches the keys.

    Args:
        query_BCE: of one view.
        key_BCE: of another view of the same clips.
        wanted_BC: bool, which concepts to compare.
        margin: distances of unit vectors are from 0 to 2.
    """
    keys_RCE = gather_rows(normalize(key_BCE.detach(), dim=2).contiguous())
    cosine_BRC = torch.einsum("bce,rce->brc", normalize(query_BCE, dim=2), keys_RCE)
    distance_BRC = (2 - 2 * cosine_BRC + _NEAR_ZERO).clamp_min(_NEAR_ZERO).sqrt()
    rows = torch.tensor(global_rows(len(query_BCE)), device=query_BCE.device)
    same_BR = rows[:, None] == torch.arange(len(keys_RCE), device=rows.device)
    near_BC = distance_BRC[same_BR].square()
    far_BRC = relu(margin - distance_BRC).square().masked_fill(same_BR[..., None], 0)
    far_BC = far_BRC.sum(dim=1) / max(len(keys_RCE) - 1, 1)
    count = all_reduce_mean_(wanted_BC.sum().float())
    return ((near_BC + far_BC) * wanted_BC).sum() / (count + len(rows) / len(keys_RCE))
