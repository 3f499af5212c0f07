"""VCL: its views, its losses at their known values, and that planted textures become concepts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from endocorpus.errors import UsageError
from endofm.config import load_config
from endofm.data.plan import PairViewConfig, plan_views
from endofm.models import ModelConfig
from endofm.objectives.concepts import chosen, contrast_of_concepts
from endofm.objectives.sinkhorn import sinkhorn
from endofm.objectives.vcl import D1, S1, V1, Vcl, VclConfig, differences
from endofm.optim import Horizon

MODEL = ModelConfig(embed_dim=32, depth=2, num_heads=2, image_size=32, num_frames=4, drop_path=0.0)
CONFIG = VclConfig(concepts=12, concept_width=16, projection=8, queue=6, frozen_share=0.1, local_after=0.2)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_vcl(config: VclConfig = CONFIG, steps: int = 10) -> Vcl:
    torch.manual_seed(0)
    return Vcl(config, MODEL, horizon=Horizon.of(f"{steps} steps", num_clips=8, batch_size=2))


def make_views(batch: int = 4, still: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 3, frames, 32, 32, generator=generator) for frames in (4, 4, still, still)]


# --- views ---------------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    st.integers(1, 200), st.integers(2, 9), st.integers(1, 4), st.sampled_from(["repeat", "single"]), st.integers(0, 99)
)
def test_two_clips_that_follow_each_other_and_their_stills(
    n: int, T: int, fastest: int, static: str, seed: int
) -> None:
    config = PairViewConfig(frames=T, fastest=fastest, static=static)  # type: ignore[arg-type]
    v1, v2, s1, s2 = (view.frames for view in plan_views(n, 64, 80, config, np.random.default_rng((seed, 5))).views)
    assert len(v1) == len(v2) == T
    assert len(s1) == len(s2) == (T if static == "repeat" else 1)
    assert v1[0] >= 0 and v2[-1] < n
    if n >= 2 * T:
        assert len(set(np.diff(v1 + v2))) == 1, "one pace, neither gap nor overlap"
        assert 1 <= v1[1] - v1[0] <= fastest
    assert set(s1) == {v1[v2.index(s2[0])]} or n < 2 * T, "the still has the same place in both clips"
    assert len(set(s2)) == 1


def test_pairs_are_a_function_of_seed_and_position_and_use_their_range() -> None:
    config = PairViewConfig()
    plans = [plan_views(150, 64, 80, config, np.random.default_rng((0, position))) for position in range(400)]
    assert plans[7] == plan_views(150, 64, 80, config, np.random.default_rng((0, 7)))
    clips = [plan.views[0].frames for plan in plans]
    assert {clip[1] - clip[0] for clip in clips} == {1, 2, 3}
    assert min(clip[0] for clip in clips) < 5
    assert max(plan.views[1].frames[-1] for plan in plans) > 144
    assert len({plan.views[0].frames.index(plan.views[2].frames[0]) for plan in plans}) == config.frames
    assert all(len({view.box for view in plan.views}) > 1 for plan in plans[:50]), "crops are drawn one by one"


def test_views_and_objective_must_suit_each_other() -> None:
    with pytest.raises(
        UsageError, match=r"objective\.kind = 'vcl' learns from views\.kind = 'pairs', and here it is 'crops'"
    ):
        load_config("endofm", ["objective.kind=vcl"])
    with pytest.raises(UsageError, match=r"objective\.kind = 'dino' learns from views\.kind = 'crops'"):
        load_config("endofm", ["views.kind=pairs"])
    with pytest.raises(UsageError, match=r"views\.size = 100 must be a multiple"):
        load_config("endofm-vcl", ["views.size=100"])
    with pytest.raises(UsageError, match=r"'views\.local_frames'; it is a setting of views\.kind = 'crops'"):
        load_config("endofm-vcl", ["views.local_frames=[2]"])


def test_differences() -> None:
    clip = torch.randn(2, 3, 4, 8, 8)
    change = differences(clip)
    assert change.shape == clip.shape
    for frame in range(1, 4):
        assert torch.equal(change[:, :, frame], clip[:, :, frame] - clip[:, :, frame - 1])
    assert torch.equal(change[:, :, 0], change[:, :, 1]), "no frame before the first, least of all the last"
    assert not differences(clip[:, :, :1]).any()


# --- losses --------------------------------------------------------------------------------------------------------


def test_known_values_at_the_start() -> None:
    """Of the released model at random weights, K = 100: A 4.71 and 4.69, E -4.51 each, R 0, one InfoNCE about ln B."""
    vcl = make_vcl(VclConfig(local_after=0.0))
    told = {name: value.item() for name, value in vcl.loss(make_views(8), step=1).monitors.items()}
    assert told["loss_static"] == pytest.approx(math.log(100), abs=0.3)
    assert told["loss_dynamic"] == pytest.approx(math.log(100), abs=0.3)
    assert -0.2 * math.log(100) <= told["loss_entropy"] <= -0.2 * 4.4
    assert abs(told["loss_fidelity"]) < 0.4
    assert told["loss_instances"] == pytest.approx(5 * math.log(8), rel=0.35), "one, and two of weight two"
    assert 0 < told["loss_local"] < 6


def test_the_loss_is_the_sum_of_its_parts_and_local_concepts_come_later() -> None:
    vcl, views = make_vcl(), make_views()
    for step, later in ((1, False), (2, True)):
        vcl._scores.clear()
        output = vcl.loss(views, step)
        parts = [value.item() for name, value in output.monitors.items() if name.startswith("loss_")]
        assert output.loss.item() == pytest.approx(sum(parts), rel=1e-5)
        assert (output.monitors["loss_local"].item() != 0) == later


@pytest.mark.parametrize("step", [0, 1, 2])
def test_every_weight_takes_part_and_some_stand_still(step: int) -> None:
    vcl = make_vcl()
    vcl.loss(make_views(), step).loss.backward()
    assert all(parameter.grad is not None for parameter in vcl.parameters())
    frozen = {id(parameter) for parameter in vcl.frozen(step)}
    names = {name.split(".")[0] for name, parameter in vcl.named_parameters() if id(parameter) in frozen}
    assert names == ({"concepts", "local"}, {"local"}, set())[step]


def test_alignment_is_that_of_a_plain_loop() -> None:
    vcl, views = make_vcl(), make_views()
    with torch.no_grad():
        output = vcl.loss(views, 0)
        scores = vcl._scores[0].transpose(0, 1)  # [V, B, 2K]
        for name, columns, members in (
            ("static", slice(0, 12), (0, 1, 2, 3)),
            ("dynamic", slice(12, 24), (0, 1, 4, 5)),
        ):
            terms = []
            for i in members:
                target = sinkhorn(scores[i][:, columns], temperature=0.05, iterations=3)
                for k in members:
                    guessed = (scores[k][:, columns] / 0.1).log_softmax(1)
                    terms += [-(target * guessed).sum(1).mean().item()] if k != i else []
            assert len(terms) == 12
            assert output.monitors[f"loss_{name}"].item() == pytest.approx(sum(terms) / 12, rel=1e-5)
        wrong = [(scores[view][:, columns] / 0.1).softmax(1) for view, columns in
                 ((2, slice(12, 24)), (3, slice(12, 24)), (4, slice(0, 12)), (5, slice(0, 12)))]  # fmt: skip
        negative = sum((p * p.log()).sum(1).mean().item() for p in wrong) / 2
    assert output.monitors["loss_entropy"].item() == pytest.approx(0.1 * negative, rel=1e-5)


def test_the_queue_balances_with_clips_seen_before_and_only_those() -> None:
    vcl, views = make_vcl(), make_views(4)
    first = vcl.loss(views, 0)
    empty = [vcl._assign(slice(0, 12), (V1,), 4)]
    vcl.queue_QVC.normal_()  # what an empty place holds does not matter
    assert torch.equal(vcl._assign(slice(0, 12), (V1,), 4), empty[0])
    seen = vcl._scores[0].clone()
    vcl.after_step(0)
    assert vcl.pushed.item() == 4
    assert torch.equal(vcl.queue_QVC[:4], seen)
    vcl.loss(views, 1)
    assert not torch.equal(vcl._assign(slice(0, 12), (V1,), 4), empty[0])
    told = vcl.after_step(1)
    assert vcl.pushed.item() == 8
    newest = vcl.queue_QVC[[4, 5, 0, 1]]  # the oldest go
    torch.testing.assert_close(newest, seen)
    assert torch.equal(vcl.queue_QVC[2:4], seen[2:])
    assert first.loss.isfinite() and told["concept_information"].item() >= 0
    vcl.loss([view * math.nan for view in views], 2)
    vcl.after_step(2)
    assert vcl.queue_QVC.isfinite().all() and vcl.pushed.item() == 8


def test_few_concepts_are_chosen_and_no_ties() -> None:
    scores = torch.randn(5, 40)
    assert (chosen(scores, 10).sum(dim=1) == 9).all()
    assert torch.equal(chosen(scores, 10).nonzero(), (scores.argsort(1, descending=True).argsort(1) < 9).nonzero())
    assert not chosen(torch.zeros(2, 7), 10).any()


def test_contrast_of_concepts_by_hand() -> None:
    """Alike in both views: sqrt(1e-5) away. Other clips at a right angle: sqrt(2), beyond the margin of 1.4."""
    found = torch.zeros(2, 3, 4)
    found[0, :, 0], found[1, :, 1] = 2.0, 3.0  # the length of a vector means nothing
    wanted = torch.ones(2, 3, dtype=torch.bool)
    alike = contrast_of_concepts(found, found, wanted, margin=1.4)
    assert alike.item() == pytest.approx(6 * 1e-5 / 7, rel=1e-2)
    wide = contrast_of_concepts(found, found, wanted, margin=2.0)
    assert wide.item() == pytest.approx(6 * (1e-5 + (2 - math.sqrt(2)) ** 2) / 7, rel=1e-3)
    apart = contrast_of_concepts(found, found.flip(0), wanted, margin=1.4)
    assert apart.item() == pytest.approx(6 * (2 + (1.4 - math.sqrt(1e-5)) ** 2) / 7, rel=1e-3)
    assert contrast_of_concepts(found, found, ~wanted, margin=2.0).item() == 0


def test_repeated_stills_and_single_ones_cost_what_they_should() -> None:
    vcl = make_vcl()
    repeat, single = (PairViewConfig(frames=8, size=32, static=how).view_shapes for how in ("repeat", "single"))
    ratio = vcl.step_flops(single) / vcl.step_flops(repeat)
    assert 34 / 48 - 0.01 < ratio < 34 / 48 + 0.03, "frames encoded, and a class token more for each frame"
    assert vcl.loss(make_views(2, still=4), 0).loss.isfinite()


def test_it_learns_planted_textures() -> None:
    """Four textures at four paces: alignment falls well below guessing, and features tell the texture."""
    vcl = make_vcl(VclConfig(concepts=8, concept_width=16, projection=16, queue=32, frozen_share=0.0), steps=50)
    optimizer = torch.optim.Adam(vcl.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(50):
        views = [torch.stack(view) for view in zip(*(textured(row % 4, generator) for row in range(12)), strict=True)]
        output = vcl.loss(views, step)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        told = vcl.after_step(step)
    assert output.monitors["loss_static"].item() < 0.8 * math.log(8)
    assert told["concept_information"].item() > 0.2
    with torch.no_grad():
        features = vcl.backbone(torch.stack([textured(row % 4, generator)[0] for row in range(24)]))
    nearest = torch.nn.functional.normalize(features, dim=1)
    nearest = (nearest @ nearest.T - 2 * torch.eye(24)).argmax(dim=1)
    assert (nearest % 4 == torch.arange(24) % 4).float().mean() > 0.9
    for concepts in vcl.concepts.values():
        torch.testing.assert_close(concepts.norm(dim=1), torch.ones(16))


def textured(kind: int, generator: torch.Generator) -> list[Tensor]:
    """v1 v2 s1 s2 of moving stripes of one of four directions and colours, in noise."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    along, pace = (x, y, x + y, x - y)[kind] / 3, float(torch.rand(1, generator=generator))
    begin = float(torch.rand(1, generator=generator)) * 6
    frames = torch.stack([torch.sin(along + begin + pace * frame) for frame in range(8)])
    colour = torch.tensor([(1.0, 0, 0), (0, 1, 0), (0, 0, 1), (-1, -1, -1)])[kind].view(3, 1, 1, 1)
    clip = frames + colour + 0.1 * torch.randn(3, 8, 32, 32, generator=generator)
    return [clip[:, :4], clip[:, 4:], clip[:, 1:2], clip[:, 5:6]]


def test_views_are_where_they_are_taken_for() -> None:
    """Noise in the stills alone changes what stills say, and nothing else; so for each kind."""
    vcl, views = make_vcl(), make_views()
    vcl.loss(views, 0)
    vcl.loss([views[0], views[1], views[2] + 1, views[3]], 0)
    changed = (vcl._scores[0] != vcl._scores[1]).any(dim=2).any(dim=0)
    assert changed.nonzero().flatten().tolist() == [S1]
    vcl.loss([views[0] + 1, *views[1:]], 0)  # a constant has no difference
    changed = ((vcl._scores[0] - vcl._scores[2]).abs() > 1e-4).any(dim=2).any(dim=0)
    assert changed[V1] and not changed[D1]
