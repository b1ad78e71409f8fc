"""The stacks of a patient, as the index knows them: what may become an image of the cohort."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osteoscope.cohort.archive.facts import Facts

if TYPE_CHECKING:
    import sqlite3

    from osteoscope.cohort.archive.people import People


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Files of one series that may be one image.

    Parameters
    ----------
    number
        In the index.
    patient
        Identifier that stands for the person; ``identifier`` is that of the files.
    guessed
        Whether the files name no patient.
    born, sex
        As the files have them.
    study, series
        UIDs, or what stands for those that the files lack, or empty.
    part
        Which of the stacks of its series it is, counted from 1 in the order of what tells them apart.
    parts
        How many stacks the series has.
    facts
        What is known of it.
    files
        How many files, those that are there twice counted once.
    copies
        Files that are there again.
    planes
        How many, of all files together, those in one place counted once.
    repeated
        How many of its files show a place that another one shows too, as those of a series over time do.
    folders
        In how many folders or zips the files lie.
    unusable
        How many files cannot be used, and why the first cannot.
    reach
        From the first to the last plane, in mm; None where their places are unknown.
    """

    number: int
    patient: str
    identifier: str
    guessed: bool
    born: str
    sex: str
    study: str
    series: str
    part: int
    parts: int
    facts: Facts
    files: int
    copies: int
    planes: int
    repeated: int
    folders: int
    unusable: tuple[int, str]
    reach: float | None

    @property
    def step(self) -> float | None:
        """Mean distance between planes in mm; the slice thickness where it is not known."""
        if self.reach is not None and self.planes > 1:
            return self.reach / (self.planes - 1)
        return self.facts.thickness

    @property
    def height(self) -> float | None:
        """How far it reaches along the body, in mm; None where that is unknown."""
        if self.facts.plane == "axial":
            return None if self.reach is None else self.reach + (self.facts.thickness or 0)
        if self.facts.plane in ("sagittal", "coronal") and self.facts.spacing:
            return self.facts.rows * self.facts.spacing[0]
        return None


@dataclass(frozen=True, kw_only=True)
class ArchivedFile:
    """Where a file of a stack lies.

    Parameters
    ----------
    path
        Relative to the archive's root.
    member
        Its number in the zip at that path; negative where it lies in a folder.
    content
        Its quick hash, and when it was last written, of a member of a zip unpacked: what lies between its ends is not
        hashed.
    """

    path: Path
    member: int
    content: str


_OF_PATIENT = """
SELECT stacks.id, identifier, guessed, born, sex, study, series, facts,
    count(DISTINCT content), count(*), sum(frames), min(place), max(place),
    sum(code != ''), max(CASE WHEN code != '' THEN sentence ELSE '' END),
    count(DISTINCT CASE WHEN place IS NOT NULL AND frames = 1 THEN content END), count(DISTINCT round(place, 2))
FROM stacks JOIN files ON files.stack = stacks.id
WHERE identifier = ? GROUP BY stacks.id ORDER BY study, series, facts
"""


def stacks_of(connection: sqlite3.Connection, people: People, patient: str) -> list[Stack]:
    """Give the stacks of a patient, those of a series behind each other.

    Parameters
    ----------
    connection, people
        The index, and who is who in it.
    patient
        Identifier that stands for the person.
    """
    rows = [
        row
        for identifier in (patient, *people.joined.get(patient, ()))
        for row in connection.execute(_OF_PATIENT, (identifier,))
    ]
    of_series: dict[tuple[str, str], int] = {}
    stacks = []
    for row in rows:
        key = (row[5], row[6])
        of_series[key] = of_series.get(key, 0) + 1
        stacks.append((row, of_series[key]))
    return [_stack(connection, patient, row, part, of_series[row[5], row[6]]) for row, part in stacks]


def _stack(connection: sqlite3.Connection, patient: str, row: tuple[Any, ...], part: int, parts: int) -> Stack:
    number, identifier, guessed, born, sex, study, series, facts, files, there, frames, low, high, *rest = row
    bad, why, placed, places = rest
    repeated = placed - places if placed == files else 0
    paths = connection.execute("SELECT DISTINCT path, member >= 0 FROM files WHERE stack = ?", (number,))
    folders = {path if zipped else os.path.dirname(path) for path, zipped in paths}  # noqa: PTH120
    return Stack(
        number=number,
        patient=patient,
        identifier=identifier,
        guessed=bool(guessed),
        born=born,
        sex=sex,
        study=study,
        series=series,
        part=part,
        parts=parts,
        facts=Facts.from_json(facts),
        files=files,
        copies=there - files,
        planes=round(frames * files / there) - repeated,
        repeated=repeated,
        folders=len(folders),
        unusable=(bad, why),
        reach=None if low is None or high == low else high - low,
    )


def files_of(connection: sqlite3.Connection, stack: Stack) -> list[ArchivedFile]:
    """Give the files of a stack in the order of their planes, those that are there twice once."""
    rows = connection.execute(
        "SELECT path, member, content || modified FROM files WHERE stack = ? GROUP BY content"
        " ORDER BY place, instance, path, member",
        (stack.number,),
    )
    return [
        ArchivedFile(path=Path(os.fsdecode(path)), member=member, content=content) for path, member, content in rows
    ]
