"""Key files: every bad place and every lax file is refused, before and after links are followed."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from endocorpus.deid.keys import KEY_BYTES, make_key, read_key, read_secret, refuse_bad_place, write_secret
from endocorpus.errors import DataError, UsageError


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "site.key"
    path.parent.mkdir()
    make_key(path)
    return path


def test_a_key_comes_back_and_no_two_are_alike(key: Path, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = make_key(tmp_path / "lax.key")
    finally:
        os.umask(old)
    assert read_key(tmp_path / "lax.key") == made != read_key(key)
    assert len(made) == KEY_BYTES
    assert stat.S_IMODE((tmp_path / "lax.key").stat().st_mode) == 0o600


def test_a_key_is_never_replaced(key: Path) -> None:
    before = key.read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        make_key(key)
    assert key.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o606, 0o610, 0o601, 0o700, 0o777])
def test_others_must_not_use_it(key: Path, mode: int) -> None:
    key.chmod(mode)
    with pytest.raises(DataError, match=f"{mode:04o}.*chmod 600"):
        read_key(key)
    key.chmod(0o400)
    assert len(read_key(key)) == KEY_BYTES  # nobody can change it by accident


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_has_32_bytes(tmp_path: Path, size: int) -> None:
    write_secret(tmp_path / "k", b"x" * size)
    with pytest.raises(DataError, match=f"holds {size} bytes"):
        read_key(tmp_path / "k")
    assert read_secret(tmp_path / "k") == b"x" * size


def places(root: Path) -> dict[str, Path]:
    """A folder of each forbidden kind."""
    for name in ("git", "worktree", "bare", "corpus", "building", "away"):
        (root / name / "deep" / "er").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", str(root / "git")], check=True)
    subprocess.run(["git", "init", "--quiet", "--bare", str(root / "bare")], check=True)
    (root / "worktree" / ".git").write_text("gitdir: elsewhere")
    (root / "corpus" / "corpus.json").write_text("{}")
    (root / "building" / ".build").mkdir()
    return {name: root / name for name in ("git", "worktree", "bare", "corpus", "building", "away")}


def test_neither_corpora_nor_git_trees_hold_keys(tmp_path: Path) -> None:
    forbidden = places(tmp_path)
    safe = tmp_path / "safe"
    safe.mkdir()
    for name, folder in forbidden.items():
        for place in (folder, folder / "deep" / "er"):
            inside = place / "k"
            with pytest.raises(UsageError, match="keep the key elsewhere"):
                make_key(inside, [tmp_path / "away"])
            assert not inside.exists(), name
            inside.write_bytes(b"x" * KEY_BYTES)
            inside.chmod(0o600)
            with pytest.raises(UsageError, match="keep the key elsewhere"):
                read_key(inside, [tmp_path / "away"])
        link = safe / name  # a folder that only looks safe
        link.symlink_to(folder / "deep", target_is_directory=True)
        with pytest.raises(UsageError, match="keep the key elsewhere"):
            read_key(link / "er" / "k", [tmp_path / "away"])
    with pytest.raises(UsageError, match="git tree"):
        refuse_bad_place(tmp_path / "git" / ".git" / "k")


def test_a_link_out_of_a_corpus_is_refused_too(key: Path, tmp_path: Path) -> None:
    """Copying a corpus follows links: the key would go along."""
    corpus = places(tmp_path)["corpus"]
    (corpus / "keys").symlink_to(key.parent, target_is_directory=True)
    with pytest.raises(UsageError, match="lies in the corpus"):
        read_key(corpus / "keys" / key.name)


def test_links_to_a_key_are_refused(key: Path, tmp_path: Path) -> None:
    (tmp_path / "soft").symlink_to(key)
    with pytest.raises(UsageError, match="is a link"):
        read_key(tmp_path / "soft")
    with pytest.raises(UsageError, match="is a link"):
        make_key(tmp_path / "soft")
    os.link(key, tmp_path / "hard")
    for name in (tmp_path / "hard", key):
        with pytest.raises(UsageError, match="hard link"):
            read_key(name)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UsageError, match="plain file"):
            read_key(path)
    with pytest.raises(DataError, match="no such key file"):
        read_key(tmp_path / "none")
    with pytest.raises(DataError):
        make_key(tmp_path / "none" / "k")
