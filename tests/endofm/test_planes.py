"""What travels of a frame: no byte more or less than the views need, and its true colours."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from endocorpus.errors import DataError
from endofm.data.batches import load_batch, plan_clip
from endofm.data.clips import load_clips
from endofm.data.decode import decode_cuts, decode_frames
from endofm.data.planes import lay_out, num_bytes, rgb_matrix
from endofm.data.stream import ShardReader
from endofm.data.views import ViewConfig, apply_views, make_batch
from tests.endofm.conftest import X264, ClipSpec, batch_of_rgb, cut_of, draw_frame, encode, encode_numbered
from tests.endofm.test_views import SMALL, plan

VIEWS = ViewConfig(global_frames=(3, 4), local_frames=(2, 5), global_size=16, local_size=8)
SIDES = st.integers(1, 90)


@given(
    clips=st.lists(st.tuples(st.integers(1, 60), SIDES, SIDES), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    halved=st.sampled_from([0, 1]),
)
def test_cuts_hold_all_that_views_need_and_nothing_else(
    clips: list[tuple[int, int, int]], seed: int, halved: int
) -> None:
    plans = [plan(*clip, VIEWS, seed, index) for index, clip in enumerate(clips)]
    tables, size = lay_out(plans, [clip[1:] for clip in clips], halved)
    end = 0
    for made, (_, height, width), cuts_U5 in zip(plans, clips, tables, strict=True):
        assert len(cuts_U5) == len(made.frames_needed)
        for frame, (at, top, left, h, w) in zip(made.frames_needed, cuts_U5.tolist(), strict=True):
            assert at == end
            end += num_bytes(h, w, halved)
            seen = np.zeros((height, width), bool)
            for view in made.views:
                if frame in view.frames:
                    t, l, b, r = view.box
                    seen[t : t + b, l : l + r] = True
            rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
            assert top <= rows[0] and rows[-1] < top + h <= height and left <= columns[0]
            assert columns[-1] < left + w <= width
            # Not more than a whole square of colour beyond what is seen, and none cut in two.
            assert rows[0] - top <= halved and top + h - 1 - rows[-1] <= halved
            assert columns[0] - left <= halved and left + w - 1 - columns[-1] <= halved
            assert top % (1 + halved) == left % (1 + halved) == 0
    assert end == size


def test_a_batch_holds_what_decoding_gives(corpus: Path) -> None:
    clips = load_clips([corpus])
    rows = list(range(len(clips)))
    with ShardReader() as reader:
        batch = load_batch(clips, rows, rows, VIEWS, seed=3, reader=reader)
        videos = [reader.read(clips.location(row)) for row in rows]
    for row, video in zip(rows, videos, strict=True):
        frames = plan_clip(clips, row, row, VIEWS, seed=3).frames_needed
        decoded = decode_frames(video, frames, int(clips.num_frames_N[row]))
        for place, picture_HWC in enumerate(decoded):
            _, top, left, height, width = batch.cuts_BU5[row, place].tolist()
            wanted = picture_HWC[top : top + height, left : left + width].astype(int)
            assert np.abs(cut_of(batch, row, place).astype(int) - wanted).max() <= 1, "but for rounding"


@pytest.mark.parametrize("size", [(41, 33), (40, 52)])
@pytest.mark.parametrize("matrix", [rgb_matrix(0, full=False), rgb_matrix(1, full=True)], ids=["bt601", "bt709 full"])
def test_views_of_planes_are_views_of_their_colours(matrix: np.ndarray, size: tuple[int, int]) -> None:
    """Planes of noise, and RGB frames made of them one by one: the same views but for the rounding of RGB."""
    made, rng = plan(9, *size, SMALL), np.random.default_rng(1)
    (cuts_U5,), total = lay_out([made], [size])
    pixels = torch.from_numpy(rng.integers(60, 200, total, dtype=np.uint8))
    batch = make_batch(pixels, [cuts_U5], [matrix], [made], SMALL, ["noise"], [0])
    frames_NHWC = np.full((9, *size, 3), 77, np.uint8)
    for place, frame in enumerate(made.frames_needed):
        _, top, left, height, width = cuts_U5[place].tolist()
        frames_NHWC[frame, top : top + height, left : left + width] = cut_of(batch, 0, place)
    for ours, other in zip(
        apply_views(batch, "cpu"), apply_views(batch_of_rgb([frames_NHWC], [made], SMALL), "cpu"), strict=True
    ):
        torch.testing.assert_close(ours, other, rtol=0, atol=4 / 255 / min(SMALL.std))
        assert (ours - other).abs().mean() < 0.5 / 255 / min(SMALL.std)


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv422p", "gbrp", "yuv420p10le"])
def test_other_layouts_become_the_same_colours(pixels: str) -> None:
    picture = np.stack([draw_frame(9, frame, 48, 64) for frame in range(3)])
    codec = ("-c:v", "ffv1") if pixels != "yuv420p10le" else ("-c:v", "libx265", "-x265-params", "log-level=none:crf=4")
    decoded = decode_frames(_matroska(picture, *codec, "-pix_fmt", pixels), np.arange(3), 3).astype(int)
    inside = np.abs(decoded - picture)[:, 20:28:2, 2:60]  # between the painted blocks, where colours change slowly
    assert inside.max() <= 12 and inside.mean() < 4


def _matroska(frames: np.ndarray, *options: str) -> bytes:
    height, width = frames.shape[1:3]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "30", "-i", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *raw, *options, "-f", "matroska", "-"]
    return subprocess.run(command, input=frames.tobytes(), check=True, capture_output=True).stdout


def test_frames_of_another_size_are_a_data_error() -> None:
    spec = ClipSpec(number=7, num_frames=3, height=48, width=64)
    made = plan(3, 40, 40, SMALL)
    (cuts_U5,), total = lay_out([made], [(40, 40)])
    with pytest.raises(DataError, match="should be 40x40 pixels, but its frames are 64x48"):
        decode_cuts(
            encode_numbered(spec), made.frames_needed, 3, size=(40, 40), cuts_U5=cuts_U5, out=np.empty(total, np.uint8)
        )


def test_colours_that_change_their_meaning_on_the_way_are_a_data_error() -> None:
    """Two streams of H.264 in one, tagged differently: their planes cannot share a matrix."""
    spec = ClipSpec(number=7, num_frames=2, height=48, width=64)
    frames = np.stack([draw_frame(spec.number, frame, 48, 64) for frame in range(2)])
    streams = [
        _stream(encode(frames, *X264, "-vf", f"setparams=colorspace={tag}", "-bf", "0"))
        for tag in ("bt709", "smpte170m")
    ]
    views = SMALL.model_copy(update={"global_frames": (4, 4), "local_frames": ()})
    made = plan(4, 48, 64, views)
    (cuts_U5,), total = lay_out([made], [(48, 64)])
    out = np.empty(total, np.uint8)
    with pytest.raises(DataError, match="the colours of frame 2 are tagged otherwise"):
        decode_cuts(b"".join(streams), np.arange(4), 4, size=(48, 64), cuts_U5=cuts_U5, out=out)


def _stream(video: bytes) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "mp4", "-i", "-", "-c", "copy", "-f", "h264", "-"]
    return subprocess.run(command, input=video, check=True, capture_output=True).stdout
