"""What is kept of a CT: its planes, told apart by whether they show the lesion, in memory that is taken once."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from dicom_files import write_series
from scan_samples import LESION, SHAPE, scan_case
from scipy.ndimage import map_coordinates

from osteoscope.config import PreparationConfig, VolumeConfig
from osteoscope.errors import ImageError, InputError
from osteoscope.imaging.nifti import write_nifti
from osteoscope.inference.scans import PreparedScans
from osteoscope.training.planes import NO_REGION, SQUARES_ROUND, Kind
from osteoscope.training.volumes import load_volumes

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.cohort.table import Case

# Planes of 64 mm have canvases of 96; those of the CT lie 3 mm apart.
CONFIG = VolumeConfig(size=32, spacing=2.0, planes=4, step=3.0, neighbours=0, windows=((-1000, 1000),))


def marked(case: Case, mask: np.ndarray) -> Case:
    """Outline something else in the CT of a case."""
    volume = PreparedScans.of_case(case, PreparationConfig(volume=CONFIG)).volumes[0]
    affine = volume.geometry.affine
    assert affine is not None
    path = case.images[0].path.parent / "other.nii.gz"
    write_nifti(path, mask.astype(np.float32), affine)
    return dataclasses.replace(case, images=(dataclasses.replace(case.images[0], mask=path),))


def test_all_planes_with_the_lesion_are_kept_and_of_the_others_as_many_as_are_read_in_prediction(
    tmp_path: Path,
) -> None:
    store = load_volumes([scan_case(tmp_path)], CONFIG)
    kinds = store.planes.kinds
    # Planes 4 to 6 show it; of the seven others 0, 1, 2, 3, 7, 8, 9 four that are spread evenly: 0, 2, 7, 9.
    assert kinds.tolist() == [Kind.ELSEWHERE] * 2 + [Kind.REGION] * 3 + [Kind.ELSEWHERE] * 2
    assert store.images[0].tolist() == list(range(7))
    assert store.labels.tolist() == [1]
    assert store.planes.marked.tolist() == [True] * 7
    assert store.planes.regions.tolist() == [[NO_REGION] * SQUARES_ROUND] * 7
    assert store.planes.size == 32


def test_a_canvas_shows_the_scan_at_the_spacing_of_a_plane_with_half_as_much_again_round_it(tmp_path: Path) -> None:
    """Looked up by SciPy: pixels of 2 mm become pixels of 2 mm, so that only their places differ."""
    case = scan_case(tmp_path)
    store = load_volumes([case], CONFIG)
    assert store.planes.canvases.shape == (7, 1, 48, 48)
    assert store.planes.canvases.dtype == torch.float16
    scans = PreparedScans.of_case(case, PreparationConfig(volume=CONFIG))
    read = scans.plans[0].rectangle
    assert (read.width, read.height) == (32, 32)
    at = np.meshgrid(read.top - 8 + np.arange(48), read.left - 8 + np.arange(48), indexing="ij")
    shown = map_coordinates((scans.volumes[0].read([5])[0] + 1000) / 2000, at, order=1, cval=0)
    # Without its rim, of which corners are taken for what is not the body.
    inside = (at[0] >= 6) & (at[0] <= 33) & (at[1] >= 6) & (at[1] <= 33)
    np.testing.assert_allclose(store.planes.canvases[3, 0].float().numpy()[inside], shown[inside], atol=1e-3)
    lesion = np.zeros(SHAPE[1:])
    lesion[LESION[1:]] = 1
    covered = map_coordinates(lesion, at, order=1, cval=0)
    np.testing.assert_array_equal(store.planes.lesions[3, 0].numpy(), covered >= 0.5)


def test_the_middle_of_a_canvas_is_the_plane_that_prediction_reads(tmp_path: Path) -> None:
    case = scan_case(tmp_path, mask=False)
    config = CONFIG.model_copy(update={"neighbours": 1, "windows": ((-1000, 1000), (0, 500))})
    store = load_volumes([case], config)
    planes = PreparedScans.of_case(case, PreparationConfig(volume=config)).first_planes()
    assert planes.shape == (4, 6, 32, 32)
    np.testing.assert_allclose(store.planes.canvases[:, :, 8:-8, 8:-8].float().numpy(), planes, atol=1e-3)


def test_without_an_outline_the_planes_of_prediction_are_kept_and_it_is_unknown_what_they_show(tmp_path: Path) -> None:
    planes = load_volumes([scan_case(tmp_path, mask=False)], CONFIG).planes
    assert planes.kinds.tolist() == [Kind.FIRST] * 4
    assert not planes.marked.any()
    assert not planes.lesions.any()


def test_a_plane_with_no_more_than_the_rim_of_the_lesion_is_not_kept(tmp_path: Path) -> None:
    case = scan_case(tmp_path)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[LESION] = True
    # 48 pixels of the largest plane; 4 are a twelfth, 5 more than a tenth.
    mask[3, 16:18, 8:10] = True
    mask[7, 16, 8:13] = True
    kinds = load_volumes([marked(case, mask)], CONFIG.model_copy(update={"planes": 10})).planes.kinds
    assert kinds.tolist() == [Kind.ELSEWHERE] * 3 + [Kind.REGION] * 4 + [Kind.ELSEWHERE] * 2


def test_a_lesion_beyond_what_is_read_counts_as_not_outlined(tmp_path: Path) -> None:
    case = scan_case(tmp_path)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[4:7, 38:, 38:] = True
    # Canvases of 48 mm, where the scan has 80.
    planes = load_volumes([marked(case, mask)], CONFIG.model_copy(update={"spacing": 1.0})).planes
    assert planes.kinds.tolist() == [Kind.FIRST] * 4
    assert not planes.marked.any()


def test_planes_know_their_patient(tmp_path: Path) -> None:
    cases = [
        dataclasses.replace(scan_case(tmp_path / "a"), label=0),
        scan_case(tmp_path / "b", mask=False),
    ]
    store = load_volumes(cases, CONFIG)
    assert [places.tolist() for places in store.images] == [list(range(7)), list(range(7, 11))]
    assert store.labels.tolist() == [0, 1]
    assert torch.equal(store.planes.canvases[7:], load_volumes(cases[1:], CONFIG).planes.canvases)


def test_a_scan_that_has_changed_is_named(tmp_path: Path) -> None:
    case = scan_case(tmp_path)
    for path in (tmp_path / "ct").iterdir():
        path.unlink()
    values = np.random.default_rng(0).integers(0, 2000, SHAPE, dtype=np.uint16)
    write_series(tmp_path / "ct", values, RescaleIntercept=-1024, spacing=(2, 2))
    with pytest.raises(ImageError, match=r"ct: shows other values"):
        load_volumes([case], CONFIG)
    with pytest.raises(ImageError, match=r"ct: shows other values"):
        PreparedScans.of_case(case, PreparationConfig(volume=CONFIG))


def test_a_mask_of_another_scan_is_named(tmp_path: Path) -> None:
    case = scan_case(tmp_path)
    write_nifti(tmp_path / "mask.nii.gz", np.ones((10, 30, 40), dtype=np.float32), np.eye(4))
    with pytest.raises(InputError, match=r"mask\.nii\.gz"):
        load_volumes([case], CONFIG)
