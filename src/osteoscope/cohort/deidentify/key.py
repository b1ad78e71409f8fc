"""The key of a de-identification: a secret, from which every pseudonym, UID and shift of dates is derived.

The same key gives the same patient the same pseudonym and the same shift in every run, so that a cohort can grow and a
killed run goes on. It holds no identifier: who has it can tell whether an identifier that they know belongs to a
pseudonym, and nobody can go the other way. HMAC-SHA-256 (RFC 2104) derives everything, one purpose apart from another.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from osteoscope.errors import ConfigError
from osteoscope.storage import storage_error

KEY_SCHEMA = "osteoscope-key/1"

_SECRET_BYTES = 32

_SHORTEST_SHIFT = 30
_LONGEST_SHIFT = 1825
"""Days by which dates are moved into the past: a month to five years, so that no date stays near its own."""

_PSEUDONYM_BYTES = 10
"""Of 80 bits: two of a million patients get the same pseudonym in one case of two million million."""

_BLANK = " \0\t\r\n"
"""What may pad an identifier."""

_UUID_ROOT = "2.25."
"""UIDs derived from a UUID (PS3.5 B.2)."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """What pseudonyms are derived from.

    Parameters
    ----------
    secret
        32 random bytes.
    """

    secret: bytes = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read a key, or make one, readable by its owner alone, where there is none.

        Raises
        ------
        ConfigError
            If others may read it, or it is damaged or no key.
        StorageError
            If it cannot be made.
        """
        if not path.exists() and not path.is_symlink():
            _make(path)
        return cls(secret=_read(path))

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits by which two keys are told apart, and which give nothing of the secret away."""
        return self._derived("key", "")[:8].hex()

    def patient(self, identifier: str) -> str:
        """Give the pseudonym of a patient, by Patient ID (0010,0020), whatever blanks surround it."""
        return self._named("P", "patient", identifier)

    def study(self, uid: str) -> str:
        """Give the name of a study's folder, by its Study Instance UID."""
        return self._named("S", "study", uid)

    def series(self, uid: str) -> str:
        """Give the name of a series' folder, by its Series Instance UID."""
        return self._named("R", "series", uid)

    def number(self, identifier: str) -> str:
        """Give what stands for an accession number, a study ID or another identifier: 16 characters at most."""
        return self._named("N", "number", identifier)[:16]

    def uid(self, uid: str) -> str:
        """Give what stands for a UID: ``2.25.`` and a UUID of version 8 (RFC 9562)."""
        return _UUID_ROOT + str(uuid.UUID(bytes=_as_version_8(self._derived("uid", uid)[:16])).int)

    def shift(self, identifier: str) -> int:
        """Give the days by which a patient's dates move: one negative number for all, so that intervals stay."""
        drawn = int.from_bytes(self._derived("shift", identifier)[:8], "big")
        return -(_SHORTEST_SHIFT + drawn % (_LONGEST_SHIFT - _SHORTEST_SHIFT + 1))

    def _named(self, letter: str, purpose: str, identifier: str) -> str:
        digits = base64.b32encode(self._derived(purpose, identifier)[:_PSEUDONYM_BYTES]).decode("ascii")
        return f"{letter}-{digits}"

    def _derived(self, purpose: str, identifier: str) -> bytes:
        message = f"{purpose}\0".encode() + identifier.strip(_BLANK).encode("utf-8", "surrogatepass")
        return hmac.digest(self.secret, message, "sha256")


def _as_version_8(content: bytes) -> bytes:
    """Set the version and the variant of a UUID, so that it is one."""
    changed = bytearray(content)
    changed[6] = changed[6] & 0x0F | 0x80
    changed[8] = changed[8] & 0x3F | 0x80
    return bytes(changed)


def _make(path: Path) -> None:
    """Write a new key whole or not at all; one that another process makes meanwhile stays."""
    secret = secrets.token_bytes(_SECRET_BYTES)
    value = {"schema": KEY_SCHEMA, "secret": secret.hex(), "sha256": hashlib.sha256(secret).hexdigest()}
    beside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made with mode 600.
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        beside = Path(name)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(json.dumps(value, indent=2) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(beside)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(1 << 16)
    except OSError as error:
        reason = f"the key cannot be read: {error.strerror or error}"
        raise ConfigError(reason, path=path, remedy="make it readable, or name another with --key") from error
    if stat.S_IMODE(mode) & 0o077:
        reason = f"expected a key that its owner alone may read (mode 600), found mode {stat.S_IMODE(mode):o}"
        raise ConfigError(reason, path=path, remedy=f"find out who has read it, then: chmod 600 {path}")
    return _secret_in(content, path)


def _secret_in(content: bytes, path: Path) -> bytes:
    remedy = "restore it from its copy; with a new key every patient gets another pseudonym"
    try:
        value: Any = json.loads(content)
        schema, secret, stated = value["schema"], bytes.fromhex(value["secret"]), value["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError("the key is damaged, or is no key", path=path, remedy=remedy) from error
    if schema != KEY_SCHEMA:
        reason = f"expected a key of {KEY_SCHEMA}, found {schema!r}"
        raise ConfigError(reason, path=path, remedy="use the version of osteoscope that made it")
    if len(secret) != _SECRET_BYTES or hashlib.sha256(secret).hexdigest() != stated:
        raise ConfigError("the key is damaged: its secret and its checksum differ", path=path, remedy=remedy)
    return secret
