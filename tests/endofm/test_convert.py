"""`endofm weights`: says what a file is and nothing about people, and converts it without losing a bit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import load_file

import endofm.convert
from endofm.checkpoint import export_backbone
from endofm.cli import main
from endofm.convert import convert_weights, inspect_weights
from endofm.models import ModelConfig, create_backbone, load_backbone
from tests.endofm import published as p


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["weights", *map(str, arguments)])


@pytest.mark.parametrize("kind", p.PUBLISHED)
def test_every_published_structure_is_recognised(tmp_path: Path, kind: str) -> None:
    content, structure = p.PUBLISHED[kind]
    found = inspect_weights(p.save(tmp_path / "x.pth", content()))
    assert found.structure == structure and found.loads and found.why_not is None and found.known is None
    assert found.model is not None and found.model["num_frames"] == (32 if kind == "EndoFM-LV" else 8)
    assert found.model["embed_dim"] == p.WIDTH and found.model["depth"] == 12 and found.model["image_size"] == 224
    assert found.parameters == sum(t.numel() for t in p.numbers(1, found.model["num_frames"]).values())
    assert found.head == (kind in {"Endo-FM", "EndoFM-LV", "SVT"})


def test_inspect_tells_how_it_was_trained_and_not_by_whom_or_where(tmp_path: Path) -> None:
    path = p.save(tmp_path / "endo_fm.pth", p.endo_fm())
    as_json, as_text = run("inspect", path, "--json"), run("inspect", path)
    assert as_json.exit_code == as_text.exit_code == 0, as_text.output
    found = json.loads(as_json.output)
    assert found["networks"] == ["student.module.backbone", "teacher.backbone"]
    assert found["trained"]["epoch"] == 30
    arguments = found["trained"]["arguments"]
    assert arguments == {"arch": "timesformer", "batch_size_per_gpu": 3, "epochs": 30, "lr": 0.0005}
    assert found["arguments_withheld"] == 5
    assert "lr 0.0005" in as_text.output and "8 frames" in as_text.output and found["sha256"] in as_text.output
    for secret in (*p.SECRETS, str(tmp_path), "/scratch"):
        assert secret not in as_json.output + as_text.output


def test_words_among_the_arguments_are_told_only_where_they_are_terms(tmp_path: Path) -> None:
    content = p.endo_fm()
    content["args"].arch, content["args"].seed, content["args"].lr = "/home/jane/net", "jane", ["jane"]
    found = inspect_weights(p.save(tmp_path / "x.pth", content))
    assert found.trained["arguments"] == {"batch_size_per_gpu": 3, "epochs": 30}


def test_the_released_file_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = p.save(tmp_path / "renamed.pth", p.endo_fm())
    monkeypatch.setitem(endofm.convert.KNOWN_FILES, inspect_weights(path).sha256, "the released one")
    assert "the released one" in run("inspect", path).output
    assert any(name.startswith("endo_fm.pth") for name in endofm.convert.KNOWN_FILES.values())


def test_inspect_says_why_a_file_does_not_load(tmp_path: Path) -> None:
    state = p.numbers(1)
    del state["norm.bias"]
    path = p.save(tmp_path / "x.pth", state)
    done = run("inspect", path, "--json")
    found = json.loads(done.output)
    assert done.exit_code == 1 and not found["loads"] and found["why_not"].startswith("246 of the 247 tensors")
    assert found["tensors"] == 246 and found["model"] is None
    assert "1 missing: norm.bias" in run("inspect", path).output
    other = p.save(tmp_path / "resnet.pth", {"layer4.0.conv1.weight": torch.zeros(1)})
    assert run("inspect", other).exit_code == 1 and "a ResNet" in run("inspect", other).output
    page = tmp_path / "page.pth"
    page.write_text("<!doctype html>")
    done = run("inspect", page)
    assert done.exit_code == 1 and done.output.startswith("error: ") and "a web page" in done.output


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_what_is_converted_is_equal_and_says_where_it_comes_from(tmp_path: Path, which: str) -> None:
    source, out = p.save(tmp_path / "endo_fm.pth", p.endo_fm()), tmp_path / "new" / "endo_fm.safetensors"
    done = run("convert", source, out, "--which", which)
    assert done.exit_code == 0, done.output
    expected = p.numbers(1 if which == "teacher" else 2)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_file(out).items())
    assert load_backbone(out).state_dict().keys() == expected.keys()
    with safe_open(out, "pt") as file:
        about = json.loads(file.metadata()["endofm"])
    assert about["source"]["sha256"] == inspect_weights(source).sha256 and about["source"]["which"] == which
    assert about["source"]["structure"].endswith("as Endo-FM publishes it")
    assert str(tmp_path) not in out.read_bytes().decode("latin1")


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    source = p.save(tmp_path / "endo_fm.pth", p.endo_fm())
    first, second, third = (tmp_path / f"{number}.safetensors" for number in (1, 2, 3))
    assert convert_weights(source, first) and convert_weights(source, second) and convert_weights(first, third)
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()
    assert not convert_weights(source, first) and not convert_weights(first, first)
    assert "holds these weights already" in run("convert", source, first).output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "1.safetensors", "2.safetensors", "3.safetensors", "endo_fm.pth",
    ]  # fmt: skip


def test_what_was_converted_still_says_where_it_comes_from_and_how_it_was_trained(tmp_path: Path) -> None:
    source, out, again = (
        p.save(tmp_path / "endo_fm.pth", p.endo_fm()),
        tmp_path / "1.safetensors",
        tmp_path / "2.safetensors",
    )
    convert_weights(source, out)
    convert_weights(out, again)
    before, after = inspect_weights(source), inspect_weights(again)
    assert after.trained == before.trained and after.trained["arguments"]["lr"] == 0.0005
    told = " ".join(run("inspect", again).output.split())
    assert f"comes from {before.structure}, teacher, torch, {before.sha256}" in told and "epoch 30" in told
    assert not [secret for secret in p.SECRETS if secret in told]


def test_a_stranger_s_account_of_the_training_is_sifted_again(tmp_path: Path) -> None:
    trained = {"epoch": 1e300, "arguments": {"arch": "/home/jane", "seed": 3, "jane": 1}}
    path, config = tmp_path / "x.safetensors", ModelConfig(embed_dim=16, depth=1, num_heads=2)
    export_backbone(path, config, create_backbone(config).state_dict(), {"source": {"trained": trained}})
    found = inspect_weights(path)
    assert found.trained == {"arguments": {"seed": 3}} and found.arguments_withheld == 2


def test_adapters_are_told(tmp_path: Path) -> None:
    config = ModelConfig(embed_dim=16, depth=1, num_heads=2, adapters="st24", adapter_width=8)
    export_backbone(tmp_path / "x.safetensors", config, create_backbone(config).state_dict(), {"steps": 1})
    assert "adapters st24 of width 8" in run("inspect", tmp_path / "x.safetensors").output


def test_a_video_transformer_that_lacks_some_tensors_is_still_one(tmp_path: Path) -> None:
    content = p.timesformer()
    for name in ("time_embed", "cls_token", "norm.bias", "norm.weight"):
        del content["model_state"][f"model.{name}"]
    found = inspect_weights(p.save(tmp_path / "x.pyth", content))
    assert found.structure == "TimeSformer" and found.why_not is not None and "243 of the 247" in found.why_not


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = run("inspect", tmp_path / "pipe")
    assert done.exit_code == 1 and "is a pipe or a device" in done.output


def test_frames_are_resized_on_request_and_noted_for_ever(tmp_path: Path) -> None:
    source, out = p.save(tmp_path / "lv.pth", p.endo_fm(32)), tmp_path / "8.safetensors"
    assert run("convert", source, out, "--frames", 8).exit_code == 0
    assert torch.equal(load_file(out)["time_embed"], p.numbers(1, 32)["time_embed"][:, ::4])
    change = "time_embed resized from 32 to 8 frames by nearest neighbour"
    found = inspect_weights(out)
    assert found.provenance["changes"] == [change] and change in run("inspect", out).output
    assert found.structure == "backbone of endofm" and found.model is not None and found.model["num_frames"] == 8
    again = tmp_path / "again.safetensors"
    convert_weights(out, again)
    assert again.read_bytes() == out.read_bytes()


def test_convert_overwrites_nothing(tmp_path: Path) -> None:
    source, out = p.save(tmp_path / "x.pth", p.numbers(1)), tmp_path / "x.safetensors"
    out.write_bytes(b"mine")
    done = run("convert", source, out)
    assert done.exit_code == 2 and "exists, and holds something else" in done.output and out.read_bytes() == b"mine"
    done = run("convert", source, tmp_path / "x.bin")
    assert done.exit_code == 2 and "must end in .safetensors" in done.output
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    assert run("convert", source, folder).exit_code == 2
    assert run("convert", source, source / "x.safetensors").exit_code in {1, 2}
    assert run("convert", tmp_path / "none.pth", out).exit_code == 1
    assert not list(tmp_path.glob(".*"))
