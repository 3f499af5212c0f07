"""The recipe `endofm-as-released` against plain transcriptions of what the released code is described to do.

Nothing here reuses the arithmetic of `endofm`: loops over frames, pairs and parameters, as slow and obvious as can be.
"""

from __future__ import annotations

import copy
import io
import json
import math
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from endofm.checkpoint import latest_checkpoint, load_checkpoint
from endofm.config import PretrainConfig, load_config
from endofm.data import plan as module
from endofm.data.clips import load_clips
from endofm.data.loader import make_loader
from endofm.data.plan import ViewConfig, ViewPlan, plan_views
from endofm.data.views import apply_views
from endofm.models import ModelConfig
from endofm.objectives.dino import Dino, DinoConfig
from endofm.optim import Horizon, Schedule, make_optimizer
from endofm.pretrain import pretrain
from tests.endofm.test_views import CLIPS, noise, random_batch

Frames = tuple[int, ...]
RELEASED, FIXED = load_config("endofm-as-released"), load_config("endofm")
PICTURES = {(256, 256): 0.21, (256, 341): 0.40, (256, 455): 0.68}  # height, width: share of global crops affected


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Planted:
    """Stands in for a generator: gives the draws it was made with."""

    def __init__(self, draws_VD: NDArray[np.float64]) -> None:
        self.draws_VD = draws_VD

    def random(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        assert shape == self.draws_VD.shape
        return self.draws_VD


def draw(seed: int, num_views: int = 10) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random((num_views, module._DRAWS))


def make_plan(num_frames: int, height: int, width: int, config: ViewConfig, draws_VD: NDArray[np.float64]) -> ViewPlan:
    return plan_views(num_frames, height, width, config, Planted(draws_VD))  # type: ignore[arg-type]


# --- what differs --------------------------------------------------------------------------------------------------

DIFFERENT = {
    "views.window_frames",
    "views.shrink_margin",
    "views.mixed_crop",
    "views.grey_weights",
    "views.clamp",
    "objective.teacher_drop_path",
    "optim.decay_tables",
    "run.length",
}
DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"


def leaves(config: PretrainConfig) -> dict[str, object]:
    return {f"{section}.{key}": value for section, table in config.model_dump().items() for key, value in table.items()}


def test_the_recipes_differ_in_what_the_documentation_says() -> None:
    released, fixed = leaves(RELEASED), leaves(FIXED)
    assert {key for key in fixed if fixed[key] != released[key]} == DIFFERENT
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    for key in DIFFERENT:
        assert any(f"`{key}`" in row for row in rows), key


def test_the_values_of_the_paper_are_a_file_that_loads(tmp_path: Path) -> None:
    _, _, rest = DOCS.read_text(encoding="utf-8").partition("```toml\n")
    text, fence, _ = rest.partition("```")
    (tmp_path / "paper.toml").write_text(text)
    paper = load_config(tmp_path / "paper.toml")
    assert fence and tomllib.loads(text)["base"] == "endofm"
    assert (paper.objective.student_temperature, paper.objective.reduction) == (0.07, "sum")
    assert paper.optim.weight_decay == paper.optim.final_weight_decay == 0.04
    peak = Schedule(paper.optim, Horizon.of("30 epochs", num_clips=32_896, batch_size=12), 12).lr(27_412)
    assert peak == pytest.approx(2e-5)


# --- frames --------------------------------------------------------------------------------------------------------


def released_frames(first_R: NDArray[np.int64], last_R: NDArray[np.int64], count: int, num_frames: int) -> list[Frames]:
    """Linspaces in single precision as torch computes them, from both ends; clamped, truncated."""
    steps = np.arange(count, dtype=np.float32)
    first_R1, last_R1 = first_R.astype(np.float32)[:, None], last_R.astype(np.float32)[:, None]
    step_R1 = (last_R1 - first_R1) / np.float32(count - 1)
    from_first, from_last = first_R1 + step_R1 * steps, last_R1 - step_R1 * (np.float32(count - 1) - steps)
    points_RT = np.where(np.arange(count) < count // 2, from_first, from_last)
    assert points_RT.dtype == np.float32
    return [tuple(row) for row in np.clip(points_RT, 0, num_frames - 1).astype(int).tolist()]


def test_truncating_floats_never_differs_from_integers() -> None:
    windows = 0
    for num_frames in range(1, 401):
        length, starts_R = num_frames // 8, np.arange(num_frames - num_frames // 8)
        wanted = [(np.array([0]), np.array([num_frames - 5]), 8), (np.array([5]), np.array([num_frames]), 16)]
        wanted += [(starts_R, starts_R + length, count) for count in (2, 4, 8, 16)]
        for first_R, last_R, count in wanted:
            theirs = released_frames(first_R, last_R, count, num_frames)
            for first, last, frames in zip(first_R.tolist(), last_R.tolist(), theirs, strict=True):
                assert module.spread(first, last, count, num_frames) == frames
            windows += len(theirs)
    assert windows == 282_200


def test_frames_of_a_clip_of_the_usual_length() -> None:
    draws_VD = draw(0)
    draws_VD[2:, module._START] = 0.5
    views = make_plan(150, 256, 341, RELEASED.views, draws_VD).views
    assert views[0].frames == (0, 20, 41, 62, 82, 103, 124, 145)
    assert views[1].frames == (5, 14, 24, 34, 43, 53, 63, 72, 82, 92, 101, 111, 121, 130, 140, 149)
    r = int(0.5 * (150 - 18))
    assert [len(view.frames) for view in views[2:]] == [2, 2, 4, 4, 8, 8, 16, 16]
    assert views[2].frames == (r, r + 18)
    assert views[4].frames == (r, r + 6, r + 12, r + 18)
    assert views[6].frames == tuple(r + step for step in (0, 2, 5, 7, 10, 12, 15, 18))


@pytest.mark.parametrize("num_frames", range(1, 16))
def test_the_shortest_clips_stand_still_as_released(num_frames: int) -> None:
    first, second = make_plan(num_frames, 64, 64, RELEASED.views, draw(1)).views[:2]
    assert [first.frames] == released_frames(np.array([0]), np.array([num_frames - 5]), 8, num_frames)
    assert [second.frames] == released_frames(np.array([5]), np.array([num_frames]), 16, num_frames)
    if num_frames <= 5:
        assert (set(first.frames), set(second.frames)) == ({0}, {num_frames - 1})


def released_decoder(num_frames: int, start: float, ticks: int = 512) -> list[int]:
    """The frames it hands on: by time stamps, from `start` to 255 frames later, and the first one beyond that."""
    begin, end = int(start * ticks), int((start + 255) * ticks)
    decoded = []
    for frame in range(num_frames):
        if frame * ticks >= begin:
            decoded.append(frame)
            if frame * ticks > end:
                break
    return decoded


@pytest.mark.parametrize("num_frames", [257, 260, 299])
def test_longer_clips_are_seen_through_a_window(num_frames: int) -> None:
    rng, ours, theirs = np.random.default_rng(2), set(), set()
    for seed in range(400):
        start = rng.uniform(0, num_frames - 256)
        decoded = released_decoder(num_frames, start)
        if start % 1 >= 1 / 512:  # else there is one frame more, once in 512 times
            assert decoded == list(range(math.ceil(start), math.ceil(start) + 256))
            theirs.add(decoded[0])
        draws_VD = draw(seed)
        views = make_plan(num_frames, 64, 64, RELEASED.views, draws_VD).views
        first = views[0].frames[0]
        ours.add(first)
        within = make_plan(256, 64, 64, RELEASED.views, draws_VD).views
        assert [view.frames for view in views] == [tuple(first + frame for frame in view.frames) for view in within]
    assert ours == theirs == set(range(1, num_frames - 255))


def test_a_clip_of_the_windows_length_is_seen_whole() -> None:
    for num_frames in (1, 150, 256):
        assert released_decoder(num_frames, 0.0) == list(range(num_frames))
        views = make_plan(num_frames, 64, 64, RELEASED.views, draw(3)).views
        whole = make_plan(num_frames, 64, 64, RELEASED.views.model_copy(update={"window_frames": 0}), draw(3)).views
        assert views == whole


# --- crops ---------------------------------------------------------------------------------------------------------


def released_crop(
    height: int, width: int, scale: tuple[float, float], draws: Sequence[Sequence[float]]
) -> tuple[tuple[int, int, int, int], bool]:
    """The loop over ten draws (area, ratio, top, left), which never breaks: the crop, and whether it is a mixture."""
    fits = found = False
    for area_draw, ratio_draw, top_draw, left_draw in draws:
        area = height * width * (scale[0] + (scale[1] - scale[0]) * area_draw)
        ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * ratio_draw)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if fits := 0 < w <= width and 0 < h <= height:
            i, j = int(top_draw * (height - h + 1)), int(left_draw * (width - w + 1))
            found = True
    if not found:
        h, w = height, width
        if width / height < 3 / 4:
            h = round(w / (3 / 4))
        elif width / height > 4 / 3:
            w = round(h * (4 / 3))
        i, j = (height - h) // 2, (width - w) // 2
    rows, columns = range(height)[i : i + h], range(width)[j : j + w]  # a slice ends where the picture ends
    return (rows[0], columns[0], len(rows), len(columns)), found and not fits


def ten_draws(draws_D: NDArray[np.float64]) -> list[tuple[float, float, float, float]]:
    """The draws of one view as the loop would make them; of the places only one is used, so they may be the same."""
    top, left = float(draws_D[module._TOP]), float(draws_D[module._LEFT])
    areas, ratios = draws_D[module._AREAS].tolist(), draws_D[module._RATIOS].tolist()
    return [(area, ratio, top, left) for area, ratio in zip(areas, ratios, strict=True)]


@pytest.mark.parametrize(("height", "width"), [*PICTURES, (480, 270), (30, 400), (400, 30), (33, 31)])
def test_crops_are_those_of_the_loop_without_a_break(height: int, width: int) -> None:
    scales = [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 8
    for seed in range(150):
        draws_VD = draw(seed)
        views = make_plan(20, height, width, RELEASED.views, draws_VD).views
        for view, scale, draws_D in zip(views, scales, draws_VD, strict=True):
            assert view.box == released_crop(height, width, scale, ten_draws(draws_D))[0]


@pytest.mark.parametrize(("picture", "share"), PICTURES.items())
def test_how_many_crops_the_missing_break_spoils(picture: tuple[int, int], share: float) -> None:
    count, mixed, widest = 6000, {"globals": 0, "locals": 0}, 0.0
    few = RELEASED.views.model_copy(update={"global_frames": (2,), "local_frames": (2,)})
    whole = few.model_copy(update={"mixed_crop": False})
    for seed in range(count):
        draws_VD = draw(seed, 2)
        released, fixed = (make_plan(20, *picture, config, draws_VD).views for config in (few, whole))
        for kind, view, draws_D in zip(mixed, released, draws_VD, strict=True):
            box, is_mixed = released_crop(*picture, few.global_scale if kind == "globals" else few.local_scale,
                                          ten_draws(draws_D))  # fmt: skip
            assert view.box == box
            mixed[kind] += is_mixed
        widest = max(widest, released[0].box[3] / released[0].box[2])
        top, left, height, width = fixed[0].box
        area = height * width / (picture[0] * picture[1])
        assert 0.4 * 0.98 <= area <= 1 and 3 / 4 * 0.98 <= width / height <= 4 / 3 * 1.02
        assert top + height <= picture[0] and left + width <= picture[1]
    # The shares are known to half a percent; sampling adds three standard deviations.
    assert mixed["globals"] / count == pytest.approx(share, abs=0.005 + 3 * math.sqrt(share * (1 - share) / count))
    assert mixed["locals"] == 0
    assert widest > 1.4


def test_a_mixture_step_by_step() -> None:
    """63 x 63 pixels fit at (34, 34) of 100 x 100; the tenth proposal is 87 high and 115 wide, and 66 are left."""
    draws_VD = np.full((10, module._DRAWS), 0.5)
    draws_VD[:, [module._TOP, module._LEFT]] = 0.9
    draws_VD[:, module._AREAS] = 0.0
    draws_VD[0, module._AREAS.stop - 1] = draws_VD[0, module._RATIOS.stop - 1] = 1.0
    mixed, plain = (make_plan(20, 100, 100, recipe.views, draws_VD).views for recipe in (RELEASED, FIXED))
    assert plain[0].box == (34, 34, 63, 63)
    assert mixed[0].box == (34, 34, 66, 66)
    assert mixed[1:] == plain[1:], "where the tenth fits, nothing is mixed"


# --- colours -------------------------------------------------------------------------------------------------------


def released_grey(frame_CHW: NDArray[np.float64]) -> NDArray[np.float64]:
    """Written for blue, green, red; the frames are red, green, blue."""
    return 0.299 * frame_CHW[2] + 0.587 * frame_CHW[1] + 0.114 * frame_CHW[0]


def test_colours_are_those_of_the_released_code() -> None:
    few = {"global_frames": (3, 4), "local_frames": (2, 5), "global_size": 24, "local_size": 12}
    config = RELEASED.views.model_copy(update=few | {"grayscale_probability": 0.5})
    beyond, mean, std = 0, np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for seed in range(4):
        batch = random_batch(config, CLIPS, seed=seed)
        for view, made in enumerate(apply_views(batch, "cpu")):
            for index, (num_frames, height, width) in enumerate(CLIPS):
                rng = np.random.default_rng((seed, index))
                decided = plan_views(num_frames, height, width, config, rng)
                chosen = decided.views[view]
                top, left, h, w = chosen.box
                for time, frame in enumerate(chosen.frames):
                    crop = torch.from_numpy(noise(CLIPS[index])[frame, top : top + h, left : left + w]).permute(2, 0, 1)
                    size = made.shape[-1]
                    x = F.interpolate(crop[None].double() / 255, (size, size), mode="bicubic")[0].numpy()
                    x = x[:, :, ::-1] if chosen.flip else x
                    for op in chosen.order:
                        alpha = chosen.factors[op]
                        grey = released_grey(x)
                        other = [np.zeros_like(x), np.full_like(x, grey.mean()), np.stack([grey] * 3)][op]
                        x = alpha * x + (1 - alpha) * other
                    x = np.stack([released_grey(x)] * 3) if chosen.grayscale else x
                    beyond += ((x < -1e-3) | (x > 1 + 1e-3)).sum()
                    expected = np.stack([(x[c] - mean[c]) / std[c] for c in range(3)])
                    np.testing.assert_allclose(made[index, :, time], expected, atol=5e-4)
    assert beyond > 1000, "colours beyond black and white stay as they are"


# --- objective and optimiser ---------------------------------------------------------------------------------------

MODEL = ModelConfig(embed_dim=16, depth=2, num_heads=2, image_size=32, num_frames=4, drop_path=0.5)
HEAD = DinoConfig(prototypes=24, head_hidden=16, head_bottleneck=8, freeze_last_layer="3 steps")


def make_dino(**changed: object) -> Dino:
    torch.manual_seed(0)
    horizon = Horizon.of("10 steps", num_clips=8, batch_size=2)
    return Dino(HEAD.model_copy(update=changed), MODEL, num_globals=2, horizon=horizon)


def make_views() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(4, 32), (8, 32), *[(frames, 16) for frames in (2, 2, 4, 4, 8, 8, 16, 16)]]
    return [torch.randn(2, 3, frames, size, size, generator=generator) for frames, size in shapes]


def test_the_teacher_may_drop_paths() -> None:
    views, said = make_views(), {}
    for drops in (False, True):
        dino = make_dino(teacher_drop_path=drops).train()
        nn.init.normal_(dino.teacher.backbone.blocks[1].get_parameter("mlp.fc2.weight"))
        said[drops] = set()
        for seed in range(6):
            torch.manual_seed(seed)
            said[drops].add(dino.loss(views, 0).features_BD.sum().item())
        assert dino.student.training
        assert any(module.training for module in dino.teacher.modules()) == drops
    assert len(said[False]) == 1 < len(said[True])


def pair_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], centre: Tensor) -> tuple[Tensor, int]:
    """Sum over pairs of views, each a mean over clips; and how many pairs."""
    total, terms = torch.zeros(()), 0
    for i, target in enumerate(teacher):
        q = F.softmax((target - centre) / 0.04, dim=-1)
        for v, prediction in enumerate(student):
            if v != i:
                total = total + torch.sum(-q * F.log_softmax(prediction / 0.1, dim=-1), dim=-1).mean()
                terms += 1
    return total, terms


def test_the_loss_of_the_paper_is_a_sum_over_eighteen_pairs() -> None:
    views, losses = make_views(), {}
    for reduction in ("mean", "sum"):
        dino = make_dino(reduction=reduction).eval()
        losses[reduction] = dino.loss(views, 0).loss
        student, teacher = ([net([view])[1][0] for view in views] for net in (dino.student, dino.teacher))
    total, terms = pair_loss(student, teacher[:2], dino.centre)
    assert terms == 18
    torch.testing.assert_close(losses["sum"], total)
    torch.testing.assert_close(losses["mean"], total / 18)


def released_groups(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    decayed, spared = [], []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (spared if name.endswith(".bias") or parameter.ndim == 1 else decayed).append(parameter)
    return decayed, spared


def test_tables_decay_as_released() -> None:
    dino = make_dino()
    ours = make_optimizer(dino, decay_tables=True).param_groups
    names = {id(parameter): name for name, parameter in dino.named_parameters()}
    for group, theirs in zip(ours, released_groups(dino), strict=True):
        assert {names[id(p)] for p in group["params"]} == {names[id(p)] for p in theirs}
    decayed = {names[id(p)].rpartition(".")[2] for p in ours[0]["params"]}
    assert decayed == {"weight", "weight_v", "cls_token", "pos_embed", "time_embed"}


def test_rates_of_the_released_run() -> None:
    """100 epochs of 32,896 clips, 12 a step; a step here and there against the closed forms."""
    run = Horizon.of(RELEASED.run.length, num_clips=32_896, batch_size=12)
    schedule = Schedule(RELEASED.optim, run, 12)
    warmup, total, peak = 27_413, 274_133, 5e-4 * 12 / 256
    assert (run.total_steps, run.steps("10 epochs"), run.steps("1 epoch")) == (total, warmup, 2_741)
    assert schedule.lr(0) == 0
    assert schedule.lr(warmup // 2) == pytest.approx(peak * (warmup // 2) / (warmup - 1))
    assert schedule.lr(warmup) == pytest.approx(peak)
    middle = (warmup + total) // 2
    assert schedule.lr(middle) == pytest.approx((peak + 1e-6) / 2, rel=1e-4)
    assert schedule.lr(total - 1) == pytest.approx(1e-6, rel=1e-6)
    for part, cosine in ((0, 1), (1 / 3, 0.5), (0.5, 0), (2 / 3, -0.5)):
        assert schedule.weight_decay(round(part * total)) == pytest.approx(0.22 - 0.18 * cosine, rel=1e-4)
        with torch.device("meta"):
            dino = Dino(RELEASED.objective, MODEL, num_globals=2, horizon=run)
        assert dino._momentum(round(part * total)) == pytest.approx(0.998 - 0.002 * cosine, rel=1e-6)


# --- the whole run -------------------------------------------------------------------------------------------------

STEPS, FROZEN, WARMUP, BATCH = 8, 3, 2, 4
TINY = (
    "views.global_frames=[2, 4]",
    "views.local_frames=[2, 2, 3]",
    "views.global_size=32",
    "views.local_size=16",
    "views.window_frames=20",
    "model.embed_dim=16",
    "model.depth=2",
    "model.num_heads=2",
    "model.image_size=32",
    "model.num_frames=2",
    "model.drop_path=0.0",  # the one thing that two implementations cannot draw alike
    "objective.prototypes=32",
    "objective.head_hidden=16",
    "objective.head_bottleneck=8",
    "objective.centre_momentum=0.9",
    f"objective.freeze_last_layer={FROZEN} steps",
    "optim.lr_per_256_clips=0.1",
    "optim.clip_norm=0.01",
    f"optim.warmup={WARMUP} steps",
    f"run.length={STEPS} steps",
    f"run.batch_size={BATCH}",
    "run.num_workers=0",
    "run.precision=fp32",
    "run.device=cpu",
)


def curve(first: float, last: float, total: int) -> NDArray[np.float64]:
    return last + 0.5 * (first - last) * (1 + np.cos(np.pi * np.arange(total) / total))


def plain_run(config: PretrainConfig, corpus: Path) -> tuple[dict[str, Tensor], list[float]]:
    """The released training loop, view by view, pair by pair and parameter by parameter."""
    torch.manual_seed(config.run.seed)
    horizon = Horizon.of(f"{STEPS} steps", num_clips=7, batch_size=BATCH)
    begun = Dino(config.objective, config.model, num_globals=2, horizon=horizon)
    student, teacher = copy.deepcopy(begun.student), copy.deepcopy(begun.teacher)
    decayed, spared = released_groups(student)
    adam = torch.optim.AdamW([{"params": decayed}, {"params": spared, "weight_decay": 0.0}], foreach=False)
    peak = 0.1 * BATCH / 256
    lr = np.concatenate([np.linspace(0, peak, WARMUP), curve(peak, 1e-6, STEPS - WARMUP)])
    weight_decay, momentum = curve(0.04, 0.4, STEPS), curve(0.996, 1, STEPS)
    centre, losses = torch.zeros(32), []
    loader = make_loader(load_clips([corpus]), config.views, batch_size=BATCH, seed=0, start_step=0, stop_step=STEPS)
    for step, batch in enumerate(loader):
        for group in adam.param_groups:
            group["lr"] = lr[step]
        adam.param_groups[0]["weight_decay"] = weight_decay[step]
        views = apply_views(batch, "cpu")
        predicted = [student.head(student.backbone(view)) for view in views]
        with torch.no_grad():
            targets = [teacher.head(teacher.backbone(view)) for view in views[:2]]
        total, terms = pair_loss(predicted, targets, centre)
        centre = 0.9 * centre + 0.1 * torch.cat(targets).mean(dim=0)
        losses.append((total / terms).item())
        adam.zero_grad()
        (total / terms).backward()
        for parameter in student.parameters():
            if parameter.grad is not None:
                parameter.grad *= min(1.0, 0.01 / (float(parameter.grad.norm()) + 1e-6))
        if step < FROZEN:
            student.head.last_layer.weight_v.grad = None
            assert torch.equal(student.head.last_layer.weight_v, begun.student.head.last_layer.weight_v)
        adam.step()
        with torch.no_grad():
            for mine, its in zip(student.parameters(), teacher.parameters(), strict=True):
                its.copy_(momentum[step] * its + (1 - momentum[step]) * mine)
    state = {f"student.{name}": value for name, value in student.state_dict().items()}
    state |= {f"teacher.{name}": value for name, value in teacher.state_dict().items()}
    return state | {"centre": centre}, losses


def test_a_run_is_the_released_loop(corpus: Path, tmp_path: Path) -> None:
    config = load_config("endofm-as-released", TINY)
    pretrain(config, [corpus], tmp_path, console=Console(file=io.StringIO()))
    path = latest_checkpoint(tmp_path)
    assert path is not None
    ours, (theirs, losses) = load_checkpoint(path).objective, plain_run(config, corpus)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name], value, atol=2e-6, rtol=1e-4, msg=lambda said, name=name: f"{name}: {said}"
        )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["loss"] for row in rows], losses, rtol=1e-5)
    assert len(rows) == STEPS
