"""One shape for the planes of CT, MR and radiographs, so that one network reads them beside each other.

A plane of one modality has fewer channels than one of another: it repeats each of its own until it has as many. The
order of channels is by place first, and by window within a place, so what lies before an MR's plane, the plane itself
and what lies behind it come to stand where a CT's do. Behind the channels of the image comes one for each modality, 1
throughout where the plane is of it and 0 elsewhere, so that the network is told by the plane itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from osteoscope.config import PreparationConfig
    from osteoscope.imaging.volume import Modality


def as_read(planes: NDArray[np.float32], modality: Modality, preparation: PreparationConfig) -> NDArray[np.float32]:
    """Give planes of one image the shape in which a network reads them, in training as in prediction.

    Parameters
    ----------
    planes
        ``(n, channels, size, size)`` with the channels of the modality.
    modality
        Of the image.
    preparation
        Where it names several modalities, one of them is this; where it names none, planes stay as they are.

    Returns
    -------
    ``(n, channels, size, size)`` as `osteoscope.config.PreparationConfig.plane_shape` has it.
    """
    if not preparation.modalities:
        return planes
    told = indicators([preparation.modalities.index(modality)] * len(planes), len(preparation.modalities))
    shown = filled(planes, preparation.image_channels(modality))
    side = planes.shape[-1]
    behind = np.broadcast_to(told[:, :, None, None], (*told.shape, side, side))
    return np.concatenate([shown, behind], axis=1)


def filled(planes: NDArray[np.floating], channels: int) -> NDArray[np.floating]:
    """Repeat each channel of ``(n, own, rows, columns)`` until there are so many; `own` divides them."""
    return np.repeat(planes, channels // planes.shape[1], axis=1)


def indicators(places: Sequence[int], modalities: int) -> NDArray[np.float32]:
    """Tell of planes which modality they are of: ``(n, modalities)``, 1 at each one's place and 0 elsewhere."""
    return np.eye(modalities, dtype=np.float32)[list(places)]


def named_together(modalities: Sequence[Modality], join: str = "and") -> str:
    """Name modalities in a sentence: ``CT``, ``CT and radiographs``, ``CT, MR and radiographs``."""
    return in_words(["radiographs" if modality == "radiograph" else modality for modality in modalities], join)


def in_words(names: Sequence[str], join: str = "and") -> str:
    """List names in a sentence: ``age``, ``age and sex``, ``age, sex and site``; one or more."""
    return f" {join} ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def mix_of(modalities: Iterable[Modality]) -> str:
    """Name what there is of a patient, each modality once: ``CT``, ``CT+radiograph``."""
    return "+".join(sorted(set(modalities)))
