"""What rules would change: counts, examples and groups of people, against sets of messages counted out."""

from __future__ import annotations

from collections.abc import Mapping

from headrace_identity.rebuilds.comparison import compare
from headrace_identity.rebuilds.shadow import Shadow
from headrace_identity.resolving.replay import Replay, replay
from headrace_identity.resolving.rules import DEFAULT_RULES, Rules, parse
from hypothesis import given, settings

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import Decision
from headrace.storage.mongo.client import Document
from tests.property.identity.test_resolver import histories, rules
from tests.support.identity import event


def documents(history: list[Event], result: Replay) -> list[Document]:
    """Events as they would be stored after a replay, as far as a shadow reads them."""
    by_id = {one.message_id: one for one in history}
    return [
        {"e": by_id[m].SerializeToString(), "d": r.decision.SerializeToString(), "p": r.profile_id, "s": sequence}
        for sequence, (m, r) in enumerate(result.resolutions.items(), start=1)
    ]


def owners(result: Replay) -> dict[str, str]:
    return {m: result.root_of(m) for m in result.resolutions}


def people(owner: Mapping[str, str]) -> dict[str, set[str]]:
    """Messages of each profile."""
    found: dict[str, set[str]] = {}
    for message, profile in owner.items():
        if profile:
            found.setdefault(profile, set()).add(message)
    return found


@settings(derandomize=True, deadline=None, max_examples=80)
@given(history=histories(most=16), old=rules(), new=rules())
def test_equals_counting_out(history: list[Event], old: Rules, new: Rules) -> None:
    before, now = replay(history, old), replay(history, new)
    shadow = Shadow(new, version=-1)
    shadow.add(documents(history, before))
    result = compare(shadow)

    owner_before, owner_now = owners(before), owners(now)
    people_before, people_now = people(owner_before), people(owner_now)
    assert (result.profiles_before, result.profiles_now) == (len(people_before), len(people_now))
    assert result.moved_events == sum(owner_before[m] != owner_now[m] for m in owner_before)
    becomes = {p: {owner_now[m] for m in messages} - {""} for p, messages in people_before.items()}
    comes_of = {p: {owner_before[m] for m in messages} - {""} for p, messages in people_now.items()}
    assert result.splitting == sum(len(targets) > 1 for targets in becomes.values())
    assert result.joining == sum(any(len(comes_of[t]) > 1 for t in targets) for targets in becomes.values())
    assert {example.now[0] for example in result.joins} == {p for p, sources in comes_of.items() if len(sources) > 1}
    assert all(set(example.before) == comes_of[example.now[0]] for example in result.joins)
    assert {example.before[0] for example in result.splits} == {p for p, t in becomes.items() if len(t) > 1}
    assert all(set(example.now) == becomes[example.before[0]] for example in result.splits)

    # Whoever is not in a group stays exactly as they are; nobody is in two.
    members = [member for group in result.groups for member in (*group.profiles, *group.messages)]
    assert len(members) == len(set(members))
    for message, profile in owner_before.items():
        if not {message, profile, before.resolutions[message].profile_id} & set(members):
            assert owner_now[message] == profile


@settings(derandomize=True, deadline=None, max_examples=25)
@given(history=histories(most=16), under=rules())
def test_the_same_rules_change_nothing(history: list[Event], under: Rules) -> None:
    shadow = Shadow(under, version=0)
    shadow.add(documents(history, replay(history, under)))
    result = compare(shadow)
    assert not (result.groups or result.joins or result.splits)
    assert (result.joining, result.splitting, result.moved_events) == (0, 0, 0)
    assert result.profiles_before == result.profiles_now


def test_which_broken_rule_was_seen_first_is_no_difference_under_the_same_rules() -> None:
    history = [
        event("m1", ("user_id", "u1"), ("anonymous_id", "d1x")),
        event("m2", ("user_id", "u2"), ("anonymous_id", "d1x")),
    ]
    stored = documents(history, replay(history, DEFAULT_RULES))
    decision = Decision.FromString(stored[1]["d"])
    decision.set_aside[0].rule = "cap:merges"  # as when another worker was quicker
    stored[1]["d"] = decision.SerializeToString()
    for version, groups in ((0, 0), (1, 1)):
        shadow = Shadow(DEFAULT_RULES, version)
        shadow.add(stored)
        assert len(compare(shadow).groups) == groups


def test_who_is_tied_by_a_value_that_identifies_now_is_put_in_place_together() -> None:
    blocking, new = parse({"blocked": [{"equals": "kiosk"}]}), parse({"namespaces": [{"name": "email", "limit": 1}]})
    history = [event(f"m{i}", ("email", f"e{i}@shop.example"), ("anonymous_id", "kiosk")) for i in range(3)]
    shadow = Shadow(new, version=-1)
    shadow.add(documents(history, replay(history, blocking)))
    (group,) = compare(shadow).groups
    assert len(group.profiles) == group.events == 3
