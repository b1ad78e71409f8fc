"""From the stored values of a DICOM image to modality units: HU, the arbitrary unit of an MR, or grey from 0 to 1."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.imaging.refusal import RefusalCode, RefusedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from osteoscope.imaging.frames import Frame
    from osteoscope.imaging.headers import Elements
    from osteoscope.imaging.pixels import PixelFormat
    from osteoscope.imaging.volume import Modality

_LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue (ITU-R BT.601)."""

_EXACT = 24
"""Whole numbers of so many bits are exact in float32."""

_MODALITY_LUT = 0x00283000
_PALETTE = ((0x00281101, 0x00281201), (0x00281102, 0x00281202), (0x00281103, 0x00281203))


@dataclass(frozen=True, kw_only=True, eq=False)
class Lookup:
    """A lookup table (PS3.3 C.11.1.1).

    Parameters
    ----------
    first
        Stored value that the first entry belongs to; lower ones get it too, and higher ones than the last get the last.
    entries
        Whole numbers.
    white
        Largest value that an entry may have.
    """

    first: int
    entries: NDArray[np.uint16]
    white: int

    def apply(self, stored: NDArray[Any]) -> NDArray[np.uint16]:
        """Look stored values up."""
        found: NDArray[np.uint16] = self.entries[
            np.clip(stored.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        ]
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """How the stored values of a file become modality units.

    Parameters
    ----------
    grey
        Whether they become grey from 0 to 1, as those of everything but CT and MR do.
    low, high
        Range that the stored bits allow.
    lookup
        Modality LUT, which stands for slope and intercept, or None.
    palette
        Of red, green and blue, or None.
    inverse
        Whether the lowest value is to be shown white.
    padding
        Lowest and highest stored value of what is no part of the image, or None.
    """

    grey: bool
    low: int
    high: int
    lookup: Lookup | None
    palette: tuple[Lookup, Lookup, Lookup] | None
    inverse: bool
    padding: tuple[int, int] | None

    def convert(self, stored: NDArray[Any], frame: Frame, plane: NDArray[np.float32]) -> None:
        """Convert a frame.

        Parameters
        ----------
        stored
            Whole numbers ``(rows, columns)``, or RGB ``(rows, columns, 3)``.
        frame
            Whose slope and intercept are applied.
        plane
            float32 ``(rows, columns)`` that is filled.
        """
        if self.grey:
            self._to_grey(stored, frame, plane)
        else:
            self._to_units(stored, frame, plane)
        if self.padding is not None:
            self._settle_padding(stored, plane)

    def _to_units(self, stored: NDArray[Any], frame: Frame, plane: NDArray[np.float32]) -> None:
        if self.lookup is not None:
            plane[...] = self.lookup.apply(stored)
        elif frame.slope == 1 and frame.intercept.is_integer() and self.high < 1 << _EXACT:
            np.add(stored, np.float32(frame.intercept), out=plane, dtype=np.float32)
        else:
            plane[...] = stored * np.float64(frame.slope) + frame.intercept

    def _to_grey(self, stored: NDArray[Any], frame: Frame, plane: NDArray[np.float32]) -> None:
        low, high, inverse = self.low, self.high, self.inverse
        if self.palette is not None:
            stored = np.stack([table.apply(stored) for table in self.palette], axis=-1)
            low, high = 0, self.palette[0].white
        elif self.lookup is not None:
            stored = self.lookup.apply(stored)
            low, high = 0, self.lookup.white
        else:
            # A falling slope turns bright and dark round.
            inverse ^= frame.slope < 0
        values = stored @ np.array(_LUMA) if stored.ndim == 3 else stored
        exact = np.float32 if high < 1 << _EXACT else np.float64
        shifted = values.astype(exact)
        shifted -= low
        np.divide(shifted, exact(high - low), out=plane, casting="same_kind")
        np.clip(plane, 0, 1, out=plane)
        if inverse:
            np.subtract(1, plane, out=plane)

    def _settle_padding(self, stored: NDArray[Any], plane: NDArray[np.float32]) -> None:
        low, high = self.padding or (0, 0)
        padded = (stored >= low) & (stored <= high)
        if not padded.any() or padded.ndim != 2:
            return
        if self.grey:
            plane[padded] = 0
        elif not padded.all():
            image = plane[~padded]
            np.copyto(plane, image.min(), where=padded & (plane > image.mean()))


def units_of(elements: Elements, pixels: PixelFormat, modality: Modality, remarks: list[str]) -> Units:
    """Read how stored values become modality units.

    Parameters
    ----------
    elements
        Of the file.
    pixels
        How the values are stored.
    modality
        Of the image.
    remarks
        What is odd is added to them.

    Raises
    ------
    RefusedImageError
        If a lookup table is damaged, or the pixels are in a colour model that is not read.
    """
    _refuse_other_colours(pixels, elements)
    inverse = pixels.photometric == "MONOCHROME1"
    if modality != "radiograph":
        if inverse:
            remarks.append("the lowest values are to be shown white, which is left to whoever shows them")
        if modality == "CT" and not elements.sequences:
            _check_rescale(elements, remarks)
        _remark_on_type(elements, modality, remarks)
    return Units(
        grey=modality == "radiograph",
        low=-(1 << (pixels.stored - 1)) if pixels.signed else 0,
        high=(1 << (pixels.stored - 1)) - 1 if pixels.signed else (1 << pixels.stored) - 1,
        lookup=_modality_lut(elements, pixels),
        palette=_palette(elements, pixels),
        inverse=inverse,
        padding=_padding(elements, pixels),
    )


def _check_rescale(elements: Elements, remarks: list[str]) -> None:
    """Refuse a CT whose rescale cannot be read, and tell if it is not stated: each is of Type 1 (PS3.3 C.8.2.1).

    Raises
    ------
    RefusedImageError
        If slope or intercept stand there and are no number: all values would be off by the intercept.
    """
    missing = []
    for tag, name in ((0x00281053, "slope"), (0x00281052, "intercept")):
        if not elements.shown(tag) and not elements.word(tag):
            missing.append(f"rescale {name}")
        elif elements.number(tag) is None:
            found = f"expected a number as rescale {name}, found something else"
            raise RefusedImageError(RefusalCode.DAMAGED, found, remedy="export the series again")
    if len(missing) == 2:
        remarks.append("neither a rescale slope nor a modality LUT is stated, and the values are taken as stored")
    elif missing:
        remarks.append(f"no {missing[0]} is stated, and the values are taken as if there were none")


def _remark_on_type(elements: Elements, modality: Modality, remarks: list[str]) -> None:
    """Tell where a CT's values are none of attenuation, as those of dual energy are (PS3.3 C.11.1.1.2)."""
    stated = elements.word(0x00281054)
    if modality == "CT" and stated not in ("", "HU", "US"):
        known = stated if re.fullmatch("[A-Z_0-9]{1,16}", stated) else "another"
        remarks.append(f"the type of its values is stated as {known}, and they are taken for Hounsfield units")


_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def _refuse_other_colours(pixels: PixelFormat, elements: Elements) -> None:
    known = _COLOURS if pixels.samples == 3 else ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    segmented = pixels.photometric == "PALETTE COLOR" and not all(data in elements for _, data in _PALETTE)
    if pixels.photometric not in known or segmented:
        found = f"expected grey, RGB, YBR or a palette, found {pixels.samples} samples of another colour model"
        raise RefusedImageError(RefusalCode.UNSUPPORTED_PIXELS, found, remedy="export it in grey, or leave it out")


def _modality_lut(elements: Elements, pixels: PixelFormat) -> Lookup | None:
    item = elements.item(_MODALITY_LUT)
    return None if item is None else _lookup(item, 0x00283002, 0x00283006, pixels)


def _palette(elements: Elements, pixels: PixelFormat) -> tuple[Lookup, Lookup, Lookup] | None:
    if pixels.photometric != "PALETTE COLOR":
        return None
    red, green, blue = (_lookup(elements, descriptor, data, pixels) for descriptor, data in _PALETTE)
    return red, green, blue


def _lookup(elements: Elements, descriptor: int, data: int, pixels: PixelFormat) -> Lookup:
    """Read a lookup table: entries, first stored value, and bits of an entry (PS3.3 C.11.1.1.1, C.7.6.3.1.5)."""
    described = elements.numbers(descriptor)
    content = elements.values.get(data, (b"", b""))[1]
    if len(described) == 3:
        count, first, bits = (int(number) for number in described)
        # 65,536 does not fit, and the first value is signed where the pixels are.
        count = count % 65536 or 65536
        first = first - 65536 if pixels.signed and first > 32767 else first
        if len(content) >= 2 * count:
            entries = np.frombuffer(content, dtype=np.dtype(f"{elements.order}u2"), count=count)
        elif len(content) >= count and bits <= 8:
            entries = np.frombuffer(content, dtype=np.uint8, count=count)
        else:
            count = 0
        if count and 1 <= bits <= 16:
            return Lookup(first=first, entries=entries.astype(np.uint16), white=(1 << bits) - 1)
    found = "expected a lookup table as long as it states, found another"
    raise RefusedImageError(RefusalCode.DAMAGED, found, remedy="copy or export it again, or leave it out")


def _padding(elements: Elements, pixels: PixelFormat) -> tuple[int, int] | None:
    """Read the range of stored values that pad the image (PS3.3 C.7.5.1.1.2)."""
    value = elements.number(0x00280120, signed=pixels.signed)
    if value is None or pixels.samples != 1:
        return None
    limit = elements.number(0x00280121, signed=pixels.signed)
    low, high = sorted((int(value), int(limit if limit is not None else value)))
    return low, high
