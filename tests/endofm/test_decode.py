"""Frames by number: exactly those, in true colours, from every structure of groups of pictures."""

from __future__ import annotations

import functools
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endocorpus.errors import DataError
from endofm.data.decode import decode_frames
from tests.endofm.conftest import X264, ClipSpec, encode, encode_numbered, read_frame

SPEC = ClipSpec(number=77, num_frames=75, height=48, width=64)
GOPS = {
    "closed, no B-frames": ("-g", "30", "-bf", "0", "-sc_threshold", "0"),
    "B-frames": ("-g", "30", "-bf", "3", "-b_strategy", "0"),
    "open, one key frame": ("-g", "250", "-bf", "2", "-x264-params", "open-gop=1"),
    "fast decode": ("-g", "15", "-tune", "fastdecode"),
}


@functools.cache
def clip(gop: str) -> bytes:
    return encode_numbered(SPEC, *X264, *GOPS[gop])


@pytest.mark.parametrize("gop", GOPS)
@settings(max_examples=15)
@given(wanted=st.sets(st.integers(0, SPEC.num_frames - 1), min_size=1, max_size=20))
def test_exactly_the_frames_that_were_asked_for(gop: str, wanted: set[int]) -> None:
    indices = np.array(sorted(wanted))
    frames = decode_frames(clip(gop), indices, SPEC.num_frames)
    assert frames.shape == (len(indices), SPEC.height, SPEC.width, 3)
    assert frames.dtype == np.uint8
    assert [read_frame(frame) for frame in frames] == [(SPEC.number, index) for index in indices]


def test_a_subset_holds_the_same_pixels_as_all_frames() -> None:
    data = clip("B-frames")
    everything = decode_frames(data, np.arange(SPEC.num_frames), SPEC.num_frames)
    some = np.array([3, 4, 31, 74])
    np.testing.assert_array_equal(decode_frames(data, some, SPEC.num_frames), everything[some])


def test_widths_that_rows_of_memory_are_not_aligned_to() -> None:
    spec = ClipSpec(number=5, num_frames=2, height=34, width=50)
    frames = decode_frames(encode_numbered(spec), np.array([0, 1]), 2)
    assert frames.shape == (2, 34, 50, 3)
    assert [read_frame(frame) for frame in frames] == [(5, 0), (5, 1)]


def test_decoding_stops_after_the_last_frame_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[CountingFile] = []

    def open_counted(data: bytes) -> CountingFile:
        files.append(CountingFile(data))
        return files[-1]

    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    data = encode(noise, *X264, "-movflags", "+faststart")
    monkeypatch.setattr(io, "BytesIO", open_counted)
    assert len(decode_frames(data, np.array([0, 2]), 60)) == 2
    assert files[0].bytes_read < len(data) / 2
    decode_frames(data, np.array([0, 59]), 60)
    assert files[1].bytes_read > len(data) * 0.9


class CountingFile(io.BytesIO):
    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128), (200, 90, 40), (0, 0, 0), (255, 255, 255)]
MATRICES = {"bt601": "smpte170m", "bt709": "bt709"}


@pytest.mark.parametrize("pixels", ["tv", "pc"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colours_follow_the_tags(matrix: str, pixels: str) -> None:
    convert = f"scale=out_color_matrix={matrix}:out_range={pixels},format=yuv420p"
    decoded = _decode_patches("-vf", convert, "-colorspace", MATRICES[matrix], "-color_range", pixels)
    assert np.abs(decoded - np.array(COLOURS)).max() <= 2


def test_without_tags_colours_are_bt601_limited() -> None:
    convert = "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p,setparams=colorspace=unknown:range=unknown"
    decoded = _decode_patches("-vf", convert)
    assert np.abs(decoded - np.array(COLOURS)).max() <= 2


def _decode_patches(*options: str) -> np.ndarray:
    patches = np.repeat(np.array(COLOURS, np.uint8), 16, axis=0)
    frames = np.broadcast_to(patches, (2, 32, len(patches), 3))
    data = encode(np.ascontiguousarray(frames), "-c:v", "libx264", "-crf", "1", *options)
    return decode_frames(data, np.array([1]), 2)[0, 16, 8::16].astype(int)


def test_a_clip_that_ends_too_early_is_a_data_error() -> None:
    with pytest.raises(DataError, match="should have 90 frames, but it ends before frame 80"):
        decode_frames(clip("closed, no B-frames"), np.array([3, 80, 85]), 90)


@pytest.mark.parametrize("data", [b"", b"not a video at all", bytes(5000)])
def test_what_is_not_a_video_is_a_data_error(data: bytes) -> None:
    with pytest.raises(DataError, match="cannot decode frame 4"):
        decode_frames(data, np.array([4]), 10)


def test_a_cut_file_is_a_data_error() -> None:
    data = clip("closed, no B-frames")
    with pytest.raises(DataError):
        decode_frames(data[: len(data) // 2], np.arange(SPEC.num_frames), SPEC.num_frames)


@pytest.mark.parametrize("indices", [[], [3, 3], [4, 2], [-1, 0], [0, 75]])
def test_indices_that_no_clip_could_satisfy_are_a_bug(indices: list[int]) -> None:
    with pytest.raises(ValueError, match="frame_indices"):
        decode_frames(clip("B-frames"), np.array(indices, dtype=np.int64), SPEC.num_frames)
