"""Evidence beside the annotated lesion, on the planes that the network read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from osteoscope.evaluation.found import LesionView
from osteoscope.imaging.masks import read_mask
from osteoscope.imaging.prepare import SMALLEST_SQUARE, Lesion, Square, lesion_on_plane, outline_mask, square_on_plane
from osteoscope.imaging.resampling import Rectangle, resample_mask, resample_rectangle
from osteoscope.imaging.slices import cut_slices, without_neighbours
from osteoscope.inference.evidence import evidence_on_image, on_pixels
from osteoscope.inference.predict import prepare_image
from osteoscope.inference.radiographs import lesions_on
from osteoscope.inference.scans import PreparedScans

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case, CaseImage
    from osteoscope.config import PreparationConfig
    from osteoscope.inference.prediction import ExplainedCase
    from osteoscope.inference.radiographs import PreparedRadiographs

_FINEST = 128
"""Rows and columns in which planes of CT and MR are compared, at most: all of a study's are in memory together, and the
network's own grid is far coarser."""


def lesion_views(
    case: Case, explained: ExplainedCase, preparation: PreparationConfig, *, group: str, shown: int
) -> list[LesionView]:
    """Set the evidence for the class that is shown beside the lesion, in each plane where one is known.

    Parameters
    ----------
    case
        With its images, their lesions or masks, and its label.
    explained
        The same case's prediction.
    preparation
        That the prediction was made with.
    group
        The fold, or whatever else thresholds shall not be chosen within.
    shown
        Place of the class: the most probable one, by calibrated probabilities.

    Returns
    -------
    A view of each radiograph in which a lesion is annotated, and of each plane of a CT or MR that was read and in which
    its mask marks a pixel, cut as the network reads them. An image of whose lesion nothing was read has one view, in
    which nothing is marked.

    Raises
    ------
    ImageError
        If an image cannot be read.
    InputError
        If a mask cannot be read, or is none of its volume.
    """
    if case.label is None:
        return []
    about = _About(patient=case.patient, label=case.label, group=group, shown=shown)
    views: list[LesionView] = []
    for place, image in enumerate(case.images):
        if not (image.lesions or image.mask):
            continue
        prepared = prepare_image(image, preparation)
        if isinstance(prepared, PreparedScans):
            views.extend(_views_of_scan(image, place, explained, prepared, about))
        else:
            views.extend(_view_of_radiograph(image, place, explained, prepared, about))
    return views


@dataclass(frozen=True, kw_only=True)
class _About:
    """What all views of a case share."""

    patient: str
    label: int
    group: str
    shown: int
    """Place of the class whose evidence is measured."""


def _view_of_radiograph(
    image: CaseImage, place: int, explained: ExplainedCase, prepared: PreparedRadiographs, about: _About
) -> Iterator[LesionView]:
    """Give the view of the one radiograph that was prepared; `place` is that among the patient's images."""
    preparation = prepared.preparation
    size, asked_to_find = preparation.size, preparation.second_look and preparation.second_look_at == "found"
    # A network that reads scans too is asked of every plane where the lesion is.
    asked = preparation.second_look or bool(preparation.modalities)
    whole, plane = Square(left=0, top=0, side=size), (size, size)
    said, read = explained.prediction.images[place], prepared.squares[0]
    lesions = lesions_on(prepared.pixels[0], image)
    mask = outline_mask(plane, [lesion_on_plane(lesion, read, size) for lesion in lesions])
    looks = [square_on_plane(look.read_square(), read, size) for look in said.looks]
    likely = explained.lesions[explained.first_looks_at(place)]
    yield LesionView(
        patient=about.patient,
        label=about.label,
        group=about.group,
        evidence=evidence_on_image(explained.evidence[explained.looks_at(place)], looks, plane)[about.shown],
        mask=mask,
        pixels=prepared.planes[0, 0],
        lesion=on_pixels(likely, whole, plane)[0] if asked else None,
        found=tuple(_mask_of(square_on_plane(region, read, size), plane) for region in said.found)
        if asked_to_find
        else None,
        smallest=SMALLEST_SQUARE * size / read.side,
        # Of a mix everything is measured plane by plane, and a radiograph is one.
        volume=image.image if preparation.modalities else None,
    )


def _views_of_scan(
    image: CaseImage, place: int, explained: ExplainedCase, prepared: PreparedScans, about: _About
) -> Iterator[LesionView]:
    """Take one plane after the other of the one scan that was prepared; of it no more is held than its mask."""
    if image.mask is None:
        return
    volume, plan = prepared.volumes[0], prepared.plans[0]
    marked = read_mask(image.mask, volume)
    side = min(plan.size, _FINEST)
    whole, grid = Square(left=0, top=0, side=side), (side, side)
    evidence = explained.evidence[explained.looks_at(place)]
    lesions = explained.lesions[explained.first_looks_at(place)]
    looks = explained.prediction.images[place].looks
    masks = [resample_mask(marked[look.plane], look.read_rectangle(), grid) for look in looks]
    shown = [number for number, mask in enumerate(masks) if mask.any()]
    # Of a lesion that no plane shows one of them says so.
    for number in shown or (range(1) if marked.any() else ()):
        itself = without_neighbours(cut_slices(volume, plan, [number])[0], plan)
        yield LesionView(
            patient=about.patient,
            label=about.label,
            group=about.group,
            evidence=on_pixels(evidence[number, about.shown][None], whole, grid)[0],
            mask=masks[number],
            pixels=resample_rectangle(
                itself, Rectangle(left=0, top=0, width=plan.size, height=plan.size), grid, fill=0
            ),
            lesion=on_pixels(lesions[number][None], whole, grid)[0],
            volume=image.image,
        )


def _mask_of(square: Square, shape: tuple[int, int]) -> NDArray[np.bool_]:
    right, bottom = square.left + square.side, square.top + square.side
    return outline_mask(shape, [Lesion(box=(square.left, square.top, right, bottom))])
