"""Writing a bundle: all files, then the manifest that names their hashes, then one rename."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from osteoscope.bundle.format import (
    HEAD_GRAPH,
    INT8_GRAPH,
    MANIFEST,
    MANIFEST_HASH,
    MODEL_CARD,
    PLANES_GRAPH,
    TRAINING_CASES,
    WEIGHTS,
    Manifest,
)
from osteoscope.bundle.model_card import model_card
from osteoscope.storage import folder_written_whole, refuse_existing, sha256_of_file, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from osteoscope.bundle.load import SeenCases


def refuse_other(target: Path) -> None:
    """Refuse to write over anything but a bundle, as `write_bundle` does, before long work begins.

    Raises
    ------
    StorageError
        If something other than a bundle is already there.
    """
    others = frozenset({MANIFEST_HASH, MODEL_CARD, TRAINING_CASES, "members"})
    refuse_existing(target, kind="a bundle", marker=MANIFEST, others=others)


def write_bundle(
    manifest: Manifest,
    target: Path,
    *,
    member_folders: Sequence[Path],
    training_cases: SeenCases,
    recalibration_cases: SeenCases | None = None,
) -> None:
    """Write a bundle whole or not at all.

    Parameters
    ----------
    manifest
        Everything but `files`, which is filled in here.
    target
        The folder to make; a bundle that is already there is replaced.
    member_folders
        For each member, the folder of its graphs and weights.
    training_cases
        What the members were trained on.
    recalibration_cases
        What the bundle was recalibrated on, in any step of its lineage.

    Raises
    ------
    StorageError
        If the operating system refuses, or something other than a bundle is already there.
    """
    refuse_other(target)
    with folder_written_whole(target) as folder:
        for member, source in zip(manifest.members, member_folders, strict=True):
            (folder / member.folder).mkdir(parents=True)
            for name in (PLANES_GRAPH, HEAD_GRAPH, WEIGHTS, *([INT8_GRAPH] if manifest.offers_int8 else [])):
                shutil.copyfile(source / name, folder / member.folder / name)
        seen: dict[str, Any] = _listed(training_cases)
        if recalibration_cases is not None:
            seen["recalibration"] = _listed(recalibration_cases)
        write_json(folder / TRAINING_CASES, seen)
        write_text(folder / MODEL_CARD, model_card(manifest))
        files = {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in sorted(folder.rglob("*.*"))}
        complete = manifest.model_copy(update={"files": files})
        write_json(folder / MANIFEST, json.loads(complete.model_dump_json(by_alias=True)))
        write_text(folder / MANIFEST_HASH, f"{sha256_of_file(folder / MANIFEST)}  {MANIFEST}\n")


def _listed(seen: SeenCases) -> dict[str, list[str]]:
    return {"patients": sorted(seen.patients), "pixels": sorted(seen.pixels)}
