"""Weights that were learned elsewhere (ImageNet, RadImageNet), from a local file into the trunk. No pickle is read.

The same DenseNet is spelled in several ways. The first norm of its first dense layer is called, in each dialect::

    torchvision        features.denseblock1.denselayer1.norm1.weight
    torchvision-old    features.denseblock1.denselayer1.norm.1.weight          the files that torchvision offers
    monai              features.denseblock1.denselayer1.layers.norm1.weight
    radimagenet        backbone.0.denseblock1.denselayer1.norm1.weight         BMEII-AI/RadImageNet, DenseNet121.pt

Whatever stands before that (``module.``, ``model.``, a dictionary called ``state_dict``) is wrapping.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from safetensors.torch import load_file

from osteoscope.errors import ConfigError, InputError
from osteoscope.network.trunk import PLANS
from osteoscope.storage import sha256_of_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from torch import Tensor

    from osteoscope.network.classifier import PlaneEncoder
    from osteoscope.network.trunk import DenseTrunk

Dialect = Literal["torchvision", "torchvision-old", "monai", "radimagenet"]

# What the module of all features is called, and how a norm or convolution of a dense layer is written.
_SPELLINGS: dict[Dialect, tuple[str, str]] = {
    "torchvision": ("features", r"\1\2"),
    "torchvision-old": ("features", r"\1.\2"),
    "monai": ("features", r"layers.\1\2"),
    "radimagenet": ("backbone.0", r"\1\2"),
}
_NUMBERED = {"blocks": "denseblock", "transitions": "transition"}
_IN_LAYER = re.compile(r"\blayers\.(norm|conv)([12])\b")
_FIRST_NORM = "blocks.0.denselayer1.layers.norm1.weight"
_STEM = "stem.0.weight"
_COUNTER = "num_batches_tracked"

_KINDS_READ = "give a state dict of torchvision's, MONAI's or RadImageNet's DenseNet, as .safetensors, .pt or .pth"
_SAVE_ANEW = "fetch it again if it is damaged; if it holds a whole model, save its state_dict() alone as .safetensors"


class Start(Protocol):
    """What training starts from instead of random weights."""

    def teach(self, encoder: PlaneEncoder) -> None:
        """Give an encoder what is known already."""


@dataclass(frozen=True, kw_only=True)
class LocalWeights:
    """A local file of DenseNet weights as a `Start`."""

    path: Path

    def teach(self, encoder: PlaneEncoder) -> None:
        """Fill the encoder's trunk; errors are those of `load_pretrained`."""
        load_pretrained(encoder.trunk, self.path)


@dataclass(frozen=True, kw_only=True)
class LoadedWeights:
    """What was taken from a file of weights."""

    sha256: str
    """Hash of the file, as 64 hexadecimal digits."""
    dialect: Dialect
    """How the file spells its keys."""
    taken: int
    """How many tensors of the trunk were filled."""
    unused: tuple[str, ...]
    """Keys of the file's other tensors, sorted: its classifier, its last norm, blocks that a truncated trunk lacks."""


def load_pretrained(trunk: DenseTrunk, path: Path) -> LoadedWeights:
    """Copy the convolutions and norms of a DenseNet from a local file; all of the trunk is filled, or nothing.

    The first convolution is fitted to the trunk's n channels: it is copied if the file's has as many, and otherwise
    each channel gets the sum over the file's, divided by n. So n equal channels give what the file's network gives
    for the same picture repeated in its own channels. (ImageNet's networks learned with each colour standardised by
    its own mean and deviation, which one grey channel cannot repeat; what that changes is left to training.)

    Parameters
    ----------
    trunk
        Filled in place. A truncated trunk takes the layers that it has, of a deeper DenseNet too.
    path
        A ``.safetensors`` file, or a ``.pt`` or ``.pth`` file that holds nothing but tensors in plain containers.

    Raises
    ------
    InputError
        If the file is missing, empty, damaged, of another kind or holds Python objects, if it does not hold exactly
        one DenseNet, or if a value is not finite.
    ConfigError
        If a tensor that the trunk needs is not in the file, or is of another shape or type.
    """
    tensors, sha256 = _read(path)
    dialect, wrapping = _recognise(tensors, path)
    filled: dict[str, Tensor] = {}
    used = set()
    for name, own in trunk.state_dict().items():
        key = wrapping + _spell(name, dialect)
        if key not in tensors and name.endswith(_COUNTER):
            continue
        misfit = _misfit(name, own, tensors.get(key))
        if misfit is not None:
            raise ConfigError(f"{key}: {misfit}", path=path, remedy=_remedy(trunk, tensors))
        filled[name] = _fitted(own, tensors[key])
        if not filled[name].isfinite().all():
            raise InputError(f"{key}: holds values that are not finite", path=path, remedy="give another file")
        used.add(key)
    # What is not in `filled` are counters of batches, which only matter to norms without momentum.
    trunk.load_state_dict(filled, strict=False)
    return LoadedWeights(sha256=sha256, dialect=dialect, taken=len(filled), unused=tuple(sorted(tensors.keys() - used)))


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read all tensors of a file by name, and hash it."""
    if path.suffix.lower() not in {".safetensors", ".pt", ".pth"}:
        raise InputError("has not the name of a file of weights", path=path, remedy=_KINDS_READ)
    if not path.is_file():
        raise InputError("there is no such file of weights", path=path, remedy="check the path")
    if path.stat().st_size == 0:
        raise InputError("is empty", path=path, remedy="fetch it again")
    try:
        if path.suffix.lower() == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        return dict(_tensors(content)), sha256_of_file(path)
    # On bytes that are not its own, torch raises nearly anything: RuntimeError, EOFError, KeyError and more.
    except Exception as error:
        # torch's own text advises to switch its protection off, so only the name is taken from it.
        found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        fault = (
            f"holds a Python object ({found[1]}) beside its tensors, and reading that could run code"
            if found
            else f"cannot be read as weights ({type(error).__name__})"
        )
        raise InputError(fault, path=path, remedy=_SAVE_ANEW) from error


def _tensors(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Walk through nested dictionaries; the keys on the way to a tensor are joined by dots."""
    if isinstance(content, torch.Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def _recognise(keys: Iterable[str], path: Path) -> tuple[Dialect, str]:
    """Find the dialect, and what stands before the names of the one DenseNet in a file."""
    found = [
        (dialect, key.removesuffix(end))
        for dialect in _SPELLINGS
        for end in (_spell(_FIRST_NORM, dialect),)
        for key in keys
        if f".{key}".endswith(f".{end}")
    ]
    if not found:
        some = ", ".join(list(keys)[:3]) or "none"
        raise InputError(f"no DenseNet is recognised by its keys, found {some}", path=path, remedy=_KINDS_READ)
    if len(found) > 1:
        wrappings = ", ".join(repr(wrapping) for _, wrapping in found)
        raise InputError(f"holds {len(found)} DenseNets, under {wrappings}", path=path, remedy="save one of them alone")
    return found[0]


def _spell(name: str, dialect: Dialect) -> str:
    """Spell the name of one of the trunk's tensors as a dialect does, without wrapping."""
    features, in_layer = _SPELLINGS[dialect]
    part, number, rest = name.split(".", maxsplit=2)
    module = ("conv0", "norm0")[int(number)] if part == "stem" else f"{_NUMBERED[part]}{int(number) + 1}"
    return f"{features}.{module}.{_IN_LAYER.sub(in_layer, rest)}"


def _misfit(name: str, own: Tensor, found: Tensor | None) -> str | None:
    """Say what is wrong with the file's tensor for one of the trunk's, if anything."""
    expected: tuple[int | str, ...] = tuple(own.shape)
    if name == _STEM:
        expected = (expected[0], "any", *expected[2:])
    wanted = f"expected shape ({', '.join(map(str, expected))})"
    if found is None:
        return f"{wanted}, found no such key"
    fits = len(found.shape) == len(expected) and all(
        side in {size, "any"} for side, size in zip(expected, found.shape, strict=True)
    )
    if not fits:
        return f"{wanted}, found ({', '.join(map(str, found.shape))})"
    if own.is_floating_point() and not found.is_floating_point():
        return f"expected floating-point numbers, found {found.dtype}"
    return None


def _fitted(own: Tensor, found: Tensor) -> Tensor:
    """Bring the file's tensor to the trunk's type and, for the first convolution, to its channels."""
    found = found.to(own.dtype)
    if found.shape == own.shape:
        return found
    return (found.sum(dim=1, keepdim=True) / own.shape[1]).expand_as(own)


def _remedy(trunk: DenseTrunk, keys: Iterable[str]) -> str:
    """Say what to do about weights that do not fit: choose the other depth, or another file."""
    layers = {found.groups() for key in keys if (found := re.search(r"denseblock(\d+)\.denselayer(\d+)\.", key))}
    counts = Counter(int(block) for block, _ in layers)
    of_file = tuple(counts[block] for block in sorted(counts))
    of_trunk = tuple(sum(1 for _ in block.children()) for block in trunk.blocks)
    if of_file[: len(of_trunk)] == of_trunk:
        return "the depth is right, so the file was changed or cut; give the original file"
    return (
        f"the file holds {_named(of_file)} but the trunk is {_named(of_trunk)}; change the trunk or give another file"
    )


def _named(blocks: tuple[int, ...]) -> str:
    """Name a DenseNet by the layers of its blocks."""
    names: dict[tuple[int, ...], str] = {plan.blocks: name for name, plan in PLANS.items()}
    return names.get(blocks, f"a DenseNet of {'-'.join(map(str, blocks))} layers")
