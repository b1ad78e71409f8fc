"""Exported graphs say what the network says, or there is no bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch

import osteoscope
from osteoscope.config import NetworkConfig
from osteoscope.errors import BundleError
from osteoscope.inference.engine import MemberEngine, PlaneReadings
from osteoscope.network.classifier import TumourNetwork
from osteoscope.training import export
from osteoscope.training.export import Parity, clear_graph, export_member, member_is_whole

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray


def network_of(seed: int) -> TumourNetwork:
    torch.manual_seed(seed)
    network = TumourNetwork(NetworkConfig(trunk="densenet-tiny", width=16, heads=2), classes=3)
    torch.nn.init.normal_(network.get_parameter("encoder.attention.gain"))
    torch.nn.init.normal_(network.get_parameter("encoder.gate.score.weight"))
    torch.nn.init.normal_(network.get_parameter("encoder.lesion.last.weight"))
    with torch.no_grad():
        # Maps in the hundreds, where float32 cannot hold 1e-4.
        network.head.linear.weight.mul_(1e4)
    return network


@pytest.fixture
def network() -> TumourNetwork:
    return network_of(6)


PLANES = np.random.default_rng(0).random((2, 1, 48, 48)).astype(np.float32)


def test_every_output_agrees_for_any_number_of_planes(network: TumourNetwork, tmp_path: Path) -> None:
    parity = export_member(network, tmp_path, planes=PLANES, covariates=None)
    assert 0 <= parity.worst() < export.PARITY
    assert member_is_whole(tmp_path)
    engine = MemberEngine(tmp_path)
    for number in (1, 2, 5):
        planes = np.random.default_rng(number).random((number, 1, 48, 48)).astype(np.float32)
        with torch.no_grad():
            reading = network.encoder(torch.from_numpy(planes))
            judged = network.head(reading.scores, reading.vectors, torch.ones(1, number, dtype=torch.bool))
        read = engine.read(planes)
        found = engine.judge(read)
        scale = float(judged.logits.abs().max())
        np.testing.assert_allclose(found.logits, judged.logits[0].numpy(), rtol=0, atol=1e-4 * scale)
        np.testing.assert_allclose(found.weights, judged.weights[0].numpy(), rtol=0, atol=1e-4)
        # The network gives the logit of lesion, the graph its likelihood.
        np.testing.assert_allclose(read.lesions, 1 / (1 + np.exp(-reading.lesions.numpy())), rtol=0, atol=1e-4)
        assert np.ptp(read.lesions) > 0.1


def test_graphs_say_nothing_of_the_machine_that_they_were_made_on(network: TumourNetwork, tmp_path: Path) -> None:
    export_member(network, tmp_path, planes=PLANES, covariates=None)
    for graph in (tmp_path / "planes.onnx", tmp_path / "head.onnx"):
        content = graph.read_bytes()
        for place in (osteoscope.__file__, torch.__file__):
            assert str(Path(place).parent).encode() not in content
        model = onnx.load(graph)
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_notes_of_an_earlier_version_are_cleared_and_nothing_else_changes(
    network: TumourNetwork, tmp_path: Path
) -> None:
    export_member(network, tmp_path, planes=PLANES, covariates=None)
    graph = tmp_path / "planes.onnx"
    plain, before = graph.read_bytes(), MemberEngine(tmp_path, threads=1, runtime="onnxruntime").read(PLANES)
    clear_graph(graph)
    assert graph.read_bytes() == plain
    model = onnx.load(graph)
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value='File "/home/nobody/net.py"')
    model.graph.node[1].doc_string = "/home/nobody"
    onnx.save(model, graph)
    clear_graph(graph)
    assert b"/home/nobody" not in graph.read_bytes()
    after = MemberEngine(tmp_path, threads=1, runtime="onnxruntime").read(PLANES)
    for name in ("scores", "vectors", "maps", "lesions"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


@pytest.mark.slow
def test_a_second_network_is_written_as_if_it_were_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one structure the graph is captured once: weights, and what is folded from them, are those of each network."""
    captures: dict[Hashable, Any] = {}
    monkeypatch.setattr(export, "_CAPTURES", captures)
    for seed in (1, 2, 3):
        export_member(network_of(seed), tmp_path / str(seed), planes=PLANES, covariates=None)
        assert len(captures) == 2
    captures.clear()
    export_member(network_of(2), tmp_path / "anew", planes=PLANES, covariates=None)
    for path in (tmp_path / "anew").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()
        assert path.read_bytes() != (tmp_path / "3" / path.name).read_bytes()
    # Planes of another size are another graph, and are judged by the same one.
    export_member(network_of(2), tmp_path / "smaller", planes=PLANES[..., :32, :32].copy(), covariates=None)
    assert len(captures) == 3


def test_a_graph_that_says_something_else_is_refused(
    network: TumourNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Astray(MemberEngine):
        def read(self, planes: NDArray[np.float32]) -> PlaneReadings:
            readings = super().read(planes)
            return dataclasses.replace(readings, scores=readings.scores + np.float32(1e-3))

    monkeypatch.setattr(export, "MemberEngine", Astray)
    with pytest.raises(BundleError, match="differs from the network"):
        export_member(network, tmp_path, planes=PLANES, covariates=None)


@pytest.mark.parametrize("output", ["scores", "vectors", "maps", "lesions", "logits", "weights"])
def test_an_output_that_is_no_number_is_the_worst_of_all(output: str) -> None:
    found = {"scores": 0.0, "vectors": 0.0, "maps": 2e-5, "lesions": 0.0, "logits": 1e-6, "weights": 0.0}
    assert Parity(**found).worst() == 2e-5
    assert np.isnan(Parity(**{**found, output: np.nan}).worst())


def test_a_folder_that_lacks_a_file_is_no_member(tmp_path: Path) -> None:
    assert not member_is_whole(tmp_path)
