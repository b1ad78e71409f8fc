"""What a run's folder says of the libraries that its bytes depend on, and whose folder it is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import onnxruntime
import pytest

from osteoscope.errors import RunError
from osteoscope.training import run_folder
from osteoscope.training.run_folder import library_versions, locked

if TYPE_CHECKING:
    from pathlib import Path


def test_onnxruntime_is_known_by_whatever_name_it_was_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_onnxruntime(name: str) -> str:
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(run_folder, "version", without_onnxruntime)
    found = library_versions()
    assert found["onnxruntime"] == onnxruntime.__version__
    assert found["torch"] == version("torch")


def test_nothing_is_swept_from_a_folder_whose_run_is_another_programs(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"run": 7}')
    for kept in ("sub/.cache.tmp", ".site.old"):
        (tmp_path / kept).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match="damaged, or a run of another schema"), locked(tmp_path):
        pass
    assert sorted(tmp_path.rglob("*")) == before
