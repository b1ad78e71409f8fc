"""Small bundles of networks that learnt nothing: what they say means nothing, and is said by the whole of the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from osteoscope.bundle.format import Calibration, Manifest, Member, Training, Verdicts, schema_of
from osteoscope.bundle.load import SeenCases
from osteoscope.bundle.write import write_bundle
from osteoscope.config import NetworkConfig, PreparationConfig, VolumeConfig
from osteoscope.network.classifier import TumourNetwork
from osteoscope.training.export import export_member

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("osteosarcoma", "giant cell tumor")
SLUGS = ("osteosarcoma", "giant_cell_tumor")

NETWORK = NetworkConfig(trunk="densenet-tiny", width=16, heads=2)
VOLUMES = PreparationConfig(volume=VolumeConfig(size=64, spacing=4.0, planes=6, windows=((-500, 1300),), neighbours=1))
"""Of three channels for CT and MR alike."""
RADIOGRAPHS = PreparationConfig(size=64, second_look=True)


def export_tiny(folder: Path, *, channels: int, covariates: int = 0, modalities: int = 0, seed: int = 0) -> Path:
    """Export a network of planes of 64 x 64 pixels; give the folder of the member."""
    torch.manual_seed(seed)
    network = TumourNetwork(NETWORK, classes=2, in_channels=channels, covariates=covariates, modalities=modalities)
    if modalities:
        torch.nn.init.normal_(network.get_parameter("encoder.modality.linear.weight"))
    torch.nn.init.normal_(network.get_parameter("encoder.gate.score.weight"))
    torch.nn.init.normal_(network.get_parameter("encoder.lesion.last.weight"))
    torch.nn.init.normal_(network.get_parameter("head.linear.weight"))
    if covariates:
        torch.nn.init.normal_(network.get_parameter("head.covariates.weight"))
    planes = np.random.default_rng(seed).random((2, channels, 64, 64)).astype(np.float32)
    export_member(network, folder, planes=planes, covariates=np.zeros(covariates, np.float32) if covariates else None)
    return folder


def write_tiny_bundle(
    target: Path, member: Path, *, seen: SeenCases | None = None, encoder: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """Write a bundle of one member; by its thresholds the more probable class is always the verdict."""
    facts: dict[str, Any] = {
        "schema": schema_of(changes.get("preparation", VOLUMES)),
        "osteoscope": "0.0.0",
        "classes": CLASSES,
        "slugs": SLUGS,
        "prior": {"osteosarcoma": 0.5, "giant_cell_tumor": 0.5},
        "preparation": VOLUMES,
        "network": NETWORK,
        "members": (Member(folder="members/0", fold=0, covariates=encoder),),
        "calibration": Calibration(temperature=1.0, fitted_on="It was fitted on nothing."),
        "verdicts": Verdicts(level=0.9, thresholds=(0.5, 0.5), counts=(20, 20), refused=None),
        "evidence_threshold": None,
        "modalities": ("CT", "MR"),
        "body_regions": ("spine",),
        "provenance": "clinical",
        "intended_use": "For tests.",
        "training": Training(
            cohort_fingerprint="0",
            config_fingerprint="0",
            patients=dict.fromkeys(changes.get("slugs", SLUGS), 1),
            images=2,
            source="nobody",
            guessed_patients=False,
            seed=0,
            auxiliary=None,
            versions={},
        ),
        "performance": {},
        "files": {},
    }
    write_bundle(Manifest(**facts | changes), target, member_folders=[member], training_cases=seen or SeenCases())
    return target
