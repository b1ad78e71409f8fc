"""What covariates say of the class, added to what a network says of the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.covariates import CovariateEncoder
    from osteoscope.cohort.table import Case
    from osteoscope.network.classifier import BagHead

_INVERSE_RIDGE = 1.0
"""Of scikit-learn's penalty: covariates are indicators and standardised numbers, and patients are few."""


def add_covariates(head: BagHead, encoder: CovariateEncoder, cases: Sequence[Case]) -> None:
    """Give a head that was fitted to images the weights of a logistic regression on covariates alone.

    Where images and covariates do not depend on each other within a class, the logarithms of their likelihood ratios
    add up; the calibration mends the scale. Fitted together they do worse: images are learnt by heart in a few hundred
    steps, after which nothing is left for covariates to explain, and begun with the covariates, images learn little.

    Every class counts as much as any other. Each patient is shown as known, without each of the covariates, and without
    all, so that what is missing later says nothing.

    Parameters
    ----------
    head
        Of a network that takes covariates; its weights of them and its biases are changed in place.
    encoder
        Fitted to the cases.
    cases
        The training patients alone, labelled; a class that nobody is of gets no weights.
    """
    if head.covariates is None:
        msg = "expected a head that takes covariates"
        raise ValueError(msg)
    shown = [_shown(case, encoder) for case in cases]
    labels = np.repeat([case.label for case in cases], len(shown[0]))
    present = np.unique(labels)
    if len(present) < 2:
        return
    line = LogisticRegression(C=_INVERSE_RIDGE, class_weight="balanced", max_iter=1000)
    # The penalty is set against patients, each of whom counts once however often shown.
    once = np.full(len(labels), 1 / len(shown[0]))
    line.fit(np.concatenate(shown).astype(np.float64), labels, sample_weight=once)
    weights, bias = torch.from_numpy(line.coef_).float(), torch.from_numpy(line.intercept_).float()
    if len(weights) == 1:
        # Of two classes there is one line, between them.
        weights, bias = torch.cat([-weights, weights]) / 2, torch.cat([-bias, bias]) / 2
    with torch.no_grad():
        head.covariates.weight[present] = weights
        head.linear.bias[present] += bias


def _shown(case: Case, encoder: CovariateEncoder) -> NDArray[np.float32]:
    """Encode a patient as known, without each covariate, and without all: (2 + covariates, size)."""
    known = {name: getattr(case, name) for name in encoder.names}
    without = [{**known, name: None} for name in encoder.names]
    return np.stack([encoder.encode(**told) for told in (known, *without, {})])
