"""What is looked for in finished clips: bytes that a recording is known by, and lines that can be read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import endocorpus.plan
from endocorpus.build import build
from endocorpus.config import BuildConfig
from endocorpus.deid.checks import CHECKS, check_clips
from endocorpus.deid.decide import PERHAPS_OUTSIDE
from endocorpus.deid.describe import read_clip
from endocorpus.deid.head import shipped_head
from endocorpus.deid.known import identifiers
from endocorpus.deid.search import in_noise, in_text
from endocorpus.media.probe import probe
from endocorpus.phantom.identity.letters import font
from endocorpus.records import Excluded, Media, MediaFacts, Reason
from endocorpus.settings import load_settings
from endocorpus.sources import load_source
from tests.endocorpus import canaries
from tests.endocorpus.aviary import Aviary
from tests.endocorpus.conftest import CONFIG, NAMES, show_all
from tests.media import Frame, mucosa, write_frames, write_video

PRIVATE = load_source("folder", "private")
SIZE, CRISP = (320, 256), ("-c:v", "libx264", "-crf", "18")


def facts_of(path: str, root: Path) -> tuple[Media, MediaFacts]:
    media = Media(kind="video", paths=(path,))
    return media, probe(media, root)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "mov", "avi", "dicom_stream", "dicom_pictures"])
def test_what_a_header_says_is_known(kind: str, tmp_path: Path) -> None:
    birds = Aviary()
    path = getattr(canaries, kind)(tmp_path, birds)
    media, facts = facts_of(str(path.relative_to(tmp_path)), tmp_path)
    known = identifiers(media, facts, tmp_path)
    said = {channel: in_noise(word.encode(), known) for channel, word in birds.words.items()}
    assert sum(said.values()) >= {"avi": 3}.get(kind, 5)
    assert not in_noise(b"ANOTHERBIRD000 1999-12-31", known)


def test_a_recording_is_known_by_its_names_and_dates_and_no_clip_by_what_all_have(tmp_path: Path) -> None:
    name = "ward 7/NEMO^NOBODY_1987-06-05_王无名_第4711223号.mp4"
    write_video(tmp_path / name, 12, output=("-c:v", "libx264", "-metadata", "handler_name=VideoHandler"))
    media, facts = facts_of(name, tmp_path)
    known = identifiers(media, facts, tmp_path)
    for found in ("nobody", "Nemo Nobody", "NOBODY, NEMO", "19870605", "05.06.1987", "4711223", "王无名"):
        assert in_text(f"| {found} |".encode(), known), found
    assert in_text("王无名".encode("gbk"), known) and in_text("王无名".encode("utf-16"), known)
    assert not in_text(b"isom iso2 avc1 mp41 VideoHandler 1987", known)


def test_pictures_are_known_by_their_folders_and_not_by_their_numbers(tmp_path: Path) -> None:
    write_frames(tmp_path / "NOBODY_NEMO", range(100_000, 100_003), name="img{}.png")
    paths = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    media = Media(kind="frames", paths=tuple(paths))
    known = identifiers(media, probe(media, tmp_path), tmp_path)
    assert in_text(b"Nemo Nobody", known) and not in_text(b"img100001", known)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    write_video(folder / "raw" / "a.mp4", 26)
    corpus = build(load_source("folder", "public"), folder / "raw", folder / "out", CONFIG)
    (folder / "0.mp4").write_bytes(read_clip(corpus, corpus.clips().to_pylist()[0]))
    return folder / "0.mp4"


def test_bytes_that_a_recording_is_known_by_destroy_its_clips(clip: Path, tmp_path: Path) -> None:
    for name, found in (("somebody.mp4", False), ("Video.Handle.mp4", True)):  # the muxer writes VideoHandler
        write_video(tmp_path / name, 12)
        media, facts = facts_of(name, tmp_path)
        check_clips([clip], media, facts, tmp_path, "public")  # its name is no secret
        if not found:
            check_clips([clip], media, facts, tmp_path, "private")
            continue
        with pytest.raises(Excluded, match="hold a name, number or date") as told:
            check_clips([clip], media, facts, tmp_path, "private")
        assert told.value.reason == Reason.LEAK_FOUND and "andle" not in told.value.detail


def unwritten(number: int, width: int, height: int) -> Frame:
    return np.roll(mucosa(width, height), -3 * number, axis=1)


def named_from_the_second_clip_on(number: int, width: int, height: int) -> Frame:
    frame = Image.fromarray(unwritten(number, width, height))
    if number >= 40:
        ImageDraw.Draw(frame).text((40, 100), "NOBODY, NEMO", (250, 250, 240), font("sans", 20))
    return np.asarray(frame)


def test_a_line_that_can_be_read_in_a_clip_takes_the_whole_recording_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endocorpus.plan, "decide", show_all)  # nothing is masked
    write_video(tmp_path / "raw" / "a.mp4", 60, size=SIZE, output=CRISP, draw=unwritten)
    write_video(tmp_path / "raw" / "b.mp4", 60, size=SIZE, output=CRISP, draw=named_from_the_second_clip_on)
    corpus = build(PRIVATE, tmp_path / "raw", tmp_path / "out", CONFIG, names=NAMES)
    excluded = corpus.table("excluded").to_pylist()
    assert [(row["stage"], row["reason"], row["detail"]) for row in excluded] == [
        ("deid", "leak_found", "text can be read in a finished clip")
    ]
    assert corpus.clips().num_rows == 2 and len(set(corpus.clips()["recording_id"].to_pylist())) == 1
    checks = {row["what"]: row["count"] for row in corpus.table("deid").to_pylist()[0]["checks"]}
    assert checks == dict.fromkeys(CHECKS["private"], 0)
    assert {"reader-detector", "text-detector"} <= set(corpus.descriptor["deid"]["models"])


def test_a_head_of_the_site_and_the_pace_decide_what_is_seen_and_are_told(tmp_path: Path) -> None:
    write_video(tmp_path / "raw" / "a.mp4", 60)
    shipped = shipped_head()
    wary = dataclasses.replace(shipped, weights=bytes(len(shipped.weights)), bias=9.0)  # all that it sees is outside
    light = load_settings(BuildConfig, overrides=["segment.clip_seconds=1.0", "look.pace=light"])
    doubts, models, seen = {}, {}, {}
    for name, config, head in (("plain", CONFIG, None), ("wary", CONFIG, wary), ("light", light, None)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ENDOCORPUS_LOOKS", str(tmp_path / "looks"))
            corpus = build(load_source("folder", "public"), tmp_path / "raw", tmp_path / name, config, head=head)
        doubts[name] = corpus.table("deid").to_pylist()[0]["doubts"]
        models[name] = corpus.descriptor["deid"]["models"]["outside-head"]
        seen[name] = {path.name for path in (tmp_path / "looks").iterdir()}
    assert PERHAPS_OUTSIDE in doubts["wary"] and PERHAPS_OUTSIDE not in doubts["plain"]
    assert models["wary"]["sha256"] == wary.digest() and models["plain"] == models["light"] != models["wary"]
    assert len(seen["plain"]) == 1 and len(seen["wary"]) == 2 and len(seen["light"]) == 3
