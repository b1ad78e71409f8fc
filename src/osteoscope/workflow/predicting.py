"""Saying of any studies what a bundle says of them, a few at the same time."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from osteoscope.errors import BundleError, InputError, RunError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from osteoscope.bundle.format import Manifest, Precision
    from osteoscope.imaging.discover import Found
    from osteoscope.imaging.open import Image, Opened
    from osteoscope.imaging.refusal import Refusal
    from osteoscope.inference.pipeline import Stop
    from osteoscope.inference.predictor import Predictor
    from osteoscope.inference.result import StudyPrediction
    from osteoscope.inference.scope import Study
    from osteoscope.inference.study import Told
    from osteoscope.workflow.prediction_files import Question

    Watch = Callable[[str, int, int], None]
    """Is told of what, how many of how many are done."""

SUMMARY = "summary.csv"

REFUSED = "refused"
"""In place of a verdict: nothing of the study could be read."""

_PREDICTING = "predicting studies"

JOBS = 2
"""Studies at the same time: while the networks read one, the next is decoded and the one before is written."""


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """What the summary says of a study.

    Parameters
    ----------
    study
        Its short hash, and the name of its folder.
    verdict
        The slug of a class, ``indeterminate``, ``out_of_scope`` or ``refused``.
    probabilities
        By slug; None where none are given.
    images
        How many were read by the networks.
    not_used
        How many others there are.
    refused
        Files that could not be read, by code.
    reasons
        Sentences.
    research
        Whether it is shown for research.
    bundle
        First 12 digits of the SHA-256 of the manifest of the bundle.
    already_done
        Whether the answer was there before.
    file, files
        The first of the study's files, as the operator knows it, and how many there are: not in the summary file.
    """

    study: str
    verdict: str
    probabilities: dict[str, float] | None
    images: int
    not_used: int
    refused: dict[str, int]
    reasons: tuple[str, ...]
    research: bool
    bundle: str
    already_done: bool = False
    file: str = ""
    files: int = 0

    def to_json(self) -> dict[str, Any]:
        """Give all as JSON."""
        return {
            "study": self.study,
            "verdict": self.verdict,
            "probabilities": self.probabilities,
            "images": self.images,
            "not_used": self.not_used,
            "refused": self.refused,
            "reasons": list(self.reasons),
            "research": self.research,
            "bundle": self.bundle,
            "already_done": self.already_done,
            "file": self.file,
            "files": self.files,
        }

    def to_csv(self) -> dict[str, str]:
        """Give what `SUMMARY` holds, by column."""
        shares = self.probabilities or {}
        return {
            "study": self.study,
            "verdict": self.verdict,
            **{f"p_{slug}": f"{share:.6f}" for slug, share in shares.items()},
            "images": str(self.images),
            "not_used": str(self.not_used),
            "refused": "; ".join(f"{code} {count}" for code, count in self.refused.items()),
            "reasons": " ".join(self.reasons),
            "research": "yes" if self.research else "no",
            "bundle": self.bundle,
        }


@dataclass(frozen=True, kw_only=True)
class PredictionSummary:
    """What became of all studies."""

    folder: Path
    rows: tuple[StudyRow, ...]

    @property
    def predicted(self) -> int:
        """Studies that have an answer, be it that they are out of scope."""
        return sum(row.verdict != REFUSED for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Give all as JSON."""
        return {
            "predictions": str(self.folder),
            "summary": str(self.folder / SUMMARY),
            "predicted": self.predicted,
            "refused": len(self.rows) - self.predicted,
            "studies": [row.to_json() for row in self.rows],
        }


def predict(
    bundle_folder: Path,
    paths: Sequence[Path],
    output: Path,
    *,
    age: float | None = None,
    sex: Literal["F", "M"] | None = None,
    site: str | None = None,
    level: str | None = None,
    modality: Literal["CT", "MR"] | None = None,
    one_patient: bool = False,
    research: bool = False,
    threads: int | None = None,
    jobs: int = JOBS,
    precision: Precision = "float32",
    watch: Watch | None = None,
) -> PredictionSummary:
    """Say of studies what a bundle says of them, without torch.

    Each study gets a folder, written whole or not at all, and a row in ``summary.csv``, which is written anew after
    each. A study that cannot be read does not stop the others, and one that was answered before is not read again.

    Parameters
    ----------
    bundle_folder
        Of a bundle.
    paths
        Files, folders and zips of any formats that are read, and any nesting; see `osteoscope.inference.scope` for what
        makes a study of them. What lies in `output` is left aside.
    output
        Where the folders and the summary go; it may hold earlier predictions of the same classes.
    age, sex, site, level
        Of the patient: in years, and as `osteoscope.cohort.covariates` has them; None where it is not known.
    modality
        Of files that do not say theirs, as NIfTI does not; None to conclude it.
    one_patient
        Whether all that is named is of one patient, and judged together: what lies in several studies, and files that
        do not say their study.
    research
        Whether what is outside of the bundle's scope is shown, too, and marked as such.
    threads
        Of the processor; None takes every core that the process may use.
    jobs
        Studies at the same time. What is written is the same for any number.
    precision
        ``int8`` lets the networks compute in eight bits, where the bundle offers that.
    watch
        Is told of what, how many of how many are done.

    Raises
    ------
    BundleError
        If the bundle is damaged, or offers no eight bits and these are asked for.
    ConfigError
        If OpenVINO is not installed and eight bits are asked for.
    InputError
        If the bundle has to be told where the lesion is, or something is told of the patient, and there are several.
    RunError
        If another process predicts into the output.
    StorageError
        If the output is something else, or cannot be written; what was done before stays.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from osteoscope.bundle.load import load_bundle
    from osteoscope.inference.pipeline import several_at_once
    from osteoscope.inference.predictor import load_predictor
    from osteoscope.inference.scope import of_one_patient, studies_of
    from osteoscope.inference.study import Told
    from osteoscope.storage import folder_locked, refuse_within
    from osteoscope.workflow.prediction_files import Question

    refuse_within(output, bundle_folder)
    bundle = load_bundle(bundle_folder)
    _refuse_marking(bundle.manifest, bundle_folder)
    table = _Summary(output, bundle.manifest)
    told = Told(age=age, sex=sex, site=site, level=level)
    question = Question(bundle=bundle, told=told, research=research, precision=precision)
    say = watch or _silent
    with contextlib.ExitStack() as stack:
        # Products of small matrices; also, studies at the same time must not set and reset this under each other.
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        loader = stack.enter_context(ThreadPoolExecutor(1))
        loading = loader.submit(load_predictor, bundle, threads=threads, precision=precision)
        opened, name = _opened(paths, output, modality, stack, say)
        studies = studies_of(opened, name)
        if one_patient and studies:
            studies = (of_one_patient(studies),)
        _refuse_several(studies, question)
        work = functools.partial(_predict_study, question=question, predictor=loading.result(), output=output)
        stack.enter_context(folder_locked(output, otherwise=_busy(output)))
        table.begin(study.name for study in studies)
        say(_PREDICTING, 0, len(studies))
        answered = stack.enter_context(contextlib.closing(several_at_once(work, studies, jobs=jobs)))
        for done, (number, row) in enumerate(answered, start=1):
            files = tuple(dict.fromkeys(studies[number].files))
            table.add(replace(row, file=name(files[0]), files=len(files)))
            say(_PREDICTING, done, len(studies))
    return PredictionSummary(folder=output, rows=table.rows)


def _silent(_what: str, _done: int, _total: int) -> None:
    """Say nothing."""


def _busy(output: Path) -> RunError:
    remedy = "wait for it, or choose another folder with -o"
    return RunError("another process is predicting into this folder", path=output, remedy=remedy)


def _refuse_marking(manifest: Manifest, bundle_folder: Path) -> None:
    marked = manifest.preparation.annotation
    if marked != "none":
        reason = f"its networks read the {marked} of a lesion that a person has marked, and here nobody can"
        remedy = "use a bundle that finds the lesion itself, or osteoscope evaluate with a cohort"
        raise InputError(reason, path=bundle_folder, remedy=remedy)


def _refuse_several(studies: Sequence[Study], question: Question) -> None:
    told = question.told.names
    if told and sum(bool(study.images) for study in studies) > 1:
        reason = f"the {' and '.join(told)} of one patient is told, and there are {len(studies)} studies"
        raise InputError(reason, remedy="name the study of that patient alone")


def _opened(
    paths: Sequence[Path],
    output: Path,
    modality: Literal["CT", "MR"] | None,
    stack: contextlib.ExitStack,
    say: Watch,
) -> tuple[Opened, Callable[[Path], str]]:
    """Open all images for as long as the stack lasts; give also what the operator knows a file as."""
    from osteoscope.imaging.discover import discover, look_into
    from osteoscope.imaging.open import Opened, open_images
    from osteoscope.imaging.refusal import Refusal

    found = _without(discover(paths, progress=lambda done, total: say("looking at files", done, total)), output)
    known = [found]
    parts = [open_images(found, modality=modality)]
    for zipped in found.archives:
        _release(parts[-1].images)
        try:
            inside = stack.enter_context(look_into(zipped))
        except Exception as error:
            parts.append(Opened(images=(), refused=(Refusal.of(error, zipped),)))
            continue
        known.append(inside)
        parts.append(open_images(inside, modality=modality))
    opened = Opened(
        images=tuple(image for part in parts for image in part.images),
        refused=tuple(one for part in parts for one in part.refused),
    )
    if len(opened.images) > 1:
        # Of those whose modality was concluded from the values.
        _release(opened.images)
    return opened, lambda path: next((one for one in known if path in one.names), found).name(path)


def _release(images: Iterable[Image]) -> None:
    """Let go of values that are held until their image is done with."""
    for image in images:
        image.release()


def _without(found: Found, output: Path) -> Found:
    """Leave aside what lies in the output, such as overlays of an earlier run: they are no studies."""
    own = _real(output)

    def others(paths: Sequence[Path]) -> tuple[Path, ...]:
        return tuple(path for path in paths if not _real(path).is_relative_to(own))

    return replace(
        found,
        files={kind: others(paths) for kind, paths in found.files.items()},
        archives=others(found.archives),
        refused=tuple(one for one in found.refused if others(one.files)),
    )


def _real(path: Path) -> Path:
    """Follow links, as far as they lead; of a circle of them pathlib makes an error."""
    return Path(os.path.realpath(path))


# One study ------------------------------------------------------------------------------------------------------------


def _predict_study(study: Study, stop: Stop, *, question: Question, predictor: Predictor, output: Path) -> StudyRow:
    """Answer for a study; whatever is wrong with it becomes its row."""
    from osteoscope.imaging.refusal import Refusal
    from osteoscope.inference.pipeline import StoppedError
    from osteoscope.inference.scope import select_images
    from osteoscope.inference.study import explain_study
    from osteoscope.storage import folder_written_whole
    from osteoscope.workflow.prediction_files import write_prediction

    target = output / study.name
    try:
        question = replace(question, told=_told(study, question))
        before = _answered(target, question.request(study))
        if before is not None:
            return replace(_row(before), already_done=True)
        selection = select_images(
            _keeping_planes(study), question.bundle.manifest.modalities, research=question.research
        )
        if not selection.used and not selection.left_out:
            _take_away(target)
            return _refused_row(study, selection.refused, question)
        # Before the networks are asked, and once more before anything is written over.
        _refuse_strange(target)
        explained = explain_study(
            selection, question.bundle, predictor, question.told, research=question.research, check=stop.check
        )
        stop.check()
        _refuse_strange(target)
        with folder_written_whole(target) as folder:
            return _row(write_prediction(folder, question, study, selection, explained))
    except (StorageError, BundleError, StoppedError):
        # The next study would meet the same.
        raise
    except Exception as error:
        _take_away(target)
        return _refused_row(study, (Refusal.of(error, *study.files),), question)
    finally:
        _release(one.image for one in study.images)


def _told(study: Study, question: Question) -> Told:
    """Take what the operator says of the patient, and what else the networks are told, from the files' headers."""
    people = {one.image.person for one in study.images}
    return question.told.completed(people, question.bundle.manifest.network.covariates)


def _keeping_planes(study: Study) -> Study:
    """Decode each plane once, as far as there is room, until the study is done with."""
    from osteoscope.imaging.kept import PlaneStore

    store = PlaneStore()
    images = (replace(one.image, volume=store.keeping(one.image.volume)) for one in study.images)
    return replace(
        study, images=tuple(replace(one, image=image) for one, image in zip(study.images, images, strict=True))
    )


def _answered(target: Path, request: str) -> StudyPrediction | None:
    """Read the answer to the same request, if it is there."""
    from osteoscope.inference.result import StudyPrediction
    from osteoscope.workflow.prediction_files import PREDICTION

    try:
        before = StudyPrediction.model_validate_json((target / PREDICTION).read_bytes())
    except (OSError, ValueError):
        return None
    return before if before.request == request else None


def _refuse_strange(target: Path) -> None:
    """Refuse to write over a folder that holds anything but an earlier prediction."""
    from osteoscope.storage import refuse_existing
    from osteoscope.workflow.prediction_files import PREDICTION, is_of_prediction

    others = frozenset(path.name for path in target.glob("*") if is_of_prediction(path.name))
    refuse_existing(target, kind="a prediction", marker=PREDICTION, others=others)


def _row(prediction: StudyPrediction) -> StudyRow:
    refused: Counter[str] = Counter()
    for one in prediction.refused:
        refused[one.code] += one.files
    return StudyRow(
        study=prediction.study,
        verdict=prediction.verdict,
        probabilities=prediction.probabilities,
        images=len(prediction.images),
        not_used=len(prediction.not_used),
        refused=dict(refused),
        reasons=prediction.reasons,
        research=prediction.research,
        bundle=prediction.bundle.sha256[:12],
    )


def _take_away(target: Path) -> None:
    """Remove the answer to an earlier request, of other files or another bundle; anything else stays."""
    with contextlib.suppress(StorageError):
        _refuse_strange(target)
        shutil.rmtree(target, ignore_errors=True)


def _refused_row(study: Study, refusals: Sequence[Refusal], question: Question) -> StudyRow:
    from osteoscope.inference.study import in_short

    refused: Counter[str] = Counter()
    for one in refusals:
        refused[one.code] += len(one.files)
    sentences = in_short(one.sentence for one in refusals)
    return StudyRow(
        study=study.name,
        verdict=REFUSED,
        probabilities=None,
        images=0,
        not_used=0,
        refused=dict(refused),
        reasons=tuple(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in sentences),
        research=question.research,
        bundle=question.bundle.sha256[:12],
    )


# All studies ----------------------------------------------------------------------------------------------------------


class _Summary:
    """The table of all studies in an output, those of earlier runs among them.

    Raises
    ------
    StorageError
        If the output is not one of predictions, or those of other classes.
    """

    def __init__(self, output: Path, manifest: Manifest) -> None:
        from osteoscope.storage import storage_error

        self._added: dict[str, StudyRow] = {}
        self._path = output / SUMMARY
        shares = [f"p_{slug}" for slug in manifest.slugs]
        self._columns = [
            "study", "verdict", *shares, "images", "not_used", "refused", "reasons", "research", "bundle",
        ]  # fmt: skip
        try:
            self._rows = self._before()
        except OSError as error:
            raise storage_error(error, output) from error
        self._studies: tuple[str, ...] = ()
        self._order: dict[str, None] = {}

    @property
    def rows(self) -> tuple[StudyRow, ...]:
        """The studies that were added, in the order in which they were begun with."""
        return tuple(self._added[study] for study in self._studies if study in self._added)

    def begin(self, studies: Iterable[str]) -> None:
        """Note down the studies in the order in which they are to stand, and write the table as it is.

        From here on the output is held, and nobody else adds to the table: what was added since is read now, and what a
        run that was killed had begun to write goes. Before there is a table nothing is known to be of such a run.
        """
        from osteoscope.storage import remove_half_written

        self._rows = self._before()
        if self._path.exists():
            remove_half_written(self._path.parent)
        self._studies = tuple(studies)
        self._order = dict.fromkeys((*self._rows, *self._studies))
        self._write()

    def add(self, row: StudyRow) -> None:
        """Add a study, whichever is done first, or put it in the place of what was said of it before."""
        self._added[row.study] = row
        self._rows[row.study] = row.to_csv()
        self._write()

    def _before(self) -> dict[str, dict[str, str]]:
        """Read what is there; of studies whose folder is gone nothing is said any more."""
        output, remedy = self._path.parent, "choose another folder with -o"
        if output.exists() and not output.is_dir():
            raise StorageError("is already there and is no folder", path=output, remedy=remedy)
        if not self._path.exists():
            # A name that begins with a dot is left of a run that was killed.
            if output.is_dir() and any(not path.name.startswith(".") for path in output.iterdir()):
                raise StorageError("is already there and holds no predictions", path=output, remedy=remedy)
            return {}
        try:
            # A spreadsheet program may have put a byte order mark before it.
            text = self._path.read_text(encoding="utf-8-sig")
            lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line]
        except (ValueError, csv.Error) as error:
            raise StorageError(f"cannot be read: {error}", path=self._path, remedy=remedy) from error
        if lines[:1] != [self._columns]:
            reason = "its columns are not those of the bundle's classes, with commas between them"
            raise StorageError(reason, path=self._path, remedy=remedy)
        for number, line in enumerate(lines, start=1):
            if len(line) != len(self._columns):
                reason = f"expected {len(self._columns)} cells in row {number}, found {len(line)}"
                raise StorageError(reason, path=self._path, remedy=remedy)
        rows = (dict(zip(self._columns, line, strict=True)) for line in lines[1:])
        return {row["study"]: row for row in rows if row["verdict"] == REFUSED or (output / row["study"]).is_dir()}

    def _write(self) -> None:
        """Write the table as it is now, whole or not at all."""
        from osteoscope.storage import write_text

        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, self._columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows[study] for study in self._order if study in self._rows)
        write_text(self._path, stream.getvalue())
