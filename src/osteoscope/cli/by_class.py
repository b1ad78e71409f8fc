"""Options that state a number for a class: ``SLUG=NUMBER``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence


def numbers_by_class(stated: Sequence[str], *, option: str, shape: str, example: str) -> dict[str, float]:
    """Read the number that is stated for each class, by its slug.

    Parameters
    ----------
    stated
        As they were given.
    option, shape, example
        Its name, its form as its help says it, and what would have been right; for the message.

    Raises
    ------
    typer.BadParameter
        If one is not of that form, or a class is named twice.
    """
    numbers: dict[str, float] = {}
    for text in stated:
        slug, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not slug or slug in numbers or math.isnan(value):
            message = f"expected {shape} once a class, such as {example}, got {text}"
            raise typer.BadParameter(message, param_hint=option)
        numbers[slug] = value
    return numbers
