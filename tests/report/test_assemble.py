"""From records of a study to what its pages say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from osteoscope.cohort.table import Case, CaseImage
from osteoscope.config import PreparationConfig
from osteoscope.imaging.picture import pixel_sha256, read_picture
from osteoscope.imaging.prepare import Square
from osteoscope.inference.prediction import CasePrediction, ExplainedCase, ImagePrediction, Look
from osteoscope.report.assemble import case_content, evidence_notes, localisation_rows
from osteoscope.report.overlay import evidence_scale

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.report.content import CaseContent


def picture(folder: Path, side: int) -> CaseImage:
    """Write a grey square picture."""
    path = folder / f"{side}.png"
    Image.new("L", (side, side), 100).save(path)
    digest = pixel_sha256(read_picture(path).read()[0])
    return CaseImage(image=path.name, path=path, pixel_sha256=digest, rows=side, columns=side, modality="radiograph")


def look(left: float, top: float, side: float, likelihood: float | None = None, weight: float = 0.25) -> Look:
    return Look(rectangle=(left, top, side, side), weight=weight, likelihood=likelihood)


def content(images: list[CaseImage], looks: list[tuple[Look, ...]], evidence: Any, **more: Any) -> CaseContent:
    """Make a page's content of images, the looks at them and one map a look, of two classes."""
    said = [
        ImagePrediction(image=image.image, logits=(1.0, -1.0), looks=seen)
        for image, seen in zip(images, looks, strict=True)
    ]
    one = np.asarray(evidence, dtype=np.float32)
    return case_content(
        Case(patient="P", label=0, images=tuple(images)),
        ExplainedCase(
            prediction=CasePrediction(patient="P", label=0, logits=(1.0, -1.0), images=tuple(said)),
            evidence=np.stack([one, -one], axis=1),
            lesions=np.zeros((len(images), 2, 2), dtype=np.float32),
        ),
        classes=("a", "b"), probabilities=(0.5, 0.5), prior=(0.5, 0.5), verdict=0, made_by="", study_href="",
        preparation=PreparationConfig(**more),
    )  # fmt: skip


def test_as_much_evidence_is_as_strong_in_a_picture_of_many_pixels(tmp_path: Path) -> None:
    images = [picture(tmp_path, 40), picture(tmp_path, 400)]
    made = content(images, [(look(0, 0, 40),), (look(0, 0, 400),)], np.full((2, 2, 2), 0.5))
    # Four cells of 0.5 add 2 to the logit, which is the mean over the square.
    for image in made.images:
        np.testing.assert_allclose(image.evidence[0], 2.0, rtol=1e-5)
        np.testing.assert_allclose(image.evidence[1], -2.0, rtol=1e-5)
    assert evidence_scale(image.evidence for image in made.images) == pytest.approx(2.0)


def test_evidence_of_regions_lies_in_them_by_area_and_is_added_up(tmp_path: Path) -> None:
    seen = (look(0, 0, 40, weight=0), look(20, 0, 10, likelihood=0.8), look(20, 0, 20, likelihood=0.4))
    made = content([picture(tmp_path, 40)], [seen], [np.zeros((2, 2)), np.full((2, 2), 0.25), np.full((2, 2), 0.5)])
    image = made.images[0]
    # The smaller region holds a sixteenth of the image, so that 4 x 0.25 of the logit count 16-fold by area; the larger
    # one, which holds the smaller, a quarter of it: 4 x 0.5 count 4-fold. Where there is image beyond an edge, the
    # smaller fades from 2.5 pixels within to 2.5 beyond, the larger from 5 to 5.
    np.testing.assert_allclose(image.evidence[0, :7, 25:27], 16.0 + 8.0, rtol=1e-5)
    np.testing.assert_allclose(image.evidence[0, 13:15, 25:], 8.0, rtol=1e-5)
    np.testing.assert_array_equal(image.evidence[0, :, :15], 0)
    np.testing.assert_array_equal(image.evidence[0, 25:], 0)
    assert image.evidence[0].mean() == pytest.approx(1.0 + 2.0)
    assert image.found == (Square(left=20, top=0, side=10), Square(left=20, top=0, side=20))
    assert image.square == Square(left=0, top=0, side=40)
    assert image.weight == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("again", "wanted", "expected"),
    [
        ((), False, None),
        ((), True, "found"),
        ((look(1, 1, 5, likelihood=0.3),), True, "found"),
        ((look(1, 1, 5, likelihood=0.3), look(8, 8, 5, likelihood=0.2)), False, "found"),
        ((look(1, 1, 5),), True, "marked"),
    ],
)
def test_it_is_told_who_found_what_was_looked_at_again(
    tmp_path: Path, *, again: tuple[Look, ...], wanted: bool, expected: str | None
) -> None:
    maps = np.zeros((1 + len(again), 2, 2))
    made = content([picture(tmp_path, 40)], [(look(0, 0, 40), *again)], maps, second_look=wanted)
    assert made.second_look == expected
    assert len(made.images[0].found) == len(again)


def test_where_the_network_finds_a_lesion_is_a_row_of_its_own_and_no_evidence() -> None:
    row = {name: {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9} for name in ("iou", "pointing", "energy")}
    rows = localisation_rows({"images": 9, "evidence": row, "lesion": row, "gaussian": row, "regions": {"images": 9}})
    assert [(one.name, one.is_evidence) for one in rows] == [
        ("evidence of the network", True),
        ("where the network finds a lesion", False),
        ("centred Gaussian", False),
    ]


@pytest.mark.parametrize(
    ("roi", "looks_again", "told", "untold"),
    [
        ("none", False, ["on the whole image, as the network read it"], ["look", "marked"]),
        ("box", False, ["cut round the lesion", "profits from what a person had marked"], ["look"]),
        (
            "none",
            True,
            [
                "as the first look read it",
                "of the looks that decide",
                "is no evidence",
                "likely to show a lesion",
                "not say",
            ],
            ["marked", "all looks"],
        ),
        (
            "outline",
            True,
            ["of the looks that decide", "went where a person had marked", "lies there alone", "profit from that mark"],
            ["looks again", "all looks"],
        ),
    ],
)
def test_notes_on_evidence_hold_for_one_look_and_for_two(
    roi: str, told: list[str], untold: list[str], *, looks_again: bool
) -> None:
    localisation: dict[str, Any] = {"evidence": {}, "lesion": {}} if looks_again else {"evidence": {}}
    notes = " ".join(evidence_notes({"roi": roi, "localisation": localisation}))
    assert all(said in notes for said in told)
    assert not any(said in notes for said in untold)


def test_lesions_of_which_nothing_was_read_are_told() -> None:
    told = [" ".join(evidence_notes({"roi": "none", "localisation": {"not_read": count}})) for count in (0, 1, 3)]
    assert "further" not in told[0]
    assert "Of 1 further image with an outlined lesion nothing" in told[1]
    assert "Of 3 further images with an outlined lesion nothing" in told[2]


def test_what_evidence_leaves_out_is_told_of_patients_of_several_looks() -> None:
    through = {"patients": 7, "median": 0.04, "quartiles": [0.01, 0.08]}
    metrics: dict[str, Any] = {"roi": "none", "localisation": {}, "evidence_through_weights": through}
    assert "4.0% of it (quartiles 1.0% to 8.0%), in 7 patients of several images" in evidence_notes(metrics)[-1]
    metrics["localisation"] = {"lesion": {}}
    assert "the weights of the deciding looks fixed" in evidence_notes(metrics)[-1]
    assert "in 7 patients of several deciding looks" in evidence_notes(metrics)[-1]
    metrics["evidence_through_weights"] = {"patients": 0}
    assert "through those weights" not in " ".join(evidence_notes(metrics))


def test_notes_on_evidence_in_planes_speak_of_planes_alone() -> None:
    through = {"patients": 7, "median": 0.04, "quartiles": [0.01, 0.08]}
    localisation: dict[str, Any] = {"planes": 30, "evidence": {}, "lesion": {}}
    notes = " ".join(evidence_notes({"roi": "none", "localisation": localisation, "evidence_through_weights": through}))
    assert "plane by plane" in notes
    assert "is no evidence for one" in notes
    assert "in 7 patients of several planes" in notes
    assert not any(word in notes for word in ("whole image", "look", "radiograph"))
