"""Small real media files for tests: every frame shows its own number, so that any loss or swap is seen."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from PIL import Image

from endocorpus.corpus.manifest import Corpus
from endocorpus.phantom import plan_recording
from endocorpus.phantom.overlay import draw_frame_counter, read_frame_counter
from endocorpus.phantom.scene import Scene

Frame = npt.NDArray[np.uint8]
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


@cache
def mucosa(width: int, height: int) -> Frame:
    """A picture of tissue without anything written on it, in which the camera looks along the lumen."""
    traits = plan_recording(7, light="WL", size=(max(width, 64), max(height, 64)), frames=1, overlays=False)
    picture = Image.fromarray(Scene(traits, 7).render(0)[0])
    middle = picture.crop((picture.width // 4, picture.height // 4, 3 * picture.width // 4, 3 * picture.height // 4))
    return np.asarray(middle.resize((width, height), Image.Resampling.BICUBIC), np.uint8)


def numbered_frame(number: int, width: int = 160, height: int = 128) -> Frame:
    """Tissue that moves, with the frame's number in a strip at the bottom."""
    tissue = mucosa(width, height)
    frame = np.roll(np.concatenate([tissue, tissue[:, ::-1]], axis=1), -3 * number, axis=1)[:, :width].copy()
    draw_frame_counter(frame, number)
    return frame


def write_video(
    path: Path,
    num_frames: int,
    *,
    rate: Fraction | int = 25,
    size: tuple[int, int] = (160, 128),
    output: Sequence[str] = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-bf", "2"),
    inputs: Sequence[str] = (),
    draw: Callable[[int, int, int], Frame] = numbered_frame,
) -> Path:
    """Write frames that `draw` makes of their number, width and height, with any encoder and muxer options; `inputs`
    are further inputs, such as sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [FFMPEG, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}"]
    command += ["-framerate", str(rate), "-i", "pipe:0", *inputs, "-pix_fmt", "yuv420p", *output, str(path)]
    pixels = b"".join(draw(number, *size).tobytes() for number in range(num_frames))
    done = subprocess.run(command, input=pixels, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return path


def write_frames(
    folder: Path, numbers: Sequence[int], *, size: tuple[int, int] = (160, 128), name: str = "frame_{}.png"
) -> Path:
    """Write numbered pictures; `name` holds `{}` for the number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(numbered_frame(number, *size)).save(folder / name.format(number))
    return folder


def clip_numbers(corpus: Corpus, row: dict[str, object]) -> list[int]:
    """The frame numbers that a clip of a corpus shows."""
    with corpus.shard_path(str(row["shard"])).open("rb") as shard:
        shard.seek(int(str(row["mp4_offset"])))
        return video_numbers(shard.read(int(str(row["mp4_size"]))))


def video_numbers(data: bytes) -> list[int]:
    """The frame numbers that an mp4 shows, in order."""
    with av.open(io.BytesIO(data)) as container:
        return [read_frame_counter(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
