"""A whole step of pre-training, ours and the plain one of `plain.py`, on the CPU: the model, not the data.

    python -m benchmarks.step                          # ViT-B, the ten views, one clip: some minutes, 16 GB
    python -m benchmarks.step --depth 3 --rounds 4     # the same products, but of three blocks alone

Both ways and both precisions take turns within one process, each round one step of each, and the least of the rounds
counts, as CPU time (and by the wall clock), since other work on the machine can only add to it. Ratios within one run
are what to compare. Views are noise: their contents do not change the work.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.plain import PlainTrainer
from endofm.bench import hardware
from endofm.data.views import ViewConfig
from endofm.models import SHAPES, ModelConfig
from endofm.objectives.dino import Dino, DinoConfig
from endofm.optim import Horizon, clip_each_, make_optimizer, schedule_, skip_if_not_finite_

MODELS = {
    "base": ModelConfig(),
    "small": SHAPES["vit_small_patch16"],
    "tiny": ModelConfig(embed_dim=64, depth=2, num_heads=2),
}
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


@dataclass
class Clock:
    """Adds up the time of the parts of a step.

    Attributes:
        read: seconds, of any origin.
        parts: seconds of each part, of the step at hand.
    """

    read: Callable[[], float] = time.process_time
    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Time what happens inside, under this name."""
        began = self.read()
        yield
        self.parts[name] += self.read() - began


class OurTrainer:
    """What `endofm.pretrain` does in a step once the views are there."""

    def __init__(
        self, config: DinoConfig, model: ModelConfig, *, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        horizon = Horizon.of("1000 steps", num_clips=1, batch_size=1)
        self.objective = Dino(config, model, num_globals=2, horizon=horizon).to(device)
        self.optimizer = make_optimizer(self.objective)
        self._number = 0

    def step(self, views: Sequence[Tensor], clock: Clock | None = None) -> Tensor:
        """One step of training; returns its loss, still on the device."""
        section = (clock or Clock()).section
        schedule_(self.optimizer, lr=2e-5, weight_decay=0.04)
        self.optimizer.zero_grad()
        with (
            timed(self.objective.teacher, "teacher", clock),
            timed(self.objective.student, "student", clock),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None),
        ):
            loss = self.objective(views, self._number).loss
        with section("backward"):
            loss.backward()
        with section("clip"):
            norm = clip_each_(self.objective.parameters(), 3.0)
            skip_if_not_finite_(self.optimizer, norm)
        with section("optimiser"):
            self.optimizer.step()
        with section("average"):
            self.objective.after_step(self._number)
        self._number += 1
        return loss.detach()

    def forget_gradients(self) -> None:
        """Give their memory back."""
        self.optimizer.zero_grad()


@contextlib.contextmanager
def timed(module: torch.nn.Module, name: str, clock: Clock | None) -> Iterator[None]:
    """Time the calls of `module` inside."""
    if clock is None:
        yield
        return
    stack = contextlib.ExitStack()
    before = module.register_forward_pre_hook(lambda *_: stack.enter_context(clock.section(name)) and None)
    after = module.register_forward_hook(lambda *_: stack.close())
    yield
    before.remove()
    after.remove()


class PlainWay:
    """The plain step under the same interface."""

    def __init__(
        self, config: DinoConfig, model: ModelConfig, *, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> None:
        self.trainer, self.dtype = PlainTrainer(config, model, device=device, dtype=dtype), dtype

    def step(self, views: Sequence[Tensor], clock: Clock | None = None) -> float:
        """One step of training."""
        self.trainer.dtype = self.dtype
        return self.trainer.step(views, section=(clock or Clock()).section)


def make_views(config: ViewConfig, batch: int, device: str = "cpu") -> list[Tensor]:
    """Noise in the shapes of the recipe."""
    return [torch.randn(batch, 3, frames, size, size, device=device) for frames, size in config.view_shapes]


@dataclass
class Best:
    """The least of the rounds: CPU seconds, seconds by the wall clock, CPU seconds of the parts."""

    cpu: float = float("inf")
    wall: float = float("inf")
    parts: dict[str, float] = field(default_factory=dict)

    def take(self, way: OurTrainer | PlainWay, dtype: torch.dtype | None, views: Sequence[Tensor]) -> None:
        """Run one step."""
        way.dtype = dtype
        clock, began, wall = Clock(), time.process_time(), time.perf_counter()
        way.step(views, clock)
        cpu, wall = time.process_time() - began, time.perf_counter() - wall
        self.wall = min(self.wall, wall)
        if cpu < self.cpu:
            self.cpu, self.parts = cpu, dict(clock.parts)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(MODELS), default="base")
    parser.add_argument("--depth", type=int, help="blocks, if not all")
    parser.add_argument("--batch", type=int, default=1, help="clips (default: 1)")
    parser.add_argument("--rounds", type=int, default=2, help="timed steps of each way, after one (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--only", choices=("ours", "plain"), help="one way alone")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="one precision alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = MODELS[arguments.model]
    model = model.model_copy(update={"depth": arguments.depth or model.depth})
    views = make_views(ViewConfig(), arguments.batch)
    kinds = {"ours": OurTrainer, "plain": PlainWay}
    ways = {name: kind(DinoConfig(), model) for name, kind in kinds.items() if arguments.only in (None, name)}
    dtypes = {key: PRECISIONS[key] for key in PRECISIONS if arguments.precision in (None, key)}
    best = {(name, precision): Best() for name in ways for precision in dtypes}
    print(hardware())
    print(
        f"torch {torch.__version__}, {arguments.threads} threads; ViT {arguments.model}, {model.depth} blocks, "
        f"{arguments.batch} clips"
    )
    for number in range(arguments.rounds + 1):
        for (name, precision), least in best.items():
            (least if number else Best()).take(ways[name], dtypes[precision], views)
    show(best)


def show(best: dict[tuple[str, str], Best]) -> None:
    """Print the seconds, and every ratio that the run allows."""
    for (name, precision), taken in best.items():
        parts = "  ".join(f"{part} {seconds:.2f}" for part, seconds in taken.parts.items())
        print(f"{name:<6} {precision}  {taken.cpu:7.2f} s CPU  {taken.wall:7.2f} s wall   {parts}")
    for precision in ("fp32", "bf16"):
        if {("ours", precision), ("plain", precision)} <= set(best):
            ratio = best["plain", precision].cpu / best["ours", precision].cpu
            print(f"plain / ours, {precision}: {ratio:.2f}")
    for name in ("ours", "plain"):
        if {(name, "fp32"), (name, "bf16")} <= set(best):
            print(f"fp32 / bf16, {name}: {best[name, 'fp32'].cpu / best[name, 'bf16'].cpu:.2f}")


if __name__ == "__main__":
    main()
