"""Identity resolution: which profile an event belongs to. Pure functions over a graph in memory.

Start reading here. `prepare` looks at an event alone: what identifies, what is blocked, which traits
it sets. `resolve` applies it to the graph and returns the recorded decision. The service and the
offline replay run exactly this code.

The outcome for an event depends on the graph only in ways that the store's transactions guard: see
`Changes.watched` and `Changes.absent`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.api.common.v1.event_pb2 import Identifier as IdentifierMessage
from headrace.api.identity.v1.profile_pb2 import Decision, DecisionAction, Handover, Merge, SetAside
from headrace.domain import consent
from headrace.domain.identifiers import ANONYMOUS_ID, USER_ID
from headrace.domain.ids import profile_id
from headrace_identity.resolving import policies
from headrace_identity.resolving.graph import (
    Changes,
    Graph,
    Profile,
    TraitValue,
    most_different_in_a_period,
    most_in_a_period,
)
from headrace_identity.resolving.links import NO_LINKS, Links
from headrace_identity.resolving.rules import PERIODS_US, Identifier, Policy, Rules

# Looking these up in the enums costs a microsecond each time.
_ALIAS = EventKind.EVENT_KIND_ALIAS
_GROUP = EventKind.EVENT_KIND_GROUP
_CREATED = DecisionAction.DECISION_ACTION_CREATED
_ATTACHED = DecisionAction.DECISION_ACTION_ATTACHED
_MERGED = DecisionAction.DECISION_ACTION_MERGED
_UNIDENTIFIED = DecisionAction.DECISION_ACTION_UNIDENTIFIED

_NOTHING: Identifier = ("", "")


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
        consents: What it says about purposes: purpose -> True when it is granted.
    """

    event: Event
    identifiers: tuple[Identifier, ...]
    previous: tuple[Identifier, ...]
    set_aside: tuple[SetAside, ...]
    traits: dict[str, bytes]
    policy: Policy | None = None
    consents: Mapping[str, bool] = {}


class Resolution(NamedTuple):
    """What came of an event: the id of its profile ("" for none) and the recorded decision."""

    profile_id: str
    decision: Decision


def prepare(event: Event, rules: Rules) -> Prepared:
    """Look at an event alone: drop blocked values, order what is left by priority, find the traits.

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
    traits = traits_of(event)
    identifiers = tuple((namespace, value) for _, value, namespace in sorted(found))
    policy = policies.policy_of(event, identifiers, rules)
    consents = consent.statements_of(event)
    return Prepared(event, identifiers, tuple(previous), tuple(set_aside), traits, policy, consents)


def resolve(
    graph: Graph, rules: Rules, prepared: Prepared, sequence: int, changes: Changes, links: Links = NO_LINKS
) -> Resolution:
    """Decide to whom an event belongs, and change the graph accordingly.

    Args:
        graph: Holds at least the profiles of the event's identifiers and of what these are forced together with;
            changed in place.
        rules: Rules of the workspace.
        prepared: The event, not resolved before.
        sequence: Its place in the recorded order, greater than all before it.
        changes: Collects what was changed.
        links: Manual links of the workspace.
    """
    event = prepared.event
    identifiers = list(prepared.identifiers)
    alias_of = _previous(graph, prepared, links, changes) if prepared.previous else None
    if alias_of is not None and alias_of not in identifiers:
        identifiers.append(alias_of)
        identifiers.sort(key=lambda i: (*_priority(rules, i)[:-1], i == alias_of, i[1]))
    decision = Decision(sequence=sequence, set_aside=prepared.set_aside)
    if rules.handed_over:
        changes.relied.update(i for i in identifiers if i[0] in rules.handed_over and i in graph.holders)
    shared = None
    if prepared.policy is not None:
        shared = policies.effect(prepared.policy, prepared.identifiers, _finder(graph, links))
        for device in shared.demoted:
            if device != alias_of:
                identifiers.remove(device)
                _set_aside(decision, device, f"policy:{prepared.policy.policy}")
    released = shared.released if shared is not None else {}
    if links:
        # What is linked by hand with anything stays where that is.
        released = {device: holder for device, holder in released.items() if not links.partners(device)}

    protected_demotion = False
    outcomes: list[_Outcome] = []
    while True:
        outcome = _outcome(graph, links, identifiers, event.timestamp_us, alias_of, released)
        outcomes.append(outcome)
        broken, demoted = _broken_rule(rules, links, outcome)
        if not broken:
            break
        protected = broken.startswith("protected:")
        protected_demotion |= protected
        identifiers.remove(demoted)
        if demoted in outcome.new and (protected or _is_of_a_period(rules, broken)):
            # With a holder its time would be another one, or it would name one more profile: the rule may hold then.
            # Every other broken rule is broken all the more when somebody holds the identifier.
            changes.absent.add(demoted)
        if rules.handed_over:
            changes.watched.update(outcome.roots)  # a logout may take something from them, and the rule would hold
        _set_aside(decision, demoted, broken)
    if links:
        _rely_on(graph, links, outcomes, decision, changes)

    if not identifiers:
        decision.action = _UNIDENTIFIED
        decision.rule = "none"
        return Resolution("", decision)

    for namespace, value in identifiers:
        decision.identifiers.add(namespace=namespace, value=value)
    roots = [*outcome.roots.values(), *outcome.forced.values()]
    if not roots:
        decision.action, decision.rule = _CREATED, "create"
        profile = _create(graph, event, sequence, changes)
    elif len(roots) == 1:
        decision.action, decision.rule = _ATTACHED, "attach"
        profile = roots[0]
    else:
        decision.action, decision.rule = _MERGED, "merge"
        profile = _merge(roots, outcome, sequence, decision, changes)
    if outcome.forced:
        decision.rule = f"together:{outcome.forcing}"
    elif alias_of is not None and alias_of in identifiers:
        decision.rule = "alias"
    for identifier in outcome.new:
        decision.brought.append(identifiers.index(identifier))
        if identifier in released:
            _take(graph.profiles[released[identifier]], identifier, decision, changes)
        graph.holders[identifier] = profile.id
        profile.hold(identifier, event.timestamp_us)
        changes.identifiers[identifier] = profile.id
        changes.attached.add(profile.id)
    _set_traits(profile, event, prepared.traits, changes)
    if prepared.consents:
        _set_consents(profile, event, prepared.consents, changes)
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


def _finder(graph: Graph, links: Links) -> policies.Find:
    """Who holds an identifier, or what it is forced together with."""
    if not links:
        return graph.find

    def find(identifier: Identifier) -> Profile | None:
        found = map(graph.find, (identifier, *links.partners(identifier)))
        return next((root for root in found if root is not None), None)

    return find


def traits_of(event: Event) -> dict[str, bytes]:
    """The traits that an event sets on its person, as JSON by name.

    Those of the event, unless it is a group call, where they are the group's; and for every kind those under `traits`
    in its context, which the event's own override.

    Raises:
        ValueError: Traits or context are no JSON object; ingest lets none of these pass.
    """
    traits: dict[str, bytes] = {}
    if event.context and b'"traits"' in event.context:
        in_context = bytes(_decode_context(event.context).traits)
        if in_context.startswith(b"{"):  # the context is free-form: anything else under that name is no traits
            traits = _traits(in_context)
    if event.traits and event.kind != _GROUP:
        traits.update(_traits(event.traits))
    return traits


def _traits(text: bytes) -> dict[str, bytes]:
    return {name: bytes(value) for name, value in _decode_traits(text).items()}


def _priority(rules: Rules, identifier: Identifier) -> tuple[tuple[int, int, str], str]:
    """Sort key, the highest priority first; by value inside a namespace, so that the order of JSON keys is nothing."""
    return rules.rank(identifier[0]), identifier[1]


def _previous(graph: Graph, prepared: Prepared, links: Links, changes: Changes) -> Identifier | None:
    """What an alias means by its previous id: the user id if somebody holds it, else the anonymous id."""
    for identifier in prepared.previous:
        meant = (identifier, *links.partners(identifier))
        if identifier[0] != USER_ID or identifier in prepared.identifiers or any(i in graph.holders for i in meant):
            return identifier
        changes.absent.update(meant)
    return None


class _Outcome(NamedTuple):
    """What would come of an event with some identifiers.

    Attributes:
        time_us: Event time.
        identifiers: The identifiers, the highest priority first.
        found: For each of them the id of the profile that holds it, or holds what it is forced together with; "" for
            none.
        roots: The profiles that hold any of them, by id.
        forced: Further profiles that hold what any of them is forced together with, by id: they join whatever the
            limits.
        new: Identifiers that nobody holds, or whose holder gives them away.
        growing: Those of them that count against limits; what is forced together is one thing.
        aliased: Id of the profile that an alias names by its previous id, "" for none.
        forcing: Id of a manual link by which a further profile was found, "" for none.
    """

    time_us: int
    identifiers: Sequence[Identifier]
    found: list[str]
    roots: dict[str, Profile]
    forced: dict[str, Profile]
    new: list[Identifier]
    growing: list[Identifier]
    aliased: str
    forcing: str = ""


def _outcome(
    graph: Graph,
    links: Links,
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
    outcome = _Outcome(time_us, tuple(identifiers), found, roots, {}, new, new, aliased)
    return _with_forced(graph, links, outcome, alias_of) if links and new else outcome


def _with_forced(graph: Graph, links: Links, outcome: _Outcome, alias_of: Identifier | None) -> _Outcome:
    """An outcome with what new identifiers find because somebody forced them together with it."""
    growing: dict[Identifier, Identifier] = {}
    aliased, forcing = outcome.aliased, ""
    for identifier in outcome.new:
        known = False
        for partner in links.partners(identifier):
            root = graph.find(partner)
            if root is None:
                continue
            outcome.found[outcome.identifiers.index(identifier)] = root.id
            if root.id in outcome.roots:
                known = True
            else:
                outcome.forced[root.id] = root
                forcing = forcing or links.chain(identifier, partner)[0]
            if identifier == alias_of:
                aliased = root.id
        if not known:
            growing.setdefault(links.one_of(identifier), identifier)
    return outcome._replace(growing=list(growing.values()), aliased=aliased, forcing=forcing)


def _rely_on(graph: Graph, links: Links, outcomes: Sequence[_Outcome], decision: Decision, changes: Changes) -> None:
    """Make those conflict who concurrently change what manual links made of an event.

    Args:
        graph: The graph before it is changed.
        links: Manual links.
        outcomes: What was considered: with all identifiers first, and with those that were not demoted last.
        decision: With what was demoted.
        changes: Collects what was relied on.
    """
    first, last = outcomes[0], outcomes[-1]
    for identifier in last.new:  # it joins whatever holds what it is forced together with
        changes.absent.update(p for p in links.partners(identifier) if p not in graph.holders)
    if len(outcomes) == 1:
        return
    if not any(s.rule.startswith("apart:") for s in decision.set_aside) and not any(map(links.partners, first.new)):
        return
    # The demotion may be needless, or another one, once people have grown: other demotions are not.
    changes.watched.update(first.roots, first.forced)
    for identifier in first.new:
        if identifier not in last.new:
            meant = (identifier, *links.partners(identifier))
            changes.absent.update(i for i in meant if i not in graph.holders)


def _broken_rule(rules: Rules, links: Links, outcome: _Outcome) -> tuple[str, Identifier]:
    """The rule that the resulting profile would break, or "", and the identifier that is demoted for it.

    A rule is broken by a profile that is over the limit, and further than each of its parts was: people who were
    over a limit before it was tightened stay as they are, and their events still find them. What is forced together
    joins over all limits; what is forced apart never does.
    """
    last = outcome.identifiers[-1] if outcome.identifiers else _NOTHING
    if len(outcome.roots) <= 1 and not outcome.new:
        return "", last  # nothing grows
    if links.any_apart and (apart := _broken_apart(links, outcome)) is not None:
        return apart
    broken = _broken_limit(rules, links, outcome) or _broken_cap(rules, outcome) or _broken_protection(rules, outcome)
    return broken, last


def _broken_apart(links: Links, outcome: _Outcome) -> tuple[str, Identifier] | None:
    """The link that keeps apart what would be joined, and the last identifier that leads to one of its two sides."""
    roots = {**outcome.roots, **outcome.forced}
    held = {
        root.id: {one for i in root.identifiers if links.apart_from(one := links.one_of(i))} for root in roots.values()
    }
    leads = [
        {links.one_of(identifier)} | held.get(root_id, set())
        for identifier, root_id in zip(outcome.identifiers, outcome.found, strict=True)
    ]
    link_id = links.keeps_apart(leads)
    if link_id is None:
        return None
    sides = {links.one_of(side) for side in links.by_id[link_id].pair}
    demoted = [i for i, lead in zip(outcome.identifiers, leads, strict=True) if lead & sides]
    return f"apart:{link_id}", demoted[-1]


def _broken_limit(rules: Rules, links: Links, outcome: _Outcome) -> str:
    roots = outcome.roots.values()
    growing = {namespace for namespace, _ in outcome.growing}
    if len(roots) > 1:
        growing.update(*(root.counts for root in roots))
    # The namespace of the identifier that would be demoted comes first: if its own limit is broken, that is the reason
    # whatever else is, and it stays the reason when the profiles grow.
    demoted = outcome.identifiers[-1][0]
    for name in sorted(growing, key=lambda n: (n != demoted, rules.rank(n))):
        namespace = rules.namespace(name)
        counts = [root.counts.get(name, 0) for root in roots]
        count = sum(counts) + sum(i[0] == name for i in outcome.growing)
        if count <= namespace.limit:
            continue
        if namespace.per is None and not links.any_together:
            if all(count > part for part in counts):
                return f"limit:{name}"
            continue
        # Counting costs the more the more identifiers there are, so it is done only where it can matter.
        period_us = PERIODS_US[namespace.per] if namespace.per else None
        parts = [[(t, i) for i, t in root.identifiers.items() if i[0] == name] for root in roots]
        whole = [dated for part in parts for dated in part]
        whole += [(outcome.time_us, i) for i in outcome.growing if i[0] == name]
        most = _most(links, whole, period_us)
        if most > namespace.limit and all(most > _most(links, part, period_us) for part in parts):
            return f"limit:{name}"
    return ""


def _most(links: Links, dated: Sequence[tuple[int, Identifier]], period_us: int | None) -> int:
    """How many different identifiers a profile has in a period at most; what is forced together counts as one."""
    if links.any_together:
        return most_different_in_a_period([(t, links.one_of(i)) for t, i in dated], period_us)
    return most_in_a_period([t for t, _ in dated], period_us)


def _is_of_a_period(rules: Rules, broken: str) -> bool:
    kind, _, name = broken.partition(":")
    return kind == "limit" and rules.namespace(name).per is not None


def _broken_cap(rules: Rules, outcome: _Outcome) -> str:
    roots = outcome.roots.values()
    if len(roots) > 1 and sum(root.merges for root in roots) + len(roots) - 1 > rules.max_merges:
        return "cap:merges"
    if sum(len(root.identifiers) for root in roots) + len(outcome.growing) > rules.max_identifiers:
        return "cap:identifiers"
    return ""


def _broken_protection(rules: Rules, outcome: _Outcome) -> str:
    """Identified profiles merge only when the event names each by an identifier as strong, or by an alias."""
    if len(outcome.roots) <= 1:
        return ""
    for name in sorted(rules.protected, key=rules.rank):
        identified = {root.id for root in outcome.roots.values() if root.counts.get(name)}
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


def _merge(roots: Iterable[Profile], outcome: _Outcome, sequence: int, decision: Decision, changes: Changes) -> Profile:
    survivor, *losers = sorted(roots, key=lambda root: (root.created, root.id))
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
        survivor.take_over(loser)
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
    holder.give_away(identifier)
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


def _set_consents(profile: Profile, event: Event, said: Mapping[str, bool], changes: Changes) -> None:
    for purpose, granted in said.items():
        value = consent.ConsentValue(granted, event.timestamp_us, event.message_id, event.source_id)
        known = profile.consents.get(purpose)
        if known is None or value.newer_than(known):
            profile.consents[purpose] = value
            changes.consents.add(profile.id)


def _message(identifier: Identifier) -> IdentifierMessage:
    return IdentifierMessage(namespace=identifier[0], value=identifier[1])
