"""What needs no network is judged under the class shares that the network assumes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from osteoscope.cohort import baselines as baselines_module
from osteoscope.cohort.baselines import Baseline
from osteoscope.cohort.split import Folds
from osteoscope.evaluation.document import Predictions, StudyFacts
from osteoscope.workflow.study import baseline_blocks

PATIENTS = tuple(f"P{number}" for number in range(10))
LABELS = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
FOLDS = Folds(seed=0, patients=PATIENTS, test=((PATIENTS[::2], PATIENTS[1::2]),))
SAID = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.4, 0.7, 0.3, 0.2, 0.6])
"""Probability of the first class, were both as frequent."""


def blocks(monkeypatch: pytest.MonkeyPatch, prior: tuple[float, float], *found: Baseline) -> dict[str, dict[str, Any]]:
    monkeypatch.setattr(baselines_module, "baselines", lambda *_, **__: found)
    model = Predictions(
        patients=PATIENTS,
        labels=LABELS,
        repeats=np.zeros(10, dtype=np.int64),
        probabilities=np.column_stack([SAID, 1 - SAID]),
        verdicts=np.zeros(10, dtype=np.int64),
    )
    facts = StudyFacts(classes=("a", "b"), slugs=("a", "b"), prior=prior, roi="none", seed=0, estimates="Nothing.")
    audited = SimpleNamespace(audit=SimpleNamespace(features={}))
    return baseline_blocks(cast("Any", None), FOLDS, audited=cast("Any", audited), model=model, facts=facts, note="")


@pytest.mark.parametrize("prior", [(0.5, 0.5), (0.8, 0.2), (0.1, 0.9)])
def test_a_baseline_that_assumed_equal_shares_is_restated_by_bayes_rule(
    monkeypatch: pytest.MonkeyPatch, prior: tuple[float, float]
) -> None:
    clinical = Baseline(name="clinical", probabilities=np.column_stack([SAID, 1 - SAID])[None], patients=PATIENTS)
    found = blocks(monkeypatch, prior, clinical)["clinical"]
    # By odds: those at equal shares times those of the prior.
    odds = SAID / (1 - SAID) * prior[0] / prior[1]
    restated = odds / (1 + odds)
    right = np.where(restated > 0.5, LABELS == 0, LABELS == 1)
    balanced = (right[LABELS == 0].mean() + right[LABELS == 1].mean()) / 2
    # The score is the mean over the cases of the squared errors of both classes, halved.
    assert found["brier"]["value"] == pytest.approx(float(np.mean((restated - (LABELS == 0)) ** 2)), abs=1e-6)
    assert found["balanced_accuracy"]["value"] == pytest.approx(float(balanced))
    assert found["auc_difference"]["value"] == pytest.approx(0)


@pytest.mark.parametrize("shares", [(0.7, 0.3), (0.3, 0.7)])
def test_the_majority_knows_nothing_beyond_the_prior_and_still_names_the_larger_class(
    monkeypatch: pytest.MonkeyPatch, shares: tuple[float, float]
) -> None:
    majority = Baseline(
        name="majority", probabilities=np.tile(shares, (1, 10, 1)), prior=np.array(shares), patients=PATIENTS
    )
    found = blocks(monkeypatch, (0.5, 0.5), majority)["majority"]
    assert found["brier"]["value"] == pytest.approx(0.25)
    assert found["auc"]["value"] == 0.5
    # Seven of ten are of the first class.
    assert found["accuracy"]["value"] == pytest.approx(0.7 if shares[0] > 0.5 else 0.3)
    # At the shares of these patients it is the forecast of them: 0.7 * 0.3.
    assert found["brier"]["value"] > 0.21
