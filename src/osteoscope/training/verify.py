"""Comparing the graphs of a bundle with its weights, on every library here that runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from safetensors import SafetensorError
from safetensors.torch import load_file

from osteoscope.bundle.format import HEAD_GRAPH, PLANES_GRAPH, WEIGHTS
from osteoscope.cohort.covariates import CovariateEncoder
from osteoscope.errors import BundleError
from osteoscope.imaging.mixed import indicators
from osteoscope.inference.engine import MemberEngine
from osteoscope.inference.runtimes import runtimes_here
from osteoscope.network.classifier import TumourNetwork
from osteoscope.training.export import PARITY, Parity, parity_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.bundle.format import Manifest, Member
    from osteoscope.bundle.load import Bundle
    from osteoscope.inference.runtimes import RuntimeName

_PLANES = 5
"""That are compared: an odd number, which no number of cores divides evenly."""


@dataclass(frozen=True, kw_only=True)
class VerifiedMember:
    """How far a member's graphs are from its weights."""

    folder: str
    """In the bundle."""
    runtime: RuntimeName
    """What ran the graph of planes."""
    opset: int
    """Of the graph of planes and that of the head: the version of ONNX's operators that they are written in."""
    parity: Parity


def verify_members(bundle: Bundle) -> Iterator[VerifiedMember]:
    """Rebuild every network from its weights, and compare both graphs with it on each runtime that is here.

    They are compared on planes of noise and of soft shapes, since a bundle holds no image.

    Parameters
    ----------
    bundle
        Verified.

    Yields
    ------
    A comparison for each member and runtime, as soon as it is made.

    Raises
    ------
    BundleError
        If the weights are not those of the network that the manifest states, a graph cannot be loaded, or an output
        differs by more than `PARITY`.
    """
    for member in bundle.manifest.members:
        folder = bundle.folder / member.folder
        network = rebuilt_network(bundle.manifest, member.covariates, folder / WEIGHTS)
        planes, covariates = _made_up(bundle.manifest, member)
        opset = _opset(folder / PLANES_GRAPH, folder / HEAD_GRAPH)
        for runtime in runtimes_here():
            engine = MemberEngine(folder, runtime=runtime, reader=bundle.read)
            parity = parity_of(network, engine, planes=planes, covariates=covariates)
            if not parity.worst() <= PARITY:
                raise BundleError(
                    f"its graphs differ from its weights by {parity.worst():.2e} in {runtime}, more than {PARITY:.0e}",
                    path=folder,
                    remedy="train again from the same run folder, and leave this bundle out of use",
                )
            yield VerifiedMember(folder=member.folder, runtime=runtime, opset=opset, parity=parity)


def rebuilt_network(manifest: Manifest, encoder: dict[str, Any] | None, weights: Path) -> TumourNetwork:
    """Build a network anew from its weights, in float32 on the CPU, ready to be asked.

    Parameters
    ----------
    manifest
        Which network it is.
    encoder
        How its covariates are encoded; None for a network without.
    weights
        The file that holds them.

    Raises
    ------
    BundleError
        If the file holds other weights than those of the network that the manifest states.
    """
    channels, _, _ = manifest.plane_shape(manifest.modalities[0])
    covariates = 0 if encoder is None else CovariateEncoder.from_json(encoder).size
    classes = len(manifest.classes)
    network = TumourNetwork(
        manifest.network,
        classes=classes,
        covariates=covariates,
        in_channels=channels,
        modalities=len(manifest.preparation.modalities),
    )
    try:
        network.load_state_dict(load_file(weights))
    # For keys or shapes that do not fit, torch raises a bare RuntimeError.
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BundleError(
            "expected the weights of the network that the manifest states, found others",
            path=weights,
            remedy="copy the bundle again from where it was made",
        ) from error
    return network.eval()


def _made_up(manifest: Manifest, member: Member) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Make up planes, the first of which are noise and the others soft shapes, and a patient; always the same."""
    random = np.random.default_rng(0)
    channels, rows, columns = manifest.plane_shape(manifest.modalities[0])
    planes = random.random((_PLANES, channels, rows, columns), dtype=np.float32)
    waves = np.sin(np.linspace(0, 9, rows))[:, None] * np.cos(np.linspace(0, 7, columns))
    for number in range(_PLANES // 2, _PLANES):
        planes[number] = (planes[number] + np.roll(waves, number * rows // _PLANES, axis=0) + 1) / 3
    modalities = len(manifest.preparation.modalities)
    if modalities:
        told = indicators([number % modalities for number in range(_PLANES)], modalities)
        planes[:, -modalities:] = told[:, :, None, None]
    if member.covariates is None:
        return planes, None
    size = CovariateEncoder.from_json(member.covariates).size
    return planes, random.standard_normal(size).astype(np.float32)


def _opset(*graphs: Path) -> int:
    """Give the version of ONNX's own operators that graphs are written in, the highest of them."""
    found = (onnx.load(graph, load_external_data=False).opset_import for graph in graphs)
    return max(int(one.version) for of_graph in found for one in of_graph if one.domain in ("", "ai.onnx"))
