"""Shared fixtures: where the real data lie, and what happens where they do not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bundles import NETWORK, RADIOGRAPHS, export_tiny, write_tiny_bundle
from samples import CLASSES, Silent, write_table_cohort

from osteoscope import workflow
from osteoscope.config import Config, NetworkConfig, PreparationConfig, TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFAULT = Path(__file__).parents[1] / ".." / "shared" / "data"


def shared_data(folder: str) -> Path:
    """Find a folder of the shared data, or skip with a clear word; under OSTEOSCOPE_REQUIRE_DATA=1 a skip fails."""
    root = Path(os.environ.get("OSTEOSCOPE_DATA", str(_DEFAULT))).resolve()
    found = root / folder
    if found.is_dir():
        return found
    message = f"no real data: {found} is missing; set OSTEOSCOPE_DATA to the folder that holds {folder}"
    if os.environ.get("OSTEOSCOPE_REQUIRE_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process waits for another's last one.

    They are those of the workflow; of the slow tests the audits of hundreds of cohorts take longer still.
    """

    def place(item: pytest.Item) -> int:
        if "workflow" in item.path.parts:
            return 1
        return 2 if item.get_closest_marker("slow") is None else 0

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what audits found for this session alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSTEOSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def btxrd() -> Path:
    """Centre 1 of the public radiograph archive, in the archive's own layout."""
    return shared_data("btxrd-centre1")


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """Settings that train in seconds."""
    return Config(
        preparation=PreparationConfig(size=48, roi="box"),
        network=NetworkConfig(trunk="densenet-tiny", width=16, heads=2, covariates=("age", "sex")),
        training=TrainingConfig(
            folds=2, members="folds", epochs=6, precision="32-true", learning_rate=3e-3, averaging=0.8
        ),
    )


@pytest.fixture(scope="session")
def cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of 24 made-up patients."""
    folder = tmp_path_factory.mktemp("cohort")
    table = write_table_cohort(folder)
    workflow.cohort_from_table(table, folder / "cohort", images=folder / "images", classes=CLASSES, source="made up")
    return folder / "cohort"


@pytest.fixture(scope="session")
def other_cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of 12 other made-up patients."""
    folder = tmp_path_factory.mktemp("other")
    table = write_table_cohort(folder, patients=6, seed=7, prefix="B")
    workflow.cohort_from_table(table, folder / "cohort", images=folder / "images", classes=CLASSES, source="made up")
    return folder / "cohort"


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, cohort_folder: Path, tiny_config: Config) -> Path:
    """A finished run on the made-up cohort."""
    folder = tmp_path_factory.mktemp("run") / "run"
    workflow.train(cohort_folder, folder, config=tiny_config, watcher=Silent(), threads=1)
    return folder


@pytest.fixture(scope="session")
def scan_member(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for CT and MR that learnt nothing."""
    return export_tiny(tmp_path_factory.mktemp("scan"), channels=3)


@pytest.fixture(scope="session")
def scan_bundle(tmp_path_factory: pytest.TempPathFactory, scan_member: Path) -> Path:
    """A bundle for CT and MR whose network learnt nothing."""
    return write_tiny_bundle(tmp_path_factory.mktemp("scans") / "bundle", scan_member)


@pytest.fixture(scope="session")
def radiograph_member(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for radiographs that learnt nothing, and takes the age."""
    return export_tiny(tmp_path_factory.mktemp("radiograph"), channels=1, covariates=2)


@pytest.fixture(scope="session")
def radiograph_bundle(tmp_path_factory: pytest.TempPathFactory, radiograph_member: Path) -> Path:
    """A bundle for radiographs whose network learnt nothing, looks twice and takes the age."""
    return write_tiny_bundle(
        tmp_path_factory.mktemp("radiographs") / "bundle",
        radiograph_member,
        preparation=RADIOGRAPHS,
        modalities=("radiograph",),
        network=NETWORK.model_copy(update={"covariates": ("age",)}),
        encoder={"names": ["age"], "age_mean": 30.0, "age_sd": 10.0, "sites": []},
    )
