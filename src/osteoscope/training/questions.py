"""What images are asked beside where the lesion is: which kind of tumour, which body site, which view."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from osteoscope.cohort.sites import SITE_SEPARATOR, split_sites
from osteoscope.cohort.table import KIND_SEPARATOR
from osteoscope.training.planes import Kind, load_images

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from osteoscope.cohort.table import Auxiliary
    from osteoscope.config import PreparationConfig
    from osteoscope.training.planes import PlaneStore

FEWEST = 8
"""A kind, site or view with fewer images than this is not asked for."""

LABEL_SMOOTHING = 0.05
"""Of kinds and views, while nothing but auxiliary images is learnt from."""

_SITE_WEIGHT, _VIEW_WEIGHT = 2.0, 0.2


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What is known of each image, by the names that are asked for; -1 where it is not known."""

    kind_names: tuple[str, ...]
    site_names: tuple[str, ...]
    view_names: tuple[str, ...]
    kinds: Tensor
    """(images,)."""
    sites: Tensor
    """(images, sites) 0 or 1; NaN where the site is not known."""
    views: Tensor
    """(images,)."""

    def at(self, places: Tensor) -> Answers:
        """Take what is known of some images, by their places."""
        return replace(self, kinds=self.kinds[places], sites=self.sites[places], views=self.views[places])


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """Auxiliary images in memory, and what is known of them."""

    store: PlaneStore
    answers: Answers


def load_lessons(images: Sequence[Auxiliary], preparation: PreparationConfig) -> Lessons:
    """Decode and prepare auxiliary images, each once.

    Raises
    ------
    ImageError
        If an image cannot be read any more, or has changed.
    """
    return Lessons(store=load_images([one.image for one in images], preparation), answers=answers_of(images))


def facts_of(images: Sequence[Auxiliary], answers: Answers) -> dict[str, Any]:
    """Count images and their patients, and the images of each kind, site and view that is asked for."""
    return {
        "images": len(images),
        "patients": len({one.patient for one in images}),
        "kinds": _counted(answers.kind_names, answers.kinds),
        "sites": dict(zip(answers.site_names, answers.sites.nansum(dim=0).int().tolist(), strict=True)),
        "views": _counted(answers.view_names, answers.views),
    }


def answers_of(images: Sequence[Auxiliary], *, like: Answers | None = None) -> Answers:
    """Gather what is known of images; of several kinds or views of one image, none is.

    Parameters
    ----------
    images
        With their kinds, sites and views.
    like
        Whose names are asked for; None asks for those that `FEWEST` of the images have.
    """
    kinds = [_only(one.kind, KIND_SEPARATOR) for one in images]
    views = [_only(one.image.view, SITE_SEPARATOR) for one in images]
    sites = [set(split_sites(one.site)) for one in images]
    if like is None:
        kind_names, view_names = _frequent(kinds), _frequent(views)
        site_names = _frequent(site for known in sites for site in known)
    else:
        kind_names, site_names, view_names = like.kind_names, like.site_names, like.view_names
    hot = torch.tensor([[float(name in known) if known else math.nan for name in site_names] for known in sites])
    return Answers(
        kind_names=kind_names,
        site_names=site_names,
        view_names=view_names,
        kinds=torch.tensor([kind_names.index(kind) if kind in kind_names else -1 for kind in kinds]),
        sites=hot.reshape(len(images), len(site_names)),
        views=torch.tensor([view_names.index(view) if view in view_names else -1 for view in views]),
    )


# Not a dataclass: Fabric rebuilds what a forward pass returns, and cannot rebuild a frozen one.
class QuestionLogits(NamedTuple):
    """What a network answers of each plane."""

    kinds: Tensor
    """(planes, kinds)."""
    sites: Tensor
    """(planes, sites)."""
    views: Tensor
    """(planes, views)."""


class QuestionHeads(nn.Module):
    """A linear answer to each question."""

    def __init__(self, channels: int, answers: Answers) -> None:
        super().__init__()
        # A question that has no answers still has a head, of one output that nothing asks.
        self.kind = nn.Linear(channels, max(1, len(answers.kind_names)))
        self.site = nn.Linear(channels, max(1, len(answers.site_names)))
        self.view = nn.Linear(channels, max(1, len(answers.view_names)))

    def forward(self, vectors: Tensor) -> QuestionLogits:
        """Answer from pooled maps, (planes, channels)."""
        return QuestionLogits(kinds=self.kind(vectors), sites=self.site(vectors), views=self.view(vectors))


def question_loss(
    logits: QuestionLogits, answers: Answers, looks: Tensor, *, smoothing: float = LABEL_SMOOTHING
) -> Tensor:
    """Say how far answers are off, over what is known; 0 where nothing is.

    Parameters
    ----------
    logits
        Of each plane.
    answers
        Of the image that each plane shows.
    looks
        (planes,) `Kind` of each, on the CPU; what is looked at elsewhere than at the lesion is not asked.
    smoothing
        Of the labels of kinds and views.
    """
    device, asked = logits.kinds.device, looks != Kind.ELSEWHERE
    logits, answers = QuestionLogits(*(of_question[asked.to(device)] for of_question in logits)), answers.at(asked)
    return (
        _one_of(logits.kinds.float(), answers.kinds.to(device), smoothing)
        + _SITE_WEIGHT * _all_of(logits.sites.float(), answers.sites.to(device))
        + _VIEW_WEIGHT * _one_of(logits.views.float(), answers.views.to(device), smoothing)
    )


def _only(value: str | None, separator: str) -> str | None:
    """Take a value that is not several."""
    return None if value is None or separator in value else value


def _counted(names: Sequence[str], places: Tensor) -> dict[str, int]:
    known = torch.bincount(places[places >= 0], minlength=len(names)).tolist()
    return dict(zip(names, known, strict=True))


def _frequent(values: Iterable[str | None]) -> tuple[str, ...]:
    counts = Counter(value for value in values if value is not None)
    return tuple(sorted(name for name, count in counts.items() if count >= FEWEST))


def _one_of(logits: Tensor, answers: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy over what is known, 0 where nothing is."""
    if not bool((answers >= 0).any()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits, answers, ignore_index=-1, label_smoothing=smoothing)


def _all_of(logits: Tensor, answers: Tensor) -> Tensor:
    """Binary cross-entropy over what is known, 0 where nothing is."""
    known = ~answers.isnan()
    if not bool(known.any()):
        return logits.sum() * 0.0
    return functional.binary_cross_entropy_with_logits(logits[known], answers[known])
