"""Who in an archive is one patient: identifiers that belong to one person, and one identifier that several people have.

A patient counted twice leaks from training into the test, so identifiers are joined where name, birth date and sex
agree, or where they share a study; two people under one identifier cannot be told apart, and are left out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import combinations, permutations
from typing import TYPE_CHECKING

from osteoscope.cohort.archive.database import transaction
from osteoscope.cohort.archive.facts import plain_name
from osteoscope.cohort.deidentify.values import is_stand_in

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

_MOST_IDENTIFIERS = 3
"""More identifiers of one name, birth date and sex are no person's, but what an anonymiser writes."""

_MOST_OF_A_STUDY = 24
"""More identifiers of one study are no person's, but a UID that an anonymiser writes for everybody."""

_NO_BIRTHS = ("", "19000101", "19700101", "00000000", "18000101")


@dataclass(frozen=True, kw_only=True)
class People:
    """The patients of an archive.

    Parameters
    ----------
    of
        The patient of each identifier: of all identifiers that belong to one person, the one that the index met first;
        of those that it met at once, the first in order.
    joined
        Identifiers, beyond its first, of people who have several.
    several
        Patients whose identifier several people have, and why they cannot be told apart.
    shared_studies
        Study UIDs that different people have.
    unsure
        How many identifiers stand with two names, birth dates or sexes, and are taken to be of one person.
    """

    of: Mapping[str, str]
    joined: Mapping[str, tuple[str, ...]]
    several: Mapping[str, str]
    shared_studies: frozenset[str]
    unsure: int


@dataclass
class _Identity:
    """What the headers of one identifier say of the person."""

    names: set[str] = field(default_factory=set)
    born: set[str] = field(default_factory=set)
    sexes: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)

    def add(self, name: str, born: str, sex: str, study: str) -> None:
        plain = plain_name(name)
        self.names |= {plain} if plain else set()
        self.born |= {born} if born not in _NO_BIRTHS else set()
        self.sexes |= {sex.upper()} if sex.upper() in ("F", "M") else set()
        # Two patients may share a frame of reference that stands for a study: an atlas has one for all.
        self.studies |= {study} if study and not is_stand_in(study) else set()

    def whole(self) -> tuple[str, str, str] | None:
        """Give name, birth date and sex where each is known once."""
        if len(self.names) == len(self.born) == len(self.sexes) == 1:
            return next(iter(self.names)), next(iter(self.born)), next(iter(self.sexes))
        return None

    def contradictions(self) -> dict[str, int]:
        """Count, of what a person has one of, what has several values; one alone may be a slip or a marriage."""
        counted = {"names": len(self.names), "birth dates": len(self.born), "sexes": len(self.sexes)}
        return {name: count for name, count in counted.items() if count > 1}

    def with_all_of(self, other: _Identity) -> _Identity:
        """Give what is said of both."""
        return _Identity(names=self.names | other.names, born=self.born | other.born, sexes=self.sexes | other.sexes)

    def agrees(self, other: _Identity) -> bool:
        """Tell whether nothing that is known of both differs."""
        pairs = ((self.names, other.names), (self.born, other.born), (self.sexes, other.sexes))
        return all(not one or not two or one & two for one, two in pairs)


def people_in(connection: sqlite3.Connection) -> People:
    """Find the patients of an indexed archive."""
    identities: defaultdict[str, _Identity] = defaultdict(_Identity)
    # A patient keeps the pseudonym when a further identifier appears, so those that were known before go first.
    with transaction(connection):
        connection.execute(
            "INSERT OR IGNORE INTO identifiers (identifier) SELECT DISTINCT identifier FROM stacks ORDER BY identifier"
        )
    rows = connection.execute(
        "SELECT DISTINCT identifier, name, born, sex, study FROM stacks JOIN identifiers USING (identifier)"
        " ORDER BY place"
    )
    for identifier, name, born, sex, study in rows:
        identities[identifier].add(name, born, sex, study)
    groups = _Groups(identities)
    _join_by_identity(identities, groups)
    shared = _join_by_study(identities, groups)
    of = {identifier: groups.first(identifier) for identifier in identities}
    joined: defaultdict[str, list[str]] = defaultdict(list)
    for identifier, first in of.items():
        if identifier != first:
            joined[first].append(identifier)
    several = _several(identities, of)
    unsure = [name for name, one in identities.items() if one.contradictions() and of[name] not in several]
    return People(
        of=of,
        joined={first: tuple(others) for first, others in joined.items()},
        several=several,
        shared_studies=frozenset(shared),
        unsure=len(unsure),
    )


class _Groups:
    """Identifiers that are joined to each other; the first in the order given stands for all."""

    def __init__(self, identities: Mapping[str, _Identity]) -> None:
        self._above = {identifier: identifier for identifier in identities}
        self._said = dict(identities)
        self._place = {identifier: place for place, identifier in enumerate(self._above)}

    def first(self, identifier: str) -> str:
        while self._above[identifier] != identifier:
            identifier = self._above[identifier]
        return identifier

    def join(self, one: str, other: str) -> None:
        low, high = sorted((self.first(one), self.first(other)), key=self._place.__getitem__)
        if low != high:
            self._above[high] = low
            self._said[low] = self._said[low].with_all_of(self._said[high])

    def agree(self, one: str, other: str) -> bool:
        """Tell whether nothing that is said of either's group differs."""
        return self._said[self.first(one)].agrees(self._said[self.first(other)])


def _join_by_identity(identities: Mapping[str, _Identity], groups: _Groups) -> None:
    alike: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for identifier, identity in identities.items():
        whole = identity.whole()
        if whole is not None:
            alike[whole].append(identifier)
    for identifiers in alike.values():
        if len(identifiers) <= _MOST_IDENTIFIERS:
            for other in identifiers[1:]:
                groups.join(identifiers[0], other)


def _join_by_study(identities: Mapping[str, _Identity], groups: _Groups) -> set[str]:
    """Join identifiers that share a study, unless they are different people; give the studies that these share.

    An identifier of which little is said agrees with many. Where it shares studies with people who differ, as what a
    tool writes for all patients does, it is none of theirs; nor is a study that more of them share than one person has.
    """
    of_study: defaultdict[str, list[str]] = defaultdict(list)
    partners: defaultdict[str, set[str]] = defaultdict(set)
    for identifier, identity in identities.items():
        for study in identity.studies:
            of_study[study].append(identifier)
    shared = {study for study, identifiers in of_study.items() if len(identifiers) > _MOST_OF_A_STUDY}
    for study in shared:
        del of_study[study]
    for identifiers in of_study.values():
        for one, other in permutations(identifiers, 2):
            if identities[one].agrees(identities[other]):
                partners[one].add(other)
    nobodys = {
        identifier
        for identifier, others in partners.items()
        if not all(identities[one].agrees(identities[other]) for one, other in combinations(others, 2))
    }
    for study, identifiers in of_study.items():
        for one, other in combinations(identifiers, 2):
            if other in partners[one] and nobodys.isdisjoint((one, other)) and groups.agree(one, other):
                groups.join(one, other)
            else:
                shared.add(study)
    return shared


def _several(identities: Mapping[str, _Identity], of: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for identifier, identity in identities.items():
        differ = identity.contradictions()
        if len(differ) > 1 or (differ and not identity.names):
            what = " and ".join(f"{count} {name}" for name, count in differ.items())
            found[of[identifier]] = f"its identifier stands with {what}, so that it may be of several people"
    return found
