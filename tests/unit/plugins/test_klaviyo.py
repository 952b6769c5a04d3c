"""Klaviyo: profiles, consent, steps of jobs, and what Klaviyo's answers mean."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from headrace_destination_klaviyo import consents, events, jobs, people, profiles
from headrace_destination_klaviyo.destination import MANIFEST, Klaviyo
from headrace_destination_klaviyo.settings import KlaviyoSettings
from pydantic import ValidationError

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    Delivered,
    EventBatch,
    EventItem,
    Job,
    Member,
    MemberBatch,
    Note,
    Pending,
    Profile,
    RateLimited,
    RecordRejected,
    Rejected,
    Request,
    Response,
    Retry,
    Skip,
    TransientError,
    Warned,
)

NOW_US = 1_796_000_000_000_000


def connector(**settings: Any) -> Klaviyo:
    return Klaviyo(KlaviyoSettings.model_validate({"api_key": "k", "list_id": "L1", **settings}))


def event(name: str = "Thing Done", kind: str = "track", **more: Any) -> EventItem:
    known: dict[str, Any] = {"fields": {"email": "a@x.de"}, "timestamp_us": NOW_US - 1_000_000}
    return EventItem(message_id="m", kind=kind, name=name, **{**known, **more})


def built(*given: EventItem, **settings: Any) -> list[Any]:
    return list(connector(**settings).send_events(EventBatch(events=given, now_us=NOW_US)))


def answer(status: int, body: Any = None, **headers: str) -> Response:
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status=status, headers=headers, body=raw)


def fault(pointer: str, detail: str = "wrong", code: str = "invalid") -> dict[str, Any]:
    return {"errors": [{"code": code, "title": "Invalid input.", "detail": detail, "source": {"pointer": pointer}}]}


@pytest.mark.parametrize(
    ("field", "raw", "sent"),
    [
        ("email", " Ada.B+x@Gmail.com", "ada.b+x@gmail.com"),
        ("phone", "+49 (0)171 123-4567", "+491711234567"),
        ("user_id", " U-1 ", "U-1"),
    ],
)
def test_values(field: str, raw: str, sent: str) -> None:
    assert connector().normalise(field, raw).sent == sent


@pytest.mark.parametrize(("field", "raw"), [("email", "x"), ("phone", "0171"), ("user_id", "u" * 256), ("city", "x")])
def test_values_that_klaviyo_cannot_use(field: str, raw: str) -> None:
    with pytest.raises(RecordRejected):
        connector().normalise(field, raw)


def test_a_row_is_named_by_identifiers_and_channels_alone() -> None:
    there = connector(subscribe_members=True)
    fields: dict[str, Any] = {"email": "A@x.de", "first_name": "Ada", "email_consent": "denied"}
    (row,), (renamed,) = (there.rows(Member(profile_id="p", fields={**fields, "first_name": n})) for n in ("Ada", "B"))
    assert row.key == renamed.key and row.data == {"email": "a@x.de", "first_name": "Ada", "subscribe": []}
    (granted,) = there.rows(
        Member(profile_id="p", fields={**fields, "email_consent": "granted", "sms_consent": "granted"})
    )
    assert granted.data["subscribe"] == ["email"] and granted.key != row.key  # there is no number
    (silent,) = connector().rows(Member(profile_id="p", fields={**fields, "email_consent": "granted"}))
    assert silent.data["subscribe"] == []
    with pytest.raises(RecordRejected, match="email is no e-mail"):
        there.rows(Member(profile_id="p", fields={"email": "x"}))


def test_removals_go_by_one_identifier_each() -> None:
    """An address that has changed since must not be given back to the profile."""
    people: list[dict[str, str | list[str]]] = [{"email": "a@x.de", "user_id": "u"}, {"user_id": "v"}]
    rows = [row for fields in people for row in connector().rows(Member(profile_id="p", fields=fields))]
    built = list(connector().remove_members(MemberBatch(rows=tuple(rows), now_us=0)))
    requests = [one for one in built if isinstance(one, Request)]
    assert [(one.method, one.body, one.items) for one in requests] == [("GET", b"", (0,)), ("GET", b"", (1,))]
    for request, wanted in zip(requests, ('any(email,["a@x.de"])', 'any(external_id,["v"])'), strict=True):
        address = urlsplit(request.url)
        assert (address.path, address.fragment) == ("/api/profiles", "off")
        assert parse_qs(address.query) == {"fields[profile]": ["created"], "page[size]": ["100"], "filter": [wanted]}
    many = tuple(rows[:1]) * 250
    parts = list(connector().remove_members(MemberBatch(rows=many, now_us=0)))
    assert [len(part.items) for part in parts if isinstance(part, Request)] == [100, 100, 50]


def test_metrics() -> None:
    names = {"Order Completed": "Placed Order", "product_viewed": "Viewed Product", "Thing Done": "Thing Done"}
    assert {name: events.metric_of(event(name), {})[0] for name in names} == names
    assert events.metric_of(event("Home", "page"), {})[0] == "Viewed Home Page"
    assert events.metric_of(event("", "screen"), {})[0] == "Viewed Screen"
    assert events.metric_of(event("Order Completed"), {"order completed": "Bought"})[0] == "Bought"
    assert events.metric_of(event("Thing Done"), {"Thing Done": ""}) == ("", "the setting event_names leaves it out")
    assert events.metric_of(event("", "group"), {})[1] == "Klaviyo has no group events"
    assert len(events.metric_of(event("x" * 200), {})[0]) == 127


def test_times_that_klaviyo_does_not_take_become_that_of_sending() -> None:
    for moment_us, expected in (
        (0, "2026-11-30"),
        (NOW_US + 400 * 86_400_000_000, "2026-11-30"),
        (NOW_US - 86_400_000_000, "2026-11-29"),
    ):
        assert events.attributes_of(event(timestamp_us=moment_us), "x", NOW_US)["time"][:10] == expected


def test_one_event_goes_alone_and_several_together() -> None:
    (one,) = built(event())
    assert one.url == "https://a.klaviyo.com/api/events" and one.headers["revision"] == "2026-10-15"
    (several,) = built(event(), event())
    assert several.url == "https://a.klaviyo.com/api/event-bulk-create-jobs" and several.items == (0, 1)


def test_what_is_left_out_says_why() -> None:
    found = built(
        event(fields={}),
        event(fields={"email": "bad"}),
        event(fields={"email": "bad", "user_id": "u"}),
        event("", "identify", fields={"anonymous_id": "d"}),
        event("", "alias"),
    )
    assert [(type(one), getattr(one, "reason", "")) for one in found] == [
        (Skip, "has no identifier by which Klaviyo knows people"),
        (Skip, "email is no e-mail address"),
        (Note, "left out: email is no e-mail address"),
        (Skip, "has no identifier by which Klaviyo knows people"),
        (Skip, "Klaviyo has no alias events"),
        (Request, ""),
    ]


def test_an_identify_event_takes_traits_without_a_field_of_their_own_as_properties() -> None:
    traits = {"plan": "pro", "firstName": "Ada", "address": {"city": "x"}, "empty": None}
    (request,) = built(
        event("", "identify", fields={"email": "a@x.de", "anonymous_id": "d", "profile_properties": traits})
    )
    assert request.url.endswith("/api/profile-import")
    assert json.loads(request.body)["data"]["attributes"] == {"email": "a@x.de", "properties": {"plan": "pro"}}
    assert len(people.properties_of({f"p{n}": n for n in range(500)})) == 400


DENIED_SINCE = Profile(id="p", consents={"email_marketing": "denied"})
GRANTED_SINCE = Profile(id="p", consents={"email_marketing": "granted"})


@pytest.mark.parametrize(
    ("more", "subscribed", "unsubscribed"),
    [
        ({"properties": {"email_marketing": "Granted"}}, ["email"], []),
        ({"properties": {"email_marketing": True, "sms_marketing": False}}, ["email"], ["sms"]),
        ({"properties": {"ad_storage": "granted"}}, [], []),
        ({"properties": {"email_marketing": "maybe"}}, [], []),
        ({"context": {"consent": {"categoryPreferences": {"sms_marketing": True}}}}, ["sms"], []),
        ({"properties": {"email_marketing": "granted"}, "profile": DENIED_SINCE}, [], []),
        ({"properties": {"email_marketing": "denied"}, "profile": GRANTED_SINCE}, [], []),
        ({"profile": GRANTED_SINCE}, [], []),
    ],
)  # fmt: skip
def test_consent_is_that_of_the_event_unless_said_otherwise_since(
    more: dict[str, Any], subscribed: list[str], unsubscribed: list[str]
) -> None:
    found = consents.of_event(event("trackConsent", **more), "email_marketing", "sms_marketing")
    assert found == {"SUBSCRIBED": subscribed, "UNSUBSCRIBED": unsubscribed}


def test_subscribers_come_onto_a_list_of_their_own() -> None:
    said = event("trackConsent", properties={"email_marketing": "granted"})
    (request,) = built(said)
    assert "relationships" not in json.loads(request.body)["data"]
    (request,) = built(said, subscription_list_id="S1")
    assert json.loads(request.body)["data"]["relationships"] == {"list": {"data": {"type": "list", "id": "S1"}}}
    withdrawn = event("trackConsent", properties={"email_marketing": "denied"})
    (request,) = built(withdrawn, subscription_list_id="S1")
    assert "relationships" not in json.loads(request.body)["data"]
    (skip,) = built(said, event_names={"track consent": ""})
    assert isinstance(skip, Skip)


def test_nobody_is_subscribed_by_other_events() -> None:
    known = Profile(id="p", consents={"email_marketing": "granted", "sms_marketing": "granted"})
    for given in (event(profile=known), event("", "identify", profile=known), event("Subscribed", profile=known)):
        (request,) = built(given)
        assert "subscription" not in request.url and b"SUBSCRIBED" not in request.body


REQUEST = Request(method="POST", url="https://x/api/event-bulk-create-jobs", items=(0, 1, 2))


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (answer(401, fault("/")), AuthError),
        (answer(403, fault("/")), AuthError),
        (answer(410), ConfigError),
        (answer(400, fault("/", code="invalid_revision")), ConfigError),
        (answer(400, fault("/data/relationships/lists/data/0")), ConfigError),
        (answer(404, b"<html>"), ConfigError),
        (answer(301), ConfigError),
        (answer(429, fault("/")), RateLimited),
        (answer(500, fault("/")), TransientError),
        (answer(503, b"<html>"), TransientError),
        (answer(200, b"<html>"), TransientError),
        (answer(400, b"<html>"), TransientError),
    ],
)
def test_answers_that_are_errors(response: Response, error: type[ConnectorError]) -> None:
    with pytest.raises(error) as raised:
        connector().read(REQUEST, response)
    assert type(raised.value) is error


def test_a_culprit_is_taken_out() -> None:
    there = connector()
    named = there.read(REQUEST, answer(400, fault("/data/attributes/events-bulk-create/data/1/attributes/profile")))
    assert [type(one) for one in named.items] == [Retry, Rejected, Retry] and named.refused_whole
    unnamed = there.read(REQUEST, answer(400, fault("/data", "ada@x.de +49 171 1234567")))
    assert {type(one) for one in unnamed.items} == {Rejected} and unnamed.refused_whole
    assert "ada" not in repr(unnamed) and "1234567" not in repr(unnamed)
    hidden = there.read(REQUEST, answer(202, fault("/data/attributes/events-bulk-create/data/0")))
    assert [type(one) for one in hidden.items] == [Rejected, Retry, Retry]
    assert there.read(REQUEST, answer(413)).refused_whole
    assert there.read(REQUEST, answer(202)).items == (Delivered(),) * 3
    alone = Request(method="POST", url="https://x/api/profile-import", items=(0,))
    assert there.read(alone, answer(409, fault("/data", code="duplicate_profile"))).items[0] == Rejected(
        reason="Klaviyo answered with status 409 (two profiles have one of the identifiers each)"
    )


def step(job: str, response: Response, items: int = 2) -> tuple[Any, ...]:
    there = connector()
    return there.read(there.poll(Job(id=job, items=items, now_us=0)), response).items


def status(word: str, failed: int = 0) -> Response:
    return answer(200, {"data": {"id": "J", "attributes": {"status": word, "failed_count": failed}}})


def test_a_job_is_followed_to_its_end() -> None:
    there = connector()
    request = Request(method="POST", url="https://x/api/profile-bulk-import-jobs", items=(0, 1))
    assert (
        there.read(request, answer(202, {"data": {"id": "J"}})).items
        == (Pending(job="keep:status:J", after_s=1.0),) * 2
    )
    with pytest.raises(TransientError):
        there.read(request, answer(202, {"data": {}}))
    again = (Pending(job="keep:status:J", after_s=0.0),) * 2
    assert step("keep:status:J", status("queued")) == step("keep:status:J", status("processing")) == again
    assert step("keep:status:J", status("complete")) == (Delivered(),) * 2
    assert [type(one) for one in step("keep:status:J", status("cancelled"))] == [Retry] * 2
    assert step("keep:status:J", status("complete", 1))[0].job == "keep:errors:J"
    for unclear in (answer(200, {"data": {}}), answer(200, {}), answer(404, fault("/"))):
        with pytest.raises(TransientError):
            step("keep:status:J", unclear)


def import_error(pointer: str) -> dict[str, Any]:
    return {"attributes": {"title": "Invalid input.", "detail": "ada@x.de", "source": {"pointer": pointer}}}


def test_errors_of_a_job_name_profiles() -> None:
    named = import_error("/data/attributes/profiles/data/1/attributes/email")
    assert [type(one) for one in step("keep:errors:J", answer(200, {"data": [named]}))] == [Delivered, Rejected]
    unnamed = [named, import_error("/data")]
    assert [type(one) for one in step("keep:errors:J", answer(200, {"data": unnamed}))] == [Warned, Rejected]
    assert [type(one) for one in step("keep:errors:J", answer(200, {"data": []}))] == [Warned, Warned]


def test_ids_are_found_and_taken_off() -> None:
    search = Request(method="GET", url=f"https://x{profiles.search('email', 'ab')}#{jobs.TAKE_OFF}", items=(0, 1))
    ids = answer(200, {"data": [{"type": "profile", "id": "01A"}, {"id": "../x"}, {"type": "profile", "id": "01B"}]})
    assert connector().read(search, ids).items == (Pending(job="off:remove:01A,01B", after_s=0.0),) * 2
    # Whom Klaviyo does not know is on no list.
    assert connector().read(search, answer(200, {"data": []})).items == (Delivered(),) * 2
    with pytest.raises(TransientError):
        connector().read(search, answer(200, {"data": {}}))
    refused = connector().read(search, answer(400, fault("/")))
    assert refused.refused_whole and [type(one) for one in refused.items] == [Rejected] * 2
    request = connector().poll(Job(id="off:remove:01A,01B", items=2, now_us=0))
    assert (request.method, request.url) == (
        "DELETE",
        "https://a.klaviyo.com/api/lists/L1/relationships/profiles#off:remove:01A,01B",
    )
    assert json.loads(request.body) == {"data": [{"type": "profile", "id": "01A"}, {"type": "profile", "id": "01B"}]}
    assert step("off:remove:01A", answer(204)) == (Delivered(),) * 2
    with pytest.raises(ConfigError):
        step("off:remove:01A", answer(404, fault("/")))


def test_searches_have_room_in_an_address() -> None:
    long = [(place, "é" * 60 + f'"{place}"') for place in range(30)]
    parts = list(profiles.parts(long))
    assert [one for part in parts for one in part] == long and len(parts) > 1
    assert all(len(profiles.search("external_id", [value for _, value in part])) < 4_300 for part in parts)


def test_lists_that_are_none() -> None:
    there = connector()
    bodies: list[Any] = [b"", {"data": {}}, {"data": None}]
    for body in bodies:
        with pytest.raises(TransientError):
            there.read_lists(there.create_list("x"), answer(200, body))
    with pytest.raises(AuthError):
        there.read_lists(there.lists(), answer(401, fault("/")))
    assert there.read_lists(there.lists(), answer(200, {"data": [], "links": {"next": 3}})).next_page == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": ""},
        {"api_key": "a b"},
        {"list_id": "../x"},
        {"subscription_list_id": "-"},
        {"revision": "v1"},
        {"base_url": "x"},
        {"x": 1},
    ],
)
def test_settings_that_are_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KlaviyoSettings.model_validate({"api_key": "k", **wrong})


def test_a_list_is_needed_for_members_alone() -> None:
    rows = tuple(connector().rows(Member(profile_id="p", fields={"email": "a@x.de"})))
    batch = MemberBatch(rows=rows, now_us=0)
    for found in (connector(list_id="").add_members(batch), connector(list_id="").remove_members(batch)):
        (skip,) = found
        assert isinstance(skip, Skip) and skip.is_failure and skip.field == "list_id"
    assert len(built(event(), list_id="")) == 1


def test_the_manifest_knows_when_the_revision_ends() -> None:
    assert MANIFEST.versions is not None
    ends = MANIFEST.versions.ends
    assert ends["2026-10-15"] == "2028-10-15" and all(end[:4] == str(int(one[:4]) + 2) for one, end in ends.items())
