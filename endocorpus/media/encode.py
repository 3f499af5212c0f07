"""The one encode pass: decode a recording once, write all its clips, prove each of them.

Only decoded pixels cross. The graph maps one video stream, drops every other stream, all metadata, chapters and
captions, and stamps frames with the clip's own clock. One encoder thread, because the bytes x264 writes depend on
the number of threads; so a clip's bytes are a function of the source, the plan and the encoder build.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Literal

import ffmpeg
import imageio_ffmpeg
from pydantic import Field

from endocorpus.corpus.files import digest_file
from endocorpus.media.dicom import pictures, stream_in_memory
from endocorpus.media.ffmpeg_run import run_ffmpeg
from endocorpus.media.frames import as_rgb
from endocorpus.media.inspect import inspect_clip
from endocorpus.media.paint import paint
from endocorpus.media.probe import (
    DEMUXERS,
    digest_media,
    main_video,
    nameless,
    open_image,
    open_video,
    pass_on_machine_error,
)
from endocorpus.records import (
    Box,
    Cleared,
    ClipPlan,
    Cut,
    EncodedClip,
    Excluded,
    MediaFacts,
    Reason,
    RecordingPlan,
    Stage,
)
from endocorpus.settings import Settings

_SECONDS_TO_START, _SECONDS_PER_FRAME = 120, 1.0  # far beyond the slowest machine; a hang still ends
_FRAMES_AHEAD = 60  # that x264 looks at before it writes one
Side = Annotated[int, Field(ge=0, le=10_000)]


class EncodeConfig(Settings):
    """How clips are stored: H.264 that decodes fast (no CABAC, no deblocking, no B-frames), closed groups of
    pictures. The picture is scaled down so that its short side has `short_side` pixels, never up."""

    short_side: int = Field(default=256, ge=16, le=4096)  # pixels
    crf: int = Field(default=23, ge=0, le=51)  # x264 constant rate factor; 0 is lossless
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower"] = "veryfast"
    keyframe_interval: int = Field(default=30, ge=1, le=10_000)  # frames
    cut: tuple[Side, Side, Side, Side] = (0, 0, 0, 0)  # pixels taken off left, top, right, bottom before scaling


def shown_part(facts: MediaFacts, crop: Box, config: EncodeConfig) -> Cut:
    """What is cut off of the displayed picture: all that is not in `crop`, and `config.cut`.

    Raises:
        Excluded: less than 16 pixels are left of a side.
    """
    left, top, right, bottom = config.cut
    cut = Cut(
        left=max(left, crop[0]),
        top=max(top, crop[1]),
        right=max(right, facts.width - crop[2]),
        bottom=max(bottom, facts.height - crop[3]),
    )
    width, height = cut.leaves(facts)
    if min(width, height) < 16 and cut != Cut():
        detail = f"{max(width, 0)}x{max(height, 0)} pixels are left of the picture"
        raise Excluded(Stage.ENCODE, Reason.CUT_AWAY, detail)
    return cut


def picture_size(width: int, height: int, config: EncodeConfig) -> tuple[int, int]:
    """Even width and height of the encoded picture, of which `width` x `height` displayed pixels are shown."""
    scale = min(1.0, config.short_side / min(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


def encode(plan: RecordingPlan, root: Path, folder: Path, config: EncodeConfig) -> tuple[EncodedClip, ...]:
    """Write the clips of one recording into `folder` and prove each: one stream, exact frames, nothing else inside.

    Args:
        plan: a plan whose clearance says that its pixels may be written.
        root: where the source's files lie.
        folder: existing empty folder for the clips.

    Raises:
        Excluded: the media are damaged, cannot be read, or no frame of them comes for long. Messages carry no path.
        OSError: the disk is full.
        DataError: the encoder cannot be started, or was killed from outside.
    """
    if not isinstance(plan.clearance, Cleared):
        raise TypeError("only a cleared recording may be encoded")
    if len(plan.clips) > MOST_CLIPS:
        detail = f"{len(plan.clips)} clips of one recording, at most {MOST_CLIPS} are possible; make clips longer"
        raise Excluded(Stage.ENCODE, Reason.TOO_LONG, detail)
    ahead = _FRAMES_AHEAD * plan.clips[0].stride + _longest_gap(plan.clips)
    patience = _SECONDS_TO_START + _SECONDS_PER_FRAME * ahead
    with ExitStack() as stack:
        with _reading():
            path, frames = _input(plan, root, stack)
            command = _command(plan, path, config)
        run_ffmpeg(command, folder, frames, patience)
    with _reading():
        digest = digest_media([root / path for path in plan.recording.media.paths])
    if digest != plan.facts.digest:
        raise Excluded(Stage.ENCODE, Reason.CHANGED, "the files changed while they were being read")
    written = sorted(folder.iterdir())
    if len(written) != len(plan.clips):
        raise Excluded(
            Stage.ENCODE,
            Reason.DAMAGED,
            f"{len(plan.clips)} clips were planned, the frames decoded fill {len(written)}",
        )
    return tuple(prove(clip, plan, path) for clip, path in zip(plan.clips, written, strict=True))


def _input(plan: RecordingPlan, root: Path, stack: ExitStack) -> tuple[Path | None, Iterator[bytes] | None]:
    """What ffmpeg reads: a video file, or the pictures of a frame sequence one by one."""
    path = root / plan.recording.media.paths[0]
    if plan.recording.media.kind == "frames":
        return None, _raw_frames(plan, root)
    if plan.facts.container != "dicom":
        return stack.enter_context(nameless(path)), None
    if plan.facts.codec == "pictures":
        return None, (picture.tobytes() for picture in pictures(path))
    return stack.enter_context(stream_in_memory(path)), None


@contextmanager
def _reading() -> Iterator[None]:
    """Only raw files are read inside: what the system says is about them, not about the machine as a whole."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.EIO, errno.ESTALE):
            raise Excluded(Stage.ENCODE, Reason.UNREADABLE, f"reading stops: {error.strerror}") from None
        raise


def _command(plan: RecordingPlan, path: Path | None, config: EncodeConfig) -> list[str]:
    """The ffmpeg call of one recording: input, graph, and a muxer that starts a new file at each clip's first frame.

    Without a `path`, raw pictures come through a pipe.
    """
    facts, rate, clips = plan.facts, plan.rate, plan.clips
    if path is None:
        stream = ffmpeg.input(
            "pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{facts.width}x{facts.height}", framerate=str(rate)
        ).video
    else:
        with open_video(path) as container:
            index = main_video(container).index
        source = ffmpeg.input(f"file:{path}", protocol_whitelist="file", format_whitelist=DEMUXERS, threads=1)
        stream = source[str(index)]
    stream = paint(stream, facts, plan.cut, plan.clearance.filled)
    stream = stream.filter("select", _chosen(clips))
    stream = stream.filter("settb", f"{rate.denominator}/{rate.numerator}").filter("setpts", "N")
    graph = (
        stream.filter("scale", clips[0].width, clips[0].height, flags="bicubic")
        .filter("setsar", 1)
        .filter("format", "yuv420p")
    )
    edges = _edges(clips)
    output = ffmpeg.output(
        graph,
        "%06d.mp4",  # in the working folder, whose own name may hold a "%"
        vcodec="libx264",
        preset=config.preset,
        crf=config.crf,
        tune="fastdecode",
        bf=0,
        g=config.keyframe_interval,
        sc_threshold=0,
        threads=1,
        force_key_frames=",".join(f"{float((edge - 0.5) / rate):.6f}" for edge in edges) or "0",
        fps_mode="passthrough",
        enc_time_base=f"{rate.denominator}:{rate.numerator}",
        map_metadata=-1,
        map_chapters=-1,
        **{"metadata:s:v:0": "encoder="},
        # Without the first, a clip's last frame lasts as long as it does in the source. The second takes off SEI.
        **{"bsf:v": "setts=duration=1,filter_units=remove_types=6"},
        a53cc=0,
        an=None,
        sn=None,
        dn=None,
        flags="+bitexact+cgop",
        fflags="+bitexact",
        format="segment",
        segment_format="mp4",
        segment_format_options="movflags=+faststart:fflags=+bitexact",
        segment_frames=",".join(map(str, edges)) or str(clips[0].num_frames + 1),
        reset_timestamps=1,
    )
    flags = ("-hide_banner", "-nostdin", "-xerror", "-loglevel", "error", "-nostats", "-progress", "pipe:1")
    return list(ffmpeg.compile(output.global_args(*flags), cmd=imageio_ffmpeg.get_ffmpeg_exe()))


MOST_CLIPS = 10_000
"""Of one recording: their edges are arguments of one command, and Linux takes 128 KiB of them."""


def _edges(clips: Sequence[ClipPlan]) -> list[int]:
    """First output frame of every clip but the first. Frames between clips are dropped before they are counted."""
    for before, after in pairwise(clips):
        same = (before.width, before.height, before.stride) == (after.width, after.height, after.stride)
        if before.span.stop > after.span.start or not same:
            raise ValueError("clips of one pass must come in order and share a size and stride")
    if any(clip.span.start % clip.stride for clip in clips):
        raise ValueError("a clip must start on its stride")
    return list(accumulate(clip.num_frames for clip in clips))[:-1]


def _chosen(clips: Sequence[ClipPlan]) -> str:
    """Which frames of the recording lie in clips, as an expression of ffmpeg."""
    spans = [[clips[0].span.start, clips[0].span.stop]]
    for clip in clips[1:]:
        if clip.span.start == spans[-1][1]:
            spans[-1][1] = clip.span.stop
        else:
            spans.append([clip.span.start, clip.span.stop])
    inside = "+".join(f"between(n,{start},{stop - 1})" for start, stop in spans)
    return f"({inside})*not(mod(n,{clips[0].stride}))"


def _longest_gap(clips: Sequence[ClipPlan]) -> int:
    """Frames that are read in a row of which no clip is made."""
    ends = [0, *(clip.span.stop for clip in clips[:-1])]
    return max(clip.span.start - end for end, clip in zip(ends, clips, strict=True))


def _raw_frames(plan: RecordingPlan, root: Path) -> Iterator[bytes]:
    """The images of a frame sequence as RGB bytes, in order."""
    size = (plan.facts.width, plan.facts.height)
    for number, path in enumerate(plan.recording.media.paths):
        try:
            with _reading(), open_image(root / path) as image:
                pixels = as_rgb(image)
        except Excluded:
            raise
        except Exception as error:  # noqa: BLE001 - decoders of damaged images raise whatever they stumble over
            pass_on_machine_error(error)
            detail = f"image {number + 1} of {plan.facts.num_frames} cannot be decoded: {type(error).__name__}"
            raise Excluded(Stage.ENCODE, Reason.DAMAGED, detail) from None
        if pixels.shape != (size[1], size[0], 3):
            raise Excluded(Stage.ENCODE, Reason.FRAME_SIZE_CHANGES, f"image {number + 1} changed after it was probed")
        yield pixels.tobytes()


def prove(clip: ClipPlan, plan: RecordingPlan, path: Path) -> EncodedClip:
    """Open a written clip and check that it is what was planned and nothing else.

    Raises:
        Excluded: it has another number of frames than planned, so the media are damaged.
        RuntimeError: anything else is not as planned (a bug).
    """
    with path.open("rb") as file:
        facts = inspect_clip(file)
    if facts.num_frames != clip.num_frames:
        detail = f"{clip.num_frames} frames were planned, {facts.num_frames} were decoded"
        raise Excluded(Stage.ENCODE, Reason.DAMAGED, detail)
    if facts.beside or (facts.width, facts.height) != (clip.width, clip.height) or facts.keyframes[0] != 0:
        raise RuntimeError(f"{clip.key}: not encoded as planned: {facts}")
    return EncodedClip(
        plan=clip,
        path=str(path),
        size=path.stat().st_size,
        digest=digest_file(path),
        num_frames=facts.num_frames,
        rate=plan.rate,
        keyframes=facts.keyframes,
        mean_luma=facts.mean_luma,
        sharpness=facts.sharpness,
    )
