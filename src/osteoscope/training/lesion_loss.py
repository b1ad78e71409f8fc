"""How far what a network holds to be lesion is from the outline, and from what it looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from osteoscope.training.planes import Kind

if TYPE_CHECKING:
    from torch import Tensor

    from osteoscope.training.augment import Seen

LARGEST_REMAINDER = 0.02
"""Share of a plane that a lesion may cover without being what is looked at."""


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


def presence_loss(logits: Tensor | None, seen: Seen) -> Tensor:
    """Cross-entropy between the network's likelihood that it looks at a lesion, and whether it does.

    Parameters
    ----------
    logits
        (planes,) of the likelihood (`osteoscope.network.classifier.PlaneEncoder.presence`); None where the network is
        not to say.
    seen
        The planes: a lesion's region, and squares of the same image elsewhere, are asked of, and so are planes of a
        volume with the lesion and without; a whole image is not, and no square from whose edge a lesion still looks in.

    Returns
    -------
    Tensor
        A scalar; 0 where no plane is asked of.
    """
    if logits is None:
        return seen.lesions.new_zeros(())
    kinds = seen.kinds.to(logits.device)
    little = seen.lesions.mean(dim=(1, 2, 3)) < LARGEST_REMAINDER
    region, elsewhere = kinds == Kind.REGION, (kinds == Kind.ELSEWHERE) & little
    asked = region | elsewhere
    entropy = functional.binary_cross_entropy_with_logits(logits, region.float(), reduction="none")
    return (entropy * asked).sum() / asked.sum().clamp_min(1)
