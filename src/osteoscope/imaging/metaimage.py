"""MetaImage (``.mha``) and NRRD (``.nrrd``) files as Volumes.

Both are a header in text and then the values, raw or compressed. They are read here rather than by ITK, which makes up
a place where the header states none, and does not notice where compressed values of a MetaImage are damaged.

References
----------
MetaIO documentation: https://docs.itk.org/en/latest/learn/metaio.html
Definition of the NRRD file format: https://teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from osteoscope.imaging.opened import opened, sha256_of_stream, stamp_of
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.imaging.scan import ArrayHeader, Scan, is_place, scan_of
from osteoscope.imaging.stored_array import StoredArray

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.orientation import Axes
    from osteoscope.imaging.volume import Modality, Volume

Compression = Literal["none", "gzip", "zlib"]

_LONGEST_HEADER = 2**18
"""Bytes; further ones are not looked at for the end of the header."""

_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}

_META_MODALITY = "MET_MOD_"
"""What stands before the code of a modality."""

_NRRD_TYPES = {
    "i1": "signed char|int8|int8_t",
    "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t",
    "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": "float",
    "f8": "double",
}

_NRRD_ENCODINGS: dict[str, Compression] = {"raw": "none", "gzip": "gzip", "gz": "gzip"}

_META_PLAIN = {
    "BinaryData": "[Tt1].*",
    "ElementNumberOfChannels": "1",
    "ElementToIntensityFunctionSlope": r"1(\.0*)?",
    "ElementToIntensityFunctionOffset": r"0(\.0*)?",
    "HeaderSize": "0|-1",
}
"""What fields must say, where they are there, for values to be what they are taken for."""

_NRRD_PLAIN = {
    "kinds": r"((domain|space|\?\?\?|stub|scalar)\s*)+",
    "line skip": "0",
    "lineskip": "0",
    "byte skip": "0",
    "byteskip": "0",
}

_NRRD_SPACES = {
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "lps": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
}
"""Signs that carry its three coordinates to LPS."""

_MM = {"mm": 1.0, "um": 0.001, "cm": 10.0, "m": 1000.0}

_NO_PLACE = "its header gives no place in the patient, so which side is left is unknown"

_AGAIN = "copy or convert it again, or leave it out"


def read_metaimage(path: Path, *, modality: Modality | None = None) -> Volume:
    """Open a MetaImage or NRRD file, as `open_metaimage`, without what is told of it."""
    return open_metaimage(path, modality=modality).volume


def open_metaimage(path: Path, *, modality: Modality | None = None, unless_stated: Modality | None = None) -> Scan:
    """Open a MetaImage or NRRD file of one volume; its values are taken from it when the Volume is read.

    Planes, place and modality are found as by `osteoscope.imaging.nifti.open_nifti`, without a sidecar; a MetaImage may
    state its modality.

    Parameters
    ----------
    path
        A file with header and values, by its bytes, not by its name.
    modality, unless_stated
        As in `osteoscope.imaging.nifti.open_nifti`.

    Raises
    ------
    RefusedImageError
        If the file is missing, empty, unreadable, damaged or no such file; if it holds colour or more than one volume,
        or its values lie in another file; if they are stored as text or compressed by anything but gzip or zlib, or
        would take more than the limits of `osteoscope.imaging.stored_array`. That a compressed file is damaged, ends
        early, or holds more than its header says, is found when the Volume is read.
    """
    with opened(path) as stream:
        stamp, sha256 = stamp_of(stream), sha256_of_stream(stream)
        stream.seek(0)
        start = stream.read(_LONGEST_HEADER)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            header = _of_nrrd(start) if start.startswith(b"NRRD") else _of_metaimage(start)
        header.array.check(stamp.size, path)
    except RefusedImageError as refusal:
        refusal.path = path
        raise
    return scan_of(header, path, stamp, sha256, modality=modality, unless_stated=unless_stated)


def _of_metaimage(start: bytes) -> ArrayHeader:
    data_file = re.search(rb"^ElementDataFile[ \t]*=([^\r\n]*)\r?\n", start, re.MULTILINE)
    if data_file is None:
        raise _refusal(RefusalCode.NOT_AN_IMAGE, "expected the header of a MetaImage, found something else")
    if data_file[1].strip() != b"LOCAL":
        raise _refusal(RefusalCode.DETACHED_PIXELS, "expected values behind the header, found them in another file")
    lines = (line.partition("=") for line in start[: data_file.start()].decode("latin-1").splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    _refuse_unless(fields, _META_PLAIN)
    big = any(_is_true(fields.get(name, "")) for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    array = StoredArray(
        sizes=_sizes(fields.get("DimSize", "")),
        dtype=_dtype(_META_TYPES.get(fields.get("ElementType", "")), "big" if big else "little"),
        compression="zlib" if _is_true(fields.get("CompressedData", "")) else "none",
        start=data_file.end(),
    )
    unit = _MM.get(fields.get("DistanceUnits", "mm"), 1.0)
    steps = _numbers(fields, 3, "ElementSpacing", "ElementSize")
    directions = _numbers(fields, 9, "TransformMatrix", "Rotation", "Orientation")
    origin = _numbers(fields, 3, "Offset", "Position", "Origin")
    stated = fields.get("Modality", "").removeprefix(_META_MODALITY)
    modality = None if stated in ("", "UNKNOWN") else stated
    if steps is None or directions is None or origin is None:
        believable = steps is not None and bool((steps > 0).all())
        pixel = (float(steps[0]) * unit, float(steps[1]) * unit) if believable and steps is not None else None
        return ArrayHeader(array=array, affine=None, pixel=pixel, modality=modality, told=(_NO_PLACE,))
    # A row of the matrix is the direction of an axis.
    return _placed(array, directions.reshape(3, 3).T * steps * unit, origin * unit, modality)


def _is_true(text: str) -> bool:
    """Read a boolean as ITK does, by its first letter."""
    return text[:1] in ("T", "t", "1")


def _of_nrrd(start: bytes) -> ArrayHeader:
    end = re.search(rb"\r?\n\r?\n", start)
    if end is None:
        raise _refusal(RefusalCode.DAMAGED, "expected a header that ends in an empty line, found none")
    lines = start[: end.start()].decode("latin-1").splitlines()[1:]
    pairs = (line.partition(":") for line in lines if not line.startswith("#") and ":=" not in line)
    fields = {name.strip().lower(): value.strip().lower() for name, _, value in pairs}
    if "data file" in fields or "datafile" in fields:
        raise _refusal(RefusalCode.DETACHED_PIXELS, "expected values behind the header, found them in another file")
    _refuse_unless(fields, _NRRD_PLAIN)
    encoding = fields.get("encoding", "")
    if encoding not in _NRRD_ENCODINGS:
        reason = f"expected values that are raw or compressed by gzip, found them encoded as {encoding[:40]!r}"
        raise _refusal(RefusalCode.UNSUPPORTED_COMPRESSION, reason)
    kind = next((kind for kind, names in _NRRD_TYPES.items() if fields.get("type") in names.split("|")), None)
    array = StoredArray(
        sizes=_sizes(fields.get("sizes", "")),
        dtype=_dtype(kind, fields.get("endian", "")),
        compression=_NRRD_ENCODINGS[encoding],
        start=end.end(),
    )
    signs = _NRRD_SPACES.get(fields.get("space", ""))
    vectors = _vectors(fields.get("space directions", ""), 3)
    origin = _vectors(fields.get("space origin", ""), 1)
    if signs is None or vectors is None or origin is None:
        return ArrayHeader(array=array, affine=None, told=(_NO_PLACE,))
    units = [_MM.get(unit, 1.0) for unit in re.findall(r'"([^"]*)"', fields.get("space units", ""))]
    to_lps = np.array(signs) * (units if len(units) == 3 else 1.0)
    return _placed(array, (vectors * to_lps).T, origin[0] * to_lps, None)


def _placed(
    array: StoredArray, vectors: NDArray[np.float64], origin: NDArray[np.float64], modality: str | None
) -> ArrayHeader:
    """Make the affine of the steps along the axes, its columns, and the place of the first value, in LPS mm."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = vectors, origin
    if is_place(affine):
        return ArrayHeader(array=array, affine=affine, modality=modality)
    told = ("its place is none, for it is not a matrix that can be inverted", _NO_PLACE)
    return ArrayHeader(array=array, affine=None, modality=modality, told=told)


def _sizes(stated: str) -> Axes:
    if not re.fullmatch(r"\d{1,9}(\s+\d{1,9}){1,6}", stated):
        raise _refusal(RefusalCode.DAMAGED, f"expected the sizes of 3 axes, found {stated[:80]!r}")
    sizes = [*(int(size) for size in stated.split()), 1]
    if min(sizes) < 1:
        raise _refusal(RefusalCode.DAMAGED, f"expected axes of positive length, found {stated}")
    if max(sizes[3:], default=1) > 1:
        raise _refusal(RefusalCode.SEVERAL_VOLUMES, f"expected one volume, found {' x '.join(stated.split())} values")
    return sizes[0], sizes[1], sizes[2]


def _dtype(kind: str | None, endian: str) -> np.dtype[Any]:
    if kind is None:
        raise _refusal(RefusalCode.UNSUPPORTED_PIXELS, "expected whole numbers, float or double, found another type")
    if endian not in ("little", "big") and kind not in ("i1", "u1"):
        raise _refusal(RefusalCode.DAMAGED, "expected the order of the bytes to be stated, found it left out")
    return np.dtype(kind).newbyteorder(">" if endian == "big" else "<")


def _refuse_unless(fields: Mapping[str, str], plain: Mapping[str, str]) -> None:
    """Refuse fields by which values would be something else than grey values in the order of the axes."""
    for name, expected in plain.items():
        value = fields.get(name)
        if value is not None and not re.fullmatch(expected, value):
            raise _refusal(RefusalCode.UNSUPPORTED_PIXELS, f"expected plain grey values, found {name} {value[:80]!r}")


def _numbers(fields: Mapping[str, str], count: int, *names: str) -> NDArray[np.float64] | None:
    """Take the numbers of the first of some fields that is there, if they are as many as they should be."""
    stated = next((fields[name] for name in names if name in fields), "")
    try:
        numbers = np.array([float(number) for number in stated.split()])
    except ValueError:
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _vectors(stated: str, count: int) -> NDArray[np.float64] | None:
    """Take vectors written as ``(0.5,0,0) (0,0.5,0) (0,0,3)``; ``none``, too, leaves the place unknown."""
    vectors = re.findall(r"\(([^()]*)\)", stated)
    found = [_numbers({"": vector.replace(",", " ")}, 3, "") for vector in vectors]
    whole = [vector for vector in found if vector is not None]
    return np.array(whole) if len(whole) == len(found) == count else None


def _refusal(code: RefusalCode, reason: str) -> RefusedImageError:
    return RefusedImageError(code, reason, remedy=_AGAIN)
