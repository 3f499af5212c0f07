"""The contract on disk: tables, shards and their proofs, and atomic files."""

from __future__ import annotations

import io
import json
import string
import tarfile
from fractions import Fraction
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from endocorpus.corpus.files import atomic_file, digest_bytes
from endocorpus.corpus.manifest import DESCRIPTOR, Corpus, open_corpus, table_bytes, write_descriptor
from endocorpus.corpus.schema import SCHEMA_VERSION, TABLES
from endocorpus.corpus.shards import Sample, assign_buckets, read_member, shard_digest, write_shard
from endocorpus.errors import DataError
from endocorpus.records import ClipPlan, EncodedClip, Span


def clip(folder: Path, key: str, data: bytes) -> EncodedClip:
    path = folder / f"{digest_bytes(key.encode())}.mp4"
    path.write_bytes(data)
    return EncodedClip(
        plan=ClipPlan(key=key, span=Span(start=0, stop=3), width=2, height=2),
        path=str(path),
        size=len(data),
        digest=digest_bytes(data),
        num_frames=3,
        rate=Fraction(25),
        keyframes=(0,),
        mean_luma=1.0,
        sharpness=1.0,
    )


keys = st.text(alphabet=string.ascii_lowercase + string.digits + "-", min_size=1, max_size=60).map(lambda k: f"a{k}z")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
@settings(max_examples=30)
@given(st.dictionaries(keys, st.binary(max_size=2000), min_size=1, max_size=8))
def test_shards_hold_what_was_written_for_us_and_for_webdataset(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("shard")
    samples = [
        Sample(clip=clip(folder, key, data), card={"key": key, "n": i})
        for i, (key, data) in enumerate(contents.items())
    ]
    receipt = write_shard(folder / "a.tar", samples)
    again = write_shard(folder / "b.tar", samples)
    assert receipt.digest == again.digest == shard_digest(folder / "a.tar")
    assert receipt.size == (folder / "a.tar").stat().st_size
    with (folder / "a.tar").open("rb") as shard:
        read = {member.name: read_member(shard, member) for sample in receipt.samples for member in sample}
    assert {key: read[f"{key}.mp4"] for key in contents} == contents
    assert [json.loads(read[f"{key}.json"])["n"] for key in contents] == list(range(len(contents)))
    seen = list(webdataset.WebDataset(str(folder / "a.tar"), shardshuffle=False, empty_check=False))
    assert {sample["__key__"]: sample["mp4"] for sample in seen} == contents
    with tarfile.open(folder / "a.tar") as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")


@pytest.mark.parametrize("key", ["a.b", "A", "a b", "", "-a", "a-", "é", "a/b", "a" * 96])
def test_keys_that_webdataset_or_ustar_would_cut_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="not a sample key"):
        write_shard(tmp_path / "a.tar", [Sample(clip=clip(tmp_path, key, b"x"), card={})])
    assert not (tmp_path / "a.tar").exists()


def test_a_clip_that_changed_after_it_was_proven_does_not_enter(tmp_path: Path) -> None:
    changed = clip(tmp_path, "k", b"proven")
    Path(changed.path).write_bytes(b"other")
    with pytest.raises(DataError, match="changed after it was encoded"):
        write_shard(tmp_path / "a.tar", [Sample(clip=changed, card={})])
    assert [path.suffix for path in tmp_path.iterdir()] == [".mp4"]


ids = st.text(alphabet=string.ascii_lowercase, min_size=1, max_size=6)


@given(st.dictionaries(ids, st.integers(1, 50), max_size=60), st.integers(1, 100), ids)
def test_buckets_depend_on_the_set_alone_and_change_locally(weights: dict[str, int], limit: int, new: str) -> None:
    hashes = {name: digest_bytes(name.encode()) for name in [*weights, new]}
    buckets = assign_buckets(weights, hashes, limit)
    assert sorted(name for members in buckets.values() for name in members) == sorted(weights)
    assert all(len(m) == 1 or sum(weights[name] for name in m) <= limit for m in buckets.values())
    assert assign_buckets(dict(reversed(weights.items())), hashes, limit) == buckets
    labels = sorted(buckets)
    assert labels == ["all"] or not any(a != b and b.startswith(a) for a in labels for b in labels)
    after = assign_buckets({**weights, new: 1}, hashes, limit)
    touched = {label for label, members in after.items() if buckets.get(label) != members}
    home = next(label for label, members in after.items() if new in members)
    shared = home[:-1] if home != "all" else ""
    moved = {name for label in touched for name in after[label]}
    before_home = next((set(m) for label, m in buckets.items() if label == "all" or home.startswith(label)), set())
    assert moved <= before_home | {new} | {
        name for label, m in buckets.items() if label.startswith(shared) for name in m
    }


def test_atomic_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def fail() -> None:
        with atomic_file(tmp_path / "a") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "a").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_rows_must_fit_their_schema() -> None:
    row: dict[str, object] = {"subject": "a", "unit": "file", "stage": "scan", "reason": "r", "detail": "", "files": 1}
    with pytest.raises(ValueError, match=r"missing \['frames'\]"):
        table_bytes("excluded", [row])
    with pytest.raises(ValueError, match=r"unknown \['more'\]"):
        table_bytes("excluded", [{**row, "frames": None, "more": 1}])
    with pytest.raises(ValueError, match="'detail' must have a value"):
        table_bytes("excluded", [{**row, "frames": None, "detail": None}])
    data = table_bytes("excluded", [{**row, "frames": None}])
    assert data == table_bytes("excluded", [{**row, "frames": None}]) and b"pandas" not in data


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "not a finished corpus; `endocorpus build`, run again"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("[" * 100_000, "damaged"),
        (json.dumps({"schema_version": SCHEMA_VERSION}), "damaged or edited"),
        (json.dumps({"schema_version": SCHEMA_VERSION, "name": "x", "digest": "0" * 32}), "damaged or edited"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1}), "update endocorpus"),
        (json.dumps({"schema_version": 0}), "build it again"),
    ],
)
def test_what_is_not_a_corpus_says_why(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / DESCRIPTOR).write_text(text)
    with pytest.raises(DataError) as error:
        open_corpus(tmp_path)
    assert told in str(error.value) and str(tmp_path) in str(error.value)
    with pytest.raises(DataError, match="no such corpus"):
        open_corpus(tmp_path / "none")


@pytest.mark.parametrize(
    ("told", "strange"),
    [
        ("name = None", {"name": None}),
        ("shards = None", {"shards": None}),
        ("tables = \\[", {"tables": ["clips"]}),
        ("'a'", {"shards": ["a"]}),
        ("'../a'", {"shards": [{"name": "../a", "size": 1, "xxh3_128": "0" * 32}]}),
        ("'.a'", {"shards": [{"name": ".a", "size": 1, "xxh3_128": "0" * 32}]}),
        ("a\\\\\\\\b", {"tables": {"a\\b": {"size": 1, "xxh3_128": "0" * 32}}}),
        ("'/tmp/x'", {"tables": {"clips": {"size": 1, "xxh3_128": "/tmp/x"}}}),
        ("'size': -5", {"tables": {"clips": {"size": -5, "xxh3_128": "0" * 32}}}),
        ("'size': 1000", {"tables": {"clips": {"size": 10**400, "xxh3_128": "0" * 32}}}),
        ("'size': 'x'", {"tables": {"clips": {"size": "x", "xxh3_128": "0" * 32}}}),
        ("'xxh3_128': '0+'", {"tables": {"clips": {"xxh3_128": "0" * 32}}}),
    ],
)
def test_a_descriptor_decides_no_path_outside(tmp_path: Path, told: str, strange: dict[str, object]) -> None:
    write_descriptor(tmp_path, {"schema_version": SCHEMA_VERSION, "name": "x", **strange})
    with pytest.raises(
        DataError, match=rf"corpus\.json: .*{told}.* is nothing that a build writes; `endocorpus build`"
    ):
        open_corpus(tmp_path)


def test_damaged_tables_are_named(tmp_path: Path) -> None:
    def commit(data: bytes) -> Corpus:
        tables = {"clips": {"size": len(data), "xxh3_128": digest_bytes(data)}}
        write_descriptor(tmp_path, {"schema_version": SCHEMA_VERSION, "name": "x", "tables": tables})
        return open_corpus(tmp_path)

    right, other = table_bytes("clips", []), table_bytes("excluded", [])
    corpus = commit(right)
    with pytest.raises(DataError, match=r"clips\.parquet: missing"):
        corpus.clips()
    for damaged in (b"PAR1 not really", right[:-1], other):
        (tmp_path / "clips.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match=r"clips\.parquet: damaged"):
            corpus.clips()
    with pytest.raises(DataError, match="does not list the table 'deid'"):
        corpus.table("deid")
    with pytest.raises(DataError, match="columns are not those"):
        commit(other).clips()
    assert set(TABLES) == {"recordings", "clips", "annotations", "deid", "excluded"}


def test_a_damaged_member_is_never_returned(tmp_path: Path) -> None:
    receipt = write_shard(tmp_path / "a.tar", [Sample(clip=clip(tmp_path, "k", bytes(range(256))), card={})])
    data = bytearray((tmp_path / "a.tar").read_bytes())
    member = receipt.samples[0][1]
    for byte in (member.offset, member.offset + member.size - 1):
        flipped = bytearray(data)
        flipped[byte] ^= 1
        with pytest.raises(DataError, match=r"k\.mp4"):
            read_member(io.BytesIO(flipped), member)
    with pytest.raises(DataError, match="cut short"):
        read_member(io.BytesIO(data[: member.offset + 10]), member)
