"""Random looks at images and random changes of what is seen, a batch at a time and on the device that computes.

What is drawn and how it is applied are apart, so that a step can be replayed: `draw_looks` and `draw_changes` use CPU
generators (the same numbers whatever the device, but for the noise, of which there are as many as pixels: it is drawn
where it is added), `apply_changes` uses none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from osteoscope.training.planes import NO_REGION, SQUARES_ELSEWHERE, SQUARES_ROUND, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from osteoscope.config import AugmentationConfig
    from osteoscope.training.planes import PlaneStore

_CPU = torch.device("cpu")

# Sides of an erased rectangle, as a share of the plane's side.
ERASED_SIDES = (0.1, 0.35)
# Depth of a collimated border, as a share of the plane's side.
BORDER_DEPTHS = (0.03, 0.15)


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Which parts of which images a batch reads; all of length (looks,)."""

    images: Tensor
    """Places in the store."""
    canvases: Tensor
    """Places of the canvases that are read."""
    kinds: Tensor
    """`Kind` of each."""
    speak: Tensor
    """Whether it has a say in the class: all of an image and a square with the lesion have; of a volume each plane that
    shows the lesion, or where none is annotated each plane."""


def draw_looks(
    images: Sequence[int], store: PlaneStore, settings: AugmentationConfig, rng: np.random.Generator
) -> Looks:
    """Draw the looks at some images: at the whole or at a square with the lesion, and beside it at another part.

    Parameters
    ----------
    images
        Places in the store, in the order in which their looks are given.
    store
        Of the images; one without squares gets a first look, and this speaks, unless it is a plane without a lesion.
    settings
        How often what is drawn.
    rng
        Advanced by the same amount whatever is drawn.
    """
    drawn: list[tuple[int, int, Kind, bool]] = []
    shares = rng.random((len(images), 2))
    squares = rng.integers((SQUARES_ROUND, SQUARES_ELSEWHERE), size=(len(images), 2))
    for image, (whole, beside), (round_it, other) in zip(images, shares, squares.tolist(), strict=True):
        region, elsewhere = int(store.regions[image, round_it]), int(store.elsewhere[image, other])
        if region == NO_REGION or whole < settings.whole:
            kind = Kind(int(store.kinds[image]))
            drawn.append((image, image, kind, kind != Kind.ELSEWHERE))
        else:
            drawn.append((image, region, Kind.REGION, True))
        if elsewhere != NO_REGION and beside < settings.elsewhere:
            drawn.append((image, elsewhere, Kind.ELSEWHERE, False))
    places, canvases, kinds, speak = zip(*drawn, strict=True)
    return Looks(
        images=torch.tensor(places),
        canvases=torch.tensor(canvases),
        kinds=torch.tensor(kinds),
        speak=torch.tensor(speak),
    )


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What happens to each plane of a batch; all of length (planes,) unless said."""

    matrices: Tensor
    """(planes, 2, 3): from the plane's coordinates to the canvas's, both -1..1 over their own extent."""
    gammas: Tensor
    blurred: Tensor
    """Whether the plane is smoothed."""
    noise: Tensor
    """(planes, 1, size, size), standard deviation included."""
    erased: Tensor
    """(planes, 4): top, bottom, left, right in pixels; equal where nothing is erased."""
    collimated: Tensor
    """(planes, 4): the same of a border strip that is blanked."""
    blank: Tensor
    """The value of that strip, 0 or 1."""

    def to(self, device: torch.device) -> Changes:
        """Move to the device that computes."""
        return Changes(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def draw_changes(
    planes: int,
    *,
    size: int,
    canvas: int,
    settings: AugmentationConfig,
    generator: torch.Generator,
    device: torch.device = _CPU,
) -> Changes:
    """Draw the changes of a batch.

    Parameters
    ----------
    planes
        How many there are.
    size, canvas
        Rows and columns of a plane and of the canvas that it is cut from.
    settings
        How far each change may go.
    generator
        A CPU generator; advanced by the same amount whatever is drawn.
    device
        Where they are applied, and so where the changes are given.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(planes, *shape, generator=generator)

    angle = uniform(-1, 1) * math.radians(settings.rotation)
    mirror = torch.where(uniform(0, 1) < (0.5 if settings.flip else 0.0), -1.0, 1.0)
    # A plane's half side is 1; on the canvas it is size / canvas.
    zoom = torch.exp(uniform(-1, 1) * math.log1p(settings.scale)) * (size / canvas)
    shift = uniform(-1, 1, 2) * 2 * settings.shift * (size / canvas)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    matrices = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, shift[:, 0]], dim=-1),
            torch.stack([sine * mirror, cosine, shift[:, 1]], dim=-1),
        ],
        dim=-2,
    )
    changes = Changes(
        matrices=matrices,
        gammas=torch.exp(uniform(-1, 1) * settings.gamma),
        blurred=uniform(0, 1) < settings.blur,
        noise=_noise((planes, 1, size, size), generator, device) * uniform(0, settings.noise, 1, 1, 1).to(device),
        erased=_draw_rectangles(uniform(0, 1, 5), size, settings.erase),
        collimated=_draw_borders(uniform(0, 1, 3), size, settings.collimate),
        # Most borders are black; on a copied film they are white.
        blank=(uniform(0, 1) < 0.3).float(),
    )
    return changes.to(device)


def _noise(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw normal numbers where they are wanted, from a seed that is drawn here."""
    seed = int(torch.randint(2**31, (), generator=generator))
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def _draw_rectangles(draws: Tensor, size: int, share: float) -> Tensor:
    """Turn draws of (planes, 5) in 0..1 into rectangles (planes, 4), empty for all but `share` of the planes."""
    low, high = ERASED_SIDES
    sides = (low + (high - low) * draws[:, :2]) * size * (draws[:, 4:] < share)
    starts = draws[:, 2:4] * (size - sides)
    top, left = starts.unbind(dim=1)
    height, width = sides.unbind(dim=1)
    return torch.stack([top, top + height, left, left + width], dim=1).round()


def _draw_borders(draws: Tensor, size: int, share: float) -> Tensor:
    """Turn draws of (planes, 3) in 0..1 into strips (planes, 4) along one edge, empty for all but `share`."""
    low, high = BORDER_DEPTHS
    depth = (low + (high - low) * draws[:, 0]) * size * (draws[:, 1] < share)
    edge = (draws[:, 2] * 4).long()
    end = torch.full_like(depth, size)
    zero = torch.zeros_like(depth)
    top = torch.where(edge == 1, end - depth, zero)
    bottom = torch.where(edge == 0, depth, end)
    left = torch.where(edge == 3, end - depth, zero)
    right = torch.where(edge == 2, depth, end)
    return torch.stack([top, bottom, left, right], dim=1).round()


def apply_changes(canvases: Tensor, lesions: Tensor, changes: Changes) -> tuple[Tensor, Tensor]:
    """Cut changed planes from their canvases, and the lesions with them.

    Parameters
    ----------
    canvases, lesions
        (planes, channels, canvas, canvas) and (planes, 1, canvas, canvas), 0..1; all channels change alike.
    changes
        One for each plane.

    Returns
    -------
    tuple
        Planes of (planes, channels, size, size), and the lesions in them, of (planes, 1, size, size).
    """
    size = changes.noise.shape[-1]
    grid = functional.affine_grid(changes.matrices, [len(canvases), 1, size, size], align_corners=False)
    sources = torch.cat([canvases.float(), lesions.float()], dim=1)
    cut = functional.grid_sample(sources, grid, mode="bilinear", padding_mode="border", align_corners=False)
    planes = cut[:, :-1].clamp_min(0).pow(changes.gammas[:, None, None, None])
    smooth = functional.avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)
    planes = torch.where(changes.blurred[:, None, None, None], smooth, planes) + changes.noise
    planes = torch.where(_outside(changes.erased, size), planes, planes.mean(dim=(-2, -1), keepdim=True))
    planes = torch.where(_outside(changes.collimated, size), planes, changes.blank[:, None, None, None])
    return planes, cut[:, -1:]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A batch of changed planes, on the device of the store; all of length (planes,) but `images`."""

    planes: Tensor
    """(planes, channels, size, size), channels last; of a mix those of the modality behind those of the image."""
    lesions: Tensor
    """(planes, 1, size, size), 1 in the lesion."""
    marked: Tensor
    """Whether the lesion is annotated."""
    images: Tensor
    """Places in the store, on the CPU."""
    kinds: Tensor
    """`Kind` of each, on the CPU."""
    speak: Tensor
    """As in `Looks`, on the CPU."""


def see(
    images: Sequence[int],
    store: PlaneStore,
    settings: AugmentationConfig,
    *,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> Seen:
    """Draw looks at images of a store and what changes in them, and cut the planes; arguments as of the parts."""
    looks = draw_looks(images, store, settings, rng)
    canvas, device = store.canvases.shape[-1], store.device
    changes = draw_changes(
        len(looks.kinds), size=store.size, canvas=canvas, settings=settings, generator=generator, device=device
    )
    planes, lesions = apply_changes(*store.at(looks.canvases), changes)
    if store.indicators is not None:
        # Behind all changes: what a plane is of does not change with them.
        told = store.indicators[looks.images].to(device)[:, :, None, None]
        planes = torch.cat([planes, told.expand(-1, -1, store.size, store.size)], dim=1)
    return Seen(
        planes=planes.contiguous(memory_format=torch.channels_last),
        lesions=lesions,
        marked=store.marked[looks.images].to(device),
        images=looks.images,
        kinds=looks.kinds,
        speak=looks.speak,
    )


def _outside(rectangles: Tensor, size: int) -> Tensor:
    """Tell which pixels lie outside of each plane's rectangle: (planes, 1, size, size)."""
    place = torch.arange(size, device=rectangles.device)
    top, bottom, left, right = rectangles.unbind(dim=1)
    rows = (place >= top[:, None]) & (place < bottom[:, None])
    columns = (place >= left[:, None]) & (place < right[:, None])
    return ~(rows[:, :, None] & columns[:, None, :])[:, None]
