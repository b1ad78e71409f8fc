"""The tree of faults that an operator can mend; everything else is a builtin exception.

::

    OsteoscopeError
    ├── InputError            a file or a table that cannot be used as it is
    │   ├── ImageError        a picture that is missing, unreadable or not a picture
    │   └── TableError        a table with a wrong column, value or encoding
    ├── CohortError           a cohort that cannot carry what is asked of it (leak, empty class, too few patients)
    ├── ConfigError           a setting that does not exist or does not fit the others
    ├── RunError              a run that cannot go on (other version, other thread count, another run is in its folder)
    ├── BundleError           a bundle that is damaged, incomplete or of another schema
    ├── StorageError          an output that could not be written (disk full, no permission, already there)
    └── MissingExtraError     an optional library that is not installed

Every fault names what it is about, says what was expected and what was found, and ends with what to do. The command
line prints it as one line and exits with 3.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class OsteoscopeError(Exception):
    """A fault that the operator can mend.

    Parameters
    ----------
    message
        What was expected and what was found.
    path
        The file or folder that the fault is about, if there is one.
    remedy
        What to do about it, as an imperative sentence without a full stop.
    """

    def __init__(self, message: str, *, path: Path | str | None = None, remedy: str | None = None) -> None:
        self.message = message
        self.path = path
        self.remedy = remedy
        super().__init__(message)

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path is not None else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{where}{self.message}{remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        # It crosses from one process to another as it is, whatever a subclass is made from.
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[OsteoscopeError], args: tuple[Any, ...]) -> OsteoscopeError:
    return kind.__new__(kind, *args)


class InputError(OsteoscopeError):
    """A file or a table cannot be used as it is."""


class ImageError(InputError):
    """A picture is missing, unreadable, truncated or not a picture."""


class TableError(InputError):
    """A table has a wrong column, value or encoding."""


class CohortError(OsteoscopeError):
    """A cohort cannot carry what is asked of it."""


class ConfigError(OsteoscopeError):
    """A setting does not exist, or does not fit the others."""


class RunError(OsteoscopeError):
    """A run cannot go on from where it stands."""


class BundleError(OsteoscopeError):
    """A bundle is damaged, incomplete or of a schema that this version does not know."""


class StorageError(OsteoscopeError):
    """An output could not be written."""


_EXTRAS = {
    "dicomanonymizer": "study",
    "jinja2": "report",
    "lightning_fabric": "train",
    "matplotlib": "report",
    "monai": "train",
    "onnx": "train",
    "onnxscript": "train",
    "openpyxl": "study",
    "openvino": "openvino",
    "pandas": "study",
    "pyarrow": "study",
    "safetensors": "train",
    "scipy": "study",
    "sklearn": "study",
    "statsmodels": "study",
    "torch": "train",
}


class MissingExtraError(OsteoscopeError):
    """A library of an optional extra is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"this needs {library}, which is not installed",
            remedy=f"install it with: pip install 'osteoscope[{extra}]'",
        )


def require(*libraries: str) -> None:
    """Make sure, before long work begins, that optional libraries are installed.

    Raises
    ------
    MissingExtraError
        If one of them is not; it names the extra to install.
    """
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError(library, _EXTRAS[library])
