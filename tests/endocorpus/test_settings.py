"""Configuration is strict: a typing error is an error that names the nearest known key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, Tag

from endocorpus.config import BuildConfig
from endocorpus.errors import UsageError
from endocorpus.settings import Settings, by_kind, load_settings, to_toml


def test_file_then_overrides(tmp_path: Path) -> None:
    path = tmp_path / "build.toml"
    path.write_text("[segment]\nclip_seconds = 4.0\nmin_seconds = 2.0\n")
    config = load_settings(BuildConfig, path, ["segment.clip_seconds=8", "encode.crf=30"])
    assert (config.segment.clip_seconds, config.segment.min_seconds, config.encode.crf) == (8.0, 2.0, 30)
    assert config.shards == BuildConfig().shards


def test_without_bases_there_is_no_key_for_one(tmp_path: Path) -> None:
    (tmp_path / "build.toml").write_text('base = "debug"\n')
    with pytest.raises(UsageError, match="unknown key 'base'"):
        load_settings(BuildConfig, tmp_path / "build.toml")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("segment.clip_secnds=4", "unknown key 'segment.clip_secnds'; did you mean 'segment.clip_seconds'?"),
        ("segment.clip=4", "unknown key 'segment.clip'; did you mean 'segment.clip_seconds'?"),
        ("segment.zzzzzzzzzz=4", "unknown key 'segment.zzzzzzzzzz'; there is: segment."),
        ("zzzzz=4", "unknown key 'zzzzz'; there is: encode, "),
        ("segmnt.policy='endofm150'", "unknown key 'segmnt'; did you mean 'segment'?"),
        ("clip_seconds=4", "unknown key 'clip_seconds'; did you mean 'segment.clip_seconds'?"),
        ("encode.clip_seconds=4", "unknown key 'encode.clip_seconds'; did you mean 'segment.clip_seconds'?"),
        ("segment.policy=fixed", "segment.policy"),
        ("encode.crf=high", "encode.crf"),
        ("encode.crf=2.5", "encode.crf"),
        ("encode.crf=99", "encode.crf"),
        ("encode.short_side=0", "encode.short_side"),
        ("encode.preset=quick", "encode.preset"),
        ("shards.max_clips=0", "shards.max_clips"),
        ("segment=3", "segment"),
        ("encode.crf", "expected section.key=value"),
    ],
)
def test_what_is_wrong_is_named(override: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        load_settings(BuildConfig, overrides=[override])
    assert told in str(error.value)


def test_a_wrong_value_is_blamed_on_whoever_gave_it(tmp_path: Path) -> None:
    path = tmp_path / "build.toml"
    path.write_text("[segment]\nmin_seconds = 2.0\n[encode]\ncrf = 18\n")

    def told(*overrides: str) -> str:
        with pytest.raises(UsageError) as error:
            load_settings(BuildConfig, path, overrides)
        return str(error.value)

    assert told("encode.crf=30", "encode.crf=99").startswith("--set encode.crf=99: encode.crf: ")
    assert told("segment.clip_seconds=-1") == (
        "--set segment.clip_seconds=-1: segment: min_seconds = 2, clip_seconds = -1, but "
        "0 < min_seconds <= clip_seconds <= 3600 must hold"
    )
    assert told("encode=3").startswith("--set encode=3: encode: ")
    assert told("encode.cut=3") == "--set encode.cut=3: encode.cut: expected a list such as [3, 3] (got 3)"
    path.write_text("[encode]\ncrf = 99\n")
    assert told("segment.clip_seconds=4").startswith(f"{path}: encode.crf: ")


def test_settings_printed_as_toml_are_read_as_the_same(tmp_path: Path) -> None:
    wanted = load_settings(BuildConfig, overrides=["encode.cut=[1, 2, 3, 4]", "segment.clip_seconds=4.25"])
    (tmp_path / "saved.toml").write_text(to_toml(wanted), encoding="utf-8")
    assert load_settings(BuildConfig, tmp_path / "saved.toml") == wanted


def test_a_file_that_cannot_be_read_or_parsed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_settings(BuildConfig, tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("[segment\n")
    with pytest.raises(UsageError, match="not valid TOML"):
        load_settings(BuildConfig, bad)
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid TOML"):
        load_settings(BuildConfig, bad)


class Pen(Settings):
    kind: Literal["pen"] = "pen"
    colour: str = "blue"
    width: float = Field(default=1.0, gt=0)
    ink: int = 3


class Pencil(Settings):
    kind: Literal["pencil"] = "pencil"
    colour: str = "grey"
    width: float = Field(default=0.5, gt=0)
    hardness: int = 2


class Desk(Settings):
    tool: Annotated[Annotated[Pen, Tag("pen")] | Annotated[Pencil, Tag("pencil")], by_kind("pen")] = Pen()
    drawers: Pen = Pen()


def test_a_section_that_is_one_of_several(tmp_path: Path) -> None:
    base, mine = tmp_path / "base.toml", tmp_path / "mine.toml"
    base.write_text('[tool]\ncolour = "red"\nink = 9\n')
    mine.write_text('base = "base"\n[tool]\nkind = "pencil"\nhardness = 4\n')
    assert load_settings(Desk, base).tool == Pen(colour="red", ink=9), "without a kind it is the default's"
    chosen = load_settings(Desk, mine, bases={"base": base})
    assert chosen.tool == Pencil(colour="red", hardness=4), "what both know stays, what the other knew goes"
    (tmp_path / "printed.toml").write_text(to_toml(chosen))
    assert load_settings(Desk, tmp_path / "printed.toml") == chosen
    for overrides in (["tool.kind=pencil", "tool.hardness=5"], ["tool.hardness=5", "tool.kind=pencil"]):
        assert load_settings(Desk, base, overrides).tool == Pencil(colour="red", hardness=5)
    assert load_settings(Desk, mine, ["tool.kind=pen"], bases={"base": base}).tool == Pen(colour="red")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("tool.kind=brush", "--set tool.kind=brush: tool.kind = 'brush' is none of pen, pencil"),
        ("tool.hardness=4", "unknown key 'tool.hardness'; it is a setting of tool.kind = 'pencil'"),
        ("tool.colur=4", "unknown key 'tool.colur'; did you mean 'tool.colour'?"),
        ("tool.width=0", "--set tool.width=0: tool.width: Input should be greater than 0 (got 0)"),
        ("tool=pen", "tool"),
    ],
)
def test_what_is_wrong_in_one_of_several(override: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        load_settings(Desk, overrides=[override])
    assert told in str(error.value)


def test_what_a_file_says_of_another_kind_is_not_passed_over(tmp_path: Path) -> None:
    base, mine = tmp_path / "base.toml", tmp_path / "mine.toml"
    base.write_text("[tool]\nink = 9\n")
    mine.write_text('base = "base"\n[tool]\nkind = "pencil"\nink = 8\n')
    with pytest.raises(UsageError, match=r"mine\.toml: unknown key 'tool\.ink'; it is a setting of tool\.kind = 'pen'"):
        load_settings(Desk, mine, bases={"base": base})
