"""``recalibrate`` and ``robustness`` on the command line: summaries for people and for machines, usage faults."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from osteoscope.cli.main import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_recalibration_is_summed_up_for_people_and_for_machines(
    run_folder: Path, other_cohort_folder: Path, tmp_path: Path
) -> None:
    prior = ["--prior", "osteosarcoma=0.8", "--prior", "giant_cell_tumor=0.2"]
    command: list[str | Path] = [
        "recalibrate",
        run_folder / "bundle",
        other_cohort_folder,
        "-o",
        tmp_path / "bundle",
        *prior,
    ]
    told = run(*command)
    assert told.returncode == 0, told.stderr
    assert "prior of giant cell tumor: 0.500 before, 0.200 after" in told.stdout
    assert "6 patients of osteosarcoma, and 10 are needed" in told.stdout
    summary = json.loads(run(*command, "--json").stdout)
    assert summary["prior_to"] == {"osteosarcoma": 0.8, "giant_cell_tumor": 0.2}
    assert set(summary["figures"]) == {"before", "prior_only", "after"}
    assert set(summary["figures"]["after"]) == {"brier", "log_loss", "calibration_slope", "calibration_intercept"}
    assert summary["fitted"] is False
    assert len(summary["notes"]) == 2


@pytest.mark.parametrize("prior", [["osteosarcoma"], ["=0.5"], ["osteosarcoma=half"], ["a=0.5", "a=0.5"]])
def test_a_prior_that_cannot_be_read_exits_with_2(tmp_path: Path, prior: list[str]) -> None:
    options = [option for text in prior for option in ("--prior", text)]
    done = run("recalibrate", tmp_path, tmp_path, "-o", tmp_path / "out", *options)
    assert done.returncode == 2
    assert "SLUG=SHARE" in done.stderr


def test_a_fault_is_one_line_and_exits_with_3(tmp_path: Path) -> None:
    done = run("recalibrate", tmp_path / "nowhere", tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 3
    assert "is not a bundle" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_sweep_is_summed_up_for_people_and_for_machines(
    run_folder: Path, other_cohort_folder: Path, tmp_path: Path
) -> None:
    options = ["--disturbance", "noise", "--disturbance", "shift", "--threads", "1"]
    command: list[str | Path] = [
        "robustness",
        run_folder / "bundle",
        other_cohort_folder,
        "-o",
        tmp_path / "out",
        *options,
    ]
    told = run(*command)
    assert told.returncode == 0, told.stderr
    assert "shift (% of the side)" in told.stdout
    summary = json.loads(run(*command, "--json").stdout)
    assert list(summary["robustness"]["disturbances"]) == ["noise", "shift"]


def test_a_disturbance_that_does_not_exist_exits_with_3_and_names_those_that_do(tmp_path: Path) -> None:
    done = run("robustness", tmp_path, tmp_path, "-o", tmp_path / "out", "--disturbance", "fog")
    assert done.returncode == 3
    assert "choose from noise, blur" in done.stderr
