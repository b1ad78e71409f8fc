"""The distributions that patients are drawn from; each can draw a value and tell how likely a value is.

What is drawn and what is scored come from one object, so that a likelihood cannot drift away from what was drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from numpy.random import Generator

T = TypeVar("T")


class Distribution(Protocol[T]):
    """Of one value: a probability if it is discrete, a density otherwise."""

    def draw(self, rng: Generator) -> T:
        """Draw a value."""
        ...

    def log_density(self, value: T) -> float:
        """Natural logarithm of the probability or density of a value; -inf where it cannot occur."""
        ...


@dataclass(frozen=True)
class Choice(Generic[T]):
    """One of several values, with probabilities in proportion to the weights."""

    weights: tuple[tuple[T, float], ...]

    def __post_init__(self) -> None:
        if not self.weights or min(weight for _, weight in self.weights) < 0 or self.total <= 0:
            msg = f"expected weights of at least 0, one of them above 0, got {self.weights}"
            raise ValueError(msg)

    @property
    def total(self) -> float:
        """Sum of the weights."""
        return math.fsum(weight for _, weight in self.weights)

    def probability(self, value: T) -> float:
        """Probability of a value; 0 if it is none of those that can be drawn."""
        return math.fsum(weight for known, weight in self.weights if known == value) / self.total

    def draw(self, rng: Generator) -> T:
        """Draw a value."""
        chance = rng.random() * self.total
        for value, weight in self.weights:
            chance -= weight
            if chance < 0:
                return value
        return self.weights[-1][0]

    def log_density(self, value: T) -> float:
        """Natural logarithm of the value's probability."""
        probability = self.probability(value)
        return math.log(probability) if probability > 0 else -math.inf


def chance(probability: float) -> Choice[bool]:
    """Whether something is there, with this probability."""
    return Choice(((True, probability), (False, 1 - probability)))


def certain(value: T) -> Choice[T]:
    """Give what follows from other attributes: a value that cannot be another."""
    return Choice(((value, 1.0),))


@dataclass(frozen=True)
class CutNormals:
    """A mixture of normal distributions, cut to an interval as a whole.

    Parameters
    ----------
    parts
        Of each part its share, mean and standard deviation; the shares sum to 1.
    low, high
        Ends of the interval.
    """

    parts: tuple[tuple[float, float, float], ...]
    low: float
    high: float

    @property
    def mass(self) -> float:
        """How much of the mixture lies in the interval."""
        return math.fsum(
            share * (_normal_cdf((self.high - mean) / sd) - _normal_cdf((self.low - mean) / sd))
            for share, mean, sd in self.parts
        )

    def draw(self, rng: Generator) -> float:
        """Draw a value: draw from the whole mixture until one falls into the interval."""
        part = Choice(tuple((part, part[0]) for part in self.parts))
        while True:
            _, mean, sd = part.draw(rng)
            value = float(rng.normal(mean, sd))
            if self.low <= value <= self.high:
                return value

    def log_density(self, value: float) -> float:
        """Natural logarithm of the density."""
        if not self.low <= value <= self.high:
            return -math.inf
        density = math.fsum(share * _normal_density((value - mean) / sd) / sd for share, mean, sd in self.parts)
        return math.log(density / self.mass)


def cut_normal(mean: float, sd: float, low: float, high: float) -> CutNormals:
    """Cut a normal distribution to an interval."""
    return CutNormals(((1.0, mean, sd),), low, high)


@dataclass(frozen=True)
class CutLogNormal:
    """A log-normal distribution of a median and a standard deviation of the logarithm, cut to an interval."""

    median: float
    sd: float
    low: float
    high: float

    @property
    def _of_logarithm(self) -> CutNormals:
        return cut_normal(math.log(self.median), self.sd, math.log(self.low), math.log(self.high))

    def draw(self, rng: Generator) -> float:
        """Draw a value."""
        return min(max(math.exp(self._of_logarithm.draw(rng)), self.low), self.high)

    def log_density(self, value: float) -> float:
        """Natural logarithm of the density."""
        return self._of_logarithm.log_density(math.log(value)) - math.log(value) if value > 0 else -math.inf


@dataclass(frozen=True)
class Share:
    """A beta distribution stretched from `low` to `high`."""

    a: float
    b: float
    low: float = 0.0
    high: float = 1.0

    def draw(self, rng: Generator) -> float:
        """Draw a value."""
        return self.low + (self.high - self.low) * float(rng.beta(self.a, self.b))

    def log_density(self, value: float) -> float:
        """Natural logarithm of the density."""
        width = self.high - self.low
        share = (value - self.low) / width
        if not 0 < share < 1:
            return -math.inf
        norm = math.lgamma(self.a) + math.lgamma(self.b) - math.lgamma(self.a + self.b) + math.log(width)
        return (self.a - 1) * math.log(share) + (self.b - 1) * math.log1p(-share) - norm


def _normal_density(z: float) -> float:
    return math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))
