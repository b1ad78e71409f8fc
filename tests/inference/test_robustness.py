"""Disturbed cases: strength 0 is what the predictor says anyway, and crops follow the lesion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from osteoscope.bundle.load import load_bundle
from osteoscope.cohort.table import cases, read_cohort
from osteoscope.imaging.disturb import Radiograph
from osteoscope.imaging.prepare import Lesion
from osteoscope.inference.predict import prepare_case, read_pixels
from osteoscope.inference.predictor import Predictor, load_predictor
from osteoscope.inference.robustness import Condition, disturbed_logits, prepare_radiographs

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.cohort.table import Case


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


def test_radiographs_are_prepared_as_cases_are(predictor: Predictor, some: list[Case]) -> None:
    for case in some:
        decoded = [Radiograph(pixels=read_pixels(image), lesions=image.lesions) for image in case.images]
        expected, found = prepare_case(case, predictor.preparation), prepare_radiographs(decoded, predictor.preparation)
        np.testing.assert_array_equal(found.planes, expected.planes)
        assert found.squares == expected.squares


def test_a_shifted_lesion_is_read_where_it_went(predictor: Predictor, some: list[Case]) -> None:
    """Read round the lesion, a shift that leaves the whole crop in the picture changes nothing."""
    pixels = np.random.default_rng(0).random((96, 96)).astype(np.float32)
    here = Radiograph(pixels=pixels, lesions=(Lesion(box=(40, 40, 60, 60)),))
    there = Radiograph(pixels=np.roll(pixels, (5, -7), axis=(0, 1)), lesions=(Lesion(box=(33, 45, 53, 65)),))
    planes = prepare_radiographs([here, there], predictor.preparation).planes
    np.testing.assert_allclose(planes[0], planes[1], atol=1e-6)


def test_every_condition_has_its_answer_in_order(predictor: Predictor, some: list[Case]) -> None:
    conditions = [Condition(disturbance="noise", strength=strength) for strength in (0.0, 0.3, 0.0)]
    first, noisy, again = disturbed_logits(predictor, some[0], conditions, seed=0)
    assert first == again
    assert noisy != first
    assert list(disturbed_logits(predictor, some[0], conditions, seed=0))[1] == noisy
    assert list(disturbed_logits(predictor, some[0], conditions, seed=1))[1] != noisy
