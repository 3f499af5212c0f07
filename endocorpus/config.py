"""The configuration of a build: one strict TOML file, or nothing for the defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from endocorpus.media.encode import EncodeConfig
from endocorpus.segment import SegmentConfig
from endocorpus.settings import Settings


class ShardConfig(Settings):
    """A shard is split when it would hold more than `max_clips` clips of more than one recording."""

    max_clips: int = Field(default=2000, ge=1)


class LookConfig(Settings):
    """How recordings are looked at before anything of them is written: `light` looks at half as many frames, for a
    machine that cannot keep up, and may miss more; how much was not measured."""

    pace: Literal["normal", "light"] = "normal"


class BuildConfig(Settings):
    """Everything that changes the bytes of a corpus, besides the recordings and the encoder build."""

    look: LookConfig = LookConfig()
    segment: SegmentConfig = SegmentConfig()
    encode: EncodeConfig = EncodeConfig()
    shards: ShardConfig = ShardConfig()
