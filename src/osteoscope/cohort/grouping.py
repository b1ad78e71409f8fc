"""The coarsest plausible patients: what the figures would rest on if people who look alike were one person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    import pandas as pd

    from osteoscope.cohort.table import Cohort
    from osteoscope.evaluation.arrays import IntArray


ALIKE = ("age", "sex", "site", "level")
"""What is recorded of people who may be one."""


def coarsest_groups(cohort: Cohort) -> dict[str, str]:
    """Join the patients of the folds who may be one person.

    Two patients are joined if an image of the one and an image of the other have the same label, age in whole years,
    sex, body site and level of the spine; an unknown sex, site or level equals another unknown one, and an image
    without an age joins nobody.
    Joining carries on: whoever is joined to one of a group is of the group.

    Returns
    -------
    For each patient of the cases the name of the group: the pseudonym of its first patient.
    """
    rows = cohort.case_rows
    patients, patient = np.unique(rows["patient"].to_numpy(dtype=str), return_inverse=True)
    alike = _alike(rows)
    known = alike >= 0
    # Patients and appearances are the two sides of a graph; each image joins its patient to what it looks like.
    size = len(patients) + len(rows)
    edges = (np.ones(int(known.sum())), (patient[known], len(patients) + alike[known]))
    group = connected_components(coo_array(edges, shape=(size, size)), directed=False)[1][: len(patients)]
    first = {int(label): str(patients[np.argmax(group == label)]) for label in np.unique(group)}
    return {str(name): first[int(label)] for name, label in zip(patients, group, strict=True)}


def _alike(rows: pd.DataFrame) -> IntArray:
    """Give each image the number of what its patient looks like, -1 where no age is known: shape (n,)."""
    traits = rows[["label", *ALIKE]].assign(age=rows["age"].round())
    numbers = traits.groupby(list(traits), dropna=False).ngroup().to_numpy(dtype=np.int64)
    return np.where(rows["age"].notna().to_numpy(), numbers, -1)
