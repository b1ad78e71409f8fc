"""A run that is killed in an epoch, in a checkpoint's rename and between folds ends with the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.config import Config

# Runs `train` in a process of its own that kills itself, as `kill -9` would, at the place it is told.
DRIVER = """
import os, signal, sys
from pathlib import Path

cohort, run, config, where = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

from osteoscope.config import read_config
from osteoscope.training import augment, crossval
from osteoscope.training.augment import apply_changes
from osteoscope import workflow

calls = 0

def apply_and_die(canvases, lesions, changes):
    global calls
    calls += 1
    # 24 patients in 2 folds and batches of 8: two steps an epoch, so the 12th is in the 6th, after a checkpoint.
    if calls == 12:
        die()
    return apply_changes(canvases, lesions, changes)

rename = Path.replace

def die_in_rename(self, target):
    if Path(target).name.startswith("checkpoint-"):
        die()
    return rename(self, target)

class Watcher:
    def auxiliary_epoch(self, **_): pass
    def fits_planned(self, **_): pass
    def fit_started(self, **_): pass
    def epoch_done(self, **_): pass
    def stage(self, name, **_): pass
    def fold_done(self, outcome):
        if where == "between-folds" and outcome.number == 0:
            die()

if where == "epoch":
    augment.apply_changes = apply_and_die
if where == "rename":
    Path.replace = die_in_rename
workflow.train(Path(cohort), Path(run), config=read_config(Path(config)), watcher=Watcher(), threads=1)
"""


@pytest.mark.slow
def test_killed_three_times_and_resumed_the_predictions_are_the_same_bytes(
    run_folder: Path, cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text(tiny_config.to_toml())
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)

    def run(where: str) -> int:
        command: list[str | Path] = [
            sys.executable,
            driver,
            cohort_folder,
            tmp_path / "run",
            tmp_path / "config.toml",
            where,
        ]
        return subprocess.run(command, check=False).returncode

    fold = tmp_path / "run" / "folds" / "0"
    assert run("rename") == -signal.SIGKILL
    assert [path.name for path in fold.iterdir()] == [".checkpoint-00005.tmp"]
    assert run("epoch") == -signal.SIGKILL
    assert [path.name for path in fold.iterdir()] == ["checkpoint-00005"]
    assert run("between-folds") == -signal.SIGKILL
    assert (fold / "predictions.json").is_file()
    assert not (tmp_path / "run" / "oof.csv").exists()
    assert run("nowhere") == 0
    for name in ("oof.csv", "oof_images.csv", "bundle/bundle.json", "bundle/members/1/weights.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (run_folder / name).read_bytes(), name
