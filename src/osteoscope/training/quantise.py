"""A graph of planes in eight bits, and how far what it says is from what float32 says.

What goes into a convolution, and its weights, are rounded to 256 levels each (Jacob et al., CVPR 2018); normalisation,
sums and attention stay in float32. The levels of what goes in are fixed beforehand, from planes of training patients.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from osteoscope.bundle.format import INT8_GRAPH, Int8
from osteoscope.evaluation.calibration import softmax
from osteoscope.evaluation.metrics import overall_auc
from osteoscope.inference.engine import Member, MemberEngine
from osteoscope.inference.predict import predict_case, prepare_case
from osteoscope.inference.radiographs import prepare_radiographs
from osteoscope.inference.runtimes import INT8_RUNTIME
from osteoscope.storage import storage_error
from osteoscope.training.export import export_planes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case
    from osteoscope.config import PreparationConfig
    from osteoscope.network.classifier import TumourNetwork
    from osteoscope.training.fold import FoldOutcome

LARGEST_DROP = 0.005
"""Of the out-of-fold AUC: from here on eight bits are not offered."""

LEAST_CORRELATION = 0.95
"""Between the class maps of eight bits and of float32, mean over the patients."""

CALIBRATION_PLANES = 64
"""Planes of training patients that the levels are fixed from, at most."""

_AT_ONCE = 4


def quantise(network: TumourNetwork, folder: Path, *, planes: NDArray[np.float32]) -> None:
    """Write a network's graph of planes in eight bits beside that in float32.

    Parameters
    ----------
    network
        Fitted, in float32, on the CPU.
    folder
        Of the member.
    planes
        (planes, channels, size, size) of training patients, two or more.

    Raises
    ------
    StorageError
        If the operating system refuses.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch, _quiet_quantiser():
            plain, prepared = Path(scratch) / "plain.onnx", Path(scratch) / "prepared.onnx"
            # Not laid out for prediction: runtimes join the rounding with whole convolutions, not with sums of parts.
            export_planes(network, plain, example=planes[:2])
            quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(folder / INT8_GRAPH),
                _InSteps(planes),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["Conv"],
            )
    except OSError as error:
        raise storage_error(error, folder / INT8_GRAPH) from error


class _InSteps(CalibrationDataReader):  # type: ignore[misc]
    """Hands planes out a few at a time."""

    def __init__(self, planes: NDArray[np.float32]) -> None:
        starts = range(0, len(planes), _AT_ONCE)
        self._steps: Iterator[NDArray[np.float32]] = (planes[start : start + _AT_ONCE] for start in starts)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Give the next few, or None at the end."""
        step = next(self._steps, None)
        return None if step is None else {"planes": step}


@contextlib.contextmanager
def _quiet_quantiser() -> Iterator[None]:
    """Keep the quantiser's notes on axes and on what could be prepared better off the operator's terminal."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def calibration_planes(cases: Sequence[Case], preparation: PreparationConfig) -> NDArray[np.float32]:
    """Draw planes that a network reads of patients, as many of each: (planes, channels, size, size).

    Of radiographs with annotated lesions, those of the second look are among them.

    Raises
    ------
    ImageError
        If an image cannot be read any more.
    """
    rng = np.random.default_rng(0)
    drawn = [cases[place] for place in rng.permutation(len(cases))[:CALIBRATION_PLANES]]
    each = -(-CALIBRATION_PLANES // len(drawn))
    planes: list[NDArray[np.float32]] = []
    for number, case in enumerate(drawn):
        if preparation.modalities:
            # In turn, since a volume has many planes and a radiograph one.
            present = sorted({image.modality for image in case.images})
            turn = present[number % len(present)]
            own = tuple(image for image in case.images if image.modality == turn)
            read = _planes_of(replace(case, images=own), preparation)
        else:
            read = _planes_of(case, preparation)
        # By lot: the first of a volume shows its edge, and the first of a radiograph all of it.
        planes.extend(read[np.sort(rng.permutation(len(read))[:each])])
    return np.stack(planes[:CALIBRATION_PLANES])


def _planes_of(case: Case, preparation: PreparationConfig) -> NDArray[np.float32]:
    if not (preparation.second_look and all(image.lesions for image in case.images)):
        return prepare_case(case, preparation).first_planes()
    prepared = prepare_radiographs(case.images, preparation.given("outline"))
    return np.concatenate([prepared.planes, prepared.cut_regions(prepared.marked or ())])


def judge_int8(
    outcomes: Sequence[FoldOutcome],
    cases: Sequence[Case],
    preparation: PreparationConfig,
    folders: Sequence[Path],
    *,
    progress: Callable[[int, int], None],
) -> Int8:
    """Hold eight bits against float32 on the patients that each network never saw.

    Parameters
    ----------
    outcomes
        Of the folds whose networks are the members.
    cases
        Of the cohort that they were trained on.
    preparation
        Of the run.
    folders
        For each outcome, the folder of its member, with both graphs.
    progress
        Is told how many patients of how many are done.

    Raises
    ------
    ImageError
        If an image cannot be read any more.
    """
    of_patient = {case.patient: case for case in cases}
    total = sum(len(outcome.cases) for outcome in outcomes)
    labels: list[int] = []
    logits: list[tuple[float, ...]] = []
    before: list[tuple[float, ...]] = []
    correlations: list[float] = []
    for outcome, folder in zip(outcomes, folders, strict=True):
        full = MemberEngine(folder, runtime=INT8_RUNTIME)
        rounded = MemberEngine(folder, runtime=INT8_RUNTIME, precision="int8")
        member = Member(engine=rounded, encoder=outcome.encoder)
        for known in outcome.cases:
            case = of_patient[known.prediction.patient]
            prepared = prepare_case(case, preparation)
            labels.append(int(known.prediction.label or 0))
            before.append(known.prediction.logits)
            logits.append(predict_case(case, prepared, [member]).prediction.logits)
            planes = prepared.speaking_planes(known.prediction.images)
            correlations.append(_correlation(full.read(planes).maps, rounded.read(planes).maps))
            progress(len(labels), total)
    return verdict_on(
        labels=np.array(labels), before=np.array(before), after=np.array(logits), correlations=np.array(correlations)
    )


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Pearson's correlation over all places; 0 where either says the same everywhere."""
    if not (np.ptp(one) > 0 and np.ptp(other) > 0):
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def verdict_on(
    *,
    labels: NDArray[np.int64],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    correlations: NDArray[np.float64],
) -> Int8:
    """Decide whether eight bits are offered.

    Parameters
    ----------
    labels
        (patients,) class index.
    before, after
        (patients, classes) out-of-fold logits of float32 and of eight bits.
    correlations
        (patients,) between the class maps of both.
    """
    full, rounded = overall_auc(labels, softmax(before)), overall_auc(labels, softmax(after))
    correlation = float(correlations.mean())
    if full is None or rounded is None:
        reason = "the out-of-fold AUC is not defined"
    elif full - rounded >= LARGEST_DROP:
        reason = f"the out-of-fold AUC drops by {full - rounded:.3f}, and less than {LARGEST_DROP} is asked"
    elif not correlation > LEAST_CORRELATION:
        reason = (
            f"its maps correlate by {correlation:.3f} with those of float32, and more than {LEAST_CORRELATION} is asked"
        )
    else:
        reason = None
    return Int8(
        offered=reason is None,
        reason=reason,
        auc_float32=full,
        auc_int8=rounded,
        map_correlation=correlation,
        least_map_correlation=float(correlations.min()),
        patients=len(labels),
    )
