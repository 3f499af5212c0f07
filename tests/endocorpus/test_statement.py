"""The page for a privacy officer says what the attestation says, first of all what speaks against a release."""

from __future__ import annotations

from endocorpus.corpus.manifest import Corpus
from endocorpus.deid.attest import CODES, Check, Measure, attest, read_attestation
from endocorpus.deid.chain import public_key
from endocorpus.deid.describe import corpus_facts, recording_facts
from endocorpus.deid.statement import CHECKED, EVIDENCE, LOOKED_FOR, NO_SOFTWARE, statement
from tests.endocorpus.test_attest import DAY, HASH, KEY, REVIEW, read_back, recording


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_measure_check_and_code_has_its_words() -> None:
    assert set(LOOKED_FOR) == set(Measure) and set(CHECKED) == set(Check)
    text = flat(statement(read_back([recording(1)], dates="shifted"), key_is_known=True))
    for words in (*LOOKED_FOR.values(), *CHECKED.values(), *NO_SOFTWARE, EVIDENCE, *CODES, *CODES.values()):
        assert flat(words) in text


def test_a_released_corpus() -> None:
    page = statement(read_back([recording(1), recording(2)]), key_is_known=True)
    text = flat(page)
    assert "RELEASED: nothing below is open." in text and "NOT" not in text.split("What no software")[0]
    assert "2 recordings, 4 clips, 600 frames; the source is folder, private." in text
    assert "Removed, audio stream: 2." in text and "Removed, burnt-in box: 3." in text
    assert "Filled: 0.92 % of the area of the clips." in text and "outside the body, or perhaps so: 24.0 s." in text
    assert "Not written at all (in doubt): 2 recordings." in text
    assert "Dr. Ada Muster, on 2026-11-23, decided on 4 of 8 clips and rejected 0." in text
    assert "all 8 clips were shown, no leak seen" in text
    assert "Model text-detector: PaddleOCR, PP-OCRv6" in text and f"SHA-256 {HASH}." in text and public_key(KEY) in text
    assert max(map(len, page.splitlines())) <= 100 and page.endswith("\n")


def test_what_is_open_comes_first_and_gaps_are_loud() -> None:
    barrier = recording(2, measures=(Measure.PIXEL_BARRIER,), checks={Check.STREAMS: 2}, doubts=("still picture",))
    text = flat(statement(read_back([recording(1), barrier], None), key_is_known=False))
    first = text.split("What it is")[0]
    assert "NOT RELEASED: * Checks of the written clips found 2 things" in first and "Nobody has reviewed" in first
    assert text.count("Done for ONLY 1 of 2 recordings.") == 4 + 3
    assert "Found: 2. Done for all 2 recordings." in text
    assert "Doubt that the policy of this source lets pass, still picture: 1 recordings." in text
    assert "Nobody. No clip of this corpus was looked at" in text
    assert "113101" not in text and "WHOSE key this is was not checked" in text


def test_the_bound_is_printed_with_its_sample() -> None:
    review = REVIEW.model_copy(update={"clips": 5000, "shown": 700, "sample": 299, "bound_ppm": 9970})
    text = flat(statement(read_back([recording(1)], review), key_is_known=True))
    assert "299 of 5,000 clips drawn at random, no leak seen: at most 1.00 % of all clips leak, at 95 %" in text


def test_a_corpus_of_today_says_that_nothing_was_looked_for_in_its_pictures(corpus: Corpus) -> None:
    data = attest(corpus_facts(corpus), recording_facts(corpus), day=DAY, key=KEY)
    text = flat(statement(read_attestation(data, "x"), key_is_known=False))
    assert text.count("NOT DONE for any of 5 recordings.") == 4 + 4
    assert "No model was used" in text and "113102" not in text
    assert "Public: it may be used because its provider or owner has published it." in text
