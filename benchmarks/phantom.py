"""How well a network that learnt on phantoms reads phantoms of a site that it never saw, beside what can be known.

Trained by cross-validation on patients of simulated sites A and B, the bundle is judged at site C:

- ``share_of_way``: of the way from the AUC of clinical data alone to that of the exact likelihood ratio, what the
  network's AUC covers; asked is 0.8;
- ``maps_above_controls``: how many of the control maps have less of their energy in the discriminative voxels than the
  evidence has, with a paired interval that excludes zero; asked is all of them, 3;
- ``counterfactual_share``: of the mineralised osteosarcomas, those whose p(osteosarcoma) is lower once the matrix is
  taken out; asked is 0.9.

Phantoms are evidence of nothing clinical. The last line is one JSON object.

    python benchmarks/phantom.py [-o FOLDER] [--patients 120] [--held-out 60] [--preset standard]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from osteoscope import workflow
from osteoscope.cli.demo import Watcher

SEED = 1


def figures(made: workflow.DemoSummary, minutes: float) -> dict[str, Any]:
    """Take the figures that the issue asks for from an evaluation with truth."""
    metrics = made.evaluation.metrics
    truth = metrics["truth"]
    maps = (row for row in truth["localisation"].values() if isinstance(row, dict))
    differences = [row["energy_difference"] for row in maps if "energy_difference" in row]
    return {
        "share_of_way": truth["bayes"]["way_covered"]["value"],
        "maps_above_controls": sum(difference["low"] > 0 for difference in differences),
        "counterfactual_share": truth["counterfactual"]["fallen"]["value"],
        "minutes": minutes,
        "auc": metrics["patient"]["auc"],
        "truth": truth,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="keeps what is made, and goes on from it")
    parser.add_argument("--patients", type=int, default=120, help="of sites A and B")
    parser.add_argument("--held-out", type=int, default=60, help="of site C")
    parser.add_argument("--preset", choices=["quick", "standard", "full"], default="standard")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        made = workflow.demo(
            asked.output or Path(scratch),
            watcher=Watcher(),
            patients=asked.patients,
            held_out=asked.held_out,
            seed=SEED,
            preset=asked.preset,
        )
        minutes = (time.perf_counter() - start) / 60
    print(json.dumps(figures(made, minutes)))


if __name__ == "__main__":
    main()
