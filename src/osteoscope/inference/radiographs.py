"""A patient's radiographs: looked at as a whole, and once more where a lesion may be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.errors import ImageError
from osteoscope.imaging.mixed import as_read
from osteoscope.imaging.picture import is_dicom, pixel_sha256, read_picture
from osteoscope.imaging.prepare import Square, resample, square_to_read
from osteoscope.imaging.region import Region, find_regions
from osteoscope.imaging.resampling import Rectangle
from osteoscope.imaging.slices import radiograph_grey
from osteoscope.inference.reading import ReadImages, ReadLook

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.table import CaseImage
    from osteoscope.config import PreparationConfig, RegionOfInterest
    from osteoscope.imaging.prepare import Lesion
    from osteoscope.inference.engine import Member
    from osteoscope.inference.prediction import ImagePrediction


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedRadiographs:
    """A patient's radiographs, and the planes of the first look at them."""

    pixels: tuple[NDArray[np.float32], ...]
    """For each image (rows, columns), 0..1."""
    squares: tuple[Square, ...]
    """For each image, the part of it that the first look reads."""
    preparation: PreparationConfig
    marked: tuple[tuple[Region, ...], ...] | None = None
    """For each image, the regions for a second look that a person has marked; None where they are to be found."""

    @cached_property
    def planes(self) -> NDArray[np.float32]:
        """Planes of the first look: (images, channels, size, size), 0..1."""
        return self.cut([[square] for square in self.squares])

    def first_planes(self, most: int | None = None) -> NDArray[np.float32]:
        """Give the planes of the first look at all images, or the first so many."""
        return self.planes[:most]

    def speaking_planes(self, images: Sequence[ImagePrediction]) -> NDArray[np.float32]:
        """Cut once more the planes that a prediction was made from: those of the looks that speak."""
        return self.cut([[look.read_square() for look in image.speaking] for image in images])

    def cut_regions(self, regions: Sequence[Sequence[Region]]) -> NDArray[np.float32]:
        """Cut planes of regions, as `cut` does of squares."""
        return self.cut([[region.square for region in of_image] for of_image in regions])

    def cut(self, squares: Sequence[Sequence[Square]]) -> NDArray[np.float32]:
        """Cut planes, (planes, channels, size, size), from the images as they are: for each those of its squares."""
        size = self.preparation.size
        planes = [
            resample(image, square, size)
            for image, of_image in zip(self.pixels, squares, strict=True)
            for square in of_image
        ]
        shown = np.stack(planes)[:, None] if planes else np.empty((0, 1, size, size), dtype=np.float32)
        return as_read(shown, "radiograph", self.preparation)

    def find(self, lesions: NDArray[np.float32]) -> tuple[tuple[Region, ...], ...]:
        """Find, for each image, the regions that are worth a second look; none where there is to be no second look.

        Parameters
        ----------
        lesions
            (images, h, w), 0..1: how likely a lesion is at each place of the first look.
        """
        if self.marked is not None:
            return self.marked
        if not self.preparation.second_look:
            return ((),) * len(self.squares)
        return tuple(
            find_regions(likelihood, square, (image.shape[0], image.shape[1]), margin=self.preparation.margin)
            for likelihood, square, image in zip(lesions, self.squares, self.pixels, strict=True)
        )

    def read(self, members: Sequence[Member], *, check: Callable[[], None] | None = None) -> ReadImages:
        """Let every member read the images, and the regions that they find in them together.

        Parameters
        ----------
        members
            One network or more.
        check
            Is called before the images are read; what it raises ends the reading.
        """
        if check is not None:
            check()
        readings = [member.engine.read(self.planes) for member in members]
        lesions: NDArray[np.float32] = np.mean([reading.lesions for reading in readings], axis=0, dtype=np.float32)
        found = self.find(lesions)
        again = self.cut_regions(found)
        if len(again):
            order = _by_image(found)
            readings = [r.joined(m.engine.read(again)).of(order) for m, r in zip(members, readings, strict=True)]
        return ReadImages(
            looks=tuple(map(_looks, self.squares, found)),
            first_looks=(1,) * len(found),
            readings=tuple(readings),
            lesions=lesions,
        )


def read_pixels(image: CaseImage) -> NDArray[np.float32]:
    """Decode a radiograph of a cohort as the networks read it: (rows, columns) of square pixels, 0..1.

    A picture is taken as it is; one in DICOM is shown as `osteoscope.imaging.slices.radiograph_grey` shows it.

    Raises
    ------
    ImageError
        If it cannot be read, or is not the picture that the cohort was made with.
    """
    volume = read_picture(image.path)
    pixels: NDArray[np.float32] = volume.read()[0]
    if pixel_sha256(pixels) != image.pixel_sha256:
        raise ImageError(
            "shows other pixels than when the cohort was made",
            path=image.path,
            remedy="put the original back, or make the cohort again",
        )
    return radiograph_grey(volume) if is_dicom(image.path) else pixels


def lesions_on(pixels: NDArray[np.float32], image: CaseImage) -> tuple[Lesion, ...]:
    """Give the lesions of a radiograph in the pixels that `read_pixels` gave of it, which are square."""
    tall = pixels.shape[0] / image.rows
    return image.lesions if tall == 1 else tuple(lesion.stretched(tall) for lesion in image.lesions)


def prepare_radiographs(images: Sequence[CaseImage], preparation: PreparationConfig) -> PreparedRadiographs:
    """Decode and prepare radiographs of a cohort, in order; errors are those of `read_pixels` and `prepare_pixels`."""
    pixels = [read_pixels(image) for image in images]
    return prepare_pixels(pixels, list(map(lesions_on, pixels, images)), preparation)


def prepare_pixels(
    pixels: Sequence[NDArray[np.float32]], lesions: Sequence[Sequence[Lesion]], preparation: PreparationConfig
) -> PreparedRadiographs:
    """Prepare decoded images, (rows, columns) each, and the lesions that are annotated in them.

    Raises
    ------
    InputError
        If a lesion is needed and none is annotated.
    """

    def squares(roi: RegionOfInterest) -> tuple[Square, ...]:
        return tuple(
            square_to_read((image.shape[0], image.shape[1]), known, roi=roi, margin=preparation.margin)
            for image, known in zip(pixels, lesions, strict=True)
        )

    marked = None
    if preparation.second_look and preparation.second_look_at != "found":
        marked = tuple((Region(square=square, likelihood=None),) for square in squares(preparation.second_look_at))
    return PreparedRadiographs(
        pixels=tuple(pixels), squares=squares(preparation.roi), preparation=preparation, marked=marked
    )


def _by_image(found: Sequence[Sequence[Region]]) -> list[int]:
    """Order of planes that puts, behind the first look at an image, the looks at its regions."""
    order, following = [], len(found)
    for image, regions in enumerate(found):
        order.extend([image, *range(following, following + len(regions))])
        following += len(regions)
    return order


def _looks(first: Square, found: Sequence[Region]) -> tuple[ReadLook, ...]:
    """Give the looks at a radiograph: the first, and those at its regions."""
    read = [(first, None), *((region.square, region.likelihood) for region in found)]
    return tuple(
        ReadLook(
            plane=0,
            rectangle=Rectangle(left=square.left, top=square.top, width=square.side, height=square.side),
            likelihood=likelihood,
        )
        for square, likelihood in read
    )
