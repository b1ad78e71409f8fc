"""The radiographs of a cohort in memory, ready to be augmented in batches; `volumes` is the same for CT and MR."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import torch

from osteoscope.imaging.prepare import Square, lesion_on_plane, outline_mask, resample, square_to_read
from osteoscope.inference.radiographs import CLOSER, lesions_on, read_pixels
from osteoscope.processes import readers
from osteoscope.training import room
from osteoscope.training.device import memory_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from osteoscope.cohort.table import Case, CaseImage
    from osteoscope.config import PreparationConfig
    from osteoscope.imaging.prepare import Lesion

# A canvas shows this much more than a plane does, so that a turned or shifted plane still shows real pixels.
CANVAS_SCALE = 1.5

NO_REGION = -1

SQUARES_ROUND, SQUARES_ELSEWHERE = 4, 3
"""Squares with the lesion, and without it, that are kept of each image; drawn once, and shifted and scaled when looked
at."""

LESION_SHARES = (0.12, 0.7)
"""Least and largest share of a square's side that the lesion in it takes. A lesion of an image that is looked at whole
may be a few pixels wide, and the next one half of what is seen: what is drawn in between is of all sizes."""

# A square that holds all of a lesion is never smaller than this, in pixels of the image, since there is no more in it
# to be seen.
_SMALLEST_ROUND = 48.0
# The side of a square as they judge differs from that of a closer look by up to this in its logarithm.
_SIDES_CLOSER = 0.3
# Rows and columns of the grid on whose marked places a point of a lesion is drawn.
_POINTS = 32
# A square without the lesion holds no more of its box than this; what still shows of it is seen on the mask.
_LARGEST_OVERLAP = 0.1
# Its side, beside that of a square with the lesion, differs by up to this in its logarithm.
_SIDES_ELSEWHERE = 0.4
# The standard deviation of its pixels is at least this share of the image's.
_LEAST_SPREAD = 0.2
_TRIALS = 200


class Kind(IntEnum):
    """What a look reads."""

    FIRST = 0
    """All of an image, or a plane of a volume in which no lesion is annotated."""
    REGION = 1
    """A square that shows the lesion or a part of it, large or small; of a volume, a plane that shows the lesion."""
    ELSEWHERE = 2
    """A square of the same image without the lesion; of a volume, a plane that does not show the lesion."""


@dataclass(frozen=True, kw_only=True)
class PlaneStore:
    """All that is read of some images; a plane of a volume counts as an image here.

    Canvas ``i`` shows what the first look at image ``i`` reads, and half as much again; where a lesion is annotated
    and there is to be a second look, further canvases show so, cut from the image as it is, squares with the lesion,
    and others without it.
    """

    canvases: Tensor
    """(canvases, channels, canvas, canvas) float16, 0..1."""
    lesions: Tensor
    """(canvases, 1, canvas, canvas) uint8, 1 in the lesion."""
    marked: Tensor
    """(images,) bool: whether a lesion is annotated; of a volume, whether it is anywhere in it."""
    kinds: Tensor
    """(images,) `Kind` of the first look at each: of a radiograph always the first of them."""
    regions: Tensor
    """(images, `SQUARES_ROUND`) the places of canvases with the lesion, or `NO_REGION`."""
    elsewhere: Tensor
    """(images, `SQUARES_ELSEWHERE`) the places of canvases without the lesion, or `NO_REGION` where there are fewer."""
    size: int
    """Rows and columns of the planes that are cut from the canvases."""
    indicators: Tensor | None = None
    """(images, modalities) float32, 1 at that of each (`osteoscope.imaging.mixed.indicators`); None where the network
    reads one modality."""
    device: torch.device = torch.device("cpu")  # noqa: RUF009  a device is frozen too
    """Where planes are cut."""

    def on(self, device: torch.device) -> PlaneStore:
        """Cut planes on the device that computes; places are looked up on the CPU.

        What planes are cut from moves there, too, unless it is so much that it lies on disk, or would take too much of
        the device.
        """
        most = min(room.MOST_IN_MEMORY, room.MOST_ON_DEVICE, memory_of(device) // 4)
        if self.canvases.nbytes + self.lesions.nbytes > most:
            return replace(self, device=device)
        return replace(self, canvases=self.canvases.to(device), lesions=self.lesions.to(device), device=device)

    def at(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        """Give the canvases and lesions at some places, which are on the CPU, on the device."""
        places = canvases.to(self.canvases.device)
        return self.canvases[places].to(self.device), self.lesions[places].to(self.device)


@dataclass(frozen=True, kw_only=True)
class CaseStore:
    """The images of labelled cases, or the planes of their volumes, and whose they are."""

    planes: PlaneStore
    images: tuple[Tensor, ...]
    """For each case, the places of its images, or of its volumes' planes, in `planes`."""
    labels: Tensor
    """(cases,) class index."""


def load_cases(cases: Sequence[Case], preparation: PreparationConfig) -> CaseStore:
    """Decode and prepare the radiographs of labelled cases, each once.

    Raises
    ------
    ImageError
        If an image cannot be read any more, or has changed.
    InputError
        If `preparation.roi` asks for a lesion where none is annotated.
    StorageError
        If the canvases have to be on disk, and there is no room for them.
    """
    owners = np.repeat(np.arange(len(cases)), [len(case.images) for case in cases])
    return CaseStore(
        planes=load_images([image for case in cases for image in case.images], preparation),
        images=tuple(torch.from_numpy(np.flatnonzero(owners == place)) for place in range(len(cases))),
        labels=torch.tensor([case.label for case in cases]),
    )


def load_images(images: Sequence[CaseImage], preparation: PreparationConfig) -> PlaneStore:
    """Decode and prepare images, each once; errors are those of `load_cases`."""
    marked = np.array([bool(image.lesions) for image in images])
    # As many as there may be. Where an image has fewer squares without the lesion, the room for them stays untouched.
    squares = (SQUARES_ROUND + SQUARES_ELSEWHERE) * (marked & preparation.second_look)
    behind = len(images) + np.cumsum(squares) - squares
    canvases, lesions = room.room_for_canvases(len(images) + int(squares.sum()), 1, canvas_size(preparation.size))
    regions = np.full((len(images), SQUARES_ROUND), NO_REGION)
    elsewhere = np.full((len(images), SQUARES_ELSEWHERE), NO_REGION)

    def lay(place: int) -> None:
        of_image = _canvases(images[place], preparation)
        own = behind[place] + np.arange(len(of_image.regions) + len(of_image.elsewhere))
        regions[place, : len(of_image.regions)], rest = np.split(own, [len(of_image.regions)])
        elsewhere[place, : len(rest)] = rest
        for at, canvas in zip([place, *own], [of_image.first, *of_image.regions, *of_image.elsewhere], strict=True):
            canvases[at, 0], lesions[at, 0] = canvas

    with ThreadPoolExecutor(readers()) as pool:
        list(pool.map(lay, range(len(images))))
    return PlaneStore(
        canvases=torch.from_numpy(canvases),
        lesions=torch.from_numpy(lesions),
        marked=torch.from_numpy(marked),
        kinds=torch.full((len(images),), Kind.FIRST),
        regions=torch.from_numpy(regions),
        elsewhere=torch.from_numpy(elsewhere),
        size=preparation.size,
    )


def canvas_size(size: int) -> int:
    """Rows and columns of the canvas for planes of `size`, with the plane's pixels in its middle."""
    return size + 2 * round(size * (CANVAS_SCALE - 1) / 2)


_Canvas = tuple["NDArray[np.float16]", "NDArray[np.uint8]"]


@dataclass(frozen=True, kw_only=True)
class _OfImage:
    first: _Canvas
    regions: list[_Canvas]
    elsewhere: list[_Canvas]


def _canvases(image: CaseImage, preparation: PreparationConfig) -> _OfImage:
    """Prepare one image: what the first look reads, and for a second one squares with the lesion and without it."""
    pixels = read_pixels(image)
    shape, lesions = (pixels.shape[0], pixels.shape[1]), lesions_on(pixels, image)

    def canvas(square: Square) -> _Canvas:
        return canvas_of(pixels, square, lesions, preparation.size)

    first = canvas(square_to_read(shape, lesions, roi=preparation.roi, margin=preparation.margin))
    if not (preparation.second_look and lesions):
        return _OfImage(first=first, regions=[], elsewhere=[])
    # From the pixels, so that an image has the same squares in every fold and run.
    rng = np.random.default_rng(int(image.pixel_sha256[:16], 16))
    regions = squares_round(shape, lesions, rng)
    elsewhere = squares_elsewhere(pixels, lesions, [square.side for square in regions], rng)
    return _OfImage(first=first, regions=list(map(canvas, regions)), elsewhere=list(map(canvas, elsewhere)))


def squares_round(shape: tuple[int, int], lesions: Sequence[Lesion], rng: np.random.Generator) -> list[Square]:
    """Draw squares that show a lesion: by turns all of it anywhere in them, and as much as a square that judges may.

    Parameters
    ----------
    shape
        (rows, columns) of the image.
    lesions
        One or more, of which each square shows one that is drawn.
    rng
        Decides on the lesions, the sides and the places.

    Returns
    -------
    `SQUARES_ROUND`, none longer than the image, and none that reaches beyond the image further than it has to. In the
    first and every other one the lesion's longer side is one of `LESION_SHARES` of the square's, log-uniformly. The
    others are about as wide as a closer look (`osteoscope.inference.radiographs.CLOSER`), with some point of the
    lesion in the middle half of their sides, unless the edge of the image is in the way.
    """
    drawn = [lesions[place] for place in rng.integers(len(lesions), size=SQUARES_ROUND).tolist()]
    return [
        _as_read_closely(lesion, shape, rng) if number % 2 else _with_all_of(lesion, shape, rng)
        for number, lesion in enumerate(drawn)
    ]


def _with_all_of(lesion: Lesion, shape: tuple[int, int], rng: np.random.Generator) -> Square:
    left, top, right, bottom = lesion.bounds("outline")
    share = float(np.exp(rng.uniform(*np.log(LESION_SHARES))))
    side = float(min(max(max(right - left, bottom - top) / share, _SMALLEST_ROUND), max(shape)))
    y, x = rng.uniform(bottom - side, top), rng.uniform(right - side, left)
    return _within(shape, Square(left=x, top=y, side=side))


def _as_read_closely(lesion: Lesion, shape: tuple[int, int], rng: np.random.Generator) -> Square:
    left, top, right, bottom = lesion.bounds("outline")
    box = Square(left=left, top=top, side=max(right - left, bottom - top))
    marked = np.argwhere(outline_mask((_POINTS, _POINTS), [lesion_on_plane(lesion, box, _POINTS)]))
    # What is thinner than the grid marks none of it.
    place = marked[int(rng.integers(len(marked)))] if len(marked) else np.array([0, 0])
    row, column = ((place + 0.5) * box.side / _POINTS).tolist()
    side = max(shape) * CLOSER * float(np.exp(rng.uniform(-_SIDES_CLOSER, _SIDES_CLOSER)))
    y, x = (rng.uniform(0.25, 0.75, size=2) * side).tolist()
    return _within(shape, Square(left=left + column - x, top=top + row - y, side=side))


def _starts(extent: int, side: float) -> tuple[float, float]:
    """Give the first and last place to start of a square that reaches beyond an image no further than it has to."""
    return min(0, extent - side), max(0, extent - side)


def _within(shape: tuple[int, int], square: Square) -> Square:
    """Move a square so that it reaches beyond an image, (rows, columns), no further than it has to."""
    y, x = (
        float(np.clip(start, *_starts(extent, square.side)))
        for start, extent in zip((square.top, square.left), shape, strict=True)
    )
    return Square(left=x, top=y, side=square.side)


def squares_elsewhere(
    pixels: NDArray[np.float32], lesions: Sequence[Lesion], sides: Sequence[float], rng: np.random.Generator
) -> list[Square]:
    """Draw squares about as large as those with a lesion that show other parts of the image.

    Parameters
    ----------
    pixels
        (rows, columns) of the image.
    lesions
        One or more; a square holds next to nothing of the box round all of them.
    sides
        Of the squares with a lesion.
    rng
        Decides on the places and sides.

    Returns
    -------
    At most `SQUARES_ELSEWHERE`, none that reaches beyond the image further than it has to, so that what is shown beside
    an image does not tell them from those with a lesion; none of a part that is nearly even, as what surrounds the
    patient is; none round a lesion that leaves no room.
    """
    corners = np.array([lesion.bounds("outline") for lesion in lesions])
    left, top = corners[:, :2].min(axis=0).tolist()
    right, bottom = corners[:, 2:].max(axis=0).tolist()
    found: list[Square] = []
    spread = pixels.std()
    for _ in range(_TRIALS):
        side = sides[int(rng.integers(len(sides)))] * float(np.exp(rng.uniform(-_SIDES_ELSEWHERE, _SIDES_ELSEWHERE)))
        side = min(side, max(pixels.shape))
        y, x = (float(rng.uniform(*_starts(extent, side))) for extent in pixels.shape)
        wide, high = min(right, x + side) - max(left, x), min(bottom, y + side) - max(top, y)
        shown = pixels[max(0, round(y)) : round(y + side), max(0, round(x)) : round(x + side)]
        apart = max(wide, 0) * max(high, 0) <= _LARGEST_OVERLAP * (right - left) * (bottom - top)
        if apart and shown.size and shown.std() >= _LEAST_SPREAD * spread:
            found.append(Square(left=x, top=y, side=side))
        if len(found) == SQUARES_ELSEWHERE:
            break
    return found


def canvas_of(pixels: NDArray[np.float32], square: Square, lesions: Sequence[Lesion], size: int) -> _Canvas:
    """Show a square of a radiograph, and half as much again round it, and its lesions: (canvas, canvas) each."""
    side = canvas_size(size)
    shown = square.scaled(side / size)
    mask = outline_mask((side, side), [lesion_on_plane(lesion, shown, side) for lesion in lesions])
    return resample(pixels, shown, side).astype(np.float16), mask.astype(np.uint8)
