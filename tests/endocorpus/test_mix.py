"""Mixtures and splits on real corpora of rendered trees, whose shared recordings are known."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from endocorpus.build import build
from endocorpus.census import open_all, take_census
from endocorpus.cli_facts import _mix_table
from endocorpus.config import BuildConfig
from endocorpus.corpus.manifest import open_corpus, parquet_bytes, parse_parquet
from endocorpus.corpus.mixes import mix_bytes, read_mix
from endocorpus.corpus.schema import MIX, MIX_EXCLUDED, SIDES
from endocorpus.corpus.splits import SPLITS, Row, assign, load_split
from endocorpus.errors import DataError, UsageError
from endocorpus.heldout import held_out
from endocorpus.leaks import leak_group
from endocorpus.mix import Chosen, choose, load_mix
from endocorpus.naming import make_id
from endocorpus.phantom import render_source
from endocorpus.settings import load_settings
from endocorpus.sides import divide
from endocorpus.sources import load_source
from tests.endocorpus.conftest import fingerprint
from tests.endocorpus.test_cli import error_line, run
from tests.endocorpus.test_traps import sun
from tests.media import write_frames

# How many recordings of each tree: as few as hold what one source plants of another.
RECORDINGS = {"ldpolypvideo": 5, "polypdiag": 6, "cvc-12k": 7, "colonoscopic": 2, "kumc": 4}
Corpora = Mapping[str, Path]


def built(root: Path, out: Path, source: str, *settings: str, name: str | None = None) -> Path:
    config = load_settings(BuildConfig, overrides=["encode.preset=ultrafast", *settings])
    declared = load_source(source, "public" if source == "folder" else None)
    return build(declared, root, out, config, name=name).root


@pytest.fixture(scope="session")
def raw_trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of each source below one folder. Do not change it: copy it."""
    folder = tmp_path_factory.mktemp("trees")
    for source, recordings in RECORDINGS.items():
        render_source(source, folder / source, seed=5, seconds=0.6, size=(96, 80), recordings=recordings)
    return folder


@pytest.fixture(scope="session")
def corpora(raw_trees: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    """A corpus of each, cut as the mixture wants it; "mine" holds a copy of a video of Colonoscopic under another
    name. Do not change them."""
    folder = tmp_path_factory.mktemp("corpora")
    cut = "segment.policy=endofm150"
    found = {source: built(raw_trees / source, folder / source, source, cut) for source in RECORDINGS}
    mine = folder / "raw-mine"
    mine.mkdir()
    shutil.copy(raw_trees / "colonoscopic/Adenoma/adenoma_01/videos/NBI.mp4", mine / "case 9.mp4")
    found["mine"] = built(mine, folder / "mine", "folder", cut, name="mine")
    return found


def mixed(corpora: Corpora, *names: str, without: str = "", against: str = "", drop: bool = False) -> Chosen:
    return choose(
        load_mix("endofm-pretrain"),
        [corpora[name] for name in names],
        without=[held_out(without)] if without else (),
        against=[corpora[against]] if against else (),
        drop_overlaps=drop,
    )


def kept(chosen: Chosen) -> set[str]:
    return {choice.entry.name for choice in chosen.choices if choice.reason is None}


def reasons(chosen: Chosen) -> dict[str, tuple[str | None, str | None]]:
    """(reason, certainty) of what is left out, by the recording's name."""
    return {
        choice.entry.name: (choice.reason, choice.finding.certainty if choice.finding else None)
        for choice in chosen.choices
        if choice.reason is not None
    }


def test_corpora_know_the_names_that_splits_and_edges_go_by(corpora: Corpora) -> None:
    entries = take_census(open_all(corpora.values()))
    names = {(entry.source, entry.name): entry.group for entry in entries}
    assert names["ldpolypvideo", "1_7"] == names["polypdiag", "1_7"] == "ldpolypvideo/1_7"
    assert names["cvc-12k", "clinicdb-01"] == "cvc-12k/clinicdb-01"
    assert names["colonoscopic", "adenoma_01-WL"] == "colonoscopic/adenoma_01"
    assert all(make_id(*entry.group.split("/", 1)) == entry.group_id for entry in entries if entry.source != "folder")
    together = {entry.component for entry in entries if entry.source == "colonoscopic" or entry.corpus == "mine"}
    assert len(together) == 1, "a clip of equal bytes is the same recording, whatever its name"
    assert len({entry.component for entry in entries}) == len({entry.group for entry in entries}) - 1


def test_the_mixture_takes_what_its_rows_name(corpora: Corpora) -> None:
    chosen = mixed(corpora, "ldpolypvideo", "kumc", "colonoscopic")
    rows = chosen.clip_rows()
    assert [row["row"] for row in rows] == ["Colonoscopic"] * 2 + ["LDPolypVideo"] * 4
    assert kept(chosen) == {"adenoma_01-WL", "adenoma_01-NBI", "1", "10", "2", "101"}
    out = reasons(chosen)
    assert out.pop("1_7") == ("not-in-mixture", None) and set(out.values()) == {("not-in-mixture", None)}
    clips = {row["key"]: row for name in corpora for row in open_corpus(corpora[name]).clips().to_pylist()}
    for row in rows:
        same = ("source", "recording_id", "leak_group", "num_frames", "mp4_xxh3_128")
        assert all(row[column] == clips[row["key"]][column] for column in same) and row["repeats"] == 1
    assert len(chosen.choices) == sum(RECORDINGS[name] for name in ("ldpolypvideo", "kumc", "colonoscopic"))


def test_everything_that_polypdiag_may_show_goes_without_a_corpus_of_it(corpora: Corpora) -> None:
    chosen = mixed(corpora, "ldpolypvideo", "colonoscopic", without="polypdiag")
    out = reasons(chosen)
    assert out["101"] == ("leak", "computed")
    assert {name: out[name] for name in ("1", "2", "10")} == dict.fromkeys(("1", "2", "10"), ("leak", "unverified"))
    assert kept(chosen) == {"adenoma_01-WL", "adenoma_01-NBI"}
    evidence = [row["evidence"] for row in chosen.excluded_rows() if row["subject"] == "ldpolypvideo-101"]
    assert str(evidence[0]).startswith("polypdiag/101: The frame labels of PolypDiag")


def test_of_the_test_side_only_what_a_corpus_puts_there_or_does_not_know(corpora: Corpora) -> None:
    blind = mixed(corpora, "ldpolypvideo", without="polypdiag-official")
    assert not kept(blind)
    seeing = mixed(corpora, "ldpolypvideo", without="polypdiag-official", against="polypdiag")
    assert kept(seeing) == {"2"}, "2 validates, 101 tests, and nothing tells of 1 and 10"
    validating = mixed(corpora, "ldpolypvideo", without="polypdiag-official:val", against="polypdiag")
    assert reasons(validating)["2"] == ("leak", "unverified") and "101" in kept(validating)
    assert any("README of PolypDiag" in warning for warning in seeing.warnings)
    dropped = mixed(corpora, "ldpolypvideo", without="polypdiag-official", against="polypdiag", drop=True)
    assert reasons(dropped)["2"] == ("set-overlap", "verified")
    assert not any("may share" in warning for warning in dropped.warnings)


def test_a_corpus_without_the_lists_frees_nothing(corpora: Corpora, raw_trees: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(raw_trees / "polypdiag", tmp_path / "raw", ignore=shutil.ignore_patterns("splits")))
    found = {**corpora, "polypdiag": built(tree, tmp_path / "c", "polypdiag", "segment.policy=endofm150")}
    chosen = mixed(found, "ldpolypvideo", without="polypdiag-official", against="polypdiag")
    assert not kept(chosen)
    assert any("no corpus at hand tells which cases of polypdiag" in warning for warning in chosen.warnings)


def test_a_set_that_is_contained_goes_as_a_whole(corpora: Corpora) -> None:
    chosen = mixed(corpora, "colonoscopic", "ldpolypvideo", without="kumc-official:val")
    assert kept(chosen) == {"1", "2", "10", "101"}
    assert reasons(chosen)["adenoma_01-WL"] == ("set-leak", "third-party")
    assert any("no corpus at hand tells which cases of kumc" in warning for warning in chosen.warnings)
    known = mixed(corpora, "colonoscopic", without="kumc-official:val", against="kumc")
    assert not any("no corpus at hand" in warning for warning in known.warnings)


def test_a_side_of_the_same_source_goes_and_its_doubts_are_told(corpora: Corpora) -> None:
    chosen = mixed(corpora, "ldpolypvideo", without="ldpolypvideo-official")
    assert kept(chosen) == {"1", "2", "10"}
    assert [w for w in chosen.warnings if "several numbers may be one patient" in w]


def test_copies_are_found_by_their_bytes(corpora: Corpora) -> None:
    chosen = mixed(corpora, "colonoscopic", without="folder", against="mine")
    assert not kept(chosen), "both lights of the lesion are one group"
    assert set(reasons(chosen).values()) == {("leak", "computed")}
    assert kept(mixed(corpora, "colonoscopic")) == {"adenoma_01-WL", "adenoma_01-NBI"}


def test_copies_are_found_however_they_were_cut(corpora: Corpora, tmp_path: Path) -> None:
    raw = corpora["mine"].parent / "raw-mine"
    cut = built(raw, tmp_path / "c", "folder", "segment.clip_seconds=0.3", "segment.min_seconds=0.1", name="cut")
    clips = [set(open_corpus(root).clips()["mp4_xxh3_128"].to_pylist()) for root in (cut, corpora["mine"])]
    assert not clips[0] & clips[1]
    chosen = mixed({**corpora, "cut": cut}, "colonoscopic", without="folder", against="cut")
    assert not kept(chosen) and set(reasons(chosen).values()) == {("leak", "computed")}


def test_only_the_right_cut_can_be_compared(corpora: Corpora, raw_trees: Path, tmp_path: Path) -> None:
    seconds = built(raw_trees / "colonoscopic", tmp_path / "c", "colonoscopic", "segment.min_seconds=0.5", name="other")
    result = run("mix", "endofm-pretrain", "--corpus", seconds, "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1 and "no clip is left" in error_line(result)
    assert told["left_out"][0]["reason"] == "segmentation" and "policy=seconds" in told["left_out"][0]["evidence"]
    row = told["rows"][0]
    assert row["found"]["clips"] == 0 and "build with --set segment.policy=endofm150" in row["remark"]
    both = run("mix", "endofm-pretrain", "--corpus", seconds, "--corpus", corpora["colonoscopic"], "--json")
    assert both.exit_code == 0, "only one of the two is cut right, so nothing is there twice"


def test_one_recording_in_two_corpora_is_refused(corpora: Corpora, raw_trees: Path, tmp_path: Path) -> None:
    twin = built(raw_trees / "colonoscopic", tmp_path / "t", "colonoscopic", "segment.policy=endofm150", name="twin")
    with pytest.raises(DataError, match="'colonoscopic' and 'twin' both hold colonoscopic 'adenoma_01-NBI'"):
        choose(load_mix("endofm-pretrain"), [twin, corpora["colonoscopic"]])


def test_a_corpus_that_is_named_twice_counts_once(corpora: Corpora, tmp_path: Path) -> None:
    once = mixed(corpora, "ldpolypvideo", without="ldpolypvideo-official")
    (tmp_path / "link").symlink_to(corpora["ldpolypvideo"])
    twice = choose(
        load_mix("endofm-pretrain"),
        [corpora["ldpolypvideo"], corpora["ldpolypvideo"]],
        without=[held_out("ldpolypvideo-official")],
        against=[tmp_path / "link"],
    )
    assert twice.clip_rows() == once.clip_rows() and twice.excluded_rows() == once.excluded_rows()
    other = Path(shutil.copytree(corpora["ldpolypvideo"], tmp_path / "copy"))
    with pytest.raises(DataError, match="is named twice"):
        choose(load_mix("endofm-pretrain"), [corpora["ldpolypvideo"], other])


def test_nothing_is_written_into_a_corpus(corpora: Corpora, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(corpora["ldpolypvideo"], tmp_path / "c"))
    before = fingerprint(corpus)
    (tmp_path / "link").symlink_to(corpus / "shards")
    for args in (
        ("mix", "endofm-pretrain", "--corpus", corpus, "--out", corpus / "clips.parquet"),
        ("mix", "endofm-pretrain", "--corpus", corpus, "--out", tmp_path / "link" / "x.parquet"),
        ("splits", "ldpolypvideo-official", "--corpus", corpus, "--out", corpus / "recordings.parquet"),
        ("report", corpus, "--out", corpus / "corpus.json"),
    ):
        result = run(*args)
        assert result.exit_code == 2 and "which only a build may write" in error_line(result)
    assert fingerprint(corpus) == before


def test_owners_may_use_one_name_for_two_things(raw_trees: Path, corpora: Corpora, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    shutil.copy(raw_trees / "colonoscopic/Adenoma/adenoma_01/videos/WL.mp4", tmp_path / "raw" / "case 9.mp4")
    theirs = built(tmp_path / "raw", tmp_path / "theirs", "folder", "segment.policy=endofm150", name="theirs")
    (tmp_path / "own.toml").write_text('title = "x"\n[[row]]\ntitle = "a"\nsource = "folder"\n')
    chosen = choose(load_mix(str(tmp_path / "own.toml")), [theirs, corpora["mine"]])
    assert [row["corpus"] for row in chosen.clip_rows()] == ["mine", "theirs"]


def test_the_command_writes_the_same_bytes_in_any_order(corpora: Corpora, tmp_path: Path) -> None:
    names = ("ldpolypvideo", "colonoscopic", "cvc-12k")
    for out, order in (("a", names), ("b", names[::-1])):
        given = [word for name in order for word in ("--corpus", corpora[name])]
        leaks = ("--without-leaks", "ldpolypvideo-official", "--without-leaks", "cvc-12k")
        result = run("mix", "endofm-pretrain", *given, *leaks, "--out", tmp_path / f"{out}.parquet")
        assert result.exit_code == 0, result.output
        assert "differs: 233 fewer than there should be" in result.stdout and "no corpus of sun" in result.stdout
        assert "warning: ldpolypvideo-official may share cases" in result.stderr
        assert "Needs frames that SUN-SEG's script has re-organised" in result.stdout
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert (tmp_path / "a.excluded.parquet").read_bytes() == (tmp_path / "b.excluded.parquet").read_bytes()
    written = read_mix(tmp_path / "a.parquet")
    assert written.table.schema.names == MIX.names and len(written.table) == 5
    assert written.about["without_leaks"] == ["cvc-12k", "ldpolypvideo-official"]
    excluded = parse_parquet((tmp_path / "a.excluded.parquet").read_bytes())
    assert excluded.schema.names == MIX_EXCLUDED.names
    assert excluded["reason"].to_pylist().count("leak") == 1 and all(excluded["evidence"].to_pylist())
    assert len(excluded) + len(set(written.table["recording_id"].to_pylist())) == sum(RECORDINGS[n] for n in names)


def test_every_number_of_a_mixture_stands_under_what_it_counts() -> None:
    steps = {step: {"clips": i, "frames": 1000 + i} for i, step in enumerate(("found", "kept", "published"))}
    header, [cells] = _mix_table([{"row": "a", "status": "exact", "remark": "", **steps}])
    assert len(set(header)) == len(header) == len(cells)
    told = {tuple(head.split()): cell for head, cell in zip(header, cells, strict=True)}
    assert all(told[what, step] == f"{n:,}" for step, sums in steps.items() for what, n in sums.items())


def test_a_mixture_of_ones_own_has_repeats(corpora: Corpora, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'title = "Mine"\n[[row]]\ntitle = "a"\nsource = "folder"\nrepeats = 3\n'
        '[[row]]\ntitle = "b"\nsource = "kumc"\nlabels = { official_split = "train" }\n'
    )
    chosen = choose(load_mix(str(own)), [corpora["kumc"], corpora["mine"]])
    rows = chosen.clip_rows()
    assert [(row["row"], row["repeats"]) for row in rows] == [("a", 3), ("b", 1), ("b", 1)]
    assert {row["recording_id"] for row in rows[1:]} == {"kumc-train-adenoma-01", "kumc-train-cvc-1"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('title = "x"\nrow = []\n', "at least 1 item"),
        ('title = "x"\n[[row]]\ntitle = "a"\nsource = "sunny"\n', "there is no source 'sunny'; did you mean 'sun'"),
        ('title = "x"\n[[row]]\ntitle = "a"\nsource = "sun"\nwhere = "("\n', "not a regular expression"),
        ('title = "x"\n[[row]]\ntitle = "a"\nsource = "sun"\nrepeats = 0\n', "greater than or equal to 1"),
        ('title = "x"\n' + '[[row]]\ntitle = "a"\nsource = "sun"\n' * 2, "two rows have one title"),
        ('title = "x"\n[[row]]\ntitle = "a"\nsource = "sun"\nrepeat = 2\n', "row.0.repeat"),
    ],
)
def test_a_malformed_mixture_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=problem):
        load_mix(str(path))


def test_a_recording_in_two_rows_is_refused(corpora: Corpora, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('title = "x"\n' + "".join(f'[[row]]\ntitle = "{t}"\nsource = "kumc"\n' for t in "ab"))
    with pytest.raises(UsageError, match="'a' and 'b' both take the recording kumc-"):
        choose(load_mix(str(path)), [corpora["kumc"]])


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("all",), "neither a file nor a mixture; there is: endofm-pretrain"),
        (("endofm-pretrain", "--without-leaks", "polyp"), "neither a source nor a split"),
        (("endofm-pretrain", "--without-leaks", "polypdiag:test"), "a source has no sides"),
        (("endofm-pretrain", "--without-leaks", "kumc-official:tset"), "no side 'tset'; say kumc-official:train or"),
        (("endofm-pretrain", "--without-leaks", "kvasir-capsule-official"), "say kvasir-capsule-official:split_0 or"),
        (("endofm-pretrain", "--against", "{kumc}"), "--without-leaks names nothing of that source"),
        (("endofm-pretrain", "--out", "mix.csv"), "must end in .parquet"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(args: tuple[str, ...], problem: str, corpora: Corpora) -> None:
    given = [str(corpora["kumc"]) if arg == "{kumc}" else arg for arg in args]
    result = run("mix", *given, "--corpus", corpora["colonoscopic"])
    assert result.exit_code == 2 and problem in error_line(result)


def mix_rows(**columns: Any) -> list[dict[str, Any]]:
    row = dict.fromkeys(("corpus", "row", "source", "recording_id", "leak_group"), "x")
    return [
        {**row, "key": f"k{i}", "num_frames": 9, "repeats": 1, "mp4_xxh3_128": f"{i:032x}", **columns} for i in (1, 2)
    ]


def test_a_damaged_mixture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    whole = mix_bytes(mix_rows(), {"title": "x"})
    path.write_bytes(whole)
    good = read_mix(path)
    assert good.about == {"title": "x"} and good.table.to_pylist() == mix_rows()
    for at in range(3, len(whole), len(whole) // 97):
        data = bytearray(whole)
        data[at] ^= 16
        path.write_bytes(data)
        try:
            survived = read_mix(path)
        except DataError as refused:
            assert str(path) in str(refused)
        else:  # a byte that says nothing, such as one of a statistic
            assert survived.table.equals(good.table) and survived.about == good.about
    edited = good.table.set_column(7, "repeats", pa.array([1, 2], pa.int32()))
    about = {key.decode(): value.decode() for key, value in good.table.schema.metadata.items()}
    path.write_bytes(parquet_bytes(edited, about))
    with pytest.raises(DataError, match="damaged or edited"):
        read_mix(path)
    path.write_bytes(mix_bytes(mix_rows(repeats=0), {}))
    with pytest.raises(DataError, match="less than once"):
        read_mix(path)
    path.write_bytes(parquet_bytes(good.table))
    with pytest.raises(DataError, match="not a mixture, or damaged"):
        read_mix(path)
    with pytest.raises(UsageError, match="No such file"):
        read_mix(tmp_path / "none.parquet")


def test_splits_are_listed_and_shown() -> None:
    listed = json.loads(run("splits", "--json").stdout)
    assert [each["name"] for each in listed] == list(SPLITS) and {"name", "task", "source", "leaky", "note"} <= set(
        listed[0]
    )
    table = run("splits").stdout
    assert all(name in table for name in SPLITS) and max(map(len, table.splitlines())) <= 100 and "(" not in table
    shown = json.loads(run("splits", "kumc-official", "--json").stdout)
    assert shown["by_label"] == "official_split" and not shown["leaky"]
    assert "train2019, val2019" in run("splits", "kumc-official").stdout
    detail = {line.split("  ")[0]: line for line in run("splits", "cvc-endofm-as-published").stdout.splitlines()}
    assert "train: clinicdb-(02|03|" in detail["sides"] and "by label" not in detail
    assert run("splits", "kumc").exit_code == 2


def test_a_split_of_a_corpus_is_counted_and_written(corpora: Corpora, tmp_path: Path) -> None:
    out = tmp_path / "sides.parquet"
    result = run("splits", "ldpolypvideo-official", "--corpus", corpora["ldpolypvideo"], "--json", "--out", out)
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["leaks"] == []
    assert {side: found["units"] for side, found in told["sides"].items()} == {"train": 3, "test": 1}
    assert told["no_side"]["names"] == ["1_7"] and told["no_side"]["clips"] == 1
    table = parse_parquet(out.read_bytes())
    clips = {row["key"]: row for row in open_corpus(corpora["ldpolypvideo"]).clips().to_pylist()}
    assert table.schema.names == SIDES.names
    assert {row["unit"]: row["side"] for row in table.to_pylist()} == {
        "1": "train", "2": "train", "10": "train", "101": "test"
    }  # fmt: skip
    assert all(clips[row["key"]]["leak_group"] == row["leak_group"] for row in table.to_pylist())
    frames = sum(found["frames"] for found in (*told["sides"].values(), told["no_side"]))
    assert frames == sum(row["num_frames"] for row in clips.values())


def test_a_split_falls_as_it_does_without_a_corpus(corpora: Corpora) -> None:
    told = json.loads(run("splits", "cvc-endocorpus", "--corpus", corpora["cvc-12k"], "--json").stdout)
    names = [entry.name for entry in take_census(open_all([corpora["cvc-12k"]]))]
    rows = [Row(recording=name, case=name, leak_group=leak_group("cvc-12k", name)) for name in names]
    plain = [side for sides in assign(load_split("cvc-endocorpus"), rows).values() for side in sides]
    assert {side: found["units"] for side, found in told["sides"].items()} == Counter(plain)
    published = json.loads(run("splits", "cvc-endofm-as-published", "--corpus", corpora["cvc-12k"], "--json").stdout)
    assert published["leaky"] and bool(published["leaks"]) == ("clinicdb-10" in names)


def test_a_leak_that_nobody_told_of_ends_in_exit_code_1(raw_trees: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(raw_trees / "kumc", tmp_path / "kumc"))
    shutil.copytree(tree / "val2019/Image/1", tree / "test2019/Image/77")  # the same pictures under another number
    corpus = built(tree, tmp_path / "c", "kumc", "segment.policy=endofm150")
    out = tmp_path / "sides.parquet"
    result = run("splits", "kumc-official", "--corpus", corpus, "--out", out)
    assert result.exit_code == 1 and "1 leak group on more than one side" in error_line(result)
    assert "val: val-1; test: test-77" in result.stdout and not out.exists()


def test_a_copy_in_another_corpus_leaks(corpora: Corpora, raw_trees: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(raw_trees / "kumc", tmp_path / "kumc"))
    shutil.move(tree / "val2019/Image/1", tree / "test2019/Image/77")
    other = built(tree, tmp_path / "c", "kumc", "segment.policy=endofm150", name="other")
    alone = [run("splits", "kumc-official", "--corpus", folder) for folder in (other, corpora["kumc"])]
    assert [result.exit_code for result in alone] == [0, 0]
    result = run("splits", "kumc-official", "--corpus", other, "--corpus", corpora["kumc"])
    assert result.exit_code == 1 and "1 leak group on more than one side" in error_line(result)
    assert "val: val-1; test: test-77" in result.stdout


def sun_corpus(folder: Path, name: str, exams: Mapping[str, str], *, damaged: str = "") -> Path:
    """A corpus of SUN cases ("pos1", "neg1") with their examinations; one picture of a damaged case is cut short."""
    for number, (case, exam) in enumerate(exams.items()):
        below = folder / f"{name}.raw" / {"pos": "SUN-Positive", "neg": "SUN-Negative"}[case[:3]] / f"case{case[3:]}"
        start = 100 * int(case[3:]) + 10 * number + (50 if case[0] == "n" else 0)  # no two show the same
        write_frames(below, range(start, start + 10), size=(64, 48), name=sun(1, 1, exam=exam)[:-4] + "{:04d}.jpg")
        if case == damaged:
            picture = sorted(below.iterdir())[5]
            picture.write_bytes(picture.read_bytes()[:-200])
    return built(folder / f"{name}.raw", folder / name, "sun", "segment.policy=endofm150", name=name)


def test_an_examination_is_one_group_in_whichever_corpora_it_lies(tmp_path: Path) -> None:
    split, named = load_split("sun-endocorpus"), {"pos1": "pos-case1", "neg1": "neg-case1"}
    dealt = assign(split, [Row(recording=n, case=n, leak_group=f"sun/{n}") for n in named.values()])
    assert dealt == {"pos-case1": ("train",), "neg-case1": ("test",)}, "by their names alone they part"
    one = sun_corpus(tmp_path, "one", dict.fromkeys(named, "XYZ"))
    apart = [sun_corpus(tmp_path, case, {case: "XYZ"}) for case in named]
    together = divide(split, [one])
    divided = divide(split, apart)
    assert divided.sides == together.sides and len(set(divided.sides.values())) == 1 and not divided.leaks
    (tmp_path / "own.toml").write_text('title = "x"\n[[row]]\ntitle = "a"\nsource = "sun"\n')
    (side,) = divided.sides["pos-case1"]
    chosen = choose(
        load_mix(str(tmp_path / "own.toml")), apart[:1], without=[held_out(f"sun-endocorpus:{side}")], against=apart[1:]
    )
    assert not kept(chosen)


def test_a_group_keeps_its_name_without_the_recording_that_gave_it(tmp_path: Path) -> None:
    lossy = sun_corpus(tmp_path, "lossy", {"pos20": "XYZ", "pos99": "XYZ"}, damaged="pos20")
    whole = sun_corpus(tmp_path, "whole", {"pos20": "OTHER"})
    (found,) = take_census(open_all([lossy]))
    assert (found.name, found.group, found.row().leak_group) == ("pos-case99", "sun/pos-case20", "sun/pos-case20")
    both = take_census(open_all([lossy, whole]))
    assert len({entry.component for entry in both}) == 1
    divided = divide(load_split("sun-endocorpus"), [lossy, whole])
    assert divided.sides["pos-case20"] == divided.sides["pos-case99"] and not divided.leaks


def test_splits_refuse_what_does_not_belong(corpora: Corpora, tmp_path: Path) -> None:
    for args, problem in (
        (("kumc-official", "--corpus", corpora["cvc-12k"]), "holds cvc-12k, and the split is one of kumc"),
        (("--corpus", corpora["cvc-12k"]), "which split?"),
        (("kumc-official", "--out", tmp_path / "x.parquet"), "--out needs the clips of a --corpus"),
    ):
        result = run("splits", *args)
        assert result.exit_code == 2 and problem in error_line(result)
