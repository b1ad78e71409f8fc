"""Laying the planes of a cohort's images into one store, whatever they are of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from osteoscope.training.planes import NO_REGION, SQUARES_ELSEWHERE, SQUARES_ROUND, CaseStore, PlaneStore, canvas_size
from osteoscope.training.room import room_for_canvases

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case, CaseImage

_AT_ONCE = 4
"""Images that are decoded at a time; a CT or MR has its mask in memory."""


class ChosenPlanes(Protocol):
    """An image, and which of its planes are kept; their pixels are not held."""

    @property
    def kinds(self) -> NDArray[np.int64]:
        """(planes,) `osteoscope.training.planes.Kind` of each."""

    @property
    def is_marked(self) -> bool:
        """Whether a lesion is annotated within what is read."""

    @property
    def channels(self) -> int:
        """Of a plane."""

    def lay(self, canvases: NDArray[np.float16], lesions: NDArray[np.uint8]) -> None:
        """Decode the planes into their place: (planes, channels, side, side), and (planes, 1, side, side) of 0."""


def lay_cases(
    cases: Sequence[Case],
    choose: Callable[[CaseImage], ChosenPlanes],
    *,
    size: int,
    channels: int | None = None,
    told: Callable[[CaseImage], NDArray[np.float32]] | None = None,
) -> CaseStore:
    """Choose the planes of all images of labelled cases first, so that room for them is taken once, and lay them then.

    Parameters
    ----------
    cases
        Labelled ones.
    choose
        The planes of an image; several threads may ask.
    size
        Rows and columns of a plane.
    channels
        Of the canvases; None takes those of the first image, which are then those of all.
    told
        Which of several modalities an image is of (`PlaneStore.indicators`); None where there is one.

    Raises
    ------
    StorageError
        If the canvases have to be on disk, and there is no room for them.
    """
    images = [image for case in cases for image in case.images]
    owners = np.repeat(np.arange(len(cases)), [len(case.images) for case in cases])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        chosen = list(pool.map(choose, images))
        counts = [len(one.kinds) for one in chosen]
        ends = np.cumsum([0, *counts]).tolist()
        canvases, lesions = room_for_canvases(ends[-1], channels or chosen[0].channels, canvas_size(size))
        places = [slice(*ends_of_one) for ends_of_one in pairwise(ends)]
        list(pool.map(lambda one, at: one.lay(canvases[at], lesions[at]), chosen, places))
    owner_of_plane, planes = np.repeat(owners, counts), ends[-1]
    indicators = None if told is None else np.repeat([told(image) for image in images], counts, axis=0)
    return CaseStore(
        planes=PlaneStore(
            canvases=torch.from_numpy(canvases),
            lesions=torch.from_numpy(lesions),
            marked=torch.from_numpy(np.repeat([one.is_marked for one in chosen], counts)),
            kinds=torch.from_numpy(np.concatenate([one.kinds for one in chosen])),
            regions=torch.full((planes, SQUARES_ROUND), NO_REGION),
            elsewhere=torch.full((planes, SQUARES_ELSEWHERE), NO_REGION),
            size=size,
            indicators=None if indicators is None else torch.from_numpy(indicators),
        ),
        images=tuple(torch.from_numpy(np.flatnonzero(owner_of_plane == case)) for case in range(len(cases))),
        labels=torch.tensor([case.label for case in cases]),
    )
