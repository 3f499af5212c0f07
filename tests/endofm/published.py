"""Files in each structure in which weights are published: the real names, at a width that makes them small."""

from __future__ import annotations

import argparse
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.endofm.plain_timesformer import published_shapes

WIDTH, PROTOTYPES = 64, 32
State = dict[str, Tensor]
SECRETS = ("/home/jane.doe/endoscopy", "jane.doe", "gpu-node-17.hospital.example", "ward4")


def numbers(seed: int, num_frames: int = 8) -> State:
    """A backbone: all 247 tensors, none of them zero."""
    generator = torch.Generator().manual_seed(seed)
    shapes = published_shapes(WIDTH, num_frames=num_frames)
    return {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def head(seed: int) -> State:
    """As `DINOHead` has it in the released code."""
    generator = torch.Generator().manual_seed(seed)
    sides = {0: (48, WIDTH), 2: (48, 48), 4: (16, 48)}
    state = {f"mlp.{layer}.weight": torch.randn(shape, generator=generator) for layer, shape in sides.items()}
    state |= {f"mlp.{layer}.bias": torch.randn(shape[0], generator=generator) for layer, shape in sides.items()}
    state["last_layer.weight_g"] = torch.ones(PROTOTYPES, 1)
    state["last_layer.weight_v"] = torch.randn(PROTOTYPES, 16, generator=generator)
    return state


def prefixed(prefix: str, state: State) -> State:
    return OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def network(seed: int, num_frames: int = 8) -> State:
    return OrderedDict({**prefixed("backbone.", numbers(seed, num_frames)), **prefixed("head.", head(seed))})


def endo_fm(num_frames: int = 8) -> dict[str, Any]:
    """What `train_ssl.py` saves: the teacher is `numbers(1)`, the student `numbers(2)`."""
    teacher = network(1, num_frames)
    moments = {"step": 2741, "exp_avg": torch.zeros(4), "exp_avg_sq": torch.zeros(4)}
    group = {"lr": np.float64(2.3e-5), "weight_decay": np.float64(0.4), "betas": (0.9, 0.999), "params": [0]}
    arguments = argparse.Namespace(
        arch="timesformer",
        batch_size_per_gpu=3,
        epochs=30,
        lr=0.0005,
        data_path=f"{SECRETS[0]}/clips",
        output_dir=Path("/scratch").joinpath(SECRETS[1]).as_posix(),
        dist_url=f"tcp://{SECRETS[2]}:4321",
        cfg_file=None,
        opts=[SECRETS[3]],
    )
    return {
        "student": prefixed("module.", network(2, num_frames)),
        "teacher": teacher,
        "optimizer": {"state": {0: moments}, "param_groups": [group]},
        "epoch": 30,
        "args": arguments,
        "dino_loss": OrderedDict(center=torch.zeros(1, PROTOTYPES)),
        "fp16_scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7},
        "motion_student": 0,
        "motion_teacher": 0,
    }


def image() -> State:
    """DINO's own ViT: nothing about time."""
    return {name: tensor for name, tensor in numbers(1).items() if "temporal" not in name and name != "time_embed"}


def polypdiag() -> dict[str, Any]:
    return {
        "epoch": 17,
        "state_dict": {"module.linear.weight": torch.zeros(2, WIDTH), "module.linear.bias": torch.zeros(2)},
        "backbone_state_dict": prefixed("module.", numbers(1)),
        "optimizer": {"state": {}, "param_groups": []},
        "scheduler": {"last_epoch": 17},
        "best_f1": np.float64(0.907),
    }


def timesformer() -> dict[str, Any]:
    classifier = {"model.head.weight": torch.zeros(400, WIDTH), "model.head.bias": torch.zeros(400)}
    return {"epoch": 15, "model_state": {**prefixed("model.", numbers(1)), **classifier}, "cfg": "TRAIN: {}"}


PUBLISHED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "Endo-FM": (endo_fm, "training checkpoint, as Endo-FM publishes it"),
    "EndoFM-LV": (lambda: endo_fm(32), "training checkpoint, as EndoFM-LV publishes it"),
    "SVT": (lambda: network(1), "backbone and head, as SVT publishes them"),
    "TimeSformer": (timesformer, "TimeSformer"),
    "PolypDiag": (polypdiag, "backbone and classifier, as Endo-FM fine-tunes them on PolypDiag"),
    "bare": (lambda: numbers(1), "video transformer by its tensors' names"),
    "data parallel": (lambda: prefixed("module.", numbers(1)), "video transformer by its tensors' names"),
}
"""What to save, and what `endofm weights inspect` calls it. The backbone is `numbers(1)` each time."""


def save(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """The same archive with other bytes in its members, and checksums that are right for them."""
    with zipfile.ZipFile(path) as archive:
        members = {entry.filename: change(entry.filename, archive.read(entry)) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
