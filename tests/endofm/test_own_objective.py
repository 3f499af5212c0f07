"""What the documents tell to type works: an objective of one's own, and the toy recipe of an objective that ships."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch

from endofm import pretrain as module
from endofm.config import load_config
from endofm.models import ModelConfig, load_backbone
from tests.endofm.test_pretrain import configure, metrics, train

DOCS = Path(__file__).parents[2] / "docs"


def code(page: str, language: str) -> str:
    """The first block of a language in a page."""
    found = re.search(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example of docs/adding-an-objective.md as a module."""
    (tmp_path / "alike.py").write_text(code("adding-an-objective.md", "python"))
    spec = spec_from_file_location("alike", tmp_path / "alike.py")
    assert spec and spec.loader
    made = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "alike", made)
    spec.loader.exec_module(made)
    return made


def test_the_example_is_short_and_learns(alike: ModuleType) -> None:
    assert len(code("adding-an-objective.md", "python").splitlines()) <= 40
    torch.manual_seed(0)
    objective = alike.Alike(
        alike.AlikeConfig(), ModelConfig(embed_dim=16, depth=1, num_heads=2, image_size=32, num_frames=2, drop_path=0.0)
    )
    views = [torch.randn(4, 3, 2, 32, 32) for _ in range(2)]
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    losses = []
    for step in range(30):
        optimizer.zero_grad()
        output = objective(views, step)
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_the_example_is_trained_by_the_loop(
    alike: ModuleType, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("run.length=4 steps", "run.accumulate=2")
    monkeypatch.setattr(module, "create_objective", lambda _config, model, **_: alike.Alike(alike.AlikeConfig(), model))
    result = train(config, corpus, tmp_path / "run")
    rows = metrics(tmp_path / "run")
    assert len(rows) == 4 and all(row["loss"] > 0 and row["feature_spread"] > 0 for row in rows)
    assert result.backbone and load_backbone(result.backbone).config.embed_dim == config.model.embed_dim


def test_the_toy_of_vcl_is_trained(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "vcl-toy.toml").write_text(code("objectives.md", "toml"))
    config = load_config(tmp_path / "vcl-toy.toml", ["run.length=4 steps", "run.num_workers=0", "optim.warmup=0 steps"])
    assert config.objective.kind == "vcl" and config.model == load_config("debug").model
    assert train(config, corpus, tmp_path / "run").backbone
    assert all("concept_information" in row for row in metrics(tmp_path / "run"))


def test_any_recipe_of_crops_becomes_vcl_with_both_kinds() -> None:
    for recipe in ("endofm", "debug", "endofm-masked"):
        config = load_config(recipe, ["objective.kind=vcl", "views.kind=pairs"])
        assert (config.objective.kind, config.views.kind) == ("vcl", "pairs")
