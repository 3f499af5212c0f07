"""Frames into a video file or a folder of pictures, with bytes that depend on nothing but the frames."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from endocorpus.corpus.files import atomic_path

# Suffix -> muxer and encoder. One encoder thread: the bytes depend on the number of threads.
# The bitstream filter drops the note in which x264 lists its settings.
_X264 = (
    "-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-threads", "1", "-bsf:v", "filter_units=remove_types=6",
)  # fmt: skip
CODECS = {"h264": _X264}
_MPEG4 = ("-c:v", "mpeg4", "-q:v", "4", "-threads", "1")
CONTAINERS: dict[str, tuple[str, tuple[str, ...]]] = {
    ".mp4": ("mp4", _X264),
    ".m4v": ("mp4", _X264),
    ".mov": ("mov", _X264),
    ".mkv": ("matroska", _X264),
    ".ts": ("mpegts", _X264),
    ".avi": ("avi", _MPEG4),
    ".wmv": ("asf", ("-c:v", "wmv2", "-q:v", "4", "-threads", "1")),
    ".mpg": ("mpeg", ("-c:v", "mpeg2video", "-q:v", "4", "-threads", "1")),
    ".webm": ("webm", ("-c:v", "libvpx", "-b:v", "2M", "-deadline", "realtime", "-cpu-used", "5", "-threads", "1")),
}


def encode(
    path: Path, pictures: Iterable[npt.NDArray[np.uint8]], size: tuple[int, int], rate: Fraction, *, crf: int, gop: int,
    codec: str | None = None,
) -> None:  # fmt: skip
    """Write RGB frames of ``size`` (width, height) to ``path``; the suffix picks container and codec.

    ``crf`` is the quality of H.264, ``gop`` the most frames between key frames; ``codec`` ("h264") replaces the
    container's usual one. Raises ``ValueError`` for an unknown suffix and ``RuntimeError`` with the encoder's own
    words if it fails.
    """
    if path.suffix.lower() not in CONTAINERS:
        raise ValueError(f"cannot write {path.name}: no container for {path.suffix!r}, use one of {[*CONTAINERS]}")
    muxer, encoder = CONTAINERS[path.suffix.lower()]
    if codec is not None:
        encoder = CODECS[codec]
    quality = ("-crf", str(crf)) if "libx264" in encoder else ()
    with atomic_path(path) as part, tempfile.TemporaryFile() as errors:
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y",
            "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", str(rate), "-i", "pipe:0",
            "-an", "-map_metadata", "-1", *encoder, *quality, "-g", str(gop), "-pix_fmt", "yuv420p",
            "-sws_flags", "bitexact+accurate_rnd", "-fflags", "+bitexact", "-flags:v", "+bitexact",
            "-f", muxer, str(part),
        ]  # fmt: skip
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors)
        assert process.stdin is not None
        try:
            with process.stdin as pipe:
                for picture in pictures:
                    pipe.write(np.ascontiguousarray(picture).data)
            broken = process.wait() != 0
        except BrokenPipeError:
            process.wait()
            broken = True
        except BaseException:
            process.kill()
            process.wait()
            raise
        if broken:
            errors.seek(0)
            raise RuntimeError(f"ffmpeg could not write {path}: {errors.read().decode(errors='replace').strip()}")
