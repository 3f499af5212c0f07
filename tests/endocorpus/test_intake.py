"""Intake: ids that say nothing, names that only the vault knows, and files that would pull in others."""

from __future__ import annotations

import io
import os
import re
import resource
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from endocorpus.deid.intake import neutral_ids, original_path, refuse_hostile
from endocorpus.deid.vault import open_vault
from endocorpus.errors import UsageError
from endocorpus.records import Excluded
from tests.media import write_video

NAMES = ["ward 7/张伟_310101.avi", os.fsdecode("李娜".encode("gbk") + b".mp4"), "a.mp4", "b.mp4"]


def test_ids_are_random_stable_and_only_the_vault_leads_back(tmp_path: Path) -> None:
    with open_vault(tmp_path / "vault") as vault:
        ids = neutral_ids(vault, "renji", NAMES)
    with open_vault(tmp_path / "vault") as vault:
        assert neutral_ids(vault, "renji", reversed(NAMES)) == ids
        assert [original_path(vault, ids[name]) for name in NAMES] == [Path(name) for name in NAMES]
        assert original_path(vault, "a" * 26) is None
        assert not set(neutral_ids(vault, "ruijin", NAMES).values()) & set(ids.values())
    with open_vault(tmp_path / "another") as vault:
        assert not set(neutral_ids(vault, "renji", NAMES).values()) & set(ids.values())
    assert all(re.fullmatch("[a-z2-7]{26}", drawn) for drawn in ids.values()) and len(set(ids.values())) == 4


def test_the_order_of_ids_does_not_tell_the_order_of_names(tmp_path: Path) -> None:
    names = [f"{number:04d}" for number in range(60)]
    with open_vault(tmp_path / "vault") as vault:
        ids = neutral_ids(vault, "renji", names)
    assert sorted(names, key=ids.__getitem__) != names


def test_two_who_ask_at_once_get_one_id(tmp_path: Path) -> None:
    def ask(_: int) -> dict[str, str]:
        with open_vault(tmp_path / "vault") as vault:
            return neutral_ids(vault, "renji", [f"{number}" for number in range(20)])

    with open_vault(tmp_path / "vault"), ThreadPoolExecutor(4) as pool:
        told = list(pool.map(ask, range(4)))
    assert all(ids == told[0] for ids in told)


def test_the_vault_lies_outside_the_corpus(tmp_path: Path) -> None:
    (tmp_path / "c" / ".build").mkdir(parents=True)
    with pytest.raises(UsageError), open_vault(tmp_path / "c" / "vault"):
        pass
    with pytest.raises(UsageError), open_vault(tmp_path / "new" / "vault", never_in=[tmp_path / "new"]):
        pass


SCRIPTS = {
    "concat": b"ffconcat version 1.0\nfile KANARIE.ts\n",
    "list": b"file 'KANARIE.ts'\n",
    "hls": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/KANARIE\n",
    "hls behind a mark": b"\xef\xbb\xbf#EXTM3U\nKANARIE",
    "hls behind blanks": b" \n\t#EXTM3U\nKANARIE",
    "hls behind a comment": b"# hello\n#EXT-X-TARGETDURATION:1\nKANARIE",
    "hls in utf-16": "\ufeff#EXTM3U\nKANARIE".encode("utf-16-le"),
    "pls": b"[playlist]\nFile1=KANARIE",
    "asx": b'<ASX version="3.0"><ref href="http://KANARIE"/>',
    "dash": b'<MPD xmlns="KANARIE">',
    "xml": b'<?xml version="1.0"?><MPD>KANARIE',
    "asf reference": b"[Reference]\r\nRef1=http://KANARIE",
    "sdp": b"v=0\r\no=- 0 0 IN IP4 KANARIE\r\n",
    "address": b"rtsp://KANARIE/live",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_and_playlists_are_refused_in_a_sentence_without_names(name: str) -> None:
    with pytest.raises(Excluded) as refused:
        refuse_hostile(io.BytesIO(SCRIPTS[name]))
    assert "KANARIE" not in refused.value.detail and refused.value.detail.startswith("refused: ")


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return (8 + len(body)).to_bytes(4) + kind + body


def movie(*entries: bytes) -> bytes:
    dref = box(b"dref", b"\0\0\0\0", len(entries).to_bytes(4), *entries)
    return box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"dinf", dref)))))


INSIDE, OUTSIDE = box(b"url ", b"\0\0\0\1"), box(b"url ", b"\0\0\0\0", b"file:///etc/KANARIE\0")
MOVIES = {
    "url": box(b"ftyp", b"qt  ") + movie(OUTSIDE),
    "second entry": box(b"ftyp", b"qt  ") + movie(INSIDE, OUTSIDE),
    "alias": movie(box(b"alis", b"\0\0\0\0", b"KANARIE")),
    "behind the data": box(b"ftyp", b"isom") + box(b"mdat", b"x" * 9999) + movie(OUTSIDE),
    "reference movie": box(b"moov", box(b"rmra", box(b"rmda", box(b"rdrf", b"KANARIE")))),
    "compressed": box(
        b"moov", box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", b"\0\0\0\0", zlib.compress(movie(OUTSIDE))))
    ),
    "compressed by something else": box(b"moov", box(b"cmov", box(b"cmvd", b"\0\0\0\0", b"KANARIE"))),
}


@pytest.mark.parametrize("name", MOVIES)
def test_movies_whose_content_lies_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(Excluded) as refused:
        refuse_hostile(io.BytesIO(MOVIES[name]))
    assert "KANARIE" not in refused.value.detail and "external data reference" in refused.value.detail


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi", "a.ts"])
def test_recordings_pass(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, 5)
    with path.open("rb") as file:
        refuse_hostile(file)
    for cut in (1, 9, 40, 300):
        refuse_hostile(io.BytesIO(path.read_bytes()[:cut]))
    refuse_hostile(io.BytesIO(box(b"ftyp", b"isom") + movie(INSIDE)))
    refuse_hostile(io.BytesIO(b""))


def test_no_process_leaves_a_core() -> None:
    code = (
        "import subprocess, sys; from endocorpus.deid.intake import no_core_dumps; no_core_dumps();"
        "print(subprocess.check_output([sys.executable, '-c',"
        " 'import resource; print(resource.getrlimit(resource.RLIMIT_CORE))'], text=True))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(0, 0)" and resource.RLIMIT_CORE is not None
