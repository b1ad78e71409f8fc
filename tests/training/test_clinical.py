"""What covariates say, as a logistic regression weighs them, is added to what images say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from osteoscope.cohort.covariates import CovariateEncoder
from osteoscope.cohort.table import Case
from osteoscope.network.classifier import BagHead, PatientReading
from osteoscope.training.clinical import add_covariates


def patients(*, label: int = 1) -> list[Case]:
    """Sixty, of whom the fifteen of a class are twenty years younger and more often women."""
    rng = np.random.default_rng(0)
    return [
        Case(
            patient=f"P-{number}",
            label=label if number % 4 == 0 else 0,
            images=(),
            age=float(rng.normal(25 if number % 4 == 0 else 45, 12)),
            sex="F" if rng.random() < (0.7 if number % 4 == 0 else 0.4) else "M",
        )
        for number in range(60)
    ]


def head_of(encoder: CovariateEncoder, *, classes: int = 2) -> BagHead:
    torch.manual_seed(0)
    return BagHead(4, classes=classes, covariates=encoder.size, dropout=0).eval()


def logits_of(head: BagHead, covariates: np.ndarray) -> np.ndarray:
    """Judge patients whose images say nothing."""
    count = len(covariates)
    with torch.no_grad():
        said: PatientReading = head(
            torch.zeros(count), torch.zeros(count, 4), torch.eye(count, dtype=torch.bool), torch.from_numpy(covariates)
        )
    return said.logits.double().numpy()


def test_the_logits_differ_by_the_penalised_line_with_every_class_as_likely_whatever_is_known() -> None:
    cases = patients()
    encoder = CovariateEncoder.fit(cases, ["age", "sex"])
    head = head_of(encoder)
    before = head.linear.bias.detach().double().numpy().copy()
    add_covariates(head, encoder, cases)
    shown = [
        (encoder.encode(age=age, sex=sex), case.label, 60 / 2 / (15 if case.label else 45) / 4)
        for case in cases
        for age, sex in [(case.age, case.sex), (None, case.sex), (case.age, None), (None, None)]
    ]
    x, y, weight = (np.array(part, dtype=np.float64) for part in zip(*shown, strict=True))

    def loss(line: np.ndarray) -> float:
        scores = x @ line[:-1] + line[-1]
        return float(np.sum(weight * (np.logaddexp(0, scores) - y * scores)) + (line[:-1] ** 2).sum() / 2)

    by_hand = minimize(loss, np.zeros(encoder.size + 1), tol=1e-12).x
    logits = logits_of(head, x.astype(np.float32)) - before
    assert logits[:, 1] - logits[:, 0] == pytest.approx(x @ by_hand[:-1] + by_hand[-1], abs=5e-3)
    # Neither class is given more than the other takes.
    assert logits.sum(axis=1) == pytest.approx(np.zeros(240), abs=1e-5)


def test_of_whom_nothing_is_known_the_images_alone_decide() -> None:
    cases = patients()
    encoder = CovariateEncoder.fit(cases, ["age", "sex"])
    head = head_of(encoder)
    unknown = encoder.encode()[None]
    before = logits_of(head, unknown)
    add_covariates(head, encoder, cases)
    after = logits_of(head, unknown)
    assert after[0, 1] - after[0, 0] == pytest.approx(before[0, 1] - before[0, 0], abs=0.1)
    young, old = logits_of(head, np.stack([encoder.encode(age=15), encoder.encode(age=60)]))
    assert young[1] - young[0] > 0.5 + old[1] - old[0]


def test_of_three_classes_one_may_be_missing_and_one_alone_says_nothing() -> None:
    cases = patients(label=2)
    encoder = CovariateEncoder.fit(cases, ["age"])
    head = head_of(encoder, classes=3)
    bias = head.linear.bias.detach().clone()
    add_covariates(head, encoder, cases)
    assert head.covariates is not None
    weights = head.covariates.weight.detach()
    assert not weights[1].any()
    assert head.linear.bias.detach()[1] == bias[1]
    assert weights[2].any()
    alone = head_of(encoder)
    add_covariates(alone, encoder, patients(label=0))
    assert alone.covariates is not None
    assert not alone.covariates.weight.any()


def test_a_head_without_covariates_is_refused() -> None:
    encoder = CovariateEncoder.fit(patients(), ["age"])
    with pytest.raises(ValueError, match="takes covariates"):
        add_covariates(BagHead(4, classes=2, covariates=0, dropout=0), encoder, patients())
