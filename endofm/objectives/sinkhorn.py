"""Balanced assignment: each of many scores goes to prototypes, and every prototype gets equally much.

Shape suffixes: X whatever is assigned, over all clips of a process; K prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from endofm.distributed import all_reduce_mean_


@torch.no_grad()
def sinkhorn(
    scores_XK: Tensor, *, temperature: float, iterations: int, counts_X: Tensor | None = None, alone: bool = False
) -> Tensor:
    """Assignments float32 [X, K]: every row sums to 1, every column to about X / K, counted over all processes.

    Sinkhorn and Knopp's iteration as SwAV uses it (Caron et al., 2020, appendix A.1): columns, then rows, `iterations`
    times. Each process must call, with as many rows. No gradient flows.

    Args:
        scores_XK: cosines; the larger, the more of the row goes there.
        temperature: scores are divided by it; from 0.03 up, or float32 does not hold the exponentials.
        iterations: at least 1.
        counts_X: 1 for rows that take part and 0 for those that do not; all do if None.
        alone: whether the rows of this process are all there are, so that no other need call.
    """
    tiny = torch.finfo(torch.float32).tiny
    shares_XK = ((scores_XK.detach().float() - 1) / temperature).exp()
    for _ in range(iterations):
        columns_K = shares_XK.sum(dim=0) if counts_X is None else counts_X.float() @ shares_XK
        shares_XK = shares_XK / (columns_K if alone else all_reduce_mean_(columns_K)).clamp_min(tiny)
        shares_XK = shares_XK / shares_XK.sum(dim=1, keepdim=True).clamp_min(tiny)
    return shares_XK
