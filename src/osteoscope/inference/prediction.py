"""What is said of a case, before and after calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from osteoscope.imaging.prepare import Square

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Look(_Record):
    """One part of an image that was read: the first look, or a second one at a region that was found."""

    square: tuple[float, float, float]
    """Left, top and side of what was read, in pixel-edge coordinates of the image."""
    weight: float
    """Share in the patient's decision, mean over the members."""
    likelihood: float | None = None
    """Of a lesion in the region, as the first look found it, 0..1; None for the first look itself, and for a region
    that a person has marked."""

    def read_square(self) -> Square:
        """Give the part of the image that was read."""
        left, top, side = self.square
        return Square(left=left, top=top, side=side)


class ImagePrediction(_Record):
    """What one image says."""

    image: str
    logits: tuple[float, ...]
    """Of this image by itself, with the looks at it that speak, as if it were all there is."""
    looks: tuple[Look, ...]
    """The first look, then those at the regions in which a lesion was found. Where there is such a region, the first
    look has only found it and has no say: its weight is 0."""

    @property
    def weight(self) -> float:
        """Share of all looks at the image in the patient's decision."""
        return sum(look.weight for look in self.looks)

    @property
    def speaking(self) -> tuple[Look, ...]:
        """The looks that have a say in the decision."""
        return self.looks[1:] or self.looks

    @property
    def square(self) -> Square:
        """The part of the image that the first look read."""
        return self.looks[0].read_square()

    @property
    def found(self) -> tuple[Square, ...]:
        """The regions that were looked at again."""
        return tuple(look.read_square() for look in self.looks[1:])


class CasePrediction(_Record):
    """What the networks say of a patient, before calibration."""

    patient: str
    label: int | None
    """Index of the proven class; None if it is not known."""
    logits: tuple[float, ...]
    """Mean over the members; free of the class prior."""
    images: tuple[ImagePrediction, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ExplainedCase:
    """A prediction with its evidence."""

    prediction: CasePrediction
    evidence: NDArray[np.float32]
    """(looks, classes, h, w) in units of the logit: the looks at the first image, those at the second, and so on."""
    lesions: NDArray[np.float32]
    """(images, h, w), 0..1: how likely a lesion is at each place of the first look, mean over the members."""

    def looks_at(self, image: int) -> slice:
        """Find the looks at an image, counted from 0, in `evidence`."""
        counts = [len(one.looks) for one in self.prediction.images]
        return slice(sum(counts[:image]), sum(counts[: image + 1]))
