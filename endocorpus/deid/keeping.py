"""Where a secret may lie: files that only their owner can read, and that can never travel along with a corpus.

The key of the pseudonyms and the vault of original names both undo a de-identification. Whoever copies a corpus, or
pushes a git tree, must not be able to take one of them along without noticing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from endocorpus.corpus.manifest import is_corpus
from endocorpus.errors import UsageError

_OWNER_ONLY = 0o600


def safe_place(path: Path, what: str, never_in: Iterable[Path] = ()) -> Path:
    """The real path of a secret file that may lie where it does, or may be made there.

    Args:
        what: what is kept there, for messages, such as "the key file".
        never_in: folders that hold it neither, such as a corpus that is still to be made, or the raw tree.

    Raises:
        UsageError: it lies in a corpus, a git tree or a folder of `never_in`, itself or what it is a link to.
    """
    real = Path(os.path.realpath(path))
    closed = {Path(os.path.realpath(folder)) for folder in never_in}
    for place in {Path(os.path.abspath(path)), real}:
        for folder in place.parents:
            kind = "in a corpus" if is_corpus(folder) else "in a git tree" if _is_git(folder) else None
            if folder in closed:
                kind = "in a folder that is shared or scanned"
            if kind:
                raise UsageError(f"{path}: {what} lies {kind} ({folder}); keep it elsewhere")
    return real


def _is_git(folder: Path) -> bool:
    """A working tree (its `.git` is a folder, or a file in a linked one), or a bare repository."""
    bare = (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()
    return bare or os.path.lexists(folder / ".git")


def open_secret(path: Path, what: str, never_in: Iterable[Path] = ()) -> int:
    """Open a secret file for reading, if it is one file of ours that nobody else can read; the descriptor.

    Raises:
        UsageError: it is missing, lies where it must not, or others could read it.
    """
    real = safe_place(path, what, never_in)
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path}: {what} cannot be opened: {error.strerror}") from None
    problem = _exposed(os.fstat(descriptor))
    if problem:
        os.close(descriptor)
        raise UsageError(f"{path}: {what} {problem}")
    return descriptor


def _exposed(status: os.stat_result) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    if stat.S_IMODE(status.st_mode) & ~_OWNER_ONLY:
        return f"can be read by others (mode {stat.S_IMODE(status.st_mode):04o}); make it 0600 with chmod"
    if status.st_nlink > 1:
        return "has a second name (a hard link), which may lie anywhere"
    return None


def make_secret(path: Path, what: str, content: bytes, never_in: Iterable[Path] = ()) -> None:
    """Make a secret file, mode 0600; it must not be there yet.

    Raises:
        UsageError: it is there, lies where it must not, or cannot be made.
    """
    real = safe_place(path, what, never_in)
    try:
        descriptor = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _OWNER_ONLY)
    except FileExistsError:
        raise UsageError(f"{path}: is there already; it is never written over") from None
    except OSError as error:
        raise UsageError(f"{path}: {what} cannot be made: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), _OWNER_ONLY)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
