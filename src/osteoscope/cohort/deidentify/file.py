"""One file: read, judged, changed and written whole, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import re
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pydicom
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items

from osteoscope.cohort.deidentify.burned_in import why_suspect
from osteoscope.cohort.deidentify.elements import Cleaning, Subject, subject_of, text_of
from osteoscope.cohort.deidentify.profile import EDITION
from osteoscope.cohort.deidentify.values import age_between, capped_age, study_and_series
from osteoscope.errors import OsteoscopeError
from osteoscope.imaging.headers import scan
from osteoscope.imaging.opened import opened
from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.storage import short_hash, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from osteoscope.cohort.deidentify.key import Key

_CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
"""Of the context group of de-identification methods (PS3.16 CID 7050)."""

_METHOD = (f"DICOM PS3.15 {EDITION} Basic Profile", "dates moved by patient", "kept: sex, and age up to 89 years")

_IMPLEMENTATION = "2.25.213949370441523178446862358196540962151"
"""Of this writer (PS3.7 D.3.3.2)."""

_QUIET = threading.Lock()
"""Warnings are caught for a whole process, so one file at a time."""


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What was done to a file; it holds pseudonyms, and no value of the source.

    Parameters
    ----------
    patient
        Pseudonym.
    quarantined
        Why nothing was written: what may show text in its pixels, as a sentence without a full stop. None where the
        target was written.
    removed
        By action (``removed``, ``emptied``, ``replaced``, ``shifted``), how often by tag.
    guessed
        Whether the patient had to be told by the name and birth date, or by the study, for want of an identifier.
    """

    patient: str
    quarantined: str | None
    removed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    guessed: bool = False


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A file that was read and changed, and is not yet written.

    Parameters
    ----------
    report
        What was done.
    content
        Of the file to write; None where it is quarantined.
    place
        Where it belongs below the output's folder, by patient, study, series and instance number.
    instance
        The new SOP Instance UID; empty where it is quarantined.
    """

    report: FileReport
    content: bytes | None = field(repr=False)
    place: PurePosixPath
    instance: str


def deidentify_file(
    source: Path, target: Path, key: Key, *, released: bool = False, identifier: str | None = None
) -> FileReport:
    """Write a file's copy without what identifies its patient.

    Its pixels are copied as they are stored; a file that may show text in them is not written at all.

    Parameters
    ----------
    source
        A DICOM file.
    target
        Where the copy goes; folders above it are made, and a file that is there is replaced.
    key
        Gives pseudonyms, UIDs and the shift of dates.
    released
        Whether a person has looked at its pixels and found no text that identifies anybody.
    identifier
        Of the patient, for a patient who has several: all files that are said to be of one identifier get one pseudonym
        and one shift of dates. The file's own Patient ID where left out.

    Raises
    ------
    osteoscope.imaging.refusal.RefusedImageError
        If the source is no DICOM file, is damaged, or lacks the UIDs that tell it from others.
    StorageError
        If the target cannot be written; what was there stays.
    """
    prepared = prepare(source, key, released=released, identifier=identifier)
    if prepared.content is not None:
        write_bytes(target, prepared.content)
    return prepared.report


def prepare(source: Path, key: Key, *, released: bool = False, identifier: str | None = None) -> Prepared:
    """Do what `deidentify_file` does, but for the writing.

    Raises
    ------
    osteoscope.imaging.refusal.RefusedImageError
        As `deidentify_file` does.
    """
    with _without_warnings(), _faults_of(source):
        data_set = _read_whole(source)
        subject = subject_of(data_set, identifier)
        patient = key.patient(subject.identifier)
        place = _place(data_set, key, patient)
        suspect = None if released else why_suspect(data_set, source)
        if suspect is not None:
            report = FileReport(patient=patient, quarantined=suspect, guessed=subject.guessed)
            return Prepared(report=report, content=None, place=place, instance="")
        counts = _clean(data_set, key, subject)
        report = FileReport(patient=patient, quarantined=None, removed=counts, guessed=subject.guessed)
        content = _encoded(data_set)
    return Prepared(report=report, content=content, place=place, instance=str(data_set.SOPInstanceUID))


@contextlib.contextmanager
def _faults_of(source: Path) -> Iterator[None]:
    """Turn what pydicom cannot read, change or write of a file into a refusal; what it says may hold values."""
    try:
        yield
    except (OsteoscopeError, MemoryError):
        raise
    except Exception as error:
        found = f"its elements cannot be read, or not be written again ({type(error).__name__})"
        raise _damaged(found, source) from error


def _place(data_set: Dataset, key: Key, patient: str) -> PurePosixPath:
    """Name a file by its number in the series, and by its UID, since numbers repeat."""
    number = re.sub(r"\D", "", text_of(data_set, "InstanceNumber"))[-8:] or "0"
    own = short_hash(key.uid(text_of(data_set, "SOPInstanceUID")))[:8]
    study, series = (text_of(data_set, f"{level}InstanceUID") for level in ("Study", "Series"))
    return PurePosixPath(patient, key.study(study), key.series(series), f"{int(number):05d}-{own}.dcm")


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Let pydicom neither check values nor warn of them: it would name them, and write them to the log."""
    log = logging.getLogger("pydicom")
    with _QUIET, warnings.catch_warnings(), pydicom_config.disable_value_validation():
        warnings.simplefilter("ignore")
        log.addFilter(_nothing)
        try:
            yield
        finally:
            log.removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    """Let no line of a log pass."""
    return False


def _read_whole(source: Path) -> Dataset:
    """Read a file with its pixels, once its structure has been walked through.

    Raises
    ------
    osteoscope.imaging.refusal.RefusedImageError
        If it is no DICOM file, is damaged, or nothing in it tells its series from others.
    """
    with opened(source) as stream:
        found = scan(stream)
        stream.seek(0)
        content = stream.read()
    data_set = pydicom.dcmread(io.BytesIO(content), force=True)
    if not data_set.file_meta.get("TransferSyntaxUID"):
        data_set.file_meta.TransferSyntaxUID = pydicom.uid.UID(found.transfer_syntax)
    for keyword, value in _stand_ins(data_set, content).items():
        if not text_of(data_set, keyword):
            setattr(data_set, keyword, value)
    for keyword in ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if not text_of(data_set, keyword):
            raise _damaged(f"expected a {keyword}, or what could stand for it, found none", source)
    return data_set


def _stand_ins(data_set: Dataset, content: bytes) -> dict[str, str]:
    """Say what stands for UIDs that a file lacks, as half anonymised ones do; each becomes a UID as they do."""
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SeriesNumber")
    study, series = study_and_series(*(text_of(data_set, keyword) for keyword in keywords))
    instance = text_of(data_set.file_meta, "MediaStorageSOPInstanceUID")
    return {
        "SOPClassUID": text_of(data_set.file_meta, "MediaStorageSOPClassUID"),
        "SOPInstanceUID": instance or f"instance {hashlib.sha256(content).hexdigest()}",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
    }


def _clean(data_set: Dataset, key: Key, subject: Subject) -> Mapping[str, Mapping[str, int]]:
    """Change a file's data set, and say in it that it was changed."""
    if capped_age(text_of(data_set, "PatientAge")) is None:
        age = age_between(text_of(data_set, "PatientBirthDate"), text_of(data_set, "StudyDate"))
        if age is not None or "PatientAge" in data_set:
            data_set.PatientAge = age or ""
    cleaning = Cleaning(key, subject)
    cleaning.clean(data_set)
    data_set.PatientID = data_set.PatientName = key.patient(subject.identifier)
    data_set.PatientIdentityRemoved = "YES"
    data_set.DeidentificationMethod = list(_METHOD)
    data_set.DeidentificationMethodCodeSequence = Items(_code(value, meaning) for value, meaning in _CODES)
    data_set.LongitudinalTemporalInformationModified = "MODIFIED"
    return cleaning.counts


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _encoded(data_set: Dataset) -> bytes:
    """Encode a data set as it was encoded, behind an empty preamble and a file meta information of our own."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    meta.TransferSyntaxUID = data_set.file_meta.TransferSyntaxUID
    meta.ImplementationClassUID = pydicom.uid.UID(_IMPLEMENTATION)
    data_set.file_meta = meta
    data_set.preamble = bytes(128)
    buffer = io.BytesIO()
    data_set.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _damaged(found: str, source: Path) -> RefusedImageError:
    return RefusedImageError(RefusalCode.DAMAGED, found, path=source, remedy="export it again, or leave it out")
