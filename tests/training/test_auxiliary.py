"""Learning from the images outside of the classes: which may teach, what is kept, and what it depends on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from filelock import FileLock
from made_up import entries, resized, write_cohort_of
from safetensors.torch import load_file
from samples import Silent, auxiliary_images

from osteoscope.cohort.audit import audit
from osteoscope.cohort.split import make_folds
from osteoscope.cohort.table import auxiliary, read_cohort
from osteoscope.cohort.table import cases as cases_of
from osteoscope.config import (
    AugmentationConfig,
    AuxiliaryConfig,
    Config,
    NetworkConfig,
    PreparationConfig,
    TrainingConfig,
)
from osteoscope.errors import RunError, StorageError
from osteoscope.imaging.prepare import Lesion
from osteoscope.network.classifier import PlaneEncoder
from osteoscope.training import augment as augment_module
from osteoscope.training import fold
from osteoscope.training.augment import apply_changes
from osteoscope.training.auxiliary import Learnt, fingerprint_of, learn, teachers
from osteoscope.training.crossval import run_folds
from osteoscope.training.device import Device, deterministic
from osteoscope.training.fold import Work
from osteoscope.training.questions import FEWEST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from osteoscope.cohort.table import Auxiliary
    from osteoscope.network.classifier import TumourNetwork
    from osteoscope.training.augment import Changes
    from osteoscope.training.fit import FitPlan

# One look at an image, so that it is easily counted.
ONE_LOOK = AugmentationConfig(elsewhere=0)
# 16 images and 112 looks: 7 epochs of 2 steps, with a checkpoint after the 5th.
TINY = Config(
    preparation=PreparationConfig(size=32, second_look=True),
    network=NetworkConfig(trunk="densenet-tiny", width=16, heads=2),
    auxiliary=AuxiliaryConfig(looks=112, batch_size=8, averaging=0.5, augmentation=ONE_LOOK),
    training=TrainingConfig(folds=2, epochs=1, precision="32-true"),
)
CPU = Device(kind="cpu", name="cpu", precision="32-true", threads=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Auxiliary]:
    return auxiliary_images(tmp_path_factory.mktemp("auxiliary"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is learnt yet."""
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Epochs:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def __call__(self, *, epoch: int, epochs: int, loss: float) -> None:
        self.done.append(epoch)


def learnt_from(
    images: Sequence[Auxiliary],
    config: Config = TINY,
    *,
    fallback: Path = Path("/dev/null/nowhere"),
    watcher: Any = None,
) -> Learnt:
    with deterministic(1):
        return learn(images, config, fallback=fallback, device=CPU, watcher=watcher or Epochs())


def weights_of(learnt: Learnt) -> bytes:
    return (learnt.folder / "weights.safetensors").read_bytes()


def only(one: Auxiliary, *kept: str) -> Auxiliary:
    """Forget all that is known of an image but what is named."""
    image = one.image
    return replace(
        one,
        kind=one.kind if "kind" in kept else None,
        site=one.site if "site" in kept else None,
        image=replace(
            image, view=image.view if "view" in kept else None, lesions=image.lesions if "lesions" in kept else ()
        ),
    )


# Which images may teach.


def test_no_image_teaches_that_shares_a_patient_pixels_or_the_picture_of_a_case(tmp_path: Path) -> None:
    made = entries(3, (6, 6), views=1)
    others = [entry | {"role": "auxiliary", "label": None, "kind": "cyst"} for entry in entries(4, (4, 4), views=1)]
    for place, entry in enumerate(others):
        entry["image"] = f"other{place}.png"
    others[0]["patient"] = made[0]["patient"]
    others[1]["picture"] = made[1]["picture"]
    others[2]["picture"] = resized(made[2]["picture"], 120, 80)
    others[3]["kind"] = "normal"
    others[4]["kind"] = None
    cohort = write_cohort_of(tmp_path, [*made, *others])
    chosen = teachers(auxiliary(cohort), twins=audit(cohort).auxiliary_twins, needs_lesion=False)
    assert [one.image.image for one in chosen] == [f"other{place}.png" for place in (4, 5, 6, 7)]


def test_an_image_without_a_lesion_teaches_only_where_whole_images_are_read(images: list[Auxiliary]) -> None:
    unmarked = only(images[0], "kind", "site", "view")
    assert teachers([unmarked, *images[1:3]], twins=(), needs_lesion=False) == [unmarked, *images[1:3]]
    assert teachers([unmarked, *images[1:3]], twins=(), needs_lesion=True) == images[1:3]


# What is learnt and kept.


def test_what_was_learnt_and_from_what_is_said_and_kept(images: list[Auxiliary], cache: Path) -> None:
    watcher = Epochs()
    learnt = learnt_from(images, watcher=watcher)
    # 112 looks at 16 images.
    assert watcher.done == [record["epoch"] for record in learnt.history] == list(range(1, 8))
    assert learnt.kinds == {"chondroma": 8, "osteochondroma": 8}
    assert learnt.sites == {"femur": 8, "tibia": 8}
    assert learnt.views == {"frontal": 8, "lateral": 8}
    assert (learnt.images, learnt.patients) == (16, 16)
    assert learnt.folder == cache / "auxiliary" / learnt.fingerprint
    assert {path.name for path in learnt.folder.iterdir()} == {
        ".lock",
        "learnt.json",
        "questions.safetensors",
        "weights.safetensors",
    }
    assert set(learnt.to_json()) == {"fingerprint", "images", "patients", "kinds", "sites", "views", "minutes"}
    json.dumps(learnt.to_json(), allow_nan=False)


def test_a_kind_that_can_be_seen_is_learnt(images: list[Auxiliary]) -> None:
    kinds = [only(one, "kind") for one in images]
    learnt = learnt_from(kinds, other(TINY, "auxiliary", looks=480, batch_size=4, learning_rate=1e-2))
    losses = [record["loss"] for record in learnt.history]
    # Guessing between two kinds costs ln 2.
    assert losses[0] == pytest.approx(log(2), rel=0.4)
    assert sum(losses[-5:]) / 5 < 0.6 * log(2)


def test_what_was_learnt_is_found_again_without_learning(images: list[Auxiliary]) -> None:
    first = learnt_from(images)
    kept, written = weights_of(first), (first.folder / "learnt.json").read_bytes()
    watcher = Epochs()
    again = learnt_from(images, watcher=watcher)
    assert watcher.done == []
    assert again == first
    assert weights_of(again) == kept
    assert (again.folder / "learnt.json").read_bytes() == written


def test_whose_images_they_are_is_said_of_those_that_are_named_now(images: list[Auxiliary]) -> None:
    first = learnt_from(images)
    joined = [replace(one, patient=f"P-{number // 2}") for number, one in enumerate(images)]
    assert learnt_from(joined) == replace(first, patients=8)


def test_a_cache_that_is_emptied_meanwhile_is_said_with_the_way_on(images: list[Auxiliary]) -> None:
    learnt = learnt_from(images)
    (learnt.folder / "weights.safetensors").unlink()
    with pytest.raises(RunError, match=r"gone or damaged.*weights\.safetensors|weights\.safetensors.*gone or damaged"):
        learnt.teach(PlaneEncoder(TINY.network, in_channels=1))


def test_the_same_is_learnt_whatever_was_drawn_before(images: list[Auxiliary], monkeypatch: pytest.MonkeyPatch) -> None:
    first = weights_of(learnt_from(images))
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(Path(os.environ["OSTEOSCOPE_CACHE"]) / "another"))
    torch.manual_seed(77)
    torch.rand(50)
    assert weights_of(learnt_from(images)) == first


def test_every_image_is_looked_at_once_an_epoch_and_changed_anew(
    images: list[Auxiliary], monkeypatch: pytest.MonkeyPatch
) -> None:
    gammas: list[float] = []

    def noted(canvases: Tensor, lesions: Tensor, changes: Changes) -> tuple[Tensor, Tensor]:
        gammas.extend(changes.gammas.tolist())
        return apply_changes(canvases, lesions, changes)

    monkeypatch.setattr(augment_module, "apply_changes", noted)
    learnt_from(images)
    assert len(gammas) == len(set(gammas)) == 7 * 16


@pytest.mark.parametrize(
    "damage", ["a byte", "no weights", "no questions", "torn", "null", "another's", "a field too many"]
)
def test_what_is_not_whole_is_not_taken_and_is_learnt_anew(images: list[Auxiliary], damage: str) -> None:
    first = learnt_from(images)
    sound = weights_of(first)
    weights, facts = first.folder / "weights.safetensors", first.folder / "learnt.json"
    content = json.loads(facts.read_text())
    if damage == "a byte":
        weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no questions":
        (first.folder / "questions.safetensors").unlink()
    elif damage == "torn":
        facts.write_text("{")
    elif damage == "null":
        facts.write_text("null")
    elif damage == "another's":
        facts.write_text(json.dumps(content | {"fingerprint": "0" * 64}))
    else:
        facts.write_text(json.dumps(content | {"more": 1}))
    watcher = Epochs()
    again = learnt_from(images, watcher=watcher)
    assert watcher.done == [1, 2, 3, 4, 5, 6, 7]
    assert weights_of(again) == sound
    assert again.fingerprint == first.fingerprint


def test_a_checkpoint_that_a_kill_left_beside_what_was_learnt_is_removed(images: list[Auxiliary]) -> None:
    folder = learnt_from(images).folder
    (folder / "checkpoint-00007").mkdir()
    (folder / "checkpoint-00007" / "state.json").write_text("{}")
    learnt_from(images)
    assert not (folder / "checkpoint-00007").exists()


def test_a_loss_that_is_no_number_stops_it_and_leaves_the_way_free(
    images: list[Auxiliary], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(canvases: Tensor, lesions: Tensor, changes: object) -> tuple[Tensor, Tensor]:
        planes = torch.full((len(canvases), 1, 32, 32), float("nan"))
        return planes, torch.zeros_like(planes)

    with monkeypatch.context() as patch:
        patch.setattr(augment_module, "apply_changes", nothing)
        with pytest.raises(RunError, match="no longer a number in epoch 1"):
            learnt_from(images)
    watcher = Epochs()
    learnt_from(images, watcher=watcher)
    assert watcher.done == [1, 2, 3, 4, 5, 6, 7]


# What it depends on.


def other(config: Config, part: str, **values: Any) -> Config:
    changed = getattr(config, part).model_copy(update=values)
    return config.model_copy(update={part: changed})


BLURRED = TINY.auxiliary.augmentation.model_copy(update={"blur": 0.9})


@pytest.mark.parametrize(
    "config",
    [
        other(TINY, "auxiliary", seed=1),
        other(TINY, "auxiliary", looks=128),
        other(TINY, "auxiliary", learning_rate=2e-3),
        other(TINY, "auxiliary", augmentation=BLURRED),
        other(TINY, "preparation", size=48),
        other(TINY, "preparation", second_look=False),
        other(TINY, "preparation", margin=0.3),
        other(TINY, "network", width=32),
        other(TINY, "network", attention=False),
        other(TINY, "network", pooling="mean"),
        other(TINY, "network", pretrained="0" * 64),
    ],
)
def test_another_setting_that_counts_gives_another_fingerprint(images: list[Auxiliary], config: Config) -> None:
    assert fingerprint_of(images, config, CPU) != fingerprint_of(images, TINY, CPU)


@pytest.mark.parametrize(
    "config",
    [
        other(TINY, "network", covariates=("age", "sex")),
        other(TINY, "network", dropout=0.4),
        other(TINY, "preparation", second_look_at="box"),
        other(TINY, "training", seed=5),
        other(TINY, "training", epochs=9, folds=5, lesion_weight=2.0),
    ],
)
def test_what_only_folds_and_prediction_are_told_gives_the_same_fingerprint_and_the_same_weights(
    images: list[Auxiliary], config: Config
) -> None:
    assert fingerprint_of(images, config, CPU) == fingerprint_of(images, TINY, CPU)
    first = learnt_from(images)
    watcher = Epochs()
    assert learnt_from(images, config, watcher=watcher) == first
    assert watcher.done == []


MOVED = (Lesion(box=(20, 20, 50, 51)),)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, kind="another kind"),
        lambda one: replace(one, kind=None),
        lambda one: replace(one, site="another site"),
        lambda one: replace(one, image=replace(one.image, view=None)),
        lambda one: replace(one, image=replace(one.image, pixel_sha256="0" * 64)),
        lambda one: replace(one, image=replace(one.image, lesions=MOVED)),
        lambda one: replace(one, image=replace(one.image, lesions=())),
    ],
)
def test_another_picture_or_answer_gives_another_fingerprint(
    images: list[Auxiliary], change: Callable[[Auxiliary], Auxiliary]
) -> None:
    changed = [*images[:3], change(images[3]), *images[4:]]
    assert fingerprint_of(changed, TINY, CPU) != fingerprint_of(images, TINY, CPU)


def test_fewer_images_or_another_order_give_another_fingerprint_and_another_folder_does_not(
    images: list[Auxiliary],
) -> None:
    usual = fingerprint_of(images, TINY, CPU)
    assert fingerprint_of(images[:-1], TINY, CPU) != usual
    assert fingerprint_of(images[::-1], TINY, CPU) != usual
    moved = [replace(one, image=replace(one.image, path=Path("/elsewhere") / one.image.image)) for one in images]
    assert fingerprint_of(moved, TINY, CPU) == usual


@pytest.mark.parametrize(
    "device",
    [
        replace(CPU, threads=2),
        replace(CPU, precision="bf16-mixed"),
        replace(CPU, name="another"),
        replace(CPU, kind="cuda"),
    ],
)
def test_another_device_gives_another_fingerprint(images: list[Auxiliary], device: Device) -> None:
    assert fingerprint_of(images, TINY, device) != fingerprint_of(images, TINY, CPU)


# Images of which less is known.


def test_what_is_rare_is_not_asked_for(images: list[Auxiliary]) -> None:
    assert FEWEST == 8
    known = [
        *(replace(one, kind="cyst", site="femur+tibia") for one in images[:7]),
        *(replace(one, kind="chondroma", site="femur") for one in images[7:15]),
        replace(images[15], kind=None, site=None, image=replace(images[15].image, view="oblique")),
    ]
    learnt = learnt_from(known)
    assert learnt.kinds == {"chondroma": 8}
    # Each site of an image with two of them counts: 7 and 8, and 7.
    assert learnt.sites == {"femur": 15}
    # Of the first 15 every other pair is lateral: 2, 3, 6, 7, 10, 11, 14.
    assert learnt.views == {"frontal": 8}
    assert all(record["loss"] > 0 for record in learnt.history)


def test_of_an_image_of_several_kinds_or_views_no_one_is_asked_for(images: list[Auxiliary]) -> None:
    several = [
        replace(one, kind="cyst; chondroma", image=replace(one.image, view="frontal+lateral")) for one in images[:8]
    ]
    single = [replace(one, kind="chondroma", image=replace(one.image, view="frontal")) for one in images[8:]]
    learnt = learnt_from([*several, *single])
    assert (learnt.kinds, learnt.views) == ({"chondroma": 8}, {"frontal": 8})


def test_an_image_whose_site_is_not_known_is_not_taken_for_one_of_another_site(images: list[Auxiliary]) -> None:
    known = [replace(only(one), site="femur") for one in images[:8]] + [only(one) for one in images[8:]]
    learnt = learnt_from(known, other(TINY, "auxiliary", looks=480, batch_size=4, learning_rate=1e-2))
    assert learnt.sites == {"femur": 8}
    # All that is known is femur. Were the others something else, guessing would cost ln 2, and sites weigh double.
    assert sum(record["loss"] for record in learnt.history[-5:]) / 5 < 0.1 * 2 * log(2)


@pytest.mark.parametrize("number", [16, 1])
def test_images_of_which_nothing_is_known_teach_nothing_and_do_no_harm(images: list[Auxiliary], number: int) -> None:
    learnt = learnt_from([only(one) for one in images[:number]], other(TINY, "preparation", size=64))
    assert (learnt.kinds, learnt.sites, learnt.views) == ({}, {}, {})
    assert all(record["loss"] == 0 for record in learnt.history)
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(learnt.folder / "weights.safetensors").values())


@pytest.mark.parametrize("kept", ["kind", "site", "view", "lesions"])
def test_each_answer_by_itself_is_enough(images: list[Auxiliary], kept: str) -> None:
    learnt = learnt_from([only(one, kept) for one in images], other(TINY, "auxiliary", looks=16))
    (record,) = learnt.history
    assert record["loss"] > 0.01


# Where it is kept, and who else is at it.


def test_where_the_cache_cannot_be_written_it_is_kept_in_the_runs_folder(
    images: list[Auxiliary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = weights_of(learnt_from(images))
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "file"))
    learnt = learnt_from(images, fallback=tmp_path / "run" / "auxiliary")
    assert learnt.folder == tmp_path / "run" / "auxiliary"
    assert weights_of(learnt) == elsewhere
    watcher = Epochs()
    assert learnt_from(images, fallback=tmp_path / "run" / "auxiliary", watcher=watcher) == learnt
    assert watcher.done == []
    with pytest.raises(StorageError, match="could not be written"):
        learnt_from(images, fallback=tmp_path / "file" / "auxiliary")


def test_what_another_process_is_at_is_left_to_it(images: list[Auxiliary], cache: Path) -> None:
    folder = cache / "auxiliary" / fingerprint_of(images, TINY, CPU)
    folder.mkdir(parents=True)
    with (
        FileLock(folder / ".lock"),
        pytest.raises(RunError, match=r"another process is learning from the same auxiliary images.*wait for it"),
    ):
        learnt_from(images)
    assert learnt_from(images).folder == folder


# Learns in a process of its own, and waits after the 6th epoch until it is killed.
DRIVER = """
import sys, time
from pathlib import Path

sys.path[:0] = sys.argv[1:2]
from samples import Silent, auxiliary_images
from osteoscope.config import read_config
from osteoscope.training.auxiliary import learn
from osteoscope.training.device import Device, deterministic

pictures, config, fallback = map(Path, sys.argv[2:])

def wait(*, epoch, epochs, loss):
    if epoch == 6:
        print("six", flush=True)
        time.sleep(600)

device = Device(kind="cpu", name="cpu", precision="32-true", threads=1)
with deterministic(1):
    learn(auxiliary_images(pictures), read_config(config), fallback=fallback, device=device, watcher=wait)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_while_one_process_learns_another_is_refused_and_when_it_is_killed_the_next_goes_on_to_the_same_bytes(
    images: list[Auxiliary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = learnt_from(images)
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "disturbed"))
    (tmp_path / "config.toml").write_text(TINY.to_toml())
    command: list[str | Path] = [sys.executable, "-c", DRIVER, Path(__file__).parents[1], tmp_path / "pictures"]
    with subprocess.Popen([*command, tmp_path / "config.toml", tmp_path], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "six\n"
        with pytest.raises(RunError, match="another process is learning"):
            learnt_from(images)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "disturbed" / "auxiliary").iterdir()
    assert not (folder / "learnt.json").exists()
    watcher = Epochs()
    resumed = learnt_from(images, watcher=watcher)
    assert watcher.done == [6, 7]
    assert resumed.folder == folder
    assert weights_of(resumed) == weights_of(undisturbed)
    assert [record["loss"] for record in resumed.history] == [record["loss"] for record in undisturbed.history]


# What the folds make of it.


def test_every_fold_starts_from_what_was_learnt_and_is_given_no_patient_that_it_tests(
    images: list[Auxiliary], cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt = learnt_from(images)
    expected = load_file(learnt.folder / "weights.safetensors")
    cases = cases_of(read_cohort(cohort_folder))
    folds = make_folds(cases, folds=2, repeats=1, seed=0, classes=("a", "b"))
    begun: list[dict[str, Tensor]] = []
    shown: list[set[str]] = []

    class EnoughError(Exception):
        """Enough has been seen."""

    def look(network: TumourNetwork, plan: FitPlan, **_: object) -> None:
        begun.append({name: tensor.clone() for name, tensor in network.encoder.state_dict().items()})
        shown.append({cases[place].patient for place in plan.cases})
        raise EnoughError

    monkeypatch.setattr(fold, "fit", look)
    for start in (learnt, None):
        work = Work(cases=cases, config=TINY, device=CPU, start=start)
        with pytest.raises(EnoughError):
            run_folds(work, folds, folder=tmp_path / "run", watcher=Silent())
    taught, fresh = begun
    assert set(taught) == set(expected)
    assert all(torch.equal(taught[name], expected[name]) for name in expected)
    assert not torch.equal(fresh["trunk.stem.0.weight"], expected["trunk.stem.0.weight"])
    # The first of two folds tests half of 24 patients, 6 of each class.
    tested = set(folds.test_patients(0, 0))
    assert all(len(patients) == 12 and patients.isdisjoint(tested) for patients in shown)


def test_what_was_learnt_is_the_average_over_the_steps_and_not_the_last(images: list[Auxiliary]) -> None:
    def taught(averaging: float) -> Tensor:
        encoder = PlaneEncoder(TINY.network, in_channels=1)
        settings = other(TINY, "auxiliary", looks=48, batch_size=16, averaging=averaging)
        learnt_from(images, settings).teach(encoder)
        return encoder.get_parameter("trunk.stem.0.weight").detach()

    # Three steps, and the last at a rate of 0: with a decay of d the average is d * d of the way back from the last
    # weights to those after the first step.
    last, half, three_quarters = map(taught, (0.0, 0.5, 0.75))
    back = (last - half) / 0.25
    assert back.abs().max() > 1e-4
    torch.testing.assert_close((last - three_quarters) / 0.5625, back, atol=2e-6, rtol=1e-3)
