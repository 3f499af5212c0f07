"""The audit of what was written: clean for a real corpus, and not for one that somebody put a name or a time into."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endocorpus.annotate import mask_bytes
from endocorpus.corpus.manifest import Corpus
from endocorpus.deid.audit import Finding, _masks, audit_corpus
from endocorpus.deid.bitstream import audit_clip, coded_ranges
from endocorpus.deid.search import in_noise, in_text, sought
from tests.endocorpus.aviary import captions, sei
from tests.media import FFMPEG, write_video

WHO = ["ZHANG^WEI", "张伟", "MRN-0042-7788", "1977-07-07", "Müller^Jörg", "欧阳娜娜"]
WHAT = sought(WHO)
KEY = "x-a-0000000"


@pytest.fixture(scope="module")
def clip(corpus: Corpus) -> bytes:
    row = corpus.clips().to_pylist()[0]
    data = (corpus.root / "shards" / row["shard"]).read_bytes()
    return data[row["mp4_offset"] : row["mp4_offset"] + row["mp4_size"]]


def test_a_corpus_is_clean(corpus: Corpus) -> None:
    assert audit_corpus(corpus.root, WHAT) == ()
    assert any(path.suffix == ".tar" for path in corpus.root.rglob("*"))


FORMS: dict[str, bytes] = {
    "as it is": b"ZHANG^WEI",
    "reversed": b"Wei Zhang",
    "joined": b"xxzhangwei",
    "spaced": b"z h a n g  w e i",
    "with dots": b"Zhang.Wei_1977.avi",
    "utf-16 little": "Zhang Wei".encode("utf-16-le"),
    "utf-16 big": "Zhang, Wei".encode("utf-16-be"),
    "utf-32": "ZhangWei".encode("utf-32-le"),
    "number": b"mrn 00427788",
    "number in a path": b"/data/MRN00427788/1.avi",
    "date": b"recorded 07.07.1977",
    "date joined": b"19770707T101010",
    "date in Chinese": "1977年7月7日".encode(),
    "utf-8": "姓名:张伟".encode(),
    "gbk": "姓名:张伟".encode("gbk"),
    "gbk read as Latin-1": "张伟".encode("gbk").decode("latin-1").encode(),
    "utf-16 Chinese little": "张伟".encode("utf-16-le"),
    "utf-16 Chinese big": "张伟".encode("utf-16-be"),
    "Chinese reversed": "伟张".encode(),
    "Chinese spaced": "张 伟".encode(),
    "Chinese wide space": "张\u3000伟".encode("gbk"),
    "Chinese in DICOM": "张^伟".encode("gb18030"),
    "Chinese in four letters": "娜娜 欧阳".encode(),
    "big5": "欧阳娜娜".encode("gb18030"),
    "JSON": b'{"name": "\\u5f20\\u4f1f"}',
    "JSON in capitals": b'"\\u5F20\\u4F1F"',
    "URL": urllib.parse.quote("张伟").encode(),
    "URL in GBK": urllib.parse.quote("张伟", encoding="gbk").encode(),
    "HTML": b"&#24352;&#20255;",
    "HTML in hex": b"&#x5f20;&#x4f1f;",
    "repr of bytes": repr("张伟".encode("gbk")).encode(),
    "surrogates": os.fsdecode("张伟".encode("gbk")).encode("unicode_escape"),
    "accents": "JÖRG MÜLLER".encode(),
    "without accents": b"Muller Jorg",
    "Latin-1": "Müller, Jörg".encode("latin-1"),
    "decomposed": "Mu\u0308ller Jo\u0308rg".encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_an_identifier_is_found_however_it_is_written(name: str) -> None:
    assert in_text(b"before " + FORMS[name] + b" behind", WHAT)
    assert in_text(FORMS[name], WHAT)


@pytest.mark.parametrize("name", ["as it is", "utf-16 little", "number", "date joined", "utf-8", "date in Chinese"])
def test_long_ones_are_found_in_noise_too(name: str) -> None:
    noise = os.urandom(100_000)
    assert in_noise(noise + FORMS[name] + noise, WHAT)


def test_other_words_are_no_finding() -> None:
    plain = b"guideline linear 2018 1977 MRN 0042 zhao wei; \xe5\xbc\xa0 and \xe4\xbc\x9f; Muller; 0000042"
    assert not in_text(plain, WHAT)
    lina = sought(["Li Na"])
    assert not in_text(b"guideline a; linear; online analysis", lina) and lina.too_short == 0
    for said in (b"li na", b"NA^LI", b"case_LiNa20180213", "Li Na".encode("utf-16-le")):
        assert in_text(said, lina)


def test_what_is_too_short_to_tell_is_counted() -> None:
    assert sought(["Li", "1234", "王", "", "  "]).too_short == 3
    assert sought(WHO).too_short == 0


def test_what_is_sought_is_not_shown() -> None:
    assert not in_text(repr(WHAT).encode(), WHAT)


@given(st.binary(max_size=300))
def test_noise_can_be_searched(data: bytes) -> None:
    in_text(data, WHAT)
    assert not in_noise(data, WHAT)


def unit(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


def remux(
    tmp_path: Path, *options: str, inputs: tuple[str, ...] = (), codec: tuple[str, ...] = ("-c", "copy")
) -> bytes:
    """A clip of ours with something more in it, as another program would put it there."""
    source = write_video(tmp_path / "a.mp4", 10, output=("-c:v", "libx264", "-bf", "0", "-an"))
    out = tmp_path / "b.mp4"
    command = [FFMPEG, "-loglevel", "error", "-i", str(source), *inputs, *codec, *options, str(out)]
    subprocess.run(command, check=True)
    return out.read_bytes()


_CLEAN = ("-fflags", "+bitexact", "-metadata:s:v:0", "encoder=", "-bsf:v", "filter_units=remove_types=6")


def test_a_plain_clip_passes_and_every_addition_is_told(tmp_path: Path) -> None:
    assert audit_clip(remux(tmp_path, "-map_metadata", "-1", *_CLEAN)) == []
    additions: dict[str, tuple[str, ...]] = {
        "user data (udta) of the file": ("-metadata", "title=ZHANG"),
        "a name of the track": ("-metadata:s:v:0", "handler_name=ZHANG"),
        "a language": ("-metadata:s:v:0", "language=chi"),
        "a time of creation or change ('mvhd')": ("-metadata", "creation_time=1977-07-07T07:07:07Z"),
    }
    for told, options in additions.items():
        (tmp_path / "b.mp4").unlink()
        assert told in audit_clip(remux(tmp_path, *_CLEAN, *options))
    (tmp_path / "b.mp4").unlink()
    sound = remux(
        tmp_path, "-map", "0:v", "-map", "1:a", inputs=("-f", "lavfi", "-i", "sine=d=0.2"), codec=("-c:v", "copy")
    )
    assert audit_clip(sound)
    (tmp_path / "b.mp4").unlink()
    assert "SEI: user data" in audit_clip(remux(tmp_path, "-fflags", "+bitexact"))


def swap(clip: bytes, old: bytes, new: bytes) -> bytes:
    assert clip.count(old) >= 1 and len(old) == len(new)
    return clip.replace(old, new, 1)


def behind(clip: bytes, kind: bytes, content: bytes) -> bytes:
    return clip + (8 + len(content)).to_bytes(4) + kind + content


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a free box": lambda c: behind(c, b"free", b"ZHANG"),
    "a uuid box": lambda c: behind(c, b"uuid", bytes(16) + b"ZHANG"),
    "a box with a name for a type": lambda c: behind(c, b"WEI!", b"ZHANG"),
    "second media data": lambda c: behind(c, b"mdat", b"ZHANG"),
    "bytes behind the end": lambda c: c + b"ZHANG",
    "a creation time": lambda c: c[: c.index(b"mvhd") + 8] + b"\1\2\3\4" + c[c.index(b"mvhd") + 12 :],
    "a media time": lambda c: c[: c.index(b"mdhd") + 8] + b"\1\2\3\4" + c[c.index(b"mdhd") + 12 :],
    "a handler": lambda c: swap(c, b"VideoHandler", b"ZHANG^WEI^^^"),
    "a reference": lambda c: swap(c, b"url \0\0\0\1", b"url \0\0\0\0"),
    "an encoder's name": lambda c: c[: c.index(b"avc1", 40) + 50] + b"\5ZHANG" + c[c.index(b"avc1", 40) + 56 :],
    "a brand": lambda c: swap(c, b"iso2", b"ZHNG"),
    "nothing": lambda _: b"",
    "cut": lambda c: c[:-1],
    "noise": lambda _: bytes(range(256)) * 4,
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_whatever_is_put_into_a_clip_is_told_without_its_value(name: str, clip: bytes) -> None:
    assert audit_clip(clip) == []
    told = audit_clip(DAMAGE[name](clip))
    assert told and not any(word in str(told) for word in ("ZHANG", "WEI", "ZHNG"))


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        (sei(5, bytes(16) + b"ZHANG")[4:], "SEI: user data"),
        (sei(4, b"\xb5\0\x31" + captions("ZHANGWEI"))[4:], "SEI: captions or other user data"),
        (sei(1, b"ZHANG")[4:], "SEI: picture timing"),
        (b"\x1eZHANG", "a unit (type 30)"),
        (b"\x0cZHANG", "filler data (type 12)"),
        (b"\x09\xf0", "a unit (type 9)"),
    ],
)
def test_units_that_are_no_pictures_are_told(planted: bytes, told: str, clip: bytes) -> None:
    """A unit takes the place of the first bytes of a picture, whose rest becomes another one."""
    ((start, _),) = coded_ranges(clip)
    size = int.from_bytes(clip[start : start + 4])
    new = unit(planted)
    rest = size + 4 - len(new) - 4
    changed = clip[:start] + new + rest.to_bytes(4) + b"\x65" + clip[start + len(new) + 5 :]
    assert len(changed) == len(clip) and audit_clip(changed) == [told]


def test_a_walk_agrees_with_libav(clip: bytes) -> None:
    """Where libav finds packets, and that they hold slices, is what the audit says of it."""
    with av.open(io.BytesIO(clip)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    ((start, stop),) = coded_ranges(clip)
    assert sum(sizes) == stop - start


def shard(path: Path, **fields: object) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(f"{KEY}.json")
        content = b'{"key": "x"}\n'
        info.size = len(content)
        for name, value in fields.items():
            setattr(info, name, value)
        tar.addfile(info, io.BytesIO(content))
    return path


HEADERS: dict[str, dict[str, object]] = {
    "owner in a tar header": {"uid": 1000},
    "group in a tar header": {"gid": 1000},
    "time in a tar header": {"mtime": 1_700_000_000},
    "user name in a tar header": {"uname": "zhang"},
    "group name in a tar header": {"gname": "zhang"},
    "mode or kind in a tar header": {"mode": 0o755},
    "a member's name that is no key": {"name": "张伟.json"},
}


@pytest.mark.parametrize("told", HEADERS)
def test_a_tar_says_nothing_of_host_user_or_time(told: str, tmp_path: Path) -> None:
    shard(tmp_path / "a.tar")
    assert audit_corpus(tmp_path, WHAT) == ()
    shard(tmp_path / "a.tar", **HEADERS[told])
    found = audit_corpus(tmp_path, WHAT)
    assert Finding(told, "a.tar, member 1") in found and not in_text(str(found).encode(), WHAT)


def test_bytes_between_and_behind_members_are_told(tmp_path: Path) -> None:
    whole = shard(tmp_path / "a.tar").read_bytes()
    for at in (600, len(whole) - 600):  # padding of the member, and behind the end
        (tmp_path / "a.tar").write_bytes(whole[:at] + b"hello" + whole[at + 5 :])
        assert any(finding.category.startswith("bytes behind") for finding in audit_corpus(tmp_path, WHAT))


def test_tables_are_read_cell_by_cell(tmp_path: Path) -> None:
    """Compression hides a name from whoever only looks at bytes."""
    path = tmp_path / "t.parquet"
    table = pa.table({"key": ["x"] * 50, "labels": [[{"raw": "seen by Wei Zhang, 张伟"}]] * 50})
    with pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False, write_statistics=False) as writer:
        writer.write_table(table)
    assert Finding("an identifier in the column labels", "t.parquet") in audit_corpus(tmp_path, WHAT)
    pq.write_table(pa.table({"key": ["x"]}).replace_schema_metadata({"where": "/home/zhangwei"}), path)
    assert Finding("an identifier in the metadata of a table", "t.parquet") in audit_corpus(tmp_path, WHAT)
    pd.DataFrame({"key": ["x"]}).to_parquet(path)
    assert audit_corpus(tmp_path, WHAT) == (Finding("metadata of a program that wrote a table", "t.parquet"),)
    path.write_bytes(b"PAR1")
    assert audit_corpus(tmp_path, WHAT) == (Finding("a table that cannot be read", "t.parquet"),)


def test_names_of_files_are_told_without_being_quoted(tmp_path: Path) -> None:
    (tmp_path / "ZhangWei.bin").write_bytes(b"x")
    (tmp_path / os.fsdecode("张伟".encode("gbk"))).write_bytes(b"x")
    (tmp_path / "link").symlink_to("/tmp")
    found = audit_corpus(tmp_path, WHAT)
    assert sum(f.category == "an identifier in a name" for f in found) == 2 and not in_text(str(found).encode(), WHAT)
    assert Finding("a link or a special file", "link") in found


def test_label_maps_are_opened(tmp_path: Path) -> None:
    good = mask_bytes({"0": np.zeros((4, 4), np.uint8)})
    assert list(_masks(good, "m", WHAT)) == []
    for field, value in (("date_time", (2018, 2, 13, 1, 1, 2)), ("comment", b"z")):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            entry = zipfile.ZipInfo("0.npy")
            setattr(entry, field, value)
            archive.writestr(entry, b"x")
        assert list(_masks(buffer.getvalue(), "m", WHAT))
    assert list(_masks(b"ZHANG" + good, "m", WHAT)) == [("bytes before label maps", "m")]
    assert list(_masks(good + b"x" * 70_000, "m", WHAT)) == [("label maps that cannot be read", "m")]


def test_pages_are_read_with_their_pictures(corpus: Corpus, tmp_path: Path) -> None:
    shutil.copy(corpus.root / "report" / "index.html", tmp_path / "index.html")
    assert audit_corpus(tmp_path, WHAT) == ()
    page = (tmp_path / "index.html").read_text()
    (tmp_path / "index.html").write_text(page.replace("</body>", "<p>&#24352;&#20255;</p></body>"))
    assert audit_corpus(tmp_path, WHAT) == (Finding("an identifier", "index.html"),)
