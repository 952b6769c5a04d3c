"""Which person or group of the events is meant, and what could be meant by a name that nobody has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from headrace.domain.identifiers import normalise
from headrace_audience.offline.groups import GroupReference
from headrace_audience.offline.reference import Reference

_MOST_NAMED = 3
"""An error names so many that could be meant."""
_MOST_COMPARED = 20_000
"""So many names are looked at for the nearest, which takes a second."""


def profile_meant(name: str, reference: Reference) -> str:
    """The profile of a name: its id, or one of its identifiers as `namespace:value`, normalised as events are.

    Raises:
        ValueError: Nobody has it, or several people do; the text names who could be meant.
    """
    if name in reference.profiles:
        return name
    namespace, _, value = name.partition(":")
    wanted = {(namespace, value), (namespace, normalise(namespace, value, None))}
    known = {profile: reference.identifiers(profile) for profile in reference.profiles}
    found = [profile for profile, identifiers in known.items() if not wanted.isdisjoint(identifiers)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{len(found)} profiles have {name!r}: name one of {_some(found)}")
    every = sorted(f"{space}:{text}" for identifiers in known.values() for space, text in identifiers)
    like = _like(name, [*every, *known])
    raise ValueError(
        f"there is no profile {name!r} in the events; name a profile, or an identifier as namespace:value{like}"
    )


def check_group(name: str, reference: GroupReference) -> None:
    """Check that there is a group.

    Raises:
        ValueError: There is none; the text names which could be meant.
    """
    if name not in reference.groups:
        raise ValueError(f"there is no group {name!r} in the events{_like(name, reference.groups)}")


def _like(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names, or the first of them when none is near."""
    every = list(dict.fromkeys(known))
    near = get_close_matches(name, every[:_MOST_COMPARED], _MOST_NAMED)
    return f", such as {_some(near or every)}" if every else ""


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(map(repr, names[:_MOST_NAMED])) + (f" or {more:,} more" if more > 0 else "")
