"""A Volume: the geometry, modality and source of an image, and its planes, which are decoded when they are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

Modality = Literal["radiograph", "CT", "MR"]

PlaneName = Literal["axial", "sagittal", "coronal", "oblique"]

SpacingKind = Literal["patient", "calibrated", "detector", "scanned"]

Planes = NDArray[np.float32]
"""Values ``(planes, rows, columns)`` in modality units: HU for CT, arbitrary for MR, 0..1 for radiographs."""

Reader = Callable[[Sequence[int]], Planes]
"""Decodes the planes whose indices it is given, in that order."""


LEAST_COSINE = 0.8
"""A plane is named after an axis of the patient if its normal has at least this cosine with it; else it is oblique."""


@dataclass(frozen=True, kw_only=True)
class PixelSpacing:
    """Distance between the centres of neighbouring pixels in mm, and where it holds (PS3.3 10.7.1.3).

    A radiograph is a projection: the same distance in the patient covers more pixels the nearer it lies to the source.

    Parameters
    ----------
    row
        Between the rows, that is downwards; in DICOM the first of the two values.
    column
        Between the columns, that is to the right.
    kind
        ``patient``: in the plane of a slice. ``calibrated``: of a radiograph, corrected to where the anatomy is or to
        an object of known size. ``detector``: at the detector, so that anatomy appears larger than it is. ``scanned``:
        on a film that was digitised.

    Raises
    ------
    ValueError
        If a distance is not finite and positive.
    """

    row: float
    column: float
    kind: SpacingKind

    def __post_init__(self) -> None:
        for distance in (self.row, self.column):
            if not (math.isfinite(distance) and distance > 0):
                msg = f"expected distances between pixels above 0 mm, got {self.row} and {self.column}"
                raise ValueError(msg)


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Where the values lie.

    Parameters
    ----------
    shape
        ``(planes, rows, columns)``.
    affine
        4x4 matrix from an index ``(column, row, plane, 1)`` to LPS coordinates in mm, or `None` where the place of the
        image in the patient is unknown, as it is for a picture and a radiograph. Where the gantry was tilted, the step
        from plane to plane is not along the planes' normal, and the affine has that shear.
    spacing
        Distances within a plane, where they are known; they may be known where the place is not.
    aspect
        Height of a pixel over its width (PS3.3 C.7.6.3.1.7); that of `spacing` where there is one.

    Raises
    ------
    ValueError
        If the shape is empty, the affine is not a finite 4x4 matrix that can be inverted, or the aspect is not finite
        and positive.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64] | None
    spacing: PixelSpacing | None = None
    aspect: float = 1.0

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            msg = f"expected a shape of (planes, rows, columns), all positive, got {self.shape}"
            raise ValueError(msg)
        if not (math.isfinite(self.aspect) and self.aspect > 0):
            msg = f"expected the height of a pixel over its width, above 0, got {self.aspect}"
            raise ValueError(msg)
        if self.affine is None:
            return
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all() or np.linalg.det(self.affine) == 0:
            msg = f"expected a finite, invertible 4x4 affine, got {self.affine!r}"
            raise ValueError(msg)

    @property
    def steps(self) -> tuple[float, float, float] | None:
        """Lengths in mm of the steps to the next ``(plane, row, column)``; None where the place is unknown."""
        if self.affine is None:
            return None
        column, row, plane = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return plane, row, column

    @property
    def normal(self) -> NDArray[np.float64] | None:
        """Unit vector at right angles to the planes, in LPS, towards higher planes; None where the place is unknown."""
        if self.affine is None:
            return None
        normal = np.cross(self.affine[:3, 0], self.affine[:3, 1])
        normal *= np.sign(normal @ self.affine[:3, 2]) / np.linalg.norm(normal)
        return normal

    @property
    def plane_name(self) -> PlaneName | None:
        """The anatomical plane that the planes are closest to; None where the place is unknown."""
        normal = self.normal
        if normal is None:
            return None
        names: tuple[PlaneName, ...] = ("sagittal", "coronal", "axial")
        cosines = np.abs(normal)
        axis = int(cosines.argmax())
        return names[axis] if cosines[axis] >= LEAST_COSINE else "oblique"

    @property
    def tilt(self) -> float | None:
        """Degrees between the step from plane to plane and the planes' normal; None where the place is unknown."""
        normal = self.normal
        if normal is None or self.affine is None:
            return None
        step = self.affine[:3, 2]
        across = np.linalg.norm(np.cross(normal, step))
        return math.degrees(math.atan2(float(across), float(normal @ step)))


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that an image was read from, and the SHA-256 of its bytes as 64 hexadecimal digits."""

    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """An image whose planes are decoded when they are read, so that it takes no memory until then.

    Parameters
    ----------
    geometry
        Shape and place of the planes; a radiograph has one plane.
    modality
        Decides the unit of the values.
    sources
        The files that the image came from.
    reader
        Decodes the planes that are asked for.
    """

    geometry: Geometry
    modality: Modality
    sources: tuple[Source, ...]
    reader: Reader

    @classmethod
    def in_memory(cls, values: NDArray[Any], geometry: Geometry, modality: Modality) -> Self:
        """Make a volume of values that are there already.

        Parameters
        ----------
        values
            ``(planes, rows, columns)`` in modality units; they are not copied, and turned to float32 when read.
        geometry, modality
            As in `Volume`.

        Raises
        ------
        ValueError
            If the values have another shape than the geometry.
        """
        if values.shape != geometry.shape:
            msg = f"expected values of shape {geometry.shape}, got {values.shape}"
            raise ValueError(msg)

        def read(planes: Sequence[int]) -> Planes:
            return values[list(planes)].astype(np.float32)

        return cls(geometry=geometry, modality=modality, sources=(), reader=read)

    def read(self, planes: Sequence[int] | None = None) -> Planes:
        """Decode planes.

        Parameters
        ----------
        planes
            Indices of the planes, counted from 0, in the order wanted; all where left out.

        Returns
        -------
        float32 ``(n, rows, columns)`` in modality units.

        Raises
        ------
        IndexError
            If an index is negative or beyond the last plane.
        osteoscope.errors.ImageError
            If a file cannot be decoded, or is no longer the one that was opened.
        """
        count, rows, columns = self.geometry.shape
        wanted = range(count) if planes is None else planes
        for index in wanted:
            if not 0 <= index < count:
                msg = f"expected planes from 0 to {count - 1}, got {index}"
                raise IndexError(msg)
        values = self.reader(wanted)
        if values.shape != (len(wanted), rows, columns) or values.dtype != np.float32:
            msg = f"expected float32 {(len(wanted), rows, columns)} from the reader, got {values.dtype} {values.shape}"
            raise ValueError(msg)
        return values
