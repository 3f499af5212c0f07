"""Probing and encoding real files: exact frames for every container, and every kind of damage told apart."""

from __future__ import annotations

import dataclasses
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.stream import VideoStream
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from endocorpus.config import BuildConfig
from endocorpus.media.encode import encode, picture_size
from endocorpus.media.ffmpeg_run import _running
from endocorpus.media.frames import keyframe
from endocorpus.media.inspect import inspect_clip
from endocorpus.media.probe import probe
from endocorpus.plan import plan_recording
from endocorpus.records import (
    ClipPlan,
    EncodedClip,
    Excluded,
    Media,
    Reason,
    Recording,
    RecordingPlan,
    Span,
    as_rate,
)
from endocorpus.settings import load_settings
from endocorpus.sources import load_source
from tests.media import FFMPEG, video_numbers, write_frames, write_video

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25")
PUBLIC = load_source("folder", "public")
CONFIG = load_settings(BuildConfig, overrides=["segment.clip_seconds=1.0", "segment.min_seconds=0.2"])


def recording(*paths: str, kind: str = "video") -> Recording:
    media = Media(
        kind="frames" if kind == "frames" else "video", paths=paths, rate=Fraction(25) if kind == "frames" else None
    )
    return Recording(
        recording_id="t-r",
        name="r",
        subject="r",
        media=media,
        case_id="t-r",
        case_name="r",
        case_basis="recording",
        leak_group="t-r",
    )


def build_clips(root: Path, made: Recording, config: BuildConfig = CONFIG) -> tuple[RecordingPlan, list[EncodedClip]]:
    plan = plan_recording(made, root, PUBLIC, config)
    folder = root / "clips 100%"  # a folder name that a muxer could take for a pattern
    folder.mkdir()
    return plan, list(encode(plan, root, folder, config.encode))


VARIANTS: dict[str, tuple[str, Fraction, tuple[str, ...]]] = {
    "b-frames": ("a.mp4", Fraction(25), (*X264, "-bf", "3")),
    "faststart": ("a.mp4", Fraction(30), (*X264, "-movflags", "+faststart")),
    "29.97": ("a.mp4", Fraction(30000, 1001), X264),
    "50": ("a.mov", Fraction(50), (*X264, "-g", "250")),
    "mkv": ("a.mkv", Fraction(25), (*X264, "-bf", "2")),
    "mkv 29.97": ("a.mkv", Fraction(30000, 1001), X264),
    "avi mpeg4 b-frames": ("a.avi", Fraction(25), ("-c:v", "mpeg4", "-bf", "2", "-q:v", "3")),
    "mpeg-2 program stream": ("a.mpg", Fraction(25), ("-c:v", "mpeg2video", "-q:v", "3")),
    "transport stream": ("a.ts", Fraction(25), X264),
    "interlaced": ("a.ts", Fraction(25), ("-c:v", "mpeg2video", "-q:v", "3", "-flags", "+ilme+ildct")),
    "edit list": ("a.mp4", Fraction(25), (*X264, "-bf", "2", "-ss", "0.4")),
    "late start": ("a.mkv", Fraction(25), (*X264, "-output_ts_offset", "7.3")),
    "fragmented": ("a.mp4", Fraction(25), (*X264, "-movflags", "+frag_keyframe+empty_moov")),
    "upper-case suffix": ("A.MP4", Fraction(25), X264),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_frame_of_every_clip_is_the_right_one(name: str, tmp_path: Path) -> None:
    file, rate, output = VARIANTS[name]
    path = write_video(tmp_path / file, 70, rate=rate, output=output)
    plan, clips = build_clips(tmp_path, recording(file))
    skipped = 10 if name == "edit list" else 0
    whole = list(range(skipped, 70))
    assert plan.facts.rate == rate and plan.facts.num_frames == len(whole) and not plan.facts.variable_rate
    shown = [video_numbers(Path(clip.path).read_bytes()) for clip in clips]
    assert [number for clip in shown for number in clip] == whole
    assert [len(clip) for clip in shown] == [len(clip.plan.span) for clip in clips]
    assert all(clip.keyframes[0] == 0 and np.diff(clip.keyframes).max(initial=0) <= 30 for clip in clips)
    assert path.exists()


def test_variable_rate_keeps_every_frame_and_says_so(tmp_path: Path) -> None:
    uneven = "setpts='if(lt(N,20),N,20+3*(N-20))/(25*TB)'"
    write_video(tmp_path / "a.mkv", 40, output=("-vf", uneven, "-fps_mode", "passthrough", *X264))
    plan, clips = build_clips(tmp_path, recording("a.mkv"))
    assert plan.facts.variable_rate
    assert [n for clip in clips for n in video_numbers(Path(clip.path).read_bytes())] == list(range(40))


@given(st.fractions(Fraction(5), Fraction(1000)))
def test_a_rate_is_one_that_an_mp4_can_count_in(value: Fraction) -> None:
    rate = as_rate(value)
    assert abs(rate / value - 1) <= Fraction(1, 1_000_000) and rate.numerator <= 500_000 and as_rate(rate) == rate


ODD_RATES = ["1283200/42449", "1/15", "2", "1", "100/3", "24.874", "30000/1001", "60000/1001", "1000", "15.001", "1e-7"]


@pytest.mark.parametrize("value", [*ODD_RATES, *(str(random.Random(n).uniform(5, 120)) for n in range(4))])
def test_every_rate_keeps_every_frame_and_is_the_clips_own(value: str, tmp_path: Path) -> None:
    """Clips of odd lengths, of a video with another rate: nothing but the plan decides how long a frame lasts."""
    rate, edges = as_rate(Fraction(value)), (0, 43, 86, 90, 131)
    write_video(tmp_path / "a.mp4", 131, size=(96, 64))
    plan = plan_recording(recording("a.mp4"), tmp_path, PUBLIC, CONFIG)
    spans = [Span(start=start, stop=stop) for start, stop in pairwise(edges)]
    clips = tuple(ClipPlan(key=f"k-{span.start}", span=span, width=96, height=64) for span in spans)
    (tmp_path / "clips").mkdir()
    made = encode(dataclasses.replace(plan, rate=rate, clips=clips), tmp_path, tmp_path / "clips", CONFIG.encode)
    for clip in made:
        assert video_numbers(Path(clip.path).read_bytes()) == list(range(clip.plan.span.start, clip.plan.span.stop))
        with av.open(clip.path) as container:
            [stream] = container.streams
            assert isinstance(stream, VideoStream) and stream.average_rate == rate and stream.start_time == 0


def test_a_video_whose_average_rate_has_a_large_numerator(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 331, rate=Fraction(1283200, 42449), output=X264)
    plan, clips = build_clips(tmp_path, recording("a.mp4"), BuildConfig())
    assert plan.facts.rate.numerator <= 500_000 and len(clips) == 2
    assert [n for clip in clips for n in video_numbers(Path(clip.path).read_bytes())] == list(range(331))


def test_rotation_and_pixel_shape_are_applied(tmp_path: Path) -> None:
    write_video(tmp_path / "flat.mp4", 20, size=(160, 128), output=("-vf", "setsar=16/15", *X264))
    plain = probe(Media(kind="video", paths=("flat.mp4",)), tmp_path)
    assert (plain.width, plain.height) == (round(160 * 16 / 15), 128)
    turned = ["-display_rotation", "90", "-i", str(tmp_path / "flat.mp4"), "-c", "copy", str(tmp_path / "turned.mp4")]
    subprocess.run([FFMPEG, "-loglevel", "error", *turned], check=True)
    plan, [clip] = build_clips(tmp_path, recording("turned.mp4"))
    assert (plan.facts.width, plan.facts.height) == (128, round(160 * 16 / 15))
    with open(clip.path, "rb") as file:
        facts = inspect_clip(file)
    assert (facts.width, facts.height) == (clip.plan.width, clip.plan.height) == (128, 172)


def test_frame_folders_become_clips_in_number_order_with_faithful_colour(tmp_path: Path) -> None:
    write_frames(tmp_path / "case", range(5, 45))
    paths = [f"case/frame_{number}.png" for number in range(5, 45)]
    _, clips = build_clips(tmp_path, recording(*paths, kind="frames"))
    assert [n for clip in clips for n in video_numbers(Path(clip.path).read_bytes())] == list(range(5, 45))
    with av.open(clips[0].path) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(float)
    with Image.open(tmp_path / paths[0]) as image:
        truth = np.asarray(image).astype(float)
    assert abs(shown - truth).mean() < 4.0 and np.abs((shown - truth).mean(axis=(0, 1))).max() < 2.0


def first_frame(clip: EncodedClip) -> npt.NDArray[np.uint8]:
    return keyframe(Path(clip.path).read_bytes(), 0)


@pytest.mark.parametrize("kind", ["L", "RGBA", "P", "I;16", "I;16 tif", "CMYK tif"])
def test_images_of_any_known_kind_keep_their_grey(tmp_path: Path, kind: str) -> None:
    mode, _, suffix = kind.partition(" ")
    suffix = suffix or "png"
    grey = np.tile(np.linspace(40, 230, 64), (64, 1))
    for number in range(10):
        pixels = (grey * 257).astype(np.uint16) if mode == "I;16" else grey.astype(np.uint8)
        image = Image.fromarray(pixels)
        (image if mode == "I;16" else image.convert(mode)).save(tmp_path / f"{number}.{suffix}")
    plan, clips = build_clips(tmp_path, recording(*(f"{n}.{suffix}" for n in range(10)), kind="frames"))
    assert plan.facts.num_frames == sum(clip.num_frames for clip in clips) == 10
    assert abs(first_frame(clips[0]).astype(float).mean(axis=2) - grey).mean() < 4


def test_images_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    for number in range(10):
        image = Image.new("RGB", (96, 64), (200, 0, 0))
        image.paste((0, 0, 200), (0, 0, 48, 64))  # the left half is blue; upright it is the upper half
        image.save(tmp_path / f"{number}.jpg", exif=exif)
    plan, [clip] = build_clips(tmp_path, recording(*(f"{n}.jpg" for n in range(10)), kind="frames"))
    assert (plan.facts.width, plan.facts.height) == (clip.plan.width, clip.plan.height) == (64, 96)
    shown = first_frame(clip).astype(int)
    assert shown[10, 32, 2] > 150 > shown[80, 32, 2] and shown[80, 32, 0] > 150 > shown[10, 32, 0]


def test_images_whose_pictures_or_range_are_unknown(tmp_path: Path) -> None:
    pages = [Image.new("L", (64, 64), 10 * n) for n in range(4)]
    for number in range(10):
        pages[0].save(tmp_path / f"p{number}.tif", save_all=True, append_images=pages[1:])
        Image.fromarray(np.zeros((64, 64), np.float32)).save(tmp_path / f"f{number}.tif")
    found = excluded(tmp_path, recording(*(f"p{n}.tif" for n in range(10)), kind="frames"))
    assert found.reason is Reason.UNKNOWN_PIXELS and "image 1 of 10 holds 4 pictures" in found.detail
    found = excluded(tmp_path, recording(*(f"f{n}.tif" for n in range(10)), kind="frames"))
    assert found.reason is Reason.UNKNOWN_PIXELS and "'F'" in found.detail


def test_an_image_too_large_to_open_is_told_as_that(tmp_path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(tmp_path / "0.png")
    found = excluded(tmp_path, recording("0.png", kind="frames"))
    assert found.reason is Reason.UNREADABLE and "image 1 of 1 has more than" in found.detail


def test_damaged_headers_of_images_are_not_talked_about(tmp_path: Path) -> None:
    """Warnings, which are errors in these tests, would quote what stands in them."""
    for number in range(10):
        broken = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0"
        Image.new("RGB", (64, 64), (120, 60, 50)).save(tmp_path / f"{number}.jpg", exif=broken)
    _, [clip] = build_clips(tmp_path, recording(*(f"{n}.jpg" for n in range(10)), kind="frames"))
    assert clip.num_frames == 10


def test_files_that_change_while_they_are_read_are_not_trusted(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 50)
    plan = plan_recording(recording("a.mp4"), tmp_path, PUBLIC, CONFIG)
    write_video(tmp_path / "a.mp4", 50, output=(*X264, "-vf", "hflip"))
    (tmp_path / "clips").mkdir()
    with pytest.raises(Excluded) as caught:
        encode(plan, tmp_path, tmp_path / "clips", CONFIG.encode)
    assert caught.value.reason is Reason.CHANGED


def test_names_that_look_like_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for frames, name in ((20, "12:30.mp4"), (30, "file:x.mp4"), (40, "x.mp4")):
        write_video(tmp_path / "made.mp4", frames).rename(tmp_path / name)
        facts = probe(Media(kind="video", paths=(name,)), Path())
        assert facts.num_frames == frames


def test_a_picture_that_changes_its_size_midway(tmp_path: Path) -> None:
    write_video(tmp_path / "1.mp4", 30, size=(160, 128), output=X264)
    write_video(tmp_path / "2.mp4", 30, size=(96, 64), output=X264)
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile 1.mp4\nfile 2.mp4\n")
    join = ["-f", "concat", "-i", str(tmp_path / "list.txt"), "-c", "copy", str(tmp_path / "a.mkv")]
    subprocess.run([FFMPEG, "-loglevel", "error", *join], check=True)
    found = excluded(tmp_path, recording("a.mkv"))
    assert found.reason is Reason.FRAME_SIZE_CHANGES and "changes midway" in found.detail


def test_impossible_pixel_shapes_are_ignored(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 20, output=("-vf", "setsar=1/1000", *X264))
    plan, [clip] = build_clips(tmp_path, recording("a.mp4"))
    assert (plan.facts.width, plan.facts.height, clip.num_frames) == (160, 128, 20)


def test_nothing_but_pixels_crosses(tmp_path: Path) -> None:
    """Sound, subtitles, data, chapters, cover art and metadata of the input are counted and left behind."""
    canary = "CANARY-ZHANG-310101"
    (tmp_path / "s.srt").write_text(f"1\n00:00:00,000 --> 00:00:01,000\n{canary}\n")
    (tmp_path / "chapters.txt").write_text(
        f";FFMETADATA1\ntitle={canary}\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=1\ntitle={canary}\n"
    )
    Image.new("RGB", (400, 400), (200, 0, 0)).save(tmp_path / "cover.png")
    inputs = ["-f", "lavfi", "-i", "sine=d=1", "-i", str(tmp_path / "s.srt"), "-i", str(tmp_path / "chapters.txt")]
    inputs += ["-i", str(tmp_path / "cover.png")]
    maps = ["-map", "1:a", "-map", "0:v", "-map", "2:s", "-map", "4:v", "-map_metadata", "3", "-map_chapters", "3"]
    output = [*maps, "-c:v:0", "libx264", "-preset", "ultrafast", "-c:v:1", "png", "-disposition:v:1", "attached_pic"]
    output += [
        "-c:a",
        "aac",
        "-c:s",
        "mov_text",
        "-metadata",
        f"comment={canary}",
        "-metadata:s:v:0",
        f"title={canary}",
    ]
    write_video(tmp_path / "a.mp4", 50, inputs=inputs, output=output)
    assert canary.encode() in (tmp_path / "a.mp4").read_bytes()
    plan, clips = build_clips(tmp_path, recording("a.mp4"))
    assert {"audio": 1, "subtitle": 1, "video": 1}.items() <= plan.facts.dropped_streams.items()
    assert plan.facts.metadata_fields > 3 and plan.clearance.removed["audio stream"] == 1
    assert canary not in repr(plan)
    for clip in clips:
        data = Path(clip.path).read_bytes()
        assert canary.encode() not in data and inspect_clip(io.BytesIO(data)).beside == ()
        assert video_numbers(data)[0] == clip.plan.span.start


def test_inspection_notices_what_does_not_belong(tmp_path: Path) -> None:
    sound = ["-f", "lavfi", "-i", "sine=d=1"]
    output = ["-map", "0:v", "-map", "1:a", *X264, "-metadata", "title=x", "-metadata:s:v:0", "handler_name=Ward 7"]
    with write_video(tmp_path / "a.mp4", 10, inputs=sound, output=output).open("rb") as file:
        beside = inspect_clip(file).beside
    assert {"audio stream", "metadata field 'title'", "track field 'handler_name'"} <= set(beside)


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    write_video(tmp_path / "a.mp4", 60)
    write_video(tmp_path / "x" / "other name.mp4", 60)
    _, first = build_clips(tmp_path, recording("a.mp4"))
    _, second = build_clips(tmp_path / "x", recording("other name.mp4"))
    assert [clip.digest for clip in first] == [clip.digest for clip in second]


def test_sizes_are_even_and_never_scaled_up() -> None:
    config = BuildConfig().encode
    assert picture_size(1280, 720, config) == (456, 256)
    assert picture_size(720, 1280, config) == (256, 456)
    assert picture_size(101, 99, config) == (100, 100)
    assert picture_size(257, 999, config) == (256, 996)


# --- damage ---------------------------------------------------------------------------------------------------------


def excluded(root: Path, made: Recording) -> Excluded:
    with pytest.raises(Excluded) as caught:
        build_clips(root, made)
    assert str(root) not in caught.value.detail
    return caught.value


def test_zero_bytes_text_and_sound_only(tmp_path: Path) -> None:
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("Dear colleague, this is not a video.\n" * 50)
    (tmp_path / "image.mp4").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 500)
    sound = [FFMPEG, "-loglevel", "error", "-f", "lavfi", "-i", "sine=d=1", str(tmp_path / "sound.mp4")]
    subprocess.run(sound, check=True)
    assert excluded(tmp_path, recording("zero.mp4")).reason is Reason.EMPTY_FILE
    assert excluded(tmp_path, recording("text.mp4")).reason is Reason.NOT_A_VIDEO
    assert excluded(tmp_path, recording("image.mp4")).reason is Reason.NOT_A_VIDEO
    assert excluded(tmp_path, recording("sound.mp4")).reason is Reason.NO_VIDEO_STREAM
    assert excluded(tmp_path, recording("none.mp4")).reason is Reason.UNREADABLE


def test_pipes_devices_and_names_that_are_not_unicode(tmp_path: Path) -> None:
    """None of these may keep the build waiting, or end it."""
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "folder.mp4").mkdir()
    name = os.fsdecode(b"caf\xe9.mp4")
    shutil.copy(write_video(tmp_path / "a.mp4", 10), tmp_path / name)
    for file in ("pipe.mp4", "zero.mp4", "folder.mp4"):
        found = excluded(tmp_path, recording(file))
        assert (found.reason, found.detail) == (Reason.UNREADABLE, "not a regular file")
    found = excluded(tmp_path, recording(name))
    assert found.reason is Reason.UNREADABLE and "not valid Unicode" in found.detail


def test_playlists_that_pull_in_other_files_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.ts", 25)
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile secret.ts\n")
    for name in ("list.mp4", "concat.mp4"):
        assert excluded(tmp_path, recording(name)).reason is Reason.NOT_A_VIDEO


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("faststart", [True, False])
def test_a_truncated_mp4(tmp_path: Path, share: float, faststart: bool) -> None:
    path = write_video(tmp_path / "a.mp4", 100, output=(*X264, *(("-movflags", "+faststart") if faststart else ())))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    found = excluded(tmp_path, recording("a.mp4"))
    if faststart:
        assert found.reason is Reason.TRUNCATED and "header promises 100 frames" in found.detail
    else:
        assert found.reason is Reason.NOT_A_VIDEO


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_are_noticed_or_harmless(tmp_path: Path, seed: int) -> None:
    """Damage inside the pictures ends as an exclusion, or the decoder hid it completely: never a lost frame."""
    path = write_video(tmp_path / "a.mp4", 100)
    data = bytearray(path.read_bytes())
    rng = random.Random(seed)
    start = data.index(b"mdat") + 600
    for _ in range(20):
        data[rng.randrange(start, len(data) - 3000)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    try:
        plan, clips = build_clips(tmp_path, recording("a.mp4"))
    except Excluded as found:
        # What is left of the pictures may look like anything, a face included.
        assert found.reason in {Reason.DAMAGED, Reason.NOT_A_VIDEO, Reason.TRUNCATED, Reason.NOTHING_INSIDE}
    else:
        kept = sum(len(span) for span in plan.clearance.kept)
        assert sum(clip.num_frames for clip in clips) == kept <= plan.facts.num_frames == 100


def test_frame_folders_with_a_bad_image(tmp_path: Path) -> None:
    write_frames(tmp_path, range(10))
    paths = [f"frame_{n}.png" for n in range(10)]
    whole = (tmp_path / paths[4]).read_bytes()
    (tmp_path / paths[4]).write_bytes(whole[: len(whole) // 2])
    found = excluded(tmp_path, recording(*paths, kind="frames"))
    assert found.reason is Reason.DAMAGED and "image 5 of 10" in found.detail
    (tmp_path / paths[4]).write_bytes(b"not an image")
    found = excluded(tmp_path, recording(*paths, kind="frames"))
    assert found.reason is Reason.NOT_A_VIDEO and "image 5 of 10" in found.detail
    write_frames(tmp_path, [4], size=(128, 128))
    found = excluded(tmp_path, recording(*paths, kind="frames"))
    assert found.reason is Reason.FRAME_SIZE_CHANGES and "9 of 160x128, 1 of 128x128" in found.detail


def test_a_hang_ends_with_its_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from endocorpus.media import encode as module

    monkeypatch.setattr(module, "_SECONDS_TO_START", 0)
    monkeypatch.setattr(module, "_SECONDS_PER_FRAME", 0.0005)
    write_video(tmp_path / "a.mp4", 200, size=(640, 512))
    found = excluded(tmp_path, recording("a.mp4"))
    assert found.reason is Reason.TIMED_OUT and not _running


def test_an_encoder_that_stands_still_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from endocorpus.media import encode as module

    def stop() -> None:
        while not _running:
            time.sleep(0.01)
        os.killpg(next(iter(_running)).pid, signal.SIGSTOP)

    monkeypatch.setattr(module, "_SECONDS_TO_START", 5)
    monkeypatch.setattr(module, "_SECONDS_PER_FRAME", 0)
    write_video(tmp_path / "a.mp4", 200, size=(640, 512))
    stopping = threading.Thread(target=stop)
    stopping.start()
    found = excluded(tmp_path, recording("a.mp4"))
    stopping.join()
    assert found.reason is Reason.TIMED_OUT and not _running


LATE = """
import sys
from pathlib import Path
from endocorpus.media.probe import probe
from endocorpus.records import Media
print(probe(Media(kind="video", paths=("late.flv",)), Path(sys.argv[1])).num_frames)
"""


def test_a_stream_that_begins_midway_is_no_damage(tmp_path: Path) -> None:
    """Sound that starts late in an FLV; new memory is filled, or it would be chance what a binding finds there."""
    write_video(tmp_path / "a.flv", 60, rate=1, output=("-an", *X264))
    data = (tmp_path / "a.flv").read_bytes()
    tags, at = [], 13  # bytes of the file's header
    while at + 11 < len(data):
        tags.append(at)
        at += 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
    last = tags[-1]
    sound = b"\x08\x00\x00\x04" + data[last + 4 : last + 11] + b"\x2e\x00\x00\x00" + (15).to_bytes(4, "big")
    (tmp_path / "late.flv").write_bytes(data[:last] + sound + data[last:])
    done = subprocess.run(
        [sys.executable, "-c", LATE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MALLOC_PERTURB_": "85"},
    )
    assert (done.stdout, done.returncode) == ("60\n", 0), done.stderr


def test_what_libav_takes_for_trouble_of_the_machine_is_told_apart(tmp_path: Path) -> None:
    """libav says "Input/output error" of a Matroska file that breaks off; only a file that cannot be read is one."""
    whole = write_video(tmp_path / "a.mkv", 60, output=X264).read_bytes()
    for size in range(300, 600, 3):
        (tmp_path / "cut.mkv").write_bytes(whole[:size])
        with pytest.raises(Excluded) as caught:
            probe(Media(kind="video", paths=("cut.mkv",)), tmp_path)
        assert caught.value.reason in {Reason.NOT_A_VIDEO, Reason.DAMAGED, Reason.NO_VIDEO_STREAM}


def test_private_recordings_in_doubt_are_not_cleared(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 30)
    with pytest.raises(Excluded) as caught:
        plan_recording(recording("a.mp4"), tmp_path, load_source("folder"), CONFIG)
    assert caught.value.reason is Reason.IN_DOUBT and caught.value.frames == 30
    assert caught.value.detail == "few_frames"
    plan = plan_recording(recording("a.mp4"), tmp_path, PUBLIC, CONFIG)
    forged = object.__new__(RecordingPlan)
    for name in ("recording", "facts", "clips"):
        object.__setattr__(forged, name, getattr(plan, name))
    object.__setattr__(forged, "clearance", None)
    with pytest.raises(TypeError, match="only a cleared recording"):
        encode(forged, tmp_path, tmp_path, CONFIG.encode)


def test_an_avi_with_ticks_without_frames_has_the_rate_that_its_frames_are_shown_at(tmp_path: Path) -> None:
    graph = "select='not(mod(n,5))'"  # one frame in five ticks: the header still says 25 a second
    output = ("-vf", graph, "-fps_mode", "passthrough", "-c:v", "mpeg4", "-q:v", "3")
    write_video(tmp_path / "a.avi", 100, output=output)
    facts = probe(Media(kind="video", paths=("a.avi",)), tmp_path)
    assert facts.num_frames == 20 and abs(facts.rate - 5) < 0.3
