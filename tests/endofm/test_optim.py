"""Schedules against the curves of DINO's own recipe, groups, and clipping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from endocorpus.errors import UsageError
from endofm.models import ModelConfig
from endofm.objectives.dino import Dino, DinoConfig
from endofm.optim import Horizon, OptimConfig, Schedule, clip_each_, make_optimizer, schedule_


def horizon(length: str, num_clips: int = 120, batch_size: int = 12) -> Horizon:
    return Horizon.of(length, num_clips=num_clips, batch_size=batch_size)


def dino_curve(first: float, last: float, total: int, warmup: int = 0) -> NDArray[np.float64]:
    """Facebook's recipe, as arrays: a line to `first` inclusive, then a cosine that stops just short of `last`."""
    phase = np.arange(total - warmup) / (total - warmup)
    return np.concatenate([np.linspace(0, first, warmup), last + (first - last) * (1 + np.cos(np.pi * phase)) / 2])


@given(st.integers(2, 400), st.data())
def test_schedules_are_the_published_curves(total: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, total - 1))
    config = OptimConfig(warmup=f"{warmup} steps")
    schedule = Schedule(config, horizon(f"{total} steps"), batch_size=12)
    rates = [schedule.lr(step) for step in range(total)]
    np.testing.assert_allclose(rates, dino_curve(5e-4 * 12 / 256, 1e-6, total, warmup), rtol=1e-9, atol=1e-18)
    decays = [schedule.weight_decay(step) for step in range(total)]
    np.testing.assert_allclose(decays, dino_curve(0.04, 0.4, total), rtol=1e-9)


def test_published_run() -> None:
    """32,896 clips, 12 at a time, 30 epochs; the peak of the released code is 2.34375e-5."""
    run = horizon("30 epochs", num_clips=32_896)
    assert run.total_steps == 82_240
    schedule = Schedule(OptimConfig(), run, batch_size=12)
    peak = max(range(run.total_steps), key=schedule.lr)
    assert schedule.lr(peak) == pytest.approx(2.34375e-5)
    assert peak + 1 == run.steps("10 epochs") == 27_413


@given(st.integers(1, 50), st.integers(1, 500), st.integers(1, 64))
def test_epochs_are_whole_passes(epochs: int, num_clips: int, batch_size: int) -> None:
    if epochs * num_clips < batch_size:
        with pytest.raises(UsageError, match="less than one step"):
            horizon(f"{epochs} epochs", num_clips, batch_size)
    else:
        steps = horizon(f"{epochs} epochs", num_clips, batch_size).total_steps
        assert steps * batch_size <= epochs * num_clips < (steps + 1) * batch_size


def test_fractions_of_an_epoch_and_singular_units() -> None:
    run = horizon("1 epoch")
    assert (run.total_steps, run.steps("0.1 epochs"), run.steps("1 step"), run.steps("0 steps")) == (10, 1, 1, 0)


@pytest.mark.parametrize("text", ["30", "epochs", "-1 epochs", "1.5 steps", "3 weeks", "3epochs", ""])
def test_a_length_needs_its_unit(text: str) -> None:
    with pytest.raises(ValueError, match="200 steps"):
        OptimConfig(warmup=text)


def test_a_warm_up_must_end_before_the_run() -> None:
    with pytest.raises(UsageError, match=r"optim\.warmup"):
        Schedule(OptimConfig(warmup="10 steps"), horizon("10 steps"), 12)


def test_groups_hold_each_trainable_parameter_once() -> None:
    with torch.device("meta"):
        model = ModelConfig(embed_dim=16, depth=2, num_heads=2)
        dino = Dino(DinoConfig(prototypes=8), model, num_globals=2, horizon=horizon("5 steps"))
        groups = make_optimizer(dino).param_groups
    names = {id(parameter): name for name, parameter in dino.named_parameters()}
    decayed, undecayed = ([names[id(parameter)] for parameter in group["params"]] for group in groups)
    assert sorted(decayed + undecayed) == sorted(n for n, p in dino.named_parameters() if p.requires_grad)
    assert all(name.startswith("student.") and name.endswith(("weight", "weight_v")) for name in decayed)
    assert not any("norm" in name or "embed" in name.replace("patch_embed", "") for name in decayed)
    others = {name for name in undecayed if not name.endswith("bias") and "norm" not in name}
    assert others == {f"student.backbone.{name}" for name in ("cls_token", "pos_embed", "time_embed")}


def test_decay_reaches_only_its_group() -> None:
    layer = nn.Linear(3, 2)
    before = {name: parameter.clone() for name, parameter in layer.named_parameters()}
    optimizer = make_optimizer(layer)
    schedule_(optimizer, lr=0.1, weight_decay=0.5)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(layer.weight, before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, before["bias"])


@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=6), st.floats(0.5, 5))
def test_each_gradient_is_clipped_by_itself(norms: list[float], limit: float) -> None:
    parameters = [nn.Parameter(torch.zeros(4, 3)) for _ in norms]
    directions = [nn.functional.normalize(torch.randn(4, 3).flatten(), dim=0).view(4, 3) for _ in norms]
    for parameter, direction, norm in zip(parameters, directions, norms, strict=True):
        parameter.grad = direction * norm
    total = clip_each_([*parameters, nn.Parameter(torch.zeros(1))], limit)  # the last one has no gradient
    assert total.item() == pytest.approx(float(np.linalg.norm(norms)), rel=1e-4, abs=1e-6)
    for parameter, direction, norm in zip(parameters, directions, norms, strict=True):
        torch.testing.assert_close(parameter.grad, direction * min(norm, limit), rtol=1e-4, atol=1e-5)
