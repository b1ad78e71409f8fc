"""One DICOM file: what its header says of its pixels and their place, and its pixels in modality units."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydicom.config import IGNORE
from pydicom.uid import UID

from osteoscope.imaging.bounds import check_longest_side
from osteoscope.imaging.derivation import Derivation, derivation_of, is_original
from osteoscope.imaging.frames import Frame, frames_of
from osteoscope.imaging.headers import (
    DOUBLE_PIXEL_DATA,
    FLOAT_PIXEL_DATA,
    PERSON,
    Elements,
    PixelElement,
    Scan,
    scan,
)
from osteoscope.imaging.opened import KnownFile, Stamp, opened, stamp_of
from osteoscope.imaging.person import Person, person_of
from osteoscope.imaging.pixels import JPEG_EXTENDED, LARGEST_FRAME, READ, PixelFormat, stored_frames
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.imaging.synthetic import is_phantom
from osteoscope.imaging.units import Units, units_of
from osteoscope.imaging.volume import PixelSpacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from osteoscope.imaging.volume import Modality, Planes, SpacingKind

__all__ = ["Frame", "Header", "decode", "header_of", "read_header", "transfer_syntax_name"]

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_BY_CLASS: dict[Modality, tuple[str, ...]] = {
    "CT": tuple(_STORAGE + uid for uid in ("2", "2.1", "2.2")),
    "MR": tuple(_STORAGE + uid for uid in ("4", "4.1", "4.4")),
    "radiograph": tuple(_STORAGE + uid for uid in ("1", "1.1", "1.1.1")),
}
_BY_MODALITY: dict[str, Modality] = {"CT": "CT", "MR": "MR", "CR": "radiograph", "DX": "radiograph"}
_FOR_PROCESSING = _STORAGE + "1.1.1"
_CAPTURE = tuple(_STORAGE + uid for uid in ("7", "7.1", "7.2", "7.3", "7.4"))

MOST_FRAMES = 20_000
"""More are refused; the largest enhanced objects have a few thousand."""

_ALLOCATED = (1, 8, 16, 32)

_EXPORT = "export it again, or leave it out"


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file's header says, without anything that identifies the patient.

    Parameters
    ----------
    path
        The file.
    stamp
        As it was when the header was read.
    transfer_syntax
        UID of how it is encoded (PS3.5 A); of a file that does not say, the one that its bytes fit.
    study, series, frame_of_reference
        UIDs; empty where the file has none.
    kin
        Where there is no Series Instance UID, a digest of patient, study and series number; else empty.
    modality
        What decides the unit of the values; ``radiograph`` (0..1) for everything that is neither CT nor MR.
    dicom_modality
        Modality (0008,0060) as the file has it, such as ``CR``; empty where it has none that is a code.
    aside
        Why the image is used only when asked for, or None.
    rows, columns
        Of every frame.
    frames
        One or more.
    spacing, aspect
        As in `osteoscope.imaging.volume.Geometry`, for all frames; None and 1 where frames differ.
    pixels
        How the pixels are stored.
    units
        How stored values become modality units.
    person
        Whom it says that it shows.
    phantom
        Whether it says that it was made from the phantom (`osteoscope.imaging.synthetic`).
    derivation
        What it was made from other images for (`osteoscope.imaging.derivation`); empty of a radiograph.
    original
        Whether its image type does not say that it was made from other images.
    remarks
        What was odd about the header and how it was taken, as sentences without a full stop.
    """

    path: Path
    stamp: Stamp
    transfer_syntax: str
    study: str
    series: str
    kin: str
    frame_of_reference: str
    modality: Modality
    dicom_modality: str
    aside: RefusalCode | None
    rows: int
    columns: int
    frames: tuple[Frame, ...]
    spacing: PixelSpacing | None
    aspect: float
    pixels: PixelFormat
    units: Units
    person: Person
    phantom: bool = False
    derivation: Derivation = ""
    original: bool = True
    remarks: tuple[str, ...] = ()

    @property
    def is_film(self) -> bool:
        """Whether it is a radiograph, which projects the patient and has no place in one, whatever its header says."""
        return _is_film(self.modality, self.aside)


def _is_film(modality: Modality, aside: RefusalCode | None) -> bool:
    return modality == "radiograph" and aside not in _NO_FILM


_NO_FILM = (RefusalCode.SECONDARY_CAPTURE, RefusalCode.COLOUR, RefusalCode.OTHER_MODALITY)


def transfer_syntax_name(uid: str) -> str:
    """Name a transfer syntax as PS3.6 A does; one that is private or unknown keeps its UID, if it is one."""
    return UID(uid, validation_mode=IGNORE).name if re.fullmatch(r"[0-9.]{1,64}", uid) else "no transfer syntax"


def read_header(path: Path) -> Header:
    """Read a file's header; none of its pixels are decoded.

    Raises
    ------
    osteoscope.imaging.refusal.RefusedImageError
        If there is no such file, it cannot be read, is no DICOM file, is damaged, holds no image, or holds one that
        cannot be decoded here, as far as the header tells.
    """
    with opened(path) as stream:
        stamp = stamp_of(stream)
        return header_of(path, stamp, scan(stream))


def header_of(path: Path, stamp: Stamp, found: Scan) -> Header:
    """Read a header from what was found in a file, as `read_header` does.

    Parameters
    ----------
    path, stamp
        The file, and its stamp as it was scanned.
    found
        What the scan gave.

    Raises
    ------
    osteoscope.imaging.refusal.RefusedImageError
        As `read_header` does; a path is not among what it says.
    """
    if found.pixels is None:
        raise _no_pixels(found.elements)
    return _header(path, stamp, found.transfer_syntax, found.elements, found.pixels)


def decode(header: Header, frames: Sequence[int] | None = None) -> Planes:
    """Decode frames into modality units.

    CT gives HU, MR its own arbitrary unit, each through the modality LUT or the rescale slope and intercept of the very
    frame (PS3.3 C.11.1). Everything else gives grey from 0 (black) to 1 (white) over the range that the stored bits
    allow, inverted where the lowest value is to be shown white (MONOCHROME1), and of colour its luma (ITU-R BT.601).
    Padding (PS3.3 C.7.5.1.1.2) never stands out: in a CT or MR plane, padding that is brighter than the image's mean
    becomes the image's lowest value, and darker padding stays as it is stored; in everything else it becomes 0.

    Parameters
    ----------
    header
        As read from the file.
    frames
        Indices from 0, in the order wanted; all where left out.

    Returns
    -------
    float32 ``(n, rows, columns)``.

    Raises
    ------
    IndexError
        If an index is negative or beyond the last frame.
    osteoscope.imaging.refusal.RefusedImageError
        If the file is no longer the one whose header was read, or the pixels are truncated, damaged or do not fit the
        header.
    """
    wanted = range(len(header.frames)) if frames is None else frames
    for index in wanted:
        if not 0 <= index < len(header.frames):
            msg = f"expected frames from 0 to {len(header.frames) - 1}, got {index}"
            raise IndexError(msg)
    planes = np.empty((len(wanted), header.rows, header.columns), dtype=np.float32)
    decode_into(list(planes), header, wanted, KnownFile(header.path, header.stamp))
    return planes


def decode_into(planes: Sequence[Planes], header: Header, frames: Sequence[int], file: KnownFile) -> None:
    """Decode frames, as `decode` does, into planes that are there already.

    Parameters
    ----------
    planes
        A float32 ``(rows, columns)`` for each of the frames.
    header
        As read from the file.
    frames
        Indices from 0.
    file
        The file, with what is known of its content.

    Raises
    ------
    osteoscope.imaging.refusal.RefusedImageError
        As `decode` does.
    """
    with file.opened() as stream:
        for plane, index, stored in zip(planes, frames, stored_frames(stream, header.pixels, frames), strict=True):
            header.units.convert(stored, header.frames[index], plane)


def _header(path: Path, stamp: Stamp, transfer_syntax: str, elements: Elements, element: PixelElement) -> Header:
    remarks: list[str] = []
    pixels = _pixel_format(transfer_syntax, elements, element, remarks)
    _refuse_undecodable(pixels)
    modality, aside = _kind(elements, pixels)
    frames = frames_of(elements, pixels.frames, placed=modality != "radiograph")
    unplaced = modality == "radiograph" and (_is_film(modality, aside) or frames[0].orientation is None)
    spacing, aspect = _spacing(elements, frames, remarks, projected=unplaced)
    if modality == "radiograph":
        check_longest_side(pixels.rows * aspect, pixels.columns, path)
    _remark_on_place(frames, elements, remarks)
    return Header(
        path=path,
        stamp=stamp,
        transfer_syntax=transfer_syntax,
        study=elements.word(0x0020000D),
        series=elements.word(0x0020000E),
        kin="" if elements.word(0x0020000E) else _kin(elements),
        frame_of_reference=elements.word(0x00200052),
        modality=modality,
        dicom_modality=_code(elements),
        aside=aside,
        rows=pixels.rows,
        columns=pixels.columns,
        frames=frames,
        spacing=spacing,
        aspect=aspect,
        pixels=pixels,
        units=units_of(elements, pixels, modality, remarks),
        person=person_of(elements),
        phantom=is_phantom(
            {"Manufacturer": elements.word(0x00080070), "ManufacturerModelName": elements.word(0x00081090)}
        ),
        derivation=_derivation(elements) if modality != "radiograph" else "",
        original=is_original(elements.shown(0x00080008)),
        remarks=tuple(remarks),
    )


def _derivation(elements: Elements) -> Derivation:
    """Go by image type, series description and protocol."""
    described = f"{elements.shown(0x0008103E)} {elements.shown(0x00181030)}"
    return derivation_of(elements.shown(0x00080008), described)


def _kin(elements: Elements) -> str:
    """Digest what files of one series share, so that nobody can be read from it."""
    shared = (*PERSON, 0x0020000D, 0x00200011)
    return hashlib.sha256(b"\\".join(elements.values.get(tag, (b"", b""))[1] for tag in shared)).hexdigest()


def _code(elements: Elements) -> str:
    """Give the modality if it is a code (PS3.5 6.2, CS); what else a file may hold there is not shown."""
    modality = elements.word(0x00080060)
    return modality if re.fullmatch(r"[A-Z0-9_ ]{1,16}", modality) else ""


def _no_pixels(elements: Elements) -> RefusedImageError:
    modality = _code(elements)
    of = f" of modality {modality}" if modality else ""
    rows = elements.integer(0x00280010)
    found = "the header of an image without its pixels" if rows else f"an object{of} without pixels"
    remedy = "copy or export it again with its pixels" if rows else "leave it out"
    return RefusedImageError(RefusalCode.NO_PIXELS, f"expected an image, found {found}", remedy=remedy)


def _pixel_format(transfer_syntax: str, elements: Elements, element: PixelElement, remarks: list[str]) -> PixelFormat:
    """Read the image pixel module (PS3.3 C.7.6.3); what is missing and follows from the rest is taken from there."""
    rows, columns = elements.integer(0x00280010), elements.integer(0x00280011)
    allocated = elements.integer(0x00280100)
    if not rows or not columns or not allocated or min(rows, columns, allocated) < 1:
        found = "expected rows, columns and bits of the pixels in the header, found at most two of them"
        raise RefusedImageError(RefusalCode.INCONSISTENT_PIXELS, found, remedy=_EXPORT)
    samples = elements.integer(0x00280002) or 1
    photometric = elements.word(0x00280004)
    if not photometric:
        photometric = "MONOCHROME2" if samples == 1 else "RGB"
        remarks.append(f"the photometric interpretation is not stated and taken as {photometric}")
    stored = elements.integer(0x00280101) or allocated
    high = elements.integer(0x00280102)
    if high is None or not stored - 1 <= high < allocated:
        high = stored - 1
    frames = max(elements.integer(0x00280008) or 1, 1)
    if frames > MOST_FRAMES:
        found = f"expected at most {MOST_FRAMES} frames, found {frames}"
        raise RefusedImageError(RefusalCode.TOO_LARGE, found, remedy=_EXPORT)
    offsets = tuple(int(offset) for offset in elements.numbers(0x7FE00001))
    return PixelFormat(
        transfer_syntax=transfer_syntax,
        element=element,
        frames=frames,
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=photometric,
        planar=elements.integer(0x00280006) == 1,
        allocated=allocated,
        stored=stored,
        high=high,
        signed=elements.integer(0x00280103) == 1,
        offsets=offsets or None,
    )


def _refuse_undecodable(pixels: PixelFormat) -> None:
    """Refuse, before anything is decoded, what could not be decoded or would not fit in memory."""
    name = transfer_syntax_name(pixels.transfer_syntax)
    if pixels.transfer_syntax not in READ or (pixels.transfer_syntax == JPEG_EXTENDED and pixels.stored > 8):
        bits = f" of {pixels.stored} bits" if pixels.transfer_syntax == JPEG_EXTENDED else ""
        found = f"expected pixels that can be decoded here, found {name}{bits}"
        raise RefusedImageError(RefusalCode.UNSUPPORTED_COMPRESSION, found, remedy="export it without compression")
    floating = pixels.element.tag in (FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA)
    if floating or pixels.allocated not in _ALLOCATED or pixels.samples not in (1, 3):
        kind = "floating point" if floating else f"{pixels.allocated} bits"
        found = f"expected pixels of 1 or 3 samples of 1, 8, 16 or 32 bits, found {pixels.samples} of {kind}"
        raise RefusedImageError(RefusalCode.UNSUPPORTED_PIXELS, found, remedy=_EXPORT)
    if pixels.stored > pixels.allocated:
        raise _unfit(f"expected at most the {pixels.allocated} bits allocated, found {pixels.stored} bits stored")
    if pixels.frame_bytes > LARGEST_FRAME:
        sizes = f"{pixels.rows} x {pixels.columns} pixels of {pixels.samples} x {pixels.allocated} bits"
        found = f"expected at most {LARGEST_FRAME // 10**6} MB a frame, found {sizes}"
        raise RefusedImageError(RefusalCode.TOO_LARGE, found, remedy="export it at a lower resolution, or leave it out")
    _refuse_other_length(pixels)


def _refuse_other_length(pixels: PixelFormat) -> None:
    """Refuse pixels whose length is not that which rows, columns, samples, bits and frames make."""
    stated, there, expected = pixels.element.length, pixels.element.there, pixels.bytes
    if not pixels.native:
        if stated is not None:
            raise _unfit("expected compressed pixels in fragments, found pixels that are not encapsulated")
        if pixels.frames * 8 > there:
            raise _truncated(f"expected {pixels.frames} compressed frames, found {there} bytes")
        return
    if stated is None:
        raise _unfit("expected pixels that are not compressed, found fragments")
    if there < min(expected, stated):
        raise _truncated(f"expected {expected} bytes of pixels, found {there}")
    # A line more is as a rule padding to some block; rows or columns that are stated wrongly make a greater difference.
    line = max(expected // (pixels.frames * pixels.rows), 1)
    if not expected <= stated <= expected + line:
        sizes = f"{pixels.frames} x {pixels.rows} x {pixels.columns} x {pixels.samples}"
        raise _unfit(f"expected {expected} bytes for {sizes} samples of {pixels.allocated} bits, found {stated}")


def _unfit(found: str) -> RefusedImageError:
    return RefusedImageError(RefusalCode.INCONSISTENT_PIXELS, found, remedy=_EXPORT)


def _truncated(found: str) -> RefusedImageError:
    return RefusedImageError(RefusalCode.TRUNCATED_PIXELS, found, remedy="copy or export it again")


def _kind(elements: Elements, pixels: PixelFormat) -> tuple[Modality, RefusalCode | None]:
    """Tell what an image is, and why it is set aside, if it is."""
    if elements.word(0x00080016) in _CAPTURE:
        return "radiograph", RefusalCode.SECONDARY_CAPTURE
    if pixels.samples != 1 or pixels.photometric == "PALETTE COLOR":
        return "radiograph", RefusalCode.COLOUR
    modality = _modality(elements)
    if modality is None:
        return "radiograph", RefusalCode.OTHER_MODALITY
    intent = elements.word(0x00080068)
    if modality == "radiograph" and (elements.word(0x00080016) == _FOR_PROCESSING or intent == "FOR PROCESSING"):
        return modality, RefusalCode.FOR_PROCESSING
    kinds = elements.words(0x00080008)
    return modality, next((code for word, code in _SET_ASIDE.items() if word in kinds), None)


_SET_ASIDE = {"LOCALIZER": RefusalCode.LOCALISER, "MOSAIC": RefusalCode.MOSAIC}
"""Values of the image type (PS3.3 C.8.2.1.1.1, and Siemens' own) of what is set aside."""


def _modality(elements: Elements) -> Modality | None:
    """Go by the SOP class, and by the modality where that is missing or private."""
    sop_class, stated = elements.word(0x00080016), elements.word(0x00080060)
    if not sop_class.startswith(_STORAGE):
        return _BY_MODALITY.get(stated)
    return next((modality for modality, classes in _BY_CLASS.items() if sop_class in classes), None)


def _spacing(
    elements: Elements, frames: tuple[Frame, ...], remarks: list[str], *, projected: bool
) -> tuple[PixelSpacing | None, float]:
    """Find the distance between pixels and where it holds (PS3.3 10.7.1.3), and the aspect of a pixel."""
    stated = {frame.spacing for frame in frames}
    spacing = frames[0].spacing if len(stated) == 1 else None
    if not projected:
        kind: SpacingKind = "patient"
    else:
        spacing, kind = _projected(elements, spacing, remarks)
    if spacing is not None:
        return PixelSpacing(row=spacing[0], column=spacing[1], kind=kind), spacing[0] / spacing[1]
    ratio = elements.numbers(0x00280034)
    return None, ratio[0] / ratio[1] if len(ratio) == 2 and min(ratio) > 0 else 1.0


def _projected(
    elements: Elements, spacing: tuple[float, float] | None, remarks: list[str]
) -> tuple[tuple[float, float] | None, SpacingKind]:
    """Tell the spacing of a projection: calibrated, at the detector, or on a scanned film."""
    detector, film = elements.numbers(0x00181164), elements.numbers(0x00182010)
    imager = (detector[0], detector[1]) if len(detector) == 2 and min(detector) > 0 else None
    if spacing is None and imager is None and len(film) == 2 and min(film) > 0:
        return (film[0], film[1]), "scanned"
    if spacing is None:
        return imager, "detector"
    if elements.word(0x00280A02) or (imager is not None and not np.allclose(spacing, imager, rtol=1e-3)):
        return spacing, "calibrated"
    if imager is None:
        remarks.append("the pixel spacing is taken as that at the detector, since no calibration is stated")
    return spacing, "detector"


def _remark_on_place(frames: tuple[Frame, ...], elements: Elements, remarks: list[str]) -> None:
    if 0x00200037 in elements and frames[0].orientation is None and len(frames) == 1:
        remarks.append("the orientation is no two unit vectors at right angles, and taken as unknown")
