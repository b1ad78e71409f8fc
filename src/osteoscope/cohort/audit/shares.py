"""Of how many patients of each class something holds, and whether that depends on the class."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import fisher_exact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

BY_CHANCE = 0.01
"""A difference between classes that chance makes more often than this is not held to be one."""

_NEARLY_ALL, _HALF, _NEARLY_NONE = 0.9, 0.5, 0.1


@dataclass(frozen=True, kw_only=True)
class ClassShares:
    """Patients of each class, and those of whom something holds; classes without patients are left out."""

    held: Mapping[str, int]
    patients: Mapping[str, int]

    @classmethod
    def of(cls, holds: pd.Series, labels: pd.Series, classes: Sequence[str]) -> ClassShares:
        """Count patients.

        Parameters
        ----------
        holds
            Whether it holds of each patient.
        labels
            Their classes, in the same order.
        classes
            Of the cohort.
        """
        patients = {name: int((labels == name).sum()) for name in classes}
        present = [name for name in classes if patients[name]]
        return cls(
            held={name: int(holds[labels == name].sum()) for name in present},
            patients={name: patients[name] for name in present},
        )

    @property
    def anybody(self) -> bool:
        """Whether it holds of anybody."""
        return any(self.held.values())

    def p_value(self) -> float:
        """Give the chance of so great a difference between two classes, if there were none.

        The least p-value of Fisher's exact test over all pairs of classes, times the number of pairs; 1 for one class.
        """
        pairs = list(combinations(self.held, 2))
        return min([1.0, *(self._p_value(first, second) * len(pairs) for first, second in pairs)])

    def _p_value(self, first: str, second: str) -> float:
        table = [[self.held[name], self.patients[name] - self.held[name]] for name in (first, second)]
        return float(fisher_exact(np.array(table)).pvalue)

    def differ(self, *, by: float) -> bool:
        """Whether two classes' shares differ by so much at least, and by more than chance."""
        least, most = self._extremes()
        return most - least >= by and self.p_value() < BY_CHANCE

    def tell_apart(self) -> bool:
        """Whether it holds of nearly all patients of a class, and of nearly none of another."""
        least, most = self._extremes()
        return most >= _NEARLY_ALL and least <= _NEARLY_NONE and self.p_value() < BY_CHANCE

    def is_of_some_classes(self) -> bool:
        """Whether it holds of half of the patients of a class at least, and of nobody of another."""
        least, most = self._extremes()
        return most >= _HALF and least == 0

    def _extremes(self) -> tuple[float, float]:
        shares = [self.held[name] / self.patients[name] for name in self.held]
        return min(shares, default=0.0), max(shares, default=0.0)

    def sentence(self) -> str:
        """List the shares."""
        parts = [f"{self.held[name]} of {self.patients[name]} patients of {name!r}" for name in self.held]
        return ", ".join(parts)
