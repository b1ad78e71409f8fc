"""A radiograph in DICOM is read in a cohort, in training and in a study as one and the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bundles import export_tiny, write_tiny_bundle
from dicom_files import write_dicom

from osteoscope.bundle.load import load_bundle
from osteoscope.cohort.table import Case, CaseImage
from osteoscope.config import PreparationConfig
from osteoscope.imaging.open import images_at
from osteoscope.imaging.picture import pixel_sha256, read_picture
from osteoscope.imaging.prepare import Lesion
from osteoscope.inference.predict import prepare_case
from osteoscope.inference.predictor import load_predictor
from osteoscope.inference.radiographs import lesions_on, read_pixels
from osteoscope.inference.scope import select_images, studies_of
from osteoscope.inference.study import Told, explain_study
from osteoscope.training.planes import load_cases

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = PreparationConfig(size=64)


def radiograph(folder: Path, **more: Any) -> CaseImage:
    """Write twelve bits of sixteen, the darkest of which is far from black; rows twice as high where so said."""
    stored = np.random.default_rng(0).normal(1500, 200, (60, 90)).clip(0, 4095).astype(np.uint16)
    stored[15:35, 30:70] = 3000
    path = write_dicom(folder / "film.dcm", stored, "DX", **more)
    return CaseImage(
        image="film.dcm",
        path=path,
        pixel_sha256=pixel_sha256(read_picture(path).read()),
        rows=60,
        columns=90,
        modality="radiograph",
        lesions=(Lesion(box=(30, 15, 70, 35), outline=((30, 15), (70, 15), (70, 35), (30, 35))),),
    )


@pytest.mark.parametrize("more", [{}, {"PixelAspectRatio": [2, 1]}], ids=["square", "oblong"])
def test_it_says_the_same_of_a_cohort_and_of_a_study(more: dict[str, Any], tmp_path: Path) -> None:
    image = radiograph(tmp_path, **more)
    case = Case(patient="P", label=0, images=(image,))
    folder = export_tiny(tmp_path / "member", channels=1)
    bundle = load_bundle(write_tiny_bundle(tmp_path / "bundle", folder, preparation=WHOLE, modalities=("radiograph",)))
    predictor = load_predictor(bundle, threads=1)
    expected = predictor.calibration.apply(np.array([predictor.explain(case).prediction.logits]))[0]
    with images_at([image.path]) as opened:
        (study,) = studies_of(opened)
        said = explain_study(select_images(study, ["radiograph"]), bundle, predictor, Told())
    assert said.probabilities == pytest.approx(expected, abs=1e-6)


def test_its_greys_are_stretched_in_training_as_in_prediction(tmp_path: Path) -> None:
    image = radiograph(tmp_path)
    # As it is stored it lies in a sixteenth of the range.
    assert read_picture(image.path).read().max() < 0.1
    shown = read_pixels(image)
    assert (shown.min(), shown.max()) == (0, 1)
    case = Case(patient="P", label=0, images=(image,))
    prepared = prepare_case(case, WHOLE)
    canvas = load_cases([case], WHOLE).planes.canvases[0, 0, 16:-16, 16:-16].float().numpy()
    np.testing.assert_allclose(canvas[1:-1, 1:-1], prepared.planes[0, 0, 1:-1, 1:-1], atol=2e-3)  # type: ignore[union-attr]


def test_what_is_outlined_in_oblong_pixels_lies_where_it_is_seen_in_square_ones(tmp_path: Path) -> None:
    image = radiograph(tmp_path, PixelAspectRatio=[2, 1])
    shown = read_pixels(image)
    assert shown.shape == (120, 90)
    (lesion,) = lesions_on(shown, image)
    assert lesion.box == (30, 30, 70, 70)
    assert lesion.outline == ((30, 30), (70, 30), (70, 70), (30, 70))
    assert shown[32:68, 32:68].min() == 1
    square = PreparationConfig(size=64, roi="box", margin=0)
    planes = load_cases([Case(patient="P", label=0, images=(image,))], square).planes
    # The square of the lesion, with half as much round it: the middle of the canvas is all lesion, and its edge none.
    lesions = planes.lesions[0, 0].numpy()
    assert lesions[18:-18, 18:-18].all()
    assert not lesions[:14].any()
