"""What must not train, judged on any names: against every case that could be held out, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from endocorpus.census import Clip, Entry, _join
from endocorpus.corpus.splits import SIDES, SPLITS, Row, assign, load_split
from endocorpus.heldout import _sides_by_name, case_leaks, held_out, set_leaks, watch
from endocorpus.leaks import leak_edges, leak_group
from endocorpus.naming import fold

COPIES = [e.a_case.pattern for e in leak_edges() if e.a_case and "(" not in e.a_case.pattern]
NAMES = [str(i) for i in range(1, 165)] + [f"{i}_{j}" for i in (0, 1) for j in (1, 12)] + COPIES
SOURCES = ["polypdiag", "ldpolypvideo", "hyper-kvasir"]
names = st.one_of(st.sampled_from(NAMES), st.text(max_size=6).filter(lambda name: "/" not in name))
places = st.tuples(st.sampled_from(SOURCES), names)


def entry(
    source: str, name: str, *, corpus: str = "c", group: str | None = None, digest: str = "", media: str | None = None,
    case: str | None = None, sides: Iterable[str] = (), others_lost: bool = False,
) -> Entry:  # fmt: skip
    own = leak_group(source, case or name)
    clip = Clip(key=f"{corpus}-{name}", num_frames=9, digest=digest or f"{corpus}/{source}/{name}")
    return Entry(
        corpus=corpus, source=source, recording_id=f"{corpus}-{name}", name=name, case=case or name, group_id="",
        own_group=own, group=group or own, labels={"official_split": tuple(sides)}, clips=(clip,), media=media,
        others_lost=others_lost,
    )  # fmt: skip


def leaking(spelt: str, entries: Sequence[Entry]) -> set[str]:
    """The names of recordings that a mixture of all of `entries` would leave out."""
    here = _join(entries)
    watched = watch(held_out(spelt), here)
    return {one.name for one in here if case_leaks(watched, one, [one.own_group])}


@given(places, st.sampled_from(SOURCES))
def test_a_case_of_a_held_out_source_leaks_and_nothing_else(place: tuple[str, str], source: str) -> None:
    one = entry(*place)
    cases = {*NAMES, fold(place[1])}
    shared = any(leak_group(source, name) == one.own_group for name in cases)
    held = held_out(source)
    assert (case_leaks(watch(held, ()), one, [one.own_group]) is not None) == shared


@given(places)
def test_a_side_leaks_as_its_split_deals_it(place: tuple[str, str]) -> None:
    """The sides of these splits follow from the names of cases; every case that a group could have is asked."""
    one = entry(*place)
    for name, source in (("ldpolypvideo-official", "ldpolypvideo"), ("polypdiag-endocorpus", "polypdiag")):
        split = load_split(name)
        shared = [case for case in {*NAMES, fold(place[1])} if leak_group(source, case) == one.own_group]
        rows = [Row(recording=case, case=case, leak_group=one.own_group) for case in shared]
        tested = any("test" in sides for sides in assign(split, rows).values())
        assert (case_leaks(watch(held_out(name), ()), one, [one.own_group]) is not None) == tested


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 12), st.integers(0, 12)), max_size=25))
def test_components_are_what_groups_and_bytes_connect(found: list[tuple[int, int, int, int]]) -> None:
    plain = [
        entry(
            "sun", f"n{own}", corpus=f"c{i}", group=f"g{group}", digest=f"{digest}", media=f"{media}" if media else None
        )
        for i, (own, group, digest, media) in enumerate(found)
    ]
    marks = [
        {e.own_group, e.group, f"clip {e.clips[0].digest}", *([] if e.media is None else [f"media {e.media}"])}
        for e in plain
    ]
    merged: list[set[str]] = []
    for mark in marks:  # the slow way
        touching = [group for group in merged if group & mark]
        merged = [group for group in merged if not group & mark] + [mark.union(*touching)]
    joined = _join(plain)
    for one, mark in zip(joined, marks, strict=True):
        for other, beside in zip(joined, marks, strict=True):
            together = any(mark <= group and beside <= group for group in merged)
            assert (one.component == other.component) == together
            assert (one.row().leak_group == other.row().leak_group) == together, "all sides are those of a component"


def test_a_corpus_of_the_source_tells_the_sides() -> None:
    held = held_out("ldpolypvideo-official:train")
    here = _join(
        [
            entry("ldpolypvideo", "5", corpus="ld"),
            entry("ldpolypvideo", "x7", corpus="ld", group="odd"),
            entry("hyper-kvasir", "z", group="odd"),
            entry("polypdiag", "5"),
            entry("polypdiag", "120"),
        ]
    )
    watched = watch(held, here)
    assert watched.sides == {"5": {"train"}, "x7": set()}
    findings = [case_leaks(watched, one, [one.own_group]) for one in here]
    assert [finding and finding.kind for finding in findings] == ["itself", None, None, "identical", None]
    all_of_it = watch(held_out("ldpolypvideo"), here)
    (group,) = [case_leaks(all_of_it, one, [one.own_group]) for one in here if one.name == "z"]
    assert group is not None and group.kind == "group" and group.through == "ld: ld-x7"


OPERATIONS = [f"{n:02d}" for n in (1, 2, 4, 5, 6, 8, 79, 80, 92, 111)]  # 92 and 111 are in CholecT50 only
recordings = st.sets(st.tuples(st.sampled_from(["t45", "t50"]), st.sampled_from(OPERATIONS)), min_size=1)


@given(recordings, st.sampled_from([name for name in SPLITS if name.startswith("cholec")]), st.sampled_from(SIDES))
def test_an_operation_is_held_out_under_each_name_that_it_has(
    found: set[tuple[str, str]], name: str, side: str
) -> None:
    """Which of its recordings are at hand changes nothing: CholecT45 repeats operations of CholecT50."""
    split = load_split(name)
    names = [f"{tree}-vid{n}" for n in OPERATIONS for tree in ("t45", "t50")]
    assigned = assign(split, [Row(recording=name, case=name, leak_group=name) for name in names])
    tested = {unit.partition("-")[2] for unit, sides in assigned.items() if side in sides}
    here = [entry("cholectriplet", f"{tree}-vid{n}", case=f"vid{n}") for tree, n in sorted(found)]
    assert leaking(f"{name}:{side}", here) == {e.name for e in here if e.case in tested}


def test_every_split_by_names_tells_the_side_of_every_case() -> None:
    for name in SPLITS:
        split = load_split(name)
        if split.by_label is None:
            assert _sides_by_name(split, [("x", "x/x")]).keys() == {"x"}, name


LISTS = ("split_0", "split_1")
truths = st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from(LISTS)), min_size=1)


@given(truths, st.lists(st.tuples(st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from(LISTS))), max_size=3))
def test_nothing_that_a_list_holds_out_trains_whatever_is_at_hand(
    truth: dict[str, set[str]], corpora: list[tuple[set[str], set[str]]]
) -> None:
    """Corpora hold any recordings and any of the lists; some videos of Kvasir-Capsule stand in both."""
    here = [
        entry("kvasir-capsule", name, corpus=f"c{number}", sides=truth[name] & lists)
        for number, (names, lists) in enumerate(corpora)
        for name in sorted(names & set(truth))
    ]
    out = leaking("kvasir-capsule-official:split_1", here)
    assert out >= {e.name for e in here if truth[e.name] != {"split_0"}}
    whole = [entry("kvasir-capsule", name, sides=sides) for name, sides in truth.items()]
    free = {name for name, sides in truth.items() if sides == {"split_0"}}
    shown = any("split_1" in sides for sides in truth.values())
    assert leaking("kvasir-capsule-official:split_1", whole) == (set(truth) - free if shown else set(truth))


def test_lists_of_one_corpus_say_nothing_about_recordings_of_another() -> None:
    listed = [entry("polypdiag", "0_12", corpus="a", sides=["test"])]
    bare = [entry("polypdiag", "101", corpus="b"), entry("ldpolypvideo", "101", corpus="l")]
    for here in (bare, bare[1:], listed + bare, listed + bare[1:]):
        assert "101" in leaking("polypdiag-official", here)
    lists = [*listed, entry("polypdiag", "101", corpus="a", sides=["train"])]
    assert leaking("polypdiag-official", [*lists, *bare]) == {"0_12"}


def test_a_case_of_several_recordings_is_free_where_all_sides_and_recordings_are_at_hand() -> None:
    def sun(name: str, case: str, *sides: str, lost: bool = False) -> Entry:
        return entry("sun", name, case=case, sides=sides, others_lost=lost)

    some = [sun("seg-case1_1", "pos-case1", "test_easy_seen"), sun("pos-case2", "pos-case2")]
    train = sun("seg-case2_1", "pos-case2", "train")
    assert leaking("sun-seg-official", some) == leaking("sun-seg-official", [*some, train]) - {"seg-case2_1"}
    assert "seg-case2_1" in leaking("sun-seg-official", [*some, train]), "three sides of the test are not here"
    here = [train, sun("pos-case2", "pos-case2"), sun("seg-case3", "pos-case3", "test_hard_seen")]
    assert leaking("sun-seg-official:test_hard_seen", here) == {"seg-case3"}
    lossy = [replace(one, others_lost=True) for one in here]
    assert len(leaking("sun-seg-official:test_hard_seen", lossy)) == 3, "the lost one may be a clip of case 2"


def test_sets_leak_where_edges_join_them_or_what_they_come_from() -> None:
    kinds = {source: [f.kind for f in set_leaks(held_out("kumc"), source)] for source in ("colonoscopic", "cvc-12k")}
    assert kinds == {"colonoscopic": ["contains"], "cvc-12k": ["contains"]}
    assert [f.kind for f in set_leaks(held_out("colonoscopic"), "kumc")] == ["contains"], "either way round"
    assert not set_leaks(held_out("colonoscopic"), "cvc-12k") and not set_leaks(held_out("kumc"), "sun")
    polypdiag = [f.certainty for f in set_leaks(held_out("polypdiag-official"), "hyper-kvasir")]
    assert polypdiag == ["verified", "unverified"], "what PolypDiag takes from it, and what it repeats itself"
