"""A small CT of a body with a lesion in its right half, and a prediction of it that is made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from dicom_files import write_series

from osteoscope.cohort.table import Case, CaseImage
from osteoscope.config import PreparationConfig, VolumeConfig
from osteoscope.imaging.nifti import write_nifti
from osteoscope.imaging.open import open_image
from osteoscope.imaging.values import values_of
from osteoscope.inference.prediction import CasePrediction, ExplainedCase, ImagePrediction, Look
from osteoscope.inference.scans import PreparedScans

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from osteoscope.imaging.volume import Modality

SHAPE = (10, 40, 40)
"""Planes, from the feet to the head, 3 mm apart; rows and columns of 2 mm."""

LESION = (slice(4, 7), slice(16, 24), slice(8, 14))
"""Planes 4 to 6; columns 8 to 14 lie on the left of the picture, which is the patient's right."""

PREPARATION = PreparationConfig(
    volume=VolumeConfig(size=32, spacing=2.5, planes=10, step=1.0, neighbours=1, windows=((-500, 1300),))
)
"""Reads every plane, and of each a square of 80 mm, which is all of it."""


def scan_case(folder: Path, *, mask: bool = True, phantom: bool = False, modality: Modality = "CT") -> Case:
    """Write the CT, or an MR of the same, and its mask, and give the patient; the body nearly fills it."""
    values = np.full(SHAPE, -1000)
    values[:, 2:-2, 2:-2] = 40
    values[LESION] = 900
    stored = (values + 1000).astype(np.uint16)
    scale: dict[str, Any] = {"RescaleIntercept": -1000} if modality == "CT" else {}
    write_series(folder / "ct", stored, modality, spacing=(2, 2), **scale)
    volume = open_image(folder / "ct").volume
    np.testing.assert_array_equal(volume.read([5])[0], values[5] if modality == "CT" else stored[5])
    marked = np.zeros(SHAPE, dtype=np.float32)
    marked[LESION] = 1
    affine = volume.geometry.affine
    assert affine is not None
    write_nifti(folder / "mask.nii.gz", marked, affine)
    image = CaseImage(
        image="ct",
        path=folder / "ct",
        pixel_sha256=values_of(volume).sha256,
        rows=SHAPE[1],
        columns=SHAPE[2],
        modality=modality,
        mask=folder / "mask.nii.gz" if mask else None,
        phantom=phantom,
    )
    return Case(patient="P", label=1, images=(image,), level="lumbar")


def explained(case: Case, weights: Sequence[float], cells: np.ndarray, logits: tuple[float, float]) -> ExplainedCase:
    """Say of each plane its weight, and (planes, h, w) what speaks for the first class and against the second."""
    (plan,) = PreparedScans.of([open_image(case.images[0].path).volume], PREPARATION).plans
    assert plan.planes == tuple(range(SHAPE[0]))
    read = plan.rectangle
    np.testing.assert_allclose((read.left, read.top, read.width, read.height), (0, 0, 40, 40), atol=0.51)
    looks = tuple(
        Look(plane=plane, rectangle=(read.left, read.top, read.width, read.height), weight=weight)
        for plane, weight in zip(plan.planes, weights, strict=True)
    )
    image = ImagePrediction(image="ct", logits=logits, looks=looks, first_looks=len(looks))
    one = np.asarray(cells, dtype=np.float32)
    return ExplainedCase(
        prediction=CasePrediction(patient="P", label=1, logits=logits, images=(image,)),
        evidence=np.stack([one, -one], axis=1),
        lesions=np.clip(one, 0, 1),
    )
