"""Going on in spite of what blocks: by kind, with a reason, which stays beside the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osteoscope.cohort.audit.finding import NEVER_ACCEPTED
from osteoscope.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osteoscope.cohort.audit.finding import Finding


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A kind of finding that a person accepts, and why.

    Raises
    ------
    ConfigError
        If there is no reason, or the kind is one that cannot be accepted.
    """

    kind: str
    because: str

    def __post_init__(self) -> None:
        if not self.because.strip():
            raise ConfigError(f"no reason is given to accept {self.kind}", remedy='say why with --because "…"')
        if self.kind in NEVER_ACCEPTED:
            reason = f"{self.kind} cannot be accepted: no result on such a cohort means anything"
            raise ConfigError(reason, remedy="mend the cohort, and make it again")


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Findings, and what a person has decided of them.

    Parameters
    ----------
    open
        What nobody has accepted, in the order of the findings; what blocks among them still does.
    accepted
        Findings that were accepted, with the reason.
    not_found
        What was accepted and is not in the cohort.
    """

    open: tuple[Finding, ...]
    accepted: tuple[tuple[Finding, str], ...] = ()
    not_found: tuple[Accepted, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give ``{"accepted": [{…finding, "because"}], "accepted_but_not_found": [KIND]}``; not what is open."""
        return {
            "accepted": [{**finding.to_json(), "because": because} for finding, because in self.accepted],
            "accepted_but_not_found": [one.kind for one in self.not_found],
        }


def settle(findings: Sequence[Finding], accepted: Sequence[Accepted]) -> Settled:
    """Part findings into those that somebody accepted and those that are open.

    To accept a kind that was not found is no fault, so that one command serves several cohorts; what was not found is
    given back to be said. A kind that warns can be accepted too, so that its reason is printed.

    Raises
    ------
    ConfigError
        If a kind is accepted twice.
    """
    because = {one.kind: one.because.strip() for one in accepted}
    if len(because) < len(accepted):
        raise ConfigError("a kind is accepted twice", remedy="give each --accept once, with one --because")
    found = {finding.kind for finding in findings}
    return Settled(
        open=tuple(finding for finding in findings if finding.kind not in because),
        accepted=tuple((finding, because[finding.kind]) for finding in findings if finding.kind in because),
        not_found=tuple(one for one in accepted if one.kind not in found),
    )
