"""From a patient's images to a prediction with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.inference.engine import Judgement
from osteoscope.inference.evidence import closed_form_evidence
from osteoscope.inference.prediction import CasePrediction, ExplainedCase, ImagePrediction, Look
from osteoscope.inference.radiographs import PreparedRadiographs, prepare_radiographs
from osteoscope.inference.reading import ReadImages
from osteoscope.inference.scans import PreparedScans, open_scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case, CaseImage
    from osteoscope.config import Covariate, PreparationConfig
    from osteoscope.inference.engine import Member, MemberEngine, Patient, PlaneReadings
    from osteoscope.inference.reading import ReadLook


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedMix:
    """A patient's images of several modalities."""

    parts: tuple[PreparedRadiographs | PreparedScans, ...]
    """Each image by itself, in their order."""

    def first_planes(self, most: int | None = None) -> NDArray[np.float32]:
        """Cut the planes of the first looks at all images, or so many: half of the first image, half of the last."""
        if most is None:
            return np.concatenate([part.first_planes() for part in self.parts])
        ends = dict.fromkeys((self.parts[0], self.parts[-1]))
        return np.concatenate([part.first_planes(most // len(ends)) for part in ends])

    def speaking_planes(self, images: Sequence[ImagePrediction]) -> NDArray[np.float32]:
        """Cut once more the planes that a prediction was made from: those that speak of each image."""
        pairs = zip(self.parts, images, strict=True)
        return np.concatenate([part.speaking_planes([image]) for part, image in pairs])

    def read(self, members: Sequence[Member], *, check: Callable[[], None] | None = None) -> ReadImages:
        """Let every member read one image after the other, as the parts do."""
        return ReadImages.joined([part.read(members, check=check) for part in self.parts])


Prepared = PreparedRadiographs | PreparedScans | PreparedMix


def prepare_case(case: Case, preparation: PreparationConfig) -> Prepared:
    """Decode and prepare a patient's images, in their order.

    Raises
    ------
    ImageError
        If an image cannot be read.
    InputError
        If a lesion is needed and none is annotated.
    """
    if preparation.modalities:
        return PreparedMix(parts=tuple(prepare_image(image, preparation) for image in case.images))
    if preparation.volume is not None:
        return PreparedScans.of_case(case, preparation)
    return prepare_radiographs(case.images, preparation)


def prepare_image(image: CaseImage, preparation: PreparationConfig) -> PreparedRadiographs | PreparedScans:
    """Decode and prepare one image by itself; errors are those of `prepare_case`."""
    if image.modality == "radiograph":
        return prepare_radiographs([image], preparation)
    return PreparedScans.of([open_scan(image)], preparation)


def predict_case(case: Case, prepared: Prepared, members: Sequence[Member]) -> ExplainedCase:
    """Let every member read a patient's images, and join what they say.

    With a second look, the members read all parts of a radiograph more closely, agree on where a lesion may be, by the
    mean of their maps, and read those regions. A patient's decision rests on the closer looks and the regions, each as
    much as it is likely to show a lesion; of a CT or MR on all planes that are read. All modalities of a mix are one
    bag.

    Parameters
    ----------
    case
        The patient.
    prepared
        The patient's images, by `prepare_case`.
    members
        One network or more.
    """
    read = prepared.read(members)
    judged = judge_planes(members, read, case)
    alone = _mean_over_members(
        [member.engine.judge(reading.of(places), member.covariates(case)).logits for places in read.speaking]
        for member, reading in zip(members, read.readings, strict=True)
    )
    images = tuple(
        ImagePrediction(
            image=image.image,
            logits=tuple(alone[place].tolist()),
            looks=_weighed(looks, judged.weights[start : start + len(looks)].tolist()),
            first_looks=read.first_looks[place],
            closer_looks=read.closer_looks[place],
        )
        for place, (image, looks, start) in enumerate(zip(case.images, read.looks, read.starts, strict=True))
    )
    told = told_to(members, case)
    return ExplainedCase(
        prediction=CasePrediction(
            patient=case.patient,
            label=case.label,
            logits=tuple(judged.logits.tolist()),
            logits_of_images=tuple(judged.logits_of_images.tolist()) if told else None,
            told=told,
            images=images,
        ),
        evidence=judged.evidence,
        lesions=read.lesions,
    )


def told_to(members: Sequence[Member], patient: Patient) -> tuple[Covariate, ...]:
    """Name what of a patient any of the members is told, in the order of their network's settings."""
    return tuple(dict.fromkeys(name for member in members for name in member.told(patient)))


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedPlanes:
    """What the members say of a patient's planes together."""

    logits: NDArray[np.float64]
    """(classes,), mean over the members."""
    weights: NDArray[np.float64]
    """(planes,), mean over the members; sum 1, and 0 for those that have no say."""
    evidence: NDArray[np.float32]
    """(planes, classes, h, w) in units of the logit."""
    logits_of_images: NDArray[np.float64]
    """As `logits`, were nothing but the images known."""


def judge_planes(members: Sequence[Member], read: ReadImages, patient: Patient) -> JudgedPlanes:
    """Judge a patient by the planes that have a say.

    Parameters
    ----------
    members
        One network or more.
    read
        What they read of the patient's images.
    patient
        Whose covariates are told to members that take them.
    """
    readings, speaking = read.readings, list(chain.from_iterable(read.speaking))
    judgements = [
        _judge(member.engine, reading, speaking, member.covariates(patient))
        for member, reading in zip(members, readings, strict=True)
    ]
    return JudgedPlanes(
        logits=_mean_over_members(judgement.logits for judgement in judgements),
        logits_of_images=_mean_over_members(
            judgement.logits
            if member.encoder is None
            else member.engine.judge(reading.of(speaking), member.encoder.encode()).logits
            for member, reading, judgement in zip(members, readings, judgements, strict=True)
        ),
        weights=_mean_over_members(judgement.weights for judgement in judgements),
        evidence=closed_form_evidence(readings, judgements),
    )


def two_planes(prepared: Prepared) -> NDArray[np.float32]:
    """Give two planes of a patient, (2, channels, size, size), whatever there is; of one, itself upside down too.

    Of a mix of several images they are of its first and its last.
    """
    planes = prepared.first_planes(2)
    return np.concatenate([planes, planes[:, :, ::-1]])[:2]


def _judge(
    engine: MemberEngine, readings: PlaneReadings, speaking: Sequence[int], covariates: NDArray[np.float32] | None
) -> Judgement:
    """Judge by some of the planes; the weight of the others is 0."""
    judged = engine.judge(readings.of(speaking), covariates)
    weights = np.zeros(len(readings.scores), dtype=judged.weights.dtype)
    weights[list(speaking)] = judged.weights
    return Judgement(logits=judged.logits, weights=weights)


def _weighed(looks: Sequence[ReadLook], weights: Sequence[float]) -> tuple[Look, ...]:
    """Give looks their weights."""
    return tuple(
        Look(
            plane=look.plane,
            rectangle=(look.rectangle.left, look.rectangle.top, look.rectangle.width, look.rectangle.height),
            weight=weight,
            likelihood=look.likelihood,
        )
        for look, weight in zip(looks, weights, strict=True)
    )


def _mean_over_members(values: Iterable[Any]) -> NDArray[np.float64]:
    """Mean over the first axis, in float64."""
    mean: NDArray[np.float64] = np.array(list(values), dtype=np.float64).mean(axis=0)
    return mean
