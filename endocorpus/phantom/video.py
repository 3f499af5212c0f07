"""Frames into a video file or a folder of pictures, with bytes that depend on nothing but the frames."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Mapping
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

_FIELDS = "scale=interl=1:flags=bitexact+accurate_rnd,format=yuv420p,setfield=tff"  # chroma within each field


def encode(
    path: Path, pictures: Iterable[npt.NDArray[np.uint8]], size: tuple[int, int], rate: Fraction, *, crf: int, gop: int,
    codec: str | None = None, interlaced: bool = False, aspect: Fraction = Fraction(1),
    tags: Mapping[str, str] | None = None, sound: Fraction | None = None,
) -> None:  # fmt: skip
    """Write RGB frames of ``size`` (width, height) to ``path``; the suffix picks container and codec.

    ``crf`` is the quality of H.264, ``gop`` the most frames between key frames; ``codec`` ("h264") replaces the
    container's usual one. ``interlaced`` frames are coded as two fields, the upper first; ``aspect`` is width over
    height of a pixel. ``tags`` are written to the container; ``sound`` adds a tone of so many seconds. Raises
    ``ValueError`` for an unknown suffix and ``RuntimeError`` with the encoder's own words if it fails.
    """
    if path.suffix.lower() not in CONTAINERS:
        raise ValueError(f"cannot write {path.name}: no container for {path.suffix!r}, use one of {[*CONTAINERS]}")
    muxer, usual = CONTAINERS[path.suffix.lower()]
    encoder = usual if codec is None else CODECS[codec]
    quality = ("-crf", str(crf)) if "libx264" in encoder else ()
    notes = [part for tag in (tags or {}).items() for part in ("-metadata", "=".join(tag))]
    fields = "+bitexact+ildct+ilme" if interlaced else "+bitexact"
    with atomic_path(path) as part, tempfile.TemporaryFile() as errors:
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y",
            "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", str(rate), "-i", "pipe:0",
            *_sound(sound, muxer), "-map_metadata", "-1", *notes, *_filters(interlaced, aspect), *encoder,
            *quality, "-g", str(gop), "-pix_fmt", "yuv420p", "-sws_flags", "bitexact+accurate_rnd",
            "-fflags", "+bitexact", "-flags:v", fields, "-f", muxer, str(part),
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


def _sound(seconds: Fraction | None, muxer: str) -> list[str]:
    """A tone as a second input, and how it is coded; or no sound."""
    if seconds is None:
        return ["-an"]
    tone = f"sine=frequency=330:sample_rate=16000:duration={float(seconds):.6f}"
    return ["-f", "lavfi", "-i", tone, "-c:a", "aac" if muxer in ("mp4", "mov") else "mp2"]


def _filters(interlaced: bool, aspect: Fraction) -> list[str]:
    """What is done to the pictures before they are coded."""
    filters = [_FIELDS] if interlaced else []
    filters += [f"setsar={aspect}"] if aspect != 1 else []
    return ["-vf", ",".join(filters)] if filters else []
