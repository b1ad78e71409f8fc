"""What a run's folder says of the libraries that its bytes depend on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import onnxruntime

from osteoscope.training import run_folder
from osteoscope.training.run_folder import library_versions

if TYPE_CHECKING:
    import pytest


def test_onnxruntime_is_known_by_whatever_name_it_was_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_onnxruntime(name: str) -> str:
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(run_folder, "version", without_onnxruntime)
    found = library_versions()
    assert found["onnxruntime"] == onnxruntime.__version__
    assert found["torch"] == version("torch")
