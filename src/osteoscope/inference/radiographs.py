"""A patient's radiographs: looked at as a whole, searched closely, and read once more where a lesion may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.imaging.mixed import as_read
from osteoscope.imaging.picture import is_dicom, read_unchanged
from osteoscope.imaging.prepare import Square, resample, square_on_plane, square_to_read
from osteoscope.imaging.region import Region, find_regions, highest_likelihoods
from osteoscope.imaging.resampling import Rectangle
from osteoscope.imaging.slices import radiograph_grey
from osteoscope.inference.evidence import on_pixels
from osteoscope.inference.reading import ReadImages, ReadLook, scores_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.table import CaseImage
    from osteoscope.config import PreparationConfig, RegionOfInterest
    from osteoscope.imaging.prepare import Lesion
    from osteoscope.inference.engine import Member, PlaneReadings
    from osteoscope.inference.prediction import ImagePrediction


CLOSER = 1 / 3
"""Side of the squares in which an image is searched, as a share of what the first look reads."""


Regions = tuple[tuple[Region, ...], ...]
"""For each image, some squares of it, and how likely a lesion is in each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedRadiographs:
    """A patient's radiographs, and the planes of the first look at them."""

    pixels: tuple[NDArray[np.float32], ...]
    """For each image (rows, columns), 0..1."""
    squares: tuple[Square, ...]
    """For each image, the part of it that the first look reads."""
    preparation: PreparationConfig
    marked: Regions | None = None
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

    def read(self, members: Sequence[Member], *, check: Callable[[], None] | None = None) -> ReadImages:
        """Let every member read the images, and where there is to be a second look all parts of them more closely.

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
        lesions = _likelihoods(readings)
        closer: Regions = ((),) * len(self.squares)
        regions = self.marked or closer
        if self.preparation.second_look and self.marked is None:
            squares = list(map(closer_squares, self.squares, self._shapes))
            planes = self.cut(squares)
            near = [member.engine.read(planes) for member in members]
            of_images = np.split(_likelihoods(near), np.cumsum(list(map(len, squares)))[:-1])
            lesions = np.stack(list(map(joined_likelihood, lesions, self.squares, of_images, squares)))
            closer = tuple(map(_as_regions, squares, lesions, self.squares, self._shapes))
            regions = self._find(lesions)
            readings = [reading.joined(other) for reading, other in zip(readings, near, strict=True)]
        again = self.cut_regions(regions)
        if len(again):
            readings = [reading.joined(m.engine.read(again)) for reading, m in zip(readings, members, strict=True)]
        return self._joined(readings, lesions, closer, regions)

    @property
    def _shapes(self) -> list[tuple[int, int]]:
        return [(image.shape[0], image.shape[1]) for image in self.pixels]

    def _find(self, lesions: NDArray[np.float32]) -> Regions:
        """Find, for each image, the regions in which its map, one of (images, h, w), shows a lesion."""
        return tuple(
            find_regions(likelihood, square, shape, margin=self.preparation.margin)
            for likelihood, square, shape in zip(lesions, self.squares, self._shapes, strict=True)
        )

    def _joined(
        self,
        readings: Sequence[PlaneReadings],
        lesions: NDArray[np.float32],
        closer: Regions,
        regions: Regions,
    ) -> ReadImages:
        """Say what was read image by image; readings are of all first looks, then all closer ones, then all regions."""
        order = _by_image((1,) * len(closer), tuple(map(len, closer)), tuple(map(len, regions)))
        looks = tuple(map(_looks, self.squares, closer, regions))
        added = scores_of(look.likelihood for of_image in looks for look in of_image)
        return ReadImages(
            looks=looks,
            first_looks=(1,) * len(closer),
            closer_looks=tuple(map(len, closer)),
            readings=tuple(reading.of(order).weighed(added) for reading in readings),
            lesions=lesions,
        )


def closer_squares(square: Square, shape: tuple[int, int]) -> tuple[Square, ...]:
    """Cover an image, (rows, columns), with squares a third as wide as the one that the first look reads.

    Neighbours overlap by half of their side at least, so that what is cut by the edge of one is whole in another.
    """
    side = square.side * CLOSER

    def starts(extent: int) -> list[float]:
        spare = extent - side
        if spare <= 0:
            return [spare / 2]
        # Rounded, since a third is no whole number in binary.
        steps = math.ceil(round(spare / (side / 2), 6))
        places: list[float] = np.linspace(0, spare, steps + 1).tolist()
        return places

    rows, columns = shape
    return tuple(Square(left=left, top=top, side=side) for top in starts(rows) for left in starts(columns))


def joined_likelihood(
    first: NDArray[np.float32], square: Square, maps: NDArray[np.float32], closer: Sequence[Square]
) -> NDArray[np.float32]:
    """Join what a first look and closer ones say of where a lesion is: the geometric mean, for both have to agree.

    Parameters
    ----------
    first
        (h, w), 0..1, of the places of `square`.
    square
        What the first look read of the image.
    maps
        (squares, h, w), 0..1, of the places of `closer`.
    closer
        What was read more closely. Where several were, their mean counts; where none was, the first look alone.

    Returns
    -------
    ndarray
        (h, w), 0..1, of the places of `square`.
    """
    cells = (first.shape[0], first.shape[1])
    said, covered = np.zeros_like(first), np.zeros_like(first)
    for likelihood, read in zip(maps, closer, strict=True):
        place = square_on_plane(read, square, cells[0])
        both = on_pixels(np.stack([likelihood, np.ones_like(likelihood)]), place, cells)
        said, covered = said + both[0], covered + both[1]
    near = np.divide(said, covered, out=first.copy(), where=covered > 0)
    return np.sqrt(first * near)


def _likelihoods(readings: Sequence[PlaneReadings]) -> NDArray[np.float32]:
    """Give the mean over the members of where they hold a lesion to be: (planes, h, w), 0..1."""
    mean: NDArray[np.float32] = np.mean([reading.lesions for reading in readings], axis=0, dtype=np.float32)
    return mean


def read_pixels(image: CaseImage) -> NDArray[np.float32]:
    """Decode a radiograph of a cohort as the networks read it: (rows, columns) of square pixels, 0..1.

    A picture is taken as it is; one in DICOM is shown as `osteoscope.imaging.slices.radiograph_grey` shows it.

    Raises
    ------
    ImageError
        If it cannot be read, or is not the picture that the cohort was made with.
    """
    volume, pixels = read_unchanged(image.path, image.pixel_sha256)
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


def _by_image(*kinds: Sequence[int]) -> list[int]:
    """Order planes image by image, which stand kind by kind: of each kind so many of each image."""
    starts = np.cumsum([0, *(count for of_kind in kinds for count in of_kind)])[:-1].reshape(len(kinds), -1)
    return [
        int(start) + place
        for image in range(starts.shape[1])
        for start, of_kind in zip(starts[:, image], kinds, strict=True)
        for place in range(of_kind[image])
    ]


def _as_regions(
    squares: Sequence[Square], likelihood: NDArray[np.float32], square: Square, shape: tuple[int, int]
) -> tuple[Region, ...]:
    """Say of some squares of an image how likely the map of `square`, (h, w), holds a lesion in them."""
    highest = highest_likelihoods(likelihood, square, shape, squares)
    return tuple(Region(square=part, likelihood=said) for part, said in zip(squares, highest, strict=True))


def _looks(first: Square, closer: Sequence[Region], regions: Sequence[Region]) -> tuple[ReadLook, ...]:
    """Give the looks at a radiograph: the first, the closer ones, and those at its regions."""
    return tuple(
        ReadLook(
            plane=0,
            rectangle=Rectangle(
                left=read.square.left, top=read.square.top, width=read.square.side, height=read.square.side
            ),
            likelihood=read.likelihood,
        )
        for read in (Region(square=first, likelihood=None), *closer, *regions)
    )
