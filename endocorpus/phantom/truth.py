"""The truth about rendered recordings: in memory, on disk beside the tree, and back."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from endocorpus.corpus.files import PARTIAL, atomic_path
from endocorpus.phantom.scene import Box, FrameTruth
from endocorpus.phantom.traits import Field, Overlay, Polyp, Traits

PLAN, BOXES, LABELS, TRAPS = "plan.json", "boxes.parquet", "labels.json", "traps.json"
BOX_SCHEMA = pa.schema(
    [("recording", pa.string())]
    + [(name, pa.int32()) for name in ("frame", "polyp", "xmin", "ymin", "xmax", "ymax", "area")]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingTruth:
    """All that is known about one recording.

    ``boxes`` has one entry per frame. ``packed`` maps a frame that shows a polyp to its masks: one row per polyp,
    bits packed along height * width; read it with ``masks``.
    """

    traits: Traits
    boxes: tuple[tuple[Box, ...], ...]
    packed: Mapping[int, npt.NDArray[np.uint8]]

    def masks(self, frame: int) -> npt.NDArray[np.bool_]:
        """Where each polyp is seen on ``frame``; shape (polyps, height, width)."""
        if not 0 <= frame < self.traits.frames:
            raise IndexError(f"frame {frame} of a recording of {self.traits.frames} frames")
        shape = (len(self.traits.polyps), self.traits.height, self.traits.width)
        if frame not in self.packed:
            return np.zeros(shape, np.bool_)
        bits = np.unpackbits(self.packed[frame], axis=1, count=shape[1] * shape[2])
        return bits.astype(np.bool_).reshape(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """Something planted in a tree that a naive reader gets wrong.

    ``path`` is the file or the recording it concerns, ``name`` its kind, such as "lexical-order", and ``expect``
    says in a sentence what a right reader does.
    """

    path: str
    name: str
    expect: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeTruth:
    """The truth about a rendered tree. ``recordings`` is keyed by path in the tree, with forward slashes.

    ``pictures`` lists the files of the recordings that are not videos, in the order of their frames. ``labels`` is
    what the tree's label files say: ``{recording: {"labels": {...}, "frames": {...}}}``.
    """

    source: str
    seed: int
    recordings: Mapping[str, RecordingTruth]
    pictures: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, Any]
    traps: tuple[Trap, ...]


class Notes:
    """Collects the truth frame by frame while a recording is rendered."""

    def __init__(self, traits: Traits) -> None:
        self._traits = traits
        self._boxes: list[tuple[Box, ...]] = []
        self._packed: dict[int, npt.NDArray[np.uint8]] = {}

    def add(self, truth: FrameTruth) -> None:
        """Note the next frame."""
        self._boxes.append(truth.boxes)
        if truth.boxes:
            layers = np.stack([truth.labels.ravel() == index + 1 for index in range(len(self._traits.polyps))])
            self._packed[truth.frame] = np.packbits(layers, axis=1)

    def done(self) -> RecordingTruth:
        """The truth about all frames."""
        return RecordingTruth(traits=self._traits, boxes=tuple(self._boxes), packed=self._packed)


def truth_root(tree: Path) -> Path:
    """Where the truth about ``tree`` lies: beside it, never in it."""
    if tree.name in ("", ".."):  # "." and the like have no name to add to
        tree = tree.resolve()
    return tree.with_name(f"{tree.name}.truth")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends well: no killed run leaves half a file.

    Unlike ``atomic_path`` it does not wait for the disk. A tree has thousands of small files, and after a power cut
    it is rendered again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}{PARTIAL}")
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_masks(root: Path, recording: str, truth: RecordingTruth) -> None:
    """Write the masks of one recording to ``masks/<recording>.npz``, one entry per frame that shows a polyp."""
    buffer = io.BytesIO()
    # savez stamps every entry with the same fixed date, so the bytes depend on the masks alone.
    np.savez_compressed(buffer, allow_pickle=False, **{f"{frame:06d}": bits for frame, bits in truth.packed.items()})
    with whole_file(root / "masks" / f"{recording}.npz") as part:
        part.write_bytes(buffer.getvalue())


def write_boxes(root: Path, recordings: Mapping[str, RecordingTruth]) -> None:
    """Write the boxes of all recordings to one Parquet file, ordered by recording, frame and polyp."""
    rows = [
        {"recording": name, "frame": frame, **asdict(box)}
        for name, truth in sorted(recordings.items())
        for frame, boxes in enumerate(truth.boxes)
        for box in boxes
    ]
    with atomic_path(root / BOXES) as part:
        pq.write_table(pa.Table.from_pylist(rows, schema=BOX_SCHEMA), part)


def rendered_by(tree: Path) -> str | None:
    """Who rendered a raw tree, if its truth lies beside it: a corpus of it must not be taken for the real dataset."""
    try:
        plan = json.loads((truth_root(tree) / PLAN).read_text(encoding="utf-8"))
        return f"rendered by endocorpus phantom, seed {plan['seed']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write plain values, one a line and in a fixed order, so that trees can be compared with the eye."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def traits_to_json(traits: Traits) -> dict[str, Any]:
    """Traits as plain JSON values; the corners of an octagonal field are added for readers of the file."""
    plain = asdict(traits)
    plain |= {"rate": str(traits.rate), "aspect": str(traits.aspect)}
    plain["capture"] = None if traits.capture is None else str(traits.capture)
    plain["field"]["polygon"] = traits.field.polygon()
    return plain


def traits_from_json(plain: Mapping[str, Any]) -> Traits:
    """The traits that ``traits_to_json`` wrote."""

    def pairs(rows: list[list[int]]) -> tuple[tuple[int, int], ...]:
        return tuple((start, stop) for start, stop in rows)

    field = {key: value for key, value in plain["field"].items() if key != "polygon"}
    overlays = [
        {**row, "box": tuple(row["box"]), "colour": tuple(row["colour"]), "span": tuple(row["span"])}
        for row in plain["overlays"]
    ]
    return Traits(
        **{
            **plain,
            "rate": Fraction(plain["rate"]),
            "aspect": Fraction(plain["aspect"]),
            "capture": None if plain["capture"] is None else Fraction(plain["capture"]),
            "inset": None if plain["inset"] is None else tuple(plain["inset"]),
            "field": Field(**{**field, "centre": tuple(field["centre"])}),
            "polyps": tuple(Polyp(**row) for row in plain["polyps"]),
            "overlays": tuple(Overlay(**row) for row in overlays),
            "outside": pairs(plain["outside"]),
            "frozen": pairs(plain["frozen"]),
            "black": pairs(plain["black"]),
        }
    )


def load_truth(tree: Path) -> TreeTruth:
    """Read the truth about a rendered tree. Raises ``FileNotFoundError`` if the tree was not rendered to its end."""
    root = truth_root(tree)
    plan = json.loads((root / PLAN).read_text(encoding="utf-8"))
    with pq.ParquetFile(root / BOXES) as file:
        rows = file.read(use_threads=False).to_pylist()  # one thread: see corpus/manifest.py
    by_recording: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_recording.setdefault(row.pop("recording"), []).append(row)
    recordings = {}
    for name, plain in plan["recordings"].items():
        traits = traits_from_json(plain)
        boxes: list[list[Box]] = [[] for _ in range(traits.frames)]
        for row in by_recording.get(name, []):
            boxes[row.pop("frame")].append(Box(**row))
        with np.load(root / "masks" / f"{name}.npz") as archive:
            packed = {int(key): archive[key] for key in archive.files}
        recordings[name] = RecordingTruth(traits=traits, boxes=tuple(tuple(b) for b in boxes), packed=packed)
    return TreeTruth(
        source=plan["source"],
        seed=plan["seed"],
        recordings=recordings,
        pictures={name: tuple(paths) for name, paths in plan["pictures"].items()},
        labels=json.loads((root / LABELS).read_text(encoding="utf-8")),
        traps=tuple(Trap(**row) for row in json.loads((root / TRAPS).read_text(encoding="utf-8"))),
    )
