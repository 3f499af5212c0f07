"""The attestation of a corpus: what was looked for in each recording, what was removed, and who signed for it.

One file of JSON lines, hash-chained and signed (`chain.py`): a line about the corpus, one per recording with its clips,
and a last one with the sums, the review and the DICOM codes that may be claimed. It binds to the clips by SHA-256. It
holds counts, hashes, ids of the corpus and closed words; no path, no name of a file, no time finer than a date. The one
free text is the reviewer's name.

The models below are the file's grammar, for writing and for reading: what does not fit is refused both ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from endocorpus.deid.chain import BrokenChainError, canonical, read_chain, write_chain
from endocorpus.errors import DataError

ATTESTATION = "attestation.jsonl"
PURPOSE = "attestation 1"
MOST_LEAKS_PPM = 10_000  # a review that leaves more possible releases nothing


class Measure(StrEnum):
    """What was done to a recording before its clips were written."""

    PIXEL_BARRIER = "pixel barrier"  # only decoded pixels of one video stream are encoded anew
    CONTENT_AREA = "content area"  # all outside the moving endoscopic picture is black or cut off
    BURNT_IN_TEXT = "burnt-in text"  # overlays on the picture are looked for and filled
    OUT_OF_BODY = "out of body"  # spans outside the body are looked for and left out
    FACES = "faces"  # likewise spans with a face


class Check(StrEnum):
    """What was looked for in the written clips themselves."""

    STREAMS = "streams"  # anything but one video stream
    CONTAINER = "container"  # side data, captions, names or times in the file around the pictures
    IDENTIFIERS = "identifiers"  # bytes of identifiers that are known from the source
    READ_AGAIN = "read again"  # text that a model other than the one that masked can read


# The codes of DICOM PS3.15 (CID 7050) for what a de-identification did.
CODES: Mapping[str, str] = {
    "113100": "Basic Application Confidentiality Profile",
    "113101": "Clean Pixel Data Option",
    "113102": "Clean Recognizable Visual Features Option",
    "113103": "Clean Graphics Option",
    "113105": "Clean Descriptors Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
}


def _real_date(text: str) -> str:
    date.fromisoformat(text)  # ValueError where there is no such day
    return text


def _name_of_a_person(text: str) -> str:
    if text != " ".join(text.split()) or not text.isprintable() or set(text) & set("/\\<>"):
        raise ValueError("a name is printed on one line, without slashes and angle brackets")
    return text


# Patterns are those of Rust, where $ is the end of the text and nothing else.
Count = Annotated[int, Field(ge=0, le=2**53)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,99}$")]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9 _-]{0,39}$")]  # a category of ours, never a value that was found
Phrase = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z .,;()=<>_+-]{0,199}$")]  # of ours, such as a version
Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_real_date)]
Person = Annotated[str, Field(min_length=2, max_length=80), AfterValidator(_name_of_a_person)]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClipFacts(_Said):
    """A clip as it was written. `masked_pixels` counts those of `picture_pixels` that are filled on any frame."""

    key: Id
    sha256: Hash  # of the mp4
    frames: Count
    masked_pixels: Count = 0
    picture_pixels: Count
    review: Literal["not shown", "accepted", "rejected"] = "not shown"


class RecordingFacts(_Said):
    """A recording whose clips are in the corpus. `doubts` are those that its source's policy let pass."""

    recording_id: Id
    measures: tuple[Measure, ...]
    removed: Mapping[Word, Count]  # category -> how many
    doubts: tuple[Word, ...] = ()
    outside_ms: Count = 0  # milliseconds left out because they were, or might be, outside the body
    parameters: Hash  # of the settings and the plan that were applied
    checks: Mapping[Check, Count]  # findings of each check that ran
    clips: tuple[ClipFacts, ...]


class ModelFacts(_Said):
    """A neural network that looked at pictures: which bytes, from where, run by what."""

    sha256: Hash
    origin: Phrase
    requires: Phrase  # what brings it, such as a wheel and its version
    licence: Phrase
    runtime: Phrase


class CorpusFacts(_Said):
    """What is the same for all recordings."""

    name: Id
    source: Id
    privacy: Literal["public", "private"]
    synthetic: bool
    endocorpus: Phrase
    clips_digest: Hash  # of `review.clips_digest`
    models: Mapping[Word, ModelFacts]
    ids: Literal["as published", "keyed", "random"]  # what stands for patients
    dates: Literal["none", "dropped", "shifted"]
    quarantined: Mapping[Word, Count]  # reason -> recordings whose pixels were not written


class ReviewFacts(_Said):
    """What a person saw and decided. `bound_ppm`: at most so many clips in a million show what the reviewer would have
    rejected, with `confidence_percent`, going by the random sample."""

    reviewer: Person
    date: Day
    corpus: Hash  # `CorpusFacts.clips_digest` of what was reviewed
    decisions: Hash  # of the file of decisions
    clips: Count
    shown: Count
    rejected: Count
    sample: Count
    sample_rejected: Count
    bound_ppm: Count
    confidence_percent: Annotated[int, Field(gt=0, lt=100)]


class Sums(_Said):
    """The last statement: sums over all recordings, and what they allow to claim."""

    recordings: Count
    clips: Count
    frames: Count
    removed: Mapping[Word, Count]
    doubts: Mapping[Word, Count]  # recordings
    outside_ms: Count
    masked_pixels: Count
    picture_pixels: Count
    codes: tuple[str, ...]


class Attestation(_Said):
    """A whole attestation. `signer` is the public key in hex; see `chain.Chain`."""

    corpus: CorpusFacts
    recordings: tuple[RecordingFacts, ...]
    sums: Sums
    review: ReviewFacts | None
    date: Day
    signer: str
    head: str


def attest(
    corpus: CorpusFacts,
    recordings: Iterable[RecordingFacts],
    *,
    day: str,
    key: bytes,
    review: ReviewFacts | None = None,
) -> bytes:
    """The signed file. Its bytes depend on the arguments alone; the order of `recordings` does not matter.

    Args:
        day: date of the attestation, YYYY-MM-DD.
        key: the 32 bytes of the site's Ed25519 key (`keys.read_key`).

    Raises:
        ValueError: a recording or clip stands there twice (a bug).
    """
    ordered = sorted(recordings, key=lambda recording: recording.recording_id)
    _refuse_twins(ordered)
    bodies = [{"about": "corpus", "corpus": corpus.model_dump(mode="json")}]
    bodies += [{"about": "recording", "recording": recording.model_dump(mode="json")} for recording in ordered]
    last = {
        "about": "end",
        "sums": sums(corpus, ordered).model_dump(mode="json"),
        "review": review.model_dump(mode="json") if review else None,
        "date": _real_date(day),
    }
    return write_chain([*bodies, last], key, PURPOSE)


def _refuse_twins(recordings: Sequence[RecordingFacts]) -> None:
    ids = Counter(recording.recording_id for recording in recordings)
    keys = Counter(clip.key for recording in recordings for clip in recording.clips)
    if twins := [name for name, times in (ids + keys).items() if times > 1 and max(ids[name], keys[name]) > 1]:
        raise ValueError(f"stands in the attestation twice: {twins[0]}")


def sums(corpus: CorpusFacts, recordings: Sequence[RecordingFacts]) -> Sums:
    """What the last statement says, from the others."""
    clips = [clip for recording in recordings for clip in recording.clips]
    removed: Counter[str] = Counter()
    for recording in recordings:
        removed.update(recording.removed)
    return Sums(
        recordings=len(recordings),
        clips=len(clips),
        frames=sum(clip.frames for clip in clips),
        removed=dict(sorted(removed.items())),
        doubts=dict(sorted(Counter(doubt for r in recordings for doubt in dict.fromkeys(r.doubts)).items())),
        outside_ms=sum(recording.outside_ms for recording in recordings),
        masked_pixels=sum(clip.masked_pixels for clip in clips),
        picture_pixels=sum(clip.picture_pixels for clip in clips),
        codes=option_codes(corpus, recordings),
    )


def option_codes(corpus: CorpusFacts, recordings: Sequence[RecordingFacts]) -> tuple[str, ...]:
    """The codes of `CODES` that hold for every recording; none for a corpus without recordings.

    Clean Pixel Data is claimed only where text was looked for, and another model then found none; Clean Recognizable
    Visual Features only where both frames outside the body and faces were looked for.
    """
    if not recordings:
        return ()
    everywhere = set(Measure).intersection(*(recording.measures for recording in recordings))
    read_again = all(recording.checks.get(Check.READ_AGAIN) == 0 for recording in recordings)
    claims = {
        "113100": Measure.PIXEL_BARRIER in everywhere,
        "113101": {Measure.CONTENT_AREA, Measure.BURNT_IN_TEXT} <= everywhere and read_again,
        "113102": {Measure.OUT_OF_BODY, Measure.FACES} <= everywhere,
        "113103": Measure.PIXEL_BARRIER in everywhere,
        "113105": Measure.PIXEL_BARRIER in everywhere,
        "113107": corpus.dates == "shifted",
    }
    return tuple(code for code, holds in claims.items() if holds)


def read_attestation(data: bytes, where: object, signer: str | None = None) -> Attestation:
    """Check the chain, the signature and the sums of a file that may come from anybody.

    Args:
        where: what to call the file in an error.
        signer: the site's public key, 64 hex digits; without it, whose key signed is not judged.

    Raises:
        BrokenChainError: a link was changed, or the signature does not fit; names the first one.
        DataError: signed, but nothing that this version writes.
    """
    chain = read_chain(data, PURPOSE, where, signer)
    first, *middle, last = chain.bodies if len(chain.bodies) > 1 else ({}, {})
    corpus = _said(CorpusFacts, first, "corpus", ("about", "corpus"), where, 0)
    recordings = tuple(
        _said(RecordingFacts, body, "recording", ("about", "recording"), where, number)
        for number, body in enumerate(middle, start=1)
    )
    end = len(chain.bodies) - 1
    total = _said(Sums, last, "sums", ("about", "date", "review", "sums"), where, end)
    try:
        _refuse_twins(recordings)
        if total != sums(corpus, recordings):
            raise ValueError("its sums are not those of the recordings")
        review = ReviewFacts.model_validate_json(canonical(last["review"]), strict=True) if last["review"] else None
        return Attestation(
            corpus=corpus,
            recordings=recordings,
            sums=total,
            review=review,
            date=last["date"],
            signer=chain.signer,
            head=chain.head,
        )
    except ValueError:
        raise BrokenChainError(str(where), end, "says what does not follow from the links before it") from None


S = TypeVar("S", bound=_Said)


def _said(kind: type[S], body: Mapping[str, Any], name: str, fields: tuple[str, ...], where: object, link: int) -> S:
    about = {"corpus": "corpus", "recording": "recording", "sums": "end"}[name]
    try:
        if tuple(sorted(body)) != fields or body["about"] != about:
            raise ValueError(f"is not about {about}")
        return kind.model_validate_json(canonical(body[name]), strict=True)
    except ValueError:
        raise BrokenChainError(str(where), link, f"is no statement about {about} of this version") from None


def open_points(attestation: Attestation) -> tuple[str, ...]:
    """Why the corpus is not released yet, in sentences; none where it may be.

    A private corpus needs all measures and checks on every recording, and a person's acceptance of what was shown.
    Findings and rejected clips hold back any corpus.
    """
    points = []
    recordings = attestation.recordings
    if not recordings:
        points.append("It holds no recordings.")
    found = sum(count for recording in recordings for count in recording.checks.values())
    if found:
        points.append(f"Checks of the written clips found {found} things that must not be there.")
    rejected = [clip.key for recording in recordings for clip in recording.clips if clip.review == "rejected"]
    if rejected:
        points.append(f"{len(rejected)} clips that the reviewer rejected are still in it, the first is {rejected[0]}.")
    if attestation.corpus.privacy == "private":
        points += _missing(recordings)
        points += _unreviewed(attestation)
    return tuple(points)


def _unreviewed(attestation: Attestation) -> list[str]:
    review, corpus = attestation.review, attestation.corpus
    if review is None:
        return ["Nobody has reviewed it and signed for it."]
    points = []
    if review.corpus != corpus.clips_digest:
        points.append("The review is of other clips than these.")
    marked = sum(clip.review != "not shown" for recording in attestation.recordings for clip in recording.clips)
    if marked != review.shown:
        points.append(f"The review decided on {review.shown} clips, but {marked} are marked so.")
    if review.bound_ppm > MOST_LEAKS_PPM:
        points.append(
            f"The review allows for leaks in up to {review.bound_ppm / 1e4:.2f} % of clips, {MOST_LEAKS_PPM / 1e4:g} % "
            "is the most; review again, with a larger sample."
        )
    return points


def _missing(recordings: Sequence[RecordingFacts]) -> list[str]:
    lacking: list[tuple[str, str, int]] = [
        *(("measure", measure, sum(measure not in r.measures for r in recordings)) for measure in Measure),
        *(("check", check, sum(check not in r.checks for r in recordings)) for check in Check),
    ]
    return [
        f"The {kind} {str(what)!r} was not applied to {count} of {len(recordings)} recordings."
        for kind, what, count in lacking
        if count
    ]


def refuse_other_clips(attestation: Attestation, clips: Mapping[str, str], where: object) -> None:
    """Compare with the clips that are there.

    Args:
        clips: key -> SHA-256 of the mp4, of all clips of the corpus (`describe.clip_hashes`).
        where: what to call the corpus in an error.

    Raises:
        DataError: a clip is missing, not attested, or of other bytes; names the first.
    """
    said = {clip.key: clip.sha256 for recording in attestation.recordings for clip in recording.clips}
    for key in sorted(said | dict(clips)):
        if key not in clips:
            raise DataError(f"{where}: the attestation is about the clip {key}, which is not there")
        if key not in said:
            raise DataError(f"{where}: the attestation says nothing about the clip {key}")
        if said[key] != clips[key]:
            raise DataError(f"{where}: the clip {key} does not have the bytes that were attested")
