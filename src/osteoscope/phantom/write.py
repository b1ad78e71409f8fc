"""A patient of the phantom on disk: a CT series and a segmentation as DICOM, and the truth in a folder of its own.

::

    images/PHANTOM-…/ct/001.dcm …      CT, one file a slice, from the feet to the head
                    /segmentation.dcm  of the tumour
    truth/PHANTOM-…/truth.json         label, kind, attributes, likelihood ratio: `osteoscope.phantom.truth`
                   /discriminative.nii.gz

What lies below ``images`` says no more than a hospital's files would; it is all that a reader of images may be given.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, cast

import numpy as np

from osteoscope.imaging.nifti import write_nifti
from osteoscope.phantom.dicom import ct_series, identify, segmentation
from osteoscope.phantom.render import SHAPE, render
from osteoscope.phantom.truth import DISCRIMINATIVE, TRUTH, TRUTHS, truth_to_json
from osteoscope.storage import folder_written_whole, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.phantom.patients import Patient
    from osteoscope.phantom.scanner import Acquisition

IMAGES = "images"
SERIES, SEGMENTATION = "ct", "segmentation.dcm"

_HEADER_BYTES = 4096
"""Of a slice and of what the segmentation says of it, at most."""


def written_ids(output: Path) -> set[str]:
    """Give the identifiers of the patients that are there, with both folders complete."""
    return {folder.name for folder in (output / IMAGES).glob("PHANTOM-*")}


def write_patient(
    patient: Patient,
    output: Path,
    *,
    acquisition: Acquisition | None = None,
    shape: tuple[int, int, int] = SHAPE,
) -> None:
    """Render a patient and write images and truth, whole or not at all; the same patient gives the same bytes.

    Parameters
    ----------
    patient
        As drawn. The label and the kind enter the truth alone.
    output
        Folder that the two folders go below.
    acquisition, shape
        As for `osteoscope.phantom.render.render`.

    Raises
    ------
    StorageError
        If the operating system refuses.
    """
    attributes = patient.attributes
    rendering = render(attributes, patient.seed, acquisition=acquisition, shape=shape)
    identity = identify(attributes, patient.seed, rendering.acquisition, shape)
    series = ct_series(attributes, rendering, identity)
    tumour = segmentation(attributes, rendering, identity, series)
    affine = cast("NDArray[np.float64]", rendering.geometry.affine)
    # The images, by which a patient is known to be there, are the last to take their place.
    with (
        folder_written_whole(output / IMAGES / identity.patient) as images,
        folder_written_whole(output / TRUTHS / identity.patient) as truth,
    ):
        (images / SERIES).mkdir()
        for one in series:
            one.save_as(images / SERIES / f"{one.InstanceNumber:03d}.dcm", enforce_file_format=True)
        tumour.save_as(images / SEGMENTATION, enforce_file_format=True)
        write_nifti(truth / DISCRIMINATIVE, rendering.discriminative.astype(np.float32), affine)
        write_json(truth / TRUTH, truth_to_json(patient, rendering, identity))


def remove_unfinished(output: Path) -> None:
    """Remove what a process that was killed has left of patients that it had not finished."""
    for folder in (output / IMAGES, output / TRUTHS):
        for unfinished in folder.glob(".PHANTOM-*"):
            shutil.rmtree(unfinished, ignore_errors=True)


def bytes_of(shape: tuple[int, int, int]) -> int:
    """Give how many bytes a patient takes on disk, at most."""
    planes, rows, columns = shape
    # 16 bits of CT, 1 of the segmentation, and the map, which is compressed.
    return planes * (rows * columns * 9 // 4 + _HEADER_BYTES)
