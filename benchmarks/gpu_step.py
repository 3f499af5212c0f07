"""A step of pre-training on a GPU, ours and the plain one of `plain.py`: one command of at most ten minutes.

    python -m benchmarks.gpu_step --out gpu_step.json
    python -m benchmarks.gpu_step --out gpu_step.json --corpus corpora/colonoscopic   # and the wait for its clips

Ours starts from uint8 frames that lie on the device and makes the ten views there; the plain one (float16 with a
scaler, as released) gets its views ready-made. Both are timed as training runs them, by the clock over some steps with
one wait at the end, and the median of three such stretches counts. Shares are of the bfloat16 product measured first;
operations are those of the network as published. Rows are written as they come, the most telling first, and none is
begun for which the time may not suffice. `--smoke` runs all of it on a CPU with a toy. Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.plain import PlainTrainer
from benchmarks.step import OurTrainer, make_views
from endocorpus.console import echo_table
from endofm.bench import hardware, time_loader
from endofm.config import load_config
from endofm.data.planes import lay_out, rgb_matrix
from endofm.data.views import ClipBatch, ViewConfig, apply_views, make_batch, plan_views
from endofm.models import ModelConfig
from endofm.models.flops import peak_flops_per_second
from endofm.models.speed import compile_blocks_, recompute_in_blocks_
from endofm.objectives.dino import DinoConfig

Step = Callable[[], object]


@dataclass(frozen=True)
class Scale:
    """What is measured: the recipe on a GPU, or a toy that shows that the program runs."""

    device: str
    model: ModelConfig
    head: DinoConfig
    views: ViewConfig
    clip: tuple[int, int, int]  # frames, height, width
    batches: tuple[int, ...]
    compared: tuple[int, ...]  # of these batch sizes, the plain step is measured as well
    dtype: torch.dtype
    plain_dtype: torch.dtype
    product: int  # side of the matrices whose product is the ceiling
    steps: int  # of a stretch
    backend: str


RECIPE = Scale(
    device="cuda",
    model=ModelConfig(),
    head=DinoConfig(),
    views=ViewConfig(),
    clip=(150, 256, 341),
    batches=(16, 8, 3, 32),
    compared=(16, 3),
    dtype=torch.bfloat16,
    plain_dtype=torch.float16,
    product=8192,
    steps=8,
    backend="inductor",
)
SMOKE = Scale(
    device="cpu",
    model=ModelConfig(embed_dim=16, depth=2, num_heads=2, image_size=32, num_frames=4),
    head=DinoConfig(prototypes=16, head_hidden=8, head_bottleneck=4),
    views=ViewConfig(global_frames=(2, 4), local_frames=(2, 2), global_size=32, local_size=16),
    clip=(12, 40, 48),
    batches=(2, 1),
    compared=(2, 1),
    dtype=torch.bfloat16,
    plain_dtype=torch.bfloat16,
    product=64,
    steps=1,
    backend="eager",
)


@dataclass(frozen=True)
class Row:
    """One way at one batch size; None is what could not be measured, and `note` says why."""

    way: str
    batch: int
    milliseconds: float | None = None
    clips_per_s: float | None = None
    tflop_per_s: float | None = None
    share_of_product: float | None = None
    mfu: float | None = None  # share of the data sheet's peak
    memory_gib: float | None = None
    kernels: int | None = None  # of a step
    first_seconds: float | None = None  # until the first step was done, compiling included
    note: str = ""


@dataclass
class Report:
    """What is written, after every row."""

    path: Path
    scale: Scale
    minutes: float
    about: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    longest: float = 0.0

    def has_time(self) -> bool:
        """Whether another row can be begun."""
        return time.perf_counter() - self.began + self.longest < 60 * self.minutes

    def write(self) -> None:
        """Everything so far, as JSON."""
        rows = [asdict(row) for row in self.rows]
        self.path.write_text(json.dumps({**self.about, **self.extra, "rows": rows}, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--corpus", type=Path, help="also measure the wait for the clips of this corpus")
    parser.add_argument("--minutes", type=float, default=9.0, help="that it may take (default: 9)")
    parser.add_argument("--smoke", action="store_true", help="a toy on the CPU")
    chosen = parser.parse_args(arguments)
    scale = SMOKE if chosen.smoke else RECIPE
    if scale.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --smoke runs a toy on the CPU")
    report = Report(chosen.out, scale, chosen.minutes, about(scale))
    report.extra["product_tflop_per_s"] = product_speed(scale)
    measure(report)
    if chosen.corpus:
        report.extra["loader"] = loader_wait(chosen.corpus, report)
    compare(report)
    report.write()
    show(report)


def about(scale: Scale) -> dict[str, Any]:
    """Where and when."""
    device = torch.cuda.get_device_name() if scale.device == "cuda" else "none: a toy on the CPU"
    return {"date": datetime.now(UTC).date().isoformat(), "device": device, "hardware": hardware()}


def measure(report: Report) -> None:
    """All ways: eager and plain first, then compiled, then with activations computed again."""
    scale = report.scale
    for way, batches, make in (
        ("ours", scale.batches, lambda: our_trainer(scale)),
        ("plain", scale.compared, lambda: plain_trainer(scale)),
        ("ours, compiled", scale.batches, lambda: our_trainer(scale, compiled=True)),
        ("ours, recomputing", scale.batches[-1:], lambda: our_trainer(scale, recompute=True)),
    ):
        trainer = make()
        for batch in batches:
            began = time.perf_counter()
            row = (
                measure_row(report, way, trainer, batch) if report.has_time() else Row(way, batch, note="no time left")
            )
            report.longest = max(report.longest, time.perf_counter() - began)
            report.rows.append(row)
            report.write()
        del trainer
        if scale.device == "cuda":
            torch.cuda.empty_cache()


def our_trainer(scale: Scale, *, compiled: bool = False, recompute: bool = False) -> OurTrainer:
    """Ours, in one of its ways."""
    trainer = OurTrainer(scale.head, scale.model, device=scale.device, dtype=scale.dtype)
    if recompute:
        recompute_in_blocks_(trainer.objective)
    if compiled:
        compile_blocks_(trainer.objective, trainer.device, backend=scale.backend)
    return trainer


def plain_trainer(scale: Scale) -> PlainTrainer:
    """The plain one; what it computes in is that of the released code where the device has it."""
    return PlainTrainer(scale.head, scale.model, device=scale.device, dtype=scale.plain_dtype)


def measure_row(report: Report, way: str, trainer: OurTrainer | PlainTrainer, batch: int) -> Row:
    """Time one way at one batch size, its memory and its kernels."""
    scale = report.scale
    try:
        step = make_step(scale, trainer, batch)
        if scale.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        step()
        wait(scale)
        first = time.perf_counter() - began
        step()
        seconds = statistics.median(stretch(scale, step) for _ in range(3))
        memory = torch.cuda.max_memory_allocated() / 2**30 if scale.device == "cuda" else None
        kernels = count_kernels(scale, step)
    except torch.cuda.OutOfMemoryError:
        return Row(way, batch, note="out of memory")
    finally:
        trainer.forget_gradients()
    flops = batch * step_flops(scale) / seconds
    peak = peak_flops_per_second(report.about["device"])
    return Row(
        way,
        batch,
        milliseconds=seconds * 1e3,
        clips_per_s=batch / seconds,
        tflop_per_s=flops / 1e12,
        share_of_product=flops / 1e12 / report.extra["product_tflop_per_s"],
        mfu=flops / peak if peak else None,
        memory_gib=memory,
        kernels=kernels,
        first_seconds=first,
    )


def make_step(scale: Scale, trainer: OurTrainer | PlainTrainer, batch: int) -> Step:
    """One step, from what lies on the device before it."""
    if isinstance(trainer, PlainTrainer):
        views = make_views(scale.views, batch, scale.device)
        return lambda: trainer.step(views)
    clips = make_clips(scale, batch).to(scale.device)
    return lambda: trainer.step(apply_views(clips, scale.device))


def make_clips(scale: Scale, batch: int) -> ClipBatch:
    """Noise, with views planned as for clips."""
    rng = np.random.default_rng(0)
    plans = [plan_views(*scale.clip, scale.views, rng) for _ in range(batch)]
    cuts, size = lay_out(plans, [scale.clip[1:]] * batch)
    pixels = torch.randint(0, 256, (size,), dtype=torch.uint8)
    to_rgb = [rgb_matrix(0, full=False)] * batch
    keys = [str(index) for index in range(batch)]
    return make_batch(pixels, cuts, to_rgb, plans, scale.views, keys, list(range(batch)))


def stretch(scale: Scale, step: Step) -> float:
    """Seconds of a step, over some of them."""
    wait(scale)
    began = time.perf_counter()
    for _ in range(scale.steps):
        step()
    wait(scale)
    return (time.perf_counter() - began) / scale.steps


def wait(scale: Scale) -> None:
    """Until the device is done."""
    if scale.device == "cuda":
        torch.cuda.synchronize()


def count_kernels(scale: Scale, step: Step) -> int:
    """Kernels that one step launches; on a CPU, the operations of torch that it calls."""
    activity = ProfilerActivity.CUDA if scale.device == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        step()
        wait(scale)
    if scale.device == "cuda":
        copies = ("Memcpy", "Memset")
        return sum(event.count for event in profiler.key_averages() if not event.key.startswith(copies))
    return sum(event.count for event in profiler.key_averages() if event.key.startswith("aten::"))


def product_speed(scale: Scale) -> float:
    """TFLOP/s of a large product in bfloat16: what the device can do at best."""
    a, b = (torch.randn(scale.product, scale.product, device=scale.device, dtype=torch.bfloat16) for _ in range(2))
    multiply: Callable[[], Tensor] = lambda: a @ b  # noqa: E731
    multiply()
    return 2 * scale.product**3 / min(stretch(scale, multiply) for _ in range(5)) / 1e12


def step_flops(scale: Scale) -> int:
    """Of one clip."""
    with torch.device("meta"):
        trainer = OurTrainer(scale.head, scale.model, device="meta")
    return trainer.objective.step_flops(scale.views.view_shapes)


def loader_wait(corpus: Path, report: Report) -> dict[str, Any]:
    """How long training at the speed of our fastest row would wait for the clips of a corpus."""
    fastest = max((row for row in report.rows if row.clips_per_s), key=lambda row: row.clips_per_s or 0.0)
    assert fastest.milliseconds is not None
    config = load_config("debug" if report.scale.device == "cpu" else "endofm", [f"run.batch_size={fastest.batch}"])
    workers = 1 if report.scale.device == "cpu" else config.run.num_workers
    return asdict(time_loader([corpus], config, steps=4, workers=workers, step_seconds=fastest.milliseconds / 1e3))


def compare(report: Report) -> None:
    """Ours against plain at equal batch sizes: the better one of ours."""
    ratios = {}
    for batch in report.scale.compared:
        plain = [row.clips_per_s for row in report.rows if (row.way, row.batch) == ("plain", batch) and row.clips_per_s]
        ours = [r.clips_per_s for r in report.rows if r.way.startswith("ours") and r.batch == batch and r.clips_per_s]
        if plain and ours:
            ratios[str(batch)] = max(ours) / plain[0]
    report.extra["ours_to_plain"] = ratios


def show(report: Report) -> None:
    """Print the table."""
    header = ("way", "clips", "ms", "clips/s", "TFLOP/s", "of product", "MFU", "GiB", "kernels", "first s", "")
    formats = ("{}", "{}", "{:.1f}", "{:.2f}", "{:.2f}", "{:.1%}", "{:.1%}", "{:.1f}", "{}", "{:.1f}", "{}")
    rows = [
        tuple(
            "" if value is None else form.format(value)
            for form, value in zip(formats, asdict(row).values(), strict=True)
        )
        for row in report.rows
    ]
    told = report.about
    echo_table(f"{told['date']}, {told['device']}; {told['hardware']}", header, rows)
    print(f"product in bfloat16: {report.extra['product_tflop_per_s']:.1f} TFLOP/s")
    for batch, ratio in report.extra["ours_to_plain"].items():
        print(f"ours / plain at {batch} clips: {ratio:.2f}")
    if loader := report.extra.get("loader"):
        print(f"waiting for data: {loader['wait_share']:.1%} with {loader['workers']} processes")


if __name__ == "__main__":
    main()
