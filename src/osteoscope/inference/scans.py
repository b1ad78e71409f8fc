"""A patient's CT or MR: opened, looked at once to plan which planes are read, and read a few planes at a time."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import TYPE_CHECKING, Self

import numpy as np

from osteoscope.errors import ImageError
from osteoscope.imaging.mixed import as_read
from osteoscope.imaging.open import open_image
from osteoscope.imaging.slices import cut_slices, plan_slices
from osteoscope.imaging.values import values_of
from osteoscope.inference.engine import PlaneReadings
from osteoscope.inference.pipeline import made_ahead, planes_together
from osteoscope.inference.reading import ReadImages, ReadLook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case, CaseImage
    from osteoscope.config import PreparationConfig
    from osteoscope.imaging.slices import SlicePlan
    from osteoscope.imaging.volume import Volume
    from osteoscope.inference.engine import Member
    from osteoscope.inference.prediction import ImagePrediction


def open_scan(image: CaseImage) -> Volume:
    """Open a CT or MR of a cohort; its planes are decoded once, to see that they are what they were.

    Raises
    ------
    ImageError
        If it cannot be read, or does not show what the cohort was made with.
    """
    volume = open_image(image.path).volume
    if values_of(volume).sha256 != image.pixel_sha256:
        raise ImageError(
            "shows other values than when the cohort was made",
            path=image.path,
            remedy="put the original back, or make the cohort again",
        )
    return volume


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedScans:
    """A patient's scans, and by which plan planes are cut from each; nothing of their pixels is held."""

    volumes: tuple[Volume, ...]
    plans: tuple[SlicePlan, ...]
    preparation: PreparationConfig

    @classmethod
    def of(cls, volumes: Iterable[Volume], preparation: PreparationConfig) -> Self:
        """Look at scans once, coarsely, and plan which planes are read.

        Raises
        ------
        osteoscope.imaging.refusal.RefusedImageError
            If the place of one is not known, or a plane cannot be decoded.
        ValueError
            If how CT and MR are read is not stated.
        """
        config = preparation.volume
        if config is None:
            msg = "how CT and MR are read is not stated"
            raise ValueError(msg)
        opened = tuple(volumes)
        plans = tuple(plan_slices(volume, config) for volume in opened)
        return cls(volumes=opened, plans=plans, preparation=preparation)

    @classmethod
    def of_case(cls, case: Case, preparation: PreparationConfig) -> Self:
        """Open the scans of a patient of a cohort; errors are those of `open_scan` and `of`."""
        return cls.of(map(open_scan, case.images), preparation)

    def first_planes(self, most: int | None = None) -> NDArray[np.float32]:
        """Cut the planes of all scans, or the first so many: (planes, channels, size, size), 0..1."""
        parts = [
            as_read(cut_slices(volume, plan, range(len(plan.planes))[:most]), volume.modality, self.preparation)
            for volume, plan in self._pairs()
        ]
        return np.concatenate(parts)[:most]

    def speaking_planes(self, _images: Sequence[ImagePrediction]) -> NDArray[np.float32]:
        """Cut once more the planes that a prediction was made from, which are all."""
        return self.first_planes()

    def read(self, members: Sequence[Member], *, check: Callable[[], None] | None = None) -> ReadImages:
        """Let every member read the planes, a few at a time, so that memory does not depend on their number.

        The next few are decoded and cut while the members read.

        Parameters
        ----------
        members
            One network or more.
        check
            Is called before each few; what it raises ends the reading.
        """
        parts: list[list[PlaneReadings]] = [[] for _ in members]
        few = chain.from_iterable(_few_at_a_time(volume, plan, self.preparation) for volume, plan in self._pairs())
        with contextlib.closing(made_ahead(few)) as ready:
            for planes in ready:
                if check is not None:
                    check()
                for part, member in zip(parts, members, strict=True):
                    part.append(member.engine.read(planes))
        readings = tuple(reduce(PlaneReadings.joined, part) for part in parts)
        return ReadImages(
            looks=tuple(
                tuple(ReadLook(plane=plane, rectangle=plan.rectangle) for plane in plan.planes) for plan in self.plans
            ),
            first_looks=tuple(len(plan.planes) for plan in self.plans),
            closer_looks=(0,) * len(self.plans),
            readings=readings,
            lesions=np.mean([reading.lesions for reading in readings], axis=0, dtype=np.float32),
        )

    def _pairs(self) -> Iterable[tuple[Volume, SlicePlan]]:
        return zip(self.volumes, self.plans, strict=True)


def _few_at_a_time(volume: Volume, plan: SlicePlan, preparation: PreparationConfig) -> Iterator[NDArray[np.float32]]:
    count, few = len(plan.planes), planes_together()
    for start in range(0, count, few):
        yield as_read(cut_slices(volume, plan, range(start, min(start + few, count))), volume.modality, preparation)
