"""Signing keys: every bad place and every lax file is refused, before and after links are followed."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from endocorpus.deid.keys import KEY_BYTES, new_signing_key, read_signing_key
from endocorpus.errors import UsageError


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "site.key"
    path.parent.mkdir()
    new_signing_key(path)
    return path


def test_a_key_comes_back_and_no_two_are_alike(key: Path, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = new_signing_key(tmp_path / "lax.key")
    finally:
        os.umask(old)
    assert read_signing_key(tmp_path / "lax.key") == made != read_signing_key(key)
    assert len(made) == KEY_BYTES
    assert stat.S_IMODE((tmp_path / "lax.key").stat().st_mode) == 0o600


def test_a_key_is_never_replaced(key: Path) -> None:
    before = key.read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        new_signing_key(key)
    assert key.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o606, 0o610, 0o601, 0o700, 0o777])
def test_others_must_not_use_it(key: Path, mode: int) -> None:
    key.chmod(mode)
    with pytest.raises(UsageError, match=f"{mode:04o}"):
        read_signing_key(key)
    key.chmod(0o400)
    assert len(read_signing_key(key)) == KEY_BYTES  # nobody can change it by accident


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_has_32_bytes(key: Path, size: int) -> None:
    key.write_bytes(b"x" * size)
    with pytest.raises(UsageError, match="has 32 bytes"):
        read_signing_key(key)


def test_neither_corpora_nor_git_trees_hold_keys(tmp_path: Path) -> None:
    for name in ("git", "worktree", "bare", "corpus", "building", "away", "safe"):
        (tmp_path / name / "deep" / "er").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "git")], check=True)
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "bare")], check=True)
    (tmp_path / "worktree" / ".git").write_text("gitdir: elsewhere")
    (tmp_path / "corpus" / "corpus.json").write_text("{}")
    (tmp_path / "building" / ".build").mkdir()
    for name in ("git", "worktree", "bare", "corpus", "building", "away"):
        folder, never_in = tmp_path / name, [tmp_path / "away"]
        for place in (folder, folder / "deep" / "er"):
            inside = place / "k"
            with pytest.raises(UsageError, match="keep it elsewhere"):
                new_signing_key(inside, never_in)
            assert not inside.exists(), name
            inside.write_bytes(b"x" * KEY_BYTES)
            inside.chmod(0o600)
            with pytest.raises(UsageError, match="keep it elsewhere"):
                read_signing_key(inside, never_in)
        link = tmp_path / "safe" / name  # a folder that only looks safe
        link.symlink_to(folder / "deep", target_is_directory=True)
        (tmp_path / "safe" / f"{name}.key").symlink_to(folder / "k")
        for hidden in (link / "er" / "k", tmp_path / "safe" / f"{name}.key"):
            with pytest.raises(UsageError, match="keep it elsewhere"):
                read_signing_key(hidden, never_in)


def test_a_link_in_a_corpus_to_a_key_is_refused_too(key: Path, tmp_path: Path) -> None:
    """Copying a corpus follows links: the key would go along."""
    (tmp_path / "corpus" / ".build").mkdir(parents=True)
    (tmp_path / "corpus" / "keys").symlink_to(key.parent, target_is_directory=True)
    with pytest.raises(UsageError, match="in a corpus"):
        read_signing_key(tmp_path / "corpus" / "keys" / key.name)


def test_a_second_name_is_refused(key: Path, tmp_path: Path) -> None:
    os.link(key, tmp_path / "hard")
    for name in (tmp_path / "hard", key):
        with pytest.raises(UsageError, match="hard link"):
            read_signing_key(name)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UsageError, match="not a regular file"):
            read_signing_key(path)
    for act in (read_signing_key, new_signing_key):
        with pytest.raises(UsageError, match="cannot be"):
            act(tmp_path / "none" / "k")
