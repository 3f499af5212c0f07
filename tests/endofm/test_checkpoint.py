"""Checkpoints exist whole or not at all, and a damaged or foreign one is refused by name."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import load_file

from endocorpus.errors import DataError
from endofm.checkpoint import (
    Checkpoint,
    export_backbone,
    latest_checkpoint,
    library_versions,
    load_checkpoint,
    save_checkpoint,
)
from endofm.models import ModelConfig, create_backbone


def example(step: int = 20) -> Checkpoint:
    layer = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return Checkpoint(
        step=step,
        config={"run": {"seed": 0, "lr": 2.34375e-05, "sizes": [1, 2], "name": None}},
        clips="0123abcd",
        objective=layer.state_dict(),
        optimizer=optimizer.state_dict(),
        health={"seen": torch.tensor(3)},
        versions=library_versions(),
    )


def assert_same(left: object, right: object) -> None:
    if isinstance(left, torch.Tensor):
        assert isinstance(right, torch.Tensor)
        assert torch.equal(left, right)
        assert left.dtype == right.dtype
    elif isinstance(left, dict):
        assert isinstance(right, dict)
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    else:
        assert left == right


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    saved = example()
    loaded = load_checkpoint(save_checkpoint(tmp_path, saved, keep=1))
    for field in dataclasses.fields(Checkpoint):
        assert_same(getattr(saved, field.name), getattr(loaded, field.name))
    assert loaded.versions["threads"] == str(torch.get_num_threads())


def test_keeps_the_newest_and_ignores_leftovers(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    paths = [save_checkpoint(tmp_path, example(step), keep=2) for step in (8, 9, 10)]
    folder = tmp_path / "checkpoints"
    for leftover in (".step-00000099.pt.partial", "step-00000099.pt.tmp", "step-99.pt", "step-00000099.pt.bak"):
        (folder / leftover).write_bytes(b"half")
    assert latest_checkpoint(tmp_path) == paths[2]
    assert [path.exists() for path in paths] == [False, True, True]


def test_steps_sort_as_numbers(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, example(step), keep=5)
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert load_checkpoint(latest).step == 100_000_000


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = save_checkpoint(tmp_path, example(), keep=1)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"step-00000020\.pt: .*remove it to go on from the checkpoint before it"):
        load_checkpoint(path)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, example(), keep=1)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        flipped = whole[position] ^ (1 << position % 8)
        path.write_bytes(whole[:position] + bytes([flipped]) + whole[position + 1 :])
        with pytest.raises(DataError, match="damaged"):
            load_checkpoint(path)


def test_torch_alone_can_read_it(tmp_path: Path) -> None:
    saved = example()
    content = torch.load(save_checkpoint(tmp_path, saved, keep=1), weights_only=True)
    assert_same(content["objective"], dict(saved.objective))


class Explosive:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    ("kind", "signed"),
    [
        *[(kind, False) for kind in ("text", "zip", "dict", "list", "pickle", "code")],
        *[(kind, True) for kind in ("dict", "list", "code")],
    ],
)
def test_a_foreign_file_is_refused_and_runs_no_code(
    tmp_path: Path, kind: str, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "step-00000001.pt"
    if kind == "text":
        path.write_text("hello")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", "b")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    else:
        contents = {"dict": {"teacher": torch.zeros(2)}, "list": [1], "code": {"format": Explosive()}}
        torch.save(contents[kind], path)
    if signed:
        path.write_bytes(path.read_bytes() + b"xxh3-128" + xxhash.xxh3_128(path.read_bytes()).digest())
    with pytest.raises(DataError, match=r"step-00000001\.pt: (damaged|not a|holds more)"):
        load_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.pt: No such file"):
        load_checkpoint(tmp_path / "nothing.pt")


def test_an_exported_backbone_needs_nothing_but_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(ModelConfig(embed_dim=32, depth=2, num_heads=2)).eval()
    path = tmp_path / "backbone.safetensors"
    export_backbone(path, backbone.config, backbone.state_dict(), {"clips": "0123"})
    assert path.stat().st_mode & 0o044 == 0o044, "colleagues may read it"
    with safe_open(path, "pt") as opened:
        about = json.loads(opened.metadata()["endofm"])
    assert about["clips"] == "0123"
    again = create_backbone(ModelConfig.model_validate(about["model"])).eval()
    again.load_state_dict(load_file(path))
    clip = torch.randn(1, 3, 2, 32, 32)
    assert torch.equal(again(clip), backbone(clip))
