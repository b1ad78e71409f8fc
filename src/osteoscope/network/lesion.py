"""Where a lesion is, of whatever kind: map A says so coarsely, the finest tap says where it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional

from osteoscope.network.multiscale import TapProjection

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 64
USUAL_LOGIT = -3.0
"""Of an untrained head: few places of an image are lesion, and to start from one half would cost the first epochs."""


class LesionHead(nn.Module):
    """A light decoder of one step: map A enlarged to the grid of the finest tap (stride 8), joined with it, mixed.

    References
    ----------
    Ronneberger O, Fischer P, Brox T. U-Net: convolutional networks for biomedical image segmentation. MICCAI 2015 (a
    coarse map enlarged and joined with a finer one).
    """

    def __init__(self, map_channels: int, tap_channels: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(map_channels, WIDTH, kernel_size=1, bias=False)
        self.fine = TapProjection(tap_channels, WIDTH)
        self.mix = nn.Sequential(
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
        )
        self.last = nn.Conv2d(WIDTH, 1, kernel_size=1)
        nn.init.constant_(self.last.bias, USUAL_LOGIT)  # type: ignore[arg-type]

    def forward(self, maps: Tensor, tap: Tensor) -> Tensor:
        """Give the logit of lesion at each place of the tap.

        Parameters
        ----------
        maps
            (planes, K, h, w), map A.
        tap
            (planes, channels, rows / 8, columns / 8).

        Returns
        -------
        Tensor
            (planes, rows / 8, columns / 8).
        """
        coarse = functional.interpolate(self.coarse(maps), size=tap.shape[-2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.last(self.mix(coarse + self.fine(tap)))
        return logits.squeeze(1)
