"""Groups of patients to leave out whole: by body site, and by how their pictures look."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_files import write_series
from made_up import Entry, entries, write_cohort_of
from scipy import ndimage

from osteoscope.cohort.held_out import look_features, look_groups, site_groups
from osteoscope.cohort.split import leave_groups_out, proof
from osteoscope.cohort.table import Case, CaseImage, cases
from osteoscope.errors import CohortError, ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def of_sites(patients: Mapping[str | None, int]) -> list[Case]:
    """So many patients of each site, without images."""
    sites = [site for site, number in patients.items() for _ in range(number)]
    return [Case(patient=f"P-{number:04}", label=number % 2, images=(), site=site) for number, site in enumerate(sites)]


def sizes(groups: Mapping[str, str]) -> dict[str, int]:
    return dict(Counter(groups.values()))


# By body site ---------------------------------------------------------------------------------------------------------


def test_frequent_sites_are_groups_and_rare_ones_are_pooled() -> None:
    found = site_groups(of_sites({"femur": 20, "tibia": 8, "radius": 7, "hand": 2}))
    assert sizes(found) == {"femur": 20, "tibia": 8, "other sites": 9}


def test_no_more_groups_than_asked_for() -> None:
    made = of_sites({"femur": 12, "tibia": 11, "radius": 10, "hand": 9})
    assert sizes(site_groups(made, most=4)) == {"femur": 12, "tibia": 11, "radius": 10, "hand": 9}
    assert sizes(site_groups(made, most=3)) == {"femur": 12, "tibia": 11, "other sites": 19}
    with pytest.raises(ValueError, match="two groups or more, got 1"):
        site_groups(made, most=1)


def test_too_small_a_pool_takes_in_the_rarest_group() -> None:
    found = site_groups(of_sites({"femur": 20, "tibia": 9, "radius": 10, "hand": 3}))
    assert sizes(found) == {"femur": 20, "radius": 10, "other sites": 12}


def test_a_patient_of_several_sites_belongs_to_the_most_frequent() -> None:
    made = of_sites({"femur": 9, "tibia": 8, "tibia+femur": 1, "fibula+ tibia": 1, "hand": 8, "hand+tibia": 1})
    assert sizes(site_groups(made)) == {"femur": 9, "tibia": 11, "hand": 8}


def test_of_equally_frequent_sites_the_first_by_name_is_taken() -> None:
    assert sizes(site_groups(of_sites({"ulna": 8, "tibia": 8, "ulna+tibia": 1}))) == {"ulna": 8, "tibia": 9}


def test_an_unknown_site_is_a_group_or_is_pooled() -> None:
    assert sizes(site_groups(of_sites({"femur": 9, None: 8}))) == {"femur": 9, "site unknown": 8}
    assert sizes(site_groups(of_sites({"femur": 9, "hand": 4, None: 3, "+": 1}))) == {"femur": 9, "other sites": 8}


def test_where_no_site_is_known_the_level_of_the_spine_is_one() -> None:
    made = [
        Case(patient=f"P-{number}", label=0, images=(), site="femur" if number < 9 else None, level="lumbar")
        for number in range(18)
    ]
    assert sizes(site_groups(made)) == {"femur": 9, "lumbar": 9}


def test_few_patients_are_one_group_which_cannot_be_left_out() -> None:
    made = of_sites({"femur": 9, "tibia": 1})
    found = site_groups(made)
    assert sizes(found) == {"other sites": 10}
    with pytest.raises(CohortError, match="found 'other sites'"):
        leave_groups_out(made, found)
    assert sizes(site_groups(of_sites({None: 2}))) == {"other sites": 2}
    assert site_groups([]) == {}


def test_site_groups_do_not_depend_on_the_order() -> None:
    made = of_sites({"femur": 9, "tibia": 9, "femur+tibia": 2, "hand": 9, None: 1})
    assert list(site_groups(made).items()) == list(site_groups(made[::-1]).items())


# By look --------------------------------------------------------------------------------------------------------------


def exposed(rng: np.random.Generator) -> np.ndarray:
    """Draw soft structures and noise, uint8 ``(80, 60)``."""
    values = 128 + 400 * ndimage.gaussian_filter(rng.normal(0, 1, (80, 60)), 6) + rng.normal(0, 8, (80, 60))
    return np.clip(values, 1, 254).astype(np.uint8)


def dark(values: np.ndarray) -> np.ndarray:
    """Underexposed, without contrast."""
    return values // 3 + 10


def framed(values: np.ndarray) -> np.ndarray:
    """A film on a light box."""
    return np.pad(values, 12, constant_values=255)


def smooth(values: np.ndarray) -> np.ndarray:
    """Of a detector without noise."""
    return np.asarray(ndimage.gaussian_filter(values, 1.5))


def cases_of_looks(folder: Path, patients: tuple[int, int, int], seed: int = 1) -> tuple[list[Case], list[set[str]]]:
    """Cases in made-up pictures of three looks, and the patients of each look."""
    by_patient: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries(seed, (sum(patients) - sum(patients) // 2, sum(patients) // 2)):
        by_patient[entry["patient"]].append(entry)
    rng = np.random.default_rng(seed)
    looks = rng.permutation(np.repeat(range(3), patients))
    planted: list[set[str]] = [set(), set(), set()]
    made = []
    for place, own in zip(looks, by_patient.values(), strict=True):
        planted[place] |= {entry["image"] for entry in own}
        made += [entry | {"site": "femur", "picture": (dark, framed, smooth)[place](exposed(rng))} for entry in own]
    found = cases(write_cohort_of(folder, made))
    return found, [{case.patient for case in found if case.images[0].image in images} for images in planted]


def test_patients_are_grouped_by_the_look_of_their_pictures(tmp_path: Path) -> None:
    made, planted = cases_of_looks(tmp_path, (9, 15, 12))
    found = look_groups(made, most=3)
    names = ("look 3", "look 1", "look 2")
    assert found == {patient: name for name, patients in zip(names, planted, strict=True) for patient in patients}
    assert look_groups(made[::-1], most=3) == found
    folds = leave_groups_out(made, found)
    assert [split["group"] for split in proof(folds, made)["splits"]] == ["look 1", "look 2", "look 3"]


def test_a_look_of_too_few_patients_is_no_group(tmp_path: Path) -> None:
    made, _ = cases_of_looks(tmp_path, (14, 14, 4))
    for seed in range(2):
        found = look_groups(made, seed=seed)
        assert min(sizes(found).values()) >= 8
        assert 2 <= len(sizes(found)) <= 4
        assert found == look_groups(made, seed=seed)


def test_pictures_of_one_look_are_one_group(tmp_path: Path) -> None:
    one = entries(0, (1, 1))[0]["picture"]
    made = cases(write_cohort_of(tmp_path, [entry | {"picture": one} for entry in entries(0, (10, 10))]))
    assert sizes(look_groups(made)) == {"look 1": 20}


def test_what_a_body_site_has_in_common_is_no_look(tmp_path: Path) -> None:
    pictures = {"femur": entries(0, (1, 1))[0]["picture"], "tibia": entries(1, (1, 1))[0]["picture"]}
    made = [
        entry | {"site": site, "picture": pictures[site]}
        for number, entry in enumerate(entries(0, (10, 10), views=1))
        for site in [("femur", "tibia")[number % 2]]
    ]
    assert sizes(look_groups(cases(write_cohort_of(tmp_path, made)))) == {"look 1": 20}


def test_scans_are_grouped_by_how_they_were_taken(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = []
    for number in range(20):
        noise, kilovolt, pixel, smooth = (10, 140, 0.8, 0.8) if number % 2 else (60, 80, 0.4, 0.4)
        body = 1064 + noise * ndimage.gaussian_filter(rng.normal(size=(4, 48, 48)), (0, smooth, smooth))
        path, scan = tmp_path / f"{number:02}", body.clip(0).astype(np.uint16)
        write_series(path, scan, series=f"{number}", RescaleIntercept=-1024, KVP=str(kilovolt), spacing=(pixel, pixel))
        image = CaseImage(image=path.name, path=path, pixel_sha256="", rows=48, columns=48, modality="CT")
        made.append(Case(patient=f"P-{number:02}", label=0, images=(image,), level="lumbar"))
    found = look_groups(made, most=2)
    assert {found[f"P-{number:02}"] for number in range(0, 20, 2)} == {"look 1"}
    assert {found[f"P-{number:02}"] for number in range(1, 20, 2)} == {"look 2"}


def test_few_patients_are_one_look_whatever_their_pictures() -> None:
    assert look_groups(of_sites({"femur": 2})) == {"P-0000": "look 1", "P-0001": "look 1"}
    assert look_groups([]) == {}
    with pytest.raises(ValueError, match="two groups or more, got 0"):
        look_groups([], most=0)


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    made = cases(write_cohort_of(tmp_path, entries(0, (8, 8))))
    made[5].images[0].path.unlink()
    with pytest.raises(ImageError, match=made[5].images[0].image):
        look_groups(made)


# A picture ------------------------------------------------------------------------------------------------------------


def test_the_noise_is_that_of_the_laplacian_whatever_is_burnt_out() -> None:
    plane = np.random.default_rng(0).normal(0.5, 0.02, (400, 400)).astype(np.float32)
    # The Laplacian adds a pixel four times over to its four neighbours: variance (16 + 4) of the noise. A normal
    # distribution's median absolute deviation is 0.6745 of its standard deviation.
    expected = 0.6745 * np.sqrt(20) * 0.02
    assert look_features(plane)["noise"] == pytest.approx(expected, rel=0.03)
    plane[100:180, 100:300], plane[220:300, 100:300] = 0, 1
    assert look_features(plane)["noise"] == pytest.approx(expected, rel=0.03)


def test_greys_are_taken_inside_of_the_border() -> None:
    plane = np.zeros((256, 256), dtype=np.float32)
    plane[64:, :224] = np.random.default_rng(0).uniform(0.2, 0.8, (192, 224))
    found = look_features(plane)
    assert found["border"] == pytest.approx((64 / 256 + 32 / 256) / 2, abs=0.01)
    quantiles = [found["dark"], found["middle"], found["bright"]]
    assert quantiles == pytest.approx([0.2 + 0.6 * share for share in (0.05, 0.5, 0.95)], abs=0.015)
    assert found["black_share"] == pytest.approx(1 - 192 * 224 / 256**2, abs=0.001)


def test_rounded_sides_are_of_one_size() -> None:
    planes = [
        np.random.default_rng(0).random(shape, dtype=np.float32) for shape in ((256, 256), (300, 219), (512, 256))
    ]
    assert [look_features(plane)["size"] for plane in planes] == [16.0, 16.0, 17.0]


def test_a_picture_of_one_grey_has_no_noise() -> None:
    found = look_features(np.full((40, 60), 0.25, dtype=np.float32))
    assert (found["noise"], found["dark"], found["bright"]) == (0.0, 0.25, 0.25)
