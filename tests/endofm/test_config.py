"""What ships loads, what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from endocorpus.errors import UsageError
from endocorpus.settings import to_toml
from endofm.config import UNCOMPARED, PretrainConfig, load_config, shipped_configs
from endofm.objectives.dino import DinoConfig


def test_what_ships() -> None:
    assert shipped_configs() == ["debug", "endofm", "endofm-as-released", "endofm-masked", "endofm-vcl", "tiny"]
    assert load_config("endofm") == PretrainConfig(), "the defaults are the published recipe"
    debug = load_config("debug")
    assert debug.run.device == "cpu"
    assert debug.model.embed_dim < 100


def test_published_recipe() -> None:
    config = load_config("endofm")
    assert config.views.view_shapes == (
        *[(frames, 224) for frames in (8, 16)],
        *[(frames, 96) for frames in (2, 2, 4, 4, 8, 8, 16, 16)],
    )
    objective = config.objective
    assert isinstance(objective, DinoConfig)
    assert (objective.prototypes, objective.student_temperature, objective.teacher_temperature) == (65536, 0.1, 0.04)
    assert (config.run.batch_size, config.run.length) == (12, "30 epochs")


def test_your_own_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[run]\nlength = "7 steps"\nseed = 3\n')
    config = load_config(path, ["run.seed=4", "run.length=2.5 epochs", "views.local_frames=[2, 4]"])
    assert (config.run.seed, config.run.length, config.views.local_frames) == (4, "2.5 epochs", (2, 4))


def test_your_own_file_can_start_from_a_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "debug"\n[run]\nlength = "7 steps"\n[views]\nlocal_frames = [2]\n')
    mine, debug = load_config(path, ["run.seed=4"]), load_config("debug")
    assert mine.run == debug.run.model_copy(update={"length": "7 steps", "seed": 4})
    assert mine.views == debug.views.model_copy(update={"local_frames": (2,)})
    assert (mine.model, mine.objective, mine.optim) == (debug.model, debug.objective, debug.optim)
    path.write_text('base = "endofm"\n')
    assert load_config(path) == load_config("endofm")


def test_a_base_is_named_in_the_file_and_shipped(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for base in ('"debgu"', '"mine.toml"', "3"):
        path.write_text(f"base = {base}\n")
        with pytest.raises(UsageError, match=r"mine\.toml: base = .* is not a shipped configuration \(debug, endofm, "):
            load_config(path)
    with pytest.raises(UsageError, match="unknown key 'base'"):
        load_config("endofm", ["base=debug"])
    path.write_text('bsae = "debug"\n')
    with pytest.raises(UsageError, match=r"mine\.toml: unknown key 'bsae'; did you mean 'base'\?"):
        load_config(path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.batchsize=3", "did you mean 'run.batch_size'"),
        ("optim.lr=1e-3", "did you mean 'optim.lr_per_256_clips'"),
        ("run.batch=3", "did you mean 'run.batch_size'"),
        ("model.patch_size=15", "--set model.patch_size=15: model.image_size: not a multiple"),
        ("model.embed_dim=100", "--set model.embed_dim=100: model.num_heads: .*cannot be shared by 12 heads"),
        ("views.global_frames=8", r"views.global_frames: expected a list such as \[8, 8\] \(got 8\)"),
        ("run.wandb=a b/c", "run.wandb: a project in Weights & Biases has .* none of /"),
        ("run.steps=10", "did you mean 'run.length'"),
        ("run.epochs=10", "did you mean 'run.length'"),
        ("run.batch_size=0", "run.batch_size"),
        ("run.batch_size=2.5", "run.batch_size"),
        ("run.length=30", "run.length"),
        ("run.length=30 weeks", "200 steps"),
        ("run.precision=fp16", "run.precision"),
        ("model.num_heads=7", "embed_dim = 768 cannot be shared by 7 heads"),
        ("model.image_size=100", "model.image_size: .*multiple of patch_size = 16"),
        ("model.drop_path=1.0", "model.drop_path"),
        ("views.global_size=100", "views.global_size = 100 must be a multiple of model.patch_size = 16"),
        ("views.local_size=40", "views.local_size = 40 must be a multiple of model.patch_size = 16"),
        ("objective.student_temperature=0", "objective.student_temperature"),
        ("objective.kind=dyno", "objective.kind = 'dyno' is none of dino, masked, vcl"),
        ("objective.prototips=3", "unknown key 'objective.prototips'; did you mean 'objective.prototypes'"),
        ("optim.warmup=ten", "optim.warmup"),
        ("data.cache_dir=", r"^--set data\.cache_dir=: data\.cache_dir: must not be empty; .* \(got ''\)$"),
        ("data.cache_gb=1e300", r"^--set data\.cache_gb=1e300: data\.cache_gb: .* less than or equal to 1000000000"),
    ],
)
def test_what_is_wrong_is_named(override: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_config("endofm", [override])


@pytest.mark.parametrize("name", shipped_configs())
def test_a_printed_configuration_is_read_as_the_same(name: str, tmp_path: Path) -> None:
    (tmp_path / "saved.toml").write_text(to_toml(load_config(name)), encoding="utf-8")
    assert load_config(tmp_path / "saved.toml") == load_config(name)


def test_a_single_view_has_no_other() -> None:
    with pytest.raises(UsageError, match="a single view"):
        load_config("endofm", ["views.global_frames=[8]", "views.local_frames=[]"])


def test_unknown_name() -> None:
    with pytest.raises(UsageError, match=r"debgu: neither a file nor .*debug, endofm"):
        load_config("debgu")


def test_uncompared_keys_exist() -> None:
    sections = load_config("debug").model_dump()
    for key in UNCOMPARED:
        section, name = key.split(".")
        assert name in sections[section]
