"""ST-Adapter: small trainable layers inside a frozen transformer (Pan et al., NeurIPS 2022; facts from its MIT code).

Between two Linear layers a place of the picture looks at the frames before and after: a convolution over time, channel
by channel. The published network attends within frames only (`ModelConfig.attends`) and gets its sense of time from
this alone; in blocks that attend along time as well, the adapters sit in the same places.

Shape suffixes: P places, T frames of each, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.functional import pad


class STAdapter(nn.Module):
    """Adds to each patch what a bottleneck makes of it and of the same place one frame before and after."""

    def __init__(self, width: int, bottleneck: int) -> None:
        """Changes nothing at first: the convolution is zero, and so are all biases."""
        super().__init__()
        self.fc1 = nn.Linear(width, bottleneck)
        self.conv = nn.Conv3d(bottleneck, bottleneck, (3, 1, 1), padding=(1, 0, 0), groups=bottleneck)
        self.fc2 = nn.Linear(bottleneck, width)
        self.reset()

    def reset(self) -> None:
        """Draw the weights of both Linear layers as torch does, and set everything else to zero."""
        for layer in (self.fc1, self.fc2):
            layer.reset_parameters()
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.conv.weight)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, patches_PTD: Tensor) -> Tensor:
        """[P, T, D] to the same shape; beyond the first and the last frame there is zero."""
        inner_PTC = self.fc1(patches_PTD)
        # Written out: on a CPU, torch's grouped convolution took 23 ms where these three products took 0.9 (measured).
        before_C, now_C, after_C = self.conv.weight[:, 0, :, 0, 0].to(inner_PTC.dtype).unbind(1)
        padded_PTC = pad(inner_PTC, (0, 0, 1, 1))
        change_PTC = inner_PTC * now_C + padded_PTC[:, :-2] * before_C + padded_PTC[:, 2:] * after_C
        if self.conv.bias is not None:
            change_PTC = change_PTC + self.conv.bias.to(inner_PTC.dtype)
        changed: Tensor = patches_PTD + self.fc2(change_PTC)
        return changed


def freeze_all_but_adapters_(backbone: nn.Module) -> None:
    """Let the adapters of a backbone train and nothing else; what was frozen already stays so."""
    adapters = {id(parameter) for parameter in adapter_parameters(backbone)}
    for parameter in backbone.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in adapters)


def adapter_parameters(backbone: nn.Module) -> Iterator[nn.Parameter]:
    """Those of all adapters inside."""
    for module in backbone.modules():
        if isinstance(module, STAdapter):
            yield from module.parameters()


def share_all_but_adapters_(of: nn.Module, with_: nn.Module) -> None:
    """Make `with_`, a backbone of the same shape, use the very parameters of `of`, save for its adapters."""
    theirs = dict(of.named_modules())
    for name, module in with_.named_modules():
        inside_adapter = any(isinstance(with_.get_submodule(part), STAdapter) for part in _ancestors(name))
        if not inside_adapter:
            for own in list(dict(module.named_parameters(recurse=False))):
                setattr(module, own, getattr(theirs[name], own))


def _ancestors(name: str) -> list[str]:
    """A module's name and those of the modules around it, the outermost left out."""
    parts = name.split(".") if name else []
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
