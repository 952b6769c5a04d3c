"""The incremental engine against the reference, on random definitions, histories and deliveries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from unittest import mock

from headrace_audience.engine import audience
from headrace_audience.engine.engine import Engine, Flip
from headrace_audience.language.definition import Definition
from headrace_audience.offline.facts import Fact, resolved_of
from headrace_audience.offline.reference import Reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.domain.times import SECOND_US, format_time_us
from tests.support import audience_histories as random
from tests.support.audience_cases import kept
from tests.support.audience_lives import PARTITIONS, Delivery, Step, clock_step, found, new_engine
from tests.support.examples import examples

QUICK = settings(
    max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


choices = st.randoms(use_true_random=False)


@contextmanager
def one_by_one_or_together(r: Random) -> Iterator[None]:
    """Few flips are explained one by one, many with whole arrays: here either way for few."""
    with mock.patch.object(audience, "MANY", r.choice((1, 1_000))):
        yield


def expected(audiences: dict[str, Definition], facts: list[Fact], at_us: int) -> dict[str, list[str]]:
    reference = Reference(facts, audiences)
    return {audience_id: reference.members(definition, at_us) for audience_id, definition in audiences.items()}


def check_flips(flips: list[Flip], before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    said = sorted((f.audience_id, f.profile_id, f.member) for f in flips)
    changed = [
        (audience_id, profile, profile in after[audience_id])
        for audience_id in after
        for profile in set(before[audience_id]) ^ set(after[audience_id])
    ]
    assert said == sorted(changed)


@QUICK
@given(r=choices)
@random.anywhen
def test_any_delivery_gives_the_members_of_the_reference_and_flips_are_the_changes(r: Random) -> None:
    """Late, early, repeated, in any order, in any batches, with a restart in the middle."""
    with one_by_one_or_together(r):
        deliver(r, random.asked(r, nobody=False), random.history(r))


@QUICK
@given(r=choices)
@random.anywhen
def test_each_condition_is_exact_when_everything_happens_at_the_same_time(r: Random) -> None:
    with random.crowded(), one_by_one_or_together(r):
        deliver(r, random.asked_one(r), random.history(r, 12))


def deliver(r: Random, asked: random.Asked, history: list[Fact]) -> None:
    audiences = asked.definitions
    deliveries = history + (random.some(r, tuple(history), 0, 6) if history else [])
    r.shuffle(deliveries)
    clock = random.moment(r)
    life = Delivery(audiences, history, clock)
    steps = [clock_step(clock)]

    def do(step: Step) -> list[Flip]:
        steps.append(step)
        return life.do(step)

    with kept(asked, life.seen, clock, steps):
        members = life.members
        while True:
            size = r.randint(0, 8)
            batch, deliveries = deliveries[:size], deliveries[size:]
            ahead = r.choice((None, 0, SECOND_US * 3))
            now = {} if ahead is None else {"now": format_time_us(clock + ahead)}
            do({"arrive": [fact.message_id for fact in batch], **now})
            before = clock
            clock = max(clock + (ahead or 0), random.moment(r))
            flips = do(clock_step(clock))
            after = expected(audiences, life.seen, clock)
            assert life.members == after
            check_flips(flips, members, after)
            check_moments(flips, audiences, life.seen, before, clock)
            members = after
            check_outlook(life.engine, audiences, life.seen)
            if not deliveries:
                break
            if r.randint(0, 3) == 3:
                assert do({"restart": True}) == []


def check_moments(
    flips: list[Flip], audiences: dict[str, Definition], seen: list[Fact], before: int, clock: int
) -> None:
    """A membership has held since the moment that its flip says; when time did it, since exactly then."""
    reference = Reference(seen, audiences)
    for flip in flips:
        assert flip.effective_at_us <= clock
        definition = audiences[flip.audience_id]
        since = reference.since(definition, flip.profile_id, clock)
        if since is not None:
            assert flip.effective_at_us >= since
        if flip.cause == "time":
            assert flip.effective_at_us == since
            assert flip.effective_at_us > before
        assert flip.effective_at_us in {*reference.edges(definition.where, flip.profile_id), clock}


def check_outlook(engine: Engine, audiences: dict[str, Definition], seen: list[Fact]) -> None:
    reference = Reference(seen, audiences)
    changes = [
        (audience_id, profile, reference.next_change(definition, profile, engine.clock_us))
        for audience_id, definition in audiences.items()
        for profile in reference.profiles
    ]
    for audience_id, profile, change in changes:
        assert engine.next_flip_us(audience_id, profile) == change
    coming = [change for _, _, change in changes if change is not None]
    if coming:
        moment = engine.next_moment_us()
        assert moment is not None
        assert engine.clock_us < moment <= min(coming)


@QUICK
@given(r=choices)
@random.anywhen
def test_time_alone_moves_people_at_the_edges(r: Random) -> None:
    """Everything is known from the start, also what lies in the future; only the clock moves."""
    with one_by_one_or_together(r):
        pass_time(r, random.audiences(r), random.history(r))


def pass_time(r: Random, audiences: dict[str, Definition], history: list[Fact]) -> None:
    moments = [random.moment(r) for _ in range(r.randint(1, 6))]
    clock = min(moments)
    engine = new_engine(audiences, clock)
    engine.fold(map(resolved_of, history))
    engine.advance(clock)
    members = expected(audiences, history, clock)
    assert found(engine, audiences) == members
    for moment in sorted(moments):
        flips = engine.advance(moment)
        after = expected(audiences, history, moment)
        check_flips(flips, members, after)
        reference = Reference(history, audiences)
        for flip in flips:
            since = reference.since(audiences[flip.audience_id], flip.profile_id, moment)
            assert since is not None
            assert since <= flip.effective_at_us <= moment
            if flip.effective_at_us > clock and not any(clock < f.timestamp_us <= moment for f in history):
                assert flip.effective_at_us == since
        members, clock = after, moment


@QUICK
@given(r=choices)
@random.anywhen
def test_merges_end_in_the_union(r: Random) -> None:
    """The loser leaves everything; its events count for the survivor; stragglers of the loser are ignored."""
    audiences, history = random.audiences(r), random.history(r)
    clock = random.moment(r)
    engine = new_engine(audiences, clock)
    cut = r.randint(0, len(history))
    engine.fold(map(resolved_of, history[:cut]))
    engine.advance(clock)
    members = expected(audiences, history[:cut], clock)
    engine.merge("q", "p")
    if r.randint(0, 1):
        engine = restarted_after_merge(engine, audiences, members, clock)
    moved = [replace(fact, profile="p") for fact in history[:cut] if fact.profile == "q"]
    engine.fold(map(resolved_of, moved), cause="merge")
    rest = [replace(fact, profile="p") if fact.profile == "q" and r.randint(0, 1) else fact for fact in history[cut:]]
    engine.fold(map(resolved_of, rest))
    clock = max(clock, random.moment(r))
    flips = engine.advance(clock)
    union = [replace(f, profile="p") if f.profile == "q" and f in history[:cut] else f for f in history[:cut]]
    union += [fact for fact in rest if fact.profile != "q"]
    after = expected(audiences, union, clock)
    assert found(engine, audiences) == after
    check_flips(flips, members, after)
    for flip in flips:
        if flip.profile_id == "q":
            assert (flip.member, flip.cause, flip.merged_into) == (False, "merge", "p")
    assert "q" not in [profile for partition in range(PARTITIONS) for profile in engine.profiles_of(partition)]


def restarted_after_merge(
    engine: Engine, audiences: dict[str, Definition], members: dict[str, list[str]], clock: int
) -> Engine:
    """The replica ends before the exits of the loser are written."""
    snapshots = [engine.export_partition(partition) for partition in range(PARTITIONS)]
    again = Engine("w", PARTITIONS, clock)
    for audience_id, definition in audiences.items():
        again.set_audience(audience_id, definition)
        again.start_audience(audience_id)
    for partition, snapshot in enumerate(snapshots):
        again.import_partition(partition, snapshot)
    for audience_id, profiles in members.items():
        again.set_membership(audience_id, profiles)
    for partition in range(PARTITIONS):
        again.start_partition(partition)
    return again
