"""Confirms or refutes, from the pixels at full depth, that two pictures are one.

Both are laid on one grid of 96 x 96 by an affine transform. What counts is the correlation of their greys once the one
are carried over to the other by a tone curve, so that brightness, contrast and gamma do not matter; and, since the
greys of any two dark pictures with something bright in the middle correlate, that of their details.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from osteoscope.imaging.align import align, compose, correlate, invert, resampled
from osteoscope.imaging.look import WHOLE, banded, squashed, stretched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.audit.candidates import Candidate
    from osteoscope.imaging.look import Look
    from osteoscope.imaging.prepare import Box

VERSION = 2
"""Of all that is computed here: a verdict of another version is another verdict."""

LEAST_CORRELATION = 0.98
"""Of the greys, for two pictures to be one."""

LEAST_DETAIL = 0.955
"""Of the details. Among 2,598 radiographs the most alike two of different people reach 0.93, a second exposure of a
body that moved a little 0.95; copies that are cropped, rotated, noisy and compressed lie above 0.96."""

LEAST_OVERLAP = 0.7
"""Share of the fixed picture that must be seen in the moving one."""

_FIXED_SIDE, _MOVING_SIDE = 96, 144
"""The moving picture may be cropped to two thirds of its side, and then still has the pixels."""

_MARGIN = 5
"""Pixels along the sides that are not correlated: borders, frames and what a rotation laid bare reach that far."""

_FIRST_STEPS, _SECOND_STEPS = 8, 6

_HOPELESS = 0.85
"""Band-passed pictures that correlate less after the first steps are given up."""

_GRAIN = 0.8
"""Standard deviation, in pixels of the fixed picture, of the Gaussian that takes grain off the greys."""

_TONES = 3
"""Degree of the polynomial that carries greys over."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the pixels say of a pair.

    Parameters
    ----------
    correlation
        Of the greys over the overlap, after the best tone curve; 0 to 1.
    detail
        Of the details over the overlap; -1 to 1.
    overlap
        Share of the fixed picture.
    how
        What was done to the one to get the other, as a phrase.
    """

    correlation: float
    detail: float
    overlap: float
    how: str

    @property
    def confirmed(self) -> bool:
        """Whether the two are one picture."""
        return self.correlation >= LEAST_CORRELATION and self.detail >= LEAST_DETAIL and self.overlap >= LEAST_OVERLAP


@dataclass(frozen=True, kw_only=True, eq=False)
class Squares:
    """A picture's whole and content, squashed and stretched: as a fixed one ``(2, 96, 96)``, as a moving one."""

    fixed: NDArray[np.float32]
    moving: NDArray[np.float32]


def squares_of(plane: NDArray[np.float32], look: Look) -> Squares:
    """Make of a picture ``(rows, columns)`` what can be compared."""
    fixed, moving = (
        np.stack([stretched(squashed(plane, side, frame)) for frame in (WHOLE, look.content)])
        for side in (_FIXED_SIDE, _MOVING_SIDE)
    )
    return Squares(fixed=fixed, moving=moving)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """A candidate, and the looks and squares of its two pictures."""

    candidate: Candidate
    looks: tuple[Look, Look]
    """Of the moving and of the fixed one."""
    fixed: NDArray[np.float32]
    moving: NDArray[np.float32]


def judge(pairs: Sequence[Pair]) -> list[Verdict | None]:
    """Align pairs on their pixels, and say of each whether the two are one picture; best a few at a time.

    Returns
    -------
    For each pair a verdict, or None where the two are not nearly alike.
    """
    fixed, moving = np.stack([pair.fixed for pair in pairs]), np.stack([pair.moving for pair in pairs])
    start = np.stack([pair.candidate.transform for pair in pairs])
    scale = _MOVING_SIDE / _FIXED_SIDE
    band, other = banded(fixed, fine=1, coarse=6), banded(moving, fine=scale, coarse=6 * scale)
    first = align(band, other, start, iterations=_FIRST_STEPS)
    verdicts: list[Verdict | None] = [None] * len(pairs)
    hopeful = np.flatnonzero(first.correlations >= _HOPELESS).tolist()
    if hopeful:
        fixed, moving, transforms = fixed[hopeful], moving[hopeful], first.transforms[hopeful]
        # Carried over, a picture that was cropped has the same grain as what it was cropped to, and so the same band.
        carried, _ = _carried_over(moving, fixed, transforms)
        plain = np.broadcast_to(np.eye(3)[:2], transforms.shape)
        second = align(band[hopeful], banded(carried, fine=1, coarse=6), plain, iterations=_SECOND_STEPS)
        transforms = compose(transforms, second.transforms)
        for place, verdict in zip(
            hopeful, _verdicts([pairs[k] for k in hopeful], fixed, moving, transforms), strict=True
        ):
            verdicts[place] = verdict
    return verdicts


def _verdicts(
    pairs: Sequence[Pair], fixed: NDArray[np.float32], moving: NDArray[np.float32], transforms: NDArray[np.float64]
) -> list[Verdict]:
    count = len(pairs)
    carried, inside = _carried_over(moving, fixed, transforms)
    # Grain at the scale of single pixels is lost in resampling, and is no part of a picture's greys.
    soft, soft_carried = (ndimage.gaussian_filter(x, (0, _GRAIN, _GRAIN)).reshape(count, -1) for x in (fixed, carried))
    greys = correlate(soft, soft_carried, inside)
    fixed_detail, carried_detail = (
        banded(squares, fine=1, coarse=4).reshape(count, -1) for squares in (fixed, carried)
    )
    detail = correlate(fixed_detail, carried_detail, inside)
    return [
        Verdict(
            correlation=float(greys.correlations[place]),
            detail=float(detail.correlations[place]),
            overlap=float(greys.shares[place] / _INNER.mean()),
            how=described(transforms[place], pair.candidate.frame, pair.looks),
        )
        for place, pair in enumerate(pairs)
    ]


def _inner() -> NDArray[np.bool_]:
    """Mark the fixed picture's pixels within the margin, shape (pixels,)."""
    offset = np.abs(np.arange(_FIXED_SIDE) - (_FIXED_SIDE - 1) / 2) < _FIXED_SIDE / 2 - _MARGIN
    inner: NDArray[np.bool_] = (offset[:, np.newaxis] & offset).ravel()
    return inner


_INNER = _inner()


def _carried_over(
    moving: NDArray[np.float32], fixed: NDArray[np.float32], transforms: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Lay the moving pictures on the fixed ones, in the greys of those.

    Returns
    -------
    Greys ``(n, 96, 96)``, and where the two overlap within the margins, ``(n, pixels)``.
    """
    count = len(fixed)
    values, inside = resampled(moving, transforms, _FIXED_SIDE, margin=_MARGIN / _FIXED_SIDE)
    inside = inside & _INNER
    # Stretched greys lie about 0 to 1; beyond, a power of three would run away.
    powers = np.clip(values, -0.5, 1.5)[:, np.newaxis].astype(np.float64) ** np.arange(_TONES + 1)[:, np.newaxis]
    counted = powers * inside[:, np.newaxis]
    ridge = 1e-3 * np.eye(_TONES + 1)
    wanted = counted @ fixed.reshape(count, -1, 1)
    curves = np.linalg.solve(counted @ powers.transpose(0, 2, 1) + ridge, wanted)
    greys = (curves.transpose(0, 2, 1) @ powers).astype(np.float32)
    return greys.reshape(fixed.shape), inside


# Words ----------------------------------------------------------------------------------------------------------------

_LEAST_TOLD = 0.03
"""Changes of size, aspect and area by less are not told."""

_LEAST_TURN = 1.0
"""Degrees."""


def described(transform: NDArray[np.float64], frame: int, looks: tuple[Look, Look]) -> str:
    """Say what a transform does, as a phrase such as ``mirrored, cropped by 6 %``.

    Parameters
    ----------
    transform
        From the fixed picture's frame to the moving one's.
    frame
        Index into `osteoscope.cohort.audit.candidates.FRAMES`.
    looks
        At the moving and the fixed picture.
    """
    moving, fixed = (_frame((WHOLE, look.content)[frame]) for look in looks)
    whole = compose(moving, compose(transform, invert(fixed)))[:, :2]
    sizes = [np.array([look.shape[1], look.shape[0]], dtype=np.float64) for look in looks]
    pixels = sizes[0][:, np.newaxis] * whole / sizes[1]
    mirrored = np.linalg.det(pixels) < 0
    left, stretch, right = np.linalg.svd(pixels @ np.diag([-1.0, 1.0]) if mirrored else pixels)
    turn = left @ right
    degrees = math.degrees(math.atan2(turn[1, 0], turn[0, 0]))
    quarters = round(degrees / 90)
    area, size = abs(float(np.linalg.det(whole))), math.sqrt(stretch[0] * stretch[1])
    cropped = 1 - min(area, 1 / area)
    told = (
        (mirrored and quarters % 2 == 0, "upside down" if quarters else "mirrored"),
        (mirrored and quarters % 2 == 1, "mirrored and turned by 90°"),
        (not mirrored and quarters != 0, f"turned by {abs(quarters) * 90}°"),
        (abs(degrees - 90 * quarters) >= _LEAST_TURN, f"rotated by {abs(degrees - 90 * quarters):.0f}°"),
        (cropped >= _LEAST_TOLD, f"cropped by {100 * cropped:.0f} %"),
        (stretch[0] / stretch[1] - 1 >= _LEAST_TOLD, "in another aspect"),
        (abs(math.log(size)) >= _LEAST_TOLD, "at another size"),
    )
    return ", ".join(words for applies, words in told if applies) or "as it is"


def _frame(box: Box) -> NDArray[np.float64]:
    """Transform from a frame to the whole picture."""
    left, top, right, bottom = box
    return np.array([[right - left, 0, left], [0, bottom - top, top]])
