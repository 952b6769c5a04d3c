"""Offline evaluation: who is in an audience at a moment, by any of the evaluators, compared.

The pure function behind `headrace audience eval`. It takes facts (see `facts`): the command line makes them of a
`--people` file with facts_of_people(), of `--events` lines that name their profile with facts_of_lines(), or, for
events that must be resolved to people first, of what the identity service's offline resolver gives with
facts_of_resolved().
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import duckdb

from headrace.domain.times import format_time_us
from headrace_audience.batch import queries
from headrace_audience.batch.group_changes import group_changes
from headrace_audience.engine.engine import Engine
from headrace_audience.language.definition import All, Condition, Definition, check_references
from headrace_audience.offline.changes import next_changes
from headrace_audience.offline.explain import explain
from headrace_audience.offline.facts import Fact, mentions_of, resolved_of, table_of
from headrace_audience.offline.group_explain import explain_group
from headrace_audience.offline.groups import GroupReference
from headrace_audience.offline.naming import check_group, profile_meant
from headrace_audience.offline.reference import Audiences, Reference

ENGINES = ("incremental", "batch", "reference")
"""The three evaluators."""

SPARK = "spark"
"""The batch evaluator on Apache Spark; needs Java and the extra `spark`."""

SELF = ""
"""What the incremental engine calls the audience itself here; no real audience has an empty id."""

STEPS = 500
"""The incremental engine gets the history in at most so many pieces, as if it had lived through it."""

Membership = dict[str, tuple[int | None, int | None]]
"""Members, with when the membership began (None: always) and when it ends (None: never)."""

Evaluator = Callable[[Definition, Sequence[Fact], int, Audiences], Membership]
"""Takes a definition, all events, the moment, and what references mean."""


def evaluate(
    definition: Definition,
    facts: Sequence[Fact],
    at_us: int,
    *,
    engines: Sequence[str] = ("incremental",),
    audiences: Audiences | None = None,
    explain_profile: str | None = None,
    source: Mapping[str, Any] | None = None,
    spark_master: str = "local[*]",
) -> dict[str, Any]:
    """Evaluate a definition over facts.

    Args:
        definition: The audience; of a static one, too, the condition is evaluated.
        facts: All events of all people.
        at_us: The moment, in microseconds.
        engines: Which of ENGINES, or SPARK; the members are those of the first, the others are compared with it.
        audiences: What references to other audiences mean: definitions, or ids of members.
        explain_profile: A profile of which to say why it is in or out, or an identifier of it as `namespace:value`; of
            an audience of groups a group.
        source: The definition as JSON; an explanation quotes it, and cannot do without.
        spark_master: Where Spark runs, if it is asked: see headrace_audience.distributed.spark.

    Returns:
        `{"at", "engine", "members": [{"profile", "identifiers", "since", "leaves_at"}], "mismatches": [...]}` with
        times as ISO 8601 text or null. `since` is null for who has always been in; by the incremental engine it is the
        moment since which the person has been in at least. A mismatch is `{"profile", "engine", "member",
        "leaves_at"}`: what another engine says of a person, beside what the first said. With `explain_profile`
        also "explanation", see headrace_audience.offline.explain. Members of an audience of groups are
        `{"group", "people"}` with the number of people in it, mismatches `{"group", "engine", "member"}`, and the
        explanation is that of headrace_audience.offline.group_explain, with the "group".

    Raises:
        ValueError: An engine or profile that does not exist.
        DefinitionError: The audiences refer to each other in a circle.
        SparkMissing: Spark is asked and cannot be started here.
    """
    known = (*ENGINES, SPARK)
    unknown = [engine for engine in engines if engine not in known]
    if unknown or not engines:
        raise ValueError(f"engine must be one of {', '.join(known)}, not {', '.join(unknown) or 'none'}")
    audiences = audiences or {}
    if definition.of == "groups":
        if SPARK in engines:
            raise ValueError("an audience of groups is about several people at once: spark does not evaluate it")
        of_groups = _evaluate_groups(definition, facts, at_us, engines, audiences)
        if explain_profile is not None:
            explained = _explain_group(definition, facts, at_us, audiences, explain_profile, source or {})
            of_groups["explanation"] = explained
        return of_groups
    named = {name: meaning for name, meaning in audiences.items() if isinstance(meaning, Definition)}
    check_references({**named, SELF: definition}, SELF)
    reference = Reference(facts, audiences)
    by_spark: Evaluator = functools.partial(_by_spark, master=spark_master)
    evaluators = {**_EVALUATORS, SPARK: by_spark}
    results = [evaluators[engine](definition, facts, at_us, audiences) for engine in engines]
    first = results[0]
    answer: dict[str, Any] = {
        "at": format_time_us(at_us),
        "engine": engines[0],
        "members": [
            {
                "profile": profile,
                "identifiers": [list(identifier) for identifier in reference.identifiers(profile)],
                "since": _text(since),
                "leaves_at": _text(leaves),
            }
            for profile, (since, leaves) in sorted(first.items())
        ],
        "mismatches": [
            mismatch
            for engine, other in zip(engines[1:], results[1:], strict=True)
            for mismatch in _mismatches(first, engine, other)
        ],
    }
    if explain_profile is not None:
        profile = profile_meant(explain_profile, reference)
        events = [resolved_of(fact) for fact in facts if fact.profile == profile]
        changes = next_changes(profile, events, definition, audiences, at_us)
        raw = (source or {})["where"]
        answer["explanation"] = explain(reference, definition, profile, at_us, changes, raw=raw)
    return answer


def _evaluate_groups(
    definition: Definition, facts: Sequence[Fact], at_us: int, engines: Sequence[str], audiences: Audiences
) -> dict[str, Any]:
    if unable := [engine for engine in engines if engine not in _GROUP_EVALUATORS]:
        raise ValueError(f"audiences of groups are not evaluated by {', '.join(unable)}: it divides people, not groups")
    found = [_GROUP_EVALUATORS[engine](definition, facts, at_us, audiences) for engine in engines]
    reference = GroupReference(facts)
    mismatches = [
        {"group": group_id, "engine": engine, "member": group_id in other}
        for engine, other in zip(engines[1:], found[1:], strict=True)
        for group_id in sorted(set(found[0]) ^ set(other))
    ]
    members = [{"group": g, "people": len(reference.people_of(g, at_us))} for g in found[0]]
    return {"at": format_time_us(at_us), "engine": engines[0], "members": members, "mismatches": mismatches}


def _explain_group(
    definition: Definition,
    facts: Sequence[Fact],
    at_us: int,
    audiences: Audiences,
    group_id: str,
    source: Mapping[str, Any],
) -> dict[str, Any]:
    reference = GroupReference(facts, audiences)
    check_group(group_id, reference)
    found = reference.facts(definition, group_id, at_us)
    with duckdb.connect() as connection:
        connection.register("events", table_of(facts))
        connection.register("mentions", mentions_of(facts))
        changes = group_changes(connection, definition, group_id, at_us, audiences, found)
    return {"group": group_id, **explain_group(definition, found, source["where"], changes)}


def _text(moment_us: int | None) -> str | None:
    return None if moment_us is None else format_time_us(moment_us)


def _mismatches(first: Membership, engine: str, other: Membership) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for profile in sorted(first.keys() | other.keys()):
        one, two = first.get(profile), other.get(profile)
        if (one is None) != (two is None) or (one and two and one[1] != two[1]):
            found.append(
                {"profile": profile, "engine": engine, "member": two is not None, "leaves_at": _text(two and two[1])}
            )
    return found


def _by_reference(definition: Definition, facts: Sequence[Fact], at_us: int, audiences: Audiences) -> Membership:
    reference = Reference(facts, audiences)
    return {
        profile: (reference.since(definition, profile, at_us), reference.next_change(definition, profile, at_us))
        for profile in reference.members(definition, at_us)
    }


def _by_batch(definition: Definition, facts: Sequence[Fact], at_us: int, audiences: Audiences) -> Membership:
    with duckdb.connect() as connection:
        connection.register("events", table_of(facts))
        return {
            found.profile: (found.since_us, found.changes_at_us)
            for found in queries.outlook(connection, definition, at_us, audiences)
        }


def _by_spark(
    definition: Definition, facts: Sequence[Fact], at_us: int, audiences: Audiences, *, master: str
) -> Membership:
    from headrace_audience.distributed.shards import Question
    from headrace_audience.distributed.spark import SparkEvaluator, spark_context

    with spark_context(master) as context:
        evaluator = SparkEvaluator.of_events(context, table_of(facts))
        found = evaluator.outlook([Question(SELF, definition, at_us)], audiences)[SELF]
    return {outlook.profile: (outlook.since_us, outlook.changes_at_us) for outlook in found}


def _by_increments(definition: Definition, facts: Sequence[Fact], at_us: int, audiences: Audiences) -> Membership:
    ordered = sorted(facts, key=lambda fact: (fact.timestamp_us, fact.message_id))
    past = [fact for fact in ordered if fact.timestamp_us <= at_us]
    future = ordered[len(past) :]
    engine = Engine("", 1, min([at_us, *(fact.timestamp_us - 1 for fact in past)]))
    _set_audiences(engine, {**audiences, SELF: definition}, {fact.profile for fact in facts})
    size = max(1, -(-len(past) // STEPS))
    since: dict[str, int | None] = {}

    def advance(now_us: int) -> None:
        for flip in engine.advance(now_us):
            if flip.audience_id == SELF:
                since[flip.profile_id] = flip.effective_at_us

    # Everybody is known from the start, as to the other evaluators: so "always" means the same.
    engine.fold(resolved_of(Fact(profile, at_us, "", "page")) for profile in {fact.profile for fact in facts})
    engine.advance(engine.clock_us)
    for start in range(0, len(past), size):
        piece = past[start : start + size]
        engine.fold(map(resolved_of, piece))
        advance(piece[-1].timestamp_us)
    engine.fold(map(resolved_of, future))
    advance(at_us)
    return {profile: (since.get(profile), engine.next_flip_us(SELF, profile)) for profile in engine.members(SELF)}


def _set_audiences(engine: Engine, audiences: Audiences, profiles: set[str]) -> None:
    for audience_id, meaning in audiences.items():
        if isinstance(meaning, Definition):
            engine.set_audience(audience_id, Definition("dynamic", meaning.where))
        else:
            engine.set_audience(audience_id, Definition("static", All(())))
            engine.set_membership(audience_id, profiles & set(meaning))
    for audience_id in audiences:
        engine.start_audience(audience_id)


def _groups_by_reference(definition: Definition, facts: Sequence[Fact], at_us: int, audiences: Audiences) -> list[str]:
    return GroupReference(facts, audiences).members(definition, at_us)


def _groups_by_batch(definition: Definition, facts: Sequence[Fact], at_us: int, audiences: Audiences) -> list[str]:
    with duckdb.connect() as connection:
        connection.register("events", table_of(facts))
        connection.register("mentions", mentions_of(facts))
        return queries.evaluate(connection, definition, at_us, audiences)


def _groups_by_increments(definition: Definition, facts: Sequence[Fact], at_us: int, audiences: Audiences) -> list[str]:
    """What must hold for members is asked of the engine, once for all of them."""
    of_people = {name: meaning for name, meaning in audiences.items() if _of(meaning) != "groups"}
    held: dict[Condition, set[str]] = {}

    def person_holds(condition: Condition, profile: str, moment_us: int) -> bool:
        if condition not in held:
            held[condition] = set(_by_increments(Definition("dynamic", condition), facts, moment_us, of_people))
        return profile in held[condition]

    return GroupReference(facts, audiences, person_holds).members(definition, at_us)


def _of(meaning: Definition | Collection[str]) -> str:
    return meaning.of if isinstance(meaning, Definition) else ""


_GROUP_EVALUATORS: dict[str, Callable[[Definition, Sequence[Fact], int, Audiences], list[str]]] = {
    "incremental": _groups_by_increments,
    "batch": _groups_by_batch,
    "reference": _groups_by_reference,
}

_EVALUATORS: dict[str, Evaluator] = {
    "incremental": _by_increments,
    "batch": _by_batch,
    "reference": _by_reference,
}
