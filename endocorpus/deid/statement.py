"""The attestation in plain words: one page of text for whoever answers for privacy and has to sign.

It says nothing that the attestation does not say, and it does not leave out what speaks against a release.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from endocorpus.deid.attest import CODES, Attestation, Check, Measure, ReviewFacts, open_points
from endocorpus.deid.signoff import acceptance_of

_WIDTH = 100  # characters of a line

LOOKED_FOR: Mapping[Measure, str] = {
    Measure.PIXEL_BARRIER: (
        "Sound, subtitles, captions, attachments, thumbnails, tags, headers and everything else beside the pictures: "
        "only decoded pictures of one video were encoded anew, nothing was copied"
    ),
    Measure.CONTENT_AREA: (
        "Panels, names and clocks around the endoscopic picture: all outside the moving area was cut off or made black"
    ),
    Measure.BURNT_IN_TEXT: "Text on the endoscopic picture: it was filled with one colour; what it said was never kept",
    Measure.OUT_OF_BODY: "Stretches filmed outside the body, at any place of the recording: they were left out",
    Measure.FACES: "Faces: stretches that show one were left out",
}
CHECKED: Mapping[Check, str] = {
    Check.STREAMS: "Does a clip hold anything but one video?",
    Check.CONTAINER: "Does a clip hold captions, side data, names or times around its pictures?",
    Check.IDENTIFIERS: "Do known identifiers of the recording stand in the bytes that were written?",
    Check.READ_AGAIN: "Can another model than the one that masked still read text in the pictures?",
}
# What remains whatever a program does: said on every page, because a signature is also about these.
NO_SOFTWARE = (
    "A camera leaves a fingerprint in its pictures: other recordings of it may tell which hospital a clip comes from.",
    "A rare finding, anatomy or implant, or the mucosa itself, may be recognised by who knows the patient or the case.",
    "Whoever has the original recording can find its clips by comparing pictures.",
    "What a detector does not find is not masked, and a reviewer can overlook it too. The figures bound this risk.",
    "A model that was trained on the clips may repeat parts of them.",
    "What recipients do, with the clips alone or joined with other data, is a matter of agreements, not of pixels.",
)
EVIDENCE = (
    "All results on how well names, dates and numbers are found and hidden were measured on overlays that a program "
    "drew, over rendered or over public endoscopic pictures. None was measured on recordings of patients with real "
    "overlays. What the reviewer saw in this corpus is the only evidence about this corpus."
)


def statement(attestation: Attestation, *, key_is_known: bool) -> str:
    """The page as text.

    Args:
        key_is_known: whether the signature was checked with a public key that came from the site itself.
    """
    return "\n".join(_lines(attestation, key_is_known)) + "\n"


def _lines(attestation: Attestation, key_is_known: bool) -> Iterator[str]:
    corpus, points = attestation.corpus, open_points(attestation)
    yield from _heading(f"De-identification of the corpus {corpus.name}, {attestation.date}", "=")
    if corpus.synthetic:
        yield from _paragraph("These recordings were rendered by a program. They show no patient.")
    if points:
        yield from _paragraph("NOT RELEASED:")
        yield from _items(points)
    elif corpus.privacy == "private":
        yield from _paragraph("RELEASED: nothing below is open.")
    else:
        yield from _paragraph(
            "Public: it may be used because its provider or owner has published it. No open point was found; nobody "
            "here has to sign it."
        )
    yield from _heading("What it is")
    yield from _items(_content(attestation))
    yield from _heading("What was looked for")
    yield from _items(_measures(attestation))
    yield from _heading("What was removed or kept back")
    yield from _items(_removed(attestation))
    yield from _heading("How the written clips were checked")
    yield from _items(_checks(attestation))
    yield from _heading("Who looked at it")
    yield from _paragraph(_review(attestation.review))
    yield from _heading("With what")
    yield from _items(_tools(attestation))
    yield from _heading("In the words of DICOM PS3.15")
    yield from _items(_codes(attestation))
    yield from _heading("What no software can close")
    yield from _items(NO_SOFTWARE)
    yield from _heading("What these statements rest on")
    yield from _paragraph(EVIDENCE)
    yield from _paragraph("This page is no legal advice. Whether a release is lawful is for those who answer for it.")
    yield from _heading("Signature")
    yield from _signature(attestation, key_is_known)


def _heading(text: str, line: str = "-") -> Iterator[str]:
    yield from ([] if line == "=" else [""])
    yield from (text, line * len(text))


def _paragraph(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, _WIDTH, break_on_hyphens=False)


def _items(texts: tuple[str, ...] | list[str]) -> Iterator[str]:
    for text in texts:
        yield from textwrap.wrap(
            text, _WIDTH, initial_indent="* ", subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
        )


def _content(attestation: Attestation) -> list[str]:
    corpus, sums = attestation.corpus, attestation.sums
    ids = {
        "as published": "Recordings keep the names under which they were published.",
        "keyed": "Patients have pseudonyms made with a secret key. While the key exists, these are personal data.",
        "random": "Patients have random ids; only a table outside the corpus leads back.",
    }
    dates = {
        "none": "The corpus has no column for dates.",
        "dropped": "Dates were dropped.",
        "shifted": "Dates were shifted, by another number of days for each patient; intervals are true.",
    }
    size = f"{sums.recordings:,} recordings, {sums.clips:,} clips, {sums.frames:,} frames"
    return [f"{size}; the source is {corpus.source}, {corpus.privacy}.", ids[corpus.ids], dates[corpus.dates]]


def _measures(attestation: Attestation) -> list[str]:
    total = attestation.sums.recordings
    done = {m: sum(m in recording.measures for recording in attestation.recordings) for m in Measure}
    return [f"{text}. {_of(done[measure], total, 'recordings')}" for measure, text in LOOKED_FOR.items()]


def _of(number: int, total: int, what: str) -> str:
    if number == total:
        return f"Done for all {total:,} {what}."
    return f"NOT DONE for any of {total:,} {what}." if number == 0 else f"Done for ONLY {number:,} of {total:,} {what}."


def _removed(attestation: Attestation) -> list[str]:
    sums, corpus = attestation.sums, attestation.corpus
    lines = [f"Removed, {what}: {number:,}." for what, number in sums.removed.items()]
    share = sums.masked_pixels / sums.picture_pixels if sums.picture_pixels else 0.0
    lines.append(f"Filled: {100 * share:.2f} % of the area of the clips.")
    lines.append(f"Left out as outside the body, or perhaps so: {sums.outside_ms / 1000:,.1f} s.")
    lines += [
        f"Not written at all ({what.replace('_', ' ')}): {number:,} recordings."
        for what, number in corpus.quarantined.items()
    ]
    lines += [
        f"Doubt that the policy of this source lets pass, {what}: {number:,} recordings."
        for what, number in sums.doubts.items()
    ]
    return lines


def _checks(attestation: Attestation) -> list[str]:
    lines = []
    for check, question in CHECKED.items():
        ran = [recording.checks[check] for recording in attestation.recordings if check in recording.checks]
        answer = f"Found: {sum(ran):,}. " if ran else ""
        lines.append(f"{question} {answer}{_of(len(ran), attestation.sums.recordings, 'recordings')}")
    return lines


def _review(review: ReviewFacts | None) -> str:
    if review is None:
        return "Nobody. No clip of this corpus was looked at and signed for."
    return (
        f"{review.reviewer}, on {review.date}, decided on {review.shown:,} of {review.clips:,} clips and rejected "
        f"{review.rejected:,}. The random part: {acceptance_of(review).sentence}. This holds for what can be seen on "
        "some frames of each clip, by this reviewer."
    )


def _tools(attestation: Attestation) -> list[str]:
    corpus = attestation.corpus
    models = [
        f"Model {name}: {model.origin}; from {model.requires}, {model.licence}, run by {model.runtime}; "
        f"SHA-256 {model.sha256}."
        for name, model in corpus.models.items()
    ]
    return [f"endocorpus {corpus.endocorpus}.", *(models or ["No model was used: nothing was looked for in pictures."])]


def _codes(attestation: Attestation) -> list[str]:
    claimed = [f"{code} {CODES[code]}" for code in attestation.sums.codes if code in CODES]
    return claimed or ["No code can be claimed."]


def _signature(attestation: Attestation, key_is_known: bool) -> Iterator[str]:
    known = (
        "It was checked with the public key that this site gave."
        if key_is_known
        else "The links and the signature fit, but WHOSE key this is was not checked: compare it with the one that the "
        "site gave by another way."
    )
    yield from _paragraph(f"Every statement was signed with the Ed25519 key {attestation.signer}. {known}")
    yield from _paragraph(f"Hash of the last statement: {attestation.head}")
