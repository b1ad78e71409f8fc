"""The planes of a cohort of several modalities in memory, ready to be augmented in batches.

Of CT and MR they are those of `volumes`; of a radiograph it is the whole of it. Where a lesion is annotated in a
radiograph it shows the lesion, as a plane of a volume does, and nothing of it is looked at elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osteoscope.imaging.mixed import filled, indicators
from osteoscope.imaging.prepare import square_to_read
from osteoscope.inference.radiographs import lesions_on, read_pixels
from osteoscope.training.laying import lay_cases
from osteoscope.training.planes import Kind, canvas_of
from osteoscope.training.volumes import chosen_planes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from osteoscope.cohort.table import Case, CaseImage
    from osteoscope.config import PreparationConfig
    from osteoscope.training.laying import ChosenPlanes
    from osteoscope.training.planes import CaseStore


def load_mixed(cases: Sequence[Case], preparation: PreparationConfig) -> CaseStore:
    """Decode and prepare the images of labelled cases, whose modalities `preparation` names.

    Raises
    ------
    ImageError
        If an image cannot be read any more, or has changed.
    InputError
        If a mask cannot be read, or does not fit its volume.
    StorageError
        If the planes have to be on disk, and there is no room for them.
    """
    volume, known = preparation.volume, preparation.modalities
    if volume is None:
        msg = "a mix is read with volume, got none"
        raise ValueError(msg)

    def choose(image: CaseImage) -> ChosenPlanes:
        if image.modality == "radiograph":
            return _WholeRadiograph(image=image, size=preparation.size)
        return chosen_planes(image, volume)

    return lay_cases(
        cases,
        choose,
        size=preparation.size,
        channels=preparation.image_channels(known[0]),
        told=lambda image: indicators([known.index(image.modality)], len(known))[0],
    )


@dataclass(frozen=True, kw_only=True)
class _WholeRadiograph:
    """A radiograph as one plane."""

    image: CaseImage
    size: int

    channels = 1

    @property
    def kinds(self) -> NDArray[np.int64]:
        return np.array([Kind.REGION if self.is_marked else Kind.FIRST], dtype=np.int64)

    @property
    def is_marked(self) -> bool:
        return bool(self.image.lesions)

    def lay(self, canvases: NDArray[np.float16], lesions: NDArray[np.uint8]) -> None:
        """Decode it."""
        pixels = read_pixels(self.image)
        square = square_to_read((pixels.shape[0], pixels.shape[1]), (), roi="none", margin=0)
        shown, mask = canvas_of(pixels, square, lesions_on(pixels, self.image), self.size)
        canvases[:] = filled(shown[None, None], canvases.shape[1])
        lesions[:] = mask
