"""Eight bits are offered where patients never seen lose nothing by them, and only there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from bundles import NETWORK

from osteoscope.bundle.format import INT8_GRAPH, PLANES_GRAPH
from osteoscope.cohort.table import Case
from osteoscope.config import PreparationConfig
from osteoscope.inference.engine import MemberEngine
from osteoscope.network.classifier import TumourNetwork
from osteoscope.training import quantise as quantise_module
from osteoscope.training.export import export_member
from osteoscope.training.quantise import CALIBRATION_PLANES, calibration_planes, quantise, verdict_on

if TYPE_CHECKING:
    from pathlib import Path

LABELS = np.array([0, 0, 0, 1, 1, 1])
RANKED = np.array([[0.0, -2], [0, -1], [0, 1], [0, 0.5], [0, 2], [0, 3]])
"""Logits of an AUC of 8/9: of the nine pairs only the third and the fourth patient are in the wrong order."""
ALIKE = np.full(6, 0.99)


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("member")
    torch.manual_seed(1)
    network = TumourNetwork(NETWORK, classes=2).eval()
    torch.nn.init.normal_(network.get_parameter("head.linear.weight"))
    planes = np.random.default_rng(0).random((8, 1, 64, 64)).astype(np.float32)
    export_member(network, folder, planes=planes[:2], covariates=None)
    quantise(network, folder, planes=planes)
    return folder


def test_it_is_the_same_network_in_fewer_bits(member: Path) -> None:
    graph = onnx.load(member / INT8_GRAPH).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    levels = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    assert convolutions
    assert all(set(node.input[:2]) <= levels for node in convolutions)
    assert (member / INT8_GRAPH).stat().st_size < (member / PLANES_GRAPH).stat().st_size


def test_its_maps_are_nearly_those_of_float32(member: Path) -> None:
    planes = np.random.default_rng(7).random((5, 1, 64, 64)).astype(np.float32)
    full = MemberEngine(member, runtime="openvino").read(planes)
    rounded = MemberEngine(member, runtime="openvino", precision="int8").read(planes)
    assert not np.array_equal(full.maps, rounded.maps)
    assert np.corrcoef(full.maps.ravel(), rounded.maps.ravel())[0, 1] > 0.95


def test_it_is_offered_where_nothing_is_lost() -> None:
    found = verdict_on(labels=LABELS, before=RANKED, after=RANKED * 1.1, correlations=ALIKE)
    assert found.offered
    assert found.reason is None
    assert found.auc_float32 == found.auc_int8 == pytest.approx(8 / 9)
    assert found.map_correlation == pytest.approx(0.99)
    assert found.least_map_correlation == 0.99
    assert found.patients == 6


def test_of_many_patients_the_levels_are_fixed_from_any_of_their_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the plane at place p all pixels are p.
    planes = np.arange(64, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 2, 2), np.float32)
    monkeypatch.setattr(quantise_module, "_planes_of", lambda case, preparation: planes)
    cases = [Case(patient=f"p{place}", label=0, images=()) for place in range(70)]
    drawn = calibration_planes(cases, PreparationConfig())
    assert drawn.shape == (CALIBRATION_PLANES, 1, 2, 2)
    assert 20 < drawn.mean() < 43


def test_a_lower_auc_is_not_offered() -> None:
    worse = RANKED.copy()
    worse[1, 1] = 0.7
    found = verdict_on(labels=LABELS, before=RANKED, after=worse, correlations=ALIKE)
    assert not found.offered
    # One of nine pairs more is in the wrong order.
    assert found.reason == "the out-of-fold AUC drops by 0.111, and less than 0.005 is asked"


def test_a_higher_auc_is_no_loss() -> None:
    better = RANKED.copy()
    better[2, 1] = 0.0
    assert verdict_on(labels=LABELS, before=RANKED, after=better, correlations=ALIKE).offered


def test_other_maps_are_not_offered() -> None:
    found = verdict_on(labels=LABELS, before=RANKED, after=RANKED, correlations=np.array([1, 1, 1, 1, 1, 0.6]))
    assert not found.offered
    assert found.reason == "its maps correlate by 0.933 with those of float32, and more than 0.95 is asked"
    assert found.least_map_correlation == 0.6


def test_one_class_alone_decides_nothing() -> None:
    found = verdict_on(labels=np.zeros(6, dtype=np.int64), before=RANKED, after=RANKED, correlations=ALIKE)
    assert not found.offered
    assert found.reason == "the out-of-fold AUC is not defined"
