"""What one core loads: plan, fetch, verify and decode for the recipe's ten views, against decoding every frame to RGB.

    python benchmarks/loader.py --corpus corpora/colonoscopic

Both are timed in turns in one process, as CPU time, so that a busy machine moves both; the ratio is what to compare
between machines and versions. The last lines run the loader as training does, with one worker.
"""

from __future__ import annotations

import argparse
import io
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import torch

from endofm.data.batches import load_batch
from endofm.data.clips import ClipSet, load_clips
from endofm.data.loader import make_loader
from endofm.data.sampler import ClipSampler
from endofm.data.stream import ShardReader
from endofm.data.views import ViewConfig


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of a finished corpus")
    parser.add_argument("--batch-size", type=int, default=12, help="clips a step (default: 12)")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each kind (default: 8)")
    arguments = parser.parse_args()
    clips, views = load_clips([arguments.corpus]), ViewConfig()
    print(hardware())
    print(
        f"corpus: {len(clips)} clips, median {np.median(clips.num_frames_N):.0f} frames of "
        f"{np.median(clips.width_N):.0f} x {np.median(clips.height_N):.0f}, {np.median(clips.size_N) / 1e3:.0f} kB"
    )
    time_decoding(clips, views, arguments.batch_size, arguments.steps)
    time_shipping(clips, views, arguments.batch_size, arguments.steps)


def hardware() -> str:
    """One line: processor, cores, how busy they are, Python and PyAV."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    load = os.getloadavg()[0]
    return (
        f"hardware: {model}, {os.cpu_count()} cores, load {load:.1f}; {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, PyAV {av.__version__}"
    )


def time_decoding(clips: ClipSet, views: ViewConfig, batch_size: int, steps: int) -> None:
    """Print CPU time per clip of both ways, and the median over the steps of their ratio."""
    sampler = ClipSampler(len(clips), batch_size, seed=0)
    ours, baseline = [], []
    memory = ReusedMemory()
    with ShardReader() as reader:
        for step in range(steps + 2):
            positions = sampler.positions(step).tolist()
            rows = sampler.rows(step).tolist()
            began = time.process_time()
            load_batch(clips, rows, positions, views, seed=0, reader=reader, memory=memory)
            between = time.process_time()
            decode_everything(clips, rows, reader)
            if step >= 2:  # two to warm up
                ours.append((between - began) * 1e3 / batch_size)
                baseline.append((time.process_time() - between) * 1e3 / batch_size)
    ratios = [b / a for a, b in zip(ours, baseline, strict=True)]
    show("decode all frames to RGB", baseline)
    show("plan, fetch, verify, decode the views' frames", ours)
    print(f"{'ratio':<46} {statistics.median(ratios):6.2f} x  (from {min(ratios):.2f} to {max(ratios):.2f})")


class ReusedMemory:
    """One piece of memory for all batches: what a worker's ring does, in one process."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def __call__(self, shape: Sequence[int]) -> torch.Tensor:
        size = math.prod(shape)
        if len(self._memory) < size:
            self._memory = torch.zeros(size + size // 4, dtype=torch.uint8)
        return self._memory[:size].view(tuple(shape))


def decode_everything(clips: ClipSet, rows: list[int], reader: ShardReader) -> None:
    """What Endo-FM's decoder does with a 5 s clip: every frame to RGB, stacked."""
    for row in rows:
        with av.open(io.BytesIO(reader.read(clips.location(row))), mode="r") as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


def time_shipping(clips: ClipSet, views: ViewConfig, batch_size: int, steps: int) -> None:
    """Print clips per second through one worker process, and CPU time per clip on both sides."""
    with make_loader(
        clips, views, batch_size=batch_size, seed=0, start_step=0, stop_step=10 * steps + 100, num_workers=1
    ) as loader:
        for _ in range(5):  # finished before the clock starts, into memory that is not yet reused
            next(loader)
        (worker,) = multiprocessing.active_children()
        began, began_cpu, began_worker = time.perf_counter(), time.process_time(), cpu_seconds(worker.pid)
        received = sum(len(next(loader)) for _ in range(steps))
        wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        worker_ms = (cpu_seconds(worker.pid) - began_worker) / received * 1e3
    print(f"{'through one worker process':<46} {received / wall:6.1f} clips/s by the wall clock")
    if worker_ms > 0:
        print(f"{'  in the worker':<46} {worker_ms:6.1f} ms of CPU per clip, {1e3 / worker_ms:6.1f} clips/s per core")
    print(f"{'  in the trainer, receiving':<46} {cpu / received * 1e3:6.1f} ms of CPU per clip")


def cpu_seconds(pid: int | None) -> float:
    """CPU time that another process has used, in ticks of usually 10 ms; 0 where the system does not tell."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def show(what: str, ms: list[float]) -> None:
    """Print the median and the spread of CPU times per clip."""
    median = statistics.median(ms)
    print(
        f"{what:<46} {median:6.1f} ms +- {statistics.pstdev(ms):.1f} CPU per clip, {1e3 / median:6.1f} clips/s per core"
    )


if __name__ == "__main__":
    main()
