"""The pipeline as a whole: exact, reconciled, the same bytes for any number of workers and after any kill."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import webdataset

from endocorpus.build import BuildWatcher, build
from endocorpus.config import BuildConfig
from endocorpus.corpus.manifest import DESCRIPTOR, Corpus, open_corpus
from endocorpus.errors import UsageError
from endocorpus.media.encode import encode
from endocorpus.phantom import render_source
from endocorpus.records import REASON_TEXT, EncodedClip, Reason, RecordingPlan
from endocorpus.settings import load_settings
from endocorpus.sources import load_source
from endocorpus.verify import verify
from tests.endocorpus.conftest import CONFIG, NAMES, PUBLIC, fingerprint, good_tree
from tests.media import clip_numbers, write_video

SETTINGS = [f"--set={key}" for key in ("segment.clip_seconds=1.0", "shards.max_clips=3")]


def command(raw: Path, out: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "endocorpus", "build", "--source=folder", "--privacy=public", *SETTINGS]
    return [*start, f"--root={raw}", f"--out={out}", "--name=folder", *more]  # as the fixture of the corpus names it


def test_every_frame_arrives_in_order(corpus: Corpus) -> None:
    shown: dict[str, list[int]] = {}
    for row in sorted(corpus.clips().to_pylist(), key=lambda r: (r["recording_id"], r["start_frame"])):
        numbers = clip_numbers(corpus, row)
        assert len(numbers) == row["num_frames"] == row["stop_frame"] - row["start_frame"]
        shown.setdefault(row["recording_id"], []).extend(numbers)
    paths = {row["recording_id"]: row["path"] for row in corpus.table("recordings").to_pylist()}
    assert {paths[rid]: (numbers[0], len(numbers)) for rid, numbers in shown.items()} == {
        "ward 7/Untersuchung Müller ü 1.mp4": (0, 70),
        "视频/第一.mkv": (0, 55),
        "plain.avi": (0, 30),
        "100%d [x].mp4": (0, 26),
        "frames/case1/img*": (1, 40),
    }
    assert all(numbers == list(range(numbers[0], numbers[0] + len(numbers))) for numbers in shown.values())


def test_bad_input_is_excluded_with_its_reason(corpus: Corpus) -> None:
    excluded = {row["subject"]: row for row in corpus.table("excluded").to_pylist()}
    assert {subject: row["reason"] for subject, row in excluded.items()} == {
        "bad/zero.mp4": "empty_file",
        "bad/text.mp4": "not_a_video",
        "bad/truncated.mp4": "truncated",
        "bad/sound.mp4": "no_video_stream",
        "bad/short.mp4": "too_short",
        "bad/Twin.mp4": "ambiguous_name",
        "bad/twin.mp4": "ambiguous_name",
        "bad/gap/frame_*": "frame_gap",
        "bad/notes.txt": "unexpected_file",
    }
    assert excluded["bad/short.mp4"]["frames"] == 9 and excluded["bad/gap/frame_*"]["frames"] == 4


def test_the_sums_agree(corpus: Corpus, raw: Path) -> None:
    counts = corpus.descriptor["counts"]
    recordings, excluded = corpus.table("recordings").to_pylist(), corpus.table("excluded").to_pylist()
    files = sum(1 for path in raw.rglob("*") if path.is_file())
    assert counts["files"] == files == sum(r["num_files"] for r in recordings) + sum(e["files"] for e in excluded)
    assert counts["clips"] == corpus.clips().num_rows == sum(r["num_clips"] for r in recordings)
    assert counts["frames"] == sum(r["num_frames"] for r in recordings)
    assert sum(counts["excluded_by_reason"].values()) == len(excluded)
    assert counts["excluded_recordings"] + counts["excluded_files"] == len(excluded)


def test_programs_that_read_a_corpus_end_quietly(corpus: Corpus) -> None:
    """Threads that a Parquet reader leaves behind have aborted every second interpreter at its exit."""
    for _ in range(6):
        done = subprocess.run(
            [sys.executable, "-m", "endocorpus", "info", str(corpus.root)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_tars_open_in_plain_webdataset(corpus: Corpus) -> None:
    rows = {row["key"]: row for row in corpus.clips().to_pylist()}
    assert len(corpus.descriptor["shards"]) > 1
    for entry in corpus.descriptor["shards"]:
        with corpus.shard_path(entry["name"]).open("rb") as file:
            for sample in webdataset.tariterators.group_by_keys(
                webdataset.tariterators.tar_file_expander([{"url": "", "stream": file}])
            ):
                row = rows.pop(sample["__key__"])
                assert len(sample["mp4"]) == row["mp4_size"] and row["shard"] == entry["name"]
                card = json.loads(sample["json"])
                assert card["recording_id"] == row["recording_id"] and card["start_frame"] == row["start_frame"]
    assert not rows


@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers_gives_the_same_bytes(corpus: Corpus, raw: Path, tmp_path: Path, workers: int) -> None:
    build(PUBLIC, raw, tmp_path / "c", CONFIG, workers=workers)
    assert fingerprint(tmp_path / "c") == fingerprint(corpus.root)


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(4, 40))])
def test_a_killed_build_continues_to_the_same_bytes(corpus: Corpus, raw: Path, tmp_path: Path, seed: int) -> None:
    rng, out = random.Random(seed), tmp_path / "c"
    for _ in range(3):
        process = subprocess.Popen(
            command(raw, out, f"--workers={1 + seed % 2}"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=rng.uniform(0.8, 3.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if (out / DESCRIPTOR).exists():  # existence means complete
            assert not verify(open_corpus(out)).problems
    time.sleep(1.2)  # orphaned workers notice within half a second
    subprocess.run(command(raw, out, "--workers=1"), check=True, capture_output=True)
    assert fingerprint(out) == fingerprint(corpus.root)
    assert not list((out / ".build").glob("encoded*")) and not list(out.rglob("*.partial*"))


def test_a_second_build_touches_nothing(corpus: Corpus, raw: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus.root, tmp_path / "c", copy_function=shutil.copy2)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "c").rglob("*") if p.is_file() and ".build" not in p.parts}
    build(PUBLIC, raw, tmp_path / "c", CONFIG)
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_changes_rewrite_only_their_shards(raw: Path, corpus: Corpus, tmp_path: Path) -> None:
    tree = shutil.copytree(raw, tmp_path / "raw")
    out = shutil.copytree(corpus.root, tmp_path / "c", copy_function=shutil.copy2)
    row = next(r for r in corpus.table("recordings").to_pylist() if r["path"] == "plain.avi")
    home = {r["shard"] for r in corpus.clips().to_pylist() if r["recording_id"] == row["recording_id"]}
    write_video(tree / "plain.avi", 40, output=("-c:v", "mpeg4", "-q:v", "3"))
    before = fingerprint(out)
    build(PUBLIC, tree, out, CONFIG)
    after = fingerprint(out)
    assert {name for name in after if name.startswith("shards/") and after[name] != before.get(name)} == {
        f"shards/{name}" for name in home
    }
    (tree / "plain.avi").unlink()
    gone = build(PUBLIC, tree, out, CONFIG)
    assert "plain.avi" not in {r["path"] for r in gone.table("recordings").to_pylist()}
    assert not verify(gone).problems
    write_video(tree / "plain.avi", 30, output=("-c:v", "mpeg4", "-q:v", "3"))
    build(PUBLIC, tree, out, CONFIG)
    assert fingerprint(out) == before


def test_a_damaged_corpus_is_repaired_by_building_again(raw: Path, corpus: Corpus, tmp_path: Path) -> None:
    out = shutil.copytree(corpus.root, tmp_path / "c")
    shard = sorted((out / "shards").iterdir())[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    (out / "clips.parquet").unlink()
    build(PUBLIC, raw, out, CONFIG)
    assert fingerprint(out) == fingerprint(corpus.root)


def test_damaged_receipts_are_not_believed(raw: Path, corpus: Corpus, tmp_path: Path) -> None:
    out = shutil.copytree(corpus.root, tmp_path / "c")
    receipts = sorted((out / ".build" / "receipts").iterdir())
    for receipt, text in zip(receipts, ["", "{", '{"address": 3}'], strict=False):
        receipt.write_text(text)
    (out / ".build" / "encoded" / "left").mkdir(parents=True)
    (out / ".build" / "encoded" / "left" / "receipt.json").write_text("{")
    build(PUBLIC, raw, out, CONFIG)
    assert fingerprint(out) == fingerprint(corpus.root)


def test_a_folder_that_becomes_private_leaves_nothing_behind(raw: Path, corpus: Corpus, tmp_path: Path) -> None:
    out = shutil.copytree(corpus.root, tmp_path / "c")
    with pytest.raises(UsageError, match=r"5 of its 5 recordings .* --shrink"):
        build(load_source("folder"), raw, out, CONFIG, names=NAMES)
    assert fingerprint(out) == fingerprint(corpus.root)
    made = build(load_source("folder"), raw, out, CONFIG, names=NAMES, shrink=True)
    assert made.clips().num_rows == 0 and not list((out / "shards").iterdir())
    written = b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file()).lower()
    for name in ("müller", "ward", "plain", "case1", "untersuchung"):
        assert name.encode() not in written, name


def test_another_configuration_gives_another_corpus_in_place(raw: Path, corpus: Corpus, tmp_path: Path) -> None:
    out = shutil.copytree(corpus.root, tmp_path / "c")
    published = CONFIG.model_copy(update={"segment": CONFIG.segment.model_copy(update={"policy": "endofm150"})})
    changed = build(PUBLIC, raw, out, published)
    assert changed.descriptor["config_digest"] != corpus.descriptor["config_digest"]
    assert not verify(changed).problems and changed.clips().num_rows == changed.table("recordings").num_rows == 6
    build(PUBLIC, raw, tmp_path / "fresh", published)
    assert fingerprint(out) == fingerprint(tmp_path / "fresh")


def test_private_recordings_are_quarantined_without_a_name(tmp_path: Path) -> None:
    good_tree(tmp_path / "raw")
    made = build(load_source("folder"), tmp_path / "raw", tmp_path / "c", CONFIG, names=NAMES)
    excluded = made.table("excluded").to_pylist()
    assert {row["reason"] for row in excluded} == {"in_doubt"} and len(excluded) == 5
    assert made.clips().num_rows == 0 and not list((made.root / "shards").iterdir())
    written = b"".join(p.read_bytes() for p in made.root.rglob("*") if p.is_file()).lower()
    for name in ("müller", "ward 7", "第一", "plain", "case1", "untersuchung"):
        assert name.encode() not in written, name
    assert not verify(made).problems


def test_real_endoscopy(real_media: Path, tmp_path: Path) -> None:
    made = build(PUBLIC, real_media, tmp_path / "c", CONFIG.model_copy(update={"segment": type(CONFIG.segment)()}))
    rows = {row["path"]: row for row in made.table("recordings").to_pylist()}
    film, sinus = rows["laparoscopy-720p-10s.mp4"], rows["sinus-1080p"]
    assert (film["num_frames"], film["width"], film["height"], film["num_clips"]) == (250, 1280, 720, 2)
    assert (sinus["num_frames"], sinus["width"], sinus["height"], sinus["num_clips"]) == (35, 1920, 1080, 1)
    removed = {row["recording_id"]: row["removed"] for row in made.table("deid").to_pylist()}
    assert {"what": "audio stream", "count": 1} in removed[film["recording_id"]]
    assert not verify(made).problems


def test_every_reason_has_its_sentence() -> None:
    assert set(REASON_TEXT) == set(Reason)


# --- places that cannot be used --------------------------------------------------------------------------------------


def test_places_that_cannot_hold_a_corpus(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"):
        build(PUBLIC, raw, tmp_path / "file" / "c", CONFIG)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="not a corpus; name another folder"):
        build(PUBLIC, raw, tmp_path / "home", CONFIG)
    for inside in (raw, raw / "corpora"):
        with pytest.raises(UsageError, match="inside the raw tree"):
            build(PUBLIC, raw, inside, CONFIG)
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["thesis.txt"]


def test_a_corpus_does_not_take_its_own_clips_for_recordings(tmp_path: Path) -> None:
    write_video(tmp_path / "raw" / "a.mp4", 26)
    (tmp_path / "raw" / "up").symlink_to(tmp_path)
    assert build(PUBLIC, tmp_path / "raw", tmp_path / "c", CONFIG).descriptor["counts"]["recordings"] == 1
    # From now on there is a corpus to tell of.
    again = fingerprint(build(PUBLIC, tmp_path / "raw", tmp_path / "c", CONFIG).root)
    killed = tmp_path / "c" / ".build" / "encoded" / "x"
    killed.mkdir(parents=True)
    shutil.copy(tmp_path / "raw" / "a.mp4", killed / "clip.mp4")
    assert fingerprint(build(PUBLIC, tmp_path / "raw", tmp_path / "c", CONFIG).root) == again


@pytest.mark.parametrize("name", ["../x", "A", "a.b", "-a", "a b"])
def test_a_corpus_name_is_a_key(name: str, raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a name is made of"):
        build(PUBLIC, raw, tmp_path / "c", CONFIG, name=name)
    assert not (tmp_path / "c").exists()


def test_what_may_be_otherwise_next_time_is_tried_again(tmp_path: Path) -> None:
    """A share that is away for a moment must not exclude a recording for ever."""

    class Thief(BuildWatcher):
        def planned(self, plans: object, exclusions: object) -> None:
            (tmp_path / "raw" / "a.mp4").rename(tmp_path / "away.mp4")

    write_video(tmp_path / "raw" / "a.mp4", 40)
    write_video(tmp_path / "raw" / "b.mp4", 40)
    first = build(PUBLIC, tmp_path / "raw", tmp_path / "c", CONFIG, watcher=Thief())
    assert [(e["subject"], e["reason"]) for e in first.table("excluded").to_pylist()] == [("a.mp4", "unreadable")]
    (tmp_path / "away.mp4").rename(tmp_path / "raw" / "a.mp4")
    second = build(PUBLIC, tmp_path / "raw", tmp_path / "c", CONFIG)
    assert second.descriptor["counts"]["recordings"] == 2
    build(PUBLIC, tmp_path / "raw", tmp_path / "fresh", CONFIG)
    assert fingerprint(tmp_path / "c") == fingerprint(tmp_path / "fresh")


def test_copies_share_a_leak_group(tmp_path: Path) -> None:
    write_video(tmp_path / "raw" / "a.mp4", 30)
    shutil.copy(tmp_path / "raw" / "a.mp4", tmp_path / "raw" / "z.mp4")
    (tmp_path / "raw" / "link.mp4").symlink_to(tmp_path / "raw" / "a.mp4")
    write_video(tmp_path / "raw" / "other.mp4", 31)
    made = build(PUBLIC, tmp_path / "raw", tmp_path / "c", CONFIG)
    groups = {row["path"]: row["leak_group"] for row in made.table("recordings").to_pylist()}
    assert groups["a.mp4"] == groups["z.mp4"] == groups["link.mp4"] != groups["other.mp4"]
    assert made.descriptor["counts"]["identical_recordings"] == 2
    assert "2 recordings repeat others." in (made.root / "report" / "index.html").read_text()


def test_an_empty_root_does_not_empty_a_corpus(corpus: Corpus, tmp_path: Path) -> None:
    out = shutil.copytree(corpus.root, tmp_path / "c")
    (tmp_path / "raw").mkdir()
    with pytest.raises(UsageError, match="holds no video and no numbered frames"):
        build(PUBLIC, tmp_path / "raw", out, CONFIG)
    (tmp_path / "raw" / "lost.mp4").touch()
    with pytest.raises(UsageError, match="nothing was changed: 5 of its 5 recordings"):
        build(PUBLIC, tmp_path / "raw", out, CONFIG)
    assert fingerprint(out) == fingerprint(corpus.root)


def test_files_of_others_in_the_shards_folder_stay(corpus: Corpus, raw: Path, tmp_path: Path) -> None:
    out = shutil.copytree(corpus.root, tmp_path / "c")
    (out / "shards" / "precious-000.tar").write_bytes(b"mine")
    (out / "shards" / "folder").mkdir()
    stray = out / "shards" / "folder-010101.tar"
    stray.write_bytes(b"of an older build")
    build(PUBLIC, raw, out, CONFIG)
    assert (out / "shards" / "precious-000.tar").read_bytes() == b"mine" and not stray.exists()
    assert any(p.where == "shards/precious-000.tar" for p in verify(open_corpus(out)).problems)
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "corpus.json").write_text('{"name": "mine"}')
    with pytest.raises(UsageError, match="not a corpus"):
        build(PUBLIC, raw, unknown, CONFIG)


def test_the_owner_is_known_without_the_work_area(corpus: Corpus, raw: Path, tmp_path: Path) -> None:
    out = shutil.copytree(corpus.root, tmp_path / "c", ignore=shutil.ignore_patterns(".build"))
    (tmp_path / "raw/Adenoma/adenoma_01/videos").mkdir(parents=True)
    (tmp_path / "raw/Adenoma/adenoma_01/videos/WL.mp4").touch()
    with pytest.raises(UsageError, match="is the corpus 'folder'"):
        build(load_source("colonoscopic"), tmp_path / "raw", out, CONFIG)
    build(PUBLIC, raw, out, CONFIG)
    assert fingerprint(out) == fingerprint(corpus.root)


def test_phantoms_say_what_they_are(tmp_path: Path) -> None:
    render_source("colonoscopic", tmp_path / "raw", seed=7, recordings=1, seconds=1.2, size=(64, 64))
    made = build(load_source("colonoscopic"), tmp_path / "raw", tmp_path / "c", CONFIG)
    assert made.descriptor["synthetic"] == "rendered by endocorpus phantom, seed 7"
    assert "This corpus is synthetic." in (made.root / "report" / "index.html").read_text()


def test_a_name_that_was_given_once_stays(raw: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "raw" / "a.mp4", 30)
    first = build(PUBLIC, tmp_path / "raw", tmp_path / "c", CONFIG, name="mine")
    assert first.clips()["key"][0].as_py().startswith("mine-a-mp4-")
    assert build(PUBLIC, tmp_path / "raw", tmp_path / "c", CONFIG).name == "mine"


def test_two_sources_do_not_share_a_folder(corpus: Corpus, raw: Path, tmp_path: Path) -> None:
    out = shutil.copytree(corpus.root, tmp_path / "c")
    (tmp_path / "raw/Adenoma/adenoma_01/videos").mkdir(parents=True)
    (tmp_path / "raw/Adenoma/adenoma_01/videos/WL.mp4").touch()
    with pytest.raises(UsageError, match="is the corpus 'folder'"):
        build(load_source("colonoscopic"), tmp_path / "raw", out, CONFIG)
    with pytest.raises(UsageError, match="is the corpus 'folder'"):
        build(PUBLIC, raw, out, CONFIG, name="other")
    assert fingerprint(out) == fingerprint(corpus.root)


def test_two_builds_do_not_write_one_corpus(raw: Path, tmp_path: Path) -> None:
    from endocorpus.staging import work_area

    with (
        work_area(tmp_path / "c", "folder", "folder"),
        pytest.raises(UsageError, match="another build is writing here"),
    ):
        build(PUBLIC, raw, tmp_path / "c", CONFIG)


def _with_small_disk(tmp_path: Path, size: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a mount namespace of its own where `small/` is a real file system of `size`."""
    (tmp_path / "small").mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o size={size} tmpfs {tmp_path / 'small'} && "
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount + script],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("size", ["40k", "100k", "170k"])
def test_a_full_disk_is_one_line_and_the_build_continues_after_it(
    size: str, corpus: Corpus, raw: Path, tmp_path: Path
) -> None:
    if _with_small_disk(tmp_path, "1m", "true").returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    quoted = " ".join(f"'{part}'" for part in command(raw, tmp_path / "small" / "c", "--workers=1"))
    keep = f"{quoted}; code=$?; cp -r {tmp_path}/small/c {tmp_path}/kept; exit $code"
    done = _with_small_disk(tmp_path, size, keep)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "the disk is full" in last and "Traceback" not in done.stderr
    assert not (tmp_path / "kept" / DESCRIPTOR).exists()
    build(PUBLIC, raw, tmp_path / "kept", CONFIG)
    assert fingerprint(tmp_path / "kept") == fingerprint(corpus.root)


@pytest.mark.parametrize("moment", ["looking at each", "planned"])
def test_an_interrupt_ends_quickly_and_leaves_no_process(moment: str, raw: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(raw, tmp_path / "c", "--workers=2"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    while moment not in process.stderr.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said.strip().splitlines()[-1].startswith("interrupted"), said
    assert "Traceback" not in said
    assert not (tmp_path / "c" / DESCRIPTOR).exists()
    deadline = time.monotonic() + 20
    while left := alive_in_session(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def alive_in_session(session: int) -> list[str]:
    """Processes of a session that are not mere zombies, waiting to be reaped by whoever is init here."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(name)
    return found


def test_sequences_in_one_folder_are_kept_or_lost_one_by_one(tmp_path: Path) -> None:
    from tests.media import write_frames

    write_frames(tmp_path / "raw" / "case", range(30), name="a_{}.png")
    write_frames(tmp_path / "raw" / "case", range(3), name="b_{}.png")
    damaged = write_frames(tmp_path / "raw" / "case", range(30), name="c_{}.png") / "c_7.png"
    damaged.write_bytes(damaged.read_bytes()[:500])
    made = build(PUBLIC, tmp_path / "raw", tmp_path / "c", CONFIG)
    assert [r["path"] for r in made.table("recordings").to_pylist()] == ["case/a_*"]
    excluded = {e["subject"]: (e["reason"], e["files"]) for e in made.table("excluded").to_pylist()}
    assert excluded == {"case/b_*": ("too_short", 3), "case/c_*": ("damaged", 30)}


def test_what_lies_in_a_shard_is_not_encoded_again(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: Corpus
) -> None:
    """One recording comes, and every shard is made anew: only its own clips are encoded, and the bytes are as ever."""
    few = tmp_path / "few"
    shutil.copytree(raw, few)
    (few / "plain.avi").unlink()
    one = load_settings(BuildConfig, overrides=["segment.clip_seconds=1.0"])  # everything in one shard
    build(PUBLIC, few, tmp_path / "c", one, name="folder")
    shutil.copy(raw / "plain.avi", few)
    encoded: list[str] = []

    def count(plan: RecordingPlan, *rest: object) -> tuple[EncodedClip, ...]:
        encoded.append(plan.recording.recording_id)
        return encode(plan, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("endocorpus.staging.encode", count)
    build(PUBLIC, few, tmp_path / "c", one, name="folder")
    assert len(encoded) == 1 and "plain" in encoded[0]
    fresh = build(PUBLIC, few, tmp_path / "fresh", one, name="folder")
    assert fingerprint(tmp_path / "c") == fingerprint(fresh.root)
    (shard,) = (tmp_path / "c" / "shards").iterdir()
    damaged = bytearray(shard.read_bytes())
    hit = fresh.clips().to_pylist()[0]
    damaged[hit["mp4_offset"] + hit["mp4_size"] // 2] ^= 255
    shard.write_bytes(damaged)
    encoded.clear()
    build(PUBLIC, few, tmp_path / "c", one, name="folder")
    assert len(encoded) == 1 and fingerprint(tmp_path / "c") == fingerprint(fresh.root)
