"""The command line: exit codes, one-line faults, machine-readable summaries."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from dicom_files import write_series
from samples import HEEDING_INTERRUPTS, write_table_cohort

import osteoscope
from osteoscope.cli.terminal import study_lines
from osteoscope.cli.train import CovariateName
from osteoscope.config import Config, Covariate, preset_config, read_config
from osteoscope.errors import ConfigError

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from osteoscope.cli.main import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_the_verbs() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in ("cohort", "train", "evaluate", "version"))


def test_the_version_is_the_packages() -> None:
    assert run("version").stdout.strip() == osteoscope.__version__


@pytest.mark.parametrize("arguments", [["trian"], ["train"], ["train", "x", "-o", "y", "--preset", "huge"]])
def test_a_wrong_command_exits_with_2(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def test_a_fault_is_one_line_that_names_the_file_and_the_remedy_and_exits_with_3(tmp_path: Path) -> None:
    done = run("train", tmp_path / "nowhere", "-o", tmp_path / "run")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "nowhere") in done.stderr
    assert "make the cohort" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_library_that_is_not_installed_is_named_with_its_extra(tmp_path: Path) -> None:
    code = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "pandas" else find(name, *more)
from osteoscope.cli.main import main
main()
"""
    arguments = ["cohort", "from-btxrd", str(tmp_path), "-o", str(tmp_path / "cohort"), "--class", "a", "--class", "b"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "pip install 'osteoscope[study]'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cohort", "audit", "a" * 300], "a/cohort.json: could not be read or written: file name too long (choose"),
        (
            ["cohort", "deidentify", ".", "-o", "loop"],
            "loop: could not be read or written: too many levels of symbolic",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("ended", [signal.SIGTERM, signal.SIGHUP])
def test_a_verb_that_is_told_to_end_leaves_no_patients_files(tmp_path: Path, ended: signal.Signals) -> None:
    slices = write_series(tmp_path / "ct", np.zeros((150, 96, 96), np.uint16))
    with zipfile.ZipFile(tmp_path / "patient.zip", "w") as packed:
        for path in slices:
            packed.write(path, path.name)
    unpacked = tmp_path / "tmp"
    unpacked.mkdir()
    # Whoever runs the tests may have said that a terminal that closes ends nothing, as nohup does.
    code = f"import signal; signal.signal({ended:d}, signal.SIG_DFL); from osteoscope.cli.main import main; main()"
    command: list[str | Path] = [sys.executable, "-c", code, "inspect", tmp_path / "patient.zip"]
    environment = {**os.environ, "TMPDIR": str(unpacked)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        while not list(unpacked.glob("osteoscope-*")) and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(ended)
        said = process.communicate(timeout=30)[1]
    assert (process.returncode, list(unpacked.iterdir())) == (128 + ended, [])
    assert b"Traceback" not in said


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_processes_of_a_verb_end_with_it(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-c", "from osteoscope.cli.main import main; main()", "phantom"]
    arguments = ["--patients", "60", "--processes", "2", "--pixels", "64", "--planes", "8"]
    with subprocess.Popen([*command, *arguments, "-o", tmp_path / "out"], stderr=subprocess.PIPE) as process:
        while not list(tmp_path.glob("out/images/*")) and process.poll() is None:
            time.sleep(0.02)
        process.terminate()
        # Those beside it write there, too, so that this ends only when they have.
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert not list(tmp_path.glob("out/images/.*"))
    assert b"Traceback" not in said


@pytest.mark.parametrize("arguments", [["cohort", "audit"], ["demo", "-o"]])
def test_a_base_install_says_what_else_to_install(tmp_path: Path, arguments: list[str]) -> None:
    code = "import sys; sys.modules.update(dict.fromkeys(('pandas', 'scipy', 'sklearn')))\n"
    command = [sys.executable, "-c", f"{code}from osteoscope.cli.main import main; main()", *arguments]
    done = subprocess.run([*command, tmp_path / "a"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "pip install 'osteoscope[study]'" in done.stderr
    assert not (tmp_path / "a").exists()


def test_covariates_on_the_command_line_are_those_of_the_settings() -> None:
    assert {name.value for name in CovariateName} == {*get_args(Covariate), "none"}


def test_no_covariate_cannot_be_named_beside_one(tmp_path: Path) -> None:
    done = run("train", tmp_path, "-o", tmp_path / "run", "--covariate", "none", "--covariate", "age")
    assert done.returncode == 2
    assert "none cannot be named beside others" in done.stderr


def test_a_cohort_is_summed_up_for_people_and_for_machines(tmp_path: Path) -> None:
    table = write_table_cohort(tmp_path, patients=4)
    command: list[str | Path] = [
        "cohort",
        "from-table",
        table,
        "--images",
        tmp_path / "images",
        "-o",
        tmp_path / "cohort",
    ]
    summary = json.loads(run(*command, "--json").stdout)
    assert summary["classes"]["osteosarcoma"] == {"patients": 4, "images": 5}
    assert summary["findings"] == []
    assert "osteosarcoma: 4 patients, 5 images" in run(*command).stdout


def test_a_table_is_read_in_the_encoding_that_is_named(tmp_path: Path) -> None:
    table = write_table_cohort(tmp_path, patients=4)
    table.write_bytes(table.read_text(encoding="utf-8").replace("giant cell tumor", "größer").encode("cp1252"))
    images, output = tmp_path / "images", tmp_path / "cohort"
    command: list[str | Path] = ["cohort", "from-table", table, "--images", images, "-o", output, "--json"]
    refused = run(*command)
    assert refused.returncode == 3
    assert "--encoding cp1252" in refused.stderr
    assert "größer" in json.loads(run(*command, "--encoding", "cp1252").stdout)["classes"]


def test_an_evaluation_is_summed_up_for_machines(run_folder: Path, other_cohort_folder: Path, tmp_path: Path) -> None:
    done = run("evaluate", run_folder / "bundle", other_cohort_folder, "-o", tmp_path / "out", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["metrics"]["n_patients"] == 12


def test_a_cost_that_is_none_is_bad_usage(run_folder: Path, other_cohort_folder: Path, tmp_path: Path) -> None:
    command = ("evaluate", run_folder / "bundle", other_cohort_folder, "-o", tmp_path / "out")
    for stated in (["osteosarcoma"], ["osteosarcoma=much"], ["=2"], ["osteosarcoma=2", "osteosarcoma=3"]):
        done = run(*command, *(part for one in stated for part in ("--missed", one)))
        assert done.returncode == 2
        assert "osteosarcoma=5" in done.stderr


def test_a_run_is_summed_up_with_what_stands_beside_it_and_what_does_not(run_folder: Path) -> None:
    lines = study_lines(json.loads((run_folder / "metrics.json").read_text(encoding="utf-8")))
    assert any(line.startswith("  auc within folds") for line in lines)
    assert any(line.startswith("  beside majority: auc 0.500") for line in lines)
    assert any("plain DenseNet-tiny: not trained" in line and "--beside" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "verbs"),
    [
        ([""], ["demo -o runs/demo-phantom --preset quick"]),
        (["", "standard"], ["demo -o runs/demo-phantom --preset standard"]),
        (["archive"], ["cohort from-btxrd archive", "train runs/demo/cohort", "train runs/demo/cohort"]),
    ],
)
def test_the_demo_runs_on_phantoms_or_on_the_archive(tmp_path: Path, arguments: list[str], verbs: list[str]) -> None:
    command = tmp_path / "osteoscope"
    command.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/said\n')
    command.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", ROOT / "scripts" / "demo.sh", *arguments], env=path, capture_output=True, check=False)
    assert done.returncode == 0
    said = (tmp_path / "said").read_text().splitlines()
    assert len(said) == len(verbs)
    assert all(line.startswith(verb) for line, verb in zip(said, verbs, strict=True))


def test_settings_survive_toml_and_have_one_fingerprint(tmp_path: Path) -> None:
    config = preset_config("standard", network="matched", roi="box", covariates=("age",), seed=3)
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert read_config(tmp_path / "config.toml") == config
    assert read_config(tmp_path / "config.toml").fingerprint() == config.fingerprint()
    assert config.fingerprint() != Config().fingerprint()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepochs = 0", r"training\.epochs"),
        ("[training]\nepocs = 3", r"training\.epocs"),
        ("[training", "is not TOML"),
        ('[network]\ncovariates = ["age", "age"]', "named once"),
        ("[network]\nwidth = 30\nheads = 4", "width must be a multiple of heads"),
        ("[preparation]\nsecond_look = true\n[preparation.volume]", "the body is read, once"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "config.toml")


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    pins = [line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]

    def normal(name: str) -> str:
        return name.lower().replace("_", "-")

    names = {normal(line.split(">=")[0].split("[")[0]) for line in wanted} - {"osteoscope"}
    assert names <= {normal(pin) for pin in pins}


def test_the_documents_are_finished_and_their_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        assert "@@" not in text, page
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / link).exists(), f"{page.name} links {link}"


def _interrupted(process: subprocess.Popen[str]) -> str:
    """Interrupt as an operator does, who presses again if nothing happens; give what was said."""
    # Python drops an interrupt that comes while it finalises an object.
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=20)[1]
    process.kill()
    pytest.fail("three interrupts had no effect")


@pytest.mark.slow
def test_an_interrupted_training_says_how_to_go_on_and_exits_with_130(
    cohort_folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    long = tiny_config.model_copy(update={"training": tiny_config.training.model_copy(update={"epochs": 10_000})})
    (tmp_path / "config.toml").write_text(long.to_toml())
    code = f"{HEEDING_INTERRUPTS}from osteoscope.cli.main import main; main()"
    arguments: list[str | Path] = [
        "train",
        cohort_folder,
        "-o",
        tmp_path / "run",
        "--config",
        tmp_path / "config.toml",
        "--threads",
        "1",
    ]
    command: list[str | Path] = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("run/folds/0/checkpoint-*")) and time.monotonic() < deadline:
            time.sleep(0.2)
        errors = _interrupted(process)
    assert process.returncode == 130
    assert "the same command goes on where it stood" in errors
    assert "Traceback" not in errors
