"""What the members read of a patient's images, before they judge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Self

import numpy as np

from osteoscope.inference.engine import PlaneReadings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from osteoscope.imaging.resampling import Rectangle


_LEAST = 1e-6
"""Stands for none at all, whose logarithm is not finite."""


@dataclass(frozen=True, kw_only=True)
class ReadLook:
    """A part of an image that was read; `osteoscope.inference.prediction.Look` says what each is."""

    plane: int
    rectangle: Rectangle
    likelihood: float | None = None


def scores_of(likelihoods: Iterable[float | None]) -> NDArray[np.float32]:
    """Give what is added to the gate scores of some looks, (looks,), so that each weighs in proportion to a likelihood.

    The gate tells by what a look sees whether a lesion is in it, the map by where it lies in the whole too. A look of
    no likelihood weighs by its gate alone.
    """
    factors = [1.0 if likelihood is None else max(likelihood, _LEAST) for likelihood in likelihoods]
    return np.log(factors).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadImages:
    """What the members read of some images."""

    looks: tuple[tuple[ReadLook, ...], ...]
    """For each image, the first looks at it, the closer ones and those at its regions."""
    first_looks: tuple[int, ...]
    """For each image, how many are first ones."""
    closer_looks: tuple[int, ...]
    """For each image, how many behind these search it more closely."""
    readings: tuple[PlaneReadings, ...]
    """Of each member: the looks at the first image, those at the second, and so on."""
    lesions: NDArray[np.float32]
    """(first looks, h, w), 0..1: how likely a lesion is at each place of each first look, mean over the members; of a
    radiograph that is looked at again, as closer looks at its parts confirm it."""

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Put what was read of some images behind each other."""
        return cls(
            looks=tuple(chain.from_iterable(part.looks for part in parts)),
            first_looks=tuple(chain.from_iterable(part.first_looks for part in parts)),
            closer_looks=tuple(chain.from_iterable(part.closer_looks for part in parts)),
            readings=tuple(
                reduce(PlaneReadings.joined, of_member)
                for of_member in zip(*(part.readings for part in parts), strict=True)
            ),
            lesions=np.concatenate([part.lesions for part in parts]),
        )

    @property
    def starts(self) -> tuple[int, ...]:
        """For each image, the place of its first look among all looks."""
        return tuple(accumulate(map(len, self.looks[:-1]), initial=0))

    @property
    def regions(self) -> tuple[range, ...]:
        """For each image, the places among all looks of those at its regions."""
        counts = zip(self.starts, self.looks, self.first_looks, self.closer_looks, strict=True)
        return tuple(range(start + first + closer, start + len(looks)) for start, looks, first, closer in counts)

    @property
    def speaking(self) -> tuple[tuple[int, ...], ...]:
        """For each image, the places among all looks of those that have a say: those behind the first ones, or all."""
        places = []
        for start, looks, first in zip(self.starts, self.looks, self.first_looks, strict=True):
            of_image = range(start, start + len(looks))
            places.append(tuple(of_image[first:] or of_image))
        return tuple(places)
