"""A trunk laid out for prediction: the same function, with less copying between its layers.

A dense layer reads all that the block has computed so far, laid behind each other. Written so, a block of n layers
copies its first channels n times. But a 1x1 convolution of channels that lie in several parts is the sum of the
convolutions of the parts, and normalisation and activation go channel by channel: so only the newest channels are laid
behind each other, and a part is closed once it is as wide as a product of matrices wants it to be.

The normalisation behind each 1x1 convolution becomes part of its weights, since a runtime that would have folded it
cannot look through the sum.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from osteoscope.network.classifier import TumourNetwork

CLOSED_AT = 128
"""Channels from which on a part is copied no more; 128 and 256 were as fast, and faster than none."""


def laid_out(network: TumourNetwork) -> TumourNetwork:
    """Copy a fitted network, its trunk laid out for prediction; what it computes is the same but for rounding.

    Parameters
    ----------
    network
        In evaluation; it stays as it is.
    """
    copied = copy.deepcopy(network)
    trunk = copied.encoder.trunk
    trunk.blocks = nn.ModuleList(_Block(block) for block in trunk.blocks)
    return copied.eval()


class _Block(nn.Module):
    """A dense block that holds what it has computed in parts."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        layers = list(block)
        parts, newest = [layers[0].layers.norm1.num_features], 0
        self.layers, self._closes = nn.ModuleList(), []
        for layer in layers:
            self.layers.append(_Layer(layer, [*parts, newest] if newest else parts))
            newest += layer.layers.conv2.out_channels
            self._closes.append(newest >= CLOSED_AT)
            if self._closes[-1]:
                parts, newest = [*parts, newest], 0

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block: (planes, channels, rows, columns) -> the same with the new channels behind."""
        parts: list[Tensor] = [x]
        newest: list[Tensor] = []
        for layer, closes in zip(self.layers, self._closes, strict=True):
            new = layer([*parts, *newest])
            newest = [torch.cat([*newest, new], dim=1)] if newest else [new]
            if closes:
                parts, newest = parts + newest, []
        return torch.cat([*parts, *newest], dim=1)


class _Layer(nn.Module):
    """A dense layer that reads channels in parts."""

    def __init__(self, layer: Any, channels: Sequence[int]) -> None:
        super().__init__()
        inner = layer.layers
        weight, bias = _folded(inner.conv1, inner.norm2)
        splits = zip(
            *(torch.split(values, list(channels)) for values in _affine_of(inner.norm1)),
            torch.split(weight, list(channels), dim=1),
            strict=True,
        )
        last = len(channels) - 1
        self.parts = nn.ModuleList(
            _Part(gain, shift, kernel, bias if place == last else None)
            for place, (gain, shift, kernel) in enumerate(splits)
        )
        self.conv2 = inner.conv2

    def forward(self, parts: Iterable[Tensor]) -> Tensor:
        """Compute the new channels."""
        first, *others = (one(part) for one, part in zip(self.parts, parts, strict=True))
        # Behind each other, so that each sum can be taken while its convolution is written.
        for other in others:
            first = first + other
        new: Tensor = self.conv2(functional.relu(first))
        return new


class _Part(nn.Module):
    """Normalisation, activation and 1x1 convolution of some of the channels."""

    def __init__(self, gain: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        # Kept as a normalisation, which runtimes know how to join with the activation behind it.
        self.norm = nn.BatchNorm2d(len(gain), eps=0.0)
        self.norm.weight.data.copy_(gain)
        self.norm.bias.data.copy_(shift)
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], kernel_size=1, bias=bias is not None)
        self.conv.weight.data.copy_(weight)
        if bias is not None and self.conv.bias is not None:
            self.conv.bias.data.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute this part's share in the sum."""
        share: Tensor = self.conv(functional.relu(self.norm(x)))
        return share


def _affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Write a fitted normalisation as gain and shift: (channels,) each."""
    if norm.running_mean is None or norm.running_var is None:
        msg = "expected a normalisation with running statistics"
        raise ValueError(msg)
    gain = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    return gain, norm.bias.detach() - norm.running_mean * gain


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Make a normalisation part of the convolution before it: its weight, and a bias."""
    gain, shift = _affine_of(norm)
    return conv.weight.detach() * gain[:, None, None, None], shift
