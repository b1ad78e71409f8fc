"""Rows of a cohort from copied series: what the label table says goes before what the headers say."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osteoscope.cohort.deidentify.values import age_between, capped_age, moved
from osteoscope.cohort.table import Row
from osteoscope.imaging.person import years_of

if TYPE_CHECKING:
    from osteoscope.cohort.archive.choice import Choice
    from osteoscope.cohort.archive.labels import Label
    from osteoscope.cohort.deidentify import Key
    from osteoscope.cohort.measure import Measured
    from osteoscope.cohort.table import Sex

_SEXES: dict[str, Sex] = {"F": "F", "M": "M"}

OLDEST = 90.0
"""Years that stand for every age above 89 (45 CFR 164.514(b)(2)(i)(C))."""


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """An image of the cohort before it is measured.

    Parameters
    ----------
    image
        Path in the cohort.
    choice
        Of its stack.
    patient, study
        Pseudonyms.
    label
        What the label table says of the patient.
    mask
        Path in the cohort of what outlines its lesion, or None.
    """

    image: str
    choice: Choice
    patient: str
    study: str
    label: Label
    mask: str | None = None


def row_of(pictured: Pictured, measured: Measured, classes: tuple[str, ...], key: Key) -> Row:
    """Make the row of an image; its dates are moved as those in its files are.

    Parameters
    ----------
    pictured, measured
        The image.
    classes
        Of the cohort; a patient with another label, or none, is auxiliary.
    key
        Gives the days by which a patient's dates move.
    """
    label, stack, choice = pictured.label, pictured.choice.stack, pictured.choice
    is_case = label.label in classes
    days = key.shift(stack.patient)
    return Row(
        patient=pictured.patient,
        guessed=stack.guessed,
        study=pictured.study,
        image=pictured.image,
        role="case" if is_case else "auxiliary",
        label=label.label if is_case else None,
        kind=label.kind or label.label,
        age=_age(label, choice),
        sex=label.sex or _SEXES.get(stack.sex.upper()),
        site=label.site,
        level=label.level,
        view=stack.facts.view or None,
        centre=label.centre,
        mask=pictured.mask,
        proof=label.proof,
        image_date=moved_date(stack.facts.date, days),
        proof_date=moved_date(label.proof_date, days),
        treated=choice.treated,
        biopsied=choice.biopsied,
        **measured.of_row(),
    )


def moved_date(date: str | None, days: int) -> str | None:
    """Move an ISO 8601 date by days; None where there is none, or none that can be moved so far."""
    found = moved((date or "").replace("-", ""), "DA", days)
    return None if found is None else datetime.date.fromisoformat(found).isoformat()


def _age(label: Label, choice: Choice) -> float | None:
    """Give the age in years, by the label table, the header's age, or the birth date."""
    if label.age is not None:
        return min(label.age, OLDEST)
    facts = choice.stack.facts
    return years_of(capped_age(facts.age) or age_between(choice.stack.born, facts.date.replace("-", "")) or "")
