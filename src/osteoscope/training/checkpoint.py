"""The state of a fit on disk, so that one that was killed goes on and ends with the same bytes.

A checkpoint is a folder ``checkpoint-EPOCH`` that appears whole, by one rename; the one before is removed only then.
Random numbers need no state of their own: each epoch seeds its generators from (seed, fold, epoch).
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save

from osteoscope.errors import RunError
from osteoscope.storage import sha256_of_file, storage_error, write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from torch.optim import Optimizer

_PREFIX = "checkpoint-"
_STATE = "state.json"


def save_checkpoint(
    folder: Path, *, epoch: int, modules: dict[str, nn.Module], optimiser: Optimizer, history: list[dict[str, Any]]
) -> None:
    """Write the state after `epoch` and remove the older ones.

    Parameters
    ----------
    folder
        The fold's folder.
    epoch
        How many epochs are done.
    modules
        Networks by the name of their file.
    optimiser
        Its moments and step counts are written; its settings come from the configuration.
    history
        One record for each epoch done.

    Raises
    ------
    StorageError
        If the operating system refuses; the checkpoint before stays.
    """
    target = folder / f"{_PREFIX}{epoch:05d}"
    beside = folder / f".{target.name}.tmp"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name, module in modules.items():
            (beside / f"{name}.safetensors").write_bytes(save(_contiguous(module.state_dict())))
        (beside / "optimiser.safetensors").write_bytes(save(_contiguous(_optimiser_tensors(optimiser))))
        hashes = {path.name: sha256_of_file(path) for path in sorted(beside.iterdir())}
        state = {"epoch": epoch, "history": history, "sha256": hashes}
        (beside / _STATE).write_text(json.dumps(state), encoding="utf-8")
        # What is left of one that was being removed when the process was killed would be in the way.
        shutil.rmtree(target, ignore_errors=True)
        beside.replace(target)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise storage_error(error, target) from error
    for other in folder.glob(f"{_PREFIX}*"):
        if other != target:
            shutil.rmtree(other, ignore_errors=True)


def load_checkpoint(
    folder: Path, *, modules: dict[str, nn.Module], optimiser: Optimizer
) -> tuple[int, list[dict[str, Any]]]:
    """Take up the newest state there is.

    Returns
    -------
    tuple
        How many epochs are done, 0 without a checkpoint, and their records.

    Raises
    ------
    RunError
        If a file of the checkpoint has changed since it was written.
    """
    found = _checkpoints(folder)
    if not found:
        return 0, []
    newest = found[-1]
    remedy = f"delete {newest} to fit anew"
    try:
        state = json.loads((newest / _STATE).read_text(encoding="utf-8"))
        hashes = dict(state["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError("cannot be read", path=newest / _STATE, remedy=remedy) from error
    for name, expected in hashes.items():
        if not (newest / name).is_file() or sha256_of_file(newest / name) != expected:
            raise RunError("is not what was written (SHA-256 differs)", path=newest / name, remedy=remedy)
    for name, module in modules.items():
        module.load_state_dict(load_file(newest / f"{name}.safetensors"))
    _load_optimiser(optimiser, load_file(newest / "optimiser.safetensors"))
    return int(state["epoch"]), list(state["history"])


def remove_checkpoints(folder: Path) -> None:
    """Remove what only an unfinished fold needs."""
    for path in (*folder.glob(f"{_PREFIX}*"), *folder.glob(f".{_PREFIX}*.tmp")):
        shutil.rmtree(path, ignore_errors=True)


def save_weights(network: nn.Module, path: Path) -> None:
    """Write a network's weights whole or not at all, as safetensors.

    Raises
    ------
    StorageError
        If the operating system refuses.
    """
    write_bytes(path, save(_contiguous(network.state_dict())))


def _checkpoints(folder: Path) -> list[Path]:
    """Find whole checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / _STATE).is_file())


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring tensors to the CPU in row-major order, each in memory of its own, as safetensors asks."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    return {
        f"{place}.{name}": tensor
        for place, moments in optimiser.state_dict()["state"].items()
        for name, tensor in moments.items()
    }


def _load_optimiser(optimiser: Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        place, name = key.split(".", maxsplit=1)
        state.setdefault(int(place), {})[name] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    # In the order in memory that the weights have, which a fused step takes for granted.
    for weights, moments in optimiser.state.items():
        for name, tensor in moments.items():
            if tensor.shape == weights.shape:
                moments[name] = torch.empty_like(weights, dtype=tensor.dtype).copy_(tensor)
