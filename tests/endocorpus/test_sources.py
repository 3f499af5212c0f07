"""The declaration of every source is whole; trees are judged in test_conformance.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from endocorpus.errors import UsageError
from endocorpus.manifests import manifests_folder
from endocorpus.scan import scan
from endocorpus.sources import SOURCES, load_source, source_facts
from endocorpus.sources.layout import FrameFolders, Labels, Sidecars, Videos


@pytest.mark.parametrize("name", SOURCES)
def test_the_declaration_is_whole(name: str) -> None:
    source = load_source(name)
    facts = source_facts(source)
    assert facts["name"] == name == name.lower()
    for fact in ("title", "provider", "licence", "obtain", "modality", "organ"):
        assert facts[fact], fact
    if source.privacy == "public":
        assert source.citation and source.home and source.year
    for rule in source.layout:
        groups = set(re.compile(rule.pattern).groupindex) | {"path"}
        if isinstance(rule, Sidecars):
            continue
        if isinstance(rule, Labels):
            templates = [*rule.recording, rule.frame or ""]
        else:
            templates = [rule.recording, rule.case, *rule.labels.values()]
        if isinstance(rule, FrameFolders):
            assert {*rule.links} <= groups
        if not isinstance(rule, Videos):
            groups |= {"range"} if rule.ranges else set()
            groups |= {"sequence", "number"} if rule.named_by else set()
        assert set(re.findall(r"{(\w+)}", " ".join(templates))) <= groups


def test_every_facts_file_has_a_source() -> None:
    assert {path.stem for path in (manifests_folder() / "sources").glob("*.toml")} == set(SOURCES)


def test_colonoscopic_groups_by_lesion(tmp_path: Path) -> None:
    for path in (
        "Adenoma/adenoma_01/videos/WL.mp4",
        "Adenoma/adenoma_01/videos/NBI.mp4",
        "Hyperplasic/hyperplasic_21/videos/WL.mp4",
        "Hyperplastic/hyperplastic_02/videos/nbi.MP4",
        "Adenoma/adenoma_01/cam.xml",
        "data.txt",
        "HumanEvaluation.xlsx",
        "Adenoma/adenoma_01/videos/RGB.mp4",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    found = scan(load_source("colonoscopic"), tmp_path)
    assert [(r.recording_id, r.case_id, r.leak_group, dict(r.labels)) for r in found.recordings] == [
        (
            f"colonoscopic-{lesion}-{light.lower()}",
            f"colonoscopic-{lesion}",
            f"colonoscopic-{lesion}",
            {"finding": finding, "light": light},
        )
        for lesion, finding, light in [
            ("adenoma-01", "adenoma", "NBI"),
            ("adenoma-01", "adenoma", "WL"),
            ("hyperplasic-21", "hyperplasic", "WL"),
            ("hyperplastic-02", "hyperplastic", "nbi"),
        ]
    ]
    assert found.sidecars == {"document": 3}
    assert [e.subject for e in found.exclusions] == ["Adenoma/adenoma_01/videos/RGB.mp4"]


def test_unknown_sources_and_misplaced_privacy_are_usage_errors() -> None:
    with pytest.raises(UsageError, match=r"no source 'nothing'; there is: cholectriplet, colonoscopic, .*, folder,"):
        load_source("nothing")
    with pytest.raises(UsageError, match="declares its own"):
        load_source("colonoscopic", "public")
    assert load_source("folder").privacy == "private" and load_source("folder", "public").privacy == "public"
