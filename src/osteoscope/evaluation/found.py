"""How well the evidence of a study finds the lesions, beside maps that know nothing of the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.evaluation.intervals import group_patients, mean_figure
from osteoscope.evaluation.localisation import (
    THRESHOLD_GRID,
    choose_threshold,
    edge_map,
    gaussian_map,
    iou,
    localise,
    places_by_others,
    random_map,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

EVIDENCE = "evidence"
LESION = "lesion"
REGIONS = "regions"
_LOOSEST = 4
"""A region that is more than so many times as large as the square round a lesion does not point at it any more: with
the usual margin a region that fits is twice as large."""
_MEASURES = ("iou", "dice", "pointing", "energy")


@dataclass(frozen=True, kw_only=True, eq=False)
class LesionView:
    """One image with its lesion, or one plane of a CT or MR, cut to the part that the network read."""

    patient: str
    label: int
    group: str
    """The fold; thresholds for a group are chosen on the others."""
    evidence: NDArray[np.float32]
    """(rows, columns), signed, for the most probable class, which is the one that is shown."""
    mask: NDArray[np.bool_]
    """(rows, columns), True in the lesion; nowhere if that lies beyond all that was read, or is too small to see."""
    pixels: NDArray[np.float32]
    """(rows, columns)."""
    lesion: NDArray[np.float32] | None = None
    """(rows, columns), 0..1, how likely the network holds a lesion there; None where it was not asked."""
    found: tuple[NDArray[np.bool_], ...] | None = None
    """(rows, columns) each, True in a region that the network found; None where it was not asked to find any."""
    smallest: float = 0.0
    """Side of the smallest region that is ever found, in pixels of the mask."""
    volume: str | None = None
    """Name of the CT or MR that it is a plane of, or of the radiograph of a mix; None for an image of one plane."""


def localisation_table(
    views: Sequence[LesionView], *, threshold: float | None = None, draws: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Measure the evidence and three control maps against the lesions.

    The controls are a centred Gaussian, white noise smoothed to the coarseness of evidence, and an edge detector, all
    on the same part of the image. The threshold of IoU and Dice is chosen for each kind of map and each group on the
    views of the other groups. With one group `threshold` is taken for the evidence, and every other map has for each
    patient the one that is best for all others: one that was chosen for evidence would make them look worse than they
    are.

    Parameters
    ----------
    views
        Those with a lesion; may be empty.
    threshold
        As a share of the evidence's maximum, for views of one group; None is half.
    draws, seed
        Of the bootstrap over patients.

    Returns
    -------
    dict
        ``{map: {"iou", "dice", "pointing", "energy": figure, "blank": views without evidence, "threshold": mean}}``,
        ``"images"``, and ``"not_read"``, the number of further images of whose lesion nothing was read: there is no
        figure of them. Empty without views that show a lesion. Of CT, MR and a mix also ``"planes"``, the number of
        views. Where the network was asked for the lesion, also a map ``"lesion"``; where it was asked to find regions,
        ``"regions"``: ``{"images", "found": figure, "none": images without a region, "several": with more than one}``.
        A lesion counts as found if a region covers at least half of it and is at most four times as large as the square
        round it, or as small as regions get.
    """
    annotated = views
    views = [view for view in annotated if view.mask.any()]
    if not views:
        return {}
    patients = group_patients([view.patient for view in views], np.array([view.label for view in views]))
    table = {**_counts(views), "not_read": len(annotated) - len(views)}
    for name, make in _maps(seed, views).items():
        maps = [make(place, view) for place, view in enumerate(views)]
        thresholds = _thresholds(name, maps, views, given=threshold or 0.5)
        found = [localise(m, v.mask, threshold=t) for m, v, t in zip(maps, views, thresholds, strict=True)]
        row: dict[str, Any] = {
            measure: mean_figure(
                np.array([getattr(f, measure) for f in found]), patients, draws=draws, seed=seed
            ).to_json()
            for measure in _MEASURES
        }
        row["blank"] = sum(f.blank for f in found)
        row["threshold"] = float(np.mean(thresholds))
        table[name] = row
    asked = [view for view in views if view.found is not None]
    if asked:
        table[REGIONS] = _regions(asked, draws=draws, seed=seed)
    return table


def _counts(views: Sequence[LesionView]) -> dict[str, Any]:
    """Count images, and planes where images have several."""
    volumes = [(view.patient, view.volume) for view in views if view.volume is not None]
    images = len(views) - len(volumes) + len(set(volumes))
    return {"images": images, "planes": len(volumes)} if volumes else {"images": images}


def _regions(views: Sequence[LesionView], *, draws: int, seed: int) -> dict[str, Any]:
    """Say how many lesions the second look met, and how many images showed the network none."""
    patients = group_patients([view.patient for view in views], np.array([view.label for view in views]))
    met = np.array([_is_found(view) for view in views], dtype=np.float64)
    return {
        "images": len(views),
        "found": mean_figure(met, patients, draws=draws, seed=seed).to_json(),
        "none": sum(not view.found for view in views),
        "several": sum(len(view.found or ()) > 1 for view in views),
    }


def _is_found(view: LesionView) -> bool:
    """Whether a region covers at least half of the lesion without being much larger than the square round it."""
    longer = max(int(np.ptp(along)) + 1 for along in np.nonzero(view.mask))
    # A square of so many pixels touches one more of them.
    largest = max(_LOOSEST * longer**2, (math.ceil(view.smallest) + 1) ** 2)
    return any(
        (region & view.mask).sum() >= view.mask.sum() / 2 and region.sum() <= largest for region in view.found or ()
    )


def _maps(seed: int, views: Sequence[LesionView]) -> dict[str, Callable[[int, LesionView], NDArray[Any]]]:
    asked = all(view.lesion is not None for view in views)
    lesion: dict[str, Callable[[int, LesionView], Any]] = {LESION: lambda _place, view: view.lesion} if asked else {}
    return {
        EVIDENCE: lambda _place, view: view.evidence,
        **lesion,
        "gaussian": lambda _place, view: gaussian_map(_shape(view)),
        "random": lambda place, view: random_map(_shape(view), seed=seed + place),
        "edges": lambda _place, view: edge_map(view.pixels),
    }


def _shape(view: LesionView) -> tuple[int, int]:
    return (view.mask.shape[0], view.mask.shape[1])


def _thresholds(name: str, maps: Sequence[NDArray[Any]], views: Sequence[LesionView], *, given: float) -> list[float]:
    """Choose each view's threshold on the views of the other groups or, of one group, of the other patients."""
    groups = [view.group for view in views]
    if len(set(groups)) < 2:
        return [given] * len(views) if name == EVIDENCE else _by_others(maps, views, otherwise=given)
    chosen = {}
    for group in set(groups):
        others = [place for place, name in enumerate(groups) if name != group]
        chosen[group] = choose_threshold([maps[place] for place in others], [views[place].mask for place in others])
    return [chosen[group] for group in groups]


def _by_others(maps: Sequence[NDArray[Any]], views: Sequence[LesionView], *, otherwise: float) -> list[float]:
    overlaps = [[iou(one, view.mask, step) for step in THRESHOLD_GRID] for one, view in zip(maps, views, strict=True)]
    places = places_by_others(overlaps, [view.patient for view in views])
    return [otherwise] * len(views) if places is None else [THRESHOLD_GRID[place] for place in places]
