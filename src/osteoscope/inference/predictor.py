"""A bundle at work: a case in, calibrated probabilities, a verdict and evidence out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.cohort.covariates import CovariateEncoder
from osteoscope.evaluation.conformal import Refused
from osteoscope.inference.engine import MemberEngine
from osteoscope.inference.predict import Member, predict_case, prepare_case

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    bundle: Bundle, *, preparation: PreparationConfig | None = None, threads: int | None = None
) -> Predictor:
    """Load a bundle's graphs.

    Parameters
    ----------
    bundle
        Verified.
    preparation
        To read images otherwise than the bundle was trained to; None keeps to the bundle.
    threads
        Of the processor; None leaves the choice to onnxruntime.

    Raises
    ------
    BundleError
        If a graph cannot be loaded.
    """
    manifest = bundle.manifest
    members = tuple(
        Member(
            engine=MemberEngine(bundle.folder / member.folder, threads=threads),
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


def verdicts_of(probabilities: NDArray[np.float64], conformal: ConformalThresholds | Refused) -> NDArray[np.int64]:
    """Give verdicts by the prediction sets; where those were refused, the most probable class: (n,).

    -1 stands for indeterminate.
    """
    if isinstance(conformal, Refused):
        most_probable: NDArray[np.int64] = np.argmax(probabilities, axis=1).astype(np.int64)
        return most_probable
    return conformal.verdicts(probabilities)
