"""The DenseNet that looks at one plane, with taps at several scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monai.networks.nets.densenet import DenseNet
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from osteoscope.config import Trunk


@dataclass(frozen=True, kw_only=True)
class TrunkPlan:
    """Sizes of a DenseNet (Huang et al., CVPR 2017, table 1)."""

    blocks: tuple[int, ...]
    growth: int = 32
    stem: int = 64

    def tap_channels(self) -> tuple[int, ...]:
        """Count the channels after each dense block; a transition halves them before the next."""
        channels, taps = self.stem, []
        for layers in self.blocks:
            channels += layers * self.growth
            taps.append(channels)
            channels //= 2
        return tuple(taps)


PLANS: dict[Trunk, TrunkPlan] = {
    "densenet121": TrunkPlan(blocks=(6, 12, 24, 16)),
    "densenet169": TrunkPlan(blocks=(6, 12, 32, 32)),
    "densenet201": TrunkPlan(blocks=(6, 12, 48, 32)),
    # 121 without its last block: a third of the parameters, and the stride-16 grid is its coarsest.
    "densenet121-truncated": TrunkPlan(blocks=(6, 12, 24)),
    # Small enough to learn something from a few dozen patients in a minute, and to train in a test.
    "densenet-tiny": TrunkPlan(blocks=(2, 2, 2, 2), growth=8, stem=16),
}


class DenseTrunk(nn.Module):
    """MONAI's DenseNet, cut so that every block from the second on can be tapped.

    Block ``b`` (counted from 1) has stride ``2 ** (b + 1)``.
    """

    def __init__(self, trunk: Trunk, in_channels: int) -> None:
        super().__init__()
        plan = PLANS[trunk]
        # Its classifier is not kept; one output channel makes it small.
        features = DenseNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=1,
            init_features=plan.stem,
            growth_rate=plan.growth,
            block_config=plan.blocks,
        ).features
        self.stem = nn.Sequential(*(features.get_submodule(name) for name in ("conv0", "norm0", "relu0", "pool0")))
        last = len(plan.blocks)
        self.blocks = nn.ModuleList(features.get_submodule(f"denseblock{b}") for b in range(1, last + 1))
        self.transitions = nn.ModuleList(features.get_submodule(f"transition{b}") for b in range(1, last))
        self.tap_channels = plan.tap_channels()[1:]
        self.tap_strides = tuple(2 ** (b + 1) for b in range(2, last + 1))

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        """Compute the taps.

        Parameters
        ----------
        planes
            (planes, channels, rows, columns), standardised.

        Returns
        -------
        tuple
            After blocks 2, 3, …: (planes, tap channels, rows / stride, columns / stride) each, before activation.
        """
        x = self.stem(planes)
        taps = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number > 0:
                taps.append(x)
            if number < len(self.transitions):
                x = _shrunk(self.transitions[number], x)
        return tuple(taps)


def _shrunk(transition: Any, x: Tensor) -> Tensor:
    """Pass a transition, its pooling before its 1x1 convolution.

    Both are linear, so the order does not change the result, and this one convolves a quarter of the positions.
    """
    shrunk: Tensor = transition.conv(transition.pool(transition.relu(transition.norm(x))))
    return shrunk
