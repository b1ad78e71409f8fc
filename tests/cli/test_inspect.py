"""``osteoscope inspect``: exit codes, the document for machines, the tables for people."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_files import write_series
from PIL import Image
from typer.testing import CliRunner

from osteoscope.cli.main import app
from osteoscope.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

SCAN = np.random.default_rng(0).integers(0, 400, (6, 40, 48), dtype=np.uint16)


def study(folder: Path) -> Path:
    write_series(folder / "ct", SCAN, RescaleIntercept=-200)
    write_series(folder / "gap", SCAN, series="b", each=[{"position": (0, 0, z)} for z in (0, 3, 6, 12, 15, 18)])
    Image.fromarray(np.full((40, 40), 9, dtype=np.uint8)).save(folder / "[red]blank.png")
    (folder / "note.txt").write_text("note\n")
    return folder


COMMAND = [sys.executable, "-c", "from osteoscope.cli.main import main; main()", "inspect"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_document_is_the_only_thing_on_standard_output(tmp_path: Path) -> None:
    done = run(study(tmp_path / "study"), "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["schema"], found["readable"], found["used"], found["refused"]) == (1, 2, 1, 6)
    assert "looking at files" in done.stderr


def test_people_are_told_what_would_be_used_and_why_the_rest_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["inspect", str(study(tmp_path / "study"))])
    assert done.exit_code == 0
    told = " ".join(done.stdout.split())
    for part in (
        f"In {tmp_path / 'study'}",
        "CT, axial, to the head",
        "6 × 40 × 48",
        "3 × 1 × 1 mm",
        "Explicit VR Little Endian",
        "no: blank",
        "blank: every pixel has the same value",
        "[red]blank.png",
        "missing_slices",
        "Images that can be read: 2, of which would be used: 1. Files refused: 6.",
        "Files beside the images: 1 (note.txt)",
    ):
        assert part in told


def test_nothing_that_can_be_read_exits_with_3_and_still_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"")
    done = run(tmp_path, "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["refusals"][0]["code"] == "empty"
    assert done.stderr.splitlines()[-1].startswith(f"osteoscope: {tmp_path}: holds no image that can be read")
    several = CliRunner().invoke(app, ["inspect", str(tmp_path), str(tmp_path / "gone")])
    assert isinstance(several.exception, InputError)
    assert "missing" in several.stdout


@pytest.mark.parametrize("arguments", [[], ["--jsn", "x"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def test_files_of_many_folders_are_summed_up(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02}").mkdir()
        (tmp_path / f"{number:02}" / "a").write_bytes(b"")
        (tmp_path / f"{number:02}" / "b").write_bytes(b"")
    done = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    told = " ".join(done.stdout.split())
    assert "00/a" in told
    assert "to b: 2 files" in told
    assert "and 8 more" in told
    assert "Files refused: 24." in told


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such pipe")
def test_who_stops_reading_is_no_bug(tmp_path: Path) -> None:
    command = [*COMMAND, str(study(tmp_path / "study"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 141
