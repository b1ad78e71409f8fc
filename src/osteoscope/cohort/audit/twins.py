"""Finds pictures that are there twice though their pixels differ: resized, squashed, compressed, cropped, mirrored.

Pictures are looked at once (`osteoscope.imaging.look`), pairs that look alike are found among all of them
(`candidates`), and each pair is confirmed or refuted on the pixels at full depth (`confirm`). A CT or MR takes part as
one picture (`osteoscope.imaging.scan_look`), by which a scan is found again in other slices or of another kernel: of
one patient that is usual, and no finding.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from osteoscope.cohort.audit.cache import keep_looks, keep_verdicts, known_looks, known_verdicts, pair_key
from osteoscope.cohort.audit.candidates import find_candidates
from osteoscope.cohort.audit.confirm import Pair, judge, squares_of
from osteoscope.cohort.audit.finding import Finding, Severity
from osteoscope.cohort.measure import sha256_of_files
from osteoscope.cohort.table import resolve_inside
from osteoscope.imaging.look import look
from osteoscope.imaging.open import open_image
from osteoscope.imaging.picture import read_unchanged, shows_other_pixels
from osteoscope.imaging.scan_look import look_at_scan, scan_picture
from osteoscope.imaging.values import values_of
from osteoscope.processes import readers
from osteoscope.storage import sha256_of_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from osteoscope.cohort.audit.candidates import Candidate
    from osteoscope.cohort.audit.confirm import Squares, Verdict
    from osteoscope.cohort.measure import Progress
    from osteoscope.cohort.table import Cohort
    from osteoscope.imaging.look import Look
    from osteoscope.imaging.volume import Modality, Volume

NOTEWORTHY = 0.96
"""Correlation of the greys from which on a pair that was not confirmed is listed, ..."""

NOTEWORTHY_DETAIL = 0.9
"""... if its details correlate as much as this."""

_BATCH = 16
_SQUARES_HELD = 256
_MOST_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Twin:
    """Two pictures of one cohort, or of two, that are one or nearly so.

    Parameters
    ----------
    first, second
        Names of the images.
    correlation
        Of the aligned pixels.
    confirmed
        Whether the two are one picture.
    how
        What was done to the one to get the other, as a phrase.
    """

    first: str
    second: str
    correlation: float
    confirmed: bool
    how: str


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """An image of a cohort, with the hashes of its files and of its values."""

    image: str
    modality: Modality
    files: str
    pixels: str
    root: Path

    @property
    def key(self) -> str:
        """All that its look follows from: of a scan its header too, which says how far its planes lie apart."""
        return self.pixels if self.modality == "radiograph" else sha256_of_text(f"{self.pixels} {self.files}")

    def read(self) -> NDArray[np.float32]:
        """Give what is compared with other images, float32 ``(rows, columns)``."""
        if self.modality != "radiograph":
            return scan_picture(self._scan())
        return read_unchanged(resolve_inside(self.root, self.image), self.pixels)[1]

    def look(self) -> Look:
        return look(self.read()) if self.modality == "radiograph" else look_at_scan(self._scan())

    def _scan(self) -> Volume:
        path = resolve_inside(self.root, self.image)
        volume = open_image(path, modality=self.modality).volume
        # All of it is decoded for its hash only where its files are others.
        if sha256_of_files(volume.sources) != self.files and values_of(volume).sha256 != self.pixels:
            raise shows_other_pixels(path)
        return volume


# Looking --------------------------------------------------------------------------------------------------------------


def look_at(cohort: Cohort, progress: Progress | None = None) -> dict[str, Look]:
    """Look at all images of a cohort, auxiliary ones included, but at those with the same pixels once.

    Parameters
    ----------
    cohort
        Whose images lie in its root.
    progress
        Is told how many of how many images are seen.

    Returns
    -------
    Looks by the hash of the pixels.

    Raises
    ------
    ImageError
        If an image is missing, cannot be read any more, or shows other pixels than when the cohort was made: what is
        seen of it would be kept as what was seen of those.
    """
    pictures = _pictures(cohort)
    known = known_looks(picture.key for picture in pictures)
    looks = {picture.pixels: known[picture.key] for picture in pictures if picture.key in known}
    unseen = [picture for picture in pictures if picture.pixels not in looks]
    if progress is not None and looks:
        progress(len(looks), len(pictures))
    fresh: dict[str, Look] = {}
    with ThreadPoolExecutor(readers()) as pool:
        for picture, seen in zip(unseen, pool.map(_Picture.look, unseen), strict=True):
            fresh[picture.pixels] = seen
            if progress is not None:
                progress(len(looks) + len(fresh), len(pictures))
    keep_looks({picture.key: fresh[picture.pixels] for picture in unseen})
    return {**looks, **fresh}


def _pictures(cohort: Cohort) -> list[_Picture]:
    """Images with pixels of their own, the cases' first, so that a twin of a case is named as the case."""
    rows = cohort.frame.sort_values(["role", "image"], ascending=[False, True]).drop_duplicates("pixel_sha256")
    return [
        _Picture(image=image, modality=modality, files=files, pixels=pixels, root=cohort.root)
        for image, modality, files, pixels in zip(
            rows["image"], rows["modality"], rows["file_sha256"], rows["pixel_sha256"], strict=True
        )
    ]


# Pairs ----------------------------------------------------------------------------------------------------------------


def find_twins(
    cohort: Cohort,
    looks: Mapping[str, Look],
    *,
    against: Cohort | None = None,
    other_looks: Mapping[str, Look] | None = None,
) -> tuple[Twin, ...]:
    """Find pictures that are there twice in a cohort, or once in it and once in another.

    Pictures with the very same pixels are left to `leaks`.

    Parameters
    ----------
    cohort
        Whose pictures are compared with each other.
    looks
        What `look_at` gave.
    against
        Another cohort, with whose pictures alone they are then compared.
    other_looks
        What `look_at` gave of it.

    Returns
    -------
    The most alike first; what is neither confirmed nor noteworthy is left out.

    Raises
    ------
    ImageError
        If a picture is missing or cannot be read any more.
    """
    own = _pictures(cohort)
    of_cases = set(cohort.case_rows["pixel_sha256"])
    others = [] if against is None else [one for one in _pictures(against) if one.pixels not in of_cases]
    pictures, seen = [*own, *others], {**looks, **(other_looks or {})}
    candidates = _candidates(pictures, len(own), seen, across=against is not None)
    verdicts = _verdicts(candidates, pictures, seen)
    twins = [
        Twin(
            first=min(pictures[one.moving].image, pictures[one.fixed].image),
            second=max(pictures[one.moving].image, pictures[one.fixed].image),
            correlation=verdict.correlation,
            confirmed=verdict.confirmed,
            how=verdict.how,
        )
        if against is None
        else _across(one, verdict, pictures, len(own))
        for one, verdict in zip(candidates, verdicts, strict=True)
        if verdict is not None and (verdict.confirmed or _noteworthy(verdict))
    ]
    best: dict[tuple[str, str], Twin] = {}
    for twin in sorted(twins, key=lambda one: (one.confirmed, one.correlation)):
        best[twin.first, twin.second] = twin
    return tuple(sorted(best.values(), key=lambda one: (-one.correlation, one.first, one.second)))


def _candidates(
    pictures: Sequence[_Picture], own: int, looks: Mapping[str, Look], *, across: bool
) -> tuple[Candidate, ...]:
    """Find pairs of one modality, for a radiograph is no copy of a CT: of `own` pictures, or of these and the rest."""
    found: list[Candidate] = []
    for modality in sorted({one.modality for one in pictures}):
        places = [place for place, one in enumerate(pictures) if one.modality == modality]
        here = [looks[pictures[place].pixels] for place in places if place < own]
        there = [looks[pictures[place].pixels] for place in places if place >= own]
        found.extend(
            replace(one, moving=places[one.moving], fixed=places[one.fixed])
            for one in find_candidates(here, there if across else None)
        )
    return tuple(sorted(found, key=lambda one: (-one.correlation, one.moving, one.fixed)))


def _across(candidate: Candidate, verdict: Verdict, pictures: Sequence[_Picture], own: int) -> Twin:
    """Name the picture of the cohort first, and that of the other one second."""
    first, second = sorted((candidate.moving, candidate.fixed))
    if not first < own <= second:
        msg = f"expected a pair across the two cohorts, got places {first} and {second} of {own}"
        raise ValueError(msg)
    return Twin(
        first=pictures[first].image,
        second=pictures[second].image,
        correlation=verdict.correlation,
        confirmed=verdict.confirmed,
        how=verdict.how,
    )


def _noteworthy(verdict: Verdict) -> bool:
    return verdict.correlation >= NOTEWORTHY and verdict.detail >= NOTEWORTHY_DETAIL


def _verdicts(
    candidates: Sequence[Candidate], pictures: Sequence[_Picture], looks: Mapping[str, Look]
) -> list[Verdict | None]:
    """Judge candidates on their pixels, a few at a time in threads; what was judged before is not judged again."""
    keys = [pair_key(pictures[one.moving].pixels, pictures[one.fixed].pixels) for one in candidates]
    known = known_verdicts(keys)
    open_places = [place for place, key in enumerate(keys) if key not in known]

    @lru_cache(maxsize=_SQUARES_HELD)
    def squares(place: int) -> Squares:
        return squares_of(pictures[place].read(), looks[pictures[place].pixels])

    def judged(places: Sequence[int]) -> list[Verdict | None]:
        return judge([_pair(candidates[place], pictures, looks, squares) for place in places])

    batches = [open_places[first : first + _BATCH] for first in range(0, len(open_places), _BATCH)]
    with ThreadPoolExecutor(readers()) as pool:
        fresh = {
            keys[place]: verdict
            for places, verdicts in zip(batches, pool.map(judged, batches), strict=True)
            for place, verdict in zip(places, verdicts, strict=True)
        }
    keep_verdicts(fresh)
    return [known[key] if key in known else fresh[key] for key in keys]


def _pair(
    candidate: Candidate,
    pictures: Sequence[_Picture],
    looks: Mapping[str, Look],
    squares: Callable[[int], Squares],
) -> Pair:
    return Pair(
        candidate=candidate,
        looks=(looks[pictures[candidate.moving].pixels], looks[pictures[candidate.fixed].pixels]),
        fixed=squares(candidate.fixed).fixed[candidate.frame],
        moving=squares(candidate.moving).moving[candidate.frame],
    )


# Findings -------------------------------------------------------------------------------------------------------------

_REMEDIES = {
    "near-duplicate-across-labels": "find out which diagnosis is right, remove the other image, make the cohort again",
    "near-duplicate-across-patients": "give both images to one patient, or remove one, and make the cohort again",
    "near-duplicate-across-cohorts": "leave these images out of one of the two cohorts",
}


def twin_findings(cohort: Cohort, twins: Iterable[Twin]) -> tuple[Finding, ...]:
    """Say what twins within a cohort mean for it.

    Kinds that block: ``near-duplicate-across-labels``, where two diagnoses are given to one picture, of which one at
    least is a case's; ``near-duplicate-across-patients``. ``near-duplicate-within-patient`` and
    ``near-duplicate-with-auxiliary`` warn. ``near-duplicate-candidates`` notes what was not confirmed. A scan that is
    there in several reconstructions of one patient is none of these.
    """
    rows: dict[str, dict[str, str]] = {
        str(row["image"]): {name: row[name] for name in ("patient", "role", "label", "kind", "modality")}
        for row in cohort.frame.to_dict("records")
    }
    findings, unconfirmed = [], []
    for twin in twins:
        first, second = rows[twin.first], rows[twin.second]
        if "case" not in (first["role"], second["role"]) or _reconstructed(first, second):
            continue
        if not twin.confirmed:
            unconfirmed.append(twin)
            continue
        kind, severity, what = _meaning(first, second)
        findings.append(
            Finding(
                kind=kind,
                severity=severity,
                cases=tuple(sorted({row["patient"] for row in (first, second) if row["role"] == "case"})),
                message=f"{twin.first} and {twin.second} are one picture ({_told(twin)}){what}",
                remedy=_REMEDIES.get(kind, ""),
            )
        )
    return (*findings, *_candidates_noted(unconfirmed, rows))


def _reconstructed(first: dict[str, str], second: dict[str, str]) -> bool:
    """Whether a pair is two scans of one patient, such as one scan in thin and in thick slices."""
    return first["patient"] == second["patient"] and "radiograph" not in (first["modality"], second["modality"])


def _meaning(first: dict[str, str], second: dict[str, str]) -> tuple[str, Severity, str]:
    """Kind, severity and what is said of a confirmed pair with one case at least."""
    both = first["role"] == second["role"]
    diagnoses = [row["label"] if both else (row["kind"] or row["label"]) for row in (first, second)]
    if all(isinstance(one, str) for one in diagnoses) and diagnoses[0] != diagnoses[1]:
        said = " and ".join(map(repr, diagnoses))
        return "near-duplicate-across-labels", "block", f" under two diagnoses, {said}"
    if not both:
        return "near-duplicate-with-auxiliary", "warn", ", the one a case's and the other outside the classes"
    if first["patient"] != second["patient"]:
        return "near-duplicate-across-patients", "block", " of two patients"
    return "near-duplicate-within-patient", "warn", " of one patient"


def _candidates_noted(twins: Sequence[Twin], rows: Mapping[str, Mapping[str, str]]) -> tuple[Finding, ...]:
    """List in one finding what looks alike across patients and was not confirmed."""
    across = [twin for twin in twins if rows[twin.first]["patient"] != rows[twin.second]["patient"]]
    if not across:
        return ()
    listed = "; ".join(f"{twin.first} and {twin.second} ({_told(twin)})" for twin in across[:_MOST_LISTED])
    more = f"; and {len(across) - _MOST_LISTED} more" if len(across) > _MOST_LISTED else ""
    pairs = "1 pair" if len(across) == 1 else f"{len(across)} pairs"
    patients = {rows[image]["patient"] for twin in across for image in (twin.first, twin.second)}
    return (
        Finding(
            kind="near-duplicate-candidates",
            severity="note",
            cases=tuple(sorted(patients)),
            message=f"{pairs} of pictures of different patients look alike, and are not one picture by "
            f"their pixels: {listed}{more}",
            remedy="look at them side by side",
        ),
    )


def twins_across(cohort: Cohort, twins: Iterable[Twin]) -> tuple[Finding, ...]:
    """Say which cases of a cohort have a twin in another cohort: ``near-duplicate-across-cohorts``, which blocks."""
    cases = cohort.case_rows.set_index("image")["patient"].to_dict()
    kind = "near-duplicate-across-cohorts"
    return tuple(
        Finding(
            kind=kind,
            severity="block",
            cases=(cases[twin.first],),
            message=f"{twin.first} and {twin.second} of the other cohort are one picture ({_told(twin)})",
            remedy=_REMEDIES[kind],
        )
        for twin in twins
        if twin.confirmed and twin.first in cases
    )


def auxiliary_twins(cohort: Cohort, twins: Iterable[Twin]) -> frozenset[str]:
    """Give the auxiliary images that show the same picture as a case, so that they can be kept back from training."""
    role = cohort.frame.set_index("image")["role"].to_dict()
    pairs = [(twin.first, twin.second) for twin in twins if twin.confirmed]
    found = {
        image
        for pair in pairs
        for image in pair
        if role[image] == "auxiliary" and "case" in {role[other] for other in pair}
    }
    # Of pictures with the same pixels one alone is looked at, and stands for all.
    outside = cohort.frame[cohort.frame["role"] == "auxiliary"]
    pixels = outside.loc[outside["image"].isin(found), "pixel_sha256"]
    return frozenset(outside.loc[outside["pixel_sha256"].isin(pixels), "image"])


def _told(twin: Twin) -> str:
    return f"{twin.how}, correlation {twin.correlation:.2f}"
