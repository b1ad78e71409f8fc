"""Planes of CT, MR and radiographs for training: what is kept, what is drawn, and where it lies."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from mixed_samples import ALL, CONFIG, PREPARATION, patient_of, write_mixed_cohort
from samples import Silent

from osteoscope.cohort.table import cases, read_cohort
from osteoscope.config import AugmentationConfig
from osteoscope.errors import ImageError, StorageError
from osteoscope.imaging.mixed import indicators
from osteoscope.inference.predict import PreparedMix, prepare_case
from osteoscope.network.classifier import TumourNetwork
from osteoscope.training import room
from osteoscope.training.augment import see
from osteoscope.training.device import Device, deterministic
from osteoscope.training.fit import FitPlan, _some, fit
from osteoscope.training.mixed import load_mixed
from osteoscope.training.planes import Kind
from osteoscope.training.quantise import calibration_planes
from osteoscope.training.room import room_for_canvases

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.cohort.table import Case
    from osteoscope.config import TrainingConfig
    from osteoscope.training.planes import CaseStore

STILL = AugmentationConfig(rotation=0, scale=0, shift=0, flip=False, gamma=0, noise=0, blur=0, erase=0, collimate=0)
CPU = Device(kind="cpu", name="cpu", precision="32-true", threads=1)


@pytest.fixture(scope="module")
def mixed_cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    cohort = read_cohort(write_mixed_cohort(tmp_path_factory.mktemp("mix"), patients=3))
    return cases(cohort)


@pytest.fixture(scope="module")
def store(mixed_cases: list[Case]) -> CaseStore:
    return load_mixed(mixed_cases, PREPARATION)


def modality_of(store: CaseStore, places: np.ndarray | torch.Tensor) -> list[str]:
    assert store.planes.indicators is not None
    return [ALL[place] for place in store.planes.indicators[places].argmax(dim=1).tolist()]


def test_every_modality_of_a_patient_is_there_and_told(mixed_cases: list[Case], store: CaseStore) -> None:
    assert {frozenset(patient_of(number)) for number in range(6)} == {frozenset(ALL), frozenset(ALL[1:])}
    assert store.planes.canvases.shape[1:] == (6, 96, 96)
    for case, places in zip(mixed_cases, store.images, strict=True):
        counts = Counter(modality_of(store, places))
        assert set(counts) == {image.modality for image in case.images}
        # Of a radiograph the whole; of a scan the four planes with the lesion, and four without.
        assert counts["radiograph"] == 1
        assert all(4 < counts[scan] <= 8 for scan in set(counts) - {"radiograph"})


def test_an_outlined_radiograph_shows_the_lesion_and_another_may(mixed_cases: list[Case], store: CaseStore) -> None:
    films = [
        place for place, kind in enumerate(modality_of(store, torch.arange(len(store.planes.kinds)))) if kind == ALL[2]
    ]
    assert {int(store.planes.kinds[place]) for place in films} == {Kind.REGION}
    assert bool(store.planes.marked[films].all())
    assert bool((store.planes.lesions[films].sum(dim=(1, 2, 3)) > 0).all())
    bare = [
        dataclasses.replace(case, images=tuple(dataclasses.replace(image, lesions=()) for image in case.images))
        for case in mixed_cases
    ]
    unmarked = load_mixed(bare, PREPARATION).planes
    assert {int(unmarked.kinds[place]) for place in films} == {Kind.FIRST}
    assert not unmarked.marked[films].any()
    assert torch.equal(unmarked.canvases, store.planes.canvases)


def test_a_plane_that_is_not_changed_is_the_one_that_prediction_reads(
    mixed_cases: list[Case], store: CaseStore
) -> None:
    """Indicator and all; of the radiograph, and of the planes of a scan that both keep."""
    case, places = mixed_cases[0], store.images[0]
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    seen = see(places.tolist(), store.planes, STILL, rng=rng, generator=generator).planes
    assert seen.shape[1:] == (9, 64, 64)
    prepared = prepare_case(case, PREPARATION)
    assert isinstance(prepared, PreparedMix)
    read: dict[str, np.ndarray] = {
        image.modality: part.first_planes() for image, part in zip(case.images, prepared.parts, strict=True)
    }
    told = modality_of(store, places)
    inside = np.s_[:, :, 1:-1, 1:-1]
    film = seen[[place for place, kind in enumerate(told) if kind == "radiograph"]].numpy()
    np.testing.assert_allclose(film[inside], read["radiograph"][inside], atol=2e-3)
    for kind in sorted(set(told) - {"radiograph"}):
        kept = seen[[place for place, one in enumerate(told) if one == kind]].numpy()
        assert len(kept) == 8
        for plane in read[kind]:
            assert np.abs(kept - plane)[inside].max(axis=(1, 2, 3)).min() < 2e-3


def test_what_changes_a_plane_does_not_touch_what_it_is_of(store: CaseStore) -> None:
    hard = AugmentationConfig(noise=1, collimate=1, erase=1, blur=1)
    places = store.images[0].tolist()
    seen = see(places, store.planes, hard, rng=np.random.default_rng(0), generator=torch.Generator().manual_seed(0))
    assert store.planes.indicators is not None
    expected = store.planes.indicators[seen.images][:, :, None, None].expand(-1, -1, 64, 64)
    assert torch.equal(seen.planes[:, 6:], expected)


# Drawing --------------------------------------------------------------------------------------------------------------


def drawn(store: CaseStore, settings: TrainingConfig, times: int = 400) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    whole = next(places for places in store.images if set(modality_of(store, places)) == set(ALL))
    return [_some(whole, store.planes, settings, rng) for _ in range(times)]


def test_a_scan_of_many_planes_does_not_drown_a_radiograph(store: CaseStore) -> None:
    settings = CONFIG.training.model_copy(update={"modality_dropout": 0.0, "views_per_patient": 6})
    for images in drawn(store, settings, 50):
        counts = Counter(modality_of(store, images))
        # Two of each, as far as there are so many: there is one radiograph.
        assert counts == {"CT": 2, "MR": 2, "radiograph": 1}
        for scan in ("CT", "MR"):
            kinds = [
                int(store.planes.kinds[place])
                for place, one in zip(images, modality_of(store, images), strict=True)
                if one == scan
            ]
            assert sorted(kinds) == [Kind.REGION, Kind.ELSEWHERE]


def test_what_does_not_share_out_evenly_falls_to_each_modality_in_turn(store: CaseStore) -> None:
    settings = CONFIG.training.model_copy(update={"modality_dropout": 0.0, "views_per_patient": 1})
    counts = Counter(modality_of(store, images)[0] for images in drawn(store, settings))
    assert all(100 < counts[modality] < 170 for modality in ALL)


def test_in_some_steps_a_patient_is_seen_by_one_modality_alone(store: CaseStore) -> None:
    settings = CONFIG.training.model_copy(update={"modality_dropout": 0.25})
    alone = [set(modality_of(store, images)) for images in drawn(store, settings)]
    single = Counter(next(iter(one)) for one in alone if len(one) == 1)
    # A quarter of 400, within three standard deviations, and each as often.
    assert 74 < single.total() < 126
    assert all(18 < single[modality] < 50 for modality in ALL)
    assert all(len(one) in {1, 3} for one in alone)
    never = CONFIG.training.model_copy(update={"modality_dropout": 0.0})
    assert all(len(set(modality_of(store, images))) == 3 for images in drawn(store, never, 50))


def test_of_one_modality_is_drawn_what_always_was(store: CaseStore) -> None:
    alone = dataclasses.replace(store.planes, indicators=None)
    places = store.images[0]
    for seed in range(5):
        images = _some(places, alone, CONFIG.training, np.random.default_rng(seed))
        permuted = np.random.default_rng(seed).permutation(places.numpy())
        shown = alone.kinds[permuted].numpy() == Kind.REGION
        expected = [*permuted[shown][:3], *permuted[~shown], *permuted[shown][3:]][:6]
        assert images.tolist() == expected


# Room -----------------------------------------------------------------------------------------------------------------


def fitted(store: CaseStore, folder: Path) -> TumourNetwork:
    torch.manual_seed(0)
    network = TumourNetwork(CONFIG.network, classes=2, in_channels=9, modalities=3)
    settings = CONFIG.training.model_copy(update={"epochs": 2})
    plan = FitPlan(store=store, cases=np.arange(len(store.images)), classes=2, settings=settings, stream=(0, 0))
    with deterministic(1):
        fit(network, plan, fabric=CPU.fabric(), folder=folder, watcher=Silent().epoch_done)
    return network


def test_planes_that_are_too_many_for_memory_lie_on_disk_and_teach_the_same(
    mixed_cases: list[Case], store: CaseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(cache))
    monkeypatch.setattr(room, "MOST_IN_MEMORY", 100_000)
    on_disk = load_mixed(mixed_cases, PREPARATION)
    # The file has no name, so nothing is left of it.
    assert list(cache.iterdir()) == []
    for name in ("canvases", "lesions", "kinds", "marked", "indicators"):
        assert torch.equal(getattr(on_disk.planes, name), getattr(store.planes, name))
    held, laid = fitted(store, tmp_path / "held").state_dict(), fitted(on_disk, tmp_path / "laid").state_dict()
    assert all(torch.equal(held[name], laid[name]) for name in held)
    # A device that computes gets what is drawn, and not all of it.
    moved = on_disk.planes.on(torch.device("meta"))
    assert moved.canvases.device.type == "cpu"
    assert moved.at(torch.tensor([0]))[0].device.type == "meta"
    monkeypatch.undo()
    assert store.planes.on(torch.device("meta")).canvases.device.type == "meta"


def test_room_is_taken_on_disk_from_a_limit_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path))
    # Two planes of three channels, 10 x 10: 1200 bytes of float16, and 200 of the lesions.
    monkeypatch.setattr(room, "MOST_IN_MEMORY", 1400)
    held = room_for_canvases(2, 3, 10)
    monkeypatch.setattr(room, "MOST_IN_MEMORY", 1399)
    mapped = room_for_canvases(2, 3, 10)
    assert [one.shape for one in held] == [one.shape for one in mapped] == [(2, 3, 10, 10), (2, 1, 10, 10)]
    assert [str(one.dtype) for one in held] == [str(one.dtype) for one in mapped] == ["float16", "uint8"]
    assert not any(isinstance(one, np.memmap) for one in held)
    assert all(isinstance(one, np.memmap) for one in mapped)
    mapped[0][:] = 1
    assert not held[1].any()
    assert not mapped[1].any()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_said_before_anything_is_decoded(
    mixed_cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int, _start: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "MOST_IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"cache: the planes to train on take 0\.0 GB of disk .* OSTEOSCOPE_CACHE"):
        load_mixed(mixed_cases[:1], PREPARATION)


def test_a_cache_that_cannot_be_written_is_said(
    mixed_cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(room, "MOST_IN_MEMORY", 0)
    with pytest.raises(StorageError, match="cache: could not be written"):
        load_mixed(mixed_cases[:1], PREPARATION)


# Faults, and eight bits -----------------------------------------------------------------------------------------------


def test_a_radiograph_that_cannot_be_read_is_named(mixed_cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "film.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    broken = tuple(
        dataclasses.replace(image, path=tmp_path / "film.png") if image.modality == "radiograph" else image
        for image in mixed_cases[0].images
    )
    with pytest.raises(ImageError, match=r"film\.png"):
        load_mixed([dataclasses.replace(mixed_cases[0], images=broken)], PREPARATION)


def test_levels_of_eight_bits_are_fixed_from_planes_of_every_modality(mixed_cases: list[Case]) -> None:
    planes = calibration_planes(mixed_cases, PREPARATION)
    told = {tuple(one) for one in planes[:, 6:, 0, 0].tolist()}
    assert told == {tuple(one) for one in indicators([0, 1, 2], 3).tolist()}
    assert planes.shape[1:] == (9, 64, 64)
