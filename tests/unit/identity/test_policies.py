"""Policies for shared devices: mParticle's worked flows, and what a policy may be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_identity.resolving.offline import replay_lines
from headrace_identity.resolving.replay import replay
from headrace_identity.resolving.rules import RulesError, parse

from tests.support.identity import WORKSPACE
from tests.support.shared_devices import FLOWS, assert_flow, flow_events


@pytest.mark.parametrize("flow", FLOWS, ids=lambda f: f["id"])
def test_flow(flow: dict[str, Any]) -> None:
    result = replay(flow_events(flow, WORKSPACE), parse(flow["rules"]))
    outcome = {m: (r.profile_id, r.decision) for m, r in result.resolutions.items()}
    assert_flow(flow, outcome, result.graph)


def test_offline_replay_knows_policies_and_sources() -> None:
    rules = {"policies": [{"source": "kiosk", "policy": "link"}]}
    messages: list[dict[str, Any]] = [
        {"type": "page", "messageId": "m0", "sourceId": "kiosk", "anonymousId": "dev-1"},
        {"type": "identify", "messageId": "m1", "sourceId": "kiosk", "anonymousId": "dev-1", "userId": "u1"},
        {"type": "track", "event": "Logged out", "messageId": "m2", "sourceId": "kiosk", "anonymousId": "dev-1"},
    ]
    result = replay_lines(json.dumps(rules), map(json.dumps, messages))
    first, second, third = result["decisions"]
    device = ["anonymous_id", "dev-1"]
    assert second["set_aside"] == [{"identifier": device, "action": "demoted", "rule": "policy:link"}]
    assert second["stems_from"] == first["profile"]
    assert third["handovers"] == [{"identifier": device, "from_profile": first["profile"]}]
    assert len(result["profiles"]) == 3


@pytest.mark.parametrize(
    ("policies", "field"),
    [
        ({}, "policies"),
        ([{}], "policies[0].policy"),
        ([{"policy": "best match"}], "policies[0].policy"),
        ([{"policy": "link", "device": []}], "policies[0].device"),
        ([{"policy": "link", "devices": []}], "policies[0].devices"),
        ([{"policy": "link", "devices": ["user_id"]}], "policies[0].devices"),
        ([{"policy": "link", "devices": [""]}], "policies[0].devices[0]"),
        ([{"policy": "link", "logout_events": "Signed Out"}], "policies[0].logout_events"),
        ([{"policy": "link", "logout_events": ["Signed Out", "_"]}], "policies[0].logout_events[1]"),
        ([{"policy": "link", "source": ""}], "policies[0].source"),
        ([{"policy": "link"}, {"policy": "isolation"}], "policies[1]"),
        ([{"policy": "link", "source": "s"}, {"policy": "link", "source": "s"}], "policies[1]"),
    ],
)
def test_wrong_policies_are_named(policies: object, field: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse({"policies": policies})
    assert caught.value.field == field


def test_the_own_policy_of_a_source_comes_before_that_of_all() -> None:
    rules = parse({"policies": [{"policy": "link"}, {"policy": "isolation", "source": "kiosk"}]})
    own, other = rules.policy("kiosk"), rules.policy("web")
    assert own is not None and other is not None
    assert (own.policy, other.policy) == ("isolation", "link")
    assert parse({}).policy("kiosk") is None
    assert parse(rules.as_json()) == rules


def test_only_logouts_hand_over() -> None:
    assert parse({"policies": [{"policy": "link", "devices": ["idfv"]}]}).handed_over == {"idfv"}
    assert parse({"policies": [{"policy": "link", "logout_events": []}]}).handed_over == frozenset()
