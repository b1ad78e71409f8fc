"""What is known of a patient beside the image, as numbers; fitted on training cases, used again at prediction.

Each covariate may be missing: it then gives zeros, and an indicator says so, so nothing here is ever NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np

from osteoscope.cohort.sites import split_sites

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case
    from osteoscope.config import Covariate

_NAMES: tuple[Covariate, ...] = ("age", "sex", "site", "level")

NEARLY_ALL = 0.8
"""Share of the patients of each class of whom a covariate is known, from which on networks are told it by default."""

FEWEST_FOR_KNOTS = 30
"""Known ages from which on age may bend: a class that is neither the younger nor the older one is told apart then."""

_KNOTS = (1 / 3, 2 / 3)
"""Quantiles of the training cases' ages."""


@dataclass(frozen=True, kw_only=True)
class CovariateEncoder:
    """Turns age, sex, body site and level of the spine into one vector, in the order of `names`.

    Parameters
    ----------
    names
        What is encoded. ``age``: standardised, 1 where it is missing, and for each knot the years beyond it, less their
        mean, in standard deviations: so a weight of each makes a line that bends at the knots. ``sex``: 1 for F, 1 for
        M, both 0 where missing. ``site``: 1 for each site of the training cases that is named, and 1 where none of them
        is. ``level``: the same of levels of the spine.
    age_mean, age_sd
        Mean and standard deviation of the known ages of the training cases, in years.
    sites, levels
        Those of the training cases, sorted.
    age_knots
        Ages at which the line may bend, and the mean over the training cases of the years beyond each.

    Raises
    ------
    ValueError
        If a name is unknown or given twice, or the standard deviation is not positive.
    """

    names: tuple[Covariate, ...]
    age_mean: float
    age_sd: float
    sites: tuple[str, ...]
    levels: tuple[str, ...] = ()
    age_knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names) or not set(self.names) <= set(_NAMES):
            msg = f"expected covariates among {_NAMES}, each once, got {self.names}"
            raise ValueError(msg)
        if not (math.isfinite(self.age_mean) and math.isfinite(self.age_sd) and self.age_sd > 0):
            msg = f"expected a finite mean age and a positive standard deviation, got {self.age_mean}, {self.age_sd}"
            raise ValueError(msg)
        if not all(len(knot) == 2 and all(map(math.isfinite, knot)) for knot in self.age_knots):
            msg = f"expected pairs of finite numbers as knots, got {self.age_knots}"
            raise ValueError(msg)

    @classmethod
    def fit(cls, cases: Iterable[Case], names: Sequence[Covariate]) -> Self:
        """Learn the scale of age and the names of sites and levels from training cases, one patient each."""
        known = list(cases)
        ages = [case.age for case in known if case.age is not None]
        return cls(
            names=tuple(names),
            age_mean=float(np.mean(ages)) if ages else 0.0,
            # One age, or one value of it, has no scale of its own.
            age_sd=float(np.std(ages)) if len(set(ages)) > 1 else 1.0,
            sites=_named(case.site for case in known),
            levels=_named(case.level for case in known),
            age_knots=_knots(ages),
        )

    @property
    def size(self) -> int:
        """Length of the vector; 0 where nothing is encoded."""
        sizes = {"age": 2 + len(self.age_knots), "sex": 2, "site": len(self.sites) + 1, "level": len(self.levels) + 1}
        return sum(sizes[name] for name in self.names)

    def knows(self, name: Covariate, value: float | str | None) -> bool:
        """Tell whether a value says more than that nothing is known: of a site or level, if a training case had it."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return False
        known = {"site": self.sites, "level": self.levels}.get(name)
        return known is None or any(one in known for one in split_sites(str(value)))

    def encode(
        self,
        age: float | None = None,
        sex: Literal["F", "M"] | None = None,
        site: str | None = None,
        level: str | None = None,
    ) -> NDArray[np.float32]:
        """Encode one patient.

        Parameters
        ----------
        age
            In years; `None` or NaN where it is not known.
        sex
            `None` where it is not known.
        site, level
            One, or several joined by ``+``; `None` where it is not known.

        Returns
        -------
        float32 ``(size,)``, without NaN.

        Raises
        ------
        ValueError
            If the age is infinite, or the sex is neither F nor M.
        """
        parts = {
            "age": self._encode_age(age),
            "sex": _encode_sex(sex),
            "site": _encode_names(site, self.sites),
            "level": _encode_names(level, self.levels),
        }
        return np.array([value for name in self.names for value in parts[name]], dtype=np.float32)

    def _encode_age(self, age: float | None) -> list[float]:
        if age is None or math.isnan(age):
            return [0.0, 1.0, *(0.0 for _ in self.age_knots)]
        if math.isinf(age):
            msg = f"expected an age in years, got {age}"
            raise ValueError(msg)
        beyond = ((max(0.0, age - knot) - mean) / self.age_sd for knot, mean in self.age_knots)
        return [(age - self.age_mean) / self.age_sd, 0.0, *beyond]

    def to_json(self) -> dict[str, Any]:
        """Give the encoder as a value that JSON can hold."""
        return {
            "names": list(self.names),
            "age_mean": self.age_mean,
            "age_sd": self.age_sd,
            "sites": list(self.sites),
            "levels": list(self.levels),
            "age_knots": [list(knot) for knot in self.age_knots],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Take an encoder from what `to_json` gave.

        Raises
        ------
        ValueError
            If a field is missing, unknown or of another kind.
        """
        try:
            names, sites = tuple(map(str, value["names"])), tuple(map(str, value["sites"]))
            # An encoder of before there were levels has none.
            levels = tuple(map(str, value.get("levels", ())))
            mean, sd = float(value["age_mean"]), float(value["age_sd"])
            # Nor does one of before age could bend have knots.
            knots = tuple((float(knot), float(beyond)) for knot, beyond in value.get("age_knots", ()))
        except (KeyError, TypeError) as error:
            msg = f"expected a covariate encoder with names, age_mean, age_sd and sites, got {value!r}"
            raise ValueError(msg) from error
        return cls(
            names=cast("tuple[Covariate, ...]", names),
            age_mean=mean,
            age_sd=sd,
            sites=sites,
            levels=levels,
            age_knots=knots,
        )


def _knots(ages: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Find where age may bend, and the mean of the years beyond; nowhere where there are few ages."""
    if len(ages) < FEWEST_FOR_KNOTS:
        return ()
    places = sorted(set(np.quantile(ages, _KNOTS).tolist()))
    # Beyond the highest age there is nothing.
    return tuple((place, float(np.maximum(0, np.array(ages) - place).mean())) for place in places if place < max(ages))


def recorded_covariates(cases: Iterable[Case]) -> tuple[Covariate, ...]:
    """Name what is known of nearly all patients of each class; whether it is known then tells little of the class."""
    known = list(cases)
    classes = [[case for case in known if case.label == label] for label in {case.label for case in known}]
    return tuple(
        name
        for name in _NAMES
        if classes
        and all(sum(getattr(case, name) is not None for case in own) >= NEARLY_ALL * len(own) for own in classes)
    )


def _encode_sex(sex: str | None) -> list[float]:
    if sex not in (None, "F", "M"):
        msg = f"expected F, M or nothing as sex, got {sex!r}"
        raise ValueError(msg)
    return [float(sex == "F"), float(sex == "M")]


def _named(values: Iterable[str | None]) -> tuple[str, ...]:
    """Give all names that are joined in some values, sorted."""
    return tuple(sorted({name for value in values for name in split_sites(value)}))


def _encode_names(value: str | None, known: Sequence[str]) -> list[float]:
    """Tell which of the known names a value holds, and whether it holds none."""
    named = set(split_sites(value))
    seen = [float(name in named) for name in known]
    return [*seen, float(not any(seen))]
