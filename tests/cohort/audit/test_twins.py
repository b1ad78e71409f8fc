"""Copies that are not the same file: resized, squashed, compressed, cropped, mirrored, turned, made brighter."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_up import GCT, OS, entries, picture, resized, write_cohort_of
from PIL import Image

from osteoscope.cohort.audit import audit
from osteoscope.cohort.audit.twins import (
    auxiliary_twins,
    find_twins,
    look_at,
    twin_findings,
    twins_across,
)
from osteoscope.cohort.btxrd import read_btxrd
from osteoscope.errors import ImageError
from osteoscope.imaging.picture import read_picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from made_up import Entry

    from osteoscope.cohort.audit.finding import Finding
    from osteoscope.cohort.audit.twins import Twin
    from osteoscope.cohort.table import Cohort


def jpeg(values: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def cropped(values: np.ndarray, share: float) -> np.ndarray:
    rows, columns = values.shape
    return values[round(share * rows) : round((1 - share / 2) * rows), round(share * columns / 2) :]


def turned(values: np.ndarray, degrees: float) -> np.ndarray:
    image = Image.fromarray(values)
    return np.asarray(image.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=int(values.mean())))


def brighter(values: np.ndarray) -> np.ndarray:
    return np.asarray(255 * (0.1 + 0.85 * (values / 255) ** 0.75), dtype=np.uint8)


def noisy(values: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 6, values.shape)
    return np.clip(values + noise, 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "resized": lambda v: resized(v, v.shape[0] * 3 // 4, v.shape[1] * 3 // 4),
    "squashed": lambda v: resized(v, 128, 128),
    "jpeg": lambda v: jpeg(v, 30),
    "mirrored": lambda v: v[:, ::-1].copy(),
    "upside down": lambda v: v[::-1].copy(),
    "cropped": lambda v: cropped(v, 0.08),
    "turned": lambda v: turned(v, 4),
    "brighter": brighter,
    "noisy": noisy,
    "all of it": lambda v: jpeg(brighter(cropped(v, 0.05))[:, ::-1].copy(), 50),
}


def twins_of(cohort: Cohort) -> tuple[Twin, ...]:
    return find_twins(cohort, look_at(cohort))


def confirmed(twins: tuple[Twin, ...]) -> set[frozenset[str]]:
    return {frozenset({twin.first, twin.second}) for twin in twins if twin.confirmed}


def large(seed: int) -> np.ndarray:
    """Soft blots with sharp-edged shapes on them, as bones have: uint8 (240, 180)."""
    rng = np.random.default_rng(seed)
    values = resized(picture(rng, 80, 60), 240, 180).astype(np.float64)
    y, x = np.mgrid[:240, :180]
    for _ in range(10):
        row, column, height, width = rng.uniform(0, 240), rng.uniform(0, 180), rng.uniform(8, 60), rng.uniform(8, 30)
        values[((y - row) / height) ** 2 + ((x - column) / width) ** 2 < 1] += rng.uniform(-60, 60)
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_under_another_patient_is_found_and_blocks(change: str, tmp_path: Path) -> None:
    made = entries(5, (6, 6), views=1)
    for place, entry in enumerate(made):
        entry["picture"] = large(place)
    made[4]["picture"] = CHANGES[change](made[1]["picture"])
    cohort = write_cohort_of(tmp_path, made)
    found = twins_of(cohort)
    assert confirmed(found) == {frozenset({made[1]["image"], made[4]["image"]})}
    (finding,) = twin_findings(cohort, [twin for twin in found if twin.confirmed])
    assert (finding.kind, finding.severity) == ("near-duplicate-across-patients", "block")
    assert finding.cases == tuple(
        sorted(cohort.frame.set_index("image")["patient"][[made[1]["image"], made[4]["image"]]])
    )


@pytest.mark.parametrize("change", ["squashed", "jpeg", "mirrored", "cropped", "turned", "all of it"])
def test_changed_copies_of_real_radiographs_are_found(change: str, btxrd: Path, tmp_path: Path) -> None:
    names = sorted((btxrd / "images").iterdir())[:120:5]
    made = entries(0, (12, 12), views=1)
    for entry, name in zip(made, names, strict=True):
        entry["picture"] = (255 * read_picture(name).read()[0]).round().astype(np.uint8)
    copies = [
        {**entry, "image": f"copy {entry['image']}", "patient": f"other {entry['patient']}"} for entry in made[:8]
    ]
    for copy in copies:
        copy["picture"] = CHANGES[change](copy["picture"])
    cohort = write_cohort_of(tmp_path, [*made, *copies])
    wanted = {frozenset({copy["image"], copy["image"].removeprefix("copy ")}) for copy in copies}
    assert wanted <= confirmed(twins_of(cohort))


def test_the_same_grey_at_16_bits_is_an_exact_copy_and_left_to_the_hashes(tmp_path: Path) -> None:
    made = entries(3, (4, 4), views=1)
    made[2]["picture"] = made[1]["picture"].astype(np.uint16) * 257
    assert confirmed(twins_of(write_cohort_of(tmp_path, made))) == set()


def test_16_bits_that_differ_below_the_eighth_are_told_from_a_flat_picture(tmp_path: Path) -> None:
    deep = large(1).astype(np.uint16)
    made = entries(3, (4, 4), views=1)
    # All of both pictures lies within one step of 8 bits.
    made[0]["picture"], made[1]["picture"] = 20000 + deep, 20000 + resized(large(1), 200, 170).astype(np.uint16)
    made[2]["picture"] = 20000 + large(2).astype(np.uint16)
    assert confirmed(twins_of(write_cohort_of(tmp_path, made))) == {frozenset({made[0]["image"], made[1]["image"]})}


def test_what_a_twin_means_depends_on_whose_it_is(tmp_path: Path) -> None:
    made = entries(6, (5, 5), views=1)
    for place, entry in enumerate(made):
        entry["picture"] = large(place)
    made[1]["picture"] = CHANGES["mirrored"](made[0]["picture"])
    made[1]["patient"] = made[0]["patient"]
    assert (made[2]["label"], made[7]["label"]) == (OS, GCT)
    made[7]["picture"] = CHANGES["squashed"](made[2]["picture"])
    made[8] |= {"role": "auxiliary", "label": None, "picture": CHANGES["jpeg"](made[3]["picture"])}
    made[9] |= {"role": "auxiliary", "label": None, "kind": "cyst", "picture": CHANGES["cropped"](made[4]["picture"])}
    made[4]["kind"] = OS
    cohort = write_cohort_of(tmp_path, made)
    twins = twins_of(cohort)
    kinds = {(finding.kind, finding.severity) for finding in twin_findings(cohort, twins)}
    assert kinds >= {
        ("near-duplicate-within-patient", "warn"),
        ("near-duplicate-across-labels", "block"),
        ("near-duplicate-with-auxiliary", "warn"),
    }
    contradictions = [one for one in twin_findings(cohort, twins) if one.kind == "near-duplicate-across-labels"]
    assert any("'cyst'" in one.message for one in contradictions)
    assert auxiliary_twins(cohort, twins) == {made[8]["image"], made[9]["image"]}


def test_all_copies_of_an_auxiliary_twin_of_a_case_are_known(tmp_path: Path) -> None:
    made = entries(6, (5, 5), views=1)
    for place, entry in enumerate(made):
        entry["picture"] = large(place)
    twin = CHANGES["jpeg"](made[3]["picture"])
    for place in (7, 8, 9):
        made[place] |= {"role": "auxiliary", "label": None, "picture": twin}
    made[6] |= {"role": "auxiliary", "label": None}
    cohort = write_cohort_of(tmp_path, made)
    assert auxiliary_twins(cohort, twins_of(cohort)) == {made[place]["image"] for place in (7, 8, 9)}


@pytest.mark.parametrize(
    ("both", "noted"),
    # What looks alike is worth a look where two patients could be one, of whom one at least is a case.
    [({}, True), ({"patient": "person 6", "label": OS}, False), ({"role": "auxiliary", "label": None}, False)],
)
def test_what_looks_alike_and_is_not_one_picture_is_noted_and_no_more(
    tmp_path: Path, both: Entry, *, noted: bool
) -> None:
    made = entries(6, (3, 3), views=1)
    for place, entry in enumerate(made):
        entry["picture"] = large(place)
    # Another picture shines through: greys correlate by 0.97, which is noted, details by 0.945, which is too little.
    made[5]["picture"] = (0.78 * large(2) + 0.22 * large(50)).astype(np.uint8)
    for place in (2, 5):
        made[place] |= both
    cohort = write_cohort_of(tmp_path, made)
    pair = [made[place]["image"] for place in (2, 5)]
    (twin,) = twins_of(cohort)
    assert ([twin.first, twin.second], twin.confirmed) == (sorted(pair), False)
    findings = twin_findings(cohort, [twin])
    assert [(one.kind, one.severity) for one in findings] == [("near-duplicate-candidates", "note")] * noted
    for finding in findings:
        assert all(name in finding.message for name in pair)
        assert finding.cases == tuple(sorted(cohort.frame.set_index("image")["patient"][pair]))
    assert auxiliary_twins(cohort, [twin]) == frozenset()


def two_cohorts() -> tuple[list[Entry], list[Entry]]:
    """Make up two cohorts of other patients, whose pictures are none of each other's."""
    made, others = entries(7, (4, 4), views=1), entries(8, (4, 4), views=1)
    for place, entry in enumerate(made):
        entry["picture"] = large(place)
    for place, entry in enumerate(others):
        entry["picture"] = large(100 + place)
    return made, others


def across(folder: Path, made: list[Entry], others: list[Entry]) -> tuple[Finding, ...]:
    """Look for twins of a cohort in another one."""
    cohort, other = write_cohort_of(folder / "a", made), write_cohort_of(folder / "b", others)
    return twins_across(cohort, find_twins(cohort, look_at(cohort), against=other, other_looks=look_at(other)))


def test_a_twin_in_another_cohort_blocks(tmp_path: Path) -> None:
    made, others = two_cohorts()
    others[3]["picture"] = CHANGES["squashed"](made[2]["picture"])
    (finding,) = across(tmp_path, made, others)
    assert (finding.kind, finding.severity) == ("near-duplicate-across-cohorts", "block")
    assert made[2]["image"] in finding.message


def test_a_twin_in_another_cohort_blocks_though_an_auxiliary_image_shows_its_very_pixels(tmp_path: Path) -> None:
    made, others = two_cohorts()
    made[5] |= {"role": "auxiliary", "label": None}
    others[3]["picture"] = made[5]["picture"]
    made[2]["picture"] = CHANGES["jpeg"](made[5]["picture"])
    (finding,) = across(tmp_path, made, others)
    assert made[2]["image"] in finding.message


def test_a_class_whose_copies_were_augmented_blocks_the_audit(tmp_path: Path) -> None:
    made = entries(9, (12, 12), views=1)
    for place, entry in enumerate(made):
        entry["picture"] = large(place)
    for place in (1, 3, 5):
        made[place]["picture"] = CHANGES["all of it"](made[place - 1]["picture"])
    kinds = [finding.kind for finding in audit(write_cohort_of(tmp_path, made)).findings]
    assert kinds.count("near-duplicate-across-patients") == 3


@pytest.mark.parametrize("count", [0, 1])
def test_few_pictures_and_flat_ones_are_no_trouble(count: int, tmp_path: Path) -> None:
    made = entries(1, (2, 2), views=1)
    for entry in made:
        flat = np.full((32, 32), 7, dtype=np.uint8)
        flat[0, int(entry["image"][3])] = 9
        entry["picture"] = flat
    cohort = write_cohort_of(tmp_path, made[: count + 1])
    assert confirmed(twins_of(cohort)) == set()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_tumour_that_is_there_as_a_normal_blocks_and_no_other_picture_is_taken_for_one(btxrd: Path) -> None:
    cohort = read_btxrd(btxrd, (OS, GCT, "normal"))
    found = twin_findings(cohort, twins_of(cohort))
    (contradiction,) = [one for one in found if one.kind == "near-duplicate-across-labels"]
    assert contradiction.severity == "block"
    assert "IMG000707" in contradiction.message
    assert "IMG003346" in contradiction.message


def test_other_pictures_of_the_same_names_are_refused_and_nothing_of_them_is_kept(tmp_path: Path) -> None:
    made = entries(3, (6, 6), views=1)
    made[-1]["picture"] = brighter(made[0]["picture"])
    cohort = write_cohort_of(tmp_path / "right", made)
    others = write_cohort_of(tmp_path / "wrong", entries(4, (6, 6), views=1))
    with pytest.raises(ImageError, match="shows other pixels than when the cohort was made"):
        audit(replace(cohort, root=others.root))
    assert "near-duplicate-across-labels" in {finding.kind for finding in audit(cohort).findings}
