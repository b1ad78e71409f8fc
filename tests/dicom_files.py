"""Makes DICOM files for tests: of any modality, place, encoding and fault; nobody is on them."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, generate_uid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"
LOSSLESS = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN, RLE, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1, JPEG_LS, JPEG_2000)

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "enhanced CT": "1.2.840.10008.5.1.4.1.1.2.1",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "enhanced MR": "1.2.840.10008.5.1.4.1.1.4.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "SC": "1.2.840.10008.5.1.4.1.1.7",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}

PATIENT = "Nobody^Anna"

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How pixels are stored."""

    transfer_syntax: str = EXPLICIT
    bits: int = 16
    """Allocated."""
    stored: int | None = None
    high: int | None = None
    photometric: str = "MONOCHROME2"


def write_dicom(
    path: Path,
    stored: NDArray[Any],
    kind: str = "CT",
    *,
    position: Sequence[float] | None = None,
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (1.0, 1.0),
    series: str = "a",
    encoding: Stored = Stored(),
    **elements: Any,
) -> Path:
    """Write a file.

    Parameters
    ----------
    path
        Where to.
    stored
        Whole numbers ``(rows, columns)`` or ``(frames, rows, columns)``, with 3 colours as a last axis or not.
    kind
        One of `SOP_CLASSES`.
    position, orientation, spacing
        As in PS3.3 C.7.6.2; without a position none of them is written.
    series
        Files of one name have one Series Instance UID.
    encoding
        How the pixels are stored.
    elements
        Further ones by keyword, which may belie the pixels; None leaves one out.
    """
    data_set = _data_set(path, kind, series)
    colours = 3 if stored.ndim > 2 and stored.shape[-1] == 3 else 1
    frames = stored.reshape(-1, *stored.shape[-3 if colours == 3 else -2 :])
    if position is not None:
        data_set.ImagePositionPatient = [f"{number:.10g}" for number in position]
        data_set.ImageOrientationPatient = [f"{number:.10g}" for number in orientation]
        data_set.PixelSpacing = list(spacing)
    if kind == "CT":
        data_set.RescaleSlope, data_set.RescaleIntercept = 1, 0
    if len(frames) > 1:
        data_set.NumberOfFrames = len(frames)
    _save(data_set, path, frames, encoding, elements)
    return path


def write_series(
    folder: Path,
    stored: NDArray[Any],
    kind: str = "CT",
    *,
    first: Sequence[float] = (0, 0, 0),
    step: Sequence[float] | None = None,
    orientation: Sequence[float] = AXIAL,
    each: Iterable[Mapping[str, Any]] | None = None,
    **options: Any,
) -> list[Path]:
    """Write a file for each plane of ``(planes, rows, columns)``, with instance numbers and names that are no order.

    Parameters
    ----------
    folder
        Where to.
    stored, kind, orientation, options
        As for `write_dicom`.
    first
        Position of the first plane in LPS mm.
    step
        To the next plane; 3 mm along the normal where left out.
    each
        Further options of each plane.
    """
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    along = 3 * normal if step is None else np.array(step)
    order = np.random.default_rng(len(stored)).permutation(len(stored))
    more = list(each) if each is not None else [{}] * len(stored)
    return [
        write_dicom(
            folder / f"{order[index]:03d}.dcm",
            plane,
            kind,
            **{
                "position": np.array(first) + index * along,
                "orientation": orientation,
                "InstanceNumber": int(order[-1 - index]),
                "SliceThickness": 7,
                **options,
                **more[index],
            },
        )
        for index, plane in enumerate(stored)
    ]


def write_enhanced(
    path: Path,
    stored: NDArray[Any],
    kind: str,
    positions: Sequence[Sequence[float]],
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (1.0, 1.0),
    rescales: Sequence[tuple[float, float]] | None = None,
    content: Sequence[Mapping[str, Any]] | None = None,
    orientations: Sequence[Sequence[float]] | None = None,
    encoding: Stored = Stored(),
    **elements: Any,
) -> Path:
    """Write an enhanced multi-frame object (PS3.3 A.36, A.38).

    Parameters
    ----------
    path
        Where to.
    stored
        Whole numbers ``(frames, rows, columns)``.
    kind
        ``CT`` or ``MR``.
    positions
        Of every frame; the spacing is shared.
    rescales
        Slope and intercept of every frame; 1 and 0, shared, where left out.
    content
        Elements of every frame's content, such as its stack.
    orientations
        Of every frame, where they are not shared.
    encoding, elements
        As for `write_dicom`.
    """
    data_set = _data_set(path, f"enhanced {kind}", "a")
    data_set.NumberOfFrames = len(stored)
    shared = Dataset()
    shared.PixelMeasuresSequence = [_with(PixelSpacing=list(spacing), SliceThickness=7)]
    if orientations is None:
        shared.PlaneOrientationSequence = [_with(ImageOrientationPatient=list(orientation))]
    if rescales is None:
        shared.PixelValueTransformationSequence = [_with(RescaleSlope=1, RescaleIntercept=0)]
    data_set.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index, position in enumerate(positions):
        group = _with(PlanePositionSequence=[_with(ImagePositionPatient=list(position))])
        group.FrameContentSequence = [_with(**(content[index] if content is not None else {}))]
        if orientations is not None:
            cosines = [f"{cosine:.10g}" for cosine in orientations[index]]
            group.PlaneOrientationSequence = [_with(ImageOrientationPatient=cosines)]
        if rescales is not None:
            slope, intercept = rescales[index]
            group.PixelValueTransformationSequence = [_with(RescaleSlope=slope, RescaleIntercept=intercept)]
        groups.append(group)
    data_set.PerFrameFunctionalGroupsSequence = groups
    _save(data_set, path, stored, encoding, elements)
    return path


def _with(**elements: Any) -> Dataset:
    data_set = Dataset()
    _set(data_set, elements)
    return data_set


def _set(data_set: Dataset, elements: Mapping[str, Any]) -> None:
    for keyword, value in elements.items():
        if value is None:
            if keyword in data_set:
                delattr(data_set, keyword)
        else:
            setattr(data_set, keyword, Items(value) if keyword.endswith("Sequence") else value)


def _data_set(path: Path, kind: str, series: str) -> Dataset:
    data_set = Dataset()
    data_set.SOPClassUID = UID(SOP_CLASSES[kind])
    data_set.SOPInstanceUID = generate_uid(entropy_srcs=["instance", str(path)])
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    data_set.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    data_set.SeriesInstanceUID = generate_uid(entropy_srcs=["series", series])
    data_set.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference"])
    data_set.Modality = {"SC": "OT"}.get(kind, kind.removeprefix("enhanced "))
    data_set.PatientName, data_set.PatientID, data_set.PatientBirthDate = PATIENT, "ID-4711", "19010203"
    data_set.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    return data_set


def _save(data_set: Dataset, path: Path, frames: NDArray[Any], encoding: Stored, elements: Mapping[str, Any]) -> None:
    _store(data_set, frames, encoding)
    _set(data_set, elements)
    data_set.save_as(path, enforce_file_format=True)


def _store(data_set: Dataset, frames: NDArray[Any], encoding: Stored) -> None:
    """Put the pixels into a data set, in their encoding."""
    signed = bool(frames.min() < 0)
    data_set.Rows, data_set.Columns = frames.shape[1:3]
    data_set.SamplesPerPixel = frames.shape[3] if frames.ndim == 4 else 1
    if frames.ndim == 4:
        data_set.PlanarConfiguration = 0
    data_set.PhotometricInterpretation = encoding.photometric
    data_set.BitsAllocated = encoding.bits
    data_set.BitsStored = encoding.stored or encoding.bits
    data_set.HighBit = data_set.BitsStored - 1 if encoding.high is None else encoding.high
    data_set.PixelRepresentation = int(signed)
    order = ">" if encoding.transfer_syntax == BIG_ENDIAN else "<"
    native = frames.astype(f"{order}{'i' if signed else 'u'}{encoding.bits // 8}")
    data_set.file_meta.TransferSyntaxUID = UID(encoding.transfer_syntax)
    if encoding.transfer_syntax in (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN):
        content = native.tobytes()
        data_set.PixelData = content + bytes(len(content) % 2)
        data_set["PixelData"].VR = "OW" if encoding.bits > 8 else "OB"
    elif encoding.transfer_syntax in (JPEG_BASELINE, JPEG_EXTENDED):
        data_set.PixelData = encapsulate([jpeg(frame) for frame in native])
    elif encoding.transfer_syntax in (JPEG_LOSSLESS, JPEG_LOSSLESS_SV1):
        bits = data_set.HighBit + 1
        predictor = 1 if encoding.transfer_syntax == JPEG_LOSSLESS_SV1 else 4
        unsigned = frames.astype(np.int64) & ((1 << bits) - 1)
        data_set.PixelData = encapsulate([lossless_jpeg(frame, bits, predictor) for frame in unsigned])
    else:
        data_set.file_meta.TransferSyntaxUID = UID(EXPLICIT)
        data_set.PixelData = native.tobytes()
        data_set["PixelData"].VR = "OW" if encoding.bits > 8 else "OB"
        data_set.compress(encoding.transfer_syntax, generate_instance_uid=False)
    if encoding.transfer_syntax not in (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN):
        data_set["PixelData"].is_undefined_length = True
        data_set["PixelData"].VR = "OB"


def jpeg(frame: NDArray[np.uint8], quality: int = 95) -> bytes:
    """Compress a frame as 8-bit baseline JPEG."""
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def lossless_jpeg(frame: NDArray[Any], precision: int, predictor: int = 1) -> bytes:
    """Compress whole numbers from 0 on as lossless JPEG (ISO 10918-1 H), each Huffman code of 5 bits."""
    rows, columns = frame.shape
    above = np.vstack([np.zeros((1, columns), dtype=np.int64), frame[:-1].astype(np.int64)])
    left = np.hstack([np.zeros((rows, 1), dtype=np.int64), frame[:, :-1].astype(np.int64)])
    corner = np.hstack([np.zeros((rows, 1), dtype=np.int64), above[:, :-1]])
    predictions = (left, above, corner, left + above - corner, left + ((above - corner) >> 1))
    predicted = (*predictions, above + ((left - corner) >> 1), (left + above) >> 1)[predictor - 1].copy()
    predicted[0], predicted[1:, 0], predicted[0, 0] = left[0], above[1:, 0], 1 << (precision - 1)
    bits = []
    for difference in ((frame.astype(np.int64) - predicted + 32768) % 65536 - 32768).ravel().tolist():
        category = 16 if difference == -32768 else abs(difference).bit_length()
        extra = difference if difference > 0 else difference + (1 << category) - 1
        bits.append(f"{category:05b}" + (f"{extra:0{category}b}" if 0 < category < 16 else ""))
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    coded = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    start = b"\xff\xc3" + struct.pack(">HBHHB3B", 11, precision, rows, columns, 1, 1, 0x11, 0)
    lengths = [17 if length == 5 else 0 for length in range(1, 17)]
    tables = b"\xff\xc4" + struct.pack(">HB16B17B", 36, 0, *lengths, *range(17))
    scan = b"\xff\xda" + struct.pack(">H6B", 8, 1, 1, 0, predictor, 0, 0)
    return b"\xff\xd8" + start + tables + scan + coded + b"\xff\xd9"
