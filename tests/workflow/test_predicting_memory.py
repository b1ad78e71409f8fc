"""What a study takes of the memory does not depend on how many slices it has."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from bundles import write_tiny_bundle
from conftest import shared_data
from dicom_files import write_dicom, write_series

from osteoscope.config import NetworkConfig, PreparationConfig, VolumeConfig
from osteoscope.network.classifier import TumourNetwork
from osteoscope.training.export import export_member

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.imaging.volume import Modality

MEBIBYTE = 2**10
"""In the unit of ``VmHWM``, which is that of the largest resident set."""

MEASURED = """
import sys
from osteoscope.cli.main import main
try:
    main()
finally:
    with open("/proc/self/status") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmHWM")), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def dense_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a DenseNet-121 at 224 px that learnt nothing."""
    return dense(tmp_path_factory.mktemp("dense"), PreparationConfig(volume=VolumeConfig(size=224)), ("CT",))


def dense(folder: Path, preparation: PreparationConfig, modalities: tuple[Modality, ...]) -> Path:
    network = NetworkConfig(trunk="densenet121")
    channels = preparation.plane_shape("CT")[0]
    torch.manual_seed(0)
    planes = np.random.default_rng(0).random((2, channels, 224, 224)).astype(np.float32)
    made = TumourNetwork(network, classes=2, in_channels=channels, modalities=len(preparation.modalities))
    export_member(made, folder / "member", planes=planes, covariates=None)
    return write_tiny_bundle(
        folder / "bundle", folder / "member", preparation=preparation, network=network, modalities=modalities
    )


def write_ct(folder: Path, planes: int) -> Path:
    """Write an axial CT of an elliptic body with a spine, 512 x 512 pixels a plane."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:512, :512] - 255.5
    stored = np.where((rows / 150) ** 2 + (columns / 200) ** 2 < 1, 1064, 24)
    stored += np.where((rows - 60) ** 2 + columns**2 < 40**2, 600, 0)
    noisy = np.empty((planes, 512, 512), dtype=np.uint16)
    for plane in noisy:
        plane[:] = stored + random.integers(-20, 20, stored.shape)
    write_series(folder, noisy, RescaleIntercept=-1024)
    return folder


def peak(bundle: Path, study: Path, output: Path) -> int:
    """Predict in a process of its own; give the most memory that it held, in KiB."""
    command = [sys.executable, "-c", MEASURED, "predict", str(bundle), str(study), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stderr.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the most memory that was held from /proc")
def test_memory_is_bounded_and_does_not_depend_on_the_slices(dense_bundle: Path, tmp_path: Path) -> None:
    few, many = write_ct(tmp_path / "few", 20), write_ct(tmp_path / "many", 400)
    # Once, so that which runtime is the fastest here is known.
    assert peak(dense_bundle, few, tmp_path / "first") < 700 * MEBIBYTE
    of_few = peak(dense_bundle, few, tmp_path / "of few")
    assert peak(dense_bundle, many, tmp_path / "of many") < 1.05 * of_few
    real = shared_data("dicom/totalsegmentator/example_ct_dicom")
    assert peak(dense_bundle, real, tmp_path / "real") < 700 * MEBIBYTE


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the most memory that was held from /proc")
def test_an_mr_and_a_radiograph_take_little_more_than_the_ct_beside_them(tmp_path: Path) -> None:
    modalities: tuple[Modality, ...] = ("CT", "MR", "radiograph")
    preparation = PreparationConfig(size=224, volume=VolumeConfig(size=224), modalities=modalities)
    bundle, study, random = dense(tmp_path, preparation, modalities), tmp_path / "study", np.random.default_rng(0)
    write_ct(study / "ct", 400)
    write_series(study / "mr", random.integers(0, 800, (40, 320, 320)).astype(np.uint16), "MR", series="mr")
    # Once, so that which runtime is the fastest here is known.
    peak(bundle, study / "mr", tmp_path / "first")
    of_ct = peak(bundle, study / "ct", tmp_path / "of ct")
    # Five million pixels, of which a few copies are held while they are shown.
    write_dicom(study / "film.dcm", random.integers(0, 4000, (2500, 2000)).astype(np.uint16), "DX", series="film")
    of_all = peak(bundle, study, tmp_path / "of all")
    assert of_all < of_ct + 150 * MEBIBYTE
    assert of_all < 800 * MEBIBYTE
