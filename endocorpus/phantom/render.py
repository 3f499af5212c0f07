"""Render recordings to files, and whole sources to trees with their truth beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from endocorpus.corpus.files import PARTIAL, atomic_path
from endocorpus.phantom.layouts import LAYOUTS, Layout
from endocorpus.phantom.plan import RATE, SECONDS, SIZE, plan_recording
from endocorpus.phantom.scene import frames
from endocorpus.phantom.traits import Traits
from endocorpus.phantom.truth import (
    PLAN,
    Notes,
    RecordingTruth,
    traits_to_json,
    truth_root,
    write_boxes,
    write_masks,
    write_plan,
)
from endocorpus.phantom.video import encode

OnFrame = Callable[[int], None]
VERSION = 1
"""Raised whenever the same request renders other bytes than before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomTree:
    """A rendered tree: where it lies, where its truth lies, and its recordings as paths in the tree."""

    root: Path
    truth: Path
    recordings: tuple[str, ...]


def render_video(
    path: Path, traits: Traits, seed: int, *, crf: int = 20, gop: int = 50, on_frame: OnFrame | None = None
) -> RecordingTruth:
    """Render one recording to any path; the suffix picks the container (see ``video.CONTAINERS``).

    ``on_frame`` is called with the number of frames done. Raises ``ValueError`` for an unknown suffix.
    """
    notes = Notes(traits)
    encode(path, _noted(traits, seed, notes, on_frame), (traits.width, traits.height), traits.rate, crf=crf, gop=gop)
    return notes.done()


def render_frames(
    directory: Path, traits: Traits, seed: int, name: Callable[[int], str] = lambda index: f"{index:06d}.jpg",
    *, quality: int = 92, on_frame: OnFrame | None = None,
) -> RecordingTruth:  # fmt: skip
    """Render one recording to numbered pictures. ``name`` gives the file name of a frame; its suffix (``.jpg`` or
    ``.png``) picks the format, ``quality`` is that of JPEG."""
    notes = Notes(traits)
    for index, picture in enumerate(_noted(traits, seed, notes, on_frame)):
        path = directory / name(index)
        kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}.get(path.suffix.lower())
        if kind is None:
            raise ValueError(f"cannot write {path.name}: a frame is a .jpg or a .png")
        with atomic_path(path) as part:
            Image.fromarray(picture).save(part, format=kind, quality=quality)
    return notes.done()


def _noted(traits: Traits, seed: int, notes: Notes, on_frame: OnFrame | None) -> Iterator[npt.NDArray[np.uint8]]:
    """The pictures of a recording; their truth goes to ``notes`` on the way."""
    for picture, truth in frames(traits, seed):
        yield picture
        notes.add(truth)
        if on_frame is not None:
            on_frame(truth.frame + 1)


def plan_source(
    source: str, *, seed: int, recordings: int = 8, seconds: float = SECONDS, size: tuple[int, int] = SIZE,
    frame_counter: bool = False,
) -> dict[str, Traits]:  # fmt: skip
    """The traits of every recording of a tree, by path in the tree, before anything is rendered.

    Raises ``ValueError`` for a source without a phantom layout, more recordings than the source has, no time, or a
    negative seed.
    """
    layout = _layout(source)
    if not 1 <= recordings <= layout.recordings:
        raise ValueError(f"{source} has 1 to {layout.recordings} recordings, not {recordings}")
    if seed < 0 or seconds * RATE < 1:
        raise ValueError(f"a seed is not negative and a recording has a frame: seed {seed}, {seconds} seconds")
    return {
        place.path: plan_recording(
            seed, lumen=place.lumen, recording=index, light=place.light, lesion=place.lesion, size=size,
            frames=round(Fraction(seconds) * RATE), frame_counter=frame_counter,
        )
        for index, place in enumerate(layout.places(recordings))
    }  # fmt: skip


def render_source(
    source: str, out: Path, *, seed: int, recordings: int | None = None, seconds: float | None = None,
    size: tuple[int, int] = SIZE, frame_counter: bool = False, on_frame: OnFrame | None = None,
) -> PhantomTree:  # fmt: skip
    """Render a tree in the exact layout of ``source`` to ``out``, and its truth to ``<out>.truth``.

    ``recordings`` (8) is the number of videos, ``seconds`` (8) the length of each, ``size`` (width, height).
    ``on_frame`` is called with the number of frames done over all recordings. The same request renders the same
    bytes, and may be repeated over itself. Raises ``ValueError`` as ``plan_source`` does, and ``FileExistsError``
    if ``out`` holds files that this request does not render.
    """
    count, length = 8 if recordings is None else recordings, SECONDS if seconds is None else seconds
    planned = plan_source(
        source, seed=seed, recordings=count, seconds=length, size=size, frame_counter=frame_counter
    )  # fmt: skip
    sidecars = _layout(source).sidecars(seed, planned)
    root = truth_root(out)
    plan = {
        "version": VERSION, "source": source, "seed": seed, "files": sorted([*planned, *sidecars]),
        "recordings": {path: traits_to_json(traits) for path, traits in planned.items()},
    }  # fmt: skip
    _refuse_foreign(out, root, plan)
    write_plan(root, plan)  # first, so that a tree whose rendering was cut short is known as ours
    for path, text in sidecars.items():
        with atomic_path(out / path) as part:
            part.write_text(text, encoding="utf-8")
    truths, done = {}, 0
    for path, traits in planned.items():
        before = done
        report = None if on_frame is None else (lambda number, before=before: on_frame(before + number))
        truths[path] = render_video(out / path, traits, seed, on_frame=report)
        write_masks(root, path, truths[path])
        done += traits.frames
    write_boxes(root, truths)  # last: a truth that can be loaded is complete
    return PhantomTree(root=out, truth=root, recordings=tuple(planned))


def _layout(source: str) -> Layout:
    if source not in LAYOUTS:
        raise ValueError(f"no phantom layout for source {source!r}; there is one for: {', '.join(sorted(LAYOUTS))}")
    return LAYOUTS[source]


def _refuse_foreign(out: Path, root: Path, plan: dict[str, Any]) -> None:
    """Raise ``FileExistsError`` unless everything in ``out`` comes from this very plan."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file: choose a directory to render into")
    found = [path for path in sorted(out.rglob("*")) if not path.is_dir()] if out.exists() else []
    if not found and not (root / PLAN).exists():
        return
    advice = f"choose another directory, or remove {out} and {root} first"
    if not (root / PLAN).exists():
        raise FileExistsError(f"{out} is not empty and was not rendered by the phantom: {advice}")
    if json.loads((root / PLAN).read_text(encoding="utf-8")) != json.loads(json.dumps(plan)):
        raise FileExistsError(f"{out} holds a phantom that was rendered from another request: {advice}")
    for path in found:
        name = path.relative_to(out)
        whole_name = name.with_name(name.name.removeprefix(".").removesuffix(PARTIAL))  # left by a killed run
        if name.as_posix() not in plan["files"] and whole_name.as_posix() not in plan["files"]:
            raise FileExistsError(f"{path} was not rendered by the phantom: move it away, or {advice}")
