"""Attestations: what they say is what the corpus holds, and no change of them goes unnoticed or unnamed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from endocorpus.corpus.manifest import Corpus, open_corpus
from endocorpus.deid.attest import (
    CODES,
    PURPOSE,
    Attestation,
    Check,
    ClipFacts,
    CorpusFacts,
    Measure,
    RecordingFacts,
    ReviewFacts,
    attest,
    open_points,
    option_codes,
    read_attestation,
    refuse_other_clips,
)
from endocorpus.deid.chain import BrokenChainError, canonical, public_key, read_chain, sha256, write_chain
from endocorpus.deid.describe import (
    Findings,
    clip_hashes,
    clips_digest,
    corpus_facts,
    load_attestation,
    recording_facts,
    write_attestation,
)
from endocorpus.errors import DataError

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
HASH = "ab" * 32
MODEL = {
    "sha256": HASH,
    "origin": "PaddleOCR, PP-OCRv6 small text detection (differentiable binarization)",
    "requires": "rapidocr==3.10.0",
    "licence": "Apache-2.0",
    "runtime": "onnxruntime 1.23.2",
}
DAY = "2026-11-23"
ALL_CLEAN = dict.fromkeys(Check, 0)


def corpus_said(**changes: Any) -> CorpusFacts:
    facts = {
        "name": "ward",
        "source": "folder",
        "privacy": "private",
        "synthetic": False,
        "endocorpus": "0.1.0",
        "clips_digest": HASH,
        "models": {"text-detector": MODEL},
        "ids": "keyed",
        "dates": "dropped",
        "quarantined": {"in_doubt": 2},
    }
    return CorpusFacts.model_validate(facts | changes)


def recording(number: int, **changes: Any) -> RecordingFacts:
    size = {"frames": 150, "masked_pixels": 600, "picture_pixels": 65_536}
    keys = [f"ward-{number:04}-{start:07}" for start in (0, 150)]
    clips = [ClipFacts.model_validate({"key": key, "sha256": HASH, "review": "accepted", **size}) for key in keys]
    facts = {
        "recording_id": f"ward-{number:04}",
        "measures": tuple(Measure),
        "removed": {"audio stream": 1, "burnt-in box": number},
        "outside_ms": 12_000,
        "parameters": HASH,
        "checks": ALL_CLEAN,
        "clips": tuple(clips),
    }
    return RecordingFacts.model_validate(facts | changes)


REVIEW = ReviewFacts(
    reviewer="Dr. Ada Muster",
    date=DAY,
    corpus=HASH,
    decisions=HASH,
    clips=8,
    shown=8,
    rejected=0,
    sample=8,
    sample_rejected=0,
    bound_ppm=0,
    confidence_percent=95,
)


def signed(number: int = 4, **changes: Any) -> bytes:
    return attest(corpus_said(**changes), [recording(i) for i in range(1, number + 1)], day=DAY, key=KEY, review=REVIEW)


def test_what_is_read_is_what_was_attested() -> None:
    data = signed()
    seen = read_attestation(data, "a", public_key(KEY))
    assert seen.corpus == corpus_said() and seen.recordings == tuple(recording(i) for i in range(1, 5))
    assert (seen.review, seen.date, seen.signer) == (REVIEW, DAY, public_key(KEY))
    assert (seen.sums.clips, seen.sums.frames, seen.sums.outside_ms) == (8, 1200, 48_000)
    assert seen.sums.removed == {"audio stream": 4, "burnt-in box": 10}
    assert seen.sums.masked_pixels == 4800 and seen.sums.picture_pixels == 8 * 65_536


def test_the_bytes_depend_on_the_content_alone() -> None:
    shuffled = [recording(i) for i in (3, 1, 4, 2)]
    assert attest(corpus_said(), shuffled, day=DAY, key=KEY, review=REVIEW) == signed()


def test_it_holds_no_time_finer_than_a_date_and_no_path() -> None:
    text = signed().decode()
    assert not re.search(r"\d\d:\d\d|T\d\d|[/\\]", text)
    assert set(re.findall(r"\d{4}-\d{2}-\d{2}(?![0-9])", text)) == {DAY}
    assert " " not in re.sub(r'"[^"]*"', "", text) and "." not in re.sub(r'"[^"]*"', "", text)


def relink(data: bytes, number: int, change: Any) -> bytes:
    """Change the body of one link and mend all hashes after it, as somebody without the key would."""
    bodies: list[Mapping[str, Any]] = [json.loads(line)["body"] for line in data.splitlines()[:-1]]
    change(bodies[number])
    forged = write_chain(bodies, OTHER_KEY, PURPOSE).splitlines(keepends=True)
    return b"".join([*forged[:-1], data.splitlines(keepends=True)[-1]])


def test_the_first_broken_link_is_named() -> None:
    lines = signed().splitlines(keepends=True)  # corpus, four recordings, end, signature
    changed = lines[3].replace(b'"frames":150', b'"frames":151')
    assert changed != lines[3]
    cases = {
        "link 3 was changed": [*lines[:3], changed, *lines[4:]],
        "link 2 does not follow": [*lines[:2], *lines[3:]],
        "link 4 does not follow": [*lines[:4], lines[2], *lines[4:]],
        "link 1 does not follow": [lines[0], lines[2], lines[1], *lines[3:]],
        "link 0 does not follow": lines[1:],
        "link 2 is not as it is written": [*lines[:2], lines[2].replace(b":", b": ", 1), *lines[3:]],
        "link 5 cannot be read": [*lines[:5], b"{\n", lines[6]],
        "the signature is missing": lines[:0],
        "the signature is not as it is written": lines[:-1],
        "the signature is of other links": [*lines[:5], lines[6]],
    }
    for what, broken in cases.items():
        with pytest.raises(BrokenChainError, match=re.escape(f"the file: {what}")) as caught:
            read_attestation(b"".join(broken), "the file", public_key(KEY))
        number = re.search(r"link (\d)", what)
        assert caught.value.link == (int(number[1]) if number else None)


@pytest.mark.parametrize("number", range(6))
def test_mended_hashes_do_not_mend_the_signature(number: int) -> None:
    def change(body: dict[str, Any]) -> None:
        for part in ("corpus", "recording", "sums"):
            if part in body:
                body[part].update({"name": "other"} if part == "corpus" else {"outside_ms": 1})

    with pytest.raises(BrokenChainError, match="the signature is of other links"):
        read_attestation(relink(signed(), number, change), "x")


def test_another_key_is_noticed_only_where_the_right_one_is_known() -> None:
    forged = attest(corpus_said(), [recording(1)], day=DAY, key=OTHER_KEY)
    assert read_attestation(forged, "x").signer == public_key(OTHER_KEY)
    with pytest.raises(BrokenChainError, match="another key"):
        read_attestation(forged, "x", public_key(KEY))


def test_one_kind_of_statement_cannot_pass_for_another() -> None:
    data = write_chain([{"a": 1}], KEY, "review 1")
    assert read_chain(data, "review 1", "x").bodies == ({"a": 1},)
    with pytest.raises(BrokenChainError, match="were not signed"):
        read_chain(data, PURPOSE, "x")
    with pytest.raises(BrokenChainError, match="no statement about"):
        read_attestation(write_chain([{"a": 1}], KEY, PURPOSE), "x")


@settings(max_examples=150)
@given(st.data())
def test_no_damage_goes_unnoticed(data: st.DataObject) -> None:
    whole = signed(2)
    place = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "drop"]))
    flipped = bytes([whole[place] ^ (1 << data.draw(st.integers(0, 7)))])
    damaged = {
        "flip": whole[:place] + flipped + whole[place + 1 :],
        "cut": whole[:place],
        "insert": whole[:place] + flipped + whole[place:],
        "drop": whole[:place] + whole[place + 1 :],
    }[kind]
    with pytest.raises(DataError):
        read_attestation(damaged, "x", public_key(KEY))


def test_sums_that_are_not_the_sums_are_refused_although_signed() -> None:
    bodies = [json.loads(line)["body"] for line in signed().splitlines()[:-1]]
    bodies[-1]["sums"]["removed"]["audio stream"] = 5
    with pytest.raises(BrokenChainError, match="link 5 says what does not follow"):
        read_attestation(write_chain(bodies, KEY, PURPOSE), "x")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("removed", {"Zhang Wei 310101": 1}),
        ("removed", {"张伟": 1}),
        ("removed", {"/data/raw/a.mp4": 1}),
        ("removed", {"audio": 1.5}),
        ("recording_id", "Müller_Hans"),
        ("recording_id", "a/b"),
        ("recording_id", "a\n"),
        ("parameters", "short"),
        ("measures", ("magic",)),
        ("doubts", ("2026-11-23 17:50:00",)),
        ("outside_ms", -1),
        ("path", "x"),
    ],
)
def test_only_closed_words_and_counts_get_in(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        recording(1, **{field: value})


@pytest.mark.parametrize("name", ["", "A", "a/b", "a\nb", " a b", "x" * 81, "<b>x</b>", "a\u202eb", "C:\\x"])
def test_the_reviewers_name_is_a_name(name: str) -> None:
    with pytest.raises(ValidationError):
        ReviewFacts.model_validate(REVIEW.model_dump() | {"reviewer": name})
    ReviewFacts.model_validate(REVIEW.model_dump() | {"reviewer": "王小明 Dr. O'Neil-Müller"})


@pytest.mark.parametrize("day", ["2026-02-30", "2026-11-23T10:00", "23.11.2026", "2026-1-1", "\uff12026-11-23"])
def test_a_date_is_a_day(day: str) -> None:
    with pytest.raises(ValidationError):
        ReviewFacts.model_validate(REVIEW.model_dump() | {"date": day})


def test_canonical_json_has_one_spelling() -> None:
    assert canonical({"b": [1, True, None], "a": "ü<"}) == '{"a":"ü<","b":[1,true,null]}'.encode()
    for bad in (1.0, float("nan"), {1: 2}, 2**53 + 1, b"x", "\ud800"):
        with pytest.raises(ValueError, match=r"canonical form|exact|a name in JSON|surrogates"):
            canonical(bad)


def test_codes_are_claimed_only_for_what_was_done_everywhere() -> None:
    corpus, one, two = corpus_said(), recording(1), recording(2)
    full = ("113100", "113101", "113102", "113103", "113105")
    assert option_codes(corpus, [one, two]) == full
    assert option_codes(corpus_said(dates="shifted"), [one]) == (*full, "113107")
    assert set(option_codes(corpus_said(dates="shifted"), [one])) == set(CODES)
    barrier = recording(2, measures=(Measure.PIXEL_BARRIER,))
    assert option_codes(corpus, [one, barrier]) == ("113100", "113103", "113105")
    for checks in ({}, {**ALL_CLEAN, Check.READ_AGAIN: 1}):
        assert "113101" not in option_codes(corpus, [one, recording(2, checks=checks)])
    no_faces = recording(2, measures=tuple(m for m in Measure if m != Measure.FACES))
    assert option_codes(corpus, [one, no_faces]) == tuple(code for code in full if code != "113102")
    assert option_codes(corpus, []) == ()


def read_back(recordings: list[RecordingFacts], review: ReviewFacts | None = REVIEW, **changes: Any) -> Attestation:
    if review is not None:
        review = review.model_copy(update={"shown": sum(len(one.clips) for one in recordings)})
    return read_attestation(attest(corpus_said(**changes), recordings, day=DAY, key=KEY, review=review), "x")


def test_nothing_is_released_while_a_point_is_open() -> None:
    assert open_points(read_back([recording(1)])) == ()
    rejected = recording(1).clips[0].model_copy(update={"review": "rejected"})
    barrier = recording(1, measures=(Measure.PIXEL_BARRIER,))
    cases: dict[str, Attestation] = {
        "no recordings": read_back([]),
        "Nobody has reviewed": read_back([recording(1)], None),
        "the reviewer rejected are still in it, the first is ward-0001-0000000": read_back(
            [recording(1, clips=(rejected,))]
        ),
        "found 3 things": read_back([recording(1, checks={**ALL_CLEAN, Check.IDENTIFIERS: 3})]),
        "The measure 'faces' was not applied to 1 of 2": read_back([barrier, recording(2)]),
        "The check 'read again' was not applied to 1 of 1": read_back([recording(1, checks={Check.STREAMS: 0})]),
        "decided on 8 clips, but 2 are marked": read_attestation(
            attest(corpus_said(), [recording(1)], day=DAY, key=KEY, review=REVIEW), "x"
        ),
        "of other clips": read_back([recording(1)], clips_digest="cd" * 32),
        "up to 1.58 %": read_back([recording(1)], REVIEW.model_copy(update={"bound_ppm": 15_767})),
    }
    for what, attestation in cases.items():
        assert any(what in point for point in open_points(attestation)), what
    assert open_points(read_back([barrier], None, privacy="public")) == ()


def test_a_finished_corpus_is_described_as_it_is(corpus: Corpus) -> None:
    hashes = clip_hashes(corpus)
    rows = corpus.clips().to_pylist()
    first = rows[0]
    found = Findings(
        measures=(Measure.BURNT_IN_TEXT, Measure.PIXEL_BARRIER),
        doubts=("still picture",),
        outside_ms=2500,
        parameters=sha256(canonical({"b": 2, "a": [1]})),
        checks={Check.READ_AGAIN: 0},
        masked_pixels={first["key"]: 77},
    )
    said = recording_facts(corpus, {first["recording_id"]: found}, {first["key"]: "accepted"})
    facts = corpus_facts(corpus, models={"text-detector": {**MODEL, "file": "a/b.onnx"}})
    data = attest(facts, said, day=DAY, key=KEY)
    seen = read_attestation(data, "x")
    assert {c.key: c.sha256 for r in seen.recordings for c in r.clips} == hashes and len(hashes) == len(rows)
    assert seen.sums.frames == sum(row["num_frames"] for row in rows)
    assert seen.corpus.models["text-detector"].model_dump() == MODEL and b'onnx"' not in data
    assert seen.corpus.clips_digest == clips_digest(corpus) and seen.corpus.privacy == "public"
    about = {r.recording_id: r for r in seen.recordings}[first["recording_id"]]
    assert about.measures == (Measure.PIXEL_BARRIER, Measure.BURNT_IN_TEXT)
    assert [(c.masked_pixels, c.review) for c in about.clips if c.key == first["key"]] == [(77, "accepted")]
    others = [r for r in seen.recordings if r is not about]
    assert others and all(r.measures == (Measure.PIXEL_BARRIER,) and not r.checks for r in others)
    removed = {item["what"] for row in corpus.table("deid").to_pylist() for item in row["removed"]}
    assert set(seen.sums.removed) == removed
    for name in ("Müller", "ward 7", "第一", str(corpus.root)):
        assert name.encode() not in data
    refuse_other_clips(seen, hashes, corpus.root)
    for changed in (
        {**hashes, first["key"]: HASH},
        {key: value for key, value in hashes.items() if key != first["key"]},
        {**hashes, "zzz": HASH},
    ):
        with pytest.raises(DataError, match="zzz" if "zzz" in changed else first["key"]):
            refuse_other_clips(seen, changed, "x")
    with pytest.raises(ValueError, match="not in the corpus"):
        recording_facts(corpus, {"nobody": Findings()})
    with pytest.raises(ValueError, match="twice"):
        attest(corpus_facts(corpus), [*said, said[0]], day=DAY, key=KEY)


def test_a_damaged_shard_is_not_attested(corpus: Corpus, tmp_path: Path) -> None:
    shutil.copytree(corpus.root, tmp_path / "c", ignore=shutil.ignore_patterns(".build"))
    copy = open_corpus(tmp_path / "c")
    row = copy.clips().to_pylist()[0]
    with copy.shard_path(row["shard"]).open("r+b") as shard:
        shard.seek(row["mp4_offset"] + 100)
        shard.write(b"\0\1\2\3")
    with pytest.raises(DataError, match=f"{row['key']}.*endocorpus verify"):
        clip_hashes(copy)


def test_an_attestation_lies_in_its_corpus_and_fits_no_other(corpus: Corpus, tmp_path: Path) -> None:
    shutil.copytree(corpus.root, tmp_path / "c", ignore=shutil.ignore_patterns(".build"))
    copy = open_corpus(tmp_path / "c")
    with pytest.raises(DataError, match="nobody has signed"):
        load_attestation(copy)
    facts, said = corpus_facts(copy), recording_facts(copy)
    write_attestation(copy, attest(facts, said, day=DAY, key=KEY))
    assert load_attestation(copy, public_key(KEY)).corpus == facts
    with pytest.raises(BrokenChainError, match="another key"):
        load_attestation(copy, public_key(OTHER_KEY))
    write_attestation(copy, attest(facts.model_copy(update={"clips_digest": HASH}), said, day=DAY, key=KEY))
    with pytest.raises(DataError, match="about other clips"):
        load_attestation(copy)
