"""A rendered patient as DICOM objects: a CT series and a segmentation of the tumour that refers to it.

All that is in an object follows from what is rendered, so that the same patient gives the same bytes, whatever the
label. Who is on it is nobody: the names, UIDs and dates are made of a digest.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DT, format_number_as_ds

from osteoscope import __version__
from osteoscope.imaging.synthetic import MANUFACTURER, SYNTHETIC

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from highdicom.seg import Segmentation
    from numpy.typing import NDArray

    from osteoscope.imaging.volume import PixelSpacing
    from osteoscope.phantom.patients import Attributes, Level
    from osteoscope.phantom.render import Rendering
    from osteoscope.phantom.scanner import Acquisition

_ROOT = uuid.UUID("6f5c8a5e-0f5b-5a0e-9a53-1c5f0d6f7a10")
"""Namespace of the UIDs, which are those of version 5 below 2.25 (PS3.5 B.2)."""

_INTERCEPT = -1024
"""HU of a stored 0: the 12 bits stored reach to 3071, which is all that is rendered."""

_BODY_PARTS: Mapping[Level, str] = {
    "cervical": "CSPINE",
    "thoracic": "TSPINE",
    "lumbar": "LSPINE",
    "sacral": "SSPINE",
}
"""PS3.16 Annex L."""

_FIRST_DAY = datetime.datetime(2015, 1, 1, 7, tzinfo=datetime.UTC)
_DAYS, _MINUTES = 3650, 720
_EXPOSURE_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a patient and a scan are called.

    Parameters
    ----------
    patient
        ``PHANTOM-`` and 12 hexadecimal digits, which follow from attributes and seed: of one patient in every cohort.
    scan
        SHA-256 of all that the bytes of the scan follow from, as 64 hexadecimal digits.
    """

    patient: str
    scan: str

    def uid(self, *of: str | int) -> str:
        """Give the UID of a part of the study, such as its series."""
        name = "/".join(map(str, (self.scan, *of)))
        return f"2.25.{uuid.uuid5(_ROOT, name).int}"

    @property
    def when(self) -> datetime.datetime:
        """Day and time of the scan, by day, within ten years."""
        number = int(self.scan[:12], 16)
        return _FIRST_DAY + datetime.timedelta(days=number % _DAYS, minutes=number // _DAYS % _MINUTES)


def patient_id(attributes: Attributes, seed: int) -> str:
    """Name a patient; the label has no part in it."""
    return f"PHANTOM-{_digest(asdict(attributes), seed)[:12].upper()}"


def identify(attributes: Attributes, seed: int, acquisition: Acquisition, shape: tuple[int, ...]) -> Identity:
    """Name a patient and a scan; another version of the program may render another CT, and gives it other UIDs."""
    scan = _digest(asdict(attributes), seed, asdict(acquisition), shape, __version__)
    return Identity(patient=patient_id(attributes, seed), scan=scan)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def ct_series(attributes: Attributes, rendering: Rendering, identity: Identity) -> list[Dataset]:
    """Make the objects of a CT series (CT Image Storage, PS3.3 A.3), one a plane, from the feet to the head.

    Parameters
    ----------
    attributes, rendering
        What was rendered, and what became of it.
    identity
        Of the patient and the scan.

    Returns
    -------
    Data sets ready to be saved, explicit VR little endian and not compressed.
    """
    common = _common(attributes, rendering, identity)
    affine = cast("NDArray[np.float64]", rendering.geometry.affine)
    stored = (rendering.hu - _INTERCEPT).astype("<u2")
    objects = []
    for index, plane in enumerate(stored):
        position = affine @ (0, 0, index, 1)
        one = Dataset()
        one.update(common)
        one.SOPInstanceUID = identity.uid("ct", index)
        one.InstanceNumber = index + 1
        one.ImagePositionPatient = [_decimal(along) for along in position[:3]]
        one.SliceLocation = _decimal(position[2])
        one.PixelData = plane.tobytes()
        one["PixelData"].VR = "OW"
        one.file_meta = FileMetaDataset()
        one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        objects.append(one)
    return objects


def _decimal(number: float) -> str:
    """Write a number as a decimal string, which has 16 characters at most (PS3.5 6.2)."""
    return format_number_as_ds(float(number))


def _common(attributes: Attributes, rendering: Rendering, identity: Identity) -> Dataset:
    """Give what all objects of the series share."""
    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 100"
    common.SOPClassUID = CTImageStorage
    _add_patient(common, attributes, identity)
    _add_study_and_series(common, attributes, rendering.acquisition, identity)
    _add_equipment(common, attributes)
    _add_acquisition(common, rendering.acquisition)
    _add_image(common, rendering)
    return common


def _add_patient(common: Dataset, attributes: Attributes, identity: Identity) -> None:
    common.PatientName = f"Phantom^{identity.patient.removeprefix('PHANTOM-')}"
    common.PatientID = identity.patient
    common.PatientBirthDate = ""
    common.PatientSex = attributes.sex
    common.PatientAge = f"{int(attributes.age):03d}Y"
    common.PatientComments = SYNTHETIC
    common.QualityControlSubject = "YES"


def _add_study_and_series(
    common: Dataset, attributes: Attributes, acquisition: Acquisition, identity: Identity
) -> None:
    day, time = f"{identity.when:%Y%m%d}", f"{identity.when:%H%M%S}"
    common.InstanceCreationDate, common.InstanceCreationTime = day, time
    common.StudyDate, common.StudyTime = day, time
    common.SeriesDate, common.SeriesTime = day, time
    common.AcquisitionDate, common.AcquisitionTime = day, time
    common.ContentDate, common.ContentTime = day, time
    common.StudyInstanceUID = identity.uid("study")
    common.SeriesInstanceUID = identity.uid("ct")
    common.FrameOfReferenceUID = identity.uid("frame of reference")
    common.PositionReferenceIndicator = ""
    common.AccessionNumber = f"PH{identity.scan[:12].upper()}"
    common.StudyID = identity.scan[:8].upper()
    common.ReferringPhysicianName = ""
    common.StudyDescription = f"CT {attributes.level} spine (synthetic)"
    common.Modality = "CT"
    common.SeriesNumber = 2
    common.SeriesDescription = f"{acquisition.thickness:g} mm {acquisition.kernel}"
    common.ProtocolName = f"{attributes.level} spine"
    common.BodyPartExamined = _BODY_PARTS[attributes.level]
    common.PatientPosition = "HFS"


def _add_equipment(common: Dataset, attributes: Attributes) -> None:
    common.Manufacturer = MANUFACTURER
    common.InstitutionName = f"Phantom centre {attributes.centre}"
    common.StationName = f"PHANTOM-{attributes.centre}"
    common.ManufacturerModelName = f"{MANUFACTURER} CT {attributes.centre}"
    common.DeviceSerialNumber = attributes.centre
    common.SoftwareVersions = f"osteoscope {__version__}"


def _add_acquisition(common: Dataset, acquisition: Acquisition) -> None:
    """Add what the CT Image and Contrast/Bolus modules tell (PS3.3 C.8.2.1, C.7.6.4)."""
    # Noise falls with the square root of the dose.
    exposure = round(150 * (13 / acquisition.noise) ** 2) if acquisition.noise > 0 else 1000
    common.ScanOptions = "HELICAL MODE"
    common.KVP = acquisition.kilovolt
    common.SliceThickness = _decimal(acquisition.thickness)
    common.SpacingBetweenSlices = _decimal(acquisition.thickness)
    common.DataCollectionDiameter = "500"
    common.ReconstructionDiameter = _decimal(acquisition.field_of_view)
    common.GantryDetectorTilt = "0"
    common.RotationDirection = "CW"
    common.ExposureTime = round(1000 * _EXPOSURE_SECONDS)
    common.XRayTubeCurrent = round(exposure / _EXPOSURE_SECONDS)
    common.Exposure = exposure
    common.ConvolutionKernel = acquisition.kernel.upper()
    common.AcquisitionNumber = 1
    if acquisition.contrast > 0:
        common.ContrastBolusAgent = "Iodine (simulated)"
        common.ContrastBolusRoute = "IV"


def _add_image(common: Dataset, rendering: Rendering) -> None:
    _, rows, columns = rendering.hu.shape
    spacing = cast("PixelSpacing", rendering.geometry.spacing)
    common.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    common.ImageComments = SYNTHETIC
    common.DerivationDescription = "Computed from a digital model of a spine; nobody was scanned."
    common.BurnedInAnnotation = "NO"
    common.LossyImageCompression = "00"
    common.QualityControlImage = "YES"
    common.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    common.PixelSpacing = [_decimal(spacing.row), _decimal(spacing.column)]
    common.SamplesPerPixel = 1
    common.PhotometricInterpretation = "MONOCHROME2"
    common.Rows, common.Columns = rows, columns
    common.BitsAllocated, common.BitsStored, common.HighBit = 16, 12, 11
    common.PixelRepresentation = 0
    common.RescaleIntercept, common.RescaleSlope, common.RescaleType = _INTERCEPT, 1, "HU"
    common.WindowCenter, common.WindowWidth = [40, 400], [400, 2000]
    common.WindowCenterWidthExplanation = ["SOFT TISSUE", "BONE"]


def segmentation(
    attributes: Attributes, rendering: Rendering, identity: Identity, series: Sequence[Dataset]
) -> Segmentation:
    """Make a segmentation of the tumour (Segmentation Storage, PS3.3 A.51) that refers to a CT series.

    Parameters
    ----------
    attributes, rendering, identity
        As for `ct_series`. The lesion becomes one binary segment; planes without it are left out.
    series
        What `ct_series` made of them.

    Returns
    -------
    A data set ready to be saved.
    """
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    first = series[0]
    places = {
        "cervical": codes.SCT.CervicalSpine,
        "thoracic": codes.SCT.ThoracicSpine,
        "lumbar": codes.SCT.LumbarSpine,
        "sacral": codes.SCT.Sacrum,
    }
    tumour = SegmentDescription(
        segment_number=1,
        segment_label="Tumour",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=MANUFACTURER, family=codes.cid7162.MorphologicalOperations, version=__version__
        ),
        anatomic_regions=[places[attributes.level]],
    )
    made = Segmentation(
        source_images=series,
        pixel_array=np.asarray(rendering.lesion, bool),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[tumour],
        series_instance_uid=identity.uid("segmentation"),
        series_number=100,
        sop_instance_uid=identity.uid("segmentation", 0),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=first.ManufacturerModelName,
        software_versions=first.SoftwareVersions,
        device_serial_number=first.DeviceSerialNumber,
        content_label="TUMOUR",
        content_description="Tumour as it was drawn; synthetic, no patient",
        series_description="Tumour (truth)",
        content_date=first.ContentDate,
        content_time=first.ContentTime,
        series_date=first.SeriesDate,
        series_time=first.SeriesTime,
    )
    _leave_nothing_to_chance(made, identity)
    return made


def _leave_nothing_to_chance(made: Segmentation, identity: Identity) -> None:
    """Set what highdicom takes from the clock and from a random number."""
    made.InstanceCreationDate, made.InstanceCreationTime = made.ContentDate, made.ContentTime
    for item in made.ContributingEquipmentSequence:
        if "ContributionDateTime" in item:
            item.ContributionDateTime = DT(f"{identity.when:%Y%m%d%H%M%S}")
    for item in (*made.DimensionIndexSequence, *made.DimensionOrganizationSequence):
        item.DimensionOrganizationUID = identity.uid("dimensions")
