"""What tells a run that learns from one that has collapsed."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console

from endofm.config import load_config
from endofm.health import REMEMBERED, Alarms, Health, diversity, effective_rank, spread_of
from endofm.pretrain import pretrain
from tests.endofm.conftest import ClipSpec, write_corpus
from tests.endofm.test_pretrain import TINY


def planted(rank: int, *, count: int = 400, width: int = 32) -> torch.Tensor:
    """Features [count, width] that vary alike along `rank` orthogonal directions, about a mean far from zero."""
    generator = torch.Generator().manual_seed(rank)
    directions = torch.linalg.qr(torch.randn(width, width, generator=generator))[0][:rank]
    along = torch.linalg.qr(torch.randn(count, rank, generator=generator))[0]
    along = along - along.mean(dim=0)
    return 50 + along @ directions * math.sqrt(count)


@pytest.mark.parametrize("rank", [1, 2, 7, 31])
def test_the_rank_is_that_which_was_planted(rank: int) -> None:
    features = planted(rank)
    assert effective_rank(features) == pytest.approx(rank, rel=0.02)
    assert effective_rank(features * 1e-3) == pytest.approx(rank, rel=0.02), "scale means nothing"


def test_features_that_are_all_alike() -> None:
    alike = torch.ones(20, 8)
    assert effective_rank(alike) == pytest.approx(1)
    assert diversity(alike) == pytest.approx(0, abs=1e-12)
    assert spread_of(alike).item() == pytest.approx(0, abs=1e-6)


def test_diversity_and_spread_of_known_angles() -> None:
    """Half of the features point one way, half at a right angle to it."""
    features = torch.eye(2).repeat(50, 1)
    different = 2 * 50 * 50 / (100 * 99)  # share of pairs at a right angle
    assert diversity(features) == pytest.approx(different)
    assert spread_of(features).item() == pytest.approx(math.sqrt(0.5))


def test_features_of_a_skipped_step_are_not_remembered() -> None:
    health = Health(8)
    health.remember(torch.randn(16, 8))
    before = health.measure()
    health.remember(torch.cat([torch.randn(1, 8), torch.full((1, 8), torch.nan)]))
    assert health.measure() == before and health.seen.item() == 16
    assert health.features_QD.isfinite().all()


def test_only_the_clips_seen_last_are_remembered() -> None:
    stream = torch.randn(REMEMBERED * 2 + 300, 6, generator=torch.Generator().manual_seed(0))
    health = Health(6)
    assert health.measure() == {}
    for part in stream.split(12):
        health.remember(part)
    kept = sorted(map(tuple, health.features_QD.tolist()))
    assert kept == sorted(map(tuple, stream[-REMEMBERED:].tolist()))
    assert health.measure()["feature_rank"] == pytest.approx(effective_rank(stream[-REMEMBERED:]))
    again = Health(6)
    again.load_state_dict(health.state_dict())
    for each in (health, again):
        each.remember(stream[:5])
    assert torch.equal(health.features_QD, again.features_QD)


def test_a_sign_must_last_and_is_told_once() -> None:
    bad, good = ({"loss": 6.2, "loss_at_chance": 6.2, "teacher_information": told} for told in (0.001, 0.2))
    alarms = Alarms()
    told = [alarms.hear(row) for row in [*[bad] * 99, good, *[bad] * 300, good, *[bad] * 100]]
    where = [index for index, sentences in enumerate(told) if sentences]
    assert where == [199, 500]
    assert "teacher_information 0.0010, loss 6.2000; 6.2000 is that of guessing" in told[199][0]


COLLAPSES = {
    "one prototype": ("objective.centre_momentum=1", "optim.lr_per_256_clips=0.1"),
    "all prototypes alike": ("objective.teacher_temperature=1",),
    "nothing but weight decay": ("optim.weight_decay=300", "optim.final_weight_decay=300"),
}
HEALTHY = ("optim.warmup=190 steps",)


def alarms_of(corpus: Path, run_dir: Path, overrides: tuple[str, ...]) -> list[str]:
    text, threads = io.StringIO(), torch.get_num_threads()
    torch.set_num_threads(1)
    config = load_config("debug", (*TINY, "run.length=200 steps", "run.batch_size=8", *overrides))
    pretrain(config, [corpus], run_dir, console=Console(file=text, width=300))
    torch.set_num_threads(threads)
    return [line for line in text.getvalue().splitlines() if "ALARM" in line]


@pytest.fixture(scope="module")
def sixteen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    specs = [ClipSpec(number * 17 % 200, 12, 32, 32 + 8 * (number % 3)) for number in range(16)]
    return write_corpus(tmp_path_factory.mktemp("sixteen"), "sixteen", [specs])


@pytest.mark.parametrize("collapse", COLLAPSES)
def test_a_collapse_is_told_within_200_steps(sixteen: Path, tmp_path: Path, collapse: str) -> None:
    assert len(alarms_of(sixteen, tmp_path, COLLAPSES[collapse])) == 1


def test_a_healthy_run_is_left_in_peace(sixteen: Path, tmp_path: Path) -> None:
    assert alarms_of(sixteen, tmp_path, HEALTHY) == []
