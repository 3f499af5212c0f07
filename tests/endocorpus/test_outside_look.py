"""The pass that looks for frames outside the body, over recordings made here."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from endocorpus.deid.outside import CLEANED, Look, Policy, judge, kept, tally
from endocorpus.deid.outside_look import CLOSE, is_black, look_closer, look_frames, look_outside, merge
from endocorpus.media.probe import probe
from endocorpus.phantom import plan_recording
from endocorpus.phantom.scene import Scene
from endocorpus.records import Excluded, Media, MediaFacts

KEY = "0" * 32


@given(
    st.integers(1, 2000), st.sampled_from([Fraction(1), Fraction(25), Fraction(30000, 1001)]), st.sampled_from([2, 8])
)
def test_one_frame_of_each_stretch_is_looked_at(num_frames: int, rate: Fraction, per_second: int) -> None:
    numbers = look_frames(num_frames, rate, Fraction(per_second), KEY)
    assert numbers == look_frames(num_frames, rate, Fraction(per_second), KEY)
    each = max(1, int(rate / per_second))
    assert [number // each for number in numbers] == list(range(-(-num_frames // each)))
    assert numbers[-1] < num_frames
    if num_frames > 500 and each > 2:
        assert len({after - before for before, after in pairwise(numbers)}) > 1, "no fixed grid: things blink"
        assert numbers != look_frames(num_frames, rate, Fraction(per_second), "1" * 32)


@given(st.data())
def test_around_what_is_odd_is_looked_more_often(data: st.DataObject) -> None:
    rate, policy = Fraction(24), Policy()
    first = [
        Look(frame=frame, outside=data.draw(st.sampled_from([0.0, 0.0, 0.0, 0.02, 0.9])),
             face=data.draw(st.sampled_from([0.0, 0.0, 0.4, 0.9])), change=data.draw(st.sampled_from([0.1, 9.0])))
        for frame in look_frames(480, rate, policy.per_second, KEY)
    ]  # fmt: skip
    closer = look_closer(first, 480, rate, policy, KEY)
    odd = [look.frame for look in first if look.outside > 0 or look.face >= policy.face]
    assert all(any(abs(frame - at) <= CLOSE * rate for at in odd) for frame in closer)
    looks = merge(first, [Look(frame=frame, outside=0.0) for frame in closer])
    numbers = [look.frame for look in looks]
    assert numbers == sorted({*numbers})
    for at in odd:
        near = [0, *[n for n in numbers if abs(n - at) <= CLOSE * rate], 479]
        assert all(after - before <= 6 for before, after in pairwise(near) if at - 20 <= before and after <= at + 20)
    still = [tally(judge(some, 480, rate, Policy(still=2.0)))["picture stands still"] > 0 for some in (first, looks)]
    assert still[0] == still[1], "standing still is told over the same time as without closer looks"


def frames(folder: Path, pictures: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]) -> tuple[Media, MediaFacts]:
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number:04}.png")
    media = Media(kind="frames", paths=tuple(f"{number:04}.png" for number in range(len(pictures))))
    return media, replace(probe(media, folder), rate=Fraction(4))


@pytest.fixture(scope="module")
def tissue() -> Scene:
    return Scene(plan_recording(702, light="WL", size=(192, 160), frames=400, overlays=False, outside=True), 702)  # type: ignore[arg-type]


def test_a_room_goes_the_body_stays_and_blacked_out_frames_as_the_policy_says(tissue: Scene, tmp_path: Path) -> None:
    room = next(number for number in range(400) if tissue.render(number)[1].outside)
    body = [number for number in range(60, 340) if not tissue.render(number)[1].outside][:40]
    black = np.full((160, 192, 3), 16, np.uint8)
    pictures = [tissue.render(number)[0] for number in body]
    pictures[0:4] = [tissue.render(room)[0]] * 4
    pictures[30:34] = [black] * 4
    media, facts = frames(tmp_path, pictures)
    policy = replace(CLEANED, margin=1.0)
    looks = look_outside(media, facts, tmp_path, content=(0, 0, 192, 160), policy=policy)
    assert looks == look_outside(media, facts, tmp_path, content=(0, 0, 192, 160), policy=policy)
    spans = kept(judge(looks, facts.num_frames, facts.rate, policy))
    assert len(spans) == 1 and 8 <= spans[0].start <= 10 and spans[0].stop == 40
    private = replace(policy, black_stays=False)
    looks = look_outside(media, facts, tmp_path, content=(0, 0, 192, 160), policy=private)
    assert all(span.stop <= 30 or span.start >= 34 for span in kept(judge(looks, 40, facts.rate, private)))


def test_a_recording_that_cannot_be_looked_at_is_refused(tissue: Scene, tmp_path: Path) -> None:
    media, facts = frames(tmp_path, [tissue.render(number)[0] for number in (100, 110)])
    (tmp_path / "0001.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(Excluded):
        look_outside(media, facts, tmp_path, content=(0, 0, 192, 160), policy=CLEANED)


def test_black_is_what_shows_nothing_within_the_content() -> None:
    frame = np.full((40, 60, 3), 22, np.uint8)
    frame[:5] = 255
    assert is_black(frame, (0, 5, 60, 40)) and not is_black(frame, (0, 4, 60, 40))
    frame[20, 20, 1] = 23
    assert not is_black(frame, (0, 5, 60, 40))
