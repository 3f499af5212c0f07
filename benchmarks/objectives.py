"""The objectives beside each other: cost per clip, memory, and what their features are good for at equal clips seen.

    python -m benchmarks.objectives --out runs/learning

Renders and builds the corpora of `benchmarks.learning` first, unless they lie in that folder, and trains every arm on
one of them at the size of the recipe `tiny`. Cost: operations of a step from shapes, for the toy here and for ViT-B as
the recipes have it; CPU seconds of loss, backward pass and moving averages on one thread, the least of some rounds in
which all arms take turns, by that of dino; bytes that a step keeps for its backward pass. Features: the neighbours of
the clips of the other corpus, before and after training, for each seed. What a toy learns from rendered video tells
whether an objective works, not which one is best.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from benchmarks import learning
from endofm.bench import hardware
from endofm.config import PretrainConfig, load_config
from endofm.models import load_backbone
from endofm.objectives import Objective, create_objective
from endofm.optim import Horizon
from endofm.pretrain import pretrain
from endofm.probe import Probe, ask, load_probe
from endofm.start import freeze_

COMMON = ("run.checkpoint_every=100000", "run.num_workers=0", "run.log_every=100000")
MASKED = (
    "objective.kind=masked", "objective.patch_prototypes=64", "objective.decoder_width=32",
    "objective.decoder_depth=2", "objective.decoder_heads=2",
)  # fmt: skip
VCL = (
    "views.kind=pairs", "views.frames=2", "views.size=64", "objective.kind=vcl", "objective.concepts=16",
    "objective.concept_width=64", "objective.projection=32", "objective.queue=64",
)  # fmt: skip
ARMS = {
    "dino": (),
    "masked": MASKED,
    "vcl": VCL,
    "dino, st24 in frozen random weights": ("model.adapters=st24", "model.adapter_width=32"),
}
BASE = "tiny"
RECIPES = {"dino": "endofm", "masked": "endofm-masked", "vcl": "endofm-vcl"}


@dataclass
class Row:
    """One arm's figures.

    Attributes:
        gflops: operations of a step for each clip of the toy, 10^9.
        base_tflops: of ViT-B with the recipe's views, 10^12.
        cpu_ratio: CPU seconds of a step, by those of dino.
        kept_mb: megabytes that a step keeps for its backward pass, for each clip.
        before: balanced kNN accuracy of the exported network before training, for each seed.
        after: the same after it.
    """

    gflops: float
    base_tflops: float | None
    cpu_ratio: float
    kept_mb: float
    before: list[float]
    after: list[float]


def main() -> None:
    """Measure all arms, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for recordings, corpora and results")
    parser.add_argument("--steps", type=int, default=1200, help="of each run (default: 1200)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rounds", type=int, default=5, help="of the timing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, (seed, lesions) in learning.SETS.items():
        learning.make_corpus(arguments.out, name, seed, lesions)
    corpus, probe = arguments.out / "train", load_probe(arguments.out / "heldout", "finding")
    with tempfile.TemporaryDirectory() as folder:
        seconds, kept = costs(arguments.rounds)
        rows = {}
        for arm, overrides in ARMS.items():
            before, after = [], []
            for seed in arguments.seeds:
                sets = [*COMMON, *overrides, f"run.length={arguments.steps} steps", f"run.seed={seed}"]
                config = load_config(BASE, sets)
                before.append(accuracy(make(config).encoder, probe))
                after.append(trained(config, corpus, Path(folder) / f"{list(ARMS).index(arm)}-{seed}", probe))
            rows[arm] = Row(
                gflops=flops(load_config(BASE, overrides)) / 1e9,
                base_tflops=flops(load_config(RECIPES[arm])) / 1e12 if arm in RECIPES else None,
                cpu_ratio=seconds[arm] / seconds["dino"],
                kept_mb=kept[arm] / 1e6,
                before=before,
                after=after,
            )
    report(rows, arguments, probe)


def make(config: PretrainConfig) -> Objective:
    """The objective as a run begins with it."""
    torch.manual_seed(config.run.seed)
    horizon = Horizon.of(config.run.length, num_clips=100, batch_size=config.run.batch_size)
    objective = create_objective(
        config.objective, config.model.shape, num_globals=config.views.num_globals, horizon=horizon
    )
    freeze_(objective, share=True)
    return objective


def flops(config: PretrainConfig) -> float:
    """Operations of a step for each clip."""
    with torch.device("meta"):
        return make(config).step_flops(config.views.view_shapes)


def costs(rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """CPU seconds of a step on a batch of noise, and bytes kept for each clip's backward pass, of every arm."""
    steps = {arm: stepper(load_config(BASE, [*COMMON, *overrides])) for arm, overrides in ARMS.items()}
    kept = {arm: step() for arm, step in steps.items()}
    seconds = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds):
        for arm, step in steps.items():
            began = time.process_time()
            step()
            seconds[arm] = min(seconds[arm], time.process_time() - began)
    return seconds, kept


def stepper(config: PretrainConfig) -> Callable[[], float]:
    """A function that does a step, but for the optimiser, and says how many bytes a clip kept for going backwards."""
    objective, clips = make(config), config.run.batch_size
    views = [torch.randn(clips, 3, frames, size, size) for frames, size in config.views.view_shapes]

    def step() -> float:
        held: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = objective.loss(views, step=10**6)  # late, so that every part of the loss takes part
        weights = {weight.untyped_storage().data_ptr() for weight in objective.parameters()}
        output.loss.backward()
        objective.zero_grad()
        objective.after_step(0)
        return sum(size for place, size in held.items() if place not in weights) / clips

    return step


def trained(config: PretrainConfig, corpus: Path, run_dir: Path, probe: Probe) -> float:
    """Accuracy after a run."""
    backbone = pretrain(config, [corpus], run_dir, console=Console(quiet=True)).backbone
    assert backbone is not None
    return accuracy(load_backbone(backbone), probe)


def accuracy(backbone: torch.nn.Module, probe: Probe) -> float:
    """Balanced; the networks of all arms are shown the views of `BASE`."""
    return ask(backbone, probe, load_config(BASE).views)[learning.KNN]


def report(rows: dict[str, Row], arguments: argparse.Namespace, probe: Probe) -> None:
    """Print the table, and write it."""
    print(f"{hardware()}; {arguments.steps} steps of 16 clips, seeds {arguments.seeds}; {len(probe)} clips asked")
    print("| objective | GFLOP a clip | ViT-B, TFLOP a clip | CPU, by dino | MB kept a clip | kNN before | after |")
    print("|---|---|---|---|---|---|---|")
    for arm, row in rows.items():
        base = f"{row.base_tflops:.2f}" if row.base_tflops else "-"
        accuracies = " | ".join(spread(values) for values in (row.before, row.after))
        print(f"| {arm} | {row.gflops:.2f} | {base} | {row.cpu_ratio:.2f} | {row.kept_mb:.1f} | {accuracies} |")
    told = {
        "hardware": hardware(), "steps": arguments.steps, "seeds": arguments.seeds, "clips_asked": len(probe),
        "classes": probe.classes, "arms": {arm: asdict(row) for arm, row in rows.items()},
    }  # fmt: skip
    (arguments.out / "objectives.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def spread(values: list[float]) -> str:
    """Mean and deviation over the seeds."""
    deviation = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


if __name__ == "__main__":
    main()
