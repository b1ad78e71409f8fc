"""JPEG, PNG, TIFF and BMP pictures as radiographs of one plane, grey, 0 (black) to 1 (white).

Whatever a picture was stored in, the same grey decodes to the same float32: 8-bit values are divided by 255 and
16-bit values by 65535, each in one correctly rounded division, so an 8-bit value v and its 16-bit twin 257 v agree to
the last bit.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import stat
import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from osteoscope.errors import ImageError
from osteoscope.imaging.bounds import check_longest_side
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.imaging.signature import START, kind_of
from osteoscope.imaging.volume import Geometry, Planes, Source, Volume
from osteoscope.storage import sha256_of_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

LARGEST_PIXELS = 80_000_000
"""More pixels are refused from the header; the largest stitched long-leg radiographs have about half as many."""

LARGEST_BYTES = 2**30
"""A larger file is refused unread; the largest picture that is allowed has fewer bytes even uncompressed."""

SMALLEST_SIDE = 32
"""A picture with fewer rows or columns shows nothing that could be told apart, and is refused."""

# The openers are called by the file's first bytes rather than through Image.open, which would warn of a large picture
# or raise an error of its own before the size could be judged here.
_OPENERS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"II*\x00", TiffImageFile),
    (b"MM\x00*", TiffImageFile),
    (b"II+\x00", TiffImageFile),
    (b"MM\x00+", TiffImageFile),
    (b"BM", BmpImageFile),
)

# What Pillow's decoders raise on a damaged file, besides OSError; Warning where the caller made warnings errors.
_DECODER_FAULTS = (
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Warning,
)

_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange rows and columns (CIPA DC-008, tag 0x0112)."""

_EXPORT_AGAIN = "export it again as JPEG or PNG, or leave it out"


def read_unchanged(path: Path, sha256: str) -> tuple[Volume, NDArray[np.float32]]:
    """Open a picture, decode it, and make sure that it shows what it showed when a cohort was made with it.

    Parameters
    ----------
    path
        As of `read_picture`.
    sha256
        Hash of its pixels as they were, by `pixel_sha256`.

    Returns
    -------
    The picture, and its pixels ``(rows, columns)`` as `read_picture` gives them.

    Raises
    ------
    ImageError
        If it cannot be read, or shows other pixels.
    """
    volume = read_picture(path)
    pixels: NDArray[np.float32] = volume.read()[0]
    if pixel_sha256(pixels) != sha256:
        raise shows_other_pixels(path)
    return volume, pixels


def shows_other_pixels(path: Path) -> ImageError:
    """Say that an image is not the one that a cohort was made with."""
    return ImageError(
        "shows other pixels than when the cohort was made",
        path=path,
        remedy="put the original back, or make the cohort again",
    )


def read_picture(path: Path) -> Volume:
    """Open a picture; its pixels are decoded when the Volume is read.

    Palette, 1-bit and colour pictures become grey (ITU-R BT.601 luma), transparency is laid on black, an EXIF
    orientation is applied, and a TIFF in which 0 is white is inverted. The scale of a picture is unknown, so its
    geometry has no affine.

    Parameters
    ----------
    path
        A JPEG, PNG, TIFF or BMP file, or a radiograph in DICOM; its bytes say which, not its name.

    Returns
    -------
    A radiograph of one plane, values 0..1; of one in DICOM as `osteoscope.imaging.series.assemble` gives it.

    Raises
    ------
    RefusedImageError
        If the file is missing, empty, unreadable, not such a picture, or holds several frames; if it has more than
        `LARGEST_PIXELS` pixels, which is seen before anything is decoded, more than `LARGEST_BYTES`, or a side below
        `SMALLEST_SIDE`. Pixels that are truncated or damaged are found when the Volume is read.
    """
    if is_dicom(path):
        return _read_dicom(path)
    with _opened(path) as picture:
        rows, columns = _rows_and_columns(picture, path)
        sha256 = sha256_of_file(path)
    return Volume(
        geometry=Geometry(shape=(1, rows, columns), affine=None),
        modality="radiograph",
        sources=(Source(path=path, sha256=sha256),),
        reader=functools.partial(_read_planes, path, sha256),
    )


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM; what cannot be opened is left to the reader of pictures."""
    try:
        # A pipe would block whoever opens it.
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            start = stream.read(START)
    except (OSError, ValueError):
        return False
    return bool(start) and kind_of(start) == "DICOM"


def _read_dicom(path: Path) -> Volume:
    from osteoscope.imaging.series import assemble

    assembly = assemble([path])
    for refusal in assembly.refused:
        raise RefusedImageError(refusal.code, refusal.sentence, path=path, remedy=refusal.remedy)
    series = assembly.series[0]
    if series.aside is not None or series.volume.modality != "radiograph":
        found = "an image that is used only when asked for" if series.aside else series.volume.modality
        reason = f"expected a picture or a radiograph, found {found}"
        raise RefusedImageError(RefusalCode.NOT_AN_IMAGE, reason, path=path, remedy="name a picture")
    if series.volume.geometry.shape[0] != 1:
        reason = f"expected one picture, found {series.volume.geometry.shape[0]} frames"
        raise RefusedImageError(RefusalCode.SEVERAL_FRAMES, reason, path=path, remedy=_EXPORT_AGAIN)
    return series.volume


def pixel_sha256(values: NDArray[np.floating]) -> str:
    """Hash decoded values at full depth, so that equal pixels are found whatever file holds them.

    Parameters
    ----------
    values
        ``(planes, rows, columns)``, or ``(rows, columns)`` for one plane, as read from a Volume.

    Returns
    -------
    SHA-256 over the shape and the float32 values, as 64 hexadecimal digits.

    Raises
    ------
    ValueError
        If the array has another number of axes.
    """
    if values.ndim not in (2, 3):
        msg = f"expected (planes, rows, columns) or (rows, columns), got an array of shape {values.shape}"
        raise ValueError(msg)
    planes, rows, columns = (1, *values.shape)[-3:]
    digest = hashlib.sha256(f"{planes}x{rows}x{columns}\n".encode())
    digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return digest.hexdigest()


def is_blank(values: NDArray[np.floating]) -> bool:
    """Tell whether every pixel has the same value: such an image can be read, but shows nothing."""
    return bool(values.min() == values.max())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageFile]:
    """Open a picture's header; whatever goes wrong, then or in the block, becomes a RefusedImageError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            reason = "expected a picture, found no regular file"
            raise RefusedImageError(RefusalCode.NOT_AN_IMAGE, reason, path=path, remedy="name a picture")
        if status.st_size > LARGEST_BYTES:
            reason = f"expected at most {LARGEST_BYTES} bytes, found {status.st_size}"
            raise RefusedImageError(RefusalCode.TOO_LARGE, reason, path=path, remedy=_EXPORT_AGAIN)
        with path.open("rb") as stream, _opener(stream, path)(stream) as picture:
            yield picture
    except FileNotFoundError as error:
        remedy = "check the name and the folder"
        raise RefusedImageError(RefusalCode.MISSING, "the picture is missing", path=path, remedy=remedy) from error
    except OSError as error:
        if error.errno is not None:
            reason = f"could not be read: {error.strerror}"
            remedy = "make the file readable, or copy it again"
            raise RefusedImageError(RefusalCode.UNREADABLE, reason, path=path, remedy=remedy) from error
        raise _damaged(path, error) from error
    except _DECODER_FAULTS as error:
        raise _damaged(path, error) from error


def _opener(stream: BinaryIO, path: Path) -> type[ImageFile]:
    """Choose the decoder by the file's first bytes."""
    start = stream.read(8)
    stream.seek(0)
    if not start:
        reason = "expected a picture, found an empty file (0 bytes)"
        raise RefusedImageError(RefusalCode.EMPTY, reason, path=path, remedy="copy it again")
    for signature, opener in _OPENERS:
        if start.startswith(signature):
            return opener
    reason = "expected a JPEG, PNG, TIFF or BMP picture, found something else"
    raise RefusedImageError(RefusalCode.NOT_AN_IMAGE, reason, path=path, remedy=_EXPORT_AGAIN)


def _damaged(path: Path, error: BaseException) -> RefusedImageError:
    reason = f"cannot be decoded, for it is truncated, damaged or of an unknown kind: {error or type(error).__name__}"
    remedy = "copy or export it again, or leave it out"
    return RefusedImageError(RefusalCode.DAMAGED, reason, path=path, remedy=remedy)


def _rows_and_columns(picture: ImageFile, path: Path) -> tuple[int, int]:
    """Size of the picture as it is to be looked at, checked against the limits, from its header."""
    columns, rows = picture.size
    found = f"found {columns} x {rows}"
    if columns * rows > LARGEST_PIXELS:
        reason = f"expected at most {LARGEST_PIXELS // 10**6} million pixels, {found}"
        raise RefusedImageError(RefusalCode.TOO_LARGE, reason, path=path, remedy="export it at a lower resolution")
    check_longest_side(rows, columns, path)
    if min(columns, rows) < SMALLEST_SIDE:
        reason = f"expected at least {SMALLEST_SIDE} rows and columns, {found}"
        remedy = "export it at its full resolution, or leave it out"
        raise RefusedImageError(RefusalCode.TOO_SMALL, reason, path=path, remedy=remedy)
    # Not counted: of many that takes a time that grows with the square of them.
    if getattr(picture, "is_animated", False):
        reason = "expected one picture, found a file with several frames"
        remedy = "save the frame that is meant as a picture of its own"
        raise RefusedImageError(RefusalCode.SEVERAL_FRAMES, reason, path=path, remedy=remedy)
    # A TIFF's size is already that of the turned picture.
    turned = not isinstance(picture, TiffImageFile) and picture.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
    return (columns, rows) if turned else (rows, columns)


def _read_planes(path: Path, sha256: str, planes: Sequence[int]) -> Planes:
    """Decode the one plane as often as it is asked for, after checking that the file is still the one opened."""
    try:
        found = sha256_of_file(path)
    except OSError as error:
        reason = f"could not be read any more: {error.strerror}"
        remedy = "leave the images in place until the command ends"
        raise RefusedImageError(RefusalCode.CHANGED, reason, path=path, remedy=remedy) from error
    if found != sha256:
        reason = "the file has changed since it was opened"
        raise RefusedImageError(RefusalCode.CHANGED, reason, path=path, remedy="run the command again")
    with _opened(path) as picture:
        values = _grey(picture, path)
    return values[np.newaxis] if len(planes) == 1 else np.repeat(values[np.newaxis], len(planes), axis=0)


def _grey(picture: ImageFile, path: Path) -> NDArray[np.float32]:
    """Decode to grey ``(rows, columns)``, 0..1."""
    layout = _stored_layout(picture)
    if ";16" in layout and not picture.mode.startswith("I"):
        # Of deep colour and deep transparency the decoder would silently keep 8 bits.
        reason = "expected grey, or colour of 8 bits a channel, found colour or transparency of 16 bits a channel"
        remedy = "export it as a 16-bit grey PNG, which keeps its full depth"
        raise RefusedImageError(RefusalCode.UNSUPPORTED_PIXELS, reason, path=path, remedy=remedy)
    white_is_zero = isinstance(picture, TiffImageFile) and picture.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
    # In place here and below, since a copy of the largest picture would take a third of a gibibyte.
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        values = _deep_values(picture, path, white=4095 if layout == "I;12" else 65535)
        # Pillow inverts the shallower modes itself, but not this one.
        return np.subtract(np.float32(1), values, out=values) if white_is_zero else values
    if picture.mode == "F":
        reason = "expected whole numbers of 8 or 16 bits, found floating point, whose white is unknown"
        remedy = "export it as a 16-bit PNG"
        raise RefusedImageError(RefusalCode.UNSUPPORTED_PIXELS, reason, path=path, remedy=remedy)
    values = np.asarray(_eight_bit_grey(picture)).astype(np.float32)
    values /= np.float32(255)
    return values


def _stored_layout(picture: ImageFile) -> str:
    """Name how the pixels lie in the file, in Pillow's terms (``I;16B``, ``RGB;16B``); known until they are decoded."""
    if not picture.tile:
        return ""
    arguments = picture.tile[0].args
    return str(arguments[0]) if isinstance(arguments, tuple) and arguments else str(arguments)


def _deep_values(picture: Image.Image, path: Path, *, white: int) -> NDArray[np.float32]:
    values = np.asarray(picture)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > white:
        reason = f"expected values from 0 to {white}, found values from {low} to {high}"
        remedy = "export it as a 16-bit PNG"
        raise RefusedImageError(RefusalCode.UNSUPPORTED_PIXELS, reason, path=path, remedy=remedy)
    grey = values.astype(np.float32)
    grey /= np.float32(white)
    clear = picture.info.get("transparency")
    if clear is not None:
        grey[values == clear] = 0
    return grey


def _eight_bit_grey(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        # Pillow goes from most modes to grey by way of RGB only.
        return picture.convert("L") if picture.mode in ("1", "L", "RGB") else picture.convert("RGB").convert("L")
    colour = picture.convert("RGBA")
    return Image.composite(colour.convert("L"), Image.new("L", colour.size), colour.getchannel("A"))
