"""What a CT or MR looks like as a whole, and what its values, geometry and header tell of how it was acquired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import shared_data
from dicom_files import write_series
from scipy import ndimage

from osteoscope.imaging.look import look
from osteoscope.imaging.open import open_image
from osteoscope.imaging.scan_look import look_at_scan, scan_picture
from osteoscope.imaging.volume import Geometry, Modality, Volume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def volume_of(values: np.ndarray, modality: Modality = "CT", affine: np.ndarray | None = None) -> Volume:
    held = np.asarray(values, dtype=np.float32)
    return Volume(
        geometry=Geometry(shape=held.shape, affine=np.diag([0.8, 0.7, 3.0, 1.0]) if affine is None else affine),
        modality=modality,
        sources=(),
        reader=lambda wanted: held[list(wanted)],
    )


def tissue(noise: float, *, seed: int = 0, blur: float = 0.0) -> np.ndarray:
    """Fat above muscle, with noise of a deviation after it was blurred: HU (6, 96, 96)."""
    rng = np.random.default_rng(seed)
    values = np.where(np.arange(96)[:, np.newaxis] < 32, -100.0, 60.0) * np.ones((6, 96, 96))
    grain = (
        ndimage.gaussian_filter(rng.normal(size=values.shape), (0, blur, blur))
        if blur
        else rng.normal(size=values.shape)
    )
    return np.asarray(values + noise * grain / grain.std())


# As a picture


def test_a_scan_is_shown_as_the_mean_of_its_planes_in_a_fixed_window() -> None:
    values = np.full((2, 40, 40), -1000.0)
    values[0, 10], values[1, 10] = 300, 3000  # half of the window, and beyond it
    values[:, 20] = [[0.0], [100.0]]
    picture = scan_picture(volume_of(values))
    assert picture.shape == (40, 40)
    np.testing.assert_allclose(picture[10], 0.75)
    np.testing.assert_allclose(picture[20], (0.2 + 0.3) / 2, rtol=1e-6)
    assert (np.delete(picture, (10, 20), axis=0) == 0).all()


def test_what_is_no_value_is_shown_as_air() -> None:
    values = np.full((3, 40, 40), 300.0)
    values[:, 0], values[:, 1], values[:, 2] = np.nan, -np.inf, -3024
    picture = scan_picture(volume_of(values))
    assert (picture[:3] == 0).all()
    np.testing.assert_allclose(picture[3:], 0.5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 5000.0])
def test_an_mr_of_any_scale_is_shown_from_0_to_1(scale: float) -> None:
    rng = np.random.default_rng(1)
    values = scale * rng.uniform(0.2, 1, (4, 40, 40))
    values[:, :2] = -1e6  # stands for no value
    picture = scan_picture(volume_of(values, "MR"))
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert np.corrcoef(picture[2:].ravel(), values[:, 2:].mean(axis=0).ravel())[0, 1] > 0.9999


def test_of_many_planes_some_are_read_and_never_twice() -> None:
    asked: list[int] = []
    values = tissue(10)[np.arange(300) % 6]
    plain = volume_of(values)

    def read(wanted: Sequence[int]) -> np.ndarray:
        asked.extend(wanted)
        return plain.reader(wanted)

    look_at_scan(Volume(geometry=plain.geometry, modality="CT", sources=(), reader=read))
    assert len(asked) == len(set(asked)) == 64
    assert asked == sorted(asked)
    assert (asked[0], asked[-1]) == (0, 299)


def test_the_look_is_that_of_the_picture() -> None:
    volume = volume_of(tissue(10))
    seen, picture = look_at_scan(volume), look(scan_picture(volume))
    np.testing.assert_array_equal(seen.descriptor, picture.descriptor)
    assert (seen.shape, seen.content) == (picture.shape, picture.content)


# How it was acquired


def test_white_noise_has_its_deviation_and_grain() -> None:
    features = look_at_scan(volume_of(tissue(20))).features
    # Smoothing leaves of white noise the sum of the squared weights; a Gaussian of 2 has 1 / 16 pi, and 1 / 8 pi amid.
    left = np.sqrt(1 - 2 / (8 * np.pi) + 1 / (16 * np.pi))
    assert features["noise"] == pytest.approx(20 * left, rel=0.04)
    assert features["grain"] == pytest.approx(np.sqrt(16 + 4) / left, rel=0.04)


def test_the_grain_tells_the_kernel_whatever_the_noise() -> None:
    quiet, loud = (look_at_scan(volume_of(tissue(noise))).features for noise in (8, 30))
    soft = look_at_scan(volume_of(tissue(30, blur=0.8))).features
    assert quiet["grain"] == pytest.approx(loud["grain"], rel=0.04)
    assert soft["grain"] < 0.6 * loud["grain"]
    assert loud["noise"] / quiet["noise"] == pytest.approx(30 / 8, rel=0.04)


def test_a_dense_lesion_changes_neither_noise_nor_density() -> None:
    plain = tissue(15)
    ill = plain.copy()
    ill[:, 50:80, 30:60] += 500 + 300 * np.random.default_rng(2).normal(size=(6, 30, 30))
    before, after = (look_at_scan(volume_of(values)).features for values in (plain, ill))
    for name in ("noise", "grain", "fat", "soft", "bright"):
        assert after[name] == pytest.approx(before[name], rel=0.05), name


def test_contrast_is_seen_in_soft_tissue_and_not_in_fat() -> None:
    plain, enhanced = tissue(10), tissue(10)
    enhanced[:, 32:] += 40
    before, after = (look_at_scan(volume_of(values)).features for values in (plain, enhanced))
    assert before["fat"] == pytest.approx(-100, abs=1)
    assert before["soft"] == pytest.approx(60, abs=1)
    assert after["soft"] - before["soft"] == pytest.approx(40, abs=1)
    assert after["fat"] == pytest.approx(before["fat"], abs=1)


def test_the_geometry_is_said_in_mm_and_degrees() -> None:
    axial = look_at_scan(volume_of(np.zeros((6, 40, 50)))).features
    assert {name: axial[name] for name in ("planes", "plane_step", "pixel", "height", "width")} == {
        "planes": 6,
        "plane_step": 3,
        "pixel": 0.7,
        "height": 28,
        "width": 40,
    }
    assert (axial["from_axial"], axial["from_sagittal"]) == (0, 90)
    sagittal = np.array([[0, 0, 4.0, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    features = look_at_scan(volume_of(np.zeros((6, 40, 50)), "MR", sagittal)).features
    assert (features["from_axial"], features["from_sagittal"], features["plane_step"]) == (90, 0, 4)


def test_an_mr_is_measured_against_its_own_signal() -> None:
    values = 60 + (tissue(6) + 100)
    one, other = (look_at_scan(volume_of(scale * values, "MR")).features for scale in (1, 250))
    for name in ("noise", "grain", "soft", "bright"):
        assert one[name] == pytest.approx(other[name], rel=1e-3)
    assert "fat" not in one


@pytest.mark.parametrize("shape", [(1, 1, 200), (1, 200, 1), (1, 6, 6), (3, 40, 40)])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_what_shows_nothing_flat_is_looked_at_without_fault(shape: tuple[int, ...], modality: Modality) -> None:
    for level in (-1000.0, 0.0, np.nan):
        seen = look_at_scan(volume_of(np.full(shape, level), modality))
        assert np.isfinite(list(seen.features.values())).all()
        assert not seen.words


def test_the_header_says_scanner_and_settings(tmp_path: Path) -> None:
    write_series(
        tmp_path / "ct",
        tissue(10).astype(np.int16),
        Manufacturer="Acme",
        ManufacturerModelName="CT 9000",
        ConvolutionKernel="B30f",
        KVP="120",
        SliceThickness="5.0",
    )
    seen = look_at_scan(open_image(tmp_path / "ct").volume)
    assert dict(seen.words) == {"manufacturer": "Acme", "model": "CT 9000", "kernel": "B30f"}
    assert (seen.features["kilovolt"], seen.features["thickness"], seen.features["plane_step"]) == (120, 5, 3)


def test_the_real_ct_is_looked_at() -> None:
    image = open_image(shared_data("dicom") / "totalsegmentator" / "example_ct_dicom")
    seen = look_at_scan(image.volume)
    assert dict(seen.words) == {"manufacturer": "SIEMENS", "model": "Biograph40_mCT 4R", "kernel": "Br38f"}
    assert (seen.features["thickness"], seen.features["plane_step"], seen.features["pixel"]) == (3, 2, 0.977)
    assert -120 < seen.features["fat"] < -60
    assert 5 < seen.features["noise"] < 25
