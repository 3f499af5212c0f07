"""Compiled blocks, and blocks that remember less, compute what the others do."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.profiler import profile

from endocorpus.errors import UsageError
from endofm.checkpoint import latest_checkpoint, load_checkpoint
from endofm.config import load_config
from endofm.models import ModelConfig, VideoTransformer, create_backbone, transformer
from endofm.models.recompute import recomputed
from endofm.models.speed import compile_blocks_, recompute_in_blocks_
from endofm.models.transformer import Block
from endofm.pretrain import pretrain
from tests.endofm.test_pretrain import configure, metrics, train
from tests.endofm.test_transformer import random_clip, randomise

# torch's compiler asks tensors for what warns, and takes the warning away itself where warnings are no errors.
pytestmark = pytest.mark.filterwarnings("default:The .grad attribute of a Tensor:UserWarning")

CPU = torch.device("cpu")
STACKS = [random_clip(2, 3, 4, 48, 32), random_clip(1, 3, 2, 32, 32)]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _forget_graphs() -> Iterator[None]:
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = limit


def make_backbone(depth: int = 4, width: int = 32, drop_path: float = 0.4) -> VideoTransformer:
    model = randomise(create_backbone(ModelConfig(embed_dim=width, depth=depth, num_heads=2, drop_path=drop_path)))
    assert isinstance(model, VideoTransformer)
    return model.train()


def learn(model: VideoTransformer) -> list[Tensor]:
    """Features and gradients, with always the same rows dropped."""
    torch.manual_seed(0)
    features = model.forward_shapes(STACKS)
    sum(feature.square().sum() for feature in features).backward()
    return [*(feature.detach() for feature in features), *(parameter.grad for parameter in model.parameters())]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * float(b.abs().max()))


def test_recomputing_repeats_the_draws() -> None:
    model = make_backbone()
    frugal = copy.deepcopy(model)
    recompute_in_blocks_(frugal)
    assert_same(learn(frugal), learn(model))


def test_recomputing_keeps_much_less() -> None:
    block = Block(64, 2, 4.0, 0.1)
    kept = [remembered(block)]
    block.recompute = True
    kept.append(remembered(block))
    assert 0 < kept[1] < 0.6 * kept[0]


def remembered(block: Block) -> int:
    """Bytes that a forward pass over a clip leaves allocated."""
    with profile(profile_memory=True) as profiler, torch.autocast("cpu", torch.bfloat16):
        (tokens,) = block([random_clip(2, 1 + 49 * 8, 64).requires_grad_()], [8])
    assert tokens.requires_grad
    return sum(event.self_cpu_memory_usage for event in profiler.events())


def test_all_blocks_share_their_graphs() -> None:
    """By the compiler without its code generator, which needs no C++: one graph with gradients, one without; the first
    block, which drops nothing, has its own."""
    model = make_backbone(depth=6)
    plain = copy.deepcopy(model)
    compile_blocks_(model, CPU, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    for _ in range(2):
        assert_same(learn(model), learn(plain))
        model.zero_grad(), plain.zero_grad()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(STACKS[0]), plain.eval()(STACKS[0]))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4
    assert not torch._dynamo.utils.counters["graph_break"]


def test_compiled_blocks_can_recompute() -> None:
    model = make_backbone(depth=2)
    plain = copy.deepcopy(model)
    recompute_in_blocks_(model)
    compile_blocks_(model, CPU, backend="aot_eager")
    assert_same(learn(model), learn(plain))


def test_compiled_weights_have_the_published_names() -> None:
    model = make_backbone(depth=2)
    names = list(model.state_dict())
    compile_blocks_(model, CPU, backend="eager")
    assert list(model.state_dict()) == names


def test_compiling_on_a_cpu_needs_a_compiler(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"run\.compile = true needs a C\+\+ compiler"):
        pretrain(configure("run.compile=true"), [corpus], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_recomputes_leaves_the_same_weights(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def watched(*args: Any) -> Any:
        asked.append(args[0])
        return recomputed(*args)

    monkeypatch.setattr(transformer, "recomputed", watched)
    runs = {}
    for choice in ("false", "true"):
        runs[choice] = tmp_path / choice
        pretrain(configure("run.length=3 steps", f"run.checkpoint_activations={choice}"), [corpus], runs[choice])
        assert bool(asked) == (choice == "true")
    one, other = (load_file(run / "backbone.safetensors") for run in runs.values())
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.soak
def test_a_compiled_run_learns_the_same(corpus: Path, tmp_path: Path) -> None:
    """With the real code generator, and without draws, which it makes in its own way."""
    losses = []
    for choice in ("false", "true"):
        overrides = ("run.length=3 steps", "model.drop_path=0.0", f"run.compile={choice}")
        pretrain(configure(*overrides), [corpus], tmp_path / choice)
        losses.append([row["loss"] for row in metrics(tmp_path / choice)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(("threads", "expected"), [(2, "2"), (0, "1")])
def test_a_run_takes_the_threads_that_it_is_given(corpus: Path, tmp_path: Path, threads: int, expected: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(configure("run.length=3 steps", f"run.threads={threads}"), corpus, tmp_path)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    newest = latest_checkpoint(tmp_path)
    assert newest and load_checkpoint(newest).versions["threads"] == expected


def test_the_toy_does_not_wait_for_threads() -> None:
    assert (load_config("debug").run.threads, load_config("endofm").run.threads) == (1, 0)
