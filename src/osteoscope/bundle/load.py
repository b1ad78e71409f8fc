"""Reading a bundle: every byte is verified before any is used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from osteoscope.bundle.format import (
    MANIFEST,
    MANIFEST_HASH,
    READABLE,
    SCHEMA_OF_CLOSER_LOOKS,
    TRAINING_CASES,
    Manifest,
)
from osteoscope.errors import BundleError
from osteoscope.storage import sha256_of_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from osteoscope.cohort.table import Auxiliary, Case

_COPY_AGAIN = "copy the bundle again from where it was made"
_CHANGED = "has changed since it was written (SHA-256 differs)"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle whose files are what its manifest says."""

    folder: Path
    manifest: Manifest
    sha256: str
    """Of its manifest as it was read, which holds the hashes of all else: of what is in memory, should another bundle
    take its place."""

    @cached_property
    def seen(self) -> SeenCases:
        """What it was trained or recalibrated on, read once."""
        return read_training_cases(self).joined(read_recalibration_cases(self))

    def read(self, path: Path) -> bytes:
        """Read one of its files, which is still what it was when the bundle was loaded.

        Raises
        ------
        BundleError
            If it is gone, or another is in its place.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(f"cannot be read any more: {error.strerror}", path=path, remedy=_COPY_AGAIN) from error
        listed = self.manifest.files.get(path.relative_to(self.folder).as_posix())
        if hashlib.sha256(content).hexdigest() != listed:
            raise BundleError(_CHANGED, path=path, remedy=_COPY_AGAIN)
        return content


@dataclass(frozen=True, kw_only=True)
class SeenCases:
    """What a bundle has seen, in training or when it was recalibrated."""

    patients: frozenset[str] = frozenset()
    """Pseudonyms."""
    pixels: frozenset[str] = frozenset()
    """Hashes of decoded images."""

    @classmethod
    def of(cls, cases: Iterable[Case], *, auxiliary: Iterable[Auxiliary] = ()) -> Self:
        """Gather the patients and pixels of some cases, and of auxiliary images that taught beside them."""
        listed, taught = list(cases), list(auxiliary)
        return cls(
            patients=frozenset(case.patient for case in listed) | frozenset(one.patient for one in taught),
            pixels=frozenset(image.pixel_sha256 for case in listed for image in case.images)
            | frozenset(one.image.pixel_sha256 for one in taught),
        )

    def joined(self, other: SeenCases) -> SeenCases:
        """Give what either holds."""
        return SeenCases(patients=self.patients | other.patients, pixels=self.pixels | other.pixels)


def load_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises
    ------
    BundleError
        If the folder is not a bundle, is of a schema that this version does not know, or a file is missing, changed
        or not listed.
    """
    try:
        return _loaded(folder)
    except OSError as error:
        place = Path(error.filename or folder)
        raise BundleError(f"cannot be read: {error.strerror}", path=place, remedy=_COPY_AGAIN) from error


def _loaded(folder: Path) -> Bundle:
    """Do what `load_bundle` does; `OSError` if the operating system refuses."""
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(f"is not a bundle: it holds no {MANIFEST}", path=folder, remedy="name the folder of a bundle")
    try:
        written = manifest_path.read_bytes()
        content = json.loads(written)
    except ValueError as error:
        raise BundleError(f"cannot be read: {error}", path=manifest_path, remedy=_COPY_AGAIN) from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema not in READABLE:
        raise BundleError(
            f"is of schema {schema}; this version of Osteoscope reads schemas {', '.join(map(str, READABLE))}",
            path=manifest_path,
            remedy="install the version of Osteoscope that made it, or export it again",
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = f" at {'.'.join(map(str, first['loc']))}" if first["loc"] else ""
        raise BundleError(f"is damaged{where}: {first['msg']}", path=manifest_path, remedy=_COPY_AGAIN) from error
    if manifest.preparation.second_look and manifest.schema_version < SCHEMA_OF_CLOSER_LOOKS:
        raise BundleError(
            f"is of schema {schema}: its probabilities were fitted to another way of looking at radiographs again",
            path=manifest_path,
            remedy="install the version of Osteoscope that made it, or train it again",
        )
    sha256 = hashlib.sha256(written).hexdigest()
    _verify_manifest(folder, sha256)
    _verify_files(folder, manifest)
    return Bundle(folder=folder, manifest=manifest, sha256=sha256)


def read_training_cases(bundle: Bundle) -> SeenCases:
    """Read which patients and pixels the bundle was trained on.

    Raises
    ------
    BundleError
        If the file is gone, or no longer what it was, since the bundle was loaded.
    """
    return _seen(_training_cases(bundle))


def read_recalibration_cases(bundle: Bundle) -> SeenCases:
    """Read, as `read_training_cases`, which patients and pixels it was recalibrated on; empty where it never was."""
    return _seen(_training_cases(bundle).get("recalibration", {"patients": [], "pixels": []}))


def _training_cases(bundle: Bundle) -> dict[str, Any]:
    cases: dict[str, Any] = json.loads(bundle.read(bundle.folder / TRAINING_CASES))
    return cases


def _seen(content: dict[str, Any]) -> SeenCases:
    return SeenCases(patients=frozenset(content["patients"]), pixels=frozenset(content["pixels"]))


def _verify_manifest(folder: Path, found: str) -> None:
    """Compare the manifest's hash with the one beside it; all other hashes stand in the manifest."""
    try:
        expected = (folder / MANIFEST_HASH).read_text(encoding="ascii").split()[:1]
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"lacks the hash of its manifest, {MANIFEST_HASH}", path=folder, remedy=_COPY_AGAIN
        ) from error
    if [found] != expected:
        raise BundleError(_CHANGED, path=folder / MANIFEST, remedy=_COPY_AGAIN)


def _verify_files(folder: Path, manifest: Manifest) -> None:
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    present -= {MANIFEST, MANIFEST_HASH}
    for name in sorted(manifest.files.keys() - present):
        raise BundleError(f"lacks the file {name}", path=folder, remedy=_COPY_AGAIN)
    for name in sorted(present - manifest.files.keys()):
        raise BundleError(
            f"holds the file {name}, which its manifest does not list", path=folder, remedy="move that file elsewhere"
        )
    for name, expected in manifest.files.items():
        if sha256_of_file(folder / name) != expected:
            raise BundleError(_CHANGED, path=folder / name, remedy=_COPY_AGAIN)
