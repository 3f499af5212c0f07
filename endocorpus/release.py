"""From a finished corpus to one that may leave the house: reviews taken in, the attestation, and what holds it back.

Three entries of `corpus.json` are written here, after everything else: `released`, `attestation` (xxh3-128 of the
file) and `reviews` (signed files by name, with theirs). A corpus without them is not released. Whoever can write into
the folder can write them too; it is the signature in the attestation that proves something.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from endocorpus.corpus.files import atomic_file, digest_file
from endocorpus.corpus.manifest import DESCRIPTOR, RELEASED, Corpus, named_corpus, open_corpus, write_descriptor
from endocorpus.deid.attest import ATTESTATION, Attestation, attest, open_points, read_attestation
from endocorpus.deid.chain import public_key
from endocorpus.deid.describe import clips_digest, corpus_facts, load_attestation, recording_facts, write_attestation
from endocorpus.deid.evidence import findings_of, masks_of
from endocorpus.deid.review import plan_corpus_review
from endocorpus.deid.signoff import (
    Signed,
    acceptance_of,
    load_decisions,
    read_signed,
    refuse_other_page,
    sign_decisions,
)
from endocorpus.errors import DataError

REVIEWS = "reviews"  # folder of signed decisions, in the corpus
OWN = (RELEASED, "attestation", REVIEWS)  # entries of the descriptor that a build does not know
_SUFFIX = ".jsonl"
_NAME = re.compile(r"[0-9a-f]{16}\.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenIn:
    """Decisions that were read back: the sentence of acceptance sampling, and the recordings that go."""

    reviewer: str
    sentence: str
    recordings: tuple[str, ...]


def take_in(out: Path, decisions: Path, key: bytes) -> TakenIn:
    """Read decisions back, if they are about the corpus as it lies there, and keep them in it, signed.

    Decisions that were taken in before are not judged again: the corpus may have changed because of them.

    Args:
        out: folder of the corpus.
        decisions: file that the review page saved.
        key: the 32 bytes of the site's Ed25519 key.

    Raises:
        DataError: no corpus, or decisions that are a draft, damaged, or about another corpus or page.
    """
    said = load_decisions(decisions)
    path = out / REVIEWS / f"{said.digest[:16]}{_SUFFIX}"
    if path.is_file():
        return _taken_in(read_signed(path.read_bytes(), path, public_key(key)))
    corpus = named_corpus(out)
    plan = plan_corpus_review(corpus, masks_of(corpus), seed=said.seed, sample=said.sample)
    refuse_other_page(said, plan, decisions)
    clips = corpus.clips()
    recordings = dict(zip(clips["key"].to_pylist(), clips["recording_id"].to_pylist(), strict=True))
    data = sign_decisions(plan, said, recordings, key)
    if said.rejected and corpus.released:  # at once: the build that takes the recordings out may be killed
        write_descriptor(out, {**corpus.descriptor, RELEASED: False})
    with atomic_file(path) as file:
        file.write(data)
    return _taken_in(read_signed(data, path))


def _taken_in(signed: Signed) -> TakenIn:
    return TakenIn(
        reviewer=signed.decisions.reviewer, sentence=acceptance_of(signed.review).sentence, recordings=signed.recordings
    )


def reviews(out: Path) -> dict[str, Signed]:
    """All reviews that were taken into the corpus in `out`, by file name.

    Raises:
        DataError: one was changed, or one that the corpus lists is missing.
    """
    found = {path.name: read_signed(path.read_bytes(), path) for path in sorted((out / REVIEWS).glob(f"*{_SUFFIX}"))}
    if lost := sorted(set(_listed(out)) - set(found)):
        raise DataError(
            f"{out / REVIEWS / lost[0]}: is missing, so it is not known any more which recordings a reviewer rejected; "
            "put it back from a copy, or build into another folder and have that reviewed"
        )
    return found


def _listed(out: Path) -> Mapping[str, str]:
    try:
        corpus = open_corpus(out)
    except DataError:  # not finished: a build was killed, but the files are there
        return {}
    return _reviews_of(corpus)


def _reviews_of(corpus: Corpus) -> Mapping[str, str]:
    """Names and digests of the reviews that a descriptor lists, which may come from anybody.

    Raises:
        DataError: it lists what no build writes.
    """
    listed = corpus.descriptor.get(REVIEWS, {})
    if not isinstance(listed, dict) or not all(_NAME.fullmatch(name) for name in listed):
        raise DataError(f"{corpus.root / DESCRIPTOR}: lists reviews that no build writes")
    return listed


def rejected_recordings(out: Path) -> frozenset[str]:
    """Ids of the recordings that a reviewer has ever rejected a clip of; they stay out.

    Raises:
        DataError: as `reviews`.
    """
    return frozenset(recording for signed in reviews(out).values() for recording in signed.recordings)


def settle(corpus: Corpus, key: bytes | None, day: str | None = None) -> Corpus:
    """Attest a corpus if there is a key, and write down whether it is released.

    An attestation that says the same already stays as it is, with its date. One that is about other clips, or that
    this corpus does not list, goes.

    Args:
        key: the 32 bytes of the site's Ed25519 key; without it, only what was attested before holds.
        day: date of the attestation, YYYY-MM-DD; today.

    Raises:
        DataError: a shard, a table or a review is missing or damaged.
    """
    taken = reviews(corpus.root)
    if key is not None:
        attestation: Attestation | None = _attested(corpus, key, taken, day or _today())
    else:
        attestation = _kept(corpus)
    own: dict[str, Any] = {
        RELEASED: not (open_points(attestation) if attestation else _unsigned_points(corpus)),
        "attestation": digest_file(corpus.root / ATTESTATION) if attestation else None,
        REVIEWS: {name: digest_file(corpus.root / REVIEWS / name) for name in sorted(taken)},
    }
    settled = {**corpus.descriptor, **own}
    if settled != corpus.descriptor:
        write_descriptor(corpus.root, settled)
    return Corpus(root=corpus.root, descriptor=settled)


def _today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


def _attested(corpus: Corpus, key: bytes, taken: Mapping[str, Signed], day: str) -> Attestation:
    signed = _review_of(corpus, taken, public_key(key))
    facts = corpus_facts(corpus, models=_deid(corpus).get("models", {}))
    decided: Mapping[str, Literal["accepted", "rejected"]] = signed.decisions.decisions if signed else {}
    recordings = recording_facts(corpus, findings_of(corpus), decided)
    data = attest(facts, recordings, day=day, key=key, review=signed.review if signed else None)
    made = read_attestation(data, corpus.root / ATTESTATION)
    try:
        old = load_attestation(corpus, public_key(key))
    except DataError:
        old = None
    if old is not None and (old.corpus, old.recordings, old.review) == (made.corpus, made.recordings, made.review):
        return old
    write_attestation(corpus, data)
    return made


def _review_of(corpus: Corpus, taken: Mapping[str, Signed], signer: str) -> Signed | None:
    """The review of exactly these clips that this site signed; of several the one that says most."""
    digest = clips_digest(corpus)
    of_these = [signed for signed in taken.values() if signed.review.corpus == digest and signed.signer == signer]
    return min(of_these, key=lambda signed: (signed.review.bound_ppm, signed.review.decisions), default=None)


def _kept(corpus: Corpus) -> Attestation | None:
    """The attestation that the corpus lists, if it is still about these clips; any other one is taken away."""
    path = corpus.root / ATTESTATION
    listed = corpus.descriptor.get("attestation")
    try:
        if listed and path.is_file() and digest_file(path) == listed:
            return load_attestation(corpus)
    except DataError:
        pass
    path.unlink(missing_ok=True)
    return None


def _deid(corpus: Corpus) -> Mapping[str, Any]:
    """What the build wrote about de-identification as a whole."""
    found = corpus.descriptor.get("deid")
    return found if isinstance(found, dict) else {}


def _unsigned_points(corpus: Corpus) -> tuple[str, ...]:
    """What holds back a corpus without an attestation."""
    if corpus.descriptor["source"]["privacy"] != "public":
        return ("It has no attestation: nobody has signed for it (build with --signing-key, then review it).",)
    found = sum(check["count"] for row in corpus.table("deid").to_pylist() for check in row["checks"])
    points = [] if corpus.descriptor["counts"]["clips"] else ["It holds no recordings."]
    return (*points, *([f"Checks of the written clips found {found} things that must not be there."] if found else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Whether a corpus is released, who signed (public key, if it is attested), and what is open."""

    released: bool
    signer: str | None
    points: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """One line for people."""
        if self.released:
            return "yes" if self.signer else "yes: public"
        return f"no: {self.points[0]}" if self.points else "no: build it again to have it judged"


def standing(corpus: Corpus) -> Standing:
    """How a corpus stands, going by its descriptor and its attestation; no shard is opened.

    Raises:
        DataError: a table is missing or damaged.
    """
    signer = None
    try:
        if (corpus.root / ATTESTATION).is_file() or corpus.descriptor.get("attestation"):
            attestation = load_attestation(corpus)
            signer, points = attestation.signer, open_points(attestation)
        else:
            points = _unsigned_points(corpus)
    except DataError as error:
        points = (str(error),)
    return Standing(released=corpus.released and not points, signer=signer, points=points)


def told(corpus: Corpus) -> Iterator[str]:
    """What a build says at its end about the release, in lines."""
    found = standing(corpus)
    if found.released:
        yield f"released: {'signed with the key ' + found.signer if found.signer else 'public, by its source'}"
        return
    yield "NOT RELEASED"
    yield from (f"  {point}" for point in found.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is wrong with the release of a corpus: (file, what) each, and the SHA-256 of the clips that were attested,
    by key; None where nothing was."""

    problems: tuple[tuple[str, str], ...]
    attested: Mapping[str, str] | None


def check_release(corpus: Corpus, signer: str | None = None) -> Checked:
    """Hold what `corpus.json` says of the release against what was signed. The clips themselves are not read.

    Args:
        signer: public key of whoever must have signed, 64 hex digits; by default whose key signed is not judged.
    """
    attestation, problems = None, [*_check_reviews(corpus)]
    path, listed = corpus.root / ATTESTATION, corpus.descriptor.get("attestation")
    if path.is_file() or listed or signer:
        try:
            attestation = load_attestation(corpus, signer)
            if digest_file(path) != listed:
                problems.append((ATTESTATION, "is not the one that corpus.json lists"))
        except DataError as error:
            problems.append((ATTESTATION, str(error).removeprefix(f"{path}: ").removeprefix(f"{corpus.root}: ")))
    points = open_points(attestation) if attestation else _unsigned_points(corpus)
    if corpus.released and points:
        problems.append((DESCRIPTOR, f"says that the corpus is released, but: {points[0]}"))
    clips = [clip for recording in attestation.recordings for clip in recording.clips] if attestation else []
    return Checked(problems=tuple(problems), attested={c.key: c.sha256 for c in clips} if attestation else None)


def _check_reviews(corpus: Corpus) -> Iterator[tuple[str, str]]:
    try:
        listed = _reviews_of(corpus)
    except DataError as error:
        yield DESCRIPTOR, str(error).removeprefix(f"{corpus.root / DESCRIPTOR}: ")
        return
    for name, digest in sorted(listed.items()):
        path = corpus.root / REVIEWS / name
        try:
            read_signed(path.read_bytes(), path)
            if digest_file(path) != digest:
                yield f"{REVIEWS}/{name}", "is not the one that corpus.json lists"
        except OSError as error:
            yield f"{REVIEWS}/{name}", f"cannot be read: {error.strerror}"
        except DataError as error:
            yield f"{REVIEWS}/{name}", str(error).removeprefix(f"{path}: ")
