"""Pre-training in the shape of the released Endo-FM code, from its description: what ratios are measured against.

It computes what `endofm` computes, and a test holds that: same views, same loss, same gradients. What differs is how.
Every frame of a clip is decoded, converted and stacked; each view is augmented alone, in float32, on the CPU; attention
is an explicit softmax; tokens are copied from layout to layout for every use; the backbone is called once for each run
of views of one shape, six times for the student and twice for the teacher; the loss is a loop over 18 pairs; gradients
are clipped parameter by parameter, the host waiting for each norm; and the teacher is averaged in a Python loop.

Parameters have the names of `endofm`, so that a state of one fits the other. Views come as lists, one tensor
[B, 3, T, S, S] each.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from endofm.data.views import View, ViewConfig, ViewPlan
from endofm.models import ModelConfig
from endofm.objectives.dino import DinoConfig

Section = Callable[[str], AbstractContextManager[None]]
"""Marks a part of a step, so that a benchmark can time it."""


def no_sections(_name: str) -> AbstractContextManager[None]:
    """For whoever does not measure."""
    return nullcontext()


# --- data ----------------------------------------------------------------------------------------------------------


def decode_every_frame(video: bytes) -> Tensor:
    """All frames of a clip as uint8 [N, H, W, 3], RGB."""
    with av.open(io.BytesIO(video), mode="r") as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # one thread, as ours: parallelism is that of the loader's processes
        stream.codec_context.thread_count = 1
        return torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]))


def augment(frames_NHWC: Tensor, plan: ViewPlan, config: ViewConfig) -> list[Tensor]:
    """The views of one clip, float32 [3, T, S, S] each."""
    shapes = config.view_shapes
    return [
        augment_view(frames_NHWC[list(view.frames)], view, size, config)
        for view, (_, size) in zip(plan.views, shapes, strict=True)
    ]


def augment_view(frames_THWC: Tensor, view: View, size: int, config: ViewConfig) -> Tensor:
    """Float first, then crop, resize, flip, jitter, grey, normalise: one after the other over all frames."""
    pixels_TCHW = frames_THWC.permute(0, 3, 1, 2).float() / 255
    top, left, height, width = view.box
    pixels_TCHW = pixels_TCHW[:, :, top : top + height, left : left + width]
    pixels_TCHW = F.interpolate(pixels_TCHW, size=(size, size), mode="bicubic", align_corners=False)
    if view.flip:
        pixels_TCHW = pixels_TCHW.flip(-1)
    for kind in view.order:
        grey_T1HW = grey(pixels_TCHW, config)
        other = (torch.zeros_like(pixels_TCHW), grey_T1HW.mean(dim=(-1, -2), keepdim=True), grey_T1HW)[kind]
        pixels_TCHW = view.factors[kind] * pixels_TCHW + (1 - view.factors[kind]) * other
    if view.grayscale:
        pixels_TCHW = grey(pixels_TCHW, config).repeat(1, 3, 1, 1)
    if config.clamp:
        pixels_TCHW = pixels_TCHW.clamp(0, 1)
    mean_C11, std_C11 = torch.tensor(config.mean).view(3, 1, 1), torch.tensor(config.std).view(3, 1, 1)
    return ((pixels_TCHW - mean_C11) / std_C11).transpose(0, 1).contiguous()


def grey(pixels_TCHW: Tensor, config: ViewConfig) -> Tensor:
    """[T, 3, H, W] to [T, 1, H, W]."""
    red, green, blue = config.grey_weights
    return (red * pixels_TCHW[:, 0] + green * pixels_TCHW[:, 1] + blue * pixels_TCHW[:, 2]).unsqueeze(1)


def load_views(videos: Sequence[bytes], plans: Sequence[ViewPlan], config: ViewConfig) -> list[Tensor]:
    """From the bytes of B clips to what is handed to the device: float32 views, collated."""
    clips = [augment(decode_every_frame(video), plan, config) for video, plan in zip(videos, plans, strict=True)]
    return [torch.stack(views) for views in zip(*clips, strict=True)]


# --- networks ------------------------------------------------------------------------------------------------------


class PlainAttention(nn.Module):
    """Scores, softmax, values, each in full."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (width // num_heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x_SMD: Tensor) -> Tensor:
        """[S, M, D] to the same shape."""
        S, M, D = x_SMD.shape
        query, key, value = self.qkv(x_SMD).reshape(S, M, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        scores = (query @ key.transpose(-2, -1)) * self.scale
        return self.proj((scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(S, M, D))


class PlainMlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class PlainBlock(nn.Module):
    """Attention in time, a Linear, attention in space, perceptron; back to [B, 1+N*T, D] after each."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = PlainAttention(width, num_heads)
        self.temporal_norm1 = nn.LayerNorm(width, eps=1e-6)
        self.temporal_attn = PlainAttention(width, num_heads)
        self.temporal_fc = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = PlainMlp(width, int(width * mlp_ratio))

    def forward(self, x_BLD: Tensor, frames: int) -> Tensor:
        """[B, 1+N*T, D] to the same shape."""
        (B, L, D), T = x_BLD.shape, frames
        N = (L - 1) // T
        time_PTD = x_BLD[:, 1:].reshape(B * N, T, D)
        change = self.dropped(self.temporal_attn(self.temporal_norm1(time_PTD)))
        patches = x_BLD[:, 1:] + self.temporal_fc(change.reshape(B, N * T, D))

        cls_B1D = x_BLD[:, 0].unsqueeze(1)
        cls_F1D = cls_B1D.repeat(1, T, 1).reshape(B * T, D).unsqueeze(1)
        space_FND = patches.reshape(B, N, T, D).transpose(1, 2).reshape(B * T, N, D)
        change = self.dropped(self.attn(self.norm1(torch.cat([cls_F1D, space_FND], dim=1))))
        cls_change = change[:, 0].reshape(B, T, D).mean(dim=1, keepdim=True)
        patch_change = change[:, 1:].reshape(B, T, N, D).transpose(1, 2).reshape(B, N * T, D)
        x_BLD = torch.cat([cls_B1D, patches], dim=1) + torch.cat([cls_change, patch_change], dim=1)
        return x_BLD + self.dropped(self.mlp(self.norm2(x_BLD)))

    def dropped(self, x: Tensor) -> Tensor:
        """Stochastic depth over the first dimension."""
        if not self.drop or not self.training:
            return x
        keep = 1 - self.drop
        mask = keep + torch.rand((len(x),) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device)
        return x.div(keep) * mask.floor_()


class PatchEmbed(nn.Module):
    """A convolution over every frame."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """[B, 3, T, H, W] to [B*T, N, D]."""
        B, C, T, H, W = x_BCTHW.shape
        return self.proj(x_BCTHW.permute(0, 2, 1, 3, 4).reshape(B * T, C, H, W)).flatten(2).transpose(1, 2)


class PlainBackbone(nn.Module):
    """Divided space-time attention over square pictures, one call a shape."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, self.side = config.embed_dim, config.image_size // config.patch_size
        self.patch_embed = PatchEmbed(config.patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.side**2, width))
        self.time_embed = nn.Parameter(torch.zeros(1, config.num_frames, width))
        drops = torch.linspace(0, config.drop_path, config.depth).tolist()
        self.blocks = nn.ModuleList([PlainBlock(width, config.num_heads, config.mlp_ratio, drop) for drop in drops])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """[B, 3, T, S, S] to the feature of the class token [B, D]."""
        B, T = x_BCTHW.shape[0], x_BCTHW.shape[2]
        x_FND = self.patch_embed(x_BCTHW)
        N, D = x_FND.shape[1:]
        x = torch.cat([self.cls_token.expand(B * T, -1, -1), x_FND], dim=1)
        x = x + self.positions(N)
        cls_B1D = x[:B, 0].unsqueeze(1)
        x = x[:, 1:].reshape(B, T, N, D).transpose(1, 2).reshape(B * N, T, D)
        times_1DT = F.interpolate(self.time_embed.transpose(1, 2), size=T, mode="nearest")
        x = (x + times_1DT.transpose(1, 2)).reshape(B, N * T, D)
        x = torch.cat([cls_B1D, x], dim=1)
        for block in self.blocks:
            x = block(x, T)
        return self.norm(x)[:, 0]

    def positions(self, num_patches: int) -> Tensor:
        """Of class token and patches [1, 1+N, D]."""
        if num_patches == self.side**2:
            return self.pos_embed
        side = round(num_patches**0.5)
        table = self.pos_embed[:, 1:].transpose(1, 2).reshape(1, -1, self.side, self.side)
        table = F.interpolate(table, size=(side, side), mode="nearest").flatten(2).transpose(1, 2)
        return torch.cat([self.pos_embed[:, :1], table], dim=1)


class PlainHead(nn.Module):
    """Perceptron, unit length, prototypes of unit length."""

    def __init__(self, width: int, config: DinoConfig) -> None:
        super().__init__()
        hidden = config.head_hidden
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, config.head_bottleneck),
        )
        self.last_layer = nn.Module()
        self.last_layer.weight_g = nn.Parameter(torch.ones(config.prototypes, 1), requires_grad=False)
        self.last_layer.weight_v = nn.Parameter(torch.randn(config.prototypes, config.head_bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        """[X, D] to [X, K], in float32 as ours."""
        x = F.normalize(self.mlp(x).float(), dim=-1)
        with torch.autocast(x.device.type, enabled=False):
            last = self.last_layer
            return F.linear(x, last.weight_g * last.weight_v / last.weight_v.norm(dim=1, keepdim=True))


class PlainNetwork(nn.Module):
    """Backbone and head."""

    def __init__(self, config: DinoConfig, model: ModelConfig) -> None:
        super().__init__()
        self.backbone, self.head = PlainBackbone(model), PlainHead(model.embed_dim, config)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """V views to logits [V*B, K], one call of the backbone for neighbours of equal shape."""
        runs = [list(run) for _, run in itertools.groupby(views, key=lambda view: view.shape)]
        return self.head(torch.cat([self.backbone(torch.cat(run)) for run in runs]))


# --- a step --------------------------------------------------------------------------------------------------------


def plain_loss(logits: Tensor, targets: Tensor, num_views: int, centre: Tensor, config: DinoConfig) -> Tensor:
    """One cross-entropy after the other, and their mean: 18 of them for the two global and eight local views."""
    student = (logits / config.student_temperature).chunk(num_views)
    teacher = F.softmax((targets - centre) / config.teacher_temperature, dim=-1).detach().chunk(2)
    total, pairs = torch.zeros((), device=logits.device), 0
    for i, target in enumerate(teacher):
        for v, prediction in enumerate(student):
            if v != i:
                total = total + (-target * F.log_softmax(prediction, dim=-1)).sum(dim=-1).mean()
                pairs += 1
    return total / pairs


def clip_one_by_one(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Every gradient to a norm of at most `max_norm`, each norm fetched from the device."""
    for parameter in parameters:
        if parameter.grad is not None:
            norm = parameter.grad.norm(2).item()
            if max_norm / (norm + 1e-6) < 1:
                parameter.grad.mul_(max_norm / (norm + 1e-6))


class PlainTrainer:
    """Student, teacher, centre and optimiser; float16 with a scaler on a GPU, or what `dtype` says."""

    def __init__(
        self, config: DinoConfig, model: ModelConfig, *, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> None:
        self.config, self.device, self.dtype = config, torch.device(device), dtype
        self.student = PlainNetwork(config, model).to(device)
        self.teacher = PlainNetwork(config, model).to(device).requires_grad_(False).eval()
        self.teacher.load_state_dict(self.student.state_dict())
        self.centre = torch.zeros(1, config.prototypes, device=device)
        trained = [parameter for parameter in self.student.parameters() if parameter.requires_grad]
        groups = [{"params": [p for p in trained if p.ndim > 1]}, {"params": [p for p in trained if p.ndim <= 1]}]
        groups[1]["weight_decay"] = 0.0  # type: ignore[assignment]
        self.optimizer = torch.optim.AdamW(groups, lr=2e-5, weight_decay=0.04, foreach=False)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype is torch.float16)

    def loss(self, views: Sequence[Tensor], section: Section = no_sections) -> Tensor:
        """Of one batch, and moves the centre."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            with section("teacher"), torch.no_grad():
                targets = self.teacher(views[:2])
            with section("student"):
                logits = self.student(views)
        with section("loss"):
            loss = plain_loss(logits, targets, len(views), self.centre, self.config)
            momentum = self.config.centre_momentum
            self.centre = self.centre * momentum + targets.mean(dim=0, keepdim=True) * (1 - momentum)
        return loss

    def step(self, views: Sequence[Tensor], *, momentum: float = 0.996, section: Section = no_sections) -> float:
        """One step of training."""
        loss = self.loss(views, section)
        value = loss.item()
        self.optimizer.zero_grad()
        with section("backward"):
            self.scaler.scale(loss).backward()
        with section("clip"):
            self.scaler.unscale_(self.optimizer)
            clip_one_by_one(self.student.parameters(), 3.0)
        with section("optimiser"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        with section("average"), torch.no_grad():
            for student, teacher in zip(self.student.parameters(), self.teacher.parameters(), strict=True):
                teacher.data.mul_(momentum).add_((1 - momentum) * student.detach().data)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return value

    def forget_gradients(self) -> None:
        """Give their memory back."""
        self.optimizer.zero_grad()
