"""What ratios are measured against does the same work: otherwise they would compare nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import gpu_step, learning
from benchmarks.plain import PlainTrainer, augment, load_views
from endofm.data.batches import load_batch, plan_clip
from endofm.data.clips import load_clips
from endofm.data.stream import ShardReader
from endofm.data.views import ViewConfig, apply_views
from endofm.models import ModelConfig
from endofm.objectives.dino import Dino, DinoConfig
from endofm.optim import Horizon, clip_each_, make_optimizer, schedule_
from tests.endofm.test_dino import make_views
from tests.endofm.test_transformer import randomise
from tests.endofm.test_views import CLIPS, noise, plan, random_batch

MODEL = ModelConfig(embed_dim=32, depth=2, num_heads=2, image_size=48, num_frames=4, drop_path=0.0)
HEAD = DinoConfig(prototypes=24, head_hidden=16, head_bottleneck=8, freeze_last_layer="0 steps")
VIEWS = ViewConfig(global_frames=(4, 8), local_frames=(2, 2, 4), global_size=32, local_size=16)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_pair() -> tuple[Dino, PlainTrainer]:
    """Both with the same random weights, the teacher's being others than the student's."""
    torch.manual_seed(0)
    dino = Dino(HEAD, MODEL, num_globals=2, horizon=Horizon.of("10 steps", num_clips=8, batch_size=2))
    randomise(dino.student.backbone, seed=1)
    randomise(dino.teacher.backbone, seed=2)
    trainer = PlainTrainer(HEAD, MODEL)
    for network in ("student", "teacher"):
        getattr(trainer, network).load_state_dict(getattr(dino, network).state_dict())
    centre = torch.linspace(-0.1, 0.1, HEAD.prototypes)
    trainer.centre = centre[None].clone()
    dino.centre.copy_(centre)
    return dino, trainer


def test_the_plain_network_has_the_same_loss_and_gradients() -> None:
    dino, trainer = make_pair()
    views = make_views(2, 3)
    ours, plain = dino.loss(views, step=0).loss, trainer.loss(views)
    assert plain.item() == pytest.approx(ours.item(), rel=1e-6)
    ours.backward()  # type: ignore[no-untyped-call]
    plain.backward()  # type: ignore[no-untyped-call]
    gradients = {name: parameter.grad for name, parameter in trainer.student.named_parameters()}
    for name, parameter in dino.student.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_a_plain_step_leaves_the_same_weights_teacher_and_centre() -> None:
    dino, trainer = make_pair()
    optimizer = make_optimizer(dino, decay_tables=True)
    for number in range(3):
        views = make_views(2, 3)
        schedule_(optimizer, lr=2e-5, weight_decay=0.04)
        optimizer.zero_grad()
        dino.loss(views, step=number).loss.backward()  # type: ignore[no-untyped-call]
        clip_each_(dino.parameters(), 3.0)
        optimizer.step()
        trainer.step(views, momentum=dino._momentum(number))
        dino.after_step(number)
    for network in ("student", "teacher"):
        plain = getattr(trainer, network).state_dict()
        for name, tensor in getattr(dino, network).state_dict().items():
            if not name.endswith("qkv.bias"):  # that of the keys has no gradient but rounding, which AdamW magnifies
                torch.testing.assert_close(plain[name], tensor, rtol=1e-4, atol=5e-6)
    torch.testing.assert_close(trainer.centre[0], dino.centre)


def test_plain_augmentation_makes_the_same_views() -> None:
    config = VIEWS.model_copy(update={"jitter_probability": 1.0, "grayscale_probability": 0.5})
    for index, clip in enumerate(CLIPS):
        batch = random_batch(config, [clip])
        decided = plan(*clip, config, 0, index)
        assert_same(
            augment(torch.from_numpy(noise(clip)), decided, config), [view[0] for view in apply_views(batch, "cpu")]
        )


def test_plain_data_path_hands_over_the_same_views(corpus: Path) -> None:
    clips = load_clips([corpus])
    rows = list(range(len(clips)))
    with ShardReader() as reader:
        batch = load_batch(clips, rows, rows, VIEWS, seed=0, reader=reader)
        videos = [reader.read(clips.location(row)) for row in rows]
    plain = load_views(videos, [plan_clip(clips, row, row, VIEWS, seed=0) for row in rows], VIEWS)
    # In RGB, swscale's fast path is up to three levels off, which jitter may double; ours is exact (`test_planes`).
    assert_same(plain, apply_views(batch, "cpu"), levels=6)


def assert_same(plain: list[Tensor], ours: list[Tensor], levels: float = 0.1) -> None:
    assert len(plain) == len(ours)
    for one, other in zip(plain, ours, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=levels / 255 / min(VIEWS.std))


@pytest.mark.filterwarnings("default:The .grad attribute of a Tensor:UserWarning")
def test_the_benchmark_for_gpus_runs_in_small_on_a_cpu(corpus: Path, tmp_path: Path) -> None:
    """All its parts: what cannot be tried without a GPU must not fail there for a slip of the pen."""
    gpu_step.main(["--smoke", "--out", str(tmp_path / "told.json"), "--corpus", str(corpus)])
    told = json.loads((tmp_path / "told.json").read_text())
    ways = [(row["way"], row["batch"]) for row in told["rows"]]
    assert ways == [
        ("ours", 2), ("ours", 1), ("plain", 2), ("plain", 1),
        ("ours, compiled", 2), ("ours, compiled", 1), ("ours, recomputing", 1),
    ]  # fmt: skip
    for row in told["rows"]:
        assert row["clips_per_s"] == pytest.approx(1e3 * row["batch"] / row["milliseconds"])
        assert row["kernels"] > 100 and row["note"] == "" and row["memory_gib"] is None
    assert set(told["ours_to_plain"]) == {"1", "2"} and 0 <= told["loader"]["wait_share"] < 1


def test_the_benchmark_for_gpus_begins_no_row_without_time(tmp_path: Path) -> None:
    gpu_step.main(["--smoke", "--out", str(tmp_path / "told.json"), "--minutes", "0"])
    told = json.loads((tmp_path / "told.json").read_text())
    assert {row["note"] for row in told["rows"]} == {"no time left"} and told["ours_to_plain"] == {}


def test_the_benchmark_of_learning_runs_in_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rendering, both corpora, a run with its probe, table and picture; a second call only draws them again."""
    monkeypatch.setattr(learning, "SETS", {"train": (11, 6), "heldout": (13, 6)})
    few = ["--set", "run.length=4 steps", "--set", "optim.warmup=1 steps", "--set", "probe.every=2"]
    command = [
        "learning",
        "--out",
        str(tmp_path),
        "--seeds",
        "3",
        *few,
        "--set",
        "run.batch_size=4",
        "--set",
        "run.health_every=2",
    ]
    tables = []
    for _ in range(2):
        monkeypatch.setattr("sys.argv", command)
        learning.main()
        tables.append(capsys.readouterr().out.splitlines()[1:])
    told = json.loads((tmp_path / "learning.json").read_text())
    assert [row["step"] for row in told["runs"][0]["curve"]] == [2, 4] and told["runs"][0]["seed"] == 3
    assert tables[0] == tables[1] and any(row.startswith("| pre-trained |") for row in tables[0])
    assert (tmp_path / "learning.svg").read_text().count("<polyline") == 5
