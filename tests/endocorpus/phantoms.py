"""Trees of five sources, rendered once for all tests that look at them, and ways to look."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from endocorpus.phantom import TreeTruth, load_truth, render_source

Frame = npt.NDArray[np.uint8]
Trees = Callable[[str], tuple[Path, TreeTruth]]
SEED, SIZE = 5, (96, 80)
SECONDS = {"hyper-kvasir": 1.0, "kvasir-capsule": 2.0, "cholectriplet": 7.0, "renji": 1.0, "real-colon": 0.5}


def tree_renderer(folder: Path) -> Trees:
    """Gives the root and the truth of a source's tree; renders it below `folder` when it is first asked for."""
    done: dict[str, tuple[Path, TreeTruth]] = {}

    def tree(source: str) -> tuple[Path, TreeTruth]:
        if source not in done:
            root = render_source(source, folder / source, seed=SEED, seconds=SECONDS[source], size=SIZE).root
            done[source] = root, load_truth(root)
        return done[source]

    return tree


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def decode(source: Path | io.BytesIO) -> list[Frame]:
    with av.open(str(source) if isinstance(source, Path) else source) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def picture(path: Path | io.BytesIO) -> Frame:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def far(one: Frame, other: Frame) -> float:
    """Mean difference of two pictures."""
    return float(np.abs(one.astype(int) - other).mean())


def table(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))
