"""What is written of one study: its prediction, pictures of the planes that speak most, and evidence in the patient.

No name of a file, nor anything else that may identify a patient, is in any of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import osteoscope
from osteoscope.imaging.nifti import write_nifti
from osteoscope.inference.evidence import evidence_in_patient, evidence_on_image
from osteoscope.inference.result import (
    BundleUsed,
    FilesRefused,
    ImageNotUsed,
    ImageRead,
    Overlay,
    PlaneRead,
    StudyPrediction,
)
from osteoscope.inference.study import radiograph_pixels
from osteoscope.report.content import PHANTOM_BANNER, RESEARCH_STAMP
from osteoscope.report.overlay import evidence_scale, overlay_picture, png_bytes, with_colour_bar
from osteoscope.report.planes import (
    PHANTOM_MARK,
    PlaneFrame,
    as_seen,
    sides_of,
    windows_of,
    with_caption,
    with_mark,
    with_sides,
)
from osteoscope.storage import write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

    from osteoscope.bundle.format import Precision
    from osteoscope.bundle.load import Bundle
    from osteoscope.imaging.prepare import Square
    from osteoscope.inference.scope import Selection, Study, StudyImage
    from osteoscope.inference.study import ExplainedImage, ExplainedPlane, ExplainedStudy, Told
    from osteoscope.report.planes import ShownWindow

PREDICTION = "prediction.json"

MOST_OVERLAYS = 4
"""Of a study."""

_NAMES = re.compile(r"(research-)?(overlay-\d+\.png|evidence-[\w-]+\.nii\.gz)")
"""Of the files beside `PREDICTION`."""

_FOR_RESEARCH = "Shown for research, beyond the bundle's scope: never for a patient's care."


def is_of_prediction(name: str) -> bool:
    """Tell whether a file is called as one of those that are written of a study beside its prediction.

    What an operating system leaves where somebody has looked at pictures is in nobody's way.
    """
    return _NAMES.fullmatch(name) is not None or name in (".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """What is asked of a bundle about a study.

    Parameters
    ----------
    bundle
        The bundle.
    told
        What is known of the patient.
    research
        Whether what is outside of the scope is shown, too.
    precision
        That the networks compute with.
    """

    bundle: Bundle
    told: Told
    research: bool
    precision: Precision = "float32"

    def request(self, study: Study) -> str:
        """Hash all that the answer depends on."""
        told = self.told
        matter = {
            "osteoscope": osteoscope.__version__,
            "bundle": self.bundle.sha256,
            "told": [told.age, told.sex, told.site, *([] if told.level is None else [told.level])],
            "research": self.research,
            **({} if self.precision == "float32" else {"precision": self.precision}),
            "images": sorted(map(_matter_of, study.images)),
            "refused": sorted([refusal.code, refusal.sentence, len(refusal.files)] for refusal in study.refused),
        }
        return hashlib.sha256(json.dumps(matter, sort_keys=True).encode()).hexdigest()


def _matter_of(one: StudyImage) -> list[Any]:
    """List what an image is: its files' bytes, and what a file beside a NIfTI, or an option, may say of it."""
    geometry, sources = one.image.volume.geometry, [source.sha256 for source in one.image.volume.sources]
    place = None if geometry.affine is None else np.round(geometry.affine, 6).tolist()
    return [one.name, one.modality, *sources, list(geometry.shape), place, one.image.phantom, *one.image.remarks]


def write_prediction(
    folder: Path, question: Question, study: Study, selection: Selection, explained: ExplainedStudy
) -> StudyPrediction:
    """Write all files of a study into a folder that is there.

    Raises
    ------
    StorageError
        If the operating system refuses.
    osteoscope.errors.ImageError
        If an image cannot be read any more.
    """
    manifest = question.bundle.manifest
    named = dict(zip(manifest.slugs, manifest.classes, strict=True))
    prediction = StudyPrediction(
        osteoscope=osteoscope.__version__,
        request=question.request(study),
        notice=_notice(question),
        study=study.name,
        verdict=explained.verdict,
        reasons=explained.reasons,
        probabilities=(
            None if explained.probabilities is None else dict(zip(manifest.slugs, explained.probabilities, strict=True))
        ),
        prior=manifest.prior,
        classes=named,
        level=None if manifest.verdicts.thresholds is None else manifest.verdicts.level,
        research=question.research,
        covariates=explained.told,
        images=tuple(
            _image_read(image, evidence=_write_evidence(folder, image, question)) for image in explained.images
        ),
        overlays=tuple(_write_overlays(folder, question, study, explained)),
        not_used=_not_used(selection, explained),
        refused=tuple(
            FilesRefused(files=len(one.files), code=one.code, reason=one.sentence, remedy=one.remedy)
            for one in selection.refused
        ),
        bundle=BundleUsed(
            sha256=question.bundle.sha256,
            osteoscope=manifest.osteoscope,
            members=len(manifest.members),
            precision=question.precision,
            provenance=manifest.provenance,
        ),
    )
    write_json(folder / PREDICTION, prediction.to_json())
    return prediction


def _not_used(selection: Selection, explained: ExplainedStudy) -> tuple[ImageNotUsed, ...]:
    """List what the networks did not read; of a study that is out of scope that is every image, unless for research."""
    left_out = [
        ImageNotUsed(name=one.name, modality=one.image.kind, code=one.code, reason=one.reason)
        for one in selection.left_out
    ]
    reason = "the study is out of the bundle's scope"
    kept_out = [
        ImageNotUsed(name=one.name, modality=one.image.kind, code="out_of_scope", reason=reason)
        for one in (() if explained.images else selection.used)
    ]
    return tuple(sorted((*left_out, *kept_out), key=lambda one: one.name))


def _notice(question: Question) -> str:
    manifest = question.bundle.manifest
    known = f"It tells {' and '.join(manifest.classes)} apart, and knows nothing else."
    return " ".join(filter(None, (manifest.intended_use, known, _FOR_RESEARCH if question.research else "")))


def _prefix(question: Question) -> str:
    """Mark files that are shown for research by their names."""
    return "research-" if question.research else ""


def _image_read(image: ExplainedImage, *, evidence: dict[str, str]) -> ImageRead:
    volume = image.used.image.volume
    affine = volume.geometry.affine
    return ImageRead(
        name=image.used.name,
        modality=volume.modality,
        files=tuple(source.sha256 for source in volume.sources),
        values=image.used.values.sha256,
        shape=volume.geometry.shape,
        affine=None if affine is None else tuple(map(tuple, affine.tolist())),
        weight=image.weight,
        planes=tuple(
            PlaneRead(
                plane=plane.plane,
                rectangle=(
                    plane.rectangle.left,
                    plane.rectangle.top,
                    plane.rectangle.width,
                    plane.rectangle.height,
                ),
                weight=plane.weight,
                likelihood=plane.likelihood,
                region=plane.region,
            )
            for plane in image.planes
        ),
        evidence=evidence,
        remarks=(*image.used.image.remarks, *(image.plan.told if image.plan is not None else ())),
    )


# Evidence in the patient ----------------------------------------------------------------------------------------------


def _write_evidence(folder: Path, image: ExplainedImage, question: Question) -> dict[str, str]:
    """Write one signed map a class; a radiograph has no place in the patient."""
    if image.plan is None:
        return {}
    maps = evidence_in_patient(np.stack([plane.evidence for plane in image.planes]), image.plan)
    names = {}
    for slug, values in zip(question.bundle.manifest.slugs, maps.values, strict=True):
        names[slug] = f"{_prefix(question)}evidence-{image.used.name}-{slug}.nii.gz"
        write_nifti(folder / names[slug], values, maps.affine)
    return names


# Overlays -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shown:
    """A plane that is shown."""

    image: ExplainedImage
    plane: int
    looks: tuple[ExplainedPlane, ...]
    """At this plane."""

    def speaks_for(self, chosen: int) -> float:
        """Say what the plane adds to a class's logit."""
        return float(sum(look.evidence[chosen].sum() for look in self.looks))

    @property
    def weight(self) -> float:
        return sum(look.weight for look in self.looks)

    @property
    def frame(self) -> PlaneFrame:
        """From the plane to its picture."""
        return PlaneFrame.of(self.image.used.image.volume.geometry)

    def evidence(self) -> NDArray[np.float32]:
        """Lay the evidence on the pixels that are shown: (classes, rows, columns).

        It is given by area, in shares of what the first look reads, so that planes of any number of pixels have one
        scale: the mean over that part is what the plane adds to the logit.
        """
        if self.image.plan is not None:
            (look,) = self.looks
            return self.frame.evidence(look.evidence, look.rectangle)
        squares = self.squares()
        joined = evidence_on_image(np.stack([look.evidence for look in self.looks]), squares, self.frame.seen)
        return joined * np.float32(squares[0].side ** 2)

    def squares(self) -> list[Square]:
        """Give what was read, in the pixels that are shown."""
        return [self.frame.square(look.rectangle) for look in self.looks]

    @property
    def window(self) -> ShownWindow | None:
        """The values that become black and white; None for a radiograph, which is shown as it was read."""
        if self.image.plan is None:
            return None
        return windows_of(self.image.used.image.volume.modality, self.image.plan.windows)[0]

    def pixels(self) -> NDArray[np.float32]:
        """Decode the plane as it is shown: (rows, columns) in 0..1."""
        image = self.image.used.image
        if self.window is None:
            return as_seen(radiograph_pixels(image), self.frame.seen)
        return self.frame.pixels(image.volume.read([self.plane])[0], self.window)


def _planes_shown(explained: ExplainedStudy) -> Iterator[_Shown]:
    for image in explained.images:
        if image.plan is None:
            yield _Shown(image=image, plane=0, looks=image.planes)
        else:
            yield from (_Shown(image=image, plane=look.plane, looks=(look,)) for look in image.planes)


def _write_overlays(folder: Path, question: Question, study: Study, explained: ExplainedStudy) -> Iterator[Overlay]:
    if explained.probabilities is None:
        return
    chosen = _class_shown(explained.verdict, explained.probabilities, question.bundle.manifest.slugs)
    planes = list(_planes_shown(explained))
    scale = evidence_scale(plane.evidence() for plane in planes)
    for number, shown in enumerate(_strongest(planes, chosen), start=1):
        name = f"{_prefix(question)}overlay-{number}.png"
        picture = _drawn(shown, chosen, scale)
        lines = _caption(shown, question, study, f"Evidence for {question.bundle.manifest.classes[chosen]}")
        write_bytes(folder / name, png_bytes(with_caption(picture, lines), optimise=False))
        yield Overlay(file=name, image=shown.image.used.name, plane=shown.plane)


def _class_shown(verdict: str, probabilities: Sequence[float], slugs: Sequence[str]) -> int:
    """Choose the class of the verdict, so that what is shown is what is said; where it is none, the most probable."""
    return slugs.index(verdict) if verdict in slugs else int(np.argmax(probabilities))


def _strongest(planes: list[_Shown], chosen: int) -> list[_Shown]:
    """Choose the planes that speak most for a class, most first, among them the one that does of each modality."""
    ranked = sorted(planes, key=lambda plane: -plane.speaks_for(chosen))
    first = {plane.image.used.image.volume.modality: plane for plane in reversed(ranked)}
    others = [plane for plane in ranked if plane not in first.values()]
    taken = [*first.values(), *others][:MOST_OVERLAYS]
    return sorted(taken, key=ranked.index)


def _drawn(shown: _Shown, chosen: int, scale: float) -> Picture:
    squares = shown.squares()
    found = [square for square, look in zip(squares, shown.looks, strict=True) if look.region]
    picture = overlay_picture(shown.pixels(), shown.evidence()[chosen], scale=scale, square=squares[0], found=found)
    image = shown.image.used.image
    sides = sides_of(image.volume.geometry)
    if sides is not None:
        picture = with_sides(picture, sides)
    return with_colour_bar(with_mark(picture, PHANTOM_MARK) if image.phantom else picture)


def _caption(shown: _Shown, question: Question, study: Study, what: str) -> list[str]:
    volume = shown.image.used.image.volume
    number = f"plane {shown.plane + 1} of {volume.geometry.shape[0]}" if shown.image.plan is not None else ""
    kind = " ".join(filter(None, (volume.modality, volume.geometry.plane_name)))
    window = "" if shown.window is None else shown.window.text(volume.modality)
    facts = (kind, number, window, f"weight {shown.weight:.0%}".replace("%", " %"))
    stamp = f"{RESEARCH_STAMP} {_FOR_RESEARCH}" if question.research else RESEARCH_STAMP
    return [
        what,
        ", ".join(filter(None, facts)),
        f"study {study.name}, image {shown.image.used.name}",
        *([PHANTOM_BANNER] if shown.image.used.image.phantom else []),
        stamp,
    ]
