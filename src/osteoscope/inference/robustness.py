"""What a bundle says of a case whose images are disturbed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from osteoscope.imaging.disturb import DISTURBANCES, Radiograph, disturb
from osteoscope.inference.predict import predict_case
from osteoscope.inference.radiographs import lesions_on, prepare_pixels, read_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from osteoscope.cohort.table import Case
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
    decoded = map(read_pixels, case.images)
    images = [
        Radiograph(pixels=pixels, lesions=lesions_on(pixels, image))
        for pixels, image in zip(decoded, case.images, strict=True)
    ]
    keys = [image.pixel_sha256 for image in case.images]
    for condition in conditions:
        kind = DISTURBANCES[condition.disturbance]
        disturbed = [
            disturb(image, kind, condition.strength, key=key, seed=seed)
            for image, key in zip(images, keys, strict=True)
        ]
        prepared = prepare_pixels(
            [image.pixels for image in disturbed], [image.lesions for image in disturbed], predictor.preparation
        )
        yield predict_case(case, prepared, predictor.members).prediction.logits
