"""De-identification by the Basic Profile of DICOM PS3.15 Annex E: files in, files under pseudonyms out."""

from osteoscope.cohort.deidentify.file import FileReport, deidentify_file
from osteoscope.cohort.deidentify.folder import deidentify_folder
from osteoscope.cohort.deidentify.key import Key

__all__ = ["FileReport", "Key", "deidentify_file", "deidentify_folder"]
