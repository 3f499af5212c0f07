"""What frozen features are good for: the k nearest neighbours of each clip vote on its label.

No weight is trained, so the answer is about the features and nothing else. Clips of one leak group (the same patient,
examination or lesion) never vote on each other: recognising a lesion is not recognising its kind.

Shape suffixes: N clips, T frames, S side of a picture in pixels, Q clips asked about at once, D feature width,
J classes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, one_hot

from endocorpus.corpus.manifest import Corpus, named_corpus
from endocorpus.errors import DataError
from endofm.data.clips import ClipSet, load_clips
from endofm.data.decode import decode_frames
from endofm.data.plan import ViewScheme, spread
from endofm.data.stream import BadClipError, ShardReader
from endofm.distributed import gather_rows, gathered

NEIGHBOURS = 20
"""At the most, as in DINO; a small corpus may allow fewer: see `enough_neighbours`."""
TEMPERATURE = 0.07
_TOGETHER = 1024  # clips whose similarities to all others are in memory at a time


@dataclass(frozen=True, eq=False)
class Probe:
    """Labelled clips of one corpus, by row of `clips`."""

    clips: ClipSet
    label: str
    classes: tuple[str, ...]  # in alphabetical order
    rows_N: NDArray[np.int64]
    targets_N: Tensor  # int64, into `classes`
    groups_N: Tensor  # int64, equal for clips of one leak group
    left_out: tuple[str, ...]  # classes of a single leak group, whose clips nobody could vote for
    neighbours: int  # that vote on each clip
    damaged: tuple[str, ...] = ()  # keys of clips that take no part

    def __len__(self) -> int:
        return len(self.rows_N)

    def __str__(self) -> str:
        note = f"; left out, being of a single leak group: {', '.join(self.left_out)}" if self.left_out else ""
        note += f"; left out, being damaged: {', '.join(self.damaged)}" if self.damaged else ""
        voters = f"{self.neighbours} nearest neighbours vote" if self.neighbours > 1 else "the nearest neighbour votes"
        return f"{voters} on the {self.label} of {len(self):,} clips ({', '.join(self.classes)}){note}"


@dataclass(frozen=True)
class Accuracy:
    """Shares from 0 to 1. `balanced` is the mean of the classes' own shares, so that a large class counts no more."""

    plain: float
    balanced: float


def load_probe(corpus: Path, label: str) -> Probe:
    """The clips of a corpus that carry `label`, for `encode` and `knn`.

    A class is the vocabulary's code, or what the provider wrote where there is no code. Clips without the label, or
    with more than one value of it, take no part, nor do damaged ones: every clip is read once. Each process must call.

    Raises:
        UsageError: no such folder, or it holds no corpus.
        DataError: the corpus is damaged; no clip has the label; or fewer than two classes of two leak groups are there.
    """
    opened, clips = named_corpus(corpus), load_clips([corpus])
    described = _described(opened, label)
    rows, damaged = sound(clips, [row for row in range(len(clips)) if clips.key(row) in described])
    values = [described[clips.key(row)] for row in rows]
    where: dict[str, set[str]] = {}
    for value, group in values:
        where.setdefault(value, set()).add(group)
    classes = tuple(sorted(value for value, groups in where.items() if len(groups) > 1))
    left_out = tuple(sorted(set(where) - set(classes)))
    if len(classes) < 2:
        found = ", ".join(f"{value!r} ({len(groups)})" for value, groups in sorted(where.items()))
        raise DataError(
            f"{corpus}: a probe of {label!r} needs two values that each occur in two leak groups, or nobody could "
            f"vote; here are (leak groups): {found}; name another corpus or label"
        )
    kept = [(row, *value) for row, value in zip(rows, values, strict=True) if value[0] in classes]
    groups = {group: number for number, group in enumerate(sorted({group for _, _, group in kept}))}
    targets_N = torch.tensor([classes.index(value) for _, value, _ in kept])
    groups_N = torch.tensor([groups[group] for _, _, group in kept])
    return Probe(
        clips=clips,
        label=label,
        classes=classes,
        rows_N=np.array([row for row, _, _ in kept], np.int64),
        targets_N=targets_N,
        groups_N=groups_N,
        left_out=left_out,
        neighbours=enough_neighbours(targets_N, groups_N),
        damaged=damaged,
    )


def sound(clips: ClipSet, rows: Sequence[int]) -> tuple[list[int], tuple[str, ...]]:
    """The rows whose clips are what was written wherever a process reads them, and the keys of the others.

    Raises:
        DataError: a shard cannot be read at all.
    """
    bad = []
    with ShardReader() as reader:
        for row in rows:
            try:
                reader.read(clips.location(row))
            except BadClipError:
                bad.append(row)
    everywhere = set(gathered(bad))
    return [row for row in rows if row not in everywhere], tuple(map(clips.key, sorted(everywhere)))


def _described(corpus: Corpus, label: str) -> dict[str, tuple[str, str]]:
    """Value of the label and leak group of every clip that has exactly one value, by key."""
    table = corpus.clips().select(["key", "leak_group", "labels"]).to_pylist()
    named = {entry["name"] for row in table for entry in row["labels"]}
    if label not in named:
        there = ", ".join(sorted(named)) or "none at all"
        raise DataError(f"{corpus.root}: no clip has a label {label!r}; labels here: {there}; set probe.label")
    found = {}
    for row in table:
        values = {entry["value"] or entry["raw"] for entry in row["labels"] if entry["name"] == label}
        if len(values) == 1:
            found[row["key"]] = (values.pop(), row["leak_group"])
    return found


def enough_neighbours(targets_N: Tensor, groups_N: Tensor) -> int:
    """The `neighbours` for `knn`: 20, or as many clips of its own class in other leak groups as the worst-off clip has.

    With more, clips of other classes would outvote that one however good the features are: where every clip that may
    vote does, features count for nothing, and accuracy says how the corpus is made up. At least 1.
    """
    both_2N = torch.stack([targets_N, groups_N])
    _, of_class_N, in_class = torch.unique(targets_N, return_inverse=True, return_counts=True)
    _, of_both_N, in_both = torch.unique(both_2N, dim=1, return_inverse=True, return_counts=True)
    fewest = int((in_class[of_class_N] - in_both[of_both_N]).min())
    return min(NEIGHBOURS, max(1, fewest))


def knn(
    features_ND: Tensor,
    targets_N: Tensor,
    groups_N: Tensor,
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Accuracy:
    """How often the nearest clips of other leak groups name a clip's class.

    The weighted vote of DINO (Caron et al., 2021, `eval_knn.py`; Wu et al., 2018): each of the `neighbours` clips with
    the greatest cosine votes for its class with weight exp(cosine / `temperature`). Where fewer clips may vote, all of
    them do. Equal cosines are taken in the order of the clips, equal votes go to the first class.

    Args:
        features_ND: float, on any device.
        targets_N: int64 classes, from 0.
        groups_N: int64; clips of equal numbers do not vote on each other.
    """
    unit_ND = normalize(features_ND.detach().double().cpu(), dim=1)
    votes_NJ = one_hot(targets_N.cpu()).double()
    right = []
    for start in range(0, len(unit_ND), _TOGETHER):
        queries = slice(start, start + _TOGETHER)
        cosine_QN = unit_ND[queries] @ unit_ND.T
        cosine_QN[groups_N[queries, None] == groups_N] = -math.inf
        nearest = torch.sort(cosine_QN, dim=1, descending=True, stable=True)
        # Less 1, which weighs all alike and keeps a small temperature finite; who may not vote weighs exp(-inf) = 0.
        weights = ((nearest.values[:, :neighbours] - 1) / temperature).exp()
        votes_QJ = (weights[..., None] * votes_NJ[nearest.indices[:, :neighbours]]).sum(dim=1)
        right.append(votes_QJ.argmax(dim=1) == targets_N[queries])
    right_N = torch.cat(right).double()
    of_class_J = (votes_NJ * right_N[:, None]).sum(dim=0) / votes_NJ.sum(dim=0)
    return Accuracy(float(right_N.mean()), float(of_class_J[votes_NJ.any(dim=0)].mean()))


def ask(
    backbone: nn.Module,
    probe: Probe,
    views: ViewScheme,
    *,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
) -> dict[str, float]:
    """`knn` of what `encode` makes of the clips, the same on all processes, as entries of the metrics file:
    `knn_accuracy` and `knn_balanced_accuracy`, shares from 0 to 1, and `knn_at_chance`, the balanced one of features
    that know nothing."""
    features_ND = encode(backbone, probe, views, device=device, rank=rank, world=world)
    accuracy = knn(features_ND, probe.targets_N, probe.groups_N, neighbours=probe.neighbours)
    return {
        "knn_accuracy": accuracy.plain,
        "knn_balanced_accuracy": accuracy.balanced,
        "knn_at_chance": 1 / len(probe.classes),
    }


def encode(
    backbone: nn.Module,
    probe: Probe,
    views: ViewScheme,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    rank: int = 0,
    world: int = 1,
) -> Tensor:
    """Features float32 [N, D] of the clips of a probe, in its order; see `encode_rows`."""
    return encode_rows(
        backbone, probe.clips, probe.rows_N, views, device=device, batch_size=batch_size, rank=rank, world=world
    )


@torch.no_grad()
def encode_rows(
    backbone: nn.Module,
    clips: ClipSet,
    rows_N: NDArray[np.int64],
    views: ViewScheme,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    rank: int = 0,
    world: int = 1,
) -> Tensor:
    """Features float32 [N, D] of clips, in the order of their rows, by a network as it would be used: in evaluation
    mode, which is undone afterwards.

    The network sees what the first view of `views` shows when nothing is left to chance: as many frames, evenly over
    the clip from the first to the last, and the whole picture, resized to a square of as many pixels with
    antialiasing, less `mean` and over `std`.

    Args:
        backbone: any module that makes features [B, D] of clips [B, 3, T, S, S].
        clips: where the rows lie.
        rows_N: of the clips.
        views: of the run.
        device: where it lies.
        batch_size: clips a pass.
        rank: of this process.
        world: the number of processes; each encodes its share and gets all features, and each must call.

    Raises:
        DataError: a clip cannot be read; see `endofm.data`.
    """
    # All shares are as long as the longest, or processes that exchange weights would wait for each other for ever.
    longest = math.ceil(len(rows_N) / world)
    share = [min(place * world + rank, len(rows_N) - 1) for place in range(longest)]
    features = []
    with _evaluating(backbone), ShardReader() as reader:
        for start in range(0, longest, batch_size):
            rows = [int(rows_N[place]) for place in share[start : start + batch_size]]
            pictures = torch.stack([_picture(clips, row, views, reader) for row in rows])
            features.append(backbone(pictures.to(device)).float())
    return gather_rows(torch.cat(features))[: len(rows_N)]


def raw_pixels(side: int) -> nn.Module:
    """The baseline without a network: every frame, averaged to `side` x `side` pixels; [B, 3, T, S, S] to
    [B, 3 * T * side * side]."""
    return nn.Sequential(nn.AdaptiveAvgPool3d((None, side, side)), nn.Flatten())


def _picture(clips: ClipSet, row: int, views: ViewScheme, reader: ShardReader) -> Tensor:
    """One clip as `encode` shows it, float32 [3, T, S, S]."""
    num_frames, (times, size) = int(clips.num_frames_N[row]), views.view_shapes[0]
    frames, places = np.unique(spread(0, num_frames - 1, times, num_frames), return_inverse=True)
    decoded_UHWC = decode_frames(reader.read(clips.location(row)), frames, num_frames)
    pictures_TCHW = torch.from_numpy(decoded_UHWC[places]).permute(0, 3, 1, 2).float().div_(255)
    resized_TCSS = interpolate(pictures_TCHW, size=(size, size), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (views.mean, views.std))
    return (resized_TCSS.transpose(0, 1) - mean) / std


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """`module` in evaluation mode, and each of its parts as it was afterwards."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, was in training.items():
            part.training = was
