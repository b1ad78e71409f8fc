"""A run's folder: who may write in it, and whether what lies there is of the same run."""

from __future__ import annotations

import contextlib
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import onnxruntime

import osteoscope
from osteoscope.errors import RunError
from osteoscope.storage import LOCK, folder_locked, remove_half_written, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = 1
RUN_FILE = "run.json"
_LIBRARIES = ("torch", "monai", "lightning-fabric", "numpy", "scikit-learn")


def library_versions() -> dict[str, str]:
    """Look up the versions that a run's bytes depend on."""
    found = {"osteoscope": osteoscope.__version__, **{name: version(name) for name in _LIBRARIES}}
    # Not by the name of what is installed: onnxruntime-gpu is the same library under another.
    return {**found, "onnxruntime": onnxruntime.__version__}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder, making it if need be, so that no second process writes in it.

    Raises
    ------
    RunError
        If another process holds it, or something else than a run lies there.
    StorageError
        If the operating system refuses.
    """
    if folder.exists() and (not folder.is_dir() or (not (folder / RUN_FILE).exists() and any(_foreign(folder)))):
        raise RunError("is already there and is not a run", path=folder, remedy="choose another folder with -o")
    if (folder / RUN_FILE).exists():
        # Before anything in it is touched.
        read_run(folder)
    busy = RunError(
        "another process is training in this folder", path=folder, remedy="wait for it, or choose another folder"
    )
    with folder_locked(folder, otherwise=busy):
        remove_half_written(folder)
        yield


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Begin a run, or go on with it if what lies there was begun with the same identity.

    Parameters
    ----------
    folder
        Held with `locked`.
    identity
        All that the run's bytes depend on; flat names to JSON values, dictionaries of them allowed.

    Raises
    ------
    RunError
        If the folder holds a run of another identity: the first difference is named.
    """
    path = folder / RUN_FILE
    if not path.exists():
        write_json(path, {"schema": SCHEMA, "status": "unfinished", "identity": identity})
        return
    present = read_run(folder)
    theirs, ours = _flat(present["identity"]), _flat(identity)
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            raise RunError(
                f"holds a run with {name} = {theirs.get(name)!r}; now it is {ours.get(name)!r}",
                path=folder,
                remedy=f"choose another folder with -o, or go on with {name} as it was",
            )
    if present.get("status") != "unfinished":
        # Until it is finished again, nobody takes what lies there for a whole run.
        write_json(path, {**present, "status": "unfinished"})


def finish(folder: Path, **facts: Any) -> None:
    """Note that all parts of the run are there."""
    content = read_run(folder)
    write_json(folder / RUN_FILE, {**content, "status": "done", **facts})


def read_run(folder: Path) -> dict[str, Any]:
    """Read ``run.json``.

    Raises
    ------
    RunError
        If the folder is not a run, or of a schema that this version does not know.
    """
    path = folder / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"is not a run: {path.name} cannot be read", path=folder, remedy="name a run's folder"
        ) from error
    if (
        not isinstance(content, dict)
        or content.get("schema") != SCHEMA
        or not isinstance(content.get("identity"), dict)
    ):
        raise RunError(
            f"is damaged, or a run of another schema than {SCHEMA}", path=folder, remedy="choose another folder with -o"
        )
    return content


def _foreign(folder: Path) -> Iterator[Path]:
    """Find what a run that was killed at its very start would not have left."""
    return (path for path in folder.iterdir() if path.name != LOCK and not path.name.startswith(f".{RUN_FILE}"))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
