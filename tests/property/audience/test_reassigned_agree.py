"""Memberships follow when merges are undone and events move: engine and SQL against the reference over what is left.

People are deleted in between. Identity is imitated at its worst: entries are sent late and again, also such that were
overtaken by a reassignment; partitions lag behind each other; the replica starts again from snapshots in between. The
batch evaluator reads files that were written somewhere in between, and the log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from headrace_audience.batch.queries import Outlook
from headrace_audience.engine.engine import Flip
from headrace_audience.evaluation import Evaluation
from headrace_audience.offline.facts import Fact, resolved_of
from headrace_audience.offline.reference import Reference
from headrace_audience.people import merges
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.api.identity.v1.profile_pb2 import ResolvedEvent
from tests.support import audience_histories as random
from tests.support.audience_cases import kept
from tests.support.audience_lives import PARTITIONS, Life, Step, clock_step
from tests.support.examples import examples
from tests.support.reassigned import World

NOTHING: Any = None
choices = st.randoms(use_true_random=False)


def live(r: Random, life: Life, history: list[Fact]) -> Iterator[Step]:
    """Steps in any order of happening; each is to be done before the next one is asked for."""
    parts = ("p", "q", "r", "s", "t")
    world = life.world
    for number, fact in enumerate(history):
        profile = r.choice([p for p in parts if p not in world.gone] or [f"new{number}"])
        known = world.parts()
        loser = r.choice(known) if known and r.randint(0, 3) == 3 else ""
        yield {"resolve": fact.message_id, "profile": profile, "loser": loser, "late": r.randint(0, 4) == 4}
        what = r.randint(0, 9)
        roots = sorted({world.survivor(p) for p in world.parts()})
        if what < 3:
            some = list(dict.fromkeys(random.some(r, tuple(roots), 1, 2)))
            yield {"assign": world.some_assignment(r, some)}
        elif what == 3:
            yield {"send": "late"}
        elif what < 7:
            if entry := world.some_entry(r):
                yield {"again": list(entry)}
        elif what == 7 and roots:
            yield {"erase": r.choice(roots)}
        if r.randint(0, 1):
            yield {"read": entries(r, 3)}
        if r.randint(0, 2) == 2:
            yield clock_step(max(life.clock, random.moment(r)))
        if r.randint(0, 9) == 9:
            yield {"restart": entries(r, 2) if r.randint(0, 1) else [0] * PARTITIONS}
        if r.randint(0, 5) == 5:
            yield {"archive": True}
    yield {"send": "late"}
    if entry := world.some_entry(r):
        yield {"again": list(entry)}
    while not life.is_done:
        yield {"read": entries(r, 3)}
    yield clock_step(max(life.clock, random.moment(r)))


def entries(r: Random, most: int) -> list[int]:
    return [r.randint(0, most) for _ in range(PARTITIONS)]


@settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(r=choices)
@random.anywhen
def test_whatever_was_merged_and_undone_the_members_are_those_of_what_is_left(r: Random) -> None:
    asked, history, start = random.asked(r, nobody=False), random.history(r), random.moment(r)
    steps = [clock_step(start)]
    with TemporaryDirectory() as folder:
        life = Life(asked.definitions, history, start, folder)
        with kept(asked, history, start, steps, life.facts):
            for step in live(r, life, history):
                steps.append(step)
                life.do(step)
            check(life)


def check(life: Life) -> None:
    reference = Reference(life.facts(), life.audiences)
    at_us = life.clock
    expected = {a: reference.members(definition, at_us) for a, definition in life.audiences.items()}
    assert life.found() == expected
    assert {a: sorted(members) for a, members in life.members.items()} == expected
    for flips in by_membership(life.flips).values():
        assert [f.member for f in flips] == [i % 2 == 0 for i in range(len(flips))]
    name, definition = list(life.audiences.items())[-1]
    assert life.by_batch(definition, at_us, reference.profiles) == [
        Outlook(
            profile,
            profile in expected[name],
            reference.since(definition, profile, at_us),
            reference.next_change(definition, profile, at_us),
        )
        for profile in reference.profiles
    ]


async def test_a_survivor_is_complete_when_the_merge_in_the_middle_of_a_chain_comes_last() -> None:
    """r into q, q into p, p into s: of the first and the last it is known already that all that is of s."""
    world = World(PARTITIONS)
    losers = {"r": "", "q": "r", "p": "q", "s": "p"}
    for number, (profile, loser) in enumerate(losers.items()):
        world.resolve(resolved_of(Fact(profile, random.START, str(number))), loser)
    first, middle, last = (m for event in world.log.values() for m in event.decision.merges)
    evaluation = Evaluation("acme", PARTITIONS, random.START)

    async def of_profiles(db: Any, workspace_id: str, ids: Sequence[str]) -> AsyncIterator[ResolvedEvent]:
        for event in world.events_of(ids):
            yield event

    with mock.patch("headrace.storage.mongo.log.events_of_profiles", of_profiles):
        for told in ([last, first], [first, last], [last, first, middle]):
            loaded = await merges.load(NOTHING, evaluation, told, range(PARTITIONS), lambda _: 0)
            assert {e.event.message_id: e.profile_id for e in loaded.events} == {"0": "s", "1": "s", "2": "s"}


def by_membership(flips: list[Flip]) -> dict[tuple[str, str], list[Flip]]:
    found: dict[tuple[str, str], list[Flip]] = defaultdict(list)
    for flip in flips:
        found[flip.audience_id, flip.profile_id].append(flip)
    return found
