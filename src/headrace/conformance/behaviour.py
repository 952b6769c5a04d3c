"""Checks of how a connector reads what vendors answer, whatever it is, over real HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from headrace.conformance.bench import ADD, Bench, part
from headrace.conformance.checks import CheckFailed, check, require
from headrace.conformance.vendor import Answer, NoAnswer
from headrace.conformance.vendor_file import ACCEPTED, VendorAnswer
from headrace.plugins.errors import PluginError
from headrace_sdk import Delivered, Idempotency, Job, Outcomes, Pending, Rejected, Request, Response, Retry, Warned
from headrace_sdk.samples import NOW_US

_PAGE = b"<!doctype html><html><head><title>Welcome</title></head><body><p>It works.</p></body></html>"
_MEGABYTE = b'{"padding": "' + b"x" * (1_000_000 - 13)
_ASKED_WAIT_S = 37.0
_NO_TIME_S = 0.03
_LONG_S = 10.0
_IDS = ("event_id", "insert_id", "order_id", "transaction_id")
"""Ends of the names of fields that may take the place of an event's own id."""
_DISCARD = "Raise TransientError for an answer that is none of those that the vendor documents: it is tried again."
_VENDOR_FILE = "Put the answer into vendor.json, and read it as the vendor documents it."


def _http(bench: Bench) -> str:
    """Why a connector is not asked about HTTP."""
    return "requests over HTTP" if bench.info.schemes else ""


def _received(bench: Bench, request: Request, answer: Answer) -> Response:
    """An answer as it comes over HTTP, or as a connector's own `deliver` gives it."""
    if bench.info.schemes:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(status=answer.status, headers=headers, body=answer.body, received_at_us=NOW_US)
    return bench.run(bench.vendor.send(request, answer))


def _requests(bench: Bench, size: int = 2) -> Iterator[tuple[str, Request]]:
    """The first request of each call."""
    for call in bench.calls():
        requests = bench.build(bench.batch(call, size)).requests
        require(requests, f"{call}: there is no request to answer")
        yield call, requests[0]


def _read(bench: Bench, call: str, request: Request, answer: Answer) -> Outcomes:
    """What the connector makes of an answer."""
    try:
        return bench.run(bench.instance.read(request, _received(bench, request, answer)))
    except PluginError as error:
        raise CheckFailed(f"{call}: an answer with status {answer.status}: {error.reason}") from None


def kinds(outcomes: Outcomes) -> set[str]:
    """What outcomes say, in words."""
    names = {Delivered: "delivered", Warned: "warned", Rejected: "rejected", Retry: "retry", Pending: "pending"}
    found = {names[type(item)] for item in outcomes.items}
    flags = {
        "unauthorized": bool(outcomes.unauthorized),
        "misconfigured": bool(outcomes.misconfigured),
        "throttled": outcomes.throttle_s is not None,
    }
    return found | {name for name, holds in flags.items() if holds}


def _answer(given: VendorAnswer, request: Request) -> Answer:
    headers = {"Content-Type": "application/json" if given.is_json else "text/plain", **given.headers}
    return Answer(given.status, given.content(len(request.items)), headers)


def _unanswered(bench: Bench, answer: Answer) -> str:
    """Nothing is delivered by an answer that says nothing, where the vendor speaks JSON."""
    asked = 0
    for call, request in _requests(bench):
        if not bench.vendor_file.accepted(call, request).is_json:
            continue
        asked += 1
        found = kinds(_read(bench, call, request, answer))
        require(not found & {"delivered", "warned"}, f"{call}: read as {', '.join(sorted(found))}")
        require("rejected" not in found, f"{call}: read as rejected, so the items are lost")
    return f"not delivered by {asked} calls"


def _speaks_json(bench: Bench) -> str:
    if bench.info.schemes:
        return _http(bench)
    answers = [answer for answer in bench.vendor_file.answers if answer.name == ACCEPTED]
    if answers and not any(answer.is_json for answer in answers):
        return "an answer in JSON"
    return ""


@check("behaviour.accepted", "The vendor's answer when all is well is read as delivered.", _VENDOR_FILE)
def _accepted(bench: Bench) -> str:
    for call, request in _requests(bench):
        given = bench.vendor_file.accepted(call, request)
        found = kinds(_read(bench, call, request, _answer(given, request)))
        require(found <= {"delivered", "warned", "pending"}, f"{call}: read as {', '.join(sorted(found))}")
    return ", ".join(bench.calls())


def _more_answers(bench: Bench) -> str:
    further = any(answer.name != ACCEPTED for answer in bench.vendor_file.answers)
    return "" if further else "more answers in vendor.json"


@check("behaviour.answers", "Each further answer in vendor.json means what it says there: partial failures too.",
       "Correct read(), or the meaning in vendor.json.", _more_answers)  # fmt: skip
def _answers(bench: Bench) -> str:
    count = 0
    for answer in bench.vendor_file.answers:
        if answer.name == ACCEPTED:
            continue
        for call in bench.calls():
            words = (answer.means,) if isinstance(answer.means, str) else answer.means
            for request in bench.build(bench.batch(call, max(len(words), 1))).requests[:1]:
                if not answer.answers(call, request):
                    continue
                count += 1
                outcomes = _read(bench, call, request, _answer(answer, request))
                _compare(f"{answer.name}, {call}", outcomes, answer)
    require(count, "none of the further answers belongs to a request")
    return f"{count} answers"


def _compare(what: str, outcomes: Outcomes, answer: VendorAnswer) -> None:
    if isinstance(answer.means, str):
        found = kinds(outcomes)
        require(answer.means in found, f"{what}: read as {', '.join(sorted(found))}, not {answer.means}")
        return
    for place, outcome in enumerate(outcomes.items):
        due = answer.means[min(place, len(answer.means) - 1)]
        found = kinds(Outcomes(items=(outcome,)))
        require(due in found, f"{what}: item {place} read as {', '.join(found)}, not {due}")


@check("behaviour.rate-limited", "A 429 with Retry-After delivers and loses nothing, and its time is kept.",
       "Raise RateLimited(reason, response.retry_after_s()) for status 429.", _http)  # fmt: skip
def _rate_limited(bench: Bench) -> str:
    for call, request in _requests(bench):
        outcomes = _read(bench, call, request, Answer(429, b"{}", {"Retry-After": f"{_ASKED_WAIT_S:.0f}"}))
        found = kinds(outcomes)
        require(not found & {"delivered", "warned", "rejected"}, f"{call}: read as {', '.join(sorted(found))}")
        waits = [item.after_s for item in outcomes.items if isinstance(item, Retry) and item.after_s is not None]
        if outcomes.throttle_s is not None:
            waits.append(outcomes.throttle_s)
        require(max(waits, default=0.0) >= _ASKED_WAIT_S, f"{call}: the time of Retry-After is not kept")
    return f"waits {_ASKED_WAIT_S:.0f} s"


@check("behaviour.server-error", "500, 502 and 503 are tried again, whatever their body.",
       "Raise TransientError for each status from 500.", _http)  # fmt: skip
def _server_error(bench: Bench) -> str:
    for call, request in _requests(bench):
        for status, body in ((500, b"{}"), (502, _PAGE), (503, b"")):
            found = kinds(_read(bench, call, request, Answer(status, body)))
            require("retry" in found, f"{call}: {status} read as {', '.join(sorted(found))}")
            lost = found & {"delivered", "warned", "rejected", "unauthorized", "misconfigured"}
            require(not lost, f"{call}: {status} read as {', '.join(sorted(lost))}")
    return "tried again"


@check("behaviour.expired-token", "A 401 stops the destination until its credentials are mended, and loses nothing.",
       "Raise AuthError for status 401.", _http)  # fmt: skip
def _expired_token(bench: Bench) -> str:
    for call, request in _requests(bench):
        found = kinds(_read(bench, call, request, Answer(401, b"{}", {"Content-Type": "application/json"})))
        require("unauthorized" in found, f"{call}: 401 read as {', '.join(sorted(found))}")
        require(not found & {"delivered", "warned", "rejected"}, f"{call}: 401 read as {', '.join(sorted(found))}")
    return "stopped"


@check("behaviour.refused", "Other refusals (400, 403, 404, 409, 418) are never read as delivered.",
       "Begin read() with the status: what is not 2xx was not taken.", _http)  # fmt: skip
def _refused(bench: Bench) -> str:
    for call, request in _requests(bench):
        for status in (400, 403, 404, 409, 418):
            found = kinds(_read(bench, call, request, Answer(status, b"{}", {"Content-Type": "application/json"})))
            lost = found & {"delivered", "warned", "pending"}
            if call == "delete" and status == 404:
                lost -= {"delivered", "warned"}  # who is not there is forgotten
            require(not lost, f"{call}: {status} read as {', '.join(sorted(lost))}")
    return "not delivered"


@check("behaviour.redirect", "A redirect is never read as delivered.",
       "The host follows no redirect: raise ConfigError or TransientError for 3xx.", _http)  # fmt: skip
def _redirect(bench: Bench) -> str:
    for call, request in _requests(bench):
        for status in (301, 302, 307):
            answer = Answer(status, b"", {"Location": "http://127.0.0.1:9/elsewhere"})
            found = kinds(_read(bench, call, request, answer))
            require(not found & {"delivered", "warned", "pending"}, f"{call}: {status} read as delivered")
    return "not delivered"


@check("behaviour.non-json", "A 200 with a web page where JSON is due is tried again.", _DISCARD, _speaks_json)
def _non_json(bench: Bench) -> str:
    return _unanswered(bench, Answer(200, _PAGE, {"Content-Type": "text/html"}))


@check("behaviour.unknown-answer", "A 200 with JSON of another kind than the vendor documents is tried again.",
       _DISCARD, _speaks_json)  # fmt: skip
def _unknown_answer(bench: Bench) -> str:
    _unanswered(bench, Answer(200, b"[[17]]", {"Content-Type": "application/json"}))
    return _unanswered(bench, Answer(200, b"null", {"Content-Type": "application/json"}))


@check("behaviour.huge", "A 200 with 50 MB, cut after the first megabyte, is read quickly and tried again.",
       f"{_DISCARD} Use response.json(), which gives None for what was cut.", _speaks_json)  # fmt: skip
def _huge(bench: Bench) -> str:
    started = time.monotonic()
    found = _unanswered(bench, Answer(200, _MEGABYTE, {"Content-Type": "application/json"}, times=50))
    require(time.monotonic() - started < _LONG_S * len(bench.calls()), "reading it takes longer than ten seconds")
    return found


@check("behaviour.slow", "After an answer that does not come, and others that do, the very same request is made again.",
       "Make requests of the batch and the settings alone: keep no memory of answers.", _http)  # fmt: skip
def _slow(bench: Bench) -> str:
    for call in bench.calls():
        batch = bench.batch(call)
        first = bench.build(batch).requests
        require(first, f"{call}: there is no request")
        try:
            bench.run(bench.vendor.send(first[0], Answer(never=True), timeout_s=_NO_TIME_S))
        except NoAnswer:
            for other, request in _requests(bench):
                _read(bench, other, request, _answer(bench.vendor_file.accepted(other, request), request))
            require(bench.build(batch).requests == first, f"{call}: another request is made of the same batch")
        else:
            raise CheckFailed(f"{call}: the vendor's answer came all the same")
    return "the same request"


@check("behaviour.half-closed", "A 200 whose JSON breaks off, the connection being closed, is tried again.", _DISCARD,
       _speaks_json)  # fmt: skip
def _half_closed(bench: Bench) -> str:
    asked = 0
    for call, request in _requests(bench):
        given = bench.vendor_file.accepted(call, request)
        if given.is_json:
            asked += 1
            whole = _answer(given, request)
            half = replace(whole, body=whole.body[: len(whole.body) // 2], until_closed=True)
            found = kinds(_read(bench, call, request, half))
            require(not found & {"delivered", "warned", "rejected"}, f"{call}: read as {', '.join(sorted(found))}")
    return f"not delivered by {asked} calls"


def _key_needed(bench: Bench) -> str:
    return "" if bench.info.idempotency is Idempotency.KEY else "idempotency by key"


@check("behaviour.duplicates", "An item that is sent once more, later or in other company, carries the same key.",
       "Send message_id, or a digest of the item, as the vendor's key: never the place in the batch or the clock.",
       _key_needed)  # fmt: skip
def _duplicates(bench: Bench) -> str:
    for call in bench.calls():
        if call != "send_events":
            continue
        batch = bench.batch(call)
        for place, event in enumerate(batch.items):
            alone = bench.build(part(batch, [place]), now_us=NOW_US + 60_000_000).requests
            text = b"".join(request.url.encode() + repr(request.headers).encode() + request.body for request in alone)
            other = bench.build(part(batch, [place])).requests
            named = _key_of(event.message_id, event.fields) & _words(text)
            require(named or alone == other, "the id is not there, and the request is another one a minute later")
            require(len(alone) == len(other), f"{call}: another number of requests a minute later")
    return "the same key"


def _key_of(message_id: str, fields: dict[str, object]) -> set[str]:
    """Forms in which an event's own id may stand in a request: as it is, without dashes, or a field in its place."""
    ids = {
        message_id,
        *(str(value) for name, value in fields.items() if name.endswith(_IDS)),
    }
    return ids | {one.replace("-", "") for one in ids}


def _words(text: bytes) -> _Within:
    return _Within(text.decode("utf-8", "replace"))


class _Within:
    """What stands in a text: `{"a", "b"} & _Within(text)` are the texts that do."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rand__(self, texts: set[str]) -> set[str]:
        return {text for text in texts if text and text in self._text}


def _small_list_needed(bench: Bench) -> str:
    return "" if ADD in bench.calls() and bench.info.minimum_list_size else "minimum_list_size"


@check("behaviour.small-list", "A list below the minimum size is sent all the same, and its refusal loses nothing.",
       "Send every member; read the vendor's refusal of a small list as Retry, Warned or ConfigError.",
       _small_list_needed)  # fmt: skip
def _small_list(bench: Bench) -> str:
    batch = bench.batch(ADD, 1)
    found = bench.build(batch)
    require(found.requests and not found.skipped, "a single member is not sent")
    for answer in bench.vendor_file.answers:
        if "small" in answer.name:
            outcomes = kinds(_read(bench, ADD, found.requests[0], _answer(answer, found.requests[0])))
            require("rejected" not in outcomes, "the refusal of a small list is read as rejected: the members are lost")
    return "sent"


def _jobs_needed(bench: Bench) -> str:
    return "" if "jobs" in bench.info.capabilities else "jobs"


@check("behaviour.jobs", "Items that the vendor takes into a job are asked for by a request for all of them.",
       'Put the answer that opens a job into vendor.json, with "means": "pending".', _jobs_needed)  # fmt: skip
def _jobs(bench: Bench) -> str:
    for call, request in _requests(bench):
        for given in bench.vendor_file.answers:
            if not given.answers(call, request):
                continue
            outcomes = _read(bench, call, request, _answer(given, request))
            for outcome in outcomes.items:
                if isinstance(outcome, Pending):
                    job = Job(id=outcome.job, items=len(request.items), now_us=NOW_US)
                    return f"asked by {_asked(bench, job).method}"
    raise CheckFailed("no answer in vendor.json opens a job")


def _asked(bench: Bench, job: Job) -> Request:
    try:
        return bench.run(bench.instance.poll(job))
    except PluginError as error:
        raise CheckFailed(f"no request asks for the job: {error.reason}") from None
