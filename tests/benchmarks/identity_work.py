"""The kinds of work that resolution is measured by: events that come first, and those that are measured."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

from headrace_identity.resolving.rules import DEFAULT_RULES, Rules, parse

from headrace.api.common.v1.event_pb2 import Event, EventKind, Identifier
from headrace.domain.times import now_us
from tests.benchmarks.accept import CONTEXT, PROPERTIES

WORKSPACE = "bench"
SUPER_NODE = 1_000
"""Identifiers of the one person of the super-node, the most that one may have by default."""

_PROPERTIES = json.dumps(PROPERTIES).encode()
_CONTEXT = json.dumps(CONTEXT).encode()
_WIDE = parse({"default_limit": SUPER_NODE})
"""Rules under which nothing but the caps holds up merge storms and the super-node."""


class Work(NamedTuple):
    """A kind of work.

    Attributes:
        name: What it is called.
        rules: Rules of the workspace.
        before: Events that are resolved before, and not measured.
        measured: Events that are measured.
    """

    name: str
    rules: Rules
    before: list[Event]
    measured: list[Event]


class Numbered:
    """Makes events with message ids that are never used twice."""

    def __init__(self, prefix: str) -> None:
        """Make events whose message ids begin with a text."""
        self._prefix = prefix
        self._number = 0
        self._now = now_us()

    def event(self, identifiers: Iterable[tuple[str, str]], traits: bytes = b"") -> Event:
        """A track event of the size that browsers send, or an identify call when it has traits."""
        self._number += 1
        return Event(
            message_id=f"{self._prefix}-{self._number:09d}",
            workspace_id=WORKSPACE,
            source_id="bench",
            kind=EventKind.EVENT_KIND_IDENTIFY if traits else EventKind.EVENT_KIND_TRACK,
            name="" if traits else "Product viewed",
            identifiers=[Identifier(namespace=n, value=v) for n, v in identifiers],
            properties=b"" if traits else _PROPERTIES,
            context=_CONTEXT,
            traits=traits,
            received_at_us=self._now,
            timestamp_us=self._now + self._number,
        )


def known_people(count: int) -> Work:
    """Events of people who are known by the one identifier that each carries."""
    make, rng = Numbered("known"), random.Random(1)
    people = max(count // 5, 1)
    before = [make.event([("anonymous_id", f"known-{n}")]) for n in range(people)]
    measured = [make.event([("anonymous_id", f"known-{rng.randrange(people)}")]) for _ in range(count)]
    return Work("known people", DEFAULT_RULES, before, measured)


def new_people(count: int) -> Work:
    """Every event is somebody's first."""
    make = Numbered("new")
    return Work("new people", DEFAULT_RULES, [], [make.event([("anonymous_id", f"new-{n}")]) for n in range(count)])


def merge_storm(count: int) -> Work:
    """Every event merges one more profile into a person, until each person has had a hundred merges."""
    make = Numbered("storm")
    before = [make.event([("anonymous_id", f"storm-{n}")]) for n in range(count)]
    before += [make.event([("user_id", f"storm-{n}")]) for n in range(-(-count // 100))]
    measured = [make.event([("user_id", f"storm-{n // 100}"), ("anonymous_id", f"storm-{n}")]) for n in range(count)]
    return Work("merge storm", _WIDE, before, measured)


def super_node(count: int) -> Work:
    """Events of one person of 1,000 identifiers: two known ones each, and a trait in every tenth."""
    make, rng = Numbered("super"), random.Random(2)
    user = ("user_id", "super")
    devices = [("anonymous_id", f"super-{n}") for n in range(SUPER_NODE - 1)]
    before = [make.event([user, device]) for device in devices]
    measured = [
        make.event([user, rng.choice(devices)], json.dumps({"visits": n}).encode() if n % 10 == 0 else b"")
        for n in range(count)
    ]
    return Work("one super-node of 1,000 identifiers", _WIDE, before, measured)


def growing_super_node(count: int) -> Work:
    """Every event brings one more identifier to one person, from 0 to 1,000, then to the next such person."""
    make = Numbered("growing")
    measured = [
        make.event([("user_id", f"growing-{n // (SUPER_NODE - 1)}"), ("anonymous_id", f"growing-{n}")])
        for n in range(count)
    ]
    return Work("a person that grows to 1,000 identifiers", _WIDE, [], measured)


def full_super_node(count: int) -> Work:
    """Every event carries an identifier for which the person of 1,000 identifiers has no room."""
    make = Numbered("full")
    user = ("user_id", "full")
    before = [make.event([user, ("anonymous_id", f"full-{n}")]) for n in range(SUPER_NODE - 1)]
    measured = [make.event([user, ("anonymous_id", f"over-{n}")]) for n in range(count)]
    return Work("a super-node at its cap", _WIDE, before, measured)


WORKS: tuple[Callable[[int], Work], ...] = (
    known_people,
    new_people,
    merge_storm,
    super_node,
    growing_super_node,
    full_super_node,
)
"""All kinds of work, by the number of events to measure."""
