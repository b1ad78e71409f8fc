"""What is known of a rendered patient and stands in no image: written as JSON beside the images, and read back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from osteoscope import __version__
from osteoscope.errors import InputError
from osteoscope.imaging.synthetic import SYNTHETIC
from osteoscope.phantom.patients import Attributes, Patient
from osteoscope.phantom.scanner import Acquisition

if TYPE_CHECKING:
    from pathlib import Path

    from osteoscope.phantom.dicom import Identity
    from osteoscope.phantom.render import Rendering

SCHEMA = 1
"""Of the JSON; raised when its shape changes."""

TRUTHS = "truth"
"""Folder that holds a folder of each patient."""

TRUTH, DISCRIMINATIVE = "truth.json", "discriminative.nii.gz"

_BITS = {"1": "mineralised matrix", "2": "tumour in the posterior arch, or in the ala of the sacrum"}
_COVARIATES = ("age", "sex", "level", "centre")


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a patient's images follow from.

    ``render(truth.patient.attributes, truth.patient.seed, acquisition=truth.acquisition, shape=truth.shape)`` gives the
    same CT once more, and beside it the same CT without matrix, in the version of the program that made it.

    Parameters
    ----------
    identifier
        The Patient ID.
    patient
        Label, kind, attributes, seed and the exact log-likelihood ratio.
    acquisition, shape
        How the CT was scanned, and its planes, rows and columns.
    version
        Of the program that rendered it.
    """

    identifier: str
    patient: Patient
    acquisition: Acquisition
    shape: tuple[int, int, int]
    version: str


def truth_to_json(patient: Patient, rendering: Rendering, identity: Identity) -> dict[str, Any]:
    """Give all that is known of a patient as JSON; `docs/phantom.md` says what its fields are."""
    attributes = asdict(patient.attributes)
    return {
        "schema": SCHEMA,
        "provenance": "phantom",
        "note": SYNTHETIC,
        "version": __version__,
        "patient": identity.patient,
        "study": identity.uid("study"),
        "series": identity.uid("ct"),
        "label": patient.label,
        "kind": patient.kind,
        "log_likelihood_ratio": patient.log_likelihood_ratio,
        "covariates": {name: attributes[name] for name in _COVARIATES},
        "attributes": attributes,
        "seed": patient.seed,
        "acquisition": asdict(rendering.acquisition),
        "shape": list(rendering.hu.shape),
        "vertebrae": {name: list(place) for name, place in rendering.vertebrae.items()},
        "discriminative": {"file": DISCRIMINATIVE, "bits": _BITS},
    }


def read_truth(folder: Path) -> Truth:
    """Read what is known of a patient.

    Parameters
    ----------
    folder
        Of the patient, below ``truth``.

    Raises
    ------
    InputError
        If it is missing, damaged or of another schema.
    """
    path = folder / TRUTH
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["schema"] != SCHEMA:
            raise InputError(
                f"expected schema {SCHEMA}, found {known['schema']}", path=path, remedy="make the phantoms again"
            )
        patient = Patient(
            label=known["label"],
            kind=known["kind"],
            attributes=Attributes(**known["attributes"]),
            seed=known["seed"],
            log_likelihood_ratio=known["log_likelihood_ratio"],
        )
        planes, rows, columns = known["shape"]
        return Truth(
            identifier=known["patient"],
            patient=patient,
            acquisition=Acquisition(**known["acquisition"]),
            shape=(planes, rows, columns),
            version=known["version"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("is no truth of a phantom that can be read", path=path, remedy="make it again") from error
