"""Weights of the backbone out of any file in which they are published.

Endo-FM, EndoFM-LV  training checkpoint: `teacher` (`backbone.*`, `head.*`), `student` (the same after `module.`), ...
SVT                 `backbone.*` and `head.*`
TimeSformer         `model_state`, names after `model.`
PolypDiag           what Endo-FM fine-tuned: `backbone_state_dict`, names after `module.`
DINO, ViTs of timm  images: bare names, and nothing about time
ours                safetensors with the shape in its metadata; training checkpoints

Wherever the tensors lie, they are found by their names. They must be all that the network has and no others: the
published code loads with `strict=False`, and so trains a random network where a prefix is not what it expects.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import interpolate

from endocorpus.errors import DataError, UsageError
from endofm.models.transformer import ModelConfig, VideoTransformer
from endofm.models.weight_files import WeightFile, read_file

Which = Literal["teacher", "student"]

LARGEST = 1e6
"""Of any weight; trained ones stay below a few hundred."""
_HEAD_WIDTH = 64  # of attention, in every published shape
_DEEPEST = 1000  # blocks; a hostile file may speak of any number
_DEPTH = 4  # of dictionaries in dictionaries
_ANCHORS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
_CLASSIFIERS = ("head.", "fc.", "linear.")
_MARKS = ("teacher", "student")
_OURS, _BARE = "backbone of endofm", "video transformer by its tensors' names"  # structures that no one else publishes

_RELATIVES = (  # a part of a name, and whose it is
    ("segmentation_head", "the segmentation network of Endo-FM (CVC), which cannot be taken apart"),
    ("rpn.", "the detection network of Endo-FM (KUMC), which cannot be taken apart"),
    ("attention.attention.query", "a transformer of Hugging Face; use the file that it was converted from"),
    ("resblocks", "CLIP, which is another network"),
    ("decoder_blocks", "a masked autoencoder; save its encoder alone"),
    ("ls1.gamma", "DINOv2 or a kin of it, which scales its layers as this network does not"),
    ("layer4.", "a ResNet, which is another network"),
    ("last_layer.weight_v", "the head of DINO without its backbone"),
)


@dataclass(frozen=True)
class Weights:
    """A backbone in numbers.

    Attributes:
        config: its shape.
        backbone: the state of a `VideoTransformer` of that shape, whole, float32, on the CPU.
        head: the state of the `DINOHead` that was trained on it; empty if the file has none.
        provenance: JSON values: where the weights come from (under `source`, or as our own run wrote it) and, where
            they are not as they lay in the file, what was done (`changes`). No name of a person, file or machine.
    """

    config: ModelConfig
    backbone: dict[str, Tensor]
    head: dict[str, Tensor]
    provenance: dict[str, Any]

    @property
    def changes(self) -> list[str]:
        """Sentences on what was made up or resized, because the file has nothing that would fit."""
        return list(self.provenance.get("changes", ()))

    def announce(self, path: str | Path) -> None:
        """Warn the caller's caller of each change."""
        for change in self.changes:
            warnings.warn(f"{path}: {change}", stacklevel=3)


def load_backbone(path: str | Path, *, which: Which = "teacher", num_frames: int | None = None) -> VideoTransformer:
    """A backbone with the weights of a file, all of them matched, in evaluation mode (no stochastic depth), on the CPU.

    Args:
        path: of any file that the top of this module lists.
        which: of two networks in one file. The teacher is the average that is meant to be used.
        num_frames: length of the table of times, which is then resized by nearest neighbour; the file's if None. Clips
            of any number of frames are taken in either case.

    Raises:
        DataError: not weights, damaged, or not those of this network; lists what is missing, unexpected and mis-shaped.
        UsageError: `which` names what the file does not have, or `num_frames` is not positive.

    Warns:
        UserWarning: for each of `Weights.changes`.
    """
    weights = read_backbone(path, which=which, num_frames=num_frames)
    weights.announce(path)
    return build_backbone(weights)


def build_backbone(weights: Weights) -> VideoTransformer:
    """The network that `weights` describe, in evaluation mode; takes no random draw."""
    with torch.device("meta"):
        backbone = VideoTransformer(weights.config)
    backbone.load_state_dict(weights.backbone, assign=True)
    return backbone.eval()


def read_backbone(path: str | Path, *, which: Which = "teacher", num_frames: int | None = None) -> Weights:
    """As `load_backbone`, but as numbers, with the head and with where they come from; warns of nothing."""
    return extract(read_file(Path(path)), which=which, num_frames=num_frames)


def extract(file: WeightFile, *, which: Which = "teacher", num_frames: int | None = None) -> Weights:
    """The part of `read_backbone` that comes after the file is open."""
    if which not in get_args(Which) or (num_frames is not None and num_frames < 1):
        raise UsageError(
            f"which = {which!r}, num_frames = {num_frames}: expected teacher or student, and a positive number"
        )
    tensors = dict(find_tensors(file.content))
    prefix = _choose(file.path, tensors, which)
    found = _below(tensors, prefix)
    left_out = sorted(name for name in found if name.startswith(_CLASSIFIERS))
    found = {name: tensor for name, tensor in found.items() if name not in left_out}
    changes, stated = list(_strings(file.about.get("changes"))), _stated(file)
    if not _knows_of_time(found) and not _attends_space_alone(stated):
        found = _inflated(found, num_frames or ModelConfig().num_frames)
        changes.append(
            "weights of images: attention along time is a copy of that in space and has no effect until it is trained, "
            "since temporal_fc and time_embed are zero"
        )
    structure = structure_of(file, prefix, tensors)
    config = _config_of(file, found, stated)
    _refuse_misfit(file.path, config, found, tensors)
    if stated is None and structure in {_BARE, _OURS}:
        changes.append(
            f"the file does not say how many heads of attention there are: {config.num_heads} of {_HEAD_WIDTH} are "
            "assumed, as all published networks have; with another number it is another network"
        )
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in found.values()})
    backbone = _materialised(file, found)
    if num_frames and num_frames != config.num_frames and "time_embed" in backbone:
        changes.append(f"time_embed resized from {config.num_frames} to {num_frames} frames by nearest neighbour")
        table_1TD = backbone["time_embed"]
        backbone["time_embed"] = interpolate(table_1TD.mT, size=num_frames, mode="nearest").mT.contiguous()
        config = config.model_copy(update={"num_frames": num_frames})
    source = {"structure": structure, "dtype": ", ".join(dtypes), "left_out": left_out}
    return Weights(config, backbone, _head(file, tensors, prefix), _provenance(file, prefix, source, changes))


def find_tensors(content: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """All tensors of dictionaries in dictionaries, under their names joined by dots: "teacher.backbone.cls_token"."""
    seen: set[int] = set()  # a hostile dictionary may hold itself

    def walk(part: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        if id(part) in seen or depth > _DEPTH:
            return
        seen.add(id(part))
        for key, value in part.items():
            if isinstance(key, str) and isinstance(value, Tensor):
                yield prefix + key, value
            elif isinstance(key, str) and isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.", depth + 1)

    return walk(content, "", 0)


def find_backbones(tensors: Mapping[str, Tensor]) -> list[str]:
    """What precedes the names of each backbone: ["teacher.backbone.", "student.module.backbone."], or [""]."""
    ends = {name.removesuffix(anchor) for name in tensors for anchor in _ANCHORS if name.endswith(anchor)}
    return sorted(prefix for prefix in ends if not prefix or prefix.endswith("."))


def mark_of(prefix: str) -> str | None:
    """Whether a backbone is called a teacher or a student where it lies."""
    return next((part for part in prefix.split(".") if part in _MARKS), None)


def _choose(path: Path, tensors: Mapping[str, Tensor], which: Which) -> str:
    prefixes = find_backbones(tensors)
    if not prefixes:
        some = ", ".join(list(tensors)[:3]) or "none"
        raise DataError(f"{path}: holds no vision transformer; its {len(tensors)} tensors: {some} ...{_guess(tensors)}")
    marks = sorted({mark for prefix in prefixes if (mark := mark_of(prefix))})
    chosen = [prefix for prefix in prefixes if mark_of(prefix) == which] if marks else prefixes
    if not chosen:
        raise UsageError(f"{path}: has no {which}; it has a {' and a '.join(marks)}")
    if not marks and which != "teacher":
        raise UsageError(
            f"{path}: holds one network, and says neither teacher nor student; leave out which = {which!r}"
        )
    if len(chosen) > 1:
        places = ", ".join(prefix.rstrip(".") or "bare names" for prefix in chosen)
        raise DataError(
            f"{path}: holds {len(chosen)} backbones ({places}), and nothing says which is meant; save one alone"
        )
    return chosen[0]


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _knows_of_time(names: Iterable[str]) -> bool:
    return any("temporal" in name or name == "time_embed" for name in names)


def _inflated(found: Mapping[str, Tensor], num_frames: int) -> dict[str, Tensor]:
    """An image transformer as a video transformer, as Endo-FM does it (`models/helpers.py` of its code).

    The rest of the network, which is judged later, need not be whole.
    """
    video = dict(found)
    for name, tensor in found.items():
        if name.startswith("blocks."):
            block, _, part = name.removeprefix("blocks.").partition(".")
            if part.startswith(("attn.", "norm1.")):
                video[f"blocks.{block}.temporal_{part}"] = tensor
            if part.startswith("attn.proj."):
                video[f"blocks.{block}.temporal_fc.{part.removeprefix('attn.proj.')}"] = torch.zeros_like(tensor)
    if "cls_token" in found:
        video["time_embed"] = torch.zeros(1, num_frames, found["cls_token"].shape[-1])
    return video


def _stated(file: WeightFile) -> Any:
    """The shape that a file of ours states; None for others."""
    stated = file.content["config"].get("model") if is_run(file) else file.about.get("model")
    if isinstance(stated, dict):  # where a run's weights came from is no part of their shape
        return {key: value for key, value in stated.items() if key != "weights"}
    return stated


def _attends_space_alone(stated: Any) -> bool:
    return isinstance(stated, dict) and stated.get("attends") == "space"


def _config_of(file: WeightFile, found: Mapping[str, Tensor], stated: Any) -> ModelConfig:
    """The shape that the file states, or else the one that its tensors have."""
    try:
        config = ModelConfig.model_validate(_shape_of(file.path, found) if stated is None else stated)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise DataError(f"{file.path}: not the shape of a backbone that this version knows: {said}") from None
    blocks = len(_blocks(found))
    if blocks > _DEEPEST or (stated is not None and config.depth != blocks):
        raise DataError(f"{file.path}: has {blocks} blocks, where {min(config.depth, _DEEPEST)} are expected")
    return config


def is_run(file: WeightFile) -> bool:
    """Whether it is a checkpoint of `endofm pretrain`."""
    said = file.content.get("format")
    return isinstance(said, str) and said.startswith("endofm-pretrain-") and isinstance(file.content["config"], Mapping)


def _blocks(found: Mapping[str, Tensor]) -> set[str]:
    return {name.split(".")[1] for name in found if name.startswith("blocks.")}


def _shape_of(path: Path, found: Mapping[str, Tensor]) -> dict[str, int | float]:
    """What tensors say about the network. What one that is missing would say is as published; it will be missed."""
    published = ModelConfig()

    def side(name: str, dimension: int, default: int) -> int:
        shape = found[name].shape if name in found else ()
        return shape[dimension] if len(shape) > dimension else default

    width = side("cls_token", 2, side("pos_embed", 2, side("patch_embed.proj.weight", 0, published.embed_dim)))
    patch = side("patch_embed.proj.weight", 3, published.patch_size)
    grid = math.isqrt(max(0, side("pos_embed", 1, 197) - 1))
    if width % _HEAD_WIDTH:
        raise DataError(
            f"{path}: does not say how many heads of attention there are, and width {width} cannot be shared by heads "
            f"of {_HEAD_WIDTH}, as all published networks have"
        )
    return {
        "embed_dim": width,
        "depth": max(1, len(_blocks(found))),
        "num_heads": width // _HEAD_WIDTH,
        "mlp_ratio": side("blocks.0.mlp.fc1.weight", 0, 4 * width) / max(1, width),
        "patch_size": patch,
        "image_size": grid * patch,
        "num_frames": side("time_embed", 1, published.num_frames),
    }


def _refuse_misfit(path: Path, config: ModelConfig, found: Mapping[str, Tensor], all_names: Iterable[str]) -> None:
    try:
        with torch.device("meta"):
            expected = VideoTransformer(config).state_dict()
    except (RuntimeError, OverflowError, TypeError):  # what torch says to numbers of twenty digits
        raise DataError(f"{path}: states a shape that no network can have: {config}") from None
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshaped = [
        f"{name} {list(found[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    odd = [
        f"{name} ({str(tensor.dtype).removeprefix('torch.')}, {tensor.device})"
        for name, tensor in found.items()
        if not _is_plain(tensor)
    ]
    lists = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped, "not plain numbers": odd}
    said = [f"{len(names)} {what}: {_some(names)}" for what, names in lists.items() if names]
    if said:
        fit = f"{len(expected) - len(missing) - len(misshaped)} of the {len(expected)} tensors of the backbone fit"
        raise DataError(f"{path}: {fit}; {'; '.join(said)}{_guess(all_names)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _guess(names: Iterable[str]) -> str:
    """Whose file it may be."""
    names = list(names)
    for part, whose in _RELATIVES:
        if any(part in name for name in names):
            return f". It looks like {whose}"
    return ""


def _materialised(file: WeightFile, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in memory, in float32 and of one piece."""
    if sum(tensor.numel() * tensor.element_size() for tensor in found.values()) > 2 * file.size:  # twice: `_inflated`
        raise DataError(f"{file.path}: its tensors claim more numbers than the file has room for")
    copies = {}
    for name, tensor in found.items():
        copies[name] = tensor.detach().to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        largest = float(copies[name].abs().max())
        if not largest <= LARGEST:
            raise DataError(f"{file.path}: weights of a run that diverged, or damaged: {name} reaches {largest:.3g}")
    return copies


def _head(file: WeightFile, tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The head that lies beside a backbone. Whether it is whole and of which shape is for its user to say."""
    if not prefix.endswith("backbone."):
        return {}
    head = _below(tensors, prefix.removesuffix("backbone.") + "head.")
    if "last_layer.weight_v" not in head:
        return {}
    if not all(_is_plain(tensor) for tensor in head.values()):
        raise DataError(f"{file.path}: the head beside the backbone is not of plain numbers")
    return _materialised(file, head)


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.is_floating_point()
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.numel() > 0
    )


def _provenance(file: WeightFile, prefix: str, source: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    """Of a backbone of ours: what it says. Of any other file: what it is and how it was read."""
    about = {key: value for key, value in file.about.items() if key not in {"model", "changes"}}
    if not about:
        about = {"source": {"sha256": file.sha256, "format": file.format, **source}}
        if mark := mark_of(prefix):
            about["source"]["which"] = mark
    return {**about, **({"changes": changes} if changes else {})}


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def structure_of(file: WeightFile, prefix: str, tensors: Mapping[str, Tensor]) -> str:
    """Which of the published structures a file has, in words."""
    if file.about:
        return _OURS
    if is_run(file):
        return "training checkpoint of endofm"
    if not _knows_of_time(_below(tensors, prefix)):
        return "image transformer, as DINO publishes it"
    if mark_of(prefix):
        times = tensors.get(f"{prefix}time_embed")
        is_long = times is not None and times.shape[1:2] == (32,)
        return f"training checkpoint, as {'EndoFM-LV' if is_long else 'Endo-FM'} publishes it"
    if prefix == "backbone.":
        return "backbone and head, as SVT publishes them"
    if prefix.startswith("model_state."):
        return "TimeSformer"
    if prefix.startswith("backbone_state_dict."):
        return "backbone and classifier, as Endo-FM fine-tunes them on PolypDiag"
    return _BARE
