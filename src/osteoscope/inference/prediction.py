"""What is said of a case, before and after calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from osteoscope.config import Covariate
from osteoscope.imaging.prepare import Square
from osteoscope.imaging.resampling import Rectangle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Look(_Record):
    """One part of an image that was read: a first look, a closer one, or one at a region that was found."""

    plane: int = 0
    """Index of the plane in the image, counted from 0; of a radiograph there is but one."""
    rectangle: tuple[float, float, float, float]
    """Left, top, width and height of what was read of the plane, in pixel-edge coordinates. Of a radiograph it is a
    square; of a CT or MR it is one in mm."""
    weight: float
    """Share in the patient's decision, mean over the members."""
    likelihood: float | None = None
    """Of a lesion in what was read, 0..1: the highest that the map of all looks shows there. None for a first look, and
    for a region that a person has marked."""

    def read_rectangle(self) -> Rectangle:
        """Give the part of the plane that was read."""
        left, top, width, height = self.rectangle
        return Rectangle(left=left, top=top, width=width, height=height)

    def read_square(self) -> Square:
        """Give the part of a radiograph that was read.

        Raises
        ------
        ValueError
            If it is no square of pixels, as it need not be in a CT or MR.
        """
        left, top, width, height = self.rectangle
        if width != height:
            msg = f"expected a square, got {width} x {height} pixels"
            raise ValueError(msg)
        return Square(left=left, top=top, side=width)


class ImagePrediction(_Record):
    """What one image says."""

    image: str
    logits: tuple[float, ...]
    """Of this image by itself, with the looks at it that speak, as if it were all there is."""
    looks: tuple[Look, ...]
    """The first looks, one of a radiograph and one at each plane that was read of a CT or MR; then the closer ones at
    all parts of a radiograph, and those at the regions in which a lesion was found. Where there are any of these, a
    first look has no say: its weight is 0."""
    first_looks: int = 1
    """How many of the looks are first ones."""
    closer_looks: int = 0
    """How many behind these search the image more closely."""

    @property
    def weight(self) -> float:
        """Share of all looks at the image in the patient's decision."""
        # Members weigh in float32, in which the shares of dozens of looks sum to 1 but nearly.
        return round(sum(look.weight for look in self.looks), 6)

    @property
    def speaking(self) -> tuple[Look, ...]:
        """The looks that have a say in the decision."""
        return self.looks[self.first_looks :] or self.looks

    @property
    def planes(self) -> tuple[int, ...]:
        """The planes of the image that the first looks read, ascending."""
        return tuple(look.plane for look in self.looks[: self.first_looks])

    @property
    def square(self) -> Square:
        """The part of a radiograph that the first look read."""
        return self.looks[0].read_square()

    @property
    def found(self) -> tuple[Square, ...]:
        """The regions of a radiograph in which a lesion was found or marked."""
        return tuple(look.read_square() for look in self.regions)

    @property
    def regions(self) -> tuple[Look, ...]:
        """The looks at these."""
        return self.looks[self.first_looks + self.closer_looks :]


class CasePrediction(_Record):
    """What the networks say of a patient, before calibration."""

    patient: str
    label: int | None
    """Index of the proven class; None if it is not known."""
    logits: tuple[float, ...]
    """Mean over the members; free of the class prior."""
    logits_of_images: tuple[float, ...] | None = None
    """As `logits`, were nothing but the images known; None where nothing else is."""
    told: tuple[Covariate, ...] = ()
    """What of the patient the networks were told beside the images."""
    images: tuple[ImagePrediction, ...]

    @property
    def said_by_images(self) -> tuple[float, ...]:
        """The logits, were nothing but the images known."""
        return self.logits_of_images or self.logits


@dataclass(frozen=True, kw_only=True, eq=False)
class ExplainedCase:
    """A prediction with its evidence."""

    prediction: CasePrediction
    evidence: NDArray[np.float32]
    """(looks, classes, h, w) in units of the logit: the looks at the first image, those at the second, and so on."""
    lesions: NDArray[np.float32]
    """(first looks, h, w), 0..1: how likely a lesion is at each place of each first look, mean over the members; those
    at the first image, those at the second, and so on."""

    def looks_at(self, image: int) -> slice:
        """Find the looks at an image, counted from 0, in `evidence`."""
        counts = [len(one.looks) for one in self.prediction.images]
        return slice(sum(counts[:image]), sum(counts[: image + 1]))

    def first_looks_at(self, image: int) -> slice:
        """Find the first looks at an image, counted from 0, in `lesions`."""
        counts = [one.first_looks for one in self.prediction.images]
        return slice(sum(counts[:image]), sum(counts[: image + 1]))
