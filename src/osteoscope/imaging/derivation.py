"""What an image was made from others for, by the words of its image type and descriptions.

Descriptions are free text, and may name the patient: what is made of them is a word of a closed list.
"""

from __future__ import annotations

import functools
import re
from typing import Literal

Derivation = Literal["localiser", "projection", "map", "reformatted", ""]

_LOCALISER = re.compile(
    r"(?<![a-z])(?:locali[sz]er\w*|scout\w*|topogram\w*|surview|pilot(?! study)|3[- ]?plane|three[- ]?plane|planscan"
    # A survey of the skeleton is an examination.
    r"|(?<!skeletal )(?<!skeleton )(?<!bone )(?<!myeloma )survey"
    # What refers to a scout is none.
    r"|loc(?! ref))(?![a-z])"
)
_PROJECTION = re.compile(
    r"(?<![a-z])(?:mip|minip|projection image|projection|vrt|vr|ssd|volume rendering|3d rendering|cpr)(?![a-z])"
)
_COMPUTED = re.compile(
    # Behind FA a number is a flip angle.
    r"(?<![a-z])(?:sub|subtraction|subtracted|adc|fa(?! ?=? ?\d)|colfa|trace|tensor|cbf|cbv|mtt)(?![a-z])"
    # Of what a series over time gives, not the series itself.
    r"|^derived .*(?<![a-z])perfusion(?![a-z])"
)
_REFORMATTED = re.compile(r"(?<![a-z])(?:mpr|reformat\w*|reformatted|csammpr)(?![a-z])")

_DERIVATIONS: tuple[tuple[Derivation, re.Pattern[str]], ...] = (
    ("localiser", _LOCALISER),
    ("projection", _PROJECTION),
    ("map", _COMPUTED),
    ("reformatted", _REFORMATTED),
)


def simplified(text: str) -> str:
    """Write a free text in small letters, its words divided by one blank."""
    return re.sub(r"[_\s\\]+", " ", text).lower().strip()


# The files of a series say the same, and there are hundreds of them.
@functools.lru_cache(maxsize=4096)
def derivation_of(kinds: str, text: str) -> Derivation:
    """Say what an image was made from others for, or empty.

    Parameters
    ----------
    kinds
        Image Type (0008,0008).
    text
        Descriptions.

    Returns
    -------
    ``localiser``, ``projection``, ``map`` (a difference or a computed map) or ``reformatted``.
    """
    plain = simplified(f"{kinds} {text}")
    return next((name for name, words in _DERIVATIONS if words.search(plain)), "")


def is_original(kinds: str) -> bool:
    """Tell whether an image type (PS3.3 C.7.6.1.1.2) does not say that an image was derived from others."""
    return not kinds.upper().startswith("DERIVED")
