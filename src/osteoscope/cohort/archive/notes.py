"""What is to be said of an archive and of what was chosen: sentences with counts, and no name of anybody."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from osteoscope.cohort.archive.choice import BORNE_OUT, SEVERAL_PLANES, region_remark
from osteoscope.cohort.deidentify.values import is_stand_in

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from osteoscope.cohort.archive.choice import Choice, Names, Override
    from osteoscope.cohort.archive.decide import Decision
    from osteoscope.cohort.archive.labels import Joined
    from osteoscope.cohort.archive.people import People
    from osteoscope.cohort.archive.rows import Pictured

_MOST_REASONS = 8
"""How many reasons are told, the most frequent first."""


def notes_on_archive(connection: sqlite3.Connection, people: People) -> list[str]:
    """Tell what was odd about the files and the patients of an archive."""
    notes = []
    refused = connection.execute(
        "SELECT sentence, count(*) FROM files WHERE kind = 'refused' GROUP BY sentence ORDER BY 2 DESC, 1"
    ).fetchall()
    for sentence, count in refused[:_MOST_REASONS]:
        notes.append(f"Files of the archive that cannot be read: {count}, since {sentence}.")
    (other,) = connection.execute("SELECT count(*) FROM files WHERE kind = 'other'").fetchone()
    if other:
        notes.append(f"Files of the archive that are no DICOM files, left alone: {other}.")
    joined = sum(map(len, people.joined.values()))
    if joined:
        notes.append(
            f"Patients with further identifiers (the same name, birth date and sex, or a study in common), counted"
            f" once: {len(people.joined)}, with {joined} of these."
        )
    if people.unsure:
        slips = "Identifiers that stand with two names, birth dates or sexes, each taken as one patient"
        notes.append(f"{slips}: {people.unsure}.")
    if people.shared_studies:
        count = len(people.shared_studies)
        notes.append(f"Study Instance UIDs that two or more different patients have, who are kept apart: {count}.")
    split = _studies_in_several_folders(connection)
    if split:
        notes.append(f"Studies that lie in several folders or zips, taken together: {split}.")
    (guessed,) = connection.execute("SELECT count(DISTINCT identifier) FROM stacks WHERE guessed").fetchone()
    if guessed:
        notes.append(f"Patients without an identifier, told by name and birth date, or by the study: {guessed}.")
    return notes


def _studies_in_several_folders(connection: sqlite3.Connection) -> int:
    """Count studies of which a stack lies in several folders or zips."""
    folders: set[bytes] = set()
    last: tuple[str, int] | None = None
    rows = connection.execute(
        "SELECT DISTINCT study, stack, path, member >= 0 FROM files JOIN stacks ON stacks.id = stack"
        " WHERE study != '' ORDER BY study, stack"
    )
    split: set[str] = set()
    for study, stack, path, zipped in rows:
        if (study, stack) != last:
            folders, last = set(), (study, stack)
        folders.add(path if zipped else os.path.dirname(path))  # noqa: PTH120
        if len(folders) > 1:
            split.add(study)
    return len(split)


def notes_on_choices(choices: Sequence[Choice]) -> list[str]:
    """Tell why series of patients who have a label were left, and what is not certain of those that were chosen."""
    left = Counter(choice.reason for choice in choices if not choice.chosen)
    notes = [f"Series left: {count}, since {reason}." for reason, count in left.most_common(_MOST_REASONS)]
    more = sum(left.values()) - sum(count for _, count in left.most_common(_MOST_REASONS))
    if more:
        notes.append(f"Series left for other reasons, each in the table of series: {more}.")
    chosen = [choice for choice in choices if choice.chosen]
    late = sum(bool(choice.biopsied or choice.treated) for choice in chosen)
    if late:
        notes.append(f"Chosen series that were taken after the biopsy or treatment: {late} of {len(chosen)}.")
    few = sum(choice.stack.facts.kind != "radiograph" and choice.stack.planes < SEVERAL_PLANES for choice in chosen)
    if few:
        notes.append(f"Chosen CT and MR of fewer than {SEVERAL_PLANES} planes: {few} of {len(chosen)}.")
    unnamed = sum(is_stand_in(choice.stack.study) or is_stand_in(choice.stack.series) for choice in chosen)
    if unnamed:
        found = "Chosen series without a Study or Series Instance UID, told by their frame of reference and number"
        notes.append(f"{found}: {unnamed} of {len(chosen)}.")
    undated = sum(not choice.stack.facts.date for choice in chosen)
    if undated:
        notes.append(f"Chosen series without a date: {undated} of {len(chosen)}.")
    told = [region_remark(choice.stack) for choice in chosen]
    remarks = Counter(remark for remark in told if remark and not remark.endswith(BORNE_OUT))
    notes.extend(
        f"Chosen series {remark}: {count} of {len(chosen)}." for remark, count in remarks.most_common(_MOST_REASONS)
    )
    return notes


def notes_on_outlines(images: Sequence[Pictured]) -> list[str]:
    """Tell of how many CT and MR the lesion is outlined."""
    scans = [image for image in images if image.choice.stack.facts.kind != "radiograph"]
    outlined = sum(image.mask is not None for image in scans)
    return [f"CT and MR whose lesion is outlined: {outlined} of {len(scans)}."] if scans else []


def notes_on_joining(joined: Joined, decisions: Sequence[Decision], overrides: Mapping[Names, Override]) -> list[str]:
    """Tell which rows of the label table, which patients and which of a person's decisions joined nothing."""
    notes = list(joined.notes)
    patients = {decision.choice.stack.patient for decision in decisions}
    unlabelled = patients - set(joined.labels) - set(joined.refused)
    if unlabelled:
        notes.append(f"Patients of the archive in no row of the label table, left out: {len(unlabelled)}.")
    notes.extend(
        f"Patients left out: {count}, since {reason}."
        for reason, count in Counter(joined.refused.values()).most_common()
    )
    lost = len(set(overrides) - {decision.names for decision in decisions})
    if lost:
        notes.append(f"Decisions in the table of series on series that are not in the archive: {lost}.")
    return notes
