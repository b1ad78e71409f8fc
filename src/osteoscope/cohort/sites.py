"""Names of body sites, or of levels of the spine, of which one value may hold several."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SITE_SEPARATOR = "+"
"""Joins the names of the body sites that one image or patient shows, as in ``femur+tibia``."""


def split_sites(site: str | None) -> list[str]:
    """Take the body sites, or the levels of the spine, that are joined in one value apart; there may be none."""
    return [name.strip() for name in (site or "").split(SITE_SEPARATOR) if name.strip()]


def joined_sites(names: Iterable[str]) -> str | None:
    """Join the names of body sites, or of levels of the spine, in one value, each once; None where there are none."""
    return SITE_SEPARATOR.join(sorted(set(names))) or None
