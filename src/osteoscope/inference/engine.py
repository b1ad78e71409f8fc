"""Running a bundle's graphs: planes in, readings out; readings of a patient in, a judgement out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from osteoscope.bundle.format import HEAD_GRAPH, INT8_GRAPH, PLANES_GRAPH, PLANES_OUTPUTS
from osteoscope.inference.runtimes import Graph, load_runtime, onnx_session, read_graph
from osteoscope.inference.trial import fastest_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.bundle.format import Precision
    from osteoscope.cohort.covariates import CovariateEncoder
    from osteoscope.config import Covariate
    from osteoscope.inference.runtimes import Runtime, RuntimeName


@dataclass(frozen=True, kw_only=True)
class PlaneReadings:
    """What one member reads from each plane by itself."""

    scores: NDArray[np.float32]
    """(planes,) gate scores."""
    vectors: NDArray[np.float32]
    """(planes, K) pooled maps."""
    maps: NDArray[np.float32]
    """(planes, classes, h, w) signed class maps, not yet weighted."""
    lesions: NDArray[np.float32]
    """(planes, h, w) likelihood of lesion at each place, 0..1."""

    def of(self, planes: Sequence[int]) -> PlaneReadings:
        """Take some of the planes, in the order given."""
        places = list(planes)
        return PlaneReadings(**{name: getattr(self, name)[places] for name in PLANES_OUTPUTS})

    def joined(self, other: PlaneReadings) -> PlaneReadings:
        """Put other planes behind these."""
        return PlaneReadings(
            **{name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in PLANES_OUTPUTS}
        )

    def weighed(self, added: NDArray[np.float32]) -> PlaneReadings:
        """Add to the planes' scores, (planes,)."""
        return replace(self, scores=self.scores + added)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one member says of a bag of planes."""

    logits: NDArray[np.float32]
    """(classes,)."""
    weights: NDArray[np.float32]
    """(planes,), sum 1."""


class MemberEngine:
    """One network of a bundle, ready to run.

    Parameters
    ----------
    folder
        Where ``planes.onnx`` and ``head.onnx`` lie.
    threads
        Of the processor; None takes every core that the process may use.
    runtime
        What runs the graph of planes; None takes the fastest here (`osteoscope.inference.trial`).
    precision
        ``int8`` takes the graph of planes in eight bits, where the bundle holds one.
    reader
        Gives a file's bytes, such as `osteoscope.bundle.load.Bundle.read`, by which they are those that the bundle's
        manifest names; None takes what is there.

    Raises
    ------
    BundleError
        If a graph cannot be loaded.
    ConfigError
        If the runtime is not to be had here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int | None = None,
        runtime: RuntimeName | None = None,
        precision: Precision = "float32",
        reader: Callable[[Path], bytes] | None = None,
    ) -> None:
        graph = _graph(folder / (INT8_GRAPH if precision == "int8" else PLANES_GRAPH), reader)
        self._planes: Runtime
        if runtime is None:
            self._planes = fastest_runtime(graph, threads=threads)
        else:
            self._planes = load_runtime(runtime, graph, threads=threads)
        # A few thousand products: more than one thread would wait for each other.
        self._head = onnx_session(_graph(folder / HEAD_GRAPH, reader), threads=1)
        self._takes_covariates = any(node.name == "covariates" for node in self._head.get_inputs())

    @property
    def runtime(self) -> RuntimeName:
        """What runs the graph of planes."""
        return self._planes.name

    def read(self, planes: NDArray[np.float32]) -> PlaneReadings:
        """Read planes of (planes, channels, size, size), some at a time; several threads may ask."""
        return PlaneReadings(**dict(zip(PLANES_OUTPUTS, self._planes.run(planes), strict=True)))

    def judge(self, readings: PlaneReadings, covariates: NDArray[np.float32] | None = None) -> Judgement:
        """Judge the planes of one patient together.

        Parameters
        ----------
        readings
            Of the patient's planes.
        covariates
            (covariates,), encoded; required by a network that takes them, else left aside.
        """
        inputs = {"scores": readings.scores, "vectors": readings.vectors}
        if self._takes_covariates:
            if covariates is None:
                msg = "this network takes covariates, got none"
                raise ValueError(msg)
            inputs["covariates"] = covariates[None].astype(np.float32)
        logits, weights = self._head.run(None, inputs)
        return Judgement(logits=logits, weights=weights)


def _graph(path: Path, reader: Callable[[Path], bytes] | None) -> Graph:
    return read_graph(path) if reader is None else Graph(path=path, content=reader(path))


class Patient(Protocol):
    """What may be known of a patient beside the images; see `osteoscope.cohort.table.Case`."""

    @property
    def age(self) -> float | None:
        """In years."""

    @property
    def sex(self) -> Literal["F", "M"] | None:
        """As it is recorded."""

    @property
    def site(self) -> str | None:
        """Body sites, joined by ``+``."""

    @property
    def level(self) -> str | None:
        """Levels of the spine, joined by ``+``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """A network and how it wants to be told of covariates."""

    engine: MemberEngine
    encoder: CovariateEncoder | None = None

    def told(self, patient: Patient) -> tuple[Covariate, ...]:
        """Name what of a patient the network is told: what it takes, as far as it is known, to the network as well."""
        if self.encoder is None:
            return ()
        return tuple(name for name in self.encoder.names if self.encoder.knows(name, getattr(patient, name)))

    def covariates(self, patient: Patient) -> NDArray[np.float32] | None:
        """Encode what is known of a patient: (covariates,), or None for a network that takes none."""
        if self.encoder is None:
            return None
        return self.encoder.encode(age=patient.age, sex=patient.sex, site=patient.site, level=patient.level)
