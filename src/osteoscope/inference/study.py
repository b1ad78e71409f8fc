"""From a study's images to a prediction with its evidence."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from osteoscope.cohort.sites import split_sites
from osteoscope.imaging.mixed import in_words, named_together
from osteoscope.imaging.refusal import LEFT_OUT, RefusalCode
from osteoscope.imaging.slices import radiograph_grey
from osteoscope.inference.pipeline import made_ahead
from osteoscope.inference.predict import judge_planes, told_to
from osteoscope.inference.predictor import verdicts_of
from osteoscope.inference.radiographs import prepare_pixels
from osteoscope.inference.reading import ReadImages
from osteoscope.inference.result import INDETERMINATE, OUT_OF_SCOPE
from osteoscope.inference.scans import PreparedScans

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from osteoscope.bundle.format import Manifest
    from osteoscope.bundle.load import Bundle
    from osteoscope.config import Covariate, PreparationConfig
    from osteoscope.imaging.open import Image
    from osteoscope.imaging.person import Person
    from osteoscope.imaging.resampling import Rectangle
    from osteoscope.imaging.slices import SlicePlan
    from osteoscope.inference.engine import Member
    from osteoscope.inference.predict import JudgedPlanes
    from osteoscope.inference.predictor import Predictor
    from osteoscope.inference.radiographs import PreparedRadiographs
    from osteoscope.inference.scope import Selection, UsedImage


_MOST_SENTENCES = 5
"""Of the same kind, that are given as reasons: what is said of every image and file stands elsewhere."""

_NO_IMAGE = (RefusalCode.NOT_AN_IMAGE, RefusalCode.NO_PIXELS)
"""Of files that lie beside a study's images and show nothing of the patient."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is known of a patient; None where it is not."""

    age: float | None = None
    """In years."""
    sex: Literal["F", "M"] | None = None
    site: str | None = None
    """One body site, or several joined by ``+``."""
    level: str | None = None
    """One level of the spine, or several joined by ``+``."""

    @property
    def names(self) -> tuple[Covariate, ...]:
        """What is told."""
        known: tuple[tuple[Covariate, object], ...] = (
            ("age", self.age),
            ("sex", self.sex),
            ("site", self.site),
            ("level", self.level),
        )
        return tuple(name for name, value in known if value is not None)

    def completed(self, people: Collection[Person], names: Collection[Covariate]) -> Told:
        """Add what of some names a study's files state, where the operator says nothing of it and the files agree."""
        open_names = [name for name in ("age", "sex") if name in names and name not in self.names]
        stated = {name: {getattr(one, name) for one in people} - {None} for name in open_names}
        return replace(self, **{name: values.pop() for name, values in stated.items() if len(values) == 1})


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
        Of a lesion in what was read, 0..1, where a radiograph is searched; None for anything else.
    region
        Whether it is a region of a radiograph in which a lesion was found.
    evidence
        ``(classes, h, w)`` in units of the logit, of cells that divide the rectangle evenly.
    """

    plane: int
    rectangle: Rectangle
    weight: float
    likelihood: float | None
    region: bool
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
    told
        What of the patient the networks were told beside the images.
    """

    verdict: str
    reasons: tuple[str, ...]
    probabilities: tuple[float, ...] | None = None
    images: tuple[ExplainedImage, ...] = ()
    told: tuple[Covariate, ...] = ()


def in_short(sentences: Iterable[str]) -> list[str]:
    """Give each of some sentences once, and of many the first few and how many more there are."""
    each = list(dict.fromkeys(sentences))
    more = len(each) - _MOST_SENTENCES
    return each if more <= 0 else [*each[:_MOST_SENTENCES], f"and {more} more"]


def explain_study(
    selection: Selection,
    bundle: Bundle,
    predictor: Predictor,
    told: Told,
    *,
    research: bool = False,
    check: Callable[[], None] | None = None,
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
    check
        Is called before some planes are read; what it raises ends the reading.

    Raises
    ------
    osteoscope.errors.ImageError
        If an image cannot be read any more.
    """
    manifest = bundle.manifest
    outside = _outside(selection, manifest, told)
    if not selection.used or (outside and not research):
        return ExplainedStudy(verdict=OUT_OF_SCOPE, reasons=outside)
    prepared = (_prepared(one.image, predictor.preparation) for one in selection.used)
    with contextlib.closing(made_ahead(prepared)) as ready:
        read = [(one.read(predictor.members, check), one.plan) for one in ready]
    judged, images = _judged(selection.used, read, predictor.members, told)
    probabilities = predictor.calibration.apply(judged.logits[None])
    verdict, reasons = _verdict(probabilities, predictor, manifest)
    known = told_to(predictor.members, told)
    return ExplainedStudy(
        verdict=OUT_OF_SCOPE if outside else verdict,
        reasons=(
            *outside,
            *reasons,
            *_beside_images(judged, predictor, manifest, known),
            *_not_known(predictor.members, told, known),
            *_limits(selection, bundle, told),
        ),
        probabilities=tuple(probabilities[0].tolist()),
        images=images,
        told=known,
    )


# Scope and verdict ----------------------------------------------------------------------------------------------------


def _outside(selection: Selection, manifest: Manifest, told: Told) -> tuple[str, ...]:
    reasons = []
    if not selection.used:
        found = in_short(one.reason for one in selection.left_out)
        unread = in_short(one.sentence for one in selection.refused)
        also = f"; and {'; '.join(unread)}" if unread else ""
        reasons.append(f"The study holds no image that the bundle reads: {'; '.join(found)}{also}.")
    asides = _asides(selection)
    if asides and None not in asides:
        found = in_short(LEFT_OUT[aside] for aside in asides if aside is not None)
        reasons.append(f"The study holds only what is used when asked for: {'; '.join(found)}.")
    phantoms = [one.image.phantom for one in selection.used]
    if manifest.provenance == "phantom" and not all(phantoms):
        reasons.append("The bundle learnt from phantoms alone, and the study's files do not say that they show one.")
    if manifest.provenance == "clinical" and any(phantoms):
        reasons.append("The study shows a phantom, which is nobody, and the bundle learnt from patients.")
    sites = split_sites(told.site)
    if sites and manifest.body_regions and not set(sites) & set(manifest.body_regions):
        known = ", ".join(manifest.body_regions)
        reasons.append(f"The bundle learnt from other body sites ({known}) than the one that is named.")
    return tuple(reasons)


def _asides(selection: Selection) -> list[RefusalCode | None]:
    """Say of each image that is used whether it is only when asked for, and as what."""
    return [one.image.aside or one.image.derived for one in selection.used]


def _verdict(probabilities: NDArray[np.float64], predictor: Predictor, manifest: Manifest) -> tuple[str, list[str]]:
    verdict = int(verdicts_of(probabilities, predictor.conformal)[0])
    level = manifest.verdicts.level
    if manifest.verdicts.thresholds is None:
        return manifest.slugs[verdict], [
            f"The most probable class is named; a verdict at the level of {level:.0%} is not offered: "
            f"{manifest.verdicts.refused}."
        ]
    if verdict >= 0:
        return manifest.slugs[verdict], _less_probable(verdict, probabilities[0], manifest)
    return INDETERMINATE, [f"Not one class alone is plausible at the level of {level:.0%}."]


def _less_probable(verdict: int, probabilities: NDArray[np.float64], manifest: Manifest) -> list[str]:
    """Say if the one class that is plausible is not the most probable, as it may be where classes are far from even.

    What is plausible is held against the class's own cases; how probable it is follows the prior, too.
    """
    first = int(np.argmax(probabilities))
    if first == verdict:
        return []
    return [
        f"Of the classes {manifest.classes[verdict]} alone is plausible at the level of {manifest.verdicts.level:.0%}, "
        f"though {manifest.classes[first]} is more probable under the stated prior."
    ]


def _beside_images(
    judged: JudgedPlanes, predictor: Predictor, manifest: Manifest, known: Sequence[Covariate]
) -> list[str]:
    """Say how much of the answer is not of the images."""
    if not known:
        return []
    with_them, alone = (
        predictor.calibration.apply(logits[None])[0] for logits in (judged.logits, judged.logits_of_images)
    )
    first = int(np.argmax(with_them))
    return [
        f"Told beside the images: {in_words(known)}. From the images alone {manifest.classes[first]} would have "
        f"{alone[first]:.0%} instead of {with_them[first]:.0%}."
    ]


def _not_known(members: Sequence[Member], told: Told, known: Sequence[Covariate]) -> list[str]:
    """Say of which site or level that is told the networks' training cases had none."""
    encoders = [member.encoder for member in members if member.encoder is not None]
    named = {
        "site": {one for encoder in encoders for one in encoder.sites},
        "level": {one for encoder in encoders for one in encoder.levels},
    }
    asked = {name for encoder in encoders for name in encoder.names}
    return [
        f"The {name} that is named is none of those that the bundle's networks were told ({', '.join(sorted(names))}), "
        "and was left aside."
        for name, names in named.items()
        if name in asked and name in told.names and name not in known
    ]


def _limits(selection: Selection, bundle: Bundle, told: Told) -> list[str]:
    """Say what else to bear in mind."""
    limits = _when_asked_for(selection)
    if any(one.values.sha256 in bundle.seen.pixels for one in selection.used):
        limits.append("The bundle learnt from an image of this study, so this says nothing of how it does on others.")
    limits.extend(_unread(selection))
    limits.extend(_several_patients(selection))
    limits.extend(_missing(selection, bundle.manifest))
    unused = [name for name in told.names if name not in bundle.manifest.network.covariates]
    untold = [name for name in bundle.manifest.network.covariates if name not in told.names]
    if untold:
        limits.append(f"The bundle's networks also judge by the patient's {in_words(untold)}, not told here.")
    if unused:
        limits.append(f"The bundle's networks make no use of the patient's {in_words(unused)}.")
    return limits


def _when_asked_for(selection: Selection) -> list[str]:
    """Say which of the images that are judged together are read only because that was asked for."""
    asides = _asides(selection)
    if None not in asides:
        return []
    found = Counter(LEFT_OUT[aside] for aside in asides if aside is not None)
    judged = "Among the images that were judged are some that are used only when asked for"
    return [f"{judged}: {number} of {len(asides)}, {what}." for what, number in sorted(found.items())]


def _unread(selection: Selection) -> list[str]:
    """Say if an answer is given without a part of the study; what never was an image is none."""
    files = sum(len(one.files) for one in selection.refused if one.code not in _NO_IMAGE)
    if not files:
        return []
    are = "1 file" if files == 1 else f"{files} files"
    return [f"{are} of the study could not be read; the answer rests on the others."]


def _several_patients(selection: Selection) -> list[str]:
    """Say if images that are judged together name different patients."""
    patients = {one.image.person.patient for one in selection.used} - {""}
    if len(patients) < 2:
        return []
    return [f"The images have {len(patients)} different Patient IDs, and were judged as those of one patient."]


def _missing(selection: Selection, manifest: Manifest) -> list[str]:
    """Say which of several modalities that the networks read beside each other are not there."""
    known, read = manifest.preparation.modalities, {one.image.volume.modality for one in selection.used}
    missing = [modality for modality in known if modality not in read]
    if not missing:
        return []
    found = named_together([modality for modality in known if modality in read])
    return [
        f"The bundle reads {named_together(known)} of a patient together; this study has no "
        f"{named_together(missing, 'or')} that it can read, so its answer rests on {found} alone."
    ]


# Reading --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _PreparedImage:
    """An image that can be read by the networks at once."""

    images: PreparedRadiographs | PreparedScans
    """That image alone."""
    tall: float = 1.0
    """Rows of the image for one of the pixels that are read."""
    plan: SlicePlan | None = None
    """By which the planes of a CT or MR are cut; None for a radiograph."""

    def read(self, members: Sequence[Member], check: Callable[[], None] | None) -> ReadImages:
        """Let every member read the image; the looks at it are in its own pixels."""
        read = self.images.read(members, check=check)
        looks = tuple(replace(look, rectangle=_stretched(look.rectangle, self.tall)) for look in read.looks[0])
        return replace(read, looks=(looks,))


def _prepared(image: Image, preparation: PreparationConfig) -> _PreparedImage:
    if image.volume.modality == "radiograph":
        pixels = radiograph_pixels(image)
        tall = image.volume.geometry.shape[1] / len(pixels)
        return _PreparedImage(images=prepare_pixels([pixels], [()], preparation), tall=tall)
    scans = PreparedScans.of([image.volume], preparation)
    return _PreparedImage(images=scans, plan=scans.plans[0])


def radiograph_pixels(image: Image) -> NDArray[np.float32]:
    """Decode a radiograph as the networks read it: ``(rows, columns)`` of square pixels, 0..1.

    A picture is taken as it is, for so it was in training.

    Raises
    ------
    osteoscope.errors.ImageError
        If it cannot be decoded.
    """
    return radiograph_grey(image.volume) if image.format == "DICOM" else image.volume.read([0])[0]


def _stretched(read: Rectangle, tall: float) -> Rectangle:
    return replace(read, top=read.top * tall, height=read.height * tall)


def _judged(
    used: Sequence[UsedImage],
    read: Sequence[tuple[ReadImages, SlicePlan | None]],
    members: Sequence[Member],
    told: Told,
) -> tuple[JudgedPlanes, tuple[ExplainedImage, ...]]:
    """Judge all images of a study together; say what speaks in each image."""
    together = ReadImages.joined([one for one, _ in read])
    judged = judge_planes(members, together, told)
    images = tuple(
        ExplainedImage(
            used=image,
            planes=tuple(
                ExplainedPlane(
                    plane=look.plane,
                    rectangle=look.rectangle,
                    weight=float(judged.weights[place]),
                    likelihood=look.likelihood,
                    region=place in regions,
                    evidence=judged.evidence[place],
                )
                for place, look in enumerate(looks, start)
            ),
            plan=plan,
        )
        for image, (_, plan), looks, start, regions in zip(
            used, read, together.looks, together.starts, together.regions, strict=True
        )
    )
    return judged, images
