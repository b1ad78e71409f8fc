"""The page of one case: the answer first, then the images with what spoke in them, then how to read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.report.overlay import (
    UNIT_TEXT,
    colour_strip,
    evidence_scale,
    grey_picture,
    jpeg_bytes,
    leaves_out,
    overlay_picture,
    png_bytes,
)
from osteoscope.report.pages import data_uri, render

if TYPE_CHECKING:
    from osteoscope.report.content import CaseContent, CaseImageContent

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


def case_html(content: CaseContent) -> str:
    """Write the page of a case: one HTML file that needs no other and is the same for the same content.

    Raises
    ------
    ValueError
        If the probabilities, the prior or an image's evidence do not have one entry a class.
    """
    _check(content)
    scale = evidence_scale(image.evidence for image in content.images)
    return render(
        "case.html.j2",
        content=content,
        answers=list(zip(content.classes, content.probabilities, content.prior, strict=True)),
        pictures=[_picture(image, content.classes, scale) for image in content.images],
        scale=scale,
        strip=data_uri(png_bytes(colour_strip(length=256, thickness=16)), "image/png"),
        unit=UNIT_TEXT["share"],
        has_found=any(image.found for image in content.images),
        has_lesions=any(image.lesions for image in content.images),
        has_squares=any(
            image.square is not None and leaves_out(image.square, image.pixels.shape) for image in content.images
        ),
    )


def _picture(image: CaseImageContent, classes: tuple[str, ...], scale: float) -> _Picture:
    original = grey_picture(image.pixels, longest=LONGEST_SIDE)
    overlays = tuple(
        _EvidencePicture(
            class_name=name,
            uri=data_uri(
                jpeg_bytes(
                    overlay_picture(
                        image.pixels,
                        signed,
                        scale=scale,
                        lesions=image.lesions,
                        square=image.square,
                        found=image.found,
                        longest=LONGEST_SIDE,
                    )
                ),
                "image/jpeg",
            ),
            strongest=evidence_scale([signed]) / scale if scale > 0 else 0.0,
        )
        for name, signed in zip(classes, image.evidence, strict=True)
    )
    return _Picture(
        image=image,
        original=data_uri(png_bytes(original), "image/png"),
        size=original.size,
        evidence=overlays,
        reduced=max(image.pixels.shape) > LONGEST_SIDE,
    )


def _check(content: CaseContent) -> None:
    expected = len(content.classes)
    found = {"probabilities": len(content.probabilities), "prior": len(content.prior)}
    found |= {f"evidence of {image.name}": len(np.atleast_1d(image.evidence)) for image in content.images}
    for name, number in found.items():
        if number != expected:
            msg = f"{name} must have one entry for each of the {expected} classes, got {number}"
            raise ValueError(msg)
