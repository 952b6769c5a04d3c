"""Mappings: checked against the connector, and what they make of profiles and events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from headrace.connector import wire
from headrace.plugins.functions import function_help
from headrace.plugins.mapping import MappingError, compile_expression, compile_mapping
from headrace_sdk import EventItem, Field, Profile

CONNECTOR = wire.ConnectorInfo(
    name="acme",
    title="Acme",
    api="1.0",
    capabilities=frozenset({"list_sync"}),
    settings_schema={},
    fields=(
        Field(name="email", title="E", many=True, default="profile.identifiers.email"),
        Field(name="city", title="C", default="profile.traits.city || profile.traits.town"),
        Field(name="value", title="V"),
    ),
)
PROFILE = Profile(id="p", identifiers={"email": ["a@x.example", "b@x.example"]}, traits={"town": "Ulm", "n": 3.0})


def test_defaults_fill_fields() -> None:
    nothing: list[Any] = [None, "", "{}", {}]
    for mapping in nothing:
        fields = compile_mapping(mapping, CONNECTOR).member_fields(PROFILE)
        assert fields == {"email": ["a@x.example", "b@x.example"], "city": "Ulm"}


def test_own_expressions_win_and_null_switches_off() -> None:
    mapping = compile_mapping(
        '{"city": "upper(profile.traits.town)", "email": null, "value": "profile.traits.n"}', CONNECTOR
    )
    assert mapping.member_fields(PROFILE) == {"city": "ULM", "value": "3"}
    assert mapping.sources() == {"city": "upper(profile.traits.town)", "value": "profile.traits.n"}


def test_a_field_that_takes_one_gets_the_first_and_empty_values_are_left_out() -> None:
    mapping = compile_mapping({"city": "profile.identifiers.email", "value": "profile.traits.blank"}, CONNECTOR)
    profile = Profile(id="p", identifiers={"email": ["", "b"]}, traits={"blank": " "})
    assert mapping.member_fields(profile) == {"email": ["b"], "city": "b"}


def test_events_keep_types_and_see_their_profile() -> None:
    mapping = compile_mapping(
        {"value": "event.properties.total", "city": "profile.id", "email": "event.type"}, CONNECTOR
    )
    event = EventItem(message_id="m", kind="track", name="Bought", properties={"total": 9.5}, profile=PROFILE)
    assert mapping.event_fields(event) == {"value": 9.5, "city": "p", "email": "track"}
    assert mapping.event_fields(EventItem(message_id="m", kind="page")) == {"email": "page"}


@pytest.mark.parametrize(
    ("mapping", "field", "part"),
    [
        ("[1]", "", "must be an object"),
        ("{", "", "no JSON"),
        ({"phone": "profile.id"}, "phone", "has no such field; it has: email, city, value"),
        ({"city": 7}, "city", "must be text"),
        ({"city": "profile."}, "city", "not a valid expression"),
        ({"city": "fly(profile)"}, "city", "Unknown function: fly()"),
        ({"city": "lower()"}, "city", "Expected 1 argument"),
        ({"city": "traits.city"}, "city", "'traits' is not known"),
        ({"city": "x" * 3000}, "city", "longer than"),
        ({"city": "[" * 1500}, "city", ""),
    ],
)
def test_a_mapping_that_cannot_work_is_refused_with_its_field(mapping: Any, field: str, part: str) -> None:
    with pytest.raises(MappingError) as caught:
        compile_mapping(mapping, CONNECTOR)
    assert caught.value.field == field
    assert part in caught.value.reason


def test_a_required_field_needs_an_expression() -> None:
    required = Field(name="id", title="I", required=True)
    connector = replace(CONNECTOR, fields=(required,))
    with pytest.raises(MappingError, match="id: is required"):
        compile_mapping(None, connector)
    compile_mapping({"id": "profile.id"}, connector)


def test_failures_on_an_item_name_the_field_and_no_value() -> None:
    mapping = compile_mapping({"city": "sum(profile.traits.town)"}, CONNECTOR)
    with pytest.raises(MappingError) as caught:
        mapping.member_fields(PROFILE)
    assert (caught.value.field, caught.value.reason) == ("city", "a function is given a value of a type it cannot take")
    mapping = compile_mapping({"city": "profile.traits"}, CONNECTOR)
    with pytest.raises(MappingError, match="city: the expression gives an object"):
        mapping.member_fields(PROFILE)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("lower('ÄB')", "äb"),
        ('upper(`["a", 1, null]`)', ["A", 1, None]),
        ("trim(' a ')", "a"),
        ("digits('+49 (171) x')", "49171"),
        ("replace('a-b-c', '-', '')", "abc"),
        ("split(' a, b,,c ', ',')", ["a", "b", "c"]),
        ("first(`[]`)", None),
        ("first(`[5, 6]`)", 5),
        ("text(`3.0`)", "3"),
        ("text(`true`)", "true"),
        ("number('12')", 12),
        ("number('1.50')", 1.5),
        ("number('1e999')", None),
        ("number(`true`)", None),
        ("sha256('abc')", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("iso_time('2026-01-31T10:00:00+02:00')", "2026-01-31T08:00:00Z"),
        ("iso_time(`0`)", "1970-01-01T00:00:00Z"),
        ("iso_time('never')", None),
        ("unix_time('1970-01-01T00:01:00Z')", 60),
        ("date('2026-01-31', 'YYYYMMDD hh:mm:ss')", "20260131 00:00:00"),
        ("date(profile.nothing, 'YYYY')", None),
        ("lower(profile.nothing)", None),
        ("profile.nothing || 'IN'", "IN"),
    ],
)
def test_functions(expression: str, value: Any) -> None:
    assert compile_expression("f", expression)({"profile": {}, "event": None}) == value


def test_each_function_has_a_line_of_help() -> None:
    for name, line in function_help().items():
        assert line.startswith(f"{name}("), name
