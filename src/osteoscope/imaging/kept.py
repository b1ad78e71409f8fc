"""Planes that are decoded once though they are read several times: to check them, to plan, to cut, to show."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osteoscope.imaging.volume import Planes, Volume

KEPT_BYTES = 2**25
"""Of decoded planes that are kept together: 32 of 512 x 512, or one large radiograph."""


class PlaneStore:
    """Keeps the decoded planes of some volumes, of each all or none, for as long as the volumes that it gives.

    A volume that does not fit is read as before: of its planes hardly one would be asked for again before it had to
    make room for another.

    Parameters
    ----------
    most
        Bytes of all planes that are kept together.
    """

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._left = most
        self._lock = threading.Lock()

    def keeping(self, volume: Volume) -> Volume:
        """Give a volume whose planes are kept once they have been read, if there is room when the first is."""
        return replace(volume, reader=_KeepingReader(volume, self))

    def take(self, wanted: int) -> bool:
        """Take so many bytes of the room that is left, or none of it."""
        with self._lock:
            if wanted > self._left:
                return False
            self._left -= wanted
            return True


class _KeepingReader:
    """Reads planes, as the reader of a Volume; what is kept is not to be written to."""

    def __init__(self, volume: Volume, store: PlaneStore) -> None:
        self._read = volume.reader
        self._bytes = int(np.prod(volume.geometry.shape)) * np.dtype(np.float32).itemsize
        self._store = store
        self._kept: dict[int, Planes] | None = None
        self._lock = threading.Lock()
        self._asked = False

    def __call__(self, planes: Sequence[int]) -> Planes:
        """Read planes: float32 ``(n, rows, columns)``."""
        with self._lock:
            if not self._asked:
                self._asked = True
                self._kept = {} if self._store.take(self._bytes) else None
        if self._kept is None or not planes:
            return self._read(planes)
        missing = [plane for plane in dict.fromkeys(planes) if plane not in self._kept]
        if missing:
            values = self._read(missing)
            values.flags.writeable = False
            self._kept.update(zip(missing, values, strict=True))
            if missing == list(planes):
                return values
        # One plane, which is what is mostly asked for, is not copied.
        return self._kept[planes[0]][np.newaxis] if len(planes) == 1 else np.stack([self._kept[p] for p in planes])
