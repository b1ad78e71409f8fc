"""A bundle that is handed on says in its graphs what its weights say, or it is not handed on."""

from __future__ import annotations

import importlib.util
import json
import shutil
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from bundles import export_tiny, write_tiny_bundle
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from osteoscope import workflow
from osteoscope.bundle.load import SeenCases, load_bundle, read_recalibration_cases, read_training_cases
from osteoscope.bundle.model_card import model_card
from osteoscope.cli.main import app
from osteoscope.errors import BundleError, MissingExtraError, StorageError
from osteoscope.inference.runtimes import runtimes_here
from osteoscope.training.export import PARITY

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", ["scan_bundle", "radiograph_bundle"])
def test_a_bundle_is_compared_on_every_runtime_and_written_anew(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    source: Path = request.getfixturevalue(kind)
    told: list[tuple[str, int, int]] = []
    made = workflow.export(source, tmp_path / "out", progress=lambda *said: told.append(said))
    assert [member.runtime for member in made.members] == list(runtimes_here())
    assert {(member.folder, member.opset) for member in made.members} == {("members/0", 20)}
    assert 0 < made.worst < PARITY
    assert [done for _, done, _ in told] == list(range(1, len(told) + 1))
    assert told[-1] == ("comparing graphs with weights", len(made.members), len(made.members))
    before, after = load_bundle(source), load_bundle(tmp_path / "out")
    assert after.manifest == before.manifest
    assert (tmp_path / "out" / "MODEL_CARD.md").read_text(encoding="utf-8") == model_card(after.manifest)


def test_notes_on_where_a_graph_was_made_are_not_handed_on(scan_member: Path, tmp_path: Path) -> None:
    member = shutil.copytree(scan_member, tmp_path / "member")
    for name in ("planes.onnx", "head.onnx"):
        model = onnx.load(member / name)
        model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value='File "/home/nobody/net.py"')
        onnx.save(model, member / name)
    bundle = write_tiny_bundle(tmp_path / "bundle", member)
    for path in bundle.rglob("*.*"):
        path.chmod(0o444)
    workflow.export(bundle, tmp_path / "out")
    for name in ("planes.onnx", "head.onnx"):
        assert b"/home/nobody" in (bundle / "members/0" / name).read_bytes()
        assert b"/home/nobody" not in (tmp_path / "out/members/0" / name).read_bytes()


def test_the_bundle_of_a_run_is_meant_where_a_run_is_named(scan_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(scan_bundle, tmp_path / "run" / "bundle")
    workflow.export(tmp_path / "run", tmp_path / "out")
    assert load_bundle(tmp_path / "out").manifest == load_bundle(scan_bundle).manifest


def test_what_the_bundle_has_seen_goes_with_it(scan_member: Path, tmp_path: Path) -> None:
    seen = SeenCases(patients=frozenset({"P1", "P2"}), pixels=frozenset({"a" * 64}))
    workflow.export(write_tiny_bundle(tmp_path / "bundle", scan_member, seen=seen), tmp_path / "out")
    after = load_bundle(tmp_path / "out")
    assert (read_training_cases(after), read_recalibration_cases(after)) == (seen, SeenCases())


def with_other_weights(member: Path, folder: Path, change: dict[str, float]) -> Path:
    """Copy a member whose weights are shifted; its graphs stay."""
    shutil.copytree(member, folder)
    tensors = load_file(folder / "weights.safetensors")
    for name, shift in change.items():
        tensors[name][0] += shift
    save_file(tensors, folder / "weights.safetensors")
    return folder


@pytest.mark.parametrize(("shift", "refused"), [(5e-5, False), (0.25, True)])
def test_a_logit_that_differs_by_so_much_is_a_difference_of_so_much(
    scan_member: Path, tmp_path: Path, shift: float, *, refused: bool
) -> None:
    member = with_other_weights(scan_member, tmp_path / "member", {"head.linear.bias": shift})
    bundle = write_tiny_bundle(tmp_path / "bundle", member)
    if refused:
        with pytest.raises(BundleError, match=r"members/0: its graphs differ from its weights by \S+ in onnxruntime"):
            workflow.export(bundle, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    parity = workflow.export(bundle, tmp_path / "out").members[0].parity
    # As a share of the largest logit, which float32 and the other outputs know nothing of.
    largest = shift / parity.logits
    assert 1 <= largest < 10
    assert max(parity.scores, parity.vectors, parity.maps, parity.lesions, parity.weights) < 2e-6


def test_weights_of_another_network_are_refused(scan_member: Path, tmp_path: Path) -> None:
    other = export_tiny(tmp_path / "other", channels=1)
    member = shutil.copytree(scan_member, tmp_path / "member")
    shutil.copyfile(other / "weights.safetensors", member / "weights.safetensors")
    bundle = write_tiny_bundle(tmp_path / "bundle", member)
    with pytest.raises(BundleError, match=r"weights\.safetensors: expected the weights of the network that"):
        workflow.export(bundle, tmp_path / "out")
    (member / "weights.safetensors").write_bytes(b"\x08" + b"\0" * 7 + b"nonsense")
    bundle = write_tiny_bundle(tmp_path / "bundle", member)
    with pytest.raises(BundleError, match=r"weights\.safetensors: expected the weights of the network that"):
        workflow.export(bundle, tmp_path / "out")


def test_a_bundle_is_not_written_into_itself_nor_over_something_else(scan_bundle: Path, tmp_path: Path) -> None:
    for output in (scan_bundle, scan_bundle / "members"):
        with pytest.raises(StorageError, match="lies in the bundle that is read"):
            workflow.export(scan_bundle, output)
    (tmp_path / "notes.txt").write_text("mine")
    told: list[object] = []
    with pytest.raises(StorageError, match="is already there and is not a bundle"):
        workflow.export(scan_bundle, tmp_path, progress=lambda *said: told.append(said))
    # That is found before anything is compared.
    assert told == []


def test_without_the_training_half_it_says_what_to_install(
    scan_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without_torch(name: str, *more: Any) -> Any:
        return None if name == "torch" else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", without_torch)
    with pytest.raises(MissingExtraError, match=r"needs torch, which is not installed.*osteoscope\[train\]"):
        workflow.export(scan_bundle, tmp_path / "out")


def test_the_command_sums_up_for_people_and_for_machines(scan_bundle: Path, tmp_path: Path) -> None:
    command = ["export", str(scan_bundle), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert "  members/0 in onnxruntime, opset 20: largest difference " in done.stdout
    assert done.stdout.splitlines()[-1] == f"Bundle: {tmp_path / 'out'}"
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert found["bundle"] == str(tmp_path / "out")
    assert found["worst"] == max(max(member["parity"].values()) for member in found["members"])
    assert set(found["members"][0]) == {"folder", "runtime", "opset", "parity"}
