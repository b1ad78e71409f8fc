"""The scanner blurs, adds noise and darkens as its settings say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from osteoscope.phantom.patients import CENTRES
from osteoscope.phantom.scanner import Acquisition, beam_hardening, blur, draw_acquisition, scanner_noise

PLAIN = Acquisition(kilovolt=120, kernel="medium", noise=12, thickness=3, field_of_view=180, contrast=0)


def test_blurring_keeps_a_mean_and_reaches_no_further_than_it_should() -> None:
    point = np.zeros((1, 64, 64), np.float32)
    point[0, 32, 32] = 1000
    for kernel in ("soft", "medium", "sharp"):
        spread = blur(point, replace(PLAIN, kernel=kernel), 0.7)
        assert spread.sum() == pytest.approx(1000, rel=1e-4)
        assert not spread[0, :20].any()


def test_a_sharp_kernel_keeps_more_of_an_edge() -> None:
    edge = np.zeros((1, 32, 64), np.float32)
    edge[..., 32:] = 100
    steps = [
        np.abs(np.diff(blur(edge, replace(PLAIN, kernel=kernel), 0.7)[0, 16])).max()
        for kernel in ("soft", "medium", "sharp")
    ]
    assert steps[0] < steps[1] < steps[2]


def test_noise_has_its_level_and_falls_with_the_thickness() -> None:
    bare = np.zeros((6, 256, 256), np.float32)
    rng = np.random.default_rng(0)
    assert scanner_noise(rng, bare, PLAIN, 0.7).std() == pytest.approx(12, rel=0.03)
    thick = scanner_noise(rng, bare, replace(PLAIN, thickness=6), 0.7)
    assert thick.std() == pytest.approx(12 / np.sqrt(2), rel=0.03)


def test_noise_has_the_texture_of_its_kernel() -> None:
    """The power spectrum of filtered back-projection rises from 0; a sharp kernel's lies at higher frequencies."""
    bare = np.zeros((8, 128, 128), np.float32)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128, 0.7), np.fft.fftfreq(128, 0.7)))
    centres = []
    for kernel in ("soft", "medium", "sharp"):
        noise = scanner_noise(np.random.default_rng(1), bare, replace(PLAIN, kernel=kernel), 0.7)
        power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
        centres.append((power * frequency).sum() / power.sum())
        assert power[frequency < 0.03].mean() < 0.35 * power[(frequency > 0.15) & (frequency < 0.3)].mean()
    assert centres[0] < centres[1] < centres[2]


def test_noise_is_streaky_where_bone_lies_across() -> None:
    bone = np.zeros((6, 128, 128), np.float32)
    bone[:, 40:88] = 400
    noise = scanner_noise(np.random.default_rng(2), bone, PLAIN, 0.7)
    assert noise[:, 50:78].std() > 1.2 * noise[:, :10].std()
    rows, columns = np.diff(noise[:, 50:78], axis=1).std(), np.diff(noise[:, 50:78], axis=2).std()
    assert rows > 1.02 * columns


def test_noise_depends_on_its_seed_alone() -> None:
    bare = np.zeros((2, 32, 32), np.float32)
    one, same, other = (scanner_noise(np.random.default_rng(seed), bare, PLAIN, 0.7) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_beam_hardening_darkens_what_lies_between_bones_a_little() -> None:
    bone = np.zeros((3, 128, 128), np.float32)
    bone[:, 50:78, 20:50] = bone[:, 50:78, 78:108] = 700
    dark = beam_hardening(bone, 0.7)
    assert -30 < dark[1, 64, 64] < -3
    assert dark.max() <= 0
    assert dark[1, 5, 5] > -1
    assert not beam_hardening(np.zeros_like(bone), 0.7).any()


def test_bone_and_iodine_are_brighter_at_a_lower_voltage() -> None:
    bones = [replace(PLAIN, kilovolt=kilovolt).bone for kilovolt in (80, 100, 120, 140)]
    iodine = [replace(PLAIN, kilovolt=kilovolt, contrast=1).iodine for kilovolt in (80, 100, 120, 140)]
    assert bones == sorted(bones, reverse=True)
    assert iodine == sorted(iodine, reverse=True)
    assert bones[2] == iodine[2] == 1
    assert iodine[0] > bones[0]
    assert PLAIN.iodine == 0


def test_centres_differ_in_kernel_thickness_and_contrast() -> None:
    drawn = {
        centre: [draw_acquisition(centre, np.random.default_rng(seed)) for seed in range(200)] for centre in CENTRES
    }
    thickness = {centre: np.mean([one.thickness for one in group]) for centre, group in drawn.items()}
    assert thickness["A"] < thickness["B"] < thickness["C"]
    assert all(3 <= one.thickness <= 5 for group in drawn.values() for one in group)
    sharp = [
        [sum((one.kernel == "sharp") == is_sharp for one in group) for is_sharp in (True, False)]
        for group in drawn.values()
    ]
    assert stats.chi2_contingency(sharp).pvalue < 1e-6
    contrast = {centre: np.mean([one.contrast > 0 for one in group]) for centre, group in drawn.items()}
    assert contrast["B"] > contrast["A"] > contrast["C"]


@pytest.mark.parametrize("fault", [{"kilovolt": 90}, {"kernel": "round"}, {"thickness": 0.0}, {"noise": -1.0}])
def test_settings_that_no_scanner_has_are_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        replace(PLAIN, **fault)
