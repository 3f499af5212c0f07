"""Pre-training, top to bottom: world, clips, objective, optimiser, resume, loop, export.

A run lives in its folder: `checkpoints/`, `metrics.jsonl`, `corpora.json` and, at the end, `backbone.safetensors`.
Starting it again in the same folder goes on from the newest checkpoint. On a CPU that is exact to the last bit, given
the same number of threads (torch splits its sums by thread): every random draw follows from seed and step, and nothing
but weights, moments and the centre is carried from one step to the next.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from endocorpus.corpus.files import atomic_file, sole_user
from endocorpus.corpus.manifest import DESCRIPTOR, SHARDS
from endocorpus.errors import DataError, UsageError
from endofm import checkpoint as ckpt
from endofm.config import UNCOMPARED, PretrainConfig
from endofm.data.clips import ClipSet, load_clips
from endofm.data.loader import make_loader
from endofm.data.views import ClipBatch, apply_views, told_of_short_clips
from endofm.distributed import World, all_reduce_mean_, barrier, data_parallel, gather_keys, join_world
from endofm.metrics import RunLog
from endofm.objectives import Objective
from endofm.objectives.dino import Dino
from endofm.optim import Horizon, Schedule, clip_each_, make_optimizer, schedule_

_CORPORA = "corpora.json"


@dataclass(frozen=True)
class PretrainResult:
    """How a run ended.

    Attributes:
        steps: done so far, over all its starts.
        total_steps: that it is meant to do.
        backbone: the exported weights, or None after an interruption.
        is_main: whether this process is the one that speaks to the user.
    """

    steps: int
    total_steps: int
    backbone: Path | None
    is_main: bool

    @property
    def exit_code(self) -> int:
        """For the shell: 0 when the run is complete, 75 ("try again later") when a signal ended it early."""
        return 0 if self.backbone else 75


@dataclass(frozen=True)
class Run:
    """The parts of a run, put together."""

    config: PretrainConfig
    run_dir: Path
    world: World
    console: Console
    clips: ClipSet
    schedule: Schedule
    objective: Objective
    optimizer: torch.optim.Optimizer

    @property
    def total_steps(self) -> int:
        return self.schedule.horizon.total_steps


def pretrain(
    config: PretrainConfig,
    corpora: Sequence[Path],
    run_dir: Path,
    *,
    mix: Path | None = None,
    console: Console | None = None,
) -> PretrainResult:
    """Train until done, or until SIGTERM or SIGINT asks to finish the current step and leave a checkpoint.

    Args:
        config: what to compute; see `endofm.config.load_config`.
        corpora: corpus folders to train on; their order is part of the data order.
        run_dir: made if need be; if it holds checkpoints of the same run, that run goes on.
        mix: which of their clips, and how often; all of them, once an epoch, if None. See `load_clips`.
        console: where a line is printed now and then; standard error if None.

    Raises:
        UsageError: the configuration does not fit the clips, the processes, or the checkpoint in `run_dir`.
        DataError: a corpus, mixture or checkpoint cannot be used, a file cannot be written, or training has diverged.
    """
    console = console or Console(stderr=True, markup=False, highlight=False)
    if any((run_dir / name).exists() for name in (DESCRIPTOR, SHARDS)):
        raise UsageError(f"{run_dir}: is the folder of a corpus; name another --run-dir")
    with (
        join_world(config.run.device) as world,
        _deterministic(world.device),
        _stop_on_signals(console) as stop,
    ):
        # What is refused here leaves no folder.
        run = _assemble(config, load_clips(corpora, mix), run_dir, world, console)
        with _sole_writer(run_dir, world):
            start_step = _resume(run)
            steps = _train(run, start_step, stop)
            backbone = _export(run) if steps == run.total_steps else None
            barrier()  # or torchrun, seeing another process end, might end this one in the middle of a file
    return PretrainResult(steps, run.total_steps, backbone, world.is_main)


def _assemble(config: PretrainConfig, clips: ClipSet, run_dir: Path, world: World, console: Console) -> Run:
    batch_size = config.run.batch_size
    if batch_size % world.size:
        raise UsageError(f"run.batch_size = {batch_size} cannot be shared equally by {world.size} processes")
    horizon = Horizon.of(config.run.length, num_clips=len(clips), batch_size=batch_size)
    schedule = Schedule(config.optim, horizon, batch_size)
    torch.manual_seed(config.run.seed)  # on every rank the same: all start from the same weights
    objective = Dino(config.objective, config.model, num_globals=len(config.views.global_frames), horizon=horizon)
    objective.to(world.device)
    return Run(config, run_dir, world, console, clips, schedule, objective, make_optimizer(objective))


def _resume(run: Run) -> int:
    """Load the newest checkpoint, if there is one, and return the step to begin with."""
    path = ckpt.latest_checkpoint(run.run_dir)
    if path is None:
        if (run.run_dir / "metrics.jsonl").exists() and (run.run_dir / "backbone.safetensors").exists():
            raise UsageError(
                f"{run.run_dir}: holds a finished run without its checkpoints, which would be overwritten; "
                "name another --run-dir"
            )
        _note_corpora(run)
        return 0
    saved = ckpt.load_checkpoint(path)
    _refuse_another_run(path, saved, run)
    run.objective.load_state_dict(saved.objective)
    run.optimizer.load_state_dict(saved.optimizer)
    if run.world.is_main:
        run.console.print(f"going on from {path}", highlight=False, soft_wrap=True)
        if run.world.device.type == "cpu" and saved.versions["threads"] != str(torch.get_num_threads()):
            run.console.print("the number of threads has changed since: the last bits of the weights may differ")
    return saved.step


def _note_corpora(run: Run) -> None:
    """Leave a note of the corpora for whoever looks into the folder, and for the day on which they have changed."""
    if run.world.is_main:
        with atomic_file(run.run_dir / _CORPORA) as file:
            file.write(json.dumps(dict(run.clips.corpora), indent=2).encode() + b"\n")


def _train(run: Run, start_step: int, stop: Stop) -> int:
    """The loop. Returns the number of steps done: all of them, unless `stop` was set on any process."""
    config, world = run.config, run.world
    model = data_parallel(run.objective, world)
    loader = make_loader(
        run.clips,
        config.views,
        batch_size=config.run.batch_size,
        seed=config.run.seed,
        start_step=start_step,
        stop_step=run.total_steps,
        rank=world.rank,
        world=world.size,
        num_workers=_workers(config),
        pin_memory=world.device.type == "cuda",
    )
    log = RunLog(
        run.run_dir / "metrics.jsonl" if world.is_main else None,
        run.console,
        start_step=start_step,
        total_steps=run.total_steps,
        log_every=config.run.log_every,
        batch_size=config.run.batch_size,
    )
    _introduce(run, start_step)
    with contextlib.closing(loader), log:
        for step, batch in enumerate(loader, start_step):
            log.data_is_ready()
            row = train_step(run, model, batch, step, stop)
            stopping = row.pop("stop") > 0
            _refuse_non_finite(row, step, batch)
            stop.step_seconds = log.step(row)
            done = step + 1
            if stopping or done % config.run.checkpoint_every == 0 or done == run.total_steps:
                _save(run, done)
            log.tell(row)
            if stopping:
                return done
    return run.total_steps


def _workers(config: PretrainConfig) -> int:
    """More processes than cores only take turns; the batches are the same for any number."""
    return min(config.run.num_workers, len(os.sched_getaffinity(0)))


def _introduce(run: Run, start_step: int) -> None:
    """Say what is about to happen, before the first step, which may take long."""
    if run.world.is_main and start_step < run.total_steps:
        parameters = sum(parameter.numel() for parameter in run.objective.encoder.parameters())
        run.console.print(
            f"{len(run.clips):,} clips, {run.config.run.batch_size} a step, steps {start_step} to {run.total_steps}; "
            f"backbone of {parameters / 1e6:.1f} million parameters; {run.world.size} x {run.world.device.type}; "
            f"writing to {run.run_dir}",
            highlight=False,
            soft_wrap=True,
        )
        if (workers := _workers(run.config)) < run.config.run.num_workers:
            run.console.print(
                f"decoding in {workers} processes, one for each core, instead of run.num_workers = "
                f"{run.config.run.num_workers}; the results are the same",
                soft_wrap=True,
            )
        if note := told_of_short_clips(run.clips.num_frames_N, run.config.views):
            run.console.print(note, highlight=False, soft_wrap=True)


def train_step(run: Run, model: nn.Module, batch: ClipBatch, step: int, stop: threading.Event) -> dict[str, float]:
    """Move the weights by one step.

    Args:
        model: the objective, or its data-parallel wrapper.
        batch: this process's share of the step's clips.
        stop: its state is part of what the processes agree on.

    Returns:
        The row for the metrics file, equal on all processes, and `stop`: the share of them that want to.
    """
    config, device, optimizer = run.config, run.world.device, run.optimizer
    rates = {"lr": run.schedule.lr(step), "weight_decay": run.schedule.weight_decay(step)}
    schedule_(optimizer, **rates)
    torch.manual_seed(_draw_seed(config.run.seed, step, run.world.rank))

    views = apply_views(batch, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.run.precision == "bf16"):
        output = model(views, step)
    optimizer.zero_grad()
    output.loss.backward()
    for parameter in run.objective.frozen(step):
        parameter.grad = None
    grad_norm = clip_each_(run.objective.parameters(), config.optim.clip_norm)
    optimizer.step()
    run.objective.after_step(step)

    stopping = torch.tensor(float(stop.is_set()), device=device)
    measures = {"loss": output.loss.detach(), "grad_norm": grad_norm, **output.monitors, "stop": stopping}
    # One message between the processes and one wait for the device, whatever the objective measures.
    averages = all_reduce_mean_(torch.stack([value.float() for value in measures.values()])).tolist()
    return {"step": step, **rates, **output.constants, **dict(zip(measures, averages, strict=True))}


def _draw_seed(seed: int, step: int, rank: int) -> int:
    """Seed of the draws inside the network (drop path), which differ from process to process."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])


def _refuse_non_finite(row: Mapping[str, float], step: int, batch: ClipBatch) -> None:
    if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
        keys = ", ".join(gather_keys(batch.keys))
        raise DataError(
            f"step {step}: the loss is {row['loss']}, its gradient's norm {row['grad_norm']}; clips: {keys}. "
            "Checkpoints up to here are sound; try run.precision = 'fp32' or a lower optim.lr_per_256_clips"
        )


def _save(run: Run, step: int) -> None:
    if run.world.is_main:
        content = ckpt.Checkpoint(
            step=step,
            config=run.config.model_dump(mode="json"),
            clips=run.clips.fingerprint,
            objective=run.objective.state_dict(),
            optimizer=run.optimizer.state_dict(),
            versions=ckpt.library_versions(),
        )
        ckpt.save_checkpoint(run.run_dir, content, keep=run.config.run.keep_checkpoints)


def _export(run: Run) -> Path:
    path = run.run_dir / "backbone.safetensors"
    if run.world.is_main:
        provenance = {
            "config": run.config.model_dump(mode="json"),
            "clips": run.clips.fingerprint,
            "steps": run.total_steps,
        }
        ckpt.export_backbone(path, run.objective.encoder, provenance)
    return path


def _refuse_another_run(path: Path, saved: ckpt.Checkpoint, run: Run) -> None:
    before, now = _flat(saved.config), _flat(run.config.model_dump(mode="json"))
    for key in sorted((before.keys() | now.keys()) - UNCOMPARED):
        if before.get(key) != now.get(key):
            raise UsageError(
                f"{path}: begun with {key} = {before.get(key)!r}, and now it is {now.get(key)!r}; "
                "go on with the same configuration, or use another folder"
            )
    if saved.clips != run.clips.fingerprint:
        raise UsageError(
            f"{path}: begun with other clips: {_what_changed(run)}; "
            "go on with the same corpora in the same order and the same mixture, or use another folder"
        )


def _what_changed(run: Run) -> str:
    """The corpora of the run's first start beside those of now."""
    now = _listed(run.clips.corpora)
    try:
        begun = _listed(json.loads((run.run_dir / _CORPORA).read_text(encoding="utf-8")).items())
    except (OSError, ValueError, AttributeError):  # removed, or of an older version
        return f"now there are {now}"
    return (
        f"{begun} then, {now} now" if begun != now else f"{now} as then, but clips of other content, or others of them"
    )


def _listed(corpora: Iterable[tuple[str, int]]) -> str:
    return " and ".join(f"{clips:,} of {name}" for name, clips in corpora)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value})
    return flat


@contextlib.contextmanager
def _sole_writer(run_dir: Path, world: World) -> Iterator[None]:
    """Two runs in one folder would each remove the other's checkpoints."""
    if not world.is_main:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            busy = f"{run_dir}: another run is training here; wait for it, or name another --run-dir"
            stack.enter_context(sole_user(run_dir / "lock", busy))
        except OSError as error:
            raise UsageError(f"{run_dir}: cannot be written: {error.strerror}") from None
        yield


@contextlib.contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """On a CPU, only algorithms that always give the same bits."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(device.type == "cpu" or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class Stop(threading.Event):
    """Set when the run should end, which it does after a step."""

    step_seconds = 0.0  # that the last step took; none has been done yet


@contextlib.contextmanager
def _stop_on_signals(console: Console) -> Iterator[Stop]:
    """An event that the first SIGTERM or SIGINT sets; a second one acts as it would have without us."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals; whoever runs us in another one is in charge of them
        return

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()
        about = f" (about {math.ceil(stop.step_seconds)} s)" if stop.step_seconds else ""
        console.print(
            f"stopping after this step with a checkpoint{about}; once more to stop at once",
            highlight=False,
            soft_wrap=True,
        )

    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        restore()
