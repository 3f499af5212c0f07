"""The review: what the page shows, what a person does on it in a real browser, and what is believed of it then."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import stat
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from endocorpus.corpus.manifest import Corpus
from endocorpus.deid.attest import attest, open_points, read_attestation
from endocorpus.deid.chain import public_key, read_chain, write_chain
from endocorpus.deid.describe import clips_digest, corpus_facts, read_clip, recording_facts
from endocorpus.deid.keys import new_signing_key
from endocorpus.deid.review import (
    ClipMask,
    MaskBox,
    ReviewPlan,
    contact_sheet,
    covered_pixels,
    jittered,
    place_boxes,
    plan_review,
    review_page,
)
from endocorpus.deid.signoff import (
    PURPOSE,
    Decisions,
    acceptance,
    read_decisions,
    read_signed,
    review_facts,
    sample_size,
    sign_decisions,
    upper_bound,
)
from endocorpus.errors import DataError, UsageError
from endocorpus.media.frames import frames_at
from endocorpus.phantom.overlay import read_frame_counter
from endocorpus.records import Span
from tests.browser import browser
from tests.media import clip_numbers

KEY = bytes(range(32))
CTRL = 2


def made(plan: ReviewPlan, /, **changes: Any) -> dict[str, Any]:
    """What a reviewer who accepts everything saves."""
    return {
        "kind": "endocorpus review 1",
        "corpus": plan.name,
        "clips_digest": plan.clips_digest,
        "plan": plan.digest,
        "seed": plan.seed,
        "sample": len(plan.sample),
        "complete": True,
        "reviewer": "Dr. Ada Muster",
        "date": "2026-11-23",
        "decisions": dict.fromkeys(plan.order, "accepted"),
    } | changes


def plan_of(number: int, **options: Any) -> ReviewPlan:
    scores = {f"ward-{i:05}": (i % 50) / 50 for i in range(number)}
    return plan_review("ward", "ab" * 32, scores, **options)


# What is shown


def test_the_sample_is_a_function_of_seed_and_corpus() -> None:
    scores = {f"c-{i}": 0.0 for i in range(2000)}
    one = plan_review("c", "ab" * 32, scores, seed=1)
    assert one == plan_review("c", "ab" * 32, dict(reversed(scores.items())), seed=1)
    assert len(one.sample) == len(one.order) == 299 and not one.worst
    for other in (plan_review("c", "ab" * 32, scores, seed=2), plan_review("c", "cd" * 32, scores, seed=1)):
        shared = len(set(one.sample) & set(other.sample))
        assert 15 < shared < 80  # 45 are expected of two independent draws
        assert one.digest != other.digest


def test_every_clip_is_drawn_equally_often_whatever_its_score() -> None:
    scores = {f"c-{i}": float(i) for i in range(40)}
    drawn = Counter(
        key for seed in range(1000) for key in plan_review("c", "ab" * 32, scores, seed=seed, sample=10).sample
    )
    assert stats.chisquare([drawn[key] for key in scores]).pvalue > 1e-4


def test_the_worst_tenth_is_shown_whole_and_first() -> None:
    plan = plan_of(1000, sample=50)
    assert len(plan.worst) == 100 and len(plan.sample) == 50
    assert all(int(key[-5:]) % 50 >= 45 for key in plan.worst)
    assert set(plan.order) == {*plan.worst, *plan.sample}
    scores = [int(key[-5:]) % 50 for key in plan.order]
    assert scores == sorted(scores, reverse=True)


def test_a_small_corpus_is_shown_whole() -> None:
    plan = plan_of(20)
    assert set(plan.sample) == set(plan.order) and len(plan.order) == plan.num_clips == 20


def test_frames_are_taken_at_jittered_times() -> None:
    """One of each part, and not always the same: what blinks in step with a grid would never be seen."""
    taken = [jittered(f"clip-{i}", 160, 16) for i in range(200)]
    assert all([number // 10 for number in numbers] == list(range(16)) for numbers in taken)
    assert {number % 10 for numbers in taken for number in numbers} == set(range(10))
    assert jittered("a", 160, 16) == jittered("a", 160, 16) != jittered("b", 160, 16)
    assert jittered("a", 5, 16) == [0, 1, 2, 3, 4]


def test_a_sheet_shows_pictures_as_large_as_they_are() -> None:
    pictures = [np.full((100, 200, 3), value, np.uint8) for value in range(0, 250, 50)]
    sheet, cells = contact_sheet(pictures)
    for picture, (x, y, width, height) in zip(pictures, cells, strict=True):
        assert (width, height) == (200, 100)
        assert (np.asarray(sheet)[y : y + height, x : x + width] == picture).all()
    assert contact_sheet([np.zeros((1000, 2000, 3), np.uint8)])[1] == [(0, 0, 480, 240)]


# The page as a file


@pytest.fixture(scope="module")
def masks(corpus: Corpus) -> dict[str, ClipMask]:
    keys = corpus.clips().column("key").to_pylist()
    hidden = MaskBox(left=16, top=32, right=80, bottom=48)
    late = MaskBox(left=0, top=0, right=16, bottom=16, start=10_000)
    return {keys[3]: ClipMask(boxes=(hidden, late), score=0.9), keys[1]: ClipMask(score=0.5)}


@pytest.fixture(scope="module")
def page(
    corpus: Corpus, masks: dict[str, ClipMask], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ReviewPlan]:
    path = tmp_path_factory.mktemp("review") / "deep" / "review.html"
    return path, review_page(corpus, path, masks)


def cards(page: Path) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json" class="clip">(.*?)</script>', page.read_text(encoding="utf-8"))
    return [json.loads(card) for card in found]


def test_the_page_shows_the_frames_that_were_written(
    page: tuple[Path, ReviewPlan], corpus: Corpus, masks: dict[str, ClipMask]
) -> None:
    path, plan = page
    rows = {row["key"]: row for row in corpus.clips().to_pylist()}
    seen = cards(path)
    worst = max(masks, key=lambda key: masks[key].score)
    assert [card["key"] for card in seen] == list(plan.order) and plan.order[0] == worst
    assert set(plan.order) == set(rows)
    assert plan.clips_digest == clips_digest(corpus)
    for card in seen:
        row = rows[card["key"]]
        numbers = jittered(f"0/{card['key']}", row["num_frames"], 16)
        assert card["frames"] == len(numbers)
        with Image.open(io.BytesIO(base64.b64decode(card["picture"].partition(",")[2]))) as picture:
            sheet = np.asarray(picture.convert("RGB"))
        blank = [np.zeros((row["height"], row["width"], 3), np.uint8)] * len(numbers)
        cells = contact_sheet(blank)[1]
        shown = [read_frame_counter(np.ascontiguousarray(sheet[y : y + h, x : x + w])) for x, y, w, h in cells]
        written = clip_numbers(corpus, row)
        assert shown == [written[number] for number in numbers]


def test_outlines_lie_where_the_boxes_are(page: tuple[Path, ReviewPlan]) -> None:
    first = cards(page[0])[0]
    assert len(first["boxes"]) == first["frames"]  # the late box is on no frame
    assert [box[2:] for box in first["boxes"]] == [[64, 16]] * len(first["boxes"])
    assert first["boxes"][0] == [16, 32, 64, 16] and first["why"] == "among the worst and random sample"
    assert {card["why"] for card in cards(page[0])[2:]} == {"random sample"}


def test_the_page_loads_nothing_and_only_its_owner_reads_it(page: tuple[Path, ReviewPlan], corpus: Corpus) -> None:
    text = page[0].read_text(encoding="utf-8")
    assert stat.S_IMODE(page[0].stat().st_mode) == 0o600
    assert "default-src 'none'" in text and "unsafe" not in text
    for word in ("http", "//", "url(", "@import", "<link", "<iframe", "fetch(", "XMLHttp", "localStorage", "innerHTML"):
        plain = re.sub(r"base64,[A-Za-z0-9+/=]+", "", re.sub(r"//[^\n]*", "", text) if word == "//" else text)
        assert word not in plain.replace("http-equiv", ""), word
    for name in ("Müller", "ward 7", "第一", str(corpus.root), str(page[0].parent)):
        assert name not in text and json.dumps(name)[1:-1] not in text
    assert not re.search(r"\d\d:\d\d", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))


def test_the_page_is_a_function_of_its_inputs(
    page: tuple[Path, ReviewPlan], corpus: Corpus, masks: dict[str, ClipMask], tmp_path: Path
) -> None:
    review_page(corpus, tmp_path / "again.html", masks)
    assert (tmp_path / "again.html").read_bytes() == page[0].read_bytes()


def test_bad_places_and_masks_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lies in the corpus"):
        review_page(corpus, corpus.root / "report" / "review.html")
    with pytest.raises(ValueError, match="no clip of the corpus"):
        review_page(corpus, tmp_path / "r.html", {"nobody": ClipMask()})
    with pytest.raises(ValueError, match="scores are numbers"):
        plan_review("c", "ab" * 32, {"a": float("nan")})
    assert not list(tmp_path.iterdir())


# The page in a browser


def test_a_person_decides_with_the_keyboard(page: tuple[Path, ReviewPlan], tmp_path: Path) -> None:
    path, plan = page
    last = len(plan.order)
    with browser(tmp_path / "b") as seen:

        def text(name: str) -> str:
            return str(seen.value(f"document.getElementById('{name}').textContent"))

        def press(keys: str, **how: Any) -> None:
            for key in keys:
                seen.until("document.body.dataset.visible === 'true'")
                seen.press(key, **how)

        seen.open(path)
        assert text("key") == plan.order[0] and text("progress") == f"0 of {last} decided, 0 rejected"
        press("jjk")
        assert text("place") == f"2 of {last}"
        press("kkk")  # stays at the first
        assert text("place") == f"1 of {last}" and text("progress").startswith("0 of")
        press("ar")
        assert text("place") == f"3 of {last}" and text("progress") == f"2 of {last} decided, 1 rejected"
        press("u")
        assert text("place") == f"2 of {last}" and text("progress") == f"1 of {last} decided, 0 rejected"
        press("a", repeat=True)  # held down
        press("a", modifiers=CTRL)  # select all
        press("x")
        assert text("progress") == f"1 of {last} decided, 0 rejected"
        press("o")
        assert seen.value("getComputedStyle(document.getElementById('outlines')).visibility") == "hidden"
        press("o")

        seen.click("#save")
        seen.until("document.getElementById('message').textContent.startsWith('Saved as a draft')")
        draft = saved(tmp_path, f"review-{plan.name}-draft.json")
        with pytest.raises(DataError, match="a draft"):
            read_decisions(draft, plan)

        press("r" + "a" * (last - 2))
        assert text("progress") == f"{last} of {last} decided, 1 rejected"
        seen.click("#save")
        assert text("message") == "Enter your name: the decisions are signed with it."
        for key in "aruj":
            seen.press(key)  # typed into the name
        assert text("progress") == f"{last} of {last} decided, 1 rejected"
        seen.type(" Müller 王")
        seen.click("#save")
        seen.until("document.getElementById('message').textContent === 'Saved.'")
        said = read_decisions(saved(tmp_path, f"review-{plan.name}.json"), plan)
        assert said.reviewer == "aruj Müller 王" and said.rejected == (plan.order[1],)

        assert seen.errors == []
        assert [url for url in seen.asked if not url.startswith(("data:image/webp;", "blob:"))] == [path.as_uri()]


def saved(folder: Path, name: str) -> Path:
    """A finished download."""
    path = folder / "b" / "downloads" / name
    for _ in range(3000):
        if path.exists() and path.stat().st_size and not list(path.parent.glob("*.crdownload")):
            return path
        time.sleep(0.02)
    raise AssertionError(f"never came: {name}; there is {[p.name for p in path.parent.iterdir()]}")


def test_a_person_goes_on_from_a_draft(page: tuple[Path, ReviewPlan], tmp_path: Path) -> None:
    path, plan = page
    draft = tmp_path / "draft.json"
    some = dict.fromkeys(plan.order[:2], "rejected")
    draft.write_text(json.dumps(made(plan, complete=False, decisions=some, reviewer="Ada")))
    other = tmp_path / "other.json"
    other.write_text(json.dumps(made(plan, plan="cd" * 32)))
    with browser(tmp_path / "b") as seen:
        seen.open(path)
        for file, message in ((other, "That is no file"), (draft, "Going on")):
            node = seen.call("DOM.getDocument")["root"]["nodeId"]
            node = seen.call("DOM.querySelector", nodeId=node, selector="#load")["nodeId"]
            seen.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)
            seen.until(f"document.getElementById('message').textContent.startsWith('{message}')")
        progress = seen.value("document.getElementById('progress').textContent")
        assert progress == f"2 of {len(plan.order)} decided, 2 rejected"
        assert seen.value("document.getElementById('key').textContent") == plan.order[2]
        assert seen.value("document.getElementById('reviewer').value") == "Ada"


def test_a_picture_that_is_not_there_cannot_be_decided_on(page: tuple[Path, ReviewPlan], tmp_path: Path) -> None:
    text = page[0].read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(re.sub(r"base64,[A-Za-z0-9+/=]+", "base64,AAAA", text), encoding="utf-8")
    with browser(tmp_path / "b") as seen:
        seen.open(broken)
        seen.until("document.getElementById('message').textContent.startsWith('This picture cannot be shown')")
        seen.press("a")
        assert seen.value("document.getElementById('progress').textContent").startswith("0 of")


def test_a_page_that_was_tampered_with_runs_nothing_of_it(page: tuple[Path, ReviewPlan], tmp_path: Path) -> None:
    """The page's own rules refuse scripts, styles and addresses that it was not made with."""
    planted = '<script>document.title = "owned"</script><img src="http://192.0.2.1/leak"><style>p {color: red}</style>'
    path = tmp_path / "planted.html"
    path.write_text(page[0].read_text(encoding="utf-8").replace("<main>", f"<main>{planted}"), encoding="utf-8")
    with browser(tmp_path / "b") as seen:
        seen.open(path)
        seen.until("document.body.dataset.visible === 'true'")
        assert seen.value("document.title") != "owned"
        assert seen.value("getComputedStyle(document.querySelector('p')).color") != "rgb(255, 0, 0)"
        assert sum("Content Security Policy" in error for error in seen.errors) >= 3


# What is believed afterwards


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_only_complete_decisions_on_this_very_page_are_believed(tmp_path: Path) -> None:
    plan = plan_of(400, sample=30)
    good = made(plan)
    assert read_decisions(write(tmp_path / "good", good), plan).reviewer == "Dr. Ada Muster"
    fewer = dict.fromkeys(plan.order[1:], "accepted")
    twice = json.dumps(good).replace('"seed": 0', '"seed": 0, "seed": 0')
    cases: dict[str, object] = {
        "of another corpus": made(plan, clips_digest="cd" * 32),
        "of another corpus, or": made(plan, corpus="clinic"),
        "of another page": made(plan, plan="cd" * 32),
        "another page of 'ward'": made(plan, seed=7),
        f"1 clips have no decision, the first is {plan.order[0]}": made(plan, decisions=fewer),
        "1 clips were not shown": made(plan, decisions=good["decisions"] | {"ward-99999": "accepted"}),
        "a draft": made(plan, complete=False),
        "wrong: decisions": made(plan, decisions=good["decisions"] | {plan.order[0]: "perhaps"}),
        "wrong: reviewer": made(plan, reviewer=" "),
        "wrong: date": made(plan, date="2026-11-23T17:50"),
        "wrong: note": made(plan, note="Mr. Smith"),
        "wrong: kind": made(plan, kind="endocorpus review 2"),
        "no file of decisions; save": "<!doctype html>",
        "no file of decisions of this": "[1]",
        "no file of decisions": twice,
        "file of decisions; save": "[" * 100_000,
    }
    for what, value in cases.items():
        with pytest.raises(DataError) as caught:
            read_decisions(write(tmp_path / "bad", value), plan)
        assert what in str(caught.value) and "Smith" not in str(caught.value), (what, caught.value)
    with pytest.raises(DataError, match="No such file"):
        read_decisions(tmp_path / "none", plan)


def test_decisions_are_signed_with_the_reviewers_name_in_them() -> None:
    plan = plan_of(30)
    first, second = plan.order[:2]
    decided = dict.fromkeys(plan.order, "accepted") | {first: "rejected", second: "rejected"}
    said = Decisions.model_validate(made(plan, reviewer="王小明", decisions=decided))
    data = sign_decisions(plan, said, dict.fromkeys(plan.order, "ward-1") | {second: "ward-0"}, KEY)
    seen = read_signed(data, "x", public_key(KEY))
    assert (seen.decisions, seen.review) == (said, review_facts(plan, said)) and "王小明".encode() in data
    assert seen.recordings == ("ward-0", "ward-1") and seen.signer == public_key(KEY)
    for broken in (data.replace("王小明".encode(), "李小明".encode()), data.replace(b"accepted", b"rejected", 1)):
        with pytest.raises(DataError, match="link 0 was changed"):
            read_signed(broken, "x")
    with pytest.raises(DataError, match="another key"):
        read_signed(data, "x", public_key(KEY[::-1]))


def test_a_signed_review_whose_parts_do_not_belong_together_is_refused() -> None:
    plan = plan_of(30)
    said = Decisions.model_validate(made(plan))
    [body] = read_chain(sign_decisions(plan, said, {}, KEY), PURPOSE, "x").bodies
    better = {**body, "review": {**body["review"], "sample": 29, "bound_ppm": 1}}
    for forged, what in ((better, "figures of other decisions"), ({"decisions": body["decisions"]}, "no review of")):
        with pytest.raises(DataError, match=what):
            read_signed(write_chain([forged], KEY, PURPOSE), "x")
    with pytest.raises(DataError, match="one too many"):
        read_signed(write_chain([body, body], KEY, PURPOSE), "x")


def test_bounds_are_those_of_clopper_and_pearson() -> None:
    for leaks, sample in ((0, 299), (0, 59), (1, 299), (5, 40), (39, 40)):
        bound = upper_bound(leaks, sample)
        assert stats.binom.cdf(leaks, sample, bound) == pytest.approx(0.05, rel=1e-6)
        independent = stats.binomtest(leaks, sample, alternative="less").proportion_ci(0.95, method="exact").high
        assert bound == pytest.approx(independent, rel=1e-9)
    assert upper_bound(40, 40) == 1.0
    assert upper_bound(0, 299) <= 0.01 < upper_bound(0, 298) and (sample_size(0.01), sample_size(0.05)) == (299, 59)
    assert all(upper_bound(0, sample_size(m)) <= m < upper_bound(0, sample_size(m) - 1) for m in (0.002, 0.02, 0.3))
    assert sample_size(0.99) == 1


def test_the_bound_holds_where_leaks_are_planted() -> None:
    """2 % of 600 clips leak: a sample that is free of leaks, which would bound them at less, is drawn by bad luck only,
    in at most 5 % of draws."""
    leaking = {f"c-{i}" for i in range(12)}
    scores = {f"c-{i}": 0.0 for i in range(600)}
    number, draws = sample_size(0.0199), 200
    plans = [plan_review("c", "ab" * 32, scores, seed=seed, sample=number) for seed in range(draws)]
    free = sum(not leaking & set(plan.sample) for plan in plans)
    assert upper_bound(0, number) < 0.02 and free <= draws * 0.05 + 3 * (draws * 0.05 * 0.95) ** 0.5
    decided = {key: "rejected" if key in leaking else "accepted" for key in plans[0].order}
    found = acceptance(plans[0], Decisions.model_validate(made(plans[0], decisions=decided)))
    assert found.leaks == len(leaking & set(plans[0].sample))


def test_only_the_random_part_counts_for_the_bound() -> None:
    plan = plan_of(2000)
    only_worst = set(plan.worst) - set(plan.sample)
    decided = {key: "rejected" if key in only_worst else "accepted" for key in plan.order}
    found = acceptance(plan, Decisions.model_validate(made(plan, decisions=decided)))
    assert (found.leaks, found.sample, len(only_worst) > 50) == (0, 299, True)
    assert found.sentence == (
        "299 of 2,000 clips drawn at random, no leak seen: at most 1.00 % of all clips leak, at 95 % confidence"
    )
    one = {key: "rejected" if key == plan.sample[0] else "accepted" for key in plan.order}
    found = acceptance(plan, Decisions.model_validate(made(plan, decisions=one)))
    assert "1 leak seen: at most 1.58 %" in found.sentence  # rounded up
    whole = plan_of(20)
    found = acceptance(whole, Decisions.model_validate(made(whole)))
    assert found.sentence == "all 20 clips were shown, no leak seen" and found.bound == 0


def test_from_the_page_to_the_signature(corpus: Corpus, page: tuple[Path, ReviewPlan], tmp_path: Path) -> None:
    plan = page[1]
    decided = {key: "rejected" if key == plan.order[0] else "accepted" for key in plan.order}
    said = read_decisions(write(tmp_path / "d.json", made(plan, decisions=decided)), plan)
    facts, review = corpus_facts(corpus), review_facts(plan, said)
    data = attest(facts, recording_facts(corpus, decisions=said.decisions), day="2026-11-23", key=KEY, review=review)
    seen = read_attestation(data, "x", public_key(KEY))
    assert seen.review is not None and seen.review.decisions == said.digest and seen.review.rejected == 1
    assert seen.review.bound_ppm == round(1e6 / plan.num_clips + 0.5)
    assert open_points(seen)[0].endswith(f"the first is {plan.order[0]}.")


def test_the_documents_example_runs(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(corpus.root, tmp_path / "corpora" / "ward", ignore=shutil.ignore_patterns(".build"))
    new_signing_key(tmp_path / "site.key")
    text = (Path(__file__).parents[2] / "docs" / "explanation" / "privacy-model.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0].replace("/secure/site.key", str(tmp_path / "site.key"))
    before, after = code.split("said = ")
    names: dict[str, Any] = {}
    exec(before, names)
    write(tmp_path / "review-ward.json", made(names["plan"]))
    exec("said = " + after, names)
    assert names["seen"].review.reviewer == "Dr. Ada Muster" and open_points(names["seen"]) == ()


def test_frames_that_are_not_there_are_an_error(corpus: Corpus) -> None:
    row = corpus.clips().to_pylist()[0]
    data = read_clip(corpus, row)
    written = clip_numbers(corpus, row)
    shown = [read_frame_counter(frame) for frame in frames_at(data, [7, 0, 3])]
    assert shown == [written[0], written[3], written[7]]
    with pytest.raises(DataError, match=f"has no frame {row['num_frames']}"):
        frames_at(data, [0, row["num_frames"]])
    with pytest.raises(DataError):
        frames_at(data[: len(data) // 4], [0, 5])


@settings(max_examples=100)
@given(st.data())
def test_placed_boxes_cover_what_was_filled(data: st.DataObject) -> None:
    """Fill in a recording, cut and scale by whole numbers as a clip does: the boxes cover that, and no more."""

    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    factor, stride = draw(1, 4), draw(1, 3)
    crop = (draw(0, 20), draw(0, 20), 0, 0)
    size = (draw(2, 20), draw(2, 20))
    crop = (crop[0], crop[1], crop[0] + size[0] * factor, crop[1] + size[1] * factor)
    clip = Span(start=draw(0, 10), stop=draw(11, 30))
    box = (draw(0, 60), draw(0, 60), draw(61, 110), draw(61, 110))
    span = Span(start=draw(0, 15), stop=draw(16, 40))
    [*placed] = place_boxes([(box, span)], crop=crop, clip=clip, stride=stride, size=size)
    filled = np.zeros((120, 120), bool)
    filled[box[1] : box[3], box[0] : box[2]] = True
    cut = filled[crop[1] : crop[3], crop[0] : crop[2]]
    small = cut.reshape(size[1], factor, size[0], factor).any(axis=(1, 3))
    for number, of_recording in enumerate(range(clip.start, clip.stop, stride)):
        shown = np.zeros((size[1], size[0]), bool)
        for one in placed:
            if one.start <= number < (one.stop or 0):
                shown[one.top : one.bottom, one.left : one.right] = True
        expected = small if span.start <= of_recording < span.stop else np.zeros_like(small)
        assert (shown == expected).all()
    assert covered_pixels([*placed, *placed], size) == (small.sum() if placed else 0)
