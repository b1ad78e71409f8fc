"""A fit, its data, and its state on disk."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from samples import Silent

from osteoscope.config import AugmentationConfig, TrainingConfig
from osteoscope.errors import RunError, StorageError
from osteoscope.network.classifier import PatientReading, PlaneReading, TumourNetwork
from osteoscope.training import augment as augment_module
from osteoscope.training import checkpoint
from osteoscope.training.augment import apply_changes
from osteoscope.training.device import choose_device, deterministic
from osteoscope.training.fit import FitPlan, fit
from osteoscope.training.planes import NO_REGION, SQUARES_ELSEWHERE, SQUARES_ROUND, CaseStore, Kind, PlaneStore

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.config import Config
    from osteoscope.training.augment import Changes
    from osteoscope.training.fit import EpochWatcher


def tiny_store(cases: int = 8) -> CaseStore:
    """Two images of each case, the first of them with a lesion and one square round it."""
    generator = torch.Generator().manual_seed(0)
    images = 2 * cases
    marked = torch.arange(images) % 2 == 0
    lesions = torch.zeros(images + cases, 1, 72, 72, dtype=torch.uint8)
    lesions[:images:2, :, 20:40, 20:40] = 1
    lesions[images:, :, 16:56, 16:56] = 1
    planes = PlaneStore(
        canvases=torch.rand(images + cases, 1, 72, 72, generator=generator).half(),
        lesions=lesions,
        marked=marked,
        kinds=torch.full((images,), Kind.FIRST),
        regions=torch.where(marked, images + torch.arange(images) // 2, NO_REGION)[:, None].repeat(1, SQUARES_ROUND),
        elsewhere=torch.full((images, SQUARES_ELSEWHERE), NO_REGION),
        size=48,
    )
    return CaseStore(
        planes=planes,
        images=tuple(torch.tensor([2 * case, 2 * case + 1]) for case in range(cases)),
        labels=torch.tensor([case % 2 for case in range(cases)]),
    )


def plan_of(store: CaseStore, cases: list[int], settings: TrainingConfig) -> FitPlan:
    return FitPlan(
        store=store,
        cases=np.array(cases),
        classes=2,
        settings=settings,
        stream=(0, 0),
        checkpoint_every=1,
    )


def fitted(
    store: CaseStore,
    cases: list[int],
    tiny_config: Config,
    folder: Path,
    *,
    dropout: float = 0.1,
    watcher: EpochWatcher | None = None,
    **settings: Any,
) -> TumourNetwork:
    chosen = TrainingConfig(epochs=2, batch_size=3, precision="32-true", **settings)
    torch.manual_seed(5)
    network = TumourNetwork(tiny_config.network.model_copy(update={"covariates": (), "dropout": dropout}), classes=2)
    with deterministic(1):
        fabric = choose_device("32-true", 1).fabric()
        fit(
            network, plan_of(store, cases, chosen), fabric=fabric, folder=folder, watcher=watcher or Silent().epoch_done
        )
    return network


def weights_of(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_what_is_tested_has_no_say_in_training(tiny_config: Config, tmp_path: Path) -> None:
    store = tiny_store()
    first = fitted(store, [0, 1, 2, 3], tiny_config, tmp_path / "a")
    # Cases 4 to 7 get other pixels, lesions and labels; nothing may change.
    for canvases in (slice(8, 16), slice(20, 24)):
        store.planes.canvases[canvases] = 0.0
        store.planes.lesions[canvases] = 1
    store.planes.marked[8:] = True
    store.planes.regions[8:] = NO_REGION
    store.labels[4:] = 1
    second = fitted(store, [0, 1, 2, 3], tiny_config, tmp_path / "b")
    assert torch.equal(weights_of(first), weights_of(second))


def test_the_same_seed_gives_the_same_bits(tiny_config: Config, tmp_path: Path) -> None:
    first = fitted(tiny_store(), list(range(8)), tiny_config, tmp_path / "a")
    torch.manual_seed(99)
    torch.rand(100)
    second = fitted(tiny_store(), list(range(8)), tiny_config, tmp_path / "b")
    assert torch.equal(weights_of(first), weights_of(second))


def test_a_lesion_is_learnt_from_where_it_is_annotated_and_as_much_as_was_asked(
    tiny_config: Config, tmp_path: Path
) -> None:
    cases = list(range(4))
    usual = fitted(tiny_store(), cases, tiny_config, tmp_path / "a")
    without = fitted(tiny_store(), cases, tiny_config, tmp_path / "b", lesion_weight=0)
    assert not torch.equal(weights_of(usual), weights_of(without))
    # With no weight, and with no annotation, it does not matter where lesions are.
    for name, weight, annotated in [("c", 0.0, True), ("d", 0.5, False)]:
        twins = []
        for covered in (0, 1):
            store = tiny_store()
            store.planes.marked[:] &= annotated
            store.planes.lesions[:] = covered
            folder = tmp_path / f"{name}{covered}"
            twins.append(weights_of(fitted(store, cases, tiny_config, folder, lesion_weight=weight)))
        assert torch.equal(*twins)


class RecordingEncoder(torch.nn.Module):
    """Says nothing and keeps the planes that it is shown."""

    map_channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.parameter = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[torch.Tensor] = []

    def forward(self, planes: torch.Tensor) -> PlaneReading:
        self.seen.append(planes)
        maps = self.parameter.expand(len(planes), 4, 3, 3)
        return PlaneReading(scores=maps[:, 0, 0, 0], vectors=maps[:, :, 0, 0], maps=maps, lesions=maps[:, 0])

    def presence(self, vectors: torch.Tensor) -> None:
        """Say nothing."""


class Recorder(torch.nn.Module):
    """A network that says nothing and keeps what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = RecordingEncoder()
        self.asked: list[torch.Tensor] = []

    @property
    def head(self) -> Recorder:
        return self

    def of_images(self, scores: torch.Tensor, vectors: torch.Tensor, membership: torch.Tensor) -> PatientReading:
        self.asked.append(membership)
        logits = self.encoder.parameter.expand(len(membership), 2)
        return PatientReading(logits=logits, weights=membership.float())

    def linear(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.encoder.parameter.expand(len(vectors), 2)


def test_regions_and_images_without_one_are_in_their_cases_bag_and_every_case_is_in_one_bag_an_epoch(
    tmp_path: Path,
) -> None:
    store = tiny_store()
    # What speaks for a case is the case's number.
    for case, (with_region, without) in enumerate(images.tolist() for images in store.images):
        store.planes.canvases[[without, int(store.planes.regions[with_region, 0])]] = case / 8
    settings = AugmentationConfig(gamma=0, noise=0, erase=0, collimate=0, whole=0)
    plan = FitPlan(
        store=store,
        cases=np.array([1, 3, 4, 6, 7]),
        classes=2,
        settings=TrainingConfig(epochs=1, batch_size=3, views_per_patient=2, augmentation=settings),
        stream=(0, 0),
    )
    recorder = Recorder()
    with deterministic(1):
        fabric = choose_device("32-true", 1).fabric()
        fit(cast("TumourNetwork", recorder), plan, fabric=fabric, folder=tmp_path, watcher=Silent().epoch_done)
    bags = []
    for planes, membership in zip(recorder.encoder.seen, recorder.asked, strict=True):
        # Of each case the whole of the one image and a square of the other are seen.
        assert len(planes) == 2 * len(membership)
        for members in membership:
            assert int(members.sum()) == 2
            case = round(float(planes[members].mean()) * 8)
            torch.testing.assert_close(planes[members], torch.full_like(planes[members], case / 8), atol=1e-3, rtol=0)
            bags.append(case)
        assert bool((membership.sum(dim=0) <= 1).all())
    assert sorted(bags) == [1, 3, 4, 6, 7]


def test_then_only_squares_with_a_lesion_are_seen_and_images_without_one(tmp_path: Path) -> None:
    store = tiny_store()
    images = len(store.planes.marked)
    # A whole image is 0.25 where it has a lesion and 0.5 where not, a square 0.75.
    store.planes.canvases[:images:2], store.planes.canvases[1:images:2] = 0.25, 0.5
    store.planes.canvases[images:] = 0.75
    unchanged = AugmentationConfig(gamma=0, noise=0, erase=0, collimate=0, whole=1)
    settings = TrainingConfig(epochs=2, closer_epochs=3, batch_size=8, views_per_patient=2, augmentation=unchanged)
    recorder, told = Recorder(), []
    with deterministic(1):
        fabric = choose_device("32-true", 1).fabric()
        history = fit(
            cast("TumourNetwork", recorder),
            plan_of(store, list(range(8)), settings),
            fabric=fabric,
            folder=tmp_path,
            watcher=lambda **of_epoch: told.append((of_epoch["epoch"], of_epoch["epochs"])),
        )
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5]
    assert told == [(epoch, 5) for epoch in range(1, 6)]
    # One step an epoch.
    seen = [sorted({round(float(plane.mean()), 2) for plane in planes}) for planes in recorder.encoder.seen]
    assert seen == [[0.25, 0.5]] * 2 + [[0.5, 0.75]] * 3


def test_no_two_epochs_of_a_fit_change_an_image_alike_not_even_those_on_squares(tmp_path: Path) -> None:
    store = tiny_store()
    store.planes.regions[:], store.planes.marked[:] = NO_REGION, False
    settings = TrainingConfig(epochs=3, closer_epochs=3, batch_size=8, views_per_patient=2)
    recorder = Recorder()
    plan = plan_of(store, list(range(8)), settings)
    with deterministic(1):
        fabric = choose_device("32-true", 1).fabric()
        fit(cast("TumourNetwork", recorder), plan, fabric=fabric, folder=tmp_path, watcher=Silent().epoch_done)
    # Without annotated lesions all six epochs see the same sixteen whole images, one step an epoch.
    seen = torch.cat(recorder.encoder.seen).flatten(start_dim=1)
    assert len(seen) == 6 * 16
    assert len(np.unique(seen.numpy(), axis=0)) == len(seen)


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_fit_that_was_killed_goes_on_in_either_part_and_ends_with_the_same_bits(
    after: int, tiny_config: Config, tmp_path: Path
) -> None:
    """Of two epochs and two on squares; each leaves a checkpoint."""
    unbroken = fitted(tiny_store(), list(range(8)), tiny_config, tmp_path / "a", closer_epochs=2)
    seen: list[int] = []

    def kill(*, epoch: int, **_others: object) -> None:
        seen.append(epoch)
        if seen == list(range(1, after + 1)):
            raise KilledError

    def fit_to_the_kill() -> TumourNetwork:
        return fitted(tiny_store(), list(range(8)), tiny_config, tmp_path / "b", watcher=kill, closer_epochs=2)

    with pytest.raises(KilledError):
        fit_to_the_kill()
    gone_on = fit_to_the_kill()
    # No epoch is done twice.
    assert seen == [1, 2, 3, 4]
    assert torch.equal(weights_of(unbroken), weights_of(gone_on))


def test_half_of_the_planes_of_a_volume_that_are_read_in_a_step_show_the_lesion_and_they_alone_speak(
    tmp_path: Path,
) -> None:
    """Of each case eight planes, of which number 1 and 5 show it; of case 3 alone it is not known."""
    kinds = torch.tensor([Kind.ELSEWHERE, Kind.REGION, *[Kind.ELSEWHERE] * 3, Kind.REGION, *[Kind.ELSEWHERE] * 2])
    kinds = torch.cat([kinds, kinds, kinds, torch.full((8,), Kind.FIRST)])
    canvases = torch.zeros(32, 2, 48, 48)
    canvases[:, 0] = (torch.arange(32)[:, None, None] + 0.5) / 32
    store = CaseStore(
        planes=PlaneStore(
            canvases=canvases.half(),
            lesions=torch.zeros(32, 1, 48, 48, dtype=torch.uint8),
            marked=kinds != Kind.FIRST,
            kinds=kinds,
            regions=torch.full((32, SQUARES_ROUND), NO_REGION),
            elsewhere=torch.full((32, SQUARES_ELSEWHERE), NO_REGION),
            size=32,
        ),
        images=tuple(torch.arange(8 * case, 8 * case + 8) for case in range(4)),
        labels=torch.tensor([0, 1, 0, 1]),
    )
    settings = AugmentationConfig(gamma=0, noise=0, erase=0, collimate=0)
    plan = FitPlan(
        store=store,
        cases=np.arange(4),
        classes=2,
        settings=TrainingConfig(epochs=8, batch_size=2, views_per_patient=3, augmentation=settings),
        stream=(0, 0),
    )
    recorder = Recorder()
    with deterministic(1):
        fabric = choose_device("32-true", 1).fabric()
        fit(cast("TumourNetwork", recorder), plan, fabric=fabric, folder=tmp_path, watcher=Silent().epoch_done)
    seen: set[int] = set()
    for planes, membership in zip(recorder.encoder.seen, recorder.asked, strict=True):
        assert planes.shape == (6, 2, 32, 32)
        numbers = (planes[:, 0].mean(dim=(-2, -1)) * 32 - 0.5).round().long()
        assert not planes[:, 1].any()
        assert bool((membership.sum(dim=0) <= 1).all())
        for members in membership:
            case = int(numbers[members][0]) // 8
            read = numbers[numbers // 8 == case]
            speaking = numbers[members]
            assert len(set(read.tolist())) == 3
            if case < 3:
                assert sorted(set(speaking.tolist())) == [8 * case + 1, 8 * case + 5]
            else:
                assert len(speaking) == 3
            seen |= set(read.tolist())
    assert len(seen) > 24


def test_planes_are_changed_anew_in_every_epoch(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gammas: list[float] = []

    def noted(canvases: torch.Tensor, lesions: torch.Tensor, changes: Changes) -> tuple[torch.Tensor, torch.Tensor]:
        gammas.extend(changes.gammas.tolist())
        return apply_changes(canvases, lesions, changes)

    monkeypatch.setattr(augment_module, "apply_changes", noted)
    fitted(tiny_store(), list(range(8)), tiny_config, tmp_path)
    # Two epochs of 16 images, or more looks.
    assert len(gammas) == len(set(gammas)) >= 2 * 16


def test_the_settings_of_the_caller_are_left_as_they_were() -> None:
    memory: Any = torch.utils.deterministic

    def seen() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            memory.fill_uninitialized_memory,
        )

    before = seen()
    with deterministic(3):
        assert seen() == (3, True, False)
    assert seen() == before


def test_the_generator_of_the_caller_is_left_as_it_was() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with deterministic(1):
        torch.manual_seed(7)
        torch.rand(10)
    assert torch.equal(torch.rand(3), expected)


def test_moments_are_laid_in_memory_as_their_weights_are(tmp_path: Path) -> None:
    """A fused step goes through all of them as they lie."""

    def begun() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = torch.nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module, torch.optim.AdamW(module.parameters(), fused=True)

    def step(module: torch.nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
        shown = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(seed))
        module(shown.contiguous(memory_format=torch.channels_last)).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    module, optimiser = begun()
    step(module, optimiser, 1)
    checkpoint.save_checkpoint(tmp_path, epoch=1, modules={"network": module}, optimiser=optimiser, history=[])
    again, optimiser_again = begun()
    checkpoint.load_checkpoint(tmp_path, modules={"network": again}, optimiser=optimiser_again)
    for weights, moments in optimiser_again.state.items():
        assert moments["exp_avg"].stride() == weights.stride()
    step(module, optimiser, 2)
    step(again, optimiser_again, 2)
    assert torch.equal(weights_of(module), weights_of(again))


def save_one(folder: Path, epoch: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    module = torch.nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    checkpoint.save_checkpoint(
        folder, epoch=epoch, modules={"network": module}, optimiser=optimiser, history=[{"epoch": epoch}]
    )
    return module, optimiser


def test_a_checkpoint_gives_back_weights_moments_and_history(tmp_path: Path) -> None:
    module, optimiser = save_one(tmp_path, 3)
    other = torch.nn.Linear(2, 2)
    other_optimiser = torch.optim.AdamW(other.parameters())
    done, history = checkpoint.load_checkpoint(tmp_path, modules={"network": other}, optimiser=other_optimiser)
    assert (done, history) == (3, [{"epoch": 3}])
    assert torch.equal(other.weight, module.get_parameter("weight"))
    for theirs, ours in zip(
        optimiser.state_dict()["state"].values(), other_optimiser.state_dict()["state"].values(), strict=True
    ):
        assert all(torch.equal(theirs[name], ours[name]) for name in ("exp_avg", "exp_avg_sq", "step"))


def test_only_the_newest_checkpoint_is_kept_and_a_half_written_one_is_not_taken(tmp_path: Path) -> None:
    save_one(tmp_path, 1)
    save_one(tmp_path, 2)
    (tmp_path / ".checkpoint-00003.tmp").mkdir()
    (tmp_path / "checkpoint-00004").mkdir()
    module = torch.nn.Linear(2, 2)
    done, _ = checkpoint.load_checkpoint(
        tmp_path, modules={"network": module}, optimiser=torch.optim.AdamW(module.parameters())
    )
    assert done == 2
    assert not (tmp_path / "checkpoint-00001").exists()


def test_a_changed_checkpoint_is_refused(tmp_path: Path) -> None:
    module, optimiser = save_one(tmp_path, 1)
    path = tmp_path / "checkpoint-00001" / "network.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunError, match=r"network\.safetensors.*SHA-256 differs"):
        checkpoint.load_checkpoint(tmp_path, modules={"network": module}, optimiser=optimiser)


def test_what_is_left_of_a_removed_checkpoint_is_in_nobodys_way(tmp_path: Path) -> None:
    for name in ("checkpoint-00001", "checkpoint-00002"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "network.safetensors").write_bytes(b"half")
    save_one(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00002"]
    (tmp_path / "checkpoint-00001").mkdir()
    checkpoint.remove_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_system_that_refuses_to_write_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    save_one(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.raises(StorageError, match="too large"):
            save_one(tmp_path, 2)
        with pytest.raises(StorageError, match="too large"):
            checkpoint.save_weights(torch.nn.Linear(2, 2), tmp_path / "weights.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00001"]
