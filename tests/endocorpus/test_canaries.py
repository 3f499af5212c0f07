"""No canary survives: recordings with a word in every channel go through the real commands, and all that is written,
said, or shown in the list of processes is looked through."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from endocorpus.deid.audit import audit_corpus
from endocorpus.deid.search import sought
from endocorpus.media.ffmpeg_run import _failure
from tests.endocorpus.aviary import CHINESE, LATIN, Aviary, forms, hostile_names, met
from tests.endocorpus.canaries import write_all
from tests.media import FFMPEG, write_video

SETTINGS = ("--set", "segment.clip_seconds=1", "--set", "segment.min_seconds=0.2")
_MARK = "ENDOCORPUS_CANARY_RUN"


@dataclass(slots=True)
class Seen:
    """What a run of a command showed to others while it lasted, and what it said."""

    arguments: set[bytes] = field(default_factory=set)  # command lines and names of its processes
    names: set[str] = field(default_factory=set)  # of files, also of those that are gone
    said: bytes = b""
    code: int = 0


@contextmanager
def watching(seen: Seen, mark: str, folders: tuple[Path, ...]) -> Iterator[None]:
    """Look at the list of processes and into folders all the time."""
    over = threading.Event()
    strangers = {name for name in os.listdir("/proc") if name.isdigit()}

    def look(process: str) -> None:
        if mark.encode() not in Path("/proc", process, "environ").read_bytes():
            strangers.add(process)
            return
        seen.arguments.add(Path("/proc", process, "cmdline").read_bytes())
        seen.arguments.add(Path("/proc", process, "comm").read_bytes())

    def watch() -> None:
        while not over.is_set():
            for process in os.listdir("/proc"):
                if process.isdigit() and process not in strangers:
                    with suppress(OSError):
                        look(process)
            for folder in folders:
                for where, inside, files in os.walk(folder):
                    seen.names |= {os.path.join(where, name) for name in (*inside, *files)}
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run(out: Path, *arguments: str, before: tuple[str, ...] = ()) -> Seen:
    """Run `endocorpus` with temporary files of its own, beside `out`."""
    seen, temporary = Seen(), out.parent / f"{out.name}-tmp"
    temporary.mkdir(exist_ok=True)
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    environ = {**os.environ, _MARK: mark, "TMPDIR": str(temporary)}
    with watching(seen, mark, (out, temporary)):
        command = [*before, sys.executable, "-m", "endocorpus", *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, check=False)
    seen.said, seen.code = done.stdout + done.stderr, done.returncode
    return seen


def written(*folders: Path) -> Iterator[tuple[str, bytes]]:
    """Every file with its bytes and its name; tables also as the text of their cells and of their own metadata."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            yield f"name of {path}", os.fsencode(path.relative_to(folder))
            if path.is_file():
                yield str(path), path.read_bytes()
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                yield f"cells of {path}", str(table.to_pylist()).encode()
                yield f"metadata of {path}", str((pq.read_metadata(path).metadata, table.schema.metadata)).encode()


def leaks(seen: Seen, *folders: Path) -> dict[str, set[str]]:
    """Where a canary was met, and of which family."""
    places = dict(written(*folders))
    places |= {f"name {number}": os.fsencode(name) for number, name in enumerate(sorted(seen.names))}
    places |= {f"process {number}": line for number, line in enumerate(sorted(seen.arguments))}
    places["what it said"] = seen.said
    return {place: family for place, data in places.items() if (family := met(data))}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Aviary]:
    root = tmp_path_factory.mktemp("canaries") / "raw"
    return root, write_all(root)


@pytest.fixture(scope="module")
def built(planted: tuple[Path, Aviary], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    out = tmp_path_factory.mktemp("built") / "corpus"
    seen = run(
        out, "build", "--source", "folder", "--privacy", "public", "--root", str(planted[0]), "--out", str(out),
        "--workers", "2", *SETTINGS,
    )  # fmt: skip
    assert seen.code == 0, seen.said.decode()
    return out, seen


def test_every_canary_is_where_it_was_planted(planted: tuple[Path, Aviary]) -> None:
    """Or the other tests would find nothing, whatever happens."""
    _, birds = planted
    held: Mapping[Path, bytes] = {
        home: home.read_bytes() if home.is_file() else b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file())
        for home in set(birds.homes.values())
    }
    absent = [name for name, word in birds.words.items() if not any(f in held[birds.homes[name]] for f in forms(word))]
    assert not absent
    assert len(birds.words) >= 60 and len({name.split(":")[0] for name in birds.words}) >= 11
    assert len(set(birds.words.values())) == len(birds.words)


@pytest.mark.parametrize("name", ["a1.mp4", "a3.mkv", "a5.mpg", "a6.ts"])
def test_plain_encoding_without_metadata_would_carry_captions(
    name: str, planted: tuple[Path, Aviary], tmp_path: Path
) -> None:
    """Which shows that the canaries are alive: what most people use to be rid of metadata leaks."""
    command = [FFMPEG, "-loglevel", "error", "-i", str(planted[0] / name), "-map_metadata", "-1", "-an", "-sn", "-dn"]
    subprocess.run([*command, "-c:v", "libx264", str(tmp_path / "plain.mp4")], check=True)
    assert met((tmp_path / "plain.mp4").read_bytes()) == {"Latin"}


def test_no_canary_is_written_said_or_shown(planted: tuple[Path, Aviary], built: tuple[Path, Seen]) -> None:
    out, seen = built
    assert not leaks(seen, out, out.parent / f"{out.name}-tmp")
    recordings = pq.read_table(out / "recordings.parquet").to_pylist()
    kinds = {"mov", "matroska", "avi", "mpeg", "mpegts", "asf", "dicom", "images"}
    assert {row["container"] for row in recordings} == kinds and len(recordings) == 12
    assert pq.read_table(out / "clips.parquet").num_rows == 24
    encoders = [line for line in seen.arguments if b"libx264" in line]
    assert encoders, "nobody looked while it ran"
    assert str(planted[0]).encode() not in b"".join(encoders), "an encoder is not told a name"
    assert any(".build" in name for name in seen.names)


def test_the_audit_of_the_corpus_finds_nothing(planted: tuple[Path, Aviary], built: tuple[Path, Seen]) -> None:
    """Of the canaries, of this machine, or of anything beside the pictures in a clip."""
    here = [os.uname().nodename, str(planted[0]), str(built[0].parent)]
    assert audit_corpus(built[0], sought([*planted[1].words.values(), *here])) == ()


def test_a_canary_in_a_corpus_would_be_found(built: tuple[Path, Seen], tmp_path: Path) -> None:
    shutil.copytree(built[0], tmp_path / "c")
    receipt = next((tmp_path / "c" / ".build" / "receipts").glob("*.json"))
    receipt.write_text(receipt.read_text().replace("h264", f"h264 {CHINESE}001", 1) + f"{CHINESE}001")
    assert leaks(Seen(), tmp_path / "c")
    assert audit_corpus(tmp_path / "c", sought([f"{CHINESE}001"]))


def test_what_an_encoder_says_is_not_passed_on() -> None:
    """It quotes its input, and what is written in it."""
    said = f"[mov @ 0x1] alias: path='{LATIN}' {CHINESE}\nError: Invalid data found when processing input"
    for text in (said, f"{LATIN} {CHINESE}", f"{LATIN}\nUnknown encoder 'libx264'", f"{LATIN} non-monotonic"):
        for code in (1, -11):
            assert not met(str(_failure(text, code)).encode())


def test_what_is_printed_about_the_corpus_holds_no_canary(built: tuple[Path, Seen], tmp_path: Path) -> None:
    out, _ = built
    for command in ("verify", "info", "report"):
        seen = run(out, command, str(out), "--json")
        assert seen.code == 0 and seen.said and not leaks(seen)


def bad_recordings(root: Path, name: str) -> None:
    """A good recording, and many that cannot be read, all under a name that tells too much."""
    good = write_video(root / f"{name}.mp4", 30)
    whole = good.read_bytes()
    sparse = bytearray(whole)
    sparse[len(whole) // 3 : len(whole) // 2] = bytes(len(whole) // 2 - len(whole) // 3)
    damage = {
        "cut.mp4": whole[: len(whole) // 2],
        "text.mp4": name.encode("utf-8", "surrogateescape"),
        "zero.avi": b"",
        "holes.mp4": bytes(sparse),
        "list.mp4": b"#EXTM3U\n#EXTINF:1,\n" + os.fsencode(name) + b".mp4\n",
        "dicom.dcm": bytes(128) + b"DICM" + name.encode("utf-8", "surrogateescape") * 9,
        "noise.mkv": b"\x1a\x45\xdf\xa3" + os.urandom(500),
        "name.xyz": b"x",
        "elsewhere.mov": whole.replace(b"url \0\0\0\1", b"alis\0\0\0\0"),
    }
    for kind, data in damage.items():
        (root / f"{name} {kind}").write_bytes(data)
    (root / f"{name} frames").mkdir()
    (root / f"{name} frames" / f"{os.path.basename(name)}_0001.png").write_bytes(b"no picture")
    (root / f"{name} gone.mp4").symlink_to(f"{name} nowhere")


def test_no_name_of_a_private_recording_gets_out(tmp_path: Path) -> None:
    root, out = tmp_path / "raw", tmp_path / "corpus"
    for name in hostile_names():
        bad_recordings(root, name)
    options = ("--source", "folder", "--root", str(root), "--vault", str(tmp_path / "vault"))
    for command in (("scan",), ("plan", "--json"), ("build", "--out", str(out), "--workers", "2")):
        seen = run(out, command[0], *options, *command[1:], *(SETTINGS if command[0] != "scan" else ()))
        assert seen.said and b"Traceback" not in seen.said, seen.said.decode()
        assert not leaks(seen, *(folder for folder in (out, tmp_path / "corpus-tmp") if folder.exists()))
    assert pq.read_table(out / "excluded.parquet").num_rows >= 8 * len(hostile_names())


def test_no_encoder_is_told_the_name_of_a_public_recording(tmp_path: Path) -> None:
    """Its path is in the manifest, but the list of processes is open to every user of the machine."""
    root, out = tmp_path / "raw", tmp_path / "corpus"
    for name in (f"{LATIN}1", f"{CHINESE}2"):
        write_video(root / name / f"{name}.mp4", 30)
    seen = run(
        out, "build", "--source", "folder", "--privacy", "public", "--root", str(root), "--out", str(out), *SETTINGS
    )
    assert seen.code == 0 and any(b"libx264" in line for line in seen.arguments)
    assert not [line for line in seen.arguments if met(line)]
    assert pq.read_table(out / "clips.parquet").num_rows == 4


def test_what_a_killed_build_leaves_behind_holds_no_canary(planted: tuple[Path, Aviary], tmp_path: Path) -> None:
    """Neither what was in the recording nor its name, in half-made clips and what is written beside them."""
    root, out, temporary = tmp_path / "raw", tmp_path / "corpus", tmp_path / "tmp"
    for folder in (root, temporary):
        folder.mkdir()
    loop = ("-stream_loop", "60", "-i", str(planted[0] / "a6.ts"), "-map", "0:v", "-c", "copy", "-f", "mpegts")
    subprocess.run([FFMPEG, "-loglevel", "error", *loop, str(root / f"{LATIN} {CHINESE}.ts")], check=True)
    assert met((root / f"{LATIN} {CHINESE}.ts").read_bytes())
    command = [sys.executable, "-m", "endocorpus", "build", "--source", "folder", "--privacy", "public"]
    command += ["--root", str(root), "--out", str(out), "--set", "encode.preset=slower", *SETTINGS]
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(temporary)}, stderr=subprocess.DEVNULL) as build:
        while build.poll() is None and not any(out.glob(".build/encoded/*/*.mp4")):
            time.sleep(0.005)
        build.kill()
    assert not (out / "corpus.json").exists() and any(out.glob(".build/encoded/*/*.mp4"))
    assert not leaks(Seen(), out, temporary)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux")
def test_a_build_needs_no_network(tmp_path: Path) -> None:
    alone = ("unshare", "--net", "--map-root-user")
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a process leave the network")
    write_video(tmp_path / "raw" / "a.mp4", 30)
    out = tmp_path / "corpus"
    reached = subprocess.run(
        [*alone, sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9), 1)"],
        capture_output=True,
        check=False,
    )
    assert b"Network is unreachable" in reached.stderr, "not even this machine can be reached"
    options = ("--source", "folder", "--privacy", "public", "--root", str(tmp_path / "raw"), "--out", str(out))
    seen = run(out, "build", *options, *SETTINGS, before=alone)
    assert seen.code == 0, seen.said.decode()
    assert pq.read_table(out / "clips.parquet").num_rows == 2
    assert run(out, "verify", str(out), before=alone).code == 0
