"""Decides, patient by patient, which series of an archive are used, whether or not the patient has a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from osteoscope.cohort.archive.choice import Choice, choose, unusable
from osteoscope.cohort.archive.labels import Label
from osteoscope.cohort.archive.stacks import stacks_of
from osteoscope.cohort.deidentify.values import is_stand_in

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping

    from osteoscope.cohort.archive.choice import Names, Override, Wishes
    from osteoscope.cohort.archive.labels import Joined
    from osteoscope.cohort.archive.people import People
    from osteoscope.cohort.archive.stacks import Stack
    from osteoscope.cohort.deidentify import Key

NO_LABEL = "no row of the label table joins the patient"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is decided of a stack.

    Parameters
    ----------
    names
        Pseudonyms of its patient, study and series, and its part.
    choice
        Whether it is used, and why.
    label
        What the label table says of the patient; nothing where it joins none.
    override
        What a person decided, or None.
    why_not
        Why nothing of the patient is used, whatever it is; empty where something may be.
    """

    names: Names
    choice: Choice
    label: Label
    override: Override | None = None
    why_not: str = ""


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What decisions rest on.

    Parameters
    ----------
    people
        The patients of the archive.
    joined
        Their labels.
    wishes
        What is asked for.
    overrides
        What a person decided, by pseudonyms.
    key
        Gives the pseudonyms.
    """

    people: People
    joined: Joined
    wishes: Wishes
    overrides: Mapping[Names, Override]
    key: Key


def decide(connection: sqlite3.Connection, basis: Basis) -> Iterator[Decision]:
    """Give a decision for every stack of the archive, one patient after the other."""
    for patient in sorted(set(basis.people.of.values())):
        stacks = stacks_of(connection, basis.people, patient)
        names = {stack.number: _names(stack, basis) for stack in stacks}
        overrides = {number: basis.overrides[own] for number, own in names.items() if own in basis.overrides}
        label = basis.joined.labels.get(patient, Label(label=None))
        why_not = basis.people.several.get(patient) or basis.joined.refused.get(patient)
        if why_not is None and patient not in basis.joined.labels:
            why_not = NO_LABEL
        if why_not is None:
            choices = choose(stacks, label, basis.wishes, overrides)
        else:
            choices = [Choice(stack=stack, chosen=False, reason=unusable(stack) or why_not) for stack in stacks]
        for choice in choices:
            number = choice.stack.number
            yield Decision(
                names=names[number],
                choice=choice,
                label=label,
                override=overrides.get(number),
                why_not=why_not or "",
            )


def _names(stack: Stack, basis: Basis) -> Names:
    key, study = basis.key, stack.study
    if study in basis.people.shared_studies or is_stand_in(study):
        # Two patients have this study, or may have what stands for it; each has one of their own.
        study = f"{study}\0{stack.patient}"
    return key.patient(stack.patient), key.study(study), key.series(stack.series), str(stack.part)
