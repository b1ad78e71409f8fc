"""The same case as DICOM, and as NIfTI by dcm2niix and by SimpleITK, is the same Volume and gives the same planes."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import SimpleITK
from conftest import shared_data
from numpy.testing import assert_allclose
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from osteoscope.config import VolumeConfig
from osteoscope.imaging.nifti import open_nifti
from osteoscope.imaging.series import assemble
from osteoscope.imaging.slices import cut_slices, plan_slices

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.imaging.volume import Volume

CONFIG = VolumeConfig(size=64, spacing=2.0, planes=6)


def by_dcm2niix(dicom: Path, target: Path) -> Path:
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed; on Debian: apt-get install dcm2niix")
    subprocess.run(["dcm2niix", "-z", "i", "-f", "case", "-o", target, dicom], check=True, capture_output=True)
    return target / "case.nii.gz"


def by_simpleitk(dicom: Path, target: Path) -> Path:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(dicom)))
    SimpleITK.WriteImage(reader.Execute(), target / "case.nii")
    return target / "case.nii"


CONVERTERS = pytest.mark.parametrize("convert", [by_dcm2niix, by_simpleitk], ids=["dcm2niix", "SimpleITK"])


def only_series(folder: Path) -> Volume:
    assembly = assemble(sorted(folder.iterdir()))
    assert not assembly.refused
    (series,) = assembly.series
    return series.volume


def assert_same(one: Volume, other: Volume) -> None:
    assert one.geometry.shape == other.geometry.shape
    assert_allclose(one.read(), other.read(), atol=1e-3)
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * [*one.geometry.shape[::-1], 1]
    assert one.geometry.affine is not None
    assert other.geometry.affine is not None
    assert_allclose(corners @ one.geometry.affine.T, corners @ other.geometry.affine.T, atol=1e-3)
    plans = [plan_slices(volume, CONFIG) for volume in (one, other)]
    assert plans[0].planes == plans[1].planes
    assert_allclose(plans[0].affines, plans[1].affines, atol=1e-3)
    assert_allclose(cut_slices(one, plans[0]), cut_slices(other, plans[1]), atol=1e-4)


@CONVERTERS
def test_a_real_ct_is_the_same_volume(tmp_path: Path, convert: Any) -> None:
    source = shared_data("dicom/totalsegmentator/example_ct_dicom")
    folder = tmp_path / "dicom"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("SOURCE.txt"))
    assert_same(only_series(folder), open_nifti(convert(folder, tmp_path), modality="CT").volume)


# Image Orientation (Patient), and the direction in which instance numbers count along the normal.
ORIENTATIONS = {
    "axial": ((1, 0, 0, 0, 1, 0), 1),
    "axial, from the head": ((1, 0, 0, 0, 1, 0), -1),
    "axial, prone": ((-1, 0, 0, 0, -1, 0), 1),
    "axial, feet first": ((-1, 0, 0, 0, 1, 0), 1),
    "sagittal": ((0, 1, 0, 0, 0, -1), 1),
    "sagittal, from the right": ((0, 1, 0, 0, 0, -1), -1),
    "sagittal, facing right": ((0, -1, 0, 0, 0, -1), 1),
    "coronal": ((1, 0, 0, 0, 0, -1), 1),
    "oblique": ((0.96, 0.28, 0, -0.168, 0.576, -0.8), 1),
    "double oblique, sagittal": ((-0.28, 0.96, 0, -0.24, -0.07, -0.9682458), -1),
}


def saved_series(
    folder: Path, orientation: tuple[float, ...], direction: int, *, modality: str, steps: tuple[float, float, float]
) -> None:
    """Write 9 slices of 24 x 20 pixels; steps in mm are from plane to plane, row to row and column to column."""
    folder.mkdir()
    values = np.random.default_rng(3).integers(0, 1000, (9, 24, 20)).astype(np.int16)
    right, down = np.array(orientation[:3]), np.array(orientation[3:])
    down = down - right * (right @ down) / (right @ right)
    right, down = right / np.linalg.norm(right), down / np.linalg.norm(down)
    for number, plane in enumerate(values):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        meta.MediaStorageSOPInstanceUID = UID(f"1.2.826.0.1.3680043.8.498.1.{number + 1}")
        one = Dataset()
        one.file_meta = meta
        one.SOPClassUID, one.SOPInstanceUID = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
        one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.2", "1.2.826.0.1.3680043.8.498.3"
        one.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.4"
        one.Modality, one.Manufacturer, one.ImageType = modality, "SIEMENS", ["ORIGINAL", "PRIMARY", "M"]
        one.PatientID, one.PatientName, one.StudyDate, one.StudyTime = "1", "Nobody", "20200101", "120000"
        one.AcquisitionDate, one.AcquisitionTime = "20200101", "120000"
        one.SeriesNumber, one.AcquisitionNumber, one.InstanceNumber = 1, 1, number + 1
        place = np.array([-31.5, 12.25, 470.0]) + direction * number * steps[0] * np.cross(right, down)
        one.ImagePositionPatient = [f"{value:.8f}"[:16] for value in place]
        one.ImageOrientationPatient = [f"{value:.10f}"[:16] for value in (*right, *down)]
        one.PixelSpacing, one.SliceThickness = [steps[1], steps[2]], steps[0]
        if modality == "MR":
            one.MRAcquisitionType, one.EchoTime, one.RepetitionTime = "3D", "20", "900"
        else:
            one.RescaleSlope, one.RescaleIntercept = "1", "-1024"
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.Rows, one.Columns = plane.shape
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.PixelData = plane.tobytes()
        # Names in another order than the slices.
        one.save_as(folder / f"{number * 7 % 9}.dcm", enforce_file_format=True)


@CONVERTERS
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_ct_in_any_orientation_is_the_same_volume(tmp_path: Path, orientation: str, convert: Any) -> None:
    folder = tmp_path / "dicom"
    saved_series(folder, *ORIENTATIONS[orientation], modality="CT", steps=(3.0, 0.7, 0.7))
    found = open_nifti(convert(folder, tmp_path), modality="CT")
    assert found.told == ()
    assert_same(only_series(folder), found.volume)


@CONVERTERS
@pytest.mark.parametrize("steps", [(4.4, 0.9, 0.9), (1.0, 1.0, 1.0)], ids=str)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_mr_is_the_same_volume_though_dcm2niix_turns_its_axes(
    tmp_path: Path, orientation: str, steps: tuple[float, float, float], convert: Any
) -> None:
    folder = tmp_path / "dicom"
    saved_series(folder, *ORIENTATIONS[orientation], modality="MR", steps=steps)
    assert_same(only_series(folder), open_nifti(convert(folder, tmp_path), modality="MR").volume)


def test_the_sidecar_of_dcm2niix_tells_planes_of_oblong_pixels_apart(tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    saved_series(folder, *ORIENTATIONS["oblique"], modality="MR", steps=(1.0, 0.5, 1.0))
    assert_same(only_series(folder), open_nifti(by_dcm2niix(folder, tmp_path)).volume)
