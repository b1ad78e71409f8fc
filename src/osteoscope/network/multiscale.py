"""From taps of several strides to one map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

FUSED_STRIDE = 16


class TapProjection(nn.Sequential):
    """A tap to the common width: normalise, activate, 1x1 convolution (DenseNet's own order)."""

    def __init__(self, channels: int, width: int, *, shrink: int = 1) -> None:
        super().__init__(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, width, kernel_size=1, bias=False))
        self.shrink = shrink

    def forward(self, x: Tensor) -> Tensor:
        """Project a tap, averaged down by `shrink`: (planes, width, rows / shrink, columns / shrink)."""
        norm, activation, convolution = self
        activated = activation(norm(x))
        projected: Tensor = convolution(
            activated if self.shrink == 1 else functional.avg_pool2d(activated, kernel_size=self.shrink)
        )
        return projected


class MultiScaleFusion(nn.Module):
    """Sum of all taps at a common width on the stride-16 grid, coarse to fine.

    Finer taps are averaged down, coarser ones enlarged bilinearly. The 1x1 convolution comes where positions are
    fewest, behind the one and before the other: all are linear, so the order does not change the result.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            TapProjection(c, width, shrink=max(1, FUSED_STRIDE // stride))
            for c, stride in zip(channels, strides, strict=True)
        )
        self.strides = tuple(strides)

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        """Fuse taps of (planes, channels, rows, columns) each into (planes, width, rows / 16, columns / 16)."""
        grid = taps[self.strides.index(FUSED_STRIDE)].shape[-2:]
        projected = [projection(tap) for projection, tap in zip(self.projections, taps, strict=True)]
        return torch.stack([_to_grid(x, grid, s) for x, s in zip(projected, self.strides, strict=True)]).sum(dim=0)


def _to_grid(x: Tensor, grid: torch.Size, stride: int) -> Tensor:
    if stride <= FUSED_STRIDE:
        return x
    return functional.interpolate(x, size=grid, mode="bilinear", align_corners=False)
