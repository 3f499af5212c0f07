"""How fast clips are loaded here: what one core does, what a training process gets, and how long it would wait.

Times of the loader itself are CPU times, which a busy machine moves less than the clock on the wall.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import torch

from endocorpus.errors import UsageError
from endofm.config import PretrainConfig
from endofm.data.batches import load_batch
from endofm.data.clips import ClipSet, load_clips
from endofm.data.loader import make_loader
from endofm.data.places import shard_cache
from endofm.data.sampler import ClipSampler
from endofm.data.settings import decided
from endofm.data.stream import ShardReader

_LONGEST_STEP = 60  # seconds, which are slept for again and again
_WARM_UP = 2  # steps that are not counted: files that are read for the first time, memory that is touched for the first


@dataclass(frozen=True)
class LoaderSpeed:
    """What `time_loader` found.

    Attributes:
        hardware: processor, cores, how busy they are, versions.
        clips: of the corpora.
        samples_per_core_second: clips with all their views planned, fetched, verified and decoded, by one core.
        milliseconds: of CPU that a clip takes, the median over the steps.
        megabytes: that go to the device for each clip, in 10^6 bytes.
        workers: processes that the figures below are about; None below if 0.
        samples_per_second: by the clock, with no training in between.
        trainer_milliseconds: of CPU that receiving a clip costs the trainer.
        wait_share: of the time of training, spent waiting for clips, if a step took `step_seconds` by itself.
        step_seconds: that.
    """

    hardware: str
    clips: int
    samples_per_core_second: float
    milliseconds: float
    megabytes: float
    workers: int
    samples_per_second: float | None = None
    trainer_milliseconds: float | None = None
    wait_share: float | None = None
    step_seconds: float | None = None


def time_loader(
    corpora: Sequence[Path | str],
    config: PretrainConfig,
    *,
    steps: int = 10,
    workers: int = 1,
    step_seconds: float | None = None,
) -> LoaderSpeed:
    """Load `steps` batches in this process, then as many from worker processes, and see what it takes.

    Args:
        corpora: folders or addresses.
        config: whose views, batch size, seed and [data] count.
        steps: that are timed of each kind, after two that are not.
        workers: decoding processes; none are started if 0.
        step_seconds: how long a step of training takes; `wait_share` is only measured if it is given.

    Raises:
        UsageError, DataError: as pre-training on these corpora would.
    """
    if step_seconds is not None and not 0 <= step_seconds <= _LONGEST_STEP:
        raise UsageError(f"--step-seconds {step_seconds:g}: expected 0 to {_LONGEST_STEP} seconds")
    if step_seconds is not None and workers == 0:
        raise UsageError("--step-seconds tells the wait for decoding processes, and --workers 0 has none; drop one")
    clips = load_clips(corpora, data=config.data)
    config = config.model_copy(update={"data": decided(config.data, is_remote=clips.is_remote)})
    milliseconds, megabytes = _alone(clips, config, steps)
    speed = LoaderSpeed(hardware(), len(clips), 1e3 / milliseconds, milliseconds, megabytes, workers)
    if workers == 0:
        return speed
    rate, trainer_milliseconds, _ = _shipped(clips, config, steps, workers, 0.0)
    speed = dataclasses.replace(speed, samples_per_second=rate, trainer_milliseconds=trainer_milliseconds)
    if step_seconds is None:
        return speed
    _, _, wait_share = _shipped(clips, config, steps, workers, step_seconds)
    return dataclasses.replace(speed, wait_share=wait_share, step_seconds=step_seconds)


def _alone(clips: ClipSet, config: PretrainConfig, steps: int) -> tuple[float, float]:
    """CPU milliseconds and megabytes of a clip, in this process and on one thread."""
    batch_size, memory = config.run.batch_size, ReusedMemory()
    sampler = ClipSampler(len(clips), batch_size, seed=config.run.seed)
    times, size = [], 0
    with ShardReader(shard_cache(config.data)) as reader:
        for step in range(_WARM_UP + steps):
            positions, rows = sampler.positions(step).tolist(), sampler.rows(step).tolist()
            began = time.process_time()
            batch = load_batch(clips, rows, positions, config.views, seed=config.run.seed, reader=reader, memory=memory)
            times.append((time.process_time() - began) / batch_size * 1e3)
            size += batch.num_bytes
    return statistics.median(times[_WARM_UP:]), size / (_WARM_UP + steps) / batch_size / 1e6


def _shipped(
    clips: ClipSet, config: PretrainConfig, steps: int, workers: int, step_seconds: float
) -> tuple[float, float, float]:
    """Clips per second by the clock, the trainer's CPU milliseconds for each, and the share of time spent waiting.

    The trainer sleeps for `step_seconds` where it would compute.
    """
    batch_size, first = config.run.batch_size, (_WARM_UP + 1) * workers + 1  # what lies ready before the clock starts
    loader = make_loader(
        clips,
        config.views,
        batch_size=batch_size,
        seed=config.run.seed,
        start_step=0,
        stop_step=first + steps,
        num_workers=workers,
        data=config.data,
    )
    with closing(loader):
        for _ in range(first):
            next(loader)
        waited, began, began_cpu = loader.waited_seconds, time.perf_counter(), time.process_time()
        for _ in range(steps):
            next(loader)
            time.sleep(step_seconds)
        seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        waited = loader.waited_seconds - waited
    received = steps * batch_size
    return received / seconds, cpu / received * 1e3, waited / seconds


class ReusedMemory:
    """One piece of memory for all batches: what a worker's ring does, in one process."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def __call__(self, size: int) -> torch.Tensor:
        """So many bytes, uint8, holding what was left there."""
        if len(self._memory) < size:
            self._memory = torch.zeros(size + size // 4, dtype=torch.uint8)
        return self._memory[:size]


def hardware() -> str:
    """One line: processor, cores, how busy they are, system, Python, torch and PyAV."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return (
        f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, PyAV {av.__version__}"
    )
