"""One function a verb: what the command line, services and Python users call alike.

Nothing heavy is imported before it is needed, and nothing is printed: progress goes to watchers, results come back.
"""

from osteoscope.workflow.cohorts import (
    AuditSummary,
    CohortSummary,
    audit_cohort,
    cohort_from_btxrd,
    cohort_from_table,
)
from osteoscope.workflow.comparing import ComparisonSummary, compare
from osteoscope.workflow.demonstrating import DemoSummary, DemoWatcher, demo
from osteoscope.workflow.evaluating import evaluate
from osteoscope.workflow.inspecting import Inspection, inspect
from osteoscope.workflow.phantoms import PhantomSummary, make_phantoms
from osteoscope.workflow.predicting import PredictionSummary, predict
from osteoscope.workflow.recalibrating import RecalibrationSummary, recalibrate
from osteoscope.workflow.robustness import RobustnessSummary, sweep_robustness
from osteoscope.workflow.study import StudySummary
from osteoscope.workflow.training import train, training_config

__all__ = [
    "AuditSummary",
    "CohortSummary",
    "ComparisonSummary",
    "DemoSummary",
    "DemoWatcher",
    "Inspection",
    "PhantomSummary",
    "PredictionSummary",
    "RecalibrationSummary",
    "RobustnessSummary",
    "StudySummary",
    "audit_cohort",
    "cohort_from_btxrd",
    "cohort_from_table",
    "compare",
    "demo",
    "evaluate",
    "inspect",
    "make_phantoms",
    "predict",
    "recalibrate",
    "sweep_robustness",
    "train",
    "training_config",
]
