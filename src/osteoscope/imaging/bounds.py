"""How large a picture may be, once its pixels are square, whatever it is stored in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osteoscope.imaging.refusal import RefusalCode, RefusedImageError

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_SIDE = 16_384
"""Rows or columns of square pixels: the square round a picture is read, and one of this side takes a gigabyte."""


def check_longest_side(rows: float, columns: float, path: Path) -> None:
    """Refuse a picture that is so long that the square round it would take much memory.

    Parameters
    ----------
    rows, columns
        Of square pixels.
    path
        Of the file.

    Raises
    ------
    RefusedImageError
        With the code ``too_large``.
    """
    if max(rows, columns) > LONGEST_SIDE:
        reason = f"expected at most {LONGEST_SIDE} rows and columns of square pixels, found {columns:.0f} x {rows:.0f}"
        remedy = "export it at a lower resolution, or see whether the aspect of its pixels is stated rightly"
        raise RefusedImageError(RefusalCode.TOO_LARGE, reason, path=path, remedy=remedy)
