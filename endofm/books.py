"""What is written down and said of the steps of a run: counts, rows, skipped steps, alarms.

All of it is the same on all processes, so that they agree on what follows; one of them writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from endocorpus.errors import DataError
from endofm.data.quarantine import Replaced
from endofm.data.tally import Tally
from endofm.distributed import all_reduce_mean_, gathered
from endofm.health import Alarms
from endofm.metrics import Cost, MetricsFile, RunLog
from endofm.run import Run
from endofm.sinks import Sink, open_sinks
from endofm.stopping import Stop


@dataclass(frozen=True)
class Step:
    """What a step leaves behind until its numbers are fetched from the device.

    Attributes:
        number: of the step, from 0.
        known: numbers that are the same on all processes.
        measures: scalars of this process, still on the device.
        counts: what this process adds to the sums over the run.
        keys: of this process's clips.
        replaced: the bad ones among them.
    """

    number: int
    known: dict[str, float]
    measures: dict[str, Tensor]
    counts: dict[str, float]
    keys: tuple[str, ...]
    replaced: tuple[Replaced, ...]


def fetch(pending: Sequence[Step], stop: Stop) -> tuple[list[dict[str, float]], bool]:
    """The rows of these steps for the metrics file, equal on all processes, and whether any of them wants to stop.

    One message between the processes and one wait for the device, whatever was measured.
    """
    measures = torch.stack([torch.stack([value.float() for value in step.measures.values()]) for step in pending])
    asked = torch.full_like(measures[:1, :1], float(stop.is_set()))
    counts = measures.new_tensor([list(step.counts.values()) for step in pending])
    everything = all_reduce_mean_(torch.cat([asked.flatten(), measures.flatten(), counts.flatten()])).tolist()
    wants, values = everything[0] > 0, iter(everything[1:])
    rows = [step.known | {key: next(values) for key in step.measures} for step in pending]
    for step, row in zip(pending, rows, strict=True):
        row |= {key: next(values) for key in step.counts}
    return rows, wants


@dataclass
class Skips:
    """Steps whose numbers were not finite: they moved nothing, and a few in a row end the run.

    All processes see the same averages, so they agree.
    """

    allowed: int
    in_a_row: int = field(default=0, init=False)

    def count(self, step: Step, row: dict[str, float]) -> list[str]:
        """Take note of a step, and say if it was skipped; too many in a row are a DataError that names its clips."""
        if math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]):
            self.in_a_row = 0
            return []
        self.in_a_row += 1
        if self.in_a_row > self.allowed:
            keys = ", ".join(gathered(step.keys))
            raise DataError(
                f"step {step.number}: the loss is {row['loss']}, its gradient's norm {row['grad_norm']}, in "
                f"{self.in_a_row} steps in a row; clips: {keys}. The weights are those of before. Look at these clips; "
                "if they are sound, start in another --run-dir with run.precision = 'fp32' or a lower "
                "optim.lr_per_256_clips"
            )
        return [f"skipped: the loss is {row['loss']}, its gradient's norm {row['grad_norm']}; it has moved no weights"]


@dataclass
class Books:
    """The books of a run. What was written is safe once `log` is closed."""

    run: Run
    tally: Tally
    log: RunLog
    skips: Skips
    alarms: Alarms = field(default_factory=Alarms)
    pending: list[Step] = field(default_factory=list)
    _last_row: dict[str, float] | None = None

    @property
    def settle_every(self) -> int:
        """Steps between looks at their numbers: a GPU would have to stop and wait each time."""
        return 1 if self.run.world.device.type == "cpu" else self.run.config.run.log_every

    def take(self, step: Step) -> None:
        """Take in a step whose numbers may not be known yet."""
        self.pending.append(step)

    def settle(self, stop: Stop, waited_seconds: float) -> bool:
        """Fetch the numbers of the steps taken in, write them down, and say whether any process wants to stop.

        Args:
            stop: where this process is asked to.
            waited_seconds: spent waiting for batches so far.

        Raises:
            DataError: too many clips are bad, or too many steps in a row were skipped.
        """
        if not self.pending:
            return False
        steps, (rows, stopping) = tuple(self.pending), fetch(self.pending, stop)
        self.pending.clear()
        for step, row in zip(steps, rows, strict=True):
            for told in self.tally.note(step.number, row, step.replaced):
                self.run.say(f"step {step.number}: {told}")
        stop.step_seconds = self.log.steps(rows, waited_seconds)
        for step, row in zip(steps, rows, strict=True):
            for warning in (*self.skips.count(step, row), *self.alarms.hear(row)):
                self.run.say(f"step {step.number}: {warning}")
        self._last_row = rows[-1]
        return stopping

    def tell(self) -> None:
        """Print a line about the step that was settled last, if it is time to."""
        if self._last_row is not None:
            self.log.tell(self._last_row)
            self._last_row = None


def open_books(run: Run, start_step: int) -> Books:
    """The books of a run that goes on with `start_step`."""
    tally = Tally(run.run_dir, run.clips, run.world, start_step, run.config.data)
    books = Books(run, tally, _open_log(run, start_step), Skips(run.config.run.skipped_steps))
    if tally.lost:
        run.say(
            f"{run.run_dir / 'metrics.jsonl'}: lacks the rows of {tally.lost} of the {start_step} steps done; "
            "clips_seen counts without them"
        )
    return books


def _open_log(run: Run, start_step: int) -> RunLog:
    config, world = run.config, run.world
    sinks: list[Sink] = []
    if world.is_main:
        extra = open_sinks(
            run.run_dir,
            start_step,
            tensorboard=config.run.tensorboard,
            wandb=config.run.wandb,
            config=config.model_dump(mode="json"),
        )
        sinks = [MetricsFile(run.run_dir / "metrics.jsonl", start_step), *extra]
    flops = run.objective.step_flops(config.views.view_shapes)
    return RunLog(
        sinks,
        run.console,
        start_step=start_step,
        total_steps=run.total_steps,
        log_every=config.run.log_every,
        cost=Cost(config.run.batch_size, flops, world.device, world.peak_flops_per_s),
    )
