"""From a study's images to a prediction with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal

import numpy as np

from osteoscope.cohort.covariates import split_sites
from osteoscope.imaging.resampling import Rectangle
from osteoscope.imaging.slices import cut_slices, plan_slices, radiograph_grey
from osteoscope.inference.engine import MICRO_BATCH, PlaneReadings
from osteoscope.inference.predict import judge_planes, prepare_pixels, read_images
from osteoscope.inference.predictor import verdicts_of
from osteoscope.inference.result import INDETERMINATE, OUT_OF_SCOPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.bundle.format import Manifest
    from osteoscope.bundle.load import Bundle
    from osteoscope.config import Covariate, PreparationConfig
    from osteoscope.imaging.open import Image
    from osteoscope.imaging.prepare import Square
    from osteoscope.imaging.slices import SlicePlan
    from osteoscope.inference.predict import Member
    from osteoscope.inference.predictor import Predictor
    from osteoscope.inference.scope import Selection, UsedImage


@dataclass(frozen=True, kw_only=True)
class Told:
    """What an operator says of a patient; None where nothing is known."""

    age: float | None = None
    """In years."""
    sex: Literal["F", "M"] | None = None
    site: str | None = None
    """One body site, or several joined by ``+``."""

    @property
    def names(self) -> tuple[Covariate, ...]:
        """What is told."""
        known: tuple[tuple[Covariate, object], ...] = (("age", self.age), ("sex", self.sex), ("site", self.site))
        return tuple(name for name, value in known if value is not None)


@dataclass(frozen=True, kw_only=True, eq=False)
class ExplainedPlane:
    """A part of an image that the networks read, and what speaks in it.

    Parameters
    ----------
    plane
        Index of the plane in the image.
    rectangle
        What was read of it, in pixel-edge coordinates.
    weight
        Share in the decision, mean over the members.
    likelihood
        Of a lesion, 0..1, in a region that the first look at a radiograph has found; None for anything else.
    evidence
        ``(classes, h, w)`` in units of the logit, of cells that divide the rectangle evenly.
    """

    plane: int
    rectangle: Rectangle
    weight: float
    likelihood: float | None
    evidence: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class ExplainedImage:
    """An image that was read.

    Parameters
    ----------
    used
        The image.
    planes
        What was read of it.
    plan
        By which the planes of a CT or MR were cut; None for a radiograph.
    """

    used: UsedImage
    planes: tuple[ExplainedPlane, ...]
    plan: SlicePlan | None = None

    @property
    def weight(self) -> float:
        """Share of the image in the decision."""
        return sum(plane.weight for plane in self.planes)


@dataclass(frozen=True, kw_only=True, eq=False)
class ExplainedStudy:
    """What is said of a study.

    Parameters
    ----------
    verdict
        A slug, ``indeterminate`` or ``out_of_scope``.
    reasons
        Why it is no class, and whatever else limits it; sentences.
    probabilities
        One a class, calibrated, under the bundle's prior; None where nothing was read.
    images
        Those that were read.
    """

    verdict: str
    reasons: tuple[str, ...]
    probabilities: tuple[float, ...] | None = None
    images: tuple[ExplainedImage, ...] = ()


def explain_study(
    selection: Selection, bundle: Bundle, predictor: Predictor, told: Told, *, research: bool = False
) -> ExplainedStudy:
    """Say of a study what a bundle says of it, or that it is out of the bundle's scope.

    Parameters
    ----------
    selection
        The study's images, by `osteoscope.inference.scope.select_images`.
    bundle, predictor
        The bundle, and its loaded graphs.
    told
        What is known of the patient.
    research
        Whether a study that is out of scope is read in spite of that, as far as it has images that can be.

    Raises
    ------
    osteoscope.errors.ImageError
        If an image cannot be read any more.
    """
    manifest = bundle.manifest
    outside = _outside(selection, manifest, told)
    if not selection.used or (outside and not research):
        return ExplainedStudy(verdict=OUT_OF_SCOPE, reasons=outside)
    read = [_read(one.image, predictor) for one in selection.used]
    logits, images = _judged(selection.used, read, predictor.members, told)
    probabilities = predictor.calibration.apply(logits[None])
    verdict, reasons = _verdict(probabilities, predictor, manifest)
    return ExplainedStudy(
        verdict=OUT_OF_SCOPE if outside else verdict,
        reasons=(*outside, *reasons, *_limits(selection, bundle, told)),
        probabilities=tuple(probabilities[0].tolist()),
        images=images,
    )


# Scope and verdict ----------------------------------------------------------------------------------------------------


def _outside(selection: Selection, manifest: Manifest, told: Told) -> tuple[str, ...]:
    reasons = []
    if not selection.used:
        found = "; ".join(dict.fromkeys(one.reason for one in selection.left_out))
        reasons.append(f"The study holds no image that the bundle reads: {found}.")
    if manifest.provenance == "phantom":
        reasons.append("The bundle learnt from phantoms alone, and nothing tells that the study shows one.")
    sites = split_sites(told.site)
    if sites and manifest.body_regions and not set(sites) & set(manifest.body_regions):
        known = ", ".join(manifest.body_regions)
        reasons.append(f"The bundle learnt from other body sites ({known}) than the one that is named.")
    return tuple(reasons)


def _verdict(probabilities: NDArray[np.float64], predictor: Predictor, manifest: Manifest) -> tuple[str, list[str]]:
    verdict = int(verdicts_of(probabilities, predictor.conformal)[0])
    level = manifest.verdicts.level
    if manifest.verdicts.thresholds is None:
        return manifest.slugs[verdict], [
            f"The most probable class is named; a verdict at the level of {level:.0%} is not offered: "
            f"{manifest.verdicts.refused}."
        ]
    if verdict >= 0:
        return manifest.slugs[verdict], []
    return INDETERMINATE, [f"Not one class alone is plausible at the level of {level:.0%}."]


def _limits(selection: Selection, bundle: Bundle, told: Told) -> list[str]:
    """Say what else to bear in mind."""
    limits = []
    if any(one.values.sha256 in bundle.seen.pixels for one in selection.used):
        limits.append("The bundle learnt from an image of this study, so this says nothing of how it does on others.")
    unused = [name for name in told.names if name not in bundle.manifest.network.covariates]
    if unused:
        limits.append(f"The bundle's networks make no use of the patient's {' and '.join(unused)}.")
    return limits


# Reading --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Look:
    plane: int
    rectangle: Rectangle
    likelihood: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _ReadImage:
    """What the members read of one image, before they judge the study."""

    looks: tuple[_Look, ...]
    readings: tuple[PlaneReadings, ...]
    speaking: tuple[int, ...]
    plan: SlicePlan | None = None


def _read(image: Image, predictor: Predictor) -> _ReadImage:
    if image.volume.modality == "radiograph":
        return _read_radiograph(image, predictor.members, predictor.preparation)
    return _read_volume(image, predictor.members, predictor.preparation)


def radiograph_pixels(image: Image) -> NDArray[np.float32]:
    """Decode a radiograph as the networks read it: ``(rows, columns)`` of square pixels, 0..1.

    A picture is taken as it is, for so it was in training.

    Raises
    ------
    osteoscope.errors.ImageError
        If it cannot be decoded.
    """
    return radiograph_grey(image.volume) if image.format == "DICOM" else image.volume.read([0])[0]


def _read_radiograph(image: Image, members: Sequence[Member], preparation: PreparationConfig) -> _ReadImage:
    pixels = radiograph_pixels(image)
    prepared = prepare_pixels([pixels], [()], preparation)
    read = read_images(prepared, members)
    # Rows of the image for one of the square pixels.
    tall = image.volume.geometry.shape[1] / len(pixels)
    squares = [(prepared.squares[0], None), *((region.square, region.likelihood) for region in read.found[0])]
    looks = tuple(_Look(plane=0, rectangle=_stretched(square, tall), likelihood=found) for square, found in squares)
    return _ReadImage(looks=looks, readings=read.readings, speaking=read.speaking[0])


def _stretched(square: Square, tall: float) -> Rectangle:
    return Rectangle(left=square.left, top=square.top * tall, width=square.side, height=square.side * tall)


def _read_volume(image: Image, members: Sequence[Member], preparation: PreparationConfig) -> _ReadImage:
    """Read a few planes of a CT or MR at a time, so that memory does not depend on their number."""
    if preparation.volume is None:
        msg = f"this bundle does not read {image.volume.modality}"
        raise ValueError(msg)
    plan = plan_slices(image.volume, preparation.volume)
    parts: list[list[PlaneReadings]] = [[] for _ in members]
    for start in range(0, len(plan.planes), MICRO_BATCH):
        planes = cut_slices(image.volume, plan, range(start, min(start + MICRO_BATCH, len(plan.planes))))
        for part, member in zip(parts, members, strict=True):
            part.append(member.engine.read(planes))
    return _ReadImage(
        looks=tuple(_Look(plane=plane, rectangle=plan.rectangle, likelihood=None) for plane in plan.planes),
        readings=tuple(reduce(PlaneReadings.joined, part) for part in parts),
        speaking=tuple(range(len(plan.planes))),
        plan=plan,
    )


def _judged(
    used: Sequence[UsedImage], read: Sequence[_ReadImage], members: Sequence[Member], told: Told
) -> tuple[NDArray[np.float64], tuple[ExplainedImage, ...]]:
    """Judge all images of a study together; give the logits, and what speaks in each image."""
    readings = [reduce(PlaneReadings.joined, parts) for parts in zip(*(one.readings for one in read), strict=True)]
    starts = np.cumsum([0, *(len(one.looks) for one in read)]).tolist()
    speaking = [start + place for start, one in zip(starts[:-1], read, strict=True) for place in one.speaking]
    judged = judge_planes(members, readings, speaking, told)
    images = tuple(
        ExplainedImage(
            used=image,
            planes=tuple(
                ExplainedPlane(
                    plane=look.plane,
                    rectangle=look.rectangle,
                    weight=float(judged.weights[start + place]),
                    likelihood=look.likelihood,
                    evidence=judged.evidence[start + place],
                )
                for place, look in enumerate(one.looks)
            ),
            plan=one.plan,
        )
        for image, one, start in zip(used, read, starts[:-1], strict=True)
    )
    return judged.logits, images
