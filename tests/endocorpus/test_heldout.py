"""What must not train, judged on any names: against every case that could be held out, one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from endocorpus.census import Clip, Entry, _join
from endocorpus.corpus.splits import Row, assign, load_split
from endocorpus.heldout import case_leaks, held_out, set_leaks, watch
from endocorpus.leaks import leak_edges, leak_group
from endocorpus.naming import fold

COPIES = [e.a_case.pattern for e in leak_edges() if e.a_case and "(" not in e.a_case.pattern]
NAMES = [str(i) for i in range(1, 165)] + [f"{i}_{j}" for i in (0, 1) for j in (1, 12)] + COPIES
SOURCES = ["polypdiag", "ldpolypvideo", "hyper-kvasir"]
names = st.one_of(st.sampled_from(NAMES), st.text(max_size=6).filter(lambda name: "/" not in name))
places = st.tuples(st.sampled_from(SOURCES), names)


def entry(
    source: str, name: str, *, corpus: str = "c", group: str | None = None, digest: str = "", media: str | None = None
) -> Entry:
    own = leak_group(source, name)
    clip = Clip(key=f"{corpus}-{name}", num_frames=9, digest=digest or f"{corpus}/{source}/{name}")
    return Entry(
        corpus=corpus, source=source, recording_id=f"{corpus}-{name}", name=name, case=name, group_id="", own_group=own,
        group=group or own, labels={}, clips=(clip,), media=media,
    )  # fmt: skip


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


def test_sets_leak_where_edges_join_them_or_what_they_come_from() -> None:
    kinds = {source: [f.kind for f in set_leaks(held_out("kumc"), source)] for source in ("colonoscopic", "cvc-12k")}
    assert kinds == {"colonoscopic": ["contains"], "cvc-12k": ["contains"]}
    assert [f.kind for f in set_leaks(held_out("colonoscopic"), "kumc")] == ["contains"], "either way round"
    assert not set_leaks(held_out("colonoscopic"), "cvc-12k") and not set_leaks(held_out("kumc"), "sun")
    polypdiag = [f.certainty for f in set_leaks(held_out("polypdiag-official"), "hyper-kvasir")]
    assert polypdiag == ["verified", "unverified"], "what PolypDiag takes from it, and what it repeats itself"
