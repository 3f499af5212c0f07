"""What the masks of de-identification hide and what they cost.

    python -m benchmarks.planted --out planted --videos 24 --seed 1000
    python -m benchmarks.deid planted
    python -m benchmarks.deid --cost recording.mp4
    python -m benchmarks.deid --build recording.mp4

The first form scores recordings with planted identifiers (`benchmarks/planted.py`): an item is hidden if at least 95 %
of the pixels of its letters are black in every frame that shows it. Tissue is lost in vain where boxes hide it farther
than 32 pixels from anything planted; tissue outside the field that was found is counted apart. Items that stand out by
less than 12 of 255 from what is around them, which nobody can read, are counted apart too.

The second form times the planning of masks as a multiple of the time that decoding alone takes in the same run, and
in seconds of video per second. The third builds a private corpus of one recording, with all that a build does, and
times that. A build of several recordings has as many processes as it has workers, so that CPU seconds are what counts.
"""

from __future__ import annotations

import argparse
import csv
import resource
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy import ndimage

from endocorpus.build import BuildWatcher, build, plan_all, scan_filled
from endocorpus.config import BuildConfig
from endocorpus.corpus.manifest import open_corpus
from endocorpus.deid.look import plan_masks
from endocorpus.deid.mask import LayoutMask, MaskPlan
from endocorpus.deid.overlay import LIGHT, NORMAL
from endocorpus.deid.pseudonym import Key, KeyedNames
from endocorpus.media.probe import probe
from endocorpus.media.sampled import sampled
from endocorpus.phantom.identity import IdentityPlan, contrast, load_plan, truth_at
from endocorpus.phantom.identity.place import shows
from endocorpus.records import Media, MediaFacts
from endocorpus.settings import load_settings
from endocorpus.sources import load_source

PRIVATE = load_source("folder", "private")
ENOUGH = 0.95  # of the pixels of an item's letters
LEGIBLE = 12.0
NEAR = 32  # pixels around planted things within which what is hidden is not hidden in vain


@dataclass(frozen=True, kw_only=True)
class Score:
    """Of one recording: a row for each item, and what was lost of its tissue, as parts of it."""

    name: str
    rows: tuple[dict[str, Any], ...]
    outside_field: float
    in_boxes: float
    in_vain: float
    masks: MaskPlan
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="+", help="folders of planted recordings; with --cost, videos")
    parser.add_argument("--cost", action="store_true", help="time the analysis instead of scoring it")
    parser.add_argument("--build", action="store_true", help="time whole builds of private recordings")
    parser.add_argument("--light", action="store_true", help="half the looks")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling times")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="write a row for each item there")
    chosen = parser.parse_args(arguments)
    if chosen.cost:
        for path in chosen.paths:
            print_cost(path, chosen.seed, light=chosen.light)
        return
    if chosen.build:
        for path in chosen.paths:
            print_build(path, light=chosen.light)
        return
    films = [film for folder in chosen.paths for film in sorted(folder.glob("*.mp4"))]
    tasks = [(film, chosen.seed, chosen.light) for film in films]
    scores = []
    with ProcessPoolExecutor(chosen.workers) as pool:
        for result in pool.map(score, tasks):
            print_film(result)
            scores.append(result)
    rows = [row for result in scores for row in result.rows]
    print_strata(rows)
    if chosen.csv:
        with chosen.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def masks_of(film: Path, seed: int, *, light: bool) -> tuple[MaskPlan, MediaFacts, Media]:
    """Plan the masks of one video."""
    media = Media(kind="video", paths=(film.name,))
    facts = probe(media, film.parent)
    return plan_masks(media, facts, film.parent, seed=seed, pace=LIGHT if light else NORMAL), facts, media


def score(task: tuple[Path, int, bool]) -> Score:
    """Score one planted recording."""
    film, seed, light = task
    began = time.process_time()
    masks, facts, media = masks_of(film, seed, light=light)
    seconds = time.process_time() - began
    plan = load_plan(film.with_suffix(".json"))
    rows = item_rows(film, plan, masks, media, facts)
    tissue = _tissue(plan, film, media, facts)
    field = ~masks.hidden(0) | _boxes(masks)
    near = ndimage.binary_dilation(_planted(plan), iterations=NEAR)
    boxes = _boxes(masks) & tissue
    return Score(
        name=f"{film.parent.name}/{film.stem} {plan.layout}",
        rows=tuple(rows),
        outside_field=float((tissue & ~field).sum() / tissue.sum()),
        in_boxes=float(boxes.sum() / tissue.sum()),
        in_vain=float((boxes & ~near).sum() / tissue.sum()),
        masks=masks,
        seconds=seconds / float(plan.seconds),
    )


def _tissue(plan: IdentityPlan, film: Path, media: Media, facts: MediaFacts) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if plan.thumbnail is None and film.parent.name.startswith("over"):
        lit = np.max([f.max(axis=2) for _, f in sampled(media, facts, film.parent, range(0, plan.frames, 5))], axis=0)
        return np.asarray(ndimage.binary_fill_holes(ndimage.binary_opening(lit > 24, iterations=5)))
    return np.asarray(shows(plan.layout, plan.size) > 0.5)


def _boxes(masks: MaskPlan) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where boxes hide something, in any layout."""
    hidden = np.zeros((masks.height, masks.width), np.bool_)
    everything = ((0, 0, masks.width, masks.height),)
    for layout in masks.layouts:
        hidden |= LayoutMask(span=layout.span, field=everything, boxes=layout.boxes).hidden(masks.width, masks.height)
    return hidden


def _planted(plan: IdentityPlan) -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros((plan.size[1], plan.size[0]), np.bool_)
    for left, top, right, bottom in [item.box for item in plan.items] + ([plan.thumbnail] if plan.thumbnail else []):
        mask[max(0, top) : bottom, max(0, left) : right] = True
    return mask


def item_rows(film: Path, plan: IdentityPlan, masks: MaskPlan, media: Media, facts: MediaFacts) -> list[dict[str, Any]]:
    """For each item: the smallest part of its letters that was hidden in a frame, and how well it stands out."""
    worst: dict[tuple[int, bool], float] = {}
    clear: dict[tuple[int, bool], float] = defaultdict(float)
    looks = dict(sampled(media, facts, film.parent, range(0, plan.frames, max(1, plan.frames // 20))))
    for number in range(plan.frames):
        hidden = masks.hidden(number)
        for seen in truth_at(plan, Fraction(number) / plan.rate).seen:
            x0, y0, x1, y1 = seen.box
            part = float(hidden[y0:y1, x0:x1][seen.mask].mean()) if seen.mask.any() else 1.0
            key = (seen.item, seen.copy)
            worst[key] = min(worst.get(key, 1.0), part)
            if number in looks:
                clear[key] = max(clear[key], contrast(looks[number], seen))
    rows = []
    for (index, copy), part in sorted(worst.items()):
        item = plan.items[index]
        rows.append({
            "film": film.stem, "item": index, "copy": copy, "layout": plan.layout, "kind": item.kind,
            "script": item.script, "px": item.px, "style": item.style, "timing": item.timing, "place": item.place,
            "box": item.box, "on": item.on, "contrast": round(clear[index, copy], 1), "hidden": round(part, 3),
        })  # fmt: skip
    return rows


def print_film(result: Score) -> None:
    """One line for each recording, and one for each item that shows."""
    missed = [row for row in result.rows if row["hidden"] < ENOUGH]
    print(
        f"{result.name}: {len(result.rows) - len(missed)} of {len(result.rows)} hidden; of the tissue "
        f"{result.outside_field:.2%} outside the field, {result.in_boxes:.2%} in boxes, {result.in_vain:.2%} in vain; "
        f"{result.seconds:.2f} CPU seconds a second; doubts: {', '.join(result.masks.doubts) or 'none'}",
        flush=True,
    )
    for row in missed:
        print("   shows:", {key: row[key] for key in row if key not in ("film", "layout")}, flush=True)


def print_strata(rows: Sequence[dict[str, Any]]) -> None:
    """How many items are hidden, in all and by what they are like."""
    legible = [row for row in rows if row["contrast"] >= LEGIBLE]
    print(f"{_share(rows)} of all items are hidden, {_share(legible)} of those that can be read")
    for column in ("px", "style", "timing", "place", "script", "layout", "copy"):
        groups = sorted({row[column] for row in legible})
        print(f"  {column}:", ", ".join(f"{g} {_share([r for r in legible if r[column] == g])}" for g in groups))


def _share(rows: Sequence[dict[str, Any]]) -> str:
    return f"{sum(row['hidden'] >= ENOUGH for row in rows)}/{len(rows)}"


def print_cost(film: Path, seed: int, *, light: bool) -> None:
    """Time decoding alone and the analysis of one video, on one thread."""
    print_times(film, {"planning masks": _timed(lambda: masks_of(film, seed, light=light))})


def print_build(film: Path, *, light: bool) -> None:
    """Time decoding alone and the build of a private corpus of one video, all processes together."""
    with TemporaryDirectory() as folder:
        root, out = Path(folder, "raw"), Path(folder, "out")
        root.mkdir()
        shutil.copy(film, root)
        names = KeyedNames(key=Key(bytes(range(32))), site="benchmark")
        config = load_settings(BuildConfig, overrides=["look.pace=light"] if light else [])
        looked = _timed(
            lambda: plan_all(scan_filled(PRIVATE, root, "x", names), PRIVATE, root, config, 1, BuildWatcher())
        )
        done = _timed(lambda: build(PRIVATE, root, out, config, names=names))
        counts = open_corpus(out).descriptor["counts"]
    print_times(film, {"looking": looked, "the whole build": done})
    print(f"  kept: {counts}")


def print_times(film: Path, times: Mapping[str, tuple[float, float]]) -> None:
    """A line for what was timed (wall and CPU seconds) each, after one for decoding the film, which is timed here."""
    media = Media(kind="video", paths=(film.name,))
    facts = probe(media, film.parent)
    length = float(facts.num_frames / facts.rate)
    decode = _timed(lambda: list(sampled(media, facts, film.parent, [facts.num_frames - 1])))
    for what, (wall, cpu) in {"decoding alone": decode, **times}.items():
        print(f"{film.name} {facts.width}x{facts.height}, {length:.1f} s: {what}: {wall:.1f} s, {cpu:.1f} s of CPU, "
              f"{length / wall:.2f} video seconds per second, {length / cpu:.2f} per CPU second; "
              f"{wall / decode[0]:.1f} times as long as decoding ({cpu / decode[1]:.1f} of CPU)")  # fmt: skip


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), _cpu()
    run()
    return time.perf_counter() - wall, _cpu() - cpu


def _cpu() -> float:
    """Seconds of this process and of its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


if __name__ == "__main__":
    sys.exit(main())
