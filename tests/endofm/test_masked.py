"""Hidden patches: that they are hidden, what is asked about them, and that the answer can be learnt."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from endocorpus.errors import UsageError
from endofm.config import load_config
from endofm.models import ModelConfig, create_backbone
from endofm.objectives import masked as module
from endofm.objectives.dino import Dino, DinoConfig
from endofm.objectives.masked import Masked, MaskedConfig, hidden_targets
from endofm.objectives.sinkhorn import sinkhorn
from endofm.optim import Horizon

MODEL = ModelConfig(embed_dim=16, depth=2, num_heads=2, image_size=64, num_frames=4, drop_path=0.0)
CONFIG = MaskedConfig(
    prototypes=24, head_hidden=16, head_bottleneck=8, freeze_last_layer="0 steps", patch_prototypes=6,
    masked_share=0.75, decoder_width=12, decoder_depth=2, decoder_heads=2,
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_masked(config: MaskedConfig = CONFIG, model: ModelConfig = MODEL) -> Masked:
    torch.manual_seed(0)
    objective = Masked(config, model, num_globals=2, horizon=Horizon.of("10 steps", num_clips=8, batch_size=2))
    with torch.no_grad():  # a fresh network has no attention along time
        for block in [*objective.student.backbone.blocks, *objective.decoder.blocks]:
            torch.nn.init.normal_(block.get_parameter("temporal_fc.weight"), std=0.1)
    return objective


def make_views(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, 64), (3, 64), (2, 32), (2, 32)]
    return [torch.randn(batch, 3, frames, size, size, generator=generator) for frames, size in shapes]


def test_tokens_of_chosen_places() -> None:
    """Choosing all places in another order only reorders the tokens; few places are a picture of these alone."""
    torch.manual_seed(0)
    backbone, clip = create_backbone(MODEL).eval(), torch.randn(2, 3, 2, 64, 64)
    order = torch.stack([torch.randperm(16), torch.randperm(16)])
    with torch.no_grad():
        whole, shuffled = backbone.forward_tokens(clip), backbone.forward_tokens(clip, order)
        few = backbone.forward_tokens(clip, order[:, :3])
    for row in range(2):
        expected = whole[row, 1:].view(16, 2, 16)[order[row]]
        torch.testing.assert_close(shuffled[row, 1:].view(16, 2, 16), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(shuffled[:, 0], whole[:, 0], atol=2e-6, rtol=0)
    assert few.shape == (2, 1 + 3 * 2, 16)


def test_what_is_hidden_has_no_influence_on_the_student() -> None:
    objective, views = make_masked(), [view.requires_grad_() for view in make_views()]
    chosen = [objective.places(0, number, 2, 16) for number in range(2)]
    objective.loss(views, step=0).loss.backward()
    for number, view in enumerate(views[:2]):
        assert view.grad is not None
        patches = view.grad.abs().sum(dim=(1, 2)).unfold(1, 16, 16).unfold(2, 16, 16).sum(dim=(-1, -2)).flatten(1)
        seen, hidden = chosen[number]
        assert seen.shape == (2, 4)
        assert hidden.shape == (2, 12)
        assert torch.equal(torch.cat([seen, hidden], 1).sort(1).values, torch.arange(16).expand(2, 16))
        assert (patches.gather(1, hidden) == 0).all(), "exactly"
        assert (patches.gather(1, seen) > 0).all()
    assert all(view.grad is not None and view.grad.abs().sum() > 0 for view in views[2:]), "locals are seen whole"


def test_places_belong_to_a_clip_not_to_a_process_nor_to_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = make_masked()
    whole = [chosen.numpy() for chosen in objective.places(3, 0, 8, 16)]
    assert len(np.unique(whole[0], axis=0)) > 4, "clips differ"
    assert not np.array_equal(whole[0], objective.places(4, 0, 8, 16)[0]), "steps differ"
    assert not np.array_equal(whole[0], objective.places(3, 1, 8, 16)[0]), "views differ"
    objective._part_means.append(torch.zeros(24))  # the second of two parts of four clips each
    assert np.array_equal(objective.places(3, 0, 4, 16)[0], whole[0][4:])
    objective._part_means.clear()
    monkeypatch.setattr(
        module, "global_rows", lambda clips, first: [2 * row + 1 for row in range(first, first + clips)]
    )
    assert np.array_equal(objective.places(3, 0, 4, 16)[0], whole[0][1::2]), "as the second of two processes"
    torch.manual_seed(1)
    other = Masked(CONFIG, MODEL, num_globals=2, horizon=objective.horizon)
    assert not np.array_equal(other.places(3, 0, 8, 16)[0], whole[0]), "seeds differ"


@pytest.mark.parametrize("temperature", [0.03, 0.1, 1.0])
def test_sinkhorn_gives_every_row_and_every_prototype_its_share(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, prototypes = (normalize(torch.randn(count, 8, generator=generator), dim=1) for count in (40, 5))
    few = sinkhorn(tokens @ prototypes.T, temperature=temperature, iterations=1)
    torch.testing.assert_close(few.sum(dim=1), torch.ones(40))
    many = sinkhorn(tokens @ prototypes.T, temperature=temperature, iterations=2000)
    torch.testing.assert_close(many.sum(dim=0), torch.full((5,), 8.0), atol=1e-3, rtol=0)
    # What balancing may not change: cross ratios, which scaling rows and columns leaves alone.
    cross = (many[0, 0] * many[1, 1] / (many[0, 1] * many[1, 0])).log() * temperature
    scores = tokens @ prototypes.T
    assert cross.item() == pytest.approx((scores[0, 0] + scores[1, 1] - scores[0, 1] - scores[1, 0]).item(), abs=1e-4)
    torch.testing.assert_close(
        sinkhorn(torch.zeros(6, 4), temperature=temperature, iterations=3), torch.full((6, 4), 0.25)
    )


def plain_balance(scores: list[list[float]], temperature: float, iterations: int) -> list[list[float]]:
    shares = [[math.exp(score / temperature) for score in row] for row in scores]
    for _ in range(iterations):
        columns = [sum(row[k] for row in shares) for k in range(len(shares[0]))]
        shares = [[share / column for share, column in zip(row, columns, strict=True)] for row in shares]
        shares = [[share / sum(row) for share in row] for row in shares]
    return shares


def plain_cross_entropy(assigned: list[list[float]], scores: list[list[float]], temperature: float) -> float:
    total = 0.0
    for shares, row in zip(assigned, scores, strict=True):
        norm = math.log(sum(math.exp(score / temperature) for score in row))
        total -= sum(share * (score / temperature - norm) for share, score in zip(shares, row, strict=True))
    return total / len(scores)


@pytest.mark.parametrize("follow", ["teacher", "both"])
def test_the_loss_is_that_of_a_plain_loop(follow: str) -> None:
    objective = make_masked(CONFIG.model_copy(update={"prototypes_follow": follow})).eval()
    views = make_views()
    with torch.no_grad():
        losses = []
        for number, view in enumerate(views[:2]):
            seen, hidden = objective.places(2, number, 2, 16)
            student = objective.student.backbone.forward_tokens(view, seen)
            guesses = objective.decoder(student, seen, hidden, (4, 4), view.shape[2])
            targets = []
            for clip in range(2):
                tokens = objective.teacher.backbone.forward_tokens(view[clip : clip + 1])[0, 1:]
                tokens = (tokens - tokens.mean(0)) / (tokens.std(0) + 1e-6)
                targets += [tokens[place * view.shape[2] + frame] for place in hidden[clip].tolist() for frame in
                            range(view.shape[2])]  # fmt: skip
            prototypes = normalize(objective.patch_prototypes, dim=1)
            theirs = (normalize(torch.stack(targets), dim=1) @ prototypes.T).tolist()
            ours = (normalize(guesses, dim=1) @ prototypes.T).tolist()
            assigned = plain_balance(theirs, 0.1, 10)
            wanted = assigned if follow == "teacher" else plain_balance(ours, 0.1, 10)
            losses.append((plain_cross_entropy(assigned, ours, 0.1), plain_cross_entropy(wanted, theirs, 0.1)))
        output = objective.loss(views, step=2)
    told = {name: value.item() for name, value in output.monitors.items()}
    assert told["loss_patches"] == pytest.approx((losses[0][0] + losses[1][0]) / 2, rel=1e-4)
    assert told["loss_prototypes"] == pytest.approx((losses[0][1] + losses[1][1]) / 2, rel=1e-4)
    dino = (2 * told["loss_global"] + 4 * told["loss_local"]) / 6
    assert output.loss.item() == pytest.approx(
        0.5 * dino + 0.5 * (told["loss_patches"] + told["loss_prototypes"]), rel=1e-6
    )


def test_targets_are_where_the_guesses_are() -> None:
    tokens = torch.arange(1 + 4 * 3).float()[None, :, None].expand(2, -1, 5)
    hidden = torch.tensor([[1, 3], [0, 2]])
    targets = hidden_targets(tokens, hidden, num_frames=3)[:, 0]
    numbers = tokens[0, 1:, 0]
    expected = [1 + place * 3 + frame for row in hidden.tolist() for place in row for frame in range(3)]
    torch.testing.assert_close(targets * (numbers.std() + 1e-6) + numbers.mean(), torch.tensor(expected).float())


def test_only_student_decoder_and_prototypes_learn_and_all_of_them() -> None:
    objective = make_masked()
    objective.loss(make_views(), step=0).loss.backward()
    for name, parameter in objective.named_parameters():
        learns = not name.startswith("teacher.") and not name.endswith("weight_g")
        assert parameter.requires_grad == learns, name
        assert (parameter.grad is not None) == learns, name


def test_two_parts_are_one_step_where_nothing_is_balanced() -> None:
    """The class tokens of clips know nothing of each other; balancing is over the clips at hand."""
    views, config = make_views(4), CONFIG.model_copy(update={"patch_weight": 0.0})
    whole, parts = make_masked(config), make_masked(config)
    whole.loss(views, 0).loss.backward()
    for part in zip(*(view.chunk(2) for view in views), strict=True):
        (parts.loss(part, 0).loss / 2).backward()
    for (name, one), two in zip(whole.named_parameters(), parts.parameters(), strict=True):
        if one.grad is not None and two.grad is not None:
            torch.testing.assert_close(one.grad, two.grad, atol=1e-6, rtol=1e-4, msg=name)
    whole.after_step(0)
    parts.after_step(0)
    torch.testing.assert_close(whole.centre, parts.centre)


def test_a_step_costs_less_than_one_of_dino_and_as_much_as_published() -> None:
    shapes = [(8, 224), (16, 224), *[(frames, 96) for frames in (2, 2, 4, 4, 8, 8, 16, 16)]]
    horizon = Horizon.of("1 step", num_clips=1, batch_size=1)
    with torch.device("meta"):
        masked = Masked(MaskedConfig(), ModelConfig(), num_globals=2, horizon=horizon)
        dino = Dino(DinoConfig(), ModelConfig(), num_globals=2, horizon=horizon)
    assert masked.step_flops(shapes) < 0.62 * dino.step_flops(shapes)
    assert masked.step_flops(shapes) * 8 / 1e12 == pytest.approx(30.1, rel=0.03), "STOMP, table 4"


def textured(kind: int, generator: torch.Generator) -> list[Tensor]:
    """Two global views and one local of stripes of one of four directions, in noise."""
    views = []
    for frames, size in [(2, 64), (3, 64), (2, 32)]:
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        stripes = torch.sin((x, y, x + y, x - y)[kind] / 7).expand(3, frames, size, size)
        views.append(stripes + 0.1 * torch.randn(3, frames, size, size, generator=generator))
    return views


def test_it_learns_planted_textures() -> None:
    config = CONFIG.model_copy(update={"patch_prototypes": 8, "patch_weight": 0.9, "centre_momentum": 1.0})
    objective, generator = make_masked(config), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for step in range(60):
        clips = [textured(number % 4, generator) for number in range(8)]
        output = objective.loss([torch.stack(view) for view in zip(*clips, strict=True)], min(step, 9))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        objective.after_step(0)
        losses.append(output.monitors["loss_patches"].item())
    assert sum(losses[-5:]) / 5 < 0.92 * math.log(8) < losses[0], "better than guessing, and not from the start"
    assert output.monitors["patch_information"].item() > 0.3
    torch.testing.assert_close(objective.patch_prototypes.norm(dim=1), torch.ones(8))


def test_settings_that_hide_nothing() -> None:
    with pytest.raises(UsageError, match="hides none of the 4 patches"):
        load_config("debug", ["objective.kind=masked", "objective.masked_share=0.2", "views.global_size=32"])
    with pytest.raises(UsageError, match=r"objective\.decoder_heads: decoder_width = 384 cannot be shared by 5 heads"):
        load_config("endofm", ["objective.kind=masked", "objective.decoder_heads=5"])
    debug = load_config("debug", ["objective.kind=masked"]).objective
    assert isinstance(debug, MaskedConfig)
    assert (debug.prototypes, debug.head_hidden, debug.patch_prototypes) == (512, 128, 1024), "what both know stays"
