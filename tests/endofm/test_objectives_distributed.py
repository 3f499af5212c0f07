"""Two processes learn as one does, whatever the objective balances or contrasts over the clips of all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from endofm.distributed import World, all_reduce_mean_, data_parallel, join_world, whole_module_state
from endofm.models import ModelConfig, VideoTransformer
from endofm.models.transformer import Block
from endofm.objectives import Objective, create_objective
from endofm.objectives.masked import MaskedConfig
from endofm.objectives.vcl import VclConfig
from endofm.optim import Horizon

MODEL = ModelConfig(embed_dim=16, depth=2, num_heads=2, image_size=32, num_frames=4, drop_path=0.0, adapter_width=4)
KINDS = {
    "masked": MaskedConfig(
        prototypes=16, head_hidden=8, head_bottleneck=4, freeze_last_layer="0 steps", patch_prototypes=4,
        masked_share=0.5, decoder_width=8, decoder_depth=1, decoder_heads=2,
    ),
    "vcl": VclConfig(concepts=6, concept_width=8, projection=8, queue=12, frozen_share=0.0, local_after=0.3),
}  # fmt: skip
SHAPES = {"masked": [(2, 32), (3, 32), (2, 16)], "vcl": [(4, 32), (4, 32), (1, 32), (1, 32)]}


def make(kind: str) -> Objective:
    torch.manual_seed(0)
    return create_objective(KINDS[kind], MODEL, num_globals=2, horizon=Horizon.of("6 steps", num_clips=4, batch_size=4))


def learn(kind: str, world: World, sharding: str) -> dict[str, Any]:
    """State and losses after five steps of plain descent on batches of four clips, each process taking its share."""
    objective = make(kind)
    units = [part for one in (Block, VideoTransformer) for part in objective.modules() if isinstance(part, one)]
    model = data_parallel(objective, world, sharding, units)  # type: ignore[arg-type]
    losses: list[Tensor] = []
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        views = [torch.randn(4, 3, frames, size, size, generator=generator) for frames, size in SHAPES[kind]]
        objective.zero_grad()
        output = model([view[world.rank :: world.size].contiguous() for view in views], step)
        output.loss.backward()
        with torch.no_grad():
            for parameter in objective.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=0.02)
        objective.after_step(step)
        losses.append(all_reduce_mean_(output.loss.detach().clone()))
    return {"losses": torch.stack(losses), **whole_module_state(objective)}


def main(out: Path) -> None:
    """What each of the processes runs."""
    torch.set_num_threads(1)
    with join_world("cpu") as world:
        for sharding in ("none", "full"):
            for kind in KINDS:
                state = learn(kind, world, sharding)
                if world.is_main:
                    torch.save(state, out / f"{kind}-{sharding}.pt")


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    code = (
        f"from pathlib import Path; from tests.endofm.test_objectives_distributed import main; main(Path({str(out)!r}))"
    )
    (out / "script.py").write_text(f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{code}\n")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(out / "script.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.parametrize("sharding", ["none", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_as_one(of_two: Path, kind: str, sharding: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one = learn(kind, World(0, 1, torch.device("cpu")), "none")
    torch.set_num_threads(threads)
    two = torch.load(of_two / f"{kind}-{sharding}.pt", weights_only=True)
    begun = make(kind).state_dict()
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, atol=2e-5, rtol=1e-3, msg=lambda said, name=name: f"{name}: {said}"
        )
    assert len({round(loss, 3) for loss in one["losses"].tolist()}) > 3, "a constant would prove nothing"
    assert all(not torch.equal(one[name], begun[name]) for name in one if name.endswith("patch_embed.proj.weight"))
