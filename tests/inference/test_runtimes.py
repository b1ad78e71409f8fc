"""Every runtime says the same, however many planes and threads; and which is taken is tried once and remembered."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
from bundles import export_tiny

from osteoscope.bundle.format import PLANES_GRAPH, PLANES_OUTPUTS
from osteoscope.errors import BundleError, ConfigError
from osteoscope.inference import runtimes, trial
from osteoscope.inference.engine import MemberEngine
from osteoscope.inference.runtimes import Graph, RuntimeName, load_runtime, read_graph, runtimes_here
from osteoscope.inference.trial import fastest_runtime
from osteoscope.storage import cache_folder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PROCESSOR: tuple[RuntimeName, ...] = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return read_graph(export_tiny(tmp_path_factory.mktemp("member"), channels=3) / PLANES_GRAPH)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def planes_of(number: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).random((number, 3, 64, 64)).astype(np.float32)


def plainly(graph: Graph, planes: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What onnxruntime says with all that is its own choice."""
    session = onnxruntime.InferenceSession(graph.path, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(list(PLANES_OUTPUTS), {"planes": planes})
    return found


@pytest.mark.parametrize("name", PROCESSOR)
@pytest.mark.parametrize(("number", "threads"), [(1, 1), (1, 2), (2, 2), (3, 2), (9, 2), (5, 4)])
def test_every_runtime_gives_all_outputs_in_the_order_of_the_planes(
    graph: Graph, name: RuntimeName, number: int, threads: int
) -> None:
    planes = planes_of(number)
    found = load_runtime(name, graph, threads=threads).run(planes)
    for one, reference in zip(found, plainly(graph, planes), strict=True):
        assert one.shape == reference.shape
        np.testing.assert_allclose(one, reference, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", PROCESSOR)
def test_several_threads_may_ask_the_same_runtime(graph: Graph, name: RuntimeName) -> None:
    runtime = load_runtime(name, graph, threads=2)
    asked = [planes_of(number) for number in (1, 4, 2, 7, 3, 5)]
    with ThreadPoolExecutor(3) as pool:
        for planes, found in zip(asked, pool.map(runtime.run, asked), strict=True):
            np.testing.assert_allclose(found[1], plainly(graph, planes)[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", PROCESSOR)
def test_a_runtime_knows_what_a_plane_is(graph: Graph, name: RuntimeName) -> None:
    assert load_runtime(name, graph).plane_shape == (3, 64, 64)


@pytest.mark.parametrize("cache", ["/dev/null/cache", "/proc"])
@pytest.mark.parametrize("name", PROCESSOR)
def test_a_cache_that_cannot_be_written_is_done_without(
    graph: Graph, name: RuntimeName, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSTEOSCOPE_CACHE", cache)
    planes = planes_of(2)
    found = load_runtime(name, graph, threads=2).run(planes)
    np.testing.assert_allclose(found[1], plainly(graph, planes)[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", PROCESSOR)
def test_a_graph_that_is_none_is_refused_by_name(tmp_path: Path, name: RuntimeName) -> None:
    (tmp_path / PLANES_GRAPH).write_bytes(b"no graph")
    with pytest.raises(BundleError, match=rf"planes\.onnx: cannot be loaded by {name}.*export it again"):
        load_runtime(name, read_graph(tmp_path / PLANES_GRAPH))


def test_a_runtime_that_is_not_installed_is_refused_with_the_way_to_it(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda _name: None)
    assert "openvino" not in runtimes_here()
    with pytest.raises(ConfigError, match=r"install osteoscope\[openvino\]"):
        load_runtime("openvino", graph)


def test_the_fastest_is_found_once_and_remembered(
    graph: Graph, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    seconds = {"onnxruntime": 2.0, "openvino": 1.0}

    def told(loaded: object, _threads: int) -> dict[str, float]:
        tried.append(loaded)
        return seconds

    monkeypatch.setattr(trial, "_tried", told)
    monkeypatch.setattr(trial, "runtimes_here", lambda: PROCESSOR)
    assert fastest_runtime(graph).name == "openvino"
    (memory,) = empty_cache.glob("runtimes/*.json")
    assert json.loads(memory.read_text()) == {"runtime": "openvino", "seconds": seconds}
    seconds["onnxruntime"] = 0.5
    assert fastest_runtime(graph).name == "openvino"
    assert len(tried) == 1
    # Another number of threads is another question.
    assert fastest_runtime(graph, threads=3).name == "onnxruntime"


def test_a_trial_times_every_runtime(graph: Graph, empty_cache: Path) -> None:
    chosen = fastest_runtime(graph, threads=2)
    (memory,) = empty_cache.glob("runtimes/*.json")
    seconds = json.loads(memory.read_text())["seconds"]
    assert set(seconds) == set(runtimes_here())
    assert min(seconds, key=seconds.get) == chosen.name
    assert all(value > 0 for value in seconds.values())


@pytest.mark.parametrize("content", ["", "[]", '{"runtime": "abacus"}', '{"runtime": "cuda"}'])
def test_a_memory_that_says_nothing_useful_is_tried_anew(
    graph: Graph, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(trial, "runtimes_here", lambda: PROCESSOR)
    fastest_runtime(graph, threads=1)
    (memory,) = empty_cache.glob("runtimes/*.json")
    memory.write_text(content)
    assert fastest_runtime(graph, threads=1).name in PROCESSOR
    assert json.loads(memory.read_text())["runtime"] in PROCESSOR


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OSTEOSCOPE_CACHE", str(tmp_path / "file" / "cache"))
    assert cache_folder().parent.is_file()
    assert fastest_runtime(graph, threads=1).run(planes_of(1))[0].shape == (1,)


def test_where_one_runtime_fails_the_other_is_taken(
    graph: Graph, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_openvino(name: RuntimeName, graph: Graph, *, threads: int | None = None) -> runtimes.Runtime:
        if name == "openvino":
            raise BundleError("cannot be loaded by openvino", path=graph.path)
        return load_runtime(name, graph, threads=threads)

    monkeypatch.setattr(trial, "runtimes_here", lambda: PROCESSOR)
    monkeypatch.setattr(trial, "load_runtime", without_openvino)
    assert fastest_runtime(graph).name == "onnxruntime"
    assert empty_cache.exists()


def test_an_engine_takes_the_runtime_that_it_is_told(graph: Graph) -> None:
    for name in PROCESSOR:
        assert MemberEngine(graph.path.parent, threads=1, runtime=name).runtime == name


@pytest.mark.parametrize("name", PROCESSOR)
def test_planes_apart_are_read_by_the_network_that_was_loaded_though_its_file_is_another(
    tmp_path: Path, name: RuntimeName
) -> None:
    folder = export_tiny(tmp_path / "member", channels=3)
    planes, path = planes_of(9), folder / PLANES_GRAPH
    expected = plainly(read_graph(path), planes)
    runtime = load_runtime(name, read_graph(path), threads=2)
    (export_tiny(tmp_path / "other", channels=3, seed=1) / PLANES_GRAPH).replace(path)
    # One plane alone, and then so many that each core has its own.
    np.testing.assert_allclose(runtime.run(planes[:1])[1], expected[1][:1], rtol=0, atol=1e-4)
    np.testing.assert_allclose(runtime.run(planes)[1], expected[1], rtol=0, atol=1e-4)
    assert np.abs(plainly(read_graph(path), planes)[1] - expected[1]).max() > 0.01


def test_on_a_gpu_float32_is_float32(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here: what the session would be asked for."""
    asked: list[object] = []
    session = onnxruntime.InferenceSession

    def noted(content: bytes, options: object, *, providers: list[object]) -> onnxruntime.InferenceSession:
        asked.extend(providers)
        return session(content, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    runtimes.CudaRuntime(graph, 1)
    assert asked == [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]


def test_compiled_networks_go_when_nobody_has_used_them_for_a_month(graph: Graph, empty_cache: Path) -> None:
    kept = empty_cache / "openvino"
    kept.mkdir(parents=True)
    now, day = time.time(), 24 * 60 * 60
    for name, used in (("old.blob", 31), ("used.blob", 29), ("notes.txt", 400)):
        (kept / name).write_bytes(b"x")
        os.utime(kept / name, (now - used * day, now - 400 * day))
    load_runtime("openvino", graph, threads=1)
    names = {path.name for path in kept.iterdir()}
    assert {"used.blob", "notes.txt"} < names
    assert "old.blob" not in names
