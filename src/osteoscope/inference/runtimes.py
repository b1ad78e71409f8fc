"""Libraries that run a bundle's graph of planes, and how each is kept busy.

A dense network reuses what it wrote a moment ago, so its planes are best computed a few at a time on one core each,
side by side: what they work on stays in that core's cache, and no core waits for another within a layer. Where there
are fewer planes than that takes, the cores share each plane instead.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import onnxruntime

from osteoscope.bundle.format import PLANES_OUTPUTS
from osteoscope.errors import BundleError, ConfigError
from osteoscope.processes import cores
from osteoscope.storage import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

RuntimeName = Literal["onnxruntime", "openvino", "cuda"]
"""``cuda`` is onnxruntime on an NVIDIA GPU."""

INT8_RUNTIME: RuntimeName = "openvino"
"""What runs graphs in eight bits: onnxruntime gains next to nothing by them."""

Outputs = tuple["NDArray[np.float32]", ...]
"""Those of `PLANES_OUTPUTS`, in their order."""

_MOST_AT_ONCE = 2
"""Planes that a core computes together, beside the other cores."""
_ON_A_GPU = 16
"""Planes that a GPU computes at once."""

_CUDA = ("CUDAExecutionProvider", {"use_tf32": "0"})
"""Left to itself it multiplies in TF32 where the GPU can, which keeps ten bits behind the point of float32's 23."""

_KEPT_DAYS = 30
"""For which a network that OpenVINO compiled is kept without being used."""

_INSTALL: dict[RuntimeName, str] = {
    "onnxruntime": "install onnxruntime",
    "cuda": "install onnxruntime-gpu in the place of onnxruntime, on a machine with an NVIDIA GPU",
    "openvino": "install osteoscope[openvino]",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """The bytes of a graph: whatever is loaded from them is one network, though the file be replaced meanwhile."""

    path: Path
    """Of the file that they were read from, to name it in errors."""
    content: bytes


def read_graph(path: Path) -> Graph:
    """Read a graph's file as it is.

    Raises
    ------
    BundleError
        If it cannot be read.
    """
    try:
        return Graph(path=path, content=path.read_bytes())
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", path=path, remedy="export it again") from error


class Runtime(Protocol):
    """A loaded graph."""

    name: RuntimeName
    plane_shape: tuple[int, int, int]
    """(channels, size, size)."""

    def run(self, planes: NDArray[np.float32]) -> Outputs:
        """Compute the outputs of planes, (planes, channels, size, size); may be called by several threads."""


def runtimes_here() -> tuple[RuntimeName, ...]:
    """Name the runtimes that are installed and have something to run on."""
    found: list[RuntimeName] = ["onnxruntime"]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        found.append("cuda")
    if find_spec("openvino") is not None:
        found.append("openvino")
    return tuple(found)


def load_runtime(name: RuntimeName, graph: Graph, *, threads: int | None = None) -> Runtime:
    """Load a graph of planes.

    Parameters
    ----------
    name
        One of `runtimes_here`.
    graph
        Of ``planes.onnx`` of a bundle's member.
    threads
        Of the processor; None takes every core that the process may use.

    Raises
    ------
    BundleError
        If it cannot be loaded.
    ConfigError
        If the runtime is not installed, or has nothing to run on.
    """
    if name not in runtimes_here():
        raise ConfigError(f"the runtime {name} is not to be had here", remedy=_INSTALL[name])
    of_name: dict[RuntimeName, Callable[[Graph, int], Runtime]] = {
        "onnxruntime": OnnxRuntime,
        "cuda": CudaRuntime,
        "openvino": OpenVinoRuntime,
    }
    return of_name[name](graph, threads or cores())


def onnx_session(graph: Graph, *, threads: int, cuda: bool = False) -> onnxruntime.InferenceSession:
    """Load a graph with onnxruntime; errors are those of `load_runtime`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what it warns of is no concern of an operator
    options.intra_op_num_threads = threads
    providers = [_CUDA, "CPUExecutionProvider"] if cuda else ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(graph.content, options, providers=providers)
    # onnxruntime raises bare RuntimeError subclasses and, for some damage, its own Fail, all derived from Exception.
    except Exception as error:
        raise _cannot_be_loaded("onnxruntime", graph, error) from error
    if not cuda:
        # It would hold them, a third of what it takes, to load the graph anew on the processor, where it is already.
        session._model_bytes = None
    return session


def _cannot_be_loaded(by: str, graph: Graph, error: Exception) -> BundleError:
    reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
    return BundleError(f"cannot be loaded by {by}: {reason[0]}", path=graph.path, remedy="export it again")


class OnnxRuntime:
    """onnxruntime on the processor."""

    name: RuntimeName = "onnxruntime"

    def __init__(self, graph: Graph, threads: int) -> None:
        self._threads = threads
        # The one that is asked for first is loaded now, so that a graph that cannot be is found out at once.
        self._together = onnx_session(graph, threads=threads)
        self.plane_shape = _plane_shape(self._together)
        # The other is loaded when there are planes for it, of the same bytes, which are let go of then.
        self._graph = graph if threads > 1 else None
        self._loading = threading.Lock()

    def run(self, planes: NDArray[np.float32]) -> Outputs:
        """Compute the outputs of planes."""
        some = _few(planes, min(_MOST_AT_ONCE, math.ceil(len(planes) / self._threads)))
        if self._threads == 1 or len(planes) < self._threads:
            return _joined([self._together.run(PLANES_OUTPUTS, {"planes": few}) for few in some])
        apart = self._loaded_apart()
        return _joined(list(self._pool.map(lambda few: apart.run(PLANES_OUTPUTS, {"planes": few}), some)))

    def _loaded_apart(self) -> onnxruntime.InferenceSession:
        with self._loading:
            if self._graph is not None:
                self._apart = onnx_session(self._graph, threads=1)
                self._graph = None
        return self._apart

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="planes")


class CudaRuntime:
    """onnxruntime on an NVIDIA GPU."""

    name: RuntimeName = "cuda"

    def __init__(self, graph: Graph, threads: int) -> None:
        self._session = onnx_session(graph, threads=threads, cuda=True)
        self.plane_shape = _plane_shape(self._session)

    def run(self, planes: NDArray[np.float32]) -> Outputs:
        """Compute the outputs of planes."""
        return _joined([self._session.run(PLANES_OUTPUTS, {"planes": some}) for some in _few(planes, _ON_A_GPU)])


class OpenVinoRuntime:
    """OpenVINO on the processor, in float32 wherever the graph says so."""

    name: RuntimeName = "openvino"

    def __init__(self, graph: Graph, threads: int) -> None:
        import openvino

        self._core, self._threads = openvino.Core(), threads
        try:
            self._model = self._core.read_model(graph.content)
            lengths = list(self._model.input("planes").partial_shape)[1:]
            channels, rows, columns = (length.get_length() for length in lengths)
            self.plane_shape = channels, rows, columns
            # One plane at a time: then every shape is known beforehand, and what a layer needs can be laid out.
            self._model.reshape({"planes": [1, *self.plane_shape]})
            self._together = self._compiled(streams=1)
        except (RuntimeError, ValueError) as error:
            raise _cannot_be_loaded(self.name, graph, error) from error

    def run(self, planes: NDArray[np.float32]) -> Outputs:
        """Compute the outputs of planes."""
        apart = self._threads > 1 and len(planes) >= self._threads
        model = self._apart if apart else self._together
        # Of each call its own, so that several threads may call. They are waited for in turn and not by a callback: one
        # that is still being left when the model goes would wait for the interpreter, which waits for it.
        requests = [model.create_infer_request() for _ in range(self._threads if apart else 1)]
        running: deque[Any] = deque()
        parts: list[list[NDArray[np.float32]]] = []

        def take() -> Any:
            request = running.popleft()
            request.wait()
            parts.append([request.get_tensor(name).data.copy() for name in PLANES_OUTPUTS])
            return request

        for place in range(len(planes)):
            request = requests.pop() if requests else take()
            request.start_async({"planes": planes[place : place + 1]})
            running.append(request)
        while running:
            take()
        return _joined(parts)

    @cached_property
    def _apart(self) -> Any:
        return self._compiled(streams=self._threads)

    def _compiled(self, *, streams: int) -> Any:
        settings = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": self._threads,
            # Left to itself it computes with bfloat16 where the processor can, and is off by a hundredth.
            "INFERENCE_PRECISION_HINT": "f32",
            **_kept(),
        }
        return self._core.compile_model(self._model, "CPU", settings)


def _kept() -> dict[str, str]:
    """Say where what OpenVINO compiled is kept, so that the next start takes a tenth of the time.

    Told of a place that cannot be written it would compile nothing. It removes nothing by itself.
    """
    folder = cache_folder() / "openvino"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return {}
    _remove_unused(folder)
    return {"CACHE_DIR": str(folder)} if os.access(folder, os.W_OK) else {}


def _remove_unused(folder: Path) -> None:
    """Remove compiled networks that nobody has read or written for long."""
    oldest = time.time() - _KEPT_DAYS * 24 * 60 * 60
    for path in folder.glob("*.blob"):
        # Another process may be doing the same.
        with contextlib.suppress(OSError):
            found = path.stat()
            if max(found.st_atime, found.st_mtime) < oldest:
                path.unlink()


def _plane_shape(session: onnxruntime.InferenceSession) -> tuple[int, int, int]:
    channels, rows, columns = session.get_inputs()[0].shape[1:]
    return channels, rows, columns


def _few(planes: NDArray[np.float32], at_once: int) -> list[NDArray[np.float32]]:
    return [planes[start : start + at_once] for start in range(0, len(planes), at_once)]


def _joined(parts: Sequence[Sequence[NDArray[np.float32]]]) -> Outputs:
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))
