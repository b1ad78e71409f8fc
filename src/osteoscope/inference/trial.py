"""Which runtime is the fastest on this machine: tried once for each graph, and remembered."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import onnxruntime

from osteoscope.errors import BundleError, StorageError
from osteoscope.inference.runtimes import Graph, Runtime, RuntimeName, load_runtime, runtimes_here
from osteoscope.processes import cores
from osteoscope.storage import cache_folder, sha256_of_text, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLANES_A_CORE = 2
_ROUNDS = 2


def fastest_runtime(graph: Graph, *, threads: int | None = None) -> Runtime:
    """Load a graph of planes with the runtime that computes it fastest here.

    Where there is a choice, each is given the same few planes of noise, in turn, and its best round counts. What was
    found is kept in the user's cache for such graphs, this processor, number of threads and versions, so that the next
    start need not ask, and answers do not change in their last digits from one run to the next.

    Parameters
    ----------
    graph
        Of ``planes.onnx`` of a bundle's member.
    threads
        Of the processor; None takes every core that the process may use.

    Raises
    ------
    BundleError
        If it cannot be loaded by any.
    """
    choices = runtimes_here()
    if len(choices) == 1:
        return load_runtime(choices[0], graph, threads=threads)
    memory = cache_folder() / "runtimes" / f"{_circumstances(graph, choices, threads or cores())}.json"
    known = _remembered(memory)
    if known in choices:
        return load_runtime(known, graph, threads=threads)
    loaded = _loaded(choices, graph, threads)
    seconds = _tried(loaded, threads or cores())
    best = min(loaded, key=lambda runtime: seconds[runtime.name])
    # Without a cache it is tried again next time.
    with contextlib.suppress(StorageError):
        write_json(memory, {"runtime": best.name, "seconds": seconds})
    return best


def _circumstances(graph: Graph, choices: Sequence[RuntimeName], threads: int) -> str:
    """Hash all that the answer depends on; networks of one kind, whose graphs are of one size, share it."""
    matter = [len(graph.content), list(choices), threads, _processor(), onnxruntime.__version__, _openvino_version()]
    return sha256_of_text(json.dumps(matter))


def _processor() -> str:
    """Name the processor's model; where the system does not say, its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = [line for line in lines if line.startswith(("model name", "flags"))]
    return "\n".join(dict.fromkeys(told)) or platform.machine()


def _openvino_version() -> str | None:
    try:
        return version("openvino")
    except PackageNotFoundError:
        return None


def _remembered(memory: Path) -> RuntimeName | None:
    try:
        name = json.loads(memory.read_text(encoding="utf-8"))["runtime"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if name in get_args(RuntimeName) else None


def _loaded(choices: Sequence[RuntimeName], graph: Graph, threads: int | None) -> list[Runtime]:
    """Load the graph with each runtime that can.

    What onnxruntime refuses is refused: others guess at an operator or an opset that they do not know.
    """
    loaded = [load_runtime(choices[0], graph, threads=threads)]
    for name in choices[1:]:
        with contextlib.suppress(BundleError):
            loaded.append(load_runtime(name, graph, threads=threads))
    return loaded


def _tried(loaded: Sequence[Runtime], threads: int) -> dict[str, float]:
    """Time each runtime on the same planes, in turn: the seconds of its best round."""
    shape = (_PLANES_A_CORE * threads, *loaded[0].plane_shape)
    planes = np.random.default_rng(0).random(shape, dtype=np.float32)
    best: dict[str, float] = {runtime.name: math.inf for runtime in loaded}
    # The first round, in which memory is laid out, is not counted.
    for number in range(_ROUNDS + 1):
        for runtime in loaded:
            started = time.perf_counter()
            runtime.run(planes)
            if number:
                best[runtime.name] = min(best[runtime.name], time.perf_counter() - started)
    return best
