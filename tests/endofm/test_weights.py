"""Weights come in whole from every published structure, or the error says what is wrong; no file runs code."""

from __future__ import annotations

import argparse
import builtins
import json
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import endofm
from endocorpus.errors import DataError, UsageError
from endofm.checkpoint import Checkpoint, export_backbone, library_versions, save_checkpoint
from endofm.models import ModelConfig, VideoTransformer, create_backbone, load_backbone, read_backbone
from endofm.models.heads import DINOHead
from endofm.models.weight_files import Arguments, read_file
from endofm.objectives.dino import Dino, DinoConfig
from endofm.optim import Horizon
from tests.endofm import published as p
from tests.endofm.plain_timesformer import plain_tokens

NARROW = ModelConfig(embed_dim=p.WIDTH, num_heads=1)


def assert_holds(backbone: VideoTransformer, expected: p.State) -> None:
    state = backbone.state_dict()
    assert len(state) == 247 and state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


@pytest.mark.filterwarnings("ignore:.*how many heads of attention")
@pytest.mark.parametrize("kind", p.PUBLISHED)
@pytest.mark.parametrize("zipped", [True, False])
def test_every_published_structure_loads_whole(tmp_path: Path, kind: str, zipped: bool) -> None:
    """Also as torch wrote files before 1.6, without a zip archive around."""
    content, structure = p.PUBLISHED[kind]
    path = p.save(tmp_path / "x.pth", content(), _use_new_zipfile_serialization=zipped)
    num_frames = 32 if kind == "EndoFM-LV" else 8
    backbone = load_backbone(path)
    assert_holds(backbone, p.numbers(1, num_frames))
    assert backbone.config == NARROW.model_copy(update={"num_frames": num_frames}) and not backbone.training
    source = read_backbone(path).provenance["source"]
    assert source["structure"] == structure and source["format"] == ("torch" if zipped else "torch before 1.6")


@pytest.mark.parametrize("about", [None, {"model": None}, {"steps": 3}])
def test_heads_that_a_file_does_not_tell_are_not_made_up_in_silence(tmp_path: Path, about: object) -> None:
    """A toy of width 64 with two heads; with one, as is assumed, it computes something else."""
    config = ModelConfig(embed_dim=64, depth=1, num_heads=2, image_size=32)
    metadata = None if about is None else {"endofm": json.dumps(about)}
    save_file(create_backbone(config).state_dict(), tmp_path / "x.safetensors", metadata)
    with pytest.warns(UserWarning, match="does not say how many heads of attention there are: 1 of 64 are assumed"):
        load_backbone(tmp_path / "x.safetensors")


def test_the_student_is_there_for_those_who_ask(tmp_path: Path) -> None:
    path = p.save(tmp_path / "endo_fm.pth", p.endo_fm())
    for which, seed in (("teacher", 1), ("student", 2)):
        weights = read_backbone(path, which=which)  # type: ignore[arg-type]
        assert all(torch.equal(weights.backbone[name], tensor) for name, tensor in p.numbers(seed).items())
        DINOHead(p.WIDTH, p.PROTOTYPES, hidden=48, bottleneck=16).load_state_dict(weights.head)
        assert torch.equal(weights.head["last_layer.weight_v"], p.head(seed)["last_layer.weight_v"])
        assert weights.provenance["source"]["which"] == which and weights.changes == []


def test_a_network_that_is_not_there_is_named(tmp_path: Path) -> None:
    one = p.save(tmp_path / "svt.pth", p.network(1))
    with pytest.raises(UsageError, match="holds one network, and says neither teacher nor student"):
        load_backbone(one, which="student")
    only = p.save(tmp_path / "student.pth", {"student": p.prefixed("module.", p.network(2))})
    with pytest.raises(UsageError, match=r"student\.pth: has no teacher; it has a student"):
        load_backbone(only)
    two = p.save(tmp_path / "two.pth", {"model": p.numbers(1), "model_ema": p.numbers(2)})
    with pytest.raises(DataError, match=r"holds 2 backbones \(model, model_ema\), and nothing says which is meant"):
        load_backbone(two)
    with pytest.raises(UsageError, match="expected teacher or student"):
        load_backbone(one, which="Teacher")  # type: ignore[arg-type]


def test_weights_of_images_become_a_video_network_that_sees_what_they_saw(tmp_path: Path) -> None:
    """And says what it made up. Frames that do not move look like the picture that they repeat."""
    saved = p.image() | {"head.weight": torch.zeros(1000, p.WIDTH), "head.bias": torch.zeros(1000)}
    path = tmp_path / "dino.safetensors"
    save_file(saved, path)
    with pytest.warns(UserWarning, match=r"dino\.safetensors: weights of images: attention along time is a copy"):
        backbone = load_backbone(path, num_frames=4)
    state = backbone.state_dict()
    assert len(state) == 247 and state["time_embed"].shape == (1, 4, p.WIDTH)
    for index in range(12):
        for ours, theirs in (
            ("temporal_attn.qkv", "attn.qkv"),
            ("temporal_attn.proj", "attn.proj"),
            ("temporal_norm1", "norm1"),
        ):
            for part in ("weight", "bias"):
                assert torch.equal(state[f"blocks.{index}.{ours}.{part}"], saved[f"blocks.{index}.{theirs}.{part}"])
        assert not state[f"blocks.{index}.temporal_fc.weight"].any()
        assert not state[f"blocks.{index}.temporal_fc.bias"].any()
    picture = torch.randn(1, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(backbone(picture.expand(-1, -1, 5, -1, -1)), backbone(picture), rtol=0, atol=1e-5)
    source = read_backbone(path).provenance["source"]
    assert source["structure"].startswith("image transformer") and source["left_out"] == ["head.bias", "head.weight"]


def test_what_is_loaded_computes_what_the_published_network_computes(tmp_path: Path) -> None:
    backbone = load_backbone(p.save(tmp_path / "endo_fm.pth", p.endo_fm()))
    clip = torch.randn(1, 3, 4, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (backbone.forward_tokens(clip)[0] - plain_tokens(p.numbers(1), 1, clip[0])).abs().max() <= 2e-5


def test_times_are_resized_only_where_asked_and_as_the_network_does(tmp_path: Path) -> None:
    path = p.save(tmp_path / "lv.pth", p.endo_fm(32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = load_backbone(path)
        assert load_backbone(path, num_frames=32).config.num_frames == 32
    with pytest.warns(UserWarning, match="time_embed resized from 32 to 8 frames by nearest neighbour"):
        short = load_backbone(path, num_frames=8)
    assert short.config.num_frames == 8
    assert torch.equal(short.time_embed, whole.time_embed[:, ::4])
    clip = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        assert torch.equal(short(clip), whole(clip))
    with pytest.raises(UsageError, match="a positive number"):
        load_backbone(path, num_frames=0)


def test_our_own_files_load_with_the_shape_that_they_state(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(embed_dim=48, depth=2, num_heads=4, image_size=64, num_frames=4, drop_path=0.3)
    objective = Dino(
        DinoConfig(prototypes=32, head_hidden=16, head_bottleneck=8), config, num_globals=1, horizon=Horizon(10, 5)
    )
    torch.nn.init.normal_(objective.student.backbone.time_embed)
    state = Checkpoint(
        step=7,
        config={"model": config.model_dump(mode="json")},
        clips="0123",
        objective=objective.state_dict(),
        optimizer={"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        health={},
        versions=library_versions(),
    )
    checkpoint = save_checkpoint(tmp_path, state, keep=1)
    exported = tmp_path / "backbone.safetensors"
    encoder = objective.encoder
    export_backbone(exported, encoder.config, encoder.state_dict(), {"clips": "0123", "steps": 7})
    for path, which, network in (
        (exported, "teacher", objective.teacher),
        (checkpoint, "teacher", objective.teacher),
        (checkpoint, "student", objective.student),
    ):
        backbone = load_backbone(path, which=which)  # type: ignore[arg-type]
        assert backbone.config == config
        for name, tensor in network.backbone.state_dict().items():
            assert torch.equal(backbone.state_dict()[name], tensor)
    network_head = read_backbone(checkpoint).head
    objective.teacher.head.load_state_dict(network_head)
    assert read_backbone(exported).provenance == {"clips": "0123", "steps": 7}

    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(DataError, match="damaged"):
        load_backbone(checkpoint)


@pytest.mark.filterwarnings("ignore:.*how many heads of attention")
def test_loading_takes_no_random_draw_and_learns(tmp_path: Path) -> None:
    path = p.save(tmp_path / "x.pth", p.numbers(1))
    before = torch.get_rng_state()
    backbone = load_backbone(path)
    assert torch.equal(torch.get_rng_state(), before)
    path.unlink()  # nothing stays mapped
    backbone(torch.randn(1, 3, 2, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in p.numbers(1).items()}
    weights = read_backbone(p.save(tmp_path / "x.pth", state))
    assert all(torch.equal(weights.backbone[name], tensor.float()) for name, tensor in state.items())
    assert weights.provenance["source"]["dtype"] == str(dtype).removeprefix("torch.")


def test_an_error_lists_what_is_missing_unexpected_and_misshaped(tmp_path: Path) -> None:
    state = p.numbers(1)
    del state["norm.bias"], state["blocks.3.temporal_fc.weight"]
    state["blocks.3.extra"] = torch.zeros(2)
    state["blocks.5.mlp.fc2.bias"] = torch.zeros(7)
    with pytest.raises(DataError) as error:
        load_backbone(p.save(tmp_path / "x.pth", {"teacher": p.prefixed("backbone.", state)}))
    said = str(error.value)
    assert "x.pth: 244 of the 247 tensors of the backbone fit" in said
    assert "2 missing: " in said and "norm.bias" in said and "blocks.3.temporal_fc.weight" in said
    assert "1 unexpected: blocks.3.extra" in said
    assert "1 of another shape: blocks.5.mlp.fc2.bias [7] instead of [64]" in said


@given(st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tensor_that_is_amiss_is_named(tmp_path: Path, data: st.DataObject) -> None:
    state = p.numbers(1)
    name = data.draw(st.sampled_from(sorted(state)))
    damage = data.draw(st.sampled_from(["missing", "unexpected", "another shape", "not plain numbers", "diverged"]))
    if damage in {"missing", "unexpected"}:
        tensor = state.pop(name)
        if damage == "unexpected":
            state[f"{name}_"] = tensor
    elif damage == "another shape":
        state[name] = torch.cat([state[name], state[name]], dim=-1)
    else:
        state[name] = state[name].to(torch.int32) if damage.startswith("not") else torch.full_like(state[name], np.nan)
    with pytest.raises(DataError) as error:
        load_backbone(p.save(tmp_path / "x.pth", state))
    # A wrong width, of the token that tells it, is found everywhere else.
    assert name in str(error.value) or (damage == "another shape" and "of another shape" in str(error.value))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["transformer.encoder.layer.0.ffn.fc1.weight", "segmentation_head.0.weight"],
            "segmentation network of Endo-FM",
        ),
        (["model.backbone.body.cls_token", "model.rpn.head.conv.weight"], "detection network of Endo-FM"),
        (["vit.embeddings.cls_token", "vit.encoder.layer.0.attention.attention.query.weight"], "Hugging Face"),
        (["cls_token", "blocks.0.ls1.gamma", "mask_token"], "DINOv2"),
        (["conv1.weight", "layer4.0.conv1.weight"], "ResNet"),
        (["head.mlp.0.weight", "head.last_layer.weight_v"], "head of DINO without its backbone"),
        (["linear.weight"], "holds no vision transformer; its 1 tensors: linear.weight"),
    ],
)
def test_an_error_guesses_whose_file_it_is(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_backbone(p.save(tmp_path / "x.pth", {name: torch.zeros(1, 1, 64) for name in names}))


def zip_of(name: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x" * 99)

    return write


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; download it again"),
        (b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title>", "a web page, and not weights"),
        (b"\n <HTML><body>404", "a web page, and not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:6fc7\nsize 2310000000\n", "git lfs pull"),
        (b'{"error": "not found"}', r"a text, and not weights; it begins with '\{\"error"),
        (b"\x1f\x8b\x08\x00rest", "an archive \\(gzip\\); unpack it"),
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
        (bytes(range(200)), "neither safetensors nor a file of torch.save"),
        (struct.pack("<Q", 99) + b'{"a": 1', "cut short, or damaged"),
        (b"PK\x03\x04rest", "cut short, or damaged"),
        (zip_of("endo_fm.pth"), r"an archive \(zip\) of endo_fm.pth"),
    ],
)
def test_what_is_not_weights_is_called_what_it_is(
    tmp_path: Path, content: bytes | Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "endo_fm.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    with pytest.raises(DataError, match=said):
        load_backbone(path)


def test_folders_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.pth: No such file"):
        load_backbone(str(tmp_path / "nothing.pth"))
    with pytest.raises(DataError, match="is a folder, and not a file of weights"):
        load_backbone(tmp_path)
    backbone = create_backbone(ModelConfig(embed_dim=64, depth=1, num_heads=1))
    export_backbone(tmp_path / "backbone.safetensors", backbone.config, backbone.state_dict(), {})
    with pytest.raises(DataError, match=r"is a folder; did you mean .*backbone\.safetensors\?"):
        load_backbone(tmp_path)


def test_no_damage_goes_unnoticed(tmp_path: Path) -> None:
    """torch itself would load zeros from the holes of a broken download."""
    path = p.save(tmp_path / "x.pth", p.endo_fm())
    whole, expected = path.read_bytes(), p.numbers(1)
    for share in (0.001, 0.3, 0.9, 0.9999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match="cut short, or damaged"):
            load_backbone(path)
    hole = len(whole) // 2
    path.write_bytes(whole[:hole] + bytes(4096) + whole[hole + 4096 :])
    with pytest.raises(DataError, match="damaged"):
        load_backbone(path)
    generator = np.random.default_rng(0)
    for position in (*generator.integers(0, len(whole), 12), *(len(whole) - generator.integers(1, 4000, 24))):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        try:
            backbone = load_backbone(path)
        except DataError:
            continue
        assert_holds(backbone, expected)  # a name or date in the table of contents, which nothing depends on


class Trap:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


class Camouflage(argparse.Namespace):
    """A Namespace, by its class, that does something of its own."""

    def __setstate__(self, state: object) -> None:
        os.mkdir("exploded")


class Harmless(argparse.Namespace):
    pass


TRAPS: dict[str, Callable[[], object]] = {
    "mkdir": lambda: Trap(os.mkdir, "exploded"),
    "system": lambda: Trap(os.system, "mkdir exploded"),
    "eval": lambda: Trap(builtins.eval, "__import__('os').mkdir('exploded')"),
    "popen": lambda: Trap(subprocess.Popen, ["mkdir", "exploded"]),
    "load": lambda: Trap(torch.load, "other.pth"),
    "numpy": lambda: Trap(np.load, "other.npy"),
    "getattr": lambda: Trap(getattr, "text", "upper"),
    "array": lambda: np.arange(3),
    "module": lambda: torch.nn.Linear(1, 1),
    "subclass": lambda: Camouflage(a=1),
    "harmless subclass": lambda: Harmless(a=1),
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("zipped", [True, False])
def test_no_file_runs_code(tmp_path: Path, trap: str, zipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = p.save(tmp_path / "x.pth", p.endo_fm() | {"args": TRAPS[trap]()}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=r"x\.pth: is not opened, since it asks for "):
        load_backbone(path)
    assert not (tmp_path / "exploded").exists()


NAMESPACE = b"\x80\x02cargparse\nNamespace\n"


@pytest.mark.parametrize(
    "pickled",
    [
        NAMESPACE
        + b")\x81}}X\x09\x00\x00\x00__class__cos\nsystem\ns\x86b.",  # a slot state, set attribute by attribute
        NAMESPACE + b"X\x05\x00\x00\x00mkdir\x85R.",  # called with an argument
        b"\x80\x02cargparse\nNamespace.__init__\n.",
        b"\x80\x02cargparse\n_os\n.",
        b"\x80\x02cnumpy\nload\n.",
        b"\x80\x02cnumpy._core.multiarray\nscalar\nNcnumpy\ndtype\nR.",
        b"\x80\x02cnumpy\ndtype\nX\x01\x00\x00\x00OX\x01\x00\x00\x00xRb.",
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85R.",
        b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",  # a dictionary that holds itself
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02" + b"(" * 5000 + b"t" * 5000 + b".",
        b"\x80\x02",
    ],
)
def test_no_pickle_written_by_hand_runs_code_or_ends_in_a_traceback(
    tmp_path: Path, pickled: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = p.save(tmp_path / "x.pth", {"a": torch.zeros(2)})
    p.rewritten(path, lambda name, data: pickled if name.endswith("data.pkl") else data)
    with pytest.raises(DataError, match=r"x\.pth: "):
        load_backbone(path)


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    path = p.save(tmp_path / "x.pth", p.numbers(1))
    p.rewritten(path, lambda _, data: data, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="compressed or encrypted inside"):
        load_backbone(path)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("kind", ["expanded", "sparse", "meta", "head", "deep"])
def test_tensors_that_are_not_what_they_claim_are_refused(tmp_path: Path, kind: str) -> None:
    content: dict[str, Any] = p.network(1)
    name = "backbone.pos_embed"
    if kind == "expanded":  # as wide as ViT-B, from files of a few bytes
        content = {key: torch.zeros(()).expand(*(12 * side for side in t.shape)) for key, t in p.numbers(1).items()}
    elif kind == "sparse":
        content[name] = content[name].to_sparse()
    elif kind == "meta":
        content[name] = content[name].to("meta")
    elif kind == "head":
        content["head.last_layer.weight_g"] = torch.ones(p.PROTOTYPES, 1, dtype=torch.int64)
    else:
        content |= {f"backbone.blocks.{index}.attn.qkv.bias": torch.zeros(1) for index in range(12, 2000)}
    with pytest.raises(DataError):
        load_backbone(p.save(tmp_path / "x.pth", content))


def test_metadata_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for model, said in (
        ({"depth": 10**9, "embed_dim": 64, "num_heads": 1}, "has 12 blocks, where 1000 are expected"),
        ({"depth": 11, "embed_dim": 64, "num_heads": 1}, "has 12 blocks, where 11 are expected"),
        ({"embed_dim": 10**9, "num_heads": 1}, "states a shape that no network can have"),
        ({"embed_dim": 128, "num_heads": 2}, "0 of the 247 tensors of the backbone fit; 247 of another shape"),
        ({"num_heads": 7}, "not the shape of a backbone"),
        ("vit", "not the shape of a backbone"),
    ):
        save_file(p.numbers(1), path, {"endofm": json.dumps({"model": model})})
        with pytest.raises(DataError, match=said):
            load_backbone(path)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
@pytest.mark.parametrize(
    "value", [np.float64(-2.5), np.float32(1.5), np.int64(-(2**40)), np.uint8(200), np.bool_(True)]
)
def test_numpy_scalars_of_any_numpy_are_read_as_numbers(tmp_path: Path, module: bytes, value: Any) -> None:
    path = p.save(tmp_path / "x.pth", {"value": value, "args": argparse.Namespace(a=[value])})
    p.rewritten(path, lambda _, data: data.replace(b"numpy._core.multiarray", module))
    content = read_file(path).content
    assert content["value"] == value.item() and type(content["value"]) is type(value.item())
    assert isinstance(content["args"], Arguments) and content["args"].values == {"a": [value.item()]}


def test_the_allow_list_is_gone_after_loading(tmp_path: Path) -> None:
    path = p.save(tmp_path / "x.pth", p.endo_fm())
    load_backbone(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_importing_the_package_costs_no_torch() -> None:
    ask = (
        "import sys, endofm; heavy = {'torch', 'timm', 'numpy', 'safetensors'}; assert not heavy & set(sys.modules);"
        "assert 'load_backbone' in dir(endofm); import endofm.cli; assert 'torch' not in sys.modules;"
        "print(endofm.create_backbone.__module__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["endofm.models.shapes", "True"], done.stderr


def test_the_package_offers_what_it_says() -> None:
    for name in endofm.__all__:
        assert getattr(endofm, name) is getattr(endofm.models, name)
    with pytest.raises(AttributeError, match="'endofm' has no attribute 'load_backbones'"):
        _ = endofm.load_backbones  # type: ignore[attr-defined]
