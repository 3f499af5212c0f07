"""Secret files: the keys of pseudonyms and of attestations, and whatever else must never travel with a corpus.

Whoever holds a key can undo or forge what it made. A secret therefore lies where neither a corpus that is handed on nor
a repository that is pushed can carry it along, and only its owner can read it. Each rule refuses; none warns.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from endocorpus.corpus.files import fsync_folder
from endocorpus.corpus.manifest import is_corpus
from endocorpus.errors import DataError, UsageError

KEY_BYTES = 32
_PRIVATE = 0o600
_LARGEST = 1 << 16  # bytes of a secret file


def make_key(path: Path, away_from: Iterable[Path] = ()) -> bytes:
    """Write a new random key of 32 bytes to `path`, which must not exist yet, and return it.

    Raises:
        UsageError: `path` is a bad place for a secret, or is there already.
        DataError: it cannot be written.
    """
    key = secrets.token_bytes(KEY_BYTES)
    write_secret(path, key, away_from)
    return key


def read_key(path: Path, away_from: Iterable[Path] = ()) -> bytes:
    """The 32 bytes of the key file `path`.

    Raises:
        UsageError: it lies in a bad place, or is no file of its own.
        DataError: it cannot be read, others may read it, or it does not hold 32 bytes.
    """
    key = read_secret(path, away_from)
    if len(key) != KEY_BYTES:
        raise DataError(f"{path}: holds {len(key)} bytes, a key has {KEY_BYTES}; use the file that was made as a key")
    return key


def write_secret(path: Path, data: bytes, away_from: Iterable[Path] = ()) -> None:
    """Write a new file that only its owner can read, from its first moment on. Never replaces one.

    Raises:
        UsageError: `path` is a bad place for a secret, or is there already.
        DataError: it cannot be written.
    """
    refuse_bad_place(path, away_from)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
    except FileExistsError:
        raise UsageError(f"{path}: is there already, and a key is never replaced; give another name") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, _PRIVATE)  # whatever the umask is
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise DataError(f"{path}: {error.strerror}") from None
    fsync_folder(path.parent)


def read_secret(path: Path, away_from: Iterable[Path] = ()) -> bytes:
    """The bytes of a secret file of at most 64 KiB; what is judged is the very file that is read.

    Raises:
        UsageError: it lies in a bad place, or is a link or has a second name.
        DataError: it cannot be read, or others may read or change it.
    """
    refuse_bad_place(path, away_from)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such key file") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    try:
        _judge(os.fstat(descriptor), path)
        return os.read(descriptor, _LARGEST)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _judge(facts: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise UsageError(f"{path}: a key is a plain file, this is something else")
    if facts.st_nlink > 1:
        raise UsageError(f"{path}: has a second name somewhere (a hard link), so where it lies cannot be told")
    if facts.st_uid not in {os.geteuid(), 0}:
        raise DataError(f"{path}: belongs to somebody else; a key belongs to whoever uses it")
    if (mode := stat.S_IMODE(facts.st_mode)) & 0o177:
        raise DataError(f"{path}: its mode is {mode:04o}, so others may use it; run `chmod 600` on it")
    if facts.st_size > _LARGEST:
        raise DataError(f"{path}: is too large for a key")


def refuse_bad_place(path: Path, away_from: Iterable[Path] = ()) -> None:
    """Refuse a secret's path that is a link or lies in a corpus, in a git tree or below a folder of `away_from`.

    Both the path as it was written and the place that it leads to are looked at, so no link can hide either.

    Raises:
        UsageError: it does.
    """
    if path.is_symlink():
        raise UsageError(f"{path}: is a link; give the key file itself")
    written = Path(os.path.abspath(path))
    for place in dict.fromkeys((written, path.resolve())):
        for folder in place.parents:
            if is_corpus(folder):
                raise UsageError(f"{path}: lies in the corpus {folder}, which is handed on; keep the key elsewhere")
            if _is_git(folder):
                raise UsageError(f"{path}: lies in the git tree {folder}, which is pushed; keep the key elsewhere")
    real = path.resolve().parents
    for folder in away_from:
        if folder.resolve() in real or Path(os.path.abspath(folder)) in written.parents:
            raise UsageError(f"{path}: lies in {folder}, which is handed on; keep the key elsewhere")


def _is_git(folder: Path) -> bool:
    """A checkout, a work tree (whose .git is a file), the inside of .git, or a bare repository."""
    return (folder / ".git").exists() or all((folder / name).exists() for name in ("HEAD", "objects", "refs"))
