from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from osteoscope.cohort.covariates import CovariateEncoder, recorded_covariates
from osteoscope.cohort.table import Case

if TYPE_CHECKING:
    from collections.abc import Sequence

# Mean 20; squared deviations 100 + 16 + 4 + 144 = 264 over the 4 known ages give a variance of 66.
AGES = (10.0, 16.0, 22.0, 32.0, None)
SITES = ("femur", "tibia+femur", None, "hip bone", None)


def cases_of(ages: Sequence[float | None], sites: Sequence[str | None] | None = None) -> list[Case]:
    known = zip(ages, sites or [None] * len(ages), strict=True)
    return [
        Case(patient=f"P-{number}", label=0, images=(), age=age, site=site) for number, (age, site) in enumerate(known)
    ]


@pytest.fixture
def training_cases() -> list[Case]:
    return cases_of(AGES, SITES)


def test_age_is_standardised_over_the_training_cases(training_cases: list[Case]) -> None:
    encoder = CovariateEncoder.fit(training_cases, ["age"])
    assert encoder.size == 2
    assert_allclose(encoder.encode(age=20), [0, 0])
    assert_allclose(encoder.encode(age=20 + 66**0.5), [1, 0], rtol=1e-6)


@pytest.mark.parametrize("age", [None, float("nan"), np.nan])
def test_a_missing_age_is_said_to_be_missing(training_cases: list[Case], age: float | None) -> None:
    assert_array_equal(CovariateEncoder.fit(training_cases, ["age"]).encode(age=age), [0, 1])


def test_sex_is_two_indicators(training_cases: list[Case]) -> None:
    encoder = CovariateEncoder.fit(training_cases, ["sex"])
    assert_array_equal([encoder.encode(sex="F"), encoder.encode(sex="M"), encoder.encode()], [[1, 0], [0, 1], [0, 0]])


def test_site_is_one_indicator_for_each_seen_in_training(training_cases: list[Case]) -> None:
    encoder = CovariateEncoder.fit(training_cases, ["site"])
    assert encoder.sites == ("femur", "hip bone", "tibia")
    assert_array_equal(encoder.encode(site="hip bone"), [0, 1, 0, 0])
    assert_array_equal(encoder.encode(site="tibia + femur"), [1, 0, 1, 0])
    assert_array_equal(encoder.encode(site="femur+sacrum"), [1, 0, 0, 0])


def test_level_is_told_as_site_is_and_beside_it() -> None:
    cases = [
        Case(patient=name, label=0, images=(), site="spine", level=level)
        for name, level in [("a", "lumbar"), ("b", "thoracic+lumbar"), ("c", None)]
    ]
    encoder = CovariateEncoder.fit(cases, ["level", "site"])
    assert encoder.levels == ("lumbar", "thoracic")
    assert encoder.size == 5
    assert_array_equal(encoder.encode(level="thoracic", site="spine"), [0, 1, 0, 1, 0])
    assert_array_equal(encoder.encode(level="cervical"), [0, 0, 1, 0, 1])
    assert CovariateEncoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder


def test_an_encoder_of_before_there_were_levels_is_read() -> None:
    value = {"names": ["site"], "age_mean": 0.0, "age_sd": 1.0, "sites": ["femur"]}
    assert_array_equal(CovariateEncoder.from_json(value).encode(site="femur", level="lumbar"), [1, 0])


@pytest.mark.parametrize("site", [None, "", "sacrum"])
def test_a_site_that_is_missing_or_unseen_is_said_to_be_missing(training_cases: list[Case], site: str | None) -> None:
    assert_array_equal(CovariateEncoder.fit(training_cases, ["site"]).encode(site=site), [0, 0, 0, 1])


def test_the_vector_follows_the_names(training_cases: list[Case]) -> None:
    encoder = CovariateEncoder.fit(training_cases, ["sex", "age"])
    vector = encoder.encode(age=None, sex="M", site="femur")
    assert_array_equal(vector, [0, 1, 0, 1])
    assert vector.dtype == np.float32
    assert vector.shape == (encoder.size,)


def test_without_covariates_the_vector_is_empty(training_cases: list[Case]) -> None:
    encoder = CovariateEncoder.fit(training_cases, [])
    assert encoder.size == 0
    assert encoder.encode(age=12).shape == (0,)


@pytest.mark.parametrize("ages", [[None, None], [14.0, 14.0], [14.0, None], [12.1] * 10])
def test_ages_without_a_spread_do_not_divide_by_zero(ages: list[float | None]) -> None:
    vector = CovariateEncoder.fit(cases_of(ages), ["age"]).encode(age=15)
    assert_allclose(vector, [15.0 - (ages[0] or 0), 0], rtol=1e-6)


def test_of_thirty_ages_and_more_the_line_may_bend_at_their_thirds() -> None:
    """Ages 1 to 31: thirds at 11 and 21; beyond them 20 x 21 / 2 = 210 and 10 x 11 / 2 = 55 years, over 31 patients."""
    encoder = CovariateEncoder.fit(cases_of([float(age) for age in range(1, 32)]), ["age", "sex"])
    sd = np.sqrt((31**2 - 1) / 12)
    assert encoder.size == 6
    assert_allclose(encoder.age_knots, [(11, 210 / 31), (21, 55 / 31)])
    for age, beyond in [(5, (0, 0)), (15, (4, 0)), (30, (19, 9))]:
        expected = [(age - 16) / sd, 0, (beyond[0] - 210 / 31) / sd, (beyond[1] - 55 / 31) / sd, 1, 0]
        assert_allclose(encoder.encode(age=age, sex="F"), expected, rtol=1e-5)
    # A patient of whom it is not known is taken as the mean one in all of it.
    assert_array_equal(encoder.encode(sex="M"), [0, 1, 0, 0, 0, 1])
    assert CovariateEncoder.fit(cases_of([float(age) for age in range(1, 30)]), ["age"]).size == 2


def test_there_is_no_knot_beyond_which_nobody_is() -> None:
    encoder = CovariateEncoder.fit(cases_of([10.0] * 12 + [20.0] * 20), ["age"])
    # Both thirds lie at one of two ages, and beyond the higher one there is nothing.
    assert_allclose(encoder.age_knots, [(10, 20 * 10 / 32)])


def test_networks_are_told_by_default_what_is_known_of_four_in_five_of_each_class() -> None:
    def patient(number: int, label: int) -> Case:
        """Of nine in ten the age, of four in five the site; the sex of class 0 alone, the level of nobody."""
        return Case(
            patient=f"P-{label}-{number}",
            label=label,
            images=(),
            age=None if number == 0 else 20.0,
            site=None if number < 2 else "femur",
            sex="F" if label == 0 else None,
        )

    cases = [patient(number, label) for label in (0, 1) for number in range(10)]
    assert recorded_covariates(cases) == ("age", "site")
    assert recorded_covariates(case for case in cases if case.label == 0) == ("age", "sex", "site")
    assert recorded_covariates([]) == ()


def test_an_encoder_survives_json(training_cases: list[Case]) -> None:
    encoder = CovariateEncoder.fit(cases_of([float(age) for age in range(40)]), ["age"])
    assert CovariateEncoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder
    encoder = CovariateEncoder.fit(training_cases, ["age", "sex", "site"])
    assert CovariateEncoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder


@pytest.mark.parametrize(
    "changed",
    [
        {"names": ["age", "weight"]},
        {"names": ["age", "age"]},
        {"age_sd": 0},
        {"age_sd": None},
        {"age_mean": "nan"},
        {"sites": None},
        {"age_knots": [[30.0]]},
        {"age_knots": [[30.0, "nan"]]},
    ],
)
def test_json_of_another_shape_is_refused(training_cases: list[Case], changed: dict[str, Any]) -> None:
    value = CovariateEncoder.fit(training_cases, ["age"]).to_json()
    with pytest.raises(ValueError, match="expected"):
        CovariateEncoder.from_json(value | changed)


def test_values_that_cannot_be_are_refused(training_cases: list[Case]) -> None:
    encoder = CovariateEncoder.fit(training_cases, ["age", "sex"])
    with pytest.raises(ValueError, match="inf"):
        encoder.encode(age=float("inf"))
    with pytest.raises(ValueError, match="'female'"):
        encoder.encode(sex="female")  # type: ignore[arg-type]


def test_prediction_needs_no_pandas_for_it() -> None:
    program = "import sys, osteoscope.cohort.covariates; sys.exit('pandas' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
