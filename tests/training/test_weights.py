"""Weights from elsewhere: the trunk says what their own network says, or is left as it was."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
import torch
from monai.networks.nets.densenet import DenseNet121
from safetensors.torch import save_file
from torch.nn import functional as F  # noqa: N812  torch's own name for it

from osteoscope.errors import ConfigError, InputError, OsteoscopeError
from osteoscope.network.trunk import DenseTrunk
from osteoscope.training.weights import load_pretrained

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from osteoscope.config import Trunk

TINY = (2, 2, 2, 2)
DENSENET121 = (6, 12, 24, 16)
DENSENET169 = (6, 12, 32, 32)


def torchvision_weights(
    blocks: tuple[int, ...] = TINY, *, growth: int = 8, stem: int = 16, channels: int = 3
) -> dict[str, Tensor]:
    """Write a DenseNet's state out by hand, keyed and shaped as torchvision's (Huang et al. 2017, table 1)."""
    generator = torch.Generator().manual_seed(3)
    state: dict[str, Tensor] = {}

    def convolution(name: str, outputs: int, inputs: int, side: int) -> None:
        scale = (2 / (inputs * side * side)) ** 0.5
        state[f"{name}.weight"] = torch.randn(outputs, inputs, side, side, generator=generator) * scale

    def norm(name: str, size: int) -> None:
        state[f"{name}.weight"] = torch.rand(size, generator=generator) + 0.5
        state[f"{name}.bias"] = torch.randn(size, generator=generator) * 0.1
        state[f"{name}.running_mean"] = torch.randn(size, generator=generator) * 0.1
        state[f"{name}.running_var"] = torch.rand(size, generator=generator) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(41)

    convolution("features.conv0", stem, channels, 7)
    norm("features.norm0", stem)
    width = stem
    for block, layers in enumerate(blocks, start=1):
        for layer in range(1, layers + 1):
            place = f"features.denseblock{block}.denselayer{layer}"
            norm(f"{place}.norm1", width)
            convolution(f"{place}.conv1", 4 * growth, width, 1)
            norm(f"{place}.norm2", 4 * growth)
            convolution(f"{place}.conv2", growth, 4 * growth, 3)
            width += growth
        if block < len(blocks):
            norm(f"features.transition{block}.norm", width)
            convolution(f"features.transition{block}.conv", width // 2, width, 1)
            width //= 2
    norm("features.norm5", width)
    state["classifier.weight"] = torch.randn(10, width, generator=generator)
    state["classifier.bias"] = torch.zeros(10)
    return state


def plain_taps(state: dict[str, Tensor], pictures: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
    """Run torchvision-keyed weights through a DenseNet written out plainly: the output of blocks 2, 3, …"""

    def activated(x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            state[f"features.{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, variance, weight, bias))

    def convolved(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, state[f"features.{name}.weight"], stride=stride, padding=padding)

    x = activated(convolved(pictures, "conv0", stride=2, padding=3), "norm0")
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    taps = []
    for block, layers in enumerate(blocks, start=1):
        for layer in range(1, layers + 1):
            place = f"denseblock{block}.denselayer{layer}"
            new = convolved(activated(x, f"{place}.norm1"), f"{place}.conv1")
            new = convolved(activated(new, f"{place}.norm2"), f"{place}.conv2", padding=1)
            x = torch.cat([x, new], dim=1)
        taps.append(x)
        if block < len(blocks):
            x = F.avg_pool2d(convolved(activated(x, f"transition{block}.norm"), f"transition{block}.conv"), 2)
    return taps[1:]


def grey(channels: int) -> Tensor:
    """Two grey pictures, repeated in some channels."""
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(8)).expand(-1, channels, -1, -1)


def assert_same_taps(trunk: DenseTrunk, channels: int, expected: list[Tensor]) -> None:
    with torch.no_grad():
        found = trunk.eval()(grey(channels))
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def renamed(state: dict[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    return {rename(key): value for key, value in state.items()}


def as_old(key: str) -> str:
    for part in ("norm1", "norm2", "conv1", "conv2"):
        key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
    return key


def as_monai(key: str) -> str:
    for part in ("norm1", "norm2", "conv1", "conv2"):
        key = key.replace(f".{part}.", f".layers.{part}.")
    return key.replace("classifier.", "class_layers.out.")


def as_radimagenet(key: str) -> str:
    return key.replace("features.", "backbone.0.", 1)


def as_written(key: str) -> str:
    return key


DIALECTS = {
    "torchvision": as_written,
    "torchvision-old": as_old,
    "monai": as_monai,
    "radimagenet": as_radimagenet,
}
WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], dict[str, Any]]] = {
    "bare": dict,
    "module.": lambda state: renamed(state, lambda key: f"module.{key}"),
    "model.": lambda state: renamed(state, lambda key: f"model.{key}"),
    "state_dict": lambda state: {"epoch": 7, "state_dict": state},
    "all": lambda state: {"state_dict": renamed(state, lambda key: f"module.model.{key}"), "rate": [0.1]},
}


def written(content: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_gives_what_its_own_network_gives(dialect: str, wrapping: str, tmp_path: Path) -> None:
    state = torchvision_weights()
    path = written(WRAPPINGS[wrapping](renamed(state, DIALECTS[dialect])), tmp_path / "weights.pth")
    trunk = DenseTrunk("densenet-tiny", in_channels=1)
    loaded = load_pretrained(trunk, path)
    assert_same_taps(trunk, 1, plain_taps(state, grey(3), TINY))
    assert loaded.dialect == dialect
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    # Norms: stem, 8 layers of two, 3 transitions, of 5 tensors each; convolutions: as many.
    assert loaded.taken == 20 * 5 + 20
    # The last norm's five and the classifier's two.
    assert len(loaded.unused) == 7
    assert loaded.unused == tuple(sorted(loaded.unused))
    assert trunk.get_buffer("stem.1.num_batches_tracked").item() == 41


@pytest.mark.parametrize(
    ("trunk", "blocks", "total", "taken"),
    [
        # torchvision's densenet121 has 727 tensors, of which 5 are the last norm's and 2 the classifier's.
        ("densenet121", DENSENET121, 727, 720),
        # 1 + 2 * (6 + 12 + 24) + 2 norms of 5 tensors, and as many convolutions.
        ("densenet121-truncated", DENSENET121, 727, 87 * 6),
        # A dense block appends, so the first 24 layers of 32 give the first channels of what all give.
        ("densenet121-truncated", DENSENET169, 1015, 87 * 6),
    ],
    ids=["whole", "truncated", "truncated-from-deeper"],
)
def test_whole_and_truncated_trunks_are_filled(
    trunk: Trunk, blocks: tuple[int, ...], total: int, taken: int, tmp_path: Path
) -> None:
    state = torchvision_weights(blocks, growth=32, stem=64)
    assert len(state) == total
    filled = DenseTrunk(trunk, in_channels=1)
    loaded = load_pretrained(filled, written(state, tmp_path / "weights.safetensors"))
    assert (loaded.taken, len(loaded.unused)) == (taken, total - taken)
    taps = plain_taps(state, grey(3), blocks)
    expected = [tap[:, :channels] for tap, channels in zip(taps, filled.tap_channels, strict=False)]
    assert_same_taps(filled, 1, expected)


def test_monais_own_network_gives_its_features(tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = DenseNet121(spatial_dims=2, in_channels=3, out_channels=4).eval()
    trunk = DenseTrunk("densenet121", in_channels=1)
    loaded = load_pretrained(trunk, written(network.state_dict(), tmp_path / "weights.pt"))
    assert loaded.dialect == "monai"
    with torch.no_grad():
        found = network.get_submodule("features.norm5")(trunk.eval()(grey(1))[-1])
        expected = network.get_submodule("features")(grey(3))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("of_file", "of_trunk"), [(3, 1), (3, 2), (3, 5), (1, 1), (1, 3)])
def test_equal_channels_give_what_the_grey_picture_gives(of_file: int, of_trunk: int, tmp_path: Path) -> None:
    state = torchvision_weights(channels=of_file)
    trunk = DenseTrunk("densenet-tiny", in_channels=of_trunk)
    load_pretrained(trunk, written(state, tmp_path / "weights.pt"))
    assert_same_taps(trunk, of_trunk, plain_taps(state, grey(of_file), TINY))


def test_as_many_channels_are_copied_as_they_are(tmp_path: Path) -> None:
    state = torchvision_weights()
    trunk = DenseTrunk("densenet-tiny", in_channels=3)
    load_pretrained(trunk, written(state, tmp_path / "weights.pt"))
    assert torch.equal(trunk.get_parameter("stem.0.weight"), state["features.conv0.weight"])


def test_files_of_old_torch_lack_counters_and_are_read(tmp_path: Path) -> None:
    state = {key: value for key, value in torchvision_weights().items() if "num_batches" not in key}
    path = tmp_path / "weights.pth"
    torch.save(renamed(state, as_old), path, _use_new_zipfile_serialization=False)
    trunk = DenseTrunk("densenet-tiny", in_channels=1)
    assert load_pretrained(trunk, path).taken == 20 * 4 + 20
    assert_same_taps(trunk, 1, plain_taps(state, grey(3), TINY))
    assert trunk.get_buffer("stem.1.num_batches_tracked").item() == 0


def test_half_precision_is_read_into_the_trunks_own(tmp_path: Path) -> None:
    half = {key: value.half() for key, value in torchvision_weights().items()}
    trunk = DenseTrunk("densenet-tiny", in_channels=1)
    load_pretrained(trunk, written(half, tmp_path / "weights.safetensors"))
    assert_same_taps(trunk, 1, plain_taps({key: value.float() for key, value in half.items()}, grey(3), TINY))


def refusal(path: Path, trunk: Trunk = "densenet-tiny") -> OsteoscopeError:
    """Have a file refused, see that the trunk was left alone, and give the fault."""
    network = DenseTrunk(trunk, in_channels=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(OsteoscopeError) as caught:
        load_pretrained(network, path)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("of_file", "trunk", "first", "names"),
    [
        # 64 + 6*32 = 256, then 128 + 12*32 = 512, then 256 + 24, 32 or 36 * 32 = 1024, 1280 or 1408, and half of that.
        (
            DENSENET169,
            "densenet121",
            "features.denseblock4.denselayer1.norm1.weight: expected shape (512), found (640)",
            "the file holds densenet169 but the trunk is densenet121",
        ),
        (
            DENSENET121,
            "densenet169",
            "features.denseblock3.denselayer25.norm1.weight: expected shape (1024), found no such key",
            "the file holds densenet121 but the trunk is densenet169",
        ),
        (
            (6, 12, 36, 24),
            "densenet121",
            "features.denseblock4.denselayer1.norm1.weight: expected shape (512), found (704)",
            "the file holds a DenseNet of 6-12-36-24 layers but the trunk is densenet121",
        ),
    ],
    ids=["deeper", "shallower", "unknown"],
)
def test_another_depth_is_named(of_file: tuple[int, ...], trunk: Trunk, first: str, names: str, tmp_path: Path) -> None:
    path = written(torchvision_weights(of_file, growth=32, stem=64), tmp_path / "weights.safetensors")
    fault = refusal(path, trunk)
    assert isinstance(fault, ConfigError)
    assert first in str(fault)
    assert names in str(fault)


LATE = "features.denseblock4.denselayer2.conv2.weight"


@pytest.mark.parametrize(
    ("key", "value", "fault", "word"),
    [
        (LATE, None, ConfigError, "expected shape (8, 32, 3, 3), found no such key"),
        (LATE, torch.zeros(8, 32, 1, 1), ConfigError, "expected shape (8, 32, 3, 3), found (8, 32, 1, 1)"),
        (LATE, torch.zeros(8, 32, 3, 3, dtype=torch.int8), ConfigError, "floating-point numbers, found torch.int8"),
        ("features.conv0.weight", torch.zeros(16, 3, 3, 3), ConfigError, "(16, any, 7, 7), found (16, 3, 3, 3)"),
        ("features.conv0.weight", torch.zeros(16), ConfigError, "(16, any, 7, 7), found (16)"),
        (LATE, torch.full((8, 32, 3, 3), torch.nan), InputError, "not finite"),
        (LATE, torch.full((8, 32, 3, 3), 1e300, dtype=torch.float64), InputError, "not finite"),
    ],
    ids=["missing", "shape", "type", "stem", "flat-stem", "nan", "too-large"],
)
def test_one_tensor_that_does_not_fit_is_named_and_nothing_is_taken(
    key: str, value: Tensor | None, fault: type[OsteoscopeError], word: str, tmp_path: Path
) -> None:
    state = torchvision_weights()
    del state[key]
    if value is not None:
        state[key] = value
    caught = refusal(written(renamed(state, as_radimagenet), tmp_path / "weights.pt"))
    assert isinstance(caught, fault)
    assert as_radimagenet(key) in str(caught)
    assert word in str(caught)
    assert "the trunk is" not in str(caught)


def test_a_truncated_trunk_says_the_depth_is_right_where_it_is(tmp_path: Path) -> None:
    state = torchvision_weights(DENSENET121, growth=32, stem=64)
    del state["features.denseblock3.denselayer9.norm2.bias"]
    caught = refusal(written(state, tmp_path / "weights.safetensors"), "densenet121-truncated")
    assert "denselayer9.norm2.bias: expected shape (128), found no such key (the depth is right" in str(caught)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_files_that_are_none_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    assert "no such file" in str(refusal(path))
    path.write_bytes(b"")
    assert "is empty" in str(refusal(path))
    for content in (b"<!DOCTYPE html>" * 99, b"hello, this is no network" * 99):
        path.write_bytes(content)
        assert "cannot be read as weights" in str(refusal(path))
    written(torchvision_weights(), path)
    path.write_bytes(path.read_bytes()[:-5000])
    assert "cannot be read as weights" in str(refusal(path))
    written({"layer1.0.conv1.weight": torch.zeros(3)}, path)
    assert "no DenseNet is recognised by its keys, found layer1.0.conv1.weight" in str(refusal(path))
    written({}, path)
    assert "found none" in str(refusal(path))


def test_a_file_of_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "RadImageNet-DenseNet121_notop.h5"
    path.write_bytes(b"\x89HDF")
    assert ".safetensors, .pt or .pth" in str(refusal(path))


def test_a_file_with_python_objects_is_refused_and_never_run(tmp_path: Path) -> None:
    path = written({"state_dict": torchvision_weights(), "rate": Fraction(1, 2)}, tmp_path / "weights.pt")
    caught = refusal(path)
    assert "Python object (fractions.Fraction)" in str(caught)
    assert "save its state_dict() alone as .safetensors" in str(caught)
    # torch's advice to switch the protection off must not reach the operator.
    assert "weights_only" not in str(caught)
    torch.save(DenseNet121(spatial_dims=2, in_channels=3, out_channels=1), path)
    assert "Python object (monai." in str(refusal(path))


def test_two_networks_in_a_file_are_not_chosen_between(tmp_path: Path) -> None:
    state = torchvision_weights()
    both = {"student": state, "teacher": renamed(state, as_monai)}
    assert "holds 2 DenseNets, under 'student.', 'teacher.'" in str(refusal(written(both, tmp_path / "weights.pt")))
