"""The whole way of eight bits: a run is exported with them, and studies are predicted by them or told why not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from osteoscope import workflow
from osteoscope.bundle.format import INT8_GRAPH, Int8
from osteoscope.bundle.load import load_bundle
from osteoscope.bundle.write import write_bundle
from osteoscope.cli.main import app
from osteoscope.cohort.table import cases, read_cohort
from osteoscope.errors import BundleError, InputError, MissingExtraError, RunError
from osteoscope.inference.engine import MemberEngine
from osteoscope.inference.predict import prepare_case
from osteoscope.inference.predictor import load_predictor
from osteoscope.training import quantise
from osteoscope.training.crossval import first_repeat

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from osteoscope.bundle.format import Precision
    from osteoscope.inference.engine import Judgement, PlaneReadings
    from osteoscope.training.fold import FoldOutcome

PRECISIONS: tuple[Precision, ...] = ("float32", "int8")


@pytest.fixture(scope="module")
def exported(run_folder: Path, cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that offers eight bits, whatever they do to a network that has learnt for a few seconds."""
    target = tmp_path_factory.mktemp("int8") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantise, "LARGEST_DROP", 1.0)
        patch.setattr(quantise, "LEAST_CORRELATION", 0.0)
        workflow.export(run_folder, target, int8=True, cohort=cohort_folder)
    return target


def test_the_bundle_holds_both_graphs_and_says_what_the_second_costs(exported: Path) -> None:
    bundle = load_bundle(exported)
    found = bundle.manifest.int8
    assert found is not None
    assert found.offered
    assert found.patients == 24
    assert 0 < found.least_map_correlation <= found.map_correlation <= 1
    for member in bundle.manifest.members:
        assert (exported / member.folder / INT8_GRAPH).is_file()
    assert "In eight bits (`--int8`) the out-of-fold AUC is" in (exported / "MODEL_CARD.md").read_text()


def auc_of(outcomes: Sequence[FoldOutcome]) -> float:
    """AUC of the folds' logits, before calibration, which may shift folds against each other."""
    predictions = [case.prediction for outcome in outcomes for case in outcome.cases]
    differences = [one.logits[1] - one.logits[0] for one in predictions]
    return float(roc_auc_score([one.label for one in predictions], differences))


def test_the_figures_of_float32_are_those_of_the_run(exported: Path, run_folder: Path) -> None:
    found = load_bundle(exported).manifest.int8
    assert found is not None
    assert found.auc_float32 == pytest.approx(auc_of(first_repeat(run_folder)), abs=1e-12)


class TurnedInEightBits(MemberEngine):
    """Says the opposite in eight bits, with the same maps."""

    def __init__(self, folder: Path, **how: Any) -> None:
        super().__init__(folder, **how)
        self._sign = -1 if how.get("precision") == "int8" else 1

    def judge(self, readings: PlaneReadings, covariates: NDArray[np.float32] | None = None) -> Judgement:
        judged = super().judge(readings, covariates)
        return replace(judged, logits=self._sign * judged.logits)


def test_eight_bits_that_judge_patients_otherwise_are_not_offered(
    exported: Path, run_folder: Path, cohort_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def every_third_mislabelled(outcome: FoldOutcome) -> FoldOutcome:
        """With some labels wrong the AUC is a number that nothing else has."""
        predictions = [case.prediction for case in outcome.cases]
        said = [
            one if place % 3 else one.model_copy(update={"label": 1 - (one.label or 0)})
            for place, one in enumerate(predictions)
        ]
        pairs = zip(outcome.cases, said, strict=True)
        return replace(outcome, cases=tuple(replace(case, prediction=one) for case, one in pairs))

    monkeypatch.setattr(quantise, "MemberEngine", TurnedInEightBits)
    outcomes = [every_third_mislabelled(outcome) for outcome in first_repeat(run_folder)]
    manifest = load_bundle(exported).manifest
    found = quantise.judge_int8(
        outcomes,
        cases(read_cohort(cohort_folder)),
        manifest.preparation,
        [exported / member.folder for member in manifest.members],
        progress=lambda _done, _total: None,
    )
    expected = auc_of(outcomes)
    assert 0.5 < expected < 1
    assert found.auc_float32 == pytest.approx(expected, abs=1e-12)
    assert found.auc_int8 == pytest.approx(1 - expected, abs=0.05)
    assert not found.offered
    assert found.reason is not None
    assert found.reason.startswith("the out-of-fold AUC drops by")


def test_a_predictor_of_eight_bits_says_nearly_the_same(exported: Path, other_cohort_folder: Path) -> None:
    bundle = load_bundle(exported)
    full, rounded = (load_predictor(bundle, precision=precision, threads=1) for precision in PRECISIONS)
    looks = [prepare_case(case, full.preparation).first_planes() for case in cases(read_cohort(other_cohort_folder))]
    planes = np.concatenate(looks)
    for ours, theirs in zip(full.members, rounded.members, strict=True):
        assert theirs.engine.runtime == "openvino"
        one, other = ours.engine.read(planes).maps, theirs.engine.read(planes).maps
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9
        # Two runtimes of float32 differ by a millionth.
        assert np.abs(one - other).max() > 1e-3 * np.ptp(one)


def test_a_bundle_that_lost_too_much_ships_float32_alone_and_says_why(
    run_folder: Path, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "LEAST_CORRELATION", 1.0)
    target = tmp_path / "bundle"
    made = workflow.export(run_folder, target, int8=True, cohort=cohort_folder)
    assert made.int8 is not None
    assert not made.int8.offered
    assert not list(target.rglob(INT8_GRAPH))
    assert "Eight bits are not offered: " in (target / "MODEL_CARD.md").read_text()
    with pytest.raises(BundleError, match=r"offers no eight bits: .*leave --int8 out"):
        load_predictor(load_bundle(target), precision="int8")


def test_a_bundle_that_never_tried_says_how_to(run_folder: Path) -> None:
    with pytest.raises(BundleError, match=r"that was never tried .*export the run with --int8"):
        load_predictor(load_bundle(run_folder / "bundle"), precision="int8")


def test_recalibration_keeps_them(exported: Path, other_cohort_folder: Path, tmp_path: Path) -> None:
    workflow.recalibrate(exported, other_cohort_folder, tmp_path / "again")
    again = load_bundle(tmp_path / "again")
    assert again.manifest.int8 == load_bundle(exported).manifest.int8
    assert len(list((tmp_path / "again").rglob(INT8_GRAPH))) == len(again.manifest.members)


def test_it_takes_the_run_and_its_own_cohort(
    run_folder: Path, other_cohort_folder: Path, scan_bundle: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--int8 takes the cohort of the run"):
        workflow.export(run_folder, tmp_path / "out", int8=True)
    with pytest.raises(InputError, match="is another cohort than the run's"):
        workflow.export(run_folder, tmp_path / "out", int8=True, cohort=other_cohort_folder)
    with pytest.raises(RunError, match="is not a run"):
        workflow.export(scan_bundle, tmp_path / "out", int8=True, cohort=cohort_folder)
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_whether_they_are_offered(
    run_folder: Path, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "LEAST_CORRELATION", 1.0)
    arguments = ["export", str(run_folder), "-o", str(tmp_path / "out"), "--int8", "--cohort", str(cohort_folder)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    assert "Eight bits: not offered: its maps correlate by" in done.stdout


def test_without_openvino_the_way_to_it_is_named(
    run_folder: Path, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*libraries: str) -> None:
        if "openvino" in libraries:
            raise MissingExtraError("openvino", "openvino")

    monkeypatch.setattr("osteoscope.workflow.exporting.require", without)
    with pytest.raises(MissingExtraError, match=r"osteoscope\[openvino\]"):
        workflow.export(run_folder, tmp_path / "out", int8=True, cohort=cohort_folder)


def test_a_prediction_says_what_it_was_computed_with(exported: Path, other_cohort_folder: Path, tmp_path: Path) -> None:
    """The bundle reads the box of a lesion, so that it predicts nothing here; made to read whole images, it does."""
    bundle = load_bundle(exported)
    whole = bundle.manifest.model_copy(
        update={"preparation": bundle.manifest.preparation.model_copy(update={"roi": "none"})}
    )
    folders = [exported / member.folder for member in whole.members]
    write_bundle(whole, tmp_path / "bundle", member_folders=folders, training_cases=bundle.seen)
    picture = next((other_cohort_folder.parent / "images").glob("*.png"))
    said = {}
    for precision in PRECISIONS:
        workflow.predict(tmp_path / "bundle", [picture], tmp_path / "out", precision=precision)
        (written,) = (tmp_path / "out").glob("*/prediction.json")
        said[precision] = json.loads(written.read_text())
    assert said["int8"]["bundle"]["precision"] == "int8"
    assert said["float32"]["request"] != said["int8"]["request"]
    ours, theirs = (list(said[precision]["probabilities"].values()) for precision in PRECISIONS)
    assert ours == pytest.approx(theirs, abs=0.1)


def test_what_a_manifest_says_of_eight_bits_is_read_back() -> None:
    said = {
        "offered": False, "reason": "so", "auc_float32": 0.9, "auc_int8": 0.8, "map_correlation": 0.9,
        "least_map_correlation": 0.5, "patients": 3,
    }  # fmt: skip
    assert Int8.model_validate(said).model_dump(mode="json") == said
