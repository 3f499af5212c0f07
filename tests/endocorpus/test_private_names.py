"""No name of a private recording gets into what is made of it: names in every place of a tree, and the corpus of it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from endocorpus.build import build
from endocorpus.cli import main
from endocorpus.config import BuildConfig
from endocorpus.corpus.files import digest_bytes, digest_file
from endocorpus.corpus.manifest import Corpus, open_corpus
from endocorpus.deid.audit import audit_corpus
from endocorpus.deid.intake import original_path
from endocorpus.deid.private import Secrets, names_of
from endocorpus.deid.pseudonym import Key, KeyedNames, new_key
from endocorpus.deid.search import sought
from endocorpus.deid.vault import open_vault
from endocorpus.errors import DataError, UsageError
from endocorpus.naming import Names, make_id
from endocorpus.records import Exclusion, Reason
from endocorpus.settings import load_settings
from endocorpus.sources import load_source
from endocorpus.verify import verify
from tests.endocorpus.conftest import NAMES, PUBLIC, fingerprint, show_all
from tests.endocorpus.test_labels import kumc_tree
from tests.endocorpus.test_traps import plant, polyp, voc
from tests.media import write_frames, write_video

RENJI, FOLDER = load_source("renji"), load_source("folder")
CONFIG = load_settings(BuildConfig, overrides=["segment.clip_seconds=1.0", "shards.max_clips=3"])
PEOPLE = ("KANARIE Vogel", "Zeisig Amsel", "金丝雀", "画眉鸟", "31010119770707", "Dompfaff")
SOUGHT = sought(PEOPLE)
GBK = os.fsdecode("画眉鸟".encode("gbk"))  # bytes that are no Unicode
ID = r"-[a-z2-7]{26}"
TABLE = (
    "exam_id,procedure,finding,consent\n"
    "KANARIE Vogel_2021,Colonoscopy,polyp,yes\n"
    "金丝雀 31010119770707,colonoscopy by Zeisig Amsel,of Dompfaff,YES\n"
    "no word,colonoscopy,polyp,\n"
    "denied,colonoscopy,polyp,no\n"
    "Zeisig Amsel,colonoscopy,polyp,yes\n"
    "Dompfaff of elsewhere,colonoscopy,polyp,yes\n"
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names in folders, files, a table and metadata; two recordings of a patient; files of every kind of fault."""
    root = tmp_path_factory.mktemp("private") / "raw"
    good = write_video(root / "colonoscope" / "KANARIE Vogel_2021" / "Dompfaff.mp4", 30, size=(64, 48))
    write_video(root / "colonoscope" / "KANARIE Vogel_2021" / "金丝雀.mp4", 26, size=(64, 48))
    write_video(
        root / "gastroscope Zeisig Amsel" / "金丝雀 31010119770707" / "a.mp4",
        52,
        size=(64, 48),
        output=("-metadata", "title=KANARIE Vogel", "-c:v", "libx264"),
    )
    for exam in ("no word", "denied", "not in the table"):
        write_video(root / "colonoscope" / exam / "KANARIE Vogel.mp4", 25, size=(64, 48))
    whole = good.read_bytes()
    for name in ("Zeisig Amsel", "画眉鸟", GBK):
        (root / f"{name}.mp4").write_bytes(whole[: len(whole) // 2])
        (root / f"{name}.xyz").write_bytes(b"x")
        (root / f"{name}.txt").write_text("Dompfaff")
    (root / "Dompfaff.mov").write_bytes(whole.replace(b"url \0\0\0\1", b"alis\0\0\0\0"))
    (root / "Dompfaff.mkv").write_text("#EXTM3U\nKANARIE Vogel.mp4\n")
    (root / "画眉鸟 gone.mp4").symlink_to("KANARIE Vogel")
    os.mkfifo(root / "Zeisig Amsel.avi")
    write_frames(root / "Zeisig Amsel" / "画眉鸟", [1, 2, 4], size=(64, 48), name="KANARIE Vogel{}.png")
    (root / "labels.csv").write_text(TABLE, encoding="utf-8")
    return root


@contextmanager
def cleared() -> Iterator[None]:
    """Every recording with consent is cleared, whatever its pictures show: here it is about names."""
    with pytest.MonkeyPatch.context() as patch:
        clear(patch)
        yield


def clear(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("endocorpus.plan.decide", show_all)


def made_of(tree: Path, out: Path, names: Names) -> Corpus:
    with cleared():
        return build(RENJI, tree, out, CONFIG, names=names)


@pytest.fixture(scope="module")
def corpus(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return made_of(tree, tmp_path_factory.mktemp("corpora") / "c", NAMES)


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def ids_of(corpus: Corpus) -> set[str]:
    """Everything that stands for a recording, a patient or a file, without the corpus's name."""
    rows = [row for table in ("recordings", "clips") for row in corpus.table(table).to_pylist()]
    told = {str(row[column]) for row in rows for column in ("recording_id", "case_id", "leak_group")}
    told |= {str(row["subject"]) for row in corpus.table("excluded").to_pylist()}
    return {one[-26:] for one in told}


def test_no_name_is_in_the_corpus_nor_in_its_work_area(corpus: Corpus) -> None:
    assert corpus.clips().num_rows == 4 and not verify(corpus).problems
    assert audit_corpus(corpus.root, SOUGHT) == ()


def test_the_audit_would_find_a_name(corpus: Corpus, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus.root, tmp_path / "c")
    (copy / ".build" / "note").write_text("dompfaff")
    assert audit_corpus(copy, SOUGHT)


def test_ids_are_pseudonyms(corpus: Corpus) -> None:
    for row in corpus.clips().to_pylist():
        assert re.fullmatch(f"renji{ID}-[0-9]{{7}}", row["key"])
        assert re.fullmatch(f"renji{ID}", row["recording_id"])
        assert re.fullmatch(f"renji{ID}", row["case_id"]) and row["leak_group"] == row["case_id"]
    for row in corpus.table("excluded").to_pylist():
        assert re.fullmatch(f"renji(-excluded)?{ID}", row["subject"])
        assert not re.search(r"[0-9]", row["detail"]) and row["detail"], "no value"
    recordings = corpus.table("recordings").to_pylist()
    assert len(recordings) == 3 and len({row["case_id"] for row in recordings}) == 2, "a patient is a case"
    assert corpus.descriptor["ids"] == "keyed"


def test_nothing_is_kept_by_which_a_file_may_be_found_again(corpus: Corpus, tree: Path) -> None:
    for row in corpus.table("recordings").to_pylist():
        assert [row[what] for what in ("path", "name", "case_name", "leak_group_name", "links")] == [None] * 5
        assert row["bytes"] is None and row["media_xxh3_128"] is None
    written = b"".join(
        os.fsencode(path) + (path.read_bytes() if path.is_file() else b"") for path in corpus.root.rglob("*")
    )
    for path in (path for path in tree.rglob("*.mp4") if path.is_file()):
        digest = digest_file(path)
        assert digest.encode() not in written and digest_bytes(digest.encode()).encode() not in written


def test_what_pulls_in_other_files_is_refused_by_name_and_no_core_is_dumped(tree: Path, tmp_path: Path) -> None:
    made = build(PUBLIC, tree, tmp_path / "c", CONFIG)
    details = {row["subject"]: row["detail"] for row in made.table("excluded").to_pylist()}
    assert details["Dompfaff.mov"].startswith("refused: it names other files")
    assert details["Dompfaff.mkv"] == "refused: a playlist, not a recording of its own"
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)


def test_only_codes_are_left_of_labels(corpus: Corpus) -> None:
    rows = [row for table in ("recordings", "clips") for row in corpus.table(table).to_pylist()]
    labels = {(label["name"], label["value"], label["raw"]) for row in rows for label in row["labels"]}
    assert labels == {("folder", "colonoscopy", ""), ("procedure", "colonoscopy", ""), ("finding", "polyp", "")}
    assert {(row["name"], row["raw"]) for row in corpus.descriptor["unmapped"]} == {
        ("folder", ""),
        ("procedure", ""),
        ("finding", ""),
    }


def test_annotations_are_codes_and_coordinates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clear(monkeypatch)
    root = kumc_tree(tmp_path / "raw")
    plant(root, {"val2019/Annotation/1/3.xml": voc(polyp(4, 5, 30, 40, name="KANARIE Vogel"))})
    made = build(dataclasses.replace(load_source("kumc"), privacy="private"), root, tmp_path / "c", CONFIG, names=NAMES)
    rows = made.table("annotations").to_pylist()
    assert {row["value"] for row in rows} > {""} and {(row["raw"], row["origin"]) for row in rows} == {("", "")}
    assert made.descriptor["unmapped"] == [{"name": "finding", "raw": "", "recordings": 1}]
    assert audit_corpus(made.root, SOUGHT) == ()


def test_consent_that_is_not_said_is_none(corpus: Corpus) -> None:
    """An empty cell, a no, and an examination that the table does not name."""
    reasons = [row["reason"] for row in corpus.table("excluded").to_pylist() if row["unit"] == "recording"]
    assert reasons.count("no_consent") == 3


def test_a_table_that_cannot_be_read_may_have_denied_consent(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    shutil.copytree(tree / "colonoscope" / "KANARIE Vogel_2021", root / "colonoscope" / "KANARIE Vogel_2021")
    (root / "labels.csv").write_bytes(TABLE.encode("gbk"))
    made = made_of(root, tmp_path / "c", NAMES)
    assert [row["reason"] for row in made.table("excluded").to_pylist()].count("no_consent") == 2
    assert audit_corpus(made.root, SOUGHT) == ()


def test_ids_are_the_same_at_every_build_and_with_another_key_none_is(
    corpus: Corpus, tree: Path, tmp_path: Path
) -> None:
    again = made_of(tree, tmp_path / "again", NAMES)
    assert fingerprint(again.root) == fingerprint(corpus.root)
    secrets = [(each / ".build" / "secret").read_bytes() for each in (again.root, corpus.root)]
    assert secrets[0] != secrets[1], "what is addressed by files differs between work areas"
    for names in (KeyedNames(key=Key(b"k" * 32), site="ward"), KeyedNames(key=NAMES.key, site="other ward")):
        other = made_of(tree, tmp_path / names.site / names.key.kid, names)
        assert len(ids_of(other)) == len(ids_of(corpus)) and not ids_of(other) & ids_of(corpus)


def test_files_that_come_and_go_do_not_change_the_ids_of_others(corpus: Corpus, tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    exam = root / "colonoscope" / "KANARIE Vogel_2021"
    shutil.copytree(tree / "colonoscope" / "KANARIE Vogel_2021", exam)
    shutil.copy(tree / "labels.csv", root)
    write_video(root / "AAA.mp4", 25, size=(64, 48))
    fewer = made_of(root, tmp_path / "c", NAMES)
    kept = {row["recording_id"] for row in fewer.table("recordings").to_pylist()}
    assert len(kept) == 2 and kept <= {row["recording_id"] for row in corpus.table("recordings").to_pylist()}


def test_a_vault_gives_random_ids_and_alone_leads_back(corpus: Corpus, tree: Path, tmp_path: Path) -> None:
    for attempt in ("one", "two"):
        with names_of(RENJI, Secrets(vault=tmp_path / "vault"), "renji", [tree]) as names:
            assert names is not None
            made = made_of(tree, tmp_path / attempt, names)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
    assert not ids_of(made) & ids_of(corpus) and made.descriptor["ids"] == "random"
    assert audit_corpus(made.root, SOUGHT) == ()
    with open_vault(tmp_path / "vault") as vault:
        for row in made.table("recordings").to_pylist():
            path = original_path(vault, row["recording_id"][-26:])
            assert path is not None and (tree / path).is_file()


def test_the_work_area_is_addressed_under_a_secret(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made clips have no name that who holds a recording could compute: two work areas name them differently."""
    named: dict[str, set[str]] = {}
    clear(monkeypatch)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("endocorpus.build._refuse_lost_root", stop)  # when all is encoded, before it is packed
    for out in ("a", "b", "a"):
        with pytest.raises(KeyboardInterrupt):
            build(RENJI, tree, tmp_path / out, CONFIG, names=NAMES)
        folders = {path.name for path in (tmp_path / out / ".build" / "encoded").iterdir()}
        assert len(folders) == 3 and named.setdefault(out, folders) == folders, "found again by the next build"
        assert audit_corpus(tmp_path / out, SOUGHT) == ()
    assert not named["a"] & named["b"]
    secret = tmp_path / "a" / ".build" / "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600 and len(secret.read_bytes()) == 32


def said_by(*args: object) -> bytes:
    done = run(*args)
    return (done.stdout + done.stderr).encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("secret", ["key", "vault"])
def test_commands_say_no_name(secret: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clear(monkeypatch)
    (tmp_path / "safe").mkdir()
    file, out = tmp_path / "safe" / secret, tmp_path / "renji"
    if secret == "key":
        assert run("deid", "new-key", file).exit_code == 0
    common = ("--source", "renji", "--root", tree, f"--{secret}", file)
    settings = ("--set", "segment.clip_seconds=1.0", "--workers", 1)
    told = [said_by("scan", *common), said_by("scan", *common, "--json")]
    told += [said_by("plan", *common, *settings, *more, "--out", out) for more in ((), ("--json",))]
    told += [said_by("scan", *common, "--strict"), said_by("build", *common, *settings, "--strict", "--out", out)]
    done = run("build", *common, *settings, "--out", out)
    told += [done.output.encode(), *(said_by(command, out, *more) for command in ("info", "report", "verify")
                                     for more in ((), ("--json",)))]  # fmt: skip
    assert done.exit_code == 0 and all(told)
    for number, words in enumerate(told):
        (tmp_path / "told").mkdir(exist_ok=True)
        (tmp_path / "told" / f"{number}.txt").write_bytes(words)
    assert audit_corpus(tmp_path / "told", SOUGHT) == () and audit_corpus(out, SOUGHT) == ()
    planned = {row["recording"] for row in json.loads(told[3])["recordings"]}
    assert planned == set(open_corpus(out).table("recordings")["recording_id"].to_pylist())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "say --key FILE"),
        (("--key", "{safe}/none"), "cannot be opened"),
        (("--key", "{safe}/key", "--vault", "{safe}/vault"), "say one of them"),
        (("--key", "{safe}/key", "--site", " "), "--site"),
        (("--key", "{raw}/key"), "shared or scanned"),
        (("--key", "{out}/key"), "shared or scanned"),
        (("--vault", "{raw}/vault"), "shared or scanned"),
        (("--vault", "{out}/vault"), "shared or scanned"),
    ],
)
def test_a_private_build_without_a_proper_secret_writes_nothing(
    options: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    places = {name: tmp_path / name for name in ("safe", "raw", "out")}
    for folder in places.values():
        folder.mkdir()
        new_key(folder / "key")
    write_video(places["raw"] / "a.mp4", 25, size=(64, 48))
    given = [option.format(**places) for option in options]
    before = set(tmp_path.rglob("*"))
    for command in ("build", "plan"):
        done = run(command, "--source", "folder", "--root", places["raw"], "--out", places["out"], *given)
        assert done.exit_code == 2 and told in done.stderr
    assert set(tmp_path.rglob("*")) == before
    with pytest.raises(UsageError, match="--key FILE"):
        build(FOLDER, places["raw"], places["out"], CONFIG)


def test_a_secret_is_refused_for_a_public_source(tmp_path: Path) -> None:
    write_video(tmp_path / "raw" / "a.mp4", 25, size=(64, 48))
    public = ("--source", "folder", "--privacy", "public", "--root", tmp_path / "raw")
    done = run("build", *public, "--out", tmp_path / "c", "--key", tmp_path / "key")
    assert done.exit_code == 2 and "--key is for private recordings" in done.stderr
    made = build(PUBLIC, tmp_path / "raw", tmp_path / "c", CONFIG, names=NAMES)
    assert made.table("recordings")["recording_id"].to_pylist() == [make_id("folder", "a.mp4")]
    assert made.descriptor["ids"] == "as published" and not (made.root / ".build" / "secret").exists()


def test_another_key_does_not_replace_a_corpus_by_accident(corpus: Corpus, tree: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(corpus.root, tmp_path / "c")
    with cleared(), pytest.raises(UsageError, match="--key"):
        build(RENJI, tree, copy, CONFIG, names=KeyedNames(key=Key(b"k" * 32), site="ward"))
    assert fingerprint(copy) == fingerprint(corpus.root)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "KANARIE Vogel.mp4"), KeyError("KANARIE Vogel")])
def test_faults_tell_no_name(error: Exception, tree: Path) -> None:
    with pytest.raises((OSError, DataError)) as told, names_of(RENJI, Secrets(key=_key(tree)), "c", [tree]):
        raise error
    assert "KANARIE" not in f"{told.value}" and told.value.__cause__ is None
    assert "KeyError" in str(told.value) or "Input/output" in str(told.value)


def _key(tree: Path) -> Path:
    path = tree.parent / "key"
    if not path.exists():
        new_key(path)
    return path


def test_keys_are_made_and_destroyed(tmp_path: Path) -> None:
    key, signing = tmp_path / "key", tmp_path / "signing"
    made = run("deid", "new-key", key)
    kid = re.findall(r"new key ([0-9a-f]{16})", made.stdout)[0]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert run("deid", "new-key", key).exit_code == 2, "never written over"
    assert run("deid", "destroy-key", key, "--kid", "0" * 16).exit_code == 2 and key.exists()
    assert run("deid", "destroy-key", key, "--kid", kid).exit_code == 0 and not key.exists()
    signed = run("deid", "new-signing-key", signing)
    assert re.search(r"public half is [0-9a-f]{64}$", signed.stdout.strip())
    assert signing.read_bytes().hex() not in signed.stdout and stat.S_IMODE(signing.stat().st_mode) == 0o600


def test_every_recording_is_refused_for_a_reason_without_a_value(corpus: Corpus) -> None:
    rows = [Exclusion(**row) for row in corpus.table("excluded").to_pylist()]
    reasons = {row.reason for row in rows}
    assert {Reason.NOT_A_VIDEO, Reason.UNREADABLE, Reason.FRAME_GAP, Reason.NO_PARTNER} <= reasons
    assert Reason.UNEXPECTED_FILE in reasons
