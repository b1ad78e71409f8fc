"""From a fitted network to the two graphs of a bundle's member, with proof that they say the same."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn

from osteoscope.bundle.format import HEAD_GRAPH, PLANES_GRAPH, PLANES_OUTPUTS, WEIGHTS
from osteoscope.errors import BundleError
from osteoscope.inference.engine import MemberEngine
from osteoscope.storage import storage_error
from osteoscope.training.checkpoint import save_weights
from osteoscope.training.layout import laid_out

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from osteoscope.network.classifier import TumourNetwork

PARITY = 1e-4
"""Largest difference between torch and onnxruntime that is let pass on any output, as a share of the output's largest
value where that exceeds 1: float32 holds seven digits of a value, wherever its point stands."""

_OPSET = 20


class _PlanesHalf(nn.Module):
    def __init__(self, network: TumourNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        reading = self.network.encoder(planes)
        class_maps = self.network.class_maps(reading.maps)
        return reading.scores, reading.vectors, class_maps, torch.sigmoid(reading.lesions)


class _HeadHalf(nn.Module):
    def __init__(self, network: TumourNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, scores: Tensor, vectors: Tensor, covariates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        one_patient = torch.ones_like(scores, dtype=torch.bool)[None]
        judged = self.network.head(scores, vectors, one_patient, covariates)
        return judged.logits[0], judged.weights[0]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Largest difference between torch and onnxruntime on each output."""

    scores: float
    vectors: float
    maps: float
    lesions: float
    logits: float
    weights: float

    def worst(self) -> float:
        """Take the largest of all, or NaN where any is no number."""
        return float(np.max(astuple(self)))


def export_member(
    network: TumourNetwork, folder: Path, *, planes: NDArray[np.float32], covariates: NDArray[np.float32] | None
) -> Parity:
    """Write a network's graphs and weights, and check the graphs against the network.

    Parameters
    ----------
    network
        Fitted, in float32, on the CPU.
    folder
        Where ``planes.onnx``, ``head.onnx`` and ``weights.safetensors`` are written.
    planes
        (planes, channels, size, size), real planes to compare on; at least two.
    covariates
        (covariates,) of one patient, or None.

    Returns
    -------
    Parity
        How far the graphs are from the network.

    Raises
    ------
    BundleError
        If an output differs by more than `PARITY`.
    StorageError
        If the operating system refuses.
    """
    network = network.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    patient = None if covariates is None else torch.from_numpy(covariates)[None]
    with torch.no_grad():
        scores, vectors, _, _ = _PlanesHalf(network)(torch.from_numpy(planes))
    number = torch.export.Dim("planes", min=1)
    export_planes(laid_out(network), folder / PLANES_GRAPH, example=planes)
    head_inputs = (scores, vectors) if patient is None else (scores, vectors, patient)
    names = ["scores", "vectors", "covariates"][: len(head_inputs)]
    _export(_HeadHalf(network), head_inputs, folder / HEAD_GRAPH, names, ["logits", "weights"], number)
    save_weights(network, folder / WEIGHTS)

    # No trial of the fastest here: other networks may be computing beside this one.
    engine = MemberEngine(folder, threads=torch.get_num_threads(), runtime="onnxruntime")
    parity = parity_of(network, engine, planes=planes, covariates=covariates)
    if not parity.worst() <= PARITY:
        raise BundleError(
            f"the exported graph differs from the network by {parity.worst():.2e}, more than {PARITY:.0e}",
            path=folder,
            remedy="train in float32 (training.precision = '32-true'), and report this with the versions in run.json",
        )
    return parity


def parity_of(
    network: TumourNetwork, engine: MemberEngine, *, planes: NDArray[np.float32], covariates: NDArray[np.float32] | None
) -> Parity:
    """Compare graphs with the network that they were made of.

    Parameters
    ----------
    network
        In float32, on the CPU.
    engine
        The loaded graphs.
    planes
        (planes, channels, size, size), 0..1.
    covariates
        (covariates,) of one patient, or None.
    """
    with torch.no_grad():
        reading = network.encoder(torch.from_numpy(planes))
        maps = network.class_maps(reading.maps)
        one_patient = torch.ones((1, len(planes)), dtype=torch.bool)
        patient = None if covariates is None else torch.from_numpy(covariates)[None]
        judged = network.head(reading.scores, reading.vectors, one_patient, patient)
    read = engine.read(planes)
    said = engine.judge(read, covariates)
    return Parity(
        scores=_difference(reading.scores, read.scores),
        vectors=_difference(reading.vectors, read.vectors),
        maps=_difference(maps, read.maps),
        lesions=_difference(torch.sigmoid(reading.lesions), read.lesions),
        logits=_difference(judged.logits[0], said.logits),
        weights=_difference(judged.weights[0], said.weights),
    )


def export_planes(network: TumourNetwork, path: Path, *, example: NDArray[np.float32]) -> None:
    """Write the graph of a network that reads planes.

    Parameters
    ----------
    network
        In evaluation, on the CPU.
    path
        The file to write.
    example
        (planes, channels, size, size), two or more.

    Raises
    ------
    StorageError
        If the operating system refuses.
    """
    number = torch.export.Dim("planes", min=1)
    inputs = (torch.from_numpy(example),)
    _export(_PlanesHalf(network), inputs, path, ["planes"], list(PLANES_OUTPUTS), number)


def _clear_notes(model: ir.Model) -> bool:
    """Remove the exporter's notes on nodes, and tell whether there were any.

    They quote source lines by their place on the machine that trained, so graphs would differ by where they were made.
    """
    return bool(ClearMetadataAndDocStringPass()(model).modified)


def clear_graph(path: Path) -> None:
    """Remove the exporter's notes from the file of a graph, which earlier versions left; without any it stays as it is.

    Raises
    ------
    StorageError
        If the operating system refuses.
    """
    try:
        model = ir.load(path)
        if _clear_notes(model):
            ir.save(model, path)
    except OSError as error:
        raise storage_error(error, path) from error


def member_is_whole(folder: Path) -> bool:
    """Tell whether all files of a member lie in its folder."""
    return all((folder / name).is_file() for name in (PLANES_GRAPH, HEAD_GRAPH, WEIGHTS))


def _export(
    module: _PlanesHalf | _HeadHalf,
    inputs: tuple[Tensor, ...],
    path: Path,
    input_names: list[str],
    output_names: list[str],
    planes: torch.export.Dim,
) -> None:
    module.eval()
    with _quiet_exporter():
        captured = _captured(module, inputs, input_names, output_names, planes)
        program = torch.onnx.ONNXProgram(captured.clone(), None)
        program.apply_weights(module.state_dict())
        # Folds what follows from weights alone, so only once they are those of this network.
        program.optimize()
        _clear_notes(program.model)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        program.save(path)
    except OSError as error:
        raise storage_error(error, path) from error


_MOST_CAPTURED = 8
_CAPTURES: dict[Hashable, ir.Model] = {}
"""Graphs of this process, oldest first, by what they follow from. Capturing one takes longer by far than all else of an
export, and the networks of a run's folds differ in their weights alone."""


def _captured(
    module: _PlanesHalf | _HeadHalf,
    inputs: tuple[Tensor, ...],
    input_names: list[str],
    output_names: list[str],
    planes: torch.export.Dim,
) -> ir.Model:
    """Capture a module's graph, as yet without what can be folded, or give that of one of the same structure.

    Its weights are those of the network that was captured.
    """
    state = tuple((name, tuple(tensor.shape)) for name, tensor in module.state_dict().items())
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in inputs)
    key = type(module), module.network.config, state, shapes
    if key not in _CAPTURES:
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            opset_version=_OPSET,
            input_names=input_names,
            output_names=output_names,
            # Every input but the covariates has one row a plane.
            dynamic_shapes=tuple({0: planes} if name != "covariates" else {} for name in input_names),
            verbose=False,
            optimize=False,
        )
        if program is None:
            msg = "torch.onnx.export gave no program"
            raise RuntimeError(msg)
        while len(_CAPTURES) >= _MOST_CAPTURED:
            del _CAPTURES[next(iter(_CAPTURES))]
        _CAPTURES[key] = program.model
    return _CAPTURES[key]


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's notes (no torchvision, renamed axes) off the operator's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _difference(of_network: Tensor, of_graph: NDArray[np.float32]) -> float:
    """Largest difference, as a share of the output's largest value where that exceeds 1; NaN if any is NaN."""
    expected = of_network.numpy()
    return float(np.abs(expected - of_graph).max() / max(1.0, float(np.abs(expected).max())))
