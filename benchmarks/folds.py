"""How much sooner folds are done beside each other than one after the other, and what threads within a fit would bring.

Made-up pictures, the standard preset's network and size, a few epochs. Three ways, in rounds that alternate, so that a
noisy machine is noisy for all. The last line is one JSON object.

    python benchmarks/folds.py [--threads N] [--rounds N] [--epochs N]

``beside_each_other``: seconds of folds one after the other on one thread each, by those of as many processes as
threads, starting them and reading the images included. ``threads_in_a_fit``: seconds of a fit on one thread, by those
on all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from leaks import CLASSES, Quiet, made_up_cases

from osteoscope.cohort.split import make_folds
from osteoscope.config import preset_config
from osteoscope.network.classifier import TumourNetwork
from osteoscope.training.crossval import run_folds
from osteoscope.training.device import choose_device, deterministic
from osteoscope.training.fit import FitPlan, fit
from osteoscope.training.fold import Work
from osteoscope.training.planes import load_cases
from osteoscope.training.side_by_side import processes_for

if TYPE_CHECKING:
    from osteoscope.cohort.split import Folds


def seconds_of_folds(work: Work, folds: Folds) -> float:
    """Fit all folds in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run_folds(work, folds, folder=Path(folder), watcher=Quiet("folds"))
        return time.perf_counter() - started


def seconds_of_a_fit(work: Work, threads: int) -> float:
    """Fit one network to all cases on so many threads."""
    store = load_cases(work.cases, work.config.preparation)
    network = TumourNetwork(work.config.network, classes=2)
    plan = FitPlan(
        store=store, cases=np.arange(len(work.cases)), classes=2, settings=work.config.training, stream=(0, 0)
    )
    with tempfile.TemporaryDirectory() as folder, deterministic(threads):
        history = fit(network, plan, fabric=work.device.fabric(), folder=Path(folder), watcher=lambda **_: None)
        return float(sum(record["seconds"] for record in history))


def main() -> None:
    """Time all three ways and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    several = choose_device("auto", options.threads)
    processes = processes_for(several)
    if processes < 2:
        parser.error("this takes a processor of two cores or more, and memory for two processes")
    config = preset_config("standard", folds=processes)
    changed = {"epochs": options.epochs, "members": "folds", "rehearsal": 0.0}
    config = config.model_copy(update={"training": config.training.model_copy(update=changed)})
    with tempfile.TemporaryDirectory() as scratch:
        cases = made_up_cases(Path(scratch))
        folds = make_folds(cases, folds=config.training.folds, repeats=1, seed=0, classes=CLASSES)
        beside = Work(cases=cases, config=config, device=several)
        alone = replace(beside, device=replace(several, threads=1))
        rounds = [
            (
                seconds_of_folds(alone, folds),
                seconds_of_folds(beside, folds),
                seconds_of_a_fit(alone, 1),
                seconds_of_a_fit(alone, several.threads),
            )
            for _ in range(options.rounds)
        ]
    one_by_one, together, one_thread, all_threads = (statistics.median(times) for times in zip(*rounds, strict=True))
    print(
        json.dumps(
            {
                "folds": config.training.folds,
                "processes": processes,
                "threads": several.threads,
                "precision": several.precision,
                "seconds_one_by_one": round(one_by_one, 1),
                "seconds_beside_each_other": round(together, 1),
                "beside_each_other": round(one_by_one / together, 2),
                "threads_in_a_fit": round(one_thread / all_threads, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
