"""The settings of CT and MR: presets, planes, and what cannot be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from osteoscope.config import Config, PreparationConfig, Preset, VolumeConfig, preset_config, read_config
from osteoscope.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("preset", get_args(Preset))
def test_a_preset_for_scans_survives_toml_and_learns_from_the_classes_alone(preset: Preset, tmp_path: Path) -> None:
    config = preset_config(preset, modality="CT", seed=3, folds=4, covariates=("age", "level"))
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert read_config(tmp_path / "config.toml") == config
    assert config.preparation.volume is not None
    assert config.auxiliary.looks == config.training.rehearsal == 0
    assert (config.training.seed, config.training.folds, config.network.covariates) == (3, 4, ("age", "level"))


def test_a_preset_for_radiographs_reads_no_scans() -> None:
    assert preset_config("quick").preparation.volume is None
    assert preset_config("quick", modality="radiograph") == preset_config("quick")


def test_a_region_of_a_scan_cannot_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="--roi box cannot be"):
        preset_config("quick", modality="CT", roi="box")
    volumes = PreparationConfig(volume=VolumeConfig())
    assert volumes.given("none") == volumes
    with pytest.raises(ConfigError, match="--roi outline cannot be"):
        volumes.given("outline")


def test_a_plane_has_the_channels_of_its_modality() -> None:
    volume = VolumeConfig(size=64, neighbours=2, windows=((0, 1), (0, 2), (0, 3)))
    preparation = PreparationConfig(size=48, volume=volume)
    assert preparation.plane_shape("CT") == (15, 64, 64)
    assert preparation.plane_shape("MR") == (5, 64, 64)
    assert preparation.plane_shape("radiograph") == (1, 48, 48)
    with pytest.raises(ValueError, match="how MR is read is not stated"):
        Config().preparation.plane_shape("MR")
