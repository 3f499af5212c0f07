"""Files from real servers that misbehave: the same bytes, or one line that says which server failed."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from endocorpus.errors import DataError, UsageError
from endofm.data import remote
from endofm.data.remote import RemoteFile, corpus_url, download, is_url, read_small, redacted
from tests.endofm.servers import FileServer, serve

DATA = bytes(range(256)) * 40_000  # some ten pieces
PATIENT, HASTY = 30.0, 0.3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    (tmp_path / "deep" / "shards").mkdir(parents=True)
    (tmp_path / "deep" / "shards" / "a.tar").write_bytes(DATA)
    (tmp_path / "deep" / "corpus.json").write_bytes(b"{}")
    with serve(tmp_path) as found:
        yield found


def wanted(server: FileServer, **other: object) -> RemoteFile:
    known = {"size": len(DATA), "xxh3_128": xxhash.xxh3_128_hexdigest(DATA)} | other
    return RemoteFile(f"{server.url}/deep", "shards/a.tar", **known)  # type: ignore[arg-type]


def test_a_file_arrives_whole(server: FileServer) -> None:
    out = io.BytesIO()
    assert download(wanted(server), out, retry_seconds=HASTY)
    assert out.getvalue() == DATA
    assert read_small(f"{server.url}/deep", "corpus.json", retry_seconds=HASTY) == b"{}"
    assert [path for path, _ in server.requests] == ["/deep/shards/a.tar", "/deep/corpus.json"]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server: FileServer) -> None:
    server.drop_after, server.busy_every = 3_000_000, 3
    out = io.BytesIO()
    assert download(wanted(server), out, retry_seconds=PATIENT)
    assert out.getvalue() == DATA
    starts = [int(found[1]) for _, asked in server.requests if (found := re.match(r"bytes=(\d+)-", asked))]
    assert len(starts) >= 3 and starts == sorted(starts) and starts[0] > 2_000_000


def test_without_ranges_it_starts_over(server: FileServer) -> None:
    server.ranges, server.drop_after = False, 3_000_000
    out = io.BytesIO()
    with pytest.raises(DataError, match=r"gave up after 0\.3 seconds without a new byte"):
        download(wanted(server), out, retry_seconds=HASTY)
    server.drop_after = None
    assert download(wanted(server), out, retry_seconds=HASTY) and out.getvalue() == DATA


@pytest.mark.parametrize("served", [DATA[:-1], DATA + b"x", DATA[:9] + b"?" + DATA[10:], b""])
def test_other_bytes_are_noticed_and_never_more_than_there_is_room_for(server: FileServer, served: bytes) -> None:
    (server.root / "deep" / "shards" / "a.tar").write_bytes(served)
    out = io.BytesIO()
    assert not download(wanted(server), out, retry_seconds=HASTY)
    assert out.getvalue() == served[: len(DATA)]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, "the server has no such file"),
        (403, "the server refuses access"),
        (401, "the server refuses access"),
        (400, "Server returned non-2xx status code: 400 Bad Request"),
    ],
)
def test_a_refusal_is_told_at_once(server: FileServer, status: int, said: str) -> None:
    server.status["a.tar"] = status
    with pytest.raises(DataError, match=f"{re.escape(server.url)}/deep/shards/a.tar: {said}$"):
        download(wanted(server), io.BytesIO(), retry_seconds=PATIENT)
    assert len(server.requests) == 1


def test_a_server_that_fails_for_long_is_told(server: FileServer) -> None:
    server.busy_every = 1
    with pytest.raises(
        DataError, match=r"a\.tar: gave up after 0\.3 seconds .*503 Service Unavailable; once"
    ) as caught:
        download(wanted(server), io.BytesIO(), retry_seconds=HASTY)
    assert "\n" not in str(caught.value) and len(server.requests) > 1


def test_a_server_that_is_gone_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        root = f"http://user:secret@127.0.0.1:{taken.getsockname()[1]}/x"
        with pytest.raises(DataError) as caught:
            read_small(root, "corpus.json", retry_seconds=HASTY)
    assert "secret" not in str(caught.value) and "/x/corpus.json: gave up" in str(caught.value)


def test_a_server_that_redirects_for_ever_or_tells_no_length_is_told_at_once(server: FileServer) -> None:
    server.status["a.tar"] = 302
    with pytest.raises(DataError, match=r"/a\.tar: the server redirects in a circle"):
        download(wanted(server), io.BytesIO(), retry_seconds=PATIENT)
    server.status.clear()
    server.lengths = False
    asked = len(server.requests)
    with pytest.raises(DataError, match=r"/a\.tar: the server does not say how long the file is \(Content-Length\)"):
        download(wanted(server), io.BytesIO(), retry_seconds=PATIENT)
    assert len(server.requests) == asked + 1


def test_a_silent_server_is_given_up_after_as_long_as_one_is_to_wait(server: FileServer) -> None:
    """Both before the answer and in the middle of it. The server would be silent for a minute."""
    server.hold["a.tar"] = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for root in (f"http://127.0.0.1:{silent.getsockname()[1]}", f"{server.url}/deep"):
            with pytest.raises(DataError, match=r"/shards/a\.tar: gave up after 0\.3 seconds without a new byte"):
                read_small(root, "shards/a.tar", retry_seconds=HASTY)
    assert not server.hold["a.tar"].is_set()
    server.hold["a.tar"].set()


def test_a_signal_ends_the_wait_for_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENT)
        done = threading.Event()

        def interrupt() -> None:
            connection, _ = silent.accept()
            with connection:
                os.kill(os.getpid(), signal.SIGINT)
                done.wait(PATIENT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            read_small(f"http://127.0.0.1:{silent.getsockname()[1]}", "corpus.json", retry_seconds=10 * PATIENT)
        done.set()
        thread.join()


def test_credentials_are_sent_and_never_told(server: FileServer) -> None:
    server.authorisation = "Basic dXNlcjpzZSBjcmV0"
    root = server.url.replace("://", "://user:se%20cret@") + "/deep"
    assert read_small(root, "corpus.json", retry_seconds=HASTY) == b"{}"
    file = RemoteFile(root, "shards/b.tar", 1, "0" * 32)
    with pytest.raises(DataError) as caught:
        download(file, io.BytesIO(), retry_seconds=HASTY)
    assert "cret" not in f"{caught.value} {file}" and str(file) == f"{server.url}/deep/shards/b.tar"


@given(st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.from_regex(r"[A-Za-z0-9:%]{4,9}", fullmatch=True))
def test_redacted_keeps_the_address_and_nothing_secret(scheme: str, secret: str) -> None:
    secret = f"Z{secret}Z"
    assert redacted(f"{scheme}://{secret}@host/a/b?sig={secret}#x{secret} said") == f"{scheme}://host/a/b said"
    assert redacted(f"{scheme}://host:80/a") == f"{scheme}://host:80/a"


def test_what_is_an_address() -> None:
    assert is_url("https://x/y") and is_url("S3://b/c") and not is_url("/a/b") and not is_url(Path("http:/x"))
    assert corpus_url("s3://bucket/a/") == "s3://bucket/a"
    for bad, said in (
        ("ftp://host/x", "known are http, https, s3 and folders"),
        ("http://me:pw@[::1/x", "^http://[^@]*: not an address; look at its host"),
        ("http://me:pw@127.0.0.1:99999/x", "^http://127.0.0.1:99999/x: not an address; look at its port"),
        ("https:///x", "not an address of a corpus"),
        ("https://me:p/w@host/x", "^https://host/x: write %40"),
        ("https://me:pw@host/x?X-Amz-Signature=abc", r"^https://host/x: an address with a query"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            corpus_url(bad)
        assert not any(secret in str(caught.value) for secret in ("abc", "pw", "p/w", "me:"))


def test_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_REGION": "us-east-1"}
        for name, value in (settings | {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "secret"}).items():
            monkeypatch.setenv(name, value)
        remote._store.cache_clear()
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="corpora/deep/shards/a.tar", Body=DATA)
        out = io.BytesIO()
        file = RemoteFile("s3://bucket/corpora/deep", "shards/a.tar", len(DATA), xxhash.xxh3_128_hexdigest(DATA))
        assert download(file, out, retry_seconds=HASTY) and out.getvalue() == DATA
        with pytest.raises(DataError, match=r"^s3://bucket/corpora/x/corpus.json: .*no such file; AWS_ACCESS_KEY_ID"):
            read_small("s3://bucket/corpora/x", "corpus.json", retry_seconds=HASTY)
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        remote._store.cache_clear()
        with pytest.raises(DataError, match="refuses access; AWS_ACCESS_KEY_ID"):  # without a name, to a private file
            download(file, io.BytesIO(), retry_seconds=HASTY)
        client.put_object_acl(Bucket="bucket", Key="corpora/deep/shards/a.tar", ACL="public-read")
        assert download(file, io.BytesIO(), retry_seconds=HASTY)
    finally:
        server.stop()
        remote._store.cache_clear()
