"""Which series of a patient become images of the cohort, and why: one CT and one MR, and every view of a radiograph.

A series is left for what it is (a scout, a projection, a captured screen), for what was asked for (`Wishes`), for its
date, or because another of its study fits better. Every series has a reason, and a person may decide otherwise.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from osteoscope.cohort.archive.words import akin, too_tall
from osteoscope.imaging.refusal import LEFT_OUT, RefusalCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from osteoscope.cohort.archive.labels import Label
    from osteoscope.cohort.archive.stacks import Stack
    from osteoscope.imaging.volume import Modality

Override = Literal["keep", "leave"]
Names = tuple[str, str, str, str]
"""Pseudonyms of patient, study and series, and the part: what names a stack in the table of series."""
When = Literal["before", "first", "last", "any"]

SEVERAL_PLANES = 5
"""A series of fewer planes is taken only where there is none with more: it shows a part of what is meant."""

BORNE_OUT = "as its descriptions say"
"""Ends the remark on a tag that is certain."""

_MIDDLE = 2.0
"""Distance between planes in mm that is best: thinner ones are noisier, and thicker ones blur a lesion's edge."""

_USUAL_PLANE: Mapping[str, str] = {"CT": "axial", "MR": "sagittal"}


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What series are asked for; an empty wish takes whatever there is.

    Parameters
    ----------
    modalities
        Kinds of images.
    plane, kernel, weighting
        As `osteoscope.cohort.archive.facts.Facts` has them; they hold for CT and MR, the kernel for CT, the weighting
        for MR.
    contrast
        Whether contrast was given; what is not said to be with contrast is taken as without.
    thickest
        Largest distance between planes, in mm.
    body_part
        Region of the body (`osteoscope.cohort.archive.words.REGIONS`).
    when
        ``before``: the last study until the biopsy or treatment, else until the proof. ``first``, ``last``: of all.
        ``any``: every study.
    """

    modalities: tuple[Modality, ...] = ("CT", "MR", "radiograph")
    plane: str = ""
    kernel: str = ""
    weighting: str = ""
    contrast: bool | None = None
    thickest: float | None = None
    body_part: str = ""
    when: When = "before"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Whether a stack becomes an image of the cohort.

    Parameters
    ----------
    stack
        Which.
    chosen
        Whether it does.
    reason
        Why, as a sentence without a full stop; it holds no date and no identifier.
    biopsied, treated
        Whether it was taken after the biopsy, and after the treatment began; None where that is not known.
    """

    stack: Stack
    chosen: bool
    reason: str
    biopsied: bool | None = None
    treated: bool | None = None


def choose(
    stacks: Sequence[Stack],
    label: Label,
    wishes: Wishes,
    overrides: Mapping[int, Override] | None = None,
) -> list[Choice]:
    """Choose among the stacks of a patient.

    Parameters
    ----------
    stacks
        All of them.
    label
        What the label table says of the patient; its dates, and the studies that it names, count.
    wishes
        What is asked for.
    overrides
        What a person decided, by the stack's number.

    Returns
    -------
    One choice a stack, in their order.
    """
    decided = overrides or {}
    reasons: dict[int, tuple[bool, str]] = {}
    open_: defaultdict[str, list[Stack]] = defaultdict(list)
    for stack in stacks:
        impossible = unusable(stack)
        if impossible:
            reasons[stack.number] = False, impossible
        elif stack.number in decided:
            keep = decided[stack.number] == "keep"
            reasons[stack.number] = keep, f"a person decided to {'use' if keep else 'leave'} it"
        else:
            reason = left_for_what_it_is(stack) or _not_wished(stack, label, wishes)
            if reason:
                reasons[stack.number] = False, reason
            else:
                open_[stack.facts.kind].append(stack)
    for kind, candidates in open_.items():
        # What a person keeps of a modality stands in place of what would be chosen.
        kept = any(
            reasons[stack.number][0]
            for stack in stacks
            if stack.number in decided and stack.facts.kind == kind and stack.number in reasons
        )
        if kept:
            reasons.update({stack.number: (False, "a person decided to use another series") for stack in candidates})
        else:
            reasons.update(_by_date_and_rank(candidates, label, wishes))
    return [_choice(stack, *reasons[stack.number], label) for stack in stacks]


def _choice(stack: Stack, chosen: bool, reason: str, label: Label) -> Choice:
    return Choice(
        stack=stack,
        chosen=chosen,
        reason=reason,
        biopsied=_biopsied(stack, label),
        treated=_after(stack, label.treatment_date),
    )


def _biopsied(stack: Stack, label: Label) -> bool | None:
    """Tell whether it was taken after the biopsy; the day of the proof alone leaves open what came before it."""
    if label.biopsy_date is None:
        return _after(stack, label.proof_date) or None
    return _after(stack, label.biopsy_date)


def _after(stack: Stack, date: str | None) -> bool | None:
    return stack.facts.date > date if stack.facts.date and date else None


# What it is -----------------------------------------------------------------------------------------------------------


_DERIVED = {
    "localiser": "its description or image type says that it is a scout, on which other images were planned",
    "projection": "it is a projection or a rendering that was made from other images",
    "map": "it is a difference or a map that was computed from other images",
}


def unusable(stack: Stack) -> str:
    """Say why a stack cannot be used, even where a person wants it; nothing where it can."""
    facts = stack.facts
    count, sentence = stack.unusable
    if facts.kind == "marks":
        return "it marks regions in other images, and is none itself"
    if facts.kind == "other":
        return f"it is no image ({facts.modality or 'modality not stated'})"
    if count:
        return f"{count} of its {stack.files + stack.copies} files cannot be used: {sentence}"
    if not stack.study or not stack.series:
        return "its files have nothing by which their study and series could be de-identified consistently"
    return ""


def left_for_what_it_is(stack: Stack) -> str:
    """Say why a stack is left unless a person wants it; nothing where it is an image that may be meant."""
    facts = stack.facts
    if facts.aside:
        return f"it is {LEFT_OUT[RefusalCode(facts.aside)]}"
    if facts.derivation in _DERIVED:
        return _DERIVED[facts.derivation]
    if facts.kind != "radiograph" and not facts.plane:
        return "the place of its planes in the patient is not stated"
    if stack.repeated:
        return f"{stack.repeated} of its {stack.files} files show the place of another, as in a series over time"
    return ""


# What is asked for ----------------------------------------------------------------------------------------------------


def _not_wished(stack: Stack, label: Label, wishes: Wishes) -> str:
    """Say which wish a stack does not fit, or nothing."""
    facts = stack.facts
    if facts.kind not in wishes.modalities:
        return f"{facts.kind} is not asked for"
    if label.studies and stack.study not in label.studies:
        return "the label table names another study of the patient"
    if facts.kind != "radiograph":
        return next(filter(None, (test(stack, wishes) for test in _TESTS)), "")
    return _other_region(stack, wishes)


def _other_plane(stack: Stack, wishes: Wishes) -> str:
    found = stack.facts.plane
    return f"its planes are {found}, and {wishes.plane} ones are asked for" if wishes.plane not in ("", found) else ""


def _other_kernel(stack: Stack, wishes: Wishes) -> str:
    found = stack.facts.kernel
    if stack.facts.kind != "CT" or wishes.kernel in ("", found):
        return ""
    return f"its kernel is {f'for {found}' if found else 'not known'}, and one for {wishes.kernel} is asked for"


def _other_weighting(stack: Stack, wishes: Wishes) -> str:
    found = stack.facts.weighting
    if stack.facts.kind != "MR" or wishes.weighting in ("", found):
        return ""
    return f"its weighting is {found or 'not known'}, and {wishes.weighting} is asked for"


def _other_contrast(stack: Stack, wishes: Wishes) -> str:
    found = bool(stack.facts.contrast)
    if wishes.contrast is None or wishes.contrast == found:
        return ""
    return f"it is {_with(found)} contrast, and one {_with(wishes.contrast)} is asked for"


def _with(contrast: bool) -> str:
    return "with" if contrast else "without"


def _too_thick(stack: Stack, wishes: Wishes) -> str:
    if wishes.thickest is None or (stack.step is not None and stack.step <= wishes.thickest + 0.01):
        return ""
    found = "at unknown distances" if stack.step is None else f"{stack.step:.2g} mm apart"
    return f"its planes are {found}, and at most {wishes.thickest:g} mm are asked for"


def _other_region(stack: Stack, wishes: Wishes) -> str:
    """Leave a stack only where nothing speaks for the region: a tag alone is often wrong."""
    facts = stack.facts
    said = frozenset({*facts.body_part, *facts.described})
    if not wishes.body_part or not said or akin(said, frozenset({wishes.body_part})):
        return ""
    return f"its tag and descriptions name {' and '.join(sorted(said))}, and {wishes.body_part} is asked for"


_TESTS: tuple[Callable[[Stack, Wishes], str], ...] = (
    _other_plane,
    _other_kernel,
    _other_weighting,
    _other_contrast,
    _too_thick,
    _other_region,
)


def region_remark(stack: Stack) -> str:
    """Say what the tag of the body part is worth; nothing where there is none."""
    facts = stack.facts
    tag, said = frozenset(facts.body_part), frozenset(facts.described)
    if not tag:
        return ""
    named = " and ".join(sorted(tag))
    if too_tall(tag, stack.height):
        return f"tagged {named}, which its {stack.height:.0f} mm along the body contradict"
    if said and not akin(tag, said):
        return f"tagged {named}, which its descriptions contradict: {' and '.join(sorted(said))}"
    return f"tagged {named}, {BORNE_OUT}" if said else f"tagged {named}, unverified"


# Its date -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Dated:
    """The stacks of the study that is taken, and why; and why others are not."""

    taken: list[Stack]
    because: str
    others: dict[int, tuple[bool, str]] = field(default_factory=dict)


def _by_date_and_rank(stacks: list[Stack], label: Label, wishes: Wishes) -> dict[int, tuple[bool, str]]:
    dated = _by_date(stacks, label, wishes)
    found = dict(dated.others)
    of_study: defaultdict[str, list[Stack]] = defaultdict(list)
    for stack in dated.taken:
        of_study[stack.study].append(stack)
    for own in of_study.values():
        found.update(_by_rank(own, wishes, dated.because))
    return found


def _by_date(stacks: list[Stack], label: Label, wishes: Wishes) -> _Dated:
    if wishes.when == "any":
        return _Dated(taken=stacks, because="every study is asked for")
    limit, event = _limit(label) if wishes.when == "before" else (None, "")
    late = {} if limit is None else _too_late(stacks, limit, event, label)
    left = [stack for stack in stacks if stack.number not in late]
    if not left:
        return _Dated(taken=[], because="", others=late)
    study, because = _study_of(left, limit, event, wishes)
    is_dated = any(stack.facts.date for stack in left)
    if late and not is_dated:
        because = f"its date is not known, and what has one was taken too long after the {event}"
    others = {
        stack.number: (False, _other_study(stack, because, is_dated=is_dated)) for stack in left if stack.study != study
    }
    return _Dated(taken=[stack for stack in left if stack.study == study], because=because, others={**late, **others})


def _limit(label: Label) -> tuple[str | None, str]:
    """Give the day until which images show the lesion as it was, and what happened then."""
    events = {"biopsy": label.biopsy_date, "treatment": label.treatment_date}
    known = [(date, event) for event, date in events.items() if date]
    if known:
        return min(known)
    return label.proof_date, "proof"


def _too_late(stacks: list[Stack], limit: str, event: str, label: Label) -> dict[int, tuple[bool, str]]:
    """Leave what was taken after the day, unless nothing else is there and no treatment had begun."""
    dated = [stack for stack in stacks if stack.facts.date]
    late = [stack for stack in dated if stack.facts.date > limit]
    treatment = label.treatment_date
    untreated = [stack for stack in late if treatment is None or stack.facts.date <= treatment]
    # What has no date may be of any day, so it does not speak against one that is known.
    if len(late) == len(dated) and untreated and event != "treatment":
        late = [stack for stack in late if stack not in untreated]
    return {stack.number: (False, f"it was taken {_days(limit, stack.facts.date)} after the {event}") for stack in late}


def _study_of(stacks: list[Stack], limit: str | None, event: str, wishes: Wishes) -> tuple[str, str]:
    """Take one study, and say why."""
    dated = [stack for stack in stacks if stack.facts.date]
    if not dated:
        first = min(stacks, key=lambda stack: (stack.facts.number or 0, stack.study))
        return first.study, "its date is not known, nor that of any other"
    earliest = min(dated, key=lambda stack: (stack.facts.date, stack.study))
    latest = max(dated, key=lambda stack: (stack.facts.date, stack.study))
    if wishes.when == "first":
        return earliest.study, "of the first study"
    if wishes.when == "last":
        return latest.study, "of the last study"
    if limit is None:
        return earliest.study, "of the first study, since no date of a biopsy, a treatment or the proof is known"
    if latest.facts.date > limit:
        days = _days(limit, earliest.facts.date)
        return earliest.study, f"taken {days} after the {event}, since there is none before it"
    return latest.study, f"of the last study until the {event}, {_days(latest.facts.date, limit)} before it"


def _other_study(stack: Stack, because: str, *, is_dated: bool) -> str:
    if not stack.facts.date and is_dated:
        return "its date is not known, and that of another study is"
    return f"another study is taken ({because})"


def _days(first: str, last: str) -> str:
    count = (datetime.date.fromisoformat(last) - datetime.date.fromisoformat(first)).days
    return f"{count} day{'' if count == 1 else 's'}"


# Its rank in its study ------------------------------------------------------------------------------------------------


def _by_rank(stacks: list[Stack], wishes: Wishes, because: str) -> dict[int, tuple[bool, str]]:
    """Take every radiograph of a study, and of CT and MR the one that fits best."""
    if stacks[0].facts.kind == "radiograph":
        return {stack.number: (True, f"radiograph {because}") for stack in stacks}
    ranked = sorted(stacks, key=lambda stack: tuple(rank(stack, wishes) for _, rank in _RANKS))
    best = ranked[0]
    found = {best.number: (True, f"{_described(best)}; {because}; {_alone(len(ranked))}")}
    for stack in ranked[1:]:
        what = next((name for name, rank in _RANKS if rank(stack, wishes) != rank(best, wishes)), "is listed first")
        found[stack.number] = False, f"another series of its study {what}"
    return found


def _alone(count: int) -> str:
    return "the only one there" if count == 1 else f"it fits best of {count} there"


def _described(stack: Stack) -> str:
    facts = stack.facts
    step = f", {stack.step:.2g} mm apart" if stack.step is not None and stack.planes > 1 else ""
    kernel = f", kernel for {facts.kernel}" if facts.kernel else ""
    planes = "1 plane" if stack.planes == 1 else f"{stack.planes} planes"
    return f"{facts.kind} {facts.weighting or ''} {facts.plane}, {planes}{step}{kernel}".replace("  ", " ")


def _rank_of_region(stack: Stack, wishes: Wishes) -> int:
    """Put what a description says before what a tag says, and both before nothing."""
    if not wishes.body_part:
        return 0
    return 0 if wishes.body_part in stack.facts.described else 1 if wishes.body_part in stack.facts.body_part else 2


_RANKS: tuple[tuple[str, Callable[[Stack, Wishes], float | str]], ...] = (
    ("has more than a few planes", lambda stack, _: stack.planes < SEVERAL_PLANES),
    ("shows the region that is asked for more certainly", _rank_of_region),
    ("is in the usual plane", lambda stack, _: stack.facts.plane != _USUAL_PLANE.get(stack.facts.kind)),
    ("was not reformatted", lambda stack, _: stack.facts.derivation == "reformatted" or not stack.facts.original),
    ("is not diffusion-weighted", lambda stack, _: stack.facts.weighting == "diffusion"),
    ("has planes at a better distance", lambda stack, _: round(abs((stack.step or 99) - _MIDDLE), 1)),
    ("has more planes", lambda stack, _: -stack.planes),
    ("has a lower series number", lambda stack, _: stack.facts.number if stack.facts.number is not None else 1 << 31),
    ("is listed first", lambda stack, _: f"{stack.series} {stack.part:05d}"),
)
"""What decides between series of one study, the first difference counts; the lower the better."""
