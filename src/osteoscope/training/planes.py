"""The images of a cohort in memory, ready to be augmented in batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from osteoscope.imaging.prepare import lesion_on_plane, outline_mask, resample, square_to_read
from osteoscope.inference.predict import read_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from osteoscope.cohort.table import Case, CaseImage
    from osteoscope.config import PreparationConfig
    from osteoscope.imaging.prepare import Square

# A canvas shows this much more than a plane does, so that a turned or shifted plane still shows real pixels.
CANVAS_SCALE = 1.5

NO_REGION = -1


@dataclass(frozen=True, kw_only=True)
class PlaneStore:
    """All that is read of some images.

    Canvas ``i`` shows what the first look at image ``i`` reads, and half as much again; where a lesion is annotated
    and there is to be a second look, a further canvas shows the lesion's square so, cut from the image as it is.
    """

    canvases: Tensor
    """(canvases, 1, canvas, canvas) float16, 0..1."""
    lesions: Tensor
    """(canvases, 1, canvas, canvas) uint8, 1 in the lesion."""
    marked: Tensor
    """(images,) bool: whether a lesion is annotated."""
    regions: Tensor
    """(images,) the place of the lesion's canvas, or `NO_REGION`."""
    size: int
    """Rows and columns of the planes that are cut from the canvases."""

    def on(self, device: torch.device) -> PlaneStore:
        """Move what planes are cut from to the device that computes; places are looked up on the CPU."""
        return replace(self, canvases=self.canvases.to(device), lesions=self.lesions.to(device))


@dataclass(frozen=True, kw_only=True)
class CaseStore:
    """The images of labelled cases, and whose they are."""

    planes: PlaneStore
    images: tuple[Tensor, ...]
    """For each case, the places of its images in `planes`."""
    labels: Tensor
    """(cases,) class index."""


def load_cases(cases: Sequence[Case], preparation: PreparationConfig) -> CaseStore:
    """Decode and prepare the images of labelled cases, each once.

    Raises
    ------
    ImageError
        If an image cannot be read any more, or has changed.
    InputError
        If `preparation.roi` asks for a lesion where none is annotated.
    """
    owners = np.repeat(np.arange(len(cases)), [len(case.images) for case in cases])
    return CaseStore(
        planes=load_images([image for case in cases for image in case.images], preparation),
        images=tuple(torch.from_numpy(np.flatnonzero(owners == place)) for place in range(len(cases))),
        labels=torch.tensor([case.label for case in cases]),
    )


def load_images(images: Sequence[CaseImage], preparation: PreparationConfig) -> PlaneStore:
    """Decode and prepare images, each once; errors are those of `load_cases`."""
    with ThreadPoolExecutor() as pool:
        prepared = list(pool.map(lambda image: _canvases(image, preparation), images))
    firsts = [canvases[0] for canvases in prepared]
    seconds = [canvases[1] for canvases in prepared if len(canvases) > 1]
    pixels, lesions = zip(*(*firsts, *seconds), strict=True)
    has_second = np.array([len(canvases) > 1 for canvases in prepared])
    return PlaneStore(
        canvases=torch.from_numpy(np.stack(pixels)[:, None]),
        lesions=torch.from_numpy(np.stack(lesions)[:, None]),
        marked=torch.tensor([bool(image.lesions) for image in images]),
        regions=torch.from_numpy(np.where(has_second, len(images) + np.cumsum(has_second) - 1, NO_REGION)),
        size=preparation.size,
    )


def canvas_size(size: int) -> int:
    """Rows and columns of the canvas for planes of `size`, with the plane's pixels in its middle."""
    return size + 2 * round(size * (CANVAS_SCALE - 1) / 2)


_Canvas = tuple["NDArray[np.float16]", "NDArray[np.uint8]"]


def _canvases(image: CaseImage, preparation: PreparationConfig) -> list[_Canvas]:
    """Prepare one image: what the first look reads, and the lesion's square if there is to be a second one."""
    pixels = read_pixels(image)
    shape = (pixels.shape[0], pixels.shape[1])
    rois = [preparation.roi]
    if preparation.second_look and image.lesions:
        rois.append("outline")
    squares = [square_to_read(shape, image.lesions, roi=roi, margin=preparation.margin) for roi in rois]
    return [_canvas(pixels, square, image, preparation.size) for square in squares]


def _canvas(pixels: NDArray[np.float32], square: Square, image: CaseImage, size: int) -> _Canvas:
    side = canvas_size(size)
    shown = square.scaled(side / size)
    mask = outline_mask((side, side), [lesion_on_plane(lesion, shown, side) for lesion in image.lesions])
    return resample(pixels, shown, side).astype(np.float16), mask.astype(np.uint8)
