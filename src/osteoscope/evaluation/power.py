"""What a cohort of given size can show: the width of its intervals, and the smallest differences that it would find.

All that is asked of the data is how many patients each class has. Scores are taken to be binormal with equal spread in
both classes; what an AUC varies by depends little on that (Hanley & McNeil 1982).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from osteoscope.evaluation.intervals import LEVEL, Interval, Z, wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NORMAL = NormalDist()

ASSUMED_AUCS = (0.7, 0.8, 0.9, 0.95)
ASSUMED_SENSITIVITIES = (0.7, 0.8, 0.9)

_FEWEST = 5
"""Patients of a class below which an AUC is not near enough to normal for what is said here."""

_CLOSE = 1e-6
"""How closely an AUC is sought."""

_MOST_PATIENTS = 1_000_000


def auc_standard_error(auc: float, cases: int, others: int) -> float:
    """Give the standard error of the AUC of a class against the rest.

    From the exact variance of the Mann-Whitney statistic, ``(A (1 - A) + (m + n - 2) (Q - A^2)) / (m n)``. Q is the
    chance that two of one class both rank rightly against one of the other, for binormal scores of equal spread
    ``A - 2 T(z, 1 / sqrt 3)``, with z the normal quantile of A and T Owen's function.

    Parameters
    ----------
    auc
        Assumed to be true, in [0, 1].
    cases, others
        Patients of the class and of the rest, at least 1 each.

    References
    ----------
    Hanley JA, McNeil BJ. The meaning and use of the area under a receiver operating characteristic (ROC) curve.
    Radiology 1982;143:29-36, equation 1. Owen DB. Tables for computing bivariate normal probabilities. Ann Math Stat
    1956;27:1075-1090.
    """
    if not 0 <= auc <= 1 or cases < 1 or others < 1:
        msg = f"an AUC in [0, 1] and a patient on either side are needed, got {auc} with {cases} and {others}"
        raise ValueError(msg)
    if auc in {0, 1}:
        return 0.0
    from scipy.special import owens_t

    both = auc - 2 * float(owens_t(_NORMAL.inv_cdf(auc), 1 / math.sqrt(3)))
    return math.sqrt((auc * (1 - auc) + (cases + others - 2) * (both - auc**2)) / (cases * others))


def expected_interval(auc: float, cases: int, others: int) -> Interval:
    """Give the 95 % interval that an AUC is expected to have, on the logit scale as DeLong's; parameters as above.

    An AUC of 0 or 1 has no such interval: `ValueError`.
    """
    error = auc_standard_error(auc, cases, others)
    if error == 0:
        msg = f"an AUC between 0 and 1 is needed, got {auc}"
        raise ValueError(msg)
    from scipy.special import expit

    # Of few patients and an AUC near 1 half an interval is wider than what an exponential holds.
    middle, half = math.log(auc / (1 - auc)), Z * error / (auc * (1 - auc))
    return Interval(low=float(expit(middle - half)), high=float(expit(middle + half)))


def smallest_auc(cases: int, others: int, *, power: float = 0.8) -> float | None:
    """Give the smallest true AUC above 0.5 that a two-sided test at 5 % tells from 0.5 with this power.

    None where no AUC would be found. The AUC is taken as normal; its standard error under the hypothesis is that of
    `auc_standard_error` at 0.5, ``sqrt((m + n + 1) / (12 m n))``.

    Parameters
    ----------
    cases, others
        Patients of the class and of the rest.
    power
        In (0, 1).
    """
    under_null = Z * auc_standard_error(0.5, cases, others)

    def is_found(auc: float) -> bool:
        return auc - 0.5 >= under_null + _NORMAL.inv_cdf(power) * auc_standard_error(auc, cases, others)

    return _smallest(is_found, 0.5, 1.0)


def smallest_paired_difference(
    auc: float, cases: int, others: int, *, correlation: float = 0.5, power: float = 0.8
) -> float | None:
    """Give the smallest amount by which a second predictor's AUC must fall short to be told from this one's.

    By a paired, two-sided test at 5 % with this power; AUCs are taken as normal. None where no difference would be
    found.

    Parameters
    ----------
    auc
        Of the better predictor, in [0, 1].
    cases, others
        Patients of the class and of the rest.
    correlation
        Of the two AUCs over cohorts of this size, in [-1, 1); two predictors of the same patients err alike, so it is
        above 0 as a rule.
    power
        In (0, 1).

    References
    ----------
    Hanley JA, McNeil BJ. A method of comparing the areas under receiver operating characteristic curves derived from
    the same cases. Radiology 1983;148:839-843.
    """
    if not -1 <= correlation < 1:
        msg = f"the correlation must lie in [-1, 1), got {correlation}"
        raise ValueError(msg)
    better = auc_standard_error(auc, cases, others)

    def error(other: float) -> float:
        second = auc_standard_error(other, cases, others)
        return math.sqrt(better**2 + second**2 - 2 * correlation * better * second)

    def is_found(difference: float) -> bool:
        return difference >= Z * error(auc) + _NORMAL.inv_cdf(power) * error(auc - difference)

    return _smallest(is_found, 0.0, auc)


def _smallest(is_found: Callable[[float], bool], low: float, high: float) -> float | None:
    """Halve the range until the smallest value that would be found is known; None if not even the largest is."""
    if not is_found(high):
        return None
    while high - low > _CLOSE:
        middle = (low + high) / 2
        low, high = (low, middle) if is_found(middle) else (middle, high)
    return high


def patients_needed(width_of: Callable[[int], float], *, half_width: float) -> int | None:
    """Give the fewest patients at which an interval is no wider than twice this; None above a million.

    Parameters
    ----------
    width_of
        Width of the interval with n patients, falling with n.
    half_width
        Above 0.
    """
    enough = 1
    while width_of(enough) > 2 * half_width:
        enough *= 2
        if enough > _MOST_PATIENTS:
            return None
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (middle, enough) if width_of(middle) > 2 * half_width else (few, middle)
    return enough


# For a cohort ---------------------------------------------------------------------------------------------------------


def precision_and_power(
    counts: Mapping[str, int],
    auc: float | None = None,
    *,
    names: Mapping[str, str] | None = None,
    correlation: float = 0.5,
    power: float = 0.8,
    half_width: float = 0.05,
) -> dict[str, Any]:
    """Say what a cohort could have shown.

    Of more than two classes the rarest is taken against the rest, which is the least that the cohort can do.

    Parameters
    ----------
    counts
        Patients of each class, by slug.
    auc
        One that is of interest, such as the one observed: it is put beside the assumed ones. None, and what is not
        between 0.5 and 1, adds nothing.
    names
        Of the classes by slug, for the sentences; the slugs if left out.
    correlation
        Of the AUCs of two predictors of the same patients.
    power, half_width
        What is asked for.

    Returns
    -------
    A block that JSON can hold: ``{"counts", "level", "power", "correlation", "half_width", "class", "smallest_auc",
    "auc": [{"auc", "low", "high", "smallest_paired_difference", "needed_per_class"}], "sensitivity": [{"sensitivity",
    "of": {slug: {"low", "high"}}, "needed"}], "sentences"}``, where None means that there is no such number. Only
    ``{"counts", "reason"}`` if a class has fewer than five patients.
    """
    block: dict[str, Any] = {"counts": dict(counts)}
    if len(counts) < 2 or min(counts.values()) < _FEWEST:
        return {**block, "reason": f"it takes {_FEWEST} patients of each of two classes or more"}
    rarest = min(counts, key=lambda slug: counts[slug])
    cases, others = counts[rarest], sum(counts.values()) - counts[rarest]
    aucs = sorted({*ASSUMED_AUCS, *([auc] if auc is not None and 0.5 < auc < 1 else [])})
    block |= {
        "level": LEVEL,
        "power": power,
        "correlation": correlation,
        "half_width": half_width,
        "class": rarest,
        "smallest_auc": smallest_auc(cases, others, power=power),
        "auc": [
            _auc_row(one, cases, others, correlation=correlation, power=power, half_width=half_width) for one in aucs
        ],
        "sensitivity": [_sensitivity_row(one, counts, half_width) for one in ASSUMED_SENSITIVITIES],
    }
    return {**block, "sentences": _sentences(block, auc, names or {slug: slug for slug in counts})}


def _auc_row(
    auc: float, cases: int, others: int, *, correlation: float, power: float, half_width: float
) -> dict[str, Any]:
    ends = expected_interval(auc, cases, others)
    return {
        "auc": auc,
        "low": ends.low,
        "high": ends.high,
        "smallest_paired_difference": smallest_paired_difference(
            auc, cases, others, correlation=correlation, power=power
        ),
        "needed_per_class": patients_needed(lambda n: _width(expected_interval(auc, n, n)), half_width=half_width),
    }


def _sensitivity_row(sensitivity: float, counts: Mapping[str, int], half_width: float) -> dict[str, Any]:
    ends = {slug: wilson(sensitivity, count) for slug, count in counts.items()}
    return {
        "sensitivity": sensitivity,
        "of": {slug: {"low": one.low, "high": one.high} for slug, one in ends.items()},
        "needed": patients_needed(lambda n: _width(wilson(sensitivity, n)), half_width=half_width),
    }


def _width(ends: Interval) -> float:
    return ends.high - ends.low


def _sentences(block: Mapping[str, Any], auc: float | None, names: Mapping[str, str]) -> list[str]:
    """Say the main of it in plain words."""
    row = min(block["auc"], key=lambda one: abs(one["auc"] - (auc or 0.8)))
    difference, smallest = row["smallest_paired_difference"], block["smallest_auc"]
    patients = " and ".join(f"{count} of {names[slug]}" for slug, count in block["counts"].items())
    rarest, sensitivity = block["class"], block["sensitivity"][1]
    against = f" of {names[rarest]} against the rest" if len(block["counts"]) > 2 else ""
    ends = sensitivity["of"][rarest]
    found = "no AUC at all" if smallest is None else f"a true AUC of {smallest:.2f} or more"
    told = "no other AUC" if difference is None else f"one lower by {difference:.2f} or more"
    return [
        f"With patients as many as here ({patients}), a true AUC of {row['auc']:.2f}{against} is expected to be "
        f"measured with a 95 % interval of {row['low']:.2f} to {row['high']:.2f}.",
        f"With a power of {_percent(block['power'])}, {found} would have been told from guessing; beside an AUC of "
        f"{row['auc']:.2f}, {told} would have been told from it on the same patients.",
        f"A measured sensitivity of {_percent(sensitivity['sensitivity'])} for {names[rarest]} has a 95 % interval of "
        f"{_percent(ends['low'])} to {_percent(ends['high'])}; one that is known to within "
        f"{_percent(block['half_width'])} either way takes {sensitivity['needed']} patients of that class.",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
