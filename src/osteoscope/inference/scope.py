"""Which images there are of each study, and which of them a bundle reads.

DICOM images belong to one study by their Study Instance UID. A picture, NIfTI, MetaImage or NRRD says nothing of the
kind, so each is a study by itself: that two pictures are views of one patient cannot be known from them.

All radiographs of a study, and all its MR series, are read together: views and sequences show different things. So they
are in training as far as a cohort holds them; one that was made from an archive holds one MR of each study. What was
computed from other images, such as a projection or a map, is left. Of CT one series is read, since others are as a rule
the same scan once more, with another kernel, thickness or plane, and what is there twice would have twice the say. It
is one that was not derived from another, if there is any, and the one with the thinnest slices among those that cover
at least half as much of the body as the one that covers most. Of a bundle that reads several modalities this holds for
each, and all of them are read together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from osteoscope.imaging.mixed import named_together
from osteoscope.imaging.open import fault_of_shape, not_used_because, study_of
from osteoscope.imaging.refusal import LEFT_OUT, Refusal, RefusalCode
from osteoscope.imaging.values import values_of
from osteoscope.storage import SHORT_HASH, sha256_of_file, short_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from osteoscope.imaging.open import Image, Opened
    from osteoscope.imaging.values import Values
    from osteoscope.imaging.volume import Modality

LEAST_COVERED = 0.5
"""Of the largest of a study's CT series, in mm3, that another one must cover to be read in its place."""

NotUsedCode = RefusalCode | Literal["outside", "other_series", "copy"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyImage:
    """An image, and what it is called in all that is written: never by a file's name, which may hold a patient's."""

    name: str
    image: Image

    @property
    def modality(self) -> Modality:
        """Of its values."""
        return self.image.volume.modality


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """What there is of a study.

    Parameters
    ----------
    name
        First 12 hexadecimal digits of the SHA-256 of the Study Instance UID; of a file that is a study by itself, of
        its bytes, or of its path where these cannot be read; of several that are taken for one, of their names.
    images
        Those that could be opened.
    refused
        Files of the study that could not be read.
    """

    name: str
    images: tuple[StudyImage, ...]
    refused: tuple[Refusal, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are known to be of the study."""
        return (*(path for one in self.images for path in one.image.files), *(p for r in self.refused for p in r.files))


def studies_of(opened: Opened, called: Callable[[Path], str] = str) -> tuple[Study, ...]:
    """Sort images and refusals by study, in the order of their first files; a refusal alone makes a study, too.

    Parameters
    ----------
    opened
        The images.
    called
        What the operator knows a file as, which a member of a zip is called in every run.
    """
    images: dict[str, list[Image]] = defaultdict(list)
    for image in opened.images:
        name = _study_name(image)
        # Equal bytes are one study, however often they lie there.
        if image.format == "DICOM" or name not in images:
            images[name].append(image)
    refused: dict[str, list[Refusal]] = defaultdict(list)
    for refusal in opened.refused:
        for name, files in _by_study(refusal.files, called).items():
            refused[name].append(replace(refusal, files=files))
    return tuple(
        Study(name=name, images=_named(name, images.get(name, ())), refused=tuple(refused.get(name, ())))
        for name in dict.fromkeys((*images, *refused))
    )


def of_one_patient(studies: Sequence[Study]) -> Study:
    """Take studies, one or more, for one: what there is of a patient in several of them, or in files without any."""
    if len(studies) == 1:
        return studies[0]
    return Study(
        name=short_hash(" ".join(sorted(study.name for study in studies))),
        images=tuple(one for study in studies for one in study.images),
        refused=tuple(one for study in studies for one in study.refused),
    )


def _study_name(image: Image) -> str:
    return image.study or image.series or image.volume.sources[0].sha256[:SHORT_HASH]


def _by_study(files: Iterable[Path], called: Callable[[Path], str]) -> dict[str, tuple[Path, ...]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        found[study_of(path) or _name_of_file(path, called)].append(path)
    return {name: tuple(paths) for name, paths in found.items()}


def _name_of_file(path: Path, called: Callable[[Path], str]) -> str:
    try:
        # A pipe would never end.
        if path.is_file():
            return sha256_of_file(path)[:SHORT_HASH]
    except OSError:
        pass
    return short_hash(called(path))


def _named(study: str, images: Sequence[Image]) -> tuple[StudyImage, ...]:
    """Name images by their series, with a number where it has several."""
    counts = Counter(image.series for image in images)
    numbers: Counter[str] = Counter()
    named = []
    for image in images:
        numbers[image.series] += 1
        number = f"-{numbers[image.series]}" if counts[image.series] > 1 else ""
        named.append(StudyImage(name=f"{image.series or study}{number}", image=image))
    return tuple(named)


@dataclass(frozen=True, kw_only=True, eq=False)
class UsedImage:
    """An image that is read, and what its values are."""

    name: str
    image: Image
    values: Values


@dataclass(frozen=True, kw_only=True, eq=False)
class LeftOut:
    """An image that is not read, and why, as a sentence without a full stop."""

    name: str
    image: Image
    code: NotUsedCode
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What becomes of a study's images and files."""

    used: tuple[UsedImage, ...]
    left_out: tuple[LeftOut, ...]
    refused: tuple[Refusal, ...]


def select_images(study: Study, modalities: Sequence[Modality], *, research: bool = False) -> Selection:
    """Choose the images of a study that a bundle reads; all values of these are decoded, and seen to be an image's.

    Parameters
    ----------
    study
        Of `studies_of`.
    modalities
        That the bundle reads.
    research
        Whether images are used, too, that are used only when asked for, such as captured screens.

    Returns
    -------
    Nothing raises for what is wrong with an image: one whose pixels cannot be decoded is among the refused.

    Raises
    ------
    StorageError
        If there is no space left for the values of an image that is not read plane by plane.
    """
    left_out = [found for one in study.images if (found := _outside(one, modalities, research=research)) is not None]
    aside = {found.name for found in left_out}
    used: list[UsedImage] = []
    refused = list(study.refused)

    def is_used(one: StudyImage) -> bool:
        try:
            values = values_of(one.image.volume)
        except Exception as error:
            refused.append(Refusal.of(error, *one.image.files))
            return False
        found = _no_picture(one, values, used)
        if found is not None:
            left_out.append(found)
            return False
        used.append(UsedImage(name=one.name, image=one.image, values=values))
        return True

    scans = {one.name: one for one in study.images if one.name not in aside and one.modality == "CT"}
    for one in sorted(study.images, key=lambda one: one.name):
        if one.name not in aside and one.name not in scans:
            is_used(one)
    while scans:
        # Chosen anew each time: how much is most of the body follows from the series that can be read.
        preferred = scans.pop(_preferred(list(scans.values())).name)
        if is_used(preferred):
            why = "the thinnest that covers most of the body, an original if there is any"
            reason = f"of CT one series is read, {why}: {preferred.name}"
            left_out.extend(
                LeftOut(name=one.name, image=one.image, code="other_series", reason=reason) for one in scans.values()
            )
            break
    return Selection(
        used=tuple(sorted(used, key=lambda one: one.name)),
        left_out=tuple(sorted(left_out, key=lambda one: one.name)),
        refused=tuple(refused),
    )


def _outside(one: StudyImage, modalities: Sequence[Modality], *, research: bool) -> LeftOut | None:
    """Say what about an image is such that the bundle does not read it, as far as is known without its values."""
    image = one.image
    if image.aside is not None and not research:
        code: RefusalCode | None = image.aside
    elif one.modality not in modalities:
        reason = f"{_indefinite(image.kind)}, where {named_together(modalities)} are read"
        return LeftOut(name=one.name, image=image, code="outside", reason=reason)
    else:
        code = (None if research else image.derived) or fault_of_shape(image)
    if code is None:
        return None
    reason = LEFT_OUT[code]
    if code is RefusalCode.OTHER_MODALITY:
        reason = f"{_indefinite(image.kind)}, which is {reason}"
    return LeftOut(name=one.name, image=image, code=code, reason=reason)


def _no_picture(one: StudyImage, values: Values, used: Sequence[UsedImage]) -> LeftOut | None:
    """Say what about an image's values is such that there is nothing, or nothing new, to be read."""
    code = not_used_because(replace(one.image, aside=None), values)
    if code is not None:
        return LeftOut(name=one.name, image=one.image, code=code, reason=LEFT_OUT[code])
    twin = next((other for other in used if other.values.sha256 == values.sha256), None)
    if twin is None:
        return None
    return LeftOut(name=one.name, image=one.image, code="copy", reason=f"its values are those of {twin.name}")


def _preferred(scans: Sequence[StudyImage]) -> StudyImage:
    """Choose the CT series that had better be read."""
    covered = {one.name: _cubic_mm(one) for one in scans}
    made = {one.name: _was_made(one) for one in scans}
    enough = {
        kind: LEAST_COVERED * max((covered[name] for name in made if made[name] is kind), default=0)
        for kind in (False, True)
    }

    def preference(one: StudyImage) -> tuple[bool, bool, float, float, str]:
        steps = one.image.volume.geometry.steps
        if steps is None:
            return False, False, 0.0, 0.0, one.name
        # Slices that overlap are no thinner for it. Rounded, for a step is worked out from places in decimals.
        thick = round(max(steps[0], one.image.thickness or 0), 2)
        kind = made[one.name]
        return kind, covered[one.name] < enough[kind], thick, -covered[one.name], one.name

    return min(scans, key=preference)


def _was_made(one: StudyImage) -> bool:
    """Tell whether image type or description say that a series was made from another."""
    return not one.image.original or one.image.derivation != ""


def _cubic_mm(one: StudyImage) -> float:
    geometry = one.image.volume.geometry
    return float(np.prod(geometry.shape) * np.prod(geometry.steps or (0.0,)))


def _indefinite(kind: str) -> str:
    known = {"radiograph": "a radiograph", "CT": "a CT", "MR": "an MR"}
    return known.get(kind, f"an image of modality {kind}")
