"""The lesions' regions in chosen scans, from the segmentations and structure sets of their patients."""

from __future__ import annotations

import re
import tempfile
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from osteoscope.cohort.archive.copying import ToCopy, copy_stack, sources_of
from osteoscope.cohort.archive.places import MASKS
from osteoscope.cohort.regions import is_lone, region_file, region_of
from osteoscope.errors import InputError
from osteoscope.imaging.marks import is_named, lesions_among, listed, read_marks
from osteoscope.imaging.masks import write_mask
from osteoscope.imaging.open import open_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from osteoscope.cohort.archive.rows import Pictured
    from osteoscope.cohort.regions import RegionFile
    from osteoscope.imaging.marks import Marks


@dataclass(frozen=True, kw_only=True)
class Outlined:
    """Images with their masks, and what is to be said of what outlines none."""

    images: tuple[Pictured, ...]
    notes: tuple[str, ...]


def outline_scans(
    root: Path,
    images: Sequence[Pictured],
    marks: Sequence[ToCopy],
    patients: dict[int, str],
    *,
    names: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Outlined:
    """Write a mask for each CT and MR whose lesion a segmentation or structure set of its patient outlines.

    What marks regions refers to scans by their UIDs; it is de-identified with the same key, so that these agree. Which
    of its regions is meant is decided before that, since names of regions may name patients, and do not stay.

    Parameters
    ----------
    root
        Of the cohort.
    images
        Of the cohort.
    marks
        Stacks of segmentations and structure sets; their targets are not used.
    patients
        Pseudonym of each of those stacks.
    names
        Of the regions that are meant, each of which not every file need have; where left out, the one whose name speaks
        of a lesion is.
    progress
        Is told how many of how many images are done.
    """
    of_patient: defaultdict[str, list[ToCopy]] = defaultdict(list)
    if not marks:
        return Outlined(images=tuple(images), notes=())
    for task in marks:
        of_patient[patients[task.number]].append(task)
    told = _Told()
    done: list[Pictured] = []
    for image in images:
        candidates = of_patient.get(image.patient, [])
        outlined = image
        if candidates and not _is_radiograph(image):
            outlined = _outlined(root, image, candidates, names, told)
        done.append(outlined)
        if progress is not None:
            progress(len(done), len(images))
    return Outlined(images=tuple(done), notes=told.notes())


class _Told:
    """Gathers over all images of a patient which files outline a lesion, and why others do not.

    A segmentation of a CT does not fit the MR of the same patient, of which nothing has to be said; and what is wrong
    with a file is said once.
    """

    def __init__(self) -> None:
        self._used: set[_File] = set()
        self._unused: dict[_File, str] = {}
        self._concluded: Counter[str] = Counter()

    def used(self, path: Path) -> None:
        """Note that a file outlines a lesion."""
        self._used.add(_file(path))

    def unused(self, path: Path, sentence: str) -> None:
        """Note why a file outlines none; the first reason stands."""
        self._unused.setdefault(_file(path), sentence)

    def concluded(self, sentences: Sequence[str]) -> None:
        """Note what was concluded of an image's outline, whose numbers differ from image to image."""
        self._concluded.update(re.sub(r"\d+", "some", sentence) for sentence in sentences)

    def notes(self) -> tuple[str, ...]:
        """Say of how many files there is which reason, and of how many images what was concluded."""
        reasons = Counter(sentence for file, sentence in self._unused.items() if file not in self._used)
        return (
            *(f"Scans of which it is told that {sentence}: {count}." for sentence, count in self._concluded.items()),
            *(
                f"Segmentations and structure sets that {sentence}: {count}."
                for sentence, count in reasons.most_common()
            ),
        )


_File = tuple[str, str]
"""The number of its stack, and the name of its copy."""


def _file(copy: Path) -> _File:
    return copy.parent.name, copy.name


def _is_radiograph(image: Pictured) -> bool:
    return image.choice.stack.facts.kind == "radiograph"


def _outlined(root: Path, image: Pictured, tasks: Sequence[ToCopy], names: Sequence[str], told: _Told) -> Pictured:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="osteoscope-")))
        candidates = list(_region_files(tasks, folder, names, told))
        try:
            volume = open_image(root / image.image).volume
            if volume.geometry.affine is None:
                return image
            region = region_of(volume, candidates)
        except InputError:
            # The scan itself cannot be read; that is said where it is measured.
            return image
        for path in region.used:
            told.used(path)
        for one in region.unused:
            told.unused(one.path, f"outline no lesion in a scan ({one.reason})")
        if region.marked is None or not region.marked.any():
            return image
        told.concluded(region.told)
        name = f"{MASKS}/{'/'.join(image.image.split('/')[1:])}.nii.gz"
        write_mask(root / name, region.marked, volume)
    return replace(image, mask=name)


def _region_files(tasks: Sequence[ToCopy], folder: Path, names: Sequence[str], told: _Told) -> Iterator[RegionFile]:
    """Copy what marks regions without what identifies the patient, and look at each file and at what it was made of."""
    for task in tasks:
        target = folder / str(task.number)
        copied = copy_stack(replace(task, target=target))
        if copied.left_out:
            told.unused(target / "all", f"outline no lesion ({copied.left_out})")
            continue
        for path, source in zip(sorted(target.glob("*.dcm")), sources_of(task), strict=True):
            try:
                yield _chosen(region_file(path), read_marks(source), names)
            except InputError as fault:
                told.unused(path, f"outline no lesion ({fault.message})")


def _chosen(copied: RegionFile, original: Marks, names: Sequence[str]) -> RegionFile:
    """Choose regions by the names that they have in the original; what is said of it has those that stay.

    Raises
    ------
    InputError
        If none has a name that is meant, or, where none is given, it cannot be told which is the lesion's.
    """
    there = [name for name in names if any(is_named(region, name) for region in original.regions)]
    shown = _shown(copied)
    if names and not there:
        raise InputError(f"no region of it has a name that was given, but {shown}", path=copied.path)
    try:
        regions = lesions_among(original.regions, there, copied.path)
    except InputError as fault:
        reason = f"which of its regions is the lesion's cannot be told, and has to be named by --roi-name: {shown}"
        raise InputError(reason, path=copied.path) from fault
    # By their names, as by their codes: names that are asked for are meant.
    lone = not names and is_lone(original)
    return replace(copied, numbers=tuple(region.number for region in regions), lone=lone)


def _shown(copied: RegionFile) -> str:
    """Name the regions whose names stayed, and count the others."""
    regions = copied.marks.regions if copied.marks is not None else ()
    named = [region for region in regions if region.name]
    others = [f"{len(regions) - len(named)} whose names do not stay"] if len(named) < len(regions) else []
    return " and ".join([listed(named), *others] if named or not others else others)
