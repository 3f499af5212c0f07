"""Every setting of a run is read by something: another value of it shows in what a short run leaves and says."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from rich.console import Console
from safetensors.torch import load_file

from endocorpus.errors import UsageError
from endocorpus.settings import Settings, _classes
from endofm import pretrain as module
from endofm.config import PretrainConfig, load_config
from endofm.pretrain import pretrain
from tests.endofm.test_pretrain import TINY, metrics

# One other value for every setting there is. A copy of the configuration does not count as a difference.
OTHERWISE = {
    "views.global_frames": "[4, 4]",
    "views.local_frames": "[2, 4]",
    "views.global_size": "48",
    "views.local_size": "32",
    "views.global_scale": "[0.5, 1.0]",
    "views.local_scale": "[0.05, 0.3]",
    "views.aspect_ratio": "[1.0, 1.0]",
    "views.mixed_crop": "true",
    "views.local_span": "0.5",
    "views.window_frames": "10",
    "views.shrink_margin": "false",
    "views.flip_probability": "0.0",
    "views.jitter_probability": "0.0",
    "views.brightness": "0.1",
    "views.contrast": "0.1",
    "views.saturation": "0.1",
    "views.grayscale_probability": "1.0",
    "views.grey_weights": "[0.114, 0.587, 0.299]",
    "views.clamp": "false",
    "views.mean": "[0.5, 0.5, 0.5]",
    "views.std": "[0.5, 0.5, 0.5]",
    "views.kind": "pairs",
    "views.frames": "3",
    "views.size": "48",
    "views.scale": "[0.5, 1.0]",
    "views.fastest": "1",
    "views.static": "repeat",
    "model.embed_dim": "32",
    "model.depth": "1",
    "model.num_heads": "4",
    "model.mlp_ratio": "2.0",
    "model.patch_size": "8",
    "model.image_size": "48",
    "model.num_frames": "3",
    "model.drop_path": "0.0",
    "model.adapters": "st12",
    "objective.kind": "masked",
    "model.attention": "math",
    "model.attends": "space",
    "objective.prototypes": "16",
    "objective.head_hidden": "8",
    "objective.head_bottleneck": "4",
    "objective.student_temperature": "0.05",
    "objective.teacher_temperature": "0.05",
    "objective.reduction": "sum",
    "objective.centre_momentum": "0.5",
    "objective.teacher_momentum": "0.5",
    "objective.teacher_drop_path": "true",
    "objective.freeze_last_layer": "0 steps",
    "objective.masked_share": "0.5",
    "objective.patch_prototypes": "5",
    "objective.patch_temperature": "0.2",
    "objective.sinkhorn_temperature": "0.2",
    "objective.sinkhorn_iterations": "1",
    "objective.prototypes_follow": "both",
    "objective.patch_weight": "0.9",
    "objective.decoder_width": "8",
    "objective.decoder_depth": "2",
    "objective.decoder_heads": "4",
    "objective.concepts": "3",
    "objective.concept_width": "6",
    "objective.projection": "6",
    "objective.instance_temperature": "0.1",
    "objective.concept_temperature": "0.2",
    "objective.entropy_weight": "0.5",
    "objective.queue": "0",
    "objective.frozen_share": "0.0",
    "objective.local_after": "0.0",
    "objective.local_concepts": "2",
    "objective.local_margin": "0.5",
    "optim.lr_per_256_clips": "0.1",
    "optim.final_lr": "1e-3",
    "optim.warmup": "0 steps",
    "optim.weight_decay": "0.9",
    "optim.final_weight_decay": "0.9",
    "optim.decay_tables": "true",
    "optim.clip_norm": "1e-3",
    "data.stream": "sequential",
    "data.block_shards": "1",
    "data.shuffle_buffer": "1",
    "data.exclude": "no.txt",
    "run.length": "5 steps",
    "run.batch_size": "2",
    "run.seed": "1",
    "run.num_workers": "1",
    "run.checkpoint_every": "2",
    "run.keep_checkpoints": "1",
    "run.log_every": "1",
    "run.precision": "bf16",
    "run.device": "cuda",
    "run.accumulate": "2",
    "run.health_every": "2",
    "run.tensorboard": "true",
}
# What only matters beside another setting, on both sides of the comparison.
BESIDE = {"data.shuffle_buffer": ("data.stream=sequential",)}
SHOWN_ELSEWHERE = {
    "model.adapter_width": "test_adapters.py: test_a_run_trains_adapters_in_given_weights",
    "model.weights": "test_adapters.py: test_a_run_trains_adapters_in_given_weights",
    "run.checkpoint_activations": "test_speed.py: test_a_run_that_recomputes_leaves_the_same_weights",
    "run.compile": "test_speed.py: test_compiling_on_a_cpu_needs_a_compiler, test_a_compiled_run_learns_the_same",
    "data.bad_clips_allowed": "test_streamed_runs.py: test_bad_clips_beyond_what_is_allowed_stop_the_run",
    "data.cache_dir": "test_streamed_runs.py: test_a_run_from_a_server_that_drops_connections_is_the_local_run",
    "data.cache_gb": "test_streamed_runs.py: test_a_cache_too_small_is_refused",
    "data.retry_seconds": "test_streamed_runs.py: test_a_server_that_goes_away_is_one_line",
    "probe.every": "test_probe.py: test_a_run_asks_its_probe_and_learns_the_same_with_and_without",
    "probe.label": "test_probe.py: test_a_probe_that_cannot_be_asked_is_refused_before_anything_is_written",
    "run.sharding": "test_distributed.py: test_full_sharding_divides_what_is_held",
    "run.threads": "test_speed.py: test_a_run_takes_the_threads_that_it_is_given",
    "run.wandb": "test_sinks.py: test_weights_and_biases_keep_one_run",
    "run.skipped_steps": "test_pretrain.py: test_a_step_that_is_no_number_moves_nothing",
}
SHORT = ("run.length=4 steps", "run.checkpoint_every=3")


VCL = (
    "views.kind=pairs", "views.frames=2", "views.size=32", "objective.kind=vcl", "objective.concepts=4",
    "objective.concept_width=8", "objective.projection=8", "objective.queue=8", "objective.local_concepts=3",
    "objective.frozen_share=0.5", "objective.local_after=0.5",
)  # fmt: skip
# What a section may be besides what it is by default, by its kind, and the settings that make this a toy.
OTHER_KINDS = {
    "masked": (
        "objective.kind=masked", "objective.patch_prototypes=4", "objective.decoder_width=16",
        "objective.decoder_depth=1", "objective.decoder_heads=2",
    ),
    "vcl": VCL,
    "pairs": VCL,
}  # fmt: skip


def settings_of(kind: type[Settings], prefix: str = "", of: str = "") -> Iterator[tuple[str, str]]:
    """All keys, such as "run.seed", each with the kind that the run must be of; "" for any."""
    for name, field in kind.model_fields.items():
        nested = _classes(field.annotation)
        if of and name == "kind":
            continue  # to choose another kind again is to choose the first
        for one in nested:
            by_default = one is type(field.default)
            yield from settings_of(one, f"{prefix}{name}.", of if by_default else one.model_fields["kind"].default)
        if not nested:
            yield of, prefix + name


KEYS = tuple((of, key) for of, key in settings_of(PretrainConfig) if key not in SHOWN_ELSEWHERE)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Two runs must not differ because a sum was split otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def toy(*overrides: str) -> PretrainConfig:
    """Of TINY what goes with the kind of views and objective."""
    others = "views.kind=pairs" in overrides
    return load_config(
        "debug", [*(s for s in TINY if not (others and s.startswith(("views", "objective")))), *SHORT, *overrides]
    )


def observe(corpus: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> object:
    """Everything by which a user could tell two runs apart, save for the copy of the configuration."""
    seen: dict[str, Any] = {}
    make_loader = module.make_loader

    def watched(*args: Any, num_workers: int, **kwargs: Any) -> Any:
        seen["num_workers"] = num_workers
        return make_loader(*args, num_workers=0, **kwargs)

    monkeypatch.setattr(module, "make_loader", watched)
    text = io.StringIO()
    try:
        pretrain(toy(*overrides), [corpus], run_dir, console=Console(file=text))
    except UsageError as error:
        return str(error)
    files = sorted(path.name for path in run_dir.rglob("*"))
    weights = xxhash.xxh3_64()
    for name, value in sorted(load_file(run_dir / "backbone.safetensors").items()):
        weights.update(name.encode() + value.numpy().tobytes())
    return seen, metrics(run_dir), files, weights.hexdigest(), text.getvalue().count("\n")


@pytest.fixture(scope="module")
def as_it_is(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], object]:
    """What a run of some kind shows when nothing is changed."""

    @cache
    def plain(of: str) -> object:
        with pytest.MonkeyPatch.context() as patch:
            return observe(corpus, tmp_path_factory.mktemp("plain"), patch, *OTHER_KINDS.get(of, ()))

    return plain


@pytest.mark.parametrize("of", ["", *OTHER_KINDS])
def test_without_a_change_nothing_changes(
    corpus: Path, tmp_path: Path, as_it_is: Callable[[str], object], monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    assert observe(corpus, tmp_path, monkeypatch, *OTHER_KINDS.get(of, ())) == as_it_is(of)


@pytest.mark.parametrize(("of", "key"), KEYS)
def test_every_setting_does_something(
    corpus: Path, tmp_path: Path, as_it_is: Callable[[str], object], monkeypatch: pytest.MonkeyPatch, of: str, key: str
) -> None:
    assert key in OTHERWISE, f"{key} is new: give it another value in OTHERWISE, by which it shows that it matters"
    beside = (*OTHER_KINDS.get(of, ()), *BESIDE.get(key, ()))
    plain = observe(corpus, tmp_path / "beside", monkeypatch, *beside) if key in BESIDE else as_it_is(of)
    assert not isinstance(plain, str), plain
    assert observe(corpus, tmp_path / "run", monkeypatch, *beside, f"{key}={OTHERWISE[key]}") != plain


def test_no_setting_is_listed_that_is_gone() -> None:
    assert set(OTHERWISE) <= {key for _, key in KEYS}
