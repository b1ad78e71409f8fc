"""What the free texts and codes of a header say, as words of closed lists: a free text may name the patient.

Tags of the body part are often wrong, since a protocol is chosen for its settings: what they say is kept beside what
the descriptions say, and neither is taken for the truth.
"""

from __future__ import annotations

import functools
import re
from typing import Literal

from osteoscope.imaging.derivation import simplified

Kernel = Literal["bone", "soft", ""]
Weighting = Literal["T1", "T2", "STIR", "PD", "diffusion", ""]

_REGIONS = {
    "head": r"head|brain|skull|crani\w*|neuro|orbits?|sinus\w*|schädel|kopf",
    "neck": r"neck|hals",
    "chest": r"chest|thorax|lungs?|heart|cardiac|ribs?",
    "abdomen": r"abdomen|abdominal|liver|kidneys?",
    "pelvis": r"pelvis|pelvic|hips?|becken",
    "arm": r"shoulder|humerus|elbow|forearm|wrist|hand|finger|upper ?extremity|clavicle|scapula",
    "leg": r"leg|knee|femur|tibia|fibula|ankle|foot|feet|toe|lower ?extremity|thigh|calf|knie",
    "breast": r"breast|mammo\w*",
    "cervical": r"cervical\w*|c[ -]?spine|ctspine|hws",
    "thoracic": r"thoracic\w*|dorsal|t[ -]?spine|ctspine|tlspine|bws",
    "lumbar": r"lumbar\w*|l[ -]?spine|tlspine|lsspine|lws|lendenwirbel\w*",
    "sacral": r"sacr\w+|s[ -]?spine|lsspine|coccyx",
    "spine": r"spine|spinal|vertebra\w*|columna|wirbels\w*",
    "whole body": r"whole ?body|wholebody",
}
_REGION = {name: re.compile(rf"(?<![a-z])(?:{words})(?![a-z])") for name, words in _REGIONS.items()}

REGIONS = tuple(_REGIONS)
"""Regions of the body that words are known for."""

_SPINAL = {"cervical": "neck", "thoracic": "chest", "lumbar": "abdomen", "sacral": "pelvis"}
"""Parts of the spine, each of which is ``spine``, too, and where they lie."""

_TALLEST = {"head": 350.0, "cervical": 400.0, "neck": 400.0, "breast": 350.0}
"""How far an image of a region may reach along the body, in mm, before the region cannot be all that it shows."""

_BONE = re.compile(
    r"^(?:b[6-9]\d\w*|[bh]r[5-9]\d\w*|ur\d\d\w*|fc[3-5]\d|bone\w*|edge|ultra|yc|yd|ya|yb|[dl]|fc8\d|hr(?!\d)\w*|sharp\w*)$"
)
_SOFT = re.compile(
    r"^(?:b[1-5]\d\w*|[bhq]r[1-4]\d\w*|fc[0-2]\d|standard|std\+?|soft\w*|smooth\w*|detail|lung\w*|[abc]|ub|uc|chst)$"
)

_WEIGHTINGS: tuple[tuple[Weighting, re.Pattern[str]], ...] = (
    ("STIR", re.compile(r"(?<![a-z])(?:stir|tirm)(?![a-z])")),
    ("diffusion", re.compile(r"(?<![a-z])(?:dwi|dti|diff\w*|ep2d|adc)(?![a-z])")),
    # T10 to T12 are vertebrae.
    ("T1", re.compile(r"(?<![a-z0-9])t1(?!\d)\w{0,4}(?![a-z])")),
    ("T2", re.compile(r"(?<![a-z0-9])t2(?!\d)\w{0,4}(?![a-z])")),
    ("PD", re.compile(r"(?<![a-z])(?:pd\w?|proton)(?![a-z])")),
)

_PLAIN = re.compile(
    r"(?<![a-z])(?:(?:without|w/?o|w/out|no|non|ohne|kein\w*|pre)[- ]"
    r"(?:(?!with|mit|and|und|post)[\w.]+ )?(?:contrast|kontrast\w*|km|gd)|(?:non|pre)contrast"
    r"|(?:without|w/?o|w/out) c(?![a-z0-9])|contrast ?[:=] ?(?:no|none)|unenhanced|non[- ]?enhanced|plain|nativ\w*)"
)
_BOTH = re.compile(r"(?<![a-z])(?:with|w|mit) ?(?:&|and|und|\+|/|,) ?(?:without|w/?o|w/out|ohne)(?![a-z])")
_ENHANCED = re.compile(
    r"(?<![a-z])(?:with contrast|contrast|enhanced|c\+|\+ ?c|gd|gad\w*|post[- ]?contrast|km|arterial|venous|portal)"
    r"(?![a-z])"
)
_cached = functools.lru_cache(maxsize=4096)
"""The files of a series say the same, and there are hundreds of them."""

_NO_AGENT = re.compile(r"|no|none|nil|n|0|-+|(?:no|none|without|w/?o|ohne|kein\w*|nativ)(?: .*)?")


@_cached
def regions_in(text: str) -> frozenset[str]:
    """Give the regions of the body that a text names; every part of the spine is ``spine``, too."""
    plain = simplified(text)
    found = {name for name, words in _REGION.items() if words.search(plain)}
    return frozenset(found | {"spine" for name in found if name in _SPINAL})


def akin(one: frozenset[str], other: frozenset[str]) -> bool:
    """Tell whether two names of a region may mean one: the lumbar spine is in the abdomen."""
    wide = [names | {_SPINAL[name] for name in names if name in _SPINAL} for names in (one, other)]
    return "whole body" in one | other or bool(wide[0] & wide[1])


def too_tall(regions: frozenset[str], height: float | None) -> bool:
    """Tell whether an image reaches further along the body than the only region that a tag names.

    Parameters
    ----------
    regions
        As `regions_in` gives them.
    height
        In mm, along the body; None where it is unknown.
    """
    named = regions - {"spine"}
    return height is not None and len(named) == 1 and height > _TALLEST.get(next(iter(named)), 1e9)


@_cached
def kernel_of(text: str) -> Kernel:
    """Say what a convolution kernel (0018,1210) is made for, by the names that manufacturers use; empty if unknown."""
    words = re.split(r"[\s\\/]+", text.lower().strip())
    if any(_BONE.match(word) for word in words):
        return "bone"
    return "soft" if any(_SOFT.match(word) for word in words) else ""


@_cached
def weighting_of(text: str) -> Weighting:
    """Say what a description of an MR series calls it; empty where it does not say."""
    plain = simplified(text)
    return next((name for name, words in _WEIGHTINGS if words.search(plain)), "")


@_cached
def contrast_of(agent: str, text: str) -> bool | None:
    """Say whether contrast was given: by the agent (0018,0010), else by the descriptions; None where neither says."""
    stated = simplified(agent)
    if not _NO_AGENT.fullmatch(stated) and not _PLAIN.search(stated):
        return True
    plain = simplified(text)
    if _BOTH.search(plain):
        return None
    if _PLAIN.search(plain):
        return False
    return True if _ENHANCED.search(plain) else None
