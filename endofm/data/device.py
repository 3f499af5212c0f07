"""Batches on their way to the device, so that they arrive while the step before is still being computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from endofm.data.views import ClipBatch


def on_device(batches: Iterable[ClipBatch], device: torch.device) -> Iterator[ClipBatch]:
    """The batches in their order, on `device`; none is taken before it is asked for.

    A GPU works through a queue, and whoever trains is ahead of it: when the next batch is asked for, the last step is
    queued and not done. Copied on a stream of its own, from page-locked memory, the batch need not queue behind it. On
    a CPU nothing happens. (Not yet run on a GPU: none was at hand.)
    """
    if device.type != "cuda":
        yield from batches
        return
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        with torch.cuda.stream(copies):
            moved = batch.to(device)
        steps = torch.cuda.current_stream(device)
        steps.wait_stream(copies)
        moved.used_on(steps)
        yield moved
