"""Out of the body: the rules that turn looks into spans, the head and detectors behind the looks, and calibration."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from endocorpus.deid.head import Head, calibrate, describe, fit, read_head, shipped_head
from endocorpus.deid.measure import face, look_at, with_text
from endocorpus.deid.models import model_bytes, pins
from endocorpus.deid.outside import CLEANED, Look, Place, Policy, Stretch, Why, judge, kept, tally
from endocorpus.errors import DataError
from endocorpus.phantom import plan_recording
from endocorpus.phantom.scene import Scene
from endocorpus.records import Span

Frame = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
RATE = Fraction(5)
scores = st.one_of(st.just(0.0), st.sampled_from([0.04, 0.05, 0.2, 0.3, 1.0]), st.floats(0, 1))


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[Look], int, Policy]:
    """Looks at a recording of 5 frames per second, mostly inside, and a policy."""
    num_frames = draw(st.integers(1, 200))
    frames = draw(st.lists(st.integers(0, num_frames - 1), unique=True, max_size=40).map(sorted))
    looks = [Look(frame=frame, outside=draw(scores), face=draw(st.sampled_from([0.0, 0.0, 0.35, 0.9])),
                  change=draw(st.sampled_from([9.0, 0.2])), text_lines=draw(st.sampled_from([0, 0, 7])))
             for frame in frames]  # fmt: skip
    lengths = st.integers(0, 6 * 64).map(lambda part: part / 64)  # seconds that a float holds exactly
    policy = Policy(margin=draw(lengths), shortest=draw(lengths), head=draw(lengths), tail=draw(lengths),
                    gap=draw(lengths), still=draw(st.none() | lengths),
                    confirm=draw(st.sampled_from([0.2, 0.5, 0.6, 1.0, 2.0])))  # fmt: skip
    return looks, num_frames, policy


def chosen(stretches: tuple[Stretch, ...], doubts: bool = False) -> set[int]:
    return {frame for span in kept(stretches, doubts) for frame in range(span.start, span.stop)}


def is_bad(look: Look, looks: list[Look], policy: Policy) -> bool:
    """Whether a look alone takes frames away; one that six looks within half a second contradict is only a doubt."""
    near = [one for one in looks if one is not look and abs(one.frame - look.frame) <= policy.confirm * RATE]
    sides = sum(one.frame < look.frame for one in near), sum(one.frame > look.frame for one in near)
    odd = sum(one.outside >= policy.leave or one.face >= policy.faint_face for one in near)
    contradicted = min(sides) >= 3 and odd < 0.25 * len(near)
    out = look.outside >= policy.enter or look.face >= policy.face
    return (out and not contradicted) or look.text_lines >= policy.text_lines


@given(recordings())
def test_stretches_hold_every_frame_once_and_neighbours_differ(recording: tuple[list[Look], int, Policy]) -> None:
    looks, num_frames, policy = recording
    stretches = judge(looks, num_frames, RATE, policy)
    assert [s.span.start for s in stretches] == [0, *[s.span.stop for s in stretches[:-1]]]
    assert stretches[-1].span.stop == num_frames
    assert all(a.why != b.why for a, b in pairwise(stretches))
    counts = tally(stretches)
    assert sum(counts[place] for place in Place) == num_frames
    assert all(bool(s.why) == (s.place is not Place.INSIDE) for s in stretches)


@given(recordings())
def test_nothing_is_kept_near_a_look_that_is_against_it(recording: tuple[list[Look], int, Policy]) -> None:
    looks, num_frames, policy = recording
    stretches = judge(looks, num_frames, RATE, policy)
    frames = [look.frame for look in looks]
    sure, possible = chosen(stretches), chosen(stretches, doubts=True)
    for index, look in enumerate(looks):
        before = frames[index - 1] if index else -1
        after = frames[index + 1] if index + 1 < len(looks) else num_frames
        if is_bad(look, looks, policy):
            reach = policy.margin * float(RATE)
            assert not any(before < f < after or abs(f - look.frame) <= reach for f in possible)
        elif look.outside >= policy.leave or look.face >= policy.face:
            assert not any(before < frame < after for frame in sure)


@given(recordings())
def test_what_is_kept_is_long_seen_and_not_at_the_ends(recording: tuple[list[Look], int, Policy]) -> None:
    looks, num_frames, policy = recording
    stretches = judge(looks, num_frames, RATE, policy)
    for span in kept(stretches):
        assert len(span) >= policy.shortest * RATE
        assert span.start >= policy.head * RATE and span.stop <= num_frames - policy.tail * RATE
    frames = [-1, *[look.frame for look in looks], num_frames]
    for frame in chosen(stretches):
        before = max(f for f in frames if f <= frame)
        after = min(f for f in frames if f > frame)
        assert frame in frames or after - before <= policy.gap * RATE + 1


@given(recordings(), st.data())
def test_a_worse_look_never_brings_a_frame_back(recording: tuple[list[Look], int, Policy], data: st.DataObject) -> None:
    looks, num_frames, policy = recording
    if not looks:
        return
    index = data.draw(st.integers(0, len(looks) - 1))
    look = looks[index]
    worse = data.draw(st.sampled_from([
        replace(look, outside=data.draw(st.floats(look.outside, 1))),
        replace(look, face=data.draw(st.floats(look.face, 1))),
        replace(look, text_lines=look.text_lines + 7),
        replace(look, text_share=1.0),
        replace(look, change=0.0),
    ]))  # fmt: skip
    first = judge(looks, num_frames, RATE, policy)
    second = judge([*looks[:index], worse, *looks[index + 1 :]], num_frames, RATE, policy)
    assert chosen(second) <= chosen(first)
    assert chosen(second, doubts=True) <= chosen(first, doubts=True)


@given(recordings())
def test_no_look_at_all_keeps_nothing(recording: tuple[list[Look], int, Policy]) -> None:
    _, num_frames, policy = recording
    if num_frames > policy.gap * RATE + 1:
        assert not kept(judge([], num_frames, RATE, policy))


@given(st.integers(0, 2**32 - 1), st.integers(15 * 25, 40 * 25), st.sampled_from([1, 2]))
def test_every_planted_segment_of_two_seconds_goes_with_its_margin(seed: int, start: int, per_second: int) -> None:
    """Looks are jittered, one in each second or half second: two seconds cannot lie between them."""
    rng, rate = np.random.default_rng(seed), 25
    each = rate // per_second
    numbers = [k * each + int(rng.integers(each)) for k in range(60 * rate // each)]
    looks = [Look(frame=n, outside=0.9 if start <= n < start + 2 * rate else 0.001) for n in numbers]
    stretches = judge(looks, 60 * rate, Fraction(rate), Policy())
    assert not chosen(stretches, doubts=True) & set(range(start - rate, start + 3 * rate))
    far = {f for f in range(250, 60 * rate - 250) if f < start - 4 * rate or f >= start + 6 * rate}
    lost = far - chosen(stretches)
    assert len(lost) < 10 * rate, "only a remainder too short to trust may go beside what was planted"


def test_reasons_are_named() -> None:
    looks = [Look(frame=25 * k, outside=0.0) for k in range(60)]
    looks[30] = replace(looks[30], face=0.8)
    looks[45] = replace(looks[45], outside=0.1)
    stretches = judge(looks, 1500, Fraction(25), Policy(still=None))
    at = {
        frame: s for s in stretches for frame in (0, 400, 750, 800, 1125, 1499) if s.span.start <= frame < s.span.stop
    }
    assert at[0].why == (Why.ENDS,)
    assert at[400] == Stretch(span=Span(start=250, stop=675), place=Place.INSIDE)
    assert Why.FACE in at[750].why and at[800].why == (Why.MARGIN,)
    assert at[1125].place is Place.DOUBT and at[1125].why == (Why.UNSURE,)
    assert Why.ENDS in at[1499].why


def test_a_faint_face_counts_only_where_the_head_is_unsure() -> None:
    sure, unsure = Look(frame=0, outside=0.01, face=0.4), Look(frame=0, outside=0.1, face=0.4)
    assert kept(judge([sure], 1, RATE, CLEANED)) == (Span(start=0, stop=1),)
    assert not kept(judge([unsure], 1, RATE, CLEANED), doubts=True)


def test_a_look_that_those_around_it_contradict_is_a_doubt_and_one_that_they_confirm_is_not() -> None:
    """Eight looks a second, of which some are high. Without looks around it, a single one is always outside."""
    rate, numbers = Fraction(24), range(0, 48 * 24, 3)

    def places(high: set[int], numbers: Sequence[int] = numbers, face: float = 0.0) -> set[Place]:
        looks = [Look(frame=n, outside=0.9 if n in high and not face else 0.001, face=face if n in high else 0.0)
                 for n in numbers]  # fmt: skip
        found = judge(looks, 48 * 24, rate, CLEANED)
        return {s.place for s in found if s.span.start <= 600 < s.span.stop}

    assert places({600}) == places({600}, face=0.9) == {Place.DOUBT}
    assert places({597, 600, 606}, face=0.9) == {Place.OUTSIDE}
    assert places({600, 603, 606}) == places({594, 600, 609}) == {Place.OUTSIDE}, "a glimpse of three eighths"
    assert places({600}, [n for n in numbers if n % 12 == 0]) == {Place.OUTSIDE}, "two looks a second prove nothing"
    assert places({600}, [n for n in numbers if n <= 600 or n >= 608 + 12]) == {Place.OUTSIDE}, "one side is not enough"


def test_a_picture_that_stands_still_goes_whole() -> None:
    looks = [Look(frame=25 * k, outside=0.0, change=0.1 if 20 < k <= 31 else 12.0) for k in range(60)]
    stretches = judge(looks, 1500, Fraction(25), Policy(shortest=5.0))
    assert not chosen(stretches) & set(range(20 * 25 - 75, 31 * 25 + 75))
    assert chosen(stretches) >= set(range(250, 400))
    assert tally(judge(looks, 1500, Fraction(25), CLEANED))[Place.INSIDE] == 1500


@pytest.mark.parametrize("wrong", [{"outside": float("nan")}, {"outside": -0.1}, {"face": float("nan")},
                                   {"face": 1.1}, {"change": float("nan")}, {"text_share": 2.0}])  # fmt: skip
def test_a_measurement_that_failed_is_no_measurement(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not a measurement"):
        Look(**{"frame": 0, "outside": 0.0, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("frames", [(5, 5), (7, 3), (0, 100)])
def test_looks_out_of_order_or_place_are_refused(frames: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="in order"):
        judge([Look(frame=frame, outside=0.0) for frame in frames], 100, RATE, Policy())


def test_text_of_the_device_is_usual_and_a_list_of_patients_is_not() -> None:
    content = (100, 0, 1100, 1000)
    device = [(120, 20 + 40 * line, 300, 50 + 40 * line) for line in range(8)]
    patients = [(150 + 400 * column, 400 + 50 * line, 450 + 400 * column, 430 + 50 * line)
                for line in range(10) for column in range(2)]  # fmt: skip
    looks = [Look(frame=n, outside=0.0) for n in range(10)]
    boxes = [[*device, *(patients if n == 4 else [])] for n in range(10)]
    told = with_text(looks, boxes, content)
    assert [look.text_lines for look in told] == [20 if n == 4 else 0 for n in range(10)]
    assert told[4].text_share > Policy().text_share and told[0].text_share == 0
    outside = with_text(looks, [[(0, 0, 90, 900)]] * 5 + [[]] * 5, content)
    assert all(look.text_lines == 0 and look.text_share == 0 for look in outside), "text beside the field is no matter"
    screens = with_text(looks, [[(100, 0, 1100, 300)]] * 10, content)
    assert all(look.text_share > Policy().text_share for look in screens), "a picture full of text is never usual"


@pytest.fixture(scope="module")
def seen() -> tuple[list[Frame], list[Frame]]:
    """Frames of two rendered recordings of seeds that no head was fitted on: inside, outside."""
    inside: list[Frame] = []
    outside: list[Frame] = []
    for seed, light in ((700, "WL"), (701, "NBI")):
        traits = plan_recording(seed, light=light, size=(192, 160), frames=600, overlays=False, outside=True)  # type: ignore[arg-type]
        scene = Scene(traits, seed)
        first, last = traits.outside[0]
        outside += [scene.render(k)[0] for k in range(first, last, max(1, (last - first) // 10))][:10]
        inside += [scene.render(k)[0] for k in range(0, 600, 40) if not traits.is_outside(k)]
    return inside, outside


def everyday(name: str) -> Frame:
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        return np.asarray(image.convert("RGB"))


def test_the_shipped_head_tells_rendered_tissue_from_rooms(seen: tuple[list[Frame], list[Frame]]) -> None:
    head = shipped_head()
    inside, outside = (head.probability(describe(frames)) for frames in seen)
    assert (inside < Policy().leave).all()
    assert (outside >= Policy().enter).all()


def test_the_face_detector_sees_a_face_and_no_face_in_tissue(seen: tuple[list[Frame], list[Frame]]) -> None:
    astronaut = everyday("astronaut.png")
    assert face(astronaut) > 0.7
    assert face(astronaut, (150, 0, 300, 200)) > 0.5
    assert face(astronaut, (0, 300, 512, 512)) < 0.3, "outside the content nothing is looked for"
    assert max(face(frame) for frame in [everyday("coffee.png"), *seen[0][:6]]) < Policy().face


def test_looks_are_the_same_every_time_and_only_of_the_content(seen: tuple[list[Frame], list[Frame]]) -> None:
    frames = list(enumerate(seen[0][:4]))
    content = (40, 30, 150, 120)
    looks = look_at(frames, shipped_head(), content)
    assert looks == look_at(frames, shipped_head(), content)
    painted = []
    for number, frame in frames:
        other = np.full_like(frame, 255)
        other[30:120, 40:150] = frame[30:120, 40:150]
        painted.append((number, other))
    assert look_at(painted, shipped_head(), content) == looks
    assert looks[0].change == 255.0 and all(0 < look.change < 255 for look in looks[1:])


def test_describe_gives_each_frame_what_it_gives_it_alone(seen: tuple[list[Frame], list[Frame]]) -> None:
    frames = seen[0][:10]
    together = describe(frames)
    assert together.shape == (10, 1280)
    assert np.allclose(together, np.concatenate([describe([frame]) for frame in frames]), atol=1e-4)
    assert describe([]).shape == (0, 1280)


def test_calibration_learns_a_site_and_is_the_same_every_time(seen: tuple[list[Frame], list[Frame]]) -> None:
    """A head that has everything the wrong way round becomes right, and says what was held out."""
    shipped = shipped_head()
    wrong = replace(shipped, weights=(-np.frombuffer(shipped.weights, "<f4")).tobytes(), bias=-shipped.bias)
    first = calibrate(*seen, start=wrong)
    assert first == calibrate(*seen, start=wrong)
    assert (first.before.inside, first.before.outside) == (len(seen[0]), len(seen[1]))
    assert first.before.missed == len(seen[1])
    assert first.held_out.missed == 0 and first.held_out.lost == 0
    assert first.held_out.inside == len(seen[0])
    assert wrong.digest()[:16] in first.head.made
    again = read_head(first.head.to_json())
    assert again == first.head and again.digest() == first.head.digest()


def test_a_fit_that_starts_from_a_head_stays_at_it_if_it_is_right(seen: tuple[list[Frame], list[Frame]]) -> None:
    shipped = shipped_head()
    features = describe(seen[0]), describe(seen[1])
    near = fit(*features, start=shipped, made="again", strength=1e6)
    for group in features:
        shift = near.logits(group) - shipped.logits(group)
        assert float(np.ptp(shift)) < 0.1, "only the bias may have moved"


def test_too_few_frames_are_refused(seen: tuple[list[Frame], list[Frame]]) -> None:
    with pytest.raises(DataError, match="at least 20 frames of each kind"):
        calibrate(seen[0], seen[1][:19])


def test_a_head_file_that_is_none_is_refused() -> None:
    good = json.loads(shipped_head().to_json())
    nan = base64.b64encode(np.full(1280, np.nan, "<f4").tobytes()).decode()
    for change in ({"weights": good["weights"][:-8]}, {"weights": nan}, {"weights": 3}, {"bias": "x"}, {"bias": None}):
        with pytest.raises(DataError, match="no head"):
            read_head(json.dumps({**good, **change}))
    for text in ("", "[]", "{}", "null"):
        with pytest.raises(DataError, match="no head"):
            read_head(text)
    with pytest.raises(DataError, match="another network"):
        read_head(json.dumps({**good, "backbone": "0" * 64}))


@pytest.mark.parametrize("name", ["outside-backbone", "outside-head", "faces"])
def test_models_of_ours_are_pinned_and_a_changed_one_is_refused(name: str) -> None:
    pin = pins()[name]
    assert len(model_bytes(name, pin)) == pin.bytes
    with pytest.raises(DataError, match="is not the file"):
        model_bytes(name, replace(pin, sha256="0" * 64))
    with pytest.raises(DataError, match="cannot be read"):
        model_bytes(name, replace(pin, file="endocorpus/deid/data/none.onnx"))


def test_heads_are_values() -> None:
    head = Head(weights=np.zeros(1280, "<f4").tobytes(), bias=0.0, backbone="x", made="y")
    assert head.probability(np.ones((2, 1280), np.float32)).tolist() == [0.5, 0.5]


def worklist(size: tuple[int, int]) -> Frame:
    """A screen with made-up names, (height, width, 3)."""
    image = Image.new("RGB", size, (236, 238, 240))
    draw = ImageDraw.Draw(image)
    for line in range(9):
        draw.text(
            (20, 10 + 26 * line), f"TESTCASE {line}   30/02/2099   FAKE-{1000 + 37 * line}", (20, 30, 60), font_size=14
        )
    return np.asarray(image)


@pytest.mark.soak
@pytest.mark.parametrize(("seed", "light"), [(710, "WL"), (711, "NBI")])
def test_glimpses_of_two_seconds_go_and_the_body_stays(seed: int, light: str) -> None:
    """Two minutes with four glimpses of 2 s, two of a room and two of a screen; no head was fitted on these."""
    planted = [(800, 850), (1300, 1350), (1800, 1850), (2300, 2350)]
    traits = replace(
        plan_recording(seed, light=light, size=(320, 256), frames=3000, overlays=False, outside=False),  # type: ignore[arg-type]
        outside=tuple(planted[:2]),
    )
    scene, screen, rng = Scene(traits, seed), worklist((320, 256)), np.random.default_rng(seed)

    def seen_at(number: int) -> Frame:
        on_screen = any(start <= number < stop for start, stop in planted[2:])
        return screen if on_screen else scene.render(number)[0]

    numbers = [12 * k + int(rng.integers(12)) for k in range(250)]
    looks = look_at(((number, seen_at(number)) for number in numbers), shipped_head())
    found = judge(looks, 3000, Fraction(25), Policy())
    assert not chosen(found, doubts=True) & {frame for start, stop in planted for frame in range(start, stop)}
    margin = 4 * 25
    far = {f for f in range(250, 2750) if all(f < start - margin or f >= stop + margin for start, stop in planted)}
    assert len(far - chosen(found)) <= 0.03 * len(far)
