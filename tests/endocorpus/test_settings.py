"""Configuration is strict: a typing error is an error that names the nearest known key."""

from __future__ import annotations

from pathlib import Path

import pytest

from endocorpus.config import BuildConfig
from endocorpus.errors import UsageError
from endocorpus.settings import load_settings


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
