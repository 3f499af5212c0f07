"""Downloads from a real server that does what servers do, and the command that makes a raw tree of them."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import endocorpus.fetch
from endocorpus.cli import main
from endocorpus.download import Patience, Wanted, download
from endocorpus.errors import DataError
from endocorpus.walk import walk
from tests.endocorpus.test_unpack import GOOD, HOSTILE, encrypted_zip, make_tar, make_zip, tree_of

DATA = random.Random(5).randbytes(200_000)
QUICK = Patience(tries=4, pause=0.001, timeout=0.5)


@dataclass
class Answer:
    """How to answer one request; the default is to serve well."""

    status: int | None = None
    ranges: bool = True
    only_after: int | None = None  # close the connection after so many bytes
    stall_after: int | None = None  # say nothing more after so many bytes, until the server ends
    data: bytes | None = None  # the file is this from now on
    claim: int | None = None  # a length that is not true
    etag: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    ignore_if_range: bool = False
    tail: bytes = b""  # comes after the file, or the part of it
    at_most: int | None = None  # answer a range with so many bytes of it
    length: bool = True
    chunked: bool = False


class Server:
    """Serves `files`; `answers` says how to answer the next requests; `log` holds path, range and status of each."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/f.bin": DATA}
        self.answers: list[Answer] = []
        self.always = Answer()
        self.log: list[tuple[str, str | None, int]] = []
        self.etags = True
        self.done = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"script": self}))
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up here all the time
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self._thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self.done.set()
        self.http.shutdown()
        self._thread.join()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_GET(self) -> None:
        server = self.script
        answer = server.answers.pop(0) if server.answers else server.always
        if answer.data is not None:
            server.files[self.path] = answer.data
        data = server.files.get(self.path)
        if data is None and answer.status is None:
            answer = Answer(status=404)
        if answer.status is not None:
            self._head(answer.status, 0, answer.headers)
            return
        assert data is not None
        self._serve(answer, data)

    def _head(self, status: int, length: int | None, headers: dict[str, str]) -> None:
        self.script.log.append((self.path, self.headers.get("Range"), status))
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _serve(self, answer: Answer, data: bytes) -> None:
        etag = answer.etag or f'"{hashlib.md5(data).hexdigest()}"'
        headers = {"ETag": etag} if self.script.etags else {}
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        status, start = 200, 0
        if asked and answer.ranges and (answer.ignore_if_range or condition in (None, etag)):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self._head(416, 0, {"Content-Range": f"bytes */{len(data)}"})
                return
            status = 206
            body = data[start:][: answer.at_most]
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(data)}"
        else:
            body = data
        if answer.chunked:
            headers["Transfer-Encoding"] = "chunked"
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        headers |= answer.headers
        self._head(status, (answer.claim or len(body)) if answer.length else None, headers)
        stop = answer.only_after if answer.only_after is not None else answer.stall_after
        self.wfile.write(body + answer.tail if stop is None else body[:stop])
        self.wfile.flush()
        if answer.stall_after is not None:
            self.script.done.wait(20)
        if stop is not None or answer.claim or not answer.length:
            self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def get(server: Server, path: Path, name: str = "/f.bin", **known: Any) -> str:
    return download(Wanted(url=server.url + name, **known), path, patience=QUICK)


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_comes_whole_and_leaves_nothing_else(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "deep" / "f.bin"
    sha256 = download(
        Wanted(url=f"{server.url}/f.bin"), target, patience=QUICK, on_bytes=lambda *step: seen.append(step)
    )
    assert target.read_bytes() == DATA and sha256 == hashlib.sha256(DATA).hexdigest()
    assert leftovers(target.parent) == {"f.bin"} and seen[-1] == (len(DATA), len(DATA))


@pytest.mark.parametrize("way", ["only_after", "stall_after"])
def test_it_goes_on_where_the_connection_ended(way: str, server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(**{way: 50_000}), Answer(**{way: 70_000})]
    get(server, tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA
    assert [asked for _, asked, _ in server.log] == [None, "bytes=50000-", "bytes=120000-"]
    assert [status for *_, status in server.log] == [200, 206, 206]


def test_a_server_may_give_the_rest_in_pieces(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(only_after=50_000)]
    server.always = Answer(at_most=60_000)
    get(server, tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA
    assert [asked for _, asked, _ in server.log] == [None, "bytes=50000-", "bytes=110000-", "bytes=170000-"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.builds(
            Answer,
            status=st.sampled_from([None, None, None, 500, 503, 429]),
            ranges=st.booleans(),
            only_after=st.none() | st.integers(0, 200_000),
            data=st.none() | st.sampled_from([DATA[:90_000], DATA[::-1]]),
            ignore_if_range=st.booleans(),
        ),
        max_size=5,
    )
)
def test_whatever_the_server_does_the_file_is_one_version_and_whole(
    server: Server, tmp_path: Path, answers: list[Answer]
) -> None:
    target = tmp_path / "f.bin"
    for left in tmp_path.iterdir():
        left.unlink()
    server.files, server.answers = {"/f.bin": DATA}, list(answers)
    for _ in range(3):  # the runs of a person who tries again
        try:
            sha256 = get(server, target)
        except DataError:
            assert not target.exists()
        else:
            break
    assert target.read_bytes() in (DATA, DATA[:90_000], DATA[::-1])
    assert hashlib.sha256(target.read_bytes()).hexdigest() == sha256
    assert leftovers(tmp_path) == {"f.bin"}


def test_a_file_that_changed_meanwhile_starts_over(server: Server, tmp_path: Path) -> None:
    other = DATA[::-1]
    for cheats in (False, True):  # a server that answers 206 although the version is another
        server.files["/f.bin"] = DATA
        server.answers = [Answer(only_after=90_000), Answer(data=other, ignore_if_range=cheats)]
        get(server, tmp_path / "f.bin")
        assert (tmp_path / "f.bin").read_bytes() == other


def test_a_version_that_cannot_be_told_starts_over(server: Server, tmp_path: Path) -> None:
    server.etags = False
    server.answers = [Answer(only_after=90_000), Answer()]
    get(server, tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA and [asked for _, asked, _ in server.log] == [None, None]
    server.answers = [Answer(only_after=90_000, etag='W/"weak"'), Answer(etag='W/"weak"')]
    get(server, tmp_path / "g.bin")
    assert server.log[-1][1] is None
    dated = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    server.answers = [Answer(only_after=90_000, headers=dated), Answer(headers=dated, ignore_if_range=True)]
    get(server, tmp_path / "h.bin")
    assert server.log[-1][1:] == ("bytes=90000-", 206) and (tmp_path / "h.bin").read_bytes() == DATA
    longer = DATA[::-1] + b"x"  # written in the second in which the first version was
    server.files["/f.bin"] = DATA
    server.answers = [
        Answer(only_after=90_000, headers=dated),
        Answer(data=longer, headers=dated, ignore_if_range=True),
    ]
    get(server, tmp_path / "i.bin")
    assert (tmp_path / "i.bin").read_bytes() == longer


def test_errors_that_pass_are_waited_out(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(status=500), Answer(status=503, headers={"Retry-After": "0"}), Answer(only_after=0)]
    get(server, tmp_path / "f.bin")
    assert [status for *_, status in server.log] == [500, 503, 200, 200]


def test_it_gives_up_and_the_next_run_goes_on(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(only_after=60_000)]
    server.always = Answer(status=502)
    with pytest.raises(DataError, match=r"gave up after 4 tries: the server says 502 .* same command continues"):
        get(server, tmp_path / "f.bin")
    assert leftovers(tmp_path) == {"f.bin.partial", "f.bin.partial.json"}
    server.always = Answer()
    get(server, tmp_path / "f.bin")
    assert server.log[-1][1:] == ("bytes=60000-", 206) and (tmp_path / "f.bin").read_bytes() == DATA


def test_a_server_that_never_gets_further_is_not_tried_for_ever(server: Server, tmp_path: Path) -> None:
    server.always = Answer(only_after=60_000, ranges=False)
    with pytest.raises(DataError, match="gave up"):
        get(server, tmp_path / "f.bin")
    assert len(server.log) == QUICK.tries and not (tmp_path / "f.bin").exists()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(status=404), "404 Not Found; look at the provider's page"),
        (Answer(status=410), "410"),
        (Answer(status=401), "wants a log-in; download by hand, use --archives"),
        (Answer(status=403), "wants a log-in"),
        (Answer(headers={"Content-Type": "text/html; charset=utf-8"}), "sent a page, not the file"),
        (Answer(headers={"Content-Type": "TEXT/HTML"}), "sent a page, not the file"),
        (Answer(headers={"Content-Type": "application/xhtml+xml"}), "sent a page, not the file"),
        (Answer(headers={"Content-Encoding": "gzip"}), "packs the file, and was asked not to"),
        (Answer(status=206, headers={"Content-Range": "bytes 0-9/10"}), "sends a part, and the whole was asked for"),
        (Answer(status=302, headers={"Location": f"http://{'a' * 80}.com:99999/"}), "leads to what is no address"),
        (Answer(status=302, headers={"Location": "ftp://example.org/"}), "leads to what is no address"),
        (Answer(data=b""), "not what was expected: it is empty"),
        (Answer(length=False), "does not say where the file ends"),
    ],
)
def test_what_waiting_does_not_mend_is_said_at_once(answer: Answer, why: str, server: Server, tmp_path: Path) -> None:
    server.always = answer
    with pytest.raises(DataError, match=why):
        get(server, tmp_path / "f.bin")
    assert len(server.log) == 1 and not (tmp_path / "f.bin").exists()


@pytest.mark.parametrize("number", ["\N{SUPERSCRIPT TWO}", "9" * 5000, "-1", "1_0"])
def test_numbers_of_headers_are_numbers_or_nothing(number: str, server: Server, tmp_path: Path) -> None:
    server.answers = [
        Answer(status=503, headers={"Retry-After": number}),
        Answer(only_after=50_000),
        Answer(headers={"Content-Range": f"bytes 50000-{number}/{number}"}),
    ]
    get(server, tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA and server.log[2][2] == 206


def test_a_part_that_is_longer_than_it_says_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(only_after=50_000), Answer(tail=b"more", length=False)]
    get(server, tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == DATA
    assert [status for *_, status in server.log] == [200, 206, 200]


def test_a_file_of_untold_length_is_bounded(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.always = Answer(length=False, chunked=True)
    get(server, tmp_path / "f.bin")
    monkeypatch.setattr(endocorpus.download, "_MOST_UNTOLD", 150_000)
    with pytest.raises(DataError, match="more came than the 150,000 bytes that it may have"):
        get(server, tmp_path / "g.bin")
    assert leftovers(tmp_path) == {"f.bin"}


def test_what_a_file_itself_is_packed_with_is_no_fault(server: Server, tmp_path: Path) -> None:
    server.files["/f.tar.gz"], server.always = DATA, Answer(headers={"Content-Encoding": "x-gzip"})
    get(server, tmp_path / "f.tar.gz", "/f.tar.gz")
    assert (tmp_path / "f.tar.gz").read_bytes() == DATA


def test_nobody_at_home(tmp_path: Path) -> None:
    lonely = Server()
    lonely.close()
    with pytest.raises(DataError, match=r"gave up after 4 tries: .*refused"):
        get(lonely, tmp_path / "f.bin")
    with pytest.raises(DataError, match="not an http or https address"):
        download(Wanted(url="file:///etc/passwd"), tmp_path / "x", patience=QUICK)


def test_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    server.answers = [
        Answer(status=302, headers={"Location": "/other"}),
        Answer(status=307, headers={"Location": "/f.bin"}),
    ]
    get(server, tmp_path / "f.bin", "/start")
    assert (tmp_path / "f.bin").read_bytes() == DATA
    server.always = Answer(status=302, headers={"Location": "/round"})
    with pytest.raises(DataError, match="gave up"):
        get(server, tmp_path / "g.bin", "/round")


SHA, MD5 = hashlib.sha256(DATA).hexdigest(), hashlib.md5(DATA).hexdigest()


def test_what_is_known_beforehand_is_checked(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path / "f.bin", bytes=len(DATA), sha256=SHA.upper(), md5=MD5)
    wrong: dict[str, dict[str, Any]] = {
        "its sha256 is": {"sha256": "0" * 64},
        "its md5 is": {"md5": "0" * 32},
        "200,000 bytes on the server, but 7 are expected": {"bytes": 7},
    }
    for why, known in wrong.items():
        with pytest.raises(DataError, match=why):
            get(server, tmp_path / "g.bin", **known)
        assert leftovers(tmp_path) == {"f.bin"}
    server.always = Answer(length=False)
    get(server, tmp_path / "h.bin", sha256=SHA)
    with pytest.raises(DataError, match="more came than the 199,999 bytes"):
        get(server, tmp_path / "i.bin", bytes=199_999)
    assert leftovers(tmp_path) == {"f.bin", "h.bin"}


def test_a_length_that_is_not_true_is_never_a_whole_file(server: Server, tmp_path: Path) -> None:
    server.always = Answer(claim=len(DATA) + 10, ranges=False)
    with pytest.raises(DataError, match="gave up"):
        get(server, tmp_path / "f.bin")
    assert not (tmp_path / "f.bin").exists()


def test_little_room_is_noticed_before(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 30))
    with pytest.raises(DataError, match=r"takes 200.0 kB and a reserve of 1.1 GB, but only 1.1 GB are free"):
        get(server, tmp_path / "f.bin")
    assert not (tmp_path / "f.bin").exists()


def test_a_full_disk_is_told_and_the_next_run_goes_on(server: Server, tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from endocorpus.download import *;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "download(Wanted(url=sys.argv[1]), Path(sys.argv[2]))"
    )
    run = [sys.executable, "-c", code, f"{server.url}/f.bin", str(tmp_path / "f.bin")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert "f.bin.partial: cannot be written: File too large; the same command continues" in done.stderr
    assert 0 < (tmp_path / "f.bin.partial").stat().st_size <= 100_000
    get(server, tmp_path / "f.bin")
    assert server.log[-1][2] == 206 and (tmp_path / "f.bin").read_bytes() == DATA


def test_killed_in_the_middle_the_next_run_goes_on(server: Server, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from endocorpus.download import *;"
        "download(Wanted(url=sys.argv[1]), Path(sys.argv[2]))"
    )
    partial = tmp_path / "f.bin.partial"
    for expected in (30_000, 110_000):
        server.answers = [Answer(stall_after=expected - (partial.stat().st_size if partial.exists() else 0))]
        child = subprocess.Popen([sys.executable, "-c", code, f"{server.url}/f.bin", str(tmp_path / "f.bin")])
        while child.poll() is None and not (partial.exists() and partial.stat().st_size == expected):
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert not (tmp_path / "f.bin").exists()
    get(server, tmp_path / "f.bin", sha256=SHA)
    assert server.log[-1][1:] == ("bytes=110000-", 206) and leftovers(tmp_path) == {"f.bin"}


def test_killed_before_the_last_rename_nothing_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(only_after=150_000)]
    server.always = Answer(status=404)
    with pytest.raises(DataError):
        get(server, tmp_path / "f.bin")
    (tmp_path / "f.bin.partial").write_bytes(DATA)
    asked = len(server.log)
    assert get(server, tmp_path / "f.bin") == SHA and len(server.log) == asked


# The command


Facts = Callable[..., str]


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """Writes the facts of a source `made-up`; paths in the tests are relative to a folder of its own."""
    (tmp_path / "manifests/sources").mkdir(parents=True)
    monkeypatch.setattr(endocorpus.fetch, "manifests_folder", lambda: tmp_path / "manifests")
    monkeypatch.chdir(tmp_path)

    def write(*archives: dict[str, object], access: str = "open") -> str:
        lines = [f'access = "{access}"', 'home = "https://example.org/set"', 'obtain = "Write to the owner.\\nWait."']
        for archive in archives:
            lines += ["[[archive]]", *(f"{key} = {json.dumps(value)}" for key, value in archive.items())]
        (tmp_path / "manifests/sources/made-up.toml").write_text("\n".join(lines))
        return "made-up"

    return write


def run(*args: object) -> Result:
    result = CliRunner().invoke(main, ["fetch", *(str(arg) for arg in args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert "Traceback" not in result.output
    return result


def serve(server: Server, folder: Path, name: str, tree: dict[str, bytes]) -> dict[str, object]:
    made = make_zip(folder / name, tree) if name.endswith(".zip") else make_tar(folder / name, tree)
    server.files[f"/{name}"] = made.read_bytes()
    made.unlink()
    return {"name": name, "url": f"{server.url}/{name}"}


def test_an_open_source_is_fetched_recorded_and_checked_again(server: Server, facts: Facts, tmp_path: Path) -> None:
    source = facts(
        serve(server, tmp_path, "videos.zip", GOOD),
        serve(server, tmp_path, "more.tar.gz", {"more/1.jpg": b"1"}),
        {"name": "Adenoma/a_01/WL.mp4", "url": f"{server.url}/f.bin", "sha256": SHA, "bytes": len(DATA)},
    )
    first = run(source)
    assert first.exit_code == 0, first.output
    everything = GOOD | {"more/1.jpg": b"1", "Adenoma/a_01/WL.mp4": DATA}
    assert tree_of(tmp_path / "raw/made-up") == everything
    records = json.loads((tmp_path / "raw/made-up/.fetch.json").read_text())
    assert {name: record["sha256"] for name, record in records.items()} == {
        "videos.zip": hashlib.sha256(server.files["/videos.zip"]).hexdigest(),
        "more.tar.gz": hashlib.sha256(server.files["/more.tar.gz"]).hexdigest(),
        "Adenoma/a_01/WL.mp4": SHA,
    }
    assert all(
        record["url"].startswith(server.url) and record["bytes"] and record["time"] for record in records.values()
    )
    assert walk(tmp_path / "raw/made-up")[0] == sorted(everything)  # the book-keeping is no data
    requests = len(server.log)
    again = json.loads(run(source, "--json").stdout)
    assert {each["detail"] for each in again["archives"]} == {"was there"} and again["steps"] == []
    assert json.loads((tmp_path / "raw/made-up/.fetch.json").read_text()) == records
    for archive in (tmp_path / "raw/made-up/.fetch").rglob("*.zip"):
        if archive.is_file():
            archive.unlink()  # to save room
    assert run(source).exit_code == 0 and len(server.log) == requests


def test_what_was_damaged_or_lost_since_is_found(server: Server, facts: Facts, tmp_path: Path) -> None:
    source = facts(serve(server, tmp_path, "videos.zip", GOOD), {"name": "plain.mp4", "url": f"{server.url}/f.bin"})
    run(source)
    root = tmp_path / "raw/made-up"
    [kept] = [path for path in (root / ".fetch").rglob("videos.zip") if path.is_file()]
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    (root / "labels.csv").unlink()
    assert run(source).exit_code == 0
    assert tree_of(root) == GOOD | {"plain.mp4": DATA}
    (root / "plain.mp4").write_bytes(DATA[:-1])
    told = run(source)
    assert told.exit_code == 1 and "plain.mp4: not what was expected" in told.stderr
    (root / "plain.mp4").unlink()
    assert run(source).exit_code == 0 and tree_of(root) == GOOD | {"plain.mp4": DATA}


def test_one_that_fails_does_not_keep_the_others(server: Server, facts: Facts, tmp_path: Path) -> None:
    source = facts(
        {"name": "gone.zip", "url": f"{server.url}/gone.zip"},
        serve(server, tmp_path, "evil.zip", {"../out": b"x"}),
        serve(server, tmp_path, "videos.zip", GOOD),
    )
    told = run(source)
    assert told.exit_code == 1 and "2 archives of 3 failed" in told.stderr and "404" in told.stderr
    assert "leads out of its folder" in told.stdout and not (tmp_path / "raw/out").exists()
    assert tree_of(tmp_path / "raw/made-up") == GOOD
    assert run(source, "--only", "videos.zip").exit_code == 0
    unknown = run(source, "--only", "other.zip")
    assert unknown.exit_code == 2 and "there is: gone.zip, evil.zip, videos.zip" in unknown.stderr


@pytest.mark.parametrize("first", [b"", b"<html>log in", "cut"])
def test_a_bad_copy_is_downloaded_again(first: bytes | str, server: Server, facts: Facts, tmp_path: Path) -> None:
    source = facts(serve(server, tmp_path, "videos.zip", GOOD))
    whole = server.files["/videos.zip"]
    server.files["/videos.zip"] = whole[:-50] if isinstance(first, str) else first
    assert run(source).exit_code == 1
    server.files["/videos.zip"] = whole
    assert run(source).exit_code == 0 and tree_of(tmp_path / "raw/made-up") == GOOD
    assert len(server.log) == 2


def test_a_copy_that_is_refused_or_has_the_right_sum_is_kept(server: Server, facts: Facts, tmp_path: Path) -> None:
    cut = serve(server, tmp_path, "cut.zip", GOOD)
    server.files["/cut.zip"] = server.files["/cut.zip"][:-50]
    cut["sha256"] = hashlib.sha256(server.files["/cut.zip"]).hexdigest()
    source = facts(serve(server, tmp_path, "evil.zip", {"../out": b"x"}), cut)
    for _ in range(2):
        assert run(source).exit_code == 1
    assert len(server.log) == 2, "nothing would be gained by another copy"


def test_a_bad_archive_in_the_folder_does_not_keep_the_others(facts: Facts, tmp_path: Path) -> None:
    source = facts(access="form")
    make_zip(tmp_path / "hand/b.zip", {"b": b"b"})
    (tmp_path / "hand/a.zip").write_bytes(HOSTILE["a name in no encoding"])
    told = run(source, "--archives", "hand")
    assert told.exit_code == 1 and "1 archive of 2 failed" in told.stderr and "a.zip: damaged" in told.stderr
    assert tree_of(tmp_path / "raw/made-up") == {"b": b"b"}
    assert not list((tmp_path / "raw/made-up").rglob("work"))


def test_a_dry_run_asks_nobody_and_writes_nothing(server: Server, facts: Facts, tmp_path: Path) -> None:
    source = facts(serve(server, tmp_path, "videos.zip", GOOD), {"name": "form.zip", "note": "by the form"})
    told = json.loads(run(source, "--dry-run", "--json").stdout)
    assert [(each["status"], each["detail"]) for each in told["archives"]] == [
        ("planned", "download and unpack"),
        ("by hand", "by the form"),
    ]
    shown = run(source, "--dry-run").stdout
    assert "size of all: not stated by the provider" in shown and shown.count("by the form") == 1
    assert not server.log and not (tmp_path / "raw").exists()


def test_a_dry_run_says_what_is_known_of_sizes() -> None:
    told = run("hyper-kvasir", "--dry-run").stdout
    assert "25.2 GB" in next(line for line in told.splitlines() if line.startswith("hyper-kvasir-videos.zip"))
    assert "size of all: 25.2 GB of videos; 58.6 GB with all images" in told
    assert "size" not in run("folder", "--dry-run").stdout


def test_a_gated_source_says_the_steps_and_takes_what_a_person_downloaded(facts: Facts, tmp_path: Path) -> None:
    source = facts({"name": "part1.zip"}, {"name": "labelled/part2.tar.gz"}, access="email-password")
    told = run(source)
    assert told.exit_code == 2 and not (tmp_path / "raw").exists()
    assert "https://example.org/set" in told.stdout and "Write to the owner.\nWait." in told.stdout
    make_zip(tmp_path / "Downloads/part1.zip", GOOD)
    make_zip(tmp_path / "Downloads/holiday.zip", {"private": b"p"})
    half = run(source, "--archives", "Downloads")
    assert half.exit_code == 1 and "still missing: labelled/part2.tar.gz" in half.stderr
    assert run(source, "--archives", "Downloads", "--only", "part1.zip").exit_code == 0
    make_tar(tmp_path / "Downloads/part2.tar.gz", {"x.jpg": b"x"})
    before = {path: path.read_bytes() for path in (tmp_path / "Downloads").iterdir()}
    assert run(source, "--archives", "Downloads").exit_code == 0
    assert tree_of(tmp_path / "raw/made-up") == GOOD | {"labelled/x.jpg": b"x"}
    assert {path: path.read_bytes() for path in (tmp_path / "Downloads").iterdir()} == before
    assert run(source).exit_code == 0  # all is there, whether or not the folder still is
    records = json.loads((tmp_path / "raw/made-up/.fetch.json").read_text())
    assert {record["url"] for record in records.values()} == {""}
    missing = run(source, "--archives", "nowhere")
    assert missing.exit_code == 2 and "--archives nowhere: no such folder" in missing.stderr


def test_where_no_archive_is_listed_the_folder_is_taken_as_it_is(facts: Facts, tmp_path: Path) -> None:
    source = facts(access="form")
    (tmp_path / "hand").mkdir()
    assert run(source, "--archives", "hand").exit_code == 2
    make_zip(tmp_path / "hand/a.zip", {"a": b"a"})
    make_tar(tmp_path / "hand/b.tar.xz", {"b": b"b"}, "w:xz")
    (tmp_path / "hand/readme.txt").write_text("hello")
    assert run(source, "--archives", "hand", "--dest", "there").exit_code == 0
    assert tree_of(tmp_path / "there") == {"a": b"a", "b": b"b"}


def test_a_hand_made_mistake_is_named(facts: Facts, tmp_path: Path) -> None:
    source = facts({"name": "a.zip", "bytes": 7}, {"name": "b.zip", "sha256": "0" * 64})
    make_zip(tmp_path / "hand/a.zip", GOOD)
    make_zip(tmp_path / "hand/b.zip", GOOD)
    told = run(source, "--archives", "hand")
    assert told.exit_code == 1 and "bytes instead of 7" in told.stdout and f"instead of {'0' * 64}" in told.stdout
    assert tree_of(tmp_path / "raw/made-up") == {}


def test_the_password_comes_from_the_environment(facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = facts({"name": "a.zip"}, access="email-password")
    (tmp_path / "hand").mkdir()
    encrypted_zip(tmp_path / "hand/a.zip", {"a": b"a" * 1000}, b"geheim")
    told = run(source, "--archives", "hand")
    assert told.exit_code == 2 and "ENDOCORPUS_PASSWORD" in told.stderr
    monkeypatch.setenv("ENDOCORPUS_PASSWORD", "geheim")
    assert run(source, "--archives", "hand").exit_code == 0
    assert tree_of(tmp_path / "raw/made-up") == {"a": b"a" * 1000}
    kept = [path.read_bytes() for path in (tmp_path / "raw").rglob("*") if path.is_file()]
    assert not any(b"geheim" in data for data in kept)


def test_sources_that_nobody_can_download_end_with_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = run("folder")
    assert told.exit_code == 2 and "--root" in told.stdout and not (tmp_path / "raw").exists()
    unknown = run("nothing")
    assert unknown.exit_code == 2 and "no source 'nothing'; there is: " in unknown.stderr


def test_two_fetches_into_one_folder_are_refused(server: Server, facts: Facts, tmp_path: Path) -> None:
    from endocorpus.corpus.files import sole_user

    source = facts(serve(server, tmp_path, "videos.zip", GOOD))
    with sole_user(tmp_path / "raw/made-up/.fetch/lock", "held by the test"):
        told = run(source)
    assert told.exit_code == 2 and "another process" in told.stderr and not server.log
