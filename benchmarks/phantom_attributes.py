"""How far a learner gets on phantoms that sees every attribute without error: what so few patients can teach at all.

For each of many draws of patients, as `benchmarks/phantom.py` takes them, learners are taught the true attributes of
sites A and B and judged at site C; so is the better of two on clinical data alone, and so is the exact likelihood
ratio. No image is made. The share of the way from clinical data to the likelihood ratio that the better learner covers
stands beside what a network is asked to cover from images.

The last line is one JSON object: ``share_of_way``, mean over the draws, with the 10th and 90th percentile.

    python benchmarks/phantom_attributes.py [--patients 120] [--held-out 60] [--draws 200]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from osteoscope.phantom.patients import draw_patients, log_likelihood_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osteoscope.phantom.patients import Patient

CLINICAL = ("age", "sex", "level")
"""What is known without an image."""

_UNSEEN = ["centre", "vertebra"]
"""What no learner is told: the site is another one, and the vertebra has too many names."""


def table(patients: Sequence[Patient]) -> pd.DataFrame:
    """Give attributes as numbers, one column each or one for each of their values."""
    frame = pd.DataFrame([asdict(patient.attributes) for patient in patients]).drop(columns=_UNSEEN)
    return pd.get_dummies(frame, columns=list(frame.select_dtypes(["object", "string"])), dtype=float).astype(float)


def learners() -> dict[str, Any]:
    """Build what is taught: a line and a forest, each with settings that were not chosen on any draw."""
    line = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
    forest = RandomForestClassifier(300, min_samples_leaf=3, class_weight="balanced", random_state=0)
    return {"logistic": make_pipeline(StandardScaler(), line), "forest": forest}


def aucs(seed: int, patients: int, held_out: int) -> dict[str, float]:
    """Draw patients once; AUC at site C by what was seen and who learnt."""
    taught, judged = draw_patients(patients, seed, ("A", "B")), draw_patients(held_out, seed + 1, ("C",))
    labels = [[one.label == "osteosarcoma" for one in some] for some in (taught, judged)]
    seen = table(taught)
    asked = table(judged).reindex(columns=seen.columns, fill_value=0.0)
    every = [str(name) for name in seen.columns]
    clinical = [name for name in every if name.split("_")[0] in CLINICAL]
    found = {"bayes": roc_auc_score(labels[1], [log_likelihood_ratio(one.attributes) for one in judged])}
    for what, columns in {"clinical": clinical, "attributes": every}.items():
        for name, learner in learners().items():
            learner.fit(seen[columns], labels[0])
            found[f"{what}, {name}"] = roc_auc_score(labels[1], learner.predict_proba(asked[columns])[:, 1])
    return {name: float(auc) for name, auc in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=120, help="of sites A and B")
    parser.add_argument("--held-out", type=int, default=60, help="of site C")
    parser.add_argument("--draws", type=int, default=200)
    asked = parser.parse_args()
    drawn = pd.DataFrame([aucs(2 * draw, asked.patients, asked.held_out) for draw in range(asked.draws)])
    means = drawn.mean()
    best = {what: str(means.filter(like=f"{what},").idxmax()) for what in ("clinical", "attributes")}
    least, reached = drawn[best["clinical"]], drawn[best["attributes"]]
    # Of the means: a single draw may leave next to no way.
    share = (means[best["attributes"]] - means[best["clinical"]]) / (means["bayes"] - means[best["clinical"]])
    shares = (reached - least) / (drawn["bayes"] - least)
    print(drawn.quantile([0.1, 0.5, 0.9]).round(3).to_string())
    print(
        json.dumps(
            {
                "share_of_way": round(float(share), 3),
                "share_of_way_percentiles": np.round(np.percentile(shares, [10, 90]), 3).tolist(),
                "share_asked_is_reached_in": round(float((shares >= 0.8).mean()), 3),
                "auc": means.round(3).to_dict(),
                "draws": asked.draws,
            }
        )
    )


if __name__ == "__main__":
    main()
