"""How far what a network holds to be lesion is from the outline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def lesion_loss(logits: Tensor, lesions: Tensor, marked: Tensor) -> Tensor:
    """Cross-entropy and soft Dice loss between the logit of lesion and the outline, each cell by its covered share.

    Parameters
    ----------
    logits
        (planes, h, w).
    lesions
        (planes, 1, size, size), 1 in the lesion.
    marked
        (planes,) bool: whether the lesion is annotated; a plane where it is not teaches nothing here.

    Returns
    -------
    Tensor
        A scalar; 0 where no plane is marked.

    References
    ----------
    Milletari F, Navab N, Ahmadi SA. V-Net: fully convolutional neural networks for volumetric medical image
    segmentation. 3DV 2016 (the Dice loss with squared terms).
    """
    covered = functional.adaptive_avg_pool2d(lesions[:, 0], (logits.shape[-2], logits.shape[-1]))
    weights = marked.float()
    number = weights.sum().clamp_min(1)
    entropy = functional.binary_cross_entropy_with_logits(logits, covered, reduction="none").mean(dim=(-2, -1))
    likely = logits.sigmoid()
    overlap = 2 * (likely * covered).sum(dim=(-2, -1)) + 1
    size = (likely.square() + covered.square()).sum(dim=(-2, -1)) + 1
    return (weights * (2 * entropy + 1 - overlap / size)).sum() / number
