"""The page of a case with a CT: which planes are shown, where what speaks lies in them, and what is said of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scan_samples import LESION, PREPARATION, SHAPE, explained, scan_case

from osteoscope.report.assemble import case_content
from osteoscope.report.case import case_html
from osteoscope.report.content import PHANTOM_BANNER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from osteoscope.cohort.table import Case
    from osteoscope.report.content import CaseContent

WEIGHTS = (0.01, 0.02, 0.03, 0.04, 0.25, 0.3, 0.2, 0.05, 0.06, 0.04)
"""From the feet to the head; the six largest are those of planes 4 to 8 and of one with 0.04."""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return scan_case(tmp_path_factory.mktemp("scan"))


def content(case: Case, *, probabilities: tuple[float, float] = (0.8, 0.2)) -> CaseContent:
    """What speaks for the first class lies on the left of every picture, the more the plane weighs."""
    cells = np.zeros((SHAPE[0], 4, 4))
    cells[:, 2, 0] = WEIGHTS
    cells[:, 0, 3] = -0.5 * np.array(WEIGHTS)
    return case_content(
        case,
        explained(case, WEIGHTS, cells, (1.0, 0.0)),
        classes=("osteosarcoma", "giant cell tumor"),
        probabilities=probabilities,
        prior=(0.5, 0.5),
        verdict=0,
        made_by="Made by hand.",
        study_href="../report.html",
        preparation=PREPARATION,
    )


def test_the_planes_that_weigh_most_are_shown_from_the_head_down(case: Case) -> None:
    made = content(case)
    (volume,) = made.volumes
    assert made.images == ()
    assert [plane.plane for plane in volume.shown] == [9, 8, 7, 6, 5, 4]
    assert [plane.weight for plane in volume.read] == list(reversed(WEIGHTS))
    assert [plane.position.mm for plane in volume.read] == [27, 24, 21, 18, 15, 12, 9, 6, 3, 0]
    assert [plane.is_shown for plane in volume.read] == [True] * 6 + [False] * 4
    assert [plane.has_lesion for plane in volume.read] == [False] * 3 + [True] * 3 + [False] * 4
    assert volume.weight == pytest.approx(1)
    assert made.covariates == {"age": "not recorded", "sex": "not recorded", "level": "lumbar"}


def test_the_lesion_and_what_speaks_for_the_class_lie_where_they_are(case: Case) -> None:
    (volume,) = content(case).volumes
    plane = volume.shown[4]
    assert plane.plane == 5
    bone, soft_tissue = plane.pictures
    rows, columns = LESION[1:]
    # Dense in the window of bone, white in that of soft tissue; what lies round it is grey in both, and air black.
    np.testing.assert_allclose(bone[rows, columns], 1400 / 1800, rtol=1e-5)
    np.testing.assert_array_equal(soft_tissue[rows, columns], 1)
    np.testing.assert_allclose(soft_tissue[20, 30], 0.5)
    assert not soft_tissue[0].any()
    (outline,) = plane.lesions
    assert outline.bounds("outline") == (columns.start, rows.start, columns.stop, rows.stop)
    assert not volume.shown[0].lesions
    row, column = np.unravel_index(plane.evidence.argmax(), plane.evidence.shape)
    assert 20 <= row < 31
    assert column < 10
    # A cell of 16 holds 0.3, so that it stands 16-fold by area; the strongest plane is shown.
    assert plane.evidence.max() == pytest.approx(0.3 * 16, rel=1e-3)
    assert volume.strongest == pytest.approx(0.3 * 16)


def test_the_evidence_is_that_of_the_most_probable_class(case: Case) -> None:
    (one,) = content(case).volumes
    (other,) = content(case, probabilities=(0.3, 0.7)).volumes
    np.testing.assert_array_equal(one.shown[2].evidence, -other.shown[2].evidence)


def test_of_three_classes_what_speaks_against_one_is_the_strongest_that_is_shown(
    case: Case, read_page: Callable[[str], Any]
) -> None:
    cells = np.zeros((SHAPE[0], 4, 4))
    cells[:, 2, 0] = WEIGHTS
    found = explained(case, WEIGHTS, cells, (1.0, 0.0))
    one = found.evidence[:, 0]
    three = dataclasses.replace(found, evidence=np.stack([-one, one / 2, one / 2], axis=1))
    page = case_content(
        case,
        three,
        classes=("osteosarcoma", "giant cell tumor", "chordoma"),
        probabilities=(0.8, 0.1, 0.1),
        prior=(1 / 3, 1 / 3, 1 / 3),
        verdict=0,
        made_by="Made by hand.",
        study_href="../report.html",
        preparation=PREPARATION,
    )
    text = read_page(case_html(page)).text
    assert "Evidence against osteosarcoma strongest point: 100 %" in text
    assert "200 %" not in text


def test_the_page_says_what_was_read_and_what_weighs(case: Case, read_page: Callable[[str], Any]) -> None:
    page = read_page(case_html(content(case)))
    told = [
        "Image and evidence", "Axial CT of 10 planes, 3.0 mm apart, 40 × 40 pixels of 2.00 mm.", "read all of them",
        "together with its neighbour on either side", "no one told it where the lesion is",
        "The 6 that weigh most in the decision are shown", "Weight of each plane",
        "Plane 10 of 10, z = 27.0 mm", "4 % of the weight; the outlined lesion is not in this plane",
        "Bone window −500 to 1300 HU", "Soft tissue", "Plane 6 of 10, z = 15.0 mm", "30 % of the weight",
        "Evidence for osteosarcoma strongest point: 100 %", "Evidence against osteosarcoma strongest point: 50 %",
        "Plane 5 of 10, z = 12.0 mm", "20 mm wide", "R right, L left",
    ]  # fmt: skip
    places = [page.text.index(said) for said in told]
    assert places == sorted(places)
    for word in ("radiograph", "Radiograph", "image file", "second", "region", "Phantom"):
        assert word not in page.text
    pictures = [str(tag["alt"]) for tag in page.all("img") if not str(tag["alt"]).startswith("Colour scale")]
    assert len(pictures) == 6 * 4
    assert pictures[0] == "axial CT at z = 27.0 mm, window −500 to 1300 HU"
    assert "radiograph" not in " ".join(pictures)
    (plot,) = [tag for tag in page.all("svg") if tag.get("role") == "img"]
    assert "z = 15.0 mm: 30" in str(plot["aria-label"])


def test_a_phantom_says_that_it_shows_no_patient(case: Case, read_page: Callable[[str], Any]) -> None:
    phantom = dataclasses.replace(case, images=(dataclasses.replace(case.images[0], phantom=True),))
    text = read_page(case_html(content(phantom))).text
    assert text.index(PHANTOM_BANNER) < text.index("Case P")
    assert "Diagnosis drawn giant cell tumor" in text
    assert "Recorded diagnosis" not in text


def test_a_scan_that_nobody_has_outlined_is_said_to_be_none(case: Case, read_page: Callable[[str], Any]) -> None:
    bare = dataclasses.replace(case, images=(dataclasses.replace(case.images[0], mask=None),))
    text = read_page(case_html(content(bare))).text
    assert "Nobody has outlined a lesion in it." in text
    assert "annotated" not in text
    assert "not in this plane" not in text


def test_an_mr_is_shown_in_the_one_window_in_which_it_was_read(tmp_path: Path, read_page: Callable[[str], Any]) -> None:
    made = content(scan_case(tmp_path, modality="MR"))
    (volume,) = made.volumes
    (window,) = volume.windows
    # The body is 1040, and 1900 where the lesion is, which is a hundredth of it.
    assert 1000 < window.low <= 1040 < window.high <= 1900
    page = read_page(case_html(made))
    assert "Axial MR of 10 planes" in page.text
    assert "HU" not in page.text
    assert len(page.all("img")) == 1 + 6 * 3


def test_the_same_case_gives_the_same_page(case: Case) -> None:
    assert case_html(content(case)) == case_html(content(case))
