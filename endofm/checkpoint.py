"""What a run leaves on disk: checkpoints that either exist whole or not at all, and the exported backbone.

A checkpoint is everything that a run needs to go on as if it had never stopped, whatever the number of its processes
and however its weights are shared between them. It is loaded with `weights_only=True`: a file from a stranger cannot
run code.
"""

from __future__ import annotations

import json
import pickle
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise
from torch import Tensor

from endocorpus.corpus.files import atomic_file, atomic_path
from endocorpus.errors import DataError
from endofm.models import ModelConfig
from endofm.models.weights import LARGEST
from endofm.seal import is_whole, seal

_FORMAT = "endofm-pretrain-2"
_NAME = re.compile(r"step-(\d{8,})\.pt")  # a temporary file has another name, and is never taken for a checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two steps.

    Attributes:
        step: steps done, and so the next step to do.
        config: the resolved configuration, as JSON values.
        clips: fingerprint of the clip set.
        objective: its `state_dict`; for DINO `student.*`, `teacher.*` (each with `backbone.*`, `head.*`) and `centre`.
        optimizer: moments by the name of their parameter.
        health: the features that `endofm.health` remembers.
        versions: of the libraries that wrote the file, and the number of threads; for people, never compared.
    """

    step: int
    config: dict[str, Any]
    clips: str
    objective: dict[str, Any]
    optimizer: dict[str, Any]
    health: dict[str, Any]
    versions: dict[str, str]


def library_versions() -> dict[str, str]:
    """What results may depend on besides configuration and data; on a CPU that includes the number of threads."""
    versions = {name: version(name) for name in ("timm", "numpy", "av")}
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **versions,
        "threads": str(torch.get_num_threads()),
    }


def save_checkpoint(run_dir: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write `run_dir/checkpoints/step-<step>.pt` and remove all but the newest `keep` checkpoints.

    The file is what `torch.save` makes, with a digest behind it that `torch.load` does not mind.

    Raises:
        DataError: it cannot be written; the disk is full, for instance; or the weights are no longer sensible.
    """
    path = run_dir / "checkpoints" / f"step-{checkpoint.step:08d}.pt"
    # asdict would copy every tensor.
    content = {"format": _FORMAT} | {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}

    _refuse_diverged(path, checkpoint.objective)
    try:
        with atomic_path(path) as temporary:
            with temporary.open("wb") as file:
                torch.save(content, file)
            seal(temporary)
    except (OSError, RuntimeError) as error:
        # When the file fails, torch stumbles over the end of its archive while the error passes through.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise DataError(
            f"{path}: cannot be written: {cause.strerror}; the same command goes on from the checkpoint before it, "
            "if there is one"
        ) from None
    for old in (*_checkpoints(run_dir)[:-keep], *path.parent.glob(".step-*.partial")):  # a killed process leaves those
        old.unlink()
    return path


class DamagedError(DataError):
    """A checkpoint that is not what was written."""


def newest_sound_checkpoint(run_dir: Path) -> tuple[Path | None, Checkpoint | None, list[Path]]:
    """The newest checkpoint that is whole, with its content, and the damaged ones that are newer.

    Raises:
        DataError: there are checkpoints, and none is whole; or one is whole and still cannot be used.
    """
    damaged: list[Path] = []
    for path in reversed(_checkpoints(run_dir)):
        try:
            return path, load_checkpoint(path), damaged
        except DamagedError:
            damaged.append(path)
    if damaged:
        raise DataError(
            f"{run_dir / 'checkpoints'}: none of the {len(damaged)} checkpoints is whole; start in a new folder"
        )
    return None, None, []


def set_aside(path: Path) -> None:
    """Rename a damaged checkpoint, so that it is neither counted among those to keep nor tried again."""
    path.rename(path.with_name(f"{path.name}.damaged"))


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint with the most steps, or None where there is none."""
    found = _checkpoints(run_dir)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, onto the CPU, after checking every byte against the digest behind it.

    The checksums inside the file would not do: torch ignores them, and none covers the table of contents.

    Raises:
        DamagedError: cut short or altered.
        DataError: it cannot be read, or is not a checkpoint of this program; the message says what to do.
    """
    remedy = "remove it to go on from the checkpoint before it, or start in a new folder"
    try:
        if not is_whole(path):
            raise DamagedError(f"{path}: damaged, or not a checkpoint of endofm; {remedy}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except pickle.UnpicklingError:
        raise DataError(f"{path}: holds more than tensors and plain values, and is not loaded; {remedy}") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DataError(f"{path}: not a checkpoint of this version of endofm; {remedy}")
    return Checkpoint(**{field.name: content[field.name] for field in fields(Checkpoint)})


def export_backbone(
    path: Path, config: ModelConfig, state: Mapping[str, Tensor], provenance: Mapping[str, Any]
) -> None:
    """Write the weights as safetensors, keys and shapes being those of the released Endo-FM backbone.

    Args:
        path: of the file.
        config: the shape of the backbone.
        state: its weights, on any device.
        provenance: JSON values. They go into the file's metadata, together with the configuration of the backbone as
            `model`, all under the one key `endofm`: safetensors writes several keys in random order, and then equal
            runs would not leave equal files.

    Raises:
        DataError: it cannot be written, or the weights are no longer sensible.
    """
    about = {"model": config.model_dump(mode="json"), **provenance}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    _refuse_diverged(path, tensors)
    try:
        # Its own writer would make a file that nobody else may read.
        with atomic_file(path) as file:
            file.write(serialise(tensors, {"endofm": json.dumps(about)}))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}; the same command tries it again") from None


def _refuse_diverged(path: Path, tensors: Mapping[str, Any]) -> None:
    """A network that normalises its layers can have a finite loss with weights of any size, which are worth nothing."""
    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel():
            largest = float(tensor.abs().max())
            if not largest <= LARGEST:
                raise DataError(
                    f"{path}: not written, since training has diverged: {name} reaches {largest:.3g}. Checkpoints "
                    "before it are sound; try a lower optim.lr_per_256_clips or a longer optim.warmup"
                )


def _checkpoints(run_dir: Path) -> list[Path]:
    found = [
        (int(match[1]), path) for path in (run_dir / "checkpoints").glob("*") if (match := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]
