"""Running a bundle's graphs with onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from osteoscope.bundle.format import HEAD_GRAPH, PLANES_GRAPH, PLANES_OUTPUTS
from osteoscope.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


# Planes that are computed at once: enough to keep the processor busy, few enough to bound memory.
MICRO_BATCH = 16


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
        Of the processor; None leaves the choice to onnxruntime.

    Raises
    ------
    BundleError
        If a graph cannot be loaded.
    """

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        self._planes = _session(folder / PLANES_GRAPH, threads)
        self._head = _session(folder / HEAD_GRAPH, threads)
        self._takes_covariates = any(node.name == "covariates" for node in self._head.get_inputs())

    def read(self, planes: NDArray[np.float32]) -> PlaneReadings:
        """Read planes of (planes, channels, size, size), in micro-batches."""
        starts = range(0, len(planes), MICRO_BATCH)
        parts = [self._planes.run(PLANES_OUTPUTS, {"planes": planes[start : start + MICRO_BATCH]}) for start in starts]
        outputs = (np.concatenate(part) for part in zip(*parts, strict=True))
        return PlaneReadings(**dict(zip(PLANES_OUTPUTS, outputs, strict=True)))

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


def _session(graph: Path, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what it warns of is no concern of an operator
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    # onnxruntime raises bare RuntimeError subclasses and, for some damage, its own Fail, all derived from Exception.
    except Exception as error:
        raise BundleError(
            f"cannot be loaded by onnxruntime: {str(error).splitlines()[0]}", path=graph, remedy="export it again"
        ) from error
