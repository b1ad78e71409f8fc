"""The published shape of a prediction, and what it does not let be said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from osteoscope.inference.result import StudyPrediction, prediction_schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "prediction.schema.json"

ANSWER: dict[str, Any] = {
    "schema": 1,
    "osteoscope": "0.1.0",
    "request": "0" * 64,
    "notice": "Research.",
    "study": "0123456789ab",
    "verdict": "a",
    "reasons": [],
    "probabilities": {"a": 0.75, "b": 0.25},
    "prior": {"a": 0.5, "b": 0.5},
    "classes": {"a": "A", "b": "B"},
    "level": 0.9,
    "research": False,
    "covariates": ["age"],
    "images": [],
    "overlays": [],
    "not_used": [{"name": "0123456789ab", "modality": "CT", "code": "localiser", "reason": "a scout"}],
    "refused": [{"files": 2, "code": "damaged", "reason": "broken", "remedy": None}],
    "bundle": {
        "sha256": "0" * 64,
        "osteoscope": "0.1.0",
        "members": 5,
        "precision": "float32",
        "provenance": "clinical",
    },
}


def test_the_published_shape_is_that_of_the_models() -> None:
    written = json.dumps(prediction_schema(), indent=2) + "\n"
    assert PUBLISHED.read_text(encoding="utf-8") == written, "write docs/prediction.schema.json anew (docs/predict.md)"


def test_a_prediction_survives_json() -> None:
    read = StudyPrediction.model_validate(ANSWER)
    assert read.to_json() == ANSWER
    assert StudyPrediction.model_validate_json(json.dumps(read.to_json())) == read


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "c"},
        {"verdict": "indeterminate", "probabilities": None},
        {"verdict": "out_of_scope"},
        {"study": "Doe^John"},
        {"probabilities": {"a": 1.5, "b": -0.5}},
        {"surprise": 1},
    ],
)
def test_what_contradicts_itself_is_no_prediction(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StudyPrediction.model_validate(ANSWER | change)


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "indeterminate"},
        {"verdict": "out_of_scope", "probabilities": None},
        {"verdict": "out_of_scope", "research": True},
    ],
)
def test_what_may_be_said(change: dict[str, Any]) -> None:
    assert StudyPrediction.model_validate(ANSWER | change).verdict == change["verdict"]
