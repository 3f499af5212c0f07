"""Pre-training, top to bottom: world, clips, objective, optimiser, resume, loop, export.

A run lives in its folder: `checkpoints/`, `metrics.jsonl`, `corpora.json` and, at the end, `backbone.safetensors`.
Starting it again in the same folder goes on from the newest checkpoint. On a CPU that is exact to the last bit, given
the same number of threads (torch splits its sums by thread): every random draw follows from seed and step, and nothing
but weights, moments, the centre and the features that `health` remembers is carried from one step to the next.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from endocorpus.corpus.manifest import DESCRIPTOR, SHARDS
from endocorpus.errors import DataError, UsageError
from endofm import checkpoint as ckpt
from endofm import start
from endofm.books import Step, open_books
from endofm.config import PretrainConfig
from endofm.data.clips import ClipSet, load_clips
from endofm.data.device import on_device
from endofm.data.loader import make_loader
from endofm.data.remote import is_url, redacted
from endofm.data.settings import decided
from endofm.data.tally import counted
from endofm.data.views import ClipBatch, apply_views, told_of_short_clips
from endofm.distributed import (
    World,
    agreed,
    barrier,
    data_parallel,
    gather_rows,
    gradients_stay_local,
    join_world,
    whole,
    whole_module_state,
)
from endofm.health import Health, spread_of
from endofm.models.speed import compile_blocks_, cpu_threads, recompute_in_blocks_
from endofm.models.transformer import Block, VideoTransformer
from endofm.objectives import LossOutput, create_objective
from endofm.optim import Horizon, Schedule, clip_each_, make_optimizer, schedule_, skip_if_not_finite_
from endofm.probe import ask, load_probe
from endofm.resume import resume, save
from endofm.run import Run, deterministic, sole_writer
from endofm.stopping import REQUEUE, Stop, Stopped, stop_on_signals

_PATIENCE = 5.0  # seconds, before it is said who is waited for


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
        return 0 if self.backbone else REQUEUE


def pretrain(
    config: PretrainConfig,
    corpora: Sequence[Path | str],
    run_dir: Path,
    *,
    mix: Path | None = None,
    probe: Path | None = None,
    console: Console | None = None,
) -> PretrainResult:
    """Train until done, or until SIGTERM, SIGINT or SIGUSR1 asks to finish the current step and leave a checkpoint.

    A process that is alone and waits for its clips instead stops waiting and leaves a checkpoint of the steps done; so
    it does where clips cannot be had any more. Several processes, which would have to ask each other before every step
    whether all have theirs, wait as long as the configuration says, and then go on from the last checkpoint.

    Args:
        config: what to compute; see `endofm.config.load_config`.
        corpora: folders or addresses to train on; their order is part of the data order.
        run_dir: made if need be; if it holds checkpoints of the same run, that run goes on.
        mix: which of their clips, and how often; all of them, once an epoch, if None. See `load_clips`.
        probe: folder of a labelled corpus whose clips, by what the encoder makes of them, are asked for their label now
            and then. It changes nothing that is trained; see `endofm.probe`.
        console: where a line is printed now and then; standard error if None.

    Raises:
        UsageError: the configuration does not fit the clips, the processes, or the checkpoint in `run_dir`.
        DataError: a corpus, mixture or checkpoint cannot be used, too many clips are bad, a server is gone for longer
            than the configuration says, a file cannot be written, or training has diverged.
        Stopped: a signal came while the corpora were being opened.
    """
    console = console or Console(stderr=True, markup=False, highlight=False)
    here = run_dir.resolve()
    if (here / SHARDS).exists() or any((folder / DESCRIPTOR).exists() for folder in (here, *here.parents)):
        raise UsageError(f"{run_dir}: is the folder of a corpus, or inside one; name another --run-dir")
    with (
        join_world(config.run.device) as world,
        deterministic(world.device),
        cpu_threads(config.run.threads),
        stop_on_signals(console) as stop,
    ):
        # What is refused here leaves no folder.
        with stop.ends_waiting(), _telling_of_servers(corpora, world, console):
            clips = load_clips(corpora, mix, config.data)
        if clips.warning and world.is_main:
            console.print(clips.warning, soft_wrap=True)
        run = _assemble(config, clips, run_dir, world, console)
        if probe is not None:
            run = replace(run, probe=load_probe(probe, config.probe.label))
        result = _carry_out(run, stop)
        del run  # its model, if divided, must be gone before the processes part: see `join_world`
        return result


@contextlib.contextmanager
def _telling_of_servers(corpora: Sequence[Path | str], world: World, console: Console) -> Iterator[None]:
    """Say who is waited for, if what is done inside takes long."""
    servers = [redacted(str(place)) for place in corpora if is_url(place)]
    text = f"waiting for {', '.join(servers)}"
    timer = threading.Timer(_PATIENCE, console.print, [text], {"highlight": False, "soft_wrap": True})
    if servers and world.is_main:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _carry_out(run: Run, stop: Stop) -> PretrainResult:
    with sole_writer(run.run_dir, run.world):
        start_step = resume(run)
        steps = _train(run, start_step, stop)
        backbone = _export(run) if steps == run.total_steps else None
        barrier()  # or torchrun, seeing another process end, might end this one in the middle of a file
    return PretrainResult(steps, run.total_steps, backbone, run.world.is_main)


def _assemble(config: PretrainConfig, clips: ClipSet, run_dir: Path, world: World, console: Console) -> Run:
    config = config.model_copy(update={"data": decided(config.data, is_remote=clips.is_remote)})
    batch_size = config.run.batch_size
    if batch_size % (world.size * config.run.accumulate):
        shares = f"{world.size} processes" + (f" in {config.run.accumulate} parts" if config.run.accumulate > 1 else "")
        raise UsageError(f"run.batch_size = {batch_size} cannot be shared equally by {shares}")
    horizon = Horizon.of(config.run.length, num_clips=len(clips), batch_size=batch_size)
    schedule = Schedule(config.optim, horizon, batch_size)
    torch.manual_seed(config.run.seed)  # on every rank the same: all start from the same weights
    objective = create_objective(
        config.objective, config.model.shape, num_globals=config.views.num_globals, horizon=horizon
    )
    # A run that goes on has its weights in its checkpoints; the file may be gone by then.
    begins = config.model.weights and agreed(ckpt.latest_checkpoint(run_dir) is None)
    origin = start.load_weights_(objective, config.model) if begins else {}
    start.freeze_(objective, share=config.run.sharding == "none")
    objective.to(world.device)
    if config.run.checkpoint_activations:
        recompute_in_blocks_(objective)
    if config.run.compile:
        compile_blocks_(objective, world.device)
    units = [module for kind in (Block, VideoTransformer) for module in objective.modules() if isinstance(module, kind)]
    model = data_parallel(objective, world, config.run.sharding, units)
    optimizer = make_optimizer(objective, decay_tables=config.optim.decay_tables)
    health = Health(config.model.embed_dim).to(world.device)
    return Run(config, run_dir, world, console, clips, schedule, objective, model, optimizer, health, origin=origin)


def _train(run: Run, start_step: int, stop: Stop) -> int:
    """The loop. Returns the number of steps done: all of them, unless `stop` was set on any process."""
    config, world = run.config.run, run.world
    loader = make_loader(
        run.clips,
        run.config.views,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start_step,
        stop_step=run.total_steps,
        rank=world.rank,
        world=world.size,
        num_workers=_workers(config.num_workers),
        pin_memory=world.device.type == "cuda",
        data=run.config.data,
    )
    books = open_books(run, start_step)
    _introduce(run, start_step)
    done = saved = start_step
    with contextlib.closing(loader), books.log:
        batches = on_device(loader, world.device)
        while done < run.total_steps:
            batch, lost = _next_batch(batches, stop, world)
            if batch is not None:
                books.take(train_step(run, batch, done))
                done += 1
            saving = batch is None or done % config.checkpoint_every == 0 or done == run.total_steps
            if not (saving or done % books.settle_every == 0):
                continue
            stopping = books.settle(stop, loader.waited_seconds) or batch is None
            if (stopping or saving) and done > saved:
                save(run, done)
                saved = done
            books.tell()
            if lost is not None:
                raise lost
            if stopping:
                break
    return done


def _next_batch(
    batches: Iterator[ClipBatch], stop: Stop, world: World
) -> tuple[ClipBatch | None, DataError | UsageError | None]:
    """A batch; or none, because a signal ended the wait for it, or for a reason to raise once the steps are saved.

    One process of several cannot leave the others waiting for it in a step, so there a signal waits, and an error does
    not wait.
    """
    if world.size > 1:
        return next(batches), None
    try:
        with stop.ends_waiting():
            return next(batches), None
    except Stopped:
        return None, None
    except (DataError, UsageError) as error:
        return None, error


def _workers(wanted: int) -> int:
    """More processes than cores only take turns; the batches are the same for any number."""
    return min(wanted, len(os.sched_getaffinity(0)))


def _introduce(run: Run, start_step: int) -> None:
    """Say what is about to happen, before the first step, which may take long."""
    if start_step == run.total_steps:
        return
    parameters = sum(parameter.numel() for parameter in run.objective.encoder.parameters())
    run.say(
        f"{len(run.clips):,} clips, {run.config.run.batch_size} a step, steps {start_step} to {run.total_steps}; "
        f"backbone of {parameters / 1e6:.1f} million parameters; {run.world.size} x {run.world.device.type}; "
        f"writing to {run.run_dir}"
    )
    if (workers := _workers(run.config.run.num_workers)) < run.config.run.num_workers:
        run.say(
            f"decoding in {workers} processes, one for each core, instead of run.num_workers = "
            f"{run.config.run.num_workers}; the results are the same"
        )
    if note := told_of_short_clips(run.clips.num_frames_N, run.config.views):
        run.say(note)
    if run.probe:
        run.say(f"every {run.config.probe.every} steps, and after the last: {run.probe}")


def train_step(run: Run, batch: ClipBatch, number: int) -> Step:
    """Move the weights by one step. Nothing here waits for the device, but for the probe where it is due.

    Args:
        batch: this process's share of the step's clips.
    """
    config, device, optimizer = run.config, run.world.device, run.optimizer
    rates = {"lr": run.schedule.lr(number), "weight_decay": run.schedule.weight_decay(number)}
    schedule_(optimizer, **rates)
    torch.manual_seed(_draw_seed(config.run.seed, number, run.world.rank))

    views = apply_views(batch, device)
    optimizer.zero_grad()
    outputs = _backward(run, views, number)
    for parameter in run.objective.frozen(number):
        parameter.grad = None
    grad_norm = whole(clip_each_(run.objective.parameters(), config.optim.clip_norm))
    skip_if_not_finite_(optimizer, grad_norm)
    optimizer.step()
    monitors = run.objective.after_step(number)

    features_BD = gather_rows(torch.cat([output.features_BD for output in outputs]))
    run.health.remember(features_BD)
    measured = run.health.measure() if (number + 1) % config.run.health_every == 0 else {}
    loss = torch.stack([output.loss.detach() for output in outputs]).mean()
    averaged = {key: torch.stack([output.monitors[key] for output in outputs]).mean() for key in outputs[0].monitors}
    known = {"step": number, **rates, **outputs[0].constants, **measured, **_ask_probe(run, number + 1)}
    measures = {"loss": loss, "grad_norm": grad_norm, **averaged, **monitors}
    if len(features_BD) > 1:
        measures["feature_spread"] = spread_of(features_BD)
    return Step(number, known, measures, counted(batch, run.clips), batch.keys, batch.replaced)


def _backward(run: Run, views: Sequence[Tensor], number: int) -> list[LossOutput]:
    """Add up the gradients of the step's parts; the processes exchange them once, with the last."""
    parts, outputs = run.config.run.accumulate, []
    for part, views_of_part in enumerate(zip(*(view.chunk(parts) for view in views), strict=True)):
        with torch.autocast(run.world.device.type, torch.bfloat16, enabled=run.config.run.precision == "bf16"):
            output: LossOutput = run.model(views_of_part, number)
        with gradients_stay_local(run.model, part < parts - 1):
            (output.loss / parts).backward()  # type: ignore[no-untyped-call]
        outputs.append(output)
    return outputs


def _ask_probe(run: Run, done: int) -> dict[str, float]:
    """What the probe says after `done` steps, where there is one and it is time to ask."""
    if run.probe is None or (done % run.config.probe.every and done < run.total_steps):
        return {}
    world = run.world
    return ask(
        run.objective.encoder, run.probe, run.config.views, device=world.device, rank=world.rank, world=world.size
    )


def _draw_seed(seed: int, step: int, rank: int) -> int:
    """Seed of the draws inside the network (drop path), which differ from process to process."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])


def _export(run: Run) -> Path:
    path = run.run_dir / "backbone.safetensors"
    state = whole_module_state(run.objective.encoder)
    if run.world.is_main:
        provenance = {
            # Paths of this machine are nobody's business, and no part of the result.
            "config": run.config.model_dump(
                mode="json", exclude={"data": {"cache_dir", "exclude"}, "model": {"weights"}}
            ),
            **({"weights": origin} if (origin := start.noted(run.run_dir)) else {}),
            "clips": run.clips.fingerprint,
            "steps": run.total_steps,
        }
        ckpt.export_backbone(path, run.objective.encoder.config, state, provenance)
    return path
