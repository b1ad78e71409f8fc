"""The values of a file that holds one array in any order of axes, compressed or not: NIfTI, MetaImage, NRRD.

Stored axes are ``(i, j, k)``, i changing fastest.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import tempfile
import threading
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from osteoscope.imaging.refusal import RefusalCode, RefusedImageError
from osteoscope.storage import storage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from osteoscope.imaging.opened import KnownFile
    from osteoscope.imaging.orientation import Axes, Turn
    from osteoscope.imaging.volume import Planes

LARGEST_BYTES = 2**31
"""Values that take more, as they are stored, are refused from the header: 4,000 slices of 512 x 512 at 16 bits."""

LARGEST_PLANE = 4096 * 4096
"""Pixels of a plane; more are refused from the header."""

_SLAB_BYTES = 2**24
"""Values are taken from a file in slabs of about this size, so that memory stays small whatever the file."""

_IN_MEMORY = 2**26
"""Bytes up to which a volume's values are kept in memory rather than in a temporary file."""

_AGAIN = "copy or convert it again, or leave it out"


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredArray:
    """Where the values of a file lie and what they are.

    Parameters
    ----------
    sizes
        Of the stored axes.
    dtype
        Of the values, with their byte order.
    compression
        Of all bytes from `start` on.
    start
        Byte of the file from which on there are values, or compressed bytes.
    skipped
        Bytes between there and the values, once decompressed.
    """

    sizes: Axes
    dtype: np.dtype[Any]
    compression: Literal["none", "gzip", "zlib"]
    start: int = 0
    skipped: int = 0

    @property
    def slice_bytes(self) -> int:
        """Bytes of all values that share their place on axis k."""
        return self.sizes[0] * self.sizes[1] * self.dtype.itemsize

    @property
    def bytes(self) -> int:
        """Bytes of all values."""
        return self.slice_bytes * self.sizes[2]

    def check(self, length: int, path: Path) -> None:
        """Compare what is stated with the limits, and with the file's length in bytes where it is not compressed.

        Raises
        ------
        RefusedImageError
            If it does not fit.
        """
        low, middle, high = sorted(self.sizes)
        if self.bytes > LARGEST_BYTES or middle * high > LARGEST_PLANE:
            reason = (
                f"expected at most {LARGEST_BYTES} bytes of values and {LARGEST_PLANE} in a plane, "
                f"found {low} x {middle} x {high} of {self.dtype.itemsize} bytes"
            )
            remedy = "save the part that is meant as a file of its own"
            raise RefusedImageError(RefusalCode.TOO_LARGE, reason, path=path, remedy=remedy)
        found = length - self.start - self.skipped
        if self.compression == "none" and found < self.bytes:
            raise self._truncated(found, path)
        if self.compression == "none" and found - self.bytes >= self.slice_bytes:
            raise _more_than_stated(path)

    def slabs(self, file: KnownFile) -> Iterator[NDArray[Any]]:
        """Give the values as they are stored, ``(some k, j, i)`` after each other, and never more than stated.

        Raises
        ------
        RefusedImageError
            If the file has changed, cannot be decompressed, ends too early, or holds a slice more than stated.
        """
        columns, rows, slices = self.sizes
        thick = max(1, _SLAB_BYTES // self.slice_bytes)
        with file.opened() as stream, decompression_faults(file.path):
            stream.seek(self.start)
            values = decompressed(stream, self.compression)
            _read(values, self.skipped)
            for done in range(0, slices, thick):
                count = min(thick, slices - done)
                content = _read(values, count * self.slice_bytes)
                if len(content) < count * self.slice_bytes:
                    raise self._truncated(done * self.slice_bytes + len(content), file.path)
                yield np.frombuffer(content, dtype=self.dtype).reshape(count, rows, columns)
            # A few bytes more are let pass. Reading to the end also has the checksum of what was compressed compared.
            if len(_read(values, self.slice_bytes)) == self.slice_bytes:
                raise _more_than_stated(file.path)

    def _truncated(self, found: int, path: Path) -> RefusedImageError:
        reason = f"ends too early: expected {self.bytes} bytes of values, found {max(found, 0)}"
        return RefusedImageError(RefusalCode.TRUNCATED_PIXELS, reason, path=path, remedy=_AGAIN)


def _more_than_stated(path: Path) -> RefusedImageError:
    reason = "holds more values than its header says"
    return RefusedImageError(RefusalCode.INCONSISTENT_PIXELS, reason, path=path, remedy=_AGAIN)


def decompressed(stream: IO[bytes], compression: Literal["none", "gzip", "zlib"]) -> IO[bytes]:
    """Give what a stream holds, from where it stands, decompressed as it is read."""
    if compression == "gzip":
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
    return io.BufferedReader(_Inflated(stream)) if compression == "zlib" else stream


class _Inflated(io.RawIOBase):
    """Inflates a zlib stream (RFC 1950) piece by piece."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._inflater = zlib.decompressobj()
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = b""
        while not content and not self._inflater.eof:
            self._waiting = self._waiting or self._stream.read(2**16)
            if not self._waiting:
                raise EOFError
            content = self._inflater.decompress(self._waiting, len(buffer))
            self._waiting = self._inflater.unconsumed_tail
        buffer[: len(content)] = content
        return len(content)


@contextlib.contextmanager
def decompression_faults(path: Path) -> Iterator[None]:
    """Turn what goes wrong in decompressing into a refusal."""
    try:
        yield
    except EOFError as error:
        reason = "its compressed content ends too early"
        raise RefusedImageError(RefusalCode.TRUNCATED_PIXELS, reason, path=path, remedy=_AGAIN) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        reason = f"cannot be decompressed: {str(error).lower()}"
        raise RefusedImageError(RefusalCode.DAMAGED, reason, path=path, remedy=_AGAIN) from error


def _read(values: IO[bytes], size: int) -> bytes:
    """Read so many bytes, or all that are left; one call may give fewer."""
    content = values.read(size)
    while len(content) < size and (more := values.read(size - len(content))):
        content += more
    return content


class ArrayReader:
    """Reads planes of a stored array, as the reader of a Volume.

    What is asked for first takes all values from the file, once, and lays them plane after plane in a temporary file,
    so that any plane is read as fast as any other afterwards, whatever the compression and the order of the axes. That
    file has no name, and is gone with the reader.

    Parameters
    ----------
    file
        Which holds the array.
    array
        Where in it.
    turn
        How planes are turned.
    slope, intercept
        From stored values to modality units.
    """

    def __init__(
        self, file: KnownFile, array: StoredArray, turn: Turn, *, slope: float = 1.0, intercept: float = 0.0
    ) -> None:
        self._file = file
        self._array = array
        self._turn = turn
        self._slope, self._intercept = slope, intercept
        self._lock = threading.Lock()
        self._spool: IO[bytes] | None = None
        self._close: Callable[[], object] | None = None

    def release(self) -> None:
        """Let go of the values that are held; the next read takes them from the file again."""
        with self._lock:
            if self._close is not None:
                self._close()
            self._spool = self._close = None

    def __call__(self, planes: Sequence[int]) -> Planes:
        """Read planes: float32 ``(n, rows, columns)``."""
        values = np.empty((len(planes), *self._turn.shape[1:]), dtype=np.float32)
        for number, plane in enumerate(planes):
            stored = self._stored_plane(self._turn.stored_plane(plane))
            # What float32 cannot hold becomes infinite, and is then as little a value as what the file calls NaN.
            with np.errstate(over="ignore", invalid="ignore"):
                if (self._slope, self._intercept) != (1.0, 0.0):
                    stored = stored * np.float64(self._slope) + self._intercept
                values[number] = self._turn.turned(stored[np.newaxis])[0]
        return values

    def _stored_plane(self, index: int) -> NDArray[Any]:
        """Read one plane ``(a, b)`` as stored, b the earlier stored axis."""
        b, a = (size for axis, size in enumerate(self._array.sizes) if axis != self._turn.axes[2])
        size = a * b * self._array.dtype.itemsize
        with self._lock:
            if self._spool is None:
                self._spool = self._filled()
                self._close = weakref.finalize(self, self._spool.close)
            self._spool.seek(index * size)
            content = self._spool.read(size)
        return np.frombuffer(content, dtype=self._array.dtype).reshape(a, b)

    def _filled(self) -> IO[bytes]:
        """Lay all planes one after the other."""
        spool: IO[bytes] = io.BytesIO() if self._array.bytes <= _IN_MEMORY else _temporary_file()
        try:
            done = 0
            for slab in self._array.slabs(self._file):
                self._lay(spool, slab, done)
                done += len(slab)
        except BaseException:
            spool.close()
            raise
        return spool

    def _lay(self, spool: IO[bytes], slab: NDArray[Any], done: int) -> None:
        """Lay a slab, before which `done` places of axis k have been laid."""
        axis = self._turn.axes[2]
        if axis == 2:
            _write(spool, done * slab[0].nbytes, slab)
            return
        for plane, part in enumerate(np.moveaxis(slab, 2 - axis, 0)):
            _write(spool, (plane * self._array.sizes[2] + done) * part[0].nbytes, part)


def _temporary_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(buffering=0)
    except OSError as error:
        raise storage_error(error, Path(tempfile.gettempdir())) from error


def _write(spool: IO[bytes], place: int, values: NDArray[Any]) -> None:
    content = memoryview(values.tobytes())
    try:
        spool.seek(place)
        while content:
            content = content[spool.write(content) :]
    except OSError as error:
        raise storage_error(error, Path(tempfile.gettempdir())) from error
