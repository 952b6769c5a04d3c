"""Worked flows on shared devices: their events, and what must come of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace_identity.resolving.graph import Graph

from headrace.api.common.v1.event_pb2 import Event
from headrace.api.identity.v1.profile_pb2 import Decision
from tests.support.identity import event

FLOWS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "cases/shared_devices.json").read_text())["flows"]


def flow_events(flow: dict[str, Any], workspace_id: str) -> list[Event]:
    """An event for each step, "m0" and so on."""
    return [
        event(
            f"m{number}",
            *step["identifiers"].items(),
            name=step.get("event", "Viewed"),
            source_id=step.get("source", "app"),
            day=number,
            workspace_id=workspace_id,
        )
        for number, step in enumerate(flow["steps"])
    ]


def assert_flow(flow: dict[str, Any], outcome: Mapping[str, tuple[str, Decision]], graph: Graph) -> None:
    """Profiles, decisions and what the profiles hold at the end are those of the flow.

    Args:
        flow: One of FLOWS.
        outcome: Profile id and decision of each message id.
        graph: The graph after the last step.
    """
    names: dict[str, str] = {}
    for number, step in enumerate(flow["steps"]):
        profile_id, decision = outcome[f"m{number}"]
        name = names.setdefault(profile_id, f"P{len(names) + 1}")
        assert name == step["profile"], step["what"]
        assert {s.identifier.namespace: s.rule for s in decision.set_aside} == step.get("demoted", {}), step["what"]
        assert names.get(decision.stems_from, "") == step.get("stems_from", ""), step["what"]
        by = [names[h.from_profile] for h in decision.handovers]
        assert by == ([step["handed_over_by"]] if "handed_over_by" in step else []), step["what"]
    ids = {name: profile_id for profile_id, name in names.items()}
    alive = {p.id: p for p in graph.profiles.values() if p.merged_into is None}
    assert {names[p.id]: sorted(map(list, p.identifiers)) for p in alive.values()} == flow["ends"]
    assert {names[p.id]: names[graph.root(p.id).id] for p in graph.profiles.values() if p.id not in alive} == flow[
        "merged"
    ]
    for name, identifiers in flow["ends"].items():
        for namespace, value in identifiers:
            assert graph.find((namespace, value)) is graph.profiles[ids[name]]
