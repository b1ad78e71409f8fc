"""Makes what outlines lesions in DICOM: segmentations by highdicom, structure sets by hand (PS3.3 A.19.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import highdicom
from dicom_files import EXPLICIT
from highdicom.seg import SegmentDescription
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.uid import UID, generate_uid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import pydicom
    from numpy.typing import NDArray


def write_segmentation(
    path: Path,
    slices: Sequence[pydicom.Dataset],
    marked: NDArray[Any],
    kind: str = "BINARY",
    names: Sequence[str] = (),
    **changes: Any,
) -> Path:
    """Write a segmentation by highdicom, of ``(planes, rows, columns)``, with segments as a last axis or not."""
    algorithm = highdicom.AlgorithmIdentificationSequence("test", codes.cid7162.ArtificialIntelligence, "1")
    labels = names or [f"{number}" for number in range(marked.shape[3] if marked.ndim == 4 else 1)]
    segments = [
        SegmentDescription(1 + number, label, codes.SCT.Tissue, codes.SCT.Bone, "AUTOMATIC", algorithm)
        for number, label in enumerate(labels)
    ]
    made = highdicom.seg.Segmentation(
        source_images=slices,
        pixel_array=marked,
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=2,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Manufacturer",
        manufacturer_model_name="Model",
        software_versions="v1",
        device_serial_number="Device XYZ",
    )
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    made.save_as(path)
    return path


def write_structure_set(
    path: Path, regions: Sequence[Mapping[str, Any]], *, frame: str, series: str, study: str = "1.2.840.3"
) -> Path:
    """Write a structure set.

    Parameters
    ----------
    path
        Where to.
    regions
        Each with its ``name``, ``contours`` of ``(n, 3)`` in LPS mm and, where wanted, the ``geometric`` type of these
        and the ``kind`` by which the region is interpreted.
    frame, series, study
        UIDs that it says it was drawn in.
    """
    data_set = Dataset()
    data_set.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.481.3")
    data_set.SOPInstanceUID = generate_uid(entropy_srcs=["structure set", str(path)])
    data_set.Modality, data_set.StudyInstanceUID = "RTSTRUCT", study
    data_set.SeriesInstanceUID = generate_uid(entropy_srcs=["series of structure sets"])
    data_set.PatientName, data_set.PatientID = "Nobody^Anna", "ID-4711"
    data_set.StructureSetLabel = "test"
    in_series = _with(SeriesInstanceUID=series)
    in_study = _with(ReferencedSOPInstanceUID=study, RTReferencedSeriesSequence=[in_series])
    in_frame = _with(FrameOfReferenceUID=frame, RTReferencedStudySequence=[in_study])
    data_set.ReferencedFrameOfReferenceSequence = Items([in_frame])
    numbered = list(enumerate(regions, start=1))
    data_set.StructureSetROISequence = Items(
        [
            _with(ROINumber=number, ReferencedFrameOfReferenceUID=frame, ROIName=region["name"])
            for number, region in numbered
        ]
    )
    data_set.ROIContourSequence = Items(
        [
            _with(ReferencedROINumber=number, ContourSequence=[_contour(one, region) for one in region["contours"]])
            for number, region in numbered
        ]
    )
    data_set.RTROIObservationsSequence = Items(
        [
            _with(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType=region.get("kind", ""))
            for number, region in numbered
        ]
    )
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    data_set.save_as(path, enforce_file_format=True)
    return path


def _contour(points: NDArray[np.float64], region: Mapping[str, Any]) -> Dataset:
    return _with(
        ContourGeometricType=region.get("geometric", "CLOSED_PLANAR"),
        NumberOfContourPoints=len(points),
        ContourData=[f"{value:.10g}" for value in points.ravel()],
    )


def _with(**elements: Any) -> Dataset:
    data_set = Dataset()
    for keyword, value in elements.items():
        setattr(data_set, keyword, Items(value) if keyword.endswith("Sequence") else value)
    return data_set
