"""The DINO objective against its formula, and what may and may not move at a step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from endofm.models import ModelConfig
from endofm.models.heads import DINOHead
from endofm.objectives.dino import (
    Dino,
    DinoConfig,
    cross_entropies,
    encode_by_shape,
    information,
    mean_over_pairs,
)
from endofm.optim import Horizon

MODEL = ModelConfig(embed_dim=16, depth=2, num_heads=2, image_size=32, num_frames=4, drop_path=0.5)
CONFIG = DinoConfig(prototypes=24, head_hidden=16, head_bottleneck=8, freeze_last_layer="3 steps")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_dino(num_globals: int = 2, config: DinoConfig = CONFIG, model: ModelConfig = MODEL) -> Dino:
    torch.manual_seed(0)
    return Dino(config, model, num_globals=num_globals, horizon=Horizon.of("10 steps", num_clips=8, batch_size=2))


def make_views(num_globals: int = 2, num_locals: int = 3, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(2 + 2 * (view % 2), 32) for view in range(num_globals)] + [(2, 16)] * num_locals
    return [torch.randn(batch, 3, frames, size, size, generator=generator) for frames, size in shapes]


@pytest.mark.parametrize(("num_globals", "num_locals"), [(2, 8), (1, 1), (3, 0), (2, 0), (1, 4)])
def test_loss_is_the_mean_over_all_ordered_pairs(num_globals: int, num_locals: int) -> None:
    dino, views = make_dino(num_globals).eval(), make_views(num_globals, num_locals)
    dino.centre.copy_(torch.linspace(-0.1, 0.1, 24))
    with torch.no_grad():
        loss = dino.loss(views, step=0).loss
        student, teacher = ([net([view])[1][0].double() for view in views] for net in (dino.student, dino.teacher))
    terms = []
    for i in range(num_globals):
        for v in range(num_globals + num_locals):
            if v != i:
                for clip in range(2):
                    target = ((teacher[i][clip] - dino.centre) / 0.04).exp()
                    prediction = (student[v][clip] / 0.1).exp()
                    terms.append(-(target / target.sum() * (prediction / prediction.sum()).log()).sum())
    assert len(terms) == 2 * num_globals * (num_globals + num_locals - 1)
    assert loss.item() == pytest.approx((sum(terms) / len(terms)).item(), rel=1e-5)


def test_the_loss_has_two_parts() -> None:
    """The mean over pairs of globals and the mean over pairs with a local view, weighed by how many there are."""
    for num_globals, num_locals in [(2, 3), (3, 0), (1, 2)]:
        output = make_dino(num_globals).eval().loss(make_views(num_globals, num_locals), step=0)
        pairs = {"loss_global": num_globals * (num_globals - 1), "loss_local": num_globals * num_locals}
        assert pairs.keys() & output.monitors.keys() == {name for name, count in pairs.items() if count}
        total = sum(count * output.monitors[name].item() for name, count in pairs.items() if count)
        assert output.loss.item() == pytest.approx(total / sum(pairs.values()), rel=1e-6)


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(0, 4), st.integers(1, 3))
def test_a_view_is_never_its_own_target(num_globals: int, num_locals: int, clips: int) -> None:
    views = max(2, num_globals + num_locals)
    targets = torch.softmax(torch.randn(num_globals, clips, 6), -1)
    log_student = torch.log_softmax(torch.randn(views, clips, 6), -1).requires_grad_()
    mean_over_pairs(cross_entropies(targets, log_student)).backward()
    assert log_student.grad is not None
    for view in range(views):
        others = [g for g in range(num_globals) if g != view]
        expected = -targets[others].sum(0) / (clips * num_globals * (views - 1))
        torch.testing.assert_close(log_student.grad[view], expected)


def test_published_views_make_six_stacks_in_any_order() -> None:
    """The ten views of Endo-FM have six shapes; features come back in the order of the views."""
    shapes = [(8, 32), (16, 32), *[(frames, 16) for frames in (2, 2, 4, 4, 8, 8, 16, 16)]]
    views = [torch.full((1, 3, frames, size, size), float(index)) for index, (frames, size) in enumerate(shapes)]
    passes: list[int] = []

    class Means:
        def forward_shapes(self, clips: Sequence[Tensor]) -> list[Tensor]:
            passes.extend(len(stack) for stack in clips)
            return [stack.mean(dim=(1, 2, 3, 4))[:, None] for stack in clips]

    assert encode_by_shape(Means(), views).flatten().tolist() == list(range(10))
    assert sorted(passes) == [1, 1, 2, 2, 2, 2]
    assert encode_by_shape(Means(), views[::-1]).flatten().tolist() == list(range(10))[::-1]


def test_only_the_student_has_gradients_and_all_of_it() -> None:
    dino = make_dino()
    dino.loss(make_views(), step=0).loss.backward()
    for name, parameter in dino.named_parameters():
        learns = name.startswith("student.") and not name.endswith("weight_g")
        assert parameter.requires_grad == learns, name
        assert (parameter.grad is not None) == learns, name


def test_teacher_has_no_stochastic_depth_and_the_student_has() -> None:
    dino, views = make_dino().train(), make_views()
    assert dino.student.training
    assert not any(module.training for module in dino.teacher.modules())
    outputs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        outputs.append(dino.loss(views, step=0))
    assert torch.equal(outputs[0].features_BD, outputs[1].features_BD)
    # The fresh network is all but linear in what is dropped: look at the student itself.
    torch.nn.init.normal_(dino.student.backbone.blocks[1].get_parameter("mlp.fc2.weight"))
    losses = set()
    for seed in range(8):
        torch.manual_seed(seed)
        losses.add(dino.loss(views, step=0).loss.item())
    assert len(losses) > 1


def test_teacher_follows_by_the_momentum_of_the_step() -> None:
    dino, views = make_dino(), make_views()
    with torch.no_grad():
        for parameter in dino.student.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    for step in (0, 5, 9):
        momentum = 1 - (1 - 0.996) * (math.cos(math.pi * step / 10) + 1) / 2
        before = {name: tensor.clone() for name, tensor in dino.teacher.named_parameters()}
        assert dino.loss(views, step).constants["ema"] == pytest.approx(momentum)
        dino.after_step(step)
        for name, student in dino.student.named_parameters():
            expected = momentum * before[name] + (1 - momentum) * student
            torch.testing.assert_close(dino.teacher.get_parameter(name), expected, rtol=0, atol=1e-6)
    assert torch.equal(dino.teacher.head.last_layer.weight_g, torch.ones(24, 1))


def test_centre_follows_the_mean_teacher_logit_of_both_globals() -> None:
    dino, views = make_dino(), make_views()
    for step in range(3):
        with torch.no_grad():
            mean = dino.teacher(views[:2])[1].mean(dim=(0, 1))
        before = dino.centre.clone()
        dino.loss(views, step)
        assert torch.equal(dino.centre, before), "the centre of a step must not see that step"
        dino.after_step(step)
        torch.testing.assert_close(dino.centre, 0.9 * before + 0.1 * mean)


def test_prototypes_are_frozen_for_the_first_steps() -> None:
    dino = make_dino()
    frozen = [{id(parameter) for parameter in dino.frozen(step)} for step in range(4)]
    assert frozen[3] == set()
    for names in frozen[:3]:
        assert id(dino.student.head.last_layer.weight_v) in names
        assert not names & {id(parameter) for parameter in dino.student.backbone.parameters()}


def test_student_learns_what_a_fixed_teacher_says() -> None:
    """The cross-entropy can fall to the teacher's entropy, and no further."""
    dino = make_dino(config=CONFIG.model_copy(update={"teacher_momentum": 1.0, "centre_momentum": 1.0}))
    views, optimizer = make_views(), torch.optim.Adam(dino.student.parameters(), lr=3e-3)
    distances = []
    for step in range(60):
        output = dino.loss(views, step)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        distances.append(output.loss.item() - dino.after_step(step)["teacher_entropy"].item() * math.log(24))
    assert min(distances) >= -1e-5
    assert distances[-1] < 0.5 * distances[0]


def test_monitors_know_collapse() -> None:
    dino, views = make_dino(), make_views()
    dino.loss(views, 0)
    healthy = dino.after_step(0)
    assert 0 < healthy["teacher_entropy"] < 1
    assert 0 < healthy["teacher_information"] <= 1
    dino = make_dino()  # with the centre still at 0
    nn.init.zeros_(dino.teacher.backbone.norm.weight)  # every clip gets the same feature
    nn.init.ones_(dino.teacher.backbone.norm.bias)
    nn.init.ones_(dino.teacher.head.last_layer.weight_v)  # every prototype is equally near
    dino.loss(views, 0)
    collapsed = dino.after_step(0)
    assert collapsed["teacher_entropy"].item() == pytest.approx(1, abs=1e-5)
    assert collapsed["teacher_information"].item() == pytest.approx(0, abs=1e-5)


def test_what_is_said_of_a_step_does_not_depend_on_its_parts() -> None:
    """With one clip a part, two views of the same clip are all that a part could compare."""
    said = []
    for parts in (1, 2, 4):
        dino, views = make_dino(model=MODEL.model_copy(update={"drop_path": 0.0})), make_views(batch=4)
        for part in zip(*(view.chunk(parts) for view in views), strict=True):
            dino.loss(part, 0)
        said.append({name: value.item() for name, value in dino.after_step(0).items()})
    assert said[1] == pytest.approx(said[0], rel=1e-3) and said[2] == pytest.approx(said[0], rel=1e-3)
    targets = torch.eye(8).repeat_interleave(2, dim=0)  # a teacher that tells all clips apart, and no views of one
    assert information(targets).item() == pytest.approx(math.log(8) / math.log(8))


def test_loss_stays_in_float32_under_autocast() -> None:
    dino, views = make_dino(model=MODEL.model_copy(update={"drop_path": 0.0})), make_views()
    full = dino.loss(views, 0)
    with torch.autocast("cpu", torch.bfloat16):
        half = dino.loss(views, 0)
    assert half.loss.dtype == torch.float32
    assert half.loss.item() != full.loss.item()
    assert half.loss.item() == pytest.approx(full.loss.item(), rel=0.1)


def test_state_has_the_names_of_released_checkpoints() -> None:
    names = make_dino().state_dict().keys()
    head = {f"head.mlp.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}
    head |= {"head.last_layer.weight_g", "head.last_layer.weight_v"}
    for network in ("student.", "teacher."):
        mine = {name.removeprefix(network) for name in names if name.startswith(network)}
        assert {name for name in mine if name.startswith("head.")} == head
        assert all(name.startswith("backbone.") for name in mine - head)
    assert {name for name in names if not name.startswith(("student.", "teacher."))} == {"centre"}


def test_too_few_views() -> None:
    with pytest.raises(ValueError, match="1 views"):
        make_dino(1).loss(make_views(1, 0), 0)


def test_published_head() -> None:
    with torch.device("meta"):
        head = DINOHead(768, 65536)
    assert sum(parameter.numel() for parameter in head.parameters()) == 23_138_560
    assert tuple(head.last_layer.weight_g.shape) == (65536, 1)
    assert not head.last_layer.weight_g.requires_grad


def test_published_student() -> None:
    with torch.device("meta"):
        horizon = Horizon.of("1 epoch", num_clips=12, batch_size=12)
        dino = Dino(DinoConfig(), ModelConfig(), num_globals=2, horizon=horizon)
    assert sum(parameter.numel() for parameter in dino.student.parameters()) == 144_397_312


def test_head_compares_directions_only() -> None:
    torch.manual_seed(0)
    head, features = DINOHead(16, 24, hidden=16, bottleneck=8), torch.randn(5, 3, 16)
    before = head(features)
    assert before.shape == (5, 3, 24)
    assert before.abs().max() <= 1 + 1e-6
    with torch.no_grad():
        head.last_layer.weight_v.mul_(7)
        head.mlp[4].weight.mul_(3)
    torch.testing.assert_close(head(features), before)
