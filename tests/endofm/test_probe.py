"""The probe: votes of planted neighbours, pictures as a network gets them, and labels read from a corpus."""

from __future__ import annotations

import io
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from endocorpus.corpus.manifest import open_corpus
from endocorpus.errors import DataError, UsageError
from endofm.data.clips import load_clips
from endofm.data.views import ViewConfig
from endofm.models import ModelConfig, create_backbone
from endofm.pretrain import pretrain
from endofm.probe import Accuracy, ask, encode, enough_neighbours, knn, load_probe, raw_pixels
from tests.endofm.conftest import ClipSpec, MakeCorpus, commit, read_frame
from tests.endofm.test_loader import damage
from tests.endofm.test_pretrain import TIMING, TINY, configure, metrics

VIEWS = ViewConfig(global_frames=(3, 8), global_size=64)


def at(*degrees: float) -> Tensor:
    """Unit features in a plane, float32 [N, 2]."""
    angle_N = torch.tensor(degrees) * math.pi / 180
    return torch.stack([angle_N.cos(), angle_N.sin()], dim=1)


def test_planted_clusters_are_found_and_shuffled_labels_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    targets_N = torch.arange(300) % 3
    features_ND = torch.eye(8)[targets_N] + 0.1 * torch.randn(300, 8, generator=generator)
    groups_N = torch.arange(300) // 3
    assert knn(features_ND, targets_N, groups_N) == Accuracy(1, 1)
    shuffled_N = targets_N[torch.randperm(300, generator=generator)]
    assert knn(features_ND, shuffled_N, groups_N).balanced == pytest.approx(1 / 3, abs=0.1)


def test_clips_of_one_leak_group_do_not_vote_on_each_other() -> None:
    """Each lesion was filmed twice, and looks most like one of the other kind: memory is right, knowledge is not."""
    targets_N = torch.tensor([0, 0, 1, 1] * 3)
    features_ND = at(0, 1, 4, 5, 40, 41, 44, 45, 80, 81, 84, 85)
    lesions_N = torch.arange(12) // 2
    assert knn(features_ND, targets_N, torch.arange(12), neighbours=1) == Accuracy(1, 1)
    assert knn(features_ND, targets_N, lesions_N, neighbours=1) == Accuracy(0, 0)


def test_one_near_neighbour_outweighs_two_far_ones_as_the_temperature_says() -> None:
    """Cosines of 0.985 and twice 0.766: at 0.07 the near vote weighs 22.8 times as much as a far one, at 1 1.2."""
    targets_N, groups_N = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 2, 3])
    features_ND = at(0, 10, 40, -40)
    near, even = (knn(features_ND, targets_N, groups_N, temperature=temperature) for temperature in (0.07, 1.0))
    # The two clips of class 1 have both clips of class 0 between them, and are wrong at any temperature.
    assert (near.plain, even.plain) == (0.5, 0)


def test_equal_cosines_are_taken_in_the_order_of_clips_and_equal_votes_go_to_the_first_class() -> None:
    """Clips 1 and 2 look the same, at 90 degrees to clip 0, and are of one leak group: clip 0 alone votes on them."""
    features_ND, groups_N = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1, 1])

    def right(targets: list[int], neighbours: int) -> float:
        return 3 * knn(features_ND, torch.tensor(targets), groups_N, neighbours=neighbours).plain

    assert right([0, 0, 1], neighbours=1) == pytest.approx(2)  # clip 0 asks clip 1, and clip 1 asks clip 0
    assert right([0, 1, 0], neighbours=1) == pytest.approx(1)  # clip 2, for clip 0 asks clip 1 again
    assert right([0, 1, 0], neighbours=2) == pytest.approx(2)  # a tie for clip 0, whose class is the first
    assert right([1, 0, 1], neighbours=2) == pytest.approx(1)  # a tie for clip 0, whose class is the second


def test_more_neighbours_than_clips_are_all_clips() -> None:
    targets_N, groups_N = torch.tensor([0, 0, 1, 1, 1]), torch.arange(5)
    features_ND = at(0, 5, 90, 95, 100)
    assert knn(features_ND, targets_N, groups_N, neighbours=1000) == knn(features_ND, targets_N, groups_N, neighbours=4)


def test_a_large_class_does_not_make_up_for_a_small_one() -> None:
    """Eight clips of class 0 at one place and two of class 1 among them: all are taken for class 0."""
    targets_N = torch.tensor([0] * 8 + [1] * 2)
    assert knn(at(*range(10)), targets_N, torch.arange(10), neighbours=9) == Accuracy(0.8, 0.5)


def test_a_small_corpus_is_asked_so_that_good_features_are_right() -> None:
    """Two classes of two lesions with four clips each: of twelve clips that may vote, eight are of the other class."""
    targets_N, groups_N = torch.arange(16) // 8, torch.arange(16) // 4
    features_ND = torch.eye(2)[targets_N] + 5  # all clips of a class alike, the classes not far from each other
    assert knn(features_ND, targets_N, groups_N, neighbours=20) == Accuracy(0, 0), "the majority, whatever is seen"
    assert enough_neighbours(targets_N, groups_N) == 4
    assert knn(features_ND, targets_N, groups_N, neighbours=4) == Accuracy(1, 1)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=150))
def test_neighbours_are_as_many_as_the_worst_off_clip_has_of_its_class(clips: list[tuple[int, int]]) -> None:
    mine = [sum(t == target and g != group for t, g in clips) for target, group in clips]
    targets_N, groups_N = torch.tensor(clips).T
    assert enough_neighbours(targets_N, groups_N) == min(20, max(1, min(mine)))


def plain_knn(features: np.ndarray, targets: np.ndarray, groups: np.ndarray, k: int) -> float:
    """One clip after the other, as it is described."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    right = 0
    for query in range(len(unit)):
        others = [(float(unit[query] @ unit[n]), targets[n]) for n in range(len(unit)) if groups[n] != groups[query]]
        others.sort(key=lambda pair: -pair[0])
        votes = np.zeros(targets.max() + 1)
        for cosine, target in others[:k]:
            votes[target] += np.exp(cosine / 0.07)
        right += int(votes.argmax() == targets[query])
    return right / len(unit)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0.01, 100))
def test_votes_are_those_of_a_plain_loop_at_any_scale_of_the_features(seed: int, k: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    features, groups = rng.normal(size=(24, 4)), rng.permutation(24) // 2
    targets = np.concatenate([np.arange(3), rng.integers(0, 3, 21)])
    found = knn(torch.tensor(features * scale), torch.tensor(targets), torch.tensor(groups), neighbours=k)
    assert found.plain == pytest.approx(plain_knn(features, targets, groups, k))


# --- labels -----------------------------------------------------------------------------------------------------------


def label(corpus: Path, labels: Mapping[str, str | None], groups: Mapping[str, str] | None = None) -> Path:
    """Give the clips of a test corpus, by key, a finding (None: only a light) and a leak group."""
    rows = open_corpus(corpus).clips().to_pylist()
    for row in rows:
        finding = labels.get(row["key"])
        row["labels"] = [{"name": "light", "value": "WL", "raw": "wl"}]
        row["labels"] += [{"name": "finding", "value": "", "raw": part} for part in (finding or "").split("+") if part]
        row["leak_group"] = (groups or {}).get(row["key"], row["leak_group"])
    commit(corpus, open_corpus(corpus).name, rows)
    return corpus


@pytest.fixture
def labelled(make_corpus: MakeCorpus) -> Path:
    """Six clips in two shards: three of finding a, two of b, one of neither."""
    specs = [ClipSpec(number, 9 + number, 48, 64) for number in range(1, 7)]
    corpus = make_corpus("seen", [specs[:4], specs[4:]])
    return label(corpus, {"seen-1": "b", "seen-2": "a", "seen-3": None, "seen-4": "a", "seen-5": "b", "seen-6": "a"})


def test_labels_come_from_the_manifest(labelled: Path) -> None:
    probe = load_probe(labelled, "finding")
    assert probe.classes == ("a", "b") and not probe.left_out
    assert [probe.clips.key(row) for row in probe.rows_N] == ["seen-1", "seen-2", "seen-4", "seen-5", "seen-6"]
    assert probe.targets_N.tolist() == [1, 0, 0, 1, 0]
    assert len(set(probe.groups_N.tolist())) == len(probe) == 5
    assert probe.neighbours == 1, "of finding b there is one other clip"


def test_a_clip_with_two_findings_has_none_that_could_be_asked_for(labelled: Path) -> None:
    label(labelled, {"seen-1": "b", "seen-2": "a+b", "seen-4": "a", "seen-5": "b", "seen-6": "a+a"})
    probe = load_probe(labelled, "finding")
    assert [probe.clips.key(row) for row in probe.rows_N] == ["seen-1", "seen-4", "seen-5", "seen-6"]


def test_a_class_of_one_leak_group_is_left_out_and_named(labelled: Path) -> None:
    findings = {"seen-1": "b", "seen-2": "a", "seen-3": "c", "seen-4": "a", "seen-5": "b", "seen-6": "c"}
    label(labelled, findings, {"seen-3": "same", "seen-6": "same"})
    probe = load_probe(labelled, "finding")
    assert (probe.classes, probe.left_out, len(probe)) == (("a", "b"), ("c",), 4)


def test_what_cannot_be_probed_is_refused_in_words(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no clip has a label 'colour'; labels here: finding, light; set probe\.label"):
        load_probe(labelled, "colour")
    with pytest.raises(DataError, match=r"needs two values .* here are \(leak groups\): 'WL' \(6\)"):
        load_probe(labelled, "light")
    label(labelled, {"seen-1": "b", "seen-2": "a", "seen-4": "b"}, {"seen-1": "one", "seen-4": "one"})
    with pytest.raises(DataError, match=r"'a' \(1\), 'b' \(1\)"):
        load_probe(labelled, "finding")
    with pytest.raises(UsageError, match="no such folder"):
        load_probe(tmp_path / "nowhere", "finding")


# --- pictures ---------------------------------------------------------------------------------------------------------


class Camera(nn.Module):
    """Features that are the picture itself, and a part that must not be at work."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.resting = nn.Dropout(0.5), nn.Dropout(0.5)
        self.resting.eval()

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        clip: Tensor = self.drop(clip_BCTHW)
        return clip.flatten(1)


def test_a_network_gets_whole_pictures_evenly_from_first_to_last(labelled: Path) -> None:
    camera = Camera()
    features_ND = encode(camera, load_probe(labelled, "finding"), VIEWS, batch_size=2)
    mean, std = torch.tensor(VIEWS.mean).view(3, 1, 1, 1), torch.tensor(VIEWS.std).view(3, 1, 1, 1)
    clips_NTHWC = ((features_ND.view(5, 3, 3, 64, 64) * std + mean) * 255).permute(0, 2, 3, 4, 1)
    seen = [[read_frame(picture.numpy()) for picture in clip] for clip in clips_NTHWC]
    # Clip n has 9 + n frames.
    assert seen == [[(n, 0), (n, (8 + n) // 2), (n, 8 + n)] for n in (1, 2, 4, 5, 6)]
    assert camera.training and camera.drop.training and not camera.resting.training


def test_a_network_is_left_as_it_was_when_a_clip_cannot_be_read(labelled: Path) -> None:
    probe, camera = load_probe(labelled, "finding"), Camera()
    for shard in (labelled / "shards").iterdir():
        shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(DataError, match="endocorpus verify"):
        encode(camera, probe, VIEWS)
    assert camera.training


def test_features_do_not_depend_on_the_batch_and_leave_the_draws_alone(labelled: Path) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(ModelConfig(embed_dim=16, depth=2, num_heads=2, image_size=64, num_frames=3))
    probe, state = load_probe(labelled, "finding"), torch.get_rng_state()
    first_ND, again_ND = encode(backbone, probe, VIEWS), encode(backbone, probe, VIEWS)
    assert torch.equal(first_ND, again_ND) and torch.equal(torch.get_rng_state(), state)
    assert first_ND.shape == (5, 16) and not first_ND.requires_grad
    torch.testing.assert_close(encode(backbone, probe, VIEWS, batch_size=1), first_ND)


def test_processes_share_the_clips_in_equal_parts(labelled: Path) -> None:
    """Alone, `gather_rows` gives back what a process made: of five clips, 0, 2, 4 and 1, 3, and one to fill up."""
    probe = load_probe(labelled, "finding")
    all_ND = encode(raw_pixels(2), probe, VIEWS)
    shares = [encode(raw_pixels(2), probe, VIEWS, rank=rank, world=2) for rank in (0, 1)]
    assert torch.equal(shares[0], all_ND[[0, 2, 4]]) and torch.equal(shares[1], all_ND[[1, 3, 4]])


def test_raw_pixels_are_the_means_of_squares() -> None:
    clip_BCTHW = torch.arange(2 * 3 * 2 * 4 * 4.0).view(2, 3, 2, 4, 4)
    features_BD = raw_pixels(2)(clip_BCTHW)
    assert features_BD.shape == (2, 3 * 2 * 2 * 2)
    assert features_BD[1, -1] == clip_BCTHW[1, -1, -1, 2:, 2:].mean()


# --- in a run ---------------------------------------------------------------------------------------------------------

RUN = ("run.length=5 steps", "probe.every=2", "run.checkpoint_every=100")


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Bits depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread")
def test_a_run_asks_its_probe_and_learns_the_same_with_and_without(
    corpus: Path, labelled: Path, tmp_path: Path
) -> None:
    config, said = configure(*RUN), io.StringIO()
    probed, plain = tmp_path / "probed", tmp_path / "plain"
    pretrain(config, [corpus], probed, probe=labelled, console=Console(file=said, width=500))
    pretrain(config, [corpus], plain, console=Console(quiet=True))
    assert (probed / "backbone.safetensors").read_bytes() == (plain / "backbone.safetensors").read_bytes()
    rows, without = metrics(probed), metrics(plain)
    found = ("knn_accuracy", "knn_balanced_accuracy", "knn_at_chance")
    assert [row["step"] for row in rows if found[0] in row] == [1, 3, 4]
    for row, other in zip(rows, without, strict=True):
        assert {key: row[key] for key in other.keys() - TIMING} == {key: other[key] for key in other.keys() - TIMING}
    told = "every 2 steps, and after the last: the nearest neighbour votes on the finding of 5 clips (a, b)"
    assert told in said.getvalue() and rows[-1]["knn_at_chance"] == 0.5
    # What was written down of the last step is what the weights that were left behind say.
    backbone = create_backbone(config.model)
    backbone.load_state_dict(load_file(probed / "backbone.safetensors"))
    assert ask(backbone, load_probe(labelled, "finding"), config.views) == {key: rows[-1][key] for key in found}


def test_a_probe_that_cannot_be_asked_is_refused_before_anything_is_written(
    corpus: Path, labelled: Path, tmp_path: Path
) -> None:
    for overrides, where in ((("probe.label=colour",), labelled), ((), corpus)):
        with pytest.raises(DataError, match="no clip has a label"):
            pretrain(configure(*RUN, *overrides), [corpus], tmp_path / "run", probe=where)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("_one_thread")
def test_a_damaged_clip_of_the_probe_stops_nothing(corpus: Path, labelled: Path, tmp_path: Path) -> None:
    whole = load_probe(labelled, "finding")
    copy = Path(shutil.copytree(labelled, tmp_path / "copy"))
    key = whole.clips.key(int(whole.rows_N[1]))
    damage(copy, load_clips([copy]), key)
    probe = load_probe(copy, "finding")
    assert (len(probe), probe.damaged) == (4, (key,)) and whole.damaged == ()
    assert str(probe).endswith(f"; left out, being damaged: {key}")
    pretrain(configure(*RUN), [corpus], tmp_path / "run", probe=copy, console=Console(quiet=True))
    assert [row["step"] for row in metrics(tmp_path / "run") if "knn_accuracy" in row] == [1, 3, 4]


SHARED = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from endofm.config import load_config
from endofm.pretrain import pretrain

corpus, probe, run_dir, *overrides = sys.argv[1:]
pretrain(load_config("debug", overrides), [Path(corpus)], Path(run_dir), probe=Path(probe))
threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in threads if "gloo" in name], "Python would be aborted now and then as it ends"
"""


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_ask_as_one(corpus: Path, labelled: Path, tmp_path: Path, sharding: str) -> None:
    """Five clips, three for each process. The answer is that of one process with the weights that the two made."""
    settings = [*TINY, *RUN, f"run.sharding={sharding}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = tmp_path / "script.py"
    script.write_text(SHARED)
    command += [str(script), str(corpus), str(labelled), str(tmp_path / "two"), *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows, config = metrics(tmp_path / "two"), configure(*RUN)
    assert [row["step"] for row in rows if "knn_accuracy" in row] == [1, 3, 4]
    backbone = create_backbone(config.model)
    backbone.load_state_dict(load_file(tmp_path / "two" / "backbone.safetensors"))
    answer = ask(backbone, load_probe(labelled, "finding"), config.views)
    assert answer == {key: rows[-1][key] for key in answer}
