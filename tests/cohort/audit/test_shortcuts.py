"""Shortcuts that are planted are found, and what only looks like one does not block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_up import GCT, OS, Entry, entries, picture, resized, write_cohort_of
from PIL import Image

from osteoscope.cohort.audit.shortcuts import find_shortcuts, hear_shortcuts
from osteoscope.cohort.audit.witness import Witness
from osteoscope.errors import ImageError
from osteoscope.evaluation.intervals import Figure
from osteoscope.imaging.prepare import Lesion

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.cohort.audit import Finding
    from osteoscope.cohort.table import Cohort
    from osteoscope.config import RegionOfInterest


def found_in(cohort: Cohort, features: dict[str, dict[str, float]] | None = None) -> dict[str, Finding]:
    found = find_shortcuts(cohort, hear_shortcuts(cohort, features=features or {}), roi="none", trains=True)
    return {finding.kind: finding for finding in found}


def severities(cohort: Cohort) -> dict[str, str]:
    return {kind: finding.severity for kind, finding in found_in(cohort).items()}


def test_a_clean_cohort_has_none(tmp_path: Path) -> None:
    assert found_in(write_cohort_of(tmp_path, entries(0))) == {}


def test_one_class_squashed_to_a_square_blocks(tmp_path: Path) -> None:
    made = entries(1)
    for entry in made:
        if entry["label"] == GCT:
            entry["picture"] = resized(entry["picture"], 64, 64)
    found = found_in(write_cohort_of(tmp_path, made))
    assert found["geometry-shortcut"].severity == "block"
    assert found["geometry-shortcut"].cases == ()
    assert "picture geometry alone" in found["geometry-shortcut"].message
    assert f"{OS!r} from {GCT!r}" in found["geometry-shortcut"].message


def test_one_class_cropped_round_its_lesion_blocks(tmp_path: Path) -> None:
    made = entries(2)
    for entry in made:
        if entry["label"] == OS:
            entry["picture"] = entry["picture"][10:48, 5:39]
    assert severities(write_cohort_of(tmp_path, made))["geometry-shortcut"] == "block"


def test_a_geometry_that_tells_something_warns(tmp_path: Path) -> None:
    # Wider in one class by 1.5 standard deviations: in the normal model an AUC of 0.86.
    made, rng = entries(3, (40, 40), views=1), np.random.default_rng(3)
    for entry in made:
        width = round(60 + 6 * rng.normal() + (9 if entry["label"] == GCT else 0))
        entry["picture"] = picture(rng, 60, max(width, 36))
    assert severities(write_cohort_of(tmp_path, made)) == {"geometry-shortcut": "warn"}


def test_borders_that_tell_the_label_block(tmp_path: Path) -> None:
    made, rng = entries(4), np.random.default_rng(4)
    features = {
        entry["image"]: {"border_top": rng.normal(), "edge_marks": rng.normal() + 6 * (entry["label"] == OS)}
        for entry in made
    }
    found = found_in(write_cohort_of(tmp_path, made), features=features)
    assert {kind: finding.severity for kind, finding in found.items()} == {"border-shortcut": "block"}


def test_another_file_format_for_one_class_blocks(tmp_path: Path) -> None:
    made = entries(5)
    for entry in made:
        if entry["label"] == GCT:
            entry["image"] = entry["image"].replace(".png", ".bmp")
    assert severities(write_cohort_of(tmp_path, made))["file-shortcut"] == "block"


def test_another_compression_for_one_class_blocks(tmp_path: Path) -> None:
    made = entries(6)
    for entry in made:
        entry["image"] = entry["image"].replace(".png", ".jpg")
    cohort = write_cohort_of(tmp_path, made)
    for entry in made:
        quality = 95 if entry["label"] == GCT else 30
        Image.fromarray(entry["picture"]).save(tmp_path / entry["image"], quality=quality)
    assert severities(cohort)["file-shortcut"] == "block"


def test_a_view_that_tells_the_label_warns_and_no_more(tmp_path: Path) -> None:
    made = entries(7)
    for entry in made:
        entry["view"] = "frontal" if entry["label"] == GCT else "lateral"
    assert severities(write_cohort_of(tmp_path, made)) == {"view-shortcut": "warn"}


def test_a_brightness_that_tells_the_label_warns_and_no_more(tmp_path: Path) -> None:
    """A dense lesion brightens its picture honestly."""
    made, rng = entries(17), np.random.default_rng(17)
    features = {
        entry["image"]: {"mean": 0.4 + 0.02 * rng.normal() + 0.3 * (entry["label"] == OS), "deviation": rng.normal()}
        for entry in made
    }
    cohort = write_cohort_of(tmp_path, made)
    # So much, told by borders, would block.
    assert hear_shortcuts(cohort, features=features)["exposure"].severity == "block"
    found = found_in(cohort, features=features)
    assert {kind: finding.severity for kind, finding in found.items()} == {"exposure-shortcut": "warn"}


# Centres


def from_centres(made: list[Entry], centre_of: dict[str, str]) -> list[Entry]:
    for entry in made:
        entry["centre"] = centre_of[entry["label"]]
    return made


def test_a_centre_for_each_class_blocks(tmp_path: Path) -> None:
    found = found_in(write_cohort_of(tmp_path, from_centres(entries(8), {OS: "A", GCT: "B"})))
    assert found["centre-shortcut"].severity == "block"
    assert f"all 15 patients of {OS!r} come from centre 'A'" in found["centre-shortcut"].message


def test_a_class_that_one_centre_alone_has_blocks(tmp_path: Path) -> None:
    made = entries(9, (30, 15))
    for entry in made:
        if entry["label"] == GCT:
            entry["centre"] = "A"
    finding = found_in(write_cohort_of(tmp_path, made))["centre-shortcut"]
    assert finding.severity == "block"
    assert f"all 15 patients of {GCT!r} come from centre 'A', and of the 30 others" in finding.message


def test_one_centre_for_all_is_no_shortcut(tmp_path: Path) -> None:
    assert found_in(write_cohort_of(tmp_path, from_centres(entries(10), {OS: "A", GCT: "A"}))) == {}


def test_a_centre_is_judged_where_it_is_recorded(tmp_path: Path) -> None:
    made = entries(11)
    for entry in made:
        entry["centre"] = None if entry["label"] == GCT else entry["centre"]
    cohort = write_cohort_of(tmp_path, made)
    heard = hear_shortcuts(cohort, features={})["centre"]
    assert heard.auc.value is None
    assert heard.auc.reason is not None
    assert "fewer than two classes" in heard.auc.reason
    assert found_in(cohort) == {}


# Three classes


def test_of_three_classes_the_one_that_is_told_apart_counts(tmp_path: Path) -> None:
    classes = (OS, GCT, "normal")
    made = entries(12, (12, 12, 12), classes=classes)
    for entry in made:
        if entry["label"] == "normal":
            entry["picture"] = resized(entry["picture"], 64, 64)
    finding = found_in(write_cohort_of(tmp_path, made, classes=classes))["geometry-shortcut"]
    assert finding.severity == "block"
    assert "'normal'" in finding.message


# Outlines


@pytest.mark.parametrize(
    ("roi", "trains", "severity", "said"),
    [
        ("none", True, "warn", "learns one class more from its lesions"),
        ("none", False, "note", "does not matter"),
        ("box", True, "block", "cropping by the box tells the label"),
        ("outline", False, "block", "cropping by the outline tells the label"),
    ],
)
def test_lesions_annotated_in_one_class_alone(
    tmp_path: Path, roi: RegionOfInterest, severity: str, said: str, *, trains: bool
) -> None:
    made = entries(13)
    for entry in made:
        entry["lesions"] = (Lesion(box=(5, 5, 20, 20)),) if entry["label"] == OS else ()
    (finding,) = find_shortcuts(write_cohort_of(tmp_path, made), {}, roi=roi, trains=trains)
    assert (finding.kind, finding.severity) == ("outline-depends-on-label", severity)
    assert f"15 of 15 patients of {OS!r}, 0 of 15 patients of {GCT!r}" in finding.message
    assert said in finding.message
    assert bool(finding.remedy) == (severity != "note")


@pytest.mark.parametrize(("roi", "found"), [("none", False), ("box", False), ("outline", True)])
def test_outlines_of_one_class_and_boxes_of_the_other(tmp_path: Path, roi: RegionOfInterest, *, found: bool) -> None:
    made = entries(14)
    for entry in made:
        outline = ((5.0, 5.0), (20.0, 5.0), (5.0, 20.0)) if entry["label"] == OS else ()
        entry["lesions"] = (Lesion(box=(5, 5, 20, 20), outline=outline),)
    assert bool(find_shortcuts(write_cohort_of(tmp_path, made), {}, roi=roi, trains=True)) == found


def test_lesions_that_lack_here_and_there_are_not_of_a_label(tmp_path: Path) -> None:
    made, rng = entries(15), np.random.default_rng(15)
    for entry in made:
        entry["lesions"] = (Lesion(box=(5, 5, 20, 20)),) if rng.random() < 0.8 else ()
    assert find_shortcuts(write_cohort_of(tmp_path, made), {}, roi="box", trains=True) == ()


# Severity


@pytest.mark.parametrize(
    ("value", "low", "severity"),
    [
        (0.95, 0.75, "block"),
        (0.95, 0.65, "warn"),
        (0.85, 0.75, "warn"),
        (0.62, 0.56, "warn"),
        (0.62, 0.52, None),
        (0.40, 0.30, None),
        (0.50, None, None),
        (None, None, None),
    ],
)
def test_how_bad_an_auc_is(value: float | None, low: float | None, severity: str | None) -> None:
    assert Witness(sees="x", auc=Figure(value=value, low=low, high=low and 1.0, n=50)).severity == severity


def test_an_image_that_is_gone_is_named(tmp_path: Path) -> None:
    made = entries(16)
    cohort = write_cohort_of(tmp_path, made)
    (tmp_path / made[0]["image"]).unlink()
    with pytest.raises(ImageError, match="missing"):
        hear_shortcuts(cohort, features={})
