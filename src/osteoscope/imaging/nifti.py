"""NIfTI-1 and NIfTI-2 files (``.nii``, ``.nii.gz``) as Volumes, and maps in patient space as NIfTI-1."""

from __future__ import annotations

import contextlib
import gzip
import io
from dataclasses import replace
from typing import IO, TYPE_CHECKING

import numpy as np

from osteoscope.imaging.nifti_header import LPS_RAS, read_header
from osteoscope.imaging.opened import opened, sha256_of_stream, stamp_of
from osteoscope.imaging.scan import Scan, is_place, scan_of
from osteoscope.imaging.sidecar import read_sidecar
from osteoscope.imaging.stored_array import decompression_faults
from osteoscope.storage import file_written_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.volume import Modality, Volume

_SCANNER = 1
"""Code of coordinates in the patient, as the scanner gives them."""

_LONGEST_AXIS = 2**15 - 1


def read_nifti(path: Path, *, modality: Modality | None = None) -> Volume:
    """Open a NIfTI file, as `open_nifti`, without what is told of it."""
    return open_nifti(path, modality=modality).volume


def open_nifti(path: Path, *, modality: Modality | None = None, unless_stated: Modality | None = None) -> Scan:
    """Open a NIfTI file of one volume; its values are taken from it when the Volume is read.

    Whatever the order of its axes, its planes come as `osteoscope.imaging.orientation` says. They lie across the axis
    that led from slice to slice: the one that the sidecar of the same name gives (``ImageOrientationPatientDICOM``),
    else the one whose step differs from the other two, else the last.

    Where the header gives two places, the sform is taken. Where it gives none that can be believed, the geometry has no
    affine: nothing is invented.

    Parameters
    ----------
    path
        A file by its bytes, not by its name; compressed by gzip or not.
    modality
        ``CT`` or ``MR``, whatever else is said. Where it is left out, the sidecar says, or the file's name does
        (``_ct``, ``_T2w`` and others of BIDS), for the file itself does not.
    unless_stated
        ``CT`` or ``MR``, where nothing says; without it, it is concluded from the values, and that is told.

    Returns
    -------
    The Volume, values by ``scl_slope`` and ``scl_inter``, float32; NaN where the file has it. Told is a conflict of
    sform and qform, or of either with the sizes of a voxel; a place that is missing, cannot be believed or is that of a
    template; an unknown unit; skew axes; and what was concluded about planes and modality.

    Raises
    ------
    RefusedImageError
        If the file is missing, empty, unreadable, damaged or no such file; if it holds colour, complex numbers or more
        than one volume, or its values lie in another file; if they would take more than the limits of
        `osteoscope.imaging.stored_array`. That a compressed file ends early, or holds more than its header says, is
        found when the Volume is read. If the modality is neither CT nor MR.
    """
    with opened(path) as stream, decompression_faults(path):
        stamp, sha256 = stamp_of(stream), sha256_of_stream(stream)
        header = read_header(stream, path)
    header.array.check(stamp.size, path)
    beside = read_sidecar(path)
    header = replace(header, modality=beside.modality, normal=beside.normal, phantom=beside.phantom)
    return scan_of(header, path, stamp, sha256, modality=modality, unless_stated=unless_stated)


def write_nifti(
    path: Path,
    values: Iterable[NDArray[np.floating | np.uint8]],
    affine: NDArray[np.float64],
    *,
    shape: tuple[int, ...] | None = None,
    stored: type[np.float32 | np.uint8] = np.float32,
    described: bytes = b"",
) -> None:
    """Write values in patient space as NIfTI-1, plane after plane, so that few need be in memory at once.

    The same values give the same bytes.

    Parameters
    ----------
    path
        Compressed where its name ends in ``.gz``.
    values
        ``(planes, rows, columns)``, or one plane ``(rows, columns)`` after the other.
    affine
        4x4 from an index ``(column, row, plane, 1)`` to LPS mm, as a Geometry has it.
    shape
        ``(planes, rows, columns)`` of what comes; may be left out for an array.
    stored
        Type in which values are stored.
    described
        Stands in the header (``descrip``); up to 79 bytes.

    Raises
    ------
    StorageError
        If the operating system refuses; what was there stays as it was, as it does if anything else goes wrong.
    ValueError
        If the values are not of the shape, an axis is longer than the 32767 that NIfTI-1 can state, or the affine
        cannot be inverted.
    """
    if isinstance(values, np.ndarray):
        shape = values.shape
    if shape is None or len(shape) != 3 or not 1 <= min(shape) <= max(shape) <= _LONGEST_AXIS or not is_place(affine):
        msg = f"expected (planes, rows, columns), none over {_LONGEST_AXIS}, and an affine, got {shape} and {affine!r}"
        raise ValueError(msg)
    with file_written_whole(path) as stream, _compressed(stream, path) as out:
        out.write(_header_of(shape, affine, stored, described))
        written = 0
        for plane in values:
            if plane.shape != shape[1:]:
                msg = f"expected planes of {shape[1:]}, got {plane.shape}"
                raise ValueError(msg)
            out.write(np.ascontiguousarray(plane, dtype=np.dtype(stored).newbyteorder("<")).tobytes())
            written += 1
        if written != shape[0]:
            msg = f"expected {shape[0]} planes, got {written}"
            raise ValueError(msg)


def _header_of(
    shape: tuple[int, ...], affine: NDArray[np.float64], stored: type[np.float32 | np.uint8], described: bytes
) -> bytes:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.spatialimages import HeaderDataError

    header = Nifti1Header(endianness="<")
    header.set_data_dtype(stored)
    header.set_data_shape(shape[::-1])
    header.set_xyzt_units("mm")
    header["descrip"] = described
    place_in_ras = LPS_RAS @ affine
    header.set_sform(place_in_ras, code=_SCANNER)
    try:
        header.set_qform(place_in_ras, code=_SCANNER, strip_shears=False)
    except HeaderDataError:
        # A quaternion cannot hold skew axes, and nibabel leaves one that says they are straight.
        header["qform_code"] = 0
        header.set_zooms(np.linalg.norm(place_in_ras[:3, :3], axis=0))
    content = io.BytesIO()
    header.write_to(content)
    return content.getvalue()


@contextlib.contextmanager
def _compressed(stream: IO[bytes], path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Compress what is written where the name says so, without the time, which would make other bytes each time."""
    if not path.name.lower().endswith(".gz"):
        yield stream
        return
    with gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) as packed:
        yield packed
