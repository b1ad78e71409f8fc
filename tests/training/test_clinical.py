"""What a head starts from: covariates alone, as a logistic regression weighs them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from osteoscope.network.classifier import BagHead, PatientReading
from osteoscope.training.clinical import teach_covariates


def made_up() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    labels = (np.arange(60) % 4 == 0).astype(np.int64)
    covariates = rng.normal(size=(60, 3)) + labels[:, None] * [1.0, -0.5, 0.0]
    return torch.from_numpy(covariates).float(), torch.from_numpy(labels)


def logits_of(head: BagHead, covariates: torch.Tensor) -> torch.Tensor:
    """Judge patients whose images say nothing."""
    count = len(covariates)
    nothing = torch.zeros(count, 4)
    with torch.no_grad():
        said: PatientReading = head.eval()(torch.zeros(count), nothing, torch.eye(count, dtype=torch.bool), covariates)
    return said.logits


def test_the_two_logits_differ_by_the_penalised_line_with_every_class_as_likely() -> None:
    covariates, labels = made_up()
    head = BagHead(4, classes=2, covariates=3, dropout=0)
    teach_covariates(head, covariates, labels)
    x, y = covariates.double().numpy(), labels.numpy()
    weights = np.where(y == 1, 60 / (2 * 15), 60 / (2 * 45))

    def loss(line: np.ndarray) -> float:
        scores = x @ line[:3] + line[3]
        return float(np.sum(weights * (np.logaddexp(0, scores) - y * scores)) + (line[:3] ** 2).sum() / 2)

    by_hand = minimize(loss, np.zeros(4), tol=1e-12).x
    logits = logits_of(head, covariates)
    torch.testing.assert_close(
        (logits[:, 1] - logits[:, 0]).double(), torch.from_numpy(x @ by_hand[:3] + by_hand[3]), atol=5e-3, rtol=0
    )
    # Neither class is given more than the other takes.
    torch.testing.assert_close(logits.sum(dim=1), torch.zeros(60), atol=1e-5, rtol=0)


def test_of_three_classes_one_may_be_missing_and_one_alone_teaches_nothing() -> None:
    covariates, labels = made_up()
    head = BagHead(4, classes=3, covariates=3, dropout=0)
    before = head.linear.bias.detach().clone()
    teach_covariates(head, covariates, 2 * labels)
    assert head.covariates is not None
    assert head.covariates.weight[1].tolist() == [0, 0, 0]
    assert head.linear.bias.detach()[1] == before[1]
    assert head.covariates.weight.detach()[2, 0] > 0.3
    alone = BagHead(4, classes=2, covariates=3, dropout=0)
    teach_covariates(alone, covariates, torch.zeros(60, dtype=torch.int64))
    assert alone.covariates is not None
    assert not alone.covariates.weight.any()


def test_a_head_without_covariates_is_refused() -> None:
    covariates, labels = made_up()
    with pytest.raises(ValueError, match="takes covariates"):
        teach_covariates(BagHead(4, classes=2, covariates=0, dropout=0), covariates, labels)
