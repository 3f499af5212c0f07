"""Two processes are one run: same losses, one set of files, one decision to stop."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from endocorpus.errors import UsageError
from endofm.checkpoint import latest_checkpoint, load_checkpoint
from endofm.config import load_config
from endofm.distributed import World, all_reduce_mean_, data_parallel, gathered, join_world
from endofm.pretrain import pretrain
from endofm.run import sole_writer

SETTINGS = (
    "views.global_frames=[2, 4]",
    "views.local_frames=[2]",
    "views.global_size=32",
    "views.local_size=16",
    "model.embed_dim=16",
    "model.depth=2",
    "model.num_heads=2",
    "model.image_size=32",
    "model.drop_path=0.0",  # the only draw that depends on the rank
    "objective.prototypes=32",
    "objective.head_hidden=16",
    "objective.head_bottleneck=8",
    "objective.freeze_last_layer=7 steps",  # longer than until the interruption: frozen weights have no moments yet
    "optim.warmup=2 steps",
    "run.length=8 steps",
    "run.batch_size=4",
    "run.num_workers=0",
    "run.checkpoint_every=100",
)

SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from endofm import pretrain as module
from endofm.config import load_config

corpus, run_dir, *overrides = sys.argv[1:]
apply_views = module.apply_views

def interrupt(batch, device):
    if os.environ["RANK"] == "1" and batch.positions_B[0] // 4 == 5:
        signal.raise_signal(signal.SIGTERM)
    return apply_views(batch, device)

module.apply_views = interrupt
result = module.pretrain(load_config("debug", overrides), [Path(corpus)], Path(run_dir))
Path(run_dir + "-rank" + os.environ["RANK"]).write_text(f"{result.steps} {result.exit_code}")
"""


@pytest.mark.parametrize("how", [(), ("run.sharding=full",), ("run.accumulate=2",)], ids=["ddp", "fsdp", "in parts"])
def test_two_processes_train_as_one_and_stop_as_one(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: tuple[str, ...]
) -> None:
    """Two processes, of which one is told to stop at the sixth step, and one that goes on alone from there, against
    one process in one go: the checkpoints do not say how many there were, nor how they shared the weights.

    The tolerance is for sums over four clips that are made of two sums over two: a last bit in each gradient, which
    Adam, dividing by a gradient's own size, turns into a visible change where a gradient is nearly zero.
    """
    _clear(monkeypatch)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, str(script), str(corpus), str(tmp_path / "two"), *SETTINGS, *how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in (0, 1):
        assert (tmp_path / f"two-rank{rank}").read_text() == "6 75"

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, sets in (("one", ()), ("two", how)):
        config = load_config("debug", (*SETTINGS, *sets))
        assert pretrain(config, [corpus], tmp_path / name, console=Console(quiet=True)).backbone
    torch.set_num_threads(threads)
    one, two = (_losses(tmp_path / name) for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-5)
    assert len({round(loss, 3) for loss in one}) > 4, "a constant would prove nothing"
    for measure in ("teacher_information", "teacher_entropy", "feature_spread"):
        one, two = (_measured(tmp_path / name, measure) for name in ("one", "two"))
        assert two == pytest.approx(one, rel=1e-3), f"{measure} is about the step, not about a share of its clips"
    torch.testing.assert_close(_centre(tmp_path / "two"), _centre(tmp_path / "one"), rtol=1e-4, atol=1e-6)


SHARDS = """
import sys, torch
from pathlib import Path
from torch.distributed.tensor import DTensor
from endofm.distributed import data_parallel, gather_rows, gradients_stay_local, join_world, whole, whole_module_state
from endofm.models import ModelConfig, create_backbone
from endofm.models.transformer import Block

def check(world):
    torch.manual_seed(0)
    backbone = create_backbone(ModelConfig(embed_dim=16, depth=2, num_heads=2, image_size=32, num_frames=2))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = data_parallel(backbone, world, "full", [m for m in backbone.modules() if isinstance(m, Block)])
    held = sum(p.to_local().numel() for p in model.parameters())
    assert all(isinstance(p, DTensor) for p in model.parameters())
    assert held < 0.6 * sum(value.numel() for value in before.values()), held
    state = whole_module_state(model)
    if world.is_main:
        assert all(torch.equal(state[name], value) for name, value in before.items())
    with gradients_stay_local(model, world.rank >= 0):
        model(torch.ones(1, 3, 2, 32, 32)).sum().backward()
    model(torch.ones(1, 3, 2, 32, 32)).sum().backward()
    assert whole(model.norm.bias.grad).tolist() == [2.0] * 16, "both passes count, once"
    rows = torch.tensor([[float(world.rank)], [float(world.rank + 2)]])
    assert gather_rows(rows).flatten().tolist() == [0, 1, 2, 3]

with join_world("cpu") as world:
    check(world)  # nothing of it outlives the group of processes
threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in threads if "gloo" in name], "their last tensor would go while Python ends, and abort it"
"""


def test_full_sharding_divides_what_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _clear(monkeypatch)
    script = tmp_path / "script.py"
    script.write_text(SHARDS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


APART = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from endocorpus.errors import DataError, UsageError
from endofm.config import load_config
from endofm.pretrain import pretrain

corpus, *run_dirs, overrides = sys.argv[1:]
try:
    pretrain(load_config("debug", overrides.split(";")), [Path(corpus)], Path(run_dirs[int(os.environ["RANK"])]))
except (DataError, UsageError) as error:
    print(f"<{os.environ['RANK']}: {error}>", file=sys.stderr)
"""


def _refusals(tmp_path: Path, corpus: Path, first: Path, second: Path) -> list[str]:
    """What two processes say, each with a run folder of its own."""
    script = tmp_path / "apart.py"
    script.write_text(APART)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    command += [str(corpus), str(first), str(second), ";".join(SETTINGS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return [done.stderr.partition(f"<{rank}: ")[2].partition(">\n")[0] for rank in (0, 1)]


@pytest.mark.parametrize("second", [None, 2])
def test_processes_that_see_different_checkpoints_stop(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: int | None
) -> None:
    """As on a file system that shows one of them an older state; they would train from different steps."""
    _clear(monkeypatch)
    config = load_config("debug", (*SETTINGS, "run.checkpoint_every=2"))
    pretrain(config, [corpus], tmp_path / "first", console=Console(quiet=True))
    (tmp_path / "second" / "checkpoints").mkdir(parents=True)
    if second is not None:
        name = f"checkpoints/step-{second:08d}.pt"
        shutil.copy(sorted((tmp_path / "first" / "checkpoints").iterdir())[0], tmp_path / "second" / name)
    told = _refusals(tmp_path, corpus, tmp_path / "first", tmp_path / "second")
    seen = f"process 0: step-00000008.pt, process 1: {f'step-{second:08d}.pt' if second else 'none'}"
    assert all(seen in one and "must be one that all of them share" in one for one in told)


def test_a_busy_folder_is_refused_by_all_processes(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _clear(monkeypatch)
    run_dir = tmp_path / "run"
    with sole_writer(run_dir, World(0, 1, torch.device("cpu"))):
        told = _refusals(tmp_path, corpus, run_dir, run_dir)
    assert told[0] == told[1] and "another run is training here" in told[0]


def _losses(run_dir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def _measured(run_dir: Path, measure: str) -> list[float]:
    return [json.loads(line)[measure] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def _centre(run_dir: Path) -> Tensor:
    path = latest_checkpoint(run_dir)
    assert path is not None
    centre = load_checkpoint(path).objective["centre"]
    assert isinstance(centre, Tensor)
    return centre


def _clear(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_alone_in_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    _clear(monkeypatch)
    with join_world("cpu") as world:
        assert world == World(rank=0, size=1, device=torch.device("cpu"))
        assert world.is_main
        layer = torch.nn.Linear(1, 1)
        assert data_parallel(layer, world, "full", []) is layer
    assert all_reduce_mean_(torch.tensor([1.0, 3.0])).tolist() == [1.0, 3.0]
    assert gathered(("a", "b")) == ["a", "b"]


def test_processes_that_cannot_meet_are_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="start with torchrun"), join_world("cpu"):
        raise AssertionError("joined")


@pytest.mark.parametrize("values", [{"RANK": "0"}, {"RANK": "0", "WORLD_SIZE": "two", "LOCAL_RANK": "0"}])
def test_half_an_environment(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    _clear(monkeypatch)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="torchrun"), join_world("cpu"):
        pass


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"run\.device"), join_world("cuda"):
        pass
    with join_world("auto") as world:
        assert world.device.type == "cpu"


def test_what_is_wrong_with_the_command_is_told_once(corpus: Path, tmp_path: Path) -> None:
    """Three processes cannot share a batch of four."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "-m", "endofm", "pretrain"]
    options = ["--config", "debug", "--corpus", str(corpus), "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, *launcher, *options], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode != 0 and done.stderr.count("exitcode  : 2") == 1, done.stderr
    assert done.stderr.count("error: run.batch_size = 4 cannot be shared equally by 3 processes") == 1
    assert not (tmp_path / "run").exists()
