"""Where a run's clips come from and in which order: the section `[data]` of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from endocorpus.settings import Settings

REMOTE_BLOCK_SHARDS = 16
"""A block of that many shards is fetched while the one before is trained on: some thousand clips to shuffle among."""


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("must not be empty; leave it out for the user's cache, or write . for this folder")
    return value


class DataConfig(Settings):
    """How clips are read, fetched and shuffled, and how many of them may be bad."""

    stream: Literal["indexed", "sequential"] = Field(
        default="indexed",
        description="indexed: any clip at any time, by offset; sequential: shards from front to back, by webdataset.",
    )
    block_shards: int | None = Field(
        default=None,
        ge=0,
        description="An epoch goes through blocks of so many shards, shuffled within each; 0 shuffles all clips. By "
        f"default 0, or {REMOTE_BLOCK_SHARDS} if a corpus is on a server. Only indexed.",
    )
    shuffle_buffer: int = Field(
        default=1000, ge=1, description="Clips among which each next one is drawn. Only sequential."
    )
    exclude: Path | None = Field(
        default=None, description="A file of clip keys and recording ids, one a line, that must not be trained on."
    )
    bad_clips_allowed: float = Field(
        default=0.001,
        ge=0,
        le=1,
        description="Share of the clips that may turn out bad and be replaced before the run stops, and 10 at the "
        "least (at most half of all); 0 stops at the first.",
    )
    cache_dir: Annotated[Path, BeforeValidator(_not_empty)] | None = Field(
        default=None, description="For shards of remote corpora; by default $ENDOFM_CACHE or the user's cache."
    )
    cache_gb: float = Field(default=64.0, gt=0, le=1e9, description="Most that the cache holds, in 10^9 bytes.")
    retry_seconds: float = Field(
        default=300.0, gt=0, description="How long to go on with a server that sends nothing before the run stops."
    )


def decided(data: DataConfig, *, is_remote: bool) -> DataConfig:
    """The settings with what depends on where corpora lie filled in: what a run goes by, and goes on with."""
    if data.block_shards is not None:
        return data
    return data.model_copy(update={"block_shards": REMOTE_BLOCK_SHARDS if is_remote else 0})
