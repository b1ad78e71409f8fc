"""``osteoscope cohort from-dicom``: what is printed, exit codes, and an interrupt."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from archives import GCT, OS, labels_of, write_archive, write_film, write_mr
from samples import HEEDING_INTERRUPTS
from typer.testing import CliRunner

from osteoscope.cli.main import app
from osteoscope.cohort.archive.copying import SOURCES
from osteoscope.cohort.table import read_cohort

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

CODE = f"{HEEDING_INTERRUPTS}from osteoscope.cli.main import main; main()"
COMMAND = [sys.executable, "-c", CODE, "cohort", "from-dicom"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["cohort", "from-dicom", *map(str, arguments)])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "archive")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return labels_of(tmp_path / "labels.csv")


def test_one_summary_for_people_or_for_machines(tmp_path: Path, archive: Path, labels: Path) -> None:
    arguments = (archive, "--labels", labels, "-o", tmp_path / "cohort", "--class", OS, "--class", GCT, "--jobs", "1")
    told = run(*arguments)
    assert told.exit_code == 0
    assert f"{OS}: 2 patients, 2 images" in told.stdout
    assert f"Keep to yourself: {tmp_path / 'cohort.key.json'} and {tmp_path / 'cohort.index.sqlite'}" in told.stdout
    value = json.loads(run(*arguments, "--json").stdout)
    assert list(value["classes"]) == [OS, GCT]
    assert (value["indexed"]["files"], value["indexed"]["new"], value["indexed"]["refused"]) == (24, 0, 0)
    assert value["series"] == str(tmp_path / "cohort" / "series.csv")


def test_a_mix_of_modalities_is_told(tmp_path: Path, archive: Path, labels: Path) -> None:
    arguments = ("--labels", labels, "-o", tmp_path / "cohort", "--jobs", "1")
    assert "by modality" not in run(archive, *arguments).stdout
    write_mr(archive / "mr", 0)
    write_film(archive / "ap.dcm", 0)
    write_film(archive / "ll.dcm", 0, SeriesInstanceUID="1.2.3.0.5")
    assert "patients by modality: CT of 4, MR of 1, radiographs of 1" in run(archive, *arguments).stdout


def test_wishes_are_told_by_options(tmp_path: Path, archive: Path, labels: Path) -> None:
    options = ("--modality", "CT", "--modality", "MR", "--kernel", "soft", "--no-contrast", "--thickest", "3")
    named = ("--roi-name", "GTV 1", "--roi-name", "tumour", "--when", "last")
    done = run(archive, "--labels", labels, "-o", tmp_path / "cohort", *options, *named, "--jobs", "1")
    assert done.exit_code == 0, done.output
    assert len(read_cohort(tmp_path / "cohort").frame) == 4


def test_faults_are_one_line_and_exit_with_3(tmp_path: Path, archive: Path) -> None:
    arguments = [str(archive), "-o", str(tmp_path / "cohort"), "--labels", str(tmp_path / "none.csv")]
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "the table is missing (check the name and the folder)" in done.stderr
    assert "Traceback" not in done.stderr
    assert run(archive, "-o", tmp_path / "cohort").exit_code == 2


def test_an_interrupt_leaves_what_was_done_and_the_same_command_goes_on(tmp_path: Path) -> None:
    archive, labels, output = (
        write_archive(tmp_path / "archive", 40),
        labels_of(tmp_path / "l.csv", 40),
        tmp_path / "out",
    )
    arguments = [str(archive), "--labels", str(labels), "-o", str(output), "--jobs"]
    with subprocess.Popen(
        [*COMMAND, *arguments, "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        # Not `rglob`: it raises where a folder becomes whole, and is named, as it looks into it.
        whole = f"images/P-*/S-*/R-*/{SOURCES}"
        while len(list(output.glob(whole))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        # Python drops an interrupt that comes while it finalises an object.
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
                break
        errors = process.communicate()[1]
    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert 2 <= len(list(output.rglob(SOURCES))) < 40
    assert run(*arguments, "1").exit_code == 0
    assert len(read_cohort(output).frame) == 40
    assert not list(output.rglob("*.tmp"))
