"""``osteoscope predict``: exit codes, one summary, and what an interrupt leaves."""

from __future__ import annotations

import contextlib
import csv
import inspect
import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_files import write_series
from samples import HEEDING_INTERRUPTS
from typer.testing import CliRunner

from osteoscope.cli.main import app
from osteoscope.cli.predict import predict
from osteoscope.errors import InputError
from osteoscope.inference.result import StudyPrediction
from osteoscope.workflow.predicting import JOBS

if TYPE_CHECKING:
    from pathlib import Path

SCAN = np.random.default_rng(0).integers(1000, 1100, (4, 40, 48), dtype=np.uint16)
COMMAND = [sys.executable, "-c", f"{HEEDING_INTERRUPTS}from osteoscope.cli.main import main; main()", "predict"]


def test_as_many_studies_at_the_same_time_as_from_python() -> None:
    assert inspect.signature(predict).parameters["jobs"].default == JOBS


def ct(folder: Path, name: str) -> Path:
    write_series(folder / name, SCAN, series=name, StudyInstanceUID=f"1.2.{name}", RescaleIntercept=-1024)
    return folder / name


def test_people_get_a_line_a_study_and_a_closing_one(scan_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "[red]empty").mkdir(parents=True)
    ct(tmp_path / "in", "1")
    arguments = ["predict", str(scan_bundle), str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--threads", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert any(
        "(osteosarcoma 0." in line and f"{tmp_path / 'in' / '1'}" in line and "and 3 more" in line for line in lines
    )
    assert any("refused" in line and "[red]empty" in line and "The folder is empty." in line for line in lines)
    assert lines[-1] == f"Studies answered: 1, refused: 1. Summary: {tmp_path / 'out' / 'summary.csv'}"
    again = CliRunner().invoke(app, arguments)
    assert again.stdout.splitlines()[-1].startswith("Studies answered: 1 (1 of them before), refused: 1.")


def test_people_get_the_reasons_beside_a_verdict(scan_bundle: Path, tmp_path: Path) -> None:
    arguments = ["predict", str(scan_bundle), str(ct(tmp_path, "1")), "-o", str(tmp_path / "out"), "--age", "20"]
    line = CliRunner().invoke(app, [*arguments, "--threads", "1"]).stdout.splitlines()[0]
    assert "(osteosarcoma 0." in line
    assert line.endswith(" and 3 more] The bundle's networks make no use of the patient's age.")


def test_the_summary_for_machines_is_the_only_thing_on_standard_output(scan_bundle: Path, tmp_path: Path) -> None:
    command = [*COMMAND, str(scan_bundle), str(ct(tmp_path, "1")), "-o", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["predicted"], found["refused"]) == (1, 0)
    assert set(found["studies"][0]["probabilities"]) == {"osteosarcoma", "giant_cell_tumor"}
    assert found["studies"][0]["files"] == 4
    assert "predicting studies: 1 of 1" in done.stderr


def test_nothing_that_can_be_answered_is_a_fault(scan_bundle: Path, tmp_path: Path) -> None:
    arguments = ["predict", str(scan_bundle), str(tmp_path / "nowhere"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith(f"{tmp_path / 'nowhere'}: holds no study that could be answered")
    command = [*COMMAND, *arguments[1:]]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 3


@pytest.mark.parametrize("arguments", [["--age", "-1"], ["--sex", "X"], ["--modality", "PT"], ["--roi", "box"]])
def test_a_wrong_option_exits_with_2(scan_bundle: Path, tmp_path: Path, arguments: list[str]) -> None:
    command = ["predict", str(scan_bundle), str(tmp_path), "-o", str(tmp_path / "out"), *arguments]
    assert CliRunner().invoke(app, command).exit_code == 2


def test_an_interrupt_leaves_what_was_done(scan_bundle: Path, tmp_path: Path) -> None:
    for number in range(200):
        ct(tmp_path / "in", f"{number}")
    out = tmp_path / "out"
    command = [*COMMAND, str(scan_bundle), str(tmp_path / "in"), "-o", str(out), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while len(list(out.glob("*/prediction.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
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
    folders = {path.name for path in out.iterdir() if path.is_dir()}
    assert 2 <= len(folders) < 200
    for name in folders:
        found = StudyPrediction.model_validate_json((out / name / "prediction.json").read_bytes())
        assert all((out / name / overlay.file).is_file() for overlay in found.overlays)
    with (out / "summary.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["study"] for row in csv.DictReader(stream)}
    # The row of a study follows its folder, and two are answered at a time.
    assert rows <= folders
    assert len(folders - rows) <= 2
