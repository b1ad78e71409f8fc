"""A figure with its interval: Wilson's for proportions, the BCa bootstrap over patients for everything else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.evaluation.arrays import names_as_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from osteoscope.evaluation.arrays import FloatArray, IntArray

LEVEL = 0.95
"""The level of every interval."""

_BLOCK = 1_000_000
"""Weights that are held at a time, as rows times draws: about 8 MB an array."""

_SAME = 1e-12
"""Draws that spread less than this are the same figure, and a draw that is this close to the figure equals it."""

_PERCENTILES = "percentiles of the bootstrap, since BCa is undefined"

_NORMAL = NormalDist()

Z = _NORMAL.inv_cdf((1 + LEVEL) / 2)
"""Standard errors on either side of an estimate that is normal: 1.96."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure, its 95 % interval and the number of patients it rests on."""

    value: float | None
    """None where the figure is undefined (0/0, or a class without patients)."""
    low: float | None = None
    high: float | None = None
    n: int
    """Patients, however many rows each has."""
    reason: str | None = None
    """Why there is no value, or no interval."""
    note: str | None = None
    """How the interval was made, where it could not be made in the usual way."""

    def to_json(self) -> dict[str, Any]:
        """Give ``{"value", "low", "high", "n"}``, with ``"reason"`` or ``"note"`` where there is one."""
        block: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        extra = {"reason": self.reason, "note": self.note}
        return {**block, **{name: text for name, text in extra.items() if text is not None}}


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The two ends of an interval."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Patients:
    """Which patient each row belongs to, and each patient's class."""

    names: tuple[str, ...]
    """Sorted, length P."""
    row: IntArray
    """For each row the index of its patient, shape (n,)."""
    label: IntArray
    """For each patient the index of the class, shape (P,)."""


def group_patients(patients: Sequence[str], labels: IntArray) -> Patients:
    """Gather rows into patients.

    Parameters
    ----------
    patients
        The patient of each row, length n.
    labels
        The class of each row, shape (n,).

    Raises
    ------
    ValueError
        If the lengths differ, or a patient has rows of two classes. The patient is not named.
    """
    names, row = names_as_index(patients, rows=len(labels))
    label = np.zeros(len(names), dtype=np.int64)
    label[row] = labels
    torn = np.unique(row[label[row] != labels])
    if torn.size:
        msg = f"a patient must have one label, got {torn.size} patients with two or more"
        raise ValueError(msg)
    return Patients(names=tuple(names), row=row, label=label)


def wilson(share: float, n: int, *, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a proportion.

    Parameters
    ----------
    share
        The proportion, in [0, 1].
    n
        What it is a proportion of: patients, where rows of one patient go together; at least 1.
    level
        Between 0 and 1.

    References
    ----------
    Wilson EB. Probable inference, the law of succession, and statistical inference. J Am Stat Assoc 1927;22:209-212.
    """
    if not 0 <= share <= 1 or n < 1:
        msg = f"a share in [0, 1] of at least one patient is needed, got {share} of {n}"
        raise ValueError(msg)
    z = _NORMAL.inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and at 1 the formula gives the end itself but for rounding.
    return Interval(
        low=0.0 if share == 0 else max(0.0, centre - half), high=1.0 if share == 1 else min(1.0, centre + half)
    )


def draw_patients(label: IntArray, *, draws: int, seed: int) -> IntArray:
    """Draw patients with replacement, class by class, so that each draw has as many of each class as there are.

    Parameters
    ----------
    label
        The class of each patient, shape (P,).
    draws
        How many draws, at least 1.
    seed
        Of numpy's default generator; the same seed gives the same draws.

    Returns
    -------
    How often each patient was drawn, shape (draws, P).
    """
    if draws < 1:
        msg = f"at least one draw is needed, got {draws}"
        raise ValueError(msg)
    generator = np.random.default_rng(seed)
    counts = np.zeros((draws, len(label)), dtype=np.int64)
    for stratum in np.unique(label):
        members = np.flatnonzero(label == stratum)
        # Each draw counts in cells of its own, so that one count serves all draws.
        cells = generator.integers(members.size, size=(draws, members.size))
        cells += members.size * np.arange(draws)[:, None]
        counts[:, members] = np.bincount(cells.ravel(), minlength=cells.size).reshape(cells.shape)
    return counts


def weight_blocks(patients: Patients, *, draws: int, seed: int) -> Iterator[FloatArray]:
    """Give the bootstrap's weights of the rows, in blocks that fit in memory.

    All rows of a patient (views, repeats) carry the same weight: how often the patient was drawn.

    Yields
    ------
    Weights of shape (draws in this block, n); the blocks together hold `draws` rows.
    """
    counts = draw_patients(patients.label, draws=draws, seed=seed)
    for part in _blocks(draws, patients):
        yield counts[part, patients.row].astype(np.float64)


def left_out_blocks(patients: Patients) -> Iterator[FloatArray]:
    """Give the jackknife's weights of the rows, in blocks that fit in memory: each leaves one patient out.

    Yields
    ------
    Weights 0 and 1 of shape (patients in this block, n); the blocks together hold a row for each of P patients.
    """
    everyone = np.arange(len(patients.names))
    for part in _blocks(everyone.size, patients):
        yield (everyone[part, None] != patients.row).astype(np.float64)


def _blocks(count: int, patients: Patients) -> Iterator[slice]:
    step = max(1, _BLOCK // len(patients.row))
    return (slice(start, start + step) for start in range(0, count, step))


def jackknife_acceleration(left_out: FloatArray, label: IntArray) -> FloatArray:
    """Say how fast a figure's standard error changes with the figure, as the BCa interval needs it.

    The form for several samples, since the bootstrap draws each class by itself: with l the empirical influence of
    patient j of class s, (n_s - 1) (mean of the class's left-out figures - left-out figure of j), it is one sixth of
    sum(l^3 / n_s^3) over the 3/2 power of sum(l^2 / n_s^2).

    Parameters
    ----------
    left_out
        The figure without each patient, NaN where undefined, shape (P,) or (P, figures).
    label
        The class of each patient, shape (P,).

    Returns
    -------
    Shape () or (figures,); NaN where a left-out figure is undefined, or none differs from another of its class.

    References
    ----------
    Efron B. Better bootstrap confidence intervals. J Am Stat Assoc 1987;82:171-185. Efron B, Tibshirani RJ. An
    introduction to the bootstrap. 1993, equation 15.36 (several samples).
    """
    squares, cubes = np.zeros(left_out.shape[1:]), np.zeros(left_out.shape[1:])
    for stratum in np.unique(label):
        # Summed along memory, a figure gives the same bits alone and among others.
        values = np.ascontiguousarray(left_out[label == stratum].T)
        count = values.shape[-1]
        share = (count - 1) / count * (values.mean(axis=-1, keepdims=True) - values)
        squares += (share**2).sum(axis=-1)
        cubes += (share**3).sum(axis=-1)
    # Figures that differ by rounding alone would give an acceleration of noise.
    varied = np.sqrt(squares) > _SAME
    return np.divide(cubes, 6 * squares**1.5, out=np.full_like(squares, np.nan), where=varied)


def mean_figure(values: FloatArray, patients: Patients, *, draws: int, seed: int, bounded: bool = True) -> Figure:
    """Give the mean of rows with the percentiles of a bootstrap over patients; `bounded` as for `bootstrap_figure`."""
    blocks = weight_blocks(patients, draws=draws, seed=seed)
    drawn = np.concatenate([weights @ values / weights.sum(axis=1) for weights in blocks])
    everyone = len(patients.names)
    return bootstrap_figure(float(values.mean()), drawn, n=everyone, smallest=everyone, bounded=bounded)


def bootstrap_figure(
    value: float,
    draws: FloatArray,
    *,
    n: int,
    smallest: int,
    bounded: bool = True,
    acceleration: float | FloatArray | None = None,
) -> Figure:
    """Set a value beside the interval that its bootstrap draws give.

    With an acceleration that is the BCa interval: percentiles moved so as to allow for the bias of the draws (draws
    equal to the value counting a half) and for a standard error that changes with the figure. Without one it is the
    plain percentiles, and so it is where BCa is undefined; then the figure has a note.

    Draws in which the figure is undefined are left out. Where every draw gives the same figure the percentiles would
    claim a certainty that few patients cannot give: at 0 or 1 the interval is then Wilson's with the patients of the
    smallest class, which for an AUC is what the least favourable scores would need; elsewhere there is none.

    Parameters
    ----------
    value
        The figure on all patients.
    draws
        The same figure on each draw, NaN where undefined, shape (draws,).
    n
        Patients that the figure rests on.
    smallest
        Patients of the smallest class that takes part.
    bounded
        Whether the figure lives in [0, 1].
    acceleration
        What `jackknife_acceleration` gives for this figure; None for percentiles.

    References
    ----------
    Efron B. Better bootstrap confidence intervals. J Am Stat Assoc 1987;82:171-185.
    """
    known = draws[~np.isnan(draws)]
    if known.size < len(draws) / 2:
        return Figure(value=value, n=n, reason="no interval: undefined in more than half of the draws")
    if float(np.ptp(known)) < _SAME:
        if bounded and value in {0.0, 1.0}:
            return extreme_figure(value, n=n, smallest=smallest)
        return Figure(value=value, n=n, reason="no interval: every draw gives the same figure")
    if smallest < 2:
        return Figure(value=value, n=n, reason="no interval: a class has a single patient")
    levels, note = (0.5 - LEVEL / 2, 0.5 + LEVEL / 2), None
    if acceleration is not None:
        moved = _bca_levels(value, known, float(acceleration))
        levels, note = (levels, _PERCENTILES) if moved is None else (moved, None)
    low, high = np.quantile(known, levels).tolist()
    # The percentiles of a biased statistic can miss it in small samples; an interval that does so would mislead.
    return Figure(value=value, low=min(low, value), high=max(high, value), n=n, note=note)


def _bca_levels(value: float, draws: FloatArray, acceleration: float) -> tuple[float, float] | None:
    """Give the levels at which BCa reads the draws; None where bias or acceleration are undefined or too large."""
    ties = np.abs(draws - value) <= _SAME
    below = (np.count_nonzero((draws < value) & ~ties) + np.count_nonzero(ties) / 2) / draws.size
    if math.isnan(acceleration) or not 0 < below < 1:
        return None
    bias = _NORMAL.inv_cdf(below)
    room = [1 - acceleration * (bias + z) for z in (-Z, Z)]
    if min(room) <= 0:
        return None
    low, high = (_NORMAL.cdf(bias + (bias + z) / r) for z, r in zip((-Z, Z), room, strict=True))
    return low, high


def extreme_figure(value: float, *, n: int, smallest: int) -> Figure:
    """Give a figure of exactly 0 or 1, of which neither draws nor a variance tell an interval, Wilson's interval.

    Parameters
    ----------
    value
        0 or 1.
    n
        Patients that the figure rests on.
    smallest
        Patients of the smallest class that takes part: what Wilson's interval counts.
    """
    ends = wilson(value, smallest)
    patients = "1 patient" if smallest == 1 else f"{smallest} patients"
    note = f"Wilson's interval with {patients}, since nothing varies at {value:g}"
    return Figure(value=value, low=ends.low, high=ends.high, n=n, note=note)
