"""What covariates alone say of the class, which a network's head starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from sklearn.linear_model import LogisticRegression

if TYPE_CHECKING:
    from torch import Tensor

    from osteoscope.network.classifier import BagHead

_INVERSE_RIDGE = 1.0
"""Of scikit-learn's penalty: covariates are indicators and standardised numbers, and patients are few."""


def teach_covariates(head: BagHead, covariates: Tensor, labels: Tensor) -> None:
    """Let a head's weights of the covariates start from a logistic regression on them, every class as likely.

    A network learns its images by heart in a few hundred steps, after which nothing is left for covariates to explain.
    Begun the other way round, images learn what covariates leave open.

    Parameters
    ----------
    head
        Of a network that takes covariates, and has learnt nothing yet; changed in place.
    covariates
        (patients, covariates), of training patients alone, encoded.
    labels
        (patients,) class index; a class that nobody is of starts from nothing.
    """
    if head.covariates is None:
        msg = "expected a head that takes covariates"
        raise ValueError(msg)
    present = sorted(set(labels.tolist()))
    if len(present) < 2:
        return
    line = LogisticRegression(C=_INVERSE_RIDGE, class_weight="balanced", max_iter=1000)
    line.fit(covariates.double().numpy(), labels.numpy())
    weights, bias = torch.from_numpy(line.coef_).float(), torch.from_numpy(line.intercept_).float()
    if len(weights) == 1:
        # Of two classes there is one line, between them.
        weights, bias = torch.cat([-weights, weights]) / 2, torch.cat([-bias, bias]) / 2
    with torch.no_grad():
        head.covariates.weight[present], head.linear.bias[present] = weights, bias
