"""Evidence beside the annotated lesion, on the plane that the network read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from osteoscope.evaluation.found import LesionView
from osteoscope.imaging.prepare import Lesion, Square, lesion_on_plane, outline_mask, square_on_plane
from osteoscope.inference.evidence import evidence_on_image, on_pixels
from osteoscope.inference.predict import prepare_case

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case
    from osteoscope.config import PreparationConfig
    from osteoscope.inference.prediction import ExplainedCase


def lesion_views(
    case: Case, explained: ExplainedCase, preparation: PreparationConfig, *, group: str
) -> list[LesionView]:
    """Set the evidence for the most probable class beside the lesion, in each image where one is annotated.

    Parameters
    ----------
    case
        With its images, their lesions and its label.
    explained
        The same case's prediction.
    preparation
        That the prediction was made with.
    group
        The fold, or whatever else thresholds shall not be chosen within.

    Raises
    ------
    ImageError
        If an image cannot be read.
    """
    if case.label is None or not any(image.lesions for image in case.images):
        return []
    prepared = prepare_case(case, preparation)
    predicted = int(np.argmax(explained.prediction.logits))
    size, asked_to_find = preparation.size, preparation.second_look and preparation.second_look_at == "found"
    whole, plane = Square(left=0, top=0, side=size), (size, size)
    views = []
    for place, image in enumerate(case.images):
        said, read = explained.prediction.images[place], prepared.squares[place]
        mask = outline_mask(plane, [lesion_on_plane(lesion, read, size) for lesion in image.lesions])
        if not mask.any():
            continue
        looks = [square_on_plane(look.read_square(), read, size) for look in said.looks]
        views.append(
            LesionView(
                patient=case.patient,
                label=case.label,
                group=group,
                evidence=evidence_on_image(explained.evidence[explained.looks_at(place)], looks, plane)[predicted],
                mask=mask,
                pixels=prepared.planes[place, 0],
                lesion=on_pixels(explained.lesions[place][None], whole, plane)[0] if preparation.second_look else None,
                found=tuple(_mask_of(look, plane) for look in looks[1:]) if asked_to_find else None,
            )
        )
    return views


def _mask_of(square: Square, shape: tuple[int, int]) -> NDArray[np.bool_]:
    right, bottom = square.left + square.side, square.top + square.side
    return outline_mask(shape, [Lesion(box=(square.left, square.top, right, bottom))])
