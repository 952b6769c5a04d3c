"""Identity resolution: which profile an event belongs to. Pure functions over a graph in memory.

Start reading here. `prepare` looks at an event alone: what identifies, what is blocked, which traits
it sets. `resolve` applies it to the graph and returns the recorded decision. The service and the
offline replay run exactly this code.

The outcome for an event depends on the graph only in ways that the store's transactions guard: see
`Changes.watched` and `Changes.absent`.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

import msgspec

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.api.identity.v1.profile_pb2 import Decision, DecisionAction, Handover, Merge, SetAside
from headrace.domain.identifiers import ANONYMOUS_ID, USER_ID
from headrace.domain.ids import profile_id
from headrace_identity import policies
from headrace_identity.graph import Changes, Graph, Profile, TraitValue, most_in_a_period
from headrace_identity.rules import PERIODS_US, Identifier, Policy, Rules

# Looking these up in the enums costs a microsecond each time.
_ALIAS = EventKind.EVENT_KIND_ALIAS
_GROUP = EventKind.EVENT_KIND_GROUP
_CREATED = DecisionAction.DECISION_ACTION_CREATED
_ATTACHED = DecisionAction.DECISION_ACTION_ATTACHED
_MERGED = DecisionAction.DECISION_ACTION_MERGED
_UNIDENTIFIED = DecisionAction.DECISION_ACTION_UNIDENTIFIED


class _Context(msgspec.Struct):
    """The one part of an event's context that identity looks at."""

    traits: msgspec.Raw = msgspec.Raw(b"null")


_decode_traits = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_context = msgspec.json.Decoder(_Context).decode


class Prepared(NamedTuple):
    """An event as `resolve` needs it.

    Attributes:
        event: The event.
        identifiers: Those that may identify, normalised, different, the highest priority first.
        previous: For an alias, the identifiers that its previous id may mean, in the order in which they are tried.
        set_aside: Those that were blocked.
        traits: Traits that it sets, as JSON by name.
        policy: The policy for shared devices that concerns it, else None.
    """

    event: Event
    identifiers: tuple[Identifier, ...]
    previous: tuple[Identifier, ...]
    set_aside: tuple[SetAside, ...]
    traits: dict[str, bytes]
    policy: Policy | None = None


class Resolution(NamedTuple):
    """What came of an event: the id of its profile ("" for none) and the recorded decision."""

    profile_id: str
    decision: Decision


def prepare(event: Event, rules: Rules) -> Prepared:
    """Look at an event alone: drop blocked values, order what is left by priority, find the traits.

    Traits are those of the event, unless it is a group call, where they are the group's; and for every kind those
    under `traits` in its context, which the event's own override.

    Raises:
        ValueError: Traits or context are no JSON object; ingest lets none of these pass.
    """
    # By rank, then by value, so that the order of the keys in a message is nothing.
    found: set[tuple[tuple[int, int, str], str, str]] = set()
    set_aside: list[SetAside] = []
    for raw in event.identifiers:
        namespace = raw.namespace
        value, rule, rank = rules.check(namespace, raw.value)
        if rule:
            set_aside.append(SetAside(identifier=_message((namespace, value)), action="blocked", rule=rule))
        else:
            found.add((rank, value, namespace))
    previous: list[Identifier] = []
    if event.kind == _ALIAS and event.previous_id:
        for namespace in (USER_ID, ANONYMOUS_ID):
            value, rule, _ = rules.check(namespace, event.previous_id)
            if not rule:
                previous.append((namespace, value))
            elif not previous:
                set_aside.append(SetAside(identifier=_message((namespace, value)), action="blocked", rule=rule))
    traits: dict[str, bytes] = {}
    if event.context and b'"traits"' in event.context:
        in_context = bytes(_decode_context(event.context).traits)
        if in_context.startswith(b"{"):  # the context is free-form: anything else under that name is no traits
            traits = _traits(in_context)
    if event.traits and event.kind != _GROUP:
        traits.update(_traits(event.traits))
    identifiers = tuple((namespace, value) for _, value, namespace in sorted(found))
    policy = policies.policy_of(event, identifiers, rules)
    return Prepared(event, identifiers, tuple(previous), tuple(set_aside), traits, policy)


def resolve(graph: Graph, rules: Rules, prepared: Prepared, sequence: int, changes: Changes) -> Resolution:
    """Decide to whom an event belongs, and change the graph accordingly.

    Args:
        graph: Holds at least the profiles of the event's identifiers; changed in place.
        rules: Rules of the workspace.
        prepared: The event, not resolved before.
        sequence: Its place in the recorded order, greater than all before it.
        changes: Collects what was changed.
    """
    event = prepared.event
    identifiers = list(prepared.identifiers)
    alias_of = _previous(graph, prepared, changes) if prepared.previous else None
    if alias_of is not None and alias_of not in identifiers:
        identifiers.append(alias_of)
        identifiers.sort(key=lambda i: (*_priority(rules, i)[:-1], i == alias_of, i[1]))
    decision = Decision(sequence=sequence, set_aside=prepared.set_aside)
    if rules.handed_over:
        changes.relied.update(i for i in identifiers if i[0] in rules.handed_over and i in graph.holders)
    shared = None
    if prepared.policy is not None:
        shared = policies.effect(prepared.policy, prepared.identifiers, graph.find)
        for device in shared.demoted:
            if device != alias_of:
                identifiers.remove(device)
                _set_aside(decision, device, f"policy:{prepared.policy.policy}")
    released = shared.released if shared is not None else {}

    protected_demotion = False
    while True:
        outcome = _outcome(graph, identifiers, event.timestamp_us, alias_of, released)
        broken = _broken_rule(rules, outcome)
        if not broken:
            break
        protected = broken.startswith("protected:")
        protected_demotion |= protected
        demoted = identifiers.pop()
        if demoted in outcome.new and (protected or _is_of_a_period(rules, broken)):
            # With a holder its time would be another one, or it would name one more profile: the rule may hold then.
            # Every other broken rule is broken all the more when somebody holds the identifier.
            changes.absent.add(demoted)
        if rules.handed_over:
            changes.watched.update(outcome.roots)  # a logout may take something from them, and the rule would hold
        _set_aside(decision, demoted, broken)

    if not identifiers:
        decision.action = _UNIDENTIFIED
        decision.rule = "none"
        return Resolution("", decision)

    for namespace, value in identifiers:
        decision.identifiers.add(namespace=namespace, value=value)
    roots = list(outcome.roots.values())
    if not roots:
        decision.action, decision.rule = _CREATED, "create"
        profile = _create(graph, event, sequence, changes)
    elif len(roots) == 1:
        decision.action, decision.rule = _ATTACHED, "attach"
        profile = roots[0]
    else:
        decision.action, decision.rule = _MERGED, "merge"
        profile = _merge(outcome, sequence, decision, changes)
    if alias_of is not None and alias_of in identifiers:
        decision.rule = "alias"
    for identifier in outcome.new:
        decision.brought.append(identifiers.index(identifier))
        if identifier in released:
            _take(graph.profiles[released[identifier]], identifier, decision, changes)
        graph.holders[identifier] = profile.id
        profile.identifiers[identifier] = event.timestamp_us
        changes.identifiers[identifier] = profile.id
        changes.attached.add(profile.id)
    _set_traits(profile, event, prepared.traits, changes)
    if shared is not None:
        changes.watched |= shared.watched
        if decision.action == _CREATED:
            decision.stems_from = shared.stems_from
    if protected_demotion:
        # An alias may join the two identified profiles at the same time as this transaction; then this decision
        # would have been another one. Other demotions stay right whatever happens, because profiles only grow, but for
        # devices that are handed over.
        changes.watched.add(profile.id)
    return Resolution(profile.id, decision)


def _traits(text: bytes) -> dict[str, bytes]:
    return {name: bytes(value) for name, value in _decode_traits(text).items()}


def _priority(rules: Rules, identifier: Identifier) -> tuple[tuple[int, int, str], str]:
    """Sort key, the highest priority first; by value inside a namespace, so that the order of JSON keys is nothing."""
    return rules.rank(identifier[0]), identifier[1]


def _previous(graph: Graph, prepared: Prepared, changes: Changes) -> Identifier | None:
    """What an alias means by its previous id: the user id if somebody holds it, else the anonymous id."""
    for identifier in prepared.previous:
        if identifier[0] != USER_ID or identifier in graph.holders or identifier in prepared.identifiers:
            return identifier
        changes.absent.add(identifier)
    return None


class _Outcome(NamedTuple):
    """What would come of an event with some identifiers.

    Attributes:
        time_us: Event time.
        identifiers: The identifiers, the highest priority first.
        found: For each of them the id of the profile that holds it, "" for nobody.
        roots: Those profiles, by id.
        new: Identifiers that nobody holds, or whose holder gives them away.
        aliased: Id of the profile that an alias names by its previous id, "" for none.
    """

    time_us: int
    identifiers: Sequence[Identifier]
    found: list[str]
    roots: dict[str, Profile]
    new: list[Identifier]
    aliased: str


def _outcome(
    graph: Graph,
    identifiers: Sequence[Identifier],
    time_us: int,
    alias_of: Identifier | None,
    released: Container[Identifier],
) -> _Outcome:
    roots: dict[str, Profile] = {}
    new: list[Identifier] = []
    found: list[str] = []
    aliased = ""
    for identifier in identifiers:
        root = None if identifier in released else graph.find(identifier)
        if root is None:
            new.append(identifier)
            found.append("")
            continue
        roots[root.id] = root
        found.append(root.id)
        if identifier == alias_of:
            aliased = root.id
    return _Outcome(time_us, identifiers, found, roots, new, aliased)


def _broken_rule(rules: Rules, outcome: _Outcome) -> str:
    """The rule that the resulting profile would break, or "".

    A rule is broken by a profile that is over the limit, and further than each of its parts was: people who were
    over a limit before it was tightened stay as they are, and their events still find them.
    """
    if len(outcome.roots) <= 1 and not outcome.new:
        return ""  # nothing grows
    return _broken_limit(rules, outcome) or _broken_cap(rules, outcome) or _broken_protection(rules, outcome)


def _broken_limit(rules: Rules, outcome: _Outcome) -> str:
    roots = outcome.roots.values()
    growing = {namespace for namespace, _ in outcome.new}
    if len(roots) > 1:
        growing.update(namespace for root in roots for namespace, _ in root.identifiers)
    # The namespace of the identifier that would be demoted comes first: if its own limit is broken, that is the reason
    # whatever else is, and it stays the reason when the profiles grow.
    demoted = outcome.identifiers[-1][0]
    for name in sorted(growing, key=lambda n: (n != demoted, rules.rank(n))):
        namespace = rules.namespace(name)
        period_us = PERIODS_US[namespace.per] if namespace.per else None
        times_of_parts = [[t for (n, _), t in root.identifiers.items() if n == name] for root in roots]
        times = [t for part in times_of_parts for t in part]
        times += [outcome.time_us for n, _ in outcome.new if n == name]
        if len(times) <= namespace.limit:
            continue
        most = most_in_a_period(times, period_us)
        if most > namespace.limit and all(most > most_in_a_period(part, period_us) for part in times_of_parts):
            return f"limit:{name}"
    return ""


def _is_of_a_period(rules: Rules, broken: str) -> bool:
    kind, _, name = broken.partition(":")
    return kind == "limit" and rules.namespace(name).per is not None


def _broken_cap(rules: Rules, outcome: _Outcome) -> str:
    roots = outcome.roots.values()
    if len(roots) > 1 and sum(root.merges for root in roots) + len(roots) - 1 > rules.max_merges:
        return "cap:merges"
    if sum(len(root.identifiers) for root in roots) + len(outcome.new) > rules.max_identifiers:
        return "cap:identifiers"
    return ""


def _broken_protection(rules: Rules, outcome: _Outcome) -> str:
    """Identified profiles merge only when the event names each by an identifier as strong, or by an alias."""
    if len(outcome.roots) <= 1:
        return ""
    for name in sorted(rules.protected, key=rules.rank):
        identified = {root.id for root in outcome.roots.values() if any(n == name for n, _ in root.identifiers)}
        if len(identified) <= 1:
            continue
        named = {
            root_id
            for (namespace, _), root_id in zip(outcome.identifiers, outcome.found, strict=True)
            if rules.rank(namespace) <= rules.rank(name)
        }
        if not identified <= named | {outcome.aliased}:
            return f"protected:{name}"
    return ""


def _create(graph: Graph, event: Event, sequence: int, changes: Changes) -> Profile:
    profile = Profile(profile_id(event.workspace_id, event.message_id), sequence, [])
    profile.parts.append(profile.id)
    graph.profiles[profile.id] = profile
    changes.created.add(profile.id)
    return profile


def _merge(outcome: _Outcome, sequence: int, decision: Decision, changes: Changes) -> Profile:
    survivor, *losers = sorted(outcome.roots.values(), key=lambda root: (root.created, root.id))
    for loser in losers:
        decision.merges.append(
            Merge(
                loser=loser.id,
                survivor=survivor.id,
                loser_parts=loser.parts,
                loser_found_by=_places(outcome, loser),
                survivor_found_by=_places(outcome, survivor),
            )
        )
        survivor.parts += loser.parts
        survivor.identifiers.update(loser.identifiers)
        survivor.merges += loser.merges + 1
        loser.merged_into = survivor.id
        loser.merged_sequence = sequence
        changes.merged.add(loser.id)
    changes.survivors.add(survivor.id)
    return survivor


def _places(outcome: _Outcome, root: Profile) -> list[int]:
    """Where among the event's identifiers those stand by which it found a profile."""
    return [place for place, found in enumerate(outcome.found) if found == root.id]


def _take(holder: Profile, identifier: Identifier, decision: Decision, changes: Changes) -> None:
    """Take an identifier from its holder, to give it to another profile."""
    del holder.identifiers[identifier]
    changes.attached.add(holder.id)
    decision.handovers.append(Handover(identifier=_message(identifier), from_profile=holder.id))


def _set_aside(decision: Decision, demoted: Identifier, rule: str) -> None:
    decision.set_aside.append(SetAside(identifier=_message(demoted), action="demoted", rule=rule))


def _set_traits(profile: Profile, event: Event, traits: dict[str, bytes], changes: Changes) -> None:
    for name, value in traits.items():
        trait = TraitValue(value, event.timestamp_us, event.message_id, event.source_id)
        known = profile.traits.get(name)
        if known is None or trait.newer_than(known):
            profile.traits[name] = trait
            changes.traits.add(profile.id)


def _message(identifier: Identifier) -> IdentifierMessage:
    return IdentifierMessage(namespace=identifier[0], value=identifier[1])
