"""The Endo-FM backbone: a vision transformer for video with divided space-time attention.

Each block first lets every place of the picture look along its own frames, then lets every frame look at its own
places (TimeSformer: Bertasius et al., 2021, "Divided Space-Time Attention"; pre-trained on endoscopy by Endo-FM:
Wang et al., 2023). Module names, tensor shapes and numerics are those of the released Endo-FM code, so that its
checkpoints fit tensor by tensor.

Shape suffixes, `tokens_BLD` being three-dimensional and so on:
    B  clips in the batch           T  frames per clip           C, H, W  colour channels, height, width in pixels
    N  patches per frame, row by row (H/16 * W/16 at the published patch size)
    L  tokens per clip, 1 + N*T: the class token, then all frames of the first patch, all of the second, ...
    D  embedding width              F  B*T frames                P  B*N places, each with its T frames
    S  sequences of whatever an attention layer sees, each M tokens long
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear

from endocorpus.settings import Settings
from endofm.models.adapters import STAdapter
from endofm.models.attention import Attention, AttentionChoice
from endofm.models.recompute import recomputed


class ModelConfig(Settings):
    """Shape of the backbone; the defaults are ViT-B/16 as Endo-FM publishes it (121,258,752 parameters)."""

    embed_dim: int = Field(default=768, ge=1)
    depth: int = Field(default=12, ge=1)
    num_heads: int = Field(default=12, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    patch_size: int = Field(default=16, ge=1)
    image_size: int = Field(default=224, ge=1, description="Side in pixels of the picture that `pos_embed` describes.")
    num_frames: int = Field(default=8, ge=1, description="Frames that `time_embed` describes.")
    drop_path: float = Field(default=0.1, ge=0, lt=1, description="Rate of the last block; the first has none.")
    attention: AttentionChoice = Field(
        default="auto",
        description="How it is computed: sdpa, torch's fused kernel; math, written out; auto, whichever was measured "
        "to be faster on the device and in the precision at hand. The results are equal but for rounding.",
    )
    attends: Literal["space-time", "space"] = Field(
        default="space-time",
        description="Along time and within the frame; or within the frame alone, as an image transformer that is shown "
        "each frame by itself, each with a class token of its own, whose mean is the feature.",
    )
    adapters: Literal["none", "st12", "st24"] = Field(
        default="none",
        description="In each block, which alone are trained: one before the perceptron (st12: twelve in ViT-B), or one "
        "before attention within the frame as well (st24).",
    )
    adapter_width: int = Field(default=384, ge=1, description="Of the bottleneck of an adapter.")

    @property
    def attends_time(self) -> bool:
        """Whether tokens look along time; if not, every frame has a class token of its own."""
        return self.attends == "space-time"

    @field_validator("num_heads")
    @classmethod
    def _heads_divide_width(cls, num_heads: int, info: ValidationInfo) -> int:
        width = info.data.get("embed_dim", num_heads)
        if width % num_heads:
            raise ValueError(f"embed_dim = {width} cannot be shared by {num_heads} heads")
        return num_heads

    @field_validator("image_size")
    @classmethod
    def _patches_tile_image(cls, image_size: int, info: ValidationInfo) -> int:
        patch = info.data.get("patch_size", image_size)
        if image_size % patch:
            raise ValueError(f"not a multiple of patch_size = {patch}")
        return image_size


class VideoTransformer(nn.Module):
    """ViT with divided space-time attention (Endo-FM `models/timesformer.py`); any T, any H and W in whole patches.

    Positions and times are tables of `image_size` and `num_frames`, resized to the clip at hand by nearest
    neighbour, as the published weights expect. The class token has a position and no time.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, self.grid_size = config.embed_dim, config.image_size // config.patch_size
        self.patch_embed = PatchEmbed(None, config.patch_size, embed_dim=width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid_size**2, width))
        if config.attends_time:
            self.time_embed = nn.Parameter(torch.zeros(1, config.num_frames, width))
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        before = {"none": (), "st12": ("perceptron",), "st24": ("attention", "perceptron")}[config.adapters]
        adapters = dict.fromkeys(before, config.adapter_width)
        self.blocks = nn.ModuleList(
            [
                Block(
                    width,
                    config.num_heads,
                    config.mlp_ratio,
                    rate,
                    config.attention,
                    adapters,
                    attends_time=config.attends_time,
                )
                for rate in rates
            ]
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self._initialise()

    def _initialise(self) -> None:
        """Linear, class token, positions: N(0, 0.02). Times and every `temporal_fc`: zero. Patches: as torch has it.

        A fresh network therefore starts as a plain image transformer applied to each frame.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for block in self.blocks:
            assert isinstance(block, Block)
            if block.attends_time:
                nn.init.zeros_(block.temporal_fc.weight)
        for module in self.modules():
            if isinstance(module, STAdapter):
                module.reset()

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """Normalised RGB clips [B, 3, T, H, W] to the class-token feature [B, D], after the last norm.

        Raises:
            ValueError: not five dimensions, not three colours, or a side that is not a whole number of patches.
        """
        return self.forward_shapes([clip_BCTHW])[0]

    def forward_shapes(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """As `forward`, of stacks of clips [B, 3, T, H, W], each of a shape of its own: the features [B, D] of each.

        Every block takes all of them before the next one does, so that it computes but once what depends on its weights
        alone.
        """
        tokens = zip(clips, self._encode(clips), strict=True)
        return [self._normed(self._class_token(tokens_BLD, clip.shape[2])) for clip, tokens_BLD in tokens]

    def forward_tokens(self, clip_BCTHW: Tensor, places_BK: Tensor | None = None) -> Tensor:
        """As `forward`, but all tokens [B, 1+N*T, D]: the class token, then patch by patch its T frames.

        Args:
            clip_BCTHW: as `forward` takes them.
            places_BK: int64. If given, only these K of each clip's N patches are looked at, the same in all frames, and
                the tokens are [B, 1+K*T, D] in this order. What the others show has no influence.
        """
        (tokens_BLD,), T = self._encode([clip_BCTHW], places_BK), clip_BCTHW.shape[2]
        if not self.config.attends_time:
            cls_B1D = self._class_token(tokens_BLD, T)[:, None]
            tokens_BLD = torch.cat([cls_B1D, tokens_BLD[:, T:]], dim=1)
        return self._normed(tokens_BLD)

    def _class_token(self, tokens_BLD: Tensor, num_frames: int) -> Tensor:
        """That of the clip [B, D]; the mean of those of its frames, where these have their own."""
        return tokens_BLD[:, 0] if self.config.attends_time else tokens_BLD[:, :num_frames].mean(dim=1)

    def _normed(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.norm(tokens)
        return normed

    def _encode(self, clips: Sequence[Tensor], places_BK: Tensor | None = None) -> list[Tensor]:
        tokens = [self._embed(clip_BCTHW, places_BK) for clip_BCTHW in clips]
        num_frames = [clip_BCTHW.shape[2] for clip_BCTHW in clips]
        for block in self.blocks:
            tokens = block(tokens, num_frames)
        return tokens

    def _embed(self, clip_BCTHW: Tensor, places_BK: Tensor | None) -> Tensor:
        rows, columns = self.grid_of(clip_BCTHW)
        B, _, T, _, _ = clip_BCTHW.shape
        patches_FND = self.patch_embed(clip_BCTHW.transpose(1, 2).flatten(0, 1))
        patches_FND = patches_FND + positions(self.pos_embed, rows, columns)
        patches_BNTD = patches_FND.unflatten(0, (B, T)).transpose(1, 2)
        if self.config.attends_time:
            patches_BNTD = patches_BNTD + times(self.time_embed, T)
        if places_BK is not None:
            patches_BNTD = at_places(patches_BNTD, places_BK)
        cls_1D = self.cls_token[0] + self.pos_embed[0, :1]
        class_tokens = 1 if self.config.attends_time else T
        return torch.cat([cls_1D.expand(B, class_tokens, -1), patches_BNTD.flatten(1, 2)], dim=1)

    def grid_of(self, clip_BCTHW: Tensor) -> tuple[int, int]:
        """Rows and columns of patches in a frame; raises as `forward` does."""
        shape, patch = tuple(clip_BCTHW.shape), self.config.patch_size
        if len(shape) != 5 or shape[1] != 3:
            raise ValueError(f"expected clips of shape [B, 3, T, H, W], got {list(shape)}")
        if shape[3] % patch or shape[4] % patch:
            raise ValueError(f"height and width must be multiples of {patch}, got {shape[3]} x {shape[4]}")
        return shape[3] // patch, shape[4] // patch


def positions(table_1LD: Tensor, rows: int, columns: int) -> Tensor:
    """Position of every patch [N, D] out of a table for the class token and a square grid, by nearest neighbour.

    The grid decides, not the token count: 28 x 7 is not 14 x 14.
    """
    table_ND = table_1LD[0, 1:]
    side = math.isqrt(len(table_ND))
    if (rows, columns) == (side, side):
        return table_ND
    grid_1Dhw = table_ND.T.reshape(1, -1, side, side)
    return interpolate(grid_1Dhw, size=(rows, columns), mode="nearest")[0].flatten(1).T


def times(table_1TD: Tensor, num_frames: int) -> Tensor:
    """Time of every frame [T, D] out of a table, by nearest neighbour."""
    if num_frames == table_1TD.shape[1]:
        return table_1TD[0]
    return interpolate(table_1TD.transpose(1, 2), size=num_frames, mode="nearest")[0].T


def at_places(patches_BNTD: Tensor, places_BK: Tensor) -> Tensor:
    """Of each clip its patches at some places, all their frames: [B, K, T, D]."""
    places_BKTD = places_BK[:, :, None, None].expand(-1, -1, *patches_BNTD.shape[2:])
    return patches_BNTD.gather(1, places_BKTD)


class Block(nn.Module):
    """Attention along time, attention within the frame, perceptron; each on the residual stream."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: float,
        drop_path: float,
        attention: AttentionChoice = "auto",
        adapters: Mapping[str, int] = MappingProxyType({}),
        *,
        attends_time: bool = True,
    ) -> None:
        """`adapters` has the width of an adapter before "attention" within the frame, before the "perceptron".

        Without attention along time, every frame has a class token of its own.
        """
        super().__init__()
        self.attends_time = attends_time
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, num_heads, attention)
        if attends_time:
            self.temporal_norm1 = nn.LayerNorm(width, eps=1e-6)
            self.temporal_attn = Attention(width, num_heads, attention)
            self.temporal_fc = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        # One draw per row of its input: per place in time, per frame in space, per clip in the perceptron.
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.recompute = False  # see `speed.recompute_in_blocks_`
        self.attention_adapter, self.perceptron_adapter = (
            STAdapter(width, adapters[place]) if place in adapters else nn.Identity()
            for place in ("attention", "perceptron")
        )

    def forward(self, tokens: Sequence[Tensor], num_frames: Sequence[int]) -> list[Tensor]:
        """Stacks of clips, each [B, 1+N*T, D] with a T of its own, to the same shapes; [B, T+N*T, D] where every frame
        has a class token."""
        if self.recompute and torch.is_grad_enabled():
            return recomputed(self._run, tokens, num_frames)
        return self._run(tokens, num_frames)

    def _run(self, tokens: Sequence[Tensor], num_frames: Sequence[int]) -> list[Tensor]:
        moves = sum(len(tokens_BLD) * (tokens_BLD.shape[1] - 1) for tokens_BLD in tokens)
        fold = self._fold() if self.attends_time and moves > tokens[0].shape[2] else None
        return [self._update(tokens_BLD, T, fold) for tokens_BLD, T in zip(tokens, num_frames, strict=True)]

    def _fold(self) -> tuple[Tensor, Tensor]:
        """Weight [D, D] and bias [D] of `temporal_attn.proj` and `temporal_fc` in one, but for the bias of the latter.

        Two Linear layers in a row are one. Dropping a path scales a row by a factor m, which commutes with a product:
        fc(m proj(a)) = m (F P a + F p) + f, for weights F, P and biases f, p. The product F P costs what D tokens cost,
        and saves one Linear a token.
        """
        inner, outer = self.temporal_attn.proj, self.temporal_fc
        return outer.weight @ inner.weight, outer.weight @ inner.bias

    def _in_time(self, patches_PTD: Tensor, fold: tuple[Tensor, Tensor] | None) -> Tensor:
        """What attention along time adds to each patch [P, T, D]. `temporal_fc` comes after the drop, so that a dropped
        row still gets its bias."""
        normed_PTD = self.temporal_norm1(patches_PTD)
        if fold is None:
            change_PTD: Tensor = self.temporal_fc(self.drop_path(self.temporal_attn(normed_PTD)))
            return change_PTD
        weight_DD, bias_D = fold
        folded_PTD = linear(self.temporal_attn.before_projection(normed_PTD), weight_DD, bias_D)
        dropped_PTD: Tensor = self.drop_path(folded_PTD)
        return dropped_PTD + self.temporal_fc.bias

    def _update(self, tokens_BLD: Tensor, num_frames: int, fold: tuple[Tensor, Tensor] | None) -> Tensor:
        B, L, D = tokens_BLD.shape
        T, class_tokens = num_frames, 1 if self.attends_time else num_frames
        N = (L - class_tokens) // T
        cls_BXD = tokens_BLD[:, :class_tokens]

        # Time. Class tokens stay out.
        patches_PTD = tokens_BLD[:, class_tokens:].reshape(B * N, T, D)
        if self.attends_time:
            patches_PTD = patches_PTD + self._in_time(patches_PTD, fold)
        patches_PTD = self.attention_adapter(patches_PTD)

        # Space. Every frame gets a copy of the class token as the block received it, and the copies vote by their mean;
        # unless it has one of its own.
        patches_BNTD = patches_PTD.view(B, N, T, D)
        cls_BT1D = cls_BXD.expand(B, T, D).unsqueeze(2)
        frames_FND = torch.cat([cls_BT1D, patches_BNTD.transpose(1, 2)], dim=2).flatten(0, 1)
        change_BTND = self.drop_path(self.attn(self.norm1(frames_FND))).unflatten(0, (B, T))
        votes_BTD = change_BTND[:, :, 0]
        cls_BXD = cls_BXD + (votes_BTD.mean(dim=1, keepdim=True) if self.attends_time else votes_BTD)
        patches_BNTD = patches_BNTD + change_BTND[:, :, 1:].transpose(1, 2)
        patches_BNTD = self.perceptron_adapter(patches_BNTD.flatten(0, 1)).view(B, N, T, D)

        tokens_BLD = torch.cat([cls_BXD, patches_BNTD.flatten(1, 2)], dim=1)
        updated_BLD: Tensor = tokens_BLD + self.drop_path(self.mlp(self.norm2(tokens_BLD)))
        return updated_BLD


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): some rows of its input become zero, the rest are scaled so that the mean
    stays. Rows are those of the first dimension."""

    keep: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        # A tensor, since a number would make of every block, each with a rate of its own, another graph to compile. On
        # the CPU even where networks are made without memory, for it is in no file of weights.
        self.register_buffer("keep", torch.tensor(1 - rate, device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape; itself outside of training."""
        if not self.training:
            return x
        draws = torch.rand((len(x),) + (1,) * (x.ndim - 1), device=x.device)
        return x * ((draws < self.keep) / self.keep).to(x.dtype)
