from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from osteoscope.cohort.audit import Finding, find_leaks, raise_if_blocked, shared_with
from osteoscope.cohort.table import Cohort, Row, auxiliary, frame_of
from osteoscope.errors import CohortError

GCT = "giant cell tumor"


def make_row(image: str, patient: str, label: str | None = "osteosarcoma", **known: Any) -> Row:
    """A row whose pixels are its own unless a hash is given; without a label it is auxiliary."""
    facts: dict[str, Any] = {
        "guessed": False,
        "file_sha256": f"file of {image}",
        "pixel_sha256": f"pixels of {image}",
        "rows": 40,
        "columns": 50,
        "modality": "radiograph",
        "role": "auxiliary" if label is None else "case",
        **known,
    }
    return Row(image=image, patient=patient, label=label, **facts)


def make_cohort(rows: list[Row]) -> Cohort:
    return Cohort(frame=frame_of(rows), classes=("osteosarcoma", GCT), root=Path("images"), source="test")


def test_a_clean_cohort_has_no_findings() -> None:
    cohort = make_cohort([make_row("a.png", "P-1"), make_row("b.png", "P-1"), make_row("c.png", "P-2", GCT)])
    assert find_leaks(cohort) == ()
    raise_if_blocked(())


@pytest.mark.parametrize(
    ("patients", "labels", "kind", "severity"),
    [
        (("P-1", "P-1"), ("osteosarcoma", "osteosarcoma"), "duplicate-within-patient", "warn"),
        (("P-1", "P-2"), ("osteosarcoma", "osteosarcoma"), "duplicate-across-patients", "block"),
        (("P-1", "P-2"), ("osteosarcoma", GCT), "duplicate-across-labels", "block"),
    ],
)
def test_the_same_pixels_twice_are_found(
    patients: tuple[str, str],
    labels: tuple[str, str],
    kind: str,
    severity: str,
) -> None:
    rows = [
        make_row(image, patient, label, pixel_sha256="same")
        for image, patient, label in zip(("a.png", "b.png"), patients, labels, strict=True)
    ]
    (finding,) = find_leaks(make_cohort([*rows, make_row("c.png", "P-9", GCT)]))
    assert (finding.kind, finding.severity) == (kind, severity)
    assert finding.cases == tuple(sorted(set(patients)))
    assert "a.png and b.png" in finding.message


def test_one_patient_with_two_labels_blocks() -> None:
    (finding,) = find_leaks(make_cohort([make_row("a.png", "P-1"), make_row("b.png", "P-1", GCT)]))
    assert finding == Finding(
        kind="patient-with-two-labels",
        severity="block",
        cases=("P-1",),
        message="patient P-1 has the labels 'giant cell tumor' and 'osteosarcoma' (a.png and b.png)",
        remedy="give every image of a patient the same label, and make the cohort again",
    )


def test_auxiliary_images_of_a_case_are_warned_of_and_kept_back() -> None:
    cohort = make_cohort(
        [
            make_row("a.png", "P-1", pixel_sha256="same"),
            make_row("b.png", "P-2", GCT),
            make_row("copy.png", "P-3", None, pixel_sha256="same"),
            make_row("other-view.png", "P-2", None),
            make_row("free.png", "P-4", None, kind="chordoma"),
        ]
    )
    findings = find_leaks(cohort)
    assert [(finding.kind, finding.severity, finding.cases) for finding in findings] == [
        ("auxiliary-shares-patient", "warn", ("P-2",)),
        ("auxiliary-shares-pixels", "warn", ("P-1",)),
    ]
    raise_if_blocked(findings)
    assert [(image.image.image, image.kind) for image in auxiliary(cohort)] == [("free.png", "chordoma")]


def test_an_auxiliary_image_of_a_case_with_the_same_pixels_is_told_of_once() -> None:
    findings = find_leaks(
        make_cohort(
            [
                make_row("a.png", "P-1", pixel_sha256="same"),
                make_row("copy.png", "P-1", None, pixel_sha256="same"),
                make_row("b.png", "P-2", GCT),
            ]
        )
    )
    assert [finding.kind for finding in findings] == ["auxiliary-shares-pixels"]


def test_what_blocks_comes_first_and_stops_with_one_sentence() -> None:
    findings = find_leaks(
        make_cohort(
            [
                make_row("a.png", "P-1", pixel_sha256="x"),
                make_row("b.png", "P-1", pixel_sha256="x"),
                make_row("c.png", "P-2", GCT, pixel_sha256="y"),
                make_row("d.png", "P-3", GCT, pixel_sha256="y"),
                make_row("e.png", "P-3"),
            ]
        )
    )
    assert [finding.severity for finding in findings] == ["block", "block", "warn"]
    with pytest.raises(
        CohortError, match=r"c\.png and d\.png .* different patients, and 1 more .*make the cohort again"
    ):
        raise_if_blocked(findings)


def test_patients_and_pixels_of_the_training_cohort_are_found() -> None:
    cohort = make_cohort(
        [
            make_row("a.png", "P-1"),
            make_row("b.png", "P-2", GCT),
            make_row("c.png", "P-3"),
            make_row("d.png", "P-9", None),
        ]
    )
    assert shared_with(cohort, {"P-7"}, {"other pixels"}) == ()
    assert shared_with(cohort, {"P-9"}, {"pixels of d.png"}) == ()
    patients, pixels = shared_with(cohort, {"P-1", "P-7"}, {"pixels of b.png", "pixels of c.png"})
    assert (patients.kind, patients.severity, patients.cases) == ("shared-patient", "block", ("P-1",))
    assert patients.message.startswith("1 of 3 patients")
    assert (pixels.kind, pixels.severity, pixels.cases) == ("shared-pixels", "block", ("P-2", "P-3"))
    with pytest.raises(CohortError, match="--source"):
        raise_if_blocked([patients])


def test_a_message_names_a_few_of_many_images() -> None:
    rows = [make_row(f"{number}.png", f"P-{number}", pixel_sha256="same") for number in range(9)]
    (finding,) = find_leaks(make_cohort([*rows, make_row("z.png", "P-z", GCT)]))
    assert "3.png and 5 more have the same pixels" in finding.message
    assert len(finding.cases) == 9
