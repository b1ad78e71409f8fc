"""A bundle at work: a case in, calibrated probabilities, a verdict and evidence out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.cohort.covariates import CovariateEncoder
from osteoscope.errors import BundleError
from osteoscope.evaluation.conformal import Refused
from osteoscope.inference.engine import Member, MemberEngine
from osteoscope.inference.predict import predict_case, prepare_case
from osteoscope.inference.runtimes import INT8_RUNTIME

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from osteoscope.bundle.format import Precision
    from osteoscope.bundle.load import Bundle
    from osteoscope.cohort.table import Case
    from osteoscope.config import PreparationConfig
    from osteoscope.evaluation.calibration import CalibrationMap
    from osteoscope.evaluation.conformal import ConformalThresholds
    from osteoscope.inference.prediction import ExplainedCase


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """A bundle whose graphs are loaded."""

    members: tuple[Member, ...]
    preparation: PreparationConfig
    calibration: CalibrationMap
    conformal: ConformalThresholds | Refused

    def explain(self, case: Case) -> ExplainedCase:
        """Read a patient's images.

        Raises
        ------
        ImageError
            If an image cannot be read.
        InputError
            If a lesion is needed and none is annotated.
        """
        return predict_case(case, prepare_case(case, self.preparation), self.members)


def load_predictor(
    bundle: Bundle,
    *,
    preparation: PreparationConfig | None = None,
    threads: int | None = None,
    precision: Precision = "float32",
) -> Predictor:
    """Load a bundle's graphs.

    Parameters
    ----------
    bundle
        Verified.
    preparation
        To read images otherwise than the bundle was trained to; None keeps to the bundle.
    threads
        Of the processor; None takes every core that the process may use.
    precision
        ``int8`` runs the networks in eight bits, on `osteoscope.inference.runtimes.INT8_RUNTIME`.

    Raises
    ------
    BundleError
        If a graph cannot be loaded, or eight bits are not offered.
    ConfigError
        If OpenVINO is not installed and eight bits are asked for.
    """
    manifest = bundle.manifest
    if precision == "int8":
        _refuse_without_int8(bundle)
    members = tuple(
        Member(
            engine=MemberEngine(
                bundle.folder / member.folder,
                threads=threads,
                runtime=INT8_RUNTIME if precision == "int8" else None,
                precision=precision,
                reader=bundle.read,
            ),
            encoder=None if member.covariates is None else CovariateEncoder.from_json(member.covariates),
        )
        for member in manifest.members
    )
    return Predictor(
        members=members,
        preparation=preparation or manifest.preparation,
        calibration=manifest.calibration_map(),
        conformal=manifest.verdicts.conformal(),
    )


def _refuse_without_int8(bundle: Bundle) -> None:
    if bundle.manifest.offers_int8:
        return
    found = bundle.manifest.int8
    reason = "that was never tried" if found is None else found.reason
    remedy = "leave --int8 out" + (", or export the run with --int8" if found is None else "")
    raise BundleError(f"offers no eight bits: {reason}", path=bundle.folder, remedy=remedy)


def verdicts_of(probabilities: NDArray[np.float64], conformal: ConformalThresholds | Refused) -> NDArray[np.int64]:
    """Give verdicts by the prediction sets; where those were refused, the most probable class: (n,).

    -1 stands for indeterminate.
    """
    if isinstance(conformal, Refused):
        most_probable: NDArray[np.int64] = np.argmax(probabilities, axis=1).astype(np.int64)
        return most_probable
    return conformal.verdicts(probabilities)
