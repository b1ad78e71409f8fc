"""What the study report says of phantoms beside their truth."""

from __future__ import annotations

import dataclasses
import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from osteoscope.imaging.volume import Geometry, Volume
from osteoscope.inference.prediction import CasePrediction, ExplainedCase, ImagePrediction, Look
from osteoscope.report.content import BeforeAfter, LocalisationRow, StudyContent
from osteoscope.report.study import study_html
from osteoscope.report.truth import Seen, before_after

if TYPE_CHECKING:
    from collections.abc import Callable


def figure(value: float | None, low: float | None = None, high: float | None = None, n: int = 40) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def truth(**changes: Any) -> dict[str, Any]:
    return {
        "mineralised": {"osteosarcoma": 3, "giant-cell-tumor": 1},
        "bayes": {
            "auc": figure(0.987, 0.951, 0.998),
            "clinical": "clinical: age, sex, level",
            "way_covered": figure(0.83, 0.61, 0.97),
        },
        "matrix_rule": {
            "balanced_accuracy": figure(0.88, 0.79, 0.95),
            "sensitivity": figure(0.8, 0.6, 0.9),
            "specificity": figure(0.96, 0.8, 0.99),
        },
        "lytic": {"n_by_class": {"osteosarcoma": 5, "giant-cell-tumor": 20}, "auc": figure(0.71, 0.5, 0.88, 25)},
        "localisation": {},
        "counterfactual": {
            "n": 3,
            "fallen": figure(2 / 3, 0.21, 0.94, 3),
            "median_fall": figure(0.34, -0.05, 0.72, 3),
            "patients": [
                {"patient": "P-1", "before": 0.9, "after": 0.2},
                {"patient": "P-2", "before": 0.8, "after": 0.46},
                {"patient": "P-3", "before": 0.5, "after": 0.55},
            ],
        },
        **changes,
    }


def picture(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(stream, format="JPEG")
    return stream.getvalue()


@pytest.fixture
def phantom_study(study: StudyContent) -> StudyContent:
    """A study of phantoms with their truth."""
    clinical = {"clinical: age, sex, level": {"auc": figure(0.69, 0.55, 0.8), "balanced_accuracy": figure(0.6)}}
    return dataclasses.replace(
        study,
        metrics={
            **study.metrics,
            "baselines": {**study.metrics.get("baselines", {}), **clinical},
            "truth": truth(),
        },
        truth_localisation=(
            LocalisationRow(
                name="evidence of the network",
                iou=figure(0.313, 0.2, 0.4),
                pointing=figure(0.77, 0.6, 0.9),
                energy=figure(0.41, 0.3, 0.5),
                is_evidence=True,
            ),
        ),
        without_matrix=BeforeAfter(
            patient="P-2",
            position="z = −12.0 mm",
            probabilities=(0.8, 0.46),
            pictures=(picture(10), picture(200)),
        ),
    )


def words(html: str) -> str:
    """Give what a reader reads, without marks and with plain spaces."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).replace("\u00a0", " ").split())


def test_every_figure_beside_the_truth_is_on_the_page(phantom_study: StudyContent) -> None:
    html = study_html(phantom_study)
    section = html[html.index('<h2 id="truth">') :]
    read = words(section)
    for said in (
        "AUC of the Bayes reference by the exact likelihood ratio of all that was rendered, covariates included "
        "0.99 (0.95–1.00)",
        "AUC of clinical data: age, sex, level 0.69 (0.55–0.80)",
        "83 % (61–97)",
        "giant cell tumor 88 % (79–95)",
        "0.71 (0.50–0.88) n = 25",
        "evidence of the network 0.31 (0.20–0.40) n = 40 77 % (60–90) n = 40 41 % (30–50)",
        "falls in 67 % (21–94) of 3 patients; the median fall is 0.34 (−0.05 to 0.72).",
        "As rendered: osteosarcoma 80 %",
        "Without matrix: osteosarcoma 46 %",
        "Patient P-2, the one of the median fall; z = −12.0 mm",
    ):
        assert said in read
    assert section.count("data:image/jpeg") == 2
    assert '<a href="#truth">' in html


def test_the_plot_tells_falls_from_the_rest(phantom_study: StudyContent) -> None:
    html = study_html(phantom_study)
    assert (
        "Probability of osteosarcoma, as rendered and without matrix, of 3 patients. falls: 2; does not fall: 1."
        in (html)
    )


def test_what_is_not_known_is_said(phantom_study: StudyContent) -> None:
    metrics = {
        **phantom_study.metrics,
        "truth": truth(
            lytic={"n_by_class": {"osteosarcoma": 0, "giant-cell-tumor": 20}, "reason": "there is none"},
            counterfactual={"n": 0, "reason": "nothing could be taken out"},
        ),
    }
    html = study_html(dataclasses.replace(phantom_study, metrics=metrics, without_matrix=None))
    assert "Not told: nothing could be taken out." in html
    assert "there is none; n\u00a0=\u00a020" in html


def test_without_a_truth_there_is_no_section(study: StudyContent, read_page: Callable[[str], Any]) -> None:
    html = study_html(study)
    assert "Beside the truth" not in html
    assert 'href="#truth"' not in html


def seen(values: np.ndarray, evidence: list[float], probability: float) -> Seen:
    """An axial CT of three planes of 32 x 32 pixels, read whole, with even evidence of the first class in each."""
    rectangle = (0.0, 0.0, 32.0, 32.0)
    looks = tuple(Look(plane=plane, rectangle=rectangle, weight=1 / 3) for plane in range(3))
    maps = np.zeros((3, 2, 4, 4), np.float32)
    maps[:, 0] = np.array(evidence, np.float32)[:, None, None]
    maps[:, 1] = -maps[:, 0]
    image = ImagePrediction(image="ct", logits=(0.0, 0.0), looks=looks, first_looks=3)
    return Seen(
        volume=Volume.in_memory(values, Geometry(shape=(3, 32, 32), affine=np.diag([1.0, 1, 5, 1])), "CT"),
        explained=ExplainedCase(
            prediction=CasePrediction(patient="P-7", label=0, logits=(0.0, 0.0), images=(image,)),
            evidence=maps,
            lesions=np.zeros((3, 4, 4), np.float32),
        ),
        probability=probability,
    )


def test_the_plane_that_changes_most_is_shown_in_one_scale() -> None:
    soft = np.full((3, 32, 32), 40, np.int16)
    shown = before_after(seen(soft, [0.1, 0.9, 0.8], 0.95), seen(soft, [0.1, 0.9, 0.0], 0.4), chosen=0)
    assert (shown.patient, shown.probabilities) == ("P-7", (0.95, 0.4))
    assert shown.position == "z = 10.0 mm"
    before, after = (np.asarray(Image.open(io.BytesIO(one)).convert("RGB"), dtype=float) for one in shown.pictures)
    middle = before.shape[0] // 2
    colour = before[middle, middle]
    # Colours lie over the one and not over the other, which is grey.
    assert np.ptp(colour) > 20
    assert np.ptp(after[middle, middle]) < 6
