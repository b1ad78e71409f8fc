"""One function a verb: what the command line, services and Python users call alike.

Nothing heavy is imported before it is needed, and nothing is printed: progress goes to watchers, results come back.
"""

from osteoscope.workflow.cohorts import (
    ArchiveSummary,
    AuditSummary,
    CohortSummary,
    audit_cohort,
    cohort_from_btxrd,
    cohort_from_dicom,
    cohort_from_nifti,
    cohort_from_table,
    wishes,
)
from osteoscope.workflow.comparing import ComparisonSummary, compare
from osteoscope.workflow.contact_sheets import ContactSheetSummary, show_cohort
from osteoscope.workflow.deidentifying import DeidentificationSummary, deidentify
from osteoscope.workflow.demonstrating import DemoSummary, DemoWatcher, demo
from osteoscope.workflow.evaluating import evaluate
from osteoscope.workflow.exporting import ExportSummary, export
from osteoscope.workflow.inspecting import Inspection, inspect
from osteoscope.workflow.outlining import OutlineSummary, outline_lesion
from osteoscope.workflow.phantoms import PhantomSummary, make_phantoms
from osteoscope.workflow.predicting import PredictionSummary, predict
from osteoscope.workflow.recalibrating import RecalibrationSummary, recalibrate
from osteoscope.workflow.robustness import RobustnessSummary, sweep_robustness
from osteoscope.workflow.study import StudySummary
from osteoscope.workflow.training import train, training_config

__all__ = [
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
