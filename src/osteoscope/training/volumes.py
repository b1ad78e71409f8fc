"""The planes of a cohort's CT or MR in memory, ready to be augmented in batches; `planes` is the same for radiographs.

Where the lesion is outlined, a plane shows it or it does not: those that do teach the class, and all teach where a
lesion is and what is none. A lesion reaches over few of the planes that are read in prediction, so more are kept for
training: all at the least distance that show it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.imaging.masks import read_mask
from osteoscope.imaging.mixed import filled
from osteoscope.imaging.resampling import Rectangle, resample_mask
from osteoscope.imaging.slices import cut_slices, plan_slices
from osteoscope.inference.scans import open_scan
from osteoscope.training.laying import lay_cases
from osteoscope.training.planes import Kind, canvas_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case, CaseImage
    from osteoscope.config import VolumeConfig
    from osteoscope.imaging.slices import SlicePlan
    from osteoscope.imaging.volume import Volume
    from osteoscope.training.planes import CaseStore

LEAST_SHOWN = 0.1
"""Area of the lesion in a plane, as a share of that in the plane with most of it, from which on the plane shows it. One
with less shows its rim or nothing, and is not kept."""

_PLANES_AT_ONCE = 16
"""Planes of a volume that are cut at a time."""


def load_volumes(cases: Sequence[Case], config: VolumeConfig) -> CaseStore:
    """Decode and prepare the volumes of labelled cases.

    Each is looked at once to choose its planes, so that all can then be laid into room that is taken once: 96 pixels,
    20 planes and 9 channels are 7.5 MB a volume.

    Raises
    ------
    ImageError
        If a volume cannot be read any more, or has changed.
    InputError
        If a mask cannot be read, or does not fit its volume.
    StorageError
        If the planes have to be on disk, and there is no room for them.
    """
    return lay_cases(cases, lambda image: chosen_planes(image, config), size=config.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Chosen:
    """A volume, and which of its planes are kept; their pixels are not decoded yet."""

    volume: Volume
    plan: SlicePlan
    """For canvases, and for the planes that are kept alone."""
    kinds: NDArray[np.int64]
    """(planes,) `Kind` of each."""
    mask: NDArray[np.uint8] | None
    """(planes, side, side), 1 in the lesion; None where none is outlined within what is read."""

    @property
    def is_marked(self) -> bool:
        return self.mask is not None

    @property
    def channels(self) -> int:
        return len(self.plan.stacks[0]) * len(self.plan.windows)

    def lay(self, canvases: NDArray[np.float16], lesions: NDArray[np.uint8]) -> None:
        """Decode the planes, a few at a time."""
        for start in range(0, len(canvases), _PLANES_AT_ONCE):
            some = range(start, min(start + _PLANES_AT_ONCE, len(canvases)))
            cut = cut_slices(self.volume, self.plan, some)
            canvases[some.start : some.stop] = filled(cut, canvases.shape[1])
        if self.mask is not None:
            lesions[:, 0] = self.mask


def chosen_planes(image: CaseImage, config: VolumeConfig) -> _Chosen:
    """Choose which planes of a CT or MR are kept for training; errors are those of `load_volumes`."""
    volume = open_scan(image)
    if image.mask is not None:
        # All at the least distance: which of them show the lesion is seen then.
        plan = _for_canvases(plan_slices(volume, config.model_copy(update={"planes": volume.geometry.shape[0]})))
        mask = _on_canvases(read_mask(image.mask, volume), plan)
        areas = mask.sum(axis=(1, 2))
        if areas.any():
            return _told_apart(volume, plan, mask, areas, others=config.planes)
    plan = _for_canvases(plan_slices(volume, config))
    return _Chosen(volume=volume, plan=plan, kinds=np.full(len(plan.planes), Kind.FIRST, dtype=np.int64), mask=None)


def _told_apart(
    volume: Volume, plan: SlicePlan, mask: NDArray[np.uint8], areas: NDArray[np.int64], *, others: int
) -> _Chosen:
    """Keep all planes that show the lesion, and as many without it as are read in prediction at most, evenly spread."""
    shown = areas >= LEAST_SHOWN * areas.max()
    without = np.flatnonzero(areas == 0)
    if len(without) > others:
        without = without[np.linspace(0, len(without) - 1, others).round().astype(int)]
    kept = np.sort(np.concatenate([np.flatnonzero(shown), without]))
    return _Chosen(
        volume=volume,
        plan=_only(plan, kept.tolist()),
        kinds=np.where(shown[kept], Kind.REGION, Kind.ELSEWHERE).astype(np.int64),
        mask=mask[kept],
    )


def _for_canvases(plan: SlicePlan) -> SlicePlan:
    """Show as much more round a plane as a canvas does, at the same spacing."""
    side, seen = canvas_size(plan.size), plan.rectangle
    width, height = (extent * side / plan.size for extent in (seen.width, seen.height))
    left, top = seen.left - (width - seen.width) / 2, seen.top - (height - seen.height) / 2
    return replace(plan, size=side, rectangle=Rectangle(left=left, top=top, width=width, height=height))


def _only(plan: SlicePlan, places: Sequence[int]) -> SlicePlan:
    return replace(
        plan,
        planes=tuple(plan.planes[place] for place in places),
        stacks=tuple(plan.stacks[place] for place in places),
        affines=plan.affines[list(places)],
    )


def _on_canvases(mask: NDArray[np.bool_], plan: SlicePlan) -> NDArray[np.uint8]:
    """Carry a mask of the volume to the planes of a plan: 1 in the lesion."""
    shape = (plan.size, plan.size)
    return np.stack([resample_mask(mask[plane], plan.rectangle, shape) for plane in plan.planes]).astype(np.uint8)
