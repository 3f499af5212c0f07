"""A small raw tree with every kind of good and bad input, and the corpus that is built from it."""

from __future__ import annotations

import hashlib
import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from endocorpus.build import build
from endocorpus.config import BuildConfig
from endocorpus.corpus.manifest import Corpus
from endocorpus.deid.look import Seen
from endocorpus.deid.pseudonym import Key, KeyedNames
from endocorpus.records import Cleared, MediaFacts, Span
from endocorpus.settings import load_settings
from endocorpus.sources import load_source
from endocorpus.sources.layout import Source
from tests.endocorpus.phantoms import Trees, tree_renderer
from tests.media import write_frames, write_video

PUBLIC = load_source("folder", "public")
NAMES = KeyedNames(key=Key(bytes(range(32))), site="ward")  # for private sources; public ones do not look at them
CONFIG = load_settings(BuildConfig, overrides=["segment.clip_seconds=1.0", "shards.max_clips=3"])


def show_all(source: Source, facts: MediaFacts, rate: Fraction, seen: Seen) -> Cleared:
    """Stands for `deid.decide.decide` where a test is about what comes after a private recording was cleared: films of
    tests are too short to leave no doubt."""
    return Cleared(
        by="a test",
        measures=(),
        doubts=(),
        looked_for=(),
        removed={},
        crop=(0, 0, facts.width, facts.height),
        filled=(),
        boxes=(),
        kept=(Span(start=0, stop=facts.num_frames),),
        outside={},
        parameters="00" * 32,
    )


def good_tree(root: Path) -> Path:
    """Five recordings that can become clips, under names that people really use."""
    write_video(root / "ward 7" / "Untersuchung Müller ü 1.mp4", 70)
    write_video(root / "视频" / "第一.mkv", 55)
    write_video(root / "plain.avi", 30, output=("-c:v", "mpeg4", "-q:v", "3"))
    write_video(root / "100%d [x].mp4", 26)
    write_frames(root / "frames" / "case1", range(1, 41), name="img{}.png")
    return root


def bad_tree(root: Path) -> Path:
    """One file or folder for each way to be unusable; the name says which."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "zero.mp4").touch()
    (root / "text.mp4").write_text("not a video")
    whole = write_video(root / "truncated.mp4", 100, output=("-c:v", "libx264", "-movflags", "+faststart"))
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    write_video(root / "sound.mp4", 25, inputs=("-f", "lavfi", "-i", "sine=d=1"), output=("-map", "1:a"))
    write_video(root / "short.mp4", 9)
    write_video(root / "Twin.mp4", 26)
    shutil.copy(root / "Twin.mp4", root / "twin.mp4")
    write_frames(root / "gap", [1, 2, 3, 5])
    (root / "notes.txt").write_text("hello")
    return root


def fingerprint(corpus: Path) -> dict[str, str]:
    """Hash of every file that belongs to a corpus; the work area beside it does not."""
    files = [p for p in sorted(corpus.rglob("*")) if p.is_file() and ".build" not in p.parts]
    return {str(p.relative_to(corpus)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad recordings together. Do not change it: copy it."""
    root = tmp_path_factory.mktemp("raw")
    bad_tree(root / "bad")
    return good_tree(root)


@pytest.fixture(scope="session")
def corpus(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The corpus of `raw`. Do not change it: copy it."""
    return build(PUBLIC, raw, tmp_path_factory.mktemp("corpora") / "c", CONFIG)


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    """Rendered trees by source, made when they are first asked for. Do not change them."""
    return tree_renderer(tmp_path_factory.mktemp("phantoms"))
