"""Render recordings to files, and whole sources to trees with their truth beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from endocorpus.corpus.files import PARTIAL
from endocorpus.phantom.dicom import write_dicom
from endocorpus.phantom.layouts import LAYOUTS, Item, Layout, Request
from endocorpus.phantom.plan import RATE, SIZE
from endocorpus.phantom.scene import frames
from endocorpus.phantom.traits import Traits
from endocorpus.phantom.truth import (
    LABELS,
    PLAN,
    TRAPS,
    Notes,
    RecordingTruth,
    traits_to_json,
    truth_root,
    whole_file,
    write_boxes,
    write_json,
    write_masks,
)
from endocorpus.phantom.video import encode

OnFrame = Callable[[int], None]
VERSION = 2
"""Raised whenever the same request renders other files than before."""
PICTURES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomTree:
    """A rendered tree: where it lies, where its truth lies, and its recordings as paths in the tree."""

    root: Path
    truth: Path
    recordings: tuple[str, ...]


def render_video(
    path: Path, traits: Traits, seed: int, *, crf: int = 20, gop: int = 50, codec: str | None = None,
    tags: tuple[tuple[str, str], ...] = (), on_frame: OnFrame | None = None,
) -> RecordingTruth:  # fmt: skip
    """Render one recording to any path; the suffix picks the container (see ``video.CONTAINERS``), or DICOM.

    ``codec`` ("h264") replaces the container's usual one; for ``.dcm`` it is one of ``dicom.Syntax``. ``tags`` are
    written to the container, with a tone as sound. ``on_frame`` is called with the number of frames done. Raises
    ``ValueError`` for an unknown suffix.
    """
    notes, size = Notes(traits), (traits.width, traits.height)
    pictures = _noted(traits, seed, notes, on_frame)
    if path.suffix == ".dcm":
        write_dicom(path, pictures, traits, syntax=codec or "h264", crf=crf, gop=gop)
    else:
        encode(
            path, pictures, size, traits.rate, crf=crf, gop=gop, codec=codec, interlaced=traits.interlaced,
            aspect=traits.aspect, tags=dict(tags), sound=traits.frames / traits.rate if tags else None,
        )  # fmt: skip
    return notes.done()


def render_frames(
    directory: Path, traits: Traits, seed: int, name: Callable[[int], str] = lambda index: f"{index:06d}.jpg",
    *, quality: int = 92, on_frame: OnFrame | None = None,
) -> RecordingTruth:  # fmt: skip
    """Render one recording to numbered pictures. ``name`` gives the file name of a frame; its suffix picks the
    format (see ``PICTURES``), ``quality`` is that of JPEG."""
    notes = Notes(traits)
    for index, picture in enumerate(_noted(traits, seed, notes, on_frame)):
        path = directory / name(index)
        kind = PICTURES.get(path.suffix.lower())
        if kind is None:
            raise ValueError(f"cannot write {path.name}: a frame is a {', a '.join(sorted(PICTURES))}")
        with whole_file(path) as part:
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
    source: str, *, seed: int, recordings: int | None = None, seconds: float | None = None,
    size: tuple[int, int] = SIZE, frame_counter: bool = False,
) -> dict[str, Traits]:  # fmt: skip
    """The traits of every recording of a tree, by path in the tree, before anything is rendered.

    Raises ``ValueError`` for a source without a phantom layout, more recordings than the source has, no time, or a
    negative seed.
    """
    layout = _layout(source)
    request = _request(source, layout, seed, recordings, seconds, size, frame_counter)
    return {item.path: item.traits for item in layout.items(request)}


def render_source(
    source: str, out: Path, *, seed: int, recordings: int | None = None, seconds: float | None = None,
    size: tuple[int, int] = SIZE, frame_counter: bool = False, on_frame: OnFrame | None = None,
) -> PhantomTree:  # fmt: skip
    """Render a tree in the exact layout of ``source`` to ``out``, and its truth to ``<out>.truth``.

    ``recordings`` is how many, ``seconds`` the most that each may last (left out, both are the layout's own), and
    ``size`` (width, height). ``on_frame`` is called with the number of frames done over all recordings. The same
    request renders the same bytes, and may be repeated over itself. Raises ``ValueError`` as ``plan_source`` does,
    and ``FileExistsError`` if ``out`` holds files that this request does not render.
    """
    layout, root = _layout(source), truth_root(out)
    request = _request(source, layout, seed, recordings, seconds, size, frame_counter)
    items = layout.items(request)
    plan: dict[str, Any] = {
        "version": VERSION, "source": source, "seed": seed,
        "recordings": {item.path: traits_to_json(item.traits) for item in items},
        "pictures": {item.path: item.media() for item in items if item.frame_name is not None},
    }  # fmt: skip
    known = _refuse_foreign(out, root, plan, {name for item in items for name in item.media()})
    # The plan is written first, so that a tree whose rendering was cut short is known as ours.
    write_json(root / PLAN, {**plan, "files": sorted(known)})
    truths, done = {}, 0
    for item in items:
        before = done
        report = None if on_frame is None else (lambda number, before=before: on_frame(before + number))
        truths[item.path] = _render_item(out, item, seed, report)
        write_masks(root, item.path, truths[item.path])
        done += item.traits.frames
    files = dict(layout.files(request, truths))
    write_json(root / PLAN, {**plan, "files": sorted({*known, *files})})  # again before a file is written
    for name, data in files.items():
        with whole_file(out / name) as part:
            part.write_bytes(data)
    write_json(root / LABELS, layout.labels(request))
    write_json(root / TRAPS, [asdict(trap) for trap in layout.traps(request)])
    write_boxes(root, truths)  # last: a truth that can be loaded is complete
    return PhantomTree(root=out, truth=root, recordings=tuple(truths))


def _render_item(out: Path, item: Item, seed: int, on_frame: OnFrame | None) -> RecordingTruth:
    if item.frame_name is not None:
        return render_frames(out, item.traits, seed, item.frame_name, on_frame=on_frame)
    return render_video(
        out / item.path, item.traits, seed, gop=item.gop, codec=item.codec, tags=item.tags, on_frame=on_frame
    )


def _layout(source: str) -> Layout:
    if source not in LAYOUTS:
        raise ValueError(f"no phantom layout for source {source!r}; there is one for: {', '.join(sorted(LAYOUTS))}")
    return LAYOUTS[source]


def _request(
    source: str, layout: Layout, seed: int, recordings: int | None, seconds: float | None, size: tuple[int, int],
    frame_counter: bool,
) -> Request:  # fmt: skip
    """What was asked for, with the layout's own answers to what was left open."""
    count, length = layout.default if recordings is None else recordings, layout.seconds if seconds is None else seconds
    if not 1 <= count <= layout.recordings:
        raise ValueError(f"{source} has 1 to {layout.recordings} recordings, not {count}")
    if seed < 0 or Fraction(length) * RATE < 1:
        raise ValueError(f"a seed is not negative and a recording has a frame: seed {seed}, {length} seconds")
    return Request(seed=seed, recordings=count, seconds=length, size=size, frame_counter=frame_counter)


def _refuse_foreign(out: Path, root: Path, plan: dict[str, Any], media: set[str]) -> set[str]:
    """Every file that is known to come from this very plan: ``media``, and what a run before this one wrote.

    Raises ``FileExistsError`` if ``out`` holds anything else.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file: choose a directory to render into")
    found = [path for path in sorted(out.rglob("*")) if not path.is_dir()] if out.exists() else []
    if not found and not (root / PLAN).exists():
        return media
    advice = f"choose another directory, or remove {out} and {root} first"
    if not (root / PLAN).exists():
        raise FileExistsError(f"{out} is not empty and was not rendered by the phantom: {advice}")
    earlier = json.loads((root / PLAN).read_text(encoding="utf-8"))
    known = media | set(earlier.pop("files"))
    if earlier != json.loads(json.dumps(plan)):
        raise FileExistsError(f"{out} holds a phantom that was rendered from another request: {advice}")
    for path in found:
        name = path.relative_to(out)
        whole_name = name.with_name(name.name.removeprefix(".").removesuffix(PARTIAL))  # left by a killed run
        if name.as_posix() not in known and whole_name.as_posix() not in known:
            raise FileExistsError(f"{path} was not rendered by the phantom: move it away, or {advice}")
    return known
