"""The house: layers, light imports, the public names, the settings."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import osteoscope
from osteoscope import workflow

SOURCE = Path(osteoscope.__file__).parent

# Each room may import from those above it, and from itself.
LAYERS = (
    "errors",
    "storage",
    "config",
    "processes",
    "evaluation",
    "imaging",
    "cohort",
    "phantom",
    "bundle",
    "inference",
    "network",
    "training",
    "report",
    "workflow",
    "cli",
)


def imports_of(path: Path) -> set[str]:
    """Names of all modules that a file imports, at its top or inside its functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if path.parent != SOURCE or path.name != "__init__.py"]


def test_every_room_has_its_place() -> None:
    assert {room_of(path) for path in modules()} == set(LAYERS)


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_room_imports_only_from_those_above_it(path: Path) -> None:
    own = LAYERS.index(room_of(path))
    used = {name.split(".")[1] for name in imports_of(path) if name.startswith("osteoscope.")}
    below = {room for room in used & set(LAYERS) if LAYERS.index(room) > own}
    assert not below, f"{path.name} imports from {below}, which stand below it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_torch_stays_in_the_training_half(path: Path) -> None:
    heavy = {name for name in imports_of(path) if name.split(".")[0] in {"torch", "monai", "lightning_fabric"}}
    assert not heavy or room_of(path) in {"network", "training"}


def loaded_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter holds after running some code."""
    script = f"{code}\nimport sys; print(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"torch", "monai", "matplotlib", "pandas", "scipy", "sklearn", "onnxruntime"}
HELP = """
import sys
sys.argv = ["osteoscope", "--help"]
from osteoscope.cli.main import main
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    ("code", "heavy"),
    [("import osteoscope", HEAVY | {"numpy"}), (HELP, HEAVY | {"numpy"}), ("import osteoscope.workflow", HEAVY)],
    ids=["package", "help", "workflow"],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str, heavy: set[str]) -> None:
    assert not loaded_by(code) & heavy


def test_the_using_half_loads_no_torch_and_no_tables() -> None:
    code = "import osteoscope.inference.predictor, osteoscope.bundle.load, osteoscope.imaging.picture"
    assert not loaded_by(code) & {"torch", "monai", "matplotlib", "pandas", "sklearn", "scipy"}


def test_the_public_names_are_the_intended_ones() -> None:
    assert osteoscope.__all__ == ["OsteoscopeError", "__version__"]
    assert workflow.__all__ == [
        "ArchiveSummary",
        "AuditSummary",
        "CohortSummary",
        "ComparisonSummary",
        "ContactSheetSummary",
        "DeidentificationSummary",
        "DemoSummary",
        "DemoWatcher",
        "ExportSummary",
        "Inspection",
        "OutlineSummary",
        "PhantomSummary",
        "PredictionSummary",
        "RecalibrationSummary",
        "RobustnessSummary",
        "StudySummary",
        "audit_cohort",
        "cohort_from_btxrd",
        "cohort_from_dicom",
        "cohort_from_nifti",
        "cohort_from_table",
        "compare",
        "deidentify",
        "demo",
        "evaluate",
        "export",
        "inspect",
        "make_phantoms",
        "outline_lesion",
        "predict",
        "recalibrate",
        "show_cohort",
        "sweep_robustness",
        "train",
        "training_config",
        "wishes",
    ]


def test_no_function_prints_and_nothing_is_pickled() -> None:
    for path in modules():
        text = path.read_text(encoding="utf-8")
        assert "pickle" not in text.replace("allow_pickle=False", "").replace("No pickle", ""), path
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"print", "eval", "exec"}, path
