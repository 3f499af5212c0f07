"""What a file of weights is, and the same weights as safetensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from endocorpus.corpus.files import remove
from endocorpus.errors import DataError, UsageError
from endofm.checkpoint import export_backbone
from endofm.models import weights as w
from endofm.models.weight_files import Arguments, WeightFile, read_file

KNOWN_FILES = {
    "6fc7a64a044f1eff3b7f9eb233df37a3607735848d534364f12c2aebad1aea70": "endo_fm.pth, as its authors released it",
}
"""By sha256. Reported by an audit of the released file; this project has not downloaded it."""

_NUMBERS = frozenset(
    {
        "batch_size_per_gpu",
        "clip_grad",
        "drop_path_rate",
        "epochs",
        "freeze_last_layer",
        "global_crops_scale",
        "local_crops_number",
        "local_crops_scale",
        "lr",
        "min_lr",
        "momentum_teacher",
        "norm_last_layer",
        "out_dim",
        "patch_size",
        "saveckp_freq",
        "seed",
        "teacher_temp",
        "use_bn_in_head",
        "use_fp16",
        "warmup_epochs",
        "warmup_teacher_temp",
        "warmup_teacher_temp_epochs",
        "weight_decay",
        "weight_decay_end",
        "world_size",
    }
)
_WORDS = frozenset({"arch", "optimizer"})
"""Of the released training code, those that say how a network was trained, and not where or by whom."""


@dataclass(frozen=True)
class Description:
    """What `endofm weights inspect` tells about a file.

    Attributes:
        file: its name, without folders.
        size: in bytes.
        sha256: of the whole file.
        known: which released file it is, if it is a known one.
        format: how it was written: safetensors, torch, torch before 1.6.
        structure: which of the published structures it has; None without a backbone.
        loads: whether `load_backbone` takes it.
        why_not: if it does not.
        networks: where backbones lie in it: "teacher.backbone", or "" for bare names.
        tensors: how many there are in the whole file, optimiser not counted.
        model: shape of the backbone, as `ModelConfig`; None if it does not load.
        parameters: of the backbone.
        head: whether a pre-training head lies beside it.
        provenance: as `Weights` has it.
        trained: epoch or steps, and those arguments of the training that name no person and no place.
        arguments_withheld: how many others there are.
    """

    file: str
    size: int
    sha256: str
    known: str | None
    format: str
    structure: str | None
    loads: bool
    why_not: str | None
    networks: list[str]
    tensors: int
    model: dict[str, Any] | None
    parameters: int | None
    head: bool
    provenance: dict[str, Any]
    trained: dict[str, Any]
    arguments_withheld: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def inspect_weights(path: Path, *, which: w.Which = "teacher") -> Description:
    """Describe a file; whether it would load is part of the description.

    Raises:
        DataError: it cannot be opened at all: missing, damaged, hostile, or not weights.
        UsageError: it has no network of the kind `which`.
    """
    file = read_file(path)
    tensors = dict(w.find_tensors(file.content))
    networks = w.find_backbones(tensors)
    weights, why_not = None, None
    try:
        weights = w.extract(file, which=which)
    except DataError as error:
        why_not = str(error).removeprefix(f"{path}: ")
    trained, withheld = _trained(file)
    return Description(
        file=path.name,
        size=file.size,
        sha256=file.sha256,
        known=KNOWN_FILES.get(file.sha256),
        format=file.format,
        structure=w.structure_of(file, networks[0], tensors) if networks else None,
        loads=weights is not None,
        why_not=why_not,
        networks=[prefix.rstrip(".") for prefix in networks],
        tensors=len(tensors),
        model=weights.config.model_dump(mode="json") if weights else None,
        parameters=sum(tensor.numel() for tensor in weights.backbone.values()) if weights else None,
        head=bool(weights and weights.head),
        provenance=weights.provenance if weights else {},
        trained=trained,
        arguments_withheld=withheld,
    )


def convert_weights(source: Path, out: Path, *, which: w.Which = "teacher", num_frames: int | None = None) -> bool:
    """Write the backbone of `source` as safetensors with its shape, its provenance and how it was trained.

    The same weights give the same bytes, also when what was converted is converted again.

    Returns:
        Whether anything was written; False if `out` holds these very bytes already.

    Raises:
        UsageError: `out` does not end in .safetensors, holds something else, or is `source`; see also `load_backbone`.
        DataError: as `load_backbone`, or `out` cannot be written.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"{out}: the name of the converted file must end in .safetensors")
    file = read_file(source)
    weights = w.extract(file, which=which, num_frames=num_frames)
    provenance, (trained, _) = dict(weights.provenance), _trained(file)
    if trained and isinstance(provenance.get("source"), Mapping):
        provenance["source"] = {**provenance["source"], "trained": trained}
    fresh = out.with_name(f".{out.stem}.new.safetensors")
    try:
        export_backbone(fresh, weights.config, weights.backbone, provenance)
        if not out.exists():
            fresh.replace(out)
            return True
        if out.is_dir() or not _same_bytes(fresh, out):
            raise UsageError(f"{out}: exists, and holds something else; remove it, or name another file")
        return False
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror}") from None
    finally:
        remove(fresh)


def _same_bytes(left: Path, right: Path) -> bool:
    if left.stat().st_size != right.stat().st_size:
        return False
    with left.open("rb") as one, right.open("rb") as other:
        while chunk := one.read(1 << 24):
            if chunk != other.read(1 << 24):
                return False
    return True


def _trained(file: WeightFile) -> tuple[dict[str, Any], int]:
    """How far, and with which arguments; and how many arguments are withheld."""
    source = file.about.get("source")
    earlier = source.get("trained") if isinstance(source, Mapping) else None  # what `convert_weights` has written
    facts = earlier if isinstance(earlier, Mapping) else file.content
    said: dict[str, Any] = {
        key: value for key in ("epoch", "step", "steps", "best_f1") if _is_number(value := facts.get(key))
    }
    if _is_number(steps := file.about.get("steps")):
        said["steps"] = steps
    arguments = facts.get("arguments" if facts is earlier else "args")
    values = arguments.values if isinstance(arguments, Arguments) else arguments
    if not isinstance(values, Mapping):
        return said, 0
    told = {key: value for key, value in values.items() if _is_harmless(key, value)}
    return {**said, **({"arguments": told} if told else {})}, len(values) - len(told)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e18


def _is_harmless(key: object, value: object) -> bool:
    """A number, a few numbers, or a plain word that cannot be part of a path."""
    if key in _WORDS:
        return isinstance(value, str) and re.fullmatch(r"[a-z0-9_]{1,24}", value) is not None
    numbers = value if isinstance(value, tuple | list) else (value,)
    return key in _NUMBERS and len(numbers) <= 4 and all(_is_number(number) for number in numbers)
