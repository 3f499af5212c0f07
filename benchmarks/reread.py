"""What reading finished clips again finds, what it finds where nothing is, and what it costs.

    python -m benchmarks.reread --films 24 --seed 3000
    python -m benchmarks.reread --films 6 --seed 3000 --over recording.mp4 --rate 25
    python -m benchmarks.reread --films 8 --seed 3000 --masks

Every film is used three times: as it is ("clean"), with identifiers planted ("planted"), and with black bars where they
stood ("bars"), as masks are snapped. `--masks` plans the masks from the planted film instead, as a build does. Clips
are encoded as a build encodes them. Of the planted items, those count that stand out by 12 of 255 at least; copies in a
thumbnail are left out. An item is found if a line that counts lies on it.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio_ffmpeg
import numpy as np

from benchmarks.deid import LEGIBLE, masks_of
from benchmarks.planted import lit_area, read_film, to_and_fro
from endocorpus.deid.mask import snap
from endocorpus.deid.reread import counts, looks, read_again, readings, reread_clips
from endocorpus.media.encode import EncodeConfig, picture_size
from endocorpus.media.frames import frame_count, frames_at
from endocorpus.phantom.identity import LAYOUTS, IdentityPlan, contrast, plan_identity, planted_film, tissue_film
from endocorpus.phantom.identity.draw import Frame, Seen
from endocorpus.phantom.video import encode

PAD = 6  # pixels around an item that a mask hides too
Tally = Counter[tuple[str, ...]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure one film after the other, print the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=24)
    parser.add_argument("--seed", type=int, default=3000)
    parser.add_argument("--seconds", type=Fraction, default=Fraction(5))
    parser.add_argument("--rate", type=Fraction, default=Fraction(10), help="frames per second (default: 10)")
    parser.add_argument("--over", type=Path, help="plant over this video, or this folder of pictures")
    parser.add_argument("--masks", action="store_true", help="plan masks from the planted film")
    parser.add_argument("--step", type=int, default=5, help="read every so many frames where no text is (default: 5)")
    chosen = parser.parse_args(arguments)
    film = read_film(chosen.over, int(chosen.seconds * chosen.rate)) if chosen.over else None
    size = (1280, 720) if film is None else (film[0].shape[1], film[0].shape[0])
    tally: Tally = Counter()
    times: list[float] = []
    for number in range(chosen.films):
        layout = LAYOUTS[number % len(LAYOUTS)] if film is None else "full"
        tissue = None if film is None else lit_area(film)
        plan = plan_identity(chosen.seed + number, size, chosen.seconds, chosen.rate, layout, items=14, tissue=tissue)
        plain = (
            list(tissue_film(plan.seed, size, plan.frames, plan.rate, layout))
            if film is None
            else list(islice(to_and_fro(film), plan.frames))
        )
        times.append(measure(plan, plain, tally, chosen.step, with_masks=chosen.masks))
        print(f"film {number}: {layout}, {plan.frames} frames", flush=True)
    print_tally(tally, times)


def measure(plan: IdentityPlan, plain: list[Frame], tally: Tally, step: int, *, with_masks: bool) -> float:
    """Add what one film gives to the tally; returns the CPU seconds that reading its clean clip took."""
    both = list(planted_film(plan, plain))
    planted = [frame for frame, _ in both]
    hidden = list(_masked(plan, planted) if with_masks else _barred(plan, plain))
    name = "masks" if with_masks else "bars"
    clips = {
        "clean": as_clip(plain, plan.rate),
        name: as_clip(hidden, plan.rate),
        "planted": as_clip(planted, plan.rate),
    }
    for what in ("clean", name):
        pictures = frames_at(clips[what], range(0, frame_count(clips[what]), step))
        tally[what, "pictures"] += len(pictures)
        tally[what, "lines"] += read_again(pictures)
    for what, clip in clips.items():
        tally[what, "clips"] += 1
        tally[what, "clips hit"] += reread_clips([clip], plan.seed) > 0
    numbers = looks(clips["planted"], plan.seed)
    for scale, pictures in (("source", [planted[n] for n in numbers]), ("clip", frames_at(clips["planted"], numbers))):
        for number, picture in zip(numbers, pictures, strict=True):
            _score(plan, planted[number], picture, both[number][1].seen, scale, tally)
    began = time.process_time()
    reread_clips([clips["clean"]], plan.seed)
    return time.process_time() - began


def as_clip(frames: Sequence[Frame], rate: Fraction) -> bytes:
    """Frames as a build writes them: the same size, quality and options of the encoder."""
    config = EncodeConfig()
    height, width = frames[0].shape[:2]
    w, h = picture_size(width, height, config)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-f", "rawvideo",
            "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "pipe:0",
            "-vf", f"scale={w}:{h}:flags=bicubic,setsar=1,format=yuv420p", "-c:v", "libx264", "-preset", config.preset,
            "-crf", str(config.crf), "-tune", "fastdecode", "-bf", "0", "-g", str(config.keyframe_interval),
            "-sc_threshold", "0", "-threads", "1", str(path),
        ]  # fmt: skip
        subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), check=True)
        return path.read_bytes()


def _barred(plan: IdentityPlan, frames: list[Frame]) -> Iterator[Frame]:
    boxes = [item.box for item in plan.items]
    boxes = [(box[0] - PAD, box[1] - PAD, box[2] + PAD, box[3] + PAD) for box in boxes]
    for frame in frames:
        barred = frame.copy()
        for left, top, right, bottom in snap(boxes, *plan.size):
            barred[top:bottom, left:right] = 0
        yield barred


def _masked(plan: IdentityPlan, frames: list[Frame]) -> Iterator[Frame]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "planted.mp4"
        encode(path, frames, plan.size, plan.rate, crf=20, gop=50)
        masks, _, _ = masks_of(path, plan.seed, light=False)
    yield from (masks.apply(frame, number) for number, frame in enumerate(frames))


def _score(plan: IdentityPlan, frame: Frame, picture: Frame, planted: Sequence[Seen], scale: str, tally: Tally) -> None:
    """Which items are found in a picture of a frame, whatever its size."""
    by = picture.shape[1] / frame.shape[1]
    lines = [(box, counts(line)) for box, line in readings(picture)]
    for seen in planted:
        if seen.copy or contrast(frame, seen) < LEGIBLE:
            continue
        item = plan.items[seen.item]
        x0, y0, x1, y1 = (side * by for side in seen.box)
        found = any(
            counted and x0 < (box.left + box.right) / 2 < x1 and y0 < (box.top + box.bottom) / 2 < y1
            for box, counted in lines
        )
        for group in (f"px {item.px:02d}", f"style {item.style}", f"script {item.script}", "all"):
            tally[scale, group, "of"] += 1
            tally[scale, group, "found"] += found


def print_tally(tally: Tally, times: Sequence[float]) -> None:
    """The sums, one a line."""
    for what in ("clean", "bars", "masks", "planted"):
        if (what, "clips") in tally:
            print(f"{what}: {tally[what, 'clips hit']} of {tally[what, 'clips']} clips are said to hold text", end="")
            print(f"; {tally[what, 'lines']} lines in {tally[what, 'pictures']} pictures" if what != "planted" else "")
    for scale, group in sorted({key[:2] for key in tally if len(key) == 3}):
        print(f"{scale}, {group}: {tally[scale, group, 'found']} of {tally[scale, group, 'of']} items in a frame found")
    print(f"{1000 * float(np.median(times)):.0f} ms of CPU for a clip without text")


if __name__ == "__main__":
    main()
