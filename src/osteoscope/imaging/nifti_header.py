"""What the header of a NIfTI file says of the values and of their place in the patient, checked.

References
----------
Cox RW and others. A (sort of) new image data format standard: NIfTI-1. https://nifti.nimh.nih.gov/nifti-1
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np

from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.imaging.scan import ArrayHeader, corners_apart, is_place, times
from osteoscope.imaging.stored_array import StoredArray, decompressed

if TYPE_CHECKING:
    from pathlib import Path

    from nibabel.nifti1 import Nifti1Header
    from numpy.typing import NDArray

    from osteoscope.imaging.orientation import Axes

_GZIP = b"\x1f\x8b"

_NIFTI_1, _NIFTI_2 = 348, 540
"""Bytes of a header, which are also its first number."""

_LARGEST_OFFSET = 2**24
"""Bytes that the header and its extensions may take before the values."""

_CONFLICT = 0.1
"""mm by which the two places that a header gives may differ; the rounding of a quaternion to float32 stays below."""

_TEMPLATE = 3
"""Codes from here on say that coordinates are those of a template, such as MNI's, not of the patient."""

_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
"""By the code of the unit of length: metre, mm and micrometre."""

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From RAS, which NIfTI's coordinates are, to LPS, and back."""

_AGAIN = "copy or convert it again, or leave it out"


def read_header(stream: BinaryIO, path: Path) -> ArrayHeader:
    """Read the header of an opened file.

    Parameters
    ----------
    stream
        Anywhere; it is left anywhere.
    path
        For the messages.

    Raises
    ------
    RefusedImageError
        If it is no such header, is damaged, or describes what is not read: colour, complex numbers, several volumes,
        values in another file.
    OSError, EOFError, zlib.error
        If it cannot be read or decompressed.
    """
    stream.seek(0)
    compression: Literal["gzip", "none"] = "gzip" if stream.read(2) == _GZIP else "none"
    stream.seek(0)
    start = decompressed(stream, compression).read(_NIFTI_2)
    fields = _fields(start, path)
    sizes = _sizes(fields, path)
    array = StoredArray(sizes=sizes, dtype=_dtype(fields, path), compression=compression, skipped=_offset(fields, path))
    slope, intercept = _scaling(fields, path)
    # Numbers that are none are judged where they matter.
    with np.errstate(all="ignore"):
        affine, told = _place(fields, sizes)
    pixel = _pixel(fields)
    return ArrayHeader(array=array, affine=affine, pixel=pixel, slope=slope, intercept=intercept, told=told)


def _fields(start: bytes, path: Path) -> Nifti1Header:
    """Take the fields apart, in either byte order; nibabel's own checks would mend, and log, what they find."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    first = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}
    size = next((size for size in (_NIFTI_1, _NIFTI_2) if size in first), None)
    if size is None:
        reason = "expected a NIfTI file, found something else"
        raise RefusedImageError(RefusalCode.NOT_AN_IMAGE, reason, path=path, remedy="name a NIfTI file")
    if len(start) < size:
        reason = f"expected a header of {size} bytes, found {len(start)}"
        raise RefusedImageError(RefusalCode.DAMAGED, reason, path=path, remedy=_AGAIN)
    content = start[:size]
    fields = Nifti1Header(content, check=False) if size == _NIFTI_1 else Nifti2Header(content, check=False)
    magic = bytes(fields["magic"].item())[:3]
    if magic in (b"ni1", b"ni2"):
        reason = "expected a NIfTI file with its values, found a header whose values lie in another file"
        remedy = "convert the pair to one .nii file"
        raise RefusedImageError(RefusalCode.DETACHED_PIXELS, reason, path=path, remedy=remedy)
    if magic not in (b"n+1", b"n+2"):
        reason = "expected a NIfTI file, found one of ANALYZE 7.5, which does not say which side is left"
        remedy = "convert the original images to NIfTI"
        raise RefusedImageError(RefusalCode.NOT_AN_IMAGE, reason, path=path, remedy=remedy)
    return fields


def _sizes(fields: Nifti1Header, path: Path) -> Axes:
    number, *dimensions = (int(size) for size in fields["dim"])
    if not 2 <= number <= 7 or min(dimensions[:number]) < 1:
        reason = f"expected 3 axes of positive length, found {number} of {dimensions[: max(number, 0)]}"
        raise RefusedImageError(RefusalCode.DAMAGED, reason, path=path, remedy=_AGAIN)
    sizes = [*dimensions[:number], 1]
    if max(sizes[3:], default=1) > 1:
        reason = f"expected one volume, found {' x '.join(map(str, dimensions[:number]))} values"
        remedy = "save the volume that is meant as a file of its own"
        raise RefusedImageError(RefusalCode.SEVERAL_VOLUMES, reason, path=path, remedy=remedy)
    return sizes[0], sizes[1], sizes[2]


def _dtype(fields: Nifti1Header, path: Path) -> np.dtype[Any]:
    try:
        dtype = cast("np.dtype[Any]", fields.get_data_dtype())
    except KeyError as error:
        reason = f"expected numbers, found the unknown type {int(fields['datatype'])}"
        raise RefusedImageError(RefusalCode.DAMAGED, reason, path=path, remedy=_AGAIN) from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        reason = f"expected grey values, found {fields.get_value_label('datatype')}"
        remedy = "convert it to whole numbers or to float32"
        raise RefusedImageError(RefusalCode.UNSUPPORTED_PIXELS, reason, path=path, remedy=remedy)
    return dtype


def _offset(fields: Nifti1Header, path: Path) -> int:
    least = int(fields["sizeof_hdr"]) + 4
    offset = float(fields["vox_offset"])
    # Some writers leave it at 0 where the values follow the header at once.
    if offset == 0:
        return least
    if not (least <= offset <= _LARGEST_OFFSET and offset.is_integer()):
        reason = f"expected values from byte {least} to {_LARGEST_OFFSET} on, found them stated at {offset:g}"
        raise RefusedImageError(RefusalCode.DAMAGED, reason, path=path, remedy=_AGAIN)
    return int(offset)


def _scaling(fields: Nifti1Header, path: Path) -> tuple[float, float]:
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    # A slope of 0, or none, says that values are as they are stored.
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        reason = f"expected a finite scl_inter beside scl_slope {slope:g}, found {intercept}"
        raise RefusedImageError(RefusalCode.DAMAGED, reason, path=path, remedy=_AGAIN)
    return slope, intercept


def _pixel(fields: Nifti1Header) -> tuple[float, float] | None:
    """Take the steps along i and j, which may be stated where no place is."""
    factor = _MM.get(int(fields["xyzt_units"]) & 7)
    if factor is None:
        return None
    first, second = (float(size) * factor for size in fields["pixdim"][1:3])
    believable = all(np.isfinite(size) and size > 0 for size in (first, second))
    return (first, second) if believable else None


def _place(fields: Nifti1Header, sizes: Axes) -> tuple[NDArray[np.float64] | None, tuple[str, ...]]:
    """Choose between the sform and the qform, and say what is odd about either."""
    told = []
    forms = {name: form for name, form in (("sform", _sform(fields)), ("qform", _qform(fields))) if form is not None}
    for name in [name for name, form in forms.items() if not is_place(form)]:
        told.append(f"its {name} is no place, for it is not a matrix that can be inverted")
        del forms[name]
    if not forms:
        told.append("its header gives no place in the patient, so which side is left is unknown")
        return None, tuple(told)
    name, form = next(iter(forms.items()))
    if len(forms) == 2 and (apart := corners_apart(form, forms["qform"], sizes)) > _CONFLICT:
        told.append(f"its sform and its qform place it up to {apart:.4g} mm apart; the sform is taken")
    steps, stated = np.linalg.norm(form[:3, :3], axis=0), np.abs(fields["pixdim"][1:4].astype(np.float64))
    if not np.allclose(steps, stated, rtol=0.01):
        told.append(f"its {name} has steps of {times(steps)}, its header says {times(stated)}; the {name} is taken")
    if int(fields[f"{name}_code"]) >= _TEMPLATE:
        told.append("its coordinates are those of a template, not of the patient")
    factor = _MM.get(int(fields["xyzt_units"]) & 7)
    if factor is None:
        told.append("its unit of length is not stated; mm is taken")
    return LPS_RAS @ np.diag([factor or 1.0] * 3 + [1.0]) @ form, tuple(told)


def _sform(fields: Nifti1Header) -> NDArray[np.float64] | None:
    """Give the affine of method 3, if the header has it."""
    return np.asarray(fields.get_sform(), dtype=np.float64) if int(fields["sform_code"]) > 0 else None


def _qform(fields: Nifti1Header) -> NDArray[np.float64] | None:
    """Give the affine of method 2, if the header has it; NaN where its quaternion is none."""
    from nibabel.spatialimages import HeaderDataError

    if int(fields["qform_code"]) <= 0:
        return None
    # The standard has 0 mean 1 here.
    qfac = float(fields["pixdim"][0])
    fields["pixdim"][0] = qfac if qfac in (-1.0, 1.0) else 1.0
    try:
        return np.asarray(fields.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        return np.full((4, 4), np.nan)
