"""A definition finds standard events whatever spelling it and they are written in."""

from __future__ import annotations

import json

import pytest
from headrace_audience.language.definition import EventCount, walk
from headrace_audience.language.parser import parse_definition
from headrace_audience.offline.facts import facts_of_lines, facts_of_people
from headrace_audience.offline.reference import Reference


@pytest.mark.parametrize("name", ["Purchased", "Order Completed", "order_completed", "purchased"])
def test_names_in_definitions_are_those_that_are_stored(name: str) -> None:
    (leaf,) = walk(parse_definition({"where": {"event": [name, "My own event"]}}).where)
    assert isinstance(leaf, EventCount)
    assert leaf.names == ("My own event", "Purchased")


@pytest.mark.parametrize("name", ["Purchased", "Order Completed", "order_completed"])
def test_offline_events_are_named_as_ingest_would_store_them(name: str) -> None:
    definition = parse_definition({"where": {"event": "Order completed"}})
    line = json.dumps({"profile": "ada", "event": name, "timestamp": "2026-01-01T00:00:00Z", "messageId": "m"})
    people = {"ada": [{"event": name, "timestamp": "2026-01-01T00:00:00Z"}]}
    at_us = 1_800_000_000_000_000
    assert Reference(facts_of_lines([line])).members(definition, at_us) == ["ada"]
    assert Reference(facts_of_people(people, at_us)).members(definition, at_us) == ["ada"]
