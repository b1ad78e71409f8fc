"""Groups of patients to leave out whole, as a stand-in for a centre never seen: of one body site, or of one look.

A new centre differs from the training centre in whom it sees and in how it takes pictures. A body site that the network
was not trained on stands for the first, a look that it was not trained on for the second. Neither is a new centre, so a
result on them is a reason to choose one procedure over another, and no external validation.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from osteoscope.cohort.sites import split_sites
from osteoscope.imaging.look import look
from osteoscope.imaging.open import open_image
from osteoscope.imaging.picture import read_picture
from osteoscope.imaging.scan_look import look_at_scan
from osteoscope.processes import readers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case, CaseImage
    from osteoscope.evaluation.arrays import FloatArray, IntArray

FEWEST = 8
"""Patients in a group; of fewer no figure is worth having."""

OTHER_SITES = "other sites"
"""The group of the body sites that are too rare for one of their own."""

UNKNOWN_SITE = "site unknown"
"""Stands for the body site of a patient of whom none is recorded."""

_FLAT_SCALE = 2.0
"""Standard deviation, in pixels, of the Gaussian under which a part of a picture is flat or not."""

_OF_SCANS = ("noise", "grain", "fat", "soft", "bright", "plane_step", "pixel", "kilovolt", "thickness")
"""What of `osteoscope.imaging.scan_look.look_at_scan` tells how a CT or MR was taken."""

_STARTS = 100
"""Times that k-means starts anew."""


def site_groups(cases: Sequence[Case], most: int = 6) -> dict[str, str]:
    """Group patients by body site, or by level of the spine where no site is recorded.

    A patient of several sites belongs to the one that most patients have, the first by name where they tie. The most
    frequent sites that have `FEWEST` patients or more are groups; the others are pooled to `OTHER_SITES`, which takes
    in the rarest of the groups while it has fewer. Unknown is a site like any other, called `UNKNOWN_SITE`.

    Parameters
    ----------
    cases
        One a patient; their order does not matter.
    most
        Groups, two or more.

    Returns
    -------
    Name of each patient's group, by pseudonym. There may be one group only, where there are few patients.

    Raises
    ------
    ValueError
        If `most` is below two.
    """
    _refuse_fewer_than_two(most)
    sites_of = {case.patient: _sites(case) for case in cases}
    having = Counter(site for sites in sites_of.values() for site in sites)
    site_of = {patient: min(sites, key=lambda site: (-having[site], site)) for patient, sites in sites_of.items()}
    patients = Counter(site_of.values())
    frequent = sorted((site for site in patients if patients[site] >= FEWEST), key=lambda site: (-patients[site], site))
    own = frequent if len(frequent) == len(patients) <= most else frequent[: most - 1]
    while own and 0 < sum(patients.values()) - sum(patients[site] for site in own) < FEWEST:
        own = own[:-1]
    return {patient: site if site in own else OTHER_SITES for patient, site in sorted(site_of.items())}


def _sites(case: Case) -> set[str]:
    return set(split_sites(case.site) or split_sites(case.level)) or {UNKNOWN_SITE}


def look_groups(cases: Sequence[Case], most: int = 5, seed: int = 0) -> dict[str, str]:
    """Group patients by how their images look, apart from what they show, as scanners and films differ.

    Each picture is measured as `look_features` says, each CT and MR by its noise, its densities and how it was taken as
    far as that is known of all patients; the measures are averaged over the patient's images. Each measure becomes
    normal scores of its ranks among the patients, so that none outweighs another and no outlier makes a group; what
    the patients of a body site (`site_groups`) have in common is taken off, since a hip looks like no hand. K-means
    then divides the patients into as many groups as leave each with `FEWEST` patients or more, and the tightest of many
    such divisions is taken. Looks shade into each other: these are neighbourhoods rather than scanners.

    Parameters
    ----------
    cases
        One a patient; their order does not matter.
    most
        Groups, two or more.
    seed
        Of k-means; the same cases and seed give the same groups.

    Returns
    -------
    Name of each patient's group, by pseudonym: ``look 1`` is the largest, ``look 2`` the next. There may be one group
    only, where there are few patients or all pictures look the same.

    Raises
    ------
    ImageError
        If an image cannot be read any more.
    ValueError
        If `most` is below two.
    """
    _refuse_fewer_than_two(most)
    ordered = sorted(cases, key=lambda case: case.patient)
    possible = min(most, len(ordered) // FEWEST)
    grouped = np.zeros(len(ordered), dtype=np.int64) if possible < 2 else _divide(_scores(ordered), possible, seed)
    # From the largest on, and by the first patient where two are equal.
    places, firsts, sizes = np.unique(grouped, return_index=True, return_counts=True)
    number_of = dict(zip(places[np.lexsort((firsts, -sizes))].tolist(), range(1, len(places) + 1), strict=True))
    return {case.patient: f"look {number_of[place]}" for case, place in zip(ordered, grouped.tolist(), strict=True)}


def _refuse_fewer_than_two(most: int) -> None:
    if most < 2:
        msg = f"expected two groups or more, got {most}"
        raise ValueError(msg)


def _scores(cases: Sequence[Case]) -> FloatArray:
    """Look of each patient in normal scores, less the mean of the body site, shape (P, F)."""
    looks = _patient_looks(cases)
    scores = ndtri((rankdata(looks, axis=0) - 0.5) / len(looks))
    site_of = site_groups(cases)
    _, sites = np.unique([site_of[case.patient] for case in cases], return_inverse=True)
    means = np.array([scores[sites == site].mean(axis=0) for site in range(sites.max() + 1)])
    # What a sum leaves in the last digits must not make a group.
    return np.asarray(np.round(scores - means[sites], 6), dtype=np.float64)


def _patient_looks(cases: Sequence[Case]) -> FloatArray:
    """Mean features of each patient's images, those that all images have, shape (P, F)."""
    images = [image for case in cases for image in case.images]
    with ThreadPoolExecutor(readers()) as pool:
        found = list(pool.map(_features_of, images))
    names = [name for name in found[0] if all(name in one for one in found)]
    seen = np.array([[one[name] for name in names] for one in found])
    ends = np.cumsum([len(case.images) for case in cases])
    return np.array([own.mean(axis=0) for own in np.split(seen, ends[:-1])])


def _features_of(image: CaseImage) -> Mapping[str, float]:
    if image.modality == "radiograph":
        return look_features(read_picture(image.path).read()[0])
    features = look_at_scan(open_image(image.path).volume).features
    return {name: features[name] for name in _OF_SCANS if name in features}


def look_features(plane: NDArray[np.float32]) -> dict[str, float]:
    """Measure how a picture looks apart from what it shows.

    Parameters
    ----------
    plane
        float32 ``(rows, columns)``, 0..1.

    Returns
    -------
    ``dark``, ``middle``, ``bright``: quantiles 0.05, 0.5 and 0.95 of the greys inside of uniform borders.
    ``noise``: median absolute deviation of the Laplacian in the flatter half of what is inside of the borders and
    neither black nor white.
    ``border``: mean of the shares of the rows and of the columns that are uniform border.
    ``black_share``, ``white_share``, ``sharpness``: as in `osteoscope.imaging.look.Look`.
    ``size``: log2 of the number of pixels in quarters, so that rounded sides make no difference. The aspect is left
    out, since it follows the part of the body.

    Raises
    ------
    ValueError
        As `osteoscope.imaging.look.look`.
    """
    seen = look(plane)
    rows, columns = seen.shape
    left, top, right, bottom = seen.content
    inside = plane[round(top * rows) : round(bottom * rows), round(left * columns) : round(right * columns)]
    dark, middle, bright = np.quantile(inside, (0.05, 0.5, 0.95)).tolist()
    return {
        "dark": dark,
        "middle": middle,
        "bright": bright,
        "noise": _noise(inside),
        "border": 1 - (right - left + bottom - top) / 2,
        **{name: seen.features[name] for name in ("black_share", "white_share", "sharpness")},
        "size": round(4 * np.log2(rows * columns)) / 4,
    }


def _noise(plane: NDArray[np.float32]) -> float:
    """Spread of the Laplacian where there are no structures; burnt out parts have no noise, and would hide it."""
    step = np.float32(1 / 255)
    exposed = (plane > plane.min() + step) & (plane < plane.max() - step)
    if not exposed.any():
        return 0.0
    slope = ndimage.gaussian_gradient_magnitude(plane, _FLAT_SCALE)
    curvature = ndimage.laplace(plane)[exposed & (slope <= np.median(slope[exposed]))]
    return float(np.median(np.abs(curvature - np.median(curvature))))


def _divide(scores: FloatArray, most: int, seed: int) -> IntArray:
    """Give each patient a group, shape (P,): as many as `most` groups, none of them with fewer than `FEWEST`."""
    starts = np.random.SeedSequence(seed).generate_state(_STARTS).tolist()
    # The order in which threads add up must not decide where a patient belongs.
    with threadpool_limits(limits=1):
        for number in range(min(most, len(np.unique(scores, axis=0))), 1, -1):
            tried = [KMeans(number, n_init=1, random_state=start).fit(scores) for start in starts]
            large_enough = [one for one in tried if np.bincount(one.labels_).min() >= FEWEST]
            if large_enough:
                return np.asarray(min(large_enough, key=lambda one: one.inertia_).labels_, dtype=np.int64)
    return np.zeros(len(scores), dtype=np.int64)
