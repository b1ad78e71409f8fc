"""A PACS export and a list of diagnoses as a cohort: indexed, joined, chosen, de-identified, and every reason kept.

The cohort holds pseudonyms and de-identified copies alone, so that its folder can be handed on. What knows the
patients, the index and the key, lies elsewhere, readable by its owner alone.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from osteoscope.cohort.archive.choice import Wishes
from osteoscope.cohort.archive.copying import ToCopy
from osteoscope.cohort.archive.database import opened_index
from osteoscope.cohort.archive.decide import Basis, decide
from osteoscope.cohort.archive.indexing import update_index
from osteoscope.cohort.archive.labels import join_labels, read_labels
from osteoscope.cohort.archive.making import Making, target_of
from osteoscope.cohort.archive.notes import notes_on_archive, notes_on_choices, notes_on_joining, notes_on_outlines
from osteoscope.cohort.archive.people import people_in
from osteoscope.cohort.archive.rows import row_of
from osteoscope.cohort.archive.series_table import SERIES_TABLE, Line, read_overrides, text_of
from osteoscope.cohort.archive.stacks import files_of
from osteoscope.cohort.deidentify import Key
from osteoscope.cohort.from_table import note_on_phantoms, notes_on_scans
from osteoscope.cohort.table import Cohort, checked_classes, frame_of
from osteoscope.errors import CohortError
from osteoscope.processes import readers
from osteoscope.storage import write_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence

    from osteoscope.cohort.archive.choice import Names, Override
    from osteoscope.cohort.archive.decide import Decision
    from osteoscope.cohort.archive.indexing import Indexed
    from osteoscope.cohort.archive.places import Archive

    Stages = Callable[[str, int, int], None]

_DEFAULT_WISHES = Wishes()


@dataclass(frozen=True, kw_only=True, eq=False)
class Gathered:
    """A cohort from an archive, whose copies are already in its folder.

    Parameters
    ----------
    cohort
        To be written beside its images (`osteoscope.cohort.table.write_beside_images`).
    indexed
        What the archive was found to be.
    """

    cohort: Cohort
    indexed: Indexed


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """What is to be done, once the archive was looked through."""

    indexed: Indexed
    classes: tuple[str, ...]
    decisions: list[Decision]
    overrides: Mapping[Names, Override]
    """Of a person, on series that need not be there."""
    copies: list[ToCopy]
    marks: list[ToCopy]
    notes: tuple[str, ...]


def read_archive(
    archive: Archive,
    *,
    classes: Sequence[str] = (),
    wishes: Wishes = _DEFAULT_WISHES,
    roi_names: Sequence[str] = (),
    jobs: int | None = None,
    stages: Stages | None = None,
) -> Gathered:
    """Make a cohort of an archive; killed at any moment, the next call goes on where it stopped.

    Parameters
    ----------
    archive
        Where everything lies.
    classes
        Labels that form the classes, in the order wanted; all labels, sorted, where left out.
    wishes
        What series are asked for.
    roi_names
        Of the regions that are the lesion's, in segmentations and structure sets; where left out, the one whose name
        speaks of a lesion is.
    jobs
        Worker processes; as many as there are processors where left out.
    stages
        Is told what is done, and how many of how many are.

    Returns
    -------
    The cohort; its folder holds the copies, the masks and the table of series, and nothing else was written there.

    Raises
    ------
    InputError
        If the archive, the label table, the table of series or the index cannot be used.
    CohortError
        If no patient of the archive has a label of a class, or no image is left.
    ConfigError, StorageError
        If the key cannot be used, or something cannot be written.
    """
    key = Key.open(archive.key)
    processes = jobs or readers()
    plan = _plan(archive, key, classes, wishes, processes, stages)
    table = archive.output / SERIES_TABLE
    write_text(table, text_of((Line(decision=decision) for decision in plan.decisions), plan.overrides))
    making = Making(archive.output, plan.decisions, stages)
    making.copy(plan.copies, processes)
    outlined = making.outline(plan.marks, roi_names)
    measured = making.measure()
    write_text(table, text_of(making.lines(), plan.overrides))
    if not measured:
        raise CohortError("no series of the archive can be used", path=table, remedy="see there why each was left")
    making.remove_others()
    cohort = Cohort(
        frame=frame_of(row_of(image, measured[image.image], plan.classes, key) for image in making.images),
        classes=plan.classes,
        root=archive.output,
        source=f"archive of key {key.fingerprint}",
        left_out=tuple(making.left_out()),
        notes=(
            *plan.notes,
            *notes_on_outlines(making.images),
            *outlined,
            *note_on_phantoms(measured),
            *notes_on_scans(measured),
        ),
    )
    return Gathered(cohort=cohort, indexed=plan.indexed)


def _plan(
    archive: Archive, key: Key, classes: Sequence[str], wishes: Wishes, jobs: int, stages: Stages | None
) -> _Plan:
    """Index an archive, join its labels and choose among its series."""
    rows = read_labels(archive.labels, encoding=archive.encoding)
    overrides = {} if archive.series is None else read_overrides(archive.series)
    with opened_index(archive.index) as connection:
        progress = None if stages is None else partial(stages, "indexing files")
        indexed = update_index(connection, archive.folder, jobs=jobs, progress=progress)
        people = people_in(connection)
        joined = join_labels(rows, connection, people)
        chosen = _classes(archive, {label.label for label in joined.labels.values() if label.label}, classes)
        basis = Basis(people=people, joined=joined, wishes=wishes, overrides=overrides, key=key)
        decisions = list(decide(connection, basis))
        return _Plan(
            indexed=indexed,
            classes=chosen,
            decisions=decisions,
            overrides=overrides,
            copies=[_task(connection, archive, key, one) for one in decisions if one.choice.chosen],
            marks=[_task(connection, archive, key, one) for one in decisions if _marks_a_label(one)],
            notes=(
                *notes_on_archive(connection, people),
                *notes_on_joining(joined, decisions, overrides),
                *notes_on_choices([decision.choice for decision in decisions if decision.label.label is not None]),
            ),
        )


def _classes(archive: Archive, found: set[str], wanted: Sequence[str]) -> tuple[str, ...]:
    chosen = checked_classes(wanted or sorted(found))
    for name in chosen:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1, cutoff=0.5)
            remedy = f"did you mean --class {close[0]!r}?" if close else "choose among the labels found"
            listed = ", ".join(map(repr, sorted(found))) or "no label at all"
            reason = f"no patient of the archive has the label {name!r}; found {listed}"
            raise CohortError(reason, path=archive.labels, remedy=remedy)
    return chosen


def _task(connection: sqlite3.Connection, archive: Archive, key: Key, decision: Decision) -> ToCopy:
    stack = decision.choice.stack
    return ToCopy(
        number=stack.number,
        root=archive.folder,
        files=tuple(files_of(connection, stack)),
        target=target_of(archive.output, decision),
        key=key,
        patient=stack.patient,
    )


def _marks_a_label(decision: Decision) -> bool:
    """Tell whether it marks regions in images of a patient who has a label, and nobody decided to leave it."""
    is_meant = decision.label.label is not None and decision.override != "leave"
    return decision.choice.stack.facts.kind == "marks" and is_meant
