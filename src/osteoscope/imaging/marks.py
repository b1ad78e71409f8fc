"""What DICOM objects that mark regions have in common: the scan that they say they are of, and how regions are named.

Such an object is a segmentation (PS3.3 A.51), with segments, or a structure set (PS3.3 A.19.3), with regions of
interest. Both may hold far more than a lesion.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osteoscope.errors import InputError
from osteoscope.imaging.headers import scan
from osteoscope.imaging.on_grid import OF_THIS_VOLUME
from osteoscope.imaging.opened import opened
from osteoscope.imaging.refusal import RefusedImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pydicom.dataset import Dataset

    from osteoscope.imaging.volume import Volume

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of a segmentation and of a label map (PS3.4 B.5)."""

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
"""SOP class of an RT structure set (PS3.4 B.5)."""

LESION = re.compile(
    r"gtv|l(?:e|ä|ae)sion|tumou?r|neoplasm|sarcoma|giant.?cell|metastas|(?<![a-z])(?:mass|gct)(?![a-z])", re.IGNORECASE
)
"""Words by which a region is taken for that of a lesion; GTV is the gross tumour volume of radiotherapy (PS3.3 C.8.8.8,
RT ROI Interpreted Type)."""

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")

_HEALTHY_KINDS = ("EXTERNAL", "ORGAN", "AVOIDANCE")
"""The body's outline and what radiotherapy spares (PS3.3 C.8.8.8.1)."""

_HEALTHY_CATEGORIES = ("91723000", "123037004", "T-D000A", "91772007")
"""SNOMED CT's anatomical structure, body structure (and as SNOMED RT has it) and organ (PS3.16 CID 7150)."""

_MOST_NAMED = 8

_NAME_THEM = "make a mask of those that are meant with: osteoscope cohort outline --roi-name"


@dataclass(frozen=True, kw_only=True)
class NamedRegion:
    """A segment of a segmentation or a region of interest of a structure set.

    Parameters
    ----------
    number
        By which the object refers to it.
    name
        As people see it; empty where it has none.
    kind
        What its code says that it is, such as ``GTV`` or ``Neoplasm``; or empty.
    empty
        Whether it is a region of interest without a closed contour.
    healthy
        Whether its code says that it is the body, an organ or another part of it.
    """

    number: int
    name: str
    kind: str = ""
    empty: bool = False
    healthy: bool = False

    @property
    def speaks_of_lesion(self) -> bool:
        """Whether its name or code does (`LESION`)."""
        return bool(LESION.search(self.name) or LESION.search(self.kind))


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What a DICOM object says that it marks.

    Parameters
    ----------
    sop_class
        UID of what kind of object it is; empty where it does not say.
    frames_of_reference, series
        UIDs of the frames of reference and of the series that it says it was drawn in; none where it does not say.
    regions
        In the order of the object; none of an object that is neither segmentation nor structure set.
    """

    sop_class: str
    frames_of_reference: tuple[str, ...]
    series: tuple[str, ...]
    regions: tuple[NamedRegion, ...]


def read_marks(path: Path) -> Marks:
    """Read what a DICOM object says that it marks; no pixel is decoded.

    Raises
    ------
    InputError
        If its header cannot be read.
    """
    import pydicom

    tags: list[Any] = [
        "SOPClassUID",
        "FrameOfReferenceUID",
        "ReferencedSeriesSequence",
        "SegmentSequence",
        "ReferencedFrameOfReferenceSequence",
        "StructureSetROISequence",
        "ROIContourSequence",
        "RTROIObservationsSequence",
    ]
    # Bounded, where pydicom would inflate whatever a file holds.
    with opened(path) as stream:
        scan(stream)
    try:
        found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        sop_class = text_of(found, "SOPClassUID")
        if sop_class == STRUCTURE_SET:
            frames, series = _drawn_in(found)
            regions = tuple(_regions_of_interest(found))
        else:
            frames = [text_of(found, "FrameOfReferenceUID")]
            series = [text_of(item, "SeriesInstanceUID") for item in items_of(found, "ReferencedSeriesSequence")]
            regions = tuple(_segments(found)) if sop_class in SEGMENTATIONS else ()
    except Exception as error:
        reason = f"its header cannot be read as that of a segmentation or structure set ({type(error).__name__})"
        raise InputError(reason, path=path, remedy="export it again") from error
    return Marks(
        sop_class=sop_class,
        frames_of_reference=tuple(dict.fromkeys(filter(None, frames))),
        series=tuple(dict.fromkeys(filter(None, series))),
        regions=regions,
    )


def items_of(data_set: Dataset, keyword: str) -> Iterable[Dataset]:
    """Give the items of a sequence, or none."""
    items: Iterable[Dataset] = data_set.get(keyword) or ()
    return items


def text_of(data_set: Dataset, keyword: str) -> str:
    """Give an element's text from its bytes: pydicom would warn of a wrong one, and name it."""
    element = data_set.get_item(keyword)
    value = b"" if element is None else element.value
    return value.decode("utf-8", "replace").strip(" \0") if isinstance(value, bytes) else str(value or "").strip()


def _segments(found: Dataset) -> Iterator[NamedRegion]:
    """Read the segments (PS3.3 C.8.20.4), each with the meaning of its type's code; 0 is a label map's background."""
    for item in items_of(found, "SegmentSequence"):
        if not item.SegmentNumber:
            continue
        kinds = [text_of(code, "CodeMeaning") for code in items_of(item, "SegmentedPropertyTypeCodeSequence")]
        categories = [text_of(code, "CodeValue") for code in items_of(item, "SegmentedPropertyCategoryCodeSequence")]
        yield NamedRegion(
            number=int(item.SegmentNumber),
            name=text_of(item, "SegmentLabel"),
            kind=" ".join(kinds),
            healthy=any(code in _HEALTHY_CATEGORIES for code in categories),
        )


def _regions_of_interest(found: Dataset) -> Iterator[NamedRegion]:
    """Read the regions of interest (PS3.3 C.8.8.5, C.8.8.6 and C.8.8.8)."""
    kinds = {
        text_of(item, "ReferencedROINumber"): text_of(item, "RTROIInterpretedType")
        for item in items_of(found, "RTROIObservationsSequence")
    }
    filled = {
        text_of(item, "ReferencedROINumber")
        for item in items_of(found, "ROIContourSequence")
        if any(is_closed(contour) for contour in items_of(item, "ContourSequence"))
    }
    for item in items_of(found, "StructureSetROISequence"):
        number = text_of(item, "ROINumber")
        kind = kinds.get(number, "")
        yield NamedRegion(
            number=int(number),
            name=text_of(item, "ROIName"),
            kind=kind,
            empty=number not in filled,
            healthy=kind in _HEALTHY_KINDS,
        )


def _drawn_in(found: Dataset) -> tuple[list[str], list[str]]:
    """Give the frames of reference and series of a structure set (PS3.3 C.8.8.5)."""
    frames = [text_of(item, "ReferencedFrameOfReferenceUID") for item in items_of(found, "StructureSetROISequence")]
    series = []
    for frame in items_of(found, "ReferencedFrameOfReferenceSequence"):
        frames.append(text_of(frame, "FrameOfReferenceUID"))
        for study in items_of(frame, "RTReferencedStudySequence"):
            series += [text_of(one, "SeriesInstanceUID") for one in items_of(study, "RTReferencedSeriesSequence")]
    return frames, series


def is_closed(contour: Dataset) -> bool:
    """Tell whether a contour encloses an area in a plane (PS3.3 C.8.8.6.1)."""
    return text_of(contour, "ContourGeometricType") in _CLOSED


def lesions_among(regions: Sequence[NamedRegion], wanted: Sequence[str], path: Path) -> tuple[NamedRegion, ...]:
    """Choose which of some regions is that of the lesion; nothing is guessed.

    Parameters
    ----------
    regions
        Of an object.
    wanted
        Names of those that are meant, in upper or lower case; where left out, the one whose name or code speaks of a
        lesion (`LESION`) is, or the only one that there is, unless its code says that it is healthy.
    path
        Of the object.

    Raises
    ------
    InputError
        If a name that is wanted is not there, several regions speak of a lesion, or none does.
    """
    if wanted:
        names = dict.fromkeys(map(_plain, wanted))
        return tuple(region for name in names for region in _named(regions, name, path))
    speaking = [one for one in regions if one.speaks_of_lesion]
    filled = [one for one in speaking if not one.empty]
    chosen = filled or speaking or list(regions)
    if len(chosen) == 1 and (speaking or not chosen[0].healthy):
        return (chosen[0],)
    said = "several that may be the lesion" if speaking else "none whose name speaks of a lesion"
    reason = f"expected one region that is the lesion's, found {said}: {listed(chosen)}"
    raise InputError(reason, path=path, remedy=_NAME_THEM)


def is_named(region: NamedRegion, name: str) -> bool:
    """Tell whether a region has a name, in upper or lower case and with any blanks."""
    return _plain(region.name) == _plain(name)


def _named(regions: Sequence[NamedRegion], name: str, path: Path) -> Sequence[NamedRegion]:
    """Give the regions of a name that hold something; where none does, the first."""
    found = [one for one in regions if _plain(one.name) == name]
    if not found:
        reason = f"expected a region of the name {name!r}, found {listed(regions)}"
        raise InputError(reason, path=path, remedy=_NAME_THEM)
    return [one for one in found if not one.empty] or found[:1]


def listed(regions: Sequence[NamedRegion]) -> str:
    """Name some regions; of many, the first few and the number of the others."""
    names = ", ".join(repr(one.name) for one in regions[:_MOST_NAMED]) or "none"
    return f"{names} and {len(regions) - _MOST_NAMED} more" if len(regions) > _MOST_NAMED else names


def _plain(name: str) -> str:
    return " ".join(name.lower().split())


@dataclass(frozen=True, kw_only=True)
class ScanNames:
    """UIDs of a scan's frame of reference and series; empty where it does not say, as nothing but DICOM does."""

    frame_of_reference: str = ""
    series: str = ""


def names_of(volume: Volume) -> ScanNames:
    """Read what a volume's first file calls its frame of reference and its series."""
    from osteoscope.imaging.dicom import read_header

    try:
        header = read_header(volume.sources[0].path)
    except (IndexError, RefusedImageError):
        return ScanNames()
    return ScanNames(frame_of_reference=header.frame_of_reference, series=header.series)


def refuse_other_scan(frames_of_reference: Sequence[str], series: Sequence[str], volume: Volume, path: Path) -> None:
    """Refuse what was drawn in another scan; a volume that is no DICOM does not say which it is.

    A frame of reference is one space of the patient (PS3.3 C.7.4.1): what was drawn in another series of the same frame
    may lie on this volume's voxels, and whether it does is for its grid to tell.

    Parameters
    ----------
    frames_of_reference, series
        UIDs, as in `Marks`; none where it is not known.
    volume
        On which it shall be laid.
    path
        Of what was drawn.

    Raises
    ------
    InputError
        If the frames of reference are known and differ, or, where they are not known, the series are and differ.
    """
    own = names_of(volume)
    if own.frame_of_reference and frames_of_reference:
        if own.frame_of_reference not in frames_of_reference:
            reason = "expected a mask in the volume's frame of reference, found one in another"
            raise InputError(reason, path=path, remedy=OF_THIS_VOLUME)
        return
    if own.series and series and own.series not in series:
        reason = "expected a mask of the volume's series, found one of another"
        raise InputError(reason, path=path, remedy=OF_THIS_VOLUME)
