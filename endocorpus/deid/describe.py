"""From a finished corpus to what its attestation says: hashes of its clips, and what its tables tell.

What the tables do not tell, such as which measures were applied, comes in as `Findings`, one per recording.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from endocorpus import __version__
from endocorpus.corpus.files import atomic_file
from endocorpus.corpus.manifest import Corpus
from endocorpus.corpus.shards import Member, read_member
from endocorpus.deid.attest import (
    ATTESTATION,
    Attestation,
    Check,
    ClipFacts,
    CorpusFacts,
    Measure,
    ModelFacts,
    RecordingFacts,
    read_attestation,
)
from endocorpus.deid.chain import canonical, sha256
from endocorpus.errors import DataError

_COLUMNS = (
    *("key", "recording_id", "shard", "mp4_offset", "mp4_size", "mp4_xxh3_128"),
    *("num_frames", "width", "height"),
)
_NO_COUNTS: Mapping[Any, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What de-identification did to one recording, beyond what was removed beside its picture.

    `parameters` is the SHA-256 of the canonical JSON of settings and plan. `masked_pixels` counts, by clip, the pixels
    of its picture that are filled on any frame. `evidence.findings_of` reads them out of a corpus.
    """

    measures: tuple[Measure, ...] = (Measure.PIXEL_BARRIER,)
    doubts: tuple[str, ...] = ()
    outside_ms: int = 0
    parameters: str = sha256(canonical({}))
    checks: Mapping[Check, int] = field(default_factory=lambda: _NO_COUNTS)
    masked_pixels: Mapping[str, int] = field(default_factory=lambda: _NO_COUNTS)


def clips_digest(corpus: Corpus) -> str:
    """Which clips a review or an attestation is about: SHA-256 over the corpus' name, keys and the hashes that its
    manifest holds. It tells corpora apart; it is the SHA-256 of each clip in the attestation that forgers face."""
    rows = corpus.clips().select(["key", "mp4_xxh3_128"]).to_pylist()
    return sha256(canonical([corpus.name, sorted([row["key"], row["mp4_xxh3_128"]] for row in rows)]))


def read_clips(corpus: Corpus) -> Iterator[tuple[Mapping[str, Any], bytes]]:
    """Rows of `clips.parquet` in the order of their shards, each with the verified bytes of its mp4.

    Raises:
        DataError: a shard is missing or damaged.
    """
    for row in corpus.clips().select(list(_COLUMNS)).to_pylist():
        yield row, read_clip(corpus, row)


def read_clip(corpus: Corpus, row: Mapping[str, Any]) -> bytes:
    """The verified bytes of a clip's mp4.

    Raises:
        DataError: the shard is missing or damaged.
    """
    name, path = f"{row['key']}.mp4", corpus.shard_path(row["shard"])
    member = Member(name=name, offset=row["mp4_offset"], size=row["mp4_size"], digest=row["mp4_xxh3_128"])
    try:
        with path.open("rb") as shard:
            return read_member(shard, member)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; run `endocorpus verify {corpus.root}`") from None
    except DataError as error:
        raise DataError(f"{path}: {error}; run `endocorpus verify {corpus.root}`") from None


def clip_hashes(corpus: Corpus) -> dict[str, str]:
    """SHA-256 of every clip's mp4, by key. Reads all shards."""
    return {row["key"]: sha256(data) for row, data in read_clips(corpus)}


def write_attestation(corpus: Corpus, data: bytes) -> None:
    """Put the signed file of `attest.attest` into the corpus that it is about, in the place of an older one."""
    with atomic_file(corpus.root / ATTESTATION) as file:
        file.write(data)


def load_attestation(corpus: Corpus, signer: str | None = None) -> Attestation:
    """The attestation of a corpus, if it is signed and about the clips that the manifest lists.

    `attest.refuse_other_clips(attestation, clip_hashes(corpus), corpus.root)` goes further and reads every clip.

    Args:
        signer: the site's public key, 64 hex digits; without it, whose key signed is not judged.

    Raises:
        BrokenChainError: the file was changed.
        DataError: there is none, or it is about other clips.
    """
    path = corpus.root / ATTESTATION
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{corpus.root}: has no attestation ({ATTESTATION}), so nobody has signed for it") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    attestation = read_attestation(data, path, signer)
    if attestation.corpus.clips_digest != clips_digest(corpus):
        raise DataError(f"{path}: is about other clips than this corpus holds; have it reviewed and attested again")
    return attestation


def corpus_facts(
    corpus: Corpus,
    *,
    models: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    dates: Literal["none", "dropped", "shifted"] = "none",
) -> CorpusFacts:
    """What is the same for all recordings of a corpus. `models` gives at least the fields of `ModelFacts` by name."""
    source = corpus.descriptor["source"]
    excluded = corpus.table("excluded").select(["unit", "stage", "reason"]).to_pylist()
    kept_back = Counter(row["reason"] for row in excluded if row["unit"] == "recording" and row["stage"] == "deid")
    return CorpusFacts(
        name=corpus.name,
        source=source["name"],
        privacy=source["privacy"],
        synthetic=bool(corpus.descriptor["synthetic"]),
        endocorpus=__version__,
        clips_digest=clips_digest(corpus),
        models={
            name: ModelFacts.model_validate({key: row[key] for key in ModelFacts.model_fields})
            for name, row in sorted(models.items())
        },
        ids=corpus.descriptor.get("ids", "as published"),
        dates=dates,
        quarantined=dict(sorted(kept_back.items())),
    )


def recording_facts(
    corpus: Corpus,
    findings: Mapping[str, Findings] = MappingProxyType({}),
    decisions: Mapping[str, Literal["accepted", "rejected"]] = MappingProxyType({}),
) -> list[RecordingFacts]:
    """What the attestation says of each recording of a corpus; reads all shards.

    Args:
        findings: by recording id; a recording without any has passed the pixel barrier, which holds for every clip.
        decisions: by clip key.

    Raises:
        DataError: a table or a shard is missing or damaged.
        ValueError: a finding is about no recording or clip of this corpus (a bug).
    """
    clips: dict[str, list[ClipFacts]] = defaultdict(list)
    masked = {key: count for found in findings.values() for key, count in found.masked_pixels.items()}
    for row, data in read_clips(corpus):
        clips[row["recording_id"]].append(
            ClipFacts(
                key=row["key"],
                sha256=sha256(data),
                frames=row["num_frames"],
                masked_pixels=masked.pop(row["key"], 0),
                picture_pixels=row["width"] * row["height"],
                review=decisions.get(row["key"], "not shown"),
            )
        )
    said = {row["recording_id"]: row for row in corpus.table("deid").to_pylist()}
    if strange := [*masked, *(set(findings) - set(said))]:
        raise ValueError(f"findings about what is not in the corpus: {strange[0]}")
    return [
        _recording(recording_id, row, findings.get(recording_id, Findings()), clips[recording_id])
        for recording_id, row in sorted(said.items())
    ]


def _recording(name: str, row: Mapping[str, Any], found: Findings, clips: list[ClipFacts]) -> RecordingFacts:
    return RecordingFacts(
        recording_id=name,
        measures=tuple(measure for measure in Measure if measure in found.measures),
        removed={item["what"]: item["count"] for item in row["removed"]},
        doubts=tuple(sorted(found.doubts)),
        outside_ms=found.outside_ms,
        parameters=found.parameters,
        checks={check: found.checks[check] for check in Check if check in found.checks},
        clips=tuple(sorted(clips, key=lambda clip: clip.key)),
    )
