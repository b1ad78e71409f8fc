"""Auxiliary images beside the cases in every step of a fold, so that what was learnt from them is not lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from osteoscope.training.augment import Seen, see
from osteoscope.training.questions import QuestionHeads, load_lessons

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from osteoscope.cohort.table import Auxiliary
    from osteoscope.config import AugmentationConfig, Config
    from osteoscope.training.auxiliary import Learnt
    from osteoscope.training.questions import Lessons


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What a fold goes on learning from beside its cases; no fold's patients have a part in it."""

    lessons: Lessons
    learnt: Learnt
    """What the answers to the questions start from."""
    augmentation: AugmentationConfig
    share: float
    """Auxiliary images in a step, for each image of a case."""

    def heads(self, channels: int) -> QuestionHeads:
        """Build the answers to the questions from pooled maps of so many channels, as they were learnt."""
        heads = QuestionHeads(channels, self.lessons.answers)
        self.learnt.teach_questions(heads)
        return heads

    def on(self, device: torch.device) -> Rehearsal:
        """Move the images to the device that computes."""
        return replace(self, lessons=replace(self.lessons, store=self.lessons.store.on(device)))

    def see(self, images_of_cases: int, *, rng: np.random.Generator, generator: torch.Generator) -> Seen:
        """Draw auxiliary images, with replacement, for a step with so many images of cases, and look at them."""
        store = self.lessons.store
        images = rng.integers(len(store.marked), size=max(1, round(self.share * images_of_cases)))
        return see(images.tolist(), store, self.augmentation, rng=rng, generator=generator)


def rehearsal_of(images: Sequence[Auxiliary], learnt: Learnt, config: Config) -> Rehearsal | None:
    """Prepare to rehearse what was learnt from images; None where the settings leave that out.

    Raises
    ------
    ImageError
        If an image cannot be read any more, or has changed.
    """
    share = config.training.rehearsal
    if not share:
        return None
    lessons, augmentation = load_lessons(images, config.preparation), config.auxiliary.augmentation
    return Rehearsal(lessons=lessons, learnt=learnt, augmentation=augmentation, share=share)


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
