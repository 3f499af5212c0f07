"""Fit a head on a site's own labelled frames: folders of images in, a head file and held-out figures out.

A head file holds 1,281 numbers and says what they were fitted on; no picture could be made of it. Images are named
nowhere by their files, whose names can be a patient's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from endocorpus.corpus.files import atomic_file
from endocorpus.deid.head import Calibration, Frame, Head, HeldOut, calibrate, read_head
from endocorpus.errors import DataError, UsageError
from endocorpus.media.frames import as_rgb
from endocorpus.media.probe import open_image, pass_on_machine_error

KINDS = ("inside", "outside")
_IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_LONGEST = 720  # pixels of the longer side that are kept of an image: the network sees 224


def calibrate_folders(folder: Path, out: Path, start: Head | None = None) -> Calibration:
    """Fit a head on the images in `folder / "inside"` and `folder / "outside"`, cut to the endoscopic image, and write
    it to `out`.

    Images are taken in the order of their names, which should be that in which they were filmed.

    Raises:
        UsageError: a folder is missing, or `out` is there already.
        DataError: too few images, one that cannot be read, or a head that misses more held-out frames outside the body
            than the one that it started from; then nothing is written.
    """
    for kind in KINDS:
        if not (folder / kind).is_dir():
            raise UsageError(f"{folder}: needs two folders of images, {' and '.join(KINDS)}; {kind} is missing")
    if out.exists():
        raise UsageError(f"{out}: is there already; name another file")
    done = calibrate(*(_images(folder, kind) for kind in KINDS), start=start)
    if done.held_out.missed > done.before.missed:
        raise DataError(
            f"on frames that were held out, the new head misses {done.held_out.missed} of {done.held_out.outside} "
            f"outside the body, more than the {done.before.missed} of the one it started from; nothing was written: "
            "add frames outside the body, of more recordings"
        )
    with atomic_file(out) as file:
        file.write(done.head.to_json().encode())
    return done


def _images(folder: Path, kind: str) -> Iterator[Frame]:
    paths = sorted(path for path in (folder / kind).iterdir() if path.suffix.lower() in _IMAGES)
    for number, path in enumerate(paths, 1):
        try:
            with open_image(path) as image:
                yield _smaller(as_rgb(image))
        except Exception as error:  # noqa: BLE001 - decoders of damaged images raise whatever they stumble over
            pass_on_machine_error(error)
            what = f"image {number} of {len(paths)} in {kind}, by name, cannot be read: {type(error).__name__}"
            raise DataError(f"{folder}: {what}; take it out") from None


def _smaller(frame: Frame) -> Frame:
    image = Image.fromarray(frame)
    image.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(image)


def load_head(path: Path) -> Head:
    """The head in a file that `calibrate_folders` wrote, for a build of this site.

    Raises:
        UsageError: the file cannot be read.
        DataError: it holds no head, or one for another network.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {type(error).__name__}") from None
    return read_head(text)


def told(done: Calibration) -> tuple[str, ...]:
    """What to tell whoever calibrated, in lines."""
    return (
        f"the head it started from: {_figures(done.before)}",
        f"the new one, held out:    {_figures(done.held_out)}",
        f"SHA-256 {done.head.digest()}",
    )


def _figures(counts: HeldOut) -> str:
    return (
        f"{counts.missed} of {counts.outside} outside missed; of {counts.inside} inside, {counts.lost} "
        f"taken for outside and {counts.unsure} in doubt"
    )
