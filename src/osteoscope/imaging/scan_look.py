"""What a CT or MR looks like as a whole, and how it was acquired, as far as its values, geometry and header tell.

As a picture a scan is the mean of its planes: two reconstructions of one scan, with other slices, another kernel or
more noise, have nearly the same, and two people have not. How it was acquired is measured where a lesion decides
little: noise and its grain in the flattest parts of the soft tissue, as the median over the planes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from osteoscope.imaging.evenly import with_ends
from osteoscope.imaging.headers import scan
from osteoscope.imaging.look import look
from osteoscope.imaging.opened import opened
from osteoscope.imaging.refusal import RefusedImageError
from osteoscope.imaging.survey import padding_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.look import Look
    from osteoscope.imaging.volume import Geometry, Modality, Volume

    Mask = NDArray[np.bool_]

VERSION = 2
"""Of all that is computed here: a look of another version is another look."""

WINDOW = (-200.0, 800.0)
"""HU that become 0 and 1 in the picture of a CT, from fat, so that a table leaves no trace, to dense bone."""

_MOST_PLANES = 64
"""Planes that are looked at, evenly chosen, ..."""

_MOST_MEASURED = 16
"""... and in how many of them noise is measured."""

_VALUES_AT_ONCE = 2**22

_SMOOTH = 2.0
"""Standard deviation, in pixels, of the Gaussian under which a part of a plane is flat or not."""

_FLATTEST = 25.0
"""Percentage of the soft tissue that counts as flat."""

_FEWEST = 100
"""Flat pixels of a plane, or of one tissue in it, below which nothing is measured there."""

_TISSUE = (-150.0, 200.0)
"""HU of fat and soft tissue, plain or enhanced."""

_FAT, _WATER = -50.0, 0.0
"""HU below which flat tissue is fat, and above which it is muscle, blood, or an organ."""

_SIGNAL = 0.1
"""Share of the brightest of an MR from which on a pixel is tissue."""

_BRIGHTEST = 99.0
"""Percentile of an MR's plane that is taken as its brightest, ..."""

_BRIGHT = 90.0
"""... and of the soft tissue's values that contrast raises most."""

_WORDS = {"manufacturer": 0x00080070, "model": 0x00081090, "kernel": 0x00181210}
_NUMBERS = {"kilovolt": 0x00180060, "thickness": 0x00180050}
"""Elements of a DICOM header."""


def scan_picture(volume: Volume) -> NDArray[np.float32]:
    """Show a scan as one picture: the mean of its planes, of a CT in the fixed `WINDOW`.

    Parameters
    ----------
    volume
        A CT or MR; of many planes some, evenly chosen, are read a few at a time.

    Returns
    -------
    float32 ``(rows, columns)``, 0..1.

    Raises
    ------
    osteoscope.errors.ImageError
        If a plane cannot be decoded.
    """
    return _mean(_windowed(plane, volume.modality) for plane in _planes(volume))


def look_at_scan(volume: Volume) -> Look:
    """Look at a scan once.

    Parameters
    ----------
    volume
        A CT or MR whose place is known.

    Returns
    -------
    ``shape``, ``content`` and ``descriptor`` are of `scan_picture`. Of the features and words, those are left out that
    cannot be known.

    Features:

    ``planes``: their number. ``plane_step``, ``pixel``: distance between planes and between rows, in mm. ``height``,
    ``width``: of a plane, in mm. ``from_axial``, ``from_sagittal``: angle between the planes and those, in degrees.

    ``noise``: deviation from what is smooth, in the flattest quarter of the soft tissue, in HU; of an MR as a share of
    the tissue's signal. ``grain``: deviation of the Laplacian there over that noise, the higher the sharper the kernel.
    ``fat``, ``soft``, ``bright``: median of the fat, and median and 90th percentile of the other soft tissue there, in
    HU; of an MR, which has no ``fat``, as a share of its brightest values. Of the planes, the median counts.

    ``kilovolt`` and ``thickness`` of a slice in mm, by the DICOM header.

    Words: ``manufacturer``, ``model`` and ``kernel``, by the DICOM header.

    Raises
    ------
    osteoscope.errors.ImageError
        If a plane cannot be decoded.
    """
    qualities: list[dict[str, float]] = []
    measured = set(with_ends(0, min(volume.geometry.shape[0], _MOST_PLANES) - 1, _MOST_MEASURED))

    def windowed() -> Iterator[NDArray[np.float32]]:
        for place, plane in enumerate(_planes(volume)):
            if place in measured:
                qualities.append(_quality(plane, volume.modality))
            yield _windowed(plane, volume.modality)

    seen = look(_mean(windowed()))
    words, numbers = _header(volume.sources[0].path) if volume.sources else ({}, {})
    features = {**_geometry(volume.geometry), **_medians(qualities), **numbers}
    return replace(seen, features=features, words=words)


def _planes(volume: Volume) -> Iterator[NDArray[np.float32]]:
    """Read the planes that are looked at, a few at a time."""
    count, rows, columns = volume.geometry.shape
    chosen, at_once = with_ends(0, count - 1, _MOST_PLANES), max(1, _VALUES_AT_ONCE // (rows * columns))
    for first in range(0, len(chosen), at_once):
        yield from volume.read(chosen[first : first + at_once])


def _windowed(plane: NDArray[np.float32], modality: Modality) -> NDArray[np.float32]:
    """Bring the values of a plane into a window; what is no value becomes the lowest."""
    if modality == "CT":
        low, high = WINDOW
        inside = np.clip(np.where(np.isfinite(plane), plane, low), low, high)
        return np.asarray((inside - low) / (high - low), dtype=np.float32)
    usable = _usable(plane)
    lowest = plane[usable].min() if usable.any() else 0
    return np.where(usable, plane, lowest).astype(np.float32)


def _usable(plane: NDArray[np.float32]) -> Mask:
    usable: Mask = np.isfinite(plane) & ~np.isin(plane, padding_of(plane))
    return usable


def _mean(planes: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Average planes, and bring the mean to 0..1 where it is not."""
    total, count = np.zeros(1), 0
    for plane in planes:
        total, count = total + plane, count + 1
    mean: NDArray[np.float64] = total / count
    low, high = min(float(mean.min()), 0.0), max(float(mean.max()), 1.0)
    return ((mean - low) / (high - low)).astype(np.float32)


# How it was acquired --------------------------------------------------------------------------------------------------


def _geometry(geometry: Geometry) -> dict[str, float]:
    planes, rows, columns = geometry.shape
    steps, normal = geometry.steps, geometry.normal
    if steps is None or normal is None:
        return {"planes": float(planes)}
    plane_step, row_step, column_step = steps
    from_sagittal, _, from_axial = (math.degrees(math.acos(min(1.0, abs(along)))) for along in normal.tolist())
    # Rounded, so that the float32 of a NIfTI is no habit of a site.
    return {
        "planes": float(planes),
        "plane_step": round(plane_step, 3),
        "pixel": round(row_step, 3),
        "height": round(rows * row_step, 1),
        "width": round(columns * column_step, 1),
        "from_axial": float(round(from_axial)),
        "from_sagittal": float(round(from_sagittal)),
    }


def _quality(plane: NDArray[np.float32], modality: Modality) -> dict[str, float]:
    """Measure noise and densities of a plane; nothing where it shows too little that is flat."""
    if min(plane.shape) < 2:
        return {}
    bounded, (low, high) = _with_tissue(plane, modality)
    smooth = ndimage.gaussian_filter(bounded, _SMOOTH)
    slope = np.hypot(*np.gradient(smooth))
    tissue = (smooth > low) & (smooth < high)
    if tissue.sum() < _FEWEST:
        return {}
    flat = tissue & (slope <= np.percentile(slope[tissue], _FLATTEST))
    if flat.sum() < _FEWEST:
        return {}
    scale = 1.0 if modality == "CT" else float(np.median(smooth[flat]))
    noise, fine = _spread((bounded - smooth)[flat]), _spread(ndimage.laplace(bounded)[flat])
    grain = {"grain": fine / noise} if noise > 0 else {}
    return {"noise": noise / scale, **grain, **_densities(smooth[flat], modality)}


def _with_tissue(plane: NDArray[np.float32], modality: Modality) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Give a plane without what is no value, and between which values tissue lies; an MR over its brightest value."""
    if modality == "CT":
        # Metal and padding would spread into their surroundings.
        return np.clip(np.nan_to_num(plane, nan=_AIR), _AIR, _DENSE), _TISSUE
    clean = _windowed(plane, modality)
    brightest = float(np.percentile(clean, _BRIGHTEST))
    return clean / brightest if brightest > 0 else np.zeros_like(clean), (_SIGNAL, math.inf)


_AIR, _DENSE = -1000.0, 1500.0


def _spread(values: NDArray[np.float32]) -> float:
    """Give the standard deviation of values of which some few may be of something else."""
    return _OF_DEVIATION * float(np.median(np.abs(values - np.median(values))))


_OF_DEVIATION = 1.4826
"""Standard deviation over the median absolute deviation of a normal distribution."""


def _densities(flat: NDArray[np.float32], modality: Modality) -> dict[str, float]:
    """Measure smoothed values of flat tissue: fat and all else of a CT, everything of an MR."""
    found: dict[str, float] = {}
    if modality == "CT":
        fat, flat = flat[flat < _FAT], flat[flat > _WATER]
        if fat.size >= _FEWEST:
            found["fat"] = float(np.median(fat))
    if flat.size >= _FEWEST:
        found["soft"], found["bright"] = np.percentile(flat, (50, _BRIGHT)).tolist()
    return found


def _medians(of_planes: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in of_planes for name in one)
    return {name: float(np.median([one[name] for one in of_planes if name in one])) for name in names}


def _header(path: Path) -> tuple[dict[str, str], dict[str, float]]:
    """Read what a DICOM file says of the scanner and its settings; nothing of a file of another format."""
    try:
        with opened(path) as stream:
            elements = scan(stream).elements
    except RefusedImageError:
        return {}, {}
    words = {name: word for name, tag in _WORDS.items() if (word := elements.word(tag))}
    numbers = {name: number for name, tag in _NUMBERS.items() if (number := elements.number(tag)) is not None}
    return words, numbers
