"""From the planes of a patient to one vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class PlaneGate(nn.Module):
    """A score for each plane: gated attention (Ilse et al., ICML 2018, equation 9), as the logarithm of a likelihood.

    So a plane weighs as much as it is likely to show what matters. Where lesions are annotated it is taught just that:
    whether the plane shows a lesion. Planes that surely do weigh alike, however sure.
    """

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.content = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)
        # All planes weigh the same until training has found a reason.
        nn.init.zeros_(self.score.weight)

    def forward(self, vectors: Tensor) -> Tensor:
        """Score vectors of (planes, width): (planes,), 0 at most."""
        # Written out, since not every engine knows the logarithm of the sigmoid: -log(1 + exp(-x)), without overflow.
        return -nn.functional.softplus(-self.logits(vectors))

    def logits(self, vectors: Tensor) -> Tensor:
        """Give the logit of the likelihood whose logarithm is the score: (planes,)."""
        logits: Tensor = self.score(torch.tanh(self.content(vectors)) * torch.sigmoid(self.gate(vectors)))
        return logits.squeeze(-1)


class EqualGate(nn.Module):
    """The same score for each plane, so that a patient's vector is the mean over the planes."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Score vectors of (planes, width): zeros of (planes,)."""
        return vectors[:, 0] * 0.0


def plane_weights(scores: Tensor, membership: Tensor) -> Tensor:
    """Softmax of the scores within each patient.

    Parameters
    ----------
    scores
        (planes,).
    membership
        (patients, planes), True where a plane belongs to a patient; no patient without a plane.

    Returns
    -------
    Tensor
        (patients, planes), rows sum to 1.
    """
    return torch.softmax(scores.expand_as(membership).masked_fill(~membership, float("-inf")), dim=1)
