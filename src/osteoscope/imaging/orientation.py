"""One order of planes, rows and columns for a scan, whatever order its file stores them in.

A scan in DICOM, the same scan converted to NIfTI by dcm2niix (which turns the rows round, and stores a 3-D MR along
other axes) and by SimpleITK (which keeps the order) hold the same values in three orders. Turned by `turn_to_display`
all three are the same array with the same affine, and it lies as a radiologist looks at it:

========  =================  ==================  ===========================
planes    columns run to     rows run to         planes run to
========  =================  ==================  ===========================
axial     the patient's left the back            the head
sagittal  the back           the feet            the patient's right
coronal   the patient's left the feet            the back
========  =================  ==================  ===========================

So planes follow the normal ``columns x rows``, right-handed, as the slices of a DICOM series do whose Image Orientation
(Patient) is the usual one of its plane (PS3.3 C.7.6.2.1.1). An oblique scan is turned as the nearest of the three.

A reader of stored planes takes the `Turn` of the affine that it found, and then

- gives ``turn.shape`` and ``turn.affine`` to the `osteoscope.imaging.volume.Geometry`;
- reads stored plane ``turn.stored_plane(p)`` where plane ``p`` is asked for;
- gives ``turn.turned(stored_planes)`` as values.

For a DICOM series the stored axes are ``(column, row, plane)``, so ``turn_to_display(affine, (columns, rows, planes))``
takes the affine and the size just as they are, and the last axis is that of the planes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Number = TypeVar("Number", bound=np.generic)

Axes = tuple[int, int, int]

TIE = 1e-3
"""Cosines that differ by less are taken as equal, so that the rounding of an affine to float32 decides nothing."""

_SAME_STEP, _OTHER_STEP, _FAR_STEP = 1.01, 1.1, 2.0
"""Steps along two axes are the same below the first ratio, different from the second on, and far so from the third."""

# Of the planes at right angles to each axis of the patient, in LPS: where columns and rows run to on the screen. Where
# an oblique scan lies as close to two of them, the first counts.
_LEFT, _BACK, _HEAD = np.eye(3)
_DISPLAYS = {2: (_LEFT, _BACK), 0: (_BACK, -_HEAD), 1: (_LEFT, -_HEAD)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """How a stored array is turned to lie as it is looked at.

    Parameters
    ----------
    shape
        ``(planes, rows, columns)`` of the turned array.
    affine
        4x4 matrix from a turned index ``(column, row, plane, 1)`` to LPS coordinates in mm.
    axes
        The stored axes that become ``(columns, rows, planes)``.
    backwards
        Which of those three run the other way round than they are stored.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    axes: Axes
    backwards: tuple[bool, bool, bool]

    def stored_plane(self, plane: int) -> int:
        """Index, along the stored axis of the planes, of a turned plane."""
        return self.shape[0] - 1 - plane if self.backwards[2] else plane

    def turned(self, planes: NDArray[Number]) -> NDArray[Number]:
        """Turn stored planes in themselves.

        Parameters
        ----------
        planes
            ``(n, a, b)``, in which b is the earlier of the two stored axes within a plane: ``(n, rows, columns)`` as
            DICOM stores them.

        Returns
        -------
        ``(n, rows, columns)`` as looked at; a view.
        """
        columns, rows, _ = self.axes
        upright = planes.swapaxes(1, 2) if columns > rows else planes
        return upright[:, :: -1 if self.backwards[1] else 1, :: -1 if self.backwards[0] else 1]


def turn_to_display(affine: NDArray[np.float64], sizes: Sequence[int], *, plane_axis: int = 2) -> Turn:
    """Find how a stored array must be turned; what is stored in another order gives the same turned array.

    Parameters
    ----------
    affine
        4x4 matrix, invertible, from a stored index ``(i, j, k, 1)`` to LPS coordinates in mm. It may be sheared.
    sizes
        Of the stored axes ``(i, j, k)``.
    plane_axis
        Which stored axis leads from plane to plane; see `plane_axis_of` for files that do not say.
    """
    first, second = (axis for axis in range(3) if axis != plane_axis)
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    columns, rows, flipped = _nearest(cosines, first, second)
    normal = np.cross(cosines[:, columns], cosines[:, rows]) * (-1 if flipped[0] != flipped[1] else 1)
    axes, backwards = (columns, rows, plane_axis), (*flipped, bool(normal @ cosines[:, plane_axis] < 0))
    size = [int(sizes[axis]) for axis in axes]
    to_stored = np.zeros((4, 4))
    to_stored[3, 3] = 1
    for place, (axis, back) in enumerate(zip(axes, backwards, strict=True)):
        to_stored[axis, place] = -1 if back else 1
        to_stored[axis, 3] = size[place] - 1 if back else 0
    return Turn(shape=(size[2], size[1], size[0]), affine=affine @ to_stored, axes=axes, backwards=backwards)


def plane_axis_of(steps: Sequence[float], sizes: Sequence[int]) -> int | None:
    """Tell which stored axis leads from plane to plane in a file that does not say, such as a NIfTI.

    Pixels are square in nearly every scanner's planes, so where two axes share a step and the third has another, the
    third is it, wherever a conversion has put it; likewise an axis whose step is by far the longest, and the only axis
    of one place. (The ``dim_info`` of a NIfTI is no help: dcm2niix leaves it as it was when it turns the axes.)

    Parameters
    ----------
    steps
        In mm along the stored axes ``(i, j, k)``.
    sizes
        Of the stored axes.

    Returns
    -------
    The axis, or None where nothing tells them apart, as in an isotropic volume.
    """
    single = [axis for axis in range(3) if sizes[axis] == 1]
    if len(single) == 1:
        return single[0]
    for axis in range(3):
        low, high = sorted(steps[kept] for kept in range(3) if kept != axis)
        if high < low * _SAME_STEP and not low / _OTHER_STEP < steps[axis] < high * _OTHER_STEP:
            return axis
    _, second, longest = sorted(steps)
    return list(steps).index(longest) if longest >= second * _FAR_STEP else None


def _nearest(cosines: NDArray[np.float64], first: int, second: int) -> tuple[int, int, tuple[bool, bool]]:
    """Choose which of two stored axes are columns and rows, and which of these run backwards, nearest to the display.

    Looked at from the wrong side left and right would be exchanged, so what remains are four quarter turns. At exactly
    half a quarter between two of them, it is the one in which columns fall towards the right.
    """
    normal = np.cross(cosines[:, first], cosines[:, second])
    closeness = np.abs(normal)
    to_columns, to_rows = next(d for axis, d in _DISPLAYS.items() if closeness[axis] >= closeness.max() - TIE)
    towards = np.cross(to_columns, to_rows)
    choices: list[tuple[float, float, Any]] = []
    for (columns, rows), flipped in product(((first, second), (second, first)), product((False, True), repeat=2)):
        across = cosines[:, columns] * (-1 if flipped[0] else 1)
        down = cosines[:, rows] * (-1 if flipped[1] else 1)
        if np.cross(across, down) @ towards > 0:
            choices.append(
                (float(across @ to_columns + down @ to_rows), float(across @ to_rows), (columns, rows, flipped))
            )
    best = max(score for score, _, _ in choices)
    chosen: tuple[int, int, tuple[bool, bool]] = max(
        (choice for choice in choices if choice[0] >= best - TIE), key=lambda choice: choice[1]
    )[2]
    return chosen
