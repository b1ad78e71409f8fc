"""Looks for what would make a result on a cohort a lie, before anything is trained or measured on it."""

from osteoscope.cohort.audit.finding import Finding, raise_if_blocked
from osteoscope.cohort.audit.leaks import find_leaks, shared_with

__all__ = ["Finding", "find_leaks", "raise_if_blocked", "shared_with"]
