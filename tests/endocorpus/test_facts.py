"""The reviewed facts: whole, well formed, and in agreement with each other and with the published counts."""

from __future__ import annotations

import csv
import re
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endocorpus.errors import DataError
from endocorpus.expect import _verdict
from endocorpus.leaks import leak_edges
from endocorpus.manifests import manifests_folder
from endocorpus.mix import MixRow, _remark
from endocorpus.records import Span
from endocorpus.segment import SegmentConfig, segment
from endocorpus.settings import load_settings
from endocorpus.sources import _source
from endocorpus.sources.layout import Expected, Source, Status, judge
from endocorpus.vocabulary import load_vocabulary, normalise, read_vocabulary

NAMES = sorted(path.stem for path in (manifests_folder() / "sources").glob("*.toml"))
PUBLISHED = SegmentConfig(policy="endofm150")
# Names of recordings as the sources' layouts give them; what `where` and the mixture's rows are tried on.
RECORDINGS = {
    "colonoscopic": ["adenoma_01-WL"],
    "sun": ["pos-case1", "neg-case13", "seg-case1_2", "seg-case4"],
    "ldpolypvideo": ["1", "160", "1_7", "0_12"],
    "hyper-kvasir": ["11305ea5-389a-46c8-95f3-94a1af84247d", "polypp 16"],
    "kvasir-capsule": ["bca26705313a4644"],
    "cholectriplet": ["t45-vid01", "t50-vid111"],
    "polypdiag": ["101"],
    "cvc-12k": ["clinicdb-01", "videodb-train-1", "videodb-test-5", "colondb"],
    "kumc": ["train-adenoma_1", "val-3", "test-24"],
    "renji": [f"renji-{'a2' * 13}"],
    "real-colon": ["001-001"],
}
DECLARED = set(RECORDINGS)  # every source but `folder`, which stands for any


def facts_of(name: str) -> dict[str, Any]:
    return tomllib.loads((manifests_folder() / "sources" / f"{name}.toml").read_text(encoding="utf-8"))


def rows_of(table: str) -> list[dict[str, str]]:
    with (manifests_folder() / "tables" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def mixture() -> dict[str, Any]:
    return tomllib.loads((manifests_folder() / "mixes" / "endofm-pretrain.toml").read_text(encoding="utf-8"))


def cut(lengths: list[int]) -> tuple[int, int]:
    """Clips and frames that the product's own rule gives."""
    spans = [span for length in lengths for span in segment(Span(start=0, stop=length), Fraction(30), PUBLISHED)]
    return len(spans), sum(map(len, spans))


def count_of(source: str, what: str) -> int:
    return int(facts_of(source)["expected"][what]["count"])


def test_there_are_facts_on_every_source() -> None:
    assert set(NAMES) == DECLARED | {"folder"}


@pytest.mark.parametrize("name", NAMES)
def test_a_facts_file_is_whole(name: str) -> None:
    facts = facts_of(name)
    source = _source(name, dict(facts), ())
    for key, hint in get_type_hints(Source).items():
        if allowed := [value for value in get_args(hint) if isinstance(value, str)]:
            assert getattr(source, key) in allowed, key
    text = [value for value in facts.values() if isinstance(value, str)]
    lines = [source.good_for, *source.traps, *source.unverified]
    assert source.title and source.provider and source.obtain and all(line and "\n" not in line for line in lines)
    assert source.traps and source.unverified, "somebody has been bitten, and something is assumed"
    assert all(value == value.strip() for value in [*text, *lines])
    if source.privacy == "public":
        assert source.citation and source.home.startswith("http") and source.year and source.vouched_by == "provider"
    if source.licence_status == "verified":
        assert source.licence_page, "a verified licence was read somewhere"
    if source.licence == "LicenseRef-unknown":
        assert source.licence_status == "unverified" and source.redistribution in ("no", "unknown")
    assert all(archive.name and (archive.url or "https://").startswith("https://") for archive in source.archives)
    load_settings(
        SegmentConfig, overrides=[f'{key}="{value}"' for key, value in source.defaults.get("segment", {}).items()]
    )
    assert set(source.defaults) <= {"segment"}


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_expected_counts_name_recordings_that_can_exist(name: str) -> None:
    source = _source(name, facts_of(name), ())
    for what, expected in source.expected.items():
        assert expected.count > 0 and expected.of and expected.status in get_args(get_type_hints(Expected)["status"])
        if expected.where is not None:
            assert any(re.fullmatch(expected.where, recording) for recording in RECORDINGS[name]), what


def test_vocabularies_are_well_formed() -> None:
    paths = sorted((manifests_folder() / "vocabularies").glob("*.toml"))
    assert {path.stem for path in paths} == DECLARED
    for path in paths:
        vocabulary = load_vocabulary(path.stem)
        assert vocabulary.version == 1 and vocabulary.codes
        for name, codes in vocabulary.codes.items():
            assert re.fullmatch(r"[a-z_]+", name)
            assert all(re.fullmatch(r"[a-z0-9_]+", code) for code in codes.values())
            assert all(normalise(alias) == alias for alias in codes)


def test_raw_strings_find_their_codes() -> None:
    hyper, capsule, sun = load_vocabulary("hyper-kvasir"), load_vocabulary("kvasir-capsule"), load_vocabulary("sun")
    assert hyper.code("finding", "retroflexed stomach,\xa0") == "retroflex_stomach"
    assert hyper.code("finding", "Stained lifted polyp") == hyper.code("finding", "stained  lifted polyp")
    assert hyper.code("finding", "human hand") == "out_of_patient"
    assert hyper.code("finding", "a word that nobody wrote") is None and hyper.code("colour", "polyp") is None
    for spellings in (
        ("ileocecal_valve", "Ileocecal valve", "Ileo-cecal valve"),
        ("blood_fresh", "Blood - fresh", "Blood"),
    ):
        assert {capsule.code("finding", raw) for raw in spellings} == {spellings[0]}
    assert sun.code("shape", "IIa(LST-NG)") == "iia_lst_ng" and sun.code("finding", "Invasive cancer (T1b)")
    assert load_vocabulary("folder").code("finding", "polyp") is None


def test_vocabularies_cover_the_tables() -> None:
    sun, cholec = load_vocabulary("sun"), load_vocabulary("cholectriplet")
    for row in rows_of("sun_polyps"):
        assert all(sun.code(n, row[c]) for n, c in (("shape", "shape"), ("site", "location"), ("finding", "pathology")))
    for row in rows_of("sunseg_positive_clips"):
        assert all(sun.code(n, row[c]) for n, c in (("shape", "Shape"), ("site", "Location")))
        assert sun.code("finding", row["Pathological diagnosis"])
    for row in rows_of("cholect_triplets"):
        parts = [cholec.code(name, row[name]) for name in ("instrument", "verb", "target")]
        assert cholec.code("triplet", row["id"]) == "_".join(map(str, parts))
    assert len(set(cholec.codes["triplet"].values())) == 100
    assert [len(set(cholec.codes[n].values())) for n in ("instrument", "verb", "target", "phase")] == [6, 10, 15, 7]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('version = 1\n[finding]\na = ["Polyp"]\nb = ["polyp ,"]\n', "'polyp ,' stands under both 'a' and 'b'"),
        ('version = 1\n[finding]\n"Big Polyp" = ["x"]\n', "the code 'Big Polyp' must be of a-z, 0-9 and _"),
        ("[finding]\n", "not a vocabulary"),
        ("version = \n", "not a vocabulary"),
    ],
)
def test_a_bad_vocabulary_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(problem)) as refused:
        read_vocabulary(path)
    assert str(path) in str(refused.value)


@given(st.text())
def test_normalising_twice_changes_nothing(raw: str) -> None:
    once = normalise(normalise(raw))
    assert normalise(once) == once
    assert normalise(f" {raw}\xa0, ") == normalise(raw)


def test_tables_add_up_to_the_expected_counts() -> None:
    positive = [int(row["Frames"]) for row in rows_of("sunseg_positive_clips")]
    negative = [int(row["Number of Frames"]) for row in rows_of("sunseg_negative_clips")]
    polyps = {row["case"]: int(row["n_frames"]) for row in rows_of("sun_polyps")}
    assert len(polyps) == count_of("sun", "polyp_recordings") == 100
    assert sum(polyps.values()) == sum(positive) == count_of("sun", "polyp_frames") == 49136
    assert len(positive) == count_of("sun", "sunseg_recordings") == 285
    assert sum(negative) == count_of("sun", "negative_frames") == 109554 and len(negative) == 728
    by_case = dict.fromkeys(polyps, 0)
    for row in rows_of("sunseg_positive_clips"):
        by_case[row["ID"].split("_")[0]] += int(row["Frames"])
    assert by_case == polyps, "SUN-SEG's clips are the frames of SUN, case by case"

    labelled = rows_of("ldpolypvideo_lengths")
    assert len(labelled) == count_of("ldpolypvideo", "labelled_recordings") == 160
    assert sum(int(row["n_frames"]) for row in labelled) == count_of("ldpolypvideo", "labelled_frames") == 40186
    assert sum(int(row["n_polyp_frames"]) for row in labelled) == count_of("ldpolypvideo", "polyp_frames") == 33875

    ranges = rows_of("cvc_clinicdb_sequences")
    frames = [n for row in ranges for n in range(int(row["start"]), int(row["end"]) + 1)]
    assert len(ranges) == count_of("cvc-12k", "clinicdb_recordings") == 29
    assert frames == list(range(1, 613)) and len(frames) == count_of("cvc-12k", "clinicdb_frames")
    assert all(int(row["n"]) == int(row["end"]) - int(row["start"]) + 1 for row in ranges)


def test_published_clip_counts_come_out_of_our_own_rule() -> None:
    rows = {row["title"]: row for row in mixture()["row"]}

    ours = cut([int(row["n_frames"]) for row in rows_of("ldpolypvideo_lengths")])
    ldpolyp = rows["LDPolypVideo"]
    assert ours == (237, 40186) == (ldpolyp["paper_clips"], ldpolyp["paper_frames"])
    assert ours == (ldpolyp["clips"], ldpolyp["frames"])

    listed = [int(row["length"]) for row in rows_of("sunseg_endofm_list")]
    assert cut(listed) == (1018, 159415) and rows["SUN and SUN-SEG"]["paper_clips"] == 1018
    positive = [int(row["Frames"]) for row in rows_of("sunseg_positive_clips")]
    negative: dict[str, int] = {}
    for row in rows_of("sunseg_negative_clips"):
        case = row["Clip-ID"].split("_")[0]
        negative[case] = negative.get(case, 0) + int(row["Number of Frames"])
    whole = cut(positive + list(negative.values()))
    assert len(negative) == 13 and whole == (rows["SUN and SUN-SEG"]["clips"], rows["SUN and SUN-SEG"]["frames"])
    assert cut(positive)[0] == 293 and cut(list(negative.values()))[0] == 725

    seconds = [
        int(row["approx_seconds_third_party"]) for row in rows_of("cholec80_seconds_T45folds") if row["t45_fold"]
    ]
    assert len(seconds) == count_of("cholectriplet", "t45_recordings") == 45
    for off in (-1, 0, 1):  # lengths are known at second hand: a frame more or less must not matter
        assert cut([length + off for length in seconds])[0] == 580 == rows["CholecTriplet"]["clips"]


def test_the_mixture_is_table_1() -> None:
    mix = mixture()
    assert sum(row["paper_clips"] for row in mix["row"]) == mix["paper_clips"] == 32896
    assert sum(row["paper_frames"] for row in mix["row"]) == mix["paper_frames"] == 5024101
    for row in mix["row"]:
        assert row["source"] in DECLARED and row["note"] and row["status"] in ("exact", "approximate", "unverified")
        assert row["status"] != "exact" or row["clips"] == row["paper_clips"]
        assert any(re.fullmatch(row["where"], name) for name in RECORDINGS[row["source"]])
    rows = {row["title"]: re.compile(row["where"]) for row in mix["row"]}
    assert not rows["LDPolypVideo"].fullmatch("1_7") and not rows["CholecTriplet"].fullmatch("t50-vid01")
    assert not rows["SUN and SUN-SEG"].fullmatch("pos-case1")


def test_edges_join_sources_that_exist() -> None:
    assert {edge.a_source for edge in leak_edges()} | {edge.b_source for edge in leak_edges()} <= DECLARED


@pytest.mark.parametrize(
    ("status", "near", "far"),
    [("exact", "differs", "differs"), ("approximate", "agrees", "differs"), ("unverified", "unverified", "unverified")],
)
@given(expected=st.integers(100, 10**7), sign=st.sampled_from([-1, 1]))
def test_counts_are_judged_by_how_sure_the_expected_one_is(
    status: Status, near: str, far: str, expected: int, sign: int
) -> None:
    assert judge(expected, expected, status) == "agrees"
    assert judge(expected + sign * (expected // 100), expected, status) == near
    assert judge(expected + sign * (expected // 100 + 1), expected, status) == far


def test_expected_counts_and_mixtures_are_judged_by_one_rule() -> None:
    """A hundredth off an approximate number is near enough for either; a little more is for neither."""
    for clips, verdict, remark in (
        (990, "agrees", "10 fewer, which is near enough"),
        (989, "differs", "differs: 11 f"),
    ):
        expected = Expected(count=1000, status="approximate")
        row = MixRow(title="x", source="sun", paper_clips=1000, status="approximate")
        assert _verdict(expected, clips, here=True) == verdict
        assert _remark(row, ["c"], 0, clips).startswith(remark)
