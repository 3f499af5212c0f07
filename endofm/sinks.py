"""Where else the rows of a run go besides its metrics file: TensorBoard, Weights & Biases. Both are optional."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from endocorpus.errors import UsageError


class Sink(Protocol):
    """Takes the rows of a run, one after the other."""

    def write(self, row: Mapping[str, float]) -> None:
        """Take in the row of one step."""

    def close(self) -> None:
        """Hand on whatever is still held."""


class TensorBoard:
    """Scalars in `<run>/tensorboard`, for ``tensorboard --logdir``."""

    def __init__(self, run_dir: Path, start_step: int) -> None:
        """Open the log; what it holds of `start_step` and later is hidden, since those steps happen again.

        Raises:
            UsageError: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(_missing("run.tensorboard", "tensorboard")) from None
        self._writer: Any = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start_step)

    def write(self, row: Mapping[str, float]) -> None:
        """Add a point to the curve of each measure."""
        for key, value in _measures(row).items():
            self._writer.add_scalar(key, value, int(row["step"]))

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases that goes on where the training run goes on; `WANDB_MODE=offline` keeps it here."""

    def __init__(self, run_dir: Path, project: str, config: Mapping[str, Any]) -> None:
        """Begin the run, or take it up again: its id lies in `<run>/wandb-id`.

        Raises:
            UsageError: the package is not installed.
        """
        try:
            import wandb
        except ImportError:
            raise UsageError(_missing("run.wandb", "wandb")) from None
        note = run_dir / "wandb-id"
        identity = note.read_text(encoding="utf-8").strip() if note.exists() else uuid.uuid4().hex[:12]
        note.write_text(identity, encoding="utf-8")
        self._run = wandb.init(
            project=project, dir=run_dir, id=identity, name=run_dir.name, config=dict(config), resume="allow"
        )

    def write(self, row: Mapping[str, float]) -> None:
        """Send the measures of one step."""
        self._run.log(_measures(row), step=int(row["step"]))

    def close(self) -> None:
        """Finish sending."""
        self._run.finish()


def open_sinks(
    run_dir: Path, start_step: int, *, tensorboard: bool, wandb: str, config: Mapping[str, Any]
) -> list[Sink]:
    """The sinks that a run asks for.

    Args:
        run_dir: of the run.
        start_step: the first that is going to be written.
        tensorboard: whether to write for TensorBoard.
        wandb: the project in Weights & Biases; none if empty.
        config: of the run, to be shown beside its curves.
    """
    sinks: list[Sink] = []
    if tensorboard:
        sinks.append(TensorBoard(run_dir, start_step))
    if wandb:
        sinks.append(WeightsAndBiases(run_dir, wandb, config))
    return sinks


def _measures(row: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key != "step" and math.isfinite(value)}


def _missing(setting: str, package: str) -> str:
    return f"{setting} needs the package {package}: pip install {package}"
