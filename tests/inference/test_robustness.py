"""Disturbed cases: strength 0 is what the predictor says anyway, and crops follow the lesion."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from samples import written

from osteoscope.bundle.load import load_bundle
from osteoscope.cohort.table import Case, cases, read_cohort
from osteoscope.config import PreparationConfig
from osteoscope.evaluation.calibration import CalibrationMap
from osteoscope.evaluation.conformal import Refused
from osteoscope.imaging.prepare import Lesion
from osteoscope.inference.engine import Judgement, Member, MemberEngine, PlaneReadings
from osteoscope.inference.predictor import Predictor, load_predictor
from osteoscope.inference.robustness import Condition, disturbed_logits

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def predictor(run_folder: Path) -> Predictor:
    return load_predictor(load_bundle(run_folder / "bundle"), threads=1)


@pytest.fixture(scope="module")
def some(other_cohort_folder: Path) -> list[Case]:
    return cases(read_cohort(other_cohort_folder))[:4]


def test_strength_0_is_what_the_bundle_says_anyway(predictor: Predictor, some: list[Case]) -> None:
    nothing = [Condition(disturbance="noise", strength=0.0)]
    for case in some:
        expected = predictor.explain(case).prediction.logits
        assert list(disturbed_logits(predictor, case, nothing, seed=0)) == [expected]


def case_of(path: Path, pixels: NDArray[np.uint8], *lesions: Lesion) -> Case:
    return Case(patient="P", label=None, images=(written(path, pixels, *lesions),))


def test_a_shifted_lesion_is_read_where_it_went(predictor: Predictor, tmp_path: Path) -> None:
    """Read round the lesion, a shift that leaves the whole crop in the picture changes nothing."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96), dtype=np.uint8)
    # With a margin of 0.2 the crop is 28 pixels wide, and 34 from every side; 20 % are 19 pixels in some direction.
    case = case_of(tmp_path / "a.png", pixels, Lesion(box=(38, 38, 58, 58)))
    assert (predictor.preparation.roi, predictor.preparation.margin) == ("box", 0.2)
    conditions = [Condition(disturbance="shift", strength=strength) for strength in (0.0, 10.0, 20.0)]

    def said(preparation: PreparationConfig) -> list[tuple[float, ...]]:
        return list(disturbed_logits(replace(predictor, preparation=preparation), case, conditions, seed=0))

    still, *moved = said(predictor.preparation)
    np.testing.assert_allclose(moved, [still] * 2, atol=1e-5)
    # The picture did move: read as a whole, it says something else.
    whole = said(predictor.preparation.model_copy(update={"roi": "none"}))
    assert min(np.abs(np.subtract(one, whole[0])).max() for one in whole[1:]) > 1e-3


def test_every_condition_has_its_answer_in_order(predictor: Predictor, some: list[Case]) -> None:
    conditions = [Condition(disturbance="noise", strength=strength) for strength in (0.0, 0.3, 0.0)]
    first, noisy, again = disturbed_logits(predictor, some[0], conditions, seed=0)
    assert first == again
    assert noisy != first
    assert list(disturbed_logits(predictor, some[0], conditions, seed=0))[1] == noisy
    assert list(disturbed_logits(predictor, some[0], conditions, seed=1))[1] != noisy


class BrightIsLesion(MemberEngine):
    """Finds a lesion where a plane of 32 pixels is bright, on a grid of 8; the brightest middle pixel decides."""

    def __init__(self) -> None:
        pass

    def read(self, planes: NDArray[np.float32]) -> PlaneReadings:
        bright = planes.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)) > 0.5
        return PlaneReadings(
            scores=np.zeros(len(planes), dtype=np.float32),
            vectors=planes[:, 0, 16, 16, None],
            maps=np.zeros((len(planes), 2, 8, 8), dtype=np.float32),
            lesions=bright.astype(np.float32),
        )

    def judge(self, readings: PlaneReadings, covariates: NDArray[np.float32] | None = None) -> Judgement:
        middle = readings.vectors[:, 0]
        decides = np.eye(len(middle), dtype=np.float32)[middle.argmax()]
        return Judgement(logits=np.array([middle.max(), -middle.max()], dtype=np.float32), weights=decides)


@pytest.fixture
def dark_with_a_bright_patch(tmp_path: Path) -> Case:
    """A picture of 128 x 128 pixels with a patch of 32 x 32, which is not in its middle and is not annotated."""
    pixels = np.zeros((128, 128), dtype=np.uint8)
    pixels[16:48, 64:96] = 255
    return case_of(tmp_path / "a.png", pixels)


@pytest.mark.parametrize(
    ("second_look", "expected"),
    # The first look's middle is dark, that of a look at the patch is 1, and decides, wherever the patch has gone, until
    # the border has swallowed it.
    [(True, [1.0, 1.0, 1.0, 0.0]), (False, [0.0, 0.0, 0.0, 0.0])],
)
def test_the_second_look_goes_where_the_disturbed_image_shows_the_lesion(
    dark_with_a_bright_patch: Case, *, second_look: bool, expected: list[float]
) -> None:
    predictor = Predictor(
        members=(Member(engine=BrightIsLesion()),),
        preparation=PreparationConfig(size=32, second_look=second_look),
        calibration=CalibrationMap(method="none", temperature=1, bias=(0, 0), prior=(0.5, 0.5)),
        conformal=Refused(reason="not needed"),
    )
    conditions = [
        Condition(disturbance=name, strength=strength)
        for name, strength in (("noise", 0.0), ("shift", 8.0), ("resolution", 1.0), ("borders", 40.0))
    ]
    said = list(disturbed_logits(predictor, dark_with_a_bright_patch, conditions, seed=1))
    np.testing.assert_allclose([logits[0] for logits in said], expected, atol=1e-6)
    assert said[0] == predictor.explain(dark_with_a_bright_patch).prediction.logits
