"""``osteoscope cohort deidentify``: what people and machines are told, and exit codes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from dicom_files import write_dicom, write_series
from typer.testing import CliRunner

from osteoscope.cli.main import app

if TYPE_CHECKING:
    from pathlib import Path

SCAN = np.random.default_rng(0).integers(0, 400, (3, 32, 32), dtype=np.uint16)


def source(folder: Path) -> Path:
    write_series(folder / "ct", SCAN, PatientID="4711", PatientName="Nobody^Anna")
    write_dicom(folder / "screen.dcm", SCAN[0], "SC", series="s", PatientID="4711")
    return folder


def test_people_are_told_what_was_done_and_what_to_keep_to_themselves(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["cohort", "deidentify", str(source(tmp_path / "in")), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0
    for part in ("3 of 1 patients", "quarantined: 1", "1 x a captured screen", "removed: ", "out.key.json", "left-out"):
        assert part in done.stdout
    assert "4711" not in done.output
    assert "Nobody" not in done.output


def test_the_document_for_machines_is_the_report_with_its_places(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("screen.dcm\n")
    command = ["cohort", "deidentify", str(source(tmp_path / "in")), "-o", str(tmp_path / "out"), "--json"]
    CliRunner().invoke(app, command)
    done = CliRunner().invoke(app, [*command, "--release", str(names), "--key", str(tmp_path / "out.key.json")])
    found = json.loads(done.stdout)
    assert found["report"] == json.loads((tmp_path / "out" / "report.json").read_text())
    assert (found["report"]["written"], found["report"]["quarantined"]) == (4, {})
    assert found["key"] == str(tmp_path / "out.key.json")
