"""What events say about purposes: whatever comes from outside, nothing fails, and a plain reading agrees."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.api.common.v1.event_pb2 import Event, EventKind
from headrace.domain.consent import (
    MAX_PURPOSE_LENGTH,
    MAX_PURPOSES,
    ConsentValue,
    newest,
    purpose_of,
    statements_of,
    unknown_statuses,
)

thoroughly = settings(derandomize=True, deadline=None, max_examples=200)

TRACK = EventKind.EVENT_KIND_TRACK
GROUP = EventKind.EVENT_KIND_GROUP

scalars = st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=8) | st.just("granted") | st.just("denied")
words = st.sampled_from(["consent", "Consent", "consentManagement", "categoryPreferences", "traits", "ad_storage", "x"])
names = words | st.sampled_from(["allowedConsentIds", "deniedConsentIds", "ad_user_data", ""]) | st.text(max_size=70)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)
documents = st.dictionaries(names, values, max_size=4)
statuses: st.SearchStrategy[Any] = st.sampled_from(
    ["granted", "denied", "Granted ", "DENIED", True, False, "true", "false", "yes", 1, None, {}]
)
purposes = st.sampled_from(["ad_storage", "adUserData", "Ad User Data", "newsletter", " newsletter", "x" * 65, ""])
maps = st.dictionaries(purposes, statuses, max_size=5)


def event(kind: EventKind.ValueType = TRACK, name: str = "Viewed", **parts: Any) -> Event:
    """An event with these parts as JSON."""
    made = Event(message_id="m1", kind=kind, name=name)
    for part, value in parts.items():
        setattr(made, part, json.dumps(value).encode())
    return made


def plainly(*given_maps: dict[str, Any]) -> dict[str, bool]:
    """What maps of purposes say, read in the plainest way."""
    words_of = {"granted": True, "denied": False, "true": True, "false": False}
    spelled = {"aduserdata": "ad_user_data", "adstorage": "ad_storage"}
    found: dict[str, bool] = {}
    for statements in given_maps:
        for name, status in statements.items():
            said = (
                status
                if isinstance(status, bool)
                else words_of.get(status.strip().lower())
                if isinstance(status, str)
                else None
            )
            trimmed = name.strip()
            if said is None or not 0 < len(trimmed) <= MAX_PURPOSE_LENGTH:
                continue
            purpose = spelled.get(trimmed.lower().replace("_", "").replace(" ", ""), trimmed)
            found[purpose] = found.get(purpose, True) and said
    return found


@thoroughly
@given(said=maps, name=st.sampled_from(["trackConsent", "track_consent", "Track Consent", "TRACKCONSENT"]))
def test_track_consent_is_read_in_any_spelling(said: dict[str, Any], name: str) -> None:
    assert statements_of(event(name=name, properties=said)) == plainly(said)


@thoroughly
@given(a=maps, b=maps, c=maps, d=maps, kind=st.sampled_from([TRACK, EventKind.EVENT_KIND_IDENTIFY, GROUP]))
def test_all_parts_of_an_event_count_and_a_denial_wins(
    a: dict[str, Any], b: dict[str, Any], c: dict[str, Any], d: dict[str, Any], kind: EventKind.ValueType
) -> None:
    one = event(
        kind,
        context={"consent": {**a, "categoryPreferences": b}, "traits": {"consent": c}, "page": {}},
        traits={"consent": d, "email": "a@shop.example"},
    )
    assert statements_of(one) == plainly(a, b, c, *([] if kind == GROUP else [d]))


@thoroughly
@given(context=documents, traits=documents, properties=documents, name=st.sampled_from(["trackConsent", "Viewed"]))
@example(context={"consentManagement": {"allowedConsentIds": "x"}}, traits={}, properties={}, name="Viewed")
def test_no_document_makes_it_fail(
    context: dict[str, Any], traits: dict[str, Any], properties: dict[str, Any], name: str
) -> None:
    said = statements_of(event(name=name, context=context, traits=traits, properties=properties))
    assert len(said) <= MAX_PURPOSES
    assert all(purpose == purpose_of(purpose) and isinstance(granted, bool) for purpose, granted in said.items())
    assert unknown_statuses(properties) == sorted(unknown_statuses(properties))


@thoroughly
@given(context=st.binary(max_size=60), traits=st.binary(max_size=60), properties=st.binary(max_size=60))
@example(context=b'{"consent":{"a":"granted"}', traits=b'{"consent":' + b"[" * 5_000, properties=b"\xff")
@example(context=b'["consent"]', traits=b'"consent"', properties=b"null")
@example(context=b'{"consent":{"\xff":true}}', traits=b"consent", properties=b'{"a":"granted"')
def test_no_bytes_make_it_fail(context: bytes, traits: bytes, properties: bytes) -> None:
    for prefix in (b"", b'{"consent":', b'{"consent":{"ad_storage":'):
        one = Event(kind=TRACK, name="trackConsent", context=prefix + context, traits=prefix + traits)
        one.properties = properties
        statements_of(one)


def test_the_clients_of_others_are_understood() -> None:
    segment = event(
        name="Segment Consent Preference Updated", context={"consent": {"categoryPreferences": {"Ads": False}}}
    )
    assert statements_of(segment) == {"Ads": False}
    rudder = event(context={"consentManagement": {"allowedConsentIds": ["a", "b"], "deniedConsentIds": ["b", 3]}})
    assert statements_of(rudder) == {"a": True, "b": False}
    nested = event(name="trackConsent", properties={"consent": {"ad_storage": "granted"}, "source": "banner"})
    assert statements_of(nested) == {"ad_storage": True}


@pytest.mark.parametrize("part", ["properties", "page"])
def test_other_properties_are_no_consent(part: str) -> None:
    assert statements_of(event(properties={"consent": {"ad_storage": "granted"}, part: True})) == {}


def test_numbers_and_lengths_are_limited() -> None:
    said = {f"p{number:03}": True for number in range(200)} | {"x" * 65: True, "a\tb": False, "  ": True}
    found = statements_of(event(name="trackConsent", properties=said))
    assert sorted(found) == [f"p{number:03}" for number in range(MAX_PURPOSES)]


def test_unknown_statuses_are_named() -> None:
    properties = {"ad_storage": "maybe", "adUserData": 1, "analytics_storage": True, "banner": "x", "": "y"}
    assert unknown_statuses(properties) == ["ad_storage", "ad_user_data"]


@thoroughly
@given(
    said=st.lists(
        st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(0, 2), st.sampled_from(["m1", "m2"])), max_size=8
    ),
    data=st.data(),
)
def test_the_newest_wins_and_a_denial_at_a_tie(said: list[tuple[str, bool, int, str]], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(said))
    found = newest({purpose: ConsentValue(granted, time, id, "web")} for purpose, granted, time, id in shuffled)
    for purpose in "ab":
        own = [(time, id, not granted) for p, granted, time, id in said if p == purpose]
        assert (purpose in found) == bool(own)
        if own:
            value = found[purpose]
            assert (value.time_us, value.message_id, not value.granted) == max(own)
