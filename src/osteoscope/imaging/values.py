"""What the decoded values of a whole Volume are, a few planes at a time, however many it has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from osteoscope.imaging.volume import Planes, Volume

VALUES_AT_ONCE = 2**22
"""Values that are decoded at once (16 MiB); one plane where it has more."""

LEAST_EQUAL = 0.9
"""Share of neighbouring values other than 0 that are equal in a map of labels; noise leaves an image far below."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """What the values of an image are.

    Parameters
    ----------
    sha256
        Over the shape and the float32 values, as `osteoscope.imaging.picture.pixel_sha256` gives it.
    low, high
        In modality units, of the finite values; None where there is none.
    labels
        Whether they are numbers of regions rather than grey values: whole, not negative, and nearly always the same as
        their neighbour's.
    """

    sha256: str
    low: float | None
    high: float | None
    labels: bool

    @property
    def blank(self) -> bool:
        """Whether no value differs from another, so that nothing is shown."""
        return self.low == self.high


def values_of(volume: Volume, *, progress: Callable[[int], None] | None = None) -> Values:
    """Decode a whole Volume.

    Parameters
    ----------
    volume
        Whose planes are read once each, in order.
    progress
        Is told how many planes are decoded.

    Raises
    ------
    osteoscope.errors.ImageError
        If a plane cannot be decoded.
    """
    planes, rows, columns = volume.geometry.shape
    digest = hashlib.sha256(f"{planes}x{rows}x{columns}\n".encode())
    step = max(1, VALUES_AT_ONCE // (rows * columns))
    low, high = np.inf, -np.inf
    labels = _Labels()
    for first in range(0, planes, step):
        values = volume.read(range(first, min(first + step, planes)))
        digest.update(np.ascontiguousarray(values, dtype="<f4").data)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        labels.see(values)
        if progress is not None:
            progress(first + len(values))
    found = low <= high
    return Values(
        sha256=digest.hexdigest(), low=low if found else None, high=high if found else None, labels=labels.seen
    )


class _Labels:
    """Looks at planes for what would tell labels from grey values."""

    def __init__(self) -> None:
        self._whole = True
        self._pairs = 0
        self._equal = 0

    def see(self, values: Planes) -> None:
        """Look at planes (n, rows, columns)."""
        # Infinity is whole by this test, and has no neighbour that would make it a label.
        self._whole = self._whole and bool(((values >= 0) & (values == np.rint(values))).all())
        if self._whole:
            left, right = values[:, :, :-1], values[:, :, 1:]
            both = (left != 0) & (right != 0)
            self._pairs += int(both.sum())
            self._equal += int((both & (left == right)).sum())

    @property
    def seen(self) -> bool:
        """Whether they were labels; single marked pixels are."""
        return self._whole and self._equal >= LEAST_EQUAL * self._pairs
