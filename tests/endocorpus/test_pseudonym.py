"""Pseudonyms and the secrets behind them: nothing leads back without the key or the vault, which are not exposed."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import unicodedata
from base64 import b32encode
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endocorpus.deid.pseudonym import Key, KeyedNames, RandomNames, destroy_key, new_key, read_key, shifted
from endocorpus.deid.vault import open_vault
from endocorpus.errors import DataError, UsageError

KEY = Key(bytes(range(32)))
RANDOM = hashlib.sha512(b"not secret").digest()
NAMES = KeyedNames(key=KEY, site="renji")
TEXTS = st.text(min_size=1).filter(
    lambda t: "\0" not in unicodedata.normalize("NFKC", t) and bool(unicodedata.normalize("NFKC", t).strip())
)


def test_a_pseudonym_is_the_hmac_of_domain_site_and_identifier() -> None:
    expected = hmac.new(bytes(range(32)), "patient\0renji\0张伟".encode(), hashlib.sha256).digest()
    assert NAMES.of("patient", "张伟") == "p_" + b32encode(expected).decode()[:26].lower()
    assert KEY.kid == hmac.new(bytes(range(32)), b"kid", hashlib.sha256).hexdigest()[:16]
    assert "secret" not in repr(NAMES) and re.search(r"\\x0[0-9a-f]", repr(NAMES)) is None


@given(TEXTS, TEXTS)
def test_other_things_get_other_pseudonyms(one: str, two: str) -> None:
    same = unicodedata.normalize("NFKC", one) == unicodedata.normalize("NFKC", two)
    assert (NAMES.of("patient", one) == NAMES.of("patient", two)) == same
    kinds = {NAMES.of(domain, one)[2:] for domain in ("patient", "study", "clip")}
    assert len(kinds) == 3, "domains are apart"
    elsewhere, other_key = KeyedNames(key=KEY, site="ruijin"), KeyedNames(key=Key(b"k" * 32), site="renji")
    assert len({names.of("patient", one) for names in (NAMES, elsewhere, other_key)}) == 3
    assert re.fullmatch("p_[a-z2-7]{26}", NAMES.of("patient", one))


def test_no_plain_hash_of_an_identifier_is_a_pseudonym() -> None:
    """Whoever hashes all identifiers with every common function finds none of ours."""
    made = NAMES.of("patient", "12345678")[2:]
    for name in ("md5", "sha1", "sha256", "sha512"):
        for text in ("12345678", "patient\x00renji\x0012345678"):
            assert made != b32encode(hashlib.new(name, text.encode()).digest()).decode()[:26].lower()


@pytest.mark.parametrize("identifier", ["", "  ", "\u3000", "a\0b"])
def test_what_would_be_shared_or_forged_is_refused_without_being_quoted(identifier: str) -> None:
    with pytest.raises(DataError) as told:
        NAMES.of("patient", identifier)
    assert "a\0b" not in str(told.value)


@given(st.integers(0, 10**9))
def test_shifts_are_never_small_and_keep_intervals(number: int) -> None:
    days = NAMES.days(NAMES.of("patient", str(number)))
    assert 30 <= abs(days) <= 365
    one, two = date(2018, 2, 13), date(2020, 2, 29)
    assert shifted(two, days) - shifted(one, days) == two - one and shifted(one, days) != one
    assert shifted(datetime(2018, 2, 13, 12, 34), days) == shifted(one, days)  # noqa: DTZ001 - the time goes


def test_shifts_go_both_ways_and_differ() -> None:
    drawn = [NAMES.days(NAMES.of("patient", str(number))) for number in range(300)]
    assert 100 < sum(days > 0 for days in drawn) < 200 and len(set(drawn)) > 200
    with pytest.raises(DataError):
        shifted(date.max - timedelta(days=2), 30)


def test_random_names_are_kept_in_the_vault_alone(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    with open_vault(path) as vault:
        names = RandomNames(vault=vault, site="renji")
        first = [names.of("patient", "Müller"), names.of("study", "Müller"), names.of("patient", "Mu\u0308ller")]
        days = names.days(first[0])
    with open_vault(path) as vault:
        names = RandomNames(vault=vault, site="renji")
        assert [names.of("patient", "Müller"), names.of("study", "Müller")] == first[:2]
        assert first[0] == first[2] and len(set(first)) == 2 and names.days(first[0]) == days
        assert 30 <= abs(days) <= 365
        assert vault.original(first[0][2:]) == "Müller".encode() and vault.original("none") is None
        assert vault.forget([first[0][2:]]) == 1
        assert names.of("patient", "Müller") != first[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with open_vault(tmp_path / "other") as vault:
        assert RandomNames(vault=vault, site="renji").of("patient", "Müller") != first[0], "drawn, not computed"


def test_what_is_forgotten_is_overwritten(tmp_path: Path) -> None:
    with open_vault(tmp_path / "vault") as vault:
        drawn = vault.given("patient", "renji", b"KANARIE MUELLER")
        assert b"KANARIE MUELLER" in (tmp_path / "vault").read_bytes()
        vault.forget([drawn])
    assert not any(b"KANARIE MUELLER" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_damaged_vault_says_so_without_quoting_itself(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    path.write_bytes(b"KANARIE" * 1000)
    path.chmod(0o600)
    with pytest.raises(DataError, match="cannot be used") as told, open_vault(path):
        pass
    assert "KANARIE" not in str(told.value)


def test_a_key_is_made_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = new_key(path)
    assert read_key(path) == key and stat.S_IMODE(path.stat().st_mode) == 0o600 and path.stat().st_size == 32
    assert key != new_key(tmp_path / "another")
    with pytest.raises(UsageError, match="is there already"):
        new_key(path)
    destroy_key(path)
    assert not path.exists()


def _corpus(folder: Path) -> Path:
    (folder / "corpus" / ".build").mkdir(parents=True)
    return folder / "corpus" / "shards" / "key"


def _tree(folder: Path) -> Path:
    (folder / "tree" / ".git").mkdir(parents=True)
    return folder / "tree" / "deep" / "er" / "key"


def _linked_tree(folder: Path) -> Path:
    (folder / "linked").mkdir()
    (folder / "linked" / ".git").write_text("gitdir: elsewhere")
    return folder / "linked" / "key"


def _bare(folder: Path) -> Path:
    for name in ("objects", "refs"):
        (folder / "bare.git" / name).mkdir(parents=True)
    (folder / "bare.git" / "HEAD").write_text("ref: refs/heads/main")
    return folder / "bare.git" / "key"


@pytest.mark.parametrize("place", [_corpus, _tree, _linked_tree, _bare])
def test_a_secret_lies_in_no_corpus_and_no_git_tree(place: Callable[[Path], Path], tmp_path: Path) -> None:
    path = place(tmp_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with pytest.raises(UsageError, match="keep it elsewhere"):
        new_key(path)
    with pytest.raises(UsageError, match="keep it elsewhere"), open_vault(path):
        pass
    assert not path.exists()
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "folder link").symlink_to(path.parent)
    for name in (path, tmp_path / "link", tmp_path / "folder link" / "key"):
        with pytest.raises(UsageError, match="keep it elsewhere"):
            read_key(name)
    new_key(tmp_path / "outside")  # and a link that lies inside is no better
    (path.parent / "inward").symlink_to(tmp_path / "outside")
    with pytest.raises(UsageError, match="keep it elsewhere"):
        read_key(path.parent / "inward")


def test_a_folder_can_be_closed_to_secrets(tmp_path: Path) -> None:
    """Such as a corpus that is still to be made, or the raw tree."""
    (tmp_path / "raw" / "deep").mkdir(parents=True)
    with pytest.raises(UsageError, match="keep it elsewhere"):
        new_key(tmp_path / "raw" / "deep" / "key", never_in=[tmp_path / "raw"])
    new_key(tmp_path / "key", never_in=[tmp_path / "raw"])


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        (RANDOM[:31], 0o600, "shorter"),
        (RANDOM[:33], 0o600, "longer"),
        (b"", 0o600, "shorter"),
        (b"\0" * 32, 0o600, "random"),
        (b"password" * 4, 0o600, "random"),
        (RANDOM[:32], 0o640, "read by others"),
        (RANDOM[:32], 0o604, "read by others"),
        (RANDOM[:32], 0o700, "mode 0700"),
    ],
)
def test_keys_that_hide_nothing_are_refused(content: bytes, mode: int, told: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(UsageError, match=told):
        read_key(path)
    assert path.exists()


def test_a_key_has_one_name_and_is_a_file(tmp_path: Path) -> None:
    new_key(tmp_path / "key")
    os.link(tmp_path / "key", tmp_path / "second")
    with pytest.raises(UsageError, match="second name"):
        read_key(tmp_path / "key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "."):
        with pytest.raises(UsageError, match="regular file"):
            read_key(tmp_path / name)
    with pytest.raises(UsageError, match="cannot be opened"):
        read_key(tmp_path / "none")
