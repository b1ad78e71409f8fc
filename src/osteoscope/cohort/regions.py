"""The lesion's region in a CT or MR, from files that lie somewhere among a patient's: which of them outline this scan.

A file counts by what it says of itself and by where it lies, never by its place in a folder. What names the very series
goes before what names its frame of reference, and that before what names no scan at all, as a NIfTI does not. Files of
one rank are joined, but for those of one region each that does not speak of a lesion: there is often a file for every
organ. What is not used is given back with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.errors import InputError
from osteoscope.imaging.marks import SEGMENTATIONS, STRUCTURE_SET, lesions_among, names_of, read_marks
from osteoscope.imaging.masks import kind_of_mask, read_mask
from osteoscope.imaging.on_grid import OF_THIS_VOLUME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.imaging.marks import Marks, ScanNames
    from osteoscope.imaging.volume import Volume

_OTHER_FRAME = "it was drawn in another frame of reference"
_OTHER_SERIES = "it was drawn in another series"
_BETTER = "another file names this very scan"
_LESION_ELSEWHERE = "its one region does not speak of a lesion, and another file outlines one"
_ONE_OF_SEVERAL = "it is one of several files of one region each, none of which speaks of a lesion"
_NAME_IT = "name the region that is meant: --roi-name"


@dataclass(frozen=True, kw_only=True)
class RegionFile:
    """A file that may outline a lesion.

    Parameters
    ----------
    path
        The file.
    marks
        What it says of itself; None of a mask as NIfTI, MetaImage or NRRD, which names no scan and no regions.
    numbers
        Of its segments or regions of interest that count, where they were chosen before.
    lone
        Whether it has one region alone, and neither name nor code says that this is a lesion's.
    """

    path: Path
    marks: Marks | None = None
    numbers: tuple[int, ...] = ()
    lone: bool = False


@dataclass(frozen=True, kw_only=True)
class UnusedFile:
    """A file that does not outline the lesion in a scan, why, and what to do about it; both without a full stop."""

    path: Path
    reason: str
    remedy: str = OF_THIS_VOLUME


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """The lesion's region in a scan.

    Parameters
    ----------
    marked
        bool ``(planes, rows, columns)`` of the volume; None where no file outlines it.
    used
        The files that it comes from.
    unused
        The others.
    told
        What was concluded, in sentences without a full stop.
    """

    marked: NDArray[np.bool_] | None
    used: tuple[Path, ...]
    unused: tuple[UnusedFile, ...]
    told: tuple[str, ...]


def region_file(path: Path) -> RegionFile:
    """Look at a file that may outline a lesion; none of its pixels are decoded.

    Raises
    ------
    InputError
        If it is neither a DICOM segmentation, an RT structure set, nor a NIfTI, MetaImage or NRRD file.
    """
    if kind_of_mask(path) != "DICOM":
        return RegionFile(path=path)
    marks = read_marks(path)
    if marks.sop_class not in (*SEGMENTATIONS, STRUCTURE_SET):
        reason = "expected a DICOM segmentation or structure set, found another object"
        raise InputError(reason, path=path, remedy="name the segmentation, not the image")
    return RegionFile(path=path, marks=marks, lone=is_lone(marks))


def is_lone(marks: Marks) -> bool:
    """Tell whether an object has one region alone, and neither name nor code says that this is a lesion's."""
    return len(marks.regions) == 1 and not marks.regions[0].speaks_of_lesion


def region_of(volume: Volume, candidates: Sequence[RegionFile], *, names: Sequence[str] = ()) -> Region:
    """Find the lesion's region in a scan.

    Parameters
    ----------
    volume
        The CT or MR as it was opened; its place is known.
    candidates
        Files of the same patient.
    names
        Of the regions of interest or segments that are meant; where left out, the one whose name speaks of a lesion is
        (`osteoscope.imaging.marks.lesions_among`).

    Returns
    -------
    All that the files of the first rank mark which can be read: those that name the volume's series, else those that
    name its frame of reference, else those that name no scan. Where no name is given, those of one region that does not
    speak of a lesion count only where there is nothing else in their rank, and one of them. Nothing raises for what is
    wrong with a file.
    """
    own = names_of(volume)
    faults: dict[Path, InputError] = {}
    for rank in _RANKS:
        of_rank = [candidate for candidate in candidates if _rank_of(candidate, own) == rank]
        lone = [] if names else [candidate for candidate in of_rank if candidate.lone]
        marked = np.zeros(volume.geometry.shape, dtype=bool)
        used = _mark([one for one in of_rank if one not in lone], marked, volume, names, faults)
        if used:
            _leave(lone, _LESION_ELSEWHERE, faults)
        else:
            used = _mark(lone, marked, volume, names, faults)
            if len(used) > 1:
                _leave(used, _ONE_OF_SEVERAL, faults)
                continue
        if used:
            return _region(marked, used, _others(candidates, own, faults, used), own)
    return Region(marked=None, used=(), unused=_others(candidates, own, faults, []), told=())


_RANKS = ("series", "frame", "unnamed")


def _mark(
    candidates: Sequence[RegionFile],
    marked: NDArray[np.bool_],
    volume: Volume,
    names: Sequence[str],
    faults: dict[Path, InputError],
) -> list[RegionFile]:
    """Mark what files outline; give those that could be read, and note what is wrong with the others."""
    used = []
    for candidate in candidates:
        try:
            by_name, by_number = _chosen(candidate, names)
            marked |= read_mask(candidate.path, volume, names=by_name, numbers=by_number)
            used.append(candidate)
        except InputError as fault:
            faults[candidate.path] = fault
    return used


def _leave(candidates: Sequence[RegionFile], reason: str, faults: dict[Path, InputError]) -> None:
    for candidate in candidates:
        faults[candidate.path] = InputError(reason, path=candidate.path, remedy=_NAME_IT)


def _rank_of(candidate: RegionFile, own: ScanNames) -> str:
    """Tell what a file has in common with a scan: its series, its frame of reference, or nothing that speaks of it."""
    marks = candidate.marks
    if marks is None:
        return "unnamed"
    if own.frame_of_reference and marks.frames_of_reference and own.frame_of_reference not in marks.frames_of_reference:
        return "other frame"
    if own.series and own.series in marks.series:
        return "series"
    if own.frame_of_reference and marks.frames_of_reference:
        return "frame"
    return "other series" if own.series and marks.series else "unnamed"


def _chosen(candidate: RegionFile, names: Sequence[str]) -> tuple[Sequence[str], Sequence[int]]:
    """Give the names or the numbers of the regions that count; where none is asked for, two may share a name."""
    marks = candidate.marks
    if marks is None or candidate.numbers:
        return (), candidate.numbers
    if names or not marks.regions:
        return names, ()
    return (), [region.number for region in lesions_among(marks.regions, (), candidate.path)]


def _others(
    candidates: Sequence[RegionFile], own: ScanNames, faults: Mapping[Path, InputError], used: Sequence[RegionFile]
) -> tuple[UnusedFile, ...]:
    """Say of each file that is not used why."""
    taken = {one.path for one in used}
    return tuple(_unused(one, own, faults.get(one.path)) for one in candidates if one.path not in taken)


def _unused(candidate: RegionFile, own: ScanNames, fault: InputError | None) -> UnusedFile:
    if fault is None:
        reason = {"other frame": _OTHER_FRAME, "other series": _OTHER_SERIES}.get(_rank_of(candidate, own), _BETTER)
        return UnusedFile(path=candidate.path, reason=reason)
    return UnusedFile(path=candidate.path, reason=fault.message, remedy=fault.remedy or OF_THIS_VOLUME)


def _region(
    marked: NDArray[np.bool_], used: Sequence[RegionFile], unused: tuple[UnusedFile, ...], own: ScanNames
) -> Region:
    told = []
    if len(used) > 1:
        told.append(f"its lesion is outlined by {len(used)} files, which are joined")
    if any(_rank_of(one, own) == "frame" and own.series and one.marks and one.marks.series for one in used):
        told.append("its lesion was outlined in another series of the same frame of reference")
    planes = np.flatnonzero(marked.any(axis=(1, 2)))
    skipped = int(planes[-1] - planes[0]) + 1 - len(planes)
    if skipped:
        told.append(f"between the outermost planes that show its outline, {skipped} have none")
    return Region(marked=marked, used=tuple(one.path for one in used), unused=unused, told=tuple(told))
