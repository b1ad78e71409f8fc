"""Making a bundle to hand on, once its graphs are proven to say what its weights say."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osteoscope.errors import InputError, require
from osteoscope.storage import refuse_within, storage_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osteoscope.bundle.format import Int8
    from osteoscope.bundle.load import Bundle
    from osteoscope.cohort.table import Case
    from osteoscope.training.verify import VerifiedMember

_COMPARING = "comparing graphs with weights"
_ROUNDING = "rounding networks to eight bits"
_JUDGING = "judging eight bits on patients never seen"

Progress = Callable[[str, int, int], None]
"""Is told of what, how many of how many are done."""


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """The bundle, and how far its graphs are from its weights."""

    folder: Path
    members: tuple[VerifiedMember, ...]
    """One for each network and each runtime that it was tried on."""
    int8: Int8 | None
    """What the bundle says of eight bits; None where they were never tried."""

    @property
    def worst(self) -> float:
        """The largest difference on any output."""
        return max(member.parity.worst() for member in self.members)

    def to_json(self) -> dict[str, Any]:
        """Give all as JSON."""
        return {
            "bundle": str(self.folder),
            "worst": self.worst,
            "members": [
                {
                    "folder": member.folder,
                    "runtime": member.runtime,
                    "opset": member.opset,
                    "parity": asdict(member.parity),
                }
                for member in self.members
            ],
            "int8": None if self.int8 is None else self.int8.model_dump(mode="json"),
        }


def export(
    source: Path,
    output: Path,
    *,
    int8: bool = False,
    cohort: Path | None = None,
    images: Path | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Compare the graphs of a bundle with its weights, and write it anew with its model card.

    Parameters
    ----------
    source
        A bundle, or a run whose bundle is meant.
    output
        Where the bundle goes; written whole or not at all.
    int8
        Whether the networks of a run are written in eight bits, too, and offered so if that does no harm
        (`osteoscope.training.quantise`).
    cohort, images
        The cohort that the run was made on, and where its images lie if they have moved; for `int8`.
    progress
        Is told of what, how many of how many are done.

    Raises
    ------
    MissingExtraError
        If the training half is not installed, or OpenVINO is not and eight bits are asked for.
    InputError
        If eight bits are asked for, and no cohort or another than the run's is given.
    RunError
        If eight bits are asked for, and `source` is no run whose folds are done.
    BundleError
        If the bundle is damaged, or a graph differs from its weights by more than `osteoscope.training.export.PARITY`
        on any output.
    StorageError
        If the output lies in the bundle, is something else, or cannot be written.
    """
    require("torch", "monai", "onnx", "safetensors")
    from osteoscope.bundle.load import load_bundle, read_recalibration_cases, read_training_cases
    from osteoscope.bundle.write import refuse_other, write_bundle
    from osteoscope.inference.runtimes import runtimes_here
    from osteoscope.training.verify import verify_members

    bundle_folder = _bundle_of(source)
    refuse_within(output, bundle_folder)
    refuse_other(output)
    bundle = load_bundle(bundle_folder)
    manifest = bundle.manifest
    members: list[VerifiedMember] = []
    total = len(manifest.members) * len(runtimes_here())
    for member in verify_members(bundle):
        members.append(member)
        if progress is not None:
            progress(_COMPARING, len(members), total)
    folders = [bundle.folder / member.folder for member in manifest.members]
    with tempfile.TemporaryDirectory(prefix="osteoscope-") as scratch:
        if int8:
            in_eight_bits = _InEightBits(source, bundle, cohort=cohort, images=images, progress=progress or _silent)
            found, folders = in_eight_bits.made(folders, Path(scratch))
            manifest = manifest.model_copy(update={"int8": found})
        write_bundle(
            manifest,
            output,
            member_folders=[_cleared(folder, Path(scratch) / f"{number}") for number, folder in enumerate(folders)],
            training_cases=read_training_cases(bundle),
            recalibration_cases=read_recalibration_cases(bundle) if manifest.lineage else None,
        )
    load_bundle(output)
    return ExportSummary(folder=output, members=tuple(members), int8=manifest.int8)


def _silent(_what: str, _done: int, _total: int) -> None:
    """Say nothing."""


class _InEightBits:
    """A run whose networks are rounded to eight bits, and judged on the patients that each never saw."""

    def __init__(
        self, run: Path, bundle: Bundle, *, cohort: Path | None, images: Path | None, progress: Progress
    ) -> None:
        from osteoscope.cohort.table import cases, read_cohort
        from osteoscope.training.crossval import first_repeat

        require("openvino", "pandas", "pyarrow", "sklearn")
        if cohort is None:
            raise InputError("--int8 takes the cohort of the run", remedy="name its folder with --cohort")
        self._outcomes = first_repeat(run)
        read = read_cohort(cohort, images=images)
        if read.fingerprint() != bundle.manifest.training.cohort_fingerprint:
            reason, remedy = "is another cohort than the run's", "name the cohort that the run was made on"
            raise InputError(reason, path=cohort, remedy=remedy)
        self._cases, self._manifest, self._progress = cases(read), bundle.manifest, progress

    def made(self, members: Sequence[Path], scratch: Path) -> tuple[Int8, list[Path]]:
        """Judge eight bits; give the folders of the members, with graphs in eight bits if these are offered."""
        from osteoscope.training.quantise import judge_int8

        folders = []
        for outcome in self._outcomes:
            tested = {case.prediction.patient for case in outcome.cases}
            learnt = [case for case in self._cases if case.patient not in tested]
            encoder = None if outcome.encoder is None else outcome.encoder.to_json()
            folders.append(self._rounded(outcome.member_folder(), scratch / f"fold-{outcome.fold}", encoder, learnt))
            self._progress(_ROUNDING, len(folders), len(self._outcomes))
        found = judge_int8(
            self._outcomes,
            self._cases,
            self._manifest.preparation,
            folders,
            progress=lambda done, total: self._progress(_JUDGING, done, total),
        )
        if not found.offered:
            return found, list(members)
        if self._manifest.members[0].fold is not None:
            return found, folders
        (final,) = members
        encoder = self._manifest.members[0].covariates
        return found, [self._rounded(final, scratch / "final", encoder, self._cases)]

    def _rounded(self, member: Path, folder: Path, encoder: dict[str, Any] | None, learnt: Sequence[Case]) -> Path:
        """Copy a member, and write its graph in eight bits beside the other."""
        from osteoscope.bundle.format import WEIGHTS
        from osteoscope.training.quantise import calibration_planes, quantise
        from osteoscope.training.verify import rebuilt_network

        _copied(member, folder)
        network = rebuilt_network(self._manifest, encoder, folder / WEIGHTS)
        quantise(network, folder, planes=calibration_planes(learnt, self._manifest.preparation))
        return folder


def _cleared(member: Path, folder: Path) -> Path:
    """Copy a member, its graphs without notes on where they were made, as those of earlier versions have them."""
    from osteoscope.training.export import clear_graph

    _copied(member, folder)
    for graph in sorted(folder.glob("*.onnx")):
        clear_graph(graph)
    return folder


def _copied(member: Path, folder: Path) -> None:
    """Copy a member's files, to be written to whatever the permissions of the bundle are."""
    try:
        folder.mkdir()
        for path in member.iterdir():
            shutil.copyfile(path, folder / path.name)
    except OSError as error:
        raise storage_error(error, folder) from error


def _bundle_of(source: Path) -> Path:
    """Find the bundle of a run; anything else is taken for a bundle itself."""
    from osteoscope.bundle.format import MANIFEST
    from osteoscope.workflow.training import BUNDLE_FOLDER

    inside = source / BUNDLE_FOLDER
    return inside if (inside / MANIFEST).is_file() else source
