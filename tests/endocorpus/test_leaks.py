"""Leak groups: what shares pictures has one name, whatever case and source one comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endocorpus.errors import DataError
from endocorpus.leaks import leak_edges, leak_group, load_edges, members, origins, path_to_end, shared_sets
from endocorpus.naming import fold

HEAD = "a_source,a_case,b_source,b_case,kind,certainty,evidence\n"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
sources = st.sampled_from(["polypdiag", "ldpolypvideo", "hyper-kvasir", "sun", "folder"])
numbered = st.one_of(st.integers(1, 400).map(str), st.from_regex(r"[01]_\d{1,2}", fullmatch=True))
copies = st.sampled_from(
    [edge.a_case.pattern for edge in leak_edges() if edge.a_case and "(" not in edge.a_case.pattern]
)
cases = st.one_of(numbered, copies, st.text(max_size=20))


def table(folder: Path, *lines: str) -> Path:
    path = folder / "edges.csv"
    path.write_text(HEAD + "".join(f"{line}\n" for line in lines))
    return path


def test_polypdiag_stands_where_its_recordings_stand() -> None:
    for number in range(1, 161):
        assert (
            leak_group("polypdiag", str(number)) == leak_group("ldpolypvideo", str(number)) == f"ldpolypvideo/{number}"
        )
    assert leak_group("polypdiag", "161") == "polypdiag/161" and leak_group("polypdiag", "007") == "polypdiag/007"
    assert leak_group("polypdiag", "0_12") == "ldpolypvideo/0_12"
    uuid = "11305ea5-389a-46c8-95f3-94a1af84247d"
    assert leak_group("polypdiag", uuid) == leak_group("hyper-kvasir", uuid.upper()) == f"hyper-kvasir/{uuid}"


def test_copies_within_hyper_kvasir_are_one_group() -> None:
    within = [edge for edge in leak_edges() if edge.a_case and edge.a_source == edge.b_source == "hyper-kvasir"]
    computed = [edge for edge in within if edge.certainty == "computed"]
    groups = {edge.b_case for edge in computed}
    assert len(computed) == 42 and len(groups) == 32  # 74 files of the provider's table
    for edge in within:
        copy, first = str(edge.a_case and edge.a_case.pattern), str(edge.b_case)
        assert all(UUID.fullmatch(name) or re.fullmatch(r"polypp\d+", name) for name in (copy, first))
        assert leak_group("hyper-kvasir", copy) == leak_group("hyper-kvasir", first) == f"hyper-kvasir/{first}"
        assert leak_group("polypdiag", copy) == f"hyper-kvasir/{first}"


@given(sources, cases)
def test_a_group_is_named_after_its_end(source: str, case: str) -> None:
    group = leak_group(source, case)
    end_source, _, end_case = group.partition("/")
    assert leak_group(end_source, end_case) == group
    assert leak_group(source, f" {case.upper()} ".lower()) == leak_group(source, case.lower())


@given(st.text(max_size=30))
def test_cases_that_no_edge_names_stand_alone(case: str) -> None:
    one, other = leak_group("sun", f"pos-{case}"), leak_group("sun", f"neg-{case}")
    assert one != other and one.startswith("sun/pos-") and other.startswith("sun/neg-")


def test_shared_sets_are_told_to_both_sides() -> None:
    kumc = {edge.b_source for edge in shared_sets("kumc")}
    assert kumc == {"colonoscopic", "cvc-12k"}
    assert any(edge.a_source == "kumc" for edge in shared_sets("colonoscopic"))
    assert not shared_sets("renji")
    assert all(edge.certainty != "verified" or edge.b_source != "colonoscopic" for edge in shared_sets("kumc"))


def test_edges_are_followed_to_the_end(tmp_path: Path) -> None:
    edges = load_edges(
        table(
            tmp_path,
            r"c,case(\d+),b,\1,identical,computed,x",
            r"b,(\d+),a,n\1,contains,verified,x",
            "a,n2,a,n1,identical,computed,x",
            "c,*,d,*,overlaps,unverified,x",
        )
    )
    assert [leak_group("c", f"case{i}", edges) for i in (1, 2, 3)] == ["a/n1", "a/n1", "a/n3"]
    assert leak_group("b", "2", edges) == leak_group("a", "N1", edges) == "a/n1"
    assert leak_group("c", "case", edges) == "c/case"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([r"a,(\d),b,\1,identical,computed,x", r"b,(\d),a,\1,identical,computed,x"], "round in a circle"),
        (["a,1,a,2,identical,computed,x", "a,2,a,1,identical,computed,x"], "must end at one case"),
        ([r"a,x(\d),a,\1,identical,computed,x"], "must end at one case"),
        (["a,(,b,1,identical,computed,x"], "line 2: a_case is not a regular expression"),
        (["a,1,b,1,same,computed,x"], "line 2: kind, certainty or evidence"),
        (["a,1,b,1,identical,perhaps,x"], "line 2: kind, certainty or evidence"),
        (["a,1,b,1,identical,computed,"], "line 2: kind, certainty or evidence"),
        (["a,*,b,1,overlaps,computed,x"], "not one of each"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, lines: list[str], problem: str) -> None:
    path = table(tmp_path, *lines)
    with pytest.raises(DataError, match=re.escape(problem)) as refused:
        load_edges(path)
    assert str(path) in str(refused.value)


def test_other_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "edges.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="the columns must be a_source,a_case"):
        load_edges(path)


def test_a_case_cannot_lead_to_two(tmp_path: Path) -> None:
    edges = load_edges(table(tmp_path, "a,1,b,1,identical,computed,x", r"a,\d,c,1,identical,computed,x"))
    assert leak_group("a", "2", edges) == "c/1"
    with pytest.raises(DataError, match=r"a/1 leads to several cases: \[\('b', '1'\), \('c', '1'\)\]"):
        leak_group("a", "1", edges)


@given(sources, cases)
def test_whoever_stands_in_a_group_is_found_from_it(source: str, case: str) -> None:
    group = leak_group(source, case)
    found = members(group)
    assert (source, fold(case)) in {(member.source, member.case) for member in found}
    assert f"{found[0].source}/{found[0].case}" == group and not found[0].edges
    for member in found:
        assert member.case is not None, "every edge that ships tells the names it leads from"
        assert leak_group(member.source, member.case) == group
        assert path_to_end(member.source, member.case) == member.edges


def test_edges_are_followed_back_as_far_as_they_tell(tmp_path: Path) -> None:
    edges = load_edges(
        table(
            tmp_path,
            r"c,case(\d+)x,b,n\1,identical,computed,x",
            r"d,[ab]\d,b,n7,contains,verified,x",
            r"e,(\d)-(\d),b,n\2\1,contains,verified,x",
            r"f,any,d,a1,identical,unverified,x",
        )
    )

    def found(group: str) -> set[tuple[str, str | None]]:
        return {(member.source, member.case) for member in members(group, edges)}

    assert found("b/n12") == {("b", "n12"), ("c", "case12x"), ("e", None)}
    assert found("b/n7") == {("b", "n7"), ("c", "case7x"), ("d", None), ("e", None), ("f", None)}
    assert ("c", "casex") not in found("b/n") and ("c", None) not in found("b/other")
    assert origins("f", edges) == {"f", "d", "b"} and origins("b", edges) == {"b"}
