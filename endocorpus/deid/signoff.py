"""Reading a reviewer's decisions back, and what may be concluded from them.

A file of decisions comes from a browser, by mail or on a stick. It is believed only if it is of this very corpus and
page, and complete; then it is signed with the site's key, with the reviewer's name in it, beside what follows from it:
the figures of the review, and which recordings go back to quarantine. Those two stay true when the corpus has changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy import special

from endocorpus.deid.attest import Day, Hash, Id, Person, ReviewFacts
from endocorpus.deid.chain import BrokenChainError, canonical, read_chain, sha256, write_chain
from endocorpus.deid.review import ReviewPlan
from endocorpus.errors import DataError

PURPOSE = "review 1"
CONFIDENCE_PERCENT = 95
_LARGEST = 1 << 26  # bytes of a file of decisions


class Decisions(BaseModel):
    """What a page's "Save" writes; also its grammar."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["endocorpus review 1"]
    corpus: Id
    clips_digest: Hash
    plan: Hash
    seed: Annotated[int, Field(ge=-(2**53), le=2**53)]
    sample: Annotated[int, Field(ge=1, le=2**53)]  # how many clips were drawn at random
    complete: Literal[True]
    reviewer: Person
    date: Day
    decisions: Mapping[Id, Literal["accepted", "rejected"]]

    @property
    def rejected(self) -> tuple[str, ...]:
        return tuple(sorted(key for key, decided in self.decisions.items() if decided == "rejected"))

    @property
    def digest(self) -> str:
        """SHA-256 of what was decided, however it was written down."""
        return sha256(canonical(self.model_dump(mode="json")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What a random sample says of all clips: with `confidence_percent`, at most the share `bound` leaks."""

    clips: int
    sample: int
    leaks: int
    bound: float
    confidence_percent: int

    @property
    def sentence(self) -> str:
        """One line for people. The bound is rounded up."""
        seen = "no leak" if self.leaks == 0 else f"{self.leaks} leak{'s' if self.leaks > 1 else ''}"
        if self.sample == self.clips:
            return f"all {self.clips:,} clips were shown, {seen} seen"
        most = f"{math.ceil(round(self.bound * 1e4, 6)) / 100:.2f}"
        return (
            f"{self.sample:,} of {self.clips:,} clips drawn at random, {seen} seen: "
            f"at most {most} % of all clips leak, at {self.confidence_percent} % confidence"
        )


class Signed(BaseModel):
    """What was decided on a page, signed: the decisions, and what followed from them while the corpus was there.

    `recordings` are the ids of those with a rejected clip. `signer` is the public key, 64 hex digits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    decisions: Decisions
    review: ReviewFacts
    recordings: tuple[Id, ...]
    signer: Hash


def read_decisions(path: Path, plan: ReviewPlan) -> Decisions:
    """The decisions that were made on the page of `plan`.

    Raises:
        DataError: unreadable, a draft, of another corpus or page, or not about exactly the clips that were shown.
    """
    said = load_decisions(path)
    refuse_other_page(said, plan, path)
    return said


def load_decisions(path: Path) -> Decisions:
    """The decisions in a file, of whatever page: `refuse_other_page` judges that.

    Raises:
        DataError: unreadable, a draft, or no decisions.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise DataError(f"{path}: no file of decisions; save it again from the review page") from None
    return _parse(value, path)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands there twice")
    return dict(pairs)


def _parse(value: object, where: object) -> Decisions:
    if isinstance(value, dict) and value.get("complete") is False:
        raise DataError(f"{where}: a draft; open it in the review page, decide on every clip and save again")
    try:
        return Decisions.model_validate(value)
    except ValidationError as error:
        fields = sorted({str(problem["loc"][0]) for problem in error.errors() if problem["loc"]})
        raise DataError(
            f"{where}: no file of decisions of this version (wrong: {', '.join(fields)[:200] or 'all of it'}); "
            "save it again from the review page"
        ) from None


def refuse_other_page(said: Decisions, plan: ReviewPlan, where: object) -> None:
    """Raise a `DataError` unless the decisions are about exactly the clips that the page of `plan` shows."""
    if (said.corpus, said.clips_digest) != (plan.name, plan.clips_digest):
        raise DataError(
            f"{where}: is of another corpus, or of {plan.name!r} before it changed; have a new page made and review it"
        )
    if (said.plan, said.seed, said.sample) != (plan.digest, plan.seed, len(plan.sample)):
        raise DataError(
            f"{where}: is of another page of {plan.name!r}, which showed other clips; review the newest one"
        )
    missing, strange = set(plan.order) - set(said.decisions), set(said.decisions) - set(plan.order)
    if missing or strange:
        what = f"{len(missing)} clips have no decision" if missing else f"{len(strange)} clips were not shown"
        raise DataError(f"{where}: {what}, the first is {min(missing or strange)}; review it again")


def sign_decisions(plan: ReviewPlan, decisions: Decisions, recordings: Mapping[str, str], key: bytes) -> bytes:
    """The decisions and what follows from them, signed with the site's key: one link of a chain (`chain.py`).

    Args:
        recordings: of which recording the clips are, by key.
    """
    refused = sorted({recordings[clip] for clip in decisions.rejected})
    review = review_facts(plan, decisions)
    body = {
        "decisions": decisions.model_dump(mode="json"),
        "review": review.model_dump(mode="json"),
        "recordings": refused,
    }
    return write_chain([body], key, PURPOSE)


def read_signed(data: bytes, where: object, signer: str | None = None) -> Signed:
    """What `sign_decisions` signed.

    Args:
        signer: the site's public key, 64 hex digits; without it, whose key signed is not judged.

    Raises:
        DataError: changed, signed with another key, or nothing that this version signs.
    """
    chain = read_chain(data, PURPOSE, where, signer)
    if len(chain.bodies) > 1:
        raise BrokenChainError(str(where), 1, "is one too many: decisions are one statement")
    try:
        said = Signed.model_validate_json(canonical({**chain.bodies[0], "signer": chain.signer}))
    except ValidationError:
        raise BrokenChainError(str(where), 0, "is no review of this version") from None
    decisions, review = said.decisions, said.review
    of = (decisions.digest, decisions.clips_digest, len(decisions.decisions), len(decisions.rejected), decisions.sample)
    if of != (review.decisions, review.corpus, review.shown, review.rejected, review.sample):
        raise BrokenChainError(str(where), 0, "holds figures of other decisions than its own")
    return said


def acceptance(plan: ReviewPlan, decisions: Decisions, confidence_percent: int = CONFIDENCE_PERCENT) -> Acceptance:
    """What the random part of the review says; the worst clips were chosen, so they do not count."""
    leaks = sum(decisions.decisions[key] == "rejected" for key in plan.sample)
    sample = len(plan.sample)
    share = leaks / sample if sample == plan.num_clips else upper_bound(leaks, sample, confidence_percent)
    return Acceptance(
        clips=plan.num_clips, sample=sample, leaks=leaks, bound=share, confidence_percent=confidence_percent
    )


def clean_sentence(plan: ReviewPlan) -> str:
    """What the random part says if nothing in it is rejected."""
    sample = len(plan.sample)
    share = 0.0 if sample == plan.num_clips else upper_bound(0, sample)
    return Acceptance(
        clips=plan.num_clips, sample=sample, leaks=0, bound=share, confidence_percent=CONFIDENCE_PERCENT
    ).sentence


def acceptance_of(review: ReviewFacts) -> Acceptance:
    """`acceptance`, from what was written down of it."""
    return Acceptance(
        clips=review.clips,
        sample=review.sample,
        leaks=review.sample_rejected,
        bound=review.bound_ppm / 1e6,
        confidence_percent=review.confidence_percent,
    )


def upper_bound(leaks: int, sample: int, confidence_percent: int = CONFIDENCE_PERCENT) -> float:
    """The one-sided Clopper-Pearson bound on the share of leaks: were it larger, `sample` random clips would show more
    than `leaks` with at least the given confidence. Exact for draws with replacement, on the safe side without."""
    if not 0 <= leaks <= sample or sample < 1:
        raise ValueError(f"{leaks} leaks among {sample} clips")
    if leaks == sample:
        return 1.0
    return float(special.betaincinv(leaks + 1, sample - leaks, confidence_percent / 100))


def sample_size(most: float, confidence_percent: int = CONFIDENCE_PERCENT) -> int:
    """How many random clips must be free of leaks to say that at most the share `most` leaks: 299 for 0.01 at 95 %."""
    if not 0 < most < 1:
        raise ValueError(f"a share lies between 0 and 1, not at {most}")
    number = max(1, math.floor(math.log(1 - confidence_percent / 100) / math.log1p(-most)) - 1)
    while upper_bound(0, number, confidence_percent) > most:
        number += 1
    return number


def review_facts(plan: ReviewPlan, decisions: Decisions) -> ReviewFacts:
    """What the attestation says of a review."""
    found = acceptance(plan, decisions)
    return ReviewFacts(
        reviewer=decisions.reviewer,
        date=decisions.date,
        corpus=decisions.clips_digest,
        decisions=decisions.digest,
        clips=plan.num_clips,
        shown=len(plan.order),
        rejected=len(decisions.rejected),
        sample=found.sample,
        sample_rejected=found.leaks,
        bound_ppm=math.ceil(round(found.bound * 1e6, 6)),
        confidence_percent=found.confidence_percent,
    )
