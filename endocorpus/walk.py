"""Every file of a raw tree, once."""

from __future__ import annotations

import os
from pathlib import Path

from endocorpus.corpus.manifest import is_corpus
from endocorpus.errors import UsageError
from endocorpus.naming import FETCHED


def walk(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """All files below `root` as sorted `/`-separated relative paths, and the folders that could not be entered.

    Links to folders are followed, each real folder once. What `endocorpus fetch` keeps at the top is not part of it,
    nor is a corpus, begun or finished: its clips are no recordings.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder")
    files: list[str] = []
    trouble: list[tuple[str, str]] = []
    seen: set[str] = set()

    def relative(path: str) -> str:
        return os.path.relpath(path, root).replace(os.sep, "/")

    def failed(error: OSError) -> None:
        trouble.append((relative(str(error.filename)), f"folder cannot be listed: {error.strerror}"))

    for folder, folders, names in os.walk(root, onerror=failed, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            trouble.append((relative(folder), "link to a folder that is already part of the tree"))
            folders.clear()
            continue
        seen.add(real)
        if folder != os.fspath(root) and _in_corpus(folder, real):
            trouble.append((relative(folder), "a corpus, which is no part of the raw tree"))
            folders.clear()
            continue
        folders.sort(key=lambda name: (os.path.islink(os.path.join(folder, name)), name))  # real folders before links
        files += [relative(os.path.join(folder, name)) for name in names]
        if folder == os.fspath(root):
            folders[:] = [name for name in folders if not name.startswith(FETCHED)]
            files = [name for name in files if not name.startswith(FETCHED)]
    if trouble and not files and trouble[0][0] == ".":
        raise UsageError(f"{root}: {trouble[0][1]}")
    return sorted(files), sorted(trouble)


def _in_corpus(folder: str, real: str) -> bool:
    """Whether a folder of the tree is a corpus, or a link that leads into one."""
    return is_corpus(Path(folder)) or (os.path.islink(folder) and any(map(is_corpus, Path(real).parents)))
