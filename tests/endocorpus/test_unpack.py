"""Archives that strangers made: what is good comes out whole, what is not leaves nothing behind."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import pyzipper
from hypothesis import given
from hypothesis import strategies as st

import endocorpus.unpack
from endocorpus.archive import BadArchiveError, Names, clean_parts
from endocorpus.errors import DataError, UsageError
from endocorpus.naming import FETCHED
from endocorpus.unpack import unpack
from endocorpus.walk import walk

Tree = dict[str, bytes]
DATA = random.Random(7).randbytes(70_000)
GOOD: Tree = {
    "case1/a 1.jpg": DATA[:5000],
    "case1/a10.jpg": DATA[5000:9000],
    "case2/deep/ü 视频.bin": DATA,
    "empty.txt": b"",
    "labels.csv": b"a;b\n",
}


def tree_of(folder: Path) -> Tree:
    """All files below a folder but the book-keeping, which `walk` leaves out as well."""
    return {path: (folder / path).read_bytes() for path in walk(folder)[0]}


def make_zip(path: Path, tree: Tree, method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, data in tree.items():
            packed.writestr(name, data)
    return path


def make_tar(path: Path, tree: Tree, mode: str = "w:gz", *special: tarfile.TarInfo) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for name, data in tree.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime, info.uid = len(data), 0o6777, 12345, 4711
            packed.addfile(info, io.BytesIO(data))
        for info in special:
            packed.addfile(info)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def refused(archive: Path, dest: Path, match: str, **options: int) -> None:
    """The archive is refused by name, and nothing of it is left, inside the destination or beside it."""
    beside = {path for path in dest.parent.rglob("*") if dest not in path.parents and path != dest}
    with pytest.raises(BadArchiveError, match=match) as caught:
        unpack(archive, dest, **options)
    assert archive.name in str(caught.value) and "\n" not in str(caught.value)
    assert not dest.exists() or tree_of(dest) == {}
    assert not list(dest.rglob("work"))
    assert {path for path in dest.parent.rglob("*") if dest not in path.parents and path != dest} == beside


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.zip", ""),
        ("a.tar", "w"),
        ("a.tar.gz", "w:gz"),
        ("a.tgz", "w:gz"),
        ("a.tar.xz", "w:xz"),
        ("A.TAR.BZ2", "w:bz2"),
        ("lies.zip", "w:gz"),
    ],
)
def test_what_was_packed_comes_out_and_no_more_than_that(name: str, mode: str, tmp_path: Path) -> None:
    made = make_tar(tmp_path / name, GOOD, mode) if mode else make_zip(tmp_path / name, GOOD)
    receipt = unpack(made, tmp_path / "dest")
    assert tree_of(tmp_path / "dest") == GOOD
    assert {file.path: file.bytes for file in receipt.files} == {path: len(data) for path, data in GOOD.items()}
    plain = tmp_path / "plain"
    plain.touch()
    for path in GOOD:
        found = (tmp_path / "dest" / path).stat()
        assert found.st_mode == plain.stat().st_mode and found.st_uid == os.getuid()  # not what the archive wanted
        assert found.st_mtime > 12345


def test_it_runs_again_without_reading_or_writing(tmp_path: Path) -> None:
    made, dest = make_zip(tmp_path / "a.zip", GOOD), tmp_path / "dest"
    first = unpack(made, dest)
    before = {path: path.stat().st_mtime_ns for path in dest.rglob("*") if path.is_file() and path.name != "lock"}
    written: list[int] = []
    assert unpack(made, dest, on_bytes=written.append) == first and not written
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (dest / "case1/a10.jpg").unlink()
    unpack(made, dest)
    assert tree_of(dest) == GOOD


def test_archives_share_folders_but_never_overwrite(tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    unpack(make_zip(tmp_path / "1.zip", {"x/1": b"1", "x/same": b"s"}), dest)
    unpack(make_tar(tmp_path / "2.tar.gz", {"x/2": b"2", "x/y/3": b"3", "x/same": b"s"}), dest)
    both = {"x/1": b"1", "x/2": b"2", "x/y/3": b"3", "x/same": b"s"}
    assert tree_of(dest) == both
    third = make_zip(tmp_path / "3.zip", {"a": b"a", "x/1": b"other"})
    with pytest.raises(DataError, match=r"x/1: already there, and not as in 3.zip; move it away"):
        unpack(third, dest)
    assert tree_of(dest) == both
    (dest / "x/1").rename(tmp_path / "moved")
    unpack(third, dest)
    assert tree_of(dest) == both | {"a": b"a", "x/1": b"other"}


@pytest.mark.parametrize("plant", ["link", "file"])
def test_it_does_not_write_through_what_lies_in_the_way(plant: str, tmp_path: Path) -> None:
    dest, outside = tmp_path / "dest", tmp_path / "outside"
    dest.mkdir()
    outside.mkdir()
    if plant == "link":
        (dest / "case1").symlink_to(outside)
    else:
        (dest / "case1").write_text("mine")
    with pytest.raises(DataError, match=r"case1: a link or a file where a.zip has a folder"):
        unpack(make_zip(tmp_path / "a.zip", GOOD), dest)
    assert not list(outside.iterdir()) and {path.name for path in dest.iterdir()} == {"case1", FETCHED}


def test_archives_inside_are_unpacked_in_place_one_level_deep(tmp_path: Path) -> None:
    deepest = make_zip(tmp_path / "deepest.zip", {"c": b"c"}).read_bytes()
    inner = make_tar(tmp_path / "polyp.tar.gz", {"Polyp/1.jpg": b"1", "deeper.zip": deepest}).read_bytes()
    outer = {"labelled/polyp.tar.gz": inner, "labelled/t.csv": b"t", "no.zip": b"only a name", "z.zip": deepest}
    unpack(make_zip(tmp_path / "osf.zip", outer), tmp_path / "dest")
    assert tree_of(tmp_path / "dest") == {
        "labelled/Polyp/1.jpg": b"1",
        "labelled/deeper.zip": deepest,
        "labelled/t.csv": b"t",
        "no.zip": b"only a name",
        "c": b"c",
    }


BAD_NAMES = {
    "../out": "leads out",
    "a/../../out": "leads out",
    "a\\..\\..\\out": "leads out",
    "/abs": "absolute",
    "\\abs": "absolute",
    "C:/x": "absolute",
    "c:x": "absolute",
    "a/new\nline": "control character",
    "x" * 250: "too long",
    "/".join(["dir"] * 400): "too long",
    f"{FETCHED}.json": "keeps for itself",
    f"./{FETCHED.upper()}/lock": "keeps for itself",
}


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("where", ["zip", "tar", "inner"])
def test_names_that_lead_elsewhere_are_refused(name: str, where: str, tmp_path: Path) -> None:
    hostile = {"good": b"g", name: b"evil"}
    made = make_zip(tmp_path / "a.zip", hostile) if where == "zip" else make_tar(tmp_path / "a.tar.gz", hostile)
    if where == "inner":
        made = make_zip(tmp_path / "outer.zip", {"first": b"f", "a.tar.gz": made.read_bytes()})
    refused(made, tmp_path / "dest", f"refused, nothing was unpacked: .*{BAD_NAMES[name]}")


def test_a_nul_in_a_name_is_refused(tmp_path: Path) -> None:
    made = make_zip(tmp_path / "a.zip", {"a_jpg": b"x"})
    made.write_bytes(made.read_bytes().replace(b"a_jpg", b"a\0jpg"))
    refused(made, tmp_path / "dest", "control character")


TWINS = [(["A/x", "a/y"], "case"), (["n", "N"], "case"), (["é", "e\u0301"], "case"), (["d", "d/e"], "lies below d")]
TWINS += [(["d/e", "d"], "file and also a folder"), (["d/e", "d/./e"], "twice"), (["ß", "SS"], "case")]


@pytest.mark.parametrize(("names", "why"), TWINS)
@pytest.mark.parametrize("where", ["zip", "tar"])
def test_names_that_collide_are_refused(names: list[str], why: str, where: str, tmp_path: Path) -> None:
    tree = dict.fromkeys(names, b"x")
    made = make_zip(tmp_path / "a.zip", tree) if where == "zip" else make_tar(tmp_path / "a.tar", tree, "w")
    refused(made, tmp_path / "dest", why)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_equal_names_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("x", b"shown")
        packed.writestr("x", b"hidden")
    refused(tmp_path / "a.zip", tmp_path / "dest", "twice")


@given(st.text())
def test_a_clean_name_stays_inside(name: str) -> None:
    try:
        parts = clean_parts(name)
    except (ValueError, UnicodeEncodeError):
        return
    assert parts and not {"", ".", ".."} & set(parts) and not any(set("/\\\0") & set(part) for part in parts)
    assert (Path("/base") / "/".join(parts)).is_relative_to("/base")


@given(st.lists(st.sampled_from(["a", "A", "b", "a/b", "A/b", "a/c", "b/c/d", "b/C/d", "a/b/c"]), max_size=8))
def test_accepted_names_fit_on_a_disk_that_ignores_case(names: list[str]) -> None:
    book, taken = Names(), []
    for name in names:
        try:
            taken.append(book.take(name))
        except ValueError:
            continue
    folders = {"/".join(name.split("/")[:i]) for name in taken for i in range(1, name.count("/") + 1)}
    every = [*taken, *folders]
    assert len({path.casefold() for path in every}) == len(every)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    made = make_tar(tmp_path / "a.tar.gz", {"good": b"g"}, "w:gz", special("l", kind, "../../etc"))
    refused(made, tmp_path / "dest", "'l' in it is a link, a device")


def test_a_file_that_would_follow_a_link_is_never_written(tmp_path: Path) -> None:
    """The classic: a link to a folder outside, then a file below it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    made = tmp_path / "a.tar"
    with tarfile.open(made, "w") as packed:
        packed.addfile(special("d", tarfile.SYMTYPE, str(outside)))
        info = tarfile.TarInfo("d/evil")
        info.size = 4
        packed.addfile(info, io.BytesIO(b"evil"))
    refused(made, tmp_path / "dest", "link")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        info = zipfile.ZipInfo("l")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(info, "/etc/passwd")
    refused(tmp_path / "a.zip", tmp_path / "dest", "link or a device")


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    """A few bytes of header that stand for a terabyte of zeros."""
    info = special("s", tarfile.GNUTYPE_SPARSE)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000000000\0" * 2
    header[483:495] = tarfile.itn(1 << 40, 12, tarfile.GNU_FORMAT)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(10240 - 512))
    refused(tmp_path / "a.tar", tmp_path / "dest", "no plain file")


BOMBS: dict[str, Callable[[Path], Path]] = {
    "zip": lambda folder: make_zip(folder / "b.zip", {"a": b"a", "zeros": bytes(3_000_000)}),
    "tar.gz": lambda folder: make_tar(folder / "b.tar.gz", {"a": b"a", "zeros": bytes(3_000_000)}),
    "tar.xz": lambda folder: make_tar(folder / "b.tar.xz", {"zeros": bytes(3_000_000)}, "w:xz"),
    "many": lambda folder: make_zip(folder / "b.zip", {str(i): bytes(50_000) for i in range(60)}),
    "nested": lambda folder: make_zip(
        folder / "b.zip",
        {"i.tar.gz": make_tar(folder / "i.tar.gz", {"zeros": bytes(3_000_000)}).read_bytes()},
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_stop_at_the_bound(name: str, tmp_path: Path) -> None:
    made = BOMBS[name](tmp_path)
    assert made.stat().st_size < 50_000
    written: list[int] = []
    with pytest.raises(BadArchiveError, match=r"gives more than 2.0 MB"):
        unpack(made, tmp_path / "dest", limit=2_000_000, on_bytes=written.append)
    assert sum(written) <= 2_000_000
    refused(made, tmp_path / "dest", "gives more than 2.0 MB", limit=2_000_000)
    assert unpack(made, tmp_path / "dest", limit=4_000_000).files


def test_the_bound_grows_with_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endocorpus.unpack, "FLOOR", 0)
    refused(make_zip(tmp_path / "bomb.zip", {"zeros": bytes(500_000)}), tmp_path / "a", "gives more than")
    unpack(make_zip(tmp_path / "good.zip", GOOD), tmp_path / "b")


def test_a_header_that_claims_less_does_not_bring_more(tmp_path: Path) -> None:
    """Both headers of the zip say 1000 bytes; the stream holds three million."""
    made = make_zip(tmp_path / "a.zip", {"zeros": bytes(3_000_000)})
    lying = made.read_bytes().replace(struct.pack("<L", 3_000_000), struct.pack("<L", 1000))
    assert lying != made.read_bytes()
    made.write_bytes(lying)
    refused(made, tmp_path / "dest", "damaged", limit=2_000_000)
    crc = struct.pack("<L", zlib.crc32(bytes(3_000_000)))
    made.write_bytes(lying.replace(crc, struct.pack("<L", zlib.crc32(bytes(1000)))))
    unpack(made, tmp_path / "dest", limit=2_000_000)  # now it simply is a file of 1000 zeros
    assert tree_of(tmp_path / "dest") == {"zeros": bytes(1000)}


def test_a_header_that_claims_a_long_name_is_not_read_into_memory(tmp_path: Path) -> None:
    info = special("x", tarfile.GNUTYPE_LONGNAME)
    info.size = 1 << 33
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16))
    refused(tmp_path / "a.tar", tmp_path / "dest", "more than a megabyte of headers")


def header(kind: bytes, data: bytes) -> bytes:
    """A header about other headers, as tar writes it."""
    info = special("x", kind)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def pax(*records: bytes) -> bytes:
    """Each record with its length, which is counted in."""
    lengths = [next(n for n in range(len(r) + 3, len(r) + 12) if n == len(f"{n}") + len(r) + 2) for r in records]
    return b"".join(b"%d %s\n" % (length, record) for length, record in zip(lengths, records, strict=True))


ONE_FILE = header(tarfile.REGTYPE, b"abc") + bytes(1024)
with io.BytesIO() as _packed:
    with zipfile.ZipFile(_packed, "w") as _zip:
        _zip.writestr("aé.txt", b"abc" * 100)
    ZIP = _packed.getvalue()
ENTRY = ZIP.find(b"PK\1\2")
HOSTILE = {
    "attributes of all that follows, 3,000 times": header(b"g", pax(b"a=b")) * 3000 + ONE_FILE,
    "long names, 3,000 times": header(b"L", b"name\0") * 3000 + ONE_FILE,
    "a map of holes that is none": header(b"x", pax(b"GNU.sparse.map=abc,def", b"GNU.sparse.size=x")) + ONE_FILE,
    "a list of holes that is none": header(
        b"x", pax(b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.name=z", b"GNU.sparse.realsize=zz")
    )
    + ONE_FILE,
    "a length of 5,000 digits": header(b"x", b"9" * 5000 + b" a=b\n") + ONE_FILE,
    "a name in no encoding": ZIP.replace(b"\xc3\xa9", b"\xff\xfe"),
    "a directory before the start": ZIP[:-6] + struct.pack("<L", 0xFFFFFF00) + ZIP[-2:],
    "a member before the start": ZIP[: ENTRY + 42] + b"\xf0\xff\xff\xff" + ZIP[ENTRY + 46 :],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_whatever_an_archive_says_is_one_line(what: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(HOSTILE[what])
    refused(tmp_path / "a.tar", tmp_path / "dest", "damaged")


def test_headers_that_add_up_are_not_held_in_memory(tmp_path: Path) -> None:
    for kind in (b"g", b"x"):
        each = [header(kind, pax(b"k%d=%s" % (i, bytes(300_000)))) for i in range(6)]
        between = header(tarfile.DIRTYPE, b"") if kind == b"g" else b""
        (tmp_path / "a.tar").write_bytes(between.join(each) + ONE_FILE)
        refused(tmp_path / "a.tar", tmp_path / f"dest-{kind.decode()}", "more than a megabyte of headers")
    names = [header(b"x", pax(b"path=%d/%s" % (i, b"n" * 200), b"c=%s" % bytes(300_000))) for i in range(6)]
    (tmp_path / "a.tar").write_bytes(b"".join(name + header(tarfile.REGTYPE, b"a") for name in names) + bytes(1024))
    assert len(unpack(tmp_path / "a.tar", tmp_path / "good").files) == 6, "those of different members do not add up"


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_folders_count_as_members(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endocorpus.archive, "MAX_MEMBERS", 50)
    made = tmp_path / f"a.{kind}"
    if kind == "tar":
        made.write_bytes(header(tarfile.DIRTYPE, b"") * 60 + ONE_FILE)
    else:
        make_zip(made, {f"d{i}/": b"" for i in range(60)} | {"f": b"f"})
    refused(made, tmp_path / "dest", "comes after 50 other files and folders")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_no_cut_and_no_flipped_byte_goes_unseen(name: str, tmp_path: Path) -> None:
    """Either an error, or every byte as packed: where it was cut or flipped does not matter."""
    tree = {"a/1": DATA[:700], "a/2": DATA[700:1500], "b": DATA[1500:1800]}
    made = (
        make_zip(tmp_path / name, tree)
        if name == "a.zip"
        else make_tar(tmp_path / name, tree, {"a.tar": "w", "a.tar.gz": "w:gz", "a.tar.xz": "w:xz"}[name])
    )
    whole, rng = made.read_bytes(), random.Random(3)
    for trial in range(40):
        at = rng.randrange(len(whole) - 1)
        made.write_bytes(whole[:at] if trial % 2 else whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        dest = tmp_path / f"dest{trial}"
        try:
            unpack(made, dest)
        except DataError:
            assert not dest.exists() or tree_of(dest) == {}
        except UsageError as error:  # the flipped bit was the one that says "encrypted"
            assert "encrypted" in str(error)
        else:
            found = tree_of(dest)
            if name != "a.tar":  # a plain tar has no checksum of contents
                assert sorted(found.values()) == sorted(tree.values()), at
            assert len(found) == len(tree), at


def test_a_tar_that_was_cut_between_two_members_is_not_taken_for_whole(tmp_path: Path) -> None:
    made = make_tar(tmp_path / "a.tar", {"1": b"x" * 512, "2": b"y" * 512}, "w")
    made.write_bytes(made.read_bytes()[:1024])
    refused(made, tmp_path / "dest", "no mark of the end")


def test_two_tars_in_one_file_are_not_taken_for_the_first(tmp_path: Path) -> None:
    one, two = (make_tar(tmp_path / f"{n}.tar", {n: b"x"}, "w").read_bytes() for n in ("one", "two"))
    (tmp_path / "a.tar").write_bytes(one + two)
    refused(tmp_path / "a.tar", tmp_path / "dest", "more data after the end")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<!DOCTYPE html><title>Sign in", "not an archive, but a page"),
        (b"", "not an archive"),
        (b"text", "not an archive"),
        (b"PK\5\6" + bytes(18), "no file"),
    ],
)
def test_what_is_no_archive_is_called_so(data: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    refused(tmp_path / "a.zip", tmp_path / "dest", why)


def encrypted_zip(path: Path, tree: Tree, password: bytes) -> Path:
    """ZipCrypto as in APPNOTE 6.1: stored members, each after 12 bytes of salt whose last is checked."""

    def crc(value: int, byte: int) -> int:  # zlib inverts before and after, this cipher does not
        return zlib.crc32(bytes([byte]), value ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

    def encrypt(data: bytes) -> bytes:
        keys = [0x12345678, 0x23456789, 0x34567890]

        def update(byte: int) -> None:
            keys[0] = crc(keys[0], byte)
            keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
            keys[2] = crc(keys[2], keys[1] >> 24)

        for byte in password:
            update(byte)
        out = bytearray()
        for byte in data:
            mask = keys[2] | 2
            out.append(byte ^ (((mask * (mask ^ 1)) >> 8) & 0xFF))
            update(byte)
        return bytes(out)

    body, directory = b"", b""
    for name, data in tree.items():
        checksum = zlib.crc32(data)
        stored = encrypt(bytes(11) + bytes([checksum >> 24]) + data)
        raw = name.encode()
        common = struct.pack("<HHHHHLLLHH", 20, 0x801, 0, 0, 33, checksum, len(stored), len(data), len(raw), 0)
        directory += b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHLL", 0, 0, 0, 0, len(body)) + raw
        body += b"PK\3\4" + common + raw + stored
    end = struct.pack("<HHHHLLH", 0, 0, len(tree), len(tree), len(directory), len(body), 0)
    path.write_bytes(body + directory + b"PK\5\6" + end)
    return path


def test_encrypted_zips_take_the_password(tmp_path: Path) -> None:
    made, dest = encrypted_zip(tmp_path / "a.zip", GOOD, b"geheim"), tmp_path / "dest"
    with pytest.raises(UsageError, match=r"a.zip: encrypted; .* variable ENDOCORPUS_PASSWORD"):
        unpack(made, dest)
    with pytest.raises((UsageError, BadArchiveError), match=r"password|damaged"):
        unpack(made, dest, password="falsch")
    assert not dest.exists() or tree_of(dest) == {}
    unpack(made, dest, password="geheim")
    assert tree_of(dest) == GOOD
    evil = encrypted_zip(tmp_path / "evil.zip", {"../out": b"evil"}, b"geheim")
    with pytest.raises(BadArchiveError, match="leads out"):
        unpack(evil, dest, password="geheim")


def test_what_needs_a_program_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "Test.rar").write_bytes(b"Rar!\x1a\x07\x01\0" + bytes(100))
    with pytest.raises(DataError, match=r"Test.rar: takes the program bsdtar .*by hand.*: unrar x Test.rar"):
        unpack(tmp_path / "Test.rar", tmp_path / "dest")


@pytest.mark.skipif(not shutil.which("bsdtar"), reason="no bsdtar on this machine")
@pytest.mark.parametrize("options", ["", "zip:encryption=zipcrypt"])
def test_bsdtar_reads_what_python_reads_not_or_slowly(options: str, tmp_path: Path) -> None:
    for path, data in GOOD.items():
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_bytes(data)
    made, dest = tmp_path / ("a.zip" if options else "a.7z"), tmp_path / "dest"
    more = ["--options", options, "--passphrase", "geheim"] if options else []
    subprocess.run(["bsdtar", *more, "-a", "-cf", made, "-C", tmp_path / "in", "."], check=True)
    if options:
        with pytest.raises(UsageError, match="password in ENDOCORPUS_PASSWORD is missing or wrong"):
            unpack(made, dest, password="falsch")
    unpack(made, dest, password="geheim")
    assert tree_of(dest) == GOOD
    damaged = bytearray(made.read_bytes())
    damaged[len(damaged) // 2] ^= 0x55
    made.write_bytes(damaged)
    with pytest.raises(DataError, match="damaged"):
        unpack(made, tmp_path / "other", password="geheim")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips_with_aes_are_decrypted_and_checked(method: int, tmp_path: Path) -> None:
    made, dest = tmp_path / "a.zip", tmp_path / "dest"
    with pyzipper.AESZipFile(made, "w", method, encryption=pyzipper.WZ_AES) as packed:
        packed.setpassword(b"geheim")
        for path, data in GOOD.items():
            packed.writestr(path, data)
    with pytest.raises(UsageError, match="encrypted"):
        unpack(made, dest)
    with pytest.raises(UsageError, match="the password in ENDOCORPUS_PASSWORD is wrong"):
        unpack(made, dest, password="falsch")
    unpack(made, dest, password="geheim")
    assert tree_of(dest) == GOOD
    damaged = bytearray(made.read_bytes())
    damaged[len(damaged) // 2] ^= 0x55
    made.write_bytes(damaged)
    with pytest.raises(BadArchiveError, match="damaged"):
        unpack(made, tmp_path / "other", password="geheim")
    assert tree_of(tmp_path / "other") == {}


def test_little_room_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_zip(tmp_path / "a.zip", GOOD)
    free = endocorpus.unpack.RESERVE + sum(map(len, GOOD.values())) - 1
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    with pytest.raises(DataError, match=r"a.zip: takes 79.0 kB and a reserve of 1.1 GB, but only .* make room"):
        unpack(made, tmp_path / "dest")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free + 1))
    unpack(made, tmp_path / "dest")


def test_a_full_disk_is_told_and_the_next_run_goes_on(tmp_path: Path) -> None:
    """A limit on file size stands in for the disk: the kernel refuses in the middle of a write."""
    made = make_zip(tmp_path / "a.zip", GOOD)
    code = (
        "import resource, signal, sys; from pathlib import Path; from endocorpus.unpack import unpack;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "unpack(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    run = [sys.executable, "-c", code, str(made), str(tmp_path / "dest")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "DataError" in done.stderr and "a.zip: the disk is full" in done.stderr
    assert tree_of(tmp_path / "dest") == {}
    unpack(made, tmp_path / "dest")
    assert tree_of(tmp_path / "dest") == GOOD


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "nested"])
def test_killed_at_any_moment_the_next_run_gives_the_same(kind: str, tmp_path: Path) -> None:
    tree = {f"f{i % 7}/{i}.bin": random.Random(i).randbytes(3000) for i in range(300)}
    if kind == "nested":
        inner = make_tar(tmp_path / "in.tar.gz", {k: v for k, v in tree.items() if k.startswith("f6")}).read_bytes()
        made = make_zip(
            tmp_path / "a.zip", {k: v for k, v in tree.items() if not k.startswith("f6")} | {"in.tar.gz": inner}
        )
    else:
        made = make_zip(tmp_path / "a.zip", tree) if kind == "zip" else make_tar(tmp_path / "a.tar.gz", tree)
    dest = tmp_path / "dest"
    slow = (
        "import sys, time; from pathlib import Path; from endocorpus.unpack import unpack;"
        "unpack(Path(sys.argv[1]), Path(sys.argv[2]), on_bytes=lambda n: time.sleep(0.002))"
    )
    journal = dest / FETCHED / made.name / "work" / "journal.jsonl"
    done = [0]
    for stop_at in (40, 150, 280):
        child = subprocess.Popen([sys.executable, "-c", slow, str(made), str(dest)])
        while child.poll() is None and not (journal.exists() and len(journal.read_bytes().splitlines()) >= stop_at):
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert tree_of(dest) == {}  # half of it is nowhere to be seen
        done.append(len(journal.read_bytes().splitlines()))
    assert done == sorted(done)
    torn = next(path for path in (dest / FETCHED / made.name / "work" / "tree").rglob("*.bin"))
    torn.write_bytes(bytes(torn.stat().st_size))  # as a loss of power leaves files
    with journal.open("a") as file:
        file.write('{"path": "f0/')
    unpack(made, dest)
    assert tree_of(dest) == tree
    assert not (dest / FETCHED / made.name / "work").exists()


def test_killed_while_it_moved_the_next_run_ends_it(tmp_path: Path) -> None:
    made, dest = make_zip(tmp_path / "a.zip", GOOD), tmp_path / "dest"
    (dest / "case1").mkdir(parents=True)
    code = (
        "import os, sys; from pathlib import Path; from endocorpus.unpack import unpack; moved = []\n"
        "def rename(self, target, before=Path.rename):\n"
        "    moved.append(target)\n"
        "    if len(moved) == 3: os.kill(os.getpid(), 9)\n"
        "    return before(self, target)\n"
        "Path.rename = rename\n"
        "unpack(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(made), str(dest)], check=False)
    assert done.returncode == -signal.SIGKILL and 0 < len(tree_of(dest)) < len(GOOD)
    assert all(GOOD[path] == data for path, data in tree_of(dest).items())
    unpack(made, dest)
    assert tree_of(dest) == GOOD


def test_another_version_of_the_archive_starts_over(tmp_path: Path) -> None:
    made, dest = make_zip(tmp_path / "a.zip", {"a": b"1", "b": b"2"}), tmp_path / "dest"
    unpack(made, dest)
    make_zip(made, {"a": b"1", "c": b"3"})
    unpack(made, dest)
    assert tree_of(dest) == {"a": b"1", "b": b"2", "c": b"3"}
