from __future__ import annotations

import msgspec
from headrace_sync.mappings.items import completed, with_values
from headrace_sync.people.visits import visit_of

from headrace.api.common.v1.event_pb2 import Event, Identifier
from headrace.api.sync.v1.sync_service_pb2 import IdentifierValues
from headrace_sdk import Profile


def _event(context: dict[str, object] | None = None, **identifiers: str) -> Event:
    return Event(
        identifiers=[Identifier(namespace=name, value=value) for name, value in identifiers.items()],
        context=msgspec.json.encode(context) if context else b"",
    )


def test_a_visit_has_the_newest_click_of_each_kind_and_nothing_else_that_identifies() -> None:
    visit = visit_of(
        [
            _event(gclid="new", email="ada@example.com"),
            _event({"ip": "203.0.113.7", "userAgent": "Browser", "page": {"url": "https://a.example"}}, gclid="old"),
            _event({"ip": "198.51.100.1"}, ttclid="t", anonymous_id="a"),
        ]
    )
    assert visit.identifiers == {"gclid": ["new"], "ttclid": ["t"], "anonymous_id": ["a"]}
    assert visit.context == {"ip": "203.0.113.7", "userAgent": "Browser"}


def test_an_event_of_a_membership_is_completed_and_stays_as_it_is_stored() -> None:
    stored = Event(name="added_to_segment", properties=b'{"audience_id": "buyers"}')
    made = completed(stored, "Buyers", visit_of([_event({"ip": "203.0.113.7"}, ttclid="t")]))
    assert msgspec.json.decode(made.properties) == {"audience_id": "buyers", "audience_name": "Buyers"}
    assert [(i.namespace, i.value) for i in made.identifiers] == [("ttclid", "t")]
    assert msgspec.json.decode(made.context) == {"ip": "203.0.113.7"}
    assert (stored.properties, list(stored.identifiers)) == (b'{"audience_id": "buyers"}', [])
    assert completed(stored, "", None) == stored


def test_which_values_of_an_identifier_are_sent() -> None:
    profile = Profile(id="p", identifiers={"email": ["a@x.org", "b@x.org"], "phone": []})
    assert with_values(profile, IdentifierValues.IDENTIFIER_VALUES_UNSPECIFIED) is profile
    assert with_values(profile, IdentifierValues.IDENTIFIER_VALUES_FIRST).identifiers == {"email": ["a@x.org"]}
    assert with_values(profile, IdentifierValues.IDENTIFIER_VALUES_LAST).identifiers == {"email": ["b@x.org"]}
