"""From a CT or MR of a case to what its page shows: the weight of every plane, and the planes that weigh most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osteoscope.imaging.masks import read_mask
from osteoscope.imaging.slices import plan_slices
from osteoscope.inference.scans import open_scan
from osteoscope.report.content import CasePlaneContent, CaseVolumeContent, PlaneWeight
from osteoscope.report.overlay import evidence_scale
from osteoscope.report.planes import PlaneFrame, by_area, position_of, sides_of, windows_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from osteoscope.cohort.table import CaseImage
    from osteoscope.config import VolumeConfig
    from osteoscope.imaging.volume import Volume
    from osteoscope.inference.prediction import ExplainedCase, Look
    from osteoscope.report.planes import ShownWindow

MOST_PLANES = 6
"""Of a volume that are shown."""


def volume_content(
    image: CaseImage, explained: ExplainedCase, place: int, *, config: VolumeConfig, chosen: int
) -> CaseVolumeContent:
    """Gather what a page shows of a volume; no more than one plane is held at a time, beside the mask.

    Parameters
    ----------
    image
        A CT or MR of the case.
    explained
        The case's prediction and evidence.
    place
        Of the image among the case's.
    config
        By which its planes were cut.
    chosen
        Index of the class whose evidence is shown.

    Raises
    ------
    ImageError
        If it cannot be read, or is not what the cohort was made with.
    InputError
        If the mask of the lesion cannot be read, or is none of this volume.
    """
    volume = open_scan(image)
    geometry = volume.geometry
    sides, steps, plane_name = sides_of(geometry), geometry.steps, geometry.plane_name
    if sides is None or steps is None or plane_name is None:
        msg = f"expected a volume whose place is known, as one that was read has: {image.image}"
        raise ValueError(msg)
    mask = None if image.mask is None else read_mask(image.mask, volume)
    windows = windows_of(
        image.modality, config.windows if image.modality == "CT" else plan_slices(volume, config).windows
    )
    looks = explained.prediction.images[place].looks
    evidence = explained.evidence[explained.looks_at(place)]
    order = sorted(range(len(looks)), key=lambda number: position_of(geometry, looks[number].plane).place)
    weighty = set(sorted(order, key=lambda number: -looks[number].weight)[:MOST_PLANES])
    return CaseVolumeContent(
        name=image.image,
        modality=image.modality,
        plane_name=plane_name,
        shape=geometry.shape,
        steps=steps,
        windows=windows,
        sides=sides,
        read=tuple(
            PlaneWeight(
                position=position_of(geometry, looks[number].plane),
                weight=looks[number].weight,
                is_shown=number in weighty,
                has_lesion=mask is not None and bool(mask[looks[number].plane].any()),
            )
            for number in order
        ),
        neighbours=config.neighbours,
        cell=looks[0].read_rectangle().width * steps[2] / evidence.shape[-1],
        shown=tuple(
            _plane_content(volume, looks[number], evidence[number, chosen], windows, mask)
            for number in order
            if number in weighty
        ),
        strongest=evidence_scale([by_area(evidence), -by_area(evidence[:, chosen])]),
        outlined=mask is not None,
    )


def _plane_content(
    volume: Volume,
    look: Look,
    evidence: NDArray[np.float32],
    windows: tuple[ShownWindow, ...],
    mask: NDArray[np.bool_] | None,
) -> CasePlaneContent:
    frame = PlaneFrame.of(volume.geometry)
    values = volume.read([look.plane])[0]
    rectangle = look.read_rectangle()
    return CasePlaneContent(
        plane=look.plane,
        position=position_of(volume.geometry, look.plane),
        weight=look.weight,
        pictures=tuple(frame.pixels(values, window) for window in windows),
        evidence=frame.evidence(evidence[None], rectangle)[0],
        lesions=() if mask is None else frame.outlines(mask[look.plane]),
        square=frame.square(rectangle),
    )
