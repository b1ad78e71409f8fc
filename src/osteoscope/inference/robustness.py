"""What a bundle says of a case whose images are disturbed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.imaging.disturb import DISTURBANCES, Radiograph, disturb
from osteoscope.imaging.prepare import resample, square_to_read
from osteoscope.inference.predict import PreparedCase, predict_case, read_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from osteoscope.cohort.table import Case
    from osteoscope.config import PreparationConfig
    from osteoscope.inference.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A disturbance at a strength; strength 0 is the image as it is."""

    disturbance: str
    strength: float


def disturbed_logits(
    predictor: Predictor, case: Case, conditions: Sequence[Condition], *, seed: int
) -> Iterator[tuple[float, ...]]:
    """Say a case's logits, the mean over the members, under each condition in turn; images are decoded once.

    Raises
    ------
    ImageError
        If an image cannot be read.
    InputError
        If a lesion is needed and none is annotated.
    """
    images = [Radiograph(pixels=read_pixels(image), lesions=image.lesions) for image in case.images]
    keys = [image.pixel_sha256 for image in case.images]
    for condition in conditions:
        kind = DISTURBANCES[condition.disturbance]
        disturbed = [
            disturb(image, kind, condition.strength, key=key, seed=seed)
            for image, key in zip(images, keys, strict=True)
        ]
        prepared = prepare_radiographs(disturbed, predictor.preparation)
        yield predict_case(case, prepared, predictor.members).prediction.logits


def prepare_radiographs(images: Sequence[Radiograph], preparation: PreparationConfig) -> PreparedCase:
    """Prepare decoded images as `osteoscope.inference.predict.prepare_case` does those of a case.

    Raises
    ------
    InputError
        If a lesion is needed and none is annotated.
    """
    squares = tuple(
        square_to_read(image.shape, image.lesions, roi=preparation.roi, margin=preparation.margin) for image in images
    )
    planes = [resample(image.pixels, square, preparation.size) for image, square in zip(images, squares, strict=True)]
    return PreparedCase(planes=np.stack(planes)[:, None], squares=squares)
