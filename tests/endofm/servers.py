"""A real HTTP server over a folder, with ranges and ETags, that can be told to misbehave as servers do."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import xxhash


class FileServer(ThreadingHTTPServer):
    """Serves `root`. Change its attributes while it runs to change its manners."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.requests: list[tuple[str, str]] = []  # path and Range header of every request, in order
        self.drop_after: int | None = None  # bytes of a body after which a connection is cut
        self.busy_every = 0  # every n-th request is answered with 503
        self.status: dict[str, int] = {}  # answers to paths that end so
        self.ranges = self.lengths = True
        self.authorisation = ""  # demanded where it is not empty
        self.hold: dict[str, threading.Event] = {}  # a body of a path that ends so stops half-way until this is set
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def note(self, path: str, wanted: str) -> int:
        """Count a request; its number, from 1."""
        with self._lock:
            self.requests.append((path, wanted))
            return len(self.requests)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        path = unquote(self.path.partition("?")[0])
        number = self.server.note(path, wanted)
        refusal = next((code for end, code in self.server.status.items() if path.endswith(end)), None)
        if self.server.busy_every and number % self.server.busy_every == 0:
            refusal = 503
        if self.server.authorisation and self.headers.get("Authorization") != self.server.authorisation:
            refusal = 401
        file = self.server.root / path.lstrip("/")
        if refusal is None and not file.is_file():
            refusal = 404
        if refusal is not None:
            self.send_response(refusal)
            if refusal == 302:
                self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(path, file.read_bytes(), wanted if self.server.ranges else "")

    def _send(self, path: str, data: bytes, wanted: str) -> None:
        tag = f'"{xxhash.xxh3_64_hexdigest(data)}"'
        if self.headers.get("If-Match", tag) != tag:
            self.send_response(412)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        total = len(data)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        self.send_response(206 if found else 200)
        if found:
            start = int(found[1])
            data = data[start : int(found[2]) + 1 if found[2] else None]
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{total}")
        if self.server.lengths:
            self.send_header("Content-Length", str(len(data)))
        else:
            self.send_header("Connection", "close")
        self.send_header("ETag", tag)
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        held = next((event for end, event in self.server.hold.items() if path.endswith(end)), None)
        if held is not None:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            held.wait(60)
            data = data[len(data) // 2 :]
        limit = self.server.drop_after
        if limit is not None and len(data) > limit and path.endswith((".tar", ".parquet")):
            self.wfile.write(data[:limit])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(data)


@contextmanager
def serve(root: Path) -> Iterator[FileServer]:
    """A server over `root`, on a port of its own, until the block ends."""
    server = FileServer(root)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
