"""From a patient's images to a prediction with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.errors import ImageError
from osteoscope.imaging.picture import pixel_sha256, read_picture
from osteoscope.imaging.prepare import Square, resample, square_to_read
from osteoscope.imaging.region import Region, find_regions
from osteoscope.inference.evidence import closed_form_evidence
from osteoscope.inference.prediction import CasePrediction, ExplainedCase, ImagePrediction, Look

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.covariates import CovariateEncoder
    from osteoscope.cohort.table import Case, CaseImage
    from osteoscope.config import PreparationConfig, RegionOfInterest
    from osteoscope.imaging.prepare import Lesion
    from osteoscope.inference.engine import MemberEngine


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """A network and how it wants to be told of covariates."""

    engine: MemberEngine
    encoder: CovariateEncoder | None = None

    def covariates(self, case: Case) -> NDArray[np.float32] | None:
        """Encode what is known of a patient: (covariates,), or None for a network that takes none."""
        return None if self.encoder is None else self.encoder.encode(age=case.age, sex=case.sex, site=case.site)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedCase:
    """A patient's images, and the planes of the first look at them."""

    pixels: tuple[NDArray[np.float32], ...]
    """For each image (rows, columns), 0..1."""
    squares: tuple[Square, ...]
    """For each image, the part of it that the first look reads."""
    preparation: PreparationConfig
    marked: tuple[tuple[Region, ...], ...] | None = None
    """For each image, the regions for a second look that a person has marked; None where they are to be found."""

    @cached_property
    def planes(self) -> NDArray[np.float32]:
        """Planes of the first look: (images, 1, size, size), 0..1."""
        return self.cut([[square] for square in self.squares])

    def cut(self, squares: Sequence[Sequence[Square]]) -> NDArray[np.float32]:
        """Cut planes, (planes, 1, size, size), from the images as they are: for each image those of its squares."""
        size = self.preparation.size
        planes = [
            resample(image, square, size)
            for image, of_image in zip(self.pixels, squares, strict=True)
            for square in of_image
        ]
        return np.stack(planes)[:, None] if planes else np.empty((0, 1, size, size), dtype=np.float32)


def read_pixels(image: CaseImage) -> NDArray[np.float32]:
    """Decode a picture of a cohort: (rows, columns), 0..1.

    Raises
    ------
    ImageError
        If it cannot be read, or is not the picture that the cohort was made with.
    """
    pixels: NDArray[np.float32] = read_picture(image.path).read()[0]
    if pixel_sha256(pixels) != image.pixel_sha256:
        raise ImageError(
            "shows other pixels than when the cohort was made",
            path=image.path,
            remedy="put the original back, or make the cohort again",
        )
    return pixels


def prepare_case(case: Case, preparation: PreparationConfig) -> PreparedCase:
    """Decode and prepare a patient's images, in their order.

    Raises
    ------
    ImageError
        If an image cannot be read.
    InputError
        If a lesion is needed and none is annotated.
    """
    return prepare_pixels([read_pixels(image) for image in case.images], [i.lesions for i in case.images], preparation)


def prepare_pixels(
    pixels: Sequence[NDArray[np.float32]], lesions: Sequence[Sequence[Lesion]], preparation: PreparationConfig
) -> PreparedCase:
    """Prepare decoded images, (rows, columns) each, and the lesions that are annotated in them.

    Raises
    ------
    InputError
        If a lesion is needed and none is annotated.
    """

    def squares(roi: RegionOfInterest) -> tuple[Square, ...]:
        return tuple(
            square_to_read((image.shape[0], image.shape[1]), known, roi=roi, margin=preparation.margin)
            for image, known in zip(pixels, lesions, strict=True)
        )

    marked = None
    if preparation.second_look and preparation.second_look_at != "found":
        marked = tuple((Region(square=square, likelihood=None),) for square in squares(preparation.second_look_at))
    return PreparedCase(pixels=tuple(pixels), squares=squares(preparation.roi), preparation=preparation, marked=marked)


def predict_case(case: Case, prepared: PreparedCase, members: Sequence[Member]) -> ExplainedCase:
    """Let every member read a patient's images, and join what they say.

    With a second look, the members agree on where a lesion may be, by the mean of their maps, and all of them read
    those regions too; a patient's decision rests on all looks together.

    Parameters
    ----------
    case
        The patient.
    prepared
        The patient's images, by `prepare_case`.
    members
        One network or more.
    """
    readings = [member.engine.read(prepared.planes) for member in members]
    lesions: NDArray[np.float32] = np.mean([reading.lesions for reading in readings], axis=0, dtype=np.float32)
    found = find_in_images(prepared, lesions)
    again = prepared.cut([[region.square for region in regions] for regions in found])
    if len(again):
        order = _by_image(found)
        readings = [r.joined(m.engine.read(again)).of(order) for m, r in zip(members, readings, strict=True)]
    owners = np.repeat(np.arange(len(found)), [1 + len(regions) for regions in found])
    covariates = [member.covariates(case) for member in members]
    judgements = [m.engine.judge(r, c) for m, r, c in zip(members, readings, covariates, strict=True)]
    alone = _mean_over_members(
        [m.engine.judge(r.of(np.flatnonzero(owners == image).tolist()), c).logits for image in range(len(found))]
        for m, r, c in zip(members, readings, covariates, strict=True)
    )
    weights = _mean_over_members(judgement.weights for judgement in judgements)
    logits = _mean_over_members(judgement.logits for judgement in judgements)
    images = tuple(
        ImagePrediction(
            image=image.image,
            logits=tuple(alone[place].tolist()),
            looks=_looks(prepared.squares[place], found[place], weights[owners == place].tolist()),
        )
        for place, image in enumerate(case.images)
    )
    return ExplainedCase(
        prediction=CasePrediction(patient=case.patient, label=case.label, logits=tuple(logits.tolist()), images=images),
        evidence=closed_form_evidence(readings, judgements),
        lesions=lesions,
    )


def find_in_images(prepared: PreparedCase, lesions: NDArray[np.float32]) -> tuple[tuple[Region, ...], ...]:
    """Find, for each image, the regions that are worth a second look; none where there is to be no second look.

    Parameters
    ----------
    prepared
        The images, and the squares that the first look read.
    lesions
        (images, h, w), 0..1: how likely a lesion is at each place of the first look.
    """
    if prepared.marked is not None:
        return prepared.marked
    if not prepared.preparation.second_look:
        return ((),) * len(prepared.squares)
    return tuple(
        find_regions(likelihood, square, (image.shape[0], image.shape[1]), margin=prepared.preparation.margin)
        for likelihood, square, image in zip(lesions, prepared.squares, prepared.pixels, strict=True)
    )


def read_planes(prepared: PreparedCase, prediction: CasePrediction) -> NDArray[np.float32]:
    """Cut once more all the planes that a prediction was made from: (looks, 1, size, size)."""
    return prepared.cut([[look.read_square() for look in image.looks] for image in prediction.images])


def _by_image(found: Sequence[Sequence[Region]]) -> list[int]:
    """Order of planes that puts, behind the first look at an image, the looks at its regions."""
    order, following = [], len(found)
    for image, regions in enumerate(found):
        order.extend([image, *range(following, following + len(regions))])
        following += len(regions)
    return order


def _looks(first: Square, found: Sequence[Region], weights: Sequence[float]) -> tuple[Look, ...]:
    squares = [first, *(region.square for region in found)]
    likelihoods = [None, *(region.likelihood for region in found)]
    return tuple(
        Look(square=(square.left, square.top, square.side), weight=weight, likelihood=likelihood)
        for square, weight, likelihood in zip(squares, weights, likelihoods, strict=True)
    )


def _mean_over_members(values: Iterable[Any]) -> NDArray[np.float64]:
    """Mean over the first axis, in float64."""
    mean: NDArray[np.float64] = np.array(list(values), dtype=np.float64).mean(axis=0)
    return mean
