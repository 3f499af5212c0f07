"""Leave a checkpoint, and go on from one: whether it is of this run, whether it is whole, what has changed since."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from endocorpus.corpus.files import atomic_file, fsync_file
from endocorpus.errors import DataError, UsageError
from endocorpus.settings import to_toml
from endofm import checkpoint as ckpt
from endofm import start
from endofm.config import UNCOMPARED, PretrainConfig
from endofm.distributed import gathered, load_whole_state_, whole_state
from endofm.run import Run

_CORPORA = "corpora.json"


def resume(run: Run) -> int:
    """Load the newest checkpoint that is whole, if there is one, and return the step to begin with.

    Raises:
        UsageError: it is of another configuration or of other clips, or the folder holds a finished run without any.
        DataError: there are checkpoints, and none can be used; or not all processes see the same ones.
    """
    path, saved, damaged = _newest_for_all(run)
    if path is None or saved is None:
        _begin(run)
        return 0
    _refuse_another_run(path, saved, run)
    for lost in damaged:
        run.say(f"{lost}: damaged, and set aside; the steps after {path.name} are done again")
        if run.world.is_main:
            ckpt.set_aside(lost)
    load_whole_state_(run.objective, run.optimizer, (saved.objective, saved.optimizer))
    run.health.load_state_dict(saved.health)
    run.say(f"going on from {path}")
    if run.world.device.type == "cpu" and saved.versions["threads"] != str(torch.get_num_threads()):
        run.say("the number of threads has changed since: the last bits of the weights may differ")
    return saved.step


def _newest_for_all(run: Run) -> tuple[Path | None, ckpt.Checkpoint | None, list[Path]]:
    """As `newest_sound_checkpoint`, alike for all processes: from different steps they would train nonsense together,
    and wait for each other at the end."""
    refused, name = "", None
    path, saved, damaged = None, None, list[Path]()
    try:
        path, saved, damaged = ckpt.newest_sound_checkpoint(run.run_dir)
        name = path and path.name
    except DataError as error:
        refused = str(error)
    told = gathered([(refused, name)])  # all have read what the main process may be about to rename
    if refusals := [text for text, _ in told if text]:
        raise DataError(refusals[0])
    if len(set(told)) > 1:
        seen = ", ".join(f"process {rank}: {name or 'none'}" for rank, (_, name) in enumerate(told))
        raise DataError(
            f"{run.run_dir / 'checkpoints'}: not all processes see the same newest checkpoint ({seen}); "
            "the run folder must be one that all of them share"
        )
    return path, saved, damaged


def save(run: Run, step: int) -> None:
    """Write the checkpoint of `step` steps done, and remove old ones; each process must call.

    Raises:
        DataError: it cannot be written, or the weights are no longer sensible.
    """
    objective, optimizer = whole_state(run.objective, run.optimizer)
    if run.world.is_main:
        for name in ("metrics.jsonl", "quarantine.jsonl"):  # what they say of the steps before must not come later
            if (run.run_dir / name).exists():
                fsync_file(run.run_dir / name)
        content = ckpt.Checkpoint(
            step=step,
            config=run.config.model_dump(mode="json"),
            clips=run.order_fingerprint,
            objective=objective,
            optimizer=optimizer,
            health=run.health.state_dict(),
            versions=ckpt.library_versions(),
        )
        ckpt.save_checkpoint(run.run_dir, content, keep=run.config.run.keep_checkpoints)


def _begin(run: Run) -> None:
    """Note corpora and configuration for whoever looks into the folder, and for the day on which they have changed."""
    if (run.run_dir / "metrics.jsonl").exists() and (run.run_dir / "backbone.safetensors").exists():
        raise UsageError(
            f"{run.run_dir}: holds a finished run without its checkpoints, which would be overwritten; "
            "name another --run-dir"
        )
    if not run.world.is_main:
        return
    try:
        start.note(run.run_dir, dict(run.origin))
        with atomic_file(run.run_dir / _CORPORA) as file:
            file.write(json.dumps(dict(run.clips.corpora), indent=2).encode() + b"\n")
        with atomic_file(run.run_dir / "config.toml") as file:
            file.write(to_toml(run.config).encode())
    except OSError as error:
        raise DataError(f"{run.run_dir}: cannot be written: {error.strerror}") from None


def _refuse_another_run(path: Path, saved: ckpt.Checkpoint, run: Run) -> None:
    before, now = _flat(_completed(saved.config)), _flat(run.config.model_dump(mode="json"))
    for key in sorted((before.keys() | now.keys()) - UNCOMPARED):
        if before.get(key) != now.get(key):
            raise UsageError(
                f"{path}: begun with {key} = {before.get(key)!r}, and now it is {now.get(key)!r}; "
                "go on with the same configuration, or name another --run-dir"
            )
    if saved.clips != run.order_fingerprint:
        data = run.config.data
        also = ", of the same shards" if data.block_shards else ""
        also = ", of the same shards, in as many processes" if data.stream == "sequential" else also
        raise UsageError(
            f"{path}: begun with other clips: {_what_changed(run)}; "
            f"go on with the same corpora in the same order and the same mixture{also}, or name another --run-dir"
        )


def _completed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration with the settings that came after it: their defaults change nothing that was there before."""
    try:
        return PretrainConfig.model_validate_json(json.dumps(config)).model_dump(mode="json")
    except (ValidationError, UsageError):  # it has settings that are gone by now
        return config


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
