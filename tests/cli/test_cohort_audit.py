"""``osteoscope cohort audit``: exit codes, what is printed, what is accepted."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from made_up import GCT, entries, picture, write_cohort_of
from typer.testing import CliRunner

from osteoscope.cli.main import app
from osteoscope.cohort.table import write_cohort
from osteoscope.errors import CohortError, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

ACCEPTED = ("--accept", "geometry-shortcut", "--because", "all pictures will be squashed alike")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["cohort", "audit", *map(str, arguments)])


@pytest.fixture(scope="module")
def squashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort in which the giant cell tumours alone are square."""
    folder = tmp_path_factory.mktemp("squashed")
    made, rng = entries(1, (12, 12), views=1), np.random.default_rng(1)
    for entry in made:
        if entry["label"] == GCT:
            entry["picture"] = picture(rng, 64, 64)
    write_cohort(write_cohort_of(folder / "images", made), folder / "cohort")
    return folder / "cohort"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    write_cohort(write_cohort_of(folder / "images", entries(2, (12, 12), views=1)), folder / "cohort")
    return folder / "cohort"


def test_a_clean_cohort_exits_with_0_and_has_a_readable_table(clean: Path) -> None:
    done = run(clean)
    assert done.exit_code == 0
    assert "0 block, 0 warn" in done.stdout
    assert "expected-precision" in done.stdout
    assert "picture geometry" in done.stdout
    assert "age, sex and body site" in done.stdout


def test_what_blocks_is_printed_and_exits_with_3_and_the_way_on(squashed: Path) -> None:
    code = "from osteoscope.cli.main import main; main()"
    command = [sys.executable, "-c", code, "cohort", "audit", str(squashed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "block  geometry-shortcut" in done.stdout
    assert '--accept geometry-shortcut --because "…"' in done.stderr.splitlines()[-1]


def test_what_is_accepted_is_printed_with_its_reason_and_exits_with_0(squashed: Path) -> None:
    done = run(squashed, *ACCEPTED, "--accept", "file-shortcut", "--because", "to be sure")
    assert done.exit_code == 0
    assert "because: all pictures will be squashed alike" in done.stdout
    assert "accepted, but not found: file-shortcut" in done.stdout


def test_the_summary_for_machines_holds_all(squashed: Path) -> None:
    found = json.loads(run(squashed, "--json").stdout)
    assert found["blocked"] is True
    assert found["findings"][0].keys() == {"kind", "severity", "cases", "message", "remedy"}
    assert found["findings"][0]["kind"] == "geometry-shortcut"
    assert found["alone"]["geometry"]["auc"]["value"] > 0.9
    assert set(found["tables"]) >= {"age", "sex", "site", "view", "centre", "implant"}
    accepted = json.loads(run(squashed, "--json", *ACCEPTED).stdout)
    assert accepted["blocked"] is False
    assert accepted["accepted"][0]["because"] == "all pictures will be squashed alike"


def test_each_acceptance_needs_its_reason(squashed: Path) -> None:
    done = run(squashed, "--accept", "geometry-shortcut")
    assert done.exit_code == 2
    assert "each --accept needs its --because" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--accept", "geometry-shortcut", "--because", " "), "no reason"),
        (("--accept", "patient-with-two-labels", "--because", "I insist"), "cannot be accepted"),
    ],
)
def test_some_acceptances_are_refused(squashed: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(squashed, *arguments)
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)


def test_a_cohort_shares_its_patients_with_itself(clean: Path) -> None:
    done = run(clean, "--against", clean, "--json")
    assert isinstance(done.exception, CohortError)
    kinds = [finding["kind"] for finding in json.loads(done.stdout)["findings"] if finding["severity"] == "block"]
    assert {"shared-patient", "shared-pixels"} <= set(kinds)


def test_the_images_of_either_cohort_may_have_moved(clean: Path, tmp_path: Path) -> None:
    other = write_cohort_of(tmp_path / "images", entries(3, (12, 12), views=1))
    write_cohort(other, tmp_path / "other")
    (tmp_path / "images").rename(tmp_path / "moved")
    done = run(clean, "--against", tmp_path / "other")
    assert isinstance(done.exception, CohortError)
    assert done.exception.remedy == "name the folder that holds the images with --against-images"
    done = run(clean, "--against", tmp_path / "other", "--against-images", tmp_path / "moved")
    assert done.exit_code == 0, done.output


def test_what_is_no_cohort_is_a_fault(tmp_path: Path) -> None:
    assert isinstance(run(tmp_path).exception, CohortError)
