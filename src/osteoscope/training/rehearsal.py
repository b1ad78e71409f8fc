"""Auxiliary images beside the cases in every step of a fold: the classes are learnt as two kinds more among the others.

Few cases are soon known by heart. Among ten times as many images of other kinds, asked the same questions in the same
breath, what tells two kinds apart has to be what tells kinds apart at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from osteoscope.cohort.table import Auxiliary
from osteoscope.training.augment import Seen, see
from osteoscope.training.questions import QuestionHeads, answers_of, facts_of, load_lessons

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from osteoscope.cohort.table import Case
    from osteoscope.config import AugmentationConfig, Config
    from osteoscope.training.auxiliary import Learnt
    from osteoscope.training.questions import Answers, Lessons


# Where no image has a kind that is asked for there is still an output for one; its logarithm must be a number.
_SMALLEST_SHARE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What a fold goes on learning from beside its cases; no fold's patients have a part in it."""

    lessons: Lessons
    learnt: Learnt | None
    """What the answers to the questions start from; None starts them from random weights."""
    augmentation: AugmentationConfig
    share: float
    """Auxiliary images in a step, for each image of a case."""
    of_cases: Answers
    """What the images of the cases are asked too, in the order of their store; their kinds are their classes."""
    asked: bool = True
    """Whether what is known of images is asked; otherwise auxiliary ones teach where lesions are, and nothing else."""

    def closer(self, share: float) -> Rehearsal | None:
        """Go on with so many for each image of a case, and ask of them where lesions are, and nothing else.

        Some are still seen whole, since where lesions are in a whole image is what the first look is asked for.
        """
        return replace(self, share=share, asked=False) if share else None

    def heads(self, channels: int) -> QuestionHeads:
        """Build the answers to the questions from pooled maps of so many channels, as far as they were learnt."""
        heads = QuestionHeads(channels, self.lessons.answers)
        if self.learnt is not None:
            self.learnt.teach_questions(heads)
            # What was learnt holds how frequent each kind is, which is added to the logits here (`log_shares`).
            counts = self._images_of_kinds()
            with torch.no_grad():
                heads.kind.bias.sub_(torch.log((counts / counts.sum().clamp_min(1)).clamp_min(_SMALLEST_SHARE)))
        return heads

    def on(self, device: torch.device) -> Rehearsal:
        """Move the images to the device that computes."""
        return replace(self, lessons=replace(self.lessons, store=self.lessons.store.on(device)))

    def see(self, images_of_cases: int, *, rng: np.random.Generator, generator: torch.Generator) -> Seen:
        """Draw auxiliary images, with replacement, for a step with so many images of cases, and look at them."""
        store = self.lessons.store
        images = rng.integers(len(store.marked), size=max(1, round(self.share * images_of_cases)))
        return see(images.tolist(), store, self.augmentation, rng=rng, generator=generator)

    def answers(self, cases: Tensor, others: Tensor, classes: int) -> Answers:
        """Say what is known of planes that show images of cases, and behind them of others that show auxiliary ones.

        Parameters
        ----------
        cases, others
            Places of the images in their stores.
        classes
            How many there are: the kinds of auxiliary images are counted on behind them.
        """
        own, other = self.of_cases.at(cases), self.lessons.answers.at(others)
        return replace(
            other,
            kinds=torch.cat([own.kinds, torch.where(other.kinds < 0, other.kinds, other.kinds + classes)]),
            sites=torch.cat([own.sites, other.sites]),
            views=torch.cat([own.views, other.views]),
        )

    def log_shares(self, classes: Tensor) -> Tensor:
        """Give the logarithm of each class's and then each kind's share of what is drawn: (classes + kinds,).

        Parameters
        ----------
        classes
            (classes,), the share of each among the cases that are drawn.
        """
        # Of an image whose kind is not known, it is not asked.
        beside = self.share * self._images_of_kinds() / len(self.lessons.answers.kinds)
        shares = torch.cat([classes, beside]) / (1 + beside.sum())
        return torch.log(shares.clamp_min(_SMALLEST_SHARE))

    def _images_of_kinds(self) -> Tensor:
        kinds = self.lessons.answers.kinds
        return torch.bincount(kinds[kinds >= 0], minlength=max(1, len(self.lessons.answers.kind_names)))


def rehearsal_of(
    images: Sequence[Auxiliary], learnt: Learnt | None, config: Config, *, cases: Sequence[Case]
) -> Rehearsal | None:
    """Prepare to learn from images beside `cases`; None where the settings leave that out.

    Parameters
    ----------
    images
        What `osteoscope.training.auxiliary.teachers` gave; not empty.
    learnt
        What was learnt from them before; None for nothing.
    config
        All settings.
    cases
        Of all folds.

    Raises
    ------
    ImageError
        If an image cannot be read any more, or has changed.
    """
    share = config.training.rehearsal
    if not share:
        return None
    lessons, augmentation = load_lessons(images, config.preparation), config.auxiliary.augmentation
    pairs = [(case, image) for case in cases for image in case.images]
    shown = [Auxiliary(image=image, patient=case.patient, kind=None, site=case.site) for case, image in pairs]
    labels = torch.tensor([case.label for case, _ in pairs])
    of_cases = replace(answers_of(shown, like=lessons.answers), kinds=labels)
    return Rehearsal(lessons=lessons, learnt=learnt, augmentation=augmentation, share=share, of_cases=of_cases)


def auxiliary_facts(images: Sequence[Auxiliary], learnt: Learnt | None, *, share: float) -> dict[str, Any]:
    """Say what a run learns from auxiliary images: what first, in how many minutes, and how many beside its cases.

    Parameters
    ----------
    images
        What `osteoscope.training.auxiliary.teachers` gave.
    learnt
        What was learnt from them first; None for nothing.
    share
        As `Rehearsal.share`; 0 where none is learnt from beside the cases.

    Raises
    ------
    ValueError
        If it learns nothing from them.
    """
    if learnt is None and not share:
        msg = "expected something that is learnt, first or beside the cases"
        raise ValueError(msg)
    facts = {**facts_of(images, answers_of(images)), "minutes": 0.0} if learnt is None else learnt.to_json()
    return {**facts, "beside": share}


def beside(cases: Seen, others: Seen) -> Seen:
    """Lay the planes of two batches behind each other; places in their stores are those of each."""
    return Seen(
        planes=torch.cat([cases.planes, others.planes]).contiguous(memory_format=torch.channels_last),
        lesions=torch.cat([cases.lesions, others.lesions]),
        marked=torch.cat([cases.marked, others.marked]),
        images=torch.cat([cases.images, others.images]),
        kinds=torch.cat([cases.kinds, others.kinds]),
        speak=torch.cat([cases.speak, others.speak]),
    )
