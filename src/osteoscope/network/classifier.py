"""The whole network: a bag of planes and covariates in, logits out, with evidence in closed form.

For patient p with planes n, weights alpha_n (softmax of gate scores) and maps A_n (ReLU, K channels, H x W)::

    vector_n = mean over positions of A_n                                   (K,)
    logit_c  = sum_n alpha_n * <w_c, vector_n> + b_c + <u_c, covariates>

Softmax does not change when one vector is added to all w_c, so evidence uses v_c = w_c - mean_j w_j. The signed map of
class c on plane n is ``sum_k v_ck A_nk``; times alpha_n / (H W) and summed over positions and planes it is exactly the
images' part of the centred logit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from osteoscope.network.attention import GridSelfAttention
from osteoscope.network.lesion import LesionHead
from osteoscope.network.multiscale import MultiScaleFusion, TapProjection
from osteoscope.network.pooling import EqualGate, PlaneGate, plane_weights
from osteoscope.network.trunk import DenseTrunk

if TYPE_CHECKING:
    from torch import Tensor

    from osteoscope.config import NetworkConfig

# Below this spread a plane is constant for all that a network could see; keeps the division finite.
SMALLEST_SPREAD = 1e-4

# Added to each position's likelihood of lesion, so that a plane without any is heard as a whole.
FOCUS_OFFSET = 0.02


class PlaneReading(NamedTuple):
    """What the network reads from each plane by itself."""

    scores: Tensor
    """(planes,) gate scores."""
    vectors: Tensor
    """(planes, K) pooled maps."""
    maps: Tensor
    """(planes, K, rows, columns), not negative."""
    lesions: Tensor
    """(planes, rows, columns), the logit of lesion at each place of the finest tap's grid."""


# Not a dataclass: Fabric rebuilds what a forward pass returns, and cannot rebuild a frozen one.
class PatientReading(NamedTuple):
    """What the network says of each patient."""

    logits: Tensor
    """(patients, classes), free of the class prior when trained with logit adjustment."""
    weights: Tensor
    """(patients, planes), rows sum to 1."""


class NetworkReading(NamedTuple):
    """What the network says of each patient, and where it holds a lesion to be."""

    logits: Tensor
    """As in `PatientReading`."""
    weights: Tensor
    """As in `PatientReading`."""
    lesions: Tensor
    """As in `PlaneReading`."""


class PlaneEncoder(nn.Module):
    """One plane at a time: standardise, trunk, fusion, attention, map A.

    Parameters
    ----------
    config
        Which network.
    in_channels
        Of a plane, all of them.
    modalities
        How many of these, the last, tell which modality the plane is of (`osteoscope.imaging.mixed`); what the network
        makes of that is added to the fused map of all positions alike.
    """

    def __init__(self, config: NetworkConfig, in_channels: int, *, modalities: int = 0) -> None:
        super().__init__()
        self.trunk = DenseTrunk(config.trunk, in_channels - modalities)
        channels, strides = self.trunk.tap_channels, self.trunk.tap_strides
        plain = not (config.multiscale or config.attention)
        self.map_channels = channels[-1] if plain else config.width
        self.fusion: nn.Module
        if config.multiscale:
            self.fusion = MultiScaleFusion(channels, strides, config.width)
        elif plain:
            self.fusion = LastTap(nn.Identity())
        else:
            self.fusion = LastTap(TapProjection(channels[-1], config.width))
        self.attention = GridSelfAttention(config.width, config.heads) if config.attention else nn.Identity()
        self.matched = (
            MatchedControl(self.map_channels, _spare_parameters(config, channels, strides))
            if (config.matched)
            else nn.Identity()
        )
        self.norm = nn.BatchNorm2d(self.map_channels)
        self.activation = nn.ReLU()
        # A module of its own, so that Grad-CAM can be asked for map A by name.
        self.map = Focus() if config.focus else Unfocused()
        self.lesion = LesionHead(self.map_channels, channels[0])
        self.gate = PlaneGate(self.map_channels) if config.pooling == "gated" else EqualGate()
        # Last, so that a network of one modality begins with the weights that it always began with.
        self.modality = ModalityShift(modalities, self.map_channels) if modalities else None

    def forward(self, planes: Tensor) -> PlaneReading:
        """Read planes of (planes, channels, rows, columns), values of the image's channels in any unit."""
        images = planes if self.modality is None else planes[:, : -self.modality.modalities]
        taps = self.trunk(standardise(images))
        fused = self.fusion(taps)
        if self.modality is not None:
            fused = fused + self.modality(planes)
        activated = self.activation(self.norm(self.matched(self.attention(fused))))
        lesions = self.lesion(activated, taps[0])
        maps = self.map(activated, lesions)
        vectors = maps.mean(dim=(-2, -1))
        return PlaneReading(scores=self.gate(vectors), vectors=vectors, maps=maps, lesions=lesions)

    def presence(self, vectors: Tensor) -> Tensor | None:
        """Give the logit of each plane showing what matters, (planes,) from (planes, K); None where all weigh alike."""
        return self.gate.logits(vectors) if isinstance(self.gate, PlaneGate) else None


class ModalityShift(nn.Module):
    """What a plane's modality adds to its map, the same at every position; nothing before it is learnt."""

    def __init__(self, modalities: int, map_channels: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.linear = nn.Linear(modalities, map_channels, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, planes: Tensor) -> Tensor:
        """Give the shift of planes (planes, channels, rows, columns) by their last channels: (planes, K, 1, 1)."""
        shift: Tensor = self.linear(planes[:, -self.modalities :, 0, 0])
        return shift[:, :, None, None]


class Focus(nn.Module):
    """Let each position of a plane speak as much as it is likely to be lesion.

    The weights of a plane's positions have mean 1, so a plane that is nowhere or everywhere likely to be lesion is left
    as it is. What the class is learnt from does not teach where lesions are, so no gradient passes through the weights,
    and the closed form of the evidence holds as it stands.
    """

    def forward(self, activated: Tensor, lesions: Tensor) -> Tensor:
        """Weigh the positions of a map.

        Parameters
        ----------
        activated
            (planes, K, rows, columns).
        lesions
            (planes, h, w), the logit of lesion, on a grid that divides each position evenly.

        Returns
        -------
        Tensor
            (planes, K, rows, columns), map A.
        """
        likely = torch.sigmoid(lesions.detach())[:, None] + FOCUS_OFFSET
        likely = functional.avg_pool2d(likely, kernel_size=lesions.shape[-1] // activated.shape[-1])
        weights = likely / likely.mean(dim=(-2, -1), keepdim=True)
        return activated * weights


class Unfocused(nn.Module):
    """All positions speak alike."""

    def forward(self, activated: Tensor, lesions: Tensor) -> Tensor:
        """Return `activated`."""
        del lesions
        return activated


class LastTap(nn.Module):
    """The coarsest tap alone: what a DenseNet without multi-scale fusion reads."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, taps: tuple[Tensor, ...]) -> Tensor:
        """Project the last tap: (planes, width, rows, columns)."""
        projected: Tensor = self.projection(taps[-1])
        return projected


class MatchedControl(nn.Module):
    """As many parameters as the parts it stands in for, and nothing but position-wise convolutions.

    Sets attention and multi-scale fusion beside a network of equal size that can mix neither positions nor scales.
    """

    def __init__(self, channels: int, parameters: int) -> None:
        super().__init__()
        hidden = max(1, round(parameters / (2 * channels)))
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, kernel_size=1, bias=False),
        )
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Change each position by itself: (planes, channels, rows, columns) -> the same shape."""
        changed: Tensor = self.layers(x)
        return x + self.gain * changed


def _spare_parameters(config: NetworkConfig, channels: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Count the parameters of the parts that are switched off."""
    spare = 0
    if not config.multiscale:
        spare += _count(MultiScaleFusion(channels, strides, config.width))
        # With attention alone the last tap is still brought to that width.
        spare -= _count(TapProjection(channels[-1], config.width)) if config.attention else 0
    if not config.attention:
        spare += _count(GridSelfAttention(config.width, config.heads))
    return spare


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class BagHead(nn.Module):
    """The planes of each patient together: weights, pooled vector, covariates, logits."""

    def __init__(self, map_channels: int, classes: int, covariates: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(map_channels, classes)
        self.covariates = nn.Linear(covariates, classes, bias=False) if covariates else None
        if self.covariates is not None:
            # Until it is known what they say (`osteoscope.training.clinical`).
            nn.init.zeros_(self.covariates.weight)

    def forward(
        self, scores: Tensor, vectors: Tensor, membership: Tensor, covariates: Tensor | None = None
    ) -> PatientReading:
        """Judge each patient.

        Parameters
        ----------
        scores, vectors
            (planes,) and (planes, K), of all patients' planes.
        membership
            (patients, planes), True where a plane belongs to a patient.
        covariates
            (patients, covariates), without NaN; only for a network that was built for them.
        """
        said = self.of_images(scores, vectors, membership)
        if self.covariates is None:
            return said
        if covariates is None:
            msg = "this network was built for covariates, got none"
            raise ValueError(msg)
        return said._replace(logits=said.logits + self.covariates(covariates))

    def of_images(self, scores: Tensor, vectors: Tensor, membership: Tensor) -> PatientReading:
        """Judge each patient by the images alone; arguments as of `forward`."""
        weights = plane_weights(scores, membership)
        return PatientReading(logits=self.linear(self.dropout(weights @ vectors)), weights=weights)

    def centred_weights(self) -> Tensor:
        """Class weights less their mean over the classes: (classes, K)."""
        return self.linear.weight - self.linear.weight.mean(dim=0, keepdim=True)


class TumourNetwork(nn.Module):
    """Planes to logits; the two halves are exported one by one."""

    def __init__(
        self, config: NetworkConfig, *, classes: int, covariates: int = 0, in_channels: int = 1, modalities: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = PlaneEncoder(config, in_channels, modalities=modalities)
        self.head = BagHead(self.encoder.map_channels, classes, covariates, config.dropout)

    def forward(self, planes: Tensor, membership: Tensor, covariates: Tensor | None = None) -> NetworkReading:
        """Read planes of (planes, channels, rows, columns) and judge each patient of `membership`."""
        reading = self.encoder(planes)
        judged = self.head(reading.scores, reading.vectors, membership, covariates)
        return NetworkReading(logits=judged.logits, weights=judged.weights, lesions=reading.lesions)

    def class_maps(self, maps: Tensor) -> Tensor:
        """Signed evidence of each class at each position: (planes, K, h, w) -> (planes, classes, h, w)."""
        return torch.einsum("ck,nkhw->nchw", self.head.centred_weights(), maps)


def standardise(planes: Tensor) -> Tensor:
    """Shift and scale each plane and channel to mean 0 and standard deviation 1; a constant plane becomes 0.

    Part of the network, so that training, export and prediction cannot differ in it.
    """
    centred = planes - planes.mean(dim=(-2, -1), keepdim=True)
    spread = centred.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return centred / spread.clamp_min(SMALLEST_SPREAD)
