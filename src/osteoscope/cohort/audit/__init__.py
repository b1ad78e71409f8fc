"""Looks for what would make a result on a cohort a lie, before anything is trained or measured on it."""

from osteoscope.cohort.audit.accept import Accepted, Settled, settle
from osteoscope.cohort.audit.finding import Finding, raise_if_blocked
from osteoscope.cohort.audit.leaks import find_leaks, shared_with
from osteoscope.cohort.audit.patients import audit_folds
from osteoscope.cohort.audit.run import Audit, audit

__all__ = [
    "Accepted",
    "Audit",
    "Finding",
    "Settled",
    "audit",
    "audit_folds",
    "find_leaks",
    "raise_if_blocked",
    "settle",
    "shared_with",
]
