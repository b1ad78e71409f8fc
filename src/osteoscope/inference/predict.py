"""From a patient's images to a prediction with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from osteoscope.errors import ImageError
from osteoscope.imaging.mixed import as_read
from osteoscope.imaging.picture import is_dicom, pixel_sha256, read_picture
from osteoscope.imaging.prepare import Square, resample, square_to_read
from osteoscope.imaging.region import Region, find_regions
from osteoscope.imaging.resampling import Rectangle
from osteoscope.imaging.slices import radiograph_grey
from osteoscope.inference.engine import Judgement
from osteoscope.inference.evidence import closed_form_evidence
from osteoscope.inference.prediction import CasePrediction, ExplainedCase, ImagePrediction, Look
from osteoscope.inference.reading import ReadImages, ReadLook
from osteoscope.inference.scans import PreparedScans, open_scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.covariates import CovariateEncoder
    from osteoscope.cohort.table import Case, CaseImage
    from osteoscope.config import Covariate, PreparationConfig, RegionOfInterest
    from osteoscope.imaging.prepare import Lesion
    from osteoscope.inference.engine import MemberEngine, PlaneReadings


class Patient(Protocol):
    """What may be known of a patient beside the images; see `osteoscope.cohort.table.Case`."""

    @property
    def age(self) -> float | None:
        """In years."""

    @property
    def sex(self) -> Literal["F", "M"] | None:
        """As it is recorded."""

    @property
    def site(self) -> str | None:
        """Body sites, joined by ``+``."""

    @property
    def level(self) -> str | None:
        """Levels of the spine, joined by ``+``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """A network and how it wants to be told of covariates."""

    engine: MemberEngine
    encoder: CovariateEncoder | None = None

    def told(self, patient: Patient) -> tuple[Covariate, ...]:
        """Name what of a patient the network is told: what it takes, as far as it is known."""
        names = () if self.encoder is None else self.encoder.names
        return tuple(name for name in names if getattr(patient, name) is not None)

    def covariates(self, patient: Patient) -> NDArray[np.float32] | None:
        """Encode what is known of a patient: (covariates,), or None for a network that takes none."""
        if self.encoder is None:
            return None
        return self.encoder.encode(age=patient.age, sex=patient.sex, site=patient.site, level=patient.level)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedCase:
    """A patient's radiographs, and the planes of the first look at them."""

    pixels: tuple[NDArray[np.float32], ...]
    """For each image (rows, columns), 0..1."""
    squares: tuple[Square, ...]
    """For each image, the part of it that the first look reads."""
    preparation: PreparationConfig
    marked: tuple[tuple[Region, ...], ...] | None = None
    """For each image, the regions for a second look that a person has marked; None where they are to be found."""

    @cached_property
    def planes(self) -> NDArray[np.float32]:
        """Planes of the first look: (images, channels, size, size), 0..1."""
        return self.cut([[square] for square in self.squares])

    def cut(self, squares: Sequence[Sequence[Square]]) -> NDArray[np.float32]:
        """Cut planes, (planes, channels, size, size), from the images as they are: for each those of its squares."""
        size = self.preparation.size
        planes = [
            resample(image, square, size)
            for image, of_image in zip(self.pixels, squares, strict=True)
            for square in of_image
        ]
        shown = np.stack(planes)[:, None] if planes else np.empty((0, 1, size, size), dtype=np.float32)
        return as_read(shown, "radiograph", self.preparation)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedMix:
    """A patient's images of several modalities."""

    parts: tuple[PreparedCase | PreparedScans, ...]
    """Each image by itself, in their order."""


Prepared = PreparedCase | PreparedScans | PreparedMix


def prepared_image(prepared: Prepared, place: int) -> tuple[PreparedCase | PreparedScans, int]:
    """Find what was prepared of the image at a place among a patient's, and the image's place in that."""
    return (prepared.parts[place], 0) if isinstance(prepared, PreparedMix) else (prepared, place)


def read_pixels(image: CaseImage) -> NDArray[np.float32]:
    """Decode a radiograph of a cohort as the networks read it: (rows, columns) of square pixels, 0..1.

    A picture is taken as it is; one in DICOM is shown as `osteoscope.imaging.slices.radiograph_grey` shows it.

    Raises
    ------
    ImageError
        If it cannot be read, or is not the picture that the cohort was made with.
    """
    volume = read_picture(image.path)
    pixels: NDArray[np.float32] = volume.read()[0]
    if pixel_sha256(pixels) != image.pixel_sha256:
        raise ImageError(
            "shows other pixels than when the cohort was made",
            path=image.path,
            remedy="put the original back, or make the cohort again",
        )
    return radiograph_grey(volume) if is_dicom(image.path) else pixels


def lesions_on(pixels: NDArray[np.float32], image: CaseImage) -> tuple[Lesion, ...]:
    """Give the lesions of a radiograph in the pixels that `read_pixels` gave of it, which are square."""
    tall = pixels.shape[0] / image.rows
    return image.lesions if tall == 1 else tuple(lesion.stretched(tall) for lesion in image.lesions)


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
        return PreparedMix(parts=tuple(_prepared_alone(image, preparation) for image in case.images))
    if preparation.volume is not None:
        return PreparedScans.of_case(case, preparation)
    pixels = [read_pixels(image) for image in case.images]
    return prepare_pixels(pixels, list(map(lesions_on, pixels, case.images)), preparation)


def _prepared_alone(image: CaseImage, preparation: PreparationConfig) -> PreparedCase | PreparedScans:
    if image.modality == "radiograph":
        pixels = read_pixels(image)
        return prepare_pixels([pixels], [lesions_on(pixels, image)], preparation)
    return PreparedScans.of([open_scan(image)], preparation)


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


def predict_case(case: Case, prepared: Prepared, members: Sequence[Member]) -> ExplainedCase:
    """Let every member read a patient's images, and join what they say.

    With a second look, the members agree on where a lesion may be, by the mean of their maps, and all of them read
    those regions. A patient's decision rests on the regions, and on the first look at an image in which none was found;
    of a CT or MR on all planes that are read. All modalities of a mix are one bag.

    Parameters
    ----------
    case
        The patient.
    prepared
        The patient's images, by `prepare_case`.
    members
        One network or more.
    """
    read = read_images(prepared, members)
    judged = judge_planes(members, read.readings, list(chain.from_iterable(read.speaking)), case)
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
        )
        for place, (image, looks, start) in enumerate(zip(case.images, read.looks, read.starts, strict=True))
    )
    told = members[0].told(case)
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


def read_images(
    prepared: Prepared, members: Sequence[Member], *, check: Callable[[], None] | None = None
) -> ReadImages:
    """Let every member read images, and the regions that they find in them together.

    Parameters
    ----------
    prepared
        The images.
    members
        One network or more.
    check
        Is called before some planes are read; what it raises ends the reading.
    """
    if isinstance(prepared, PreparedMix):
        return ReadImages.joined([read_images(part, members, check=check) for part in prepared.parts])
    if isinstance(prepared, PreparedScans):
        return prepared.read(members, check=check)
    if check is not None:
        check()
    readings = [member.engine.read(prepared.planes) for member in members]
    lesions: NDArray[np.float32] = np.mean([reading.lesions for reading in readings], axis=0, dtype=np.float32)
    found = find_in_images(prepared, lesions)
    again = prepared.cut([[region.square for region in regions] for regions in found])
    if len(again):
        order = _by_image(found)
        readings = [r.joined(m.engine.read(again)).of(order) for m, r in zip(members, readings, strict=True)]
    return ReadImages(
        looks=tuple(map(_looks, prepared.squares, found)),
        first_looks=(1,) * len(found),
        readings=tuple(readings),
        lesions=lesions,
    )


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


def judge_planes(
    members: Sequence[Member], readings: Sequence[PlaneReadings], speaking: Sequence[int], patient: Patient
) -> JudgedPlanes:
    """Judge a patient by some of the planes.

    Parameters
    ----------
    members
        One network or more.
    readings
        Of each member, of the same planes.
    speaking
        Places of the planes that have a say.
    patient
        Whose covariates are told to members that take them.
    """
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


def read_planes(prepared: Prepared, prediction: CasePrediction) -> NDArray[np.float32]:
    """Cut once more the planes that a prediction was made from, those that speak: (looks, channels, size, size)."""
    return _read_planes(prepared, prediction.images)


def _read_planes(prepared: Prepared, images: Sequence[ImagePrediction]) -> NDArray[np.float32]:
    if isinstance(prepared, PreparedMix):
        pairs = zip(prepared.parts, images, strict=True)
        return np.concatenate([_read_planes(part, [image]) for part, image in pairs])
    if isinstance(prepared, PreparedScans):
        return prepared.cut()
    return prepared.cut([[look.read_square() for look in image.speaking] for image in images])


def two_planes(prepared: Prepared) -> NDArray[np.float32]:
    """Give two planes of a patient, (2, channels, size, size), whatever there is; of one, itself upside down too.

    Of a mix of several images they are of its first and its last.
    """
    if isinstance(prepared, PreparedMix):
        first, last = two_planes(prepared.parts[0]), two_planes(prepared.parts[-1])
        return first if len(prepared.parts) == 1 else np.concatenate([first[:1], last[:1]])
    planes = prepared.cut(2) if isinstance(prepared, PreparedScans) else prepared.planes
    return np.concatenate([planes, planes[:, :, ::-1]])[:2]


def _by_image(found: Sequence[Sequence[Region]]) -> list[int]:
    """Order of planes that puts, behind the first look at an image, the looks at its regions."""
    order, following = [], len(found)
    for image, regions in enumerate(found):
        order.extend([image, *range(following, following + len(regions))])
        following += len(regions)
    return order


def _judge(
    engine: MemberEngine, readings: PlaneReadings, speaking: Sequence[int], covariates: NDArray[np.float32] | None
) -> Judgement:
    """Judge by some of the planes; the weight of the others is 0."""
    judged = engine.judge(readings.of(speaking), covariates)
    weights = np.zeros(len(readings.scores), dtype=judged.weights.dtype)
    weights[list(speaking)] = judged.weights
    return Judgement(logits=judged.logits, weights=weights)


def _looks(first: Square, found: Sequence[Region]) -> tuple[ReadLook, ...]:
    """Give the looks at a radiograph: the first, and those at its regions."""
    read = [(first, None), *((region.square, region.likelihood) for region in found)]
    return tuple(
        ReadLook(
            plane=0,
            rectangle=Rectangle(left=square.left, top=square.top, width=square.side, height=square.side),
            likelihood=likelihood,
        )
        for square, likelihood in read
    )


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
