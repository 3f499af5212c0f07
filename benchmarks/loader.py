"""What the data path of a clip costs, ours and the plain one of `plain.py`, in CPU time of one core.

    python -m benchmarks.loader --corpus corpora/colonoscopic

Ours reads, verifies, decodes and converts what the views need, and hands over uint8; the plain one decodes and converts
every frame and makes the views in float32. Both take turns on the same clips and views, so that a busy machine moves
both: the ratio is what to compare. `endofm bench loader` tells what the loader does in absolute terms.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.plain import decode_every_frame, load_views
from endofm.bench import ReusedMemory, hardware
from endofm.data.batches import load_batch, plan_clip
from endofm.data.clips import load_clips
from endofm.data.sampler import ClipSampler
from endofm.data.stream import ShardReader
from endofm.data.views import ViewConfig


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of a finished corpus")
    parser.add_argument("--batch-size", type=int, default=4, help="clips a step (default: 4)")
    parser.add_argument("--steps", type=int, default=6, help="timed steps of each way, after one (default: 6)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clips, views = load_clips([arguments.corpus]), ViewConfig()
    sampler, memory = ClipSampler(len(clips), arguments.batch_size, seed=0), ReusedMemory()
    print(hardware())
    print(
        f"{len(clips)} clips, median {np.median(clips.num_frames_N):.0f} frames of {np.median(clips.width_N):.0f} x "
        f"{np.median(clips.height_N):.0f}, {np.median(clips.size_N) / 1e3:.0f} kB"
    )
    ours: list[float] = []
    plain: list[float] = []
    decoding: list[float] = []
    sizes = [0, 0]
    with ShardReader() as reader:
        for step in range(arguments.steps + 1):
            positions, rows = sampler.positions(step).tolist(), sampler.rows(step).tolist()
            began = time.process_time()
            batch = load_batch(clips, rows, positions, views, seed=0, reader=reader, memory=memory)
            between = time.process_time()
            videos = [reader.read(clips.location(row)) for row in rows]
            places = zip(rows, positions, strict=True)
            plans = [plan_clip(clips, row, position, views, seed=0) for row, position in places]
            made = load_views(videos, plans, views)
            after = time.process_time()
            for video in videos:
                decode_every_frame(video)
            if step:
                ours.append(between - began)
                plain.append(after - between)
                decoding.append(time.process_time() - after)
            sizes = [batch.num_bytes, sum(view.nbytes for view in made)]
    per_clip = 1e3 / arguments.batch_size
    for name, seconds in (("ours", ours), ("plain", plain), ("of that, decoding", decoding)):
        print(f"{name:<18} {statistics.median(seconds) * per_clip:7.1f} ms of CPU per clip")
    ratios = [b / a for a, b in zip(ours, plain, strict=True)]
    print(f"plain / ours       {statistics.median(ratios):7.2f}  (from {min(ratios):.2f} to {max(ratios):.2f})")
    megabytes = [size / arguments.batch_size / 1e6 for size in sizes]
    print(f"to the device      {megabytes[0]:7.2f} MB per clip; plain {megabytes[1]:.2f}")


if __name__ == "__main__":
    main()
