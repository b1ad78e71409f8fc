"""A bundle that cannot be used is one line that names the file, and 3; nothing is written."""

from __future__ import annotations

import json
import re
import shutil
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from bundles import write_tiny_bundle
from PIL import Image

from osteoscope.cli.main import main
from osteoscope.inference import predictor
from osteoscope.storage import sha256_of_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from osteoscope.inference.predictor import Predictor


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 48), dtype=np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def faulted(bundle: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Predict in vain; give the line that says why."""
    output = picture.parent / "out"
    monkeypatch.setattr(sys, "argv", ["osteoscope", "predict", str(bundle), str(picture), "-o", str(output)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 3
    assert not output.exists()
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("osteoscope: ")
    return line


def newer(bundle: Path) -> None:
    manifest = bundle / "bundle.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema": 99}))
    (bundle / "bundle.json.sha256").write_text(f"{sha256_of_file(manifest)}  bundle.json\n")


def one_byte_changed(bundle: Path) -> None:
    graph = bundle / "members" / "0" / "planes.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (newer, r"bundle\.json: is of schema 99; this version of Osteoscope reads schemas .* \(install the version"),
        (one_byte_changed, r"members/0/planes\.onnx: has changed since it was written \(SHA-256 differs\)"),
        (lambda bundle: (bundle / "members/0/head.onnx").unlink(), r"lacks the file members/0/head\.onnx"),
        (shutil.rmtree, r"is not a bundle: it holds no bundle\.json"),
    ],
    ids=["newer schema", "other hash", "lacks a file", "nothing there"],
)
def test_a_damaged_bundle(
    scan_member: Path,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    bundle = write_tiny_bundle(picture.parent / "bundle", scan_member)
    damage(bundle)
    line = faulted(bundle, picture, monkeypatch, capsys)
    assert line.startswith(f"osteoscope: {bundle}")
    assert re.search(reason, line)


def truncated(graph: Path) -> None:
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])


def of_an_unknown_operator(graph: Path) -> None:
    model = onnx.load(graph)
    model.graph.node[0].op_type = "Divine"
    onnx.save(model, graph)


def of_an_unknown_opset(graph: Path) -> None:
    model = onnx.load(graph)
    for opset in model.opset_import:
        opset.version = 9999
    onnx.save(model, graph)


@pytest.mark.parametrize("graph", ["planes.onnx", "head.onnx"])
@pytest.mark.parametrize("damage", [truncated, of_an_unknown_operator, of_an_unknown_opset])
def test_a_graph_that_nothing_here_can_run_though_its_hash_is_right(
    scan_member: Path,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    graph: str,
    damage: Callable[[Path], None],
) -> None:
    member = shutil.copytree(scan_member, picture.parent / "member")
    damage(member / graph)
    bundle = write_tiny_bundle(picture.parent / "bundle", member)
    line = faulted(bundle, picture, monkeypatch, capsys)
    assert f"{bundle}/members/0/{graph}: cannot be loaded by" in line


@pytest.mark.parametrize("graph", ["planes.onnx", "head.onnx"])
def test_a_graph_that_is_removed_after_its_hash_was_compared(
    scan_member: Path,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    graph: str,
) -> None:
    bundle = write_tiny_bundle(picture.parent / "bundle", scan_member)
    load = predictor.load_predictor

    def removing(*arguments: object, **options: object) -> Predictor:
        (bundle / "members/0" / graph).unlink()
        return load(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(predictor, "load_predictor", removing)
    line = faulted(bundle, picture, monkeypatch, capsys)
    assert f"{bundle}/members/0/{graph}" in line
