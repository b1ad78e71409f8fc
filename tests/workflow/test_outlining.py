"""From what outlines a lesion to the mask that a table names."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dicom_files import write_dicom, write_series
from drawn_regions import write_structure_set
from typer.testing import CliRunner

from osteoscope import workflow
from osteoscope.cli.main import app
from osteoscope.errors import InputError, StorageError
from osteoscope.imaging.masks import read_mask
from osteoscope.imaging.nifti import write_nifti
from osteoscope.imaging.open import open_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FRAME, SERIES = "1.2.840.1", "1.2.840.2"


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 400, (5, 30, 40), dtype=np.uint16)
    write_series(tmp_path / "ct", values, FrameOfReferenceUID=FRAME, SeriesInstanceUID=SERIES)
    return tmp_path / "ct"


@pytest.fixture
def structures(tmp_path: Path) -> Path:
    """Squares of 10 x 10 voxels of 1 x 1 x 3 mm: one of GTV 1, two of GTV 2."""
    corners = [(4.5, 4.5), (14.5, 4.5), (14.5, 14.5), (4.5, 14.5)]
    first, second, third = (np.array([(x, y, 3.0 * plane) for x, y in corners]) for plane in (0, 1, 2))
    regions = [{"name": "GTV 1", "contours": [first]}, {"name": "GTV 2", "contours": [second, third]}]
    return write_structure_set(tmp_path / "rs.dcm", regions, frame=FRAME, series=SERIES)


def test_the_region_that_is_named_becomes_a_mask(scan: Path, structures: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.nii.gz"
    made = workflow.outline_lesion(scan, [structures], mask, names=["gtv 2"])
    # 200 voxels of 3 mm³.
    assert (made.planes, made.millilitres, made.used, made.unused) == (2, 0.6, (structures,), ())
    found = read_mask(mask, open_image(scan).volume)
    assert found.sum(axis=(1, 2)).tolist() == [0, 100, 100, 0, 0]


def test_the_command_joins_regions_and_says_what_it_used(scan: Path, structures: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.nii.gz"
    named = ["--roi-name", "GTV 1", "--roi-name", "GTV 2"]
    done = CliRunner().invoke(app, ["cohort", "outline", str(scan), str(structures), "-o", str(mask), *named, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["planes"], said["millilitres"], said["used"]) == (3, 0.9, [str(structures)])
    done = CliRunner().invoke(app, ["cohort", "outline", str(scan), str(structures), "-o", str(mask), *named])
    assert f"Mask written to {mask}: 0.9 ml in 3 planes" in done.stdout


def test_a_name_that_is_no_utf_8_is_escaped(scan: Path, structures: Path, tmp_path: Path) -> None:
    odd = structures.rename(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.dcm"))
    mask = tmp_path / "mask.nii.gz"
    done = CliRunner().invoke(
        app, ["cohort", "outline", str(scan), str(odd), "-o", str(mask), "--roi-name", "GTV 1", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["used"] == [f"{tmp_path}/M\\xfcller.dcm"]


def test_what_outlines_nothing_is_refused_and_nothing_is_written(scan: Path, structures: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.nii.gz"
    with pytest.raises(InputError, match=r"several that may be the lesion: 'GTV 1', 'GTV 2' \(make .*--roi-name\)"):
        workflow.outline_lesion(scan, [structures], mask)
    other = write_structure_set(
        tmp_path / "other.dcm", [{"name": "GTV", "contours": []}], frame="1.2.840.9", series="1.2.840.9"
    )
    with pytest.raises(InputError, match="drawn in another frame of reference; and 1 other files outline nothing"):
        workflow.outline_lesion(scan, [other, structures], mask)
    assert not mask.exists()


def test_nothing_but_an_earlier_mask_is_written_over(scan: Path, structures: Path, tmp_path: Path) -> None:
    def refused(output: Path, match: str, *, image: Path = scan, files: Sequence[Path] = (structures,)) -> None:
        before = output.read_bytes() if output.exists() else None
        with pytest.raises(StorageError, match=match) as fault:
            workflow.outline_lesion(image, files, output, names=["gtv 2"])
        assert fault.value.remedy == "choose another file with -o"
        assert (output.read_bytes() if output.exists() else None) == before

    volume = open_image(scan).volume
    assert volume.geometry.affine is not None
    ct, drawn, mask = (tmp_path / name for name in ("scan_ct.nii.gz", "drawn.nii.gz", "mask.nii.gz"))
    write_nifti(ct, volume.read(), volume.geometry.affine)
    write_nifti(drawn, np.ones(volume.geometry.shape, np.uint8), volume.geometry.affine, stored=np.uint8)
    workflow.outline_lesion(scan, [structures], mask, names=["gtv 1"])
    workflow.outline_lesion(scan, [structures], mask, names=["gtv 2"])
    assert read_mask(mask, volume).sum() == 200
    refused(ct, "is what the mask is made from", image=ct, files=[mask])
    refused(mask, "is what the mask is made from", files=[mask])
    refused(drawn, "is no mask that this wrote")
    refused(scan / "mask.nii.gz", "lies in the folder of the series")


def test_an_image_without_a_place_and_another_output_are_refused(scan: Path, structures: Path, tmp_path: Path) -> None:
    film = write_dicom(tmp_path / "film.dcm", np.ones((20, 20), np.uint16), "DX")
    with pytest.raises(InputError, match="whose place is known"):
        workflow.outline_lesion(film, [structures], tmp_path / "mask.nii.gz")
    with pytest.raises(StorageError, match="expected the name of a NIfTI file"):
        workflow.outline_lesion(scan, [structures], tmp_path / "mask.png")
