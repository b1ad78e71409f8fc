"""Hand-made content of pages, in which every number is chosen and can be found again."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from osteoscope.report.content import (
    Accepted,
    AuditTables,
    Beside,
    CaseLink,
    ClassSummary,
    Finding,
    FoldCounts,
    LeftOut,
    LocalisationRow,
    Participants,
    StudyContent,
    Witness,
)

CLASSES = ("osteosarcoma", "giant cell tumor")
SLUGS = ("osteosarcoma", "giant-cell-tumor")


def figure(value: float | None, low: float | None = None, high: float | None = None, n: int = 50) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def by_class(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(SLUGS, (first, second), strict=True))


def level() -> dict[str, Any]:
    curve = {
        "roc": {"false_positive_rate": [0.0, 0.25, 1.0], "true_positive_rate": [0.0, 0.75, 1.0]},
        "pr": {"recall": [0.0, 0.5, 1.0], "precision": [1.0, 0.8, 0.6]},
    }
    bins = [
        {"predicted": 0.2, "observed": 0.1, "low": 0.02, "high": 0.33, "n": 25},
        {"predicted": 0.7, "observed": 0.9, "low": 0.71, "high": 0.97, "n": 24},
    ]
    return {
        "n": 50,
        "n_predictions": 50,
        "auc": figure(0.861, 0.792, 0.913),
        "accuracy": figure(0.82, 0.69, 0.9),
        "balanced_accuracy": figure(0.805, 0.66, 0.89),
        "brier": figure(0.131, 0.092, 0.178),
        "brier_prevalence": figure(0.24),
        "brier_prior": figure(0.25),
        "log_loss": figure(0.42, 0.31, 0.55),
        "ece": figure(0.063),
        "calibration_slope": figure(1.12, 0.74, 1.61),
        "calibration_intercept": figure(-0.31, -0.92, 0.27),
        "sensitivity": by_class(figure(0.83, 0.65, 0.93, 30), figure(0.8, 0.58, 0.92, 20)),
        "specificity": by_class(figure(0.81, 0.59, 0.93, 20), figure(0.84, 0.66, 0.94, 30)),
        "ppv": by_class(figure(0.87, 0.7, 0.95, 29), figure(0.76, 0.54, 0.89, 21)),
        "npv": by_class(figure(0.77, 0.55, 0.9, 21), figure(0.86, 0.69, 0.96, 29)),
        "f1": by_class(figure(0.85, 0.74, 0.94), figure(0.78, 0.62, 0.88)),
        "auc_by_class": by_class(figure(0.861, 0.792, 0.913), figure(0.861, 0.792, 0.913)),
        "average_precision": by_class(figure(0.89, 0.79, 0.96), figure(0.79, 0.64, 0.91)),
        "confusion": [[25, 5], [4, 16]],
        "curves": dict.fromkeys(SLUGS, curve),
        "reliability": dict.fromkeys(SLUGS, bins),
        "decided": figure(0.88, 0.76, 0.94),
        "accuracy_decided": figure(0.91, 0.79, 0.97, 44),
    }


def decision() -> dict[str, Any]:
    """Curves over three thresholds, a point by costs and two by sensitivity."""
    curve = {
        "net_benefit": [0.5, 0.31, 0.02], "low": [None, 0.24, 0.0], "high": [None, 0.37, 0.06],
        "standardised": [0.83, 0.52, 0.03], "treat_all": [0.49, 0.2, -1.0],
    }  # fmt: skip
    rates = {
        "sensitivity": figure(0.84, 0.66, 0.93, 30), "specificity": figure(0.79, 0.57, 0.92, 20),
        "ppv": figure(0.88, 0.71, 0.96), "npv": figure(0.73, 0.53, 0.87),
    }  # fmt: skip
    by_costs = {
        "class": SLUGS[0], "rule": "costs", "costs": {"false_positive": 1.0, "false_negative": 4.0},
        "net_benefit": figure(0.4, 0.3, 0.5), "expected_cost": figure(0.47, 0.31, 0.64),
        "cost_of_calling_all": 0.4, "cost_of_calling_none": 2.4, "threshold": 0.2, "threshold_as_stated": 0.143,
        **rates,
    }  # fmt: skip
    chosen = {
        "class": SLUGS[1], "rule": "sensitivity", "wanted": 0.9, "cross_fitted": True, "threshold": 0.12,
        "thresholds": {"low": 0.11, "high": 0.19}, **rates,
    }  # fmt: skip
    none = {"class": SLUGS[1], "rule": "sensitivity", "wanted": 0.95, "reason": "a fold leaves no patient"}
    return {
        "prevalence": dict(zip(SLUGS, (0.6, 0.4), strict=True)),
        "prevalence_of": "these patients",
        "thresholds": [0.2, 0.5, 0.8],
        "curves": dict.fromkeys(SLUGS, curve),
        "operating_points": [by_costs, chosen, none],
        "definitions": {},
    }


def subgroups() -> dict[str, Any]:
    """Two groups of sex, one of them too small."""
    shown = {
        "n": 38, "n_by_class": dict(zip(SLUGS, (22, 16), strict=True)), "auc": figure(0.871, 0.742, 0.951, 38),
        "brier": figure(0.128, 0.083, 0.182, 38),
        "sensitivity": by_class(figure(0.82, 0.61, 0.93, 22), figure(0.81, 0.57, 0.93, 16)),
        "specificity": by_class(figure(0.81, 0.57, 0.93, 16), figure(0.82, 0.61, 0.93, 22)),
    }  # fmt: skip
    hidden = {**figure(None, n=7), "reason": "withheld: fewer than 10 patients"}
    small = {
        "n": 7, "n_by_class": dict(zip(SLUGS, (4, 3), strict=True)), "auc": hidden, "brier": hidden,
        "sensitivity": by_class(hidden, hidden), "specificity": by_class(hidden, hidden),
    }  # fmt: skip
    test = {
        "groups": 2, "n": 45, "permutations": 2000, "auc": {"p_value": 0.0005, "p_holm": 0.001},
        "balanced_accuracy": {"p_value": 0.21, "p_holm": 0.42},
    }  # fmt: skip
    return {
        "groupings": {
            "sex": {"groups": {"female": shown, "male": small}, "heterogeneity": test},
            "body_site": {"groups": {"femur": shown}, "heterogeneity": {"reason": "fewer than two groups"}},
        },
        "definitions": {},
    }


def power() -> dict[str, Any]:
    return {
        "counts": dict(zip(SLUGS, (30, 20), strict=True)), "level": 0.95, "power": 0.8, "correlation": 0.5,
        "half_width": 0.05, "class": SLUGS[1], "smallest_auc": 0.72,
        "auc": [
            {"auc": 0.8, "low": 0.65, "high": 0.9, "smallest_paired_difference": 0.17, "needed_per_class": 146},
            {"auc": 0.95, "low": 0.83, "high": 0.99, "smallest_paired_difference": None, "needed_per_class": None},
        ],
        "sensitivity": [
            {
                "sensitivity": 0.8, "needed": 1245,
                "of": by_class({"low": 0.63, "high": 0.9}, {"low": 0.58, "high": 0.92}),
            }
        ],
        "sentences": ["A cohort like this shows little."],
    }  # fmt: skip


@pytest.fixture
def metrics() -> dict[str, Any]:
    """A ``metrics.json`` of 50 patients."""
    return {
        "schema": 1,
        "classes": list(CLASSES),
        "slugs": list(SLUGS),
        "n_patients": 50,
        "n_images": 81,
        "prior": dict(zip(SLUGS, (0.5, 0.5), strict=True)),
        "prevalence": dict(zip(SLUGS, (30, 20), strict=True)),
        "roi": "none",
        "seed": 7,
        "estimates": "The figures estimate the procedure.",
        "patient": level(),
        "image": level(),
        "baselines": {"picture_geometry": {"auc": figure(0.68, 0.52, 0.81)}},
        "localisation": {},
    }


@pytest.fixture
def study(metrics: dict[str, Any]) -> StudyContent:
    """A run's report with something in every part."""
    plain = {**metrics, "patient": {**level(), "auc": figure(0.774, 0.641, 0.872)}}
    parts = {
        "reliability": 0.011, "resolution": 0.12, "uncertainty": 0.24, "spread": 0.004, "covariance": 0.006,
        "reliability_corrected": -0.0041, "resolution_corrected": 0.1139, "uncertainty_corrected": 0.2449,
    }  # fmt: skip
    metrics = {
        **metrics,
        "patient": {
            **metrics["patient"], "auc_delong": figure(0.861, 0.733, 0.934), "decision": decision(),
            "auc_within_folds": figure(0.884, 0.756, 0.951),
            "brier_parts": {name: figure(value) for name, value in parts.items()},
        },
        "localisation": {"regions": {"images": 1081, "found": figure(0.834, 0.771, 0.889), "none": 4, "several": 13}},
        "coarsest_grouping": {"n_groups": 43, "n_patients": 50, "auc": figure(0.849, 0.751, 0.922, 43)},
        "subgroups": subgroups(),
        "power": power(),
    }  # fmt: skip
    return StudyContent(
        title="A study",
        kind="run",
        classes=CLASSES,
        slugs=SLUGS,
        metrics=metrics,
        model_name="optimised network",
        beside=(Beside(name="plain network", metrics=plain, auc_difference=figure(0.087, -0.014, 0.181)),),
        history=tuple(
            {"repeat": 0, "fold": fold, "epoch": epoch, "loss": 1.0 / epoch, "learning_rate": 1e-3, "seconds": 2.0}
            for fold in range(2)
            for epoch in (1, 2, 3)
        ),
        participants=Participants(
            images=1231,
            patients=567,
            left_out=(LeftOut(reason="unreadable", entries=3),),
            auxiliary_images=1150,
            auxiliary_patients=517,
            classes=tuple(
                ClassSummary(
                    name=name, patients=patients, images=images, age_median=age, age_quartiles=(age - 4, age + 9),
                    age_missing=2, sex={"female": 11, "male": patients - 11}, sites={"femur": patients},
                )
                for name, patients, images, age in zip(CLASSES, (30, 20), (50, 31), (16, 31), strict=True)
            ),
        ),
        folds=tuple(
            FoldCounts(
                repeat=0, fold=fold, training_patients=25, test_patients=25, training_images=41, test_images=40,
                shared_patients=0, shared_images=0,
            )
            for fold in range(2)
        ),
        findings=(
            Finding(
                kind="shortcut", severity="warn", cases=("P1", "P2"), message="Size tells the class.",
                remedy="bring them to one size",
            ),
            Finding(kind="small-cohort", severity="note", cases=(), message="There are few."),
        ),
        accepted=(
            Accepted(
                kind="centre-shortcut", because="there is one centre only",
                findings=(Finding(kind="centre-shortcut", severity="block", cases=("P3",), message="Centre tells."),),
            ),
        ),
        audit_tables=AuditTables(
            shortcuts=(
                Witness(sees="picture geometry", auc=figure(0.681, 0.522, 0.813), apart="one from the other"),
                Witness(sees="centre", auc={**figure(None), "reason": "it is not recorded"}),
            ),
            by_class={
                "age": {
                    CLASSES[0]: {
                        "known": 28, "missing": 2, "least": 5.0, "quartiles": [12.0, 16.0, 25.0], "greatest": 60.0,
                    },
                    CLASSES[1]: {"known": 0, "missing": 20, "least": None, "quartiles": None, "greatest": None},
                },
                "sex": {CLASSES[0]: {"male": 19, "female": 11}, CLASSES[1]: {"female": 20}},
                "treated": {name: {"not recorded": 20} for name in CLASSES},
            },
        ),
        settings={"network.trunk": "densenet121", "network.attention": True, "training.epochs": 40},
        provenance={"seed": 7, "cohort_fingerprint": "c0ffee"},
        cases=(
            CaseLink(patient="right", label=CLASSES[0], probabilities=(0.9, 0.1), verdict=CLASSES[0], href="r.html"),
            CaseLink(patient="unproven", label=None, probabilities=(0.01, 0.99), verdict=CLASSES[1]),
            CaseLink(patient="wrong", label=CLASSES[1], probabilities=(0.8, 0.2), verdict=CLASSES[0]),
            CaseLink(patient="unsure", label=CLASSES[0], probabilities=(0.55, 0.45), verdict="indeterminate"),
        ),
        localisation=(
            LocalisationRow(
                name="evidence", iou=figure(0.31, 0.27, 0.35), pointing=figure(0.55, 0.48, 0.62),
                energy=figure(0.38, 0.34, 0.42), is_evidence=True,
            ),
            LocalisationRow(
                name="random map", iou=figure(0.08, 0.04, 0.12), pointing=figure(0.11, 0.06, 0.18),
                energy=figure(0.1, 0.09, 0.12),
            ),
        ),
        auxiliary={
            "images": 1085, "patients": 490, "minutes": 52.31, "fingerprint": "cafe" * 16,
            "kinds": {"osteochondroma": 512, "simple bone cyst": 113}, "sites": {"tibia": 350}, "views": {},
        },
        warnings=("Patients were guessed.",),
    )  # fmt: skip


class Page(HTMLParser):
    """What a browser would find in a page: tags with their attributes, and the text outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        """All text, with plain single spaces."""
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def read_page() -> type[Page]:
    """Read a page as a browser would."""
    return Page
