"""The published network written out once more, from its description and not from our code.

Divided space-time attention as Bertasius et al. (2021) describe it and the released Endo-FM code computes it: one clip,
explicit softmax, every residual, norm and mean spelled out, nothing fused. It computes in the type of the weights that
it is given, and reads all shapes off them; only the number of heads is not in them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def published_shapes(width: int = 768, depth: int = 12, num_frames: int = 8) -> dict[str, tuple[int, ...]]:
    """Every tensor of the released backbone by its name; 247 for 12 blocks, whatever the width."""
    block: dict[str, tuple[int, ...]] = {
        **{f"{name}.weight": (width,) for name in ("norm1", "temporal_norm1", "norm2")},
        **{f"{name}.qkv.weight": (3 * width, width) for name in ("attn", "temporal_attn")},
        **{f"{name}.weight": (width, width) for name in ("attn.proj", "temporal_attn.proj", "temporal_fc")},
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc2.weight": (width, 4 * width),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 197, width),
        "time_embed": (1, num_frames, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "norm.weight": (width,),
        **{f"blocks.{index}.{name}": shape for index in range(depth) for name, shape in block.items()},
    }
    return shapes | {
        name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items() if name.endswith("weight")
    }


def plain_tokens(state: State, num_heads: int, clip_CTHW: Tensor) -> Tensor:
    """All tokens [1+N*T, D]: the class token, then for each place of the picture its T frames."""
    cls_D, patches_NTD = embed(state, clip_CTHW)
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    for index in range(depth):
        cls_D, patches_NTD = block(state, f"blocks.{index}.", num_heads, cls_D, patches_NTD)
    tokens = [cls_D]
    for place in patches_NTD:
        tokens.extend(place)
    return norm(state, "norm", torch.stack(tokens))


def embed(state: State, clip_CTHW: Tensor) -> tuple[Tensor, Tensor]:
    """Patches, each with the position and the time that are nearest in the tables; the class token has no time."""
    weight_DCPP, bias_D = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    positions_ND, times_TD = state["pos_embed"][0], state["time_embed"][0]
    patch, side = weight_DCPP.shape[-1], math.isqrt(len(positions_ND) - 1)
    num_frames, rows, columns = clip_CTHW.shape[1], clip_CTHW.shape[2] // patch, clip_CTHW.shape[3] // patch
    places = []
    for row in range(rows):
        for column in range(columns):
            top, left = row * patch, column * patch
            pixels_CTPP = clip_CTHW[:, :, top : top + patch, left : left + patch].to(weight_DCPP.dtype)
            position = 1 + (row * side // rows) * side + column * side // columns
            frames = []
            for frame in range(num_frames):
                value_D = torch.einsum("dcij,cij->d", weight_DCPP, pixels_CTPP[:, frame]) + bias_D
                frames.append(value_D + positions_ND[position] + times_TD[frame * len(times_TD) // num_frames])
            places.append(torch.stack(frames))
    return state["cls_token"][0, 0] + positions_ND[0], torch.stack(places)


def block(state: State, name: str, num_heads: int, cls_D: Tensor, patches_NTD: Tensor) -> tuple[Tensor, Tensor]:
    """Along time without the class token; within frames with copies of it, whose changes are averaged; perceptron."""
    change_NTD = attend(state, f"{name}temporal_attn", num_heads, norm(state, f"{name}temporal_norm1", patches_NTD))
    moved_NTD = patches_NTD + linear(state, f"{name}temporal_fc", change_NTD)
    copies, frames = [], []
    for frame in range(patches_NTD.shape[1]):
        sequence_MD = torch.cat([cls_D[None], moved_NTD[:, frame]])
        change_MD = attend(state, f"{name}attn", num_heads, norm(state, f"{name}norm1", sequence_MD[None]))[0]
        copies.append(change_MD[0])
        frames.append(moved_NTD[:, frame] + change_MD[1:])
    cls_D, patches_NTD = cls_D + torch.stack(copies).mean(0), torch.stack(frames, dim=1)
    return cls_D + perceptron(state, name, cls_D), patches_NTD + perceptron(state, name, patches_NTD)


def attend(state: State, name: str, num_heads: int, x_SMD: Tensor) -> Tensor:
    """Multi-head attention inside each of S sequences; the projection gives queries, keys, values, by head."""
    width = x_SMD.shape[-1]
    query, key, value = linear(state, f"{name}.qkv", x_SMD).split(width, dim=-1)
    outputs = []
    for head in range(num_heads):
        part = slice(head * width // num_heads, (head + 1) * width // num_heads)
        scores = torch.einsum("sid,sjd->sij", query[..., part], key[..., part]) / math.sqrt(width / num_heads)
        exponents = (scores - scores.amax(-1, keepdim=True)).exp()
        shares = exponents / exponents.sum(-1, keepdim=True)
        outputs.append(torch.einsum("sij,sjd->sid", shares, value[..., part]))
    return linear(state, f"{name}.proj", torch.cat(outputs, dim=-1))


def perceptron(state: State, name: str, x: Tensor) -> Tensor:
    hidden = linear(state, f"{name}mlp.fc1", norm(state, f"{name}norm2", x))
    return linear(state, f"{name}mlp.fc2", hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return torch.einsum("...i,oi->...o", x, state[f"{name}.weight"]) + state[f"{name}.bias"]


def norm(state: State, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / ((centred**2).mean(-1, keepdim=True) + 1e-6).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]
    )
