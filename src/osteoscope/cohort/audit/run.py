"""The whole audit: all that is looked for, in one call, before anything is trained or measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from osteoscope import __version__
from osteoscope.cohort.audit import candidates, confirm
from osteoscope.cohort.audit.cache import keep_audit, known_audit
from osteoscope.cohort.audit.confounders import AuditTables, audit_tables, find_confounders, hear_confounders
from osteoscope.cohort.audit.finding import Finding, in_order
from osteoscope.cohort.audit.leaks import find_leaks, shared_with
from osteoscope.cohort.audit.patients import find_split_patients
from osteoscope.cohort.audit.record import find_in_record
from osteoscope.cohort.audit.shortcuts import find_shortcuts, hear_shortcuts
from osteoscope.cohort.audit.size import find_too_small
from osteoscope.cohort.audit.twins import auxiliary_twins, find_twins, look_at, twin_findings, twins_across
from osteoscope.cohort.audit.witness import Witness
from osteoscope.cohort.baselines import ACQUIRED, BORDERS
from osteoscope.imaging import look, scan_look
from osteoscope.storage import sha256_of_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from osteoscope.cohort.baselines import Features
    from osteoscope.cohort.measure import Progress
    from osteoscope.cohort.table import Cohort
    from osteoscope.config import RegionOfInterest
    from osteoscope.imaging.look import Look

SCHEMA = 1

COPIES_ACROSS_PATIENTS = frozenset({"duplicate-across-patients", "near-duplicate-across-patients"})
"""Kinds by which one patient may have been split into several."""

VERSION = f"{__version__}.6.{look.VERSION}.{scan_look.VERSION}.{candidates.VERSION}.{confirm.VERSION}"
"""Of all that is looked for, and of how images are compared: an audit of another version is made anew."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What the audit found.

    Parameters
    ----------
    findings
        What blocks first, then what warns.
    tables
        What the classes' patients are like.
    alone
        What single things tell of the label by themselves: those of
        `osteoscope.cohort.audit.shortcuts.hear_shortcuts`, and the clinical baselines by their names.
    features
        By image, what the borders of a picture are like, and how a CT or MR was acquired: for
        `osteoscope.cohort.baselines.baselines`.
    auxiliary_twins
        Auxiliary images that show the same picture as a case, so that none may teach.
    """

    findings: tuple[Finding, ...]
    tables: AuditTables
    alone: Mapping[str, Witness]
    features: Features = field(default_factory=dict)
    auxiliary_twins: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give ``{"schema", "findings": […], "tables": {…}, "alone": {NAME: {"sees", "auc", "apart", "models"}}}``."""
        return {
            "schema": SCHEMA,
            "findings": [finding.to_json() for finding in self.findings],
            "tables": self.tables.to_json(),
            "alone": {name: witness.to_json() for name, witness in self.alone.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Take an audit from what `to_json` gave; ``features`` and ``auxiliary_twins`` may be added to it."""
        return cls(
            findings=tuple(map(Finding.from_json, value["findings"])),
            tables=AuditTables.from_json(value["tables"]),
            alone={name: Witness.from_json(witness) for name, witness in value["alone"].items()},
            features=value.get("features", {}),
            auxiliary_twins=tuple(value.get("auxiliary_twins", ())),
        )


def audit(
    cohort: Cohort,
    *,
    roi: RegionOfInterest = "none",
    folds: int | None = 5,
    against: Cohort | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Look for all that would make a result on a cohort a lie.

    Parameters
    ----------
    cohort
        What is to be trained or measured on.
    roi
        What will be read of each image.
    folds
        Of the cross-validation of a network; None where one that is finished is evaluated.
    against
        Another cohort, such as the one that the network was trained on: no patient and no picture may be in both.
    progress
        Is told how many of how many images are seen; not where the same audit of the same content was made before.

    Raises
    ------
    ImageError
        If an image is missing or cannot be read any more.
    """
    key = _key_of(cohort, roi=roi, folds=folds, against=against)
    kept = known_audit(key, VERSION)
    if kept is not None:
        return Audit.from_json(kept)
    # Pictures are looked at and compared in threads of their own; those of the matrix library would only fight them.
    with threadpool_limits(limits=1):
        made = _audited(cohort, roi=roi, folds=folds, against=against, progress=progress)
    beside = {
        "features": {name: dict(known) for name, known in made.features.items()},
        "auxiliary_twins": list(made.auxiliary_twins),
    }
    keep_audit(key, VERSION, {**made.to_json(), **beside})
    return made


def audit_made_before(cohort: Cohort) -> Audit | None:
    """Give what `audit`, as it is called without further arguments, found of the same content before; else None."""
    kept = known_audit(_key_of(cohort, roi="none", folds=5, against=None), VERSION)
    return None if kept is None else Audit.from_json(kept)


def _key_of(cohort: Cohort, *, roi: RegionOfInterest, folds: int | None, against: Cohort | None) -> str:
    """Hash all that an audit follows from."""
    return sha256_of_text(json.dumps([_content(cohort), None if against is None else _content(against), roi, folds]))


def _content(cohort: Cohort) -> list[Any]:
    """Say what an audit depends on: the rows, and the files, whose format and size are looked at."""
    return [cohort.fingerprint(), sorted(cohort.frame["file_sha256"])]


def _audited(
    cohort: Cohort, *, roi: RegionOfInterest, folds: int | None, against: Cohort | None, progress: Progress | None
) -> Audit:
    looks = look_at(cohort, progress)
    of_image = {
        image: looks[pixels]
        for image, pixels in zip(cohort.case_rows["image"], cohort.case_rows["pixel_sha256"], strict=True)
    }
    twins = find_twins(cohort, looks)
    leaks = (*find_leaks(cohort), *twin_findings(cohort, twins))
    consistent = _of_one_label(cohort)
    shortcuts = hear_shortcuts(
        consistent,
        features={image: one.features for image, one in of_image.items()},
        words={image: one.words for image, one in of_image.items()},
    )
    confounders = hear_confounders(consistent)
    findings = (
        *leaks,
        *(() if against is None else _shared(cohort, looks, against)),
        *find_split_patients(
            cohort, copies_across_patients=any(finding.kind in COPIES_ACROSS_PATIENTS for finding in leaks)
        ),
        *find_shortcuts(consistent, shortcuts, roi=roi, trains=folds is not None),
        *find_confounders(consistent, confounders),
        *find_in_record(consistent),
        *find_too_small(consistent, folds=folds),
    )
    return Audit(
        findings=in_order(findings),
        tables=audit_tables(cohort),
        alone={**shortcuts, **confounders},
        features={
            image: {name: one.features[name] for name in (*BORDERS, *ACQUIRED) if name in one.features}
            for image, one in of_image.items()
        },
        auxiliary_twins=tuple(sorted(auxiliary_twins(cohort, twins))),
    )


def _of_one_label(cohort: Cohort) -> Cohort:
    """Leave out the patients of two labels, of whom a finding of their own says that they block."""
    cases = cohort.case_rows
    labels = cases.groupby("patient")["label"].nunique()
    torn = cohort.frame["patient"].isin(labels.index[labels > 1]) & (cohort.frame["role"] == "case")
    return replace(cohort, frame=cohort.frame[~torn])


def _shared(cohort: Cohort, looks: Mapping[str, Look], against: Cohort) -> tuple[Finding, ...]:
    twins = find_twins(cohort, looks, against=against, other_looks=look_at(against))
    return (
        *shared_with(cohort, set(against.frame["patient"]), set(against.frame["pixel_sha256"])),
        *twins_across(cohort, twins),
    )
