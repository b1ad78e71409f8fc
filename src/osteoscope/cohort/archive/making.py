"""Chosen series become images of a cohort: copied, outlined, measured; what fails on the way is left out, and said."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING

from osteoscope.cohort.archive.copying import SOURCES, copy_stack
from osteoscope.cohort.archive.outlines import outline_scans
from osteoscope.cohort.archive.places import IMAGES, MASKS
from osteoscope.cohort.archive.reading import in_processes
from osteoscope.cohort.archive.rows import Pictured
from osteoscope.cohort.archive.series_table import Line
from osteoscope.cohort.measure import Measured, measure_images
from osteoscope.cohort.table import LeftOut
from osteoscope.storage import storage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from osteoscope.cohort.archive.copying import ToCopy
    from osteoscope.cohort.archive.decide import Decision

    Stages = Callable[[str, int, int], None]

_WORTH_A_POOL = 4
"""Series below which starting processes takes longer than copying them would."""


class Making:
    """Makes the images of a cohort.

    Parameters
    ----------
    root
        Of the cohort.
    decisions
        On every series of the archive.
    stages
        Is told what is done, and how many of how many are.
    """

    def __init__(self, root: Path, decisions: Sequence[Decision], stages: Stages | None = None) -> None:
        self.root = root
        self.images: list[Pictured] = []
        self._decisions = {decision.choice.stack.number: decision for decision in decisions}
        self._stages = stages
        self._left_out: dict[int, str] = {}
        self._left_out_of_series: dict[str, str] = {}

    def copy(self, tasks: Sequence[ToCopy], jobs: int) -> None:
        """Copy the chosen series without what identifies their patients.

        Raises
        ------
        StorageError
            If something cannot be written; what was copied stays, and is not copied again.
        """
        for done, copied in enumerate(in_processes(copy_stack, tasks, jobs=jobs, worth=_WORTH_A_POOL), start=1):
            if copied.left_out:
                self._left_out[copied.number] = copied.left_out
            else:
                self.images += self._images_of(self._decisions[copied.number])
            self._told("copying series", done, len(tasks))
        self.images.sort(key=lambda image: image.image)

    def outline(self, marks: Sequence[ToCopy], names: Sequence[str] = ()) -> tuple[str, ...]:
        """Outline lesions in the scans by what marks them, of given names or not; give what is to be said of that."""
        patients = {task.number: self._decisions[task.number].names[0] for task in marks}
        progress = partial(self._told, "outlining lesions")
        outlined = outline_scans(self.root, self.images, marks, patients, names=names, progress=progress)
        self.images = list(outlined.images)
        return outlined.notes

    def measure(self) -> dict[str, Measured]:
        """Decode every image once; one that cannot be used is left out, and a series of which none can."""
        masks = {image.image: image.mask for image in self.images if image.mask is not None}
        progress = partial(self._told, "reading images")
        found = measure_images(self.root, [image.image for image in self.images], progress, masks=masks)
        usable = {name: measured for name, measured in found.items() if isinstance(measured, Measured)}
        whole = {image.choice.stack.number for image in self.images if image.image in usable}
        for image in self.images:
            fault, number = found[image.image], image.choice.stack.number
            if isinstance(fault, Measured):
                continue
            if number in whole:
                self._left_out_of_series[image.image] = fault.message
            else:
                self._left_out[number] = fault.message
        self.images = [image for image in self.images if image.image in usable]
        return {image.image: usable[image.image] for image in self.images}

    def lines(self) -> list[Line]:
        """Give a line for every series, with what became of it."""
        folders = {
            image.choice.stack.number: _folder_of(self._decisions[image.choice.stack.number]) for image in self.images
        }
        return [
            Line(decision=decision, image=folders.get(number, ""), left_out=self._left_out.get(number, ""))
            for number, decision in self._decisions.items()
        ]

    def left_out(self) -> Iterator[LeftOut]:
        """Give all that was chosen and is not in the cohort, and every patient of whom there is no series."""
        for image, reason in sorted(self._left_out_of_series.items()):
            yield LeftOut(image=image, reason=reason)
        for number, reason in sorted(self._left_out.items()):
            yield LeftOut(image=_folder_of(self._decisions[number]), reason=reason)
        here = {image.patient for image in self.images}
        refused: dict[str, str] = {}
        reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for number, decision in self._decisions.items():
            patient = decision.names[0]
            if decision.why_not:
                refused[patient] = decision.why_not
            elif patient not in here and number not in self._left_out:
                reasons[patient][decision.choice.reason] += 1
        told = {patient: "; ".join(map(_times, sorted(counted.items()))) for patient, counted in reasons.items()}
        for patient, reason in sorted({**told, **refused}.items()):
            yield LeftOut(image=f"{IMAGES}/{patient}", reason=reason)

    def remove_others(self) -> None:
        """Remove copies and masks that are no longer part of the cohort.

        Raises
        ------
        StorageError
            If the operating system refuses.
        """
        kept = {self.root / image.image for image in self.images}
        kept |= {self.root / image.mask for image in self.images if image.mask is not None}
        for folder in (self.root / IMAGES, self.root / MASKS):
            if folder.is_dir():
                try:
                    _remove_all_but(folder, kept)
                except OSError as error:
                    raise storage_error(error, folder) from error

    def _images_of(self, decision: Decision) -> Iterator[Pictured]:
        """Give the images of a series: a CT or MR is its folder, of radiographs each file is one."""
        folder = _folder_of(decision)
        names = [folder]
        if decision.choice.stack.facts.kind == "radiograph":
            names = [f"{folder}/{path.name}" for path in sorted((self.root / folder).glob("*.dcm"))]
        for name in names:
            yield Pictured(
                image=name,
                choice=decision.choice,
                patient=decision.names[0],
                study=decision.names[1],
                label=decision.label,
            )

    def _told(self, what: str, done: int, total: int) -> None:
        if self._stages is not None:
            self._stages(what, done, total)


def _times(counted: tuple[str, int]) -> str:
    reason, count = counted
    return f"{reason} ({count} series)" if count > 1 else reason


def target_of(root: Path, decision: Decision) -> Path:
    """Give the folder for the copies of a series."""
    return root / _folder_of(decision)


def _folder_of(decision: Decision) -> str:
    patient, study, series, part = decision.names
    several = f"-{part}" if decision.choice.stack.parts > 1 else ""
    return f"{IMAGES}/{patient}/{study}/{series}{several}"


def _remove_all_but(folder: Path, kept: set[Path]) -> None:
    """Remove what is neither kept nor holds something kept, and is no part of what is."""
    for path in list(folder.iterdir()):
        if path in kept or (path.is_file() and path.parent in kept):
            continue
        if path.is_dir() and any(one.is_relative_to(path) for one in kept):
            _remove_all_but(path, kept)
        elif path.is_dir():
            shutil.rmtree(path)
        elif path.name != SOURCES:
            path.unlink()
            # A folder that lacks a file is made again, so that why it lacks it is told in each run.
            (folder / SOURCES).unlink(missing_ok=True)
