"""Room for the canvases of a training: in memory, or on disk where that would take too much of it.

On disk they lie in a file of the cache that has no name any more, so it goes when the process does, however that ends.
The operating system holds as much of it in memory as there is room for, and reads the rest when it is looked at.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from typing import IO, TYPE_CHECKING

import numpy as np

from osteoscope.errors import StorageError
from osteoscope.processes import MOST_BESIDE, memory
from osteoscope.storage import cache_folder, storage_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_IN_MEMORY = max(2**31, (memory() or 0) // (4 * MOST_BESIDE))
"""Bytes of the canvases of some images that are held in memory; more are laid on disk. A process that fits holds cases
and auxiliary images (`osteoscope.training.side_by_side`), and the network needs memory, too."""
MOST_ON_DEVICE = 2**32
"""The same of an accelerator, where each process has 12 GiB at least."""


def room_for_canvases(planes: int, channels: int, side: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Take room for canvases (planes, channels, side, side), not filled, and for their lesions (planes, 1, …), all 0.

    Raises
    ------
    StorageError
        If it has to be on disk, and the cache folder has no room for it or cannot be written.
    """
    shown, marked = (planes, channels, side, side), (planes, 1, side, side)
    behind = planes * channels * side * side * np.dtype(np.float16).itemsize
    needed = behind + planes * side * side
    if needed <= MOST_IN_MEMORY:
        return np.empty(shown, dtype=np.float16), np.zeros(marked, dtype=np.uint8)
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            _claim(file, needed)
            # A mapping stays when its file is closed; what was never written reads as 0.
            return (
                np.memmap(file, dtype=np.float16, mode="r+", shape=shown),
                np.memmap(file, dtype=np.uint8, mode="r+", offset=behind, shape=marked),
            )
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise storage_error(error, folder) from error
        raise StorageError(
            f"the planes to train on take {needed / 1e9:.1f} GB of disk while the training runs, and there are "
            f"{shutil.disk_usage(folder).free / 1e9:.1f} GB",
            path=folder,
            remedy="free some space, name another folder in OSTEOSCOPE_CACHE, or read fewer planes or channels",
        ) from error


def _claim(file: IO[bytes], size: int) -> None:
    """Take so many bytes of disk now: a disk that is full later would end the process without a word."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)
