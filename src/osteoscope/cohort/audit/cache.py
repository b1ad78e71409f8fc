"""What an audit found, kept by content, so that the same pictures are looked at once.

One SQLite file in the user's cache folder holds, by the hash of a picture's pixels, its look; by the hashes of two
pictures, what was judged of them; and by the hash of a whole cohort, its audit, as ``metrics.json`` has it. It shows
nothing of a picture beyond the descriptor of `osteoscope.imaging.look`, and of a CT or MR what its header says of the
scanner. It may be deleted at any time. A cache that cannot be used is done without.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.cohort.audit import confirm
from osteoscope.cohort.audit.confirm import Verdict
from osteoscope.imaging import look, scan_look
from osteoscope.imaging.look import SIDE, Look
from osteoscope.storage import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_LOG = logging.getLogger(__name__)

_FILE = "looks.sqlite"
_TABLES = (
    "CREATE TABLE IF NOT EXISTS looks "
    "(pixels TEXT, version TEXT, facts TEXT, descriptor BLOB, PRIMARY KEY (pixels, version))",
    "CREATE TABLE IF NOT EXISTS pairs (pair TEXT, version TEXT, verdict TEXT, PRIMARY KEY (pair, version))",
    "CREATE TABLE IF NOT EXISTS audits (cohort TEXT, version TEXT, audit TEXT, PRIMARY KEY (cohort, version))",
)
_SECONDS_TO_WAIT = 10.0
_MOST_AT_ONCE = 500
"""Keys in one question; SQLite allows 999 or more."""

_LOOK_VERSION = f"{look.VERSION}.{scan_look.VERSION}"
_PAIR_VERSION = f"{_LOOK_VERSION}.{confirm.VERSION}"


def pair_key(first: str, second: str) -> str:
    """Name a pair of pictures by the hashes of their pixels, whatever their order."""
    return "+".join(sorted((first, second)))


def known_looks(pixels: Iterable[str]) -> dict[str, Look]:
    """Give the looks that are kept, by the key that they were kept by; none where the cache cannot be used."""
    rows = _answers(
        "SELECT pixels, facts, descriptor FROM looks WHERE version = ? AND pixels IN", _LOOK_VERSION, pixels
    )
    return _readable(rows, lambda facts, descriptor: _look_of(json.loads(facts), descriptor))


def keep_looks(looks: Mapping[str, Look]) -> None:
    """Keep looks by the hash of the pixels, or by whatever else they follow from."""
    _store(
        "INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?)",
        [(pixels, _LOOK_VERSION, _facts(seen), seen.descriptor.tobytes()) for pixels, seen in looks.items()],
    )


def known_verdicts(pairs: Iterable[str]) -> dict[str, Verdict | None]:
    """Give what was judged of pairs, by `pair_key`; None stands for two pictures that are not nearly alike."""
    rows = _answers("SELECT pair, verdict FROM pairs WHERE version = ? AND pair IN", _PAIR_VERSION, pairs)
    return _readable(rows, lambda text: None if json.loads(text) is None else Verdict(**json.loads(text)))


def keep_verdicts(verdicts: Mapping[str, Verdict | None]) -> None:
    """Keep what was judged of pairs, by `pair_key`."""
    texts = {pair: json.dumps(None if one is None else asdict(one)) for pair, one in verdicts.items()}
    _store(
        "INSERT OR REPLACE INTO pairs VALUES (?, ?, ?)", [(pair, _PAIR_VERSION, text) for pair, text in texts.items()]
    )


def known_audit(key: str, version: str) -> dict[str, Any] | None:
    """Give the audit that is kept under a key and version of the audit, or None."""
    rows = _answers("SELECT cohort, audit FROM audits WHERE version = ? AND cohort IN", version, [key])
    return _readable(rows, json.loads).get(key)


def keep_audit(key: str, version: str, audit: Mapping[str, Any]) -> None:
    """Keep an audit, as a value that JSON can hold."""
    _store("INSERT OR REPLACE INTO audits VALUES (?, ?, ?)", [(key, version, json.dumps(audit))])


# Looks as rows --------------------------------------------------------------------------------------------------------


def _facts(seen: Look) -> str:
    facts = {"features": dict(seen.features), "words": dict(seen.words)}
    return json.dumps({"shape": seen.shape, "content": seen.content, **facts})


def _look_of(facts: dict[str, Any], descriptor: bytes) -> Look:
    rows, columns = facts["shape"]
    left, top, right, bottom = facts["content"]
    return Look(
        shape=(rows, columns),
        content=(left, top, right, bottom),
        descriptor=np.frombuffer(descriptor, dtype=np.int8).reshape(2, SIDE, SIDE),
        features=facts["features"],
        words=facts["words"],
    )


def _readable(rows: Iterable[tuple[Any, ...]], read: Callable[..., Any]) -> dict[str, Any]:
    """Read rows by their first column, and leave out what is damaged."""
    found = {}
    for key, *values in rows:
        try:
            found[str(key)] = read(*values)
        except (ValueError, KeyError, TypeError):
            _LOG.warning("an entry of the cache is damaged, and is made anew")
    return found


# SQLite ---------------------------------------------------------------------------------------------------------------


def _connect() -> sqlite3.Connection:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / _FILE, timeout=_SECONDS_TO_WAIT)
    try:
        for table in _TABLES:
            connection.execute(table)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _answers(question: str, version: str, keys: Iterable[str]) -> list[tuple[Any, ...]]:
    wanted, rows = sorted(set(keys)), []
    try:
        with closing(_connect()) as connection:
            for first in range(0, len(wanted), _MOST_AT_ONCE):
                part = wanted[first : first + _MOST_AT_ONCE]
                places = ", ".join("?" * len(part))
                rows.extend(connection.execute(f"{question} ({places})", (version, *part)).fetchall())
    except (sqlite3.Error, OSError) as error:
        _done_without(error)
        return []
    return rows


def _store(statement: str, rows: list[tuple[Any, ...]]) -> None:
    if not rows:
        return
    try:
        with closing(_connect()) as connection, connection:
            connection.executemany(statement, rows)
    except (sqlite3.Error, OSError) as error:
        _done_without(error)


def _done_without(error: Exception) -> None:
    _LOG.warning("the cache in %s cannot be used, and is done without: %s", cache_folder(), error)
