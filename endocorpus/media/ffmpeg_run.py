"""Running the ffmpeg program: it is watched, it never outlives this process, and its last words are understood."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any

import imageio_ffmpeg

from endocorpus.errors import DataError
from endocorpus.records import Excluded, Reason, Stage

_UNABLE = ("Unknown encoder", "Unknown bitstream filter", "No such filter", "Unrecognized option", "Option not found")
# What ffmpeg may be quoted with. The rest of its words can hold a file's name, or what is written in the file.
_SAID = (
    "Invalid data found when processing input",
    "Decoder not found",
    "Not yet implemented in FFmpeg, patches welcome",
    "Generic error in an external library",
    "Invalid argument",
    "End of file",
    "Conversion failed!",
)
_NOT_STARTED = "the encoder cannot be started"
# Becomes ffmpeg, which the kernel then ends together with this process (PR_SET_PDEATHSIG is 1), however that ends. A
# program of its own, since code between fork and exec may hang where there are threads.
_GUARD = f"""
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{_NOT_STARTED}: {{sys.argv[2]}}: {{error.strerror}}")
"""
_running: set[subprocess.Popen[bytes]] = set()


@cache
def encoder_build() -> str:
    """Version line of the ffmpeg binary: clip bytes are reproducible given this.

    Raises:
        DataError: there is no ffmpeg that can be run.
    """
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
        out = subprocess.run([program, "-version"], capture_output=True, text=True, check=True)
        return out.stdout.splitlines()[0]
    except (OSError, RuntimeError, ValueError, IndexError, subprocess.CalledProcessError) as error:
        said = error.strerror if isinstance(error, OSError) else "it does not tell its version"
        where = os.environ.get("IMAGEIO_FFMPEG_EXE")
        hint = f"{where}, which IMAGEIO_FFMPEG_EXE names" if where else "ffmpeg; install imageio-ffmpeg again"
        raise DataError(f"no clip can be encoded with {hint}: {said}") from None


def run_ffmpeg(command: list[str], folder: Path, frames: Iterator[bytes] | None, patience: float) -> None:
    """Run ffmpeg in its own process group, feed it, and end the whole group when no frame comes out for too long.

    Args:
        folder: in which it works.
        frames: what it reads from its standard input, if anything.
        patience: seconds without another frame.

    Raises:
        Excluded: it fails on the media, or stands still. Messages carry no path.
        OSError: the disk is full.
        DataError: it cannot be started, lacks something, or was killed from outside.
    """
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), *command]
    with ExitStack() as stack:
        try:
            errors = stack.enter_context(tempfile.TemporaryFile())
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.PIPE if frames else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as error:  # of the machine, whatever file is being encoded
            raise DataError(f"{_NOT_STARTED}: {error}") from None
        _running.add(process)
        stalled = threading.Event()
        watch = threading.Thread(target=_watch, args=(process, patience, stalled), daemon=True)
        watch.start()
        try:
            if frames and process.stdin:
                _feed(process.stdin, frames)
            process.wait()
        finally:
            _kill(process)
            process.wait()
            _running.discard(process)
            watch.join()
        errors.seek(0)
        text = errors.read().decode("utf-8", "replace")
    if stalled.is_set():
        raise Excluded(Stage.ENCODE, Reason.TIMED_OUT, f"no frame for {patience:.0f} s")
    if process.returncode:
        raise _failure(text, process.returncode)


def _watch(process: subprocess.Popen[bytes], patience: float, stalled: threading.Event) -> None:
    """Read ffmpeg's reports, two a second, until it ends; end it when its count of frames stands still."""
    assert process.stdout
    rest, count, deadline = b"", b"", time.monotonic() + patience
    with process.stdout as pipe, selectors.DefaultSelector() as ready:
        ready.register(pipe, selectors.EVENT_READ)
        while ready.select(max(0.0, deadline - time.monotonic())):
            said = os.read(pipe.fileno(), 1 << 16)
            if not said:
                return
            *lines, rest = (rest + said).split(b"\n")
            counts = [line for line in lines if line.startswith(b"frame=")]
            if counts and counts[-1] != count:
                count, deadline = counts[-1], time.monotonic() + patience
        stalled.set()
        _kill(process)


def _feed(pipe: Any, frames: Iterator[bytes]) -> None:
    try:
        with pipe:
            for frame in frames:
                pipe.write(frame)
    except BrokenPipeError:
        pass  # ffmpeg ended early: its exit code and its words say why


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End an encoder and all that it started. Waits for nothing: a signal handler may have interrupted who waits."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def end_children() -> None:
    """End the encoders that this process started, when it must end at once itself."""
    for process in list(_running):
        _kill(process)


def _failure(text: str, code: int) -> Exception:
    """What ffmpeg's last words mean: a machine's trouble stops the build, bad media do not."""
    if text.startswith(_NOT_STARTED):
        return DataError(text.strip())
    if unable := [line.strip() for line in text.splitlines() if any(word in line for word in _UNABLE)]:
        return DataError(f"this ffmpeg cannot make the clips ({encoder_build()}): {unable[0]}")
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
        if os.strerror(number) in text:
            return OSError(number, os.strerror(number))
    for number in (errno.ENOENT, errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOMEM):
        if os.strerror(number) in text:  # perhaps the file, perhaps the machine: the next build tries again
            return Excluded(Stage.ENCODE, Reason.UNREADABLE, f"reading stops: {os.strerror(number)}")
    if -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        return DataError(f"ffmpeg was ended by signal {-code}; if memory ran out, use fewer --workers, then run again")
    if code < 0:
        return Excluded(Stage.ENCODE, Reason.DAMAGED, f"the decoder crashes on it (signal {-code})")
    if any(word in text.lower() for word in ("non monoton", "non-monoton")):
        return Excluded(Stage.ENCODE, Reason.FRAME_SIZE_CHANGES, "the picture's size or colour format changes midway")
    said = next((words for words in _SAID if words in text), f"exit code {code}")
    return Excluded(Stage.ENCODE, Reason.DAMAGED, f"decoding fails: {said}")
