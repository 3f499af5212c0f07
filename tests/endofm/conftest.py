"""Small real corpora: H.264 clips in plain tars, with the numbers of clip and frame painted on every frame."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
import xxhash
from numpy.typing import NDArray

from endocorpus.corpus.files import digest_bytes, digest_file
from endocorpus.corpus.manifest import open_corpus, table_bytes, write_descriptor
from endocorpus.corpus.mixes import mix_bytes
from endocorpus.corpus.schema import SCHEMA_VERSION
from endofm.data.planes import lay_out
from endofm.data.views import ClipBatch, ViewPlan, ViewScheme, make_batch

_BITS = 8
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p")


@dataclass(frozen=True)
class ClipSpec:
    """One clip of a test corpus. `number` is painted into every frame, beside the frame's own number."""

    number: int
    num_frames: int
    height: int
    width: int


def draw_frame(number: int, frame: int, height: int, width: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: a colourful field; the upper half spells `number`, the lower half `frame`, in blocks of bits."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(40, 200, width)[None, :]
    picture[..., 1] = np.linspace(200, 40, height)[:, None]
    picture[..., 2] = 90 + number % 64
    for row, value in ((0, number), (1, frame)):
        for bit in range(_BITS):
            picture[_block(row, bit, height, width)] = 255 if value >> bit & 1 else 0
    return picture


def read_frame(picture: NDArray[np.uint8]) -> tuple[int, int]:
    """(number, frame) as painted by `draw_frame`."""
    height, width = picture.shape[:2]
    values = [
        sum((picture[_block(row, bit, height, width)].mean() > 127) << bit for bit in range(_BITS)) for row in (0, 1)
    ]
    return int(values[0]), int(values[1])


def _block(row: int, bit: int, height: int, width: int) -> tuple[slice, slice]:
    top, left, across = height // 8 + row * height // 2, bit * width // _BITS, width // _BITS
    return slice(top, top + height // 4), slice(left, left + across)


def encode(frames: NDArray[np.uint8], *options: str) -> bytes:
    """An mp4 of uint8 RGB frames [N, H, W, 3] at 30 frames per second, through the ffmpeg program."""
    height, width = frames.shape[1:3]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "30", "-i", "-"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *raw, *(options or X264), "-threads", "1", path]
        subprocess.run(command, input=frames.tobytes(), check=True)
        return path.read_bytes()


def encode_numbered(spec: ClipSpec, *options: str) -> bytes:
    """The clip that `spec` describes."""
    frames = [draw_frame(spec.number, frame, spec.height, spec.width) for frame in range(spec.num_frames)]
    return encode(np.stack(frames), *options)


def write_corpus(root: Path, name: str, shards: Sequence[Sequence[ClipSpec]]) -> Path:
    """A finished corpus `root`/`name` with one shard per inner sequence."""
    corpus = root / name
    (corpus / "shards").mkdir(parents=True)
    rows = []
    for index, specs in enumerate(shards):
        shard = f"{name}-{index}.tar"
        with tarfile.open(corpus / "shards" / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for spec in specs:
                key, video = f"{name}-{spec.number}", encode_numbered(spec, *X264, "-g", "30", "-bf", "2")
                for extension, data in (("json", b"{}\n"), ("mp4", video)):
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, BytesIO(data))
                rows.append(_row(name, shard, key, spec, video, tar.offset))
    commit(corpus, name, rows)
    return corpus


def commit(corpus: Path, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write the manifest and the descriptor."""
    data = table_bytes("clips", rows)
    (corpus / "clips.parquet").write_bytes(data)
    tables = {"clips": {"rows": len(rows), "size": len(data), "xxh3_128": digest_bytes(data)}}
    paths = sorted(corpus.glob("shards/*.tar"))
    shards = [{"name": path.name, "size": path.stat().st_size, "xxh3_128": digest_file(path)} for path in paths]
    about = {"schema_version": SCHEMA_VERSION, "name": name, "released": True}
    write_descriptor(corpus, {**about, "shards": shards, "tables": tables})


def _row(name: str, shard: str, key: str, spec: ClipSpec, video: bytes, end: int) -> dict[str, object]:
    blocks = -(-len(video) // tarfile.BLOCKSIZE)
    ids = {"source": name, "recording_id": key, "case_id": key, "leak_group": key}
    unread = {
        "json_offset": 0,
        "json_size": 3,
        "json_xxh3_128": xxhash.xxh3_128_hexdigest(b"{}\n"),
        "masks_offset": None,
        "masks_size": None,
        "masks_xxh3_128": None,
        "keyframes": [0],
        "labels": [],
    }
    rates = {"start_frame": 0, "stop_frame": spec.num_frames, "stride": 1, "rate_num": 30, "rate_den": 1}
    return {
        **ids,
        **unread,
        **rates,
        "key": key,
        "shard": shard,
        "mp4_offset": end - blocks * tarfile.BLOCKSIZE,
        "mp4_size": len(video),
        "mp4_xxh3_128": xxhash.xxh3_128_hexdigest(video),
        "num_frames": spec.num_frames,
        "width": spec.width,
        "height": spec.height,
        "quality": {"mean_luma": 100.0, "sharpness": 10.0},
        "licence": "none",
        "consent": "rendered",
        "status": "ready",
    }


def write_mix(path: Path, corpora: Mapping[str, Path], chosen: Sequence[tuple[str, str, int]]) -> Path:
    """A mixture of (corpus, key, repeats), in this order."""
    clips = {(name, row["key"]): row for name, root in corpora.items() for row in open_corpus(root).clips().to_pylist()}
    columns = ("source", "recording_id", "leak_group", "num_frames", "mp4_xxh3_128")
    rows = [
        {"corpus": name, "key": key, "row": "x", "repeats": repeats}
        | {column: clips[name, key][column] for column in columns}
        for name, key, repeats in chosen
    ]
    path.write_bytes(mix_bytes(rows, {"title": "x"}))
    return path


IDENTITY = np.eye(3, 4, dtype=np.float32)


def batch_of_rgb(
    frames: Sequence[NDArray[np.uint8]],
    plans: Sequence[ViewPlan],
    config: ViewScheme,
    keys: Sequence[str] | None = None,
    *,
    padding: int = 0,
) -> ClipBatch:
    """A batch whose planes are red, green and blue: `frames` are all those of each clip, uint8 [N, H, W, 3]."""
    sizes = [(clip_NHWC.shape[1], clip_NHWC.shape[2]) for clip_NHWC in frames]
    cuts, size = lay_out(plans, sizes, halved=0)
    pixels = np.full(size + 100, padding, np.uint8)
    for clip_NHWC, plan, cuts_U5 in zip(frames, plans, cuts, strict=True):
        for number, (at, top, left, height, width) in zip(plan.frames_needed, cuts_U5.tolist(), strict=True):
            cut_hw3 = clip_NHWC[number, top : top + height, left : left + width]
            pixels[at : at + cut_hw3.size] = cut_hw3.transpose(2, 0, 1).ravel()
    names = keys or [str(index) for index in range(len(plans))]
    places = list(range(len(plans)))
    to_rgb = [IDENTITY] * len(plans)
    return make_batch(torch.from_numpy(pixels), cuts, to_rgb, plans, config, names, places, halved=0)


def cut_of(batch: ClipBatch, index: int, place: int) -> NDArray[np.uint8]:
    """What a batch holds of a frame, as RGB, uint8 [h, w, 3]: by the formula, in float64."""
    at, _, _, height, width = batch.cuts_BU5[index, place].tolist()
    planes = []
    for halved in (0, batch.halved, batch.halved):
        rows, columns = -(-height // (1 << halved)), -(-width // (1 << halved))
        plane = batch.pixels[at : at + rows * columns].view(rows, columns).double().numpy()
        planes.append(np.kron(plane, np.ones((1 << halved, 1 << halved)))[:height, :width])
        at += rows * columns
    rgb_3hw = np.einsum(
        "cp,phw->chw", batch.to_rgb_B34[index].double().numpy(), np.stack([*planes, np.ones_like(planes[0])])
    )
    return rgb_3hw.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


MakeCorpus = Callable[[str, Sequence[Sequence[ClipSpec]]], Path]

SPECS = [
    [ClipSpec(1, 30, 48, 64), ClipSpec(2, 21, 48, 64), ClipSpec(3, 40, 40, 64), ClipSpec(4, 33, 64, 48)],
    [ClipSpec(5, 7, 48, 64), ClipSpec(6, 1, 48, 64), ClipSpec(7, 24, 64, 80)],
]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips of several sizes and lengths in two shards. Do not write to it: see `make_corpus`."""
    return write_corpus(tmp_path_factory.mktemp("corpora"), "tiny", SPECS)


@pytest.fixture
def make_corpus(tmp_path: Path) -> MakeCorpus:
    """Write a corpus of one's own: `make_corpus(name, [[ClipSpec(...)], ...])`."""
    return lambda name, shards: write_corpus(tmp_path, name, shards)
