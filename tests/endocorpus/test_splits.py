"""Splits: the published ones as they are, leaks counted; ours without a leak, whatever the data."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endocorpus.corpus.splits import SIDES, SPLITS, Row, Shares, Split, assign, check, load_split
from endocorpus.errors import DataError, UsageError
from endocorpus.leaks import leak_group
from endocorpus.manifests import manifests_folder
from endocorpus.settings import load_settings

BY_GROUP = [name for name in SPLITS if load_split(name).by_leak_group]


def table_of(name: str) -> list[dict[str, str]]:
    with (manifests_folder() / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


T45 = [r["video"].removeprefix("VID") for r in table_of("cholec80_seconds_T45folds") if r["t45_fold"]]
T50 = [*T45, "92", "96", "103", "110", "111"]


def row(source: str, recording: str, case: str | None = None, **labels: str) -> Row:
    name = case or recording
    return Row(recording=recording, case=name, leak_group=leak_group(source, name), labels=labels)


def cholec(tree: str, numbers: Iterable[str]) -> list[Row]:
    return [row("cholectriplet", f"{tree}-vid{int(n):02d}", f"vid{int(n):02d}") for n in numbers]


CVC = [row("cvc-12k", f"clinicdb-{i:02d}") for i in range(1, 30)]
LDPOLYP = [row("ldpolypvideo", str(i)) for i in range(1, 161)]
SUN = [
    *(row("sun", f"pos-case{i}") for i in range(1, 101)),
    *(row("sun", f"neg-case{i}") for i in range(1, 14)),
    *(row("sun", f"seg-case{i}_{k}", f"pos-case{i}") for i in range(1, 101) for k in (1, 2)),
]
# What each honest split is tried on: names as the layouts give them.
ROWS = {
    "cvc-12k": CVC,
    "ldpolypvideo": [*LDPOLYP, *(row("ldpolypvideo", f"1_{i}") for i in range(1, 43))],
    "sun": SUN,
    "colonoscopic": [
        row("colonoscopic", f"{finding}_{i:02d}-{light}", f"{finding}_{i:02d}")
        for finding, n in (("adenoma", 40), ("serrated", 15), ("hyperplasic", 21))
        for i in range(1, n + 1)
        for light in ("WL", "NBI")
    ],
    "hyper-kvasir": [row("hyper-kvasir", f"polypp {i}") for i in range(1, 200)],
    "polypdiag": [row("polypdiag", str(i)) for i in range(1, 161)],
    "kumc": [row("kumc", f"{part}-{i}", official_split=part) for part in SIDES for i in range(1, 60)],
    "kvasir-capsule": [row("kvasir-capsule", f"{i:016x}") for i in range(117)],
    "cholectriplet": cholec("t50", T50) + cholec("t45", T45),
    "real-colon": [row("real-colon", f"{study:03d}-{i:03d}") for study in range(1, 5) for i in range(1, 16)],
}


def sizes(split: str, rows: list[Row]) -> dict[str, int]:
    sides = assign(load_split(split), rows)
    return {side: sum(side in found for found in sides.values()) for side in SIDES}


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_is_on_a_source_and_only_leaks_where_it_says(name: str) -> None:
    split = load_split(name)
    assert (manifests_folder() / "sources" / f"{split.source}.toml").is_file()
    assert split.note and split.origin and name.startswith(split.source[:3])
    if not split.leaky and not split.by_label:
        rows = ROWS[split.source]
        assert not check(split, rows)
        sides = assign(split, rows)
        assert all(len(found) <= 1 for found in sides.values())
        assert {side for found in sides.values() for side in found} >= {"train", "test"}


def test_the_published_cvc_lists_leak_as_counted() -> None:
    split = load_split("cvc-endofm-as-published")
    table = {f"clinicdb-{int(r['seq']):02d}": r for r in table_of("cvc_clinicdb_sequences")}
    sides = assign(split, CVC)
    for side, column in (("train", "endofm_train"), ("test", "endofm_test")):
        assert {unit for unit, found in sides.items() if side in found} == {
            u for u, r in table.items() if r[column] == "1"
        }
    frames = {unit: int(r["n"]) for unit, r in table.items()}
    test = {unit for unit, found in sides.items() if "test" in found}
    leaked = {unit for leak in check(split, CVC) for unit in leak.units["test"]}
    assert (len(leaked), len(test)) == (7, 9) and leaked <= test
    assert (sum(map(frames.__getitem__, leaked)), sum(map(frames.__getitem__, test))) == (121, 171)
    unused = [unit for unit, found in sides.items() if not found]
    assert (len(unused), sum(map(frames.__getitem__, unused))) == (7, 161)
    assert "7 of the 9 test sequences, 121 of 171" in split.note

    ours = assign(load_split("cvc-endocorpus"), CVC)
    assert sizes("cvc-endocorpus", CVC) == {"train": 16, "val": 4, "test": 9}
    assert all(sides[unit] == ("train",) for unit, found in ours.items() if found == ("val",))
    assert not any("train" in sides[unit] for unit, found in ours.items() if found == ("test",))


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "facts.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == ["('test',)", "7 of 9 test sequences are training sequences"]


def test_cholec_folds_cover_every_video_once() -> None:
    for tree, numbers, val in (("t45", T45, 5), ("t50", T50, 5)):
        rows = cholec(tree, numbers)
        tested: list[str] = []
        for fold in range(1, 6):
            name = f"cholec{tree}-crossval-fold{fold}"
            fifth = len(rows) // 5
            assert sizes(name, rows) == {"train": len(rows) - fifth - val, "val": val, "test": fifth}
            tested += [unit for unit, found in assign(load_split(name), rows).items() if found == ("test",)]
        assert sorted(tested) == sorted(r.recording for r in rows)
    folds = {f"t45-{r['video'].lower()}": r["t45_fold"] for r in table_of("cholec80_seconds_T45folds") if r["t45_fold"]}
    assert folds == {
        unit: str(fold)
        for fold in range(1, 6)
        for unit, found in assign(load_split(f"cholect45-crossval-fold{fold}"), cholec("t45", T45)).items()
        if found == ("test",)
    }
    both = cholec("t50", T50) + cholec("t45", T45)
    assert sizes("cholect50-rdv", both) == {"train": 35, "val": 5, "test": 10}
    assert sizes("cholect50-challenge", both) == {"train": 40, "val": 5, "test": 5}
    challenge = assign(load_split("cholect50-challenge"), both)
    assert {u for u, found in challenge.items() if "test" in found} == {f"t50-vid{n}" for n in (92, 96, 103, 110, 111)}


def test_ldpolypvideo_is_split_as_its_folders() -> None:
    sides = assign(load_split("ldpolypvideo-official"), [*LDPOLYP, row("ldpolypvideo", "1_7")])
    assert sides.pop("1_7") == ()
    assert sides == {str(i): ("train",) if i <= 100 else ("test",) for i in range(1, 161)}


def test_a_label_gives_the_side_and_seen_clips_leak() -> None:
    split = load_split("sun-seg-official")
    rows = [
        row("sun", "seg-case1_1", "pos-case1", official_split="train"),
        row("sun", "seg-case1_2", "pos-case1", official_split="test_hard_seen"),
        row("sun", "seg-case3", "pos-case3", official_split="test_easy_unseen"),
        row("sun", "neg-case1"),
    ]
    assert assign(split, rows) == {
        "seg-case1_1": ("train",),
        "seg-case1_2": ("test_hard_seen",),
        "seg-case3": ("test_easy_unseen",),
        "neg-case1": (),
    }
    (leak,) = check(split, rows)
    assert leak.leak_group == "sun/pos-case1"
    assert dict(leak.units) == {"train": ("seg-case1_1",), "test_hard_seen": ("seg-case1_2",)}


def test_a_video_in_both_capsule_lists_is_counted() -> None:
    split = load_split("kvasir-capsule-official")
    rows = [
        row("kvasir-capsule", "a" * 16, official_split="split_0"),
        row("kvasir-capsule", "b" * 16, official_split="split_0;split_1"),
    ]
    assert assign(split, rows)["b" * 16] == ("split_0", "split_1")
    assert [leak.leak_group for leak in check(split, rows)] == ["kvasir-capsule/" + "b" * 16]


@pytest.mark.parametrize("name", ["kumc-official", "polypdiag-official"])
def test_a_leak_that_is_not_flagged_is_refused(name: str) -> None:
    split = load_split(name)
    rows = [row(split.source, "1", official_split="train"), row(split.source, "2", official_split="val")]
    assert assign(split, rows) == {"1": ("train",), "2": ("val",)}
    twin = Row(recording="3", case="3", leak_group=rows[0].leak_group, labels={"official_split": "test"})
    with pytest.raises(DataError, match=re.escape(f"1 leak groups lie on several sides, such as {twin.leak_group!r}")):
        assign(split, [*rows, twin])


def test_copies_fall_on_one_side_whatever_the_source() -> None:
    ours = {name: assign(load_split(name), ROWS[load_split(name).source]) for name in BY_GROUP}
    shared = [str(i) for i in range(1, 161)]
    assert [ours["polypdiag-endocorpus"][n] for n in shared] == [ours["ldpolypvideo-endocorpus"][n] for n in shared]
    hyper = load_split("hyper-kvasir-endocorpus")
    copies = [row("hyper-kvasir", f"polypp{n}") for n in (11, 12)]
    assert len(set(assign(hyper, copies).values())) == 1
    seeds = {(s.seed, s.train, s.val, s.test) for name in BY_GROUP if (s := load_split(name).by_leak_group)}
    assert len(seeds) == 1, "splits by leak group agree across sources only while they have one seed and shares"


rows_of_any_data = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=40
).map(lambda found: [Row(recording=f"r{r}", case=f"c{c}", leak_group=f"g{g}") for r, c, g in found])


def shares(train: int = 70, val: int = 15, test: int = 15, seed: str = "s") -> Shares:
    return Shares(seed=seed, train=train, val=val, test=test)


def split_of(unit: str = "recording", **fields: object) -> Split:
    texts = dict.fromkeys(("title", "task", "source", "origin", "note"), "x")
    return Split.model_validate({**texts, "leaky": False, "unit": unit, **fields})


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=40), st.text(max_size=5))
def test_dealing_by_leak_group_never_leaks(names: list[tuple[str, str]], seed: str) -> None:
    rows = [Row(recording=f"{i}", case=case, leak_group=group) for i, (case, group) in enumerate(names)]
    split = split_of(by_leak_group=shares(seed=seed))
    sides = assign(split, rows)
    assert not check(split, rows) and all(len(found) == 1 for found in sides.values())
    one_by_one = {unit: found for r in rows for unit, found in assign(split, [r]).items()}
    assert one_by_one == sides, "a recording's side does not depend on what else there is"


@given(rows_of_any_data, st.sampled_from(["recording", "case"]))
def test_nothing_unflagged_leaks_through(rows: list[Row], unit: str) -> None:
    """Units may straddle groups and groups units: what comes back is free of leaks, or is refused."""
    sides = {"train": ("r[0-9]|c[0-4]",), "test": ("r1.|c[5-9]",)}
    split = split_of(unit, sides=sides, by_leak_group=shares())
    flagged = split_of(unit, sides=sides, by_leak_group=shares(), leaky=True)
    leaks = check(split, rows)
    if leaks:
        with pytest.raises(DataError, match="lie on several sides"):
            assign(split, rows)
        assert check(flagged, rows) == leaks and assign(flagged, rows)
        return
    found = assign(split, rows)
    for one in rows:
        for other in rows:
            if one.leak_group == other.leak_group:
                assert found[getattr(one, unit)] == found[getattr(other, unit)]


def test_a_group_that_a_pattern_names_in_part_stays_whole() -> None:
    rows = [Row(recording=f"r{i}", case=f"c{i}", leak_group=f"g{i % 20}") for i in range(40)]
    sides = assign(split_of(sides={"test": ("r[0-9]",)}, by_leak_group=shares(100, 0, 0)), rows)
    assert {unit for unit, found in sides.items() if found == ("test",)} == {f"r{i}" for i in range(40) if i % 20 < 10}


def test_dealing_stays_as_it_was_released() -> None:
    assert sizes("sun-endocorpus", SUN) == {"train": 80, "val": 16, "test": 17}
    other = [shares(seed="other").side(f"group{i}") for i in range(100)]
    assert other != [shares(seed="s").side(f"group{i}") for i in range(100)]


@given(st.integers(0, 100), st.integers(0, 100), st.text(max_size=20))
def test_shares_bound_the_sides(a: int, b: int, group: str) -> None:
    low, high = sorted((a, b))
    side = shares(low, high - low, 100 - high).side(group)
    assert {"train": low, "val": high - low, "test": 100 - high}[side] > 0


def test_shares_are_about_kept() -> None:
    dealt = [shares().side(f"group{i}") for i in range(5000)]
    assert [round(dealt.count(side) / 50) for side in SIDES] == [pytest.approx(n, abs=3) for n in (70, 15, 15)]


def test_unknown_and_malformed_splits_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no split 'cvc'; there is: cholect45-crossval-fold1, "):
        load_split("cvc")
    text = (manifests_folder() / "splits" / "sun-endocorpus.toml").read_text(encoding="utf-8")
    path = tmp_path / "split.toml"
    for wrong, problem in (
        (text.replace("train = 70", "train = 71"), "must add up to 100"),
        (text.replace("[by_leak_group]", 'by_label = "x"\n[by_leak_group]'), "either by a label, or by"),
        (text.split("[by_leak_group]")[0], "either by a label, or by"),
        (text + '[sides]\ntrain = ["("]\n', "not a regular expression"),
        (text.replace("leaky", "leeky"), "unknown key 'leeky'; did you mean 'leaky'"),
    ):
        path.write_text(wrong)
        with pytest.raises(UsageError, match=problem):
            load_settings(Split, path)
