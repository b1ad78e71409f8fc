"""Sets beside each other what the classes' patients are like, and how far that alone tells them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from osteoscope.cohort.audit.finding import Finding
from osteoscope.cohort.audit.shares import ClassShares
from osteoscope.cohort.audit.witness import TELLING, Witness, hear
from osteoscope.cohort.baselines import (
    CLINICAL,
    CLINICAL_LEVEL,
    CLINICAL_SITE,
    CLINICAL_SITE_LEVEL,
    clinical_columns,
    clinical_place,
)
from osteoscope.cohort.table import cases as cases_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from osteoscope.cohort.table import Cohort

COUNTED = ("sex", "site", "level", "centre", "proof", "biopsied", "treated", "implant")
"""Columns whose values are counted by patient; a patient of several values counts once for each."""

NOT_RECORDED = "not recorded"

_COVARIATES = ("age", "sex", "site", "level", "view", "centre")

_RECORDED_APART = 0.5
"""Difference between two classes' shares of patients of whom a column is recorded that is said."""


@dataclass(frozen=True, kw_only=True)
class AuditTables:
    """What the classes' patients are like.

    Parameters
    ----------
    ages
        By class: ``known`` and ``missing`` patients, and in years the ``least``, the three ``quartiles`` and the
        ``greatest`` age; None where none is known.
    counts
        By column of `COUNTED`, class and value: patients; and by ``view``, class and value: images.
    """

    ages: Mapping[str, Mapping[str, Any]]
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]

    def to_json(self) -> dict[str, Any]:
        """Give ``{"age": {CLASS: {…}}, "sex": {CLASS: {VALUE: patients}}, …}``."""
        of_columns = {
            column: {name: dict(values) for name, values in of_class.items()}
            for column, of_class in self.counts.items()
        }
        return {"age": {name: dict(summary) for name, summary in self.ages.items()}, **of_columns}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Take tables from what `to_json` gave."""
        return cls(ages=value["age"], counts={column: value[column] for column in (*COUNTED, "view")})


def audit_tables(cohort: Cohort) -> AuditTables:
    """Describe the cases by class."""
    rows = cohort.case_rows
    of_class = {name: rows[rows["label"] == name] for name in cohort.classes}
    counts = {
        column: {name: _counted(part.drop_duplicates(["patient", column])[column]) for name, part in of_class.items()}
        for column in COUNTED
    }
    counts["view"] = {name: _counted(part["view"]) for name, part in of_class.items()}
    return AuditTables(ages={name: _ages(part) for name, part in of_class.items()}, counts=counts)


def _counted(values: pd.Series) -> dict[str, int]:
    """Count values, the most frequent first; flags as yes and no."""
    words = values.map({True: "yes", False: "no"}) if values.dtype == "boolean" else values
    counts = words.astype("object").where(words.notna(), NOT_RECORDED).value_counts()
    return {str(value): int(count) for value, count in sorted(counts.items(), key=lambda one: (-one[1], str(one[0])))}


def _ages(rows: pd.DataFrame) -> dict[str, Any]:
    ages = rows.groupby("patient")["age"].mean()
    known = ages.dropna().to_numpy(dtype=np.float64)
    if not known.size:
        return {"known": 0, "missing": len(ages), "least": None, "quartiles": None, "greatest": None}
    least, *quartiles, greatest = np.quantile(known, [0, 0.25, 0.5, 0.75, 1]).tolist()
    missing = len(ages) - known.size
    return {"known": known.size, "missing": missing, "least": least, "quartiles": quartiles, "greatest": greatest}


def hear_confounders(cohort: Cohort) -> dict[str, Witness]:
    """Let models predict the label from clinical data alone.

    Parameters
    ----------
    cohort
        Each of whose cases has one label.

    Returns
    -------
    By the name of the baseline in `osteoscope.cohort.baselines`.
    """
    cases = [case for case in cases_of(cohort) if case.label is not None]
    patients = [case.patient for case in cases]
    labels = [cohort.classes[case.label] for case in cases if case.label is not None]
    placed, place = clinical_place(cases)
    return {
        name: hear(_WORDS[name], seen, patients=patients, labels=labels, classes=cohort.classes)
        for name, seen in ((CLINICAL, clinical_columns(cases)), (placed, place))
    }


_WORDS = {
    CLINICAL: "age and sex",
    CLINICAL_SITE: "age, sex and body site",
    CLINICAL_LEVEL: "age, sex and level of the spine",
    CLINICAL_SITE_LEVEL: "age, sex, body site and level of the spine",
}


def find_confounders(cohort: Cohort, heard: Mapping[str, Witness]) -> tuple[Finding, ...]:
    """Say what `hear_confounders` heard, and whether what is recorded depends on the label.

    Kinds, which warn: ``clinical-confounder`` and ``record-depends-on-label``.
    """
    telling = [one for one in heard.values() if one.auc.low is not None and one.auc.low >= TELLING]
    findings = list(_recorded_by_label(cohort))
    if telling:
        finding = Finding(
            kind="clinical-confounder",
            severity="warn",
            cases=(),
            message="; ".join(one.sentence() for one in telling),
            remedy="set the network beside these figures: it is worth what it adds to them",
        )
        findings.append(finding)
    return tuple(findings)


def _recorded_by_label(cohort: Cohort) -> list[Finding]:
    rows = cohort.case_rows
    labels = rows.groupby("patient")["label"].first()
    by_sentence: dict[str, list[str]] = {}
    for column in _COVARIATES:
        recorded = rows[column].notna().groupby(rows["patient"]).any()
        shares = ClassShares.of(recorded, labels, cohort.classes)
        if shares.differ(by=_RECORDED_APART):
            by_sentence.setdefault(shares.sentence(), []).append(column)
    return [
        Finding(
            kind="record-depends-on-label",
            severity="warn",
            cases=(),
            message=f"{_listed(columns)} recorded for {sentence}: whether it is known tells the label",
            remedy="give the network no such covariate, and do not read the clinical baselines as clinical",
        )
        for sentence, columns in by_sentence.items()
    ]


def _listed(columns: Sequence[str]) -> str:
    return f"{columns[0]} is" if len(columns) == 1 else f"{', '.join(columns[:-1])} and {columns[-1]} are"
