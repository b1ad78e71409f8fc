"""How far what a network holds to be lesion is from the outline and what it looks at, and what it says elsewhere."""

from __future__ import annotations

import math
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
    region = seen.kinds.to(logits.device) == Kind.REGION
    asked = region | _shows_none(seen)
    entropy = functional.binary_cross_entropy_with_logits(logits, region.float(), reduction="none")
    return (entropy * asked).sum() / asked.sum().clamp_min(1)


def silence_loss(logits: Tensor, seen: Seen) -> Tensor:
    """Divergence from saying nothing of the class where there is no lesion to be seen.

    What judges is read of all parts of an image, and most of them show no lesion. Where they are never asked they
    speak of the class as loudly as the lesion does.

    Parameters
    ----------
    logits
        (planes, classes) of each plane by itself, without the class prior.
    seen
        The planes: asked of are squares elsewhere, and planes of a volume that do not show its lesion, but none into
        which a lesion still looks.

    Returns
    -------
    Tensor
        A scalar, the mean Kullback-Leibler divergence of the classes' probabilities from even ones: 0 where all are
        even, or no plane is asked of.

    References
    ----------
    Hendrycks D, Mazeika M, Dietterich T. Deep anomaly detection with outlier exposure. ICLR 2019.
    """
    asked = _shows_none(seen)
    divergence = -functional.log_softmax(logits, dim=1).mean(dim=1) - math.log(logits.shape[1])
    return (divergence * asked).sum() / asked.sum().clamp_min(1)


def _shows_none(seen: Seen) -> Tensor:
    """Tell which planes, (planes,), look elsewhere, and show next to nothing of a lesion."""
    little = seen.lesions.mean(dim=(1, 2, 3)) < LARGEST_REMAINDER
    return (seen.kinds.to(little.device) == Kind.ELSEWHERE) & little
