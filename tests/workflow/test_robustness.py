"""A bundle on images that get worse: figures that can be checked, a page that stands alone, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from osteoscope import workflow
from osteoscope.errors import CohortError, ConfigError, StorageError
from osteoscope.imaging.disturb import DISTURBANCES
from osteoscope.workflow.robustness import sweep_robustness

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def sweep(run_folder: Path, other_cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "out"
    sweep_robustness(
        run_folder / "bundle", other_cohort_folder, folder, disturbances=["rotation", "noise", "borders"], threads=1
    )
    return folder


@pytest.fixture(scope="module")
def document(sweep: Path) -> dict[str, dict[str, list[dict[str, dict[str, float]]]]]:
    content: dict[str, dict[str, list[dict[str, dict[str, float]]]]] = json.loads(
        (sweep / "robustness.json").read_text()
    )
    return content


def test_each_disturbance_has_its_points_from_0_on(document: dict[str, dict[str, list[dict[str, object]]]]) -> None:
    assert list(document["disturbances"]) == ["noise", "rotation", "borders"]
    for name, points in document["disturbances"].items():
        assert [point["strength"] for point in points] == [0, *DISTURBANCES[name].strengths]
        assert {point["unit"] for point in points} == {DISTURBANCES[name].unit}


def test_strength_0_is_the_evaluation_of_the_bundle(
    document: dict[str, dict[str, list[dict[str, object]]]],
    run_folder: Path,
    other_cohort_folder: Path,
    tmp_path: Path,
) -> None:
    level = workflow.evaluate(run_folder / "bundle", other_cohort_folder, tmp_path / "out").metrics["patient"]
    undisturbed = document["disturbances"]["noise"][0]
    for name in ("auc", "balanced_accuracy", "decided"):
        assert undisturbed[name] == level[name]
    assert undisturbed["verdicts_changed"]["value"] == 0  # type: ignore[index]
    assert undisturbed["auc_change"]["value"] == 0  # type: ignore[index]


def test_the_change_is_that_of_the_auc(document: dict[str, dict[str, list[dict[str, dict[str, float]]]]]) -> None:
    for points in document["disturbances"].values():
        for point in points:
            difference = point["auc"]["value"] - points[0]["auc"]["value"]
            assert point["auc_change"]["value"] == pytest.approx(difference, abs=1e-12)


def test_the_page_needs_no_other_file_and_names_every_strength(sweep: Path) -> None:
    page = (sweep / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<figure>") == 3
    for name in ("noise", "rotation", "borders"):
        for strength in DISTURBANCES[name].strengths:
            assert f'<th scope="row">{strength:g}</th>' in page
    assert {path.name for path in sweep.iterdir()} == {"robustness.json", "report.html"}


def test_the_same_sweep_gives_the_same_bytes_and_no_torch(
    sweep: Path, run_folder: Path, other_cohort_folder: Path, tmp_path: Path
) -> None:
    code = """
import sys
from pathlib import Path
from osteoscope.workflow.robustness import sweep_robustness
sweep_robustness(*map(Path, sys.argv[1:]), disturbances=["rotation", "noise", "borders"], threads=1)
assert not {"torch", "monai"} & set(sys.modules)
"""
    arguments = [run_folder / "bundle", other_cohort_folder, tmp_path / "o"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    for name in ("robustness.json", "report.html"):
        assert (tmp_path / "o" / name).read_bytes() == (sweep / name).read_bytes()


def test_progress_is_by_patient(run_folder: Path, other_cohort_folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    sweep_robustness(
        run_folder / "bundle",
        other_cohort_folder,
        tmp_path / "out",
        disturbances=["gamma"],
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 12) for done in range(1, 13)]


def test_the_cohort_it_was_trained_on_is_refused(run_folder: Path, cohort_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="train"):
        sweep_robustness(run_folder / "bundle", cohort_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disturbance_that_does_not_exist_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no disturbance fog .*choose from noise, blur"):
        sweep_robustness(tmp_path / "nowhere", tmp_path, tmp_path / "out", disturbances=["noise", "fog"])


def test_a_bundle_for_ct_and_mr_is_refused(scan_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a bundle that reads radiographs alone, found one for CT and MR"):
        sweep_robustness(scan_bundle, tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_kept(
    run_folder: Path, other_cohort_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="is not a robustness sweep"):
        sweep_robustness(run_folder / "bundle", other_cohort_folder, tmp_path)
    with pytest.raises(StorageError, match="lies in the bundle that is read"):
        sweep_robustness(run_folder / "bundle", other_cohort_folder, run_folder / "bundle" / "out")
