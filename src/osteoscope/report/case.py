"""The page of one case: the answer first, then the images with what spoke in them, then how to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.imaging.mixed import in_words
from osteoscope.report import figures
from osteoscope.report.overlay import (
    UNIT,
    colour_strip,
    evidence_scale,
    grey_picture,
    jpeg_bytes,
    leaves_out,
    overlay_picture,
    png_bytes,
)
from osteoscope.report.pages import data_uri, inline, render
from osteoscope.report.planes import PHANTOM_MARK, with_mark, with_sides
from osteoscope.report.wording import share_text

if TYPE_CHECKING:
    from markupsafe import Markup
    from PIL.Image import Image as Picture

    from osteoscope.report.content import CaseContent, CaseImageContent, CasePlaneContent, CaseVolumeContent

LONGEST_SIDE = 1280
"""Larger images are reduced on the page until no side is longer, in pixels."""


@dataclass(frozen=True, kw_only=True)
class _EvidencePicture:
    class_name: str
    uri: str
    strongest: float
    """Its strongest evidence, as a share of the case's."""


@dataclass(frozen=True, kw_only=True)
class _Picture:
    image: CaseImageContent
    original: str
    size: tuple[int, int]
    evidence: tuple[_EvidencePicture, ...]
    reduced: bool


@dataclass(frozen=True, kw_only=True)
class _PlanePicture:
    caption: str
    note: str
    """Below the caption."""
    alt: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class _Plane:
    plane: CasePlaneContent
    pictures: tuple[_PlanePicture, ...]
    size: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Volume:
    volume: CaseVolumeContent
    weights: Markup
    planes: tuple[_Plane, ...]


def case_html(content: CaseContent) -> str:
    """Write the page of a case: one HTML file that needs no other and is the same for the same content.

    Raises
    ------
    ValueError
        If the probabilities, the prior or an image's evidence do not have one entry a class, nor, where something was
        told beside the images, the probabilities by the images alone.
    """
    _check(content)
    scale = max(
        evidence_scale(image.evidence for image in content.images),
        *(volume.strongest for volume in content.volumes),
        0.0,
    )
    return render(
        "case.html.j2",
        phantom=content.phantom,
        content=content,
        told=in_words(content.told) if content.told else "",
        answers=list(zip(content.classes, content.probabilities, content.prior, strict=True)),
        pictures=[_picture(image, content, scale) for image in content.images],
        volumes=[_volume(volume, content, scale) for volume in content.volumes],
        scale=scale,
        strip=data_uri(png_bytes(colour_strip(length=256, thickness=16)), "image/png"),
        unit=UNIT,
        has_found=any(image.found for image in content.images),
        has_lesions=any(one.lesions for one in _shown(content)),
        has_squares=any(
            one.square is not None and leaves_out(one.square, one.evidence.shape[-2:]) for one in _shown(content)
        ),
    )


def _shown(content: CaseContent) -> list[CaseImageContent | CasePlaneContent]:
    return [*content.images, *(plane for volume in content.volumes for plane in volume.shown)]


def _picture(image: CaseImageContent, content: CaseContent, scale: float) -> _Picture:
    original = _marked(grey_picture(image.pixels, longest=LONGEST_SIDE), content)
    overlays = tuple(
        _EvidencePicture(
            class_name=name,
            uri=data_uri(
                jpeg_bytes(
                    _marked(
                        overlay_picture(
                            image.pixels,
                            signed,
                            scale=scale,
                            lesions=image.lesions,
                            square=image.square,
                            found=image.found,
                            longest=LONGEST_SIDE,
                        ),
                        content,
                    )
                ),
                "image/jpeg",
            ),
            strongest=evidence_scale([signed]) / scale if scale > 0 else 0.0,
        )
        for name, signed in zip(content.classes, image.evidence, strict=True)
    )
    return _Picture(
        image=image,
        original=data_uri(png_bytes(original), "image/png"),
        size=original.size,
        evidence=overlays,
        reduced=max(image.pixels.shape) > LONGEST_SIDE,
    )


def _volume(volume: CaseVolumeContent, content: CaseContent, scale: float) -> _Volume:
    return _Volume(
        volume=volume,
        weights=inline(figures.weights_svg(volume.read, name=volume.name)),
        planes=tuple(_plane(plane, volume, content, scale) for plane in volume.shown),
    )


def _plane(plane: CasePlaneContent, volume: CaseVolumeContent, content: CaseContent, scale: float) -> _Plane:
    """Show a plane in each window, and with what speaks for and against the most probable class."""
    plain = [grey_picture(pixels, longest=LONGEST_SIDE) for pixels in plane.pictures]

    def picture(caption: str, note: str, alt: str, shown: Picture) -> _PlanePicture:
        uri = data_uri(jpeg_bytes(_lettered(shown, volume, content)), "image/jpeg")
        return _PlanePicture(caption=caption, note=note, alt=alt, uri=uri)

    pictures = []
    for window, shown in zip(volume.windows, plain, strict=True):
        values = window.text(volume.modality).replace("-", "−")
        alt = f"{volume.plane_name} {volume.modality} at {plane.position.text}, {values}"
        pictures.append(picture(window.name.capitalize() or volume.modality, values, alt, shown))
    for word, signed in (("for", plane.evidence), ("against", -plane.evidence)):
        said = f"{word} {content.classes[content.most_probable]}"
        strongest = share_text(evidence_scale([signed]) / scale if scale > 0 else 0.0)
        overlay = overlay_picture(
            plane.pictures[0], signed, scale=scale, lesions=plane.lesions, square=plane.square, longest=LONGEST_SIDE
        )
        alt = f"The same plane with the evidence {said} in colour; strongest {strongest} of the case's strongest"
        pictures.append(picture(f"Evidence {said}", f"strongest point: {strongest}", alt, overlay))
    return _Plane(plane=plane, pictures=tuple(pictures), size=plain[0].size)


def _lettered(picture: Picture, volume: CaseVolumeContent, content: CaseContent) -> Picture:
    """Name the sides of the patient; and say on a phantom's picture that it is one."""
    return _marked(with_sides(picture.convert("RGB"), volume.sides), content)


def _marked(picture: Picture, content: CaseContent) -> Picture:
    """Say on a phantom's picture that it is one."""
    return with_mark(picture.convert("RGB"), PHANTOM_MARK) if content.phantom else picture


def _check(content: CaseContent) -> None:
    expected = len(content.classes)
    found = {"probabilities": len(content.probabilities), "prior": len(content.prior)}
    found |= {"probabilities by the images alone": len(content.of_images)} if content.told else {}
    found |= {f"evidence of {image.name}": len(np.atleast_1d(image.evidence)) for image in content.images}
    for name, number in found.items():
        if number != expected:
            msg = f"{name} must have one entry for each of the {expected} classes, got {number}"
            raise ValueError(msg)
