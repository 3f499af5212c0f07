"""Recordings with planted identifiers and the exact truth about them: what masks and OCR are measured on.

    python -m benchmarks.planted --out planted --videos 24 --seed 1000
    python -m benchmarks.planted --out over --videos 4 --seed 1000 --over recording.mp4 --layout circle

Each recording is `NNN.mp4`, its plan `NNN.json` (`endocorpus.phantom.identity.load_plan`; `truth_at(plan, frame /
plan.rate)` gives the pixels of each item). `items.csv` lists the items of all recordings, one a line, to count strata
by. Layouts take turns. `--over` plants over someone's film, a video or a folder of pictures played to and fro until it
is long enough; whatever ever gets lighter than 24 of 255 there counts as tissue. `--sheet` draws one frame of each.

Tune on seeds below 1000, score on seeds from 1000 on: recording N is planned from `--seed` + N.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from scipy import ndimage

from endocorpus.phantom.identity import LAYOUTS, IdentityPlan, plan_identity, render_planted
from endocorpus.phantom.identity.draw import Frame
from endocorpus.phantom.identity.place import Mask

QUALITIES = (20, 23, 28)
LIT = 24
COLUMNS = ("recording", "layout", "item", "kind", "script", "text", "px", "face", "style", "colour", "timing", "place",
           "box", "on")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, then plan and render one recording after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--items", type=int, default=14, help="in each recording (default: 14)")
    parser.add_argument("--seconds", type=Fraction, default=Fraction(20))
    parser.add_argument("--rate", type=Fraction, default=Fraction(10), help="frames per second (default: 10)")
    parser.add_argument("--size", default="1280x720", help="of a frame; with --over, that of the film")
    parser.add_argument("--layout", choices=LAYOUTS, help="the same for all; left out, they take turns")
    parser.add_argument("--outside", action="store_true", help="add screens, rooms and faces at both ends")
    parser.add_argument("--over", type=Path, help="plant over this video, or this folder of pictures")
    parser.add_argument("--sheet", type=Path, help="also write one picture with a frame of each recording")
    chosen = parser.parse_args(arguments)
    film = read_film(chosen.over, int(chosen.seconds * chosen.rate)) if chosen.over else None
    size = tuple(int(side) for side in chosen.size.split("x")) if film is None else film[0].shape[1::-1]
    tissue = None if film is None else lit_area(film)
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(chosen.videos):
        layout = chosen.layout or LAYOUTS[number % len(LAYOUTS)]
        plan = plan_identity(
            chosen.seed + number, (size[0], size[1]), chosen.seconds, chosen.rate, layout, items=chosen.items,
            outside=chosen.outside, tissue=tissue,
        )  # fmt: skip
        frames = None if film is None else islice(to_and_fro(film), plan.frames)
        path = chosen.out / f"{number:03d}.mp4"
        render_planted(path, plan, crf=QUALITIES[number % len(QUALITIES)], frames=frames)
        rows += item_rows(path.stem, plan)
        print(f"{path}: {layout}, {len(plan.items)} items, {plan.frames} frames")
    write_rows(chosen.out / "items.csv", rows)
    if chosen.sheet:
        contact_sheet(chosen.out, chosen.videos).save(chosen.sheet)


def read_film(path: Path, most: int) -> list[Frame]:
    """The first frames, RGB, of a video or of a folder of pictures in the order of their names."""
    if path.is_dir():
        pictures = sorted(p for p in path.iterdir() if p.suffix.lower() in (".jpg", ".png") and "mask" not in p.name)
        return [np.asarray(Image.open(picture).convert("RGB"), np.uint8) for picture in pictures[:most]]
    with av.open(str(path)) as container:
        frames = islice(container.decode(video=0), most)
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]


def to_and_fro(film: list[Frame]) -> Iterator[Frame]:
    """A film forwards and backwards for ever, without a jump."""
    return cycle(chain(film, film[-2:0:-1]))


def lit_area(film: list[Frame]) -> Mask:
    """Where any frame is ever lighter than ``LIT``, without specks and holes; shape (height, width)."""
    brightest = np.max([frame.max(axis=2) for frame in film[:: max(1, len(film) // 40)]], axis=0)
    opened = ndimage.binary_opening(brightest > LIT, iterations=5)
    area: Mask = ndimage.binary_fill_holes(opened)
    return area


def item_rows(recording: str, plan: IdentityPlan) -> list[dict[str, Any]]:
    """One row for every item of a recording."""
    return [
        {**asdict(item), "recording": recording, "layout": plan.layout, "item": index}
        for index, item in enumerate(plan.items)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def contact_sheet(folder: Path, videos: int, columns: int = 3) -> Image.Image:
    """A frame from the middle of each recording, as it was encoded."""
    tiles = []
    for number in range(videos):
        with av.open(str(folder / f"{number:03d}.mp4")) as container:
            frames = [frame.to_image() for frame in container.decode(video=0)]
        tiles.append(frames[len(frames) // 2])
    columns = min(columns, videos)
    width, height = (side // 2 for side in tiles[0].size)
    sheet = Image.new("RGB", (columns * width, -(-videos // columns) * height))
    for at, tile in enumerate(tiles):
        sheet.paste(tile.resize((width, height)), (at % columns * width, at // columns * height))
    return sheet


if __name__ == "__main__":
    main()
