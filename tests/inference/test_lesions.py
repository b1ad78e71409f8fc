"""Lesions and evidence meet on the plane that was read."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scan_samples import LESION, PREPARATION, SHAPE, scan_case
from scan_samples import explained as explained_scan

from osteoscope.cohort.table import Case, CaseImage
from osteoscope.config import PreparationConfig
from osteoscope.evaluation.found import localisation_table
from osteoscope.imaging.picture import pixel_sha256, read_picture
from osteoscope.imaging.prepare import Lesion
from osteoscope.inference.lesions import lesion_views
from osteoscope.inference.prediction import CasePrediction, ExplainedCase, ImagePrediction, Look

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """One picture of 40 x 80 pixels with a lesion in columns 60 to 80, rows 0 to 20."""
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 80), dtype=np.uint8)).save(path)
    image = CaseImage(
        image="a.png",
        path=path,
        pixel_sha256=pixel_sha256(read_picture(path).read()[0]),
        rows=40,
        columns=80,
        modality="radiograph",
        lesions=(Lesion(box=(60, 0, 80, 20)),),
    )
    return Case(patient="P", label=1, images=(image,))


WHOLE = (0, -20, 80, 80)
# On a plane of 32 pixels it is columns 24 to 32 and rows 8 to 16.
REGION = Look(rectangle=(60, 0, 20, 20), weight=0.5, likelihood=0.9)


def explained(logits: tuple[float, float], *regions: Look) -> ExplainedCase:
    """Regions say 2 in every cell. Without one, the first look says 1 in a corner, of class 0, and on the right."""
    evidence = np.zeros((1 + len(regions), 2, 4, 4), dtype=np.float32)
    if regions:
        evidence[1:] = 2
    else:
        evidence[0, 0, 0, 0], evidence[0, 1, 1, 3] = 1, 1
    first = Look(rectangle=WHOLE, weight=0 if regions else 1)
    image = ImagePrediction(image="a.png", logits=logits, looks=(first, *regions))
    return ExplainedCase(
        prediction=CasePrediction(patient="P", label=1, logits=logits, images=(image,)),
        evidence=evidence,
        lesions=np.full((1, 4, 4), 0.3, dtype=np.float32),
    )


def test_the_lesion_is_where_the_letterboxed_plane_shows_it(case: Case) -> None:
    (view,) = lesion_views(case, explained((0, 1)), PreparationConfig(size=32, roi="none"), group="g", shown=1)
    # 80 pixels become 32: the image fills rows 8 to 24, the lesion columns 24 to 32 and rows 8 to 16 of the plane.
    expected = np.zeros((32, 32), dtype=bool)
    expected[8:16, 24:32] = True
    np.testing.assert_array_equal(view.mask, expected)
    assert (view.patient, view.label, view.group) == ("P", 1, "g")


@pytest.mark.parametrize(("shown", "corner"), [(0, (0, 0)), (1, (11, 31))])
def test_the_evidence_is_that_of_the_class_that_is_shown_whatever_the_logits(
    case: Case, shown: int, corner: tuple[int, int]
) -> None:
    preparation = PreparationConfig(size=32, roi="none")
    (view,) = lesion_views(case, explained((0, 1)), preparation, group="g", shown=shown)
    assert view.evidence[corner] == pytest.approx(view.evidence.max())


def test_images_without_a_lesion_and_cases_without_a_diagnosis_have_no_view(case: Case) -> None:
    bare = dataclasses.replace(case, images=(dataclasses.replace(case.images[0], lesions=()),))
    preparation = PreparationConfig(size=32, roi="none")
    assert lesion_views(bare, explained((0, 1)), preparation, group="g", shown=1) == []
    assert lesion_views(dataclasses.replace(case, label=None), explained((0, 1)), preparation, group="g", shown=1) == []


def test_a_region_that_was_found_is_marked_on_the_plane_of_the_first_look(case: Case) -> None:
    preparation = PreparationConfig(size=32, second_look=True)
    beyond = Look(rectangle=(70, 30, 40, 40), weight=0.5, likelihood=0.5)
    (view,) = lesion_views(case, explained((0, 1), REGION, beyond), preparation, group="g", shown=1)
    first, second = np.zeros((2, 32, 32), dtype=bool)
    first[8:16, 24:32] = True
    second[20:, 28:] = True  # 70 to 110 and 30 to 70 of 80 x 40 pixels, cut at the plane's edge
    assert view.found is not None
    np.testing.assert_array_equal(view.found, [first, second])


def test_the_evidence_of_a_second_look_lies_in_its_region_and_fades_beyond_its_edge(case: Case) -> None:
    preparation = PreparationConfig(size=32, second_look=True)
    (view,) = lesion_views(case, explained((1, 0), REGION), preparation, group="g", shown=0)
    # 16 cells of 2 over 8 x 8 pixels. It fades across its edges, but the picture's right one, from a pixel within to a
    # pixel beyond: there its mean is 0.75, and 0.25.
    down, across = np.zeros(32), np.zeros(32)
    down[7:17] = [0.25, 0.75, 1, 1, 1, 1, 1, 1, 0.75, 0.25]
    across[23:] = [0.25, 0.75, 1, 1, 1, 1, 1, 1, 1]
    expected = 0.5 * np.outer(down, across)
    np.testing.assert_allclose(view.evidence, expected, atol=1e-6)


def test_the_map_of_lesions_is_shown_where_the_network_was_asked_for_it(case: Case) -> None:
    (asked,) = lesion_views(case, explained((0, 1)), PreparationConfig(size=32, second_look=True), group="g", shown=1)
    assert asked.lesion is not None
    np.testing.assert_allclose(asked.lesion, np.full((32, 32), 0.3), rtol=1e-5)
    assert asked.found == ()
    (not_asked,) = lesion_views(case, explained((0, 1)), PreparationConfig(size=32), group="g", shown=1)
    assert not_asked.lesion is None
    assert not_asked.found is None


def test_a_region_that_a_person_marked_is_none_that_the_network_found(case: Case) -> None:
    preparation = PreparationConfig(size=32, second_look=True, second_look_at="box")
    marked = REGION.model_copy(update={"likelihood": None})
    (view,) = lesion_views(case, explained((0, 1), marked), preparation, group="g", shown=1)
    assert view.lesion is not None
    assert view.found is None


# CT and MR


EVEN = [1 / SHAPE[0]] * SHAPE[0]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return scan_case(tmp_path_factory.mktemp("scan"))


def cells() -> np.ndarray:
    """On every plane 0.5 in a cell of 20 mm at its upper right, and as much less where the patient's right is."""
    said = np.zeros((SHAPE[0], 4, 4))
    said[:, 0, 3], said[:, 2, 0] = 0.5, -0.5
    return said


def test_of_a_scan_those_planes_are_seen_that_show_the_lesion_where_the_network_reads_it(scan: Case) -> None:
    views = lesion_views(scan, explained_scan(scan, EVEN, cells(), (1, 0)), PREPARATION, group="g", shown=0)
    assert len(views) == len(range(*LESION[0].indices(SHAPE[0])))
    # 16 to 28 mm from the left and 32 to 48 from the top, less the millimetre at which the square begins, over 2.5.
    expected = np.zeros((32, 32), dtype=bool)
    expected[12:19, 6:11] = True
    # Of this corner's pixel less than half lies in it: 0.6 of its height, 0.8 of its width.
    expected[12, 10] = False
    for view in views:
        np.testing.assert_array_equal(view.mask, expected)
        assert (view.patient, view.label, view.group, view.volume, view.found) == ("P", 1, "g", "ct", None)


def test_of_a_scan_a_plane_itself_is_seen_and_not_its_neighbours(scan: Case) -> None:
    first, *_ = lesion_views(scan, explained_scan(scan, EVEN, cells(), (1, 0)), PREPARATION, group="g", shown=0)
    # The plane before shows no lesion there; from -500 to 1300 HU, 900 lies at 0.78 and 40 at 0.3.
    assert first.pixels[15, 8] == pytest.approx(1400 / 1800, abs=0.01)
    assert first.pixels[15, 20] == pytest.approx(540 / 1800, abs=0.01)


@pytest.mark.parametrize(("shown", "strongest"), [(0, (0, 31)), (1, (20, 0))])
def test_of_a_scan_the_evidence_is_that_of_the_class_that_is_shown_whatever_the_logits(
    scan: Case, shown: int, strongest: tuple[int, int]
) -> None:
    view, *_ = lesion_views(scan, explained_scan(scan, EVEN, cells(), (0, 1)), PREPARATION, group="g", shown=shown)
    assert view.evidence[strongest] == pytest.approx(view.evidence.max())
    assert view.lesion is not None
    assert view.lesion[0, 31] == pytest.approx(view.lesion.max())


def test_a_lesion_beyond_what_is_read_of_a_scan_has_a_view_that_marks_nothing(scan: Case) -> None:
    said = explained_scan(scan, EVEN, cells(), (1, 0))
    (image,) = said.prediction.images
    # All of them are read where the lesion is not.
    elsewhere = tuple(look.model_copy(update={"rectangle": (0, 0, 2, 2)}) for look in image.looks)
    prediction = said.prediction.model_copy(update={"images": (image.model_copy(update={"looks": elsewhere}),)})
    views = lesion_views(scan, dataclasses.replace(said, prediction=prediction), PREPARATION, group="g", shown=0)
    assert [bool(view.mask.any()) for view in views] == [False]


def test_a_scan_without_a_mask_has_no_view(tmp_path: Path) -> None:
    case = scan_case(tmp_path, mask=False)
    assert lesion_views(case, explained_scan(case, EVEN, cells(), (1, 0)), PREPARATION, group="g", shown=0) == []


def test_planes_of_a_scan_are_counted_beside_the_scans(scan: Case) -> None:
    views = lesion_views(scan, explained_scan(scan, EVEN, cells(), (1, 0)), PREPARATION, group="g", shown=0)
    other = [dataclasses.replace(view, patient="Q") for view in views]
    table = localisation_table([*views, *other], draws=10)
    assert (table["images"], table["planes"]) == (2, 6)
    assert table["evidence"]["pointing"] == {**table["evidence"]["pointing"], "value": 0, "n": 2}
