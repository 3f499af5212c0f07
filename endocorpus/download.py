"""One file over HTTP, for hours if need be: resumed where it broke off, complete and checked under its name, or absent.

What has arrived lies under `<name>.partial`; `<name>.partial.json` says of which version of which file it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2

from endocorpus import __version__
from endocorpus.corpus.files import PARTIAL, atomic_file, fsync_folder
from endocorpus.errors import DataError
from endocorpus.naming import printable
from endocorpus.unpack import check_room, sha256_file

_LOOK_EVERY = 64 << 20  # bytes written between two looks at the disk
_LONGEST_PAUSE = 300.0  # seconds, whatever a server asks for
_MOST_UNTOLD = 16 << 30  # bytes of a file whose length neither the facts nor the server tell
_PAGES = ("text/html", "application/xhtml+xml")
_BY_HAND = "download by hand, then use --archives"
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A file and what is known of it beforehand."""

    url: str
    bytes: int | None = None
    sha256: str = ""
    md5: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to go on with a server that fails. Only tries that bring nothing new count."""

    tries: int = 8
    pause: float = 1.0  # seconds after the first failure, doubled after each
    timeout: float = 60.0  # seconds without a byte


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    """Which version of a file a partial download is of. Without a validator it cannot be told apart from others."""

    url: str
    etag: str = ""
    modified: str = ""
    total: int | None = None

    @property
    def validator(self) -> str:
        return self.etag or self.modified


class _AgainError(Exception):
    """Worth another try, after at least `pause` seconds."""

    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(why)
        self.pause = pause


def download(
    wanted: Wanted,
    path: Path,
    *,
    patience: Patience | None = None,
    on_bytes: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> str:
    """Download to `path`, or go on with what an earlier call left; gives the sha256 of the file.

    Args:
        on_bytes: called with the bytes that are there and the bytes of the whole file, if that is known.

    Raises:
        DataError: the server refuses or fails for good, the disk is full, or what came is not what was expected.
    """
    if not re.match(r"https?://", wanted.url):
        raise DataError(f"{wanted.url}: not an http or https address")
    patience = patience or Patience()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    most, failures = 0, 0
    with _client(patience) as client:
        while not _is_all_there(wanted, partial):
            try:
                _receive(client, wanted, partial, on_bytes)
                break
            except _AgainError as error:
                got = partial.stat().st_size if partial.exists() else 0
                failures = 1 if got > most else failures + 1  # a server that starts over each time brings nothing new
                most = max(most, got)
                if failures >= patience.tries:
                    kept = "; what arrived is kept, the same command continues" if got else ""
                    raise DataError(f"{wanted.url}: gave up after {failures} tries: {error}{kept}") from None
                backoff = patience.pause * 2 ** (failures - 1) * random.uniform(0.5, 1.0)
                time.sleep(min(max(backoff, error.pause), _LONGEST_PAUSE))
    return _accept(wanted, partial, path)


def _client(patience: Patience) -> httpx2.Client:
    # Encodings are off: bytes are kept as the provider counts and signs them. Proxies come from the environment.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"endocorpus/{__version__}"}
    return httpx2.Client(headers=headers, timeout=patience.timeout, follow_redirects=True)


def _receive(client: httpx2.Client, wanted: Wanted, partial: Path, on_bytes: Callable[[int, int | None], None]) -> None:
    """One request, from where the partial file ends if the server has the same version still."""
    version = _read_version(wanted, partial)
    have = partial.stat().st_size if version else 0
    headers = {"Range": f"bytes={have}-", "If-Range": version.validator} if version and have else {}
    try:
        with client.stream("GET", wanted.url, headers=headers) as response:
            _check_answer(wanted, response)
            if response.status_code == 206 and not headers:
                raise DataError(f"{wanted.url}: the server sends a part, and the whole was asked for; {_BY_HAND}")
            now = _version_of(wanted, response)
            if response.status_code == 416 or (response.status_code == 206 and not _goes_on(response, version, have)):
                _forget(partial)
                raise _AgainError("the file changed; starting over")
            _check_size(wanted, partial, have if response.status_code == 206 else 0, now.total)
            if response.status_code != 206:
                have = 0
                _forget(partial)
                partial.touch()
                with atomic_file(_note(partial)) as note:
                    note.write(json.dumps(asdict(now)).encode())
            _write(wanted, response, partial, have, now.total, on_bytes)
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, ValueError, OverflowError) as error:  # of a redirect
        why = printable(str(error)) or type(error).__name__
        raise DataError(f"{wanted.url}: the server leads to what is no address ({why}); {_BY_HAND}") from None
    except (httpx2.TransportError, httpx2.TooManyRedirects) as error:
        if _is_certificate(error):
            raise DataError(f"{wanted.url}: the server's certificate cannot be verified; {_BY_HAND}") from None
        raise _AgainError(str(error) or type(error).__name__) from None


def _write(
    wanted: Wanted,
    response: httpx2.Response,
    partial: Path,
    have: int,
    total: int | None,
    on_bytes: Callable[[int, int | None], None],
) -> None:
    looked, stop = have, _content_range(response)[1]
    most = next(bound for bound in (stop, total, wanted.bytes, _MOST_UNTOLD) if bound is not None)
    try:
        with partial.open("ab") as file:
            for block in response.iter_raw():
                if have + len(block) > most:
                    _forget(partial)
                    if stop is not None:
                        raise _AgainError("the server sent more than the part that it promised")
                    raise DataError(f"{wanted.url}: more came than the {most:,} bytes that it may have; {_BY_HAND}")
                file.write(block)
                file.flush()
                have += len(block)
                on_bytes(have, total)
                if have - looked > _LOOK_EVERY:
                    looked = have
                    _check_size(wanted, partial, have, total)
    except OSError as error:
        raise DataError(f"{partial}: cannot be written: {error.strerror}; the same command continues") from None
    if total is not None and have < total:
        raise _AgainError(f"the connection ended after {have:,} of {total:,} bytes")


def _check_answer(wanted: Wanted, response: httpx2.Response) -> None:
    status = response.status_code
    if status in _TRY_AGAIN:
        wait = _whole(response.headers.get("Retry-After", "")) or 0
        raise _AgainError(f"the server says {status} {response.reason_phrase}", float(wait))
    if wanted.url.startswith("https:") and response.url.scheme != "https":
        raise DataError(f"{wanted.url}: the server leads to an address without encryption; nothing was downloaded")
    if status in (401, 403):
        raise DataError(f"{wanted.url}: the server says {status}: it wants a log-in; download by hand, use --archives")
    if status not in (200, 206, 416):
        raise DataError(f"{wanted.url}: the server says {status} {response.reason_phrase}; look at the provider's page")
    known = wanted.bytes is not None or wanted.sha256 or wanted.md5
    if not known and not {"content-length", "transfer-encoding", "content-range"} & set(response.headers):
        raise DataError(f"{wanted.url}: the server does not say where the file ends; {_BY_HAND}")
    if status == 416:
        return
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in _PAGES and not wanted.url.endswith((".html", ".htm")):
        raise DataError(f"{wanted.url}: the server sent a page, not the file; {_BY_HAND}")
    packed = response.headers.get("Content-Encoding", "").strip().lower()
    own = packed.endswith("gzip") and wanted.url.lower().endswith((".gz", ".tgz"))  # some tell what the file itself is
    if packed not in ("", "identity") and not own:
        raise DataError(f"{wanted.url}: the server packs the file, and was asked not to; {_BY_HAND}")


def _version_of(wanted: Wanted, response: httpx2.Response) -> _Version:
    etag = response.headers.get("ETag", "")
    if response.status_code == 206:
        total = _content_range(response)[2]
    else:
        total = _whole(response.headers.get("Content-Length", ""))
    return _Version(
        url=wanted.url,
        etag="" if etag.startswith("W/") else etag,  # weak ones may be equal for different bytes
        modified=response.headers.get("Last-Modified", ""),
        total=total,
    )


def _goes_on(response: httpx2.Response, version: _Version | None, have: int) -> bool:
    """Whether a partial answer is the rest of what we have: servers are known to ignore If-Range."""
    now = (response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""))
    start, _, total = _content_range(response)
    return (
        version is not None
        and start == have
        and total == version.total
        and all(
            not new or not old or new == old for new, old in zip(now, (version.etag, version.modified), strict=True)
        )
    )


def _content_range(response: httpx2.Response) -> tuple[int | None, int | None, int | None]:
    """Of a partial answer, its first byte, the byte after its last, and the bytes of the whole file."""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""), re.ASCII)
    numbers = [_whole(part) for part in found.groups()] if found and response.status_code == 206 else []
    start, last, total = numbers or (None, None, None)
    return start, None if last is None else last + 1, total


def _whole(text: str) -> int | None:
    """A whole number of a header; Python reads other digits than 0 to 9, too, and refuses thousands of them."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _check_size(wanted: Wanted, partial: Path, have: int, total: int | None) -> None:
    if wanted.bytes is not None and total is not None and total != wanted.bytes:
        raise DataError(
            f"{wanted.url}: {total:,} bytes on the server, but {wanted.bytes:,} are expected: the provider changed it"
        )
    whole = total if total is not None else wanted.bytes or 0
    check_room(wanted.url, partial.parent, whole - have)


def _is_all_there(wanted: Wanted, partial: Path) -> bool:
    """Whether an earlier run was stopped between the last byte and the check."""
    version = _read_version(wanted, partial)
    return version is not None and version.total is not None and partial.stat().st_size == version.total


def _accept(wanted: Wanted, partial: Path, path: Path) -> str:
    found = partial.stat().st_size
    sha256 = sha256_file(partial)
    wrong = check(partial, wanted, sha256) or ("it is empty" if not found and wanted.bytes != 0 else None)
    if wrong:
        _forget(partial)
        raise DataError(f"{wanted.url}: not what was expected: {wrong}; what came ({found:,} bytes) was thrown away")
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    _note(partial).unlink(missing_ok=True)
    fsync_folder(path.parent)
    return sha256


def check(file: Path, wanted: Wanted, sha256: str) -> str | None:
    """What is wrong with a file whose sha256 was found, in words; None if nothing is, as far as is known."""
    if wanted.bytes is not None and file.stat().st_size != wanted.bytes:
        return f"{file.stat().st_size:,} bytes instead of {wanted.bytes:,}"
    if wanted.sha256 and sha256 != wanted.sha256.lower():
        return f"its sha256 is {sha256} instead of {wanted.sha256}"
    if wanted.md5:
        with file.open("rb") as opened:
            md5 = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if md5 != wanted.md5.lower():
            return f"its md5 is {md5} instead of {wanted.md5}"
    return None


def _note(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _read_version(wanted: Wanted, partial: Path) -> _Version | None:
    """The version that a partial file is of, if it is one that can be continued."""
    try:
        version = _Version(**json.loads(_note(partial).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return version if version.url == wanted.url and version.validator and partial.exists() else None


def _forget(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _note(partial).unlink(missing_ok=True)


def _is_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
