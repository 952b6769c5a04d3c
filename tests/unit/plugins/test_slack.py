"""The Slack connector: settings, messages, answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headrace_destination_slack.destination import Slack
from headrace_destination_slack.settings import SlackSettings
from pydantic import ValidationError

from headrace_sdk import (
    AuthError,
    ConfigError,
    ConnectorError,
    Delivered,
    EventBatch,
    EventItem,
    Note,
    Outcomes,
    RateLimited,
    RecordRejected,
    Request,
    Response,
    Skip,
    TransientError,
)

HOOK = "https://hooks.slack.com/services/T0/B0/x"
BOT: dict[str, Any] = {"bot_token": "xoxb-1", "channel": "C1"}


def connector(**settings: Any) -> Slack:
    return Slack(SlackSettings.model_validate(settings or {"webhook_url": HOOK}))


def event(name: str = "Order Completed", **fields: Any) -> EventItem:
    return EventItem(message_id="m", kind="track", name=name, fields=fields)


def built(item: EventItem, **settings: Any) -> list[Any]:
    return list(connector(**settings).send_events(EventBatch(events=(item,), now_us=0)))


def text_of(item: EventItem, **settings: Any) -> str:
    (request,) = built(item, **{"webhook_url": HOOK, **settings})
    text: str = json.loads(request.body)["text"]
    return text


def test_a_webhook_is_posted_to_as_documented() -> None:
    (request,) = built(event(person="ada@example.com"))
    assert request == Request(
        method="POST",
        url=HOOK,
        headers={"Content-Type": "application/json; charset=utf-8"},
        body=b'{"text":"*Order Completed* ada@example.com","unfurl_links":false}',
        items=(0,),
    )


def test_a_bot_posts_to_its_channel_or_the_events() -> None:
    (request,) = built(event(), **BOT)
    assert request.url == "https://slack.com/api/chat.postMessage" and "Authorization" not in request.headers
    assert json.loads(request.body)["channel"] == "C1"
    (request,) = built(event(channel=" C2 "), **BOT)
    assert json.loads(request.body)["channel"] == "C2"
    (skip,) = built(event(), bot_token="xoxb-1")
    assert isinstance(skip, Skip) and skip.field == "channel"


@pytest.mark.parametrize(
    ("template", "fields", "text"),
    [
        ("${event}: ${value} ${currency}", {"value": 29.9, "currency": "EUR"}, "Order Completed: 29.9 EUR"),
        ("${event}  ${email} !", {}, "Order Completed !"),
        ("<https://x.example|${first_name}>", {"first_name": "A & <!channel>"},
         "<https://x.example|A &amp; &lt;!channel&gt;>"),
        ("${properties.plan.name} ${properties.none.x}", {"properties": {"plan": {"name": "pro"}}}, "pro"),
        ("${properties.tags}", {"properties": {"tags": ["ä", 1]}}, '["ä", 1]'),
        ("$${event} ${ event }", {}, "${event} Order Completed"),
        ("${first_name}", {"first_name": "${email}", "email": "x"}, "${email}"),
    ],
)  # fmt: skip
def test_templates(template: str, fields: dict[str, Any], text: str) -> None:
    assert text_of(event(**fields), message=template) == text


def test_a_mapped_text_is_the_message() -> None:
    assert text_of(event(text=" <!here> hi ")) == "&lt;!here&gt; hi"


def test_an_event_may_have_its_own_message_and_name() -> None:
    own = {"messages": {"Order Completed": "Sold!"}, "event_names": {"Order Refunded": "Refund"}}
    assert text_of(event(), **own) == "Sold!"
    assert text_of(event("Order Refunded"), **own) == "*Refund*"
    assert text_of(EventItem(message_id="m", kind="identify"), **own) == "*identify*"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"messages": {"Order Completed": " "}}, "leave the event out"),
        ({"event_names": {"Order Completed": ""}}, "leave the event out"),
        ({"message": "${email}"}, "empty"),
    ],
)
def test_what_is_left_out(settings: dict[str, Any], reason: str) -> None:
    (skip,) = built(event(), **{"webhook_url": HOOK, **settings})
    assert isinstance(skip, Skip) and reason in skip.reason


def test_long_messages_are_cut_between_characters() -> None:
    request, note = built(event(text="x" * 39_997 + "&&&"))
    text = json.loads(request.body)["text"]
    assert len(text) <= 40_000 and text.endswith("x…")
    assert isinstance(note, Note) and "40,000" in note.reason


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"webhook_url": HOOK, "bot_token": "x"},
        {"webhook_url": HOOK, "channel": "C1"},
        {"webhook_url": "hooks.slack.com/x"},
        {"webhook_url": f"{HOOK}?a=1"},
        {"bot_token": "a b"},
        {"webhook_url": HOOK, "message": "${nobody}"},
        {"webhook_url": HOOK, "messages": {"A": "${nobody.x}"}},
        {"webhook_url": "", "bot_token": ""},
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SlackSettings.model_validate(settings)


def read(response: Response, item: EventItem | None = None, **settings: Any) -> Outcomes | ConnectorError:
    opened = connector(**settings)
    (request,) = opened.send_events(EventBatch(events=(item or event(),), now_us=0))
    assert isinstance(request, Request)
    try:
        return opened.read(request, response)
    except ConnectorError as error:
        return error


@pytest.mark.parametrize(
    ("status", "word", "kind"),
    [
        (200, b"", TransientError),
        (200, b"<html>", TransientError),
        (400, b"invalid_payload", RecordRejected),
        (400, b"user_not_found", RecordRejected),
        (400, b"secret of a person", RecordRejected),
        (403, b"action_prohibited", ConfigError),
        (403, b"invalid_token", AuthError),
        (404, b"channel_not_found", ConfigError),
        (404, b"no_service", AuthError),
        (404, b"", ConfigError),
        (302, b"", ConfigError),
        (410, b"channel_is_archived", ConfigError),
        (429, b"rate_limited", RateLimited),
        (500, b"rollup_error", TransientError),
        (503, b"", TransientError),
    ],
)
def test_answers_of_webhooks(status: int, word: bytes, kind: type[ConnectorError]) -> None:
    error = read(Response(status=status, body=word, headers={"retry-after": "30"}))
    assert type(error) is kind
    assert "person" not in error.reason
    if isinstance(error, RateLimited):
        assert error.after_s == 30.0


def test_delivered() -> None:
    assert read(Response(status=200, body=b"ok\n")) == Outcomes(items=(Delivered(),))
    assert read(Response(status=200, body=b'{"ok":true}'), **BOT) == Outcomes(items=(Delivered(),))


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (200, "invalid_auth", AuthError),
        (200, "missing_scope", AuthError),
        (200, "not_in_channel", ConfigError),
        (200, "is_archived", ConfigError),
        (200, "msg_too_long", RecordRejected),
        (200, "a sentence with ada@example.com", TransientError),
        (200, "fatal_error", TransientError),
        (200, "ratelimited", RateLimited),
        (429, "ratelimited", RateLimited),
        (404, None, ConfigError),
    ],
)
def test_answers_of_the_web_api(status: int, error: str | None, kind: type[ConnectorError]) -> None:
    body = json.dumps({"ok": False, "error": error}).encode()
    found = read(Response(status=status, body=body), **BOT)
    assert type(found) is kind and "ada" not in found.reason


def test_ok_in_the_wrong_type_is_not_delivered() -> None:
    for body in (b"ok", b"[]", b'{"ok":"true"}', b'{"ok":1}'):
        assert isinstance(read(Response(status=200, body=body), **BOT), TransientError)


def test_a_channel_that_the_event_chose_stops_the_event_alone() -> None:
    response = Response(status=200, body=b'{"ok":false,"error":"channel_not_found"}')
    error = read(response, event(channel="C9"), **BOT)
    assert isinstance(error, RecordRejected) and error.field == "channel"


def test_the_check_asks_for_the_bot() -> None:
    opened = connector(**BOT)
    (check,) = opened.check()
    assert check.request.url == "https://slack.com/api/auth.test" and check.request.items == ()
    assert opened.read_check(check, Response(status=200, body=b'{"ok":true}')) == ""
    assert "new one" in opened.read_check(check, Response(status=200, body=b'{"ok":false,"error":"invalid_auth"}'))
    assert "try again" in opened.read_check(check, Response(status=503))
    assert list(connector().check()) == []
