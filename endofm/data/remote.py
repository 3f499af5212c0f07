"""Files on http(s) and s3 servers: fetched whole, resumed where a connection broke, or an error that names the address.

obstore does the talking: one compiled wheel without dependencies, and S3 by the usual environment variables. Its own
retries are off, since they start a body over; `download` goes on from the byte that is missing.
"""

from __future__ import annotations

import base64
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import obstore
import xxhash
from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError
from obstore.store import HTTPStore, S3Store

from endocorpus.errors import DataError, UsageError

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, RetryConfig

T = TypeVar("T")

SCHEMES = ("http", "https", "s3")
_SILENCE = 60.0  # seconds without a byte, or all that may be waited, after which a connection is given up
_PASSING = {408, 425, 429}  # of the refusals, those that may end by themselves
_NEVER_PASSING = {
    "following redirect": "the server redirects in a circle, or to where nobody can follow",
    "Content-Length": "the server does not say how long the file is (Content-Length), and nobody could tell a whole "
    "one from one that was cut; serve it as a plain file",
}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds between tries; doubled after each that brings nothing
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")  # as obstore looks for them


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a corpus on a server, and what it must be. Its text is its address, without credentials."""

    root: str  # of the corpus, as it was given
    name: str  # below it
    size: int  # bytes
    xxh3_128: str  # 32 hex digits

    def __str__(self) -> str:
        return f"{redacted(self.root)}/{self.name}"


class _AgainError(Exception):
    """Worth another try."""


class _TooLongError(Exception):
    """More bytes than the file should have."""


def is_url(place: object) -> bool:
    """Whether a corpus is named by an address instead of a folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(place)) is not None


def corpus_url(text: str) -> str:
    """The address of a corpus without a slash at its end.

    Raises:
        UsageError: an address of a kind that is not known, or one with a query, which cannot stand for a folder. The
            message holds neither credentials nor the query.
    """
    try:
        parts = urlsplit(text)
    except ValueError:  # what it says may hold a password
        raise UsageError(f"{redacted(text)}: not an address; look at its host") from None
    if parts.scheme.lower() not in SCHEMES or not parts.netloc:
        raise UsageError(f"{redacted(text)}: not an address of a corpus; known are {', '.join(SCHEMES)} and folders")
    if "@" in parts.path:
        raise UsageError(f"{redacted(text)}: write %40 for an @ in an address, and %2F for a / in a password")
    if parts.query or parts.fragment:
        raise UsageError(
            f"{redacted(text)}: an address with a query, signed for instance, leads to one file, and a corpus is a "
            "folder of many; give the address of the folder, and credentials by the environment"
        )
    try:
        parts.port  # noqa: B018 - or it would fail deep inside
    except ValueError:
        raise UsageError(f"{redacted(text)}: not an address; look at its port, a number up to 65535") from None
    return text.rstrip("/")


def redacted(text: str) -> str:
    """`text` with the credentials, queries and fragments of all addresses in it removed."""
    # Up to the last @, since a password may hold what should have been quoted.
    return re.sub(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:\S*@)?([^\s?#]*)\S*", r"\1\2", text)


def read_small(root: str, name: str, *, retry_seconds: float) -> bytes:
    """A small file of a corpus, held in memory.

    Raises:
        DataError: it is not there, may not be read, or the server fails for `retry_seconds` without a new byte.
    """
    received = bytearray()

    def start_over() -> None:
        received.clear()

    _receive(root, name, received.extend, start_over, retry_seconds)
    return bytes(received)


def download(
    wanted: RemoteFile, out: BinaryIO, *, retry_seconds: float, on_block: Callable[[], None] = lambda: None
) -> bool:
    """Write a file's bytes to `out` from its start, whatever the connection does meanwhile.

    Args:
        on_block: called after every piece; what it raises ends the download.

    Returns:
        Whether the bytes are those that the corpus was written with, by their number and hash.

    Raises:
        DataError: it is not there, may not be read, or the server fails for `retry_seconds` without a new byte.
        OSError: `out` cannot be written.
    """
    hasher = xxhash.xxh3_128()
    out.seek(0)

    def take(block: bytes) -> None:
        fits = block[: wanted.size - out.tell()]
        out.write(fits)
        hasher.update(fits)
        if len(fits) < len(block):  # room was made for the size that it should have
            raise _TooLongError
        on_block()

    def start_over() -> None:
        out.seek(0)
        hasher.reset()

    try:
        _receive(wanted.root, wanted.name, take, start_over, retry_seconds)
        intact = out.tell() == wanted.size and hasher.hexdigest() == wanted.xxh3_128
    except _TooLongError:
        intact = False
    out.truncate()  # to what came, which may be less than the room that was made for it
    return intact


def _receive(
    root: str, name: str, take: Callable[[bytes], None], start_over: Callable[[], None], retry_seconds: float
) -> None:
    """Hand all bytes of a file to `take`, in order; `start_over` if what was handed out so far counts no more."""
    have = most = 0
    failures, brought = 0, time.monotonic()  # tries in a row that brought nothing, and when something last came
    while True:
        try:
            for block in _blocks(root, name, have, min(_SILENCE, retry_seconds)):
                if block is None:
                    have = 0
                    start_over()
                    continue
                take(block)
                have += len(block)
                if have > most:  # a server that starts over each time brings nothing new
                    most, failures, brought = have, 0, time.monotonic()
            return
        except _AgainError as error:
            failures += 1
            if time.monotonic() - brought > retry_seconds:
                raise DataError(
                    f"{redacted(root)}/{name}: gave up after {retry_seconds:g} seconds without a new byte: {error}; "
                    "once the server is back the same command goes on (data.retry_seconds: how long to wait for it)"
                    + _hint(root)
                ) from None
            pause = min(_FIRST_PAUSE * 2 ** min(failures - 1, 16), _LONGEST_PAUSE, retry_seconds)
            time.sleep(pause * random.uniform(0.5, 1.0))  # or all ranks would come back at the same moment


def _blocks(root: str, name: str, have: int, silence: float) -> Iterator[bytes | None]:
    """The bytes from `have` on; None first where they come from the start instead; `silence` in seconds."""
    options: GetOptions = {"range": {"offset": have}} if have else {}
    try:
        store = _store(root, silence)
        try:
            answer = _interruptibly(lambda: obstore.get(store, name, options=options))
        except NotSupportedError:  # the server knows no ranges
            yield None
            answer = _interruptibly(lambda: obstore.get(store, name))
        stream = answer.stream(min_chunk_size=1)  # as it comes: what it gathers is lost when the connection breaks
        while (block := next(stream, None)) is not None:
            yield bytes(block)
    except FileNotFoundError:
        raise DataError(f"{redacted(root)}/{name}: the server has no such file{_hint(root)}") from None
    except (PermissionDeniedError, UnauthenticatedError):
        raise DataError(f"{redacted(root)}/{name}: the server refuses access{_hint(root)}") from None
    except BaseError as error:
        if (status := re.search(r"status code: ([34]\d\d)", str(error))) and int(status[1]) not in _PASSING:
            raise DataError(f"{redacted(root)}/{name}: {_said(error)}{_hint(root)}") from None
        if said := next((said for sign, said in _NEVER_PASSING.items() if sign in str(error)), None):
            raise DataError(f"{redacted(root)}/{name}: {said}") from None
        raise _AgainError(_said(error)) from None


def _interruptibly(ask: Callable[[], T]) -> T:
    """What `ask` gives. A signal can end the wait, which it could not inside compiled code."""
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return answer.result()


def _hint(root: str) -> str:
    if not root.lower().startswith("s3:"):
        return ""
    return (
        "; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY give access, AWS_SKIP_SIGNATURE=true does without for a public "
        "bucket, AWS_ENDPOINT_URL leads to another provider"
    )


def _said(error: BaseException) -> str:
    """What a library says about a failure, in one line: its last words, without addresses."""
    line = redacted(str(error).splitlines()[0] if str(error) else type(error).__name__)
    return line.rpartition(" - ")[2].strip(" :") or type(error).__name__


@lru_cache(maxsize=64)
def _store(root: str, silence: float) -> HTTPStore | S3Store:
    """The server of a corpus; one connection pool for all of its files."""
    parts = urlsplit(root)
    endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
    plain = (endpoint if parts.scheme == "s3" else root).lower().startswith("http:")
    client: ClientConfig = {
        "allow_http": plain,
        "connect_timeout": timedelta(seconds=min(10, silence)),
        "read_timeout": timedelta(seconds=silence),
        "timeout": timedelta(days=1),  # of a whole body, which may be large
    }
    retry: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=silence)}
    if parts.scheme == "s3":
        prefix = parts.path.strip("/") or None
        return S3Store(parts.netloc, prefix=prefix, client_options=client, retry_config=retry)
    credentials, _, host = parts.netloc.rpartition("@")
    if credentials:
        client["default_headers"] = {"Authorization": _basic(unquote(credentials))}
    return HTTPStore(urlunsplit((parts.scheme, host, parts.path, "", "")), client_options=client, retry_config=retry)


def _basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode("ascii")
