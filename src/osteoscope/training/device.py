"""Device, precision and determinism of a run."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning_fabric import Fabric

if TYPE_CHECKING:
    from collections.abc import Iterator

Precision = Literal["32-true", "bf16-mixed"]

# A DenseNet-121 takes some thousand for each number of planes.
_KERNELS_KEPT = 65_536


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a run computes on; part of its identity."""

    kind: str
    """``cpu`` or ``cuda``."""
    name: str
    precision: Precision
    threads: int

    def fabric(self) -> Fabric:
        """Set Lightning Fabric up for it."""
        # What it would note of the precision, the run's own file says.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        return Fabric(accelerator=self.kind, devices=1, precision=self.precision)


def choose_device(precision: Precision | Literal["auto"], threads: int | None) -> Device:
    """Take an accelerator where there is one, and bfloat16 where the device computes with it.

    Parameters
    ----------
    precision
        ``auto`` decides by the device; anything else is taken as it is.
    threads
        Of the processor; None takes as many as torch would.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        # Without it products of matrices may differ from run to run (NVIDIA, cuBLAS, results reproducibility).
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Steps differ in how many planes they read, and for each number a trunk's kernels are made anew unless they are
    # kept: of a thousand, as by default, hardly one lives until it is asked for again (oneDNN, Primitive Cache). It is
    # read before the first kernel is made, here and in every process begun from here.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KERNELS_KEPT))
    capabilities = torch.cpu.get_capabilities()
    if precision == "auto":
        # Without such instructions bfloat16 is emulated, and slower than float32.
        fast = torch.cuda.is_bf16_supported() if cuda else bool(capabilities.get("avx512_bf16", False))
        precision = "bf16-mixed" if fast else "32-true"
    return Device(
        kind="cuda" if cuda else "cpu",
        name=torch.cuda.get_device_name() if cuda else str(capabilities.get("cpu_name", "cpu")),
        precision=precision,
        threads=threads or torch.get_num_threads(),
    )


def memory_of(device: torch.device) -> int:
    """Count the bytes of memory that a GPU has; of the processor, which nothing is copied for, no end of them."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else sys.maxsize


@contextlib.contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Compute with a fixed number of threads and repeatable kernels; all that and the generator are put back."""
    threads_before = torch.get_num_threads()
    strict_before = torch.are_deterministic_algorithms_enabled()
    # Typed as a module, while it is a class in a module's place.
    memory: Any = torch.utils.deterministic
    filled_before = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    # On a GPU a few kernels have no repeatable twin; there torch warns instead of refusing.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Nothing is read before it is written; on a GPU each result would be written twice.
    memory.fill_uninitialized_memory = False
    try:
        with torch.random.fork_rng():
            yield
    finally:
        memory.fill_uninitialized_memory = filled_before
        torch.use_deterministic_algorithms(strict_before)
        torch.set_num_threads(threads_before)
