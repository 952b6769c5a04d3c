"""Planning of configuration: what is created, changed and left, in which order, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.cli.config.plan import (
    CREATE,
    UNCHANGED,
    UPDATE,
    Connector,
    Platform,
    Stored,
    described,
    differences,
    make_plan,
    references,
)
from headrace.cli.config.resources import Resource, read_resources
from headrace.cli.config.yamldoc import ProblemsFound
from headrace.plugins.masking import MASK

SCHEMA = {
    "additionalProperties": False,
    "properties": {
        "url": {"type": "string"},
        "secret": {"type": "string", "format": "password", "writeOnly": True},
        "headers": {"type": "object"},
    },
    "required": ["url"],
}
CONNECTORS = {
    "hook": Connector(SCHEMA, ("forwarding", "event_sync")),
    "vendor": Connector({}, ("list_sync",)),
}


def read(text: str) -> list[Resource]:
    return read_resources([("f", text)], {})


def platform(**stored: dict[str, Any]) -> Platform:
    """Stored resources by "Kind_id"."""
    found = {}
    for title, values in stored.items():
        kind, _, id = title.partition("_")
        found[kind, id] = Stored(values, etag=f"etag-{id}")
    return Platform(found, CONNECTORS)


def problems(text: str, has: Platform) -> list[str]:
    with pytest.raises(ProblemsFound) as raised:
        make_plan(read(text), has)
    return [str(p) for p in raised.value.problems]


HOOK = "kind: Destination\nid: d\nconnector: hook\nsettings: {url: u, secret: hush}\n"
STORED_HOOK = {"display_name": "d", "connector": "hook", "settings": {"url": "u", "secret": MASK}, "paused": False}


def test_what_is_referred_to_comes_first() -> None:
    text = """
kind: Sync
id: s
type: event
destination: d
audience: outer
---
kind: Audience
id: outer
definition: {where: {all: [{audience: middle}, {not: {any: [{audience: inner}]}}]}}
---
kind: Audience
id: middle
definition: {where: {not: {audience: inner}}}
---
kind: Destination
id: d
connector: hook
settings: {url: u}
---
kind: Audience
id: inner
definition: {where: {event: X}}
---
kind: Source
id: web
type: http
"""
    steps = make_plan(read(text), platform())
    assert [s.resource.id for s in steps] == ["web", "inner", "middle", "outer", "d", "s"]
    assert {s.action for s in steps} == {CREATE}


def test_a_circle_of_audiences_is_refused() -> None:
    text = "kind: Audience\nid: {a}\ndefinition: {{where: {{audience: {b}}}}}\n"
    circle = text.format(a="a", b="b") + "---\n" + text.format(a="b", b="a")
    assert problems(circle, platform()) == ["f:3: the audiences a, b name each other in a circle"]
    assert problems(text.format(a="a", b="a"), platform()) == ["f:3: the audiences a name each other in a circle"]


def test_the_same_again_changes_nothing() -> None:
    has = platform(
        Destination_d=STORED_HOOK,
        Sync_s={
            "display_name": "s",
            "type": "forwarding",
            "destination": "d",
            "audience": "",
            "event_names": [],
            "mapping": None,
            "send_removals": False,
            "require_approval": False,
            "most_changed_percent": 0,
            "identifier_values": "all",
            "delay_seconds": 0,
            "schedule": "",
            "paused": True,
        },
        Audience_a={"display_name": "a", "definition": {"where": {"event": "X"}}, "active": True},
        Source_w={"display_name": "w", "type": "http", "allowed_origins": [], "mapping": None, "disabled": True},
    )
    text = (
        f"{HOOK}---\nkind: Sync\nid: s\ntype: forwarding\ndestination: d\n"
        "---\nkind: Audience\nid: a\ndefinition: {where: {event: X}}\n---\nkind: Source\nid: w\ntype: http\n"
    )
    steps = make_plan(read(text), has)
    assert {s.action for s in steps} == {UNCHANGED}
    assert [s.secrets for s in steps if s.secrets] == [("settings.secret",)]


def test_changes_name_their_place_and_only_their_keys_are_sent() -> None:
    has = platform(Destination_d={**STORED_HOOK, "settings": {"url": "old", "secret": MASK, "headers": {"a": "1"}}})
    (step,) = make_plan(read(HOOK + "display_name: New\npaused: true\n"), has)
    assert step.action == UPDATE
    assert [(c.path, c.before, c.after) for c in step.changes] == [
        ("display_name", "d", "New"),
        ("settings.url", "old", "u"),
        ("settings.headers", {"a": "1"}, None),
        ("paused", False, True),
    ]
    assert step.keys == ["display_name", "settings", "paused"]
    assert step.etag == "etag-d"


def test_secrets_are_never_shown() -> None:
    (created,) = make_plan(read(HOOK), platform())
    (changed,) = make_plan(read(HOOK), platform(Destination_d={**STORED_HOOK, "settings": {"url": "old"}}))
    (same,) = make_plan(read(HOOK), platform(Destination_d=STORED_HOOK))
    for step in (created, changed, same):
        assert "hush" not in "\n".join(described(step))
    assert '    settings.secret: (none) -> "********"' in described(changed)
    assert same.secrets == ("settings.secret",)
    assert same.keys == ["settings"]


def test_a_masked_secret_stands_for_the_stored_one_and_for_no_other() -> None:
    masked = HOOK.replace("hush", f'"{MASK}"')
    (step,) = make_plan(read(masked), platform(Destination_d=STORED_HOOK))
    assert (step.action, step.secrets) == (UNCHANGED, ())
    said = "f:4: settings.secret is a mask, and there is no stored secret that it could stand for"
    assert problems(masked, platform()) == [said]
    assert problems(masked, platform(Destination_d={**STORED_HOOK, "settings": {"url": "u"}})) == [said]


def test_what_people_switch_stays_unless_the_file_says_so() -> None:
    has = platform(Audience_a={"display_name": "a", "definition": {"where": {"event": "X"}}, "active": True})
    text = "kind: Audience\nid: a\ndefinition: {where: {event: X}}\n"
    (left,) = make_plan(read(text), has)
    (paused,) = make_plan(read(text + "active: false\n"), has)
    assert left.action == UNCHANGED
    assert [(c.path, c.before, c.after) for c in paused.changes] == [("active", True, False)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HOOK.replace("hook", "hok"), "f:3: there is no such connector; there are: hook, vendor"),
        (HOOK.replace("url:", "uri:"), "f:4: settings has no 'uri'; there are: url, secret, headers"),
        ("kind: Destination\nid: d\nconnector: hook\n", "f:1: settings needs url"),
        ("kind: Sync\nid: s\ntype: list\ndestination: no\naudience: a\n", "f:4: there is no Destination 'no', in"),
        ("kind: Sync\nid: s\ntype: event\ndestination: v\naudience: no\n", "f:5: there is no Audience 'no', in"),
        ("kind: Sync\nid: s\ntype: event\ndestination: v\naudience: a\n", "f:3: connector 'vendor' of v cannot"),
        ("kind: Audience\nid: b\ndefinition: {where: {audience: no}}\n", "f:3: there is no Audience 'no', in"),
        ("kind: Source\nid: w\ntype: webhook\n", "f:3: type of Source w is 'http' and cannot be ch"),
        ("kind: Destination\nid: v\nconnector: hook\nsettings: {url: u}\n", "f:3: connector of Destination v is"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_platform_is_refused_before_anything_is_done(text: str, said: str) -> None:
    has = platform(
        Audience_a={"display_name": "a", "definition": {"where": {"event": "X"}}, "active": False},
        Destination_v={"display_name": "v", "connector": "vendor", "settings": {}, "paused": False},
        Source_w={"display_name": "w", "type": "http", "allowed_origins": [], "mapping": None, "disabled": False},
    )
    assert any(problem.startswith(said) for problem in problems(text, has)), problems(text, has)


def test_references_are_conditions_and_not_any_member_of_that_name() -> None:
    definition = {"where": {"any": [{"audience": "a"}, {"trait": "audience", "eq": "b"}, {"not": {"audience": "c"}}]}}
    assert references(definition) == {"a", "c"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_two_values_differ_exactly_when_a_difference_is_found(a: Any, b: Any) -> None:
    def exact(value: Any) -> Any:  # 1 and true are different, an absent member and null are alike
        if isinstance(value, dict):
            return {k: exact(v) for k, v in value.items() if v is not None}
        if isinstance(value, list):
            return [exact(v) for v in value]
        return (type(value).__name__, value)

    assert bool(list(differences(a, b, "x"))) == (exact(a) != exact(b))
