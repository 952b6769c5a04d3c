"""Scripts: what they know, what they cannot do, and what may be returned."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Any

import pytest
from headrace_destination_javascript.destination import Javascript
from headrace_destination_javascript.engine import Script, ScriptError
from headrace_destination_javascript.settings import JavascriptSettings
from pydantic import ValidationError

from headrace_sdk import (
    DeleteBatch,
    EventBatch,
    EventItem,
    Profile,
    Request,
    Response,
    Skip,
    Subject,
    TransientError,
)
from headrace_sdk.errors import AuthError, RateLimited, RecordRejected

MOMENT_US = 1_796_000_000_123_000
ADA = Profile(id="p-1", identifiers={"email": ["ada@example.com"]}, traits={"last_name": "Byron"})
SENDS = "return {url: 'https://a.example/x', body: "


def events(*names: str, **more: Any) -> EventBatch:
    items = tuple(
        EventItem(message_id=f"m-{name}", kind="track", name=name, timestamp_us=MOMENT_US, profile=ADA, **more)
        for name in names
    )
    return EventBatch(events=items, now_us=0)


def connector(script: str, **settings: Any) -> Javascript:
    return Javascript(JavascriptSettings.model_validate({"script": script, **settings}))


def sent(body: str, *names: str, **settings: Any) -> list[Request | Skip]:
    script = f"function send(event, profile, settings) {{ {body} }}"
    return list(connector(script, **settings).send_events(events(*names or ("A",))))  # type: ignore[arg-type]


def value_of(expression: str) -> Any:
    (request,) = sent(f"{SENDS}{expression}}}")
    assert isinstance(request, Request), request
    return json.loads(request.body)


def refusal(body: str) -> str:
    (skip,) = sent(body)
    assert isinstance(skip, Skip) and skip.is_failure and skip.field == "script"
    return skip.reason


def test_event_person_and_settings_are_given() -> None:
    (request,) = sent(
        f"{SENDS}[event.name, profile.id, settings]}}", settings={"a": 1}, secrets={"token": "s3cr3t-s3cr3t"}
    )
    assert isinstance(request, Request)
    assert json.loads(request.body) == ["A", "p-1", {"a": 1, "token": "s3cr3t-s3cr3t"}]
    assert (request.method, request.headers) == ("POST", {"Content-Type": "application/json"})


def test_time_is_the_events_own_in_any_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    assert value_of("[new Date(), Date.now(), Date().length]") == ["2026-11-30T00:53:20.123Z", 1_796_000_000_123, 29]
    assert value_of("[new Date().getHours(), new Date().getTimezoneOffset(), String(new Date())]") == [
        0, 0, "Mon, 30 Nov 2026 00:53:20 GMT",
    ]  # fmt: skip
    assert value_of("[new Date(2026, 0, 2, 3), new Date('2026-01-02T03:00'), new Date('Jan 2 2026 03:00')]") == [
        "2026-01-02T03:00:00.000Z"
    ] * 3  # fmt: skip
    assert value_of("[new Date('2026-01-02'), new Date('2026-01-02T03:00+02:00'), new Date(0)]") == [
        "2026-01-02T00:00:00.000Z", "2026-01-02T01:00:00.000Z", "1970-01-01T00:00:00.000Z",
    ]  # fmt: skip
    assert value_of("[new Date() instanceof Date, new Date().constructor.now(), isNaN(new Date('x'))]") == [
        True, 1_796_000_000_123, True,
    ]  # fmt: skip


def test_chance_is_the_messages() -> None:
    drawn = "[Math.random(), Math.random()]"
    first, second = value_of(drawn)
    assert value_of(drawn) == [first, second] and 0 <= first < 1 and first != second
    (other,) = sent(f"{SENDS}{drawn}}}", "B")
    assert isinstance(other, Request) and json.loads(other.body) != [first, second]


@pytest.mark.parametrize(
    "name",
    ["fetch", "XMLHttpRequest", "require", "process", "setTimeout", "performance", "Atomics", "SharedArrayBuffer",
     "queueMicrotask", "WeakRef", "FinalizationRegistry", "std", "os", "print"],
)  # fmt: skip
def test_what_reaches_outside_is_not_there(name: str) -> None:
    assert value_of(f"[typeof {name}]") == ["undefined"]


def test_nothing_is_left_for_the_next_event() -> None:
    script = """
        let count = 0;
        function send(event) {
          count += 1; globalThis.seen = (globalThis.seen || '') + event.name; Array.prototype.spoilt = true;
          return {url: 'https://a.example/x', body: [count, seen, Object.keys(Array.prototype)]};
        }"""
    bodies = [
        json.loads(one.body) for one in connector(script).send_events(events("A", "B")) if isinstance(one, Request)
    ]
    assert bodies == [[1, "A", ["spoilt"]], [1, "B", ["spoilt"]]]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("while (true) {}", "takes longer than 50 ms"),
        ("while (true) { try { while (true) {} } catch { } }", "takes longer than 50 ms"),
        ("(function f() { f(); })()", "calls itself too deep"),
        ("let deep = []; for (let i = 0; i < 2e4; i++) deep = [deep]; JSON.stringify(deep)", "calls itself too deep"),
        ("return {body: 'x'.repeat(1e9)}", "takes more than 16 MB"),
        ("const all = []; for (;;) all.push('x'.repeat(4e6) + all.length)", "takes more than 16 MB"),
        ("/(a+)+b/.test('a'.repeat(50))", "takes longer than 50 ms"),
        ("/^(\\w+\\s?)*$/.test('x'.repeat(40) + '!')", "takes longer than 50 ms"),
    ],
)
def test_bombs_end_with_their_event(body: str, reason: str) -> None:
    first, bomb, last = sent(f"if (event.name === 'Bomb') {{ {body} }} {SENDS}event.name}}", "A", "Bomb", "B")
    assert isinstance(bomb, Skip) and bomb.is_failure and reason in bomb.reason, bomb
    assert isinstance(first, Request) and isinstance(last, Request)
    assert (first.body, last.body) == (b"A", b"B")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("function send(event) {\n  let a = {;\n}", "line 2, column 12: SyntaxError"),
        ("function sent() {}", "defines no function send"),
        ("const send = 5", "defines no function send"),
        ("\n\nx.y; function send() {}", "line 3, column 1: ReferenceError: x is not defined"),
        ("while (true) {}", "line 1, column 1: the script takes longer than 50 ms"),
        ("import x from 'y'; function send() {}", "line 1, column 8: SyntaxError"),
        ("\n" * 2_000, "more than 2,000 lines"),
        ("", "defines no function send"),
    ],
)
def test_a_script_that_cannot_work_is_refused_when_it_is_saved(script: str, reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        JavascriptSettings(script=script)
    assert reason in caught.value.errors()[0]["msg"]
    assert caught.value.errors()[0]["loc"] == ("script",)


@pytest.mark.parametrize("script", ["const send = (event) => null", "let send = function () {}", "var send = () => []"])
def test_any_kind_of_function_will_do(script: str) -> None:
    (skip,) = connector(script).send_events(events("A"))
    assert skip == Skip(item=0, reason="the script leaves it out")


def test_settings_and_secrets_have_different_names() -> None:
    with pytest.raises(ValidationError, match="'a' stands in settings and in secrets"):
        JavascriptSettings.model_validate({"script": "function send(){}", "settings": {"a": 1}, "secrets": {"a": "b"}})


def test_errors_have_their_place_and_no_values() -> None:
    assert refusal("\n\n event.nothing.more") == (
        "line 3, column 2: TypeError: cannot read property 'more' of undefined"
    )
    given = "${profile.identifiers.email[0].toUpperCase()} of ${profile.traits.last_name}, +49 171 1234567"
    thrown = f"throw new Error(`bad {given}`)"
    assert re.fullmatch(r"line 1, column \d+: Error: bad … of …, …", refusal(thrown))
    assert refusal("throw 'x'") == "x (throw an Error, and its line is shown)"
    assert refusal("throw {}").endswith("(throw an Error, and its line is shown)")
    assert "promise" in refusal("return (async () => null)()")
    assert refusal("headrace.sha256(event.missing)") == "line 1, column 59: TypeError: a text is needed"


@pytest.mark.parametrize(
    "returned",
    ["{body: 1n}", "(() => { const o = {}; o.o = o; return {body: o}; })()", "{toString: 1, headers: {a: 1n}}"],
)
def test_what_is_no_json_is_refused(returned: str) -> None:
    assert "TypeError" in refusal(f"return {returned}")


def test_tampering_with_the_engine_harms_only_the_event() -> None:
    assert "cannot be written as JSON" in refusal("Object.prototype.toJSON = () => 5; return {body: {}}")
    (request,) = sent(f"JSON.stringify = Array.isArray = () => 'x'; {SENDS}[1]}}")
    assert isinstance(request, Request) and request.body == b"[1]"


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("5", "is no object"),
        ("[[]]", "is no object"),
        ("'https://a.example'", "is no object"),
        ("{}", "url must be an absolute https address"),
        ("{url: 'http://a.example'}", "url must be an absolute https address"),
        ("{url: 'a.example/x'}", "url must be an absolute https address"),
        ("{url: 'https://'}", "url must be an absolute https address"),
        ("{url: 'https://[::1'}", "url must be an absolute https address"),
        ("{url: 'https://a.example:99999/'}", "url must be an absolute https address"),
        ("{url: 'https://u:p@a.example/'}", "no user name or password"),
        ("{url: 'https://a.example/#x'}", "no fragment"),
        ("{url: 'https://a.example/ x'}", "encodeURIComponent"),
        ("{url: 'https://a.example/ä'}", "encodeURIComponent"),
        ("{url: 'https://a.example/\\r\\nx'}", "url must be"),
        ("{url: 'https://a.example/' + 'x'.repeat(9000)}", "url is longer"),
        ("{url: 'https://a.example', method: 'TRACE'}", "method must be one of"),
        ("{url: 'https://a.example', method: 'GET', body: 'x'}", "GET takes no body"),
        ("{url: 'https://a.example', body: '\\ud800'}", "half a character"),
        ("{url: 'https://a.example', body: 'x'.repeat(1000001)}", "body is longer"),
        ("{url: 'https://a.example', body: () => 1}", "body must be a text"),
        ("{url: 'https://a.example', heders: {}}", "unknown member heders"),
        ("{url: 'https://a.example', headers: []}", "headers must be an object"),
        ("{url: 'https://a.example', headers: {Host: 'b'}}", "header Host is set by the platform"),
        ("{url: 'https://a.example', headers: {'A B': 'b'}}", "name that is none"),
        ("{url: 'https://a.example', headers: {A: 'b\\nc'}}", "control character"),
        ("{url: 'https://a.example', headers: {A: '\\ud800'}}", "control character"),
        ("{url: 'https://a.example', headers: {A: null}}", "header A must be a text"),
        ("{url: 'https://a.example', headers: {A: 'b', a: 'c'}}", "given twice"),
        ("{url: 'https://a.example', secrets: 'x'}", "secrets must be a list"),
        ("Array(11).fill({url: 'https://a.example'})", "11 requests for one event"),
        ("[{url: 'https://a.example'}, {}]", "request 2 of 2: url"),
    ],
)
def test_what_cannot_be_sent(returned: str, reason: str) -> None:
    assert reason in refusal(f"return {returned}")


def test_what_can_be_sent() -> None:
    (request,) = sent(
        "return {method: 'put', url: 'https://a.example:8443/x?y=%20', headers: {'content-type': 'text/xml', n: 5,"
        " Authorization: 'Basic ' + btoa('user:password')}, body: '<ä/>', secrets: ['hidden']}"
    )
    assert request == Request(
        method="PUT",
        url="https://a.example:8443/x?y=%20",
        headers={"content-type": "text/xml", "n": "5", "Authorization": "Basic dXNlcjpwYXNzd29yZA=="},
        body="<ä/>".encode(),
        items=(0,),
        secrets=("hidden", "dXNlcjpwYXNzd29yZA=="),
    )
    (get,) = sent("return {url: 'http://a.example'}", allow_http=True)
    assert isinstance(get, Request) and (get.method, get.body, get.headers) == ("GET", b"", {})


def test_several_requests_are_of_their_event() -> None:
    built = sent("return event.name === 'B' ? [] : [1, 2].map((n) => ({url: `https://a.example/${n}`}))", "A", "B", "C")
    assert [(one.url[-1], one.items) for one in built if isinstance(one, Request)] == [
        ("1", (0,)), ("2", (0,)), ("1", (2,)), ("2", (2,)),
    ]  # fmt: skip
    assert [one.item for one in built if isinstance(one, Skip)] == [1]


@pytest.mark.parametrize("text", ["", "abc", "ä€😀", "x" * 55, "x" * 56, "x" * 64, "x" * 1000])
def test_hashes_and_encodings(text: str) -> None:
    given = json.dumps(text)
    found = value_of(f"[headrace.sha256({given}), headrace.hmacSha256('k'.repeat(70), {given})]")
    keyed = hmac.new(b"k" * 70, text.encode(), "sha256").hexdigest()
    assert found == [hashlib.sha256(text.encode()).hexdigest(), keyed]


def test_people_are_forgotten_by_a_function_of_the_script() -> None:
    batch = DeleteBatch(subjects=(Subject(profile_id="p-1", merged_ids=["p-0"]),), now_us=MOMENT_US)
    forgets = (
        "function send() {} const forget = (person, s) => ({method: 'DELETE', url: 'https://a.example/' + person.id})"
    )
    (request,) = connector(forgets).delete(batch)
    assert isinstance(request, Request) and (request.method, request.url) == ("DELETE", "https://a.example/p-1")
    (skip,) = connector("function send() {}").delete(batch)
    assert skip == Skip(item=0, reason="the script has no function forget")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, RateLimited),
        (503, TransientError),
        (408, TransientError),
        (401, AuthError),
        (404, RecordRejected),
        (302, RecordRejected),
    ],
)
def test_answers(status: int, error: type[Exception]) -> None:
    asked = Request(method="POST", url="https://a.example", items=(0,))
    with pytest.raises(error, match=str(status)):
        connector("function send() {}").read(asked, Response(status=status))


def test_what_an_event_cannot_be_given_is_said() -> None:
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ScriptError, match="nested too deep"):
        Script("function send() {}").call("send", [nested], time_us=0, identity="m")


def test_the_places_of_errors_are_those_of_the_script() -> None:
    script = "\n".join(["function send(event) {", *["  // a comment"] * 1_500, "  return event.a.b;", "}"])
    (skip,) = connector(script).send_events(events("A"))
    assert isinstance(skip, Skip) and re.match(r"line 1502, column \d+: TypeError", skip.reason)
