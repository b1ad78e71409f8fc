"""The settings of CT and MR: presets, planes, and what cannot be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest
import tomli_w
from pydantic import ValidationError

from osteoscope.config import (
    Config,
    NetworkConfig,
    PreparationConfig,
    Preset,
    VolumeConfig,
    preset_config,
    read_config,
)
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


SMALL = VolumeConfig(size=64, neighbours=1, windows=((0, 1), (0, 2)))


def test_planes_of_a_mix_have_the_channels_of_the_fullest_and_one_for_each_modality() -> None:
    preparation = PreparationConfig(size=64, volume=SMALL, modalities=("CT", "MR", "radiograph"))
    for modality in preparation.modalities:
        # Three places in two windows, and three modalities.
        assert preparation.plane_shape(modality) == (9, 64, 64)
        assert preparation.image_channels(modality) == 6
    without_ct = PreparationConfig(size=64, volume=SMALL, modalities=("MR", "radiograph"))
    assert without_ct.plane_shape("radiograph") == without_ct.plane_shape("MR") == (5, 64, 64)
    with pytest.raises(ValueError, match="MR and radiograph are read, got CT"):
        without_ct.plane_shape("CT")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"size": 48}, "got size 48 and volume.size 64"),
        ({"volume": None}, "volume has to say how CT and MR are read"),
        ({"modalities": ("CT",)}, "two or more, each once and sorted, or left out for one; got CT"),
        ({"modalities": ("radiograph", "CT")}, "got radiograph, CT"),
        ({"modalities": ("CT", "CT", "MR")}, "got CT, CT, MR"),
        ({"second_look": True}, "second_look must be false"),
        ({"roi": "box"}, "roi none"),
    ],
)
def test_a_file_of_a_mix_whose_settings_do_not_fit_is_refused(
    changed: dict[str, object], match: str, tmp_path: Path
) -> None:
    config = preset_config("quick", modality=("CT", "radiograph"))
    said = config.preparation.model_dump(mode="json", exclude_none=True)
    said["volume"]["size"] = said["size"] = 64
    said.update(changed)
    text = {"preparation": {name: value for name, value in said.items() if value is not None}}
    (tmp_path / "config.toml").write_text(tomli_w.dumps(text))
    with pytest.raises(ConfigError, match=match):
        read_config(tmp_path / "config.toml")


def test_planes_are_whole_steps_of_the_grid_that_a_network_answers_on() -> None:
    with pytest.raises(ValidationError, match="multiple of 16"):
        PreparationConfig(size=100)
    with pytest.raises(ValidationError, match="multiple of 16"):
        VolumeConfig(size=200)
    plain = NetworkConfig(multiscale=False)
    for preparation in (PreparationConfig(size=112), PreparationConfig(volume=VolumeConfig(size=112))):
        assert Config(preparation=preparation).preparation == preparation
        with pytest.raises(ValidationError, match=r"multiple of 32 where .* got 112"):
            Config(preparation=preparation, network=plain)


@pytest.mark.parametrize("preset", get_args(Preset))
def test_a_preset_for_a_mix_survives_toml(preset: Preset, tmp_path: Path) -> None:
    config = preset_config(preset, modality=("CT", "MR", "radiograph"))
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert read_config(tmp_path / "config.toml") == config
    assert config.preparation.volume is not None
    assert config.preparation.size == config.preparation.volume.size
    assert config.auxiliary.looks == config.training.rehearsal == 0
    with pytest.raises(ConfigError, match="of a mix all is read, so --roi outline cannot be"):
        config.preparation.given("outline")
    with pytest.raises(ConfigError, match="of a mix all is read, so --roi box cannot be"):
        preset_config(preset, modality=("CT", "radiograph"), roi="box")


def test_settings_of_one_modality_are_written_as_before_there_were_several() -> None:
    """So that what was fingerprinted then is what is fingerprinted now."""
    for modality in ("radiograph", "CT"):
        config = preset_config("quick", modality=modality)
        assert "modalities" not in config.to_toml()
        assert "modalities" not in config.preparation.model_dump(mode="json")
    mix = preset_config("quick", modality=("CT", "MR"))
    assert mix.fingerprint() != preset_config("quick", modality="CT").fingerprint()
